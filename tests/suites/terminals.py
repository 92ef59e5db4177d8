"""Pseudo-terminals whose both ends are inside move, with their names, settings and what is on its way in them."""

import signal
import sys
from functools import partial

from tests.harness.compiling import compile_c
from tests.harness.counting import end_well, onward
from tests.harness.link import READY, RUN
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.check import LOSES, MOVES, REFUSES, check, expect_verdict
from tests.suites.failures import Witness, try_and_stay

_MOVES = 3
# What users write: a terminal for somebody else, of which both ends are still here, and a reader in the middle of a call.
_PYTHON = r"""
import itertools, os, select, signal, termios, threading, time, tty
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
master, slave = os.openpty()
name, seen = os.ttyname(slave), []
tty.setraw(slave)
termios.tcsetwinsize(master, (33, 99))
def read():
    poll = select.poll()
    poll.register(master, select.POLLIN)
    while poll.poll():
        seen.append(os.read(master, 1000))
threading.Thread(target=read, daemon=True).start()
for number in itertools.count():
    os.write(master, b"waits\r\x03for the slave")
    print(f"number {number}", flush=True)
    signal.sigwait({signal.SIGUSR1})
    os.write(slave, b"after move %d\n" % number)
    while not b"".join(seen).endswith(b"\n"):
        time.sleep(0.001)
    same = os.ttyname(slave) == name and os.stat(name).st_ino == os.fstat(slave).st_ino
    print(same, termios.tcgetwinsize(slave), os.read(slave, 100), b"".join(seen), flush=True)
    seen.clear()
"""
_READ = "True (33, 99) b'waits\\r\\x03for the slave' b'after move {}\\n'"
_COUNT = "import itertools, time\nfor n in itertools.count():\n    print(n, flush=True)\n    time.sleep(0.002)\n"
# Kinds of terminals: what is said of them, and how they are made.
_TOLD = {
    "was never opened": (LOSES, "never opened", "a = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)"),
    "nobody reads": (REFUSES, "read it first", "a, b = os.openpty()\nos.set_blocking(b, False)\n"
                     "for _ in range(50):\n    try:\n        while True: os.write(b, b'x' * 1000)\n"
                     "    except BlockingIOError: time.sleep(0.002)"),
    "was stopped": (REFUSES, "read it first", "a, b = os.openpty()\ntermios.tcflow(b, termios.TCOOFF)"),
    "holds more than the kernel works on": (REFUSES, "read it first",
                                            "a, b = os.openpty()\ntty.setraw(b)\nos.write(a, b'x' * 5000)"),
    "tells of a flush in packet mode": (REFUSES, "packet mode", "a, b = os.openpty()\n"
                                        "fcntl.ioctl(a, termios.TIOCPKT, b'\\1\\0\\0\\0')\ntermios.tcflush(b, termios.TCIOFLUSH)"),
}


def every_state(lab) -> None:
    """Three moves of a program with eight terminals that looks at all of them after each."""
    receivers = [lab.receiver() for _ in range(2)]
    process = lab.program("terminals", [compile_c("terminals", lab.directory)])
    process.wait_lines(20)
    expect_verdict(process.pid, LOSES)
    for step in range(_MOVES):
        process = onward(lab, process, receivers[step % 2], step + 1)
    end_well(process)


def stays(frame: tuple, lab) -> None:
    """The link ends when everything has been taken out: it is there again, and the next attempt takes it out once more."""
    receiver = lab.receiver()
    program = lab.program("terminals", [compile_c("terminals", lab.directory)])
    program.wait_lines(20)
    for _ in range(3):
        link = lab.link(receiver, cut_in=(frame, 0), comes_back=True)
        program.aim(link.port)
        try_and_stay(Witness(program))
        expect(link.cuts == 1 and not receiver.find("resumed"), "it was not cut there")
    program.process.send_signal(signal.SIGTERM)
    expect(program.wait() == 7, f"it ended with {program.last_words()}: {program.final_text().splitlines()[-1:]}")


def of_python(lab) -> None:
    """A python program with a reader that polls the master in the middle of each of two moves."""
    receivers = [lab.receiver() for _ in range(2)]
    process = lab.program("python", [sys.executable, "-c", _PYTHON])
    process.wait_lines(1)
    for number in range(2):
        process = lab.move(process, receivers[number])
        process.wait_complete()
        process.signal(signal.SIGUSR1)
        until(lambda process=process, number=number: f"number {number + 1}\n" in process.text(), "it to look", alive=[process])
        expect(_READ.format(number) in process.text(), f"it says {process.text()}")


def told(verdict: int, words: str, lines: str, lab) -> None:
    """check and the library say the same, and nothing of the program is touched."""
    program = lab.program("python", [sys.executable, "-c", f"import fcntl, os, termios, time, tty\n{lines}\n{_COUNT}"])
    program.wait_lines(3)
    witness = Witness(program)
    status, text = check(program.pid)
    expect(status == verdict and words in text, f"status {status}: {text}")
    witness.expect_unharmed()
    receiver = lab.receiver()
    program.aim(receiver.port)
    if verdict == REFUSES:
        try_and_stay(witness, words)
    else:
        lab.move(program, receiver).wait_complete()
        expect(words in program.errors(), f"it said {program.errors()}")


def _checks() -> list:
    return [
        Check("terminals in every state are what they were, with all that waits in them, after three moves", every_state),
        Check("what a python program has written into its terminal waits there after two moves", of_python),
        Check("what was taken out of terminals is back when a move ends before Ready", partial(stays, READY)),
        Check("what was taken out of terminals is back when Run does not arrive", partial(stays, RUN)),
    ] + [Check(f"a terminal that {kind} is told beforehand", partial(told, *parts)) for kind, parts in _TOLD.items()]


CHECKS = _checks
