"""Once a move is prepared, advises one mapping after another that no child shall have it; says how many it has, and how many
the kernel says so of. With 64 MiB of numbers that no one has seen before.
"""

import ctypes
import mmap
import os
import time

MAPPINGS, BYTES, DONTFORK = 20, 1 << 16, 10

noise = os.urandom(64 << 20)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
mappings = []
for number in range(2 * MAPPINGS):  # every other one is not to be written, so that each is a mapping of its own
    protection = mmap.PROT_READ if number % 2 else mmap.PROT_READ | mmap.PROT_WRITE
    mappings.append(libc.mmap(None, ctypes.c_size_t(BYTES), protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))


def advised() -> int:
    with open("/proc/self/smaps", encoding="ascii") as smaps:
        return sum(line.startswith("VmFlags:") and " dc" in line for line in smaps)


before = advised()
print("ready", flush=True)
while len(os.listdir("/proc/self/task")) == 1:
    time.sleep(0.01)
for count, mapping in enumerate(mappings[::2], 1):
    time.sleep(0.1)
    if libc.madvise(ctypes.c_void_p(mapping), ctypes.c_size_t(BYTES), DONTFORK):
        raise OSError(ctypes.get_errno(), "madvise")
while True:
    print(f"{count} advised, {advised() - before} are so", flush=True)
    time.sleep(0.1)
