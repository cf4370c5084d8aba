//! Datagrams over UDP, the system's own.
//!
//! One port per lane, where the lane's TCP link listens. Nothing is allocated after start: what is sent waits in
//! one bounded queue, what comes is received into memory that the carrier has.
//!
//! **Sockets.** Each peer whose place is known has a socket of its own, connected to it ([`Options::known`]): the
//! kernel looks for the way once, and what a stranger sends waits in another buffer, in the socket that all others
//! share. That one is looked at less often, and little of it is taken at a time, for nobody in it has a session whose
//! frames are urgent, unless a peer comes from elsewhere.
//!
//! **Path.** Nothing is cut into IP fragments on the way (don't-fragment is set): a datagram is at most as long as the
//! configured MTU allows, and one that a path does not carry is lost, counted and told to the operator.
//!
//! **Errors.** What routers and the other end's system say of datagrams that cannot arrive is read from the socket's
//! error queue, with the address that it is about: a hint, for ICMP can be forged. No error of one peer, nor an
//! interface that goes down, ends anything: what cannot be sent is lost, as any datagram may be.
//!
//! **Receive buffer.** A socket holds a window of datagrams of every peer of its own until they are polled, as the
//! kernel counts memory; where the system gives less the window is smaller, and [`UdpCarrier::notes`] says what to set.
//!
//! **What is too long** is no datagram of ours, and to copy it costs the lane more than to drop it: the kernel keeps no
//! more of it than tells that it was too long, if it does not begin as a run of ours might ([`Options::begins_with`]).
//!
//! **Joined datagrams.** Consecutive datagrams of one length to one address go to the kernel as one (UDP_SEGMENT), and
//! the kernel hands such runs over as one (UDP_GRO), where it can. Over loopback with packets of 1500 bytes that made
//! frames of 1 MiB 3.5 times as fast as datagrams sent one by one (0.8 ms there and back instead of 2.8 ms), and short
//! ones in a stream 7 times; a single datagram is neither faster nor slower for it.
//!
//! **Two ways to the kernel.** recvmmsg and sendmmsg ([`Backend::Plain`]), or the lane's io_uring ([`Backend::Uring`]).
//! The plain one is the default because it was measured to be faster for a lane that spins: over loopback, both ends
//! spinning, a frame of 64 bytes came back after 4.5 us over it, after 5.9 us over io_uring, and after 3.7 us over a
//! raw socket with a single call each way (`plimsoll bench link`). A spinning lane that asks the socket itself gets
//! what has come with that one call. Over the ring the arrival queues work for the lane, which has to enter the kernel
//! to have it done, and a send is a second entry with more bookkeeping than a call. The ring's way costs nothing while
//! nothing comes, which pays with very many sockets and idle lanes, and a lane has one for each peer and one more. Over
//! io_uring only the shared socket is used.

mod base;
mod connected;
#[cfg(test)]
mod link_tests;
mod plain;
mod queue;
mod ring;
mod socket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use self::base::Base;
use self::plain::Plain;
use self::ring::Ring;
use crate::io::Full;
use crate::io::datagram::{Arrival, Carrier};
use crate::io::reactor::{Owner, Reactor};
use crate::types::Time;

/// What a carrier is told when it is made.
#[derive(Debug)]
pub struct Options {
    /// Bound by the node, so that a port in use is found when it starts.
    pub socket: UdpSocket,
    /// How many peers may send at once.
    pub peers: usize,
    /// Where those of them are that stay where they are: each has a socket of its own, over [`Backend::Plain`]. The
    /// others share a receive buffer.
    pub known: Vec<SocketAddr>,
    /// The longest IP packet that every path carries, in bytes: 1500 on most Ethernets, 65536 on loopback.
    pub mtu_bytes: usize,
    /// The lane spins: the kernel may look at the device's queue for it.
    pub busy_poll: bool,
    /// Runs of datagrams of one length may go to the kernel, and come from it, as one. Off, if a device does it wrong.
    pub joins: bool,
    /// How it speaks to the kernel.
    pub backend: Backend,
    /// The first bytes of every datagram of ours: what is too long and begins with others the kernel cuts off.
    pub begins_with: Option<[u8; 4]>,
}

impl Options {
    /// With what fits most lanes.
    pub fn new(socket: UdpSocket, peers: usize, mtu_bytes: usize) -> Options {
        Options {
            socket,
            peers,
            known: Vec::new(),
            mtu_bytes,
            busy_poll: false,
            joins: true,
            backend: Backend::default(),
            begins_with: None,
        }
    }
}

/// How a carrier speaks to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// recvmmsg and sendmmsg.
    #[default]
    Plain,
    /// The lane's ring.
    Uring,
}

