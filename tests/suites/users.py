"""Who is not root: a receiver in a user namespace of its own."""

import os
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import expect
from tests.suites.failures import Witness, try_and_stay
from tests.suites.workloads import finish, settle

NOBODY = 65534
_DEVICE = Path("/dev/userfaultfd")
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@contextmanager
def _device_mode(mode: int):
    """Lets whom the mode says open the device, as a rule of udev would."""
    if not _DEVICE.exists():
        raise machine.Missing("/dev/userfaultfd (Linux 6.1)")
    before = _DEVICE.stat().st_mode & 0o7777
    _DEVICE.chmod(mode)
    try:
        yield
    finally:
        _DEVICE.chmod(before)


@contextmanager
def _open_files():
    """What is created meanwhile may be written by everybody: both sides run as somebody else than this test."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _home(lab) -> Path:
    """The programs, where nobody may run them."""
    lab.directory.chmod(0o755)
    binaries = lab.directory / "bin"
    shutil.copytree(machine.BIN, binaries)
    return binaries


def _start(lab, binaries: Path, workload: str, name: str = "", stdin=None):
    command = [*_AS_NOBODY, "env", f"LD_PRELOAD={binaries / 'libsender.so'}", str(binaries / "target"), workload]
    program = lab.program(name or workload, command, {"LD_PRELOAD": ""}, stdin=stdin)
    program.wait_lines(3)
    return program


def moves(workload: str, lab) -> None:
    """From one receiver to another, with no more rights than its user has anywhere."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    with _device_mode(0o666), _open_files():
        first, second = (lab.receiver(wrapper=_AS_NOBODY, binaries=binaries) for _ in range(2))
        program = _start(lab, binaries, workload)
        number, process = -1, program
        for receiver in (first, second):
            process = lab.move(process, receiver)
            _expect_rights_of_nobody(process.pid)
            number = settle(process, workload, number)
        finish(process, workload)
    expect("forks" in program.errors(), f"nothing was said about forks: {program.errors()}")


def _expect_rights_of_nobody(pid: int) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    for ids in ("Uid", "Gid"):
        expect(status[ids].split() == [str(NOBODY)] * 4, f"its {ids} are {status[ids]}")
    for capabilities in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        expect(int(status[capabilities], 16) == 0, f"its {capabilities} is {status[capabilities]}")


def not_permitted(lab) -> None:
    """Without the device: one line with the three ways to permit it, and the program goes on."""
    machine.need_command("setpriv")
    if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0":
        raise machine.Missing("vm.unprivileged_userfaultfd = 0")
    binaries = _home(lab)
    with _device_mode(0o600), _open_files():
        receiver = lab.receiver(wrapper=_AS_NOBODY, binaries=binaries)
        program = _start(lab, binaries, "counter")
        program.aim(receiver.port)
        try_and_stay(Witness(program), "root.*CAP_SYS_PTRACE.*/dev/userfaultfd")


def to_root(lab) -> None:
    """A receiver of root's takes an ordinary user's process as what it is, and opens files only as that user."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    secret = lab.directory / "secret"
    with _open_files():
        receiver = lab.receiver()
        program = _start(lab, binaries, "counter")
        moved = lab.move(program, receiver)
        _expect_rights_of_nobody(moved.pid)
        finish(moved, "counter")
    secret.write_text("of root")
    secret.chmod(0o600)
    with _open_files(), open(secret, "rb") as theirs:
        program = _start(lab, binaries, "counter", "holder", theirs)
        program.aim(receiver.port)
        try_and_stay(Witness(program), "secret.*permission denied")


def _checks() -> list:
    checks = [Check("root's receiver takes an ordinary user's process with that user's rights", to_root),
              Check("an ordinary user without /dev/userfaultfd is told the three ways to permit it", not_permitted)]
    for workload in ("counter", "threads", "mappings", "forker"):
        checks.append(Check(f"{workload} moves in a user namespace of an ordinary user, and on from there",
                            partial(moves, workload)))
    return checks


CHECKS = _checks
