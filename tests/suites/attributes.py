"""What the kernel keeps of threads and processes beside memory and descriptors is after a move as it was."""

from tests.harness.compiling import compile_c
from tests.harness.results import Check
from tests.harness.waiting import expect, until


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


def _checks() -> list:
    return [Check("scheduling, processors, priorities, capabilities and flags are as they were", are_kept)]


CHECKS = _checks
