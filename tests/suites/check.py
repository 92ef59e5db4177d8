"""receiver check: what would become of a process is said beforehand, by the parasite's own rules, and nothing is touched."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.failures import REFUSED, Witness, try_and_stay

MOVES, LOSES, CANNOT_LOOK, REFUSES = 0, 1, 2, 3
_COUNT = "import itertools, time\nfor n in itertools.count():\n    print(n, flush=True)\n    time.sleep(0.002)\n"
_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
# What a program does with the signal, and what is said of it.
_SIGNALS = {
    "ignores": ("signal.signal(signal.SIGUSR2, signal.SIG_IGN)", "ignores signal 12"),
    "has taken back": ("signal.signal(signal.SIGUSR2, signal.SIG_DFL)", "taken signal 12 back"),
    "blocks": ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])", "blocks signal 12"),
}


def check(pid: int, *arguments: str, wrapper=(), receiver=machine.BIN / "receiver"):
    """Exit status and output."""
    done = subprocess.run([*wrapper, str(receiver), "check", str(pid), *arguments], capture_output=True, text=True,
                          timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def expect_verdict(pid: int, verdict: int) -> None:
    """One look: a second one might find something else."""
    status, text = check(pid)
    expect(status == verdict, f"status {status}: {text}")


def check_json(pid: int) -> dict:
    status, text = check(pid, "--json")
    found = json.loads(text)
    verdicts = {"moves": MOVES, "moves with a loss": LOSES, "refused": REFUSES}
    expect(verdicts[found["verdict"]] == status, f"status {status}: {text[:300]}")
    return found


def _python(lab, lines: str, **options):
    program = lab.program("python", [sys.executable, "-c", f"import os, signal, socket\n{lines}\n{_COUNT}"], **options)
    program.wait_lines(2)
    return program


def ordinary(lab) -> None:
    """Every thread, mapping and descriptor is listed; the process is not touched; and it does move."""
    program = _python(lab, _THREAD)
    witness = Witness(program)
    status, text = check(program.pid, "--all")
    expect(status == MOVES and "signal 12: reaches the library" in text, f"status {status}: {text}")
    found = check_json(program.pid)
    witness.expect_unharmed()
    expect({part["what"] for part in found["threads"]} == machine.threads(program.pid), f"{found['threads']}")
    expect({int(part["what"]) for part in found["descriptors"]} == set(machine.descriptors(program.pid)),
           f"{found['descriptors']}")
    expect(len(found["mappings"]) >= len(machine.mappings(program.pid)), f"{len(found['mappings'])} mappings")
    receiver = lab.receiver()
    moved = lab.move(program, receiver)
    moved.wait_complete()
    expect_verdict(moved.pid, MOVES)


def refused(kind: str, words: str, lab) -> None:
    """What the parasite refuses is refused here, with the same reason and cure, and without a signal."""
    receiver = lab.receiver()
    program = lab.program("holds", [sys.executable, str(machine.PROGRAMS / "holds.py"), kind])
    program.wait_lines(2)
    program.aim(receiver.port)
    witness = Witness(program)
    found = check_json(program.pid)
    witness.expect_unharmed()
    parts = [part for kind in ("process", "threads", "mappings", "descriptors") for part in found[kind]]
    parts = [part for part in parts if part["verdict"] == "refused"]
    expect(found["verdict"] == "refused" and parts and words in parts[0]["reason"] and parts[0]["cure"], f"{parts}")
    try_and_stay(witness)
    said = program.left()[-1]
    expect(any(f"{part['reason']}: {part['cure']}" in said for part in parts), f"{said!r}, and here {parts}")


def losses(lab) -> None:
    """A connection to the outside and a pipe to another process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = _python(lab, f"far = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))")
        found = check_json(program.pid)
    lost = [part for part in found["descriptors"] if part["verdict"] == "moves with a loss"]
    expect(found["verdict"] == "moves with a loss" and "connection will be reset" in lost[0]["reason"]
           and "--tcp move" in lost[0]["cure"], f"{found['descriptors']}")


def undeliverable(lines: str, words: str, lab) -> None:
    """The program has changed what the signal does."""
    program = _python(lab, lines)
    _expect_undeliverable(program, words)


def _expect_undeliverable(program, words: str) -> None:
    witness = Witness(program)
    status, text = check(program.pid)
    expect(status == REFUSES and "not deliverable: " in text and words in text, f"status {status}: {text}")
    found = check_json(program.pid)
    expect(not found["signal"]["deliverable"] and words in found["signal"]["reason"], f"{found['signal']}")
    witness.expect_unharmed()


