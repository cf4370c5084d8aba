//! [`TcpLink`]: frames to and from the same lane of every peer.
//!
//! The lower id dials, so only the way from it to the higher one has to be open. When a connection ends the dialer
//! tries again after some tens of milliseconds, then more slowly, at most a second apart, and never in step with
//! others. A dialer that comes again replaces its first connection once its hello is good: it has restarted, or has
//! given up a connection of which this end does not know yet that it is dead.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use super::asides::Asides;
use super::connection::{Connection, PEER_UNHEARD, State, dial, insert, remove};
use super::stream::{Broken, Next};
use super::{Acceptor, Identity, LISTENER_KEY, UNGREETED_MAX, seed, set_options};
use crate::io::link::{Counters, Reporter};
use crate::io::reactor::{Owner, Reactor};
use crate::io::{Full, Link, LinkEvent};
use crate::limits::VOTERS_MAX;
use crate::types::{NodeId, StoreId, Time};
use crate::wire::Malformed;
use crate::wire::frame::Kind;
use crate::wire::hello::{Greeting, Hello, Refusal, Welcome};
use crate::wire::identity::check_store;

/// The frames and bytes that one poll takes from one peer; the rest waits for the next.
const FRAMES_PER_POLL: usize = 64;
const BYTES_PER_POLL: usize = 1 << 20;

/// A link with so many peers at most reads from all of them in every poll: what comes is what a commit waits for, and
/// to be told of it first costs another entry to the kernel. With more peers the calls that find nothing would add up.
const EAGER_PEERS_MAX: usize = 4;

/// The first pause before dialling again is between this and twice this; it doubles up to half [`REDIAL_MAX`].
const REDIAL_MIN: Duration = Duration::from_millis(20);

/// The longest pause before dialling again.
const REDIAL_MAX: Duration = Duration::from_secs(1);

/// What a link is told when it is made.
#[derive(Debug)]
pub struct LinkOptions {
    /// Who this end is.
    pub identity: Identity,
    /// Where peers are listened for: bound by the node, so that a port in use is found when it starts.
    pub listener: TcpListener,
    /// Where the other members listen for this lane.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// The data directories of peers that are known from earlier lives of this node.
    pub stores: Vec<(NodeId, StoreId)>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    address: SocketAddr,
    store: Option<StoreId>,
    /// The slot of the connection that is up.
    pub(super) up: Option<usize>,
    /// Whether this end dials.
    dials: bool,
    /// The slot of the connection that is being made.
    dialing: Option<usize>,
    redial_at: Time,
    redial_base: Duration,
    /// The operator knows that it cannot be reached.
    told_unreachable: bool,
    /// The last refusal told to the operator.
    told_refusal: Option<Refusal>,
    /// How many connections with it have come up.
    pub(super) connections: u64,
}

/// See the module.
#[derive(Debug)]
pub struct TcpLink {
    identity: Identity,
    reactor: Reactor,
    acceptor: Acceptor,
    pub(super) peers: Vec<Peer>,
    pub(super) slots: Vec<Option<Connection>>,
    learned: Vec<(NodeId, StoreId)>,
    pub(super) asides: Asides,
    random: u64,
    /// Something is left to do although no readiness will tell of it.
    pub(super) unfinished: bool,
    counters: Counters,
    reporter: Reporter,
}

impl Link for TcpLink {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        self.unfinished = false;
        while let Some(ready) = self.reactor.ready(Owner::Link) {
            if ready.key == LISTENER_KEY {
                self.acceptor.ready = true;
            } else if let Some(Some(connection)) = self.slots.get_mut(ready.key as usize - 1) {
                connection.stream.became(ready);
            }
        }
        self.accept(now);
        let mut events = 0;
        for slot in 0..self.slots.len() {
            events += self.drive(now, slot, sink);
        }
        self.dial_due(now);
        events
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let Some(slot) = self.peers.iter().find(|peer| peer.id == to).and_then(|peer| peer.up) else {
            return Ok(());
        };
        let Some(connection) = self.slots[slot].as_mut().filter(|connection| connection.broken.is_none())
        else {
            return Ok(());
        };
        let sent = connection.stream.send(parts);
        connection.watch_writes(&self.reactor);
        match sent {
            Ok(Ok(())) => {
                self.counters.frames_out += 1;
                self.counters.bytes_out += parts.iter().map(|part| part.len() as u64).sum::<u64>();
                Ok(())
            }
            Ok(Err(full)) => {
                self.counters.full += 1;
                Err(full)
            }
            Err(broken) => {
                connection.broken = Some(broken);
                self.unfinished = true;
                Ok(())
            }
        }
    }

    fn next_wake(&self) -> Time {
        if self.unfinished {
            return Time(0);
        }
        let dials = self.peers.iter().filter(|peer| peer.waits_to_dial()).map(|peer| peer.redial_at);
        let greetings = self.slots.iter().flatten().filter(|c| !c.is_up()).map(|c| c.deadline);
        dials.chain(greetings).min().unwrap_or(Time::NEVER).min(self.acceptor.next_wake())
    }
}

