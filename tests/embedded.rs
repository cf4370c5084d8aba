//! A node that lives in its program, which holds it and does something else meanwhile: what a node of a process of its
//! own keeps must hold there too.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll::limits::FRAME_HEADER_BYTES;
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::config::LinkKind;
use plimsoll::node::{Config, Node};
use plimsoll::types::{LaneId, NodeId, StoreId};
use plimsoll::wire::datagram::{self, Body, Offer, Place};
use plimsoll::wire::frame::ROW_BYTES;
use plimsoll::wire::hello::{GREETING_BYTES, Greeting, Hello, Refusal};

/// A cluster of which no process is started: its configurations, directories and ports are held as long as it lives.
fn cluster(name: &str, nodes: u32, links: &[LinkKind]) -> Cluster {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
    let shape = Shape {
        nodes,
        segment_mib: 8,
        capacity_mib: 64,
        chunks: 4,
        links: links.to_vec(),
        ..Shape::default()
    };
    Cluster::new(Path::new(env!("CARGO_BIN_EXE_plimsoll")), &directory, &shape).unwrap()
}

/// Peers remember whose data directory they met, so that one that lost its log is refused after this node's next start.
/// The program holds the node and waits for nothing: it is killed some day, and what was not written by then is
/// forgotten.
#[test]
fn an_embedded_node_keeps_the_stores_of_its_peers_while_it_runs() {
    let cluster = cluster("embedded-stores", 2, &[LinkKind::Tcp]);
    let configs = [1, 2].map(|id| cluster.config(NodeId(id)).clone());
    let [one, two] = configs.clone().map(|config| std::thread::spawn(move || Node::start(config).unwrap()));
    let nodes = [one.join().unwrap(), two.join().unwrap()];
    let until = Instant::now() + Duration::from_secs(10);
    let kept = |config: &Config| config.data_dir.join("peers.toml").exists();
    while !configs.iter().all(kept) && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let while_running: Vec<bool> = configs.iter().map(kept).collect();
    for node in nodes {
        node.stopper().stop();
        node.wait().unwrap();
    }
    assert!(configs.iter().all(kept), "they had met: it is written when the program waits at last");
    assert_eq!(while_running, [true, true], "written while the nodes run");
}

fn hello_of_one(store: u64, config: &Config) -> Greeting {
    Greeting::Hello(Hello {
        cluster: config.cluster_id(),
        node: Some(NodeId(1)),
        store: StoreId(store),
        to: Some(NodeId(2)),
        lane: LaneId(0),
        lanes: 1,
    })
}

fn greet_over_tcp(address: SocketAddr, hello: &Greeting) -> (TcpStream, Greeting) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(&hello.encode()).unwrap();
    let mut answer = [0; FRAME_HEADER_BYTES + ROW_BYTES];
    socket.read_exact(&mut answer).unwrap();
    let answer = Greeting::decode(&answer).unwrap();
    (socket, answer)
}

fn greet_by_datagram(address: SocketAddr, hello: Greeting) -> Greeting {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let body = Body::Hello(Offer { session: 5, takes_bytes: 1472, got_bytes: 0 }, hello);
    let mut drawn = [0; datagram::MISSING_BYTES_MAX];
    let drawn_bytes = datagram::write_body(&body, &mut drawn);
    let head = datagram::seal(Place { session: 0, number: 0, limit: 200 }, &body);
    socket.send_to(&[&head[..], &drawn[..drawn_bytes]].concat(), address).unwrap();
    let mut bytes = [0; 2048];
    let count = socket.recv(&mut bytes).unwrap();
    match datagram::open(&bytes[..count]).unwrap() {
        (_, Body::Welcome(_, greeting) | Body::Refusal(greeting)) => greeting,
        (_, other) => panic!("{other:?}"),
    }
}

/// One that lost its log has forgotten what it promised, and over no link may it come back under its old name: also
/// over one on which it was never met before.
#[test]
fn a_peer_that_lost_its_log_is_refused_over_every_link_whichever_it_was_met_on() {
    assert_eq!(GREETING_BYTES, FRAME_HEADER_BYTES + ROW_BYTES);
    let cluster = cluster("embedded-links", 3, &[LinkKind::Udp, LinkKind::Tcp]);
    let config = cluster.config(NodeId(2));
    let address = config.me().unwrap().peer;
    let node = Node::start(config.clone()).unwrap();
    // The path carries no datagrams: by TCP alone they meet.
    let (first, answer) = greet_over_tcp(address, &hello_of_one(111, config));
    assert!(matches!(answer, Greeting::Welcome(_)), "{answer:?}");
    drop(first);
    // The machine was replaced, its data directory is a fresh one, and now datagrams pass.
    let (_second, answer) = greet_over_tcp(address, &hello_of_one(222, config));
    let refused = Greeting::Refusal(Refusal::Store { expected: StoreId(111), found: StoreId(222) });
    assert_eq!(answer, refused, "over TCP");
    assert_eq!(greet_by_datagram(address, hello_of_one(222, config)), refused, "over UDP");
    node.stopper().stop();
    node.wait().unwrap();
}
