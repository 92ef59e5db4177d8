"""Whatever goes wrong before the switch: the program goes on at its source, with nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.link import READY
from tests.harness.relay import Relay
from tests.harness.results import Check
from tests.harness.waiting import Failure, differences, expect, until

TIMES = 100
LATE_ATTEMPTS = 10
# What tests/programs/holds.py can hold, and what the refusal must say of it.
REFUSED = {
    "io_uring": "io_uring", "userfaultfd": "userfaultfd", "device": "device", "zombie": "child",
    "System V memory": "System V", "packet socket": "socket", "two views": "also mapped shared",
}
_COUNTER = ("counter", "--interval-ms", "1")


class Witness:
    """A program's descriptors, threads, mappings and signals before anything has been tried."""

    def __init__(self, program):
        self.program = program
        self.before = self._look()

    def _look(self) -> dict:
        pid = self.program.pid
        return {"threads": machine.threads(pid), "descriptors": machine.descriptors(pid),
                "mappings": machine.mappings(pid), "signals": machine.signal_state(pid)}

    def expect_unharmed(self) -> None:
        """Waits for the helper to be gone and the handler to have returned, and expects the program to print on."""
        try:
            until(lambda: self._look() == self.before, "everything to be as before", 5, alive=[self.program])
        except Failure:
            after = self._look()
            for what, before in self.before.items():
                expect(after[what] == before, f"its {what} are not as before: {differences(before, after[what])}")
        self.program.wait_lines(self.program.text().count("\n") + 2)


def try_and_stay(witness, wanted: str = "") -> None:
    """One attempt, which ends with one line that says why."""
    program = witness.program
    before = len(program.left())
    program.trigger()
    until(lambda: len(program.left()) > before, "the line that says why", 20, alive=[program])
    said = program.left()[before:]
    expect(len(said) == 1 and re.search(wanted, said[0]), f"it said {said}")
    witness.expect_unharmed()


def _finish(program) -> None:
    program.process.send_signal(signal.SIGTERM)
    expect(program.wait() == 0, f"the program ended with {program.last_words()}")
    numbers = [int(line) for line in program.final_text().splitlines() if line.isdigit()]
    expect(numbers == list(range(len(numbers))), "a number is missing or repeated")


def _start(lab, workload=_COUNTER, **options):
    program = lab.target(*workload, **options)
    program.wait_lines(2)
    return program


def absent(lab) -> None:
    program = _start(lab)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens: every connection is refused
        program.aim(unused.getsockname()[1])
        witness = Witness(program)
        for _ in range(TIMES):
            try_and_stay(witness, "refused")
    _finish(program)


def refused_by_receiver(hide: str, event: str, lab) -> None:
    """The receiver lives in a mount namespace where the program's own directory is empty. If it is another file system
    that hides it, this is said before anything stops; else the file might have been deleted a moment ago."""
    machine.need_command("unshare", "mount")
    program = _start(lab, stdin=_held_file(lab))
    (lab.directory / "empty").mkdir()
    hide = f'cd "$0/.." && {hide} held && exec "$@"'
    receiver = lab.receiver(wrapper=["unshare", "--mount", "sh", "-c", hide, str(lab.directory / "held")])
    program.aim(receiver.port)
    witness = Witness(program)
    for _ in range(TIMES):
        try_and_stay(witness, "held/file is not here: provide it")
    until(lambda: sum(each["event"] == event for each in receiver.events()) == TIMES, f"{TIMES} refusals to be told",
          alive=[receiver])
    reasons = [each["reason"] for each in receiver.events() if each["event"] == event]
    expect(all("held/file" in reason for reason in reasons), f"the reason is {reasons[0]}")
    expect(not receiver.find("resumed"), "it was moved after all")
    _finish(program)


