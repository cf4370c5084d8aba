//! One log per lane: records and votes of all its shards in one stream.
//!
//! # Format
//! A log is a sequence of *batches* in segments of equal size. A batch is one write: everything that a lane laid
//! between two submits. It begins at a fresh block, lies in one segment, and is never touched again. One that does not
//! fit a segment's rest begins the next segment, at offset 0. A log that moves to a device with larger blocks goes on
//! at a multiple of those.
//! ```text
//! segment n  | batch | batch | ... | batch | zeros          |
//! batch      | header 64 B | record | record | ... | zeros to a multiple of the block |
//!
//! header  0  header_crc    u32  CRC32C of bytes 4..64
//!         4  magic         u32  "PLMB"
//!         8  version       u8   of the format: 1
//!         9  block_shift   u8   the block is 1 << block_shift bytes: 9 to 12
//!        10  lane          u16
//!        12  node          u32
//!        16  cluster       u64
//!        24  sequence      u64  of the write: from 1, without gaps, over all segments
//!        32  durable       u64  the sequence up to which everything was durable when this batch was laid
//!        40  previous_crc  u32  header_crc of the batch before; 0 in the first
//!        44  records_crc   u32  CRC32C of the records' header_crc fields, one after another
//!        48  len_bytes     u32  of the records, their padding included
//!        52  offset        u32  where this batch begins in its segment
//!        56  segment       u32  in which it lies
//!        60  life          u32  one more at each opening of the log than any header on the disk tells
//!        64  the records, one after another; each as drawn in [`record`]
//! ```
//! Little-endian. `header_crc`, `magic` and `version` stand where they stand in every version. The headers form a chain
//! by `previous_crc`, and each is bound to its records' every byte by `records_crc`, so that a batch follows one other
//! batch and no other. What opening makes of a log that ends in something else than zeros is a decision table, drawn in
//! `log/recovery.rs`.
//!
//! *Supersession.* The log only grows. A record whose index is not beyond the shard's last takes the place of that
//! entry and of all after it. Of a shard's votes the last one counts.
//!
//! # Memory
//! The newest batches stay in the chunks in which they were laid, at most half of the pool's: followers that keep up
//! are served from there. What is older is read back from disk, checked, and kept in at most a quarter of the pool's
//! chunks.
//!
//! Where entries lie is kept too. Of those in the newest batches: 44 bytes for each run of a shard's entries that lie
//! together in one batch, which is bounded as the chunks are. Of all older ones, for each shard: 40 bytes for a
//! megabyte of the log, or for the rest of a segment or a term, in which it has any. A log of 1 GiB costs a shard 40
//! KiB, however short its records are. Both may be twice that, since their lists grow by doubling.
//!
//! # Turns
//! [`Log::poll`] begins a turn. What [`Log::span`] promised holds until the next one.

mod batch;
mod fetch;
mod figures;
mod flight;
mod read;
mod recovery;
mod scan;
mod shards;
mod stretch;
mod tail;
mod writer;

pub mod assemble;
pub mod record;
pub mod verify;

#[cfg(test)]
pub(crate) mod tests;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use self::fetch::Fetches;
pub use self::figures::Figures;
use self::flight::Flight;
use self::shards::Shards;
use self::tail::Tail;
pub use self::writer::{Draft, WrongSum};
use self::writer::{OpenBatch, Stream};
use crate::io::pool::{Chunk, Pool};
use crate::io::{Disk, DiskError, DiskEvent, Full, Write};
use crate::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::types::{ClusterId, Durable, EntryId, LaneId, NodeId, ShardId, Vote};

/// How much is read back at once.
const FETCH_BYTES: u32 = 1 << 20;

/// The smallest pool that a log works with: one chunk to lay into, two for the tail, one to read back into.
pub const POOL_CHUNKS_MIN: usize = 4;

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
    Foreign {
        /// What is there.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Something that was durable is not readable any more: not a torn tail, and so not to be cut off.
    Corrupt {
        /// In which segment.
        segment: u64,
        /// At which byte of it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Of a format version that this build does not read.
    Version {
        /// The version of what is there.
        found: u16,
    },
}

/// No room in the log: nothing was laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// For now: writes in flight hold all memory, or the next segment is not ready.
    Busy,
    /// Until an operator acts: every segment that the log may have is full, or those that there are, and the filesystem
    /// has no room for another.
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
    /// There is no room for the next segment: the log goes on with those that it has, and when they are full, it is.
    NoSpace(DiskError),
    /// There was room for it after all.
    SpaceAgain,
    /// The disk failed: this node's promises end here.
    Failed(DiskError),
}

