# The guest itself: the product starts, three nodes over TCP lose nothing when their leader is killed, and the devices
# that other scripts need are there.
set -e
plimsoll --version
plimsoll demo --seconds 2 --json >demo.json
cat demo.json
for told in '"lost":0' '"duplicated":0' '"reordered":0' '"replicas_identical":true' '"kills":1'; do
    grep -q "$told" demo.json || { echo "not told: $told"; exit 1; }
done
[ "$(cat /sys/module/nvme/parameters/poll_queues)" = 1 ]
dmsetup targets | grep -q flakey
dmsetup targets | grep -q log-writes
. /guest/rxe
ibv_devinfo -d rxe0 | grep -q PORT_ACTIVE