def without_library(lab) -> None:
    program = lab.target("counter", settings={"LD_PRELOAD": ""})
    program.wait_lines(2)
    _expect_undeliverable(program, "started without libsender.so")
    wrong = lab.target("counter", settings={"LD_PRELOAD": "/nowhere/libsender.so"})
    wrong.wait_lines(2)
    _expect_undeliverable(wrong, "not found when the program started")
    odd = lab.target("counter", settings={"POSTHASTE_SIGNAL": "KILL"})
    odd.wait_lines(2)
    _expect_undeliverable(odd, "signal 9, which cannot be a trigger")


def another_signal(lab) -> None:
    program = lab.target("counter", settings={"POSTHASTE_SIGNAL": "RTMIN+3"})
    program.wait_lines(2)
    status, text = check(program.pid)
    expect(status == MOVES and "signal 37: reaches" in text, f"status {status}: {text}")


def static(lab) -> None:
    machine.need_command("gcc")
    source = lab.directory / "static.c"
    source.write_text("#include <stdio.h>\n#include <unistd.h>\nint main(void) { for (int i = 0;; i++) { "
                      "printf(\"%d\\n\", i); fflush(stdout); usleep(2000); } }\n")
    binary = lab.directory / "static"
    subprocess.run(["gcc", "-static", "-o", str(binary), str(source)], check=True, timeout=60)
    program = lab.program("static", [str(binary)])
    program.wait_lines(2)
    _expect_undeliverable(program, "linked statically")


def set_uid(lab) -> None:
    lab.directory.chmod(0o755)
    binary = lab.directory / "set-uid"
    shutil.copy2(machine.BIN / "target", binary)
    os.chown(binary, 65534, 65534)
    binary.chmod(0o4755)
    program = lab.program("set-uid", [str(binary), "counter"])
    program.wait_lines(2)
    _expect_undeliverable(program, "set-uid")


def nobodys_business(lab) -> None:
    """Another user's process, none at all, a thread, a zombie, the kernel's own."""
    machine.need_command("setpriv")
    lab.directory.chmod(0o755)
    program = _python(lab, _THREAD)
    receiver = shutil.copy2(machine.BIN / "receiver", lab.directory)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    for pid, wrapper, expected, words in (
            (program.pid, nobody, CANNOT_LOOK, "not yours to look at: run this as root"),
            (2 ** 22 + 1, (), CANNOT_LOOK, "there is no process"),
            (max(map(int, machine.threads(program.pid))), (), CANNOT_LOOK, f"is a thread of process {program.pid}"),
            (2, (), REFUSES, "a thread of the kernel")):
        status, text = check(pid, wrapper=wrapper, receiver=receiver)
        expect(status == expected and words in text, f"{pid}: status {status}: {text}")
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    status, text = check(ended.pid)
    ended.wait()
    expect(status == REFUSES and "has ended" in text, f"a zombie: status {status}: {text}")


def stopped(lab) -> None:
    """A stopped program is refused by its threads, and moves once it goes on."""
    program = lab.target("counter")
    program.wait_lines(2)
    os.kill(program.pid, signal.SIGSTOP)
    try:
        until(lambda: check(program.pid)[0] == REFUSES, "it to be refused")
        expect("SIGCONT" in check(program.pid)[1], check(program.pid)[1])
    finally:
        os.kill(program.pid, signal.SIGCONT)
    until(lambda: check(program.pid)[0] == MOVES, "it to move")


def _checks() -> list:
    return [
        Check("everything of an ordinary program is listed, and nothing of it touched", ordinary),
        Check("a connection to the outside is a loss, with a cure", losses),
        Check("a program without the library, or with a bad POSTHASTE_SIGNAL, is told apart", without_library),
        Check("the signal is the one that the program was started with", another_signal),
        Check("a static program is not deliverable", static),
        Check("a set-uid program is not deliverable", set_uid),
        Check("what is not one's own, or no process, is said", nobodys_business),
        Check("a stopped program is refused until it goes on", stopped),
    ] + [Check(f"a program that {what} the signal is not deliverable", partial(undeliverable, lines, words))
         for what, (lines, words) in _SIGNALS.items()
    ] + [Check(f"check refuses what the library refuses, in the same words: {kind}", partial(refused, kind, words))
         for kind, words in REFUSED.items()]


CHECKS = _checks
