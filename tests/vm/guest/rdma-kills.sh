# Whole clusters over RDMA, three nodes on one device: the demo, and what rdma-cluster.sh and rdma-pour.sh leave of
# tests/cluster.
# bound_s: 420
set -e
. /guest/rxe
export PLIMSOLL_LINK=rdma
# See rdma-cluster.sh.
export PLIMSOLL_EMULATED_SLOWNESS=5
plimsoll demo --seconds 2 --json >demo.json
cat demo.json
for told in '"lost":0' '"duplicated":0' '"reordered":0' '"replicas_identical":true' '"kills":1'; do
    grep -q "$told" demo.json || { echo "not told: $told"; exit 1; }
done
# Left out is what is marked to be ignored: power_cut wants a device of its own, and is run by power-cut.sh.
/tests/cluster --test-threads 1 --skip elections:: --skip hostile:: --skip records:: 2>&1 | tee told
grep -q '^test result: ok. 23 passed; 0 failed; 1 ignored' told
