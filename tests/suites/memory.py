"""Memory of every kind holds after a move what it held before it, whatever the program does with it."""

import signal
import subprocess
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.counting import end_well, onward
from tests.harness.results import Check
from tests.harness.scale import times
from tests.harness.waiting import Failure, expect, until
from tests.suites.check import MOVES, check, expect_verdict
from tests.suites.failures import Witness, try_and_stay

_MOVES = 4
_SLOW = 20 << 20  # bytes a second


def at_random(seed: int, slow: bool, lab) -> None:
    """A program that changes its mappings all the time moves several times and finds no wrong byte."""
    _again_and_again(["mapped", str(seed)], _SLOW if slow else 0, lab)


def inherited(lab) -> None:
    """What a program keeps from its children, and what it lets them have again, is the same after a move that comes
    in between."""
    _again_and_again(["withheld"], 0, lab)


def guarded(lab) -> None:
    """A page that a small program forbids to be touched right before it stops is forbidden after the move, and no other."""
    _again_and_again(["guards"], 0, lab, moves=3 * _MOVES)


def _again_and_again(command: list, bytes_per_second: int, lab, moves=_MOVES) -> None:
    """The program moves several times, watches itself, and ends with 5."""
    name, *arguments = command
    receivers = [lab.receiver() for _ in range(2)]
    process = lab.program(name, [compile_c(name, lab.directory), *arguments])
    process.wait_lines(1)
    for step in range(moves):
        receiver = receivers[step % 2]
        link = lab.link(receiver, bytes_per_second=bytes_per_second) if bytes_per_second else None
        process = _move_when_it_can(process, receiver, link, lab)
        until(lambda process=process: process.text().count("\n") > 3, "it to go on", alive=[receiver, process])
    process.signal(signal.SIGTERM)
    ended = process.wait_exited()
    expect(ended.get("exit_code") == 5, f"it ended with {ended}: {process.errors().strip().splitlines()[-2:]}")


def _move_when_it_can(process, receiver, link, lab):
    """It cannot while it has a child, or while pages of its last move are still to come."""
    for _ in range(1000):
        try:
            return lab.move(process, receiver, link=link)
        except Failure as failure:
            if "has children" not in str(failure) and "waits for pages" not in str(failure):
                raise
        # While the attempt cleans up behind its last word, a signal would be ignored.
        until(lambda: len(machine.threads(process.pid)) == 1, "the attempt to be over", alive=[receiver, process])
    raise Failure("it could never be moved")


def held(kind: str, slow: bool, lab) -> None:
    """Looks after the move whether its memory is as it was."""
    receiver = lab.receiver()
    program = lab.program(kind, [compile_c("memory_kinds", lab.directory), kind])
    program.wait_lines(20)
    link = lab.link(receiver, bytes_per_second=200 << 10) if slow else None
    moved = lab.move(program, receiver, link=link)
    ended = moved.wait_exited()
    expect(ended.get("exit_code") == 7, f"it ended with {ended}: {moved.text().splitlines()[-1:]}")


def segments(mode: str, lab) -> None:
    """System V segments are what they were at every place, with their ids, and nothing of them is left at the first one."""
    receivers = [lab.receiver(arguments=("--mode", mode)) for _ in range(2)]
    process = lab.program("system_v", [compile_c("system_v", lab.directory)])
    made, unattached = process.wait_lines(3)[:2]
    expect_verdict(process.pid, MOVES)
    for step in range(3):
        process = onward(lab, process, receivers[step % 2], step + 1)
        until(lambda: made not in [line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()],
              "its segment to be gone where it was before")
        expect_verdict(process.pid, MOVES)
    end_well(process)
    # Where it was not attached when the process left, anybody may want it.
    subprocess.run(["ipcrm", "-m", unattached], check=True, timeout=20)


def semaphores(mode: str, lab) -> None:
    """System V semaphores and messages, and threads that wait for them; nothing of them is left at the first place."""
    receivers = [lab.receiver(arguments=("--mode", mode)) for _ in range(2)]
    process = lab.program("semaphores", [compile_c("semaphores", lab.directory)])
    made = process.wait_lines(3)[:2]
    for step in range(3):
        expect_verdict(process.pid, MOVES)
        process = onward(lab, process, receivers[step % 2], step + 1)
        until(lambda: all(number not in [line.split()[1] for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()]
                          for number, kind in zip(made, ("sem", "msg"))), "what it had to be gone where it was before")
    end_well(process)


