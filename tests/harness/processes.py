"""Programs at the source, receivers, and processes that have moved."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.harness import machine, scale
from tests.harness.waiting import Failure, expect, until


class Process:
    """A process that this test started, with what it prints in files.

    Its standard output is a pipe into the file, as it is for a user who types `| cat`, unless `through_pipe` is false:
    a pipe stays where it is when a process moves, a file goes with it. `stdout` is taken over and closed here.
    """

    def __init__(self, name: str, command: list, directory: Path, environment: dict, through_pipe=True, **options):
        self.name = name
        self.directory = directory
        self.out = directory / f"{name}.out"
        self.err = directory / f"{name}.err"
        out, self.pump = options.pop("stdout", None) or open(self.out, "ab"), None
        if through_pipe:
            with out:
                self.pump = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL,
                                             start_new_session=True)
            out = self.pump.stdin
        with open(self.err, "ab") as err, out:
            self.process = subprocess.Popen(
                command, cwd=directory, env=environment, stdout=out, stderr=err,
                stdin=options.pop("stdin", subprocess.DEVNULL), **options)
        self.pid = self.process.pid

    def ended(self) -> bool:
        return self.process.poll() is not None

    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def errors(self) -> str:
        return self.err.read_text(errors="replace")

    def last_words(self) -> str:
        status = self.process.poll()
        words = self.text().strip().splitlines()[-1:] + self.errors().strip().splitlines()[-3:]
        return f"status {status}" + (", it said: " + " / ".join(words) if words else "")

    def wait(self, seconds: float = 30.0) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} has not ended after {seconds:g} s") from None

    def kill(self) -> None:
        """Ends it if it still runs, and what carries its output."""
        if not self.ended():
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        if self.pump:
            try:
                self.pump.wait(2)
            except subprocess.TimeoutExpired:  # something else has its output open
                self.pump.kill()
                self.pump.wait()

    def final_text(self) -> str:
        """All that it printed, once it has ended and nobody else has its output open."""
        if self.pump:
            until(lambda: self.pump.poll() is not None, f"the last output of {self.name}")
        return self.text()


class Program(Process):
    """A program with the parasite in it."""

    def __init__(self, name, command, directory, environment, trigger=signal.SIGUSR2, **options):
        self.trigger_signal = trigger
        # Whether the main thread alone gets it, not the process, as from a user. A thread that enters sigtimedwait(2), or
        # epoll_pwait(2) with a mask, while a signal waits for the process is woken for it; where another one takes the
        # signal then, the call returns EINTR although its thread has run no handler. sleeper looks for that.
        self.trigger_thread = name == "sleeper"
        super().__init__(name, command, directory, environment, **options)

    def aim(self, port: int, host: str = "127.0.0.1") -> None:
        aim(self.directory, port, host)

    def trigger(self) -> None:
        if self.trigger_thread:
            machine.signal_thread(self.pid, self.pid, self.trigger_signal)
        else:
            os.kill(self.pid, self.trigger_signal)

    def wait_lines(self, count: int) -> list:
        """Waits until it has printed so many lines and returns all that it has printed."""
        until(lambda: self.text().count("\n") >= count, f"{count} lines from {self.name}", alive=[self])
        return self.text().splitlines()

    def left(self) -> list:
        """What the parasite said each time that a move did not happen."""
        return refusals(self.errors())


class Moved:
    """A process that goes on under a receiver; its memory comes over `link`, if that is one of this test's own."""

    def __init__(self, source, receiver, event: dict, printed_before: int, link=None):
        self.link = link
        self.name = f"the moved {source.name.replace('the moved ', '')}"
        self.source = source
        self.directory = source.directory
        self.trigger_signal = source.trigger_signal
        self.trigger_thread = source.trigger_thread
        self.receiver = receiver
        self.migration = event["migration"]
        self.pid = event["pid"]
        self.resumed = event
        self.printed_before = printed_before
        try:
            self.descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.descriptor = None

    def aim(self, port: int, host: str = "127.0.0.1") -> None:
        aim(self.directory, port, host)

    def errors(self) -> str:
        """Its standard error is a file, which goes with it."""
        return self.source.errors()

    def text(self) -> str:
        """What its receiver, and the processes under it, have printed since it moved there."""
        return self.receiver.text()[self.printed_before:]

    def numbers(self, pattern: str) -> list:
        """The numbers in the complete lines of that, by a pattern with one group."""
        complete = self.text().rpartition("\n")[0]
        return [int(number) for number in re.findall(pattern, complete, re.MULTILINE)]

    def signal(self, number: int) -> None:
        if self.descriptor is not None:
            try:
                signal.pidfd_send_signal(self.descriptor, number)
            except ProcessLookupError:
                pass

    def trigger(self) -> None:
        if self.trigger_thread:
            machine.signal_thread(self.pid, self.pid, self.trigger_signal)
        else:
            self.signal(self.trigger_signal)

    def left(self) -> list:
        """What the parasite said each time that a move did not happen."""
        return refusals(self.errors())

    def ended(self) -> bool:
        return self.exited() is not None

    def last_words(self) -> str:
        return json.dumps(self.exited())

    def exited(self):
        return self.receiver.find("exited", migration=self.migration)

    def wait_complete(self, seconds: float = 60.0) -> dict:
        """Waits until every page has arrived, over a link as long as anything comes; raises if the migration failed."""
        def settled():
            return self.receiver.find("complete", migration=self.migration) or self.receiver.find(
                "failed", migration=self.migration)
        event = until(settled, f"{self.name} to be complete", seconds, alive=[self.receiver],
                      progress=lambda: self.link and self.link.forwarded)
        expect(event["event"] == "complete", f"the migration failed: {event}")
        return event

    def wait_exited(self, seconds: float = 60.0) -> dict:
        return until(self.exited, f"{self.name} to exit", seconds, alive=[self.receiver],
                     progress=lambda: self.link and self.link.forwarded)


