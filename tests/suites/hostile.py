"""Whoever connects and is no source, or a bad one: dropped in time, in bounded memory, and nobody else suffers."""

import itertools
import os
import random
import socket
import struct
import time
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until
from tests.suites import workloads

_MEMORY_BOUND = 64 << 20  # bytes more than before
_MOST_VISITORS = 400  # unfinished connections, and what the receiver has open besides
_GREETING_DEADLINE = 10.0  # seconds
_PROTOCOL = 5
_HELLO, _RESERVE, _RUN, _PAGES = 1, 16, 20, 33


def _frame(kind: int, body: bytes = b"", length: int = -1, count: int = 0, argument: int = 0) -> bytes:
    return struct.pack("<IHHQ", len(body) if length < 0 else length, kind, count, argument) + body


def _hello(migration: bytes, channel: int, attempt: int = 0, token: bytes = bytes(16)) -> bytes:
    body = b"POSTHAST" + bytes([_PROTOCOL, _PROTOCOL]) + migration + bytes([channel]) + token + bytes([attempt, 0, 0])
    return _frame(_HELLO, body)


def _connect(receiver) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.settimeout(_GREETING_DEADLINE * 2)
    return connection


def _party(receiver, migration: bytes) -> list:
    """The three channels of a migration, greeted."""
    channels = [_connect(receiver) for _ in range(3)]
    for number, channel in enumerate(channels):
        channel.sendall(_hello(migration, number))
    for channel in channels:
        length, kind = struct.unpack("<IHHQ", channel.recv(16, socket.MSG_WAITALL))[:2]
        expect(kind == 2, f"the greeting was answered by kind {kind}")
        channel.recv(length, socket.MSG_WAITALL)
    return channels


def _end(connection: socket.socket) -> None:
    """Says that nothing more comes, if anybody still listens."""
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _is_dropped(connection: socket.socket) -> None:
    """Reads to the end of the connection, which must come."""
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        raise Failure("the connection was not dropped in time") from None
    except OSError:
        pass
    connection.close()


def _memory(receiver) -> int:
    """Bytes that the receiver and its sessions hold by themselves."""
    total = 0
    for pid in [receiver.pid, *machine.children(receiver.pid)]:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private"))
    return total


def _still_serves(receiver, before: int, lab) -> None:
    more = _memory(receiver) - before
    expect(more < _MEMORY_BOUND, f"the receiver holds {more >> 20} MiB more")
    program = lab.target("counter", "--interval-ms", "1")
    program.wait_lines(2)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    workloads.wait_progress(moved, "counter", -1)


def nonsense(name: str, lab) -> None:
    """Greetings that are none: each connection ends, and one line a second at most tells of them; of those that name a
    migration each has its line."""
    receiver = lab.receiver()
    before, dice = _memory(receiver), random.Random(name)
    sent = {
        "random bytes": lambda: dice.randbytes(1 + dice.randrange(200)),
        "a hostile length": lambda: _frame(_HELLO, b"x", length=0xffff_fff0),
        "a truncated greeting": lambda: _hello(bytes(16), 0)[: 1 + dice.randrange(40)],
        "another kind": lambda: _frame(dice.choice((_RESERVE, _RUN, _PAGES, 4711)), b"x" * 10),
        "a stranger's attempt to take over": lambda: _hello(dice.randbytes(16), 0, attempt=1),
    }[name]
    began = time.monotonic()
    for _ in range(50):
        connection = _connect(receiver)
        connection.sendall(sent())
        _end(connection)
        _is_dropped(connection)
    seconds = time.monotonic() - began
    lines = [line for line in receiver.errors().splitlines() if "turned away" in line]
    expect(len(lines) <= (50 if "take over" in name else seconds + 1), f"{len(lines)} lines for 50 connections in {seconds:.1f} s")
    expect(lines or name == "a truncated greeting", "nothing tells of them")
    _still_serves(receiver, before, lab)


