"""One test's own place: a temporary directory, and processes that all end with it."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.harness import machine
from tests.harness.link import Link
from tests.harness.processes import Moved, Program, Receiver, move
from tests.harness.waiting import Failure, until


class Lab:
    """Use it as `with Lab() as lab`. Whatever it started has ended when it is left, or the test fails."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="posthaste-"))
        self.marker = f"POSTHASTE_LAB={self.directory}"
        self.receivers, self.programs, self.moved, self.links, self.helpers = [], [], [], [], []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._end_everything()
        leftovers = [] if kind else self._wait_for_none()
        self._kill_marked()
        if kind is None or not os.environ.get("POSTHASTE_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)
        if leftovers:
            raise Failure(f"left behind: {leftovers}")

    def environment(self, **more) -> dict:
        """The environment of every process here: ours, without what would change the parasite's mind."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("POSTHASTE_", "LD_PRELOAD"))}
        kept["POSTHASTE_LAB"] = str(self.directory)
        return {**kept, **more}

    def receiver(self, name: str = "", **options) -> Receiver:
        receiver = Receiver(name or f"receiver{len(self.receivers)}", self.directory, self.environment(), **options)
        self.receivers.append(receiver)
        return receiver

    def link(self, receiver: Receiver, **options) -> Link:
        """A connection through us to a receiver, which can be slow and can be cut."""
        link = Link(receiver.port, **options)
        self.links.append(link)
        return link

    def program(self, name: str, command: list, settings: dict = None, **options) -> Program:
        """Starts any program with the parasite in it, in a directory of its own."""
        directory = self.directory / f"{name}-{len(self.programs)}"
        directory.mkdir()
        preload = {"LD_PRELOAD": str(machine.BIN / "libsender.so"), "TMPDIR": str(directory)}
        environment = self.environment(**{**preload, **(settings or {})})
        program = Program(name, command, directory, environment, **options)
        self.programs.append(program)
        return program

    def key(self) -> str:
        """The path of a new key file."""
        path = self.directory / "key"
        subprocess.run([str(machine.BIN / "receiver"), "keygen", str(path)], check=True, timeout=20)
        return str(path)

    def target(self, workload: str, *arguments: str, **options) -> Program:
        return self.program(workload, [str(machine.BIN / "target"), workload, *arguments], **options)

    def move(self, program, receiver: Receiver, **options) -> Moved:
        moved = move(program, receiver, **options)
        self.moved.append(moved)
        return moved

    def move_through(self, program, receiver: Receiver, link: Link) -> Moved:
        """Moves a process over a link to a receiver; returns as soon as it runs there."""
        moved = move(program, receiver, link=link)
        self.moved.append(moved)
        return moved

    def spinners(self, count: int = 2) -> None:
        """Keeps so many processors busy until the end of the test."""
        for _ in range(count):
            self.helpers.append(subprocess.Popen(["sh", "-c", "while :; do :; done"], env=self.environment()))

    def story(self) -> str:
        """What everybody said, for a test that failed."""
        lines = []
        for process in [*self.programs, *self.receivers]:
            said = process.errors().strip().splitlines()[-6:]
            lines += [f"  {process.name}: {line}" for line in said]
        for receiver in self.receivers:
            lines += [f"  {receiver.name} event: {str(event)[:300]}" for event in receiver.events()[-4:]]
        return "\n".join(lines)

    def _end_everything(self) -> None:
        for moved in self.moved:
            moved.signal(signal.SIGKILL)
        for process in self.programs:
            process.kill()
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        for receiver in self.receivers:
            if not receiver.ended():
                receiver.process.terminate()
        for receiver in self.receivers:
            try:
                receiver.wait(10)
            except Failure:
                pass
            receiver.kill()
        for link in self.links:
            link.close()
        for moved in self.moved:
            if moved.descriptor is not None:
                os.close(moved.descriptor)

    def _wait_for_none(self) -> list:
        """What still runs a while after everything was ended."""
        try:
            until(lambda: not machine.marked(self.marker), "every process to be gone", 5)
        except Failure:
            return [_describe(pid) for pid in machine.marked(self.marker)]
        return []

    def _kill_marked(self) -> None:
        for pid in machine.marked(self.marker):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _describe(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = "?"
    return f"{pid} ({words.strip()[:80]})"
