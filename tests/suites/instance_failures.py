"""Trees of processes on their way, and what may go wrong there: never two copies, never a zero, never a tree that is lost
without a word."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.harness import link as frames
from tests.harness import machine, scale
from tests.harness.compiling import compile_c
from tests.harness.criu import BRIDGE, Tree, need_criu
from tests.harness.results import Check
from tests.harness.trees import Taker, begin_to_send, end, send
from tests.harness.waiting import expect, until

_SLOW = 8 << 20  # bytes a second
_UNPACKED = ("--compress", "off")  # on their way for as long as they are many


def _counting(lab, name: str = "tree") -> Tree:
    tree = Tree(lab, name, [sys.executable, str(machine.PROGRAMS / "tree.py")])
    tree.wait_number(20)
    return tree


def _behind(directory: Path, options: str = "") -> tuple:
    """Runs a command in a mount namespace of its own where `directory` is an empty file system."""
    script = f'mount -t tmpfs {options} none {directory} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def _times() -> int:
    return scale.times(5, 20)


def _stays(lab, tree: Tree, taker: Taker, *arguments, fails: str, times: int = 0) -> None:
    before = _state(tree.pid)
    for _ in range(times or _times()):
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
    expect("no room is left where its images lie" in done, f"it does not say why: {done}")
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
    for turn in range(_times()):
        _kill_receiver(lab, f"images{turn}", lambda taker: not taker.is_tidy(), stays=True)
        _kill_receiver(lab, f"resumed{turn}", lambda taker: taker.events("resumed"), stays=False)
        _kill_receiver(lab, f"random{turn}", None, chance.uniform(0, 0.6))


def _kill_receiver(lab, name: str, moment, seconds: float = 60, stays=None) -> None:
    tree = _counting(lab, name)
    taker = Taker(lab, *_UNPACKED, name=name)
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
        return machine.state(tree.pid) not in "ZtTX"
    except OSError:
        return False


def _reading(lab, *arguments, mebibytes: int = 32, on_loss: str = "poison"):
    """A reader with a slow way to a receiver: it runs there when this returns, and most of its memory is missing."""
    program = compile_c("random_reader", lab.directory)
    tree = Tree(lab, "reader", [program, str(mebibytes)])
    until(lambda: "ready" in tree.text(), "the reader to have filled its memory")
    taker = Taker(lab, *_UNPACKED, "--loss-deadline", "1", "--on-loss", on_loss)
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
    """CRIU lets the tree go when it dies; whoever sends it holds it then, and its memory is read on."""
    need_criu()
    tree, taker, _, sending = _reading(lab)
    worker = [pid for pid in machine.children(sending.pid) if b"swrk" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    expect(len(worker) == 1, f"which is criu? {worker}")
    os.kill(worker[0], signal.SIGKILL)
    until(lambda: _tracer(tree.pid) == sending.pid and not _runs_here(tree), "it to stand still")
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
    taker = Taker(lab, *_UNPACKED)
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
    for _ in range(_times()):
        sending = begin_to_send(lab, tree.pid, taker.port)
        until(lambda: list(images.iterdir()) or sending.poll() is not None, "the images to be made", 20)
        sending.kill()
        sending.communicate(timeout=60)
        until(lambda: not list(images.iterdir()), "the images to be gone at the source")
    if tree.runs():
        tree.expect_counting()
    end(tree)
    taker.end()


def at_random(accident, lab) -> None:
    """Something happens at random moments of the post-copy, while every page is looked at."""
    need_criu()
    program, times = compile_c("readers", lab.directory), scale.times(3, 20)
    chance = random.Random(f"{os.environ.get('POSTHASTE_SEED', '7')} {accident.__name__}")
    happened = 0
    for turn in range(times):
        tree = Tree(lab, f"readers{turn}", [program, "4"])
        until(lambda tree=tree: "ready" in tree.text(), "the readers to have filled their memory")
        taker = Taker(lab, *_UNPACKED, "--loss-deadline", "1", name=f"receive{turn}")
        link = lab.link(taker, bytes_per_second=_SLOW, comes_back=True)
        sending = begin_to_send(lab, tree.pid, link.port)
        taker.event("resumed")
        (tree.directory / "go").touch()
        until_bytes = link.forwarded + chance.randrange(8 << 20)
        until(lambda link=link, taker=taker, at=until_bytes: link.forwarded > at or taker.events("complete"), "some bytes")
        happened += not taker.events("complete")
        accident(tree, taker, link, sending)
        expect(not _runs_here(tree), "it runs at the source")
        until(taker.is_tidy, "the images to be gone")
        taker.end()
        link.close()
        end(tree)
    expect(happened > times // 2, f"only {happened} of {times} were in post-copy")


def _result(tree: Tree) -> str:
    return tree.text().partition("ready\n")[2]


def _is_identical(tree: Tree, taker: Taker, sending) -> None:
    status = taker.event("exited")["exit_code"]
    expect(status == 0 and _result(tree).startswith("0 of "), f"it read wrong: {status}, {_result(tree)}")
    _, said = sending.communicate(timeout=60)
    expect(sending.returncode == 0 and "moved" in said, said)


def link_is_cut(tree: Tree, taker: Taker, link, sending) -> None:
    link.interrupt()
    _is_identical(tree, taker, sending)


def criu_is_killed(tree: Tree, taker: Taker, link, sending) -> None:
    for pid in machine.children(sending.pid):
        _kill_if(pid, b"swrk")
    _is_identical(tree, taker, sending)


def pager_is_killed(tree: Tree, taker: Taker, link, sending) -> None:
    here = taker.event("resumed")["pid"]
    for pid in machine.children(taker.process.pid):
        _kill_if(pid, b"receive-session")
    ended = until(lambda: taker.events("failed") or taker.events("complete"), "what became of it")
    if ended[0]["event"] == "failed":
        expect(ended[0]["process"] == "lost", f"where is it? {ended}")
        _, said = sending.communicate(timeout=60)
        expect(sending.returncode == 1 and "does not run here any more" in said, said)
        until(lambda: not Path(f"/proc/{here}").exists(), "the tree to be ended")
    else:
        # Whoever had all of its memory goes on; nobody is left who tells of its end.
        until(lambda: not Path(f"/proc/{here}").exists() or _result(tree).endswith("ms\n"), "the tree to have looked")
        sending.communicate(timeout=60)
    expect(not _result(tree) or _result(tree).startswith("0 of "), f"it read wrong: {_result(tree)}")


def source_is_killed(tree: Tree, taker: Taker, link, sending) -> None:
    sending.kill()
    sending.communicate(timeout=60)
    exited = taker.event("exited")
    if not taker.events("lost"):
        expect(exited.get("exit_code") == 0 and _result(tree).startswith("0 of "), f"{exited}, {_result(tree)}")
        return
    lines = _result(tree).splitlines()
    by_signal = f"ended by signal {int(signal.SIGBUS)}"
    expect(exited.get("signal") == signal.SIGBUS or by_signal in lines, f"its loss has no name: {exited}, {lines}")
    expect(all(line == by_signal or line.startswith("0 of ") for line in lines), f"it read what nobody has: {lines}")


def _kill_if(pid: int, word: bytes) -> None:
    try:
        if word in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def not_continued(lab) -> None:
    """CRIU lets the tree go when it dies, and a signal could have it go on; who sends it holds it then."""
    need_criu()
    tree, taker, _, sending = _reading(lab)
    (tree.directory / "go").touch()
    for pid in machine.children(sending.pid):
        _kill_if(pid, b"swrk")
    until(lambda: _tracer(tree.pid) == sending.pid, "it to be held")
    for _ in range(_times()):
        os.kill(tree.pid, signal.SIGCONT)
        until(lambda: not _runs_here(tree), "it to stand still", 1)
    expect(_tracer(tree.pid) == sending.pid, "it is held no more")
    _reads_right(tree, taker, sending)
    until(lambda: not tree.runs(), "it to be ended at the source")
    taker.end()


def _tracer(pid: int) -> int:
    return int(re.search(r"^TracerPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def in_doubt(lab) -> None:
    """The receiver dies with the word to run on its way: only the user can know that nobody heard it."""
    need_criu()
    for killed_criu in (False, True):
        tree = _counting(lab, f"doubt{killed_criu}")
        taker = Taker(lab, name=f"doubtful{killed_criu}")
        link = lab.link(taker, cut_in=(frames.RUN, 0), when_cut=taker.kill)
        said = lab.directory / f"said{killed_criu}"
        with open(said, "w") as err:
            sending = begin_to_send(lab, tree.pid, link.port, stderr=err)
        until(lambda: taker.ended(), "the receiver to be killed")
        until(lambda: "kill -USR1" in said.read_text() or sending.poll() is not None, "the user to be asked", 60)
        expect("is not known" in said.read_text() and sending.poll() is None, said.read_text())
        counted = len(tree.numbers())
        for pid in machine.children(sending.pid) if killed_criu else []:
            _kill_if(pid, b"swrk")
        until(lambda: not _runs_here(tree), "it to stand still, since it may run there", 1)
        expect(len(tree.numbers()) == counted, "it has gone on although it may run there")
        sending.send_signal(signal.SIGUSR1)
        expect(sending.wait(60) == 1, "it did not fail")
        expect("by your word; the tree goes on here" in said.read_text(), said.read_text())
        expect(len(tree.numbers()) >= counted, "it has lost numbers")
        tree.expect_counting()
        end(tree)


def hung_session(lab) -> None:
    """The receiver answers, but who was told to run the tree hangs: the user is asked, and the word is heard at once."""
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab)
    stopped = []

    def stop_session() -> None:
        stopped.extend(machine.children(taker.process.pid))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    link = lab.link(taker, cut_in=(frames.RUN, 0), when_cut=stop_session, comes_back=True)
    said = lab.directory / "said"
    with open(said, "w") as err:
        sending = begin_to_send(lab, tree.pid, link.port, stderr=err)
    until(lambda: "kill -USR1" in said.read_text() or sending.poll() is not None, "the user to be asked", 120)
    expect(len(stopped) == 1, f"which is the session? {stopped}")
    expect("connected again" in said.read_text() and sending.poll() is None, said.read_text())
    expect(not _runs_here(tree), "it runs although it may run there")
    sending.send_signal(signal.SIGUSR1)
    expect(sending.wait(20) == 1, "it did not fail")
    expect("by your word; the tree goes on here" in said.read_text(), said.read_text())
    os.kill(stopped[0], signal.SIGKILL)
    tree.expect_counting()
    end(tree)
    taker.end()


def _locker(lab) -> Tree:
    program = "import fcntl, itertools, time\nlocked = open('lock', 'w')\nfcntl.lockf(locked, fcntl.LOCK_EX)\n" \
              "for number in itertools.count():\n    print(number, flush=True)\n    time.sleep(0.01)"
    tree = Tree(lab, "locker", [sys.executable, "-c", program])
    tree.wait_number(5)
    return tree


def held_lock(lab) -> None:
    """An original that goes on keeps its locks: within one machine its copy cannot have them."""
    need_criu()
    tree = _locker(lab)
    taker = Taker(lab)
    _stays(lab, tree, taker, "--file-locks", "--leave-running", fails="has a lock on a file, which process", times=2)
    until(taker.is_tidy, "the images to be gone")
    end(tree)
    taker.end()


def _contested(lab, keeps_s: float) -> tuple:
    """A tree with a lock for which somebody else waits, who will have it for so many seconds, on its way to a receiver."""
    need_criu()
    tree = _locker(lab)
    waits = "import fcntl, sys, time\nlocked = open(sys.argv[1], 'r+')\nprint('waits', flush=True)\n" \
            "fcntl.lockf(locked, fcntl.LOCK_EX)\nprint('has it', flush=True)\ntime.sleep(float(sys.argv[2]))"
    rival = Tree(lab, "rival", [sys.executable, "-c", waits, tree.directory / "lock", str(keeps_s)])
    until(lambda: "waits" in rival.text(), "the other one to wait")
    taker = Taker(lab)
    send(lab, tree.pid, taker.port, "--file-locks")
    until(lambda: "has it" in rival.text(), "the other one to have the lock")
    until(lambda: "waits for a lock on the file that descriptor" in taker.said(), "it to be said")
    return tree, rival, taker


def lost_lock(keeps: bool, lab) -> None:
    """Who waits for a lock of the tree gets it when the original ends, and keeps it or not: the tree goes on, and it is said."""
    tree, rival, taker = _contested(lab, 600 if keeps else 1)
    without = "goes on without its lock on the file that its descriptor"
    if keeps:
        until(lambda: without in taker.said(), "it to be said", 60)
    tree.expect_counting()
    expect((without in taker.said()) == keeps, taker.said())
    end(rival)
    end(tree)
    taker.end()


def killed_at_the_lock(lab) -> None:
    """A session that dies while its tree waits for a lock leaves a tree that goes on."""
    tree, rival, taker = _contested(lab, 600)
    [session] = [pid for pid in machine.children(taker.process.pid) if machine.state(pid) != "Z"]
    os.kill(session, signal.SIGKILL)
    tree.expect_counting()
    end(rival)
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
        Check("criu killed at the source, and the tree told to go on: it stands still there", not_continued),
        Check("a receiver gone for good as it is told to run the tree: the user's word lets it go on here", in_doubt),
        Check("a session that hangs behind a receiver that answers: the user is asked, whose word lets the tree go on here",
              hung_session),
        Check("a lock on a file, and an original that goes on beside its copy: said, and the tree goes on where it is", held_lock),
        Check("a lock on a file that somebody else waits for and keeps: said, and the tree goes on without it",
              partial(lost_lock, True)),
        Check("a lock on a file that somebody else waits for and gives back: said, and the tree has it again",
              partial(lost_lock, False)),
        Check("a receiver killed while its tree waits for a lock: the tree goes on", killed_at_the_lock),
        *(Check(f"at random moments of the post-copy, {what}: never a wrong page, never two copies",
                partial(at_random, accident))
          for what, accident in (("the link is cut", link_is_cut), ("criu is killed", criu_is_killed),
                                 ("the session is killed", pager_is_killed), ("the source is killed", source_is_killed))),
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
