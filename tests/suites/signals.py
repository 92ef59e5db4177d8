"""Which signal asks for a move, and whose it is."""

import signal
import time
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until

_CROWD_MOVES = 6
_COUNTER = [str(machine.BIN / "target"), "--interval-ms", "2"]


def chosen_signal(setting: str, number: int, lab) -> None:
    """POSTHASTE_SIGNAL names the signal."""
    receiver = lab.receiver()
    program = lab.program("counter", _COUNTER, {"POSTHASTE_SIGNAL": setting}, trigger=number)
    program.wait_lines(2)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    until(lambda: len(moved.numbers(r"^(\d+)$")) > 2, "numbers from the receiver", alive=[receiver, moved])


def impossible_signal(setting: str, lab) -> None:
    """A signal that cannot be is named in one line, and the program runs as ever."""
    program = lab.program("counter", [*_COUNTER, "--count", "5"], {"POSTHASTE_SIGNAL": setting})
    expect(program.wait() == 0, f"the program ended with {program.last_words()}")
    expect(program.final_text() == "0\n1\n2\n3\n4\ncounter: PASS\n", program.final_text())
    said = program.errors().strip().splitlines()
    expect(len(said) == 1 and "POSTHASTE_SIGNAL" in said[0], f"it said {said}")


def own_handler_stays(lab) -> None:
    """The program installs its own handler: it is the one that runs, and another signal can be chosen."""
    path = compile_c("own_handler", lab.directory)
    receiver = lab.receiver()
    program = lab.program("own_handler", [path], {"POSTHASTE_SIGNAL": "SIGRTMIN+3"}, trigger=signal.SIGRTMIN + 3)
    program.wait_lines(2)
    program.process.send_signal(signal.SIGUSR2)
    until(lambda: "own handler" in program.text(), "its own handler to run", alive=[program])
    moved = lab.move(program, receiver)
    moved.wait_complete()
    until(lambda: len(moved.numbers(r"^(\d+)$")) > 2, "numbers from the receiver", alive=[receiver, moved])
    moved.signal(signal.SIGUSR2)
    until(lambda: "own handler" in moved.text(), "its own handler to run after the move", alive=[receiver, moved])


def taken_back_is_left_alone(lab) -> None:
    """A program that takes SIGUSR2 for itself keeps it and simply cannot be moved by it."""
    program = lab.program("own_handler", [compile_c("own_handler", lab.directory)])
    program.wait_lines(2)
    for times in (1, 2):
        program.trigger()
        until(lambda times=times: program.text().count("own handler") == times, "its own handler", alive=[program])
    program.wait_lines(10)


def ignored_stays_ignored(lab) -> None:
    """SIGUSR2 that whoever started the program had ignored stays ignored; one line says so."""
    def ignore():
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    program = lab.program("counter", _COUNTER, preexec_fn=ignore)
    program.wait_lines(2)
    said = program.errors().strip().splitlines()
    expect(len(said) == 1 and "POSTHASTE_SIGNAL" in said[0], f"it said {said}")
    before = machine.signal_state(program.pid)
    program.trigger()
    program.wait_lines(program.text().count("\n") + 5)
    expect(machine.signal_state(program.pid) == before, "its signals are others")


def log_to_a_file(lab) -> None:
    """POSTHASTE_LOG takes the lines that would go to standard error."""
    log = lab.directory / "log"
    program = lab.program("counter", _COUNTER, {"POSTHASTE_LOG": str(log)})
    program.aim(1)  # nobody listens there
    program.wait_lines(2)
    program.trigger()
    until(lambda: log.exists() and log.read_text().count("\n") == 1, "a line in the log", alive=[program])
    expect("goes on here" in log.read_text() and not program.errors(), f"{log.read_text()!r} {program.errors()!r}")


