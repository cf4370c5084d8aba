//! The network as carrier of datagrams: under the production link over datagrams the frames of a lane are cut, lost in
//! part, repaired and put together. And the book of what may come out of that.

use std::collections::BTreeMap;

use super::fabric::{Event, Fabric, Shared};
use super::net::{NetEvent, node_id, node_of};
use super::plan::DatagramPlan;
use super::random::mix;
use crate::io::datagram::{Arrival, Carrier, Counters, DatagramLink, Notice, Options};
use crate::io::{Full, Link, LinkEvent};
use crate::limits::FRAME_BYTES_MAX;
use crate::types::{ClusterId, LaneId, NodeId, StoreId, Time};
use crate::wire::identity::Identity;

/// Datagrams that one poll takes.
const DATAGRAMS_PER_POLL: usize = 256;

/// One node's socket, or its end of connections that lose nothing while they last.
pub(super) struct SimCarrier<const RELIABLE: bool> {
    fabric: Shared,
    node: usize,
    plan: DatagramPlan,
}

impl<const RELIABLE: bool> Carrier for SimCarrier<RELIABLE> {
    type Address = NodeId;
    const RELIABLE: bool = RELIABLE;

    fn datagram_bytes_max(&self) -> usize {
        self.plan.bytes_max
    }

    fn window(&self) -> usize {
        self.plan.window
    }

    fn poll(&mut self, _now: Time, sink: &mut impl FnMut(Arrival<'_, NodeId>)) -> usize {
        let mut inbox = core::mem::take(&mut self.fabric.borrow_mut().nodes[self.node].inbox);
        let taken = inbox.len().min(DATAGRAMS_PER_POLL);
        for event in inbox.drain(..taken) {
            match event {
                NetEvent::Datagram { from, bytes } => sink(Arrival::Datagram { from, bytes: &bytes }),
                NetEvent::Down { peer, by_peer: true } => sink(Arrival::Unreachable(peer)),
                NetEvent::Down { peer, by_peer: false } => sink(Arrival::Broken(peer)),
                NetEvent::Frame { .. } => unreachable!("this network moves datagrams"),
            }
        }
        self.fabric.borrow_mut().nodes[self.node].inbox = inbox;
        taken
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        self.fabric.borrow_mut().transmit_datagram(self.node, node_of(to), parts.concat())
    }

    fn flush(&mut self) {}
}

impl Fabric {
    /// Sends a datagram on its way, if it is not lost.
    fn transmit_datagram(&mut self, from: usize, to: usize, bytes: Vec<u8>) -> Result<(), Full<()>> {
        // Who was killed says no more.
        if !self.nodes[from].up {
            return Ok(());
        }
        if self.net.is_crowded(from, to) {
            return Err(Full(()));
        }
        assert!(bytes.len() <= self.plan.net.datagrams.map_or(0, |plan| plan.bytes_max), "as was said");
        let crc = u32::from_le_bytes(*bytes[44..].first_chunk().expect("a datagram has a header"));
        self.mark(u64::from(crc) << 16 ^ (bytes.len() as u64) << 8 ^ (from << 4 | to) as u64);
        self.oracle.counts.datagrams += 1;
        if self.plan.net.datagrams.is_none_or(|plan| bytes.len() <= plan.path_bytes) {
            self.launch(from, to, bytes);
        }
        Ok(())
    }

    /// A datagram has come to a node: whether there is room for it. One that nobody waits for is sometimes told of.
    pub(super) fn takes_datagram(&mut self, from: NodeId, to: usize) -> bool {
        if !self.nodes[to].up {
            let back = node_of(from);
            if !self.net.is_cut(to, back) && self.random.chance(500_000) {
                let plan = &self.plan.net;
                let at_ns = self.now_ns + self.random.between(plan.delay_min_ns, plan.delay_max_ns);
                let event = NetEvent::Down { peer: node_id(to), by_peer: true };
                self.schedule(at_ns, Event::Net { to: back, event });
            }
            return false;
        }
        let of_it =
            |event: &&NetEvent| matches!(event, NetEvent::Datagram { from: other, .. } if *other == from);
        let waiting = self.nodes[to].inbox.iter().filter(of_it).count();
        let (window, reliable) =
            self.plan.net.datagrams.map_or((0, false), |plan| (plan.window, plan.reliable));
        // A session's last ones and the next one's first may come together.
        if reliable && waiting >= 2 * window {
            self.oracle.fail(format!("node {from} sends more than node {} gave it credits for", to + 1));
        }
        reliable || waiting < window
    }
}

/// The production link, watched.
pub(super) struct Watched<const RELIABLE: bool> {
    link: DatagramLink<SimCarrier<RELIABLE>>,
    fabric: Shared,
    node: usize,
    told: Counters,
}

impl<const RELIABLE: bool> Watched<RELIABLE> {
    pub(super) fn new(fabric: Shared, node: usize, plan: DatagramPlan) -> Self {
        let (seed, nodes, shards, life) = {
            let fabric = fabric.borrow();
            (fabric.plan.seed, fabric.plan.nodes, fabric.plan.shards, fabric.nodes[node].life)
        };
        let identity = Identity {
            cluster: ClusterId(seed),
            node: node_id(node),
            store: StoreId(node as u64 + 1),
            lane: LaneId(0),
            lanes: 1,
            shards,
        };
        let others = (0..nodes).filter(|&other| other != node);
        let peers = others.map(|other| (node_id(other), node_id(other))).collect();
        let drawn = mix(seed ^ 0x7365_7373 ^ (node as u64) << 40 ^ u64::from(life) << 8);
        let options = Options {
            kept_bytes: 2 * FRAME_BYTES_MAX,
            unheard: plan.unheard,
            redial_max: plan.redial_max,
            ..Options::new(identity, peers, Vec::new(), drawn.into())
        };
        let carrier = SimCarrier { fabric: fabric.clone(), node, plan };
        Watched { link: DatagramLink::new(options, carrier), fabric, node, told: Counters::default() }
    }

