//! The network between the nodes: every directed link has its own loss, delay, and faults.

use super::datagrams::Watched;
use super::fabric::{Event, Fabric, Shared};
use super::plan::Plan;
use super::random::Random;
use super::trace::Note;
use crate::io::{Full, Link, LinkEvent};
use crate::raft::Message;
use crate::types::{NodeId, Time};
use crate::wire;
use crate::wire::frame::{Builder, Kind};

/// What a node's link finds when it looks.
#[derive(Debug)]
pub(super) enum NetEvent {
    Down { peer: NodeId, by_peer: bool },
    Frame { from: NodeId, bytes: Vec<u8> },
    Datagram { from: NodeId, bytes: Vec<u8> },
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
struct Way {
    cut: bool,
    loss_ppm: u32,
    /// Requests to stand are lost, and nothing else.
    deaf: bool,
    /// Frames sent before this time come no earlier.
    clogged_until_ns: u64,
    /// When the last frame comes, for links that keep the order.
    last_ns: u64,
    /// Frames under way.
    waiting: usize,
}

/// Frames under way on one link, beyond which it is full.
const WAITING_MAX: usize = 4096;

pub(super) struct Network {
    nodes: usize,
    ways: Vec<Way>,
}

impl Network {
    pub(super) fn new(plan: &Plan, random: &mut Random) -> Network {
        let loss = plan.net.loss_ppm_max;
        let way = |_| Way { loss_ppm: random.below(u64::from(loss) + 1) as u32, ..Way::default() };
        Network { nodes: plan.nodes, ways: (0..plan.nodes * plan.nodes).map(way).collect() }
    }

    fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from * self.nodes + to]
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.way(from, to).cut = cut;
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.ways[from * self.nodes + to].cut
    }

    pub(super) fn clog(&mut self, from: usize, to: usize, until_ns: u64) {
        self.way(from, to).clogged_until_ns = until_ns;
    }

    /// The link is as good as a link can be.
    pub(super) fn mend(&mut self, from: usize, to: usize) {
        let way = self.way(from, to);
        (way.cut, way.loss_ppm, way.deaf, way.clogged_until_ns) = (false, 0, false, 0);
    }

    /// The node hears and is heard, but for requests to stand. Only of frames can be told what they are.
    pub(super) fn deafen(&mut self, node: usize) {
        for other in (0..self.nodes).filter(|&other| other != node) {
            self.mend(other, node);
            self.mend(node, other);
            self.way(other, node).deaf = true;
        }
    }

    /// The node is not deaf any more.
    pub(super) fn undeafen(&mut self, node: usize) {
        (0..self.nodes).for_each(|other| self.way(other, node).deaf = false);
    }

    /// See [`Network::deafen`].
    pub(super) fn is_deaf(&self, node: usize) -> bool {
        (0..self.nodes).any(|other| self.ways[other * self.nodes + node].deaf)
    }

    /// What of a frame can come through at all; `None`: nothing.
    fn heard(&self, from: usize, to: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.ways[from * self.nodes + to].deaf {
            return Some(bytes.to_vec());
        }
        let Ok(messages) = wire::peer::decode(bytes) else { return Some(bytes.to_vec()) };
        let (mut head, mut body) = (Builder::new(Kind::Peer), Vec::new());
        for (shard, message, records) in messages {
            if !matches!(message, Message::TimeoutNow { .. }) {
                head.push(&wire::peer::encode(shard, &message, records.len()), records.len());
                body.push(records);
            }
        }
        if head.is_empty() {
            return None;
        }
        body.insert(0, head.seal());
        Some(body.concat())
    }

    /// Too much is under way.
    pub(super) fn is_crowded(&self, from: usize, to: usize) -> bool {
        self.ways[from * self.nodes + to].waiting >= WAITING_MAX
    }

    /// A frame has come.
    pub(super) fn arrived(&mut self, from: usize, to: usize) {
        self.way(from, to).waiting -= 1;
    }
}

/// Nodes are named from 1.
pub(super) fn node_id(node: usize) -> NodeId {
    NodeId(node as u32 + 1)
}

/// See [`node_id`].
pub(super) fn node_of(id: NodeId) -> usize {
    id.0 as usize - 1
}

impl Fabric {
    /// Sends a frame on its way, if it is not lost.
    fn transmit(&mut self, from: usize, to: usize, bytes: Vec<u8>) -> Result<(), Full<()>> {
        if self.net.is_crowded(from, to) {
            return Err(Full(()));
        }
        self.on_frame_of(from);
        self.mark_frame(from, to, &bytes);
        self.oracle.on_frame(from, to, &bytes);
        let heard = self.net.heard(from, to, &bytes);
        let lost = heard.is_none_or(|heard| self.launch(from, to, heard));
        self.note_frame(from, to, &bytes, lost);
        Ok(())
    }

    /// A frame that a lane sends by way of datagrams, of which it is not known yet what becomes.
    pub(super) fn tell_frame(&mut self, from: usize, to: usize, bytes: &[u8], lost: bool) {
        self.mark_frame(from, to, bytes);
        self.oracle.on_frame(from, to, bytes);
        self.note_frame(from, to, bytes, lost);
    }

