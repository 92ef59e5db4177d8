#!/usr/bin/env python3
"""Runs ZDTM, the test suite of CRIU, with moves from receiver to receiver instead of checkpoints.

A ZDTM test sets up one kind of state, writes NAME.pid, waits for SIGTERM, checks its state and writes PASS or FAIL into
NAME.out. docs/zdtm.md says how to build them, and what each is expected to do here.
"""

import argparse
import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.harness import machine  # noqa: E402
from tests.harness.lab import Lab  # noqa: E402
from tests.harness.processes import refusals  # noqa: E402
from tests.harness.waiting import Failure, until  # noqa: E402

TABLE = machine.ROOT / "docs" / "zdtm.md"
# Some tests use SIGUSR2 themselves.
_TRIGGER = signal.SIGRTMIN + 19
# What the receivers of class D1 are told: the other side of its connections, and so their address, stays where it is.
_RELAY = ("--tcp", "relay")
# What a test waits for that it does not tell: seconds. A connection breaks when the kernel sends again, in its own time.
_OWN_TIME = {"socket-tcp-reseted": 1.0}
# How long a test may look at what it has: one of them writes 45 MB in pieces of 17 bytes before it ends.
_LAST_LOOK = 120
# Whom tests become that need not be root.
_ORDINARY = {"ZDTM_UID": "18943", "ZDTM_GID": "58467", "ZDTM_GROUPS": "27495 48244"}


def expected() -> dict:
    """What docs/zdtm.md says of each test: (class, result)."""
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (\w+)", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (kind, result) for name, kind, result in rows}


def command_of(static: Path, name: str) -> list:
    """How the suite's own Makefile starts a test."""
    done = subprocess.run(["make", "-n", "-C", str(static), f"{name}.pid"], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"./{name} ")]
    if not lines:
        raise machine.Missing(f"the test {name}: {done.stderr.strip()[-200:]}")
    return shlex.split(lines[-1])


def flags_of(static: Path, name: str) -> list:
    try:
        return ast.literal_eval((static / f"{name}.desc").read_text(encoding="utf-8").strip()).get("flags", "").split()
    except (OSError, ValueError, SyntaxError):
        return []


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def is_registered(pid: int) -> bool:
    """Whether a userfaultfd is still on any of its mappings."""
    lines = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith("VmFlags:") and " um" in line for line in lines)


class Test:
    """One test in a laboratory of its own."""

    def __init__(self, lab, static: Path, name: str, arguments: tuple):
        self.name, self.directory = name, lab.directory / "test"
        self.receiver, self.log = lab.receiver(arguments=arguments), self.directory / "log"
        lab.directory.chmod(0o755)
        self.directory.mkdir()
        self.directory.chmod(0o777)
        (self.directory / name).symlink_to(static / name)
        ordinary = {} if "suid" in flags_of(static, name) else _ORDINARY
        settings = {
            "LD_PRELOAD": str(machine.BIN / "libsender.so"), "POSTHASTE_LOG": str(self.log),
            "POSTHASTE_RECEIVER": f"127.0.0.1:{self.receiver.port}", "POSTHASTE_SIGNAL": str(int(_TRIGGER)),
        }
        started = subprocess.run(
            command_of(static, name), cwd=self.directory, env=lab.environment(**settings, **ordinary),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        pid_file = self.directory / f"{name}.pid"
        if started.returncode or not pid_file.exists():
            raise machine.Missing(f"what it needs: {self.output()[-200:].strip()}")
        self.pid = int(pid_file.read_text(encoding="ascii"))

    def output(self) -> str:
        found = [self.directory / f"{self.name}.out{more}" for more in ("", ".inprogress")]
        return "".join(path.read_text(errors="replace") for path in found if path.exists())

    def move(self) -> str:
        """Moves it once; returns why it stays, if it does."""
        before, left = len(self.receiver.events()), self.left()
        os.kill(self.pid, _TRIGGER)

        def outcome():
            return self.receiver.find("resumed", before) or self.left()[len(left):]
        found = until(outcome, "the move or a refusal", 30)
        if isinstance(found, list):
            return found[0].partition(": ")[2]
        complete = until(lambda: self.receiver.find("complete", before), "every page to arrive", 30)
        if not complete["report"]["relayed_connections"]:
            until(lambda: is_gone(self.pid), "the source to end", 5)
        self.pid = found["pid"]
        until(lambda: not is_registered(self.pid), "the userfaultfd to be closed", 5)
        return ""

    def left(self) -> list:
        return refusals(self.log.read_text(errors="replace")) if self.log.exists() else []

    def finish(self) -> bool:
        """Ends it; whether it has found everything as it was."""
        time.sleep(_OWN_TIME.get(self.name, 0))
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: is_gone(self.pid), "the end after SIGTERM", _LAST_LOOK)
        return "PASS" in (self.output().strip().splitlines() or [""])[-1].split()


def run(static: Path, name: str, moves: int, arguments: tuple) -> tuple:
    """The result of one test, and what there is to say of it."""
    try:
        with Lab() as lab:
            test = Test(lab, static, name, arguments)
            refusal = ""
            for _ in range(moves):
                refusal = refusal or test.move()
            if test.finish():
                return ("refused", refusal) if refusal else ("passes", "")
            return "fails", refusal or test.output().strip()[-300:]
    except machine.Missing as missing:
        return "skipped", str(missing)
    except (Failure, OSError, subprocess.TimeoutExpired) as failure:
        return "fails", str(failure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("static", type=Path, help="test/zdtm/static of a built CRIU source tree")
    parser.add_argument("tests", nargs="*", help="names; all of docs/zdtm.md if none is given")
    parser.add_argument("--of", help="only these classes of docs/zdtm.md, for example A1,A2")
    parser.add_argument("--moves", type=int, default=2, help="how often each is moved; 0 runs it with the preload alone")
    options = parser.parse_args()
    machine.need_everything()
    known = expected()
    names = options.tests or [name for name, (kind, _) in known.items()
                              if not options.of or kind in options.of.split(",")]
    unexpected = 0
    for name in names:
        arguments = _RELAY if known.get(name, ("", ""))[0] == "D1" else ()
        result, words = run(options.static.resolve(), name, options.moves, arguments)
        wanted = "passes" if options.moves == 0 else known.get(name, ("", result))[1]
        is_fine = result in (wanted, "skipped")
        unexpected += not is_fine
        print(f"{'ok' if is_fine else 'NOT OK'} {name} {result}{': ' + words if words else ''}", flush=True)
    print(f"{len(names) - unexpected} of {len(names)} as expected")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
