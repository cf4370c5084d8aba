#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::tests::on_every_way;
use super::*;
use crate::io::datagram::{self, DatagramLink};
use crate::io::reactor::Kind as ReactorKind;
use crate::io::{Link, LinkEvent, Park};
use crate::limits::FRAME_BYTES_MAX;
use crate::types::*;
use crate::wire::frame::{Builder, Kind, ROW_BYTES};
use crate::wire::identity::Identity;

const PATIENCE: Duration = Duration::from_secs(30);

/// A node's link, with its reactor.
struct Node {
    link: DatagramLink<UdpCarrier>,
    reactor: Reactor,
    start: Instant,
    ups: usize,
    downs: usize,
    frames: Vec<Vec<u8>>,
}

impl Node {
    fn new(way: (ReactorKind, Backend), id: u32, socket: UdpSocket, peer_at: SocketAddr, seed: u128) -> Node {
        let reactor = Reactor::new(way.0).unwrap();
        let options = Options { backend: way.1, known: vec![peer_at], ..Options::new(socket, 1, 1500) };
        let carrier = UdpCarrier::new(options, &reactor).unwrap();
        let identity = Identity {
            cluster: ClusterId(7),
            node: NodeId(id),
            store: StoreId(u64::from(id) + 100),
            lane: LaneId(0),
            lanes: 1,
            shards: 4,
        };
        let peers = vec![(NodeId(3 - id), peer_at)];
        let link = DatagramLink::new(datagram::Options::new(identity, peers, Vec::new(), seed), carrier);
        Node { link, reactor, start: Instant::now(), ups: 0, downs: 0, frames: Vec::new() }
    }

    fn turn(&mut self) -> usize {
        self.reactor.poll();
        let now = Time(1).after(self.start.elapsed());
        let Node { ups, downs, frames, .. } = self;
        let count = self.link.poll(now, &mut |event| match event {
            LinkEvent::Up(_) => *ups += 1,
            LinkEvent::Down { .. } => *downs += 1,
            LinkEvent::Frame { bytes, .. } => frames.push(bytes.to_vec()),
        });
        self.link.flush();
        self.reactor.kick();
        count
    }

    fn peer(&self) -> NodeId {
        if self.link.is_up(NodeId(1)) { NodeId(1) } else { NodeId(2) }
    }

    /// Sends, with turns between when the link is full.
    fn send(&mut self, other: &mut Node, frame: &[u8]) {
        let until = Instant::now() + PATIENCE;
        let (head, body) = frame.split_at(96);
        while self.link.send(self.peer(), &[head, body]).is_err() {
            assert!(Instant::now() < until, "the link stays full");
            self.turn();
            other.turn();
        }
        self.link.flush();
    }
}

fn turn_until(what: &str, one: &mut Node, other: &mut Node, done: impl Fn(&Node, &Node) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done(one, other) {
        assert!(
            Instant::now() < until,
            "{what}: {} and {} frames, {:?}, {:?}",
            one.frames.len(),
            other.frames.len(),
            one.link.counters(),
            one.link.carrier().counters()
        );
        if one.turn() + other.turn() == 0 {
            one.reactor.park(Duration::from_micros(200));
        }
    }
}

fn frame(number: u64, body_bytes: usize) -> Vec<u8> {
    let mut builder = Builder::new(Kind::Peer);
    let mut row = [0; ROW_BYTES];
    row[..8].copy_from_slice(&number.to_le_bytes());
    builder.push(&row, body_bytes);
    let mut frame = builder.seal().to_vec();
    frame.extend((0..body_bytes).map(|at| (at * 31 + number as usize * 7) as u8));
    frame
}

fn pair(way: (ReactorKind, Backend)) -> (Node, Node, SocketAddr) {
    let sockets = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
    let [one_at, other_at] = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let [one, other] = sockets;
    let mut one = Node::new(way, 1, one, other_at, 11);
    let mut other = Node::new(way, 2, other, one_at, 12);
    turn_until("up", &mut one, &mut other, |one, other| one.ups > 0 && other.ups > 0);
    (one, other, other_at)
}

#[test]
fn frames_of_every_length_arrive_whole_over_sockets() {
    on_every_way(|way| {
        let (mut one, mut other, _) = pair(way);
        let lens = [0, 1, 64, 1300, 1472, 8192, 65_536, 1 << 20, FRAME_BYTES_MAX - 96, 64];
        for (number, &len) in lens.iter().enumerate() {
            let sent = frame(number as u64, len);
            one.send(&mut other, &sent);
            other.send(&mut one, &sent);
            turn_until("a frame", &mut one, &mut other, |one, other| {
                one.frames.len() > number && other.frames.len() > number
            });
            assert!(one.frames[number] == sent && other.frames[number] == sent, "a frame of {len}");
        }
        assert_eq!((one.ups, one.downs, other.ups, other.downs), (1, 0, 1, 0));
    });
}

/// More than the windows hold is under way, both ways at once.
#[test]
fn many_frames_both_ways_at_once_arrive_whole() {
    on_every_way(|way| {
        let (mut one, mut other, _) = pair(way);
        let count = 400;
        for number in 0..count {
            let sent = frame(number, 100 + (number as usize * 997) % 50_000);
            one.send(&mut other, &sent);
            other.send(&mut one, &sent);
        }
        let all = count as usize;
        turn_until("all", &mut one, &mut other, |one, other| {
            one.frames.len() == all && other.frames.len() == all
        });
        for node in [&mut one, &mut other] {
            // Short frames may pass long ones.
            node.frames.sort_by_key(|frame| u64::from_le_bytes(frame[32..40].try_into().unwrap()));
            for (number, came) in node.frames.iter().enumerate() {
                assert!(*came == frame(number as u64, 100 + (number * 997) % 50_000), "frame {number}");
            }
        }
    });
}

#[test]
fn an_end_that_starts_anew_is_met_again() {
    on_every_way(|way| {
        let (mut one, mut other, other_at) = pair(way);
        let one_at = one.link.carrier().local_address().unwrap();
        for life in 0..3_u64 {
            let sent = frame(life, 20_000);
            one.send(&mut other, &sent);
            other.send(&mut one, &sent);
            turn_until("frames", &mut one, &mut other, |one, other| {
                one.frames.len() > life as usize && !other.frames.is_empty()
            });
            assert!(one.frames[life as usize] == sent && other.frames == [sent], "life {life}");
            drop(other);
            other = Node::new(way, 2, UdpSocket::bind(other_at).unwrap(), one_at, 100 + u128::from(life));
            let ups = one.ups;
            turn_until("up again", &mut one, &mut other, |one, other| one.ups > ups && other.ups > 0);
            assert_eq!(one.downs as u64, life + 1);
        }
    });
}
