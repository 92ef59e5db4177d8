"""What libsender.so is, and what it does to programs that nobody ever moves: nothing."""

import os
import shutil
import subprocess
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.results import Check
from tests.harness.waiting import expect

LIBRARY = machine.BIN / "libsender.so"
MOST_BYTES = 128 << 10

# Commands of the distribution whose output is the same each time.
COMMANDS = [
    "true",
    "false",
    "ls -l /usr/lib",
    "cat /etc/passwd",
    "sort -r /etc/passwd",
    "grep -n root /etc/passwd",
    "sed -n 2,5p /etc/passwd",
    "gawk -F: '{ n += $3 } END { print n }' /etc/passwd",
    "find /etc -maxdepth 1 -name 'p*'",
    "tar -cf - /etc/passwd",
    "gzip -9 -c -n /etc/passwd",
    "xz -c /etc/passwd",
    "sha256sum /etc/passwd",
    "id",
    "date -u -d @0",
    "dd if=/etc/passwd bs=1 count=100 status=none",
    "bash -c 'trap; (exit 3) | cat; echo $(seq 1 100) | wc -w; exit 5'",
    "perl -e 'fork or exit 4; wait; print $? >> 8, \"\\n\"'",
    "timeout 5 sh -c 'kill -TERM $$'",
    "nice -n 5 getent passwd root",
    "python3 -c 'import threading; t = threading.Thread(target=print, args=(1,)); t.start(); t.join()'",
    "setpriv --reuid 65534 --regid 65534 --clear-groups id",
    "setpriv --no-new-privs grep -E 'NoNewPrivs|Threads|SigBlk' /proc/self/status",
    "unshare --pid --fork sh -c 'echo $$'",
    "unshare --user --map-root-user id -u",
    "unshare --mount --uts --ipc --net cat /proc/net/dev",
    "grep Threads /proc/self/status",
    "sh -c 'ls -1 /proc/self/fd | wc -l'",
]


def _run(command, preload: bool, directory) -> tuple:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("POSTHASTE_")}
    if preload:
        # Where every user may read it, whatever the permissions of the folder that this project lies in.
        os.chmod(directory, 0o755)
        environment["LD_PRELOAD"] = shutil.copy(LIBRARY, directory / "libsender.so")
    outcome = subprocess.run(command, env=environment, cwd="/", capture_output=True, timeout=30, check=False,
                             shell=isinstance(command, str), stdin=subprocess.DEVNULL)
    return outcome.returncode, outcome.stdout, outcome.stderr


def same(command, lab) -> None:
    """Output, errors and exit status are the same with and without the parasite."""
    if isinstance(command, str):
        machine.need_command(command.split()[0])
    without, preloaded = _run(command, False, lab.directory), _run(command, True, lab.directory)
    expect(preloaded == without, f"with libsender.so {preloaded!r:.300}, without {without!r:.300}")


def under_seccomp(mode: str, lab) -> None:
    program = compile_c("under_seccomp", lab.directory)
    same([program, mode], lab)
    expect(_run([program, mode], True, lab.directory) == (7, b"inside\n", b""), "not what the program does alone")


def _tool(*command: str) -> str:
    machine.need_command(command[0])
    outcome = subprocess.run([*command, str(LIBRARY)], capture_output=True, text=True, check=False)
    expect(outcome.returncode == 0, f"{' '.join(command)}: {outcome.stderr}")
    return outcome.stdout


def no_imports(_lab) -> None:
    expect(_tool("nm", "-D", "--undefined-only") == "", f"it imports {_tool('nm', '-D', '--undefined-only')}")


def no_exports(_lab) -> None:
    expect(_tool("nm", "-D", "--defined-only") == "", f"it exports {_tool('nm', '-D', '--defined-only')}")


def no_thread_local_segment(_lab) -> None:
    lines = _tool("readelf", "--segments", "--wide").splitlines()
    expect(not any(line.split()[:1] == ["TLS"] for line in lines), "it has a thread-local segment")
    expect("(NEEDED)" not in _tool("readelf", "--dynamic", "--wide"), "it needs another library")


def small(_lab) -> None:
    size = LIBRARY.stat().st_size
    expect(size <= MOST_BYTES, f"it has {size} bytes, more than {MOST_BYTES}")


def at_rest(lab) -> None:
    """One handler: no thread, no descriptor below 900, at most one above."""
    plain = lab.program("counter", [str(machine.BIN / "target")], {"LD_PRELOAD": ""})
    preloaded = lab.program("counter", [str(machine.BIN / "target")])
    for program in (plain, preloaded):
        program.wait_lines(1)
    expect(len(machine.threads(preloaded.pid)) == 1, "it has started a thread")
    expected, found = (sorted(machine.descriptors(each.pid)) for each in (plain, preloaded))
    extra = [number for number in found if number not in expected]
    expect(len(extra) <= 1 and all(number >= 900 for number in extra), f"it has opened {extra}")


def _checks() -> list:
    checks = [
        Check("libsender.so imports no symbol", no_imports),
        Check("libsender.so exports no symbol", no_exports),
        Check("libsender.so has no thread-local segment and needs no library", no_thread_local_segment),
        Check(f"libsender.so has at most {MOST_BYTES >> 10} KiB", small),
        Check("at rest there is no thread and no low descriptor", at_rest),
    ]
    checks += [Check(f"preloaded, this is the same: {command}", partial(same, command)) for command in COMMANDS]
    checks += [Check(f"preloaded, a program under seccomp runs the same ({mode})", partial(under_seccomp, mode))
               for mode in ("strict", "filter")]
    return checks


CHECKS = _checks
