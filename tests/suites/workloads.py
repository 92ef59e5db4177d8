"""Every workload of `target` survives one move, ten moves in a ring, and a move while all processors are busy."""

import re
import signal
import subprocess
import sys
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.results import Check
from tests.harness.waiting import differences, expect, until
from tests.suites.failures import Inner

RING = 3
MOVES_IN_RING = 10
COUNTER_MOVES = 100

_CLOCK = "import time\nwhile True:\n    print(time.monotonic())\n    time.sleep(0.01)"
_QUICK = ("--interval-ms", "2")
_ARGUMENTS = {"counter": (*_QUICK, "--resident-mib", "8"), "ticks": (*_QUICK, "--resident-mib", "8"),
              "chase": (*_QUICK, "--resident-mib", "32"), "writer": (*_QUICK, "--resident-mib", "32")}


def names() -> list:
    """The workloads that bin/target has."""
    listed = subprocess.run([str(machine.BIN / "target"), "--list"], capture_output=True, text=True, check=False)
    return [line.split()[0] for line in listed.stdout.splitlines()]


def pattern(workload: str) -> str:
    """What a line of progress looks like, with its number as the only group."""
    if workload == "counter":
        return r"^(\d+)$"
    return rf"^{workload} (\d+) (?:ok$|.*largest)"


def start(lab, workload: str, *more: str):
    """Starts a workload and waits until it is at work."""
    program = lab.target(workload, *_ARGUMENTS.get(workload, ()), *more)
    program.wait_lines(3)
    return program


def wait_progress(moved, workload: str, after: int, count: int = 3) -> list:
    """Waits until the moved workload has said `count` times that it goes on; `after` is the last number before."""
    def later():
        wrong = re.search(rf"^{workload}: FAIL.*$", moved.text(), re.MULTILINE)
        expect(not wrong, wrong and wrong.group())
        numbers = moved.numbers(pattern(workload))
        expect(not numbers or numbers[0] > after, f"{workload} went back from {after} to {numbers[:1]}")
        return len(numbers) >= count and numbers
    return until(later, f"{workload} to go on after {after}", alive=[moved.receiver, moved])


def last_number(program, workload: str) -> int:
    """The last number that a program printed at its source, which has ended."""
    return [int(number) for number in re.findall(pattern(workload), program.final_text(), re.MULTILINE)][-1]


def finish(moved, workload: str) -> None:
    """Ends the workload and expects it to have found nothing wrong."""
    moved.signal(signal.SIGTERM)
    ended = moved.wait_exited()
    expect(f"{workload}: FAIL" not in moved.text(), f"the workload says: {tail(moved)}")
    expect(ended.get("exit_code") == 0, f"the workload ended with {ended}: {tail(moved)}")
    until(lambda: f"{workload}: PASS\n" in moved.text(), "the last line", 5)


def tail(moved) -> str:
    return " / ".join(moved.text().splitlines()[-3:])


def settle(moved, workload: str, after: int) -> int:
    """Waits until all memory has arrived and the workload has no child; returns its last number."""
    moved.wait_complete()
    if workload == "forker":
        until(lambda: "children verified" in moved.text(), "the children to verify", alive=[moved])
    return wait_progress(moved, workload, after)[-1]


def one_move(workload: str, arguments, lab) -> None:
    receiver = lab.receiver()
    program = start(lab, workload, *arguments)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    settle(moved, workload, last_number(program, workload))
    finish(moved, workload)


def busy_move(workload: str, lab) -> None:
    lab.spinners()
    one_move(workload, (), lab)


def ring(workload: str, lab) -> None:
    receivers = [lab.receiver() for _ in range(RING)]
    process, number = start(lab, workload), -1
    for step in range(MOVES_IN_RING):
        process = lab.move(process, receivers[step % RING])
        number = settle(process, workload, number)
    finish(process, workload)


def continuous(program_text: str, receiver_text: str) -> None:
    """Expects the numbers of the source and then those of the receiver to be 0, 1, 2 … without gap or repeat."""
    numbers = [int(line) for line in (program_text + receiver_text).splitlines() if line.isdigit()]
    wrong = [(at, number) for at, number in enumerate(numbers) if at != number]
    expect(not wrong, f"number {wrong and wrong[0][0]} is {wrong and wrong[0][1]}")


def counter_continues(lab) -> None:
    receiver = lab.receiver()
    program = start(lab, "counter")
    moved = lab.move(program, receiver)
    wait_progress(moved, "counter", 0, 10)
    moved.wait_complete()
    program.wait()
    continuous(program.final_text(), moved.text())
    finish(moved, "counter")


