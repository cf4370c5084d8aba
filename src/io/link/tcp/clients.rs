//! [`TcpPort`]: the clients of one lane.
//!
//! Clients are served in turn: each that has something is given a few frames, then goes to the end of the queue, until
//! the sink has enough. What a client has sent beyond that stays in its buffer, and then in its socket.
//!
//! Memory is bounded three times over. A client has a buffer of 64 KiB. A longer frame needs more, and that comes out
//! of one allowance for all clients of the lane: a client for whom nothing is left is not read until others are done.
//! So that nobody sits on the allowance with half a frame, a frame that was given memory must be whole in
//! `FRAME_TIMEOUT`. What waits to be sent to a client is bounded by [`CLIENT_OUTGOING_BYTES_MAX`].
//!
//! A poll that returns 0 has nothing left to do but for what readiness will tell and deadlines, which are looked at
//! whenever the lane turns next.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::stream::{BUFFER_BYTES, Broken, Next, Stream};
use super::{Acceptor, HELLO_TIMEOUT, Identity, LISTENER_KEY, UNGREETED_MAX, set_options};
use crate::io::link::{Counters, Reporter};
use crate::io::reactor::{Owner, Reactor};
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::limits::{CLIENT_OUTGOING_BYTES_MAX, CLIENTS_MAX, FRAME_BYTES_MAX};
use crate::types::Time;
use crate::wire::Malformed;
use crate::wire::frame::Kind;
use crate::wire::hello::{Greeting, Hello, Refusal};

/// How many frames one client is given before it is the next one's turn.
const FRAMES_PER_TURN: usize = 4;

/// How many bytes one client's socket is read for before it is the next one's turn.
const BYTES_PER_TURN: usize = 256 << 10;

/// How many turns of clients one poll gives at most.
const TURNS_PER_POLL: usize = 256;

/// The receive memory beyond 64 KiB each that all clients of a lane have together.
pub(super) const GROWN_BYTES_MAX: usize = 64 << 20;

/// How long a frame may take to arrive for which memory was reserved.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// How often deadlines are looked at.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// A client that has not acknowledged what was sent to it for so long is taken for gone. One that only reads slowly
/// has a full window for so long, too.
const CLIENT_UNHEARD: Duration = Duration::from_secs(60);

const _: () = assert!(GROWN_BYTES_MAX >= 4 * FRAME_BYTES_MAX);

/// What a port is told when it is made.
#[derive(Debug)]
pub struct PortOptions {
    /// Who this end is.
    pub identity: Identity,
    /// Where clients are listened for: bound by the node, so that a port in use is found when it starts.
    pub listener: TcpListener,
    /// How many clients are served at once; at most [`CLIENTS_MAX`].
    pub clients_max: usize,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: Stream,
    address: SocketAddr,
    /// Hello was found good.
    open: bool,
    /// It stands in the queue.
    queued: bool,
    /// It waits for receive memory, and is not served until then.
    stalled: bool,
    /// Until when its hello, or the long frame that has begun, must be there.
    deadline: Time,
}

/// See the module.
#[derive(Debug)]
pub struct TcpPort {
    identity: Identity,
    reactor: Reactor,
    acceptor: Acceptor,
    clients_max: usize,
    slots: Vec<Option<Client>>,
    vacant: Vec<usize>,
    opened: usize,
    ungreeted: usize,
    /// Whose turn it is next.
    queue: VecDeque<usize>,
    /// Who waits for receive memory.
    stalled: VecDeque<usize>,
    grown_bytes: usize,
    /// Gone, and the sink has not been told.
    closed: VecDeque<ClientId>,
    accepted: u64,
    next_sweep: Time,
    now: Time,
    counters: Counters,
    reporter: Reporter,
}

/// How a client's turn ended.
enum Turn {
    /// It has nothing more, or waits for memory.
    Done,
    /// It has more.
    Again,
    /// The sink has enough.
    Stopped,
}