impl TcpLink {
    /// A link that listens, and dials at its first poll. An error is the system's: no descriptor, no memory.
    ///
    /// # Panics
    /// If this node's id is 0, or it is among its own peers.
    pub fn new(options: LinkOptions, reactor: Reactor) -> io::Result<TcpLink> {
        let LinkOptions { identity, listener, peers, stores } = options;
        assert!(identity.node != NodeId(0), "0 is no node's id");
        assert!(peers.iter().all(|(id, _)| *id != identity.node), "a node is not its own peer");
        let acceptor = Acceptor::new(listener, &reactor, Owner::Link)?;
        let peers = peers.into_iter().map(|(id, address)| Peer {
            id,
            address,
            store: stores.iter().find(|(known, _)| *known == id).map(|(_, store)| *store),
            up: None,
            dials: identity.node < id,
            dialing: None,
            redial_at: Time(0),
            redial_base: REDIAL_MIN,
            told_unreachable: false,
            told_refusal: None,
            connections: 0,
        });
        Ok(TcpLink {
            peers: peers.collect(),
            slots: Vec::with_capacity(UNGREETED_MAX + 2 * VOTERS_MAX),
            learned: Vec::new(),
            asides: Asides::default(),
            random: seed(identity),
            unfinished: true,
            counters: Counters::default(),
            reporter: Reporter::default(),
            identity,
            reactor,
            acceptor,
        })
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The data directories of peers that were met for the first time since the last call, for the node to keep: given
    /// to the next life's [`LinkOptions::stores`], a peer that lost its log between is refused.
    pub fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        std::mem::take(&mut self.learned)
    }

    /// This peer was met with this data directory elsewhere: with another one it is refused from now on. What is known
    /// already stays, and none of it is told by [`TcpLink::learned`].
    pub fn know(&mut self, peer: NodeId, store: StoreId) {
        if let Some(known) = self.peers.iter_mut().find(|known| known.id == peer) {
            known.store.get_or_insert(store);
        }
    }

    fn accept(&mut self, now: Time) {
        let TcpLink { acceptor, reporter, reactor, slots, counters, .. } = self;
        acceptor.poll(now, reporter, |socket, address| {
            let good = socket.set_nonblocking(true).and_then(|()| set_options(&socket, PEER_UNHEARD));
            if good.is_err() {
                return;
            }
            let waiting = |c: &Connection| c.state == State::AwaitsHello;
            if slots.iter().flatten().filter(|c| waiting(c)).count() >= UNGREETED_MAX {
                let oldest = (0..slots.len())
                    .filter(|&slot| slots[slot].as_ref().is_some_and(waiting))
                    .min_by_key(|&slot| slots[slot].as_ref().map(|c| c.deadline));
                if let Some(slot) = oldest {
                    counters.late += 1;
                    remove(slots, reactor, slot);
                }
            }
            // Without room at the reactor the connection is closed again, and its dialer comes back later.
            let _ = insert(slots, reactor, socket, address, State::AwaitsHello, now);
        });
        self.unfinished |= self.acceptor.ready && self.acceptor.paused_until <= now;
    }

    /// Moves one connection along; how many events that gave.
    fn drive(&mut self, now: Time, slot: usize, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let mut events = 0;
        match self.advance(now, slot, &mut events, sink) {
            Ok(()) => {}
            Err(broken) => events += self.end(now, slot, broken, sink),
        }
        events
    }

