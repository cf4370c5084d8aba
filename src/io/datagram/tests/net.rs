//! A network in memory, under one seed: what is sent may be lost, doubled, late, overtaken and corrupted. Its receivers
//! count what would not fit into a ring.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::super::{Arrival, Carrier, Counters, DatagramLink, Notice, Options};
use crate::io::{Full, Link, LinkEvent};
use crate::types::{ClusterId, LaneId, NodeId, StoreId, Time};
use crate::wire::frame::{Builder, Kind};
use crate::wire::identity::Identity;

pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000_000;

/// What the adversary may do, in parts per million, and how long the way is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adversary {
    pub(super) loss: u32,
    pub(super) double: u32,
    pub(super) corrupt: u32,
    pub(super) delay_ns: (u64, u64),
    /// Longer ones are lost.
    pub(super) path_bytes: usize,
}

pub(super) const CALM: Adversary =
    Adversary { loss: 0, double: 0, corrupt: 0, delay_ns: (20 * US, 20 * US), path_bytes: 1 << 20 };

#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: u64,
    random: u64,
    pub(super) adversary: Adversary,
    /// By the time of arrival.
    under_way: BTreeMap<(u64, u64), Sent>,
    sequence: u64,
    inboxes: BTreeMap<u16, Vec<Sent>>,
    /// Nobody listens there.
    pub(super) dead: Vec<u16>,
    pub(super) window: usize,
    /// Datagrams that came and found the ring full.
    pub(super) overruns: u64,
    /// Everything that was sent, for who wants to look; off by default.
    pub(super) tapped: Option<Vec<Sent>>,
    /// Datagrams that are lost on purpose.
    pub(super) filter: fn(&Sent) -> bool,
    pub(super) refuse: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) bytes: Vec<u8>,
}

