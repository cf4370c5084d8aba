# RDMA between two devices with loss and delay below them: reliable connections hide it, or break and are made
# anew. And with another MTU below them. The devices lie on the two ends of a veth pair in one network namespace; rules
# make what one sends to the other's address leave by its own end instead of looping back.
# bound_s: 180
set -e
ip link add veth1 type veth peer name veth2
for n in 1 2; do
    for switch in accept_local=1 rp_filter=0 arp_ignore=1; do
        echo "${switch#*=}" >"/proc/sys/net/ipv4/conf/veth$n/${switch%=*}"
    done
done
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
ip rule add pref 100 lookup local
ip rule add pref 10 to 10.98.0.2 iif lo lookup 12
ip rule add pref 10 to 10.98.0.1 iif lo lookup 21
ip rule del pref 0
for n in 1 2; do
    ip addr add "10.98.0.$n/24" dev "veth$n"
    ip link set "veth$n" up
done
ip route add 10.98.0.2/32 dev veth1 src 10.98.0.1 table 12
ip route add 10.98.0.1/32 dev veth2 src 10.98.0.2 table 21
ping -c 2 -W 5 -I veth1 10.98.0.2 >/dev/null
for n in 1 2; do rdma link add "rxe$n" type rxe netdev "veth$n"; done
until ibv_devinfo -d rxe2 -v 2>/dev/null | grep -q 'GID\[ *1\]'; do usleep 100000; done
export PLIMSOLL_RDMA=required PLIMSOLL_RDMA_DEVICES=rxe1,rxe2
flow=io::link::rdma::tests::flow

run() {
    echo "$*"
    for n in 1 2; do tc qdisc replace dev "veth$n" root netem "$@"; done
    /tests/lib --test-threads 1 $flow >told 2>&1 || { cat told; exit 1; }
    grep '^test result' told
    [ "$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' told)" -ge 5 ]
}
faults=io::link::rdma::tests::faults
/tests/lib --ignored --exact $faults::after_another_mtu_below_a_path_comes_back >told 2>&1 || { cat told; exit 1; }
grep '^test result' told
grep -q '^test result: ok. 1 passed' told
run delay 2ms
run delay 1ms loss 1%
sent=$(tc -s qdisc show dev veth1 | sed -n 's/.*Sent [0-9]* bytes \([0-9]*\) pkt.*/\1/p')
echo "$sent packets in the last run"
[ "$sent" -ge 1000 ]
