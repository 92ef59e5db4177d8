"""Files that the destination lacks, and content that is too large for a manifest."""

import contextlib
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import Failure, expect, until
from tests.suites.failures import Witness, try_and_stay

_NOBODY = 65534
# Has a file of its own directory open, appends to it, holds a large memfd and a large deleted file, and can tell whether
# all of it is what it was.
_HOLDER = r'''
import hashlib, os, signal, sys, time
size, path = int(sys.argv[1]), sys.argv[2]
def pattern(name):
    block = (hashlib.sha256(name.encode()).digest() * 4096)[:65536]
    return lambda at: block[at % 65536:] + block[:at % 65536]
def fill(fd, name):
    made = pattern(name)
    for at in range(0, size, 1 << 20):
        os.pwrite(fd, made(at // 7)[:65536], at)
    os.ftruncate(fd, size + 5)
def check(fd, name):
    made = pattern(name)
    if os.fstat(fd).st_size != size + 5:
        sys.exit(f"{name} has {os.fstat(fd).st_size} bytes")
    for at in range(0, size, 1 << 20):
        if os.pread(fd, 1 << 20, at).rstrip(b"\0") != made(at // 7)[:65536].rstrip(b"\0"):
            sys.exit(f"{name} differs at {at}")
file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
memory = os.memfd_create("large")
gone = os.open(path + ".gone", os.O_RDWR | os.O_CREAT)
os.unlink(path + ".gone")
if size:
    fill(memory, "memory")
    fill(gone, "gone")
count = 0
while True:
    os.write(file, b"%d\n" % count)
    if size and count % 50 == 0:
        check(memory, "memory")
        check(gone, "gone")
    print(count, flush=True)
    count += 1
    time.sleep(0.002)
'''


def _holder(lab, path: Path, size: int = 0):
    program = lab.program("holder", [sys.executable, "-c", _HOLDER, str(size), str(path)])
    program.wait_lines(3)
    return program


def _lines(path: Path) -> list:
    return [int(line) for line in path.read_text().splitlines()]


def _elsewhere(lab, place: Path, *options: str, prepare: str = ":"):
    """A receiver to which `place` is an empty directory of another file system."""
    machine.need_command("unshare", "mount")
    hide = f'mount -t tmpfs -o size=64m none "$0" && {prepare} && exec "$@"'
    return lab.receiver(arguments=options, wrapper=["unshare", "--mount", "sh", "-c", hide, str(place)])


def _place(lab) -> Path:
    place = lab.directory / "place"
    place.mkdir()
    return place


def _goes_on(moved, source) -> None:
    """Waits until the moved holder has counted on, with all that it holds."""
    until(lambda: moved.text().count("\n") >= 120, "120 more lines", alive=[moved.receiver])
    # A number and the end of its line may be two writes, with a move between them.
    numbers = [int(number) for number in (source.final_text() + moved.text().rpartition("\n")[0]).split()]
    expect(numbers == list(range(len(numbers))), f"it counted wrong: {numbers[:3]}…{numbers[-3:]}")


def shipped(lab) -> None:
    """A file that is not there is made there, with content, mode and times, and appended to; the old one stays."""
    place = _place(lab)
    path = place / "deep" / "down" / "file"
    path.parent.mkdir(parents=True)
    receiver = _elsewhere(lab, place, "--files", "ship")
    program = _holder(lab, path)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    _goes_on(moved, program)
    there = Path(f"/proc/{moved.pid}/root") / str(path)[1:]
    numbers = _lines(there)
    expect(numbers == list(range(len(numbers))), f"the file there holds {numbers[:3]}…{numbers[-3:]}")
    expect(there.stat().st_mode & 0o7777 == path.stat().st_mode & 0o7777, "its mode is another")
    expect(_lines(path) == numbers[:len(_lines(path))], "the file here has changed")
    expect(os.listdir(there.parent) == ["file"], f"beside it there are {os.listdir(there.parent)}")