impl Net {
    pub(super) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }

    fn chance(&mut self, ppm: u32) -> bool {
        self.draw() % 1_000_000 < u64::from(ppm)
    }

    /// Puts a datagram on its way as it is.
    pub(super) fn deliver(&mut self, sent: Sent) {
        let (from, to) = self.adversary.delay_ns;
        let at = self.now + from + self.draw() % (to - from + 1);
        self.sequence += 1;
        self.under_way.insert((at, self.sequence), sent);
    }

    fn transmit(&mut self, mut sent: Sent) {
        if let Some(tapped) = &mut self.tapped {
            tapped.push(sent.clone());
        }
        let Adversary { loss, double, corrupt, path_bytes, .. } = self.adversary;
        if sent.bytes.len() > path_bytes || self.chance(loss) || (self.filter)(&sent) {
            return;
        }
        if self.chance(corrupt) {
            let bit = self.draw() as usize % (sent.bytes.len() * 8);
            sent.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if self.chance(double) {
            self.deliver(sent.clone());
        }
        self.deliver(sent);
    }

    fn arrive(&mut self) {
        while let Some((&(at, sequence), _)) = self.under_way.first_key_value() {
            if at > self.now {
                break;
            }
            let sent = self.under_way.remove(&(at, sequence)).unwrap();
            let inbox = self.inboxes.entry(sent.to).or_default();
            if inbox.iter().filter(|waiting| waiting.from == sent.from).count() >= self.window {
                self.overruns += 1;
            } else {
                inbox.push(sent);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Wire<const RELIABLE: bool> {
    net: Rc<RefCell<Net>>,
    address: u16,
    bytes_max: usize,
    pub(super) hints: Vec<Arrival<'static, u16>>,
}

impl<const RELIABLE: bool> Carrier for Wire<RELIABLE> {
    type Address = u16;
    const RELIABLE: bool = RELIABLE;

    fn datagram_bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn window(&self) -> usize {
        self.net.borrow().window
    }

    fn poll(&mut self, _now: Time, sink: &mut impl FnMut(Arrival<'_, u16>)) -> usize {
        self.hints.drain(..).for_each(&mut *sink);
        let mut inbox = self.net.borrow_mut().inboxes.remove(&self.address).unwrap_or_default();
        let taken = inbox.len().min(64);
        for sent in inbox.drain(..taken) {
            sink(Arrival::Datagram { from: sent.from, bytes: &sent.bytes });
        }
        self.net.borrow_mut().inboxes.insert(self.address, inbox);
        taken
    }

    fn send(&mut self, to: u16, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let bytes = parts.concat();
        assert!(bytes.len() <= self.bytes_max, "{} bytes", bytes.len());
        let mut net = self.net.borrow_mut();
        if net.refuse {
            return Err(Full(()));
        }
        if net.dead.contains(&to) {
            self.hints.push(Arrival::Unreachable(to));
        } else {
            net.transmit(Sent { from: self.address, to, bytes });
        }
        Ok(())
    }

    fn flush(&mut self) {}
}

pub(super) type TestLink<const RELIABLE: bool> = DatagramLink<Wire<RELIABLE>>;

/// Some nodes, and what their links told.
pub(super) struct World<const RELIABLE: bool> {
    pub(super) net: Rc<RefCell<Net>>,
    pub(super) links: Vec<Option<TestLink<RELIABLE>>>,
    pub(super) told: Vec<Vec<Told>>,
    lives: u64,
    pub(super) bytes_max: usize,
    pub(super) stores: Vec<(NodeId, StoreId)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Up(NodeId),
    Down(NodeId, bool),
    Frame(NodeId, Vec<u8>),
}

pub(super) fn id(node: usize) -> NodeId {
    NodeId(node as u32 + 1)
}

pub(super) fn address(node: usize) -> u16 {
    100 + node as u16
}

pub(super) fn identity(node: usize) -> Identity {
    Identity {
        cluster: ClusterId(9),
        node: id(node),
        store: StoreId(node as u64 + 70),
        lane: LaneId(0),
        lanes: 1,
        shards: 1,
    }
}

impl<const RELIABLE: bool> World<RELIABLE> {
    pub(super) fn new(nodes: usize, seed: u64, adversary: Adversary) -> World<RELIABLE> {
        World::with(nodes, seed, adversary, 256, 1472)
    }

    pub(super) fn with(
        nodes: usize,
        seed: u64,
        adversary: Adversary,
        window: usize,
        bytes_max: usize,
    ) -> World<RELIABLE> {
        let net = Net {
            now: MS,
            random: seed,
            adversary,
            under_way: BTreeMap::new(),
            sequence: 0,
            inboxes: BTreeMap::new(),
            dead: Vec::new(),
            window,
            overruns: 0,
            tapped: None,
            filter: |_| false,
            refuse: false,
        };
        let mut world = World {
            net: Rc::new(RefCell::new(net)),
            links: (0..nodes).map(|_| None).collect(),
            told: vec![Vec::new(); nodes],
            lives: seed << 32,
            bytes_max,
            stores: Vec::new(),
        };
        (0..nodes).for_each(|node| world.start(node, identity(node)));
        world
    }

    pub(super) fn start(&mut self, node: usize, identity: Identity) {
        let others = (0..self.links.len()).filter(|&other| other != node);
        let peers = others.map(|other| (id(other), address(other))).collect();
        self.lives += 1;
        let options = Options::new(identity, peers, self.stores.clone(), self.lives.into());
        let net = self.net.clone();
        net.borrow_mut().dead.retain(|&dead| dead != address(node));
        let carrier = Wire { net, address: address(node), bytes_max: self.bytes_max, hints: Vec::new() };
        self.links[node] = Some(DatagramLink::new(options, carrier));
    }

    /// The process is gone; its host is there.
    pub(super) fn kill(&mut self, node: usize) {
        // It says no bye.
        self.net.borrow_mut().refuse = true;
        self.links[node] = None;
        let mut net = self.net.borrow_mut();
        net.refuse = false;
        net.dead.push(address(node));
        net.inboxes.remove(&address(node));
    }

    pub(super) fn link(&mut self, node: usize) -> &mut TestLink<RELIABLE> {
        self.links[node].as_mut().unwrap()
    }

    pub(super) fn counters(&self, node: usize) -> Counters {
        *self.links[node].as_ref().unwrap().counters()
    }

    pub(super) fn poll(&mut self, node: usize) {
        let now = Time(self.net.borrow().now);
        let World { links, told, .. } = self;
        let Some(link) = &mut links[node] else { return };
        link.poll(now, &mut |event| {
            told[node].push(match event {
                LinkEvent::Up(peer) => Told::Up(peer),
                LinkEvent::Down { peer, by_peer } => Told::Down(peer, by_peer),
                LinkEvent::Frame { from, bytes } => Told::Frame(from, bytes.to_vec()),
            });
        });
    }

    /// Lets this time pass, in steps.
    pub(super) fn pass(&mut self, ns: u64) {
        self.pass_but(ns, |_| true);
    }

    /// As [`World::pass`]; nodes of which `runs` says no stand still.
    pub(super) fn pass_but(&mut self, ns: u64, runs: fn(usize) -> bool) {
        let until = self.net.borrow().now + ns;
        while self.net.borrow().now < until {
            self.net.borrow_mut().now += 10 * US;
            self.net.borrow_mut().arrive();
            for node in (0..self.links.len()).filter(|&node| runs(node)) {
                self.poll(node);
            }
        }
    }

    /// Lets time pass until it is so; `false`: it never was.
    pub(super) fn until(&mut self, ns: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let until = self.net.borrow().now + ns;
        while self.net.borrow().now < until {
            self.pass(10 * US);
            if done(self) {
                return true;
            }
        }
        false
    }

    pub(super) fn is_up(&self, from: usize, to: usize) -> bool {
        self.links[from].as_ref().is_some_and(|link| link.is_up(id(to)))
    }

    /// Both ends are up.
    pub(super) fn meet(&mut self) {
        let all = |world: &mut Self| {
            let pairs = |node: usize| (0..world.links.len()).filter(move |&other| other != node);
            (0..world.links.len()).all(|node| pairs(node).all(|other| world.is_up(node, other)))
        };
        assert!(self.until(20_000 * MS, all), "the peers do not meet");
    }

    /// Sends a frame, whether it is taken.
    pub(super) fn send(&mut self, from: usize, to: usize, frame: &[u8]) -> bool {
        // In parts, as a lane does.
        let (head, body) = frame.split_at(96.min(frame.len()));
        let (first, second) = body.split_at(body.len() / 3);
        let link = self.link(from);
        let taken = link.send(id(to), &[head, first, second]).is_ok();
        link.flush();
        taken
    }

    pub(super) fn frames(&self, node: usize) -> Vec<&Vec<u8>> {
        let frames = self.told[node].iter().filter_map(|told| match told {
            Told::Frame(_, bytes) => Some(bytes),
            _ => None,
        });
        frames.collect()
    }

    pub(super) fn notices(&mut self, node: usize) -> Vec<Notice<u16>> {
        let link = self.link(node);
        std::iter::from_fn(|| link.notice()).collect()
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_nanos(self.net.borrow().now)
    }
}

/// A frame that a link takes, of this length, with a content of its own.
pub(super) fn frame(number: u64, len_bytes: usize) -> Vec<u8> {
    let mut builder = Builder::new(Kind::Peer);
    let mut row = [0; 64];
    row[..8].copy_from_slice(&number.to_le_bytes());
    let body_bytes = len_bytes - 96;
    builder.push(&row, body_bytes);
    let mut bytes = builder.seal().to_vec();
    bytes.extend((0..body_bytes as u64).map(|at| (at.wrapping_mul(31) ^ number ^ (at >> 8)) as u8));
    bytes
}

pub(super) fn number(frame: &[u8]) -> u64 {
    u64::from_le_bytes(*frame[32..].first_chunk().unwrap())
}
