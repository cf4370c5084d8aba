//! Over recvmmsg and sendmmsg. The sockets are looked at in every turn: while the lane spins nothing has to tell it
//! that something came, and only while it blocks the reactor watches.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::base::{Base, Refused};
use super::socket::{self, BATCH_MAX, Incoming, Outgoing};
use crate::io::datagram::Arrival;
use crate::io::reactor::{Owner, Reactor};
use crate::types::Time;

/// How many calls one poll makes at most at one socket while each brings all that it can.
const CALLS_PER_POLL: usize = 4;

/// Where all peers have sockets of their own, the shared one is looked at so often while nothing comes to it.
const SHARED_PAUSE: Duration = Duration::from_micros(20);

/// And so many messages are taken from it at once: strangers may send what they like, and each costs the lane
/// something.
const SHARED_BATCH_MAX: usize = 4;

pub(super) struct Plain {
    incoming: Incoming,
    shared: Appetite,
    /// Of the peers' own sockets, in their order.
    connected: Box<[Appetite]>,
    /// Before this time the shared socket is not looked at again, if nothing says that something has come.
    shared_at: Time,
}

/// How much is asked of a socket.
#[derive(Clone, Copy, Debug)]
struct Appetite {
    /// How many messages the next call asks for. A lane that plays ping-pong finds one, and to look for a second would
    /// only cost.
    batch: usize,
    batch_max: usize,
    calls_max: usize,
    /// The last call brought all that it was asked for: there may be more.
    has_more: bool,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("has_more", &self.has_more()).finish_non_exhaustive()
    }
}

impl Appetite {
    const PEER: Appetite =
        Appetite { batch: 1, batch_max: BATCH_MAX, calls_max: CALLS_PER_POLL, has_more: true };
    const STRANGERS: Appetite = Appetite { batch_max: SHARED_BATCH_MAX, calls_max: 1, ..Appetite::PEER };

    /// A call brought so many messages. Whether another one is worth it in this poll.
    fn brought(&mut self, count: usize) -> bool {
        self.has_more = count == self.batch;
        self.batch = if self.has_more { (2 * self.batch).min(self.batch_max) } else { 1 };
        // After a single one the next turn finds out whether there is more: this one may be what a commit waits for.
        self.has_more && count > 1
    }

    fn brought_nothing(&mut self) {
        (self.has_more, self.batch) = (false, 1);
    }
}

impl Plain {
    pub(super) fn new(base: &Base) -> Plain {
        Plain {
            incoming: Incoming::new(base.receive_bytes()),
            shared: if base.all_connected { Appetite::STRANGERS } else { Appetite::PEER },
            connected: base.connected.iter().map(|_| Appetite::PEER).collect(),
            shared_at: Time(0),
        }
    }

    fn has_more(&self) -> bool {
        self.shared.has_more || self.connected.iter().any(|appetite| appetite.has_more)
    }

