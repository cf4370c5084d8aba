//! Frames over carriers of datagrams: what UDP, DPDK and RDMA share. A [`Carrier`] moves datagrams of bounded length
//! and may lose, double, delay and reorder them; a [`DatagramLink`] over it is a [`crate::io::Link`]. Pure: the
//! simulator runs it over a carrier of its own.
//!
//! **Session.** Each end draws a random id for every session. The lower node id dials: `Hello` carries its id,
//! `Welcome` answers with the other's, and every datagram after these names the id that its *receiver* drew. A datagram
//! of a former life, or of nobody, names another and is dropped; its sender is told that the id is `Unknown` here, so
//! that nobody goes on speaking to a peer that has restarted. Who welcomes does not believe before a datagram names its
//! id, so a repeated hello displaces nothing. A session stays where it was made: what names it belongs to it wherever
//! it comes from, and is answered to the address of its greeting. Hello and welcome are as long as the path's MTU is
//! configured to be, and so are probes from time to time: a path that does not carry it is found at once, told, and the
//! link goes on with what is carried.
//!
//! **Gone.** A peer that says `Bye`, or of whose address it is said that nobody listens there and that does not answer
//! for some milliseconds after that, is gone: its process has ended. Who is only not heard, or behind a way that has
//! broken, may be anywhere; and who does not know its session may have ended, or have given it up.
//!
//! **Frames.** A frame that fits one datagram is one datagram, handed on where it lies. A longer one is cut; its
//! fragments are put together in a bounded number of bounded slots per peer, and short frames pass between them.
//!
//! **Repair.** Raft repeats what is lost, a frame at a time. A frame of 700 fragments on a path that loses one datagram
//! in a hundred would never arrive whole: within a frame the receiver asks for what is missing, for as long as the
//! sender keeps it (bounded in bytes and in time), and never waits: what cannot be repaired is a lost frame.
//!
//! **Credits.** Every datagram is numbered within its session and tells how far the other end may number its own: the
//! receiver's window beyond what it has seen. So a burst never overruns a ring. Who has used its credits up asks for
//! more at intervals, for the datagrams that carried them may be lost; who may not even ask any more ends the session,
//! for a new one needs no credits of the old.
//!
//! **Malice.** What is not understood, of another session, overlapping, out of bounds or seen before is counted and
//! dropped; nothing that a stranger sends takes memory. An answer costs more than what it answers, and so what anybody
//! can send is answered so many times at once, and then one at a time: strangers, hellos in the name of a peer that is
//! heard, and frames that do not become whole however often they are asked for. What a member sends in vain makes its
//! window smaller until time has passed or it sends what is of use, and what it sends beyond its credits is dropped
//! before it is looked at. All that is sent besides frames goes a turn later than what came, so that no commit waits
//! for it.

mod assembly;
mod counters;
mod drawn;
mod greeting;
mod kept;
mod link;
mod notice;
mod numbers;
mod peer;
mod ration;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

use core::fmt;

pub use self::counters::Counters;
pub use self::link::{DatagramLink, Options};
pub use self::notice::{Notice, Why};
use super::Full;
use crate::types::Time;

/// The shortest datagrams that a carrier may have for its longest.
pub const DATAGRAM_BYTES_MIN: usize = 512;

/// The smallest window that a carrier may have.
pub const WINDOW_MIN: usize = 32;

/// Moves datagrams. One owner, polled.
pub trait Carrier {
    /// Where a datagram comes from and goes to.
    type Address: Copy + Eq + fmt::Debug;

    /// Whether it loses, doubles and reorders nothing while a path is up. Then nothing is kept for repair.
    const RELIABLE: bool;

    /// The longest datagram that it sends, in bytes, and takes in.
    fn datagram_bytes_max(&self) -> usize;

    /// How many datagrams of one peer it holds until they are polled: what that peer is given credits for.
    fn window(&self) -> usize;

    /// Gives what has come to `sink`, a bounded amount, and returns how much that was. Never blocks.
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(Arrival<'_, Self::Address>)) -> usize;

    /// Queues one datagram, the parts in this order. What lies in the lane's pool may be sent from there: see
    /// [`crate::io::pool::Pool::hold`]. On `Full` nothing of it was taken. A path that is not there loses it.
    fn send(&mut self, to: Self::Address, parts: &[&[u8]]) -> Result<(), Full<()>>;

    /// Starts what was queued.
    fn flush(&mut self);

    /// When it wants to be polled although nothing came.
    fn next_wake(&self) -> Time {
        Time::NEVER
    }
}

/// What a carrier has to say.
#[derive(Debug)]
pub enum Arrival<'a, A> {
    /// A datagram, as it came.
    Datagram {
        /// The sender's address, as far as it can be known.
        from: A,
        /// All of it.
        bytes: &'a [u8],
    },
    /// Nobody listens at this address: the process that did has most likely ended. A hint: it may be forged.
    Unreachable(A),
    /// What is sent to this address does not arrive, for a reason that says nothing of who listens there: a route, a
    /// cable, a device at either end. A hint.
    Broken(A),
    /// Something that was sent to this address is longer than what the way there carries. A hint: it is asked whether
    /// that is so.
    TooLong(A),
    /// A path to this address has come to be, for a carrier that makes paths: a greeting may go at once.
    Reachable(A),
}
