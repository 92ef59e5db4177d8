"""The moment of the switch, and programs that do something else in it: one copy goes on, and only one."""

import os
import re
import signal
import socket
import subprocess
import threading
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.link import READY, RUN, RUNNING
from tests.harness.relay import Relay
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.failures import Witness, try_and_stay

_MOST_EPOCHS = 100_000


def cut_in(frame: tuple, kept: int, moves: bool, lab) -> None:
    """The link ends when `kept` bytes of a frame have passed, and stands again. Every epoch is begun by one copy only:
    it makes a file that must not be there."""
    receiver = lab.receiver()
    link = lab.link(receiver, cut_in=(frame, kept), comes_back=True)
    program = lab.program("epochs", [compile_c("epochs", lab.directory)])
    program.wait_lines(3)
    program.aim(link.port)
    program.trigger()
    until(lambda: receiver.find("resumed") or program.left(), "an outcome", 30)
    until(lambda: link.cuts == 1, "the link to have been cut there")
    before = _epochs(program)
    until(lambda: _epochs(program) > before + 50, "the epochs to go on", alive=[receiver])
    if moves:
        expect(not program.left() and program.wait() == 0, f"the source ended with {program.last_words()}")
    else:
        expect(program.left() and not program.ended(), f"the source did not go on: {program.last_words()}")
        expect(not receiver.find("resumed"), "it runs on both sides")
    text = program.text() + receiver.text()
    expect("there already" not in text, "two copies have begun one epoch")
    numbers = [int(line) for line in text.rpartition("\n")[0].splitlines() if line.isdigit()]
    expect(sorted(numbers) == list(range(len(numbers))), "an epoch is missing or was begun twice")


def _epochs(program) -> int:
    """How many epochs there are; each has its file."""
    made = {int(name.partition(".")[2]) for name in os.listdir(program.directory) if name.startswith("epoch.")}
    expect(len(made) < _MOST_EPOCHS and made == set(range(len(made))), "an epoch has no file")
    return len(made)


def unparkable(lab) -> None:
    """A thread that no signal reaches is named, the others go on; when it can be reached, the program moves."""
    receiver = lab.receiver()
    program = lab.program("unparkable", [compile_c("unparkable", lab.directory)])
    program.wait_lines(3)
    thread = re.search(r"^thread (\d+)$", program.text(), re.MULTILINE)[1]
    program.aim(receiver.port)
    try_and_stay(Witness(program), rf"thread {thread}\b")
    expect(not receiver.find("resumed"), "it was moved after all")
    program.process.send_signal(signal.SIGUSR1)
    until(lambda: "it goes on" in program.text(), "the thread to go on", alive=[program])
    lab.move(program, receiver).wait_complete()


class _Silence:
    """Somebody who takes every connection and never says a word: an attempt waits in the middle."""

    def __init__(self, program):
        self.program = program
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(20)
        self.taken = []
        program.aim(self.listener.getsockname()[1])

    def begin(self) -> None:
        self.program.trigger()
        self.taken.append(self.listener.accept()[0])

    def more(self) -> int:
        """How many more connections have come."""
        self.listener.setblocking(False)
        try:
            while True:
                self.taken.append(self.listener.accept()[0])
        except BlockingIOError:
            return len(self.taken)

    def end(self) -> None:
        for each in [self.listener, *self.taken]:
            each.close()


def twice(lab) -> None:
    """A second signal while a move is on its way is ignored, and this is said; the first one goes on."""
    receiver = lab.receiver()
    program = lab.target("counter", "--interval-ms", "1")
    program.wait_lines(2)
    witness, silence = Witness(program), _Silence(program)
    silence.begin()
    program.trigger()
    until(lambda: "under way" in program.errors(), "the second signal to be answered", alive=[program])
    expect(not program.left(), f"the first attempt has ended: {program.last_words()}")
    connections = silence.more()
    expect(connections <= 3, f"{connections} connections: the second signal began another attempt")
    silence.end()
    until(program.left, "the line that says why", 20, alive=[program])
    witness.expect_unharmed()
    program.aim(receiver.port)
    for _ in range(5):
        program.trigger()
    until(lambda: receiver.find("complete"), "the move", alive=[receiver])
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    expect(sum(event["event"] == "resumed" for event in receiver.events()) == 1, "it was moved more than once")


def forks_meanwhile(lab) -> None:
    """The program forks while a move is being prepared: the child has nothing of it and can be asked to move itself."""
    program = lab.program("meanwhile", [compile_c("meanwhile", lab.directory)], stdin=subprocess.PIPE)
    program.wait_lines(3)
    before = set(machine.layout(program.pid))
    silence = _Silence(program)
    silence.begin()
    _tell(program, "fork")
    until(lambda: "child 19" in program.text().splitlines(), "the child to count", alive=[program])
    child = machine.children(program.pid)[0]
    more = set(machine.layout(child)) - before
    expect(not more, f"the child has {more} of the attempt")
    os.kill(child, program.trigger_signal)
    until(lambda: silence.more() > 3, "the child's own attempt", alive=[program])
    silence.end()
    until(lambda: len(program.left()) == 2, "the lines that say why", 20, alive=[program])
    os.kill(child, signal.SIGUSR1)
    until(lambda: "child's status 0" in program.text().splitlines(), "the child to end", alive=[program])
    _moves_later(program, lab)