    pub(super) fn poll(
        &mut self,
        base: &mut Base,
        reactor: &Reactor,
        now: Time,
        sink: &mut impl FnMut(Arrival<'_, SocketAddr>),
    ) -> usize {
        base.now = now;
        while let Some(ready) = reactor.ready(Owner::Udp) {
            base.has_troubles |= ready.closed;
            self.shared_at = now;
        }
        if !base.queue.none_waits() {
            self.flush(base);
        }
        let mut events = base.tell_troubles(sink);
        for place in 0..self.connected.len() {
            events += self.receive(base, Some(place), sink);
        }
        if !base.all_connected || self.shared.has_more || now >= self.shared_at {
            self.shared_at = now.after(SHARED_PAUSE);
            events += self.receive(base, None, sink);
        }
        events
    }

    /// Takes what has come to the socket at this place, a bounded amount.
    fn receive(
        &mut self,
        base: &mut Base,
        place: Option<usize>,
        sink: &mut impl FnMut(Arrival<'_, SocketAddr>),
    ) -> usize {
        let Plain { incoming, shared, connected, .. } = self;
        let appetite = place.map_or(shared, |place| &mut connected[place]);
        let mut events = 0;
        for _ in 0..appetite.calls_max {
            match incoming.receive(base.socket_at(place), appetite.batch) {
                Ok(count) => {
                    for at in 0..count {
                        let received = incoming.take(at);
                        let segment_bytes = socket::joined_segment(received.control);
                        events +=
                            base.deliver(received.from, segment_bytes, received.is_cut, received.bytes, sink);
                    }
                    if !appetite.brought(count) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    appetite.brought_nothing();
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // About something that was sent, told once.
                Err(_) => (base.has_troubles, appetite.has_more) = (true, true),
            }
        }
        events
    }

    pub(super) fn flush(&mut self, base: &mut Base) {
        let mut attempts = 0;
        while !base.queue.none_waits() && base.now >= base.retry_at {
            let place = base.queue.waiting().next().and_then(|(_, first, _)| base.connected_to(first.to));
            let waiting = base.queue.waiting().map_while(|(_, message, bytes)| {
                (base.connected_to(message.to) == place).then(|| Outgoing {
                    name: place.is_none().then_some(&message.name),
                    bytes,
                    segment_bytes: (message.datagrams() > 1).then_some(message.segment_bytes),
                })
            });
            match socket::send(base.socket_at(place), waiting) {
                Ok(count) => {
                    attempts = 0;
                    for _ in 0..count {
                        let number = base.queue.hand_over();
                        let message = base.queue.message(number);
                        let (datagrams, len_bytes) = (message.datagrams(), message.len_bytes);
                        base.sent(datagrams, len_bytes);
                        base.queue.done(number);
                    }
                }
                Err(error) => {
                    attempts += 1;
                    if !self.settle(base, &error, attempts) {
                        return;
                    }
                }
            }
        }
    }

    /// The oldest message that waits was refused. Whether to go on.
    fn settle(&mut self, base: &mut Base, error: &io::Error, attempts: u32) -> bool {
        let Some((number, message, _)) = base.queue.waiting().next() else { return false };
        let (to, datagrams) = (message.to, message.datagrams());
        match base.refused(to, datagrams, error.raw_os_error().unwrap_or(0), attempts) {
            Refused::Again => return true,
            Refused::Later => return false,
            Refused::Apart => send_apart(base, number),
            Refused::Lost => {}
        }
        base.queue.done_at_once();
        true
    }

    pub(super) fn next_wake(&self, base: &Base) -> Time {
        if self.has_more() || base.has_troubles {
            Time(0)
        } else if base.queue.none_waits() {
            Time::NEVER
        } else {
            base.retry_at
        }
    }
}

/// Sends each datagram of a message alone. What is refused even so is lost.
///
/// Only if all of them pass it is the joining that was refused. A path that has become narrow is told in the same way
/// where the kernel would have cut, and of such a message the last datagram, which may be shorter, passes.
pub(super) fn send_apart(base: &mut Base, number: usize) {
    let message = *base.queue.message(number);
    let socket = base.socket_at(base.connected_to(message.to));
    let (mut sent, mut sent_bytes, mut too_long) = (0, 0, 0);
    for datagram in base.queue.bytes(number).chunks(message.segment_bytes) {
        let alone = Outgoing { name: Some(&message.name), bytes: datagram, segment_bytes: None };
        match socket::send(socket, std::iter::once(alone)) {
            Ok(_) => (sent, sent_bytes) = (sent + 1, sent_bytes + datagram.len()),
            Err(error) => too_long += usize::from(error.raw_os_error() == Some(libc::EMSGSIZE)),
        }
    }
    base.counters.unsent += (message.datagrams() - sent - too_long) as u64;
    if too_long > 0 {
        base.too_long(message.to, too_long);
    }
    if sent > 0 {
        base.sent(sent, sent_bytes);
    }
    if sent == message.datagrams() {
        base.stop_joining();
    }
}