/// What a leader gives a new entry beside its payload.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry {
    /// In which shard.
    pub shard: ShardId,
    /// Its term and index; follows the shard's last entry.
    pub id: EntryId,
    /// Data, a no-op or a mark of an engine's stream.
    pub kind: record::Kind,
    /// See [`record::FLAG_MORE`] and [`record::FLAG_CONTINUES`].
    pub flags: u8,
    /// The engine's timestamp.
    pub timestamp: crate::types::Timestamp,
    /// The engine's epoch.
    pub epoch: crate::types::Epoch,
    /// Who submitted it; 0: nobody that cares about duplicates.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
    /// CRC32C of the payload, made by the submitter and checked where it came in. Not made again.
    pub payload_crc: u32,
}

/// Whose a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    cluster: u64,
    node: u32,
    lane: u16,
}

impl Options {
    fn identity(&self) -> Identity {
        Identity { cluster: self.cluster.0, node: self.node.0, lane: self.lane.0 }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}, node {}, lane {}", self.cluster, self.node, self.lane)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Disk(error) => write!(f, "{error}"),
            OpenError::Foreign { found, expected } => {
                write!(f, "the log is another's: found {found}, expected {expected}")
            }
            OpenError::Corrupt { segment, offset, what } => {
                write!(
                    f,
                    "the log is corrupt in segment {segment} at byte {offset}: {what}; keep the disk, for what is on it \
                     was promised, and see `plimsoll verify`"
                )
            }
            OpenError::Version { found } => {
                write!(f, "the log is of format version {found}; this build reads {}", batch::VERSION)
            }
        }
    }
}

impl core::error::Error for OpenError {}

/// One lane's log over its disk.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    pool: Pool,
    shards: Shards,
    /// Where batches go.
    stream: Stream,
    /// What is laid and not sealed yet, at the beginning of `chunk`'s spare room.
    open: Option<OpenBatch>,
    /// Submitted, but as many writes are in flight as may be: to be sealed when one is done.
    overdue: bool,
    chunk: Option<Chunk>,
    /// The next chunk, so that turning to it does not depend on what may be evicted in the middle of a turn.
    spare: Option<Chunk>,
    flight: Flight,
    /// The disk took no more; to be tried again.
    refused: alloc::collections::VecDeque<Write>,
    tail: Tail,
    fetches: Fetches,
    events: Vec<DiskEvent>,
    health: Health,
}

/// Whether the log's promises hold.
#[derive(Debug)]
enum Health {
    Good,
    /// Failed, and not told yet.
    Failed(DiskError),
    /// Failed and told: nothing touches the disk any more.
    Told,
}

impl<D: Disk> Log<D> {
    /// Reads what is there (nothing: a new log), decides what a crash tore, and is ready to append.
    ///
    /// Polls the disk until the first segment exists, where there was none.
    ///
    /// # Panics
    /// If the pool has fewer free chunks than [`POOL_CHUNKS_MIN`], or the disk's sizes are out of bounds.
    pub fn open(disk: D, pool: Pool, options: Options) -> Result<(Log<D>, Vec<RecoveredShard>), OpenError> {
        let mut disk = disk;
        let block = disk.block_bytes();
        assert!(block.is_power_of_two() && (batch::BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block));
        let size = disk.segment_bytes();
        assert!(
            size <= SEGMENT_BYTES_MAX && size.is_multiple_of(BLOCK_BYTES_MAX as u64),
            "segment of {size} bytes"
        );
        assert!(pool.available() >= POOL_CHUNKS_MIN, "a log needs {POOL_CHUNKS_MIN} free chunks");

        let memory = pool.take().expect("chunks are free");
        let shards = Shards::new(&options.shards);
        let recovered = recovery::recover(&mut disk, memory, options.identity(), shards)?;
        let proof = recovery::settle(&mut disk, recovered.sequence)?;
        let told = recovery::told(&recovered.shards, &proof);

        let existing = disk.segments().map_err(OpenError::Disk)?;
        let existing = existing.into_iter().map(|segment| segment.0).collect::<BTreeSet<_>>();
        let stream = Stream::new(&disk, &options, &recovered, existing);
        let mut log = Log {
            flight: Flight::new(recovered.shards.logs.len()),
            shards: recovered.shards,
            stream,
            open: None,
            overdue: false,
            chunk: None,
            spare: pool.take(),
            refused: alloc::collections::VecDeque::new(),
            tail: Tail::default(),
            fetches: Fetches::new((pool.chunks() / 4).max(1)),
            events: Vec::new(),
            health: Health::Good,
            disk,
            pool,
        };
        log.await_first_segment()?;
        Ok((log, told))
    }

    fn await_first_segment(&mut self) -> Result<(), OpenError> {
        self.stream.prepare(&mut self.disk);
        while !self.stream.has_segment() {
            let mut failed = None;
            self.poll(&mut |event| {
                // Without a first segment there is nothing to go on with.
                if let LogEvent::Failed(error) | LogEvent::NoSpace(error) = event {
                    failed = Some(error);
                }
            });
            if let Some(error) = failed {
                return Err(OpenError::Disk(error));
            }
            core::hint::spin_loop();
        }
        Ok(())
    }

