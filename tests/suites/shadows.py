"""Shadows: copies of running trees that are kept up to date, and go on when the original is gone."""

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.criu import BRIDGE, Daemon, Tree, bridge, need_criu
from tests.harness.link import Link
from tests.harness.network import OTHER_ADDRESS, Network
from tests.harness.results import Check
from tests.harness.scale import times
from tests.harness.trees import Taker, end, processes
from tests.harness.waiting import Failure, expect, until

_EVERY = 1.0  # seconds
_FILLING = 30000  # keys of a kilobyte that nobody writes any more
_LATE = 1.0  # seconds by which a busy machine may be late


class Keeper(Daemon):
    """criu-bridge shadow."""

    def __init__(self, lab, tree: Tree, port: int, *arguments, name: str = "one", every: str = "300ms",
                 pid: int = 0, host: str = "127.0.0.1", wrapper=()):
        self.count = getattr(lab, "keepers", 0) + 1
        lab.keepers = self.count
        images = lab.directory / "shadow-images"
        images.mkdir(exist_ok=True)
        super().__init__(lab, f"shadow-{self.count}", BRIDGE, "shadow", pid or tree.pid, f"{host}:{port}", "--name", name,
                         "--every", every, "-D", images, *arguments, wrapper=wrapper)

    def said(self) -> str:
        return self.err.read_text(errors="replace")

    def fails(self, why: str) -> None:
        """It ends with this reason, and the tree goes on."""
        until(self.ended, f"{self.name} to end")
        expect(self.process.returncode == 1 and why in self.said(), f"no '{why}' in: {self.said()}")
        expect("the tree goes on" in self.said(), f"where is the tree? {self.said()}")


def _taker(lab, *arguments, **options) -> Taker:
    return Taker(lab, "--store", _store(lab), *arguments, **options)


def _store(lab) -> Path:
    return lab.directory / "store"


def _promote(lab, *arguments, name: str = "one", store: Path = None, wrapper=(), fails: str = "") -> str:
    """Promotes a shadow, or expects a complaint; returns the process id of its root."""
    images = lab.directory / "promote-images"
    images.mkdir(exist_ok=True)
    store = store or _store(lab)
    if not fails and "--force" not in arguments:
        # What its original has begun is over soon after it.
        until(lambda: "kept" not in _states(lab, store, name, wrapper), f"nobody to keep {name} up")
    command = [*wrapper, BRIDGE, "promote", name, "--store", store, "-D", images, "-d", *arguments]
    done = subprocess.run([*map(str, command)], env=lab.environment(), capture_output=True, text=True, timeout=120)
    if fails:
        expect(done.returncode == 1 and fails in done.stderr, f"no '{fails}' in: {done.stderr}")
    else:
        expect(done.returncode == 0, f"it is not promoted: {done.stderr}")
    return done.stdout.strip()


def _states(lab, store: Path, name: str, wrapper=()) -> list:
    listing = subprocess.run([*map(str, [*wrapper, BRIDGE, "shadows", "--store", store, "--json"])], check=True,
                             env=lab.environment(), capture_output=True, text=True, timeout=60)
    return [line["state"] for line in json.loads(listing.stdout) if line["shadow"] == name]


def _list(lab) -> list:
    return json.loads(bridge(lab, "shadows", "--store", _store(lab), "--json"))


def _counting(lab, name: str = "tree") -> Tree:
    tree = Tree(lab, name, [sys.executable, str(machine.PROGRAMS / "tree.py")])
    tree.wait_number(20)
    return tree


def _waves(lab, mebibytes: int = 16) -> Tree:
    tree = Tree(lab, "waves", [compile_c("waves", lab.directory), str(mebibytes)])
    _expect_whole(tree)
    return tree


def _expect_whole(tree: Tree) -> None:
    """It runs, and its memory is of one moment."""
    before = tree.text().count("\n")
    (tree.directory / "look").touch()
    until(lambda: tree.text().count("\n") > before, f"{tree.name} to look at its memory")
    expect("torn" not in tree.text(), tree.text().splitlines()[-1])