def deleted_while_reserving(lab) -> None:
    """The program's file is deleted when the source has looked at it and the receiver has not: it moves with it."""
    program, path = _start(lab, stdin=_held_file(lab)), lab.directory / "held" / "file"
    receiver, deleted = lab.receiver(), []

    def delete(_connection: int, _outward: bool, _offset: int, data: bytes) -> bytes:
        # Once: the receiver gives it this name again for a moment.
        if not deleted:
            deleted.append(path)
            path.unlink()
        return data
    relay = Relay(receiver.port, delete)
    lab.links.append(relay)
    moved = lab.move(program, receiver, port=relay.port)
    moved.wait_complete()
    with open(f"/proc/{moved.pid}/fd/0", "rb") as file:
        expect(file.read() == b"here and nowhere else\n", "its file has another content")
    expect(not path.exists(), "the file has its name again")
    expect(not program.left(), f"it was refused first: {program.left()}")


def _held_file(lab):
    held = lab.directory / "held"
    held.mkdir()
    (held / "file").write_text("here and nowhere else\n")
    return open(held / "file", encoding="ascii")


def killed_before_the_switch(lab) -> None:
    """The receiver is killed, and the link cut, after some bytes of the handshake or of the manifest, or when all is ready."""
    program = _start(lab)
    witness = Witness(program)
    for attempt in range(TIMES):
        receiver = lab.receiver(f"killed{attempt}")
        link = lab.link(receiver, when_cut=receiver.process.kill, **_cut(attempt, 20))
        program.aim(link.port)
        try_and_stay(witness)
        receiver.kill()
    _finish(program)


