"""Whether every process has applied every log of every partition once, in order, with the content that was submitted."""
import sys

PARTITIONS, RECORDS, RECORD_BYTES = 3, 100, 3000


def record(partition, number):
    filler = bytes((partition * 31 + number * 7 + at) % 256 for at in range(RECORD_BYTES - 8))
    return filler + number.to_bytes(4, "little") + bytes(4)


def checksum(log):
    total = 14695981039346656037
    for byte in log:
        total = ((total ^ byte) * 1099511628211) % 2**64
    return total


expected = []
for partition in range(PARTITIONS):
    logs = [record(partition, number) for number in range(1, RECORDS + 1)] + [b""]
    expected += [(partition, slot, len(log), checksum(log)) for slot, log in enumerate(logs, 1)]

roles = set()
for path in sys.argv[1:]:
    with open(path + ".out") as file:
        lines = [line.split() for line in file]
    applied = [tuple(int(word) for word in line[:4]) for line in lines]
    roles |= {line[4] for line in lines}
    for partition in range(PARTITIONS):
        of = [log for log in applied if log[0] == partition]
        wanted = [log for log in expected if log[0] == partition]
        assert of == wanted, f"{path}: partition {partition}: {len(of)} logs applied, {len(wanted)} submitted, or others"
assert roles == {"l", "f"}, f"not both roles were seen: {roles}"
print(f"{len(sys.argv) - 1} processes applied the same {len(expected)} logs")
