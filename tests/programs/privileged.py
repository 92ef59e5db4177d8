"""privileged.py WHAT: makes a socket as root, with what only root may have, goes on as nobody, and counts."""

import itertools
import os
import socket
import sys
import time

_SO_MARK, _NOBODY = 36, 65534
_PORT = 977


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


if __name__ == "__main__":
    held = _socket(sys.argv[1])
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for number in itertools.count():
        print(number, flush=True)
        time.sleep(0.002)
