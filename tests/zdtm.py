#!/usr/bin/env python3
"""Runs ZDTM, the test suite of CRIU, with moves from receiver to receiver instead of checkpoints; or, with --trees, those of
its tests that are trees of processes, with moves by criu-bridge.

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
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.harness import machine  # noqa: E402
from tests.harness.criu import BRIDGE, Daemon, large_pipes, need_criu, restore_lazily  # noqa: E402
from tests.harness.lab import Lab  # noqa: E402
from tests.harness.network import Network  # noqa: E402
from tests.harness.own_root import OwnRoot  # noqa: E402
from tests.harness.processes import refusals  # noqa: E402
from tests.harness.trees import Taker, begin_to_send  # noqa: E402
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
# Where the table of the trees begins.
_TREES = "## Trees of processes"
# Tests of what pages two processes still share: they hold when all memory comes while the tree stands still.
_AT_A_STOP = ("cow00", "cow01")


def expected(trees: bool) -> dict:
    """What docs/zdtm.md says of each test: (class, result)."""
    text = TABLE.read_text(encoding="utf-8").partition(_TREES)[2 if trees else 0]
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (\w+)", text, re.MULTILINE)
    return {name: (kind, result) for name, kind, result in rows}


def command_of(static: Path, name: str) -> list:
    """How the suite's own Makefile starts a test."""
    done = subprocess.run(["make", "-n", "-C", str(static), f"{name}.pid"], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"./{name} ")]
    if not lines:
        raise machine.Missing(f"the test {name}: {done.stderr.strip()[-200:]}")
    return shlex.split(lines[-1])


def words_of(static: Path, name: str, what: str) -> list:
    """What the suite says of a test: its flags, or the options that CRIU needs for it."""
    try:
        return ast.literal_eval((static / f"{name}.desc").read_text(encoding="utf-8").strip()).get(what, "").split()
    except (OSError, ValueError, SyntaxError):
        return []


def is_gone(pid: int) -> bool:
    try:
        return machine.state(pid) in "ZX"
    except OSError:
        return True


def is_registered(pid: int) -> bool:
    """Whether a userfaultfd is still on any of its mappings."""
    lines = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith("VmFlags:") and " um" in line for line in lines)


class Started:
    """A test that has set up its state."""

    def __init__(self, lab, static: Path, name: str, settings: dict, wrapper=(), directory=None):
        self.name, self.directory = name, directory or lab.directory / "test"
        lab.directory.chmod(0o755)
        if directory is None:
            self.directory.mkdir()
            self.directory.chmod(0o777)
            (self.directory / name).symlink_to(static / name)
        started = subprocess.run(
            [*wrapper, *command_of(static, name)], cwd=self.directory, env=lab.environment(**settings),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        pid_file = self.directory / f"{name}.pid"
        if started.returncode or not pid_file.exists():
            raise machine.Missing(f"what it needs: {self.output()[-200:].strip()}")
        self.pid = int(pid_file.read_text(encoding="ascii"))

    def output(self) -> str:
        found = [self.directory / f"{self.name}.out{more}" for more in ("", ".inprogress")]
        return "".join(path.read_text(errors="replace") for path in found if path.exists())

    def finish(self) -> bool:
        """Ends it; whether it has found everything as it was."""
        time.sleep(_OWN_TIME.get(self.name, 0))
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: is_gone(self.pid), "the end after SIGTERM", _LAST_LOOK)
        return "PASS" in (self.output().strip().splitlines() or [""])[-1].split()


    def end(self) -> None:
        """Ends whoever has helped."""


class Test(Started):
    """One test in a laboratory of its own."""

    def __init__(self, lab, static: Path, name: str, arguments: tuple):
        self.receiver, self.log = lab.receiver(arguments=arguments), lab.directory / "test" / "log"
        ordinary = {} if "suid" in words_of(static, name, "flags") else _ORDINARY
        settings = {
            "LD_PRELOAD": str(machine.BIN / "libsender.so"), "POSTHASTE_LOG": str(self.log),
            "POSTHASTE_RECEIVER": f"127.0.0.1:{self.receiver.port}", "POSTHASTE_SIGNAL": str(int(_TRIGGER)),
        }
        super().__init__(lab, static, name, {**settings, **ordinary})

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


class TreeTest(Started):
    """A test that is a tree of processes, on one of two machines as far as their networks go."""

    def __init__(self, lab, static: Path, name: str):
        self.lab, self.here, self.there, self.moves = lab, "left", "right", 0
        self.network = Network(lab)
        self.options = [*words_of(static, name, "opts"), *words_of(static, name, "dopts")]
        # CRIU needs a capability for other users' processes that not every root has.
        who = {"ZDTM_ROOTLESS": "1"} if not may_change_limits() else _ORDINARY
        who = {} if "suid" in words_of(static, name, "flags") else who
        super().__init__(lab, static, name, who, self.network.inside(self.here))


