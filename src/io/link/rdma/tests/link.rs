//! Frames through the whole link: sessions, fragments and credits over queue pairs.

use super::*;
use crate::io::LinkEvent;
use crate::io::datagram::{self, DatagramLink};
use crate::limits::FRAME_BYTES_MAX;
use crate::raft::Message;
use crate::types::{ShardId, Term};
use crate::wire::frame::{Builder, Kind as FrameKind};
use crate::wire::peer;

struct Whole {
    link: DatagramLink<RdmaCarrier>,
    side: TcpLink,
    reactor: Reactor,
    pool: Pool,
    start: Instant,
    frames: Vec<Vec<u8>>,
    ups: usize,
    downs: usize,
}

impl Whole {
    fn new(node: Node) -> Whole {
        let Node { carrier, side, reactor, pool, start, .. } = node;
        let (node, peer) = (carrier.options.node, carrier.options.peers[0]);
        let identity = identity(node.0);
        let options = datagram::Options::new(
            identity,
            vec![(peer, peer)],
            Vec::new(),
            u128::from(std::process::id()) + 3,
        );
        let link = DatagramLink::new(options, carrier);
        Whole { link, side, reactor, pool, start, frames: Vec::new(), ups: 0, downs: 0 }
    }

    fn is_up(&self) -> bool {
        let peer = self.link.carrier().options.peers[0];
        self.link.is_up(peer) && self.link.carrier().is_up(peer)
    }

    fn turn(&mut self) {
        let now = Time(1).after(self.start.elapsed());
        self.reactor.poll();
        self.side.poll(now, &mut |_| {});
        let Whole { link, side, frames, ups, downs, .. } = self;
        link.carrier_mut().exchange(now, side);
        link.poll(now, &mut |event| match event {
            LinkEvent::Up(_) => *ups += 1,
            LinkEvent::Down { .. } => *downs += 1,
            LinkEvent::Frame { bytes, .. } => frames.push(bytes.to_vec()),
        });
        link.flush();
        while let Some(notice) = link.carrier_mut().notice() {
            eprintln!("{notice}");
        }
        while let Some(notice) = link.notice() {
            eprintln!("{notice}");
        }
    }
}

fn pump_whole(nodes: &mut [Whole], mut done: impl FnMut(&mut [Whole]) -> bool) {
    let start = Instant::now();
    while !done(nodes) {
        nodes.iter_mut().for_each(Whole::turn);
        let told = || nodes.iter().map(|node| (node.link.carrier().counters(), node.link.counters()));
        assert!(start.elapsed() < PATIENCE, "nothing came of it: {:?}", told().collect::<Vec<_>>());
        std::thread::yield_now();
    }
}

/// A frame whose body lies in the node's pool, and the whole of it for comparison. The body is no record: its checksum
/// is not the link's to check.
fn frame(node: &Whole, body_bytes: usize) -> (Vec<u8>, crate::io::pool::Slice, Vec<u8>) {
    let mut builder = Builder::new(FrameKind::Peer);
    let row = peer::encode(ShardId(1), &Message::VoteRefused { term: Term(body_bytes as u64) }, 0);
    builder.push(&row, body_bytes);
    let head = builder.seal().to_vec();
    let mut chunk = node.pool.take().expect("what was sent before was let go");
    let body = pattern(body_bytes, body_bytes);
    chunk.spare_mut()[..body_bytes].copy_from_slice(&body);
    let slice = chunk.freeze(body_bytes);
    (head.clone(), slice, [head, body].concat())
}

fn sends_every_length(nodes: &mut [Whole; 2], from: usize) {
    let lengths = [0, 1, 100, 220, 5000, 32_000, 32_768, 100_000, 1 << 20, FRAME_BYTES_MAX - 96, 3];
    for len_bytes in lengths {
        let to = 1 - from;
        let before = nodes[to].frames.len();
        let (head, body, whole) = frame(&nodes[from], len_bytes);
        let peer = NodeId(2 - from as u32);
        pump_whole(nodes, |nodes| nodes[from].link.send(peer, &[&head, &body]).is_ok());
        drop(body);
        pump_whole(nodes, |nodes| nodes[to].frames.len() > before && nodes[from].pool.available() == 4);
        assert!(
            nodes[to].frames.len() == before + 1 && nodes[to].frames[before] == whole,
            "{len_bytes} bytes"
        );
    }
}

#[test]
fn frames_of_every_length_arrive_whole_through_the_whole_link() {
    if !has_device("frames_of_every_length") {
        return;
    }
    let mut nodes = pair(|_| ()).map(Whole::new);
    pump_whole(&mut nodes, |nodes| nodes.iter().all(|node| node.ups == 1));
    sends_every_length(&mut nodes, 0);
    sends_every_length(&mut nodes, 1);
    let counters = nodes[0].link.carrier().counters();
    assert!(counters.gathered_bytes > 1 << 20, "records are sent from where they lie: {counters:?}");
    assert_eq!(counters.ended, 0);
    assert!(nodes.iter().all(|node| node.downs == 0));
}

/// What a queue pair takes with it is lost, as a frame may be; the link goes on with what is sent after.
#[test]
fn the_link_goes_on_over_another_queue_pair() {
    if !has_device("the_link_goes_on") {
        return;
    }
    let mut nodes = pair(|_| ()).map(Whole::new);
    pump_whole(&mut nodes, |nodes| nodes.iter().all(|node| node.ups == 1));
    for round in 0..4 {
        let (from, to) = (round % 2, 1 - round % 2);
        pump_whole(&mut nodes, |nodes| nodes.iter().all(Whole::is_up));
        let before = nodes[to].frames.len();
        let (head, body, whole) = frame(&nodes[from], 300_000 + round);
        let peer = NodeId(2 - from as u32);
        assert!(nodes[from].link.send(peer, &[&head, &body]).is_ok());
        nodes[from].link.flush();
        nodes[from].link.carrier_mut().spoil(peer);
        // Sent again as Raft does, until it has arrived over a queue pair made since.
        let connected = nodes[from].link.carrier().counters().connected;
        pump_whole(&mut nodes, |nodes| nodes[from].link.carrier().counters().connected > connected);
        let mut again = Instant::now();
        pump_whole(&mut nodes, |nodes| {
            if again.elapsed() > Duration::from_millis(300) {
                let _ = nodes[from].link.send(peer, &[&head, &body]);
                again = Instant::now();
            }
            nodes[to].frames.len() > before
        });
        assert!(nodes[to].frames[before..].iter().all(|frame| *frame == whole), "round {round}");
        drop(body);
        pump_whole(&mut nodes, |nodes| nodes[from].pool.available() == 4);
    }
    assert!(nodes.iter().all(|node| node.link.carrier().counters().ended >= 4));
}
