"""Pages of words, of noise and of zeros that take turns. Takes how many MiB, and how many pages of one kind follow each other.
Says "ready", and once its directory holds a file "look", how many pages do not hold what was written there.
"""

import hashlib
import mmap
import os
import random
import sys
import time

PAGE = 4096
PAGES = int(sys.argv[1]) << 8
RUN = int(sys.argv[2])
WORDS = b"a process goes on where it was and the memory of it follows at once before anything else is read ".split()

dice = random.Random(RUN)
TEXT = b" ".join(dice.choices(WORDS, k=16 * PAGE))
memory = mmap.mmap(-1, PAGE * PAGES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def content(page: int) -> bytes:
    kind = page // RUN % 4
    if kind == 0:
        return bytes(PAGE)
    if kind == 3:
        return os.urandom(PAGE)
    start = dice.randrange(len(TEXT) - PAGE)
    return TEXT[start:start + PAGE]


def digest(held: bytes) -> bytes:
    return hashlib.blake2b(held, digest_size=8).digest()


digests = []
for number in range(PAGES):
    memory[number * PAGE:(number + 1) * PAGE] = content(number)
    digests.append(digest(memory[number * PAGE:(number + 1) * PAGE]))
print("ready", flush=True)
while not os.path.exists("look"):
    time.sleep(0.01)
wrong = sum(digest(memory[number * PAGE:(number + 1) * PAGE]) != digests[number] for number in range(PAGES))
print(f"{wrong} pages are wrong", flush=True)
while True:
    time.sleep(0.1)
