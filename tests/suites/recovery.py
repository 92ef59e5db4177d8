"""A lost link is found again, and a killed pager is replaced: nothing is lost, nobody runs twice."""

import os
import random
import signal
from functools import partial
from pathlib import Path

from tests.harness import machine, scale
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites import workloads

_SLOW = 20 << 20  # bytes a second
_RESIDENT = ("--resident-mib", "48")
_POSTCOPY = ("--mode", "postcopy")  # what is to be lost there does not go ahead
_WORKLOADS = ("counter", "hash_chain", "heap_churn", "mappings", "forker")


def _arguments(workload: str) -> tuple:
    return ("--interval-ms", "1", *_RESIDENT) if workload == "counter" else ()


def _half_moved(workload: str, lab, sealed: bool = False):
    key = lab.key() if sealed else ""
    receiver = lab.receiver(arguments=(*_POSTCOPY, *(("--key-file", key) if sealed else ())))
    link = lab.link(receiver, bytes_per_second=_SLOW, comes_back=True)
    settings = {"POSTHASTE_KEY_FILE": key} if sealed else {}
    program = lab.target(workload, *_arguments(workload), settings=settings)
    program.wait_lines(3)
    return receiver, link, program, lab.move_through(program, receiver, link)


def _comes_through(moved, workload: str, program) -> None:
    workloads.wait_progress(moved, workload, -1)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    workloads.settle(moved, workload, -1)
    workloads.finish(moved, workload)


def interrupted(workload: str, times: int, sealed: bool, lab) -> None:
    """The link ends at random moments of the post-copy; the source connects again and all goes on."""
    receiver, link, program, moved = _half_moved(workload, lab, sealed)
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


def _pager(receiver) -> int:
    """The process that serves the memory of what has moved to `receiver`, once its copy stands by; 0 until then."""
    names = {}
    for pid in machine.children(receiver.pid):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] not in "ZX":
            names[pid] = stat[stat.index("(") + 1:stat.rindex(")")]
    pagers = [pid for pid, name in names.items() if name != "standby"]
    return pagers[0] if len(pagers) == 1 and "standby" in names.values() else 0


def pager_killed(workload: str, times: int, lab) -> None:
    """What serves the memory is killed at random moments of the post-copy; another one goes on."""
    receiver, link, program, moved = _half_moved(workload, lab)
    dice = random.Random(f"{workload} {times}")
    killed = 0
    for _ in range(times):
        target = link.forwarded + dice.randrange(1 << 20)
        until(lambda target=target: link.forwarded > target or receiver.find("complete"), "some bytes to pass")
        pager = until(lambda: receiver.find("complete") or _pager(receiver), "a copy to stand by")
        if not isinstance(pager, int):
            break
        os.kill(pager, signal.SIGKILL)
        killed += 1
        until(lambda killed=killed: sum(event["event"] == "succeeded" for event in receiver.events()) >= killed,
              "another one to go on", alive=[receiver])
    expect(killed, "the memory had come before anything could be killed")
    _comes_through(moved, workload, program)


def pager_killed_at_the_end(times: int, lab) -> None:
    """What serves the memory is killed around the moment when the last page has come."""
    whole = _bytes_of_a_move(lab, *_POSTCOPY)
    receiver, dice, killed = lab.receiver("ending", arguments=_POSTCOPY), random.Random(times), 0
    for _ in range(times):
        link = lab.link(receiver, comes_back=True)
        program = lab.target("counter", "--interval-ms", "1", "--resident-mib", "1")
        program.wait_lines(2)
        before = len(receiver.events())
        moved = lab.move_through(program, receiver, link)
        last = whole - dice.randrange(20_000)
        until(lambda link=link, last=last, before=before:
              link.forwarded >= last or receiver.find("complete", before), "the last bytes")
        if pager := _pager(receiver):
            os.kill(pager, signal.SIGKILL)
            killed += 1
        moved.wait_complete()
        expect(program.wait() == 0, f"the source ended with {program.last_words()}")
        here = len(moved.numbers(r"^(\d+)$"))
        until(lambda moved=moved, here=here: len(moved.numbers(r"^(\d+)$")) > here + 5, "it to count on",
              alive=[receiver])
        moved.signal(signal.SIGKILL)  # nobody tells of its end if the killed one had told that all is there
        link.close()
    expect(times < 10 or killed, "nothing was killed")


