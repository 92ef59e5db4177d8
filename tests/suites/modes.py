"""The workloads move in every mode: with their memory ahead of them, behind them, and while they stand still."""

import sys
from functools import partial

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.foreign import PROGRAMS, moves_in_mid_work
from tests.suites.workloads import finish, last_number, names, settle, start

MODES = ("stop", "precopy", "hybrid")
MOVES = 4
RING = 2
_SLOW = 20 << 20  # bytes a second
_ADVISED = 20
_FOREIGN = ("python3 with threads", "perl", "sqlite3", "xz with threads", "sort", "java 17")


def one_move(workload: str, mode: str, lab) -> None:
    receiver = lab.receiver(arguments=("--mode", mode))
    program = start(lab, workload)
    moved = lab.move(program, receiver)
    report = moved.wait_complete()["report"]
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    settle(moved, workload, last_number(program, workload))
    finish(moved, workload)
    after = report["pages"]["fault"] + report["pages"]["prefetch"] + report["pages"]["push"]
    expect(mode == "hybrid" or after == 0, f"{after} pages came after the switchover")
    expect(mode == "stop" or report["pages"]["ahead"] > 0, "no page went ahead")


def foreign(program, mode: str, lab) -> None:
    moves_in_mid_work(program, lab, lab.receiver(arguments=("--mode", mode)))


def advice_goes_along(lab) -> None:
    """What the program advises while its memory goes ahead holds where it goes on, and is not what it was when it began."""
    receiver = lab.receiver(arguments=("--mode", "precopy"))
    program = lab.program("advice", [sys.executable, str(machine.PROGRAMS / "advice.py")])
    program.wait_lines(1)
    moved = lab.move(program, receiver, port=lab.link(receiver, bytes_per_second=_SLOW).port)
    until(lambda: moved.text().count("\n") >= 2, "it to go on", alive=[receiver, moved])
    said = moved.text().splitlines()[1]
    expect(said == f"{_ADVISED} advised, {_ADVISED} are so", f"it says {said}")
    expect(program.text().splitlines()[-1].startswith(f"{_ADVISED} advised"), "it has moved before it advised anything")


def huge_pages_bring_no_neighbours(lab) -> None:
    """A page that is written ahead is one page, wherever the program has advised huge ones."""
    receiver = lab.receiver(arguments=("--mode", "hybrid"))
    program = lab.program("huge", [sys.executable, str(machine.PROGRAMS / "huge_advice.py")])
    program.wait_lines(1)
    moved = lab.move(program, receiver)
    until(lambda: "wrong" in moved.text(), "it to look at its memory", alive=[receiver, moved])
    expect("0 pages are wrong" in moved.text().splitlines(), f"it says {moved.text()}")
    expect("wrong" not in program.text(), "it has moved too late")


def ring(workload: str, mode: str, lab) -> None:
    receivers = [lab.receiver(arguments=("--mode", mode)) for _ in range(RING)]
    process, number = start(lab, workload), -1
    for step in range(MOVES):
        process = lab.move(process, receivers[step % RING])
        number = settle(process, workload, number)
    finish(process, workload)


def _checks() -> list:
    checks = []
    for mode in MODES:
        for name in names():
            checks.append(Check(f"{name} survives a move by {mode}", partial(one_move, name, mode)))
    for mode in MODES:
        for name in ("counter", "heap_churn", "mappings", "threads"):
            checks.append(Check(f"{name} survives {MOVES} moves by {mode}", partial(ring, name, mode)))
    checks.append(Check("what a program advises while its memory goes ahead goes with it", advice_goes_along))
    checks.append(Check("a page that goes ahead brings no neighbours where huge pages are advised",
                        huge_pages_bring_no_neighbours))
    for mode in MODES:
        for program in PROGRAMS:
            if program.name in _FOREIGN:
                checks.append(Check(f"{program.name} moves in mid-work by {mode}", partial(foreign, program, mode)))
    return checks


CHECKS = _checks  # a function: the list comes from bin/target, which must exist first