impl Port for TcpPort {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(PortEvent<'_>) -> Flow) -> usize {
        self.now = now;
        self.collect();
        self.accept();
        if now >= self.next_sweep {
            self.next_sweep = now.after(SWEEP_PERIOD);
            self.sweep();
        }
        let mut events = 0;
        while let Some(id) = self.closed.pop_front() {
            events += 1;
            if sink(PortEvent::Closed(id)) == Flow::Stop {
                return events;
            }
        }
        for _ in 0..TURNS_PER_POLL {
            let Some(slot) = self.queue.pop_front() else { break };
            if let Some(client) = self.slots[slot].as_mut() {
                client.queued = false;
            }
            match self.turn(slot, &mut events, sink) {
                Ok(Turn::Done) => {}
                Ok(Turn::Again) => self.enqueue(slot),
                Ok(Turn::Stopped) => {
                    self.enqueue(slot);
                    return events;
                }
                Err(broken) => self.end(slot, &broken),
            }
        }
        // What is left is no event, but whoever asks must come again without waiting.
        let left = !self.queue.is_empty() || !self.closed.is_empty() || self.acceptor.next_wake() <= now;
        events.max(usize::from(left))
    }

    fn send(&mut self, to: ClientId, parts: &[&[u8]]) {
        let slot = slot_of(to);
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut).filter(|c| c.id == to) else {
            return;
        };
        match client.stream.send(parts) {
            Ok(Ok(())) => {
                self.counters.frames_out += 1;
                self.counters.bytes_out += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            }
            Ok(Err(_)) => {
                self.counters.full += 1;
                let waiting = client.stream.outgoing_bytes();
                self.drop_client(slot, format_args!("it does not read: {waiting} bytes wait for it"));
            }
            Err(broken) => self.end(slot, &broken),
        }
    }

    fn close(&mut self, client: ClientId, why: &str) {
        let slot = slot_of(client);
        if self.slots.get(slot).and_then(Option::as_ref).is_some_and(|c| c.id == client) {
            self.counters.malformed += 1;
            self.drop_client(slot, format_args!("{why}"));
        }
    }
}

impl TcpPort {
    /// A port that listens. An error is the system's: no descriptor, no memory.
    pub fn new(options: PortOptions, reactor: Reactor) -> io::Result<TcpPort> {
        let PortOptions { identity, listener, clients_max } = options;
        assert!((1..=CLIENTS_MAX).contains(&clients_max), "{clients_max} clients");
        let acceptor = Acceptor::new(listener, &reactor, Owner::Port)?;
        Ok(TcpPort {
            identity,
            reactor,
            acceptor,
            clients_max,
            slots: Vec::new(),
            vacant: Vec::new(),
            opened: 0,
            ungreeted: 0,
            queue: VecDeque::new(),
            stalled: VecDeque::new(),
            grown_bytes: 0,
            closed: VecDeque::new(),
            accepted: 0,
            next_sweep: Time(0),
            now: Time(0),
            counters: Counters::default(),
            reporter: Reporter::default(),
        })
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many clients are served at this time.
    pub fn clients(&self) -> usize {
        self.opened
    }

    fn collect(&mut self) {
        while let Some(ready) = self.reactor.ready(Owner::Port) {
            if ready.key == LISTENER_KEY {
                self.acceptor.ready = true;
                continue;
            }
            let slot = ready.key as usize - 1;
            if let Some(Some(client)) = self.slots.get_mut(slot) {
                client.stream.became(ready);
                // Answers do not wait for the client's turn to ask.
                match client.stream.flush() {
                    Ok(()) => self.enqueue(slot),
                    Err(broken) => self.end(slot, &broken),
                }
            }
        }
    }

    fn enqueue(&mut self, slot: usize) {
        if let Some(client) = self.slots[slot].as_mut()
            && !client.queued
        {
            client.queued = true;
            self.queue.push_back(slot);
        }
    }

    fn accept(&mut self) {
        let mut fresh = Vec::new();
        self.acceptor.poll(self.now, &mut self.reporter, |socket, address| fresh.push((socket, address)));
        for (socket, address) in fresh {
            if self.ungreeted >= UNGREETED_MAX {
                self.drop_oldest_ungreeted();
            }
            // Without room at the reactor the connection is closed again, and its client comes back later.
            let _ = self.insert(socket, address);
        }
    }

    fn drop_oldest_ungreeted(&mut self) {
        let waiting = self.slots.iter().flatten().filter(|client| !client.open);
        if let Some(slot) = waiting.min_by_key(|client| client.deadline).map(|client| slot_of(client.id)) {
            self.counters.late += 1;
            self.drop_client(slot, format_args!("no hello, and others wait"));
        }
    }

    fn insert(&mut self, socket: TcpStream, address: SocketAddr) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        set_options(&socket, CLIENT_UNHEARD)?;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Err(error) = self.reactor.register(socket.as_fd(), Owner::Port, slot as u32 + 1) {
            self.vacant.push(slot);
            return Err(error);
        }
        self.accepted += 1;
        self.slots[slot] = Some(Client {
            id: ClientId(self.accepted << SLOT_BITS | slot as u64),
            stream: Stream::new(socket, CLIENT_OUTGOING_BYTES_MAX),
            address,
            open: false,
            queued: false,
            stalled: false,
            deadline: self.now.after(HELLO_TIMEOUT),
        });
        self.ungreeted += 1;
        self.enqueue(slot);
        Ok(())
    }

