"""write PORT FILE: counts up in redis, each number with a key of its own and as "last", both at once; writes into FILE
what it has been told is there, and when. check PORT: prints the last number, if everything up to it is there and nothing behind it, and how many keys there are."""

import socket
import sys
import time


def value(number: int) -> str:
    return f"value-{number * 7919 % 100003}-" + "x" * (number % 900)


def connect(port: int):
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            return connection, connection.makefile("rb")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def write(port: int, path: str) -> None:
    connection, answers = connect(port)
    with open(path, "a", buffering=1) as told:
        number = 0
        while True:
            number += 1
            key = f"SET key{number} {value(number)}"
            connection.sendall(f"MULTI\r\n{key}\r\nSET last {number}\r\nEXEC\r\n".encode())
            said = [answers.readline() for _ in range(6)]
            if said != [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n", b"+OK\r\n", b"+OK\r\n"]:
                sys.exit(f"redis says {said}")
            told.write(f"{number} {time.time()}\n")
            time.sleep(0.002)


def check(port: int) -> None:
    connection, answers = connect(port)

    def get(key: str) -> str:
        if answers.readline() == b"$-1\r\n":
            sys.exit(f"{key} is not there")
        return answers.readline().decode().rstrip("\r\n")

    connection.sendall(b"DBSIZE\r\nGET last\r\n")
    keys = int(answers.readline()[1:])
    last = int(get("last"))
    for number in range(1, last + 1):
        connection.sendall(f"GET key{number}\r\n".encode())
        got = get(f"key{number}")
        if got != value(number):
            sys.exit(f"key{number} is {got}")
    connection.sendall(f"GET key{last + 1}\r\n".encode())
    if answers.readline() != b"$-1\r\n":
        sys.exit(f"there is something behind {last}")
    print(last, keys)


if sys.argv[1] == "write":
    write(int(sys.argv[2]), sys.argv[3])
else:
    check(int(sys.argv[2]))
