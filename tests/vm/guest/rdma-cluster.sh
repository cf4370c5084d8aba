# Whole clusters over RDMA: three nodes on one device, killed, paused and sent garbage; nothing acknowledged is lost.
# bound_s: 420
set -e
. /guest/rxe
export PLIMSOLL_LINK=rdma
plimsoll demo --seconds 2 --json >demo.json
cat demo.json
for told in '"lost":0' '"duplicated":0' '"reordered":0' '"replicas_identical":true' '"kills":1'; do
    grep -q "$told" demo.json || { echo "not told: $told"; exit 1; }
done
/tests/cluster --test-threads 1 >told 2>&1 || { cat told; exit 1; }
grep '^test ' told
[ "$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' told)" -ge 20 ]
