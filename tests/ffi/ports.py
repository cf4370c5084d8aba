"""Prints two ports of the loopback that are free, each with the one after it."""

import socket

held = []
found = []
while len(found) < 2:
    first, second = socket.socket(), socket.socket()
    held += [first, second]
    first.bind(("127.0.0.1", 0))
    port = first.getsockname()[1]
    try:
        second.bind(("127.0.0.1", port + 1))
    except (OSError, OverflowError):
        continue
    found.append(port)
print(*found)
