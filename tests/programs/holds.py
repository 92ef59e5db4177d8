"""holds.py KIND: has something that cannot be moved, and counts. The parasite must name it and let the program go on."""

import ctypes
import itertools
import mmap
import os
import socket
import sys
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_IO_URING_SETUP, _USERFAULTFD = 425, 323


def _number(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _child():
    """A child that nobody has waited for."""
    if os.fork() == 0:
        os._exit(0)


def _system_v():
    """A segment that a process which is no child of this one has attached too."""
    identifier = _number(_LIBC.shmget(0, 4096, 0o1600))
    _LIBC.shmat.restype = ctypes.c_void_p
    address = _LIBC.shmat(identifier, None, 0)
    _LIBC.shmctl(identifier, 0, None)
    pid, child = os.getpid(), os.fork()
    if child == 0:
        if os.fork() == 0:
            while os.path.exists(f"/proc/{pid}/fd/1"):
                time.sleep(0.01)
        os._exit(0)
    os.waitpid(child, 0)
    return address


def _two_views():
    """A memfd that is mapped shared and privately, and not open any more."""
    fd = os.memfd_create("two views")
    os.truncate(fd, 8192)
    views = [mmap.mmap(fd, 8192, flags=flags) for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE)]
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and os.path.exists(f"/proc/self/fd/{number}") and "two views" in os.readlink(f"/proc/self/fd/{number}"):
            os.close(number)
    return views


KINDS = {
    "two views": _two_views,
    "io_uring": lambda: _number(_LIBC.syscall(_IO_URING_SETUP, 4, ctypes.create_string_buffer(120))),
    "userfaultfd": lambda: _number(_LIBC.syscall(_USERFAULTFD, os.O_CLOEXEC)),
    "device": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "zombie": _child,
    "System V memory": _system_v,
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
}

if __name__ == "__main__":
    held = KINDS[sys.argv[1]]()
    for number in itertools.count():
        print(number, flush=True)
        time.sleep(0.002)
