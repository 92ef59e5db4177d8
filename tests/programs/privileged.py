"""privileged.py WHAT: has as root what only root may have, goes on as nobody, and counts."""

import ctypes
import fcntl
import itertools
import os
import resource
import socket
import sys
import tempfile
import time

_SO_MARK, _NOBODY = 36, 65534
_PORT = 977
_LIBC = ctypes.CDLL(None, use_errno=True)
_MIB = 1 << 20


def _socket(what: str) -> socket.socket:
    made = socket.socket()
    if what == "port":
        made.bind(("127.0.0.1", _PORT))
        made.listen()
    elif what == "mark":
        made.setsockopt(socket.SOL_SOCKET, _SO_MARK, 7)
    elif what == "priority":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
    elif what == "transparent":
        made.setsockopt(socket.SOL_IP, 19, 1)
    return made


def _pipe() -> tuple:
    """Larger than fs.pipe-max-size."""
    with open("/proc/sys/fs/pipe-max-size", encoding="ascii") as limit:
        wanted = 2 * int(limit.read())
    ends = os.pipe()
    fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, wanted)
    return ends


def _watch() -> tuple:
    """An inotify on a file that nobody but root may read."""
    file = tempfile.NamedTemporaryFile()
    made = _LIBC.inotify_init()
    assert _LIBC.inotify_add_watch(made, file.name.encode(), 0x200) >= 0
    return file, made


def _memory(at: int, size: int) -> None:
    """Private memory, there or anywhere (`MAP_PRIVATE | MAP_ANONYMOUS`, `MAP_FIXED`), and locked if it is anywhere."""
    _LIBC.mmap.restype = ctypes.c_void_p
    _LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _LIBC.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    made = _LIBC.mmap(at, size, 3, 0x22 | (0x10 if at == 0 else 0), -1, 0) or 0
    assert made != ctypes.c_void_p(-1).value
    if at:
        assert _LIBC.mlock(made, size) == 0
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (size // 2, size // 2))


if __name__ == "__main__":
    _WHAT = sys.argv[1]
    _OTHERS = {"pipe": _pipe, "watch": _watch, "zero": lambda: _memory(0, 4096),
               "locked": lambda: _memory(1 << 40, 4 * _MIB)}
    held = _OTHERS[_WHAT]() if _WHAT in _OTHERS else _socket(_WHAT)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for number in itertools.count():
        print(number, flush=True)
        time.sleep(0.002)
