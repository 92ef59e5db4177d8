"""A vDSO of another build: the program's own goes along, and every function in it tells what the kernel there knows."""

import signal
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.counting import end_well, onward
from tests.harness.results import Check
from tests.harness.scale import times
from tests.harness.waiting import expect, until
from tests.suites.check import MOVES, expect_verdict
from tests.suites.failures import Witness, try_and_stay

_MOVES = 3


def hammered(mode: str, changes: bool, lab) -> None:
    """Threads are in the middle of its functions whenever the program is stopped; it moves on from place to place."""
    receivers = [lab.receiver(arguments=("--mode", mode)) for _ in range(2)]
    settings = {"CHANGES_AGAIN": "yes"} if changes else {}
    process = lab.program("vdso_calls", [compile_c("vdso_calls", lab.directory)], settings)
    process.wait_lines(1)
    for step in range(_MOVES):
        expect_verdict(process.pid, MOVES)
        process = onward(lab, process, receivers[step % 2], step + 1)
    end_well(process)


def interrupted(lab) -> None:
    """A signal handler has interrupted it: the thread would go on in the middle. The next attempt comes after that."""
    receiver = lab.receiver()
    process = lab.program("vdso_handler", [compile_c("vdso_handler", lab.directory)])
    until(lambda: "inside" in process.text(), "the handler", alive=[process])
    process.aim(receiver.port)
    try_and_stay(Witness(process), "a signal handler of thread [0-9]+ has interrupted the vDSO: ask again later")
    process.process.send_signal(signal.SIGUSR1)
    until(lambda: "outside" in process.text(), "the end of the handler", alive=[process])
    moved = lab.move(process, receiver)
    end_well(moved)


_CLOCKS = """
import time
for number in range(1_000_000):
    a, b, c = time.time(), time.time_ns() / 1e9, time.clock_gettime(time.CLOCK_REALTIME)
    assert a <= b + 1e-6 and b <= c + 1e-6 and c - a < 30, (a, b, c)
    print(number, flush=True)
    time.sleep(0.001)
"""


def foreign(lab) -> None:
    """python3 calls it through its libc, which has noted the addresses at its start."""
    library = compile_c("preloaded_vdso", lab.directory, options=("-shared", "-fPIC"))
    receivers = [lab.receiver() for _ in range(2)]
    process = lab.program("python3", ["python3", "-c", _CLOCKS],
                          {"LD_PRELOAD": f"{machine.BIN / 'libsender.so'}:{library}"})
    process.wait_lines(5)
    for step in range(_MOVES):
        process = lab.move(process, receivers[step % 2])
        process.wait_complete()
        until(lambda process=process: process.text().count("\n") > 20, "it to go on", alive=[process])
    numbers = [int(line) for line in process.text().split()]
    expect(numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"numbers {numbers[:3]} to {numbers[-3:]}")


def _checks() -> list:
    checks = [
        Check("a program whose vDSO is another build tells the time wherever it comes",
              partial(hammered, "postcopy", False)),
        Check("a program whose vDSO is another build at every place goes through all of them",
              partial(hammered, "hybrid", True)),
        Check("a program whose handler has interrupted a vDSO of another build stays until it is through", interrupted),
        Check("python3 with a vDSO of another build tells the time wherever it comes", foreign),
    ]
    return checks * times(1, 20)


CHECKS = _checks