def killed_meanwhile(lab) -> None:
    """The session is killed while a file comes: nothing of what it made is left, and the program goes on."""
    place = _place(lab)
    path = place / "deep" / "file"
    path.parent.mkdir()
    path.write_bytes(os.urandom(32 << 20))
    receiver = _elsewhere(lab, place, "--files", "ship")
    there = Path(f"/proc/{receiver.pid}/root") / str(place)[1:]
    program = _holder(lab, path)
    witness, link = Witness(program), lab.link(receiver, bytes_per_second=8 << 20)
    program.aim(link.port)
    program.trigger()
    until(lambda: list(there.glob("deep/.posthaste-*")), "the file to come", alive=[receiver])
    for session in machine.children(receiver.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(session, signal.SIGKILL)
    until(program.left, "the line that says why", 20, alive=[program])
    witness.expect_unharmed()
    with contextlib.suppress(Failure):
        until(lambda: not os.listdir(there), "nothing to be left of it")
    left = [str(path.relative_to(there)) for path in there.rglob("*")]
    expect(not left, f"left behind: {left}")


def _system_python() -> str:
    """One that everybody may run."""
    found = shutil.which("python3", path="/usr/bin:/bin")
    if found is None:
        raise machine.Missing("a python3 that everybody may run")
    return found


def reachable(lab) -> None:
    """What an ordinary user's program needs to get to its file is made for that user, whoever receives it."""
    machine.need_command("setpriv")
    place, key = _place(lab), lab.key()
    path = place / "deep" / "down" / "file"
    path.parent.mkdir(parents=True)
    receiver = _elsewhere(lab, place, "--files", "ship", "--key-file", key)
    theirs = shutil.copy(key, f"{key}-of-nobody")
    for each in (path.parent, theirs):
        os.chown(each, _NOBODY, _NOBODY)
    for each in (lab.directory, shutil.copytree(machine.BIN, lab.directory / "bin")):
        os.chmod(each, 0o755)
    variables = [f"LD_PRELOAD={lab.directory / 'bin' / 'libsender.so'}", f"POSTHASTE_KEY_FILE={theirs}"]
    command = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "env", *variables,
               _system_python(), "-c", _HOLDER, "0", str(path)]
    program = lab.program("holder", command, {"LD_PRELOAD": ""})
    program.wait_lines(3)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    _goes_on(moved, program)
    there = Path(f"/proc/{moved.pid}/root") / str(path)[1:]
    for made in (there, there.parent, there.parent.parent):
        found = made.stat()
        expect((found.st_uid, found.st_gid) == (_NOBODY, _NOBODY), f"{made} belongs to {found.st_uid}:{found.st_gid}")
        expect(made == there or found.st_mode & 0o7777 == 0o755, f"the mode of {made} is {found.st_mode:o}")


def refused_by_default(lab) -> None:
    place = _place(lab)
    receiver = _elsewhere(lab, place)
    program = _holder(lab, place / "file")
    program.aim(receiver.port)
    before = len(program.left())
    program.trigger()
    until(lambda: len(program.left()) > before, "the refusal", alive=[program])
    expect("place/file is not here" in program.left()[-1], program.left()[-1])


def never_overwritten(lab) -> None:
    """A file of that name with another content is named, stays as it is, and the program goes on."""
    place = _place(lab)
    receiver = _elsewhere(lab, place, "--files", "ship", prepare='echo precious > "$0/file"')
    program = _holder(lab, place / "file")
    program.aim(receiver.port)
    for _ in range(3):
        try_and_stay(Witness(program), "place/file.*another file has this name")
    theirs = Path(f"/proc/{receiver.pid}/root") / str(place / "file")[1:]
    expect(theirs.read_text() == "precious\n", "it was overwritten")
    numbers = _lines(place / "file")
    expect(numbers == list(range(len(numbers))), "the program's own file has changed")


def no_room(lab) -> None:
    """A full file system at the destination is told before anything stops, and nothing is left there."""
    place = _place(lab)
    receiver = _elsewhere(lab, place, "--files", "ship", prepare='dd if=/dev/zero of="$0/x" bs=1M count=64 2>/dev/null; true')
    (place / "file").write_bytes(b"0\n" * 4)
    os.truncate(place / "file", 8 << 20)
    program = _reader(lab, place / "file")
    program.aim(receiver.port)
    try_and_stay(Witness(program), "place/file.*there is room for")
    theirs = Path(f"/proc/{receiver.pid}/root") / str(place)[1:]
    expect(os.listdir(theirs) == ["x"], f"left behind: {os.listdir(theirs)}")


def _reader(lab, path: Path):
    program = lab.target("counter", "--interval-ms", "2", stdin=open(path, "rb"))
    program.wait_lines(2)
    return program


def called_off(lab) -> None:
    """The source dies in the middle of the content: what had been made there is gone again."""
    place = _place(lab)
    (place / "file").write_bytes(b"")
    with open(place / "file", "r+b") as file:
        file.write(os.urandom(24 << 20))
    receiver = _elsewhere(lab, place, "--files", "ship")
    link = lab.link(receiver, cut_after=12 << 20)
    program = _reader(lab, place / "file")
    program.aim(link.port)
    try_and_stay(Witness(program))
    theirs = Path(f"/proc/{receiver.pid}/root") / str(place)[1:]
    until(lambda: os.listdir(theirs) == [], "what was made to be gone", 10)


def large(size: int, lab) -> None:
    """A memfd and a deleted file of any size move with their content, twice."""
    place = _place(lab)
    first, second = lab.receiver(), lab.receiver()
    program = _holder(lab, place / "file", size)
    process = program
    for receiver in (first, second):
        moved = lab.move(process, receiver)
        moved.wait_complete()
        until(lambda moved=moved: moved.text().count("\n") >= 120, "120 more lines", alive=[receiver])
        process = moved


def _checks() -> list:
    return [
        Check("a file that the destination lacks comes along with --files ship", shipped),
        Check("an ordinary user's program can get to its file there", reachable),
        Check("without it the program is refused by name", refused_by_default),
        Check("a file that is there and differs is refused by name and never overwritten", never_overwritten),
        Check("a full disk at the destination is told before anything stops", no_room),
        Check("what was made for a process that does not come is gone again", called_off),
        Check("what was made by a session that is killed is gone again", killed_meanwhile),
        Check("a memfd and a deleted file of 200 MiB move with their content", partial(large, 200 << 20)),
    ]


CHECKS = _checks
