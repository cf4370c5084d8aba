//! Over recvmmsg and sendmmsg. The socket is looked at in every turn: while the lane spins nothing has to tell it that
//! something came, and only while it blocks the reactor watches.

use std::io;
use std::net::SocketAddr;

use super::base::{Base, Refused};
use super::socket::{self, BATCH_MAX, Incoming, Outgoing};
use crate::io::datagram::Arrival;
use crate::io::reactor::{Owner, Reactor};
use crate::types::Time;

/// How many calls one poll makes at most while each brings all that it can.
const CALLS_PER_POLL: usize = 4;

pub(super) struct Plain {
    incoming: Incoming,
    /// How many messages the next call asks for. A lane that plays ping-pong finds one, and to look for a second would
    /// only cost.
    batch: usize,
    /// The last call brought all that it was asked for: there may be more.
    has_more: bool,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("has_more", &self.has_more).finish_non_exhaustive()
    }
}

impl Plain {
    pub(super) fn new(each_bytes: usize) -> Plain {
        Plain { incoming: Incoming::new(each_bytes), batch: 1, has_more: true }
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
        }
        if !base.queue.none_waits() {
            self.flush(base);
        }
        let mut events = base.tell_troubles(sink);
        for _ in 0..CALLS_PER_POLL {
            match self.incoming.receive(&base.socket, self.batch) {
                Ok(count) => {
                    for at in 0..count {
                        let received = self.incoming.take(at);
                        let segment_bytes = socket::joined_segment(received.control);
                        events +=
                            base.deliver(received.from, segment_bytes, received.is_cut, received.bytes, sink);
                    }
                    self.has_more = count == self.batch;
                    if !self.has_more {
                        self.batch = 1;
                        break;
                    }
                    self.batch = (2 * self.batch).min(BATCH_MAX);
                    if count == 1 {
                        // Whether there is more the next turn finds out: this one may be what a commit waits for.
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (self.has_more, self.batch) = (false, 1);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // About something that was sent, told once.
                Err(_) => base.has_troubles = true,
            }
        }
        events
    }

    pub(super) fn flush(&mut self, base: &mut Base) {
        let mut attempts = 0;
        while !base.queue.none_waits() && base.now >= base.retry_at {
            let waiting = base.queue.waiting().map(|(_, message, bytes)| Outgoing {
                name: &message.name,
                bytes,
                segment_bytes: (message.datagrams() > 1).then_some(message.segment_bytes),
            });
            match socket::send(&base.socket, waiting) {
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
        if self.has_more || base.has_troubles {
            Time(0)
        } else if base.queue.none_waits() {
            Time::NEVER
        } else {
            base.retry_at
        }
    }
}

/// Sends each datagram of a message alone. What is refused even so is lost.
pub(super) fn send_apart(base: &mut Base, number: usize) {
    let message = *base.queue.message(number);
    let (mut sent, mut sent_bytes) = (0, 0);
    for datagram in base.queue.bytes(number).chunks(message.segment_bytes) {
        let alone = Outgoing { name: &message.name, bytes: datagram, segment_bytes: None };
        if socket::send(&base.socket, std::iter::once(alone)).is_ok() {
            (sent, sent_bytes) = (sent + 1, sent_bytes + datagram.len());
        }
    }
    base.counters.unsent += (message.datagrams() - sent) as u64;
    if sent > 0 {
        base.sent(sent, sent_bytes);
        base.stop_joining();
    }
}