    fn advance(
        &mut self,
        now: Time,
        slot: usize,
        events: &mut usize,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<(), Broken> {
        let Some(connection) = self.slots[slot].as_mut() else { return Ok(()) };
        if let Some(broken) = connection.broken.take() {
            return Err(broken);
        }
        if let State::Connecting(peer) = connection.state {
            let stream = &mut connection.stream;
            let told = stream.readable || stream.writable;
            (stream.readable, stream.writable) = (false, false);
            if told && connection.is_made()? {
                (connection.stream.readable, connection.stream.writable) = (true, true);
                connection.state = State::AwaitsWelcome(peer);
                let hello = Greeting::Hello(self.identity.hello(self.peers[peer].id)).encode();
                let _ = connection.stream.send(&[&hello])?;
            } else if now < connection.deadline {
                return Ok(());
            }
        }
        connection.look_anyway();
        connection.stream.flush()?;
        connection.watch_writes(&self.reactor);
        if !connection.is_up() && now >= connection.deadline {
            self.counters.late += 1;
            let late = io::Error::new(io::ErrorKind::TimedOut, "no greeting within the time allowed");
            return Err(Broken::Failed(late));
        }
        self.receive(now, slot, events, sink)
    }

    fn receive(
        &mut self,
        now: Time,
        slot: usize,
        events: &mut usize,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<(), Broken> {
        let (mut frames, mut bytes) = (0, 0);
        while let Some(connection) = self.slots[slot].as_mut() {
            if frames >= FRAMES_PER_POLL || bytes >= BYTES_PER_POLL {
                self.unfinished = true;
                break;
            }
            match connection.stream.next()? {
                Next::Frame(kind, range) => {
                    frames += 1;
                    let len = range.len();
                    match connection.state {
                        State::Up(peer) if kind == Kind::Peer => {
                            self.counters.frames_in += 1;
                            self.counters.bytes_in += len as u64;
                            *events += 1;
                            let from = self.peers[peer].id;
                            sink(LinkEvent::Frame { from, bytes: connection.stream.bytes(range) });
                        }
                        State::Up(peer) if kind == Kind::Aside => {
                            *events += 1;
                            let from = self.peers[peer].id;
                            self.asides.take_in(from, connection.stream.bytes(range))?;
                        }
                        _ => {
                            let greeting = Greeting::decode(connection.stream.bytes(range));
                            let greeting = greeting.map_err(Broken::Malformed)?;
                            *events += self.greeted(now, slot, greeting, sink)?;
                        }
                    }
                }
                // At most one connection per peer is up, and others never get here: the memory is bounded by that.
                Next::Grow(bytes) => connection.stream.grow(bytes),
                Next::Short if !connection.stream.readable => break,
                Next::Short => bytes += connection.stream.fill()?,
            }
        }
        Ok(())
    }

    /// A greeting has come; how many events it gave.
    fn greeted(
        &mut self,
        now: Time,
        slot: usize,
        greeting: Greeting,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<usize, Broken> {
        let Some(connection) = self.slots[slot].as_ref() else { return Ok(0) };
        match (connection.state, greeting) {
            (State::AwaitsHello, Greeting::Hello(hello)) => match self.admit(&hello) {
                Ok(peer) => {
                    let welcome = Greeting::Welcome(self.identity.welcome()).encode();
                    if let Some(connection) = self.slots[slot].as_mut() {
                        let _ = connection.stream.send(&[&welcome])?;
                    }
                    Ok(self.establish(now, slot, peer, hello.store, sink))
                }
                Err(refusal) => {
                    let who = hello.node.map_or(0, |node| node.0);
                    self.refuse(now, slot, who, refusal);
                    Ok(0)
                }
            },
            (State::AwaitsWelcome(peer), Greeting::Welcome(welcome)) => {
                match self.check_welcome(peer, &welcome) {
                    Ok(()) => Ok(self.establish(now, slot, peer, welcome.store, sink)),
                    Err(refusal) => {
                        self.refuse(now, slot, welcome.node.0, refusal);
                        Ok(0)
                    }
                }
            }
            (State::AwaitsWelcome(place) | State::Up(place), Greeting::Refusal(refusal)) => {
                self.counters.refused += 1;
                let peer = &mut self.peers[place];
                if peer.told_refusal.replace(refusal) != Some(refusal) {
                    let (id, address) = (peer.id, connection.address);
                    match refusal {
                        Refusal::Meant { expected, .. } => self.say_mixed_up(now, id, address, expected),
                        _ => self
                            .reporter
                            .line(now, format_args!("node {id} at {address} refuses this node: {refusal}")),
                    }
                }
                let peer = &mut self.peers[place];
                peer.redial_base = REDIAL_MAX / 2;
                Ok(self.close(now, slot, true, sink))
            }
            _ => Err(Broken::Malformed(Malformed::Field("kind"))),
        }
    }

    /// Whose hello it is, if it belongs here.
    fn admit(&self, hello: &Hello) -> Result<usize, Refusal> {
        let found = self.identity.check_peer(hello)?;
        // Only a lower id dials: another one would be a second connection beside the one that this end makes.
        let place = self.peers.iter().position(|peer| peer.id == found && !peer.dials);
        let place = place.ok_or(Refusal::Node { found })?;
        check_store(self.peers[place].store, hello.store)?;
        Ok(place)
    }

    fn check_welcome(&self, peer: usize, welcome: &Welcome) -> Result<(), Refusal> {
        self.identity.check_welcome(self.peers[peer].id, welcome)?;
        check_store(self.peers[peer].store, welcome.store)
    }

    fn establish(
        &mut self,
        now: Time,
        slot: usize,
        place: usize,
        store: StoreId,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> usize {
        let mut events = 0;
        if let Some(old) = self.peers[place].up {
            events += self.close(now, old, false, sink);
        }
        let Some(connection) = self.slots[slot].as_mut() else { return events };
        connection.state = State::Up(place);
        connection.stream.establish();
        if self.peers.len() <= EAGER_PEERS_MAX {
            connection.make_eager(&self.reactor, slot);
        }
        let peer = &mut self.peers[place];
        if peer.store.is_none() {
            peer.store = Some(store);
            self.learned.push((peer.id, store));
        }
        self.counters.reconnects += u64::from(peer.connections > 0);
        (peer.up, peer.dialing) = (Some(slot), None);
        peer.connections += 1;
        (peer.redial_base, peer.told_unreachable, peer.told_refusal) = (REDIAL_MIN, false, None);
        self.reporter.line(now, format_args!("connected with node {} at {}", peer.id, connection.address));
        sink(LinkEvent::Up(peer.id));
        events + 1
    }

    /// What was said in greeting does not belong here: the other end is told so, and the operator.
    fn refuse(&mut self, now: Time, slot: usize, who: u32, refusal: Refusal) {
        self.counters.refused += 1;
        let Some(connection) = self.slots[slot].as_mut() else { return };
        connection.stream.leave(&Greeting::Refusal(refusal).encode());
        let address = connection.address;
        let dialed = if let State::AwaitsWelcome(peer) = connection.state { Some(peer) } else { None };
        let known = dialed.or_else(|| self.peers.iter().position(|peer| peer.id.0 == who));
        let told = known.and_then(|peer| self.peers[peer].told_refusal.replace(refusal));
        if told != Some(refusal) {
            match (dialed.map(|peer| self.peers[peer].id), refusal) {
                (Some(expected), Refusal::Node { found }) => {
                    self.say_mixed_up(now, expected, address, found);
                }
                _ => self.reporter.line(now, format_args!("refused node {who} at {address}: {refusal}")),
            }
        }
        if let Some(peer) = dialed {
            self.peers[peer].redial_base = REDIAL_MAX / 2;
        }
        self.close(now, slot, false, &mut |_| {});
    }

    fn say_mixed_up(&mut self, now: Time, expected: NodeId, address: SocketAddr, found: NodeId) {
        self.reporter.line(
            now,
            format_args!(
                "node {expected} was expected at {address}, and node {found} answers there: correct the addresses"
            ),
        );
    }

    /// Ends a connection that broke, with a line that says how; how many events that gave.
    fn end(&mut self, now: Time, slot: usize, broken: Broken, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let Some(connection) = self.slots[slot].as_ref() else { return 0 };
        let address = connection.address;
        let malformed = matches!(broken, Broken::Malformed(_));
        self.counters.malformed += u64::from(malformed);
        match connection.state {
            State::Up(peer) => {
                let id = self.peers[peer].id;
                self.reporter
                    .line(now, format_args!("connection with node {id} at {address} ended: {broken}"));
            }
            State::Connecting(peer) | State::AwaitsWelcome(peer) => {
                let peer = &mut self.peers[peer];
                if !peer.told_unreachable || malformed {
                    peer.told_unreachable = true;
                    let id = peer.id;
                    self.reporter
                        .line(now, format_args!("node {id} at {address} cannot be reached: {broken}"));
                }
            }
            // Who looks whether somebody listens, and leaves again, does no harm.
            State::AwaitsHello if matches!(broken, Broken::Closed) => {}
            State::AwaitsHello => {
                self.reporter.line(now, format_args!("dropped {address} at the peer port: {broken}"));
            }
        }
        self.close(now, slot, broken.by_peer(), sink)
    }

    /// Removes a connection and settles when to dial again; how many events that gave.
    fn close(
        &mut self,
        now: Time,
        slot: usize,
        by_peer: bool,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> usize {
        let Some(state) = self.slots[slot].as_ref().map(|connection| connection.state) else { return 0 };
        remove(&mut self.slots, &self.reactor, slot);
        let (State::Connecting(place) | State::AwaitsWelcome(place) | State::Up(place)) = state else {
            return 0;
        };
        let pause = self.next_pause(place);
        let peer = &mut self.peers[place];
        peer.redial_at = now.after(pause);
        if peer.dialing == Some(slot) {
            peer.dialing = None;
        }
        if peer.up != Some(slot) {
            return 0;
        }
        peer.up = None;
        sink(LinkEvent::Down { peer: peer.id, by_peer });
        1
    }

    fn next_pause(&mut self, place: usize) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let base = self.peers[place].redial_base;
        self.peers[place].redial_base = (base * 2).min(REDIAL_MAX / 2);
        base + Duration::from_nanos(self.random % base.as_nanos() as u64)
    }

    fn dial_due(&mut self, now: Time) {
        for place in 0..self.peers.len() {
            let peer = &self.peers[place];
            if !peer.waits_to_dial() || now < peer.redial_at {
                continue;
            }
            let dialed = dial(peer.address).and_then(|socket| {
                let state = State::Connecting(place);
                insert(&mut self.slots, &self.reactor, socket, self.peers[place].address, state, now)
            });
            match dialed {
                Ok(slot) => self.peers[place].dialing = Some(slot),
                Err(error) => {
                    let pause = self.next_pause(place);
                    let peer = &mut self.peers[place];
                    peer.redial_at = now.after(pause);
                    if !std::mem::replace(&mut peer.told_unreachable, true) {
                        let Peer { id, address, .. } = peer;
                        self.reporter
                            .line(now, format_args!("node {id} at {address} cannot be reached: {error}"));
                    }
                }
            }
        }
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        for slot in 0..self.slots.len() {
            remove(&mut self.slots, &self.reactor, slot);
        }
        self.reactor.deregister(self.acceptor.listener.as_fd(), Owner::Link, LISTENER_KEY);
    }
}

impl Peer {
    fn waits_to_dial(&self) -> bool {
        self.dials && self.up.is_none() && self.dialing.is_none()
    }
}

#[cfg(test)]
impl TcpLink {
    pub(super) fn lines(&self) -> &[String] {
        &self.reporter.lines
    }

    pub(super) fn acceptor_address(&self) -> SocketAddr {
        self.acceptor.listener.local_addr().expect("a listener has an address")
    }

    pub(super) fn acceptor_has_more(&self) -> bool {
        self.acceptor.ready
    }

    pub(super) fn is_up_any(&self) -> bool {
        self.peers.iter().any(|peer| peer.up.is_some())
    }

    /// The memory of all receive buffers and of all that waits to be sent.
    pub(super) fn memory_bytes(&self) -> (usize, usize) {
        let streams = || self.slots.iter().flatten().map(|connection| &connection.stream);
        (
            streams().map(super::stream::Stream::buffer_bytes).sum(),
            streams().map(super::stream::Stream::outgoing_bytes).sum(),
        )
    }
}
