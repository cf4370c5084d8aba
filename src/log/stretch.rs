//! What stays in memory of entries that lie on the disk alone: one line for a megabyte of the log, from which a read
//! finds each of them again.
//!
//! A stretch names a region that begins with its first entry and in which the others lie, among those of other shards
//! and those that were superseded. Entries are told apart by their identity: *no two entries of a shard have the same
//! term and index and another content*, since a term has one leader, which lays an index once. Should the same entry
//! lie in the region twice (superseded, and sent again by a later leader that had it), either copy will do.

use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

use super::batch::{self, BLOCK_BYTES_MIN, Found, HEADER_BYTES, Header};
use super::record::{self, Malformed};
use super::shards::{Place, Run};
use super::{FETCH_BYTES, Identity};
use crate::limits::ENTRY_BYTES_MAX;
use crate::types::{EntryId, Index, ShardId, Term};

/// A batch, as far as it matters to who looks for entries in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) begin: Place,
    /// Where its last record ends.
    pub(super) end: Place,
}

impl Extent {
    pub(super) fn of(header: &Header) -> Extent {
        let begin = Place { segment: header.segment, offset: header.offset };
        Extent { begin, end: begin.plus(HEADER_BYTES + header.len_bytes as usize) }
    }
}

/// Consecutive entries of one shard and term in one region of one segment, of at most [`FETCH_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) term: u64,
    /// Where the first entry lies.
    pub(super) place: Place,
    pub(super) count: u32,
    /// From there to where its last entry ends, or one after it that was superseded.
    pub(super) len_bytes: u32,
    /// From there to where the records of the first entry's batch end.
    batch_bytes: u32,
    /// Where the next batch begins in which it has entries, or had such as were superseded.
    next_batch: Option<NonZeroU32>,
}

const _: () = assert!(size_of::<Stretch>() == 40, "the log's documentation tells the size");
const _: () = assert!(ENTRY_BYTES_MAX <= FETCH_BYTES as usize, "the largest entry is within the bound");

impl Stretch {
    /// A run alone, which lies in this batch.
    pub(super) fn of(batch: &Extent, run: &Run) -> Stretch {
        Stretch {
            first: run.first,
            term: run.term,
            place: run.place,
            count: u32::from(run.count),
            len_bytes: run.len_bytes,
            batch_bytes: batch.end.offset - run.place.offset,
            next_batch: None,
        }
    }

    /// Adds the run, which lies in this batch, if it goes on where the stretch ends and the region stays within the
    /// bound. Returns whether it did.
    pub(super) fn take_in(&mut self, batch: &Extent, run: &Run) -> bool {
        let follows = run.term == self.term
            && run.first == self.end()
            && run.place.segment == self.place.segment
            && run.end_offset() - self.place.offset <= FETCH_BYTES;
        if follows {
            self.count += u32::from(run.count);
            self.len_bytes = run.end_offset() - self.place.offset;
            if self.next_batch.is_none() && self.len_bytes > self.batch_bytes {
                self.next_batch = NonZeroU32::new(batch.begin.offset);
            }
        }
        follows
    }

    /// The index after its last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Where its region ends.
    pub(super) fn end_offset(&self) -> u32 {
        self.place.offset + self.len_bytes
    }

    pub(super) fn holds(&self, id: EntryId) -> bool {
        id.term.0 == self.term && (self.first..self.end()).contains(&id.index.0)
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
    /// Finds the entries of consecutive stretches of one shard again, whose regions lie in this one. Checks of each
    /// entry every byte, and of what lies between them as much as it takes to step over it.
    pub(super) fn find(
        &self,
        identity: &Identity,
        shard: ShardId,
        stretches: &[Stretch],
    ) -> Result<Vec<Run>, Decay> {
        let mut runs = Vec::new();
        for stretch in stretches {
            let entry = EntryId { term: Term(stretch.term), index: Index(stretch.first) };
            let mut search = Search { shard, entry, end: stretch.end(), runs: &mut runs };
            search.look(self, stretch.place, stretch.place.plus(stretch.batch_bytes as usize))?;
            let mut end = Place { offset: stretch.next_batch.map_or(0, NonZeroU32::get), ..stretch.place };
            let mut previous = None;
            while search.goes_on() {
                let found = self.batch(identity, end, previous);
                let header = found.ok_or(Decay { entry: search.entry, place: end, why: Why::NoBatch })?;
                let batch = Extent::of(&header);
                search.look(self, batch.begin.plus(HEADER_BYTES), batch.end)?;
                end = batch.begin.plus(header.span_bytes());
                previous = Some(header);
            }
        }
        Ok(runs)
    }

    /// The batch that follows `previous`, which ended at `end`; without a previous one, the batch that begins there.
    fn batch(&self, identity: &Identity, end: Place, previous: Option<Header>) -> Option<Header> {
        let elsewhere = previous.into_iter().flat_map(|_| batch::later_beginnings(u64::from(end.offset)));
        let mut places = core::iter::once(u64::from(end.offset)).chain(elsewhere);
        places.find_map(|offset| {
            let block = self.from(Place { offset: u32::try_from(offset).ok()?, ..end });
            let block = block.get(..BLOCK_BYTES_MIN).unwrap_or(block);
            if block.len() < HEADER_BYTES {
                return None;
            }
            let Found::Ours(header) = Header::find(block, identity, u64::from(end.segment), offset) else {
                return None;
            };
            previous.is_none_or(|previous| header.follows(&previous)).then_some(header)
        })
    }

    /// What the region holds from `place` on; nothing where it does not reach.
    fn from(&self, place: Place) -> &[u8] {
        let at = place.offset.checked_sub(self.begin.offset);
        at.and_then(|at| self.bytes.get(at as usize..)).unwrap_or_default()
    }
}

/// Goes through records, and takes from them one entry after the other.
struct Search<'a> {
    shard: ShardId,
    /// The next one.
    entry: EntryId,
    /// The index after the last one.
    end: u64,
    runs: &'a mut Vec<Run>,
}

impl Search<'_> {
    fn goes_on(&self) -> bool {
        self.entry.index.0 < self.end
    }

    /// Goes through the records of one batch. The region may end before they do, behind the last entry.
    fn look(&mut self, region: &Region<'_>, begin: Place, end: Place) -> Result<(), Decay> {
        let mut place = begin;
        while place < end && self.goes_on() {
            let entry = self.entry;
            let malformed = |malformed| Decay { entry, place, why: Why::Record(malformed) };
            let bytes = region.from(place);
            let (header, span_bytes) = record::peek(bytes).map_err(malformed)?;
            if header.shard == self.shard.0 && header.id() == entry {
                record::read(bytes).map_err(malformed)?;
                if !self.runs.last_mut().is_some_and(|run| run.take_in(entry, place, span_bytes as u32)) {
                    self.runs.push(Run::of(entry, place, span_bytes as u32));
                }
                self.entry.index = entry.index.next();
            }
            place = place.plus(span_bytes);
        }
        Ok(())
    }
}
