"""The ids that a process has at its receiver, seen from outside, and what it sees of the machine's files."""

import os
import random
import re
import signal
import sys
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until
from tests.suites.failures import Inner, Witness, try_and_stay

# Ids in a row that nobody here has.
_ROW = 64
_OWN_GROUP = "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
# Of a process that is nobody's child any more, and ends when it has been joined.
_GROUP_OF_ANOTHER = """
import os, sys
told, teller = os.pipe()
joined, joiner = os.pipe()
parent = os.fork()
if parent == 0:
    if os.fork() == 0:
        os.close(joiner)
        os.setpgid(0, 0)
        os.write(teller, str(os.getpid()).encode())
        os.read(joined, 1)
    os._exit(0)
os.waitpid(parent, 0)
os.setpgid(0, int(os.read(told, 20)))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_START = 'echo "$0" > /proc/sys/kernel/ns_last_pid; "$@" & wait'


def _free_row() -> int:
    for _ in range(1000):
        first = random.randrange(10_000, 30_000)
        if not any(os.path.exists(f"/proc/{number}") for number in range(first, first + _ROW)):
            return first
    raise Failure("no row of ids is free")


def _inner(lab, workload: str, *arguments: str) -> tuple:
    """A workload in a PID namespace of its own, with ids that are free outside; and its id there."""
    machine.need_command("unshare")
    first = _free_row()
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _START, str(first),
               str(machine.BIN / "target"), workload, *arguments]
    wrapper = lab.program(workload, command)
    wrapper.wait_lines(3)
    shell = machine.children(wrapper.pid)[0]
    program = Inner(wrapper, machine.children(shell)[0])
    status = Path(f"/proc/{program.pid}/status").read_text()
    return program, next(int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:"))


def kept(workload: str, lab) -> None:
    """The process and each of its threads have outside the ids that they have inside."""
    receiver = lab.receiver(arguments=["--pid", "keep"])
    program, own = _inner(lab, workload)
    moved = lab.move(program, receiver)
    expect(moved.pid == own, f"it was {own} and is {moved.pid}")
    moved.wait_complete()
    outside = sorted(int(thread) for thread in machine.threads(moved.pid))
    if workload == "vectors":
        expect(outside == machine.inner_ids(moved.pid), f"outside they are {outside}")
    until(lambda: moved.text().count("\n") > 20, "it to go on", alive=[receiver])
    moved.aim(receiver.port)
    _refused(moved, rf"id {moved.pid} is taken here")
    second = lab.receiver()
    lab.move(moved, second).wait_complete()


def _refused(program, words: str) -> None:
    before = len(program.left())
    os.kill(program.pid, signal.SIGUSR2)
    until(lambda: len(program.left()) > before, "the refusal", 20)
    expect(re.search(words, program.left()[-1]), program.left()[-1])


def taken(lab) -> None:
    """An id that somebody has is refused by name, and nothing happens to the program."""
    receiver = lab.receiver(arguments=["--pid", "keep"])
    program = lab.target("counter", "--interval-ms", "2")
    program.wait_lines(2)
    program.aim(receiver.port)
    try_and_stay(Witness(program), rf"id {program.pid} is taken here")


def guardian_and_session_killed(lab) -> None:
    """With kept ids too nobody outlives those who serve its memory: not the process and not what it has forked."""
    receiver = lab.receiver(arguments=["--pid", "keep"])
    link = lab.link(receiver, bytes_per_second=20 << 20)
    program, _ = _inner(lab, "forker")
    moved = lab.move_through(program, receiver, link)
    expect(not receiver.find("complete"), "everything has arrived already")
    sessions = list(reversed(machine.children(receiver.pid)))
    guardians = [child for session in sessions for child in machine.children(session)]
    for victim in [receiver.pid, *sessions, *guardians]:
        os.kill(victim, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{moved.pid}/exe"), "the process to be dead", 15)
    expect("FAIL" not in moved.text(), moved.text()[-300:])


def _session_and_group(pid: int) -> list:
    """As it sees them itself."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line)
    innermost = {words[0]: int(words[-1]) for words in lines if words[0] in ("NSsid:", "NSpgid:")}
    return [innermost["NSsid:"], innermost["NSpgid:"]]


def session_kept(wrapper: tuple, lab) -> None:
    """Session and process group of a process that leads both, one or neither are the same after two moves."""
    machine.need_command(*wrapper[:1])
    receiver = lab.receiver()
    process = lab.program("counter", [*wrapper, str(machine.BIN / "target"), "counter", "--interval-ms", "2"])
    process.wait_lines(2)
    before = _session_and_group(process.pid)
    if 0 in before:
        raise machine.Missing("a session whose leader is in this PID namespace")
    for _ in range(2):
        process = lab.move(process, receiver)
        process.wait_complete()
        now = _session_and_group(process.pid)
        expect(now == before, f"session and group were {before} and are {now}")


def _checks() -> list:
    checks = [Check(f"{workload} keeps its ids with --pid keep, and moves on", partial(kept, workload))
              for workload in ("counter", "threads", "vectors")]
    leading = {"leads neither its session nor its process group": ("env",), "leads its session": ("setsid",),
               "leads its process group": (sys.executable, "-c", _OWN_GROUP),
               "is in another's process group": (sys.executable, "-c", _GROUP_OF_ANOTHER)}
    checks += [Check(f"a process that {what} has the same ids of both after two moves", partial(session_kept, wrapper))
               for what, wrapper in leading.items()]
    return checks + [
        Check("an id that is taken is refused by name", taken),
        Check("with kept ids nobody outlives guardian and session", guardian_and_session_killed),
    ]


CHECKS = _checks
