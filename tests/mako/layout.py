"""Writes Mako's YAML for three processes with three partitions, at ports of which the control ports are free, too; with
an argument, for so many processes."""
import random
import socket
import sys

CONTROL_PORT_OFFSET = 10_000
SITES = [("s1", "localhost"), ("s2", "p1"), ("s3", "p2")][: int(sys.argv[1]) if len(sys.argv) > 1 else 3]
PARTITIONS = 3


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(taken):
    while True:
        port = random.randrange(12_000, 22_000)
        wanted = {port, port + CONTROL_PORT_OFFSET}
        if not wanted & taken and all(map(is_free, wanted)):
            taken |= wanted
            return port


taken = set()
print("site:\n  server:")
for partition in range(1, PARTITIONS + 1):
    line = [f'"{site}{partition:02}:{free_port(taken)}"' for site, _ in SITES]
    print(f"    - [{', '.join(line)}]")
print("process:")
for partition in range(1, PARTITIONS + 1):
    for site, process in SITES:
        print(f"  {site}{partition:02}: {process}")
print("host: {localhost: 127.0.0.1, p1: 127.0.0.1, p2: 127.0.0.1}")
