# A log on a raw NVMe device: the disk backends on it, polled for completions; three nodes, of which one has it and two have
# files; three nodes with a part of it each. Killed, recovered, verified.
# bound_s: 420
set -e
device=/dev/nvme0n1
[ "$(cat /sys/block/nvme0n1/queue/io_poll)" = 1 ]

# Every test of the disk over a ring that polls, beside files. Two more combinations each than without.
PLIMSOLL_POLLED_DEVICE=$device /tests/lib --test-threads 1 io::disk:: >told 2>&1 || { cat told; exit 1; }
grep '^test result' told
[ "$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' told)" -ge 40 ]

blank() {
    dd if=/dev/zero of="$1" bs=1M count=1 conv=notrunc 2>/dev/null
    dd if=/dev/zero of="$1" bs=1M count=1 seek=$(($(blockdev --getsize64 "$1") / 1048576 - 1)) conv=notrunc 2>/dev/null
}

cluster() {
    /tests/cluster --exact devices::three_nodes_on_devices_are_killed_one_by_one_and_all_at_once_and_lose_nothing \
        --nocapture >told 2>&1 && grep -q '^test result: ok. 1 passed' told || { cat told; exit 1; }
}
blank $device
PLIMSOLL_DEVICES=$device PLIMSOLL_IO_POLL=1 cluster
plimsoll log verify $device
blank $device
size=$(($(blockdev --getsz $device) / 3 / 2048 * 2048))
for part in 0 1 2; do
    dmsetup create "part$part" --table "0 $size linear $device $((part * size))"
    until [ -b "/dev/mapper/part$part" ]; do dmsetup mknodes; done
    blank "/dev/mapper/part$part"
done
PLIMSOLL_DEVICES="/dev/mapper/part0 /dev/mapper/part1 /dev/mapper/part2" cluster
for part in 0 1 2; do plimsoll log verify "/dev/mapper/part$part"; done
plimsoll doctor | grep -q 'nvme0n1.* with queues for polling'
