"""Allocates, hashes and sorts for a while; the same lines in every run. `work.py THREADS`."""

import hashlib
import json
import sys
import threading

ROUNDS = 1200  # shared out among the threads


def work(name: int, results: dict) -> None:
    state = hashlib.sha256(str(name).encode())
    table = {}
    for number in range(ROUNDS // THREADS):
        for key in range(600):
            table[f"{key * 7919 % 5000}"] = [number, key, {"nested": (number * key) % 97}]
        text = json.dumps(dict(sorted(table.items())))
        state.update(text.encode())
        if number % 50 == 0:
            # One write a line: threads must not share one out between them.
            sys.stdout.write(f"thread {name} round {number} {state.hexdigest()[:16]}\n" if THREADS == 1 else "a round\n")
            sys.stdout.flush()
    results[name] = state.hexdigest()


THREADS = int(sys.argv[1])
found = {}
threads = [threading.Thread(target=work, args=(number, found)) for number in range(THREADS)]
if THREADS == 1:
    work(0, found)
else:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
for number in range(THREADS):
    print(number, found[number])
