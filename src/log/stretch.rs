//! What stays in memory of entries that lie on the disk alone: one line for a megabyte of the log, from which a read finds
//! each of them again.
//!
//! A stretch names a region that begins with a batch and in which all its entries lie, among those of other shards and
//! those that were superseded. Entries are told apart by their identity: *no two entries of a shard have the same term
//! and index and another content*, since a term has one leader, which lays an index once. Should the same entry lie in
//! the region twice (superseded, and sent again by a later leader that had it), either copy will do.

use alloc::vec::Vec;
use core::fmt;

use super::batch::{self, BLOCK_BYTES_MIN, Found, HEADER_BYTES, Header};
use super::record::{self, Malformed};
use super::shards::{Place, Run};
use super::{FETCH_BYTES, Identity};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES_MAX, CHUNK_BYTES};
use crate::types::{EntryId, Index, ShardId, Term};

/// Consecutive entries of one shard and term in one region of one segment. All batches in which they lie begin in the
/// region's first [`FETCH_BYTES`], so that no batch is read for two stretches of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) term: u64,
    /// Where the batch begins in which its first entry lies.
    pub(super) batch: Place,
    pub(super) count: u32,
    /// From there to where its last entry ends, or one after it that was superseded.
    pub(super) len_bytes: u32,
}

const _: () = assert!(size_of::<Stretch>() == 32, "the log's documentation tells the size");
const _: () = assert!(
    FETCH_BYTES as usize + BATCH_BYTES_MAX + 2 * BLOCK_BYTES_MAX <= CHUNK_BYTES,
    "a region with its last batch fits a chunk"
);

impl Stretch {
    /// A run alone, which lies in the batch that begins at `batch`.
    pub(super) fn of(batch: Place, run: &Run) -> Stretch {
        let len_bytes = run.end_offset() - batch.offset;
        Stretch { first: run.first, term: run.term, batch, count: u32::from(run.count), len_bytes }
    }

    /// Adds the run, which lies in the batch that begins at `batch`, if it goes on where the stretch ends and that begins
    /// within the bound. Returns whether it did.
    pub(super) fn take_in(&mut self, batch: Place, run: &Run) -> bool {
        let follows = run.term == self.term
            && run.first == self.end()
            && batch.segment == self.batch.segment
            && batch.offset - self.batch.offset < FETCH_BYTES;
        if follows {
            self.count += u32::from(run.count);
            self.len_bytes = run.end_offset() - self.batch.offset;
        }
        follows
    }

    /// The index after its last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Where its region ends.
    pub(super) fn end_offset(&self) -> u32 {
        self.batch.offset + self.len_bytes
    }

    pub(super) fn holds(&self, id: EntryId) -> bool {
        id.term.0 == self.term && (self.first..self.end()).contains(&id.index.0)
    }

    fn ids(&self) -> impl Iterator<Item = EntryId> + use<> {
        let term = Term(self.term);
        (self.first..self.end()).map(move |index| EntryId { term, index: Index(index) })
    }
}

/// A region as it came back from the disk.
pub(super) struct Region<'a> {
    pub(super) begin: Place,
    pub(super) bytes: &'a [u8],
}

/// Why a region does not hold what was laid there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decay {
    /// The entry that was looked for.
    pub(super) entry: EntryId,
    /// Where.
    pub(super) place: Place,
    why: Why,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    /// No batch that follows the one before begins where one must.
    NoBatch,
    Record(Malformed),
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::NoBatch => write!(f, "the batch that was laid there is not"),
            Why::Record(malformed) => write!(f, "{malformed}"),
        }
    }
}

impl Region<'_> {
    /// Finds the entries of consecutive stretches of one shard again, which begin in this region and lie in it whole.
    /// Checks of each entry every byte, and of everything between them what is needed to step over it.
    pub(super) fn find(
        &self,
        identity: &Identity,
        shard: ShardId,
        stretches: &[Stretch],
    ) -> Result<Vec<Run>, Decay> {
        let mut wanted = stretches.iter().flat_map(Stretch::ids).peekable();
        let mut runs: Vec<Run> = Vec::new();
        let mut batch_at = stretches[0].batch;
        let mut previous = None;
        while let Some(&entry) = wanted.peek() {
            let decay = |place, why| Decay { entry, place, why };
            let (header, begin) =
                self.batch(identity, batch_at, previous).ok_or(decay(batch_at, Why::NoBatch))?;
            batch_at = begin.plus(header.span_bytes());
            previous = Some(header);
            let mut place = begin.plus(HEADER_BYTES);
            let records_end = place.plus(header.len_bytes as usize);
            while place < records_end
                && let Some(&entry) = wanted.peek()
            {
                let malformed = |malformed| Decay { entry, place, why: Why::Record(malformed) };
                // The region may end before the batch does, behind the last entry that is wanted.
                let bytes = self.from(place);
                let (header, span_bytes) = record::peek(bytes).map_err(malformed)?;
                if header.shard == shard.0 && header.id() == entry {
                    record::read(bytes).map_err(malformed)?;
                    wanted.next();
                    if !runs.last_mut().is_some_and(|run| run.take_in(entry, place, span_bytes as u32)) {
                        runs.push(Run::of(entry, place, span_bytes as u32));
                    }
                }
                place = place.plus(span_bytes);
            }
        }
        Ok(runs)
    }

    /// The batch that follows `previous`, which ended at `end`, and where it begins. Without a previous one: the batch
    /// that begins there.
    fn batch(&self, identity: &Identity, end: Place, previous: Option<Header>) -> Option<(Header, Place)> {
        let elsewhere = previous.into_iter().flat_map(|_| batch::later_beginnings(u64::from(end.offset)));
        let mut places = core::iter::once(u64::from(end.offset)).chain(elsewhere);
        places.find_map(|offset| {
            let place = Place { offset: u32::try_from(offset).ok()?, ..end };
            let block = self.from(place);
            let block = block.get(..BLOCK_BYTES_MIN).unwrap_or(block);
            if block.len() < HEADER_BYTES {
                return None;
            }
            let Found::Ours(header) = Header::find(block, identity, u64::from(end.segment), offset) else {
                return None;
            };
            previous.is_none_or(|previous| header.follows(&previous)).then_some((header, place))
        })
    }

    /// What the region holds from `place` on; nothing where it has ended before.
    fn from(&self, place: Place) -> &[u8] {
        self.bytes.get((place.offset - self.begin.offset) as usize..).unwrap_or_default()
    }
}