def bad_migration(name: str, lab) -> None:
    """Sources that greet well and then do not know how to behave: their session ends, told in one line."""
    receiver = lab.receiver()
    before, dice = _memory(receiver), random.Random(name)
    acts = {
        "random bytes": lambda channel: channel.sendall(dice.randbytes(4096)),
        "a hostile length": lambda channel: channel.sendall(_frame(_RESERVE, b"x" * 100, length=0xffff_fff0)),
        "a manifest of noise": lambda channel: channel.sendall(_frame(_RESERVE, dice.randbytes(1 << 20))),
        "a truncated manifest": lambda channel: channel.sendall(_frame(_RESERVE, b"x" * 1000, length=8 << 20)),
        "run before all else": lambda channel: channel.sendall(_frame(_RUN, argument=1)),
        "pages on control": lambda channel: channel.sendall(_frame(_PAGES, b"x" * 4096, count=1, argument=4096)),
    }
    for attempt in range(5):
        channels = _party(receiver, dice.randbytes(16))
        acts[name](channels[0])
        if name == "a truncated manifest":  # else it is wrong, however it goes on
            _end(channels[0])
        for channel in channels:
            _is_dropped(channel)
        until(lambda attempt=attempt: sum(e["event"] in ("failed", "refused") for e in receiver.events()) > attempt,
              "the receiver to tell of it", alive=[receiver])
    expect(all(e.get("process", "source") == "source" for e in receiver.events() if e["event"] == "failed"),
           "a process is said to live here")
    _still_serves(receiver, before, lab)


def silent(lab) -> None:
    """A connection that says nothing is dropped when its time is over."""
    receiver = lab.receiver()
    before, connection = _memory(receiver), _connect(receiver)
    half = _connect(receiver)
    half.sendall(_hello(bytes(16), 0)[:20])
    _is_dropped(connection)
    _is_dropped(half)
    _still_serves(receiver, before, lab)


def crowd(lab) -> None:
    """A thousand connections that say nothing keep no source out, and few of them are kept."""
    receiver = lab.receiver()
    before = _memory(receiver)
    connections = [_connect(receiver) for _ in range(1000)]
    until(lambda: len(machine.descriptors(receiver.pid)) < _MOST_VISITORS, "the oldest to be closed", 5, alive=[receiver])
    _still_serves(receiver, before, lab)
    for connection in connections:
        connection.close()


def greeting_crowd(lab) -> None:
    """A thousand connections that greet as sources do, and then say nothing, keep no source out."""
    receiver = lab.receiver()
    parties = [_party(receiver, os.urandom(16)) for _ in range(334)]
    _still_serves(receiver, _memory(receiver), lab)
    sessions = [event for event in receiver.events() if event["event"] == "connected"]
    expect(len(sessions) == len(parties) + 1, f"{len(sessions)} sessions for {len(parties)} parties")
    for connection in itertools.chain(*parties):
        connection.close()


def replayed(lab) -> None:
    """What one source has said, said again by another, is not the same migration once more."""
    receiver = lab.receiver()
    migration = os.urandom(16)
    first = _party(receiver, migration)
    again = _connect(receiver)
    again.sendall(_hello(migration, 0))
    kind = struct.unpack("<IHHQ", again.recv(16, socket.MSG_WAITALL))[1]
    expect(kind == 3, f"the replayed greeting was answered by kind {kind}")
    taken_over = _connect(receiver)
    taken_over.sendall(_hello(migration, 0, attempt=1, token=b"x" * 16))
    kind = struct.unpack("<IHHQ", taken_over.recv(16, socket.MSG_WAITALL))[1]
    expect(kind == 3, f"a stranger's token was answered by kind {kind}")
    for connection in [*first, again, taken_over]:
        connection.close()


def _checks() -> list:
    greetings = ("random bytes", "a hostile length", "a truncated greeting", "another kind",
                 "a stranger's attempt to take over")
    acts = ("random bytes", "a hostile length", "a manifest of noise", "a truncated manifest", "run before all else",
            "pages on control")
    return [Check(f"a greeting that is none is dropped: {name}", partial(nonsense, name)) for name in greetings] + [
        Check(f"a source that misbehaves is dropped: {name}", partial(bad_migration, name)) for name in acts] + [
        Check("a connection that says nothing is dropped", silent),
        Check("a thousand connections keep no source out", crowd),
        Check("a thousand connections that greet and then say nothing keep no source out", greeting_crowd),
        Check("a greeting is not taken twice, nor a token that is not the source's", replayed),
    ]


CHECKS = _checks