def shared_semaphores(lab) -> None:
    """Those that another living process has used stay, and the program with them."""
    receiver = lab.receiver()
    process = lab.program("semaphores", [compile_c("semaphores", lab.directory)])
    made = process.wait_lines(3)[0]
    with subprocess.Popen(["python3", "-c", _OTHER_USER, made], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            expect(other.stdout.readline() == b"0\n", "the other process has not changed it")
            words = f"process {other.pid} uses the same System V semaphores or messages"
            status, text = check(process.pid)
            expect(status == 3 and words in text, f"status {status}: {text}")
            process.aim(receiver.port)
            try_and_stay(Witness(process), f"{words}: end it first")
        finally:
            other.kill()
    lab.move(process, receiver).wait_complete()


_OTHER_USER = """
import ctypes, sys
libc = ctypes.CDLL(None)
SETVAL = 16
print(libc.semctl(int(sys.argv[1]), 1, SETVAL, 700), flush=True)
sys.stdin.read()
"""

_HUGE_PAGES = 11  # of 2 MiB, that tests/programs/huge.c has
_POOL = Path("/proc/sys/vm/nr_hugepages")


def _free_huge_pages() -> int:
    free, claimed = (int(Path(f"/sys/kernel/mm/hugepages/hugepages-2048kB/{what}_hugepages").read_text())
                     for what in ("free", "resv"))
    return free - claimed


@contextmanager
def _huge_pages(count: int):
    """So many more in the machine's pool; others that are free are taken away as far as they are."""
    before, free = int(_POOL.read_text()), _free_huge_pages()
    _POOL.write_text(str(before + count - free))
    try:
        if int(_POOL.read_text()) < before + count - free:
            raise machine.Missing(f"memory for {count} huge pages")
        yield
    finally:
        _POOL.write_text(str(before))


def huge_pages(mode: str, lab) -> None:
    """Source and destination are one machine here, so it needs twice as many."""
    with _huge_pages(2 * _HUGE_PAGES):
        receivers = [lab.receiver(arguments=("--mode", mode)) for _ in range(2)]
        process = lab.program("huge", [compile_c("huge", lab.directory)])
        process.wait_lines(1)
        expect_verdict(process.pid, MOVES)
        for step in range(2):
            until(lambda: _free_huge_pages() >= _HUGE_PAGES, "those of the source to be free")
            process = onward(lab, process, receivers[step], step + 1)
        end_well(process)


def too_few_huge_pages(lab) -> None:
    """Refused before anything stops, with both numbers."""
    with _huge_pages(_HUGE_PAGES + 3):
        receiver = lab.receiver()
        process = lab.program("huge", [compile_c("huge", lab.directory)])
        process.wait_lines(1)
        process.aim(receiver.port)
        try_and_stay(Witness(process), rf"needs {_HUGE_PAGES} huge TLB pages of 2 MiB, and there is room for 3 here")


def written_later(lab) -> None:
    """A shared mapping that is only read can be written after the move if the program could have done so before."""
    receiver = lab.receiver()
    program = lab.program("writes_later", [compile_c("writes_later", lab.directory)])
    program.wait_lines(1)
    moved = lab.move(program, receiver)
    ended = moved.wait_exited()
    expect(ended.get("exit_code") == 7, f"it ended with {ended}")
    expect(moved.text() == "later, refused\n", f"it says {moved.text()!r}")


def _checks() -> list:
    checks = []
    for seed in range(times(1, 50)):
        checks.append(Check(f"mappings that change at random hold their bytes (seed {seed})",
                            partial(at_random, seed, False)))
        checks.append(Check(f"mappings that change while pages come slowly hold their bytes (seed {seed})",
                            partial(at_random, seed, True)))
    return checks + [
        Check("what is kept from children is what the program last said", inherited),
        Check("what must not be touched is what the program last said", guarded),
        Check("System V shared memory that nobody else has moves with its ids, again and again",
              partial(segments, "postcopy")),
        Check("System V semaphores and messages that nobody else uses move with their ids, again and again",
              partial(semaphores, "postcopy")),
        Check("System V semaphores and messages that another process uses too are refused by its name", shared_semaphores),
        Check("huge TLB pages of every kind move", partial(huge_pages, "postcopy")),
        Check("huge TLB pages move while other memory goes ahead", partial(huge_pages, "hybrid")),
        Check("a program that needs more huge TLB pages than are free is refused with both numbers", too_few_huge_pages),
        Check("System V shared memory moves while other memory goes ahead", partial(segments, "hybrid")),
        Check("shared memory that was mapped in part shows the rest when it grows", partial(held, "shrunk", False)),
        Check("bytes behind the end of a memfd are there", partial(held, "behind_end", False)),
        Check("a file that is mapped in the last moment stays mapped", partial(held, "new_files", True)),
        Check("a shared mapping that is only read can be written later if it could be", written_later),
    ]


CHECKS = _checks