def cut_anywhere(times: int, lab) -> None:
    """The link ends after any number of bytes, and stands again: exactly one copy goes on, at the next number."""
    whole = _bytes_of_a_move(lab)
    dice = random.Random(times)
    receiver = lab.receiver("anywhere")
    given_back = 0
    for attempt in range(times):
        cut_after = dice.randrange(whole)
        link = lab.link(receiver, cut_after=cut_after, comes_back=True)
        program = lab.target("counter", "--interval-ms", "1", "--resident-mib", "1")
        program.wait_lines(2)
        program.aim(link.port)
        before, printed, words = len(receiver.events()), len(receiver.text()), len(program.left())
        program.trigger()
        where = f"cut after {cut_after} of {whole} bytes, attempt {attempt}"
        until(lambda before=before, program=program, words=words:
              receiver.find("complete", before) or len(program.left()) > words, f"an outcome, {where}", 20)
        resumed = receiver.find("resumed", before)
        if len(program.left()) > words:
            expect(not resumed, f"it runs on both sides, {where}")
            program.wait_lines(program.text().count("\n") + 3)
            given_back += 1
            program.process.kill()
            numbers = [int(line) for line in program.final_text().splitlines() if line.isdigit()]
        else:
            expect(program.wait() == 0, f"the source ended with {program.last_words()}, {where}")
            here = [int(line) for line in program.final_text().splitlines() if line.isdigit()]
            until(lambda printed=printed: receiver.text()[printed:].count("\n") > 3, "the moved one to go on")
            os.kill(resumed["pid"], signal.SIGKILL)
            until(lambda resumed=resumed: receiver.find("exited", migration=resumed["migration"]), "its end")
            there = receiver.text()[printed:].rpartition("\n")[0]
            numbers = here + [int(line) for line in there.splitlines() if line.isdigit()]
        expect(numbers == list(range(len(numbers))), f"a number is missing or repeated, {where}")
        link.close()
    expect(times < 10 or 0 < given_back < times, f"{given_back} of {times} were given back: the cuts are not anywhere")


def _bytes_of_a_move(lab, *arguments: str) -> int:
    receiver = lab.receiver("measured", arguments=arguments)
    link = lab.link(receiver)
    program = lab.target("counter", "--interval-ms", "1", "--resident-mib", "1")
    program.wait_lines(2)
    lab.move_through(program, receiver, link).wait_complete()
    return link.forwarded


def _checks() -> list:
    kills, cuts = scale.times(3, 50), scale.times(12, 1000)
    anywhere = [Check(f"the link is cut at {cuts} random bytes of a migration: one copy goes on, at the next number",
                      partial(cut_anywhere, cuts)),
                Check(f"what serves the memory is killed around its end, {kills * 3} times: nothing is lost",
                      partial(pager_killed_at_the_end, kills * 3))]
    killed = [Check(f"what serves the memory is killed in post-copy: {workload} loses nothing",
                    partial(pager_killed, workload, kills)) for workload in _WORKLOADS]
    plain = [Check(f"the link is interrupted in post-copy: {workload} loses nothing",
                   partial(interrupted, workload, kills, False)) for workload in _WORKLOADS]
    sealed = [Check(f"a sealed link is interrupted in post-copy: {workload} loses nothing",
                    partial(interrupted, workload, kills, True)) for workload in ("counter", "hash_chain", "forker")]
    return anywhere + killed + plain + sealed


CHECKS = _checks
