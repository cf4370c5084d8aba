"""Another host on the network of the tests: speaks with a node by the kernel's own stack, and sends it frames that no Plimsoll
sends. Arguments: interface, own address, the node's address, its UDP port. Prints "good N" when all went as it should."""

import socket
import struct
import subprocess
import sys
import time

interface, here, there, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
EACH = 5


def checksum(data, start=0):
    if len(data) % 2:
        data += b"\0"
    total = start + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(payload, source=port, options=b"", flags=0x4000, tag=b"", spoil_ip=0, spoil_udp=0):
    a, b = socket.inet_aton(here), socket.inet_aton(there)
    udp = struct.pack(">HHHH", source, port, 8 + len(payload), 0) + payload
    total = checksum(a + b + struct.pack(">HH", 17, len(udp)) + udp) or 0xFFFF
    udp = udp[:6] + struct.pack(">H", total ^ spoil_udp) + udp[8:]
    ip = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(udp), 7, flags, 64, 17, 0)
    ip += a + b + options
    ip = ip[:10] + struct.pack(">H", checksum(ip) ^ spoil_ip) + ip[12:]
    return mac(there) + own + tag + b"\x08\x00" + ip + udp


def mac(address):
    words = subprocess.run(["ip", "neigh", "show", address], capture_output=True, text=True, check=True).stdout.split()
    if "lladdr" not in words:
        return None
    return bytes.fromhex(words[words.index("lladdr") + 1].replace(":", ""))


def patiently(what, attempt):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = attempt()
        if found:
            return found
    sys.exit(f"waited in vain: {what}")


raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((interface, 0))
own = raw.getsockname()[4]
kernel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
kernel.bind((here, port))
kernel.settimeout(0.05)


def resolve():
    kernel.sendto(b"who are you", (there, port))  # the kernel asks for the node's Ethernet address first
    return mac(there)


def echo():
    raw.send(frame(b"good"))
    try:
        return kernel.recv(2048) == b"good"
    except socket.timeout:
        return False


patiently("the node answers the kernel's ARP", resolve)
for bad in [
    {"spoil_ip": 0x0100},
    {"spoil_udp": 0x0100},
    {"flags": 0x2000},
    {"flags": 0x0001},
    {"options": b"\x07\x04\x04\0"},
    {"tag": b"\x81\0\0\x07"},
]:
    for _ in range(EACH):
        raw.send(frame(b"alien", **bad))
# From many ports: which queue each comes to is the kernel's choice, and not all come to the same.
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
for flow in flows:
    flow.bind((here, 0))
    raw.send(frame(b"one of many", source=flow.getsockname()[1]))
patiently("the kernel takes what the node sends, checksums and all", echo)
print("good", EACH)
