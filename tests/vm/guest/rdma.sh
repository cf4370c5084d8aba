# RDMA over Soft-RoCE: what the carrier does between two ends on one device, and between two processes; a device that
# disappears; a port that changes; memory that may not be locked.
set -e
. /guest/rxe
export PLIMSOLL_RDMA=required
/tests/lib --test-threads 1 io::link::rdma >told 2>&1 || { cat told; exit 1; }
grep '^test result' told
# All that there are, less the five that are run below, what wants two devices (rdma-loss.sh), and what is the other
# process of a test.
grep -q '^test result: ok. 21 passed; 0 failed; 7 ignored' told

alone() {
    "$@" >told 2>&1 && grep -q '^test result: ok. 1 passed' told || { cat told; exit 1; }
}
faults=io::link::rdma::tests::faults
alone /tests/lib --ignored --exact $faults::a_device_that_disappears_is_found_again
alone /tests/lib --ignored --exact $faults::a_port_that_goes_down_is_told_and_comes_back
alone /tests/lib --ignored --exact $faults::after_another_address_a_path_comes_back
# The limit binds who may not lock what it likes.
chmod 666 /dev/infiniband/*
ulimit -l 4096
alone setpriv --reuid 65534 --clear-groups /tests/lib --ignored --exact $faults::a_pool_that_may_not_be_locked_is_copied_from
ulimit -l 256
alone setpriv --reuid 65534 --clear-groups /tests/lib --ignored --exact $faults::memory_that_may_not_be_locked_at_all_is_told_with_advice
