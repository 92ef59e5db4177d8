"""A root directory for a program that makes namespaces of its own and moves into it, as ZDTM's runner builds it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.harness import machine

# Where the program lies in it.
_PLACE = "zdtm/static"


class OwnRoot:
    """A root directory, and apart from it a file system for its /dev, which is external to the tree."""

    def __init__(self, lab, program: Path):
        machine.need_command("mount", "umount", "ldd")
        self.root, self.dev = lab.directory / "own" / "root", lab.directory / "own-dev"
        for path in (self.root, self.dev):
            path.mkdir(parents=True)
        _run("mount", "--bind", "--make-private", self.root, self.root)
        _run("mount", "-t", "tmpfs", "own-dev", self.dev)
        self.directory = self.root / _PLACE
        for name in ("bin", "sbin", "etc", "lib", "lib64", "dev", "tmp", "usr", "proc", "run", _PLACE):
            (self.root / name).mkdir(parents=True)
            (self.root / name).chmod(0o777)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / "usr" / name).symlink_to(f"../{name}")
        self._fill_dev()
        for library in re.findall(r"(/\S+)", subprocess.run(["ldd", program], capture_output=True, text=True).stdout):
            there = self.root / library[1:]
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, there)
        shutil.copy2(program, self.directory)

    def _fill_dev(self) -> None:
        self.dev.chmod(0o777)
        for name in ("pts", "net"):
            (self.dev / name).mkdir(mode=0o755)
        for name, number in (("tty", os.makedev(5, 0)), ("null", os.makedev(1, 3))):
            os.mknod(self.dev / name, 0o20666, number)
            (self.dev / name).chmod(0o666)

    def settings(self) -> dict:
        """What the suite's library wants to know of it."""
        return {"ZDTM_NEWNS": "1", "ZDTM_ROOT": str(self.root), "ZDTM_DEV": str(self.dev)}

    def dump(self) -> list:
        """What CRIU is told of it when the tree is dumped."""
        return ["--external", "mnt[/dev]:ZDTM_DEV"]

    def restore(self) -> list:
        """The same when it is restored."""
        return ["--root", str(self.root), "--external", f"mnt[ZDTM_DEV]:{self.dev}"]

    def remove(self) -> None:
        for path in (self.root, self.dev):
            subprocess.run(["umount", "-R", path], capture_output=True, check=False)


def _run(*command) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise machine.Missing(f"mounts: {done.stderr.strip()}")
