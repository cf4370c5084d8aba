# The power is cut while a node commits on a raw device: dm-log-writes records what became durable, and in which order. At
# many points of the recording, and in the middle of writes, the log must open with all that was acknowledged until then.
# bound_s: 420
set -e
device=/dev/nvme0n1
sectors=$((48 * 2048))
part() {
    dmsetup create "$1" --table "0 $3 linear $device $2"
}
part base 0 $sectors
part replay $sectors $sectors
part recording $((2 * sectors)) $(($(blockdev --getsz $device) - 2 * sectors))
dmsetup mknodes
dmsetup create cut --table "0 $sectors log-writes /dev/mapper/base /dev/mapper/recording"
dmsetup mknodes
export PLIMSOLL_CUT_DEVICE=/dev/mapper/cut PLIMSOLL_CUT_LOG=/dev/mapper/recording PLIMSOLL_CUT_REPLAY=/dev/mapper/replay
/tests/cluster --ignored --exact power_cut::what_was_acknowledged_before_the_power_is_cut_is_there_after_it --nocapture >told 2>&1 ||
    { cat told; exit 1; }
grep 'acknowledged' told
grep -q '^test result: ok. 1 passed' told
