"""numbered_client.py ADDRESS PORT: sends numbered lines over three connections until its input ends, and expects each back.

One is read as fast as it comes; one is slow at the server's end; one is slow at this end, so that answers wait there.
"""

import selectors
import socket
import sys
import time

WORDS = ("fast", "slow", "deaf")
DEAF_BYTES, DEAF_EVERY = 3000, 0.02
TELL_EVERY = 0.05
MOST_UNANSWERED = 20_000


class Connection:
    def __init__(self, word: str, address: tuple):
        self.word, self.channel = word, socket.create_connection(address)
        self.channel.setblocking(False)
        self.incoming, self.outgoing, self.sent, self.answered, self.due = b"", b"", 0, 0, 0.0

    def send(self) -> None:
        while not self.outgoing and self.sent - self.answered < MOST_UNANSWERED:
            lines = [f"{self.word} {self.sent + index}\n" for index in range(1, 101)]
            self.sent += len(lines)
            self.outgoing = "".join(lines).encode()
            self.flush()

    def flush(self) -> None:
        try:
            while self.outgoing:
                self.outgoing = self.outgoing[self.channel.send(self.outgoing):]
        except BlockingIOError:
            pass

    def receive(self, hurry: bool) -> None:
        is_deaf, now = self.word == "deaf" and not hurry, time.monotonic()
        if is_deaf and now < self.due:
            return
        self.due = now + DEAF_EVERY
        try:
            data = self.channel.recv(DEAF_BYTES if is_deaf else 65536)
        except BlockingIOError:
            return
        if not data:
            sys.exit(f"wrong: {self.word} is closed")
        *lines, self.incoming = (self.incoming + data).split(b"\n")
        for line in lines:
            self.answered += 1
            if line.decode() != f"{self.word} {self.answered}":
                sys.exit(f"wrong: {line!r} instead of {self.word} {self.answered}")


def main() -> None:
    address = (sys.argv[1], int(sys.argv[2]))
    connections = [Connection(word, address) for word in WORDS]
    selector, told, goes_on = selectors.DefaultSelector(), 0.0, True
    selector.register(sys.stdin, selectors.EVENT_READ)
    for connection in connections:
        selector.register(connection.channel, selectors.EVENT_READ)
    while goes_on or any(connection.answered < connection.sent for connection in connections):
        waiting = any(connection.outgoing or connection.word == "deaf" for connection in connections)
        for key, _ in selector.select(0.002 if waiting else TELL_EVERY):
            if key.fileobj is sys.stdin:
                selector.unregister(sys.stdin)
                goes_on = False
        for connection in connections:
            connection.receive(hurry=not goes_on)
            connection.flush()
            if goes_on:
                connection.send()
        if time.monotonic() > told + TELL_EVERY:
            told = time.monotonic()
            print("answered", *(connection.answered for connection in connections), flush=True)
    for connection in connections:
        connection.channel.close()
    print("every line came back", flush=True)


try:
    main()
except OSError as error:
    sys.exit(f"wrong: {error}")
