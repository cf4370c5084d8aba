//! Where each shard's entries lie: runs of consecutive entries, found by index or by place.

use alloc::vec::Vec;

use super::record::{self, Header};
use crate::limits::{RECORD_HEADER_BYTES, SHARDS_MAX};
use crate::types::{EntryId, Index, ShardId, Term, Vote};

/// A run grows no longer than this, unless one record is: finding an entry in it walks so many bytes at most.
pub(super) const RUN_BYTES_MAX: u32 = 16 << 10;

/// A place in the log, in the order in which it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Place {
    pub(super) fn plus(self, bytes: usize) -> Place {
        Place { offset: self.offset + bytes as u32, ..self }
    }
}

/// Consecutive entries of one shard and term that lie one after another in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) term: u64,
    pub(super) place: Place,
    /// The bytes of its entries; of a cut run those of the superseded ones too.
    pub(super) len_bytes: u32,
    pub(super) count: u16,
    /// Its last entries were superseded: only walking it tells where it ends.
    pub(super) cut: bool,
}

const _: () = assert!(RUN_BYTES_MAX as usize / RECORD_HEADER_BYTES <= u16::MAX as usize, "a count fits");
const _: () = assert!(SHARDS_MAX as usize <= u32::MAX as usize);

impl Run {
    /// The index after its last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Where its bytes end.
    pub(super) fn end_offset(&self) -> u32 {
        self.place.offset + self.len_bytes
    }

    /// Whether the run's `bytes` are what was laid: for bytes that come back from a disk.
    pub(super) fn check(&self, shard: ShardId, bytes: &[u8]) -> Result<(), record::Malformed> {
        let mut rest = bytes;
        for index in self.first..self.end() {
            let (record, span) = record::read(rest)?;
            let expected = EntryId { term: Term(self.term), index: Index(index) };
            if record.header.id() != expected || record.header.shard != shard.0 {
                return Err(record::Malformed::Field("index"));
            }
            rest = &rest[span..];
        }
        Ok(())
    }

    /// The entries of the run from `skip` on, at most `count` and at most `bytes_max`: how many, and their bytes'
    /// range in `bytes`, the run's own.
    pub(super) fn part(
        &self,
        bytes: &[u8],
        skip: u64,
        count: u64,
        bytes_max: usize,
    ) -> (u32, core::ops::Range<usize>) {
        if skip == 0 && !self.cut && count >= u64::from(self.count) && self.len_bytes as usize <= bytes_max {
            return (u32::from(self.count), 0..self.len_bytes as usize);
        }
        let mut begin = 0;
        for _ in 0..skip {
            begin += span_at(bytes, begin);
        }
        let mut end = begin;
        let mut taken = 0;
        while taken < count.min(u64::from(self.count) - skip) {
            let span = span_at(bytes, end);
            if end + span - begin > bytes_max {
                break;
            }
            end += span;
            taken += 1;
        }
        (taken as u32, begin..end)
    }
}

/// The span of the record at `offset`, of bytes that were checked before.
fn span_at(bytes: &[u8], offset: usize) -> usize {
    let header: Header = bytemuck::pod_read_unaligned(&bytes[offset..offset + RECORD_HEADER_BYTES]);
    record::span_bytes(header.len_bytes as usize)
}

/// One shard in the log.
#[derive(Debug)]
pub(super) struct ShardLog {
    pub(super) shard: ShardId,
    pub(super) last: EntryId,
    pub(super) vote: Vote,
    /// Ascending, both by index and by place.
    pub(super) runs: Vec<Run>,
    /// Its mark in the open batch, if that has this sequence.
    pub(super) mark: (u64, u32),
}

impl ShardLog {
    pub(super) fn new(shard: ShardId) -> ShardLog {
        ShardLog { shard, last: EntryId::default(), vote: Vote::default(), runs: Vec::new(), mark: (0, 0) }
    }

    /// Whether such an entry may come next: consecutive, and of no earlier term.
    pub(super) fn follows(&self, id: EntryId) -> bool {
        id.index == self.last.index.next() && id.term >= self.last.term && id.term > Term(0)
    }

    /// Takes note of the entry that was laid at `place`.
    pub(super) fn append(&mut self, id: EntryId, place: Place, len_bytes: u32) {
        assert!(self.follows(id), "shard {}: {id} does not follow {}", self.shard, self.last);
        self.last = id;
        if let Some(run) = self.runs.last_mut()
            && !run.cut
            && run.term == id.term.0
            && run.place.segment == place.segment
            && run.end_offset() == place.offset
            && run.len_bytes + len_bytes <= RUN_BYTES_MAX
        {
            run.len_bytes += len_bytes;
            run.count += 1;
            return;
        }
        self.runs.push(Run { first: id.index.0, term: id.term.0, place, len_bytes, count: 1, cut: false });
    }

    /// Forgets the entries after `last`.
    pub(super) fn truncate_after(&mut self, last: Index) {
        if last >= self.last.index {
            return;
        }
        while self.runs.last().is_some_and(|run| run.first > last.0) {
            self.runs.pop();
        }
        self.last = EntryId::default();
        if let Some(run) = self.runs.last_mut() {
            if run.end() > last.0 + 1 {
                run.count = (last.0 + 1 - run.first) as u16;
                run.cut = true;
            }
            self.last = EntryId { term: Term(run.term), index: last };
        }
    }

    /// The number of the run that holds the entry.
    pub(super) fn run_of(&self, index: Index) -> usize {
        assert!(index > Index::ZERO && index <= self.last.index, "entry {index} of 1..={}", self.last.index);
        partition_from_back(self.runs.len(), |number| self.runs[number].first <= index.0) - 1
    }

    /// The first entry of each term, ascending.
    pub(super) fn terms(&self) -> Vec<EntryId> {
        let mut terms: Vec<EntryId> = Vec::new();
        for run in &self.runs {
            if terms.last().is_none_or(|id| id.term.0 != run.term) {
                terms.push(EntryId { term: Term(run.term), index: Index(run.first) });
            }
        }
        terms
    }
}

/// How many of the first `len` numbers hold; those that do come before those that do not. What is asked for is mostly near
/// the end, and there it is found in a few steps that stay in the cache.
pub(super) fn partition_from_back(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let mut step = 1;
    while step <= len && !holds(len - step) {
        step *= 2;
    }
    let mut low = len.saturating_sub(step);
    let mut high = len - step / 2;
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// All shards of a lane, ascending.
#[derive(Debug)]
pub(super) struct Shards(pub(super) Vec<ShardLog>);

impl Shards {
    pub(super) fn new(shards: &[ShardId]) -> Shards {
        assert!(shards.is_sorted_by(|a, b| a < b), "a lane's shards are told ascending");
        Shards(shards.iter().map(|&shard| ShardLog::new(shard)).collect())
    }

    pub(super) fn position(&self, shard: ShardId) -> Option<usize> {
        self.0.binary_search_by_key(&shard, |log| log.shard).ok()
    }

    pub(super) fn of(&self, shard: ShardId) -> usize {
        self.position(shard).expect("a lane asks its log for its own shards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_from_the_back_finds_what_a_search_finds() {
        for len in 0..70 {
            for expected in 0..=len {
                assert_eq!(partition_from_back(len, |number| number < expected), expected, "of {len}");
            }
        }
    }
}