    pub(super) fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let Watched { link, fabric, node, .. } = self;
        let work = link.poll(now, &mut |event| {
            if let LinkEvent::Frame { from, bytes } = event {
                fabric.borrow_mut().frame_came(node_of(from), *node, bytes);
            }
            sink(event);
        });
        self.look();
        work
    }

    /// Nobody here says what an honest peer does not understand, or refuses.
    fn look(&mut self) {
        let now = *self.link.counters();
        let fabric = &mut *self.fabric.borrow_mut();
        let counts = &mut fabric.oracle.counts;
        counts.repaired += now.repaired - self.told.repaired;
        counts.sessions += now.reconnects - self.told.reconnects;
        let clean = fabric.plan.net.corrupt_ppm == 0;
        while let Some(notice) = self.link.notice() {
            let wrong = match notice {
                Notice::Malformed { .. } => clean,
                Notice::Refused { .. } | Notice::RefusedBy { .. } | Notice::MixedUp { .. } => true,
                _ => false,
            };
            if wrong {
                fabric.oracle.fail(format!("node {}: {notice}", self.node + 1));
            }
        }
        let contrary = now.beyond + now.fragments_contrary;
        if contrary > 0 {
            fabric.oracle.fail(format!("node {} drops what honest peers send: {now:?}", self.node + 1));
        }
        if clean && now.malformed > 0 {
            fabric.oracle.fail(format!("node {} does not understand its peers' datagrams", self.node + 1));
        }
        self.told = now;
    }

    pub(super) fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let to_node = node_of(to);
        let frame = parts.concat();
        // It is on its way before the call is over, and in the books before it can be there.
        let taken = self.link.send(to, parts);
        if taken.is_ok() {
            self.fabric.borrow_mut().frame_sent(self.node, to_node, &frame, self.link.is_up(to));
        }
        taken
    }

    pub(super) fn flush(&mut self) {
        self.link.flush();
    }

    pub(super) fn next_wake(&self) -> Time {
        self.link.next_wake()
    }

    pub(super) fn is_carrying(&self, to: NodeId, given_at: Time) -> bool {
        self.link.is_carrying(to, given_at)
    }
}

/// Which frames may come where: from whom, to which life of whom, and what.
type Key = (usize, usize, u32, u32, usize);

/// What was sent, and has not come yet.
#[derive(Default)]
pub(super) struct Deliveries(BTreeMap<Key, u32>);

impl Fabric {
    fn frame_sent(&mut self, from: usize, to: usize, frame: &[u8], is_up: bool) {
        self.on_frame_of(from);
        self.tell_frame(from, to, frame, !is_up);
        if is_up && self.plan.net.corrupt_ppm == 0 {
            let key = (from, to, self.nodes[to].life, crc32c::crc32c(frame), frame.len());
            *self.deliveries.0.entry(key).or_default() += 1;
        }
    }

    fn frame_came(&mut self, from: usize, to: usize, frame: &[u8]) {
        if self.plan.net.corrupt_ppm > 0 {
            return;
        }
        let key = (from, to, self.nodes[to].life, crc32c::crc32c(frame), frame.len());
        match self.deliveries.0.get_mut(&key) {
            Some(1) => {
                self.deliveries.0.remove(&key);
            }
            Some(more) => *more -= 1,
            None => self.oracle.fail(format!(
                "node {} is given a frame of {} bytes that node {} did not send to it in this life, or not so often",
                to + 1,
                frame.len(),
                from + 1
            )),
        }
    }
}
