//! Links over DPDK without a NIC: shared memory between processes (memif), and kernel interfaces (af_packet) between
//! network namespaces. Built with the feature `dpdk`.
#![allow(clippy::unwrap_used)]

mod child;
mod harness;
mod namespaces;
mod over_link;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use harness::{Place, Process, memif, number};
use rustix::net::{self, AddressFamily, RecvFlags, SocketAddrUnix, SocketType};

/// Not a test: the other processes of the tests.
#[test]
#[ignore = "what the tests start as their other processes"]
fn child() {
    if let Some(order) = child::Order::read() {
        child::run(&order);
    }
}

fn socket(place: &Place) -> PathBuf {
    place.join("memif.sock").into()
}

#[test]
fn datagrams_go_and_come_back_over_shared_memory() {
    let place = Place::new();
    let socket = socket(&place);
    let mut echo = Process::start("echo", None, &memif(&socket, "server", &["be=echo"]));
    echo.expect("open 0");
    let order = ["be=asker", "peer=10.9.0.1", "rounds=20000", "bytes=1472"];
    let mut asker = Process::start("asker", None, &memif(&socket, "client", &order));
    asker.expect("reachable 10.9.0.1:7100");
    let done = asker.expect("done 0");
    assert_eq!(number(&done, "answered"), 20_000);
    asker.end();
    echo.stop();
    let counters = echo.expect("counters 0");
    assert!(number(&counters, "in") >= 20_000, "{counters}");
    assert_eq!(number(&counters, "IpChecksum") + number(&counters, "UdpChecksum"), 0, "{counters}");
    echo.end();
}

#[test]
fn a_peer_that_dies_comes_back_whichever_end_it_was() {
    let place = Place::new();
    let socket = socket(&place);
    let echo_order = memif(&socket, "server", &["be=echo"]);
    let mut echo = Process::start("echo", None, &echo_order);
    echo.expect("open 0");
    let order = memif(&socket, "client", &["be=asker", "peer=10.9.0.1", "bytes=200"]);
    let mut asker = Process::start("asker", None, &order);
    for _ in 0..3 {
        // In the middle of a flood, where a burst is as likely as not under way.
        asker.expect("answered");
        echo.kill();
        asker.expect("unreachable 10.9.0.1:7100");
        asker.assert_alive();
        echo = Process::start("echo", None, &echo_order);
        asker.expect("reachable 10.9.0.1:7100");
    }
    for _ in 0..3 {
        asker.expect("answered");
        asker.kill();
        echo.expect("unreachable 10.9.0.2:7100");
        echo.assert_alive();
        asker = Process::start("asker", None, &order);
        echo.expect("reachable 10.9.0.2:7100");
    }
    asker.expect("answered");
    asker.end();
    echo.end();
}

/// A stranger who connects and goes before he has said a word shut the gates of every port, until some time had passed:
/// one who did so ten times in a second had none of them carry anything.
#[test]
fn strangers_who_come_and_go_keep_no_frame_back() {
    let place = Place::new();
    let socket = socket(&place);
    let mut echo = Process::start("echo", None, &memif(&socket, "server", &["be=echo"]));
    echo.expect("open 0");
    let order = ["be=asker", "peer=10.9.0.1", "rounds=500000", "bytes=200"];
    let mut asker = Process::start("asker", None, &memif(&socket, "client", &order));
    const STRANGERS: u64 = 40;
    for _ in 0..STRANGERS {
        asker.expect("answered");
        come_and_go(&socket);
    }
    let done = asker.expect("done 0");
    assert_eq!(number(&done, "answered"), 500_000);
    assert!(number(&done, "stalls") < STRANGERS / 10, "{done}");
    asker.end();
    echo.end();
}

