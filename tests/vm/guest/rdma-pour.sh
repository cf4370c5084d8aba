# Whole clusters over RDMA, three nodes on one device: the tests of tests/cluster that pour MiBs.
# bound_s: 300
set -e
. /guest/rxe
export PLIMSOLL_LINK=rdma
# The emulated cores carry less than 10 MB/s of records, and clients have 7 MB under way: with timers five times as long a
# leader lost its office in the middle, and what was under way ended as unknown, which it may. None of these tests asks how
# long an election takes.
export PLIMSOLL_EMULATED_SLOWNESS=20
/tests/cluster --test-threads 1 far_behind readers_that_never_read records:: 2>&1 | tee told
grep -q '^test result: ok. 7 passed; 0 failed' told
