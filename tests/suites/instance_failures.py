"""Trees of processes on their way, and what may go wrong there: never two copies, never a zero, never a tree that is lost
without a word."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.criu import BRIDGE, Tree, need_criu
from tests.harness.results import Check
from tests.harness.trees import Taker, begin_to_send, end, send
from tests.harness.waiting import expect, until

_TIMES = 5
_SLOW = 8 << 20  # bytes a second


def _counting(lab, name: str = "tree") -> Tree:
    tree = Tree(lab, name, [sys.executable, str(machine.PROGRAMS / "tree.py")])
    tree.wait_number(20)
    return tree


def _behind(directory: Path, options: str = "") -> tuple:
    """Runs a command in a mount namespace of its own where `directory` is an empty file system."""
    script = f'mount -t tmpfs {options} none {directory} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def _stays(lab, tree: Tree, taker: Taker, *arguments, fails: str, times: int = _TIMES) -> None:
    before = _state(tree.pid)
    for _ in range(times):
        send(lab, tree.pid, taker.port, *arguments, fails=fails)
        tree.expect_counting()
    after = until(lambda: _state(tree.pid) == before and before, "the tree to be as before", 10)
    expect(after == before, "it is not as it was")
    expect(not list((lab.directory / "send-images").iterdir()), "images are left at the source")


def _state(pid: int) -> list:
    """What a move that does not take place must not change."""
    return [machine.threads(pid), machine.descriptors(pid), len(machine.mappings(pid))]


def missing_file(lab) -> None:
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab, wrapper=_behind(tree.directory))
    _stays(lab, tree, taker, fails="criu cannot restore these images: ")
    until(taker.is_tidy, "the images to be gone")
    end(tree)
    taker.end()


def full_disk(lab) -> None:
    need_criu()
    tree = _counting(lab)
    images = lab.directory / "receive-images"
    images.mkdir()
    taker = Taker(lab, wrapper=_behind(images, "-o size=256k"))
    _stays(lab, tree, taker, fails="No space left on device")
    taker.end()
    taker = Taker(lab, name="another")
    full = lab.directory / "send-images"
    full.mkdir(exist_ok=True)
    done = send(lab, tree.pid, taker.port, wrapper=_behind(full, "-o size=256k"), fails="criu cannot dump this process: ")
    expect("No space left" in done or "write" in done, f"it does not say why: {done}")
    tree.expect_counting()
    end(tree)
    taker.end()


def wrong_key(lab) -> None:
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab, "--key-file", lab.key())
    other = lab.directory / "other-key"
    subprocess.run([machine.BIN / "receiver", "keygen", other], check=True)
    _stays(lab, tree, taker, "--key-file", other, fails="it does not have this receiver's key")
    end(tree)
    taker.end()


def not_root(lab) -> None:
    """An ordinary user reaches the port, but brings nothing: a tree is whoever its images say."""
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab)
    with tempfile.TemporaryDirectory() as public:
        os.chmod(public, 0o755)
        program = shutil.copy(BRIDGE, public)
        done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program, "send",
                               str(tree.pid), f"127.0.0.1:{taker.port}"], cwd=public, capture_output=True, text=True,
                              timeout=60)
    expect(done.returncode == 1 and "without a key only root brings a tree" in done.stderr, f"it says {done.stderr}")
    taker.event("refused")
    send(lab, tree.pid, taker.port)
    taker.event("complete")
    tree.expect_counting()
    end(tree)
    taker.end()


def killed_receiver(lab) -> None:
    """Whenever the receiver is killed, the tree goes on here, or it is said to be lost; it never runs twice."""
    need_criu()
    chance = random.Random(int(os.environ.get("POSTHASTE_SEED", "7")))
    for turn in range(_TIMES):
        _kill_receiver(lab, f"images{turn}", lambda taker: not taker.is_tidy(), stays=True)
        _kill_receiver(lab, f"resumed{turn}", lambda taker: taker.events("resumed"), stays=False)
        _kill_receiver(lab, f"random{turn}", None, chance.uniform(0, 0.6))


def _kill_receiver(lab, name: str, moment, seconds: float = 60, stays=None) -> None:
    tree = _counting(lab, name)
    taker = Taker(lab, name=name)
    link = lab.link(taker, bytes_per_second=_SLOW)
    sending = begin_to_send(lab, tree.pid, link.port)
    if moment:
        until(lambda: moment(taker), f"{name} to have come so far", seconds, alive=[taker])
    else:
        try:
            sending.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
    taker.kill()
    _, said = sending.communicate(timeout=60)
    stayed = "the tree goes on here" in said
    expect(stays is None or stayed == stays, f"killed when {name}: {said}")
    if stayed:
        tree.expect_counting()
        expect(_runs_here(tree), "it counts, but not here")
    else:
        expect(not _runs_here(tree), f"it runs at the source although it was handed over: {said}")
        numbers = tree.numbers()
        expect(numbers == list(range(len(numbers))), f"it counted wrong: {numbers[-20:]}")
    until(taker.is_tidy, "the images to be gone")
    end(tree)


def _runs_here(tree: Tree) -> bool:
    """Whether the process that was started here still runs, and not only as one that stands still."""
    try:
        return Path(f"/proc/{tree.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZtTX"
    except OSError:
        return False


def _reading(lab, *arguments, mebibytes: int = 32, on_loss: str = "poison"):
    """A reader with a slow way to a receiver: it runs there when this returns, and most of its memory is missing."""
    program = compile_c("random_reader", lab.directory)
    tree = Tree(lab, "reader", [program, str(mebibytes)])
    until(lambda: "ready" in tree.text(), "the reader to have filled its memory")
    taker = Taker(lab, "--loss-deadline", "1", "--on-loss", on_loss)
    link = lab.link(taker, bytes_per_second=_SLOW)
    sending = begin_to_send(lab, tree.pid, link.port, *arguments)
    taker.event("resumed")
    expect(not taker.events("complete"), "all of its memory is there already")
    return tree, taker, link, sending


def _reads_right(tree: Tree, taker: Taker, sending) -> None:
    (tree.directory / "go").touch()
    line = until(lambda: tree.text().partition("ready\n")[2].endswith("ms\n") and tree.text(), "the reader", 60)
    expect("\n0 of " in line, f"it read wrong: {line}")
    expect(taker.event("exited")["exit_code"] == 0, "it did not end well")
    _, said = sending.communicate(timeout=60)
    expect("moved" in said, said)


def cut_link(lab) -> None:
    need_criu()
    tree, taker, link, sending = _reading(lab)
    for count in range(1, 4):
        link.interrupt()
        taker.event("recovered", count)
    _reads_right(tree, taker, sending)
    taker.end()


def killed_criu(lab) -> None:
    """CRIU lets the tree go when it dies; it gets nowhere, and its memory is read on."""
    need_criu()
    tree, taker, _, sending = _reading(lab)
    worker = [pid for pid in machine.children(sending.pid) if b"swrk" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    expect(len(worker) == 1, f"which is criu? {worker}")
    os.kill(worker[0], signal.SIGKILL)
    until(lambda: Path(f"/proc/{tree.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it to stand still")
    _reads_right(tree, taker, sending)
    until(lambda: not tree.runs(), "it to be ended at the source")
    taker.end()


def killed_pager(lab) -> None:
    """Nothing reads a zero: the tree ends with who served its memory."""
    need_criu()
    tree, taker, _, sending = _reading(lab)
    (tree.directory / "go").touch()
    session = [pid for pid in machine.children(taker.process.pid)]
    expect(len(session) == 1, f"which is the session? {session}")
    here = taker.event("resumed")["pid"]
    os.kill(session[0], signal.SIGKILL)
    expect(taker.event("failed")["process"] == "lost", "it does not say that the tree is lost")
    until(lambda: not Path(f"/proc/{here}").exists(), "the tree to be ended")
    _, said = sending.communicate(timeout=60)
    expect(sending.returncode == 1 and "does not run here any more" in said, said)
    expect("ms\n" not in tree.text() or "\n0 of " in tree.text(), f"it read wrong: {tree.text()}")
    expect(not _runs_here(tree), "it runs at the source")
    taker.end()


def killed_source(lab) -> None:
    """What is lost ends in SIGBUS, and the tree at the source is ended: a signal could let it go on there."""
    need_criu()
    tree, taker, _, sending = _reading(lab)
    sending.kill()
    sending.wait()
    until(lambda: not tree.runs(), "it to be ended at the source")
    expect(taker.event("failed")["process"] == "here", "where is it?")
    expect(taker.events("lost"), "nothing is said to be lost")
    (tree.directory / "go").touch()
    expect(taker.event("exited").get("signal") == signal.SIGBUS, "it did not end by SIGBUS")
    expect("ms\n" not in tree.text(), f"it read what nobody has: {tree.text()}")
    taker.end()


def lost_and_killed(lab) -> None:
    need_criu()
    tree, taker, _, sending = _reading(lab, on_loss="kill")
    here = taker.event("resumed")["pid"]
    sending.kill()
    sending.wait()
    expect(taker.event("failed")["process"] == "lost", "where is it?")
    until(lambda: not Path(f"/proc/{here}").exists(), "the tree to be ended")
    until(lambda: not machine.children(taker.process.pid), "the session to end")
    expect(not tree.runs(), "it runs at the source")
    taker.end()


def lost_and_waited(lab) -> None:
    need_criu()
    tree, taker, link, sending = _reading(lab, on_loss="wait")
    here = taker.event("resumed")["pid"]
    (tree.directory / "go").touch()
    link.cut()
    expect(taker.event("paused")["reason"], "it does not say why")
    sending.kill()
    sending.wait()
    expect(not taker.events("failed") and Path(f"/proc/{here}").exists(), "it does not wait")
    taker.end()
    until(lambda: not Path(f"/proc/{here}").exists(), "the tree to be ended")


def refused_credentials(lab) -> None:
    """CRIU gives the tree its capabilities last, when it has been told to let it go."""
    need_criu()
    machine.need_command("setpriv")
    tree = _counting(lab)
    less = ("setpriv", "--bounding-set", "-sys_boot", "--inh-caps", "-sys_boot")
    taker = Taker(lab, wrapper=less)
    _stays(lab, tree, taker, fails="criu cannot restore these images: ", times=1)
    expect(not taker.events("resumed") and not taker.events("complete"), f"it is said to have run: {taker.events()}")
    until(taker.is_tidy, "the images to be gone")
    end(tree)
    taker.end()


def lost_copy(lab) -> None:
    """Two were wanted; the one that is here is not lost with the other."""
    need_criu()
    tree, taker, _, sending = _reading(lab, "--leave-running")
    there = taker.event("resumed")["pid"]
    taker.kill()
    _, said = sending.communicate(timeout=60)
    expect(sending.returncode == 1 and "the copy is lost, and the tree goes on here" in said, said)
    until(lambda: not Path(f"/proc/{there}").exists(), "the copy to be ended")
    until(lambda: _runs_here(tree), "it not to be stopped")
    (tree.directory / "go").touch()
    until(lambda: "\n0 of " in tree.text() and tree.text().endswith("ms\n"), "the reader")


def killed_copier(lab) -> None:
    """Who copies is killed: the tree goes on here, and what the copy lacks is lost."""
    need_criu()
    tree, taker, _, sending = _reading(lab, "--leave-running")
    sending.kill()
    sending.wait()
    until(lambda: _runs_here(tree), "it not to be stopped")
    expect(taker.event("failed")["process"] == "here", "where is the copy?")
    end(tree)
    taker.end()


def killed_with_images(lab) -> None:
    """A tree's secrets do not stay behind in images."""
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab)
    link = lab.link(taker, bytes_per_second=64 << 10)
    for kill_session in (True, False):
        sending = begin_to_send(lab, tree.pid, link.port)
        until(lambda: list(taker.images.glob("*/*.img")), "the images to come")
        session = machine.children(taker.process.pid)
        expect(len(session) == 1, f"which is the session? {session}")
        os.kill(session[0] if kill_session else sending.pid, signal.SIGKILL)
        sending.communicate(timeout=60)
        until(taker.is_tidy, "the images to be gone")
        tree.expect_counting()
    taker.kill()
    images, taker = lab.directory / "send-images", Taker(lab, name="another")
    for _ in range(_TIMES):
        sending = begin_to_send(lab, tree.pid, taker.port)
        until(lambda: list(images.iterdir()) or sending.poll() is not None, "the images to be made", 20)
        sending.kill()
        sending.communicate(timeout=60)
        until(lambda: not list(images.iterdir()), "the images to be gone at the source")
    if tree.runs():
        tree.expect_counting()
    end(tree)
    taker.end()