def _seconds(event: dict) -> float:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def goes_on(lab) -> None:
    need_criu()
    tree, taker = _counting(lab), _taker(lab)
    keeper = Keeper(lab, tree, taker.port)
    taker.event("stored", 3)
    tree.expect_counting()
    line, = _list(lab)
    expect((line["shadow"], line["state"], len(line["epochs"])) == ("one", "kept", 2), f"it is listed as {line}")
    expect(line["origin"]["pid"] == tree.pid, f"its origin is {line['origin']}")
    expect("one  " in bridge(lab, "shadows", "--store", _store(lab)), "it is not in the table")
    _promote(lab, fails="its original answers")
    bridge(lab, "shadows", "--store", _store(lab), "--remove", "one", fails="answers")
    end(tree)
    keeper.wait(20)
    expect("the tree has ended" in keeper.said(), keeper.said())
    before = tree.numbers()
    pid = _promote(lab)
    tree.wait_number(len(before) + 5)
    expect(int(machine.inner_ids(int(pid))[-1]) == tree.pid, "it has another id")
    after = tree.numbers()[len(before):]
    expect(after == list(range(after[0], after[0] + len(after))) and 0 < after[0] <= len(before),
           f"it goes on with {after[:9]} behind {len(before)}")
    expect(_list(lab)[0]["state"] == "promoted", f"it is listed as {_list(lab)}")
    _promote(lab, fails="it runs here already")
    second = Keeper(lab, tree, taker.port, name="of-the-copy", pid=int(pid))
    taker.event("stored", len(taker.events("stored")) + 2)
    end(tree)
    second.wait(20)
    count = len(tree.numbers())
    _promote(lab, name="of-the-copy")
    tree.wait_number(count + 5)
    after = tree.numbers()[count:]
    expect(after == list(range(after[0], after[0] + len(after))), f"the copy's copy counts {after[:9]}")
    end(tree)
    bridge(lab, "shadows", "--store", _store(lab), "--remove", "of-the-copy")
    until(lambda: _list(lab)[0]["state"] == "silent", "the promoted tree to have ended")
    bridge(lab, "shadows", "--store", _store(lab), "--remove", "one")
    expect(_list(lab) == [], "it is still there")
    until(lambda: taker.is_tidy() and not list((lab.directory / "shadow-images").iterdir()), "the images to be gone")
    taker.end()


def reports_the_end(lab) -> None:
    need_criu()
    tree = Tree(lab, "short", ["sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 7"])
    taker = _taker(lab)
    keeper = Keeper(lab, tree, taker.port, every="30s")
    taker.event("stored")
    end(tree)
    keeper.wait(20)
    (tree.directory / "go").touch()
    done = subprocess.run([BRIDGE, "promote", "one", "--store", _store(lab), "-D", lab.directory],
                          env=lab.environment(), capture_output=True, text=True, timeout=60)
    expect(done.returncode == 7, f"status {done.returncode}: {done.stderr}")
    taker.end()


def forced(lab) -> None:
    need_criu()
    tree, taker = _waves(lab, 1), _taker(lab)
    keeper = Keeper(lab, tree, taker.port)
    taker.event("stored", 2)
    pid = _promote(lab, "--force")
    keeper.fails("this shadow was promoted")
    _expect_whole(tree)
    os.kill(int(pid), signal.SIGKILL)
    _expect_whole(tree)
    Keeper(lab, tree, taker.port).fails("this shadow was promoted")
    Keeper(lab, tree, taker.port, name="two")
    taker.event("stored", len(taker.events("stored")) + 1)
    end(tree)
    taker.end()


def _redis(lab, port: int) -> Tree:
    tree = Tree(lab, "redis", ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                               "no", "--enable-debug-command", "yes"])
    words = ["redis-cli", "-p", str(port)]
    until(lambda: "PONG" in subprocess.run([*words, "ping"], capture_output=True, text=True).stdout, "redis")
    filling = subprocess.run([*words, "DEBUG", "POPULATE", str(_FILLING), "filling", "1000"], capture_output=True, text=True)
    expect(filling.stdout.strip() == "OK", f"redis says {filling.stdout}{filling.stderr}")
    return tree