/// What a carrier has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams given to the sink.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams that the system took.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// System calls, or entries of the ring, that they took: fewer where datagrams were joined.
    pub messages_out: u64,
    /// The same of what came.
    pub messages_in: u64,
    /// Sends refused as `Full`.
    pub full: u64,
    /// Datagrams dropped because they are longer than [`Carrier::datagram_bytes_max`], in either direction, or longer
    /// than a path carries.
    pub too_long: u64,
    /// Datagrams that the system did not take: no route, an interface that is down, a filter.
    pub unsent: u64,
    /// What was told of datagrams that cannot arrive.
    pub unreachable: u64,
    /// Datagrams that came from nowhere that can be named.
    pub nameless: u64,
}

/// See the module.
#[derive(Debug)]
pub struct UdpCarrier {
    base: Base,
    way: Way,
    reactor: Reactor,
}

#[derive(Debug)]
enum Way {
    Plain(Plain),
    Ring(Ring),
}

impl UdpCarrier {
    /// A carrier over a bound socket. An error is the system's.
    pub fn new(options: Options, reactor: &Reactor) -> io::Result<UdpCarrier> {
        let wanted = options.backend;
        let mut base = Base::new(options)?;
        let ring = match wanted {
            Backend::Uring => Ring::new(&base, reactor).map(Some),
            Backend::Plain => Ok(None),
        };
        let way = match ring {
            Ok(Some(ring)) => Way::Ring(ring),
            Ok(None) => Way::Plain(Plain::new(&base)),
            Err(error) => {
                base.notes.push(format!("udp: over recvmmsg and sendmmsg instead of io_uring: {error}"));
                Way::Plain(Plain::new(&base))
            }
        };
        // Dropped, it takes back what it has registered.
        let carrier = UdpCarrier { base, way, reactor: reactor.clone() };
        if let Way::Plain(_) = carrier.way {
            for (key, socket) in carrier.base.sockets() {
                reactor.register_for_park(socket.as_fd(), Owner::Udp, key)?;
            }
        }
        Ok(carrier)
    }

    /// What the operator should know of this machine: each line names what is missing and what to do about it.
    pub fn notes(&self) -> &[String] {
        &self.base.notes
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.base.counters
    }

    /// How it speaks to the kernel.
    pub fn backend(&self) -> Backend {
        match self.way {
            Way::Plain(_) => Backend::Plain,
            Way::Ring(_) => Backend::Uring,
        }
    }

    /// Where it is bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.base.socket.local_addr()
    }
}

/// In words for the operator.
impl fmt::Display for UdpCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = match self.backend() {
            Backend::Plain => "recvmmsg and sendmmsg",
            Backend::Uring => "io_uring",
        };
        let (bytes, window) = (self.base.datagram_bytes_max, self.base.window);
        write!(f, "udp over {over}, datagrams of {bytes} bytes, {window} under way")
    }
}

impl Carrier for UdpCarrier {
    type Address = SocketAddr;

    const RELIABLE: bool = false;

    fn datagram_bytes_max(&self) -> usize {
        self.base.datagram_bytes_max
    }

    fn window(&self) -> usize {
        self.base.window
    }

    fn poll(&mut self, now: Time, sink: &mut impl FnMut(Arrival<'_, SocketAddr>)) -> usize {
        match &mut self.way {
            Way::Plain(plain) => plain.poll(&mut self.base, &self.reactor, now, sink),
            Way::Ring(ring) => ring.poll(&mut self.base, now, sink),
        }
    }

    fn send(&mut self, to: SocketAddr, parts: &[&[u8]]) -> Result<(), Full<()>> {
        if !self.base.can_go(to, parts) || self.base.queue.push(to, parts) {
            return Ok(());
        }
        match &mut self.way {
            Way::Plain(plain) => plain.flush(&mut self.base),
            Way::Ring(ring) => ring.make_room(&mut self.base),
        }
        if self.base.queue.push(to, parts) {
            return Ok(());
        }
        self.base.counters.full += 1;
        Err(Full(()))
    }

    fn flush(&mut self) {
        match &mut self.way {
            Way::Plain(plain) => plain.flush(&mut self.base),
            Way::Ring(ring) => ring.flush(&mut self.base),
        }
    }

    fn next_wake(&self) -> Time {
        match &self.way {
            Way::Plain(plain) => plain.next_wake(&self.base),
            Way::Ring(ring) => ring.next_wake(&self.base),
        }
    }
}

impl Drop for UdpCarrier {
    fn drop(&mut self) {
        match &mut self.way {
            Way::Plain(_) => {
                for (key, socket) in self.base.sockets() {
                    self.reactor.deregister(socket.as_fd(), Owner::Udp, key);
                }
            }
            Way::Ring(ring) => ring.close(&mut self.base),
        }
    }
}