def _cut(attempt: int, step: int) -> dict:
    """Where a link ends: after some bytes, or in the word that the receiver is ready, when every thread stands still."""
    return {"cut_in": (READY, attempt // 2 % 16)} if attempt % 2 else {"cut_after": 1 + attempt * step}


def silent(lab) -> None:
    """Whoever listens there never says a word: the attempt ends by itself."""
    program = _start(lab)
    with socket.create_server(("127.0.0.1", 0)) as server:
        program.aim(server.getsockname()[1])
        try_and_stay(Witness(program))
    _finish(program)


def nonsense(lab) -> None:
    """Whoever listens there is no receiver."""
    program = _start(lab)
    witness = Witness(program)
    with socket.create_server(("127.0.0.1", 0)) as server:
        program.aim(server.getsockname()[1])
        before = len(program.left())
        program.trigger()
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
            until(lambda: len(program.left()) > before, "the line that says why", 20, alive=[program])
    witness.expect_unharmed()
    _finish(program)


def refused_by_name(kind: str, words: str, lab) -> None:
    """What cannot be moved is named, and nothing stops."""
    receiver = lab.receiver()
    program = lab.program("holds", [sys.executable, str(machine.PROGRAMS / "holds.py"), kind])
    program.wait_lines(2)
    program.aim(receiver.port)
    try_and_stay(Witness(program), words)
    expect(not receiver.find("resumed"), "it was moved after all")


def first_of_its_namespace(lab) -> None:
    """A process whose id is 1 cannot have it at the destination: another one has."""
    machine.need_command("unshare")
    receiver = lab.receiver()
    command = ["unshare", "--pid", "--fork", "--mount-proc", str(machine.BIN / "target"), "--interval-ms", "1"]
    wrapper = lab.program("first", command)
    wrapper.wait_lines(2)
    program = Inner(wrapper, machine.children(wrapper.pid)[0])
    program.aim(receiver.port)
    try_and_stay(Witness(program), r"\b1\b")


class Inner:
    """A program that another one has started, with what that one prints."""

    def __init__(self, wrapper, pid: int):
        self.wrapper, self.pid = wrapper, pid

    def __getattr__(self, name: str):
        return getattr(self.wrapper, name)

    def trigger(self) -> None:
        os.kill(self.pid, self.trigger_signal)


def child_is_refused(lab) -> None:
    """A program with a child is refused by name, and moves when the child is gone."""
    receiver = lab.receiver()
    program = lab.program("parent", ["python3", str(machine.PROGRAMS / "parent.py")], stdin=subprocess.PIPE)
    program.wait_lines(1)
    program.aim(receiver.port)
    witness = Witness(program)
    before = len(program.left())
    program.trigger()
    until(lambda: len(program.left()) > before, "the refusal", alive=[program])
    expect("child" in program.left()[-1], f"it said {program.left()[-1]}")
    witness.before["descriptors"] = machine.descriptors(program.pid)
    program.process.stdin.close()
    program.wait_lines(3)
    lab.move(program, receiver).wait_complete()


def unharmed_workload(workload: str, lab) -> None:
    """A workload that checks itself is stopped and let go again: the receiver dies, every other time when all is ready."""
    program = _start(lab, (workload,))
    for attempt in range(LATE_ATTEMPTS):
        receiver = lab.receiver(f"killed{attempt}")
        link = lab.link(receiver, when_cut=receiver.process.kill, **_cut(attempt, 1000))
        program.aim(link.port)
        before = len(program.left())
        program.trigger()
        until(lambda before=before: len(program.left()) > before, "the line that says why", 20, alive=[program])
        program.wait_lines(program.text().count("\n") + 1)
        receiver.kill()
    program.process.send_signal(signal.SIGTERM)
    expect(program.wait() == 0 and program.final_text().endswith("PASS\n"), program.final_text()[-200:])


def no_new_code(how: str, lab) -> None:
    """Of a program that may not execute what it has written: it goes on, and moves if no filter may kill it."""
    wrapper = compile_c("no_new_code", lab.directory)
    program = lab.program(how, [wrapper, how, str(machine.BIN / "target"), *_COUNTER])
    program.wait_lines(2)
    witness = Witness(program)
    for _ in range(LATE_ATTEMPTS):
        program.aim(1)
        try_and_stay(witness, "refused" if how == "mdwe" else "seccomp")
    if how == "mdwe":
        receiver, before = lab.receiver(), machine.layout(program.pid)
        first = lab.move(program, receiver)
        first.wait_complete()
        expect(machine.layout(first.pid) == before, "it has other memory than before")
        lab.move(first, receiver).wait_complete()
    else:
        _finish(program)


def _checks() -> list:
    return [
        Check(f"an absent receiver: the program goes on, {TIMES} times", absent),
        Check(f"a receiver that lacks a file refuses by name: the program goes on, {TIMES} times",
              partial(refused_by_receiver, "mount -t tmpfs none", "refused")),
        Check(f"a receiver that has another directory there refuses by name: the program goes on, {TIMES} times",
              partial(refused_by_receiver, "mount --bind empty", "failed")),
        Check("a file that is deleted while the move is prepared moves without its name", deleted_while_reserving),
        Check(f"a receiver killed before the switch: the program goes on, {TIMES} times", killed_before_the_switch),
        Check("a receiver that never answers: the program goes on", silent),
        Check("something else listens there: the program goes on", nonsense),
        Check("a process with id 1 is refused by name", first_of_its_namespace),
        Check("a program with a child is refused by name and moves later", child_is_refused),
        Check("a program under PR_SET_MDWE goes on, and moves", partial(no_new_code, "mdwe")),
        Check("a program whose mprotect(PROT_EXEC) is refused goes on", partial(no_new_code, "refused")),
        Check("a program that mprotect(PROT_EXEC) would kill goes on", partial(no_new_code, "killed")),
    ] + [Check(f"what cannot move is refused by name: {kind}", partial(refused_by_name, kind, words))
         for kind, words in REFUSED.items()
    ] + [Check(f"{name} goes on after {LATE_ATTEMPTS} failed attempts", partial(unharmed_workload, name))
         for name in ("threads", "signals", "vectors", "mappings", "files_pipes", "sleeper")]


CHECKS = _checks
