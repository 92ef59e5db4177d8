"""receiver --root DIR: a process sees nothing of the machine's files but DIR, and no name from the wire leads out of it."""

import os
import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.failures import Witness, try_and_stay


def _root(lab) -> Path:
    """What the counter needs: itself, the null device, and the place that it runs in."""
    root = lab.directory / "root"
    for place in ("proc", "dev", "tmp", *(str(path)[1:] for path in (machine.BIN, lab.directory / "counter-0"))):
        (root / place).mkdir(parents=True, exist_ok=True)
    os.mknod(root / "dev" / "null", 0o20666, os.makedev(1, 3))
    shutil.copy2(machine.BIN / "target", root / str(machine.BIN)[1:])
    (root / "only-here").write_text("inside\n")
    return root


def _inside(root: Path, path: Path) -> Path:
    return root / str(path)[1:]


def _start(lab, held: Path):
    held.write_text("held\n")
    program = lab.target("counter", "--interval-ms", "2", stdin=open(held, "rb"))
    program.wait_lines(3)
    return program


def sees_only_its_root(lab) -> None:
    """It runs in DIR, its libraries come as pages, and what it holds open is made there; it moves on from there."""
    root = _root(lab)
    receiver = lab.receiver(arguments=["--root", str(root), "--files", "ship"])
    held = lab.directory / "held"
    program = _start(lab, held)
    moved = lab.move(program, receiver)
    moved.wait_complete()
    until(lambda: moved.text().count("\n") > 20, "it to go on", alive=[receiver])
    theirs = Path(f"/proc/{moved.pid}/root")
    expect(sorted(os.listdir(theirs)) == sorted(os.listdir(root)), f"its root holds {os.listdir(theirs)}")
    expect((theirs / "only-here").read_text() == "inside\n", "it has another root")
    expect(_inside(root, held).read_text() == "held\n", "the file was not made in it")
    mounts = Path(f"/proc/{moved.pid}/mounts").read_text().splitlines()
    places = {line.split()[1] for line in mounts}
    outside = {place for place in places if place != "/" and place != "/proc" and not place.startswith("/proc/")}
    expect("/" in places and not outside, f"it sees {mounts}")
    names = {machine.descriptors(moved.pid)[0], os.readlink(f"/proc/{moved.pid}/cwd")}
    expect(names == {str(held), str(program.directory)}, f"its names are {names}")


def names_stay_inside(lab) -> None:
    """What is on the machine and not in DIR is not there."""
    root = _root(lab)
    receiver = lab.receiver(arguments=["--root", str(root)])
    held = lab.directory / "held"
    program = _start(lab, held)
    program.aim(receiver.port)
    try_and_stay(Witness(program), f"{held} is not here")


def links_out_are_refused(where: str, lab) -> None:
    """A symbolic link in DIR to a place outside of it leads nowhere, and one through /proc is refused by name."""
    root = _root(lab)
    receiver = lab.receiver(arguments=["--root", str(root), "--files", "ship"])
    held, secret = lab.directory / "held", lab.directory / "secret"
    secret.write_text("outside\n")
    _inside(root, held).symlink_to(where.format(secret=secret))
    program = _start(lab, held)
    program.aim(receiver.port)
    try_and_stay(Witness(program), str(held))
    expect(secret.read_text() == "outside\n" and _inside(root, held).is_symlink(), "it was written through")
    expect(sorted(os.listdir(_inside(root, lab.directory))) == ["counter-0", "held"], "something was left behind")


def relays(lab) -> None:
    """A connection that stays is relayed by the receiver's own program, which the root has neither, nor a loader for it."""
    root = _root(lab)
    receiver = lab.receiver(arguments=["--root", str(root), "--files", "ship", "--tcp", "relay"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]
    with near, far, far.makefile() as lines:
        far.settimeout(20)
        program = lab.target("counter", "--interval-ms", "2", stdout=near.makefile("wb", 0), through_pipe=False)
        near.close()
        numbers = [int(next(lines)) for _ in range(5)]
        moved = lab.move(program, receiver)
        report = moved.wait_complete()["report"]
        expect(report["relayed_connections"] == 1, f"{report}")
        # What waited in the connection came before the move.
        while numbers[-1] < numbers[4] + 500:
            numbers.append(int(next(lines)))
        expect(numbers == list(range(numbers[0], numbers[-1] + 1)), "a line is missing or repeated")


def bad_roots(lab) -> None:
    """A place that cannot be a root is refused at once, with what to do."""
    empty = lab.directory / "empty"
    empty.mkdir()
    for place, words in ((empty, "needs an empty directory 'proc'"), (lab.directory / "none", "No such file"),
                         (machine.BIN / "receiver", "not a directory")):
        done = subprocess.run([machine.BIN / "receiver", "0", "--root", str(place)], capture_output=True, text=True,
                              timeout=20, check=False)
        expect(done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, f"{done}")


def _checks() -> list:
    return [
        Check("a process sees nothing but its root", sees_only_its_root),
        Check("names are looked up in the root only", names_stay_inside),
        Check("a link out of the root leads nowhere", partial(links_out_are_refused, "{secret}")),
        Check("a link through /proc is refused", partial(links_out_are_refused, "/proc/1/root{secret}")),
        Check("a connection is relayed from a root without a loader", relays),
        Check("what cannot be a root is refused at once", bad_roots),
    ]


CHECKS = _checks
