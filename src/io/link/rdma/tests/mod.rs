//! On a real device, for which Soft-RoCE will do. Without one each test says so and is over;
//! `PLIMSOLL_RDMA=required` makes that a failure. `PLIMSOLL_RDMA_DEVICES=one,other` puts the two ends on two devices.

#![allow(clippy::unwrap_used)]

mod faults;
mod flow;
mod link;
mod processes;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::verbs::Device;
use super::*;
use crate::io::datagram::{Arrival, Carrier};
use crate::io::link::tcp::{Identity, LinkOptions, TcpLink};
use crate::io::pool::Pool;
use crate::io::reactor::{Kind, Reactor};
use crate::io::{Link, Park};
use crate::types::{ClusterId, StoreId, Time};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this machine has what these tests need; one line if not.
fn has_device(test: &str) -> bool {
    match Device::open(device(1).as_deref()) {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var("PLIMSOLL_RDMA").is_err(), "no RDMA device: {error}");
            eprintln!("{test} not run: {error}");
            false
        }
    }
}

/// The device of a node.
fn device(node: u32) -> Option<String> {
    let names = std::env::var("PLIMSOLL_RDMA_DEVICES").ok()?;
    names.split(',').nth(node as usize - 1).map(str::to_owned)
}

/// A carrier and the TCP link beside it, and what was told.
struct Node {
    // Before the reactor, which it is registered at.
    carrier: RdmaCarrier,
    side: TcpLink,
    reactor: Reactor,
    pool: Pool,
    start: Instant,
    got: Vec<Vec<u8>>,
    /// Reachable or not, in the order in which it was told.
    changes: Vec<bool>,
    /// How often it was told that the other end's process may have ended.
    left: usize,
    notices: Vec<Notice>,
}

impl Node {
    fn new(node: u32, listener: TcpListener, peer: SocketAddr, change: impl FnOnce(&mut Options)) -> Node {
        let reactor = Reactor::new(Kind::Uring)
            .unwrap_or_else(|_| Reactor::new(Kind::Epoll).expect("epoll is everywhere"));
        let pool = Pool::new(4);
        let other = NodeId(3 - node);
        let identity = identity(node);
        let side = LinkOptions { identity, listener, peers: vec![(other, peer)], stores: Vec::new() };
        let side = TcpLink::new(side, reactor.clone()).unwrap();
        let seed = u64::from(std::process::id()) << 8 | u64::from(node);
        let mut options = Options::new(NodeId(node), LaneId(0), vec![other], seed);
        options.device = device(node);
        change(&mut options);
        let carrier = RdmaCarrier::new(options, &pool, reactor.clone()).unwrap();
        let start = Instant::now();
        let (got, changes, notices) = Default::default();
        Node { carrier, side, reactor, pool, start, got, changes, left: 0, notices }
    }

    fn now(&self) -> Time {
        Time(1).after(self.start.elapsed())
    }

    fn peer(&self) -> NodeId {
        self.carrier.options.peers[0]
    }

    /// One turn; how much it found.
    fn turn(&mut self) -> usize {
        let now = self.now();
        self.reactor.poll();
        let mut work = self.side.poll(now, &mut |_| {});
        self.carrier.exchange(now, &mut self.side);
        let Node { carrier, got, changes, left, notices, .. } = self;
        work += carrier.poll(now, &mut |arrival| match arrival {
            Arrival::Datagram { bytes, .. } => got.push(bytes.to_vec()),
            Arrival::Reachable(_) => changes.push(true),
            Arrival::Broken(_) => changes.push(false),
            Arrival::Unreachable(_) => {
                *left += 1;
                changes.push(false);
            }
            Arrival::TooLong(peer) => panic!("queue pairs carry what they take: {peer}"),
        });
        carrier.flush();
        while let Some(notice) = carrier.notice() {
            eprintln!("node {}: {notice}", carrier.options.node);
            notices.push(notice);
        }
        work
    }

    fn is_up(&self) -> bool {
        self.carrier.is_up(self.peer())
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        let peer = self.peer();
        let taken = self.carrier.send(peer, parts).is_ok();
        self.carrier.flush();
        taken
    }

    fn told(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|notice| wanted(notice)).count()
    }

    /// Blocks until there is something to do, as a lane does.
    fn park(&mut self) {
        let wake = self.side.next_wake().min(self.carrier.next_wake());
        let timeout = wake.since(self.now());
        if !timeout.is_zero() {
            self.reactor.park(timeout);
        }
    }
}

fn identity(node: u32) -> Identity {
    Identity {
        cluster: ClusterId(7),
        node: NodeId(node),
        store: StoreId(u64::from(node)),
        lane: LaneId(0),
        lanes: 1,
        shards: 1,
    }
}

/// Two nodes that know each other's addresses and have not met.
fn pair(change: impl Fn(&mut Options)) -> [Node; 2] {
    let listeners = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    let [one, two] = listeners;
    [Node::new(1, one, addresses[1], &change), Node::new(2, two, addresses[0], &change)]
}

/// Turns until `done`.
fn pump(nodes: &mut [Node], mut done: impl FnMut(&mut [Node]) -> bool) {
    let start = Instant::now();
    while !done(nodes) {
        for node in nodes.iter_mut() {
            node.turn();
        }
        let counters = || nodes.iter().map(|node| *node.carrier.counters()).collect::<Vec<_>>();
        assert!(start.elapsed() < PATIENCE, "nothing came of it: {:?}", counters());
        std::thread::yield_now();
    }
}

fn connected(change: impl Fn(&mut Options)) -> [Node; 2] {
    let mut nodes = pair(change);
    pump(&mut nodes, |nodes| nodes.iter().all(Node::is_up));
    nodes
}

/// Bytes that tell their number and length.
fn pattern(number: usize, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|at| (at * 31 + number * 7 + len_bytes) as u8).collect()
}
