"""Who may send a process, and what somebody on the way can read or change."""

import ctypes
import os
import re
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.relay import Relay
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.failures import Witness, try_and_stay
from tests.suites.workloads import finish, wait_progress

_KNOWN = b"known plaintext!" * 4
_COUNTER = ("counter", "--interval-ms", "10")
_WELCOME, _REFUSED = 2, 3


def _key(lab, name: str = "key") -> Path:
    path = lab.directory / name
    outcome = _receiver("keygen", str(path))
    expect(outcome.returncode == 0, f"keygen says {outcome.stderr}")
    return path


def _receiver(*arguments: str):
    command = [str(machine.BIN / "receiver"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def _settings(key, **more) -> dict:
    return {**({"POSTHASTE_KEY_FILE": str(key)} if key else {}), **more}


def _start(lab, key, **more):
    program = lab.target(*_COUNTER, settings=_settings(key, **more))
    program.wait_lines(2)
    return program


def _moves(lab, program, receiver, **options) -> None:
    moved = lab.move(program, receiver, **options)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    wait_progress(moved, "counter", -1)
    finish(moved, "counter")


def with_a_key(lab) -> None:
    key = _key(lab)
    receiver = lab.receiver(arguments=("--bind", "0.0.0.0", "--key-file", str(key)))
    _moves(lab, _start(lab, key), receiver)


def refused_command_lines(lab) -> None:
    """Each in one line, with exit status 2, before anything is listened on."""
    key = _key(lab)
    before = key.read_text()
    expect(re.fullmatch(r"[0-9a-f]{64}\n", before), "the key file does not hold 64 digits")
    expect(key.stat().st_mode & 0o7777 == 0o600, "the key file is not closed to others")
    cases = [(("keygen", str(key)), "there already"), (("0", "--bind", "0.0.0.0"), "--key-file"),
             (("0", "--bind", "somewhere"), "--bind"), (("0", "--key-file", "/nowhere"), "no such file")]
    for mode in (0o640, 0o604, 0o660):
        open_key = lab.directory / f"key-{mode:o}"
        open_key.write_text(before)
        open_key.chmod(mode)
        cases.append((("0", "--key-file", str(open_key)), "chmod 600"))
    foreign = lab.directory / "foreign"
    foreign.write_text(before)
    foreign.chmod(0o600)
    os.chown(foreign, 65534, 65534)
    cases.append((("0", "--key-file", str(foreign)), "another user"))
    for arguments, wanted in cases:
        outcome = _receiver(*arguments)
        lines = outcome.stderr.splitlines()
        expect(outcome.returncode == 2 and len(lines) == 1 and wanted in lines[0],
               f"{arguments}: status {outcome.returncode}, {outcome.stderr!r}")
    expect(key.read_text() == before, "keygen has overwritten a key")


def refused_settings(lab) -> None:
    """A program says why it stays and stays unharmed: no key, another one, one that others can read."""
    key, other = _key(lab), _key(lab, "other")
    receiver = lab.receiver(arguments=("--key-file", str(key)))
    plain = lab.receiver()
    readable = lab.directory / "readable"
    readable.write_text(key.read_text())
    readable.chmod(0o644)
    for to, settings, wanted in (
            (receiver, _settings(None), "has a key"), (receiver, _settings(other), "does not have this receiver's key"),
            (receiver, _settings(readable), "chmod 600"), (plain, _settings(key), "has no key"),
            (plain, {"POSTHASTE_RECEIVER": "192.0.2.7:43000"}, "without a key")):
        program = lab.target(*_COUNTER, settings=settings)
        program.wait_lines(2)
        program.aim(to.port)
        try_and_stay(Witness(program), wanted)
    expect(not receiver.find("connected"), "somebody without the key got a session")
    _moves(lab, _start(lab, key), receiver)


def flipped(outward: bool, at: int, lab) -> None:
    """One bit of the control channel changes on its way; the program goes on and moves when nobody disturbs it."""
    key = _key(lab)
    receiver = lab.receiver(arguments=("--key-file", str(key)))

    def flip(connection: int, is_outward: bool, offset: int, data: bytes) -> bytes:
        if connection == 0 and is_outward == outward and offset <= at < offset + len(data):
            data = bytearray(data)
            data[at - offset] ^= 0x10
        return data
    relay = Relay(receiver.port, flip)
    lab.links.append(relay)
    program = _start(lab, key)
    program.aim(relay.port)
    try_and_stay(Witness(program))
    expect(not receiver.find("resumed"), "the process ran at the receiver")
    _moves(lab, program, receiver)


def _frame(stream) -> tuple:
    """Kind and bytes of the next frame in clear; kind 0 at the end."""
    header = _exactly(stream, 16)
    if len(header) < 16:
        return 0, header
    length, kind = struct.unpack("<IH", header[:6])
    return kind, header + _exactly(stream, length)


def _exactly(stream, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := stream.recv(count - len(data))):
        data += more
    return data


def _frame_length(data: bytes) -> int:
    return 16 + struct.unpack("<I", data[:4])[0]


def _play(seen: bytes, port: int) -> bool:
    """Sends what a source has sent on one connection; whether the greeting was answered: it is turned away as long as the
    session that it was recorded of is still known."""
    with socket.create_connection(("127.0.0.1", port), 20) as stream:
        hello = _frame_length(seen)
        key_exchange = hello + _frame_length(seen[hello:])
        stream.sendall(seen[:hello])
        kind, words = _frame(stream)
        if kind == _REFUSED and b"already here" in words:
            return False
        expect(kind == _WELCOME, f"a recorded greeting is answered with kind {kind}")
        stream.sendall(seen[hello:key_exchange])
        kind, words = _frame(stream)
        expect(kind == _REFUSED and b"key" in words, f"a recorded key is answered with kind {kind}: {words}")
    return True


def replayed(lab) -> None:
    """All that a source has sent is sent again, at the same pace: nobody is taken in."""
    key = _key(lab)
    receiver = lab.receiver(arguments=("--key-file", str(key)))
    relay = Relay(receiver.port)
    lab.links.append(relay)
    _moves(lab, _start(lab, key), receiver, port=relay.port)
    sessions = len([event for event in receiver.events() if event["event"] == "connected"])
    expect(sessions == 1 and len(relay.seen) == 3, f"{sessions} sessions, {len(relay.seen)} connections")
    for seen in relay.seen:
        until(partial(_play, seen, receiver.port), "the session to be forgotten", alive=[receiver])
    connected = [event for event in receiver.events() if event["event"] == "connected"]
    expect(len(connected) == 1, "a recorded session was taken in")
    _moves(lab, _start(lab, key), receiver)


@contextmanager
def _two_networks():
    """Two network namespaces with one cable: their names, the device in the first, the address in the second."""
    machine.need_command("ip")
    names = [f"posthaste-{os.getpid()}-{side}" for side in "ab"]

    def ip(*words) -> None:
        outcome = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            raise machine.Missing(f"network namespaces (ip {' '.join(words)}: {outcome.stderr.strip()})")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, ("10.66.0.1/24", "10.66.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names, "cable", "10.66.0.2"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


class _Capture:
    """Everything that passes a network device of a namespace, from now on."""

    _ALL = 3

    def __init__(self, namespace: str, device: str):
        self.bytes, self.socket = bytearray(), None
        opened = threading.Thread(target=self._open, args=(namespace, device))
        opened.start()
        opened.join()
        expect(self.socket, "no packet socket")
        self.socket.settimeout(0.2)
        self.running = True
        self.thread = threading.Thread(target=self._read, name="capture", daemon=True)
        self.thread.start()

    def _open(self, namespace: str, device: str) -> None:
        """On a thread of its own, which enters the namespace and ends; the socket stays there."""
        with open(f"/run/netns/{namespace}", "rb") as file:
            if ctypes.CDLL(None).setns(file.fileno(), 0) != 0:
                return
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self._ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((device, self._ALL))

    def _read(self) -> None:
        while self.running:
            try:
                self.bytes += self.socket.recv(1 << 17)
            except TimeoutError:
                continue

    def close(self) -> bytes:
        self.running = False
        self.thread.join()
        self.socket.close()
        return bytes(self.bytes)


def captured(lab) -> None:
    """A process full of a known text moves between two networks; the link shows none of it, but does show it in clear. Packed
    it would not be recognised in clear either.
    """
    program_file = compile_c("pattern", lab.directory)
    key = _key(lab)
    with _two_networks() as (names, device, address):
        receiver = lab.receiver(wrapper=("ip", "netns", "exec", names[1]),
                                arguments=("--bind", "0.0.0.0", "--key-file", str(key), "--compress", "off"))
        settings = _settings(key, POSTHASTE_RECEIVER=f"{address}:{receiver.port}")
        program = lab.program("pattern", ["ip", "netns", "exec", names[0], program_file], settings)
        program.wait_lines(2)
        capture = _Capture(names[0], device)
        moved = lab.move(program, receiver)
        report = moved.wait_complete()
        link = capture.close()
        expect(report and len(link) > 16 << 20, f"only {len(link)} bytes were captured")
        expect(_KNOWN not in link, "the link shows what is in the process's memory")
        capture = _Capture(names[0], device)
        with _listener(names[1]) as port:
            _say_in(names[0], address, port, _KNOWN)
            until(lambda: _KNOWN in capture.bytes, "the capture to show what is sent in clear", 10)
        capture.close()
        finish(moved, "pattern")


@contextmanager
def _listener(namespace: str):
    code = "import socket; s=socket.create_server(('',0)); print(s.getsockname()[1],flush=True); s.accept()[0].recv(99)"
    command = ["ip", "netns", "exec", namespace, "python3", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _say_in(namespace: str, address: str, port: int, words: bytes) -> None:
    code = f"import socket; socket.create_connection(('{address}',{port}),5).sendall({words!r})"
    subprocess.run(["ip", "netns", "exec", namespace, "python3", "-c", code], check=True, timeout=20)


def nothing_secret(lab) -> None:
    """Neither arguments, environment, output nor events of anybody hold the key."""
    key = _key(lab)
    digits = key.read_text().strip()
    receiver = lab.receiver(arguments=("--key-file", str(key)))
    program = _start(lab, key)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    for pid in (receiver.pid, moved.pid, *machine.marked(lab.marker)):
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            expect(digits.encode() not in text, f"/proc/{pid}/{name} shows the key")
    texts = [receiver.errors(), receiver.events_file.read_text(), program.errors()]
    expect(not any(digits in text for text in texts), "somebody has written the key")
    finish(moved, "counter")


def _checks() -> list:
    checks = [
        Check("a process moves with a key", with_a_key),
        Check("keys and addresses that are not safe are refused with what to do", refused_command_lines),
        Check("a program without the right key stays and says why", refused_settings),
        Check("a link between two networks shows nothing of the memory", captured),
        Check("a recorded session is refused", replayed),
        Check("the key is nowhere to be seen", nothing_secret),
    ]
    for at in (5, 30, 90, 150, 2000):
        checks.append(Check(f"a flipped bit at byte {at} from the source is refused", partial(flipped, True, at)))
    for at in (2, 20, 60, 100):
        checks.append(Check(f"a flipped bit at byte {at} from the receiver is refused", partial(flipped, False, at)))
    return checks


CHECKS = _checks
