"""Memory of which every other page is written and that may then be of huge pages; while a move is prepared, the pages
between are written one by one. In the end says how many pages do not hold what was written there.
"""

import mmap
import os
import time

PAGE, PAGES, MADV_HUGEPAGE, A_TURN = 4096, 16 << 10, 14, 64

memory = mmap.mmap(-1, PAGE * PAGES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
noise = os.urandom(PAGE + PAGES)


def content(page: int) -> bytes:
    return noise[page:page + PAGE]


def write(page: int) -> None:
    memory[page * PAGE:(page + 1) * PAGE] = content(page)


for page in range(0, PAGES, 2):
    write(page)
memory.madvise(MADV_HUGEPAGE)
print("ready", flush=True)
while len(os.listdir("/proc/self/task")) == 1:
    time.sleep(0.01)
for page in range(1, PAGES, 2):
    write(page)
    if page % A_TURN == 1:
        time.sleep(0.01)
wrong = sum(memory[page * PAGE:(page + 1) * PAGE] != content(page) for page in range(PAGES))
print(f"{wrong} pages are wrong", flush=True)
while True:
    time.sleep(0.1)
