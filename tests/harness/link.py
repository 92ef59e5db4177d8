"""A connection that goes through this test: it can be slow, and it can be cut at a given byte."""

import contextlib
import selectors
import socket
import threading
import time

from tests.harness.waiting import until

_CHUNK = 65536
_CATCHES_UP = 0.1  # seconds by which a link that was held up may be late and still come to its rate
# Frames without a body, as (from the source, its first bytes): length 0, then the kind.
READY = (False, bytes([0, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
RUN = (True, bytes([0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
RUNNING = (False, bytes([0, 0, 0, 0, 21, 0]))


class Link:
    """Listens on a free port and passes every connection on to `port`.

    `bytes_per_second` bounds what goes from the source to the receiver. After `cut_after` bytes in that direction
    every connection is closed and `when_cut` is called first; with `comes_back` new connections are taken then.
    `cut_in`, a frame and a number, does the same when so many bytes of that frame have passed. With a `listener` of its own and
    `entered`, a context for its thread, it leads from one network namespace into another.
    """

    def __init__(self, port: int, bytes_per_second: int = 0, cut_after: int = -1, when_cut=None, comes_back=False,
                 cut_in=None, listener=None, entered=contextlib.nullcontext):
        self.destination = port
        self.rate = bytes_per_second
        self.cut_after = cut_after
        self.when_cut = when_cut
        self.comes_back = comes_back
        self.cut_in = cut_in
        self.cuts = 0
        self.forwarded = 0
        self.due = 0.0
        self.selector = selectors.DefaultSelector()
        self.entered = entered
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        if self.rate:  # what waits in the kernel's buffers has left the source, but has not arrived
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)
        self.port = self.listener.getsockname()[1]
        self.waker, wake = socket.socketpair()
        self.wake = wake
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.selector.register(self.waker, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self._run, name="link", daemon=True)
        self.thread.start()

    def cut(self) -> None:
        """Closes every connection and refuses new ones."""
        self.close()

    def interrupt(self) -> None:
        """Closes every connection; new ones are taken."""
        before = self.cuts
        self.wake.send(b"i")
        until(lambda: self.cuts > before, "the link to be interrupted")

    def close(self) -> None:
        try:
            self.wake.send(b"x")
        except OSError:
            return
        self.thread.join(10)
        self.wake.close()

    def _run(self) -> None:
        try:
            with self.entered():
                while self._turn():
                    pass
        finally:
            for key in list(self.selector.get_map().values()):
                key.fileobj.close()
            self.selector.close()

    def _turn(self) -> bool:
        for key, _ in self.selector.select():
            if key.fileobj is self.waker:
                if self.waker.recv(1) == b"x":
                    return False
                self._close_connections()
                return True
            if key.fileobj is self.listener:
                self._accept()
            elif key.fileobj.fileno() >= 0 and not self._forward(key.fileobj, *key.data):
                if not self.comes_back:
                    return False
                self._close_connections()
                return True
        return True

    def _close_connections(self) -> None:
        for key in list(self.selector.get_map().values()):
            if key.data:
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
        self.cut_after = -1
        self.cuts += 1

    def _accept(self) -> None:
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.destination))
        except OSError:
            near.close()
            return
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(near, selectors.EVENT_READ, (far, True))
        self.selector.register(far, selectors.EVENT_READ, (near, False))

    def _forward(self, from_socket, to_socket, outward: bool) -> bool:
        try:
            data = from_socket.recv(_CHUNK)
            (cut_outward, frame), kept = self.cut_in or ((None, b""), 0)
            at = data.find(frame) if outward == cut_outward else -1
            if at >= 0:
                self.cut_in = None
                return self._last(to_socket, data[: at + kept])
            if outward and 0 <= self.cut_after <= self.forwarded + len(data):
                return self._last(to_socket, data[: self.cut_after - self.forwarded])
            if data:
                to_socket.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (from_socket, to_socket):
                self.selector.unregister(each)
                each.close()
            return True
        if outward:
            self.forwarded += len(data)
            if self.rate:
                self._keep_to_rate(len(data))
        return True

    def _last(self, to_socket, data: bytes) -> bool:
        """Sends what passes before the cut."""
        to_socket.sendall(data)
        if self.when_cut:
            self.when_cut()
        return False

    def _keep_to_rate(self, size: int) -> None:
        """Waits until so many bytes have had their time. On a busy machine every sleep is too long: the next is shorter."""
        now = time.monotonic()
        self.due = max(self.due, now - _CATCHES_UP) + size / self.rate
        if self.due > now:
            time.sleep(self.due - now)