class MovedTree(TreeTest):
    """It moves from one to the other by criu-bridge, and back again."""

    def __init__(self, lab, static: Path, name: str):
        super().__init__(lab, static, name)
        self.takers = {name: Taker(lab, name=name, wrapper=self.network.inside(name)) for name in ("left", "right")}
        self.options += ["--mode", "stop"] if name in _AT_A_STOP else []

    def move(self) -> str:
        """Moves it once; returns why it stays, if it does."""
        taker, there = self.takers[self.there], self.there
        link = self.lab.link(taker, listener=self.network.listener(self.here),
                             entered=lambda: self.network.entered(there))
        sending = begin_to_send(self.lab, self.pid, link.port, *self.options, wrapper=self.network.inside(self.here))
        _, said = sending.communicate(timeout=_LAST_LOOK)
        if sending.returncode:
            return said.strip().partition("criu-bridge: ")[2]
        self.moves += 1
        before, count = self.pid, (self.moves + 1) // 2
        taker.event("complete", count)
        self.pid = taker.event("resumed", count)["pid"]
        until(lambda: is_gone(before), "the source to end", 5)
        self.here, self.there = self.there, self.here
        return ""


    def end(self) -> None:
        for taker in self.takers.values():
            taker.end()


class PlainTree(TreeTest):
    """It is dumped and restored in its place, by CRIU alone."""

    def move(self) -> str:
        images = self.lab.directory / f"images{self.moves}"
        images.mkdir()
        self.moves += 1
        said = self._criu(images, "dump", "-t", str(self.pid))
        if said:
            return said
        answers = []

        def is_answered() -> bool:
            # An id is free only when its process has been asked how it ended.
            answers.append(self._criu(images, "restore", "-d"))
            return "File exists" not in answers[-1]
        until(is_answered, "the tree's ids to be free", 20)
        return answers[-1]

    def _criu(self, images: Path, *words: str) -> str:
        return plain_criu(self.lab, *words, "-D", images, *self.options, wrapper=self.network.inside(self.here))


class LazyTree(TreeTest):
    """It is dumped by CRIU, restored by CRIU in a PID namespace of its own, and its memory follows as it is touched: one of
    the programs in between is ours, the others are CRIU's own; or all of them, to compare."""

    def __init__(self, lab, static: Path, name: str, ours: str):
        if "nolazy" in words_of(static, name, "flags"):
            raise machine.Missing("post-copy, which it is not for")
        super().__init__(lab, static, name)
        self.ours, self.images, self.daemons = ours, lab.directory / "images", []

    def move(self) -> str:
        """Moves it; returns why it stays, if it does."""
        self.images.mkdir()
        port = "43211"
        place = ["-D", self.images, "--address", "127.0.0.1", "--port", port]
        try:
            with large_pipes():
                giver = self._giver(place, port)
                serve = BRIDGE if self.ours == "lazy-pages" else need_criu()
                server = self._start("serve", serve, "lazy-pages", "--page-server", *place)
                until((self.images / "lazy-pages.socket").exists, "lazy-pages.socket", alive=[server])
                inner, options = self.pid, [*self.options, "--pidfile", "restored.pid"]
                self.daemons.append(restore_lazily(self.lab, need_criu(), self.images, *options,
                                                   wrapper=self.network.inside(self.here)))
                server.wait()
                giver.wait()
        except Failure as failure:
            # Whoever has stopped it lets it go.
            self.end()
            return str(failure)
        self.pid = until(lambda: self._restored(inner), "the restored test")
        return ""

    def _giver(self, place: list, port: str) -> Daemon:
        """Who has the pages: the stopped tree, or images of it."""
        if self.ours != "page-server":
            giver = self._start("dump", need_criu(), "dump", "-t", self.pid, "--lazy-pages", *place, *self.options)
        else:
            self._start("dump", need_criu(), "dump", "-t", self.pid, "-D", self.images, *self.options).wait()
            giver = self._start("page-server", BRIDGE, "page-server", "--lazy-pages", *place)
        sockets = Path(f"/proc/{self.network.holders[self.here].pid}/net/tcp")

        def is_listening() -> bool:
            lines = [line.split() for line in sockets.read_text(encoding="ascii").splitlines()]
            return any(line[1].endswith(f":{int(port):04X}") and line[3] == "0A" for line in lines)
        until(is_listening, "who has the pages", 30, alive=[giver])
        return giver

    def _start(self, name: str, *command) -> Daemon:
        self.daemons.append(Daemon(self.lab, name, *command, wrapper=self.network.inside(self.here)))
        return self.daemons[-1]

    def _restored(self, inner: int) -> int:
        """Its id out here, or 0."""
        for pid in machine.marked(f"POSTHASTE_LAB={self.lab.directory}"):
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            ids = re.search(r"^NSpid:(.*)", status, re.MULTILINE)[1].split()
            if len(ids) > 1 and ids[-1] == str(inner):
                return int(pid)
        return 0

    def end(self) -> None:
        while self.daemons:
            self.daemons.pop().kill()


