"""connected.py PORT: connects there, and says what becomes of the connection."""

import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    print("connected", flush=True)
    print(connection.recv(100).decode().strip(), flush=True)
    connection.settimeout(60)
    try:
        print("lost" if connection.recv(1) == b"" else "still there", flush=True)
    except OSError as error:
        print(f"lost: {error}", flush=True)