    /// Drops who has not kept a deadline.
    fn sweep(&mut self) {
        for slot in 0..self.slots.len() {
            let Some(client) = self.slots[slot].as_ref().filter(|client| self.now >= client.deadline) else {
                continue;
            };
            self.counters.late += 1;
            let why = if client.open { "half a long frame" } else { "no hello" };
            self.drop_client(slot, format_args!("{why} within the time allowed"));
        }
        if !self.stalled.is_empty() {
            self.reclaim();
            self.wake_stalled();
        }
    }

    fn turn(
        &mut self,
        slot: usize,
        events: &mut usize,
        sink: &mut impl FnMut(PortEvent<'_>) -> Flow,
    ) -> Result<Turn, Broken> {
        let (mut frames, mut bytes) = (0, 0);
        while let Some(client) = self.slots[slot].as_mut().filter(|client| !client.stalled) {
            if frames >= FRAMES_PER_TURN || bytes >= BYTES_PER_TURN {
                return Ok(Turn::Again);
            }
            match client.stream.next()? {
                Next::Frame(kind, range) => {
                    frames += 1;
                    let flow = if !client.open {
                        let greeting = Greeting::decode(client.stream.bytes(range));
                        self.greeted(slot, greeting.map_err(Broken::Malformed)?, events, sink)?
                    } else if kind == Kind::Request {
                        client.deadline = Time::NEVER;
                        self.counters.frames_in += 1;
                        self.counters.bytes_in += range.len() as u64;
                        *events += 1;
                        sink(PortEvent::Frame { from: client.id, bytes: client.stream.bytes(range) })
                    } else {
                        return Err(Broken::Malformed(Malformed::Field("kind")));
                    };
                    if flow == Flow::Stop {
                        return Ok(Turn::Stopped);
                    }
                }
                Next::Grow(bytes) => self.grow(slot, bytes),
                Next::Short if !client.stream.readable => break,
                Next::Short => bytes += client.stream.fill()?,
            }
        }
        self.give_back(slot);
        Ok(Turn::Done)
    }

    fn greeted(
        &mut self,
        slot: usize,
        greeting: Greeting,
        events: &mut usize,
        sink: &mut impl FnMut(PortEvent<'_>) -> Flow,
    ) -> Result<Flow, Broken> {
        let Greeting::Hello(hello) = greeting else {
            return Err(Broken::Malformed(Malformed::Field("kind")));
        };
        let Some(client) = self.slots[slot].as_mut() else { return Ok(Flow::More) };
        if let Err(refusal) = admit(&self.identity, &hello, self.opened, self.clients_max) {
            self.counters.refused += 1;
            client.stream.leave(&Greeting::Refusal(refusal).encode());
            self.drop_client(slot, format_args!("{refusal}"));
            return Ok(Flow::More);
        }
        let _ = client.stream.send(&[&Greeting::Welcome(self.identity.welcome()).encode()])?;
        client.stream.establish();
        client.open = true;
        client.deadline = Time::NEVER;
        self.ungreeted -= 1;
        self.opened += 1;
        self.counters.reconnects += 1;
        *events += 1;
        Ok(sink(PortEvent::Opened(client.id)))
    }

    /// A frame has begun that is longer than the client's buffer.
    fn grow(&mut self, slot: usize, bytes: usize) {
        let now = self.now;
        let Some(held) = self.slots[slot].as_ref().map(|client| client.stream.buffer_bytes()) else { return };
        let more = bytes - held;
        if self.grown_bytes + more > GROWN_BYTES_MAX {
            self.reclaim();
        }
        let enough = self.grown_bytes + more <= GROWN_BYTES_MAX;
        let Some(client) = self.slots[slot].as_mut() else { return };
        if enough {
            client.stream.grow(bytes);
            client.deadline = now.after(FRAME_TIMEOUT);
            self.grown_bytes += more;
        } else {
            client.stalled = true;
            self.stalled.push_back(slot);
        }
    }

    /// Takes back what clients hold that are not within a long frame.
    fn reclaim(&mut self) {
        for client in self.slots.iter_mut().flatten() {
            let before = client.stream.buffer_bytes();
            client.stream.shrink();
            self.grown_bytes -= before - client.stream.buffer_bytes();
        }
    }

    /// A client has nothing more at this time: its long buffer serves who waits, or stays for its next long frame.
    fn give_back(&mut self, slot: usize) {
        let Some(client) = self.slots[slot].as_mut() else { return };
        if client.stream.buffer_bytes() > BUFFER_BYTES {
            // The long buffer may be that of an earlier frame: half a frame in it has a deadline all the same.
            client.deadline = match client.stream.is_within_frame() {
                true => client.deadline.min(self.now.after(FRAME_TIMEOUT)),
                false => Time::NEVER,
            };
        }
        if !self.stalled.is_empty() || self.grown_bytes > GROWN_BYTES_MAX / 2 {
            let before = client.stream.buffer_bytes();
            client.stream.shrink();
            self.grown_bytes -= before - client.stream.buffer_bytes();
            self.wake_stalled();
        }
    }

    /// Memory came back: who waits for it asks again, in turn.
    fn wake_stalled(&mut self) {
        if self.grown_bytes + FRAME_BYTES_MAX > GROWN_BYTES_MAX {
            return;
        }
        while let Some(slot) = self.stalled.pop_front() {
            if let Some(client) = self.slots[slot].as_mut().filter(|client| client.stalled) {
                client.stalled = false;
                self.enqueue(slot);
                return;
            }
        }
    }

    fn end(&mut self, slot: usize, broken: &Broken) {
        self.counters.malformed += u64::from(matches!(broken, Broken::Malformed(_)));
        match broken {
            // Clients come and go: no line for those that leave in order.
            Broken::Closed => self.remove(slot),
            _ => self.drop_client(slot, format_args!("{broken}")),
        }
    }

    /// Drops a client, with a line that says why.
    fn drop_client(&mut self, slot: usize, why: std::fmt::Arguments<'_>) {
        if let Some(client) = self.slots[slot].as_ref() {
            self.reporter
                .line(self.now, format_args!("dropped {} at the client port: {why}", client.address));
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        let Some(client) = self.slots[slot].take() else { return };
        self.reactor.deregister(client.stream.fd(), Owner::Port, slot as u32 + 1);
        if client.queued {
            self.queue.retain(|&queued| queued != slot);
        }
        if client.stalled {
            self.stalled.retain(|&stalled| stalled != slot);
        }
        self.grown_bytes -= client.stream.buffer_bytes().saturating_sub(BUFFER_BYTES);
        if client.open {
            self.opened -= 1;
            self.closed.push_back(client.id);
        } else {
            self.ungreeted -= 1;
        }
        self.vacant.push(slot);
        self.wake_stalled();
    }
}

impl Drop for TcpPort {
    fn drop(&mut self) {
        for slot in 0..self.slots.len() {
            self.remove(slot);
        }
        self.reactor.deregister(self.acceptor.listener.as_fd(), Owner::Port, LISTENER_KEY);
    }
}

/// A client's id holds its slot in the lower bits, and above them which of the slot's many users it is.
const SLOT_BITS: u32 = 16;
const _: () = assert!(CLIENTS_MAX + UNGREETED_MAX <= 1 << SLOT_BITS);

fn slot_of(id: ClientId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}

fn admit(identity: &Identity, hello: &Hello, opened: usize, clients_max: usize) -> Result<(), Refusal> {
    identity.check(hello)?;
    if let Some(found) = hello.node {
        return Err(Refusal::Node { found });
    }
    if opened >= clients_max { Err(Refusal::Crowded) } else { Ok(()) }
}

#[cfg(test)]
impl TcpPort {
    pub(super) fn lines(&self) -> &[String] {
        &self.reporter.lines
    }

    pub(super) fn acceptor_address(&self) -> SocketAddr {
        self.acceptor.listener.local_addr().expect("a listener has an address")
    }

    pub(super) fn stalled(&self) -> usize {
        self.stalled.len()
    }

    /// The memory of all receive buffers.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.slots.iter().flatten().map(|client| client.stream.buffer_bytes()).sum()
    }
}
