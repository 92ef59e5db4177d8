"""Has a child until its standard input ends, then counts without one."""

import itertools
import subprocess
import time

child = subprocess.Popen(["cat"], stdin=0)
print("with child", flush=True)
child.wait()
for number in itertools.count():
    print(number, flush=True)
    time.sleep(0.002)
