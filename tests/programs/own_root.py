"""own_root ROOT PROGRAM ARGUMENTS: runs a program as the first process of a PID namespace, with ROOT as the root directory of its
mount namespace and nothing else of the machine's files; its output is /out there."""

import ctypes
import os
import sys

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_PIVOT_ROOT = 155

libc = ctypes.CDLL(None, use_errno=True)


def must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


root, program, *arguments = sys.argv[1:]
place = root.encode()
must(libc.unshare(CLONE_NEWPID), "unshare")
if os.fork():
    os.wait()
    sys.exit()
os.setsid()
must(libc.unshare(CLONE_NEWNS), "unshare")
must(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private")
must(libc.mount(place, place, None, MS_BIND, None), "bind")
os.chdir(root)
os.makedirs("old", exist_ok=True)
os.makedirs("proc", exist_ok=True)
must(libc.syscall(SYS_PIVOT_ROOT, b".", b"old"), "pivot_root")
os.chdir("/")
must(libc.mount(b"proc", b"/proc", b"proc", 0, None), "proc")
must(libc.umount2(b"/old", MNT_DETACH), "umount2")
out = os.open("/out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
for number in (0, 1, 2):
    os.dup2(out, number)
os.closerange(3, 256)
os.execv(program, [program, *arguments])