class NamespacedTree(Started):
    """A test in namespaces of its own, with a root directory of its own: it is moved by criu-bridge, or with `plain` dumped
    and restored in its place by CRIU alone."""

    def __init__(self, lab, static: Path, name: str, plain: bool):
        self.lab, self.plain, self.own, self.taker, self.moves = lab, plain, OwnRoot(lab, static / name), None, 0
        self.options = words_of(static, name, "opts")
        self.at_a_stop = ["--mode", "stop"] if name in _AT_A_STOP else []
        self.more = {"dump": words_of(static, name, "dopts"), "restore": words_of(static, name, "ropts")}
        settings = {**self.own.settings(), **({} if may_change_limits() else {"ZDTM_ROOTLESS": "1"})}
        try:
            super().__init__(lab, static, name, settings, directory=self.own.directory)
        except machine.Missing:
            self.own.remove()
            raise

    def move(self) -> str:
        """Moves it once; returns why it stays, if it does."""
        self.moves += 1
        return self._in_place() if self.plain else self._away()

    def _away(self) -> str:
        self.taker = self.taker or Taker(self.lab)
        sending = begin_to_send(self.lab, self.pid, self.taker.port, *self.options, *self.more["dump"], *self.own.dump(),
                                *self.own.restore(), *self.at_a_stop)
        _, said = sending.communicate(timeout=_LAST_LOOK)
        if sending.returncode:
            return said.strip().partition("criu-bridge: ")[2]
        self.taker.event("complete", self.moves)
        self.pid = self.taker.event("resumed", self.moves)["pid"]
        return ""

    def _in_place(self) -> str:
        images = self.lab.directory / f"images{self.moves}"
        images.mkdir()
        place, pid_file = ["-D", images, *self.options], images / "pid"
        said = plain_criu(self.lab, "dump", "-t", str(self.pid), *place, *self.more["dump"], *self.own.dump())
        if said:
            return said
        answers = []

        def is_answered() -> bool:
            answers.append(plain_criu(self.lab, "restore", "-d", "--pidfile", pid_file, *place, *self.more["restore"],
                                      *self.own.restore()))
            return "File exists" not in answers[-1]
        until(is_answered, "the tree's ids to be free", 20)
        self.pid = int(pid_file.read_text(encoding="ascii")) if not answers[-1] else self.pid
        return answers[-1]

    def finish(self) -> bool:
        try:
            return super().finish()
        finally:
            self.own.remove()

    def end(self) -> None:
        if self.taker:
            self.taker.end()


def plain_criu(lab, *words, wrapper=()) -> str:
    """Runs CRIU; returns why it does not, if so."""
    done = subprocess.run([*wrapper, "setsid", "-w", need_criu(), *map(str, words)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=_LAST_LOOK, env=lab.environment(), check=False)
    errors = [line for line in done.stderr.splitlines() if "Error" in line and "RLIMIT_NOFILE" not in line]
    return f"criu {words[0]}: {(errors or ['?'])[0]}" if done.returncode else ""


def may_change_limits() -> bool:
    capabilities = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return bool(int(capabilities[1], 16) >> _CHANGES_LIMITS & 1)


_CHANGES_LIMITS = 24  # CAP_SYS_RESOURCE


def run(moves: int, start) -> tuple:
    """The result of one test, and what there is to say of it; `start` does so in a laboratory."""
    try:
        with Lab() as lab:
            test = start(lab)
            refusal = ""
            for _ in range(moves):
                refusal = refusal or test.move()
            is_fine = test.finish()
            test.end()
            if is_fine:
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
    parser.add_argument("--trees", action="store_true", help="trees of processes, by criu-bridge; --of T1 or T2")
    parser.add_argument("--plain", action="store_true", help="the same by criu alone, in their place, to compare")
    parser.add_argument("--namespaces", action="store_true",
                        help="the same, each in namespaces and with a root directory of its own; with --plain too")
    parser.add_argument("--lazy", choices=("lazy-pages", "page-server", "none"),
                        help="the same, moved once by criu, with this of its daemons replaced by criu-bridge's")
    parser.add_argument("--moves", type=int, default=2, help="how often each is moved; 0 runs it with the preload alone")
    options = parser.parse_intermixed_args()
    machine.need_everything()
    options.trees |= options.plain or options.namespaces or options.lazy is not None
    options.moves = 1 if options.lazy else options.moves
    if options.trees:
        need_criu()
    known = expected(options.trees)
    names = options.tests or [name for name, (kind, _) in known.items()
                              if not options.of or kind in options.of.split(",")]
    unexpected = 0
    for name in names:
        arguments = _RELAY if known.get(name, ("", ""))[0] == "D1" else ()
        kinds = {(True, False): MovedTree, (True, True): PlainTree}
        kind = kinds.get((options.trees, options.plain), partial(Test, arguments=arguments))
        kind = partial(LazyTree, ours=options.lazy) if options.lazy else kind
        kind = partial(NamespacedTree, plain=options.plain) if options.namespaces else kind
        result, words = run(options.moves, partial(kind, static=options.static.resolve(), name=name))
        wanted = "passes" if options.moves == 0 else known.get(name, ("", result))[1]
        is_fine = result in (wanted, "skipped")
        unexpected += not is_fine
        print(f"{'ok' if is_fine else 'NOT OK'} {name} {result}{': ' + words if words else ''}", flush=True)
    print(f"{len(names) - unexpected} of {len(names)} as expected")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