/// Connects to the driver's socket, waits until it greets, and goes. (One who does not wait for that ends the process:
/// the driver of libdpdk 22.11 closes what it could not greet, and leaves it among what its thread waits for.)
fn come_and_go(socket: &Path) {
    let stranger = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    // No file: a name that all processes of this network namespace may connect to.
    let driver = SocketAddrUnix::new_abstract_name(socket.as_os_str().as_bytes()).unwrap();
    net::connect(&stranger, &driver).unwrap();
    let mut greeting = [0; 256];
    assert!(net::recv(&stranger, &mut greeting, RecvFlags::empty()).unwrap().0 > 0);
}

#[test]
fn frames_of_all_lengths_pass_over_the_link_and_both_ends_may_restart() {
    let place = Place::new();
    let socket = socket(&place);
    let one = memif(&socket, "server", &["be=link", "node=1", "other=2", "peer=10.9.0.2"]);
    let two = memif(&socket, "client", &["be=link", "node=2", "other=1", "peer=10.9.0.1"]);
    let mut asker = Process::start("asker", None, &one);
    let mut echo = Process::start("echo", None, &two);
    asker.expect("up");
    let answered = asker.expect("answered 100");
    assert!(number(&answered, "bytes") > 10 << 20, "{answered}");
    echo.kill();
    asker.expect("down");
    echo = Process::start("echo", None, &two);
    asker.expect("up");
    asker.expect("answered");
    asker.kill();
    echo.expect("down");
    asker = Process::start("asker", None, &one);
    echo.expect("up");
    asker.expect("answered 100");
    asker.stop();
    let done = asker.expect("done");
    assert!(number(&done, "answered") >= 100, "{done}");
    asker.end();
    echo.end();
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let place = Place::new();
    let socket = socket(&place);
    let good = memif(&socket, "server", &["be=echo"]);
    let with = |from: &str, to: &str| {
        let order = good.iter().map(|line| line.replace(from, to)).collect::<Vec<_>>();
        assert_ne!(order, good);
        let mut process = Process::start("wrong", None, &order);
        let error = process.expect("error ");
        process.end();
        error
    };
    let error = with("port=net_memif0", "port=net_memif7");
    assert!(error.contains("DPDK has no port net_memif7; it has 0 (net_memif0)"), "{error}");
    let error = with("vdev=net_memif0", "vdev=net_nothing0");
    assert!(
        error.contains("DPDK does not start") && error.contains("failed to parse device \"net_nothing0\""),
        "{error}"
    );
    let error = with("10.9.0.1,24", "10.9.0.1,0");
    assert!(error.contains("10.9.0.1/0 is no host's address in a network"), "{error}");
    let error = with("--no-huge", "--no-huge\neal=-m\neal=2");
    assert!(error.contains("cannot be reserved") || error.contains("does not start"), "{error}");
    let error = with("role=server", "role=captain");
    assert!(error.contains("DPDK") && error.contains("captain"), "{error}");
    let error = with("--no-pci", "--no-such-argument");
    assert!(error.contains("DPDK does not start with") && error.contains("--no-such-argument"), "{error}");
    let two = format!("{}\nport=net_memif1,10.9.0.9,28", good[3]);
    let error = with(&good[3], &two);
    assert!(error.contains("networks that overlap"), "{error}");
}

#[test]
fn every_lane_has_its_own_queue_of_shared_memory() {
    let place = Place::new();
    let socket = socket(&place);
    let mut echo = Process::start("echo", None, &memif(&socket, "server", &["be=echo", "lanes=2"]));
    let order = ["be=asker", "peer=10.9.0.1", "rounds=3000", "bytes=100", "lanes=2"];
    let mut asker = Process::start("asker", None, &memif(&socket, "client", &order));
    for _ in 0..2 {
        assert_eq!(number(&asker.expect("done"), "answered"), 3000);
    }
    asker.end();
    echo.stop();
    for _ in 0..2 {
        let counters = echo.expect("counters");
        assert!(number(&counters, "in") >= 3000, "{counters}");
        assert_eq!(number(&counters, "handed_over"), 0, "{counters}");
    }
    echo.end();
}
