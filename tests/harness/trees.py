"""Trees of processes that criu-bridge moves: who receives them, and who sends."""

import contextlib
import json
import os
import signal
import subprocess

from tests.harness.criu import BRIDGE, Daemon, Tree
from tests.harness.waiting import Failure, expect, until


class Taker(Daemon):
    """criu-bridge receive on a free port."""

    def __init__(self, lab, *arguments, name: str = "receive", wrapper=()):
        self.lab, self.journal = lab, lab.directory / f"{name}.events"
        self.images = lab.directory / f"{name}-images"
        self.images.mkdir(exist_ok=True)
        super().__init__(lab, name, BRIDGE, "receive", "0", "--events", self.journal, "-D", self.images, *arguments,
                         wrapper=wrapper)
        self.port = self.event("listening")["port"]

    def events(self, name: str = "") -> list:
        lines = self.journal.read_text().rpartition("\n")[0].splitlines() if self.journal.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if not name or event["event"] == name]

    def event(self, name: str, count: int = 1, seconds: float = 60) -> dict:
        """The `count`th event of this name, waited for."""
        until(lambda: len(self.events(name)) >= count, f"event {name} of {self.name}", seconds, alive=[self])
        return self.events(name)[count - 1]

    def is_tidy(self) -> bool:
        """Nothing is left of what lay in images."""
        return not list(self.images.iterdir())

    def end(self) -> None:
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)


def processes(tree: Tree) -> set:
    """The processes of a tree, wherever they are: by their directory, because the page with the environment may be lost."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            if os.readlink(f"/proc/{pid}/cwd") == str(tree.directory):
                found.add(int(pid))
    return found


def end(tree: Tree) -> None:
    """Ends a tree wherever it is, and nothing else."""
    for pid in processes(tree):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def send(lab, pid: int, port: int, *arguments, wrapper=(), seconds: float = 120, fails: str = "",
         says: str = "moved; the tree's root is process") -> str:
    """Moves a tree, or expects that it goes on with `fails` as part of the reason; returns what was said."""
    sending = begin_to_send(lab, pid, port, *arguments, wrapper=wrapper)
    try:
        _, said = sending.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        sending.kill()
        raise Failure(f"criu-bridge send {pid} has not ended: {sending.communicate()[1]}") from None
    if fails:
        expect(sending.returncode == 1 and fails in said, f"no '{fails}' in: {said}")
        expect("the tree goes on here" in said, f"where is the tree? {said}")
    else:
        expect(sending.returncode == 0 and says in said, f"it did not move: {said}")
    return said


def begin_to_send(lab, pid: int, port: int, *arguments, wrapper=(), stderr=subprocess.PIPE) -> subprocess.Popen:
    """Starts to move a tree."""
    images = lab.directory / "send-images"
    images.mkdir(exist_ok=True)
    command = [*wrapper, BRIDGE, "send", pid, f"127.0.0.1:{port}", "-D", images, *arguments]
    return subprocess.Popen([*map(str, command)], env=lab.environment(), cwd=lab.directory, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
