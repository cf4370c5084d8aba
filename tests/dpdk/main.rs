//! Links over DPDK without a NIC: shared memory between processes (memif), and kernel interfaces (af_packet) between
//! network namespaces. Built with the feature `dpdk`.
#![allow(clippy::unwrap_used)]

mod child;
mod harness;
mod over_link;

use std::path::PathBuf;

use harness::{Place, Process, memif, number};

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
