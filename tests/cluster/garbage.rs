//! What strangers send: the peer port and the client port drop it with a line, memory stays, commits go on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use plimsoll::local::Cluster;
use plimsoll::node::config::LinkKind;
use plimsoll::types::{ClusterId, LaneId, NodeId, StoreId};
use plimsoll::wire::hello::{Greeting, Hello};

use crate::ledger::Ledger;
use crate::{calm, cluster, small, turn};

/// Whether the other end has closed: the read ends, in whatever way, without a timeout.
fn is_dropped(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
            }
        }
    }
}

fn hello(cluster: ClusterId, node: Option<NodeId>) -> Vec<u8> {
    let store = StoreId(if node.is_some() { 77 } else { 0 });
    let to = node.map(|_| NodeId(2));
    let hello = Hello { cluster, node, store, to, lane: LaneId(0), lanes: 1 };
    Greeting::Hello(hello).encode().to_vec()
}

/// What a stranger may send, and a word of the line that must be in the log.
fn offences(cluster: ClusterId) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = hello(cluster, None);
    let mut long = good.clone();
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flipped = good.clone();
    flipped[40] ^= 4;
    vec![
        (
            "garbage",
            (0..3000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
            "not a frame",
        ),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7200\r\n\r\n".to_vec(), "not a frame"),
        ("a length of 4 GiB", long, "out of bounds"),
        ("a flipped bit", flipped, "checksum"),
        ("a peer of a wrong cluster", hello(ClusterId(cluster.0 ^ 1), Some(NodeId(1))), "cluster"),
        ("a client of a wrong cluster", hello(ClusterId(cluster.0 ^ 1), None), "cluster"),
    ]
}

fn resident_kib(cluster: &Cluster, id: NodeId) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(id).unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Where a node takes connections: its peers may reach it by datagrams alone.
fn streams(cluster: &Cluster, node: NodeId) -> Vec<SocketAddr> {
    let config = cluster.config(node);
    let me = config.me().unwrap();
    let over_tcp = config.links.iter().any(|kind| matches!(kind, LinkKind::Tcp | LinkKind::Rdma));
    [over_tcp.then_some(me.peer), Some(me.client)].into_iter().flatten().collect()
}

/// Sends what is not understood to where a node takes datagrams. It answers to none of it.
fn pelt(cluster: &Cluster, node: NodeId, offences: &[(&'static str, Vec<u8>, &'static str)]) {
    let config = cluster.config(node);
    if !config.links.contains(&LinkKind::Udp) {
        return;
    }
    let address = config.me().unwrap().peer;
    let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).unwrap();
    for (_, bytes, _) in offences {
        // Whole, torn, and in front of what looks like more of it.
        for len in [bytes.len(), bytes.len() / 2, 1] {
            socket.send_to(&bytes[..len], address).unwrap();
        }
    }
}

fn offend(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    // The node may drop us before all is written.
    let _ = socket.write_all(bytes);
    socket
}

#[test]
fn strangers_are_dropped_with_a_line_and_commits_go_on() {
    let _turn = turn();
    let mut cluster = cluster("garbage", &calm());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let streams = streams(&cluster, leader);
    let id = cluster.config(leader).cluster_id();
    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load_for(8, Duration::from_secs(1));
    let before_kib = resident_kib(&cluster, leader);
    let mut dropped = 0;
    for round in 0..20 {
        pelt(&cluster, leader, &offences(id));
        for &address in &streams {
            for (what, bytes, _) in offences(id) {
                let mut socket = offend(address, &bytes);
                assert!(is_dropped(&mut socket), "round {round}: {what} to {address} was not dropped");
                dropped += 1;
            }
            // Half a frame, and then nothing: it is given time, and then dropped.
            let half = offend(address, &hello(id, None)[..40]);
            let acknowledged = ledger.acknowledged.len();
            ledger.load(8, |ledger| ledger.acknowledged.len() >= acknowledged + 20);
            drop(half);
        }
    }
    assert_eq!(dropped, 20 * streams.len() * 6);
    let grown_kib = resident_kib(&cluster, leader).saturating_sub(before_kib);
    assert!(grown_kib < 16 << 10, "memory grew by {grown_kib} KiB");
    ledger.settle();
    assert!(ledger.unknown.is_empty() && ledger.refused.is_empty(), "nobody else was disturbed");
    let log = cluster.log(leader);
    for (what, _, word) in offences(id) {
        assert!(log.contains(word), "no line says {word:?} for {what}:\n{}", cluster.last_words(leader));
    }
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

#[test]
fn half_a_frame_is_dropped_in_time() {
    let _turn = turn();
    let mut cluster = cluster("half", &small());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let id = cluster.config(leader).cluster_id();
    for address in streams(&cluster, leader) {
        let mut socket = offend(address, &hello(id, None)[..40]);
        let since = Instant::now();
        assert!(is_dropped(&mut socket), "half a hello to {address} was kept");
        assert!(since.elapsed() < Duration::from_secs(4), "dropped only after {:?}", since.elapsed());
    }
}
