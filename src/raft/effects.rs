//! What goes into the state machine and what comes out of it.

use alloc::vec::Vec;

use super::message::Message;
use crate::types::{Durable, EntryId, Index, NodeId, Term, Vote};

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Time has passed; due when [`super::Raft::next_wake`] is reached, harmless when early.
    Tick,
    /// A message from a peer. Of an [`Message::Append`] the records were checked (checksum, shard, consecutive
    /// indices from `previous.index + 1`, one term) and counted by the caller.
    Peer {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// As [`Input::Peer`], of a [`Message::Rejected`], while the oldest append that is under way to the sender is still
    /// being carried ([`super::Raft::oldest_sent_at`]): what was refused has overtaken it. The follower lives; what it
    /// misses is on its way, and is not sent again.
    Overtaken {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The connection to a peer has closed from its side: its process has most likely ended. A hint, never a proof.
    PeerDown(NodeId),
    /// The disk has this shard's log up to and including this entry.
    DurableLog(Durable<EntryId>),
    /// The disk has this vote.
    DurableVote(Durable<Vote>),
    /// Hand leadership to this voter, once its log is as fresh as ours.
    Transfer {
        /// Who is to lead.
        to: NodeId,
    },
    /// A linearizable read wants an index to read at (thesis 6.4).
    ReadIndex(ReadId),
}

/// Names a read between its request and its answer; chosen by the caller, unique while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What a follower does with the entries of the append that it was just given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// First drop everything after this index, if given: it conflicts with the leader's log.
    pub truncate_after: Option<Index>,
    /// How many of the entries carried are here already.
    pub skip: u32,
    /// How many are to be appended: all the others.
    pub take: u32,
}

/// What a node is in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether an election would be won.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// A change that operators and engines are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new role.
    pub role: Role,
    /// In which term.
    pub term: Term,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
}

/// What the state machine wants done. One batch, reused: a step adds to it, the caller carries out and clears.
///
/// `vote`, `accept` and `noop` concern the log and are carried out right after the step that made them, in this
/// order. `messages` may be sent at any time after: what may not be told before it is durable is not in them yet.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be laid in the log; [`Input::DurableVote`] when it is there.
    pub vote: Option<Vote>,
    /// What to do with the entries of the append just given. `None`: nothing, drop them.
    pub accept: Option<Accept>,
    /// The new leader's first entry, to be laid in the log as a no-op.
    pub noop: Option<EntryId>,
    /// To be sent.
    pub messages: Vec<(NodeId, Message)>,
    /// Reads that may be answered once the state machine has applied up to the index.
    pub reads_ready: Vec<(ReadId, Index)>,
    /// Reads that cannot be answered here: not the leader, or not any more.
    pub reads_refused: Vec<ReadId>,
    /// The role, term or leader has changed.
    pub change: Option<Change>,
}

impl Effects {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.vote = None;
        self.accept = None;
        self.noop = None;
        self.messages.clear();
        self.reads_ready.clear();
        self.reads_refused.clear();
        self.change = None;
    }
}

/// How much of a log can be sent at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many entries, all of one term, so many bytes. Never none.
    Ready {
        /// How many entries.
        count: u32,
        /// Their bytes, headers included.
        bytes: usize,
    },
    /// They are being read from disk; ask again when the disk has answered.
    Fetching,
}

/// The shard's log as the protocol sees it when it fills appends.
pub trait Entries {
    /// Entries from `from` on that fit `bytes_max`, cut where the term changes. `from` is at most the last index.
    /// `bytes_max` is at least [`crate::limits::ENTRY_BYTES_MAX`], so that one entry always fits.
    fn span(&mut self, from: Index, bytes_max: usize) -> Span;
}
