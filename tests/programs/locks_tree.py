"""locks_tree: counts, with a lock of each kind on a file of its own in the working directory, one of them a child's; another
child stands still by a signal."""

import fcntl
import itertools
import os
import signal
import struct
import time

F_OFD_SETLK = 37


def flock_struct(kind: int, start: int, length: int) -> bytes:
    return struct.pack("hxxxxxxqqixxxx", kind, start, length, 0)


process = open("process", "w")
fcntl.lockf(process, fcntl.LOCK_EX, 10, 5)
described = open("described", "w")
fcntl.fcntl(described, F_OFD_SETLK, flock_struct(fcntl.F_WRLCK, 0, 0))

if os.fork() == 0:
    flocked = open("flocked", "w")
    fcntl.flock(flocked, fcntl.LOCK_EX)
    open("child", "w").write(str(os.getpid()))
    while True:
        time.sleep(1)

stopped = os.fork()
if stopped == 0:
    while True:
        signal.pause()
os.kill(stopped, signal.SIGSTOP)
os.waitpid(stopped, os.WUNTRACED)

while not os.path.exists("child"):
    time.sleep(0.01)

for number in itertools.count():
    print(number, flush=True)
    time.sleep(0.01)
