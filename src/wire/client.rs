//! What clients ask and are answered. Both directions pipeline: `request` names what is answered, and a frame carries
//! as many as fit.

use super::Malformed;
use crate::raft::Role;
use crate::types::{Acks, EntryId, Epoch, Index, NodeId, ShardId, Term, Timestamp};

/// A record, or a part of one that is longer than an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submit<'a> {
    /// Names it in the outcome.
    pub request: u64,
    /// For which shard.
    pub shard: ShardId,
    /// When it is answered.
    pub acks: Acks,
    /// The engine's timestamp.
    pub timestamp: Timestamp,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// Who submits; 0: duplicates do not matter.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
    /// CRC32C of the bytes carried here.
    pub payload_crc: u32,
    /// How many bytes of the same record follow in further submits of the same request; 0: this is all, or the end.
    pub more_bytes: u32,
    /// The bytes, at most [`crate::limits::ENTRY_PAYLOAD_BYTES_MAX`], at least one.
    pub payload: &'a [u8],
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Make this durable.
    Submit(Submit<'a>),
    /// Committed records from an index on.
    Read {
        /// Names it in the answer.
        request: u64,
        /// Of which shard.
        shard: ShardId,
        /// The first index wanted.
        from: Index,
        /// The most bytes wanted in one answer.
        bytes_max: u32,
        /// If there is nothing at `from` yet, answer when there is.
        wait: bool,
    },
    /// How is this shard on this node?
    Status {
        /// Names it in the answer.
        request: u64,
        /// Which shard.
        shard: ShardId,
    },
    /// Hand the shard's leadership to another node.
    Transfer {
        /// Names it in the answer.
        request: u64,
        /// Which shard.
        shard: ShardId,
        /// To whom.
        to: NodeId,
    },
}

/// How a submit, or a request that cannot be answered otherwise, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, as durable as was asked for.
    Committed {
        /// Where: of a record in parts, its last entry.
        id: EntryId,
        /// As submitted.
        timestamp: Timestamp,
    },
    /// Not taken: this node does not lead the shard.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// Not taken: some bound was met; try again.
    Busy,
    /// Not taken: the log is full.
    LogFull,
    /// Taken, but leadership was lost before it committed: it may survive or not.
    Unknown,
    /// Not taken: no such shard here, or a part that does not fit the one before it.
    Invalid,
    /// Not taken, or given up: the node is stopping.
    Stopping,
    /// A transfer has begun.
    Accepted,
}

/// One shard on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// What the node is in it.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Its last entry.
    pub last: EntryId,
    /// What is committed.
    pub commit: Index,
    /// What is durable on the node's own disk.
    pub durable: Index,
    /// How often a leader was elected here or learnt of since the node started.
    pub elections: u32,
}

/// What a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The end of a submit or a transfer, or of a read or status that could not be answered.
    Outcome {
        /// What is answered.
        request: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Committed records, as they lie in the log.
    Records {
        /// What is answered.
        request: u64,
        /// Where the next read goes on.
        next: Index,
        /// What was committed when this was answered.
        commit: Index,
        /// Whole records ([`crate::log::record`]), one after another; empty: nothing at `from` yet.
        records: &'a [u8],
    },
    /// How a shard is.
    Status {
        /// What is answered.
        request: u64,
        /// How it is.
        status: ShardStatus,
    },
}

impl Request<'_> {
    /// The row that says it; its payload is the row's body.
    pub fn encode(&self) -> [u8; 64] {
        unimplemented!()
    }
}

/// The requests of a whole frame.
pub fn requests(frame: &[u8]) -> Result<impl Iterator<Item = Request<'_>>, Malformed> {
    Ok::<_, Malformed>(core::iter::empty())
}

impl Reply<'_> {
    /// The row that says it; `body_bytes` of records follow in the body (they may come in several pieces, so the
    /// `records` field is not looked at).
    pub fn encode(&self, body_bytes: usize) -> [u8; 64] {
        unimplemented!()
    }
}

/// The replies of a whole frame.
pub fn replies(frame: &[u8]) -> Result<impl Iterator<Item = Reply<'_>>, Malformed> {
    Ok::<_, Malformed>(core::iter::empty())
}
