"""What this machine has, and what /proc says about a process."""

import ctypes
import os
import platform
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "bin"
PROGRAMS = ROOT / "tests" / "programs"

_USERFAULTFD = 323
_CLOSE_ON_EXEC = os.O_CLOEXEC | os.O_NONBLOCK


class Missing(Exception):
    """Something that a test needs is not here; the text names it."""


def need_everything() -> None:
    """Raises Missing unless processes can be moved on this machine with what has been built."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Missing(f"64-bit x86 Linux (this is {platform.system()} on {platform.machine()})")
    for name in ("receiver", "target", "libsender.so"):
        if not (BIN / name).exists():
            raise Missing(f"bin/{name}: run make first")
    if os.geteuid() != 0:
        raise Missing("root: PID namespaces and thread ids of the receiver's choice need it")
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.syscall(_USERFAULTFD, _CLOSE_ON_EXEC)
    if descriptor < 0:
        raise Missing(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)


def need_command(*names: str) -> None:
    """Raises Missing unless every command is on PATH."""
    for name in names:
        if shutil.which(name) is None:
            raise Missing(f"the command {name}")


def threads(pid: int) -> set:
    """The thread ids of a process."""
    return set(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> dict:
    """The open descriptors of a process and what each of them is."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
    return found


def mappings(pid: int) -> list:
    """The mappings of a process without those that grow by themselves."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in lines if not line.endswith(("[heap]", "[stack]"))]


def signal_state(pid: int) -> list:
    """What the process blocks, ignores and handles."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list:
    """The child processes of every thread of a process."""
    found = []
    for thread in threads(pid):
        found += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return [int(child) for child in found]


def marked(marker: str) -> list:
    """The processes whose environment holds `marker`."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and marker.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found.append(int(entry))
        except OSError:
            continue
    return found
