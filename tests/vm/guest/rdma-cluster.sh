# Whole clusters over RDMA, three nodes on one device: tests/cluster, less the kills and starts of rdma-kills.sh.
# bound_s: 300
set -e
. /guest/rxe
export PLIMSOLL_LINK=rdma
# An emulated lane that checksums some MiB stands still for longer than an election timeout of 150 ms. This makes the timers
# of clusters, and what tests demand of failover, three times as long. Nothing but these two scripts sets it.
export PLIMSOLL_EMULATED_SLOWNESS=3
# Left out: `far_behind` pours 100 MB, which costs an emulated leader its office in the middle, over TCP as well. The nodes
# share one device, so the test that cuts a node off cuts off what RDMA is set up over, and commits must go on.
/tests/cluster --test-threads 1 --skip far_behind elections:: hostile:: records:: 2>&1 | tee told
grep -q '^test result: ok. 19 passed; 0 failed' told
