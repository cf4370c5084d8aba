# Whole clusters over RDMA: three nodes on one device, killed; nothing acknowledged is lost.
# bound_s: 300
set -e
. /guest/rxe
export PLIMSOLL_LINK=rdma
plimsoll demo --seconds 2 --json >demo.json
cat demo.json
for told in '"lost":0' '"duplicated":0' '"reordered":0' '"replicas_identical":true' '"kills":1'; do
    grep -q "$told" demo.json || { echo "not told: $told"; exit 1; }
done
# Those that count. Fifty kills, and elections within bounds of time, are not for an emulated machine.
/tests/cluster --test-threads 1 --skip 50_kills kills:: records:: | tee told
[ "$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' told)" -ge 5 ]
