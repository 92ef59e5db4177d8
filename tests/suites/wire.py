"""Over a slow link memory that can be told in fewer bytes is, and every byte of it arrives."""

import sys
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.criu import Tree, need_criu
from tests.harness.results import Check
from tests.harness.trees import Taker, end, send
from tests.harness.waiting import expect, until

_SLOW = 5 << 20  # bytes a second
_MIB = 24


def _moved(lab, run: int, arguments: tuple = (), sealed: bool = False):
    """Moves the program over a link and has it look at its memory; returns how many bytes of pages came as how many."""
    key = lab.key() if sealed else ""
    receiver = lab.receiver(arguments=(*arguments, *(("--key-file", key) if sealed else ())))
    link = lab.link(receiver, bytes_per_second=_SLOW)
    settings = {"POSTHASTE_KEY_FILE": key} if sealed else {}
    command = [sys.executable, str(machine.PROGRAMS / "half_text.py"), str(_MIB), str(run)]
    program = lab.program("half-text", command, settings=settings)
    program.wait_lines(1)
    moved = lab.move_through(program, receiver, link)
    report = moved.wait_complete()["report"]
    Path(program.directory, "look").touch()
    until(lambda: "wrong" in moved.text(), "it to look at its memory", 60, alive=[receiver, moved])
    expect("0 pages are wrong" in moved.text().splitlines(), f"it says {moved.text()}")
    return (report["pages"]["ahead"] + report["pages"]["data"]) * 4096, report["ram"]["transferred"]


def fewer_bytes(run: int, arguments: tuple, sealed: bool, lab) -> None:
    plain, came = _moved(lab, run, arguments, sealed)
    expect(plain > _MIB << 20 >> 1, f"{plain} bytes of pages")
    # One of three pages with content is noise; of the words at most two thirds are left.
    expect(came < plain * 4 // 5, f"{came} bytes came for {plain}")


def as_they_are(lab) -> None:
    plain, came = _moved(lab, 2, ("--compress", "off"))
    expect(came > plain, f"{came} bytes came for {plain}")


def _tree_moved(lab, *arguments) -> tuple:
    """The same for a tree, which criu-bridge moves."""
    need_criu()
    command = [sys.executable, str(machine.PROGRAMS / "half_text.py"), str(_MIB), "16"]
    tree = Tree(lab, f"half-text{len(arguments)}", command)
    until(lambda: "\n" in tree.text(), "it to have filled its memory")
    taker = Taker(lab, *arguments, name=f"receive{len(arguments)}")
    link = lab.link(taker, bytes_per_second=_SLOW)
    send(lab, tree.pid, link.port)
    report = taker.event("complete")["report"]
    (tree.directory / "look").touch()
    until(lambda: "wrong" in tree.text(), "it to look at its memory", 60, alive=[taker])
    expect("0 pages are wrong" in tree.text().splitlines(), f"it says {tree.text()}")
    end(tree)
    taker.end()
    return report["pages"]["data"] * 4096, report["ram"]["transferred"]


def tree_in_fewer_bytes(lab) -> None:
    plain, came = _tree_moved(lab)
    expect(plain > _MIB << 20 >> 1 and came < plain * 4 // 5, f"{came} bytes came for {plain}")
    plain, came = _tree_moved(lab, "--compress", "off")
    expect(came > plain, f"{came} bytes came for {plain}")


def _checks() -> list:
    postcopy, hybrid = (), ("--mode", "hybrid")
    return [
        Check("over a slow link words, noise and zeros that take turns by the page arrive in fewer bytes, and right",
              partial(fewer_bytes, 1, postcopy, False)),
        Check("over a slow link the same by the MiB", partial(fewer_bytes, 256, postcopy, False)),
        Check("over a slow link that is encrypted the same", partial(fewer_bytes, 16, postcopy, True)),
        Check("over a slow link the same ahead of the switchover", partial(fewer_bytes, 16, hybrid, False)),
        Check("over a slow link with --compress off pages come as they are", as_they_are),
        Check("over a slow link a tree arrives in fewer bytes, and with --compress off as it is", tree_in_fewer_bytes),
    ]


CHECKS = _checks
