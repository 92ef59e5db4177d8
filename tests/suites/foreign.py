"""Programs that nobody here wrote, moved in mid-work: what they print is what an unmoved run prints."""

import functools
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.processes import Program
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until
from tests.suites.servers import memcached_moves, redis_moves

_PROGRAMS = machine.PROGRAMS


@dataclass
class Foreign:
    """A program that reads files, works a while, prints and ends."""

    name: str
    command: list  # "{input}" is the input file, "{classes}" where javac has put its own
    stdin: str = ""  # a file in tests/programs, or "{input}"
    make_input: object = None
    settings: dict = field(default_factory=dict)
    trigger: int = signal.SIGUSR2
    cpu_seconds: float = 0.4  # it has worked so long when it is moved
    prepare: object = None


def _text(path: Path, megabytes: int) -> None:
    """Lines that compress and sort like text; the same each time."""
    numbers = random.Random(1)
    words = ["".join(numbers.choices("abcdefghijklmnop", k=numbers.randrange(3, 9))) for _ in range(3000)]
    part = "".join(" ".join(numbers.choices(words, k=8)) + "\n" for _ in range(20000))
    lines = part.splitlines(keepends=True)
    with open(path, "w", encoding="ascii") as out:
        while out.tell() < megabytes << 20:
            numbers.shuffle(lines)
            out.write("".join(lines))


def _sparse(path: Path, megabytes: int) -> None:
    """A large file that takes no space."""
    with open(path, "wb") as out:
        for place in range(0, megabytes, 64):
            out.seek(place << 20)
            out.write(b"posthaste")
        out.truncate(megabytes << 20)


def _java(directory: Path) -> None:
    machine.need_command("javac")
    (directory / "Work.class").write_bytes(_compiled())


@functools.cache
def _compiled() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["javac", "-d", place, str(_PROGRAMS / "Work.java")], check=True)
        return (Path(place) / "Work.class").read_bytes()


def _script(name: str) -> str:
    return str(_PROGRAMS / name)


_REAL_TIME = signal.SIGRTMIN + 6
PYTHON = sys.executable

PROGRAMS = [
    Foreign("python3", [PYTHON, _script("work.py"), "1"]),
    Foreign("python3 with threads", [PYTHON, _script("work.py"), "4"]),
    Foreign("perl", ["perl", _script("work.pl")]),
    Foreign("lua", ["lua", _script("work.lua")]),
    Foreign("ruby", ["ruby", _script("work.rb")], settings={"POSTHASTE_SIGNAL": "SIGRTMIN+6"}, trigger=_REAL_TIME),
    Foreign("node", ["node", _script("work.js")], cpu_seconds=1.0),
    Foreign("sqlite3", ["sqlite3", ":memory:"], stdin="work.sql"),
    Foreign("sqlite3 on a file", ["sqlite3", "work.db"], stdin="work.sql"),
    Foreign("bc", ["bc", "-lq", _script("work.bc")]),
    Foreign("gawk", ["gawk", "-f", _script("work.awk")]),
    Foreign("xz", ["xz", "-6", "-T1", "-c"], stdin="{input}", make_input=partial(_text, megabytes=2)),
    Foreign("xz with threads", ["xz", "-6", "-T2", "--block-size=1MiB", "-c", "{input}"],
            make_input=partial(_text, megabytes=4)),
    Foreign("gzip", ["gzip", "-9", "-n", "-c", "{input}"], make_input=partial(_text, megabytes=48)),
    Foreign("sort", ["sort", "--parallel=2", "-k7f", "-S", "512M", "{input}"], make_input=partial(_text, megabytes=128),
            settings={"LC_ALL": "C"}),
    Foreign("openssl dgst", ["openssl", "dgst", "-sha512"], stdin="{input}", make_input=partial(_sparse, megabytes=600)),
    Foreign("java 17", ["java", "-Xmx128m", "-cp", "{classes}", "Work"], settings={"POSTHASTE_SIGNAL": "50"},
            trigger=50, cpu_seconds=1.0, prepare=_java),
    Foreign("java 17, the serial collector", ["java", "-XX:+UseSerialGC", "-Xmx96m", "-cp", "{classes}", "Work"],
            settings={"POSTHASTE_SIGNAL": "SIGRTMIN+16"}, trigger=signal.SIGRTMIN + 16, cpu_seconds=1.0,
            prepare=_java),
]


def _start(lab, start, foreign: Foreign, name: str, source: Path, preload: bool) -> Program:
    """Starts it with its output in a file, which a move takes along by its path."""
    places = {"{input}": str(source), "{classes}": str(lab.directory)}
    words = [places.get(word, word) for word in foreign.command]
    settings = {**foreign.settings, **({} if preload else {"LD_PRELOAD": ""})}
    stdin = subprocess.DEVNULL
    if foreign.stdin:
        path = source if foreign.stdin == "{input}" else _PROGRAMS / foreign.stdin
        stdin = open(path, "rb")  # the child keeps its own copy
    return start(name, words, settings, through_pipe=False, stdin=stdin, trigger=foreign.trigger)


# By name, how an unmoved run ended and what it printed: the same in every run.
_unmoved = {}


def moves_in_mid_work(foreign: Foreign, lab, receiver=None, start=None) -> None:
    """A run, begun by `start`, is moved to `receiver`, and has the result of one beside it, or before it, that was not."""
    machine.need_command(foreign.command[0])
    source = lab.directory / "input"
    if foreign.make_input:
        foreign.make_input(source)
    if foreign.prepare:
        foreign.prepare(lab.directory)
    receiver, start = receiver or lab.receiver(), start or lab.program
    program = _start(lab, start, foreign, "moved", source, True)
    unmoved = None if foreign.name in _unmoved else _start(lab, lab.program, foreign, "unmoved", source, False)
    until(lambda: program.ended() or machine.cpu_seconds(program.pid) >= foreign.cpu_seconds,
          f"{foreign.name} to be at work")
    expect(not program.ended(), f"it ended before it could be moved: {program.last_words()}")
    moved = lab.move(program, receiver)
    ended = moved.wait_exited(120)
    moved.wait_complete()
    if unmoved:
        _unmoved[foreign.name] = unmoved.wait(120), unmoved.out.read_bytes()
    status, expected = _unmoved[foreign.name]
    expect(ended.get("exit_code") == status, f"it ended with {ended}, unmoved with {status}")
    _compare(program.out.read_bytes(), expected)


def _compare(found: bytes, expected: bytes) -> None:
    expect(expected, "the unmoved run printed nothing")
    if found != expected:
        at = next((at for at, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), "the end of one")
        raise Failure(f"the output differs at byte {at} ({len(found)} bytes, unmoved {len(expected)})")


def _checks() -> list:
    checks = [Check(f"{foreign.name} moves in mid-work", partial(moves_in_mid_work, foreign)) for foreign in PROGRAMS]
    checks.append(Check("redis-server moves with its data and its port", redis_moves))
    checks.append(Check("memcached moves with its data and its port", memcached_moves))
    return checks


CHECKS = _checks
