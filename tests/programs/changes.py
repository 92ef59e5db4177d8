"""64 MiB of random memory. Whenever there is a file named "go" one page in twenty is changed, and the file is removed."""

import mmap
import os
import random
import time

PAGE, PAGES = 4096, 64 << 8
memory = mmap.mmap(-1, PAGE * PAGES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(PAGES):
    memory[page * PAGE:(page + 1) * PAGE] = os.urandom(PAGE)
print("ready", flush=True)
while True:
    if os.path.exists("go"):
        for page in random.sample(range(PAGES), PAGES // 20):
            memory[page * PAGE:page * PAGE + 8] = os.urandom(8)
        os.unlink("go")
        print("changed", flush=True)
    time.sleep(0.01)