def counter_hundred_times(lab) -> None:
    receiver = lab.receiver()
    for _ in range(COUNTER_MOVES):
        program = lab.target("counter", "--interval-ms", "1")
        program.wait_lines(2)
        moved = lab.move(program, receiver)
        wait_progress(moved, "counter", -1)
        moved.wait_complete()
        program.wait()
        moved.signal(signal.SIGTERM)
        moved.wait_exited()
        continuous(program.final_text(), moved.text())


def proc_tells_the_same(workload: str, lab) -> None:
    """Identity, descriptors, address space and threads, as seen from outside, are those of the source."""
    receiver = lab.receiver()
    program = start(lab, workload)
    before = machine.facts(program.pid)
    moved = lab.move(program, receiver)
    settle(moved, workload, -1)
    after = machine.facts(moved.pid)
    for what, was in before.items():
        expect(after[what] == was, f"its {what} are not as before: {differences(was, after[what])}")
    finish(moved, workload)


def side_by_side(lab) -> None:
    """Several at once to one receiver, each with its own migration."""
    receiver = lab.receiver()
    programs = [start(lab, "hash_chain") for _ in range(4)]
    for program in programs:
        program.aim(receiver.port)
        program.trigger()
    count = len(programs)
    until(lambda: sum(event["event"] == "complete" for event in receiver.events()) == count,
          f"{count} migrations at once", 60, alive=[receiver])
    for program in programs:
        expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    expect("FAIL" not in receiver.text(), "a workload found something wrong")


def clocks_go_on(lab) -> None:
    """The clocks of a program that are ahead of the machine's are so after each of two moves, and never go back."""
    machine.need_command("unshare")
    receiver = lab.receiver()
    command = ["unshare", "--time", "--monotonic", "100000", "--fork", sys.executable, "-u", "-c", _CLOCK]
    wrapper = lab.program("clock", command, through_pipe=False)
    wrapper.wait_lines(3)
    process = Inner(wrapper, machine.children(wrapper.pid)[0])
    for _ in range(2):
        process = lab.move(process, receiver)
        process.wait_complete()
        lines = wrapper.text().count("\n") + 5
        until(lambda lines=lines: wrapper.text().count("\n") >= lines, "the clock to go on")
    times = [float(line) for line in wrapper.text().split("\n")[:-1]]
    expect(times == sorted(times), "the clock went back")
    expect(times[-1] - times[0] < 30, f"the clock jumped from {times[0]} to {times[-1]}")


def looked_at(lab) -> None:
    """Somebody reads the arguments of every process all the time, also of those that are being built."""
    onlooker = lab.program("onlooker", [compile_c("onlooker", lab.directory)], {"LD_PRELOAD": ""})
    receivers = [lab.receiver() for _ in range(RING)]
    padding = {f"PADDING_{number}": "x" * 1000 for number in range(20)}
    process = lab.program("arguments", [compile_c("arguments", lab.directory), "one", "two"], padding)
    process.wait_lines(3)
    for step in range(2 * MOVES_IN_RING):
        process = lab.move(process, receivers[step % RING])
        process.wait_complete()
        lines = process.text().count("\n") + 2
        until(lambda lines=lines: process.text().count("\n") >= lines, f"it to go on: {tail(process)}", 10)
    expect("FAIL" not in process.text() and not onlooker.ended(), tail(process))


def _checks() -> list:
    checks = [Check("counter goes on at exactly last + 1", counter_continues)]
    for name in names():
        checks.append(Check(f"{name} survives a move", partial(one_move, name, ())))
    for name in ("counter", "files_pipes", "process_state"):
        checks.append(Check(f"/proc tells the same of {name} after a move", partial(proc_tells_the_same, name)))
    for count in ("1", "256"):
        for name in ("threads", "robust_mutex"):
            checks.append(Check(f"{name} with {count} threads survives a move",
                                partial(one_move, name, ("--threads", count))))
    for name in names():
        checks.append(Check(f"{name} survives a move while every processor is busy", partial(busy_move, name)))
    for name in names():
        checks.append(Check(f"{name} survives {MOVES_IN_RING} moves in a ring of {RING} receivers",
                            partial(ring, name)))
    checks.append(Check("a program whose arguments everybody reads meanwhile moves with them", looked_at))
    checks.append(Check("clocks go on where they were", clocks_go_on))
    checks.append(Check("four programs move side by side", side_by_side))
    checks.append(Check(f"counter moves {COUNTER_MOVES} times without a failure", counter_hundred_times))
    return checks


CHECKS = _checks  # a function: the list comes from bin/target, which must exist first
