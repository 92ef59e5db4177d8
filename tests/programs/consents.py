"""Counts, and has something that CRIU moves only if the user says so: with `link` a deleted file that has another name, whose
lines it says; with `socket` a datagram socket that is connected to "outside" beside its directory, where it says the numbers
too; with `session` nothing but a session that somebody else leads."""

import os
import socket
import sys
import time

what = sys.argv[1]
if what == "link":
    with open("name", "w") as made:
        made.writelines(f"{number}\n" for number in range(100_000))
    lines = open("name")
    os.link("name", "another-name")
    os.unlink("name")
elif what == "socket":
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.connect(os.path.join(os.path.dirname(os.getcwd()), "outside"))
number = 0
while True:
    print(lines.readline().strip() if what == "link" else number, flush=True)
    if what == "socket":
        try:
            line.send(b"%d" % number, socket.MSG_DONTWAIT)
        except BlockingIOError:  # nobody has read the last ones
            pass
    number += 1
    time.sleep(0.01)