def execs_meanwhile(lab) -> None:
    """The program calls exec while a move is being prepared: the new one has nothing of it."""
    program = lab.program("meanwhile", [compile_c("meanwhile", lab.directory)], stdin=subprocess.PIPE)
    program.wait_lines(3)
    before = machine.descriptors(program.pid)
    silence = _Silence(program)
    silence.begin()
    _tell(program, "exec")
    until(lambda: program.text().splitlines().count("begin 0") == 2, "the new program", alive=[program])
    expect(machine.descriptors(program.pid) == before, "it has descriptors of the attempt")
    silence.end()
    _moves_later(program, lab)


def starts_threads_meanwhile(lab) -> None:
    """A thread that is started when the receiver has everything reserved moves along."""
    receiver = lab.receiver()
    program = lab.program("meanwhile", [compile_c("meanwhile", lab.directory)], stdin=subprocess.PIPE)
    program.wait_lines(3)
    reserved, started = threading.Event(), threading.Event()

    def hold(connection: int, outward: bool, offset: int, data: bytes) -> bytes:
        if connection == 0 and not outward and offset > 0:  # behind the greeting
            reserved.set()
            started.wait(20)
        return data
    relay = Relay(receiver.port, hold)
    lab.links.append(relay)
    program.aim(relay.port)
    program.trigger()
    expect(reserved.wait(20), "the receiver has reserved nothing")
    _tell(program, "thread")
    until(lambda: "thread 2" in program.text().splitlines(), "the thread to count", alive=[program])
    started.set()
    resumed = until(lambda: receiver.find("resumed"), "the move", alive=[receiver])
    until(lambda: receiver.find("complete"), "the memory", alive=[receiver])
    expect(len(machine.threads(resumed["pid"])) == 2, "it has another number of threads")
    until(lambda: "thread 199" in receiver.text().splitlines(), "both threads to count on", alive=[receiver])
    lines = (program.final_text() + receiver.text()).splitlines()
    numbers = [int(line.split()[1]) for line in lines if line.startswith("thread ")]
    expect(numbers == list(range(200)), "the thread has not counted on")


def _tell(program, word: str) -> None:
    program.process.stdin.write(f"{word}\n".encode())
    program.process.stdin.flush()


def _moves_later(program, lab) -> None:
    program.wait_lines(program.text().count("\n") + 5)
    until(lambda: len(machine.threads(program.pid)) == 1, "the helper to be gone")
    receiver = lab.receiver()
    before = _last_number(program.text())
    moved = lab.move(program, receiver)
    moved.wait_complete()
    until(lambda: _last_number(moved.text()) > before + 5, "it to count on", alive=[receiver, moved])


def _last_number(text: str) -> int:
    numbers = [int(line) for line in text.rpartition("\n")[0].splitlines() if line.isdigit()]
    return numbers[-1] if numbers else -1


def another_version(lab) -> None:
    """The receiver speaks another version of the protocol: one line says so."""
    program = lab.target("counter", "--interval-ms", "1")
    program.wait_lines(2)
    witness = Witness(program)
    with socket.create_server(("127.0.0.1", 0)) as server:
        program.aim(server.getsockname()[1])
        program.trigger()
        connection, _ = server.accept()
        with connection:
            connection.sendall(bytes([1, 0, 0, 0, 2, 0]) + bytes(10) + b"\x09")  # Welcome to version 9
            until(program.left, "the line that says why", 20, alive=[program])
    expect("version" in program.left()[0], f"it said {program.left()}")
    witness.expect_unharmed()


def bad_address(line: str, lab) -> None:
    """What receiver_info.txt must hold is said in one line."""
    program = lab.target("counter", "--interval-ms", "1")
    program.wait_lines(2)
    (program.directory / "receiver_info.txt").write_text(line)
    try_and_stay(Witness(program), "receiver_info.txt must hold one line")


def _checks() -> list:
    cuts = [(READY, "Ready", (0, 15, 16), False), (RUN, "Run", (0, 1, 15), False), (RUN, "Run", (16,), True),
            (RUNNING, "Running", (0, 1, 15), True)]
    checks = [Check(f"the link is cut {kept} bytes into {name}: it goes on {'there' if moves else 'here'}, once",
                    partial(cut_in, frame, kept, moves))
              for frame, name, all_kept, moves in cuts for kept in all_kept]
    checks += [Check(f"{what} while a move is prepared: the program is whole and moves later", check)
               for what, check in (("fork", forks_meanwhile), ("exec", execs_meanwhile))]
    return checks + [
        Check("thread while a move is prepared: it moves along", starts_threads_meanwhile),
        Check("a thread that cannot be parked is named and the program goes on", unparkable),
        Check("a second signal while a move is on its way is ignored and said so", twice),
        Check("a receiver of another version: the program goes on and says so", another_version),
        Check("receiver_info.txt with words is refused in one line", partial(bad_address, "somewhere else\n")),
        Check("receiver_info.txt without a port is refused in one line", partial(bad_address, "127.0.0.1\n")),
    ]


CHECKS = _checks
