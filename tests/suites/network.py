"""Open TCP connections move with a server from one network namespace to another, under load."""

import re
import subprocess
import sys

from tests.harness import machine
from tests.harness.lab import Lab
from tests.harness.network import ADDRESS, Network
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until

PORT = 7000
MOVES = 10
LINES_BETWEEN_MOVES = 300


class Scene:
    """A server at the left, which the world's client is connected to, and a receiver on either side."""

    def __init__(self, lab: Lab, *arguments: str):
        self.lab, self.network = lab, Network(lab)
        self.receivers = {name: lab.receiver(name, wrapper=self.network.inside(name), arguments=arguments)
                          for name in ("left", "right")}
        # The server is started with the parasite, and nsenter is not.
        command = [*self.network.inside("left"), "env", f"LD_PRELOAD={machine.BIN / 'libsender.so'}", sys.executable,
                   str(machine.PROGRAMS / "numbered_server.py"), ADDRESS, str(PORT)]
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
        return [int(number) for number in lines[-1]] if lines else [0, 0, 0]

    def wait_for_load(self) -> None:
        """Waits until every connection has gone on for a while."""
        before = self.answered()

        def has_gone_on():
            return all(now > then + LINES_BETWEEN_MOVES for now, then in zip(self.answered(), before))
        until(has_gone_on, f"answers beyond {before}", 60, alive=[self.client])

    def move(self, process, here: str, there: str):
        """Moves the server while the world reaches neither side, as when a machine's address is moved."""
        link = self.lab.link(self.receivers[there], listener=self.network.listener(here),
                             entered=lambda: self.network.entered(there))
        self.network.reach(None)
        moved = self.lab.move_through(process, self.receivers[there], link)
        self.network.reach(there)
        moved.wait_complete()
        return moved

    def finish(self, server) -> None:
        """Ends the client and looks whether every line came back and the server has seen nothing wrong."""
        self.client.process.stdin.close()
        expect(self.client.wait(60) == 0, f"the client: {self.client.last_words()}")
        expect("every line came back" in self.client.final_text(), "not every line came back")
        until(lambda: server.text().count("closed after") == 3, "the server to see the end of three connections")
        for text in [self.server.text(), *(receiver.text() for receiver in self.receivers.values())]:
            expect("wrong" not in text and "lost" not in text, f"the server: {text[:500]}")


def connections_move(lab: Lab) -> None:
    scene = Scene(lab, "--tcp", "move")
    server, here, there = scene.server, "left", "right"
    for _ in range(MOVES):
        scene.wait_for_load()
        server = scene.move(server, here, there)
        here, there = there, here
    scene.wait_for_load()
    scene.finish(server)


CHECKS = lambda: [Check(f"a server under load moves {MOVES} times with its connections", connections_move)]
