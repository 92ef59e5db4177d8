"""Somebody in the middle of a link: reads along, keeps what passes, and may change it."""

import socket
import threading


class Relay:
    """Listens on a free port and passes every connection on to `port`.

    `change(connection, outward, offset, data)` sees every piece of data before it goes on and returns what goes on
    instead. `seen[connection]` is all that the source has sent on a connection, as it came.
    """

    def __init__(self, port: int, change=lambda connection, outward, offset, data: data):
        self.destination = port
        self.change = change
        self.seen = []
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def close(self) -> None:
        for each in [self.listener, *self.sockets]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.destination))
            except OSError:
                return
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets += [near, far]
            self.seen.append(bytearray())
            connection = len(self.seen) - 1
            for ends in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass, args=(connection, *ends), name="relay", daemon=True).start()

    def _pass(self, connection: int, from_socket, to_socket, outward: bool) -> None:
        offset = 0
        try:
            while data := from_socket.recv(65536):
                if outward:
                    self.seen[connection] += data
                to_socket.sendall(self.change(connection, outward, offset, data))
                offset += len(data)
            to_socket.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (from_socket, to_socket):
                each.close()
