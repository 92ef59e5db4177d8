"""The steps that a user of the first such system types, as they are written, and the two programs that broke it."""

import ctypes
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.processes import Process
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.workloads import continuous

_NEW_NETWORK = 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def _new_network() -> None:
    """Gives the calling process a network of its own, where every port is free, with its loopback up."""
    if ctypes.CDLL(None).unshare(_NEW_NETWORK) != 0:
        raise OSError("unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def _join_network(pid: int) -> None:
    with open(f"/proc/{pid}/ns/net", "rb") as network:
        if ctypes.CDLL(None).setns(network.fileno(), _NEW_NETWORK) != 0:
            raise OSError("setns")


def _numbers(path: Path) -> list:
    return [int(line) for line in path.read_text().splitlines() if line.isdigit()]


def by_hand(lab) -> None:
    """receiver; LD_PRELOAD=./libsender.so ./target; kill -12 PID. No port, no file, no variable of ours."""
    for name in ("receiver", "target", "libsender.so"):
        shutil.copy2(machine.BIN / name, lab.directory)
    environment = lab.environment()
    receiver = Process("by-hand-receiver", ["sh", "-c", "exec ./receiver"], lab.directory, environment,
                       preexec_fn=_new_network)
    lab.programs.append(receiver)
    until(lambda: "43000" in receiver.text() + receiver.errors(), "the receiver to say its port", alive=[receiver])
    target = Process("by-hand-target", ["sh", "-c", "LD_PRELOAD=./libsender.so exec ./target --interval-ms 5 | cat"],
                     lab.directory, environment, preexec_fn=partial(_join_network, receiver.pid))
    lab.programs.append(target)
    until(lambda: len(_numbers(target.out)) > 3, "numbers from target", alive=[target])
    pid = next(pid for pid in machine.marked(lab.marker) if _is_target(pid))
    expect(subprocess.run(["kill", "-12", str(pid)], check=False).returncode == 0, "kill -12")
    until(lambda: len(_numbers(receiver.out)) > 3, "numbers from the receiver", alive=[receiver])
    target.wait()
    numbers = _numbers(target.out) + _numbers(receiver.out)
    expect(numbers == list(range(len(numbers))), f"the numbers are {numbers}")
    moved = next(pid for pid in machine.marked(lab.marker) if _is_target(pid))
    os.kill(moved, signal.SIGTERM)
    until(lambda: "counter: PASS" in receiver.out.read_text(), "its end", alive=[receiver])


def _is_target(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe").endswith("/target")
    except OSError:
        return False


def breaker(name: str, compiler: str, lab) -> None:
    """A C program of a few lines moves twice and counts on."""
    program = lab.program(name, [compile_c(name, lab.directory, compiler)])
    program.wait_lines(3)
    first, second = lab.receiver(), lab.receiver()
    once = lab.move(program, first)
    once.wait_complete()
    until(lambda: once.text().count("\n") >= 25, "numbers from the first receiver", alive=[first, once])
    twice = lab.move(once, second)
    twice.wait_complete()
    until(lambda: twice.text().count("\n") >= 25, "numbers from the second receiver", alive=[second, twice])
    program.wait()
    expect("FAIL" not in twice.text(), twice.text()[-200:])
    continuous(program.final_text(), once.text() + twice.text())


def address_by_variable(lab) -> None:
    """POSTHASTE_RECEIVER comes before receiver_info.txt."""
    receiver = lab.receiver()
    program = lab.program("counter", [str(machine.BIN / "target"), "--interval-ms", "2"],
                          {"POSTHASTE_RECEIVER": f"127.0.0.1:{receiver.port}"})
    program.wait_lines(2)
    program.aim(1)
    program.trigger()
    until(lambda: receiver.find("resumed"), "the move", alive=[receiver])


def events_on_standard_output(lab) -> None:
    """--events - prints JSON lines on standard output; --once ends after one process with its outcome."""
    receiver = Process("once", [str(machine.BIN / "receiver"), "0", "--once", "--events", "-"], lab.directory,
                       lab.environment())
    lab.programs.append(receiver)
    line = until(lambda: [line for line in receiver.text().splitlines() if '"listening"' in line],
                 "the event", alive=[receiver])[0]
    program = lab.target("counter", "--interval-ms", "2", "--count", "500")
    program.aim(json.loads(line)["port"])
    program.wait_lines(3)
    program.trigger()
    expect(receiver.wait() == 0, f"the receiver ended with {receiver.last_words()}")
    kinds = [json.loads(line)["event"] for line in receiver.text().splitlines() if line.startswith("{")]
    expect(sorted(kinds) == sorted(["listening", "connected", "resumed", "complete", "exited"]), f"events {kinds}")


def terminal(lab) -> None:
    """A program on a terminal goes on with the receiver's streams, all three of them."""
    controller, terminal_side = pty.openpty()
    receiver = lab.receiver()
    out = os.fdopen(os.dup(terminal_side), "wb")
    program = lab.program("on_a_terminal", [str(machine.BIN / "target"), "--interval-ms", "2"], through_pipe=False,
                          stdin=terminal_side, stdout=out, preexec_fn=os.setsid)
    os.close(terminal_side)
    try:
        until(lambda: select.select([controller], [], [], 0)[0], "the program to print on its terminal",
              alive=[program])
        moved = lab.move(program, receiver)
        until(lambda: len(moved.numbers(r"^(\d+)$")) > 2, "numbers from the receiver", alive=[receiver, moved])
        moved.wait_complete()
        kinds = {machine.descriptors(moved.pid)[number] for number in (0, 1)}
        expect(not any(kind.startswith("/dev/pts") for kind in kinds), f"its streams are {kinds}")
    finally:
        os.close(controller)


def outside_connection(lab) -> None:
    """A connection to the outside is lost, which is said before the move; the program is told by the kernel."""
    receiver = lab.receiver()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = lab.program("connected", [sys.executable, str(machine.PROGRAMS / "connected.py"), str(port)])
        far, _ = server.accept()
        with far:
            far.settimeout(30)
            far.sendall(b"hello\n")
            program.wait_lines(2)
            moved = lab.move(program, receiver)
            notes = [line for line in program.errors().splitlines() if "descriptor 3" in line]
            expect(len(notes) == 1, f"it said {program.errors()}")
            until(lambda: "lost" in moved.text(), "the program to see that its connection is gone",
                  alive=[receiver])
            moved.wait_complete()
            program.wait()
            expect(far.recv(1) == b"", "the far side still has a connection")


def walks_through(lab) -> None:
    """`python3 test.py 2>&1 | tee log` ends although the receiver that it leaves running does not."""
    command = [sys.executable, str(machine.ROOT / "test.py"), "--json"]
    outcome = subprocess.run(command, env=lab.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, timeout=60)
    said = json.loads(outcome.stdout)
    expect(outcome.returncode == 0 and said["failed"] == 0, f"status {outcome.returncode}: {outcome.stdout}")
    for pid in said["left_running"]:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in said["left_running"]), "both to end as told")


def _checks() -> list:
    checks = [Check("the steps by hand, on the default port", by_hand)]
    for compiler in ("gcc", "musl-gcc"):
        checks += [
            Check(f"a program that sleeps and asks for the time survives ({compiler})",
                  partial(breaker, "sleep_clock", compiler)),
            Check(f"a __thread counter survives ({compiler})", partial(breaker, "thread_local", compiler)),
        ]
    checks.append(Check("POSTHASTE_RECEIVER comes before receiver_info.txt", address_by_variable))
    checks.append(Check("a program on a terminal goes on with the receiver's streams", terminal))
    checks.append(Check("a connection to the outside is lost, and this is said beforehand", outside_connection))
    checks.append(Check("test.py leaves a receiver running, and its own output ends", walks_through))
    checks.append(Check("receiver --once --events - tells everything and ends", events_on_standard_output))
    return checks


CHECKS = _checks
