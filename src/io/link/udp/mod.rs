//! Datagrams over UDP, the system's own.
//!
//! One socket per lane, bound where the lane's TCP link listens. Nothing is allocated after start: what is sent waits in
//! one bounded [`queue`], what comes is received into memory that the carrier has.
//!
//! **Path.** Nothing is cut into IP fragments on the way (don't-fragment is set): a datagram is at most as long as the
//! configured MTU allows, and one that a path does not carry is lost, counted and told to the operator.
//!
//! **Errors.** What routers and the other end's system say of datagrams that cannot arrive is read from the socket's error
//! queue, with the address that it is about: a hint, for ICMP can be forged. No error of one peer, nor an interface that
//! goes down, ends anything: what cannot be sent is lost, as any datagram may be.
//!
//! **Joined datagrams.** Consecutive datagrams of one length to one address go to the kernel as one (UDP_SEGMENT), and the
//! kernel hands such runs over as one (UDP_GRO), where it can.

mod base;
mod plain;
mod queue;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use self::base::Base;
use self::plain::Plain;
use crate::io::Full;
use crate::io::datagram::{Arrival, Carrier};
use crate::io::reactor::{Owner, Reactor};
use crate::types::Time;

/// What a carrier is told when it is made.
#[derive(Debug)]
pub struct Options {
    /// Bound by the node, so that a port in use is found when it starts.
    pub socket: UdpSocket,
    /// How many peers may send at once: they share the receive buffer.
    pub peers: usize,
    /// The longest IP packet that every path carries, in bytes: 1500 on most Ethernets, 65536 on loopback.
    pub mtu_bytes: usize,
    /// The lane spins: the kernel may look at the device's queue for it.
    pub busy_poll: bool,
    /// How it speaks to the kernel.
    pub backend: Backend,
}

/// How a carrier speaks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// recvmmsg and sendmmsg.
    Plain,
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
    backend: Plain,
    reactor: Reactor,
}

impl UdpCarrier {
    /// A carrier over a bound socket. An error is the system's.
    pub fn new(options: Options, reactor: &Reactor) -> io::Result<UdpCarrier> {
        let Backend::Plain = options.backend;
        let base = Base::new(options)?;
        reactor.register(base.socket.as_fd(), Owner::Udp, 0)?;
        let backend = Plain::new(base.receive_bytes());
        Ok(UdpCarrier { base, backend, reactor: reactor.clone() })
    }

    /// What the operator should know of this machine: each line names what is missing and what to do about it.
    pub fn notes(&self) -> &[String] {
        &self.base.notes
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.base.counters
    }

    /// Where it is bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.base.socket.local_addr()
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
        self.backend.poll(&mut self.base, &self.reactor, now, sink)
    }

    fn send(&mut self, to: SocketAddr, parts: &[&[u8]]) -> Result<(), Full<()>> {
        if !self.base.can_go(to, parts) || self.base.queue.push(to, parts) {
            return Ok(());
        }
        // What waits may go now.
        self.flush();
        if self.base.queue.push(to, parts) {
            return Ok(());
        }
        self.base.counters.full += 1;
        Err(Full(()))
    }

    fn flush(&mut self) {
        self.backend.flush(&mut self.base);
    }

    fn next_wake(&self) -> Time {
        self.backend.next_wake(&self.base)
    }
}

impl Drop for UdpCarrier {
    fn drop(&mut self) {
        self.reactor.deregister(self.base.socket.as_fd(), Owner::Udp, 0);
    }
}
