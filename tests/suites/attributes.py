"""What the kernel keeps of threads and processes beside memory and descriptors is after a move as it was."""

import os

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.results import Check
from tests.harness.waiting import expect, until

_NOBODY = 65534


def are_kept(lab) -> None:
    """Two threads say of themselves before and after a move what the kernel tells them."""
    receiver = lab.receiver()
    program = lab.program("attributes", [compile_c("attributes", lab.directory)])
    until(lambda: "ready\n" in program.text(), "the program to be ready", alive=[program])
    moved = lab.move(program, receiver)
    ended = moved.wait_exited()
    expect(ended.get("exit_code") == 7, f"it ended with {ended}")
    before, after = program.final_text().splitlines()[:-1], moved.text().splitlines()[:-1]
    changed = [f"{old!r} is {new!r}" for old, new in zip(sorted(before), sorted(after)) if old != new]
    expect(not changed and len(before) == len(after), "; ".join(changed))
    expect(any("nice 7" in line for line in before), "the program could not change anything")
    expect("other NoNewPrivs:\t1" in before and "main NoNewPrivs:\t0" in before, f"one thread has, one has not: {before}")
    expect("other memory mode 3 nodes 1" in before, f"no policy could be set: {before}")


def are_who_they_were(lab) -> None:
    """Three threads that are three users, one with ids that differ, are that after each of two moves."""
    receiver = lab.receiver()
    program = lab.program("different-ids", [compile_c("different_ids", lab.directory)])
    until(lambda: "said 0\n" in program.text(), "the program to be ready", alive=[program])
    first = lab.move(program, receiver)
    first.wait_complete()
    until(lambda: "said 1\n" in first.text(), "it to say who it is", alive=[receiver])
    ended = lab.move(first, receiver).wait_exited()
    expect(ended.get("exit_code") == 7, f"it ended with {ended}")
    lines = (program.final_text() + first.text()).splitlines()
    told = [sorted(line[2:] for line in lines if line.startswith(f"{moves} ")) for moves in range(3)]
    expect(len(told[0]) == 18 and "dropped Groups:\t9 10 " in told[0], f"it was {told[0]}")
    for after in told[1:]:
        changed = [f"{old!r} is {new!r}" for old, new in zip(told[0], after) if old != new]
        expect(not changed and len(after) == len(told[0]), "; ".join(changed) or f"it says {after}")


def flags_are_kept(lab) -> None:
    """What an ordinary user's process as a whole is, it is after an attempt that failed and after each of two moves."""
    machine.need_command("setpriv")
    lab.directory.chmod(0o755)
    receiver = lab.receiver()
    nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--"]
    program = lab.program("flags", [*nobody, compile_c("flags", lab.directory)])
    until(lambda: "0 said\n" in program.text(), "the program to be ready", alive=[program])
    _is_not_dumpable(program.pid)
    program.aim(1)  # nobody listens there
    program.trigger()
    until(program.left, "the line that says why", alive=[program])
    until(lambda: len(machine.threads(program.pid)) == 1, "the attempt to be over", alive=[program])
    _is_not_dumpable(program.pid)
    first = lab.move(program, receiver)
    first.wait_complete()
    until(lambda: "1 said\n" in first.text(), "it to say what it is", alive=[receiver])
    _is_not_dumpable(first.pid)
    ended = lab.move(first, receiver).wait_exited()
    expect(ended.get("exit_code") == 7, f"it ended with {ended}")
    lines = (program.final_text() + first.text()).splitlines()
    told = [[line[2:] for line in lines if line.startswith(f"{moves} ")] for moves in range(3)]
    expect(told[0][0] == "personality 4040000" and "dumpable 0" in told[0] and "barriers 54" in told[0], f"it was {told[0]}")
    for after in told[1:]:
        changed = [f"{old!r} is {new!r}" for old, new in zip(told[0], after) if old != new]
        expect(not changed and len(after) == len(told[0]), "; ".join(changed) or f"it says {after}")


def _is_not_dumpable(pid: int) -> None:
    """proc(5): what the kernel tells of such a process is root's."""
    expect(os.stat(f"/proc/{pid}/environ").st_uid == 0, "others of its user may look into it")


def _checks() -> list:
    return [Check("the flags of a process are as they were after a failed attempt and after two moves", flags_are_kept),
            Check("each thread is the user that it was, in parts too, after two moves", are_who_they_were),
            Check("scheduling, processors, priorities, capabilities and flags are as they were", are_kept)]


CHECKS = _checks
