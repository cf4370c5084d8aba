//! A node that lives in its program, which holds it and does something else meanwhile: what a node of a process of its
//! own keeps must hold there too.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plimsoll::limits::FRAME_HEADER_BYTES;
use plimsoll::node::config::{LinkKind, Member};
use plimsoll::node::{Config, Node};
use plimsoll::types::{LaneId, NodeId, StoreId};
use plimsoll::wire::datagram::{self, Body, Offer, Place};
use plimsoll::wire::frame::ROW_BYTES;
use plimsoll::wire::hello::{GREETING_BYTES, Greeting, Hello, Refusal};

/// Gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn fresh(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("plimsoll-embedded-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Members at ports that were free a moment ago.
fn members(count: u32) -> Vec<Member> {
    let held: Vec<TcpListener> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |at: u32| held[at as usize].local_addr().unwrap();
    (0..count).map(|at| Member { id: at + 1, peer: address(2 * at), client: address(2 * at + 1) }).collect()
}

fn config(directory: &Directory, members: &[Member], id: u32, links: &[LinkKind]) -> Config {
    let data_dir = directory.0.join(id.to_string());
    let mut config = Config::new("embedded", NodeId(id), data_dir, members.to_vec());
    config.links = links.to_vec();
    config.log.segment_mib = 8;
    config.log.capacity_mib = Some(64);
    config.memory.chunks = 4;
    config.cpu.shared = true;
    config
}

/// Peers remember whose data directory they met, so that one that lost its log is refused after this node's next start.
/// The program holds the node and waits for nothing: it is killed some day, and what was not written by then is
/// forgotten.
#[test]
fn an_embedded_node_keeps_the_stores_of_its_peers_while_it_runs() {
    let directory = Directory::fresh("stores");
    let members = members(2);
    let configs = [1, 2].map(|id| config(&directory, &members, id, &[LinkKind::Tcp]));
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
    let directory = Directory::fresh("links");
    let members = members(3);
    let config = config(&directory, &members, 2, &[LinkKind::Udp, LinkKind::Tcp]);
    let address = members[1].peer;
    let node = Node::start(config.clone()).unwrap();
    // The path carries no datagrams: by TCP alone they meet.
    let (first, answer) = greet_over_tcp(address, &hello_of_one(111, &config));
    assert!(matches!(answer, Greeting::Welcome(_)), "{answer:?}");
    drop(first);
    // The machine was replaced, its data directory is a fresh one, and now datagrams pass.
    let (_second, answer) = greet_over_tcp(address, &hello_of_one(222, &config));
    let refused = Greeting::Refusal(Refusal::Store { expected: StoreId(111), found: StoreId(222) });
    assert_eq!(answer, refused, "over TCP");
    assert_eq!(greet_by_datagram(address, hello_of_one(222, &config)), refused, "over UDP");
    node.stopper().stop();
    node.wait().unwrap();
}