def any_thread(libc: str, lab) -> None:
    """Whichever thread gets the signal, and in whichever call it waits: none returns EINTR. Then the program moves."""
    before = machine.newer_libc(libc.partition("'")[0]) if "'" in libc else []
    path = compile_c("sleeps", lab.directory, "musl-gcc" if libc == "musl" else "gcc")
    receiver = lab.receiver()
    program = lab.program("sleeper", [*before, path])
    program.aim(1)  # nobody listens there
    program.wait_lines(3)
    for thread in sorted(map(int, machine.threads(program.pid))):
        _attempt(program, thread)
    program.wait_lines(program.text().count("\n") + 4)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    until(lambda: moved.text().count("\n") > 4, "it to go on", alive=[receiver, moved])
    moved.signal(signal.SIGTERM)
    moved.wait_exited()
    expect("FAIL" not in moved.text() and "sleeper: PASS\n" in moved.text(), moved.text())


def crowd(lab) -> None:
    """Threads that are sent numbered signals all the time take each once and in turn, through many moves."""
    receivers = [lab.receiver(f"receiver{number}") for number in range(2)]
    program = lab.program("crowd", [compile_c("crowd", lab.directory)])
    # As another user a thread may not reach the program's file.
    program.trigger_thread = True
    program.wait_lines(20)
    for number in range(_CROWD_MOVES):
        program = lab.move(program, receivers[number % 2])
        program.wait_complete()
        until(lambda: f"{number + 1}\n" in program.text(), "it to see that it has moved", alive=[receivers[number % 2]])
    program.signal(signal.SIGTERM)
    ended = program.wait_exited()
    expect(ended.get("exit_code") == 0, f"it ended with {ended} and said {program.text()[-200:]}")
    until(lambda: program.text().endswith("all there\n"), "its last line")


def only_looks_interrupted(lab) -> None:
    """A program that computes where it could be taken for one in an interrupted call goes on as it was."""
    program = lab.program("looks_interrupted", [compile_c("looks_interrupted", lab.directory)])
    program.aim(1)
    program.wait_lines(3)
    for _ in range(30):
        _attempt(program, program.pid)
    program.wait_lines(program.text().count("\n") + 3)
    expect("FAIL" not in program.text(), program.text()[-100:])


def _attempt(program, thread: int) -> None:
    """Has a thread get the signal until that begins an attempt, and waits for the end of it."""
    said = len(program.left())
    for _ in range(20):
        ignored = program.errors().count("under way")
        machine.signal_thread(program.pid, thread, program.trigger_signal)
        until(lambda: len(program.left()) > said or program.errors().count("under way") > ignored,
              f"what becomes of the signal to thread {thread}", alive=[program])
        if len(program.left()) > said:
            return
        time.sleep(0.01)
    raise Failure(f"20 signals to thread {thread} were ignored")


def _checks() -> list:
    checks = []
    for setting, number in (("SIGUSR1", signal.SIGUSR1), ("USR1", signal.SIGUSR1), ("10", 10), ("50", 50),
                            ("SIGRTMIN+5", signal.SIGRTMIN + 5), ("RTMIN+5", signal.SIGRTMIN + 5),
                            ("SIGRTMAX-2", signal.SIGRTMAX - 2)):
        checks.append(Check(f"POSTHASTE_SIGNAL={setting} moves", partial(chosen_signal, setting, int(number))))
    for setting in ("SIGKILL", "0", "65", "nonsense"):
        checks.append(Check(f"POSTHASTE_SIGNAL={setting} is refused in one line",
                            partial(impossible_signal, setting)))
    for libc in ("glibc", "trixie's glibc", "sid's glibc", "musl"):
        checks.append(Check(f"no call of any thread sees the signal ({libc})", partial(any_thread, libc)))
    return checks + [
        Check("code that only looks like an interrupted call goes on as it was", only_looks_interrupted),
        Check("a handler of the program itself goes on working, before and after a move", own_handler_stays),
        Check("a program that takes SIGUSR2 for itself keeps it", taken_back_is_left_alone),
        Check(f"signals to the threads of a crowd come once and in turn, through {_CROWD_MOVES} moves", crowd),
        Check("an ignored SIGUSR2 stays ignored and one line says so", ignored_stays_ignored),
        Check("POSTHASTE_LOG takes the lines from standard error", log_to_a_file),
    ]


CHECKS = _checks
