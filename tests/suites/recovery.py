"""A lost link is found again, and a killed pager is replaced: nothing is lost, nobody runs twice."""

import os
import random
import signal
from functools import partial

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites import workloads

_SLOW = 20 << 20  # bytes a second
_RESIDENT = ("--resident-mib", "48")
_WORKLOADS = ("counter", "hash_chain", "heap_churn", "mappings", "forker")


def _arguments(workload: str) -> tuple:
    return ("--interval-ms", "1", *_RESIDENT) if workload == "counter" else ()


def _half_moved(workload: str, lab):
    receiver = lab.receiver()
    link = lab.link(receiver, bytes_per_second=_SLOW, comes_back=True)
    program = lab.target(workload, *_arguments(workload))
    program.wait_lines(3)
    return receiver, link, program, lab.move_through(program, receiver, link)


def _comes_through(moved, workload: str, program) -> None:
    workloads.wait_progress(moved, workload, -1)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    workloads.settle(moved, workload, -1)
    workloads.finish(moved, workload)


def interrupted(workload: str, times: int, lab) -> None:
    """The link ends at random moments of the post-copy; the source connects again and all goes on."""
    receiver, link, program, moved = _half_moved(workload, lab)
    dice = random.Random(f"{workload} {times}")
    for _ in range(times):
        target = link.forwarded + dice.randrange(1 << 20)
        until(lambda target=target: link.forwarded > target or receiver.find("complete"), "some bytes to pass")
        if receiver.find("complete"):
            break
        link.interrupt()
    expect(receiver.find("paused"), "the receiver did not notice")
    _comes_through(moved, workload, program)
    expect(receiver.find("recovered"), "the receiver was not found again")


def _checks() -> list:
    return [Check(f"the link is interrupted in post-copy: {workload} loses nothing", partial(interrupted, workload, 3))
            for workload in _WORKLOADS]


CHECKS = _checks