def foreign_files(lab) -> None:
    """Root runs no criu that somebody has put in a file system of his own."""
    need_criu()
    program = str(machine.PROGRAMS / "tree.py")
    tree = Tree(lab, "confined", ["unshare", "--user", "--map-root-user", "--mount", sys.executable, program])
    tree.wait_number(20)
    taker = Taker(lab)
    _stays(lab, tree, taker, fails="its mount namespace is another user namespace's", times=1)
    end(tree)
    taker.end()


def not_interrupted(lab) -> None:
    """Who ends send by a signal while memory is missing would lose it: send goes on."""
    need_criu()
    tree, taker, _, sending = _reading(lab)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        sending.send_signal(number)
    _reads_right(tree, taker, sending)
    taker.end()


def _checks() -> list:
    return [
        Check("a file that the destination lacks: the tree goes on where it is, each time", missing_file),
        Check("a full disk on either side: the tree goes on where it is, each time", full_disk),
        Check("another key: the tree goes on where it is, each time", wrong_key),
        Check("who is not root and has no key brings no tree", not_root),
        Check("a receiver killed at any moment: one copy at most, and it is said which", killed_receiver),
        Check("a link cut three times while memory is missing: nothing is lost", cut_link),
        Check("criu killed at the source while memory is missing: nothing is lost, and nothing runs there", killed_criu),
        Check("a session killed while memory is missing: the tree ends before it reads a zero", killed_pager),
        Check("the source killed while memory is missing: SIGBUS, and the tree is ended there", killed_source),
        Check("--on-loss kill: a tree whose source is killed is killed", lost_and_killed),
        Check("--on-loss wait: a tree whose source is killed waits", lost_and_waited),
        Check("criu refuses at the very end, behind the word to run: the tree goes on where it is", refused_credentials),
        Check("--leave-running and a receiver killed while memory is missing: the tree goes on here", lost_copy),
        Check("--leave-running and a sender killed while memory is missing: the tree goes on here", killed_copier),
        Check("whoever is killed while there are images: none of them stays behind", killed_with_images),
        Check("a mount namespace of another user namespace's: nothing in it is run as root", foreign_files),
        Check("a sender told to end while memory is missing goes on until all of it is there", not_interrupted),
    ]


CHECKS = _checks
