"""numbered_server.py ADDRESS PORT: answers every numbered line with the same line, and says when one is out of order.

A connection whose lines begin with "slow" is read seldom and a little at a time, so that received lines wait in the
kernel. The listening socket does not share its address, and the connections have options that must stay.
"""

import select
import socket
import struct
import sys
import time

KEEP_IDLE = 77
RECEIVE_TIMEOUT = struct.pack("ll", 12, 0)
SLOW_BYTES, SLOW_EVERY = 2000, 0.02


class Connection:
    def __init__(self, channel: socket.socket):
        self.channel, self.incoming, self.outgoing, self.next, self.slow = channel, b"", b"", 1, False
        self.due = 0.0
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_IDLE)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TIMEOUT)

    def events(self) -> int:
        """What is to be waited for; a slow connection is read when its time has come."""
        reading = 0 if self.slow else select.EPOLLIN
        return reading | (select.EPOLLOUT if self.outgoing else 0)

    def turn(self) -> bool:
        """Reads and writes as far as that can be done; false at the end."""
        now = time.monotonic()
        if not self.slow or now >= self.due:
            self.due = now + SLOW_EVERY
            try:
                data = self.channel.recv(SLOW_BYTES if self.slow else 65536)
            except BlockingIOError:
                pass
            else:
                if not data:
                    return False
                self.take(data)
        try:
            while self.outgoing:
                self.outgoing = self.outgoing[self.channel.send(self.outgoing):]
        except BlockingIOError:
            pass
        return True

    def take(self, data: bytes) -> None:
        *lines, self.incoming = (self.incoming + data).split(b"\n")
        for line in lines:
            word, number = line.split()
            self.slow = word == b"slow"
            if int(number) != self.next:
                print(f"wrong: {line!r} instead of {self.next}", flush=True)
            self.next = int(number) + 1
            self.outgoing += line + b"\n"

    def has_its_options(self) -> bool:
        option = self.channel.getsockopt
        return (option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                and option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                and option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEP_IDLE
                and option(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == RECEIVE_TIMEOUT
                and option(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0)


def main() -> None:
    listener = socket.socket()
    listener.bind((sys.argv[1], int(sys.argv[2])))
    listener.listen()
    poll, connections = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    print("listening", flush=True)
    while True:
        ready = {number for number, _ in poll.poll(SLOW_EVERY)}
        if listener.fileno() in ready:
            channel, _ = listener.accept()
            connections[channel.fileno()] = Connection(channel)
            poll.register(channel, select.EPOLLIN)
        for number, connection in list(connections.items()):
            if number not in ready and not connection.slow:
                continue
            try:
                goes_on = connection.turn()
            except OSError as error:
                print(f"wrong: {error}", flush=True)
                goes_on = False
            if goes_on:
                poll.modify(number, connection.events())
            else:
                words = "all is well" if connection.has_its_options() else "its options are lost"
                print(f"closed after {connection.next - 1}: {words}", flush=True)
                poll.unregister(number)
                connections.pop(number).channel.close()


main()
