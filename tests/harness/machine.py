"""What this machine has, and what /proc says about a process."""

import ctypes
import os
import platform
import shutil
from pathlib import Path

from tests.harness.waiting import until

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "bin"
PROGRAMS = ROOT / "tests" / "programs"

CRIU_PREFIX = Path(os.environ.get("CRIU_PREFIX", "/usr/local/lib/posthaste"))

_USERFAULTFD = 323
_TGKILL = 234
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


def newer_libc(release: str) -> list:
    """What to put before a program that is to run with the glibc of another Debian, which came with criu."""
    root = CRIU_PREFIX / f"root-{release}/usr"
    if not (root / "lib64/ld-linux-x86-64.so.2").exists():
        raise Missing(f"the glibc of {release}, which make criu brings where criu needs it")
    return [str(root / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(root / "lib/x86_64-linux-gnu")]


def signal_thread(pid: int, thread: int, number: int) -> None:
    """Sends a signal to one thread of a process."""
    if ctypes.CDLL(None, use_errno=True).syscall(_TGKILL, pid, thread, number) != 0:
        raise ProcessLookupError(ctypes.get_errno(), f"thread {thread}")


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


def layout(pid: int) -> list:
    """The address space without what grows by itself: (start, end, protection, name), neighbours that are alike
    taken together."""
    found = []
    for line in mappings(pid):
        place, protection, _, _, _, *name = line.split(None, 5)
        start, end = (int(word, 16) for word in place.split("-"))
        name = (name or [""])[0]
        if found and found[-1][1:] == (start, protection, name):
            start = found.pop()[0]
        found.append((start, end, protection, name))
    return found


def inner_ids(pid: int) -> list:
    """The thread ids of a process as it sees them itself."""
    found = []
    for thread in threads(pid):
        lines = Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines()
        found += [int(line.split()[-1]) for line in lines if line.startswith("NSpid:")]
    return sorted(found)


def lasting_descriptors(pid: int) -> dict:
    """The descriptors that a process has open whenever one looks, and of what kind they are."""
    looks = []

    def has_looked_often() -> bool:
        looks.append(descriptors(pid))
        return len(looks) == 50

    until(has_looked_often, "time to look again")
    return {number: what.partition(":")[0] for number, what in looks[0].items()
            if all(number in look for look in looks)}


def facts(pid: int) -> dict:
    """What /proc says of a process and must not change by a move."""
    proc = Path(f"/proc/{pid}")
    kept = ("Name", "Umask", "Uid", "Gid", "Groups", "Sig", "Shd", "Cap", "NoNewPrivs", "Seccomp", "THP_enabled")
    return {
        "threads": inner_ids(pid),
        "thread names": sorted((proc / "task" / thread / "comm").read_text() for thread in threads(pid)),
        "descriptors": lasting_descriptors(pid),
        "mappings": layout(pid),
        "program": os.readlink(proc / "exe"),
        "directory": os.readlink(proc / "cwd"),
        "command line": (proc / "cmdline").read_bytes(),
        "environment": (proc / "environ").read_bytes(),
        "auxiliary vector": (proc / "auxv").read_bytes(),
        "limits": (proc / "limits").read_text(),
        "status": [line for line in (proc / "status").read_text().splitlines()
                   if line.startswith(kept) and not line.startswith("SigQ")],
    }


def signal_state(pid: int) -> list:
    """What the process blocks, ignores and handles."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state(pid: int) -> str:
    """The letter that proc_pid_stat(5) has for it: R runs, S sleeps, T is stopped, Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


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
