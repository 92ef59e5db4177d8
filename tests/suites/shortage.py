"""A destination that is short of memory, descriptors, processes: told beforehand where it can be known, waited for after."""

import errno
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites import workloads
from tests.suites.failures import Witness, try_and_stay

_ENTER = 'for group in $0; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'
_MIB = 1 << 20
_USER = 47113  # nobody else's


def _mount_of(controller: str) -> Path:
    """Where a controller's groups are, of version 1 or 2."""
    second = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        kind, _, options = after.split(" ", 2)
        place = Path(before.split()[4])
        if kind == "cgroup" and controller in options.split(","):
            return place
        if kind == "cgroup2" and controller in (place / "cgroup.subtree_control").read_text().split():
            second = place
    if second is None:
        raise machine.Missing(f"a place for groups with the {controller} controller")
    return second


@contextmanager
def _group(controller: str):
    """A control group of our own, of which nothing is left."""
    group = _mount_of(controller) / f"posthaste-{os.getpid()}-{controller}"
    try:
        group.mkdir()
    except OSError as error:
        raise machine.Missing(f"the right to make a group of the {controller} controller: {error}") from error
    try:
        yield group
    finally:
        until(lambda: _removed(group), "the control group to be empty", 20)


def _removed(group: Path) -> bool:
    for pid in (group / "cgroup.procs").read_text().split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        group.rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _limit(group: Path, second: str, first: str, value) -> None:
    name = second if (group / second).exists() else first
    (group / name).write_text(str(value))


def _in(group: Path) -> list:
    return ["sh", "-c", _ENTER, str(group)]


def _stays(lab, receiver, program, words: str) -> None:
    program.aim(receiver.port)
    try_and_stay(Witness(program), words)
    until(lambda: receiver.find("refused"), "the receiver to tell of it", alive=[receiver])  # the source may hear it first
    expect(not receiver.find("resumed"), f"the events are {receiver.events()}")


def too_little_memory(lab) -> None:
    """A control group that cannot hold the program's memory refuses it, with both numbers."""
    with _group("memory") as group:
        _limit(group, "memory.max", "memory.limit_in_bytes", 64 * _MIB)
        receiver = lab.receiver(wrapper=_in(group))
        program = lab.target("counter", "--interval-ms", "1", "--resident-mib", "96")
        program.wait_lines(2)
        _stays(lab, receiver, program, r"needs \d{9} bytes of memory, and there is room for \d{8} here")
        receiver.kill()


def too_few_of_its_user(lab) -> None:
    """A receiver whose user may not have more processes says so before anything stops."""
    machine.need_command("setpriv", "prlimit")
    lab.directory.chmod(0o755)
    binaries = lab.directory / "bin"
    shutil.copytree(machine.BIN, binaries)
    ids = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--"]
    before = os.umask(0)
    try:
        receiver = lab.receiver(wrapper=["prlimit", "--nproc=6:6", *ids], binaries=binaries)
        program = lab.program("counter", [*ids, "env", f"LD_PRELOAD={binaries / 'libsender.so'}", str(binaries / "target"),
                                          "counter", "--interval-ms", "1"], {"LD_PRELOAD": ""})
    finally:
        os.umask(before)
    program.wait_lines(2)
    # Besides the receiver and its session there are the program and what moves it, and maybe one that has yet to go.
    _stays(lab, receiver, program, "needs 3 threads and processes, and there is room for [12] here")


def memory_runs_out(lab) -> None:
    """When the process's group runs out of memory behind the switch, the process waits, this is told, and it goes on when
    there is room."""
    with _group("memory") as group:
        if not (group / "memory.oom_control").exists():
            raise machine.Missing("a memory group that waits instead of killing (version 1)")
        (group / "memory.oom_control").write_text("1")
        receiver = lab.receiver()
        link = lab.link(receiver, bytes_per_second=20 * _MIB)
        program = lab.target("hash_chain")
        program.wait_lines(3)
        moved = lab.move_through(program, receiver, link)
        expect(not receiver.find("complete"), "everything has arrived already: the link is too fast for this test")
        limit = group / "memory.limit_in_bytes"
        limit.write_text(str(2 * _MIB))
        (group / "cgroup.procs").write_text(str(moved.pid))
        paused = until(lambda: receiver.find("paused"), "the shortage to be told", 30, alive=[receiver])
        expect("memory" in paused["reason"], f"the reason is {paused['reason']}")
        expect(not receiver.find("complete") and not receiver.find("failed"), "it did not wait")
        limit.write_text("-1")
        moved.wait_complete()
        workloads.finish(moved, "hash_chain")


def too_few_descriptors(lab) -> None:
    """A hard limit below the program's highest descriptor refuses it by name."""
    machine.need_command("prlimit")
    receiver = lab.receiver(wrapper=["prlimit", "--nofile=512:512", "--"])
    program = lab.target("counter", "--interval-ms", "2")
    program.wait_lines(2)
    _stays(lab, receiver, program, "the number of descriptors is limited to 512 here")


def too_few_processes(lab) -> None:
    """A group without room for the program's threads refuses it, with both numbers."""
    with _group("pids") as group:
        receiver = lab.receiver(wrapper=_in(group))
        (group / "pids.max").write_text("4")
        program = lab.target("vectors")
        program.wait_lines(2)
        _stays(lab, receiver, program, r"needs \d+ threads and processes, and there is room for \d here")
        (group / "pids.max").write_text("max")
        lab.move(program, receiver).wait_complete()
        receiver.kill()


def no_process_at_all(lab) -> None:
    """A receiver that cannot start anything says so and takes the next one."""
    with _group("pids") as group:
        receiver = lab.receiver(wrapper=_in(group))
        (group / "pids.max").write_text("1")
        program = lab.target("counter", "--interval-ms", "2")
        program.wait_lines(2)
        program.aim(receiver.port)
        try_and_stay(Witness(program))
        (group / "pids.max").write_text("max")
        lab.move(program, receiver).wait_complete()
        receiver.kill()


def _checks() -> list:
    return [
        Check("too little memory is refused, with both numbers", too_little_memory),
        Check("memory that runs out behind the switch is waited for, and told", memory_runs_out),
        Check("too few descriptors are refused by name", too_few_descriptors),
        Check("too few processes are refused, with both numbers", too_few_processes),
        Check("too few processes of the receiver's user are refused, with both numbers", too_few_of_its_user),
        Check("a receiver that can start no process refuses and takes the next one", no_process_at_all),
    ]


CHECKS = _checks
