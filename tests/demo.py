#!/usr/bin/env python3
"""Shows one process move: from its shell to one receiver, from there to another, and on.

Everything runs on this machine, on loopback and on free ports, in a temporary directory; what the demo
starts it also ends. Each line of output carries the name of the place where the process was when it wrote it.
"""
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "bin")
DEADLINE_S = 30
NUMBERS_PER_STOP = 6


class Failed(Exception):
    """The demo did not show what it promises."""


class Place:
    """A program of ours whose lines are shown under a name and can be waited for."""

    def __init__(self, name, command, cwd, **environment):
        self.name = name
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment})
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self):
        for line in self.process.stdout:
            print(f"  {self.name:>10} │ {line}", end="", flush=True)
            self.lines.put(line.strip())
        self.lines.put(None)

    def numbers(self, count):
        """The next `count` numbers that appear here."""
        found = []
        until = time.monotonic() + DEADLINE_S
        while len(found) < count:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self.name} printed {len(found)} of {count} numbers in {DEADLINE_S} s") from None
            if line is None:
                raise Failed(f"{self.name} ended early")
            if line.isdigit():
                found.append(int(line))
        return found

    def rest(self):
        """Numbers that were printed and not yet taken."""
        found = []
        while not self.lines.empty():
            line = self.lines.get_nowait()
            if line and line.isdigit():
                found.append(int(line))
        return found


class Receiver(Place):
    """A receiver on a free port."""

    def __init__(self, name, cwd):
        self.events_path = os.path.join(cwd, f"{name.replace(' ', '-')}.events")
        open(self.events_path, "w").close()
        super().__init__(name, [os.path.join(BIN, "receiver"), "0", "--events", self.events_path], cwd)
        self.port = self.event("listening")["port"]

    def event(self, name):
        """Waits for an event of that name."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            with open(self.events_path) as events:
                for line in events:
                    if line.endswith("\n") and json.loads(line)["event"] == name:
                        return json.loads(line)
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise Failed(f"{self.name} did not report '{name}' within {DEADLINE_S} s")


def point_at(directory, receiver):
    """receiver_info.txt is read afresh at each move."""
    with open(os.path.join(directory, "receiver_info.txt"), "w") as info:
        info.write(f"127.0.0.1 {receiver.port}\n")


def show(directory, started):
    first, second = Receiver("receiver A", directory), Receiver("receiver B", directory)
    started += [first.process, second.process]
    point_at(directory, first)
    source = Place("here", [os.path.join(BIN, "target"), "counter", "--interval-ms", "150"], directory,
                   LD_PRELOAD=os.path.join(BIN, "libsender.so"))
    started.append(source.process)

    numbers = source.numbers(NUMBERS_PER_STOP)
    print(f"\n  kill -USR2 {source.process.pid}          # to receiver A, port {first.port}")
    os.kill(source.process.pid, signal.SIGUSR2)
    moved = first.event("resumed")
    first.event("complete")
    numbers += source.rest() + first.numbers(NUMBERS_PER_STOP)

    point_at(directory, second)
    print(f"\n  kill -USR2 {moved['pid']}          # on to receiver B, port {second.port}")
    os.kill(moved["pid"], signal.SIGUSR2)
    again = second.event("resumed")
    second.event("complete")
    numbers += first.rest() + second.numbers(NUMBERS_PER_STOP)
    os.kill(again["pid"], signal.SIGTERM)

    expected = list(range(numbers[0], numbers[0] + len(numbers)))
    if numbers != expected:
        raise Failed(f"numbers are missing or repeated: {numbers}")
    print(f"\n  one process, three places, every number once: {numbers[0]} to {numbers[-1]}")
    print(f"  stopped for {moved['downtime_us'] / 1000:.1f} ms and {again['downtime_us'] / 1000:.1f} ms")


def main():
    if not all(os.path.exists(os.path.join(BIN, name)) for name in ("receiver", "target", "libsender.so")):
        sys.exit("bin/ is not complete: run make")
    started = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            show(directory, started)
        except Failed as failure:
            sys.exit(f"demo: {failure}")
        finally:
            for process in started:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            for process in started:
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()


if __name__ == "__main__":
    main()
