"""The moment of the switch, and programs that do something else in it: one copy goes on, and only one."""

import os
import re
import signal
import socket
import subprocess
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.link import READY, RUN, RUNNING
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


def meanwhile(what: str, lab) -> None:
    """The program forks, calls exec or starts a thread while a move is being prepared; it is whole, and moves later."""
    program = lab.program("meanwhile", [compile_c("meanwhile", lab.directory)], stdin=subprocess.PIPE)
    program.wait_lines(3)
    silence = _Silence(program)
    silence.begin()
    program.process.stdin.write(f"{what}\n".encode())
    program.process.stdin.flush()
    words = {"fork": "child's status 0", "exec": "begin 0", "thread": "thread 19"}[what]
    wanted = 2 if what == "exec" else 1
    until(lambda: program.text().splitlines().count(words) == wanted, f"{what} to be done", alive=[program])
    silence.end()
    if what != "exec":  # a new program does not know what the one before it has begun
        until(program.left, "the line that says why", 20, alive=[program])
    program.wait_lines(program.text().count("\n") + 5)
    until(lambda: len(machine.threads(program.pid)) == (2 if what == "thread" else 1), "the helper to be gone")
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
    checks += [Check(f"{what} while a move is prepared: the program is whole and moves later", partial(meanwhile, what))
               for what in ("fork", "exec", "thread")]
    return checks + [
        Check("a thread that cannot be parked is named and the program goes on", unparkable),
        Check("a second signal while a move is on its way is ignored and said so", twice),
        Check("a receiver of another version: the program goes on and says so", another_version),
        Check("receiver_info.txt with words is refused in one line", partial(bad_address, "somewhere else\n")),
        Check("receiver_info.txt without a port is refused in one line", partial(bad_address, "127.0.0.1\n")),
    ]


CHECKS = _checks
