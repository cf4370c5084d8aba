//! Datagrams over reliable connections of RDMA: [`RdmaCarrier`], for a [`crate::io::datagram::DatagramLink`].
//!
//! **Paths.** One queue pair per peer and lane, set up over the TCP link beside it, which stays up as the side channel
//! ([`crate::wire::aside`] draws what is said there, `setup.rs` tells when). [`RdmaCarrier::exchange`] carries it.
//!
//! **Memory.** The chunks of the lane's pool are registered, and records are sent from where they lie: a datagram is a
//! gather list of what was copied into a ring of registered memory (the heads, and parts too short to be worth a read
//! of their own) and of held pieces of the pool. Whatever fits goes inline. Where the system refuses to register the
//! pool, everything is copied, and a notice says so. What a path receives into and copies into is registered when the
//! device is opened and goes from one queue pair to the next: to register it takes longer than a lane may stand still.
//!
//! **Receiving** is by SEND into posted slots. RDMA WRITE WITH IMMEDIATE into a ring was weighed against it: it takes a
//! posted receive per datagram as well, for its completion; it needs a key with which a peer may write into this
//! process's memory at any time, also while the bytes are read; and it saves the receiver nothing, for a slot is handed
//! on where it lies in both. What remains is that the sender chooses the place, which a ring of equal slots does not
//! need. Measured over Soft-RoCE in an emulated guest, in turns within one run, a round trip at p50 takes 40 us by SEND
//! and 40 us by WRITE WITH IMMEDIATE for 64 bytes, 157 and 159 us for 4 KiB, and 1.05 and 1.16 ms for 32 KiB.
//!
//! **Completions.** One queue per lane, polled; it has room for everything that can be under way, twice. Sends tell
//! that they are done only where it matters (`verbs/send.rs`). A lane that blocks is woken through the completion
//! channel, which is armed when nothing has come for as long as the lane spins.
//!
//! **Failure.** A completion or an event that tells of an error ends the path, with a notice; its queue pair is
//! destroyed, which lets go of everything that it held, and a fresh one is set up after a pause that grows. A device
//! that disappears ends all paths; it is looked for once in a second. Whoever owns the link sees [`RdmaCarrier::is_up`]
//! and [`RdmaCarrier::has_device`] and takes another link for so long.
//!
//! **Bounds** are asked from the device: how long the queues may be, how many parts a send may gather; what it does not
//! bear is refused when the carrier is made. A send of more parts than that is copied in part.
//!
//! Registered memory counts against the memlock limit unless the process may lock what it likes: per lane the pool, and
//! per peer `slots` times `slot_bytes` and a fourth of that again.

mod carrier;
mod meeting;
mod notice;
mod path;
mod ring;
mod setup;
#[cfg(test)]
mod tests;
mod verbs;

use std::time::Duration;

pub use self::carrier::RdmaCarrier;
pub use self::notice::{Notice, Unavailable};
use crate::types::{LaneId, NodeId};

/// The fewest slots that a peer is given.
pub const SLOTS_MIN: usize = 64;

/// The most: their numbers travel in 15 bits.
pub const SLOTS_MAX: usize = 16_384;

/// The shortest slot.
pub const SLOT_BYTES_MIN: usize = 4096;

/// The longest.
pub const SLOT_BYTES_MAX: usize = 1 << 20;

/// The slots of a peer that its credits do not count: for greetings, which have none.
const SLOTS_SPARE: usize = 16;

/// How often a device that is gone is looked for.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// What a carrier is told when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// The lane.
    pub lane: LaneId,
    /// The other members.
    pub peers: Vec<NodeId>,
    /// The device's name; `None`: the first that there is.
    pub device: Option<String>,
    /// Its port, counted from 1.
    pub port: u8,
    /// The port's address; `None`: the one that reaches furthest.
    pub gid_index: Option<u8>,
    /// How many datagrams of one peer wait to be polled at most, a multiple of 64 of [`SLOTS_MIN`] to [`SLOTS_MAX`].
    pub slots: usize,
    /// The longest datagram, the same at both ends: a power of two of [`SLOT_BYTES_MIN`] to [`SLOT_BYTES_MAX`].
    pub slot_bytes: usize,
    /// How long the lane polls before it blocks; `None`: it never blocks.
    pub spin: Option<Duration>,
    /// The ids of queue pairs' lives and their first packets' numbers are drawn from it: another one in every life.
    pub seed: u64,
}

impl Options {
    /// With the bounds that fit most: 128 slots of 32 KiB.
    pub fn new(node: NodeId, lane: LaneId, peers: Vec<NodeId>, seed: u64) -> Options {
        Options {
            node,
            lane,
            peers,
            device: None,
            port: 1,
            gid_index: None,
            slots: 128,
            slot_bytes: 32 << 10,
            spin: Some(Duration::from_micros(50)),
            seed,
        }
    }
}

/// What a carrier has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams given to the sink.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams taken to be sent.
    pub datagrams_out: u64,
    /// Of their bytes, those sent from where they lay in the pool.
    pub gathered_bytes: u64,
    /// Of their bytes, those that were copied.
    pub copied_bytes: u64,
    /// Datagrams given to the device with the request itself.
    pub inline: u64,
    /// Datagrams lost because there was no path.
    pub lost: u64,
    /// Sends refused as `Full`.
    pub full: u64,
    /// Sends that the device told to be done, each for all before it.
    pub told: u64,
    /// Paths that were connected.
    pub connected: u64,
    /// Paths that broke, or were given up.
    pub ended: u64,
    /// Completions of queue pairs that are gone.
    pub stale: u64,
    /// Asides of nobody who is known, or of another lane.
    pub strange: u64,
}