def _told(path: Path) -> list:
    """What the writer was told, and when."""
    lines = path.read_text().rpartition("\n")[0].splitlines()
    return [(int(number), float(when)) for number, when in map(str.split, lines)]


def _check_epoch(lab, store: Path, port: int, stopped: float, told: list) -> None:
    """Promotes an epoch in a network of its own and looks at its data."""
    inside = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    pid = _promote(lab, name="redis", store=store, wrapper=inside)
    check = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, machine.PROGRAMS / "redis_sequence.py", "check", port]
    done = subprocess.run([*map(str, check)], capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, f"the data set is torn: {done.stderr}")
    os.kill(int(pid), signal.SIGKILL)
    last, keys = map(int, done.stdout.split())
    expect(keys == last + 1 + _FILLING, f"{keys} keys, and the last number is {last}")
    known = max((number for number, when in told if when < stopped - _LATE), default=0)
    expect(last >= known, f"it has {last}, and {known} was there before it was stopped")
    expect(last <= told[-1][0] + 1, f"it has {last}, and {told[-1][0]} was the last one")


def redis_stands_by(lab) -> None:
    """Every epoch of some seconds, or with --full of a minute: copied as it is complete, and promoted afterwards."""
    need_criu(sockets=True)
    machine.need_command("redis-server", "redis-cli", "ip", "nsenter", "unshare")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tree, taker, told = _redis(lab, port), _taker(lab), lab.directory / "told"
    writer = Daemon(lab, "writer", sys.executable, machine.PROGRAMS / "redis_sequence.py", "write", port, told)
    lab.helpers.append(writer.process)
    until(lambda: told.exists() and len(_told(told)) > 20, "the writer to write", alive=[writer])
    keeper = Keeper(lab, tree, taker.port, name="redis", every="1s")
    copies, wanted = [], times(5, 60)
    for turn in range(1, wanted + 1):
        event = taker.event("stored", turn)
        copy = lab.directory / f"copy-{turn}"
        subprocess.run(["cp", "-a", "--sparse=always", _store(lab), copy], check=True)
        copies.append((copy, event, set(os.listdir(copy / "redis"))))
    expect(not writer.ended(), f"the connection of the original was disturbed: {writer.last_words()}")
    os.kill(tree.pid, signal.SIGKILL)  # redis has overwritten what it is found by
    keeper.wait(20)
    writer.process.wait(20)
    stored, said = taker.events("stored"), _told(told)
    for before, after in zip(stored, stored[1:]):
        stopped = _seconds(before) - before["lag_us"] / 1e6
        old = _seconds(after) - stopped
        expect(old <= _EVERY + before["lag_us"] / 1e6 + after["lag_us"] / 1e6 + _LATE, f"{old:.2f} s old: {after}")
        expect(after["wire_bytes"] <= stored[0]["wire_bytes"] / 10, f"{after} behind {stored[0]}")
    for copy, event, names in copies:
        newest = max(name for name in names if name.startswith("epoch-"))
        if int(newest.rpartition("-")[2]) == event["epoch"]:
            _check_epoch(lab, copy, port, _seconds(event) - event["lag_us"] / 1e6, said)
        shutil.rmtree(copy)
    last = stored[-1]
    _check_epoch(lab, _store(lab), port, _seconds(last) - last["lag_us"] / 1e6, said)
    taker.end()


