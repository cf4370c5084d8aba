//! One log per lane: records and votes of all its shards in one stream.

pub mod record;

use alloc::vec::Vec;
use core::fmt;

use crate::io::pool::Pool;
use crate::io::{Disk, DiskError};
use crate::raft::effects::{Entries, Span};
use crate::types::{ClusterId, Durable, EntryId, Index, LaneId, NodeId, ShardId, StoreId, Term, Vote};

/// What a log is told when it is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of which cluster; checked against every batch.
    pub cluster: ClusterId,
    /// Of which node.
    pub node: NodeId,
    /// Of which lane.
    pub lane: LaneId,
    /// The shards that live in it, ascending.
    pub shards: Vec<ShardId>,
    /// The segments that it may have at most; when they are full, the log is.
    pub segments_max: u64,
    /// The segments that are made ready before they are needed.
    pub segments_ahead: u64,
}

/// One shard as the disk held it.
#[derive(Clone, Debug)]
pub struct RecoveredShard {
    /// Which.
    pub shard: ShardId,
    /// Its last vote.
    pub vote: Durable<Vote>,
    /// Its last entry.
    pub last: Durable<EntryId>,
    /// The first entry of each term, ascending.
    pub terms: Vec<EntryId>,
}

/// Why a log does not open. Nothing on disk was changed.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// The disk failed.
    Disk(DiskError),
    /// It is another's: what is there, and what was expected.
    Foreign { found: alloc::string::String, expected: alloc::string::String },
    /// Something that was durable is not readable any more: not a torn tail, and so not to be cut off.
    Corrupt { segment: u64, offset: u64, what: alloc::string::String },
    /// Of a format version that this build does not read.
    Version { found: u16 },
}

/// No room in the log: nothing was laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// For now: writes in flight hold all memory, or the next segment is not ready.
    Busy,
    /// For good: every segment that the log may have is full.
    Full,
}

/// What has happened since the last poll, in order.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// A shard's entries up to here are durable.
    Entries(ShardId, Durable<EntryId>),
    /// A shard's vote is durable.
    Vote(ShardId, Durable<Vote>),
    /// Something that was being fetched from disk may be there now.
    Fetched,
    /// The disk failed: this node's promises end here.
    Failed(DiskError),
}

/// What a leader gives a new entry beside its payload.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry {
    pub shard: ShardId,
    pub id: EntryId,
    pub kind: record::Kind,
    pub flags: u8,
    pub timestamp: crate::types::Timestamp,
    pub epoch: crate::types::Epoch,
    pub session: u64,
    pub serial: u64,
    pub payload_crc: u32,
}

/// One lane's log over its disk.
pub struct Log<D> {
    disk: D,
}

impl<D: Disk> Log<D> {
    /// Reads what is there (nothing: a new log), decides what a crash tore, and is ready to append.
    pub fn open(disk: D, pool: Pool, options: Options) -> Result<(Log<D>, Vec<RecoveredShard>), OpenError> {
        unimplemented!()
    }

    /// Whether an entry with such a payload can be laid at this moment. Room for votes is kept back.
    pub fn room_for(&self, payload_bytes: usize) -> Result<(), NoRoom> {
        unimplemented!()
    }

    /// Lays a new entry. The caller has asked for room. The entry follows the shard's last.
    pub fn lay(&mut self, entry: NewEntry, payload: &[u8]) {
        unimplemented!()
    }

    /// Whether records of so many bytes in all can be laid as they came.
    pub fn room_for_received(&self, bytes: usize) -> Result<(), NoRoom> {
        unimplemented!()
    }

    /// Lays records as a leader sent them, already checked. They follow the shard's last entry.
    pub fn lay_received(&mut self, shard: ShardId, records: &[u8]) {
        unimplemented!()
    }

    /// Drops the shard's entries after `last`, logically: later records supersede. What is in flight of them will not
    /// be told durable.
    pub fn truncate_after(&mut self, shard: ShardId, last: Index) {
        unimplemented!()
    }

    /// Lays a vote.
    pub fn lay_vote(&mut self, shard: ShardId, vote: Vote) {
        unimplemented!()
    }

    /// Seals what was laid since the last time and starts its write.
    pub fn submit(&mut self) {
        unimplemented!()
    }

    /// Takes in what the disk has finished. Returns how much that was.
    pub fn poll(&mut self, sink: &mut impl FnMut(LogEvent)) -> usize {
        unimplemented!()
    }

    /// How many entries from `from` on can be read from memory now, cut at `bytes_max` and where the term changes;
    /// starts to fetch them from disk if they are not in memory.
    pub fn span(&mut self, shard: ShardId, from: Index, bytes_max: usize) -> Span {
        unimplemented!()
    }

    /// The bytes of `count` entries from `from` on, piece by piece, of which [`Log::span`] has said in this turn that
    /// they can be read.
    pub fn pieces<'a>(&'a self, shard: ShardId, from: Index, count: u32, pieces: &mut Vec<&'a [u8]>) {
        unimplemented!()
    }

    /// The shard's last entry, durable or not.
    pub fn last(&self, shard: ShardId) -> EntryId {
        unimplemented!()
    }

    /// Whether everything that was laid is durable.
    pub fn is_quiet(&self) -> bool {
        unimplemented!()
    }

    pub fn bytes_of(&self, shard: ShardId, from: Index, count: u32) -> usize { unimplemented!() }
}
