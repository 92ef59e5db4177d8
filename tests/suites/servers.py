"""Servers: their data moves with them, and a client finds them again at the same port."""

import contextlib
import socket

from tests.harness import machine
from tests.harness.waiting import Failure, expect, until

KEYS = 5000


class OneMachine:
    """Where a server is before and after its move, and its clients."""

    def __init__(self, lab):
        self.lab, self.start, self.receiver = lab, lab.program, lab.receiver()

    def move(self, program):
        return self.lab.move(program, self.receiver)

    @staticmethod
    def entered(_moved: bool):
        """This thread's new connections are made where the server is."""
        return contextlib.nullcontext()


class Client:
    """A connection that sends lines and reads answers, made as soon as somebody listens."""

    def __init__(self, port: int, alive, host: str = "127.0.0.1"):
        self.socket = until(lambda: _connect(port, host), f"a server at port {port}", alive=alive)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def line(self) -> str:
        line = self.stream.readline()
        if not line:
            raise Failure("the server has closed the connection")
        return line.decode().rstrip("\r\n")

    def ask(self, text: str) -> str:
        self.send(text + "\r\n")
        return self.line()

    def closed(self) -> bool:
        """Whether the other side is gone: what a client sees of a move."""
        self.socket.settimeout(10)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


def _connect(port: int, host: str = "127.0.0.1"):
    try:
        connection = socket.create_connection((host, port), timeout=10)
    except OSError:
        return None
    if connection.getsockname() == connection.getpeername():  # TCP can connect a free port to itself
        connection.close()
        return None
    return connection


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _value(number: int) -> str:
    return f"value-{number * 7919 % 100003}-" + "x" * (number % 200)


def fill_redis(client: Client) -> None:
    for number in range(KEYS):
        client.send(f"SET key{number} {_value(number)}\r\nRPUSH list {number}\r\n")
    for number in range(KEYS):
        expect(client.line() == "+OK" and client.line() == f":{number + 1}", "redis did not take a key")


def check_redis(client: Client) -> None:
    expect(client.ask("DBSIZE") == f":{KEYS + 2}", "redis has another number of keys")
    for number in range(KEYS):
        client.send(f"GET key{number}\r\n")
    for number in range(KEYS):
        length, value = client.line(), client.line()
        expect(value == _value(number) and length == f"${len(value)}", f"key{number} is {value!r}")
    expect(client.ask(f"LINDEX list {KEYS - 1}") == f"${len(str(KEYS - 1))}", "the list is shorter")
    client.line()


def redis_moves(lab, machines=None) -> None:
    machine.need_command("redis-server")
    port, machines = _free_port(), machines or OneMachine(lab)
    receiver = machines.receiver
    program = machines.start("redis", ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                       "--appendonly", "no"], through_pipe=False)
    with machines.entered(False):
        old = Client(port, [program])
    fill_redis(old)
    expect(old.ask("INCR moves") == ":1", "redis does not count")
    moved = machines.move(program)
    expect(old.closed(), "the old connection is still there")
    with machines.entered(True), Client(port, [receiver, moved]) as client:
        expect(client.ask("INCR moves") == ":2", "redis has lost count")
        check_redis(client)
        moved.wait_complete()
        check_redis(client)
        client.send("SHUTDOWN NOSAVE\r\n")
    ended = moved.wait_exited()
    expect(ended.get("exit_code") == 0, f"redis ended with {ended}")
    old.__exit__()


def memcached_moves(lab, machines=None) -> None:
    machine.need_command("memcached")
    port, machines = _free_port(), machines or OneMachine(lab)
    receiver = machines.receiver
    program = machines.start("memcached", ["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "root",
                                           "-t", "4", "-m", "64"], through_pipe=False)
    with machines.entered(False), Client(port, [program]) as client:
        for number in range(KEYS):
            value = _value(number)
            client.send(f"set key{number} 0 0 {len(value)}\r\n{value}\r\n")
            expect(client.line() == "STORED", "memcached did not take a key")
        expect(client.ask("set moves 0 0 1\r\n1") == "STORED", "memcached does not count")
    moved = machines.move(program)
    for _ in range(2):
        with machines.entered(True), Client(port, [receiver, moved]) as client:
            for number in range(KEYS):
                expect(client.ask(f"get key{number}").startswith("VALUE"), f"key{number} is gone")
                expect(client.line() == _value(number) and client.line() == "END", f"key{number} is another")
        moved.wait_complete()
    with machines.entered(True), Client(port, [receiver, moved]) as client:
        expect(client.ask("incr moves 1") == "2", "memcached has lost count")
