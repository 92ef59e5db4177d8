"""A tree of processes with threads, a pipe and a Unix socket: the parent counts, its child passes each number on to a
thread of its own, and that one prints it back through the socket. Every number is printed once, in order."""

import os
import socket
import sys
import threading
import time

numbers, pipe = os.pipe()
near, far = socket.socketpair()
if os.fork() == 0:
    os.close(pipe)
    near.close()

    def pass_on():
        with os.fdopen(numbers) as lines:
            for line in lines:
                far.sendall(line.encode())

    thread = threading.Thread(target=pass_on)
    thread.start()
    thread.join()
    sys.exit(0)
os.close(numbers)
far.close()
answers = near.makefile()
number = 0
while True:
    os.write(pipe, b"%d\n" % number)
    answer = int(answers.readline())
    if answer != number:
        print(f"wrong: {answer} instead of {number}", flush=True)
        sys.exit(1)
    print(number, flush=True)
    number += 1
    time.sleep(0.01)