def costs_what_changes(lab) -> None:
    need_criu()
    tree = Tree(lab, "changes", [sys.executable, str(machine.PROGRAMS / "changes.py")])
    until(lambda: "ready" in tree.text(), "the program to have filled its memory")
    taker = _taker(lab)
    Keeper(lab, tree, taker.port, every="500ms")
    whole = taker.event("stored")
    pages = 64 << 8
    expect(whole["by_value"] > pages, f"the first epoch is {whole}")
    for turn in range(1, 4):
        taker.event("stored", turn + 1)
        before = len(taker.events("stored"))
        (tree.directory / "go").touch()
        until(lambda: tree.text().count("changed") == turn, "the program to change its memory")
        taker.event("stored", before + 2)
        for event in taker.events("stored")[1:]:
            expect(event["wire_bytes"] <= whole["wire_bytes"] / 10, f"{event} behind {whole}")
        news = sum(event["by_value"] for event in taker.events("stored")[before:before + 2])
        expect(news >= pages // 20, f"{news} pages, and {pages // 20} have changed")
    end(tree)
    taker.end()


def _sessions(taker: Taker) -> list:
    children = Path(f"/proc/{taker.process.pid}/task/{taker.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def torn_epochs(lab) -> None:
    """Whoever is killed, and wherever the link is cut: what is promoted is of one moment, and the original goes on."""
    need_criu()
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    for turn in range(times(8, 60)):
        store = _store(lab)
        shutil.rmtree(store, ignore_errors=True)
        tree_lab = lab.directory / "tree-waves"
        shutil.rmtree(tree_lab, ignore_errors=True)
        tree, taker = _waves(lab), _taker(lab, name=f"receive-{turn}")
        victim = ["link", "receiver", "session", "shadow"][turn % 4]
        link = Link(taker.port, bytes_per_second=32 << 20, comes_back=True)
        lab.links.append(link)
        keeper = Keeper(lab, tree, link.port, every="100ms")
        taker.event("stored", 2)
        at = link.forwarded + dice.randrange(1, 24 << 20)
        until(lambda: link.forwarded >= at, "the link to be used", alive=[keeper])
        if victim == "link":
            link.interrupt()
            taker.event("stored", len(taker.events("stored")) + 1)
        elif victim == "session":
            for pid in _sessions(taker):
                os.kill(pid, signal.SIGKILL)
            taker.event("stored", len(taker.events("stored")) + 1)
        elif victim == "receiver":
            taker.kill()
        else:
            keeper.kill()
        _expect_whole(tree)
        expect(not keeper.ended() or victim == "shadow", f"turn {turn}, seed {seed}: {keeper.last_words()}")
        end(tree)
        until(keeper.ended, "the shadow to end")
        pid = _promote(lab)
        _expect_whole(tree)
        os.kill(int(pid), signal.SIGKILL)
        link.close()
        if not taker.ended():
            taker.end()


def _state(pid: int) -> tuple:
    """What a stop must not change."""
    return machine.threads(pid), machine.descriptors(pid), machine.mappings(pid)


def killed_at_any_time(lab) -> None:
    """The tree is stopped for half of the time: who keeps its shadow is killed, and it is as if nothing had been."""
    need_criu()
    tree, taker = _counting(lab), _taker(lab)
    dice = random.Random(seed := random.randrange(1 << 32))
    before = _state(tree.pid)
    for _ in range(times(4, 100)):
        keeper = Keeper(lab, tree, taker.port, every="100ms")
        taker.event("stored", len(taker.events("stored")) + 1)
        until(lambda: dice.random() < 0.02, "the dice")
        keeper.kill()
        tree.expect_counting()
    until(lambda: _state(tree.pid) == before, f"the tree to be as before (seed {seed})", 10)
    until(lambda: not list((lab.directory / "shadow-images").iterdir()), "the images to be gone")
    end(tree)
    _promote(lab)
    tree.wait_number(len(tree.numbers()) + 5)
    end(tree)
    taker.end()


def fails_to_start(lab) -> None:
    """What cannot be restored leaves nothing behind, and can be promoted again when it can."""
    need_criu()
    tree, taker = _counting(lab), _taker(lab)
    keeper = Keeper(lab, tree, taker.port)
    taker.event("stored", 2)
    end(tree)
    keeper.wait(20)
    taker.end()
    (tree.directory / "err").rename(tree.directory / "elsewhere")
    _promote(lab, fails="criu cannot restore these images: ")
    until(lambda: not machine.marked(lab.marker), "every process to be gone")
    expect(_list(lab)[0]["state"] == "silent", f"it is listed as {_list(lab)}")
    (tree.directory / "elsewhere").rename(tree.directory / "err")
    _promote(lab)
    tree.wait_number(len(tree.numbers()) + 5)
    end(tree)


def _is_one(lab, tree: Tree) -> None:
    """A tree that runs is not promoted once more; one that lacked memory may be ended meanwhile, and then is."""
    there = processes(tree)
    try:
        _promote(lab, fails="it runs here already")
    except Failure:
        until(lambda: not there & processes(tree), "the first of two copies to be gone", 1)


def killed_promotions(lab) -> None:
    """Whenever promote is killed, the tree has all its memory or is not there; then it can be promoted again."""
    need_criu()
    tree, taker = _waves(lab), _taker(lab)
    keeper = Keeper(lab, tree, taker.port)
    taker.event("stored", 2)
    end(tree)
    keeper.wait(20)
    taker.end()
    images = lab.directory / "promote-images"
    images.mkdir()
    dice = random.Random(seed := random.randrange(1 << 32))
    for _ in range(times(6, 100)):
        promotion = Daemon(lab, "promotion", BRIDGE, "promote", "one", "--store", _store(lab), "-D", images)
        polls = dice.randrange(1, 300)
        until(lambda left=iter(range(polls)): next(left, None) is None, "the dice")
        promotion.kill()
        said = tree.text().count("\n")
        (tree.directory / "look").touch()
        until(lambda: tree.text().count("\n") > said or not machine.marked(lab.marker), f"it to run or not (seed {seed})")
        expect("torn" not in tree.text(), f"{tree.text().splitlines()[-1]} (seed {seed})")
        if tree.text().count("\n") > said:
            _is_one(lab, tree)
        end(tree)
        until(lambda: not machine.marked(lab.marker), f"every process to be gone (seed {seed})")
    pid = _promote(lab)
    _expect_whole(tree)
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: not list(images.iterdir()), "the images to be gone")


def _is_announced(lab) -> bool:
    with open(_store(lab) / "one" / "lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def parted(lab) -> None:
    """Two machines that lose each other without a word: for a while the original might answer, then it is up to the user."""
    need_criu(sockets=True)
    network = Network(lab, apart=True)
    key = lab.key()
    tree = Tree(lab, "waves", [*network.inside("left"), compile_c("waves", lab.directory), "1"])
    taker = _taker(lab, "--key-file", key, "--bind", OTHER_ADDRESS, wrapper=network.inside("right"))
    keeper = Keeper(lab, tree, taker.port, "--key-file", key, every="2s", host=OTHER_ADDRESS,
                    wrapper=network.inside("left"))
    taker.event("stored", 2)
    until(lambda: _is_announced(lab), "the next epoch to be announced")
    network.part()
    _promote(lab, wrapper=network.inside("right"), fails="its original answers")
    taker.event("missed")
    pid = _promote(lab, wrapper=network.inside("right"))
    network.rejoin()
    keeper.fails("this shadow was promoted")
    os.kill(int(pid), signal.SIGKILL)
    _expect_whole(tree)
    end(tree)
    taker.end()


def comes_back(lab) -> None:
    """A receiver that was killed has its shadows when it is there again."""
    need_criu()
    tree, taker = _waves(lab, 4), _taker(lab)
    link = Link(taker.port, comes_back=True)
    lab.links.append(link)
    keeper = Keeper(lab, tree, link.port)
    taker.event("stored", 2)
    taker.kill()
    _expect_whole(tree)
    until(lambda: "trying again" in keeper.said(), "the shadow to notice", alive=[keeper])
    again = _taker(lab, name="again")
    link.destination = again.port
    stored = again.event("stored")
    expect(stored["by_reference"] > 0 and stored["epoch"] > 2, f"it begins anew: {stored}")
    until(lambda: "connected again" in keeper.said(), "the shadow to say so", alive=[keeper])
    end(tree)
    again.end()


def full_disk(lab) -> None:
    need_criu()
    machine.need_command("nsenter", "unshare")
    tree, store = _waves(lab, 16), _store(lab)
    store.mkdir()
    wrapper = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=24m none {store} && exec "$@"', "sh")
    taker = _taker(lab, wrapper=wrapper)
    keeper = Keeper(lab, tree, taker.port)
    taker.event("stored")
    expect("No space left on device" in taker.event("missed")["reason"], f"it says {taker.events('missed')}")
    until(lambda: "no epoch: " in keeper.said() and "the tree goes on" in keeper.said(), "the shadow to say so")
    _expect_whole(tree)
    inside = ["nsenter", f"--mount=/proc/{taker.process.pid}/ns/mnt"]
    subprocess.run([*inside, "mount", "-o", "remount,size=256m", store], check=True)
    stored = taker.event("stored", 2)
    expect(stored["epoch"] == 2, f"it is {stored}")
    end(tree)
    keeper.wait(20)
    pid = _promote(lab, wrapper=inside)
    _expect_whole(tree)
    os.kill(int(pid), signal.SIGKILL)
    taker.end()


def names(lab) -> None:
    need_criu()
    tree, other, taker = _counting(lab), _counting(lab, "other"), _taker(lab)
    keeper = Keeper(lab, tree, taker.port, every="30s")
    taker.event("stored")
    Keeper(lab, tree, taker.port).fails("somebody else keeps up a shadow 'one'")
    keeper.kill()
    Keeper(lab, other, taker.port).fails("there is a shadow 'one' of process")
    again = Keeper(lab, tree, taker.port)
    expect(taker.event("stored", 2)["epoch"] == 2, "the same tree has no shadow of its own any more")
    tree.expect_counting()
    other.expect_counting()
    for each in (tree, other):
        end(each)
    again.wait(20)
    taker.end()


def sealed(lab) -> None:
    need_criu()
    key = lab.key()
    tree, taker = _counting(lab), _taker(lab, "--key-file", key)
    Keeper(lab, tree, taker.port).fails("the receiver at ")
    keeper = Keeper(lab, tree, taker.port, "--key-file", key)
    taker.event("stored", 2)
    tree.expect_counting()
    end(tree)
    keeper.wait(20)
    _promote(lab)
    tree.wait_number(len(tree.numbers()) + 5)
    end(tree)
    taker.end()


def refuses(lab) -> None:
    need_criu()
    tree, taker = _counting(lab), _taker(lab)
    Keeper(lab, tree, taker.port, "--tcp-established").fails("a shadow's connections are closed")
    Keeper(lab, tree, taker.port, "--link-remap").fails("the name that criu makes is gone")
    Keeper(lab, tree, 1).fails("connecting to 127.0.0.1:1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(str(lab.directory / "outside"))
        cut = Tree(lab, "socket", [sys.executable, str(machine.PROGRAMS / "consents.py"), "socket"])
        cut.wait_number(20)
        Keeper(lab, cut, taker.port, name="cut").fails("criu cannot dump this process: ")
        cut.expect_counting()
        end(cut)
    _promote(lab, name="cut", fails="it has no complete epoch")
    _promote(lab, name="nobody", fails="there is no shadow 'nobody'")
    tree.expect_counting()
    end(tree)
    taker.end()


def _checks() -> list:
    return [
        Check("a shadow of a tree with threads, pipe and socket goes on where it was, once the original is gone", goes_on),
        Check("promote ends as the tree does", reports_the_end),
        Check("a shadow of redis under steady writes, every second: each epoch is a consistent data set of its time",
              redis_stands_by),
        Check("an epoch costs at most a tenth of a whole one where a twentieth of the memory has changed",
              costs_what_changes),
        Check("an epoch that is torn is never promoted, whoever is killed, and the original goes on", torn_epochs),
        Check("a tree goes on, whenever its shadow is killed", killed_at_any_time),
        Check("a shadow that cannot be restored leaves nothing behind, and is kept", fails_to_start),
        Check("a promotion that is killed leaves a whole tree or none", killed_promotions),
        Check("a shadow whose original is gone without a word is promoted after a while, and the original is told", parted),
        Check("a shadow is kept up again when its receiver is there again", comes_back),
        Check("a full disk costs an epoch, not the tree nor the shadow", full_disk),
        Check("with --force there are two copies, and the original's shadow is told", forced),
        Check("a shadow's name is that of one tree", names),
        Check("with a key a shadow is kept up sealed, and one without it is refused", sealed),
        Check("what cannot stand by is refused by name, and goes on", refuses),
    ]


CHECKS = _checks
