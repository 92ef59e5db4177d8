"""What dies while the memory is still on its way: nobody ever reads a zero, nobody hangs, nobody runs twice.

The link is slow here, so that there is a while in which something can die.
"""

import contextlib
import os
import re
import signal
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until
from tests.suites import workloads

_SLOW = 20 << 20  # bytes a second
_NUMBER = r"^(\d+)$"  # a line
_RESIDENT = ("--resident-mib", "48")


def _half_moved(lab, workload: str, *arguments: str):
    """A process that runs at a receiver while most of its memory is still at the source."""
    receiver = lab.receiver(arguments=("--mode", "postcopy", *arguments))
    link = lab.link(receiver, bytes_per_second=_SLOW)
    if workload == "zero_reader":
        program = lab.program(workload, [compile_c(workload, lab.directory)])
    else:
        program = lab.target(workload, *(("--interval-ms", "1", *_RESIDENT) if workload == "counter" else ()))
    program.wait_lines(3)
    moved = lab.move_through(program, receiver, link)
    expect(not receiver.find("complete"), "everything has arrived already: the link is too fast for this test")
    return receiver, link, program, moved


def _never_wrong(moved, workload: str) -> None:
    expect(f"{workload}: FAIL" not in moved.text(), f"it read a wrong byte: {workloads.tail(moved)}")


def source_lost(how: str, workload: str, lab) -> None:
    """The pages that are lost give SIGBUS; the receiver says so and takes the next process."""
    receiver, link, program, moved = _half_moved(lab, workload, "--loss-deadline", "1")
    if how == "source killed":
        program.process.kill()
    else:
        link.cut()
    failed = until(lambda: receiver.find("failed"), "the receiver to notice", 60, alive=[receiver])
    expect(failed["process"] == "here", f"the event is {failed}")
    ended = moved.wait_exited(30)
    _never_wrong(moved, workload)
    expect(ended.get("signal") == signal.SIGBUS, f"it ended with {ended}: {workloads.tail(moved)}")
    _lists_what_is_lost(receiver)
    program.process.kill()
    workloads.one_move("counter", (), lab)


def _lists_what_is_lost(receiver) -> None:
    lost = receiver.find("lost")
    expect(lost, "the lost ranges are not told")
    ranges = [[int(end, 16) for end in text.split("-")] for text in lost["ranges"]]
    pages = sum(end - start for start, end in ranges) >> 12
    expect(ranges and all(start < end for start, end in ranges) and pages <= lost["pages"], f"they are {lost}")
    expect(f"{lost['pages']} pages are lost: {lost['ranges'][0]}" in receiver.errors(), "no line lists them")


def lost_and_killed(lab) -> None:
    """With --on-loss kill the process is dead when the deadline has passed, and it has not read a wrong byte."""
    receiver, _, program, moved = _half_moved(lab, "hash_chain", "--loss-deadline", "1", "--on-loss", "kill")
    program.process.kill()
    failed = until(lambda: receiver.find("failed"), "the receiver to notice", 60, alive=[receiver])
    expect(failed["process"] == "lost", f"the event is {failed}")
    until(lambda: _is_gone(moved.pid), "the process to be dead", 15)
    _never_wrong(moved, "hash_chain")


def lost_and_waiting(lab) -> None:
    """With --on-loss wait the process stands at its missing memory, as long as that takes."""
    receiver, _, program, moved = _half_moved(lab, "hash_chain", "--loss-deadline", "1", "--on-loss", "wait")
    program.process.kill()
    until(lambda: receiver.find("paused"), "the receiver to notice", 60, alive=[receiver])
    try:
        until(lambda: receiver.find("failed") or moved.exited(), "nothing", 4)
    except Failure:
        _never_wrong(moved, "hash_chain")
        expect(not _is_gone(moved.pid), "the process is gone")
        return
    raise Failure(f"it did not wait: {receiver.events()[-1]}")


def _victims(whom: str, receiver, marker: str) -> list:
    """Whom to kill, in this order: copies first, so that nobody goes on in another's place."""
    if whom == "whoever is called receiver":  # pkill -9 -f receiver
        return sorted(pid for pid in machine.marked(marker) if b"bin/receiver" in _file(pid, "cmdline"))
    sessions = list(reversed(machine.children(receiver.pid)))
    guardians = [child for session in sessions for child in machine.children(session)]
    return {"daemon": [receiver.pid], "sessions": sessions, "daemon, sessions and guardian":
            [receiver.pid, *sessions, *guardians]}[whom]


def _kill(victims: list) -> None:
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):  # it has died with one before it
            os.kill(victim, signal.SIGKILL)


def receiver_killed(whom: str, workload: str, lab) -> None:
    """Who serves the missing pages dies: the process dies with it, before it can read a zero."""
    receiver, _, program, moved = _half_moved(lab, workload)
    # It has what it needs to say that it has read one.
    until(lambda: len(moved.numbers(_NUMBER)) > 3, "it to go on", alive=[receiver])
    expect(not receiver.find("complete"), "everything has arrived already: the link is too fast for this test")
    first = moved.numbers(_NUMBER)[0]
    _kill(_victims(whom, receiver, lab.marker))
    until(lambda: _is_gone(moved.pid), "the process to die with its receiver", 15)
    _never_wrong(moved, workload)
    _stands_still(program, first)
    if not receiver.ended():
        program.process.kill()
        workloads.one_move("counter", (), lab)


