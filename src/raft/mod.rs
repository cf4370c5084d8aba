//! The protocol: one Raft group as a pure state machine.
//!
//! # Contract
//! The caller passes in what happened ([`Input`]) and the time, and carries out what comes out ([`Effects`]). There
//! is no disk, no network, no clock, no thread and no byte of a record in here, and nothing is allocated per entry.
//!
//! *Persistence.* After a step the caller lays `effects.vote`, `effects.accept` and `effects.noop` in its log, in this
//! order, and before it steps this group again. When the disk has confirmed a write, the caller says so with
//! [`Input::DurableVote`] and [`Input::DurableLog`], in the order of the writes. Messages that promise something
//! come out only then, and carry the proof in their type ([`message::Ack`], [`message::Grant`]).
//!
//! *Sending.* Messages may be lost, doubled, reordered and late; [`Raft::replicate`] and the ticks repeat what matters.
//!
//! *Terms.* Log matching, leader completeness and state-machine safety as in Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm" (2014); pre-vote, check-quorum, transfer and read index as in Ongaro's thesis.

pub mod effects;
pub mod message;

use alloc::vec::Vec;
use core::time::Duration;

pub use self::effects::{Accept, Change, Effects, Entries, Input, ReadId, Role, Span};
pub use self::message::Message;
use crate::types::{Durable, EntryId, Index, NodeId, Term, Time, Vote};

/// What a group is told when it is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub id: NodeId,
    /// All voters, this node among them; at most [`crate::limits::VOTERS_MAX`].
    pub voters: Vec<NodeId>,
    /// Elections are called after a random time between this and twice this without a leader.
    pub election_timeout: Duration,
    /// How often a leader is heard from when there is nothing else to say; at most a third of the election timeout.
    pub heartbeat: Duration,
    /// Where the random timeouts come from. Nodes and shards must not share one.
    pub seed: u64,
}

/// What the disk held when the node started.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last vote.
    pub vote: Durable<Vote>,
    /// The last entry; [`EntryId::default`] for an empty log.
    pub last: Durable<EntryId>,
    /// Where each term begins: the first entry of each term that the log holds, ascending.
    pub terms: Vec<EntryId>,
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another node leads, as far as is known.
    NotLeader {
        /// Who.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over; the next leader will take it.
    Transferring {
        /// To whom.
        to: NodeId,
    },
}

/// One Raft group on one node.
#[derive(Debug)]
pub struct Raft {}

impl Raft {
    /// A follower with the log and the vote that the disk held.
    pub fn new(options: Options, recovered: Recovered, now: Time) -> Raft {
        unimplemented!()
    }

    /// Takes in one thing that happened.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Effects) {
        unimplemented!()
    }

    /// Claims the next entry for a record that the caller lays in its log at once.
    pub fn propose(&mut self) -> Result<EntryId, Refused> {
        unimplemented!()
    }

    /// Leader: adds the appends for which followers have room, once per turn, after all proposals. Nothing elsewhere.
    pub fn replicate(&mut self, now: Time, entries: &mut impl Entries, effects: &mut Effects) {
        unimplemented!()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_wake(&self) -> Time {
        unimplemented!()
    }

    /// The last entry known to be committed and present in this log. Never goes back while the node runs.
    pub fn commit(&self) -> Index {
        unimplemented!()
    }

    /// What this node is.
    pub fn role(&self) -> Role {
        unimplemented!()
    }

    /// Its term.
    pub fn term(&self) -> Term {
        unimplemented!()
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        unimplemented!()
    }

    /// The last entry of the log, durable or not.
    pub fn last(&self) -> EntryId {
        unimplemented!()
    }

    /// As leader: how far each voter's disk is known to be, this node's own among them.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, Index)> + '_ {
        core::iter::empty()
    }

    pub fn term_at(&self, index: Index) -> Option<Term> { unimplemented!() }
}