    /// Lets a frame or a datagram go, whatever becomes of it; whether it is lost at once.
    pub(super) fn launch(&mut self, from: usize, to: usize, mut bytes: Vec<u8>) -> bool {
        let plan = self.plan.clone();
        let random = &mut self.random;
        let way = self.net.way(from, to);
        if way.cut || random.chance(way.loss_ppm) {
            return true;
        }
        if !self.calm && random.chance(plan.net.corrupt_ppm) {
            let bit = random.below(bytes.len() as u64 * 8);
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
        }
        if !self.calm && random.chance(plan.net.duplicate_ppm) {
            self.deliver(from, to, bytes.clone());
        }
        self.deliver(from, to, bytes);
        false
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let net = &self.plan.net;
        let random = &mut self.random;
        let longest_ns =
            if self.calm { net.delay_max_ns.min(self.plan.election_ns / 20) } else { net.delay_max_ns };
        let mut at_ns = self.now_ns + random.skewed(net.delay_min_ns, longest_ns.max(net.delay_min_ns));
        if !self.calm && random.chance(net.straggle_ppm) {
            at_ns += random.between(net.delay_max_ns, 10 * net.delay_max_ns);
        }
        let way = self.net.way(from, to);
        at_ns = at_ns.max(way.clogged_until_ns);
        if net.ordered {
            at_ns = at_ns.max(way.last_ns);
            way.last_ns = at_ns;
        }
        way.waiting += 1;
        let from = node_id(from);
        let event = match self.plan.net.datagrams {
            Some(_) => NetEvent::Datagram { from, bytes },
            None => NetEvent::Frame { from, bytes },
        };
        self.schedule(at_ns, Event::Net { to, event });
    }

    /// The checksum of a frame's head stands for its table, and by way of the records' for most of its body.
    fn mark_frame(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let crc = u32::from_le_bytes(*bytes[28..].first_chunk().expect("a frame has a header"));
        self.mark(u64::from(crc) << 16 ^ (bytes.len() as u64) << 8 ^ (from << 4 | to) as u64);
    }

    fn note_frame(&mut self, from: usize, to: usize, bytes: &[u8], lost: bool) {
        let Ok(messages) = wire::peer::decode(bytes) else { return };
        for (shard, message, _) in messages {
            self.note(from, Note::Sent { to: node_id(to), shard, message, lost });
        }
    }

    /// Both sides of every connection of `node` learn that it has closed.
    pub(super) fn hang_up(&mut self, node: usize, by_peer: bool) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            if self.net.is_cut(node, peer) {
                continue;
            }
            let at_ns =
                self.now_ns + self.random.between(self.plan.net.delay_min_ns, self.plan.net.delay_max_ns);
            self.schedule(
                at_ns,
                Event::Net { to: peer, event: NetEvent::Down { peer: node_id(node), by_peer } },
            );
        }
    }
}

/// One node's way to its peers.
pub(super) enum SimLink {
    /// The network moves frames.
    Frames(FrameLink),
    /// The network moves datagrams, and the production link makes frames of them.
    Datagrams(Box<Watched<false>>),
    /// The same, and none is lost while a path is there.
    Reliable(Box<Watched<true>>),
}

impl SimLink {
    pub(super) fn new(fabric: Shared, node: usize) -> SimLink {
        let plan = fabric.borrow().plan.net.datagrams;
        match plan {
            Some(plan) if plan.reliable => SimLink::Reliable(Box::new(Watched::new(fabric, node, plan))),
            Some(plan) => SimLink::Datagrams(Box::new(Watched::new(fabric, node, plan))),
            None => SimLink::Frames(FrameLink { fabric, node, spare: Vec::new() }),
        }
    }
}

impl Link for SimLink {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        match self {
            SimLink::Frames(link) => link.poll(now, sink),
            SimLink::Datagrams(link) => link.poll(now, sink),
            SimLink::Reliable(link) => link.poll(now, sink),
        }
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        match self {
            SimLink::Frames(link) => link.send(to, parts),
            SimLink::Datagrams(link) => link.send(to, parts),
            SimLink::Reliable(link) => link.send(to, parts),
        }
    }

    fn flush(&mut self) {
        match self {
            SimLink::Frames(_) => {}
            SimLink::Datagrams(link) => link.flush(),
            SimLink::Reliable(link) => link.flush(),
        }
    }

    fn next_wake(&self) -> Time {
        match self {
            SimLink::Frames(link) => link.next_wake(),
            SimLink::Datagrams(link) => link.next_wake(),
            SimLink::Reliable(link) => link.next_wake(),
        }
    }

    fn is_carrying(&self, to: NodeId, given_at: Time) -> bool {
        match self {
            SimLink::Frames(_) => false,
            SimLink::Datagrams(link) => link.is_carrying(to, given_at),
            SimLink::Reliable(link) => link.is_carrying(to, given_at),
        }
    }
}

/// Whole frames, as over TCP.
pub(super) struct FrameLink {
    fabric: Shared,
    node: usize,
    /// The last inbox's memory.
    spare: Vec<NetEvent>,
}

impl Link for FrameLink {
    fn poll(&mut self, _now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let spare = core::mem::take(&mut self.spare);
        let mut inbox = core::mem::replace(&mut self.fabric.borrow_mut().nodes[self.node].inbox, spare);
        let count = inbox.len();
        for event in inbox.drain(..) {
            match event {
                NetEvent::Down { peer, by_peer } => sink(LinkEvent::Down { peer, by_peer }),
                NetEvent::Frame { from, bytes } => sink(LinkEvent::Frame { from, bytes: &bytes }),
                NetEvent::Datagram { .. } => unreachable!("this network moves frames"),
            }
        }
        self.spare = inbox;
        count
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        self.fabric.borrow_mut().transmit(self.node, node_of(to), parts.concat())
    }

    fn next_wake(&self) -> Time {
        Time::NEVER
    }
}