    /// Takes in what the disk has finished. Returns how much that was. Begins a turn: see the module.
    pub fn poll(&mut self, sink: &mut impl FnMut(LogEvent)) -> usize {
        if matches!(self.health, Health::Told) {
            return 0;
        }
        let mut fetched = self.fetches.turn();
        let had_space = self.stream.no_space.is_none();
        let mut events = core::mem::take(&mut self.events);
        let found = self.disk.poll(&mut |event| events.push(event));
        for event in events.drain(..) {
            if matches!(self.health, Health::Good) {
                fetched |= self.take_in(event);
            }
        }
        self.events = events;
        if let Some(durable) = self.flight.settle(&self.shards.logs, sink) {
            self.stream.durable = durable;
        }
        if matches!(self.health, Health::Good) {
            self.go_on();
            self.make_room();
        }
        if fetched {
            sink(LogEvent::Fetched);
        }
        match &self.stream.no_space {
            Some(error) if had_space => sink(LogEvent::NoSpace(error.clone())),
            None if !had_space => sink(LogEvent::SpaceAgain),
            _ => {}
        }
        if matches!(self.health, Health::Failed(_))
            && let Health::Failed(error) = core::mem::replace(&mut self.health, Health::Told)
        {
            sink(LogEvent::Failed(error));
        }
        found
    }

    /// Takes in one event; returns whether it brought something that was being fetched.
    fn take_in(&mut self, event: DiskEvent) -> bool {
        match event {
            DiskEvent::Written(proof) => self.flight.written(proof),
            DiskEvent::Prepared(segment) => self.stream.prepared(segment, &mut self.disk),
            DiskEvent::Failed(error) => self.fail(error),
            DiskEvent::Read { token, mut chunk } => {
                let bytes = chunk.freeze(self.fetches.len_bytes(token));
                match self.fetches.done(token, bytes, self.stream.identity(), &self.shards.logs) {
                    Ok(()) => return true,
                    Err(error) => self.fail(error),
                }
            }
            DiskEvent::NotPrepared { segment, error } => self.stream.not_prepared(segment, error),
        }
        false
    }

    /// Gives the disk what it refused before, and the batch that was waiting for a write to finish.
    fn go_on(&mut self) {
        while let Some(write) = self.refused.pop_front() {
            if let Err(Full(write)) = self.disk.write(write) {
                self.refused.push_front(write);
                return;
            }
        }
        if self.overdue {
            self.submit();
        }
    }

    /// Lets go of what is oldest, so that the next turn finds a chunk to lay into and one to read into.
    fn make_room(&mut self) {
        let tail_max = (self.pool.chunks() / 2).max(2);
        while self.tail.chunks() > tail_max && self.evict_chunk() {}
        while self.spare.is_none() {
            self.spare = self.pool.take();
            if self.spare.is_none() && !self.evict_chunk() && !self.fetches.evict() {
                return;
            }
        }
    }

    fn evict_chunk(&mut self) -> bool {
        self.tail.evict_chunk(self.stream.durable, &mut self.shards)
    }

    /// Lets go of all memory of what is durable: it is read back from the disk from now on. What was promised in this
    /// turn holds no more. For simulator and tests.
    pub fn forget(&mut self) {
        self.tail.evict_durable(self.stream.durable, &mut self.shards);
        self.fetches.forget();
    }

    /// The shard's last entry, durable or not.
    pub fn last(&self, shard: ShardId) -> EntryId {
        self.shards.logs[self.shards.of(shard)].last
    }

    /// Whether everything that was laid is durable.
    pub fn is_quiet(&self) -> bool {
        self.open.is_none() && self.flight.len() == 0
    }

    /// The disk below.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk below, to be polled by other means or asked for its figures; the log's writes are its own.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The end of this log's promises: nothing more becomes durable, nothing more is written.
    fn fail(&mut self, error: DiskError) {
        if matches!(self.health, Health::Good) {
            self.health = Health::Failed(error);
        }
    }

    /// As [`Log::fail`], for want of room for what cannot be refused.
    fn fail_for_room(&mut self, no_room: NoRoom, what: &str) {
        let (cause, no_space) = match no_room {
            NoRoom::Full if self.stream.no_space.is_some() => {
                ("the filesystem has no room for another segment, and the room kept for votes is full", true)
            }
            NoRoom::Full => {
                ("every segment that the log may have is full, the room kept for votes included", true)
            }
            NoRoom::Busy => ("the disk has not finished any of the writes that hold all memory", false),
        };
        let place = format!("segment {}", self.stream.next.segment);
        self.fail(DiskError {
            operation: format!("laying {what}"),
            place,
            cause: String::from(cause),
            no_space,
        });
    }
}
