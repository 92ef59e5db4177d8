"""CRIU, the programs that it moves, and criu-bridge."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.harness import machine
from tests.harness.waiting import Failure, expect, until

BRIDGE = machine.BIN / "criu-bridge"
_PIPE_LIMIT = Path("/proc/sys/fs/pipe-max-size")


def need_criu(sockets: bool = False) -> str:
    """The path of a CRIU that works here, also with network sockets if that is asked for."""
    criu = machine.CRIU_PREFIX / "criu"
    if not criu.exists():
        raise machine.Missing("criu (make criu)")
    if subprocess.run([criu, "check"], capture_output=True).returncode != 0:
        raise machine.Missing("a criu that passes 'criu check'")
    if sockets:
        report = json.loads(subprocess.run([BRIDGE, "check", "--json"], capture_output=True, text=True).stdout)
        for finding in report["findings"]:
            if finding["name"] == "sockets" and finding["grade"] != "ok":
                raise machine.Missing(f"a newer criu: {finding['text']}")
    return str(criu)


@contextmanager
def large_pipes():
    """CRIU's lazy dumps need large pipes, and not everybody who is root may have them beyond the limit."""
    before = _PIPE_LIMIT.read_text()
    if int(before) < 16 << 20:
        _PIPE_LIMIT.write_text(str(16 << 20))
    try:
        yield
    finally:
        _PIPE_LIMIT.write_text(before)


class Tree:
    """A process that this test started in a session of its own, and all that comes from it; its output in a file."""

    def __init__(self, lab, name: str, command: list):
        self.name = name
        self.directory = lab.directory / f"tree-{name}"
        self.directory.mkdir()
        self.out = self.directory / "out"
        # It must not be this test's child: its id would stay taken until somebody asks how it ended.
        with open(self.out, "ab") as out, open(self.directory / "err", "ab") as err:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", 'echo $$ > pid; exec "$@"', "sh", *command], cwd=self.directory,
                env=lab.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=True)
        self.pid = int(until(lambda: (self.directory / "pid").exists() and (self.directory / "pid").read_text(), name))

    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def numbers(self) -> list:
        """What a program that counts has printed, complete lines only."""
        return [int(line) for line in self.text().rpartition("\n")[0].splitlines()]

    def wait_number(self, number: int) -> None:
        until(lambda: len(self.numbers()) > number, f"number {number} of {self.name}")

    def expect_counting(self) -> None:
        """Every number once and in order, and more of them than there are now."""
        self.wait_number(len(self.numbers()) + 5)
        numbers = self.numbers()
        expect(numbers == list(range(len(numbers))), f"{self.name} counted wrong: {numbers[-20:]}")

    def runs(self) -> bool:
        try:
            return machine.state(self.pid) != "Z"
        except OSError:
            return False

    def kill(self) -> None:
        kill_marked(self.directory.parent)


class Daemon:
    """A program beside CRIU that is waited for, with what it says in a file."""

    def __init__(self, lab, name: str, *command, wrapper=()):
        self.name, self.err = name, lab.directory / f"{name}.err"
        with open(self.err, "ab") as err:
            self.process = subprocess.Popen([*wrapper, *map(str, command)], env=lab.environment(), cwd=lab.directory,
                                            stdin=subprocess.DEVNULL, stdout=err, stderr=err)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def said(self) -> str:
        return self.err.read_text(errors="replace")

    def last_words(self) -> str:
        return f"status {self.process.poll()}: {self.said()[-400:]}"

    def wait(self, seconds: float = 120) -> None:
        """Waits for its end, which has to be a good one."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} has not ended: {self.last_words()}") from None
        expect(self.process.returncode == 0, f"{self.name}: {self.last_words()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def restore_lazily(lab, criu: str, images: Path, *options: str, wrapper=()) -> Daemon:
    """CRIU restores a tree in namespaces of its own, where its ids are free, and returns when the tree runs."""
    status = lab.directory / f"restored-{images.name}"
    script = f'"$@"; echo $? > {status}.part; mv {status}.part {status}; exec sleep infinity'
    daemon = Daemon(lab, f"init-{images.name}", "sh", "-c", script, "sh", criu, "restore", "-D", images, "-d",
                    "--lazy-pages", *options, wrapper=(*wrapper, "unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"))
    try:
        until(status.exists, "the restore", 60, alive=[daemon])
        expect(status.read_text().strip() == "0", f"the restore failed: {daemon.last_words()}")
    except Failure:
        daemon.kill()
        raise
    return daemon


def kill_marked(directory: Path) -> None:
    """Ends every process of a lab that is no child of the test."""
    for pid in machine.marked(f"POSTHASTE_LAB={directory}"):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def bridge(lab, *arguments, seconds: float = 60, fails: str = "") -> str:
    """Runs criu-bridge to its end and returns what it printed; `fails` is part of the complaint that is expected."""
    done = subprocess.run([BRIDGE, *map(str, arguments)], env=lab.environment(), capture_output=True, text=True,
                          timeout=seconds, cwd=lab.directory)
    if fails:
        expect(done.returncode == 1 and fails in done.stderr, f"no '{fails}' in: {done.stderr}{done.stdout}")
    elif done.returncode != 0:
        raise Failure(f"criu-bridge {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout
