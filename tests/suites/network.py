"""Open TCP connections move with a server from one network namespace to another, or are relayed, under load."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
from functools import partial

from tests.harness import machine
from tests.harness.lab import Lab
from tests.harness.network import ADDRESS, OTHER_ADDRESS, Network
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until

PORT = 7000
MOVES = 10
CONNECTIONS = 3
LINES_BETWEEN_MOVES = 300


class Scene:
    """A server at the left, which the world's client is connected to, and a receiver on either side."""

    def __init__(self, lab: Lab, network: Network, arguments: tuple, settings: dict):
        self.lab, self.network = lab, network
        self.receivers = {name: lab.receiver(name, wrapper=self.network.inside(name), arguments=arguments)
                          for name in ("left", "right")}
        # The server is started with the parasite, and nsenter is not.
        variables = {"LD_PRELOAD": str(machine.BIN / "libsender.so"), **settings}
        command = [*self.network.inside("left"), "env", *(f"{name}={value}" for name, value in variables.items()),
                   sys.executable, str(machine.PROGRAMS / "numbered_server.py"), ADDRESS, str(PORT)]
        self.server = lab.program("server", command, settings={"LD_PRELOAD": ""})
        self.server.wait_lines(1)
        self.network.reach("left")
        client = [*self.network.inside("world"), sys.executable, str(machine.PROGRAMS / "numbered_client.py"), ADDRESS,
                  str(PORT)]
        self.client = lab.program("client", client, settings={"LD_PRELOAD": ""}, stdin=subprocess.PIPE)

    def answered(self) -> list:
        """How many lines have come back over each connection."""
        words = self.client.errors().strip()
        if words:
            raise Failure(f"the client: {words}")
        lines = re.findall(r"^answered (\d+) (\d+) (\d+)$", self.client.text(), re.MULTILINE)
        return [int(number) for number in lines[-1]] if lines else [0] * CONNECTIONS

    def wait_for_load(self) -> None:
        """Waits until every connection has gone on for a while."""
        before = self.answered()

        def has_gone_on():
            return all(now > then + LINES_BETWEEN_MOVES for now, then in zip(self.answered(), before))
        until(has_gone_on, f"answers beyond {before}", 60, alive=[self.client])

    def finish(self, server) -> None:
        """Ends the client and looks whether every line came back and the server has seen nothing wrong."""
        self.client.process.stdin.close()
        expect(self.client.wait(60) == 0, f"the client: {self.client.last_words()}")
        expect("every line came back" in self.client.final_text(), "not every line came back")
        until(lambda: server.text().count("closed after") == CONNECTIONS, "the server to see every connection end")
        for text in [self.server.text(), *(receiver.text() for receiver in self.receivers.values())]:
            expect("wrong" not in text and "lost" not in text, f"the server: {text[:500]}")


def connections_move(lab: Lab) -> None:
    scene = Scene(lab, Network(lab), ("--tcp", "move"), {})
    server, here, there = scene.server, "left", "right"
    for _ in range(MOVES):
        scene.wait_for_load()
        # The world reaches neither side meanwhile, as when a machine's address is moved.
        link = lab.link(scene.receivers[there], listener=scene.network.listener(here),
                        entered=lambda there=there: scene.network.entered(there))
        scene.network.reach(None)
        server = lab.move_through(server, scene.receivers[there], link)
        scene.network.reach(there)
        server.wait_complete()
        here, there = there, here
    scene.wait_for_load()
    scene.finish(server)


@contextlib.contextmanager
def _captured(network: Network, device: str):
    """What passes a device of the world, as one string of bytes that grows."""
    seen, packets, is_over = network.capture("world", device), bytearray(), threading.Event()
    seen.settimeout(0.2)

    def read():
        while not is_over.is_set():
            with contextlib.suppress(TimeoutError):
                packets.extend(seen.recv(1 << 17))
    thread = threading.Thread(target=read, name="capture", daemon=True)
    thread.start()
    try:
        yield packets
    finally:
        is_over.set()
        thread.join()
        seen.close()


def _relayed(lab: Lab, moves: int, after) -> None:
    """The server goes from one machine to the other and back, its connections stay where they were made."""
    network, key = Network(lab, apart=True), lab.key()
    scene = Scene(lab, network, ("--tcp", "relay", "--bind", "0.0.0.0", "--key-file", key),
                  {"POSTHASTE_KEY_FILE": key})
    scene.receivers["left"].host, scene.receivers["right"].host = ADDRESS, OTHER_ADDRESS
    server, here, there = scene.server, "left", "right"
    with _captured(network, "to-right") as packets:
        for _ in range(moves):
            scene.wait_for_load()
            server = lab.move(server, scene.receivers[there])
            report = server.wait_complete()["report"]
            expect(report["relayed_connections"] == CONNECTIONS, f"tied by {report['relayed_connections']} connections")
            here, there = there, here
        scene.wait_for_load()
        after(scene, server)
    expect(len(packets) > 1 << 20, f"only {len(packets)} bytes passed between the machines")
    for word in (b"\nfast ", b"\nslow ", b"\ndeaf "):
        expect(word not in packets, "the way between the machines shows what is relayed")


def connections_are_relayed(lab: Lab) -> None:
    def finish(scene: Scene, server) -> None:
        expect(not scene.server.ended(), "the source has ended while it has connections to relay")
        scene.finish(server)
        expect(scene.server.wait(20) == 0, f"the source ended with {scene.server.last_words()}")
        receivers = scene.receivers.values()
        until(lambda: sum(event["event"] == "untied" for receiver in receivers for event in receiver.events()) == MOVES,
              "every receiver to tell that nothing is tied any more", 20)
    _relayed(lab, MOVES, finish)


def a_relay_breaks(number: int, lab: Lab) -> None:
    """Whatever ends in the middle of a relayed connection, both sides learn that it broke; neither waits for ever."""
    def kill(scene: Scene, server) -> None:
        expect(not scene.server.ended(), "the source has ended while it has connections to relay")
        scene.server.process.send_signal(number)
        expect(scene.server.wait(20) == (-number if number == signal.SIGKILL else 0), scene.server.last_words())
        until(scene.client.ended, "the client to notice", 20)
        expect("reset" in scene.client.errors(), f"the client: {scene.client.last_words()}")
        until(lambda: server.text().count("closed after") == CONNECTIONS, "the server to notice", 20)
        expect(server.text().count("Connection reset") == CONNECTIONS, f"the server: {server.text()[-500:]}")
    _relayed(lab, 1, kill)


CHECKS = lambda: [Check(f"a server under load moves {MOVES} times with its connections", connections_move),
                  Check(f"a server under load moves {MOVES} times, to and fro between two addresses, and its connections"
                        " are relayed", connections_are_relayed),
                  Check("a relay that is killed breaks its connections on both sides",
                        partial(a_relay_breaks, signal.SIGKILL)),
                  Check("a relay that is asked to end (SIGTERM) breaks its connections on both sides and ends",
                        partial(a_relay_breaks, signal.SIGTERM))]