class Receiver(Process):
    """A receiver on a free port, with its events. Programs look for it at `host`."""

    host = "127.0.0.1"

    def __init__(self, name, directory, environment, wrapper=(), port: int = 0, binaries=machine.BIN, arguments=(),
                 **options):
        self.events_file = directory / f"{name}.events"
        self.events_file.touch()
        if scale.MODE and "--mode" not in arguments:
            arguments = ("--mode", scale.MODE, *arguments)
        command = [*wrapper, str(binaries / "receiver"), str(port), "--events", str(self.events_file), *arguments]
        super().__init__(name, command, directory, environment, start_new_session=True, **options)
        listening = until(lambda: self.find("listening"), f"{name} to listen", 10, alive=[self])
        self.port = listening["port"]

    def events(self) -> list:
        lines = self.events_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def find(self, kind: str, after: int = 0, **fields):
        """The first event of this kind with these fields, after the first `after` events."""
        for event in self.events()[after:]:
            if event["event"] == kind and all(event.get(key) == value for key, value in fields.items()):
                return event
        return None


def refusals(text: str) -> list:
    """The lines in which a parasite says why its program stays."""
    return [line for line in text.splitlines() if "goes on here" in line]


def aim(directory: Path, port: int, host: str) -> None:
    """Writes receiver_info.txt so that nobody reads half of it."""
    new = directory / "receiver_info.new"
    new.write_text(f"{host} {port}\n")
    os.replace(new, directory / "receiver_info.txt")


def move(program, receiver: Receiver, seconds: float = 30.0, port: int = 0, link=None) -> Moved:
    """Asks a process to move and waits until it runs under `receiver`, which is reached at `port`, over a link or directly."""
    program.aim(port or (link or receiver).port, receiver.host)
    before, printed, words = len(receiver.events()), len(receiver.text()), program.left()
    program.trigger()

    def outcome():
        event = receiver.find("resumed", before)
        said = program.left()
        if not event and len(said) > len(words):
            raise Failure(f"not moved: {said[-1]}")
        if not event and not isinstance(program, Moved) and program.ended():  # what has moved has been resumed before
            event = until(lambda: receiver.find("resumed", before), f"{program.name}, which ended with {program.last_words()}, to be resumed", 5)
        return event
    event = until(outcome, f"{program.name} to be resumed", seconds, alive=[receiver])
    return Moved(program, receiver, event, printed, link)
