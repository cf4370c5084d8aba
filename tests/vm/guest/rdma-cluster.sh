# Whole clusters over RDMA, three nodes on one device: tests/cluster, less what rdma-kills.sh and rdma-pour.sh run.
# bound_s: 300
set -e
. /guest/rxe
export PLIMSOLL_LINK=rdma
# Three nodes share two emulated cores, where a lane stands still for longer than an election timeout of 150 ms. This makes
# the timers of clusters, and what tests demand of failover, five times as long. Nothing but the scripts rdma-* sets it.
export PLIMSOLL_EMULATED_SLOWNESS=5
# The nodes share one device, so the test that cuts a node off cuts off what RDMA is set up over, and commits must go on.
/tests/cluster --test-threads 1 --skip far_behind --skip readers_that_never_read elections:: hostile:: 2>&1 | tee told
grep -q '^test result: ok. 14 passed; 0 failed' told