def _file(pid: int, name: str) -> bytes:
    """What /proc tells of a process, nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def keeper_killed(lab) -> None:
    """Who keeps the missing pages missing dies, and there is another one: when all of the receiver is killed then, no zero
    is read."""
    receiver, _, program, moved = _half_moved(lab, "zero_reader")
    until(lambda: len(moved.numbers(_NUMBER)) > 3, "it to go on", alive=[receiver])

    def keeper() -> list:
        return [pid for pid in machine.marked(lab.marker) if _file(pid, "comm") == b"keeper\n"]
    [first] = keeper()
    os.kill(first, signal.SIGKILL)
    until(lambda: keeper() not in ([], [first]), "another one", alive=[receiver])
    _kill(_victims("whoever is called receiver", receiver, lab.marker))
    until(lambda: _is_gone(moved.pid), "the process to die with its receiver", 15)
    _never_wrong(moved, "zero_reader")


def _stands_still(program, first: int) -> None:
    """The source has printed nothing that its moved process, which went on with `first`, has printed as well."""
    numbers = [int(number) for number in re.findall(_NUMBER, program.text(), re.MULTILINE)]
    expect(program.ended() or numbers[-1] < first,
           f"the source has gone on too: {numbers[-1]} was printed there, {first} here; {program.last_words()}")


def _is_gone(pid: int) -> bool:
    try:
        return machine.state(pid) in "ZX"
    except OSError:
        return True


def moved_killed(lab) -> None:
    """The moved process itself dies: its end is told, and the source does not run again."""
    receiver, _, program, moved = _half_moved(lab, "counter")
    until(lambda: moved.numbers(_NUMBER), "it to go on", alive=[receiver])
    first = moved.numbers(_NUMBER)[0]
    moved.signal(signal.SIGKILL)
    ended = moved.wait_exited()
    expect(ended.get("signal") == signal.SIGKILL, f"the event is {ended}")
    _stands_still(program, first)
    program.process.kill()
    workloads.one_move("counter", (), lab)


def slow_link(workload: str, lab) -> None:
    """Nothing dies: over a slow link the workload runs on its missing pages all the while."""
    receiver, _, program, moved = _half_moved(lab, workload)
    workloads.wait_progress(moved, workload, -1)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    workloads.settle(moved, workload, -1)
    workloads.finish(moved, workload)


def becomes_something_else(mode: str, lab) -> None:
    """The program calls exec or ends while its memory is still on its way: its status arrives, nobody waits."""
    receiver = lab.receiver()
    link = lab.link(receiver, bytes_per_second=_SLOW)
    program = lab.program("when_moved", [compile_c("when_moved", lab.directory), mode])
    program.wait_lines(3)
    moved = lab.move_through(program, receiver, link)
    ended = moved.wait_exited(30)
    expect(ended.get("exit_code") == 7, f"it ended with {ended}: {workloads.tail(moved)}")
    if mode == "exec":  # its output passes through a pipe
        until(lambda: "another program" in moved.text(), "what the program behind exec prints", 10)
    if mode == "share":
        until(lambda: "the memory is kept" in moved.text(), "the other process to find its memory", 10)
    program.wait()
    workloads.one_move("counter", (), lab)


def interrupted_source(lab) -> None:
    """Ctrl-C, SIGTERM and SIGHUP at the source's terminal, and what else ends a program, do not end what serves the pages."""
    _, _, program, moved = _half_moved(lab, "counter")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if not program.ended():
            program.process.send_signal(number)
    try:
        moved.wait_complete()
    except Failure as failure:
        raise Failure(f"a signal to the source broke the move: {failure}") from failure
    workloads.wait_progress(moved, "counter", -1)
    workloads.finish(moved, "counter")


def _checks() -> list:
    checks = []
    for how in ("source killed", "link cut"):
        for workload in ("counter", "hash_chain", "heap_churn"):
            checks.append(Check(f"{how} in post-copy: {workload} gets SIGBUS or right bytes",
                                partial(source_lost, how, workload)))
    checks.append(Check("source killed with --on-loss kill: hash_chain is killed", lost_and_killed))
    checks.append(Check("source killed with --on-loss wait: hash_chain waits", lost_and_waiting))
    for whom in ("daemon", "sessions", "daemon, sessions and guardian", "whoever is called receiver"):
        for workload in ("counter", "zero_reader"):
            checks.append(Check(f"receiver's {whom} killed in post-copy: {workload} dies with it",
                                partial(receiver_killed, whom, workload)))
    checks.append(Check("who keeps missing pages missing is killed, then the receiver: zero_reader dies with it", keeper_killed))
    for workload in ("counter", "mappings", "forker", "hash_chain", "heap_churn"):
        checks.append(Check(f"{workload} runs on while its memory comes slowly", partial(slow_link, workload)))
    for mode in ("exec", "exit", "exit_group", "last_thread", "dofork", "keeponfork", "wipeonfork", "share"):
        checks.append(Check(f"{mode} while the memory comes slowly", partial(becomes_something_else, mode)))
    checks.append(Check("the moved process is killed in post-copy", moved_killed))
    checks.append(Check("signals to the source in post-copy change nothing", interrupted_source))
    return checks


CHECKS = _checks
