//! Where each shard's entries lie. Of those that are in memory something is kept for each run that lies together; of
//! those that lie on the disk alone, for each stretch of a megabyte. A run becomes part of a stretch when its batch
//! leaves memory.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::record::{self, Header};
use super::stretch::{Extent, Stretch};
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

/// A shard keeps room for so many runs, however few it has.
const RUNS_KEPT: usize = 64;

const _: () = assert!(size_of::<Run>() == 32, "the log's documentation tells the size");
const _: () = assert!(RUN_BYTES_MAX as usize / RECORD_HEADER_BYTES <= u16::MAX as usize, "a count fits");
const _: () = assert!(SHARDS_MAX as usize <= u32::MAX as usize);

impl Run {
    /// One entry alone.
    pub(super) fn of(id: EntryId, place: Place, len_bytes: u32) -> Run {
        Run { first: id.index.0, term: id.term.0, place, len_bytes, count: 1, cut: false }
    }

    /// Adds the entry at `place`, which follows its last one, if it lies right behind it and there is room. Returns
    /// whether it did.
    pub(super) fn take_in(&mut self, id: EntryId, place: Place, len_bytes: u32) -> bool {
        let follows = !self.cut
            && self.term == id.term.0
            && self.place.segment == place.segment
            && self.end_offset() == place.offset
            && self.len_bytes + len_bytes <= RUN_BYTES_MAX;
        if follows {
            self.len_bytes += len_bytes;
            self.count += 1;
        }
        follows
    }

    /// The index after its last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Where its bytes end.
    pub(super) fn end_offset(&self) -> u32 {
        self.place.offset + self.len_bytes
    }

    /// Without the entries from index `end` on, which is beyond its first.
    pub(super) fn until(self, end: u64) -> Run {
        if self.end() <= end {
            return self;
        }
        Run { count: (end - self.first) as u16, cut: true, ..self }
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
    /// What lies on the disk alone, ascending by index and by place.
    stretches: Vec<Stretch>,
    /// What lies in memory, behind that; ascending too.
    runs: VecDeque<Run>,
    /// Its mark in the open batch, if that has this sequence.
    pub(super) mark: (u64, u32),
}

impl ShardLog {
    pub(super) fn new(shard: ShardId) -> ShardLog {
        ShardLog {
            shard,
            last: EntryId::default(),
            vote: Vote::default(),
            stretches: Vec::new(),
            runs: VecDeque::new(),
            mark: (0, 0),
        }
    }

    /// Whether such an entry may come next: consecutive, and of no earlier term.
    pub(super) fn follows(&self, id: EntryId) -> bool {
        id.index == self.last.index.next() && id.term >= self.last.term && id.term > Term(0)
    }

    /// Takes note of the entry that was laid at `place`, in memory. Returns whether a run begins with it.
    fn append(&mut self, id: EntryId, place: Place, len_bytes: u32) -> bool {
        assert!(self.follows(id), "shard {}: {id} does not follow {}", self.shard, self.last);
        self.last = id;
        let begins = !self.runs.back_mut().is_some_and(|run| run.take_in(id, place, len_bytes));
        if begins {
            self.runs.push_back(Run::of(id, place, len_bytes));
        }
        begins
    }

    /// Takes note of the entry that lies at `place` on the disk, in this batch.
    pub(super) fn append_on_disk(&mut self, id: EntryId, batch: &Extent, place: Place, len_bytes: u32) {
        assert!(self.follows(id), "shard {}: {id} does not follow {}", self.shard, self.last);
        assert!(self.runs.is_empty(), "what is in memory comes last");
        self.last = id;
        self.stretch(batch, &Run::of(id, place, len_bytes));
    }

    /// This batch leaves memory: if the oldest run lies in it, that is on the disk alone from now on.
    fn fold(&mut self, batch: &Extent) {
        let Some(run) = self.runs.pop_front_if(|run| run.place < batch.end) else { return };
        assert!(run.place > batch.begin, "batches leave memory in order");
        self.stretch(batch, &run);
        // A shard that was busy once does not keep the memory of that.
        if self.runs.capacity() > RUNS_KEPT && self.runs.len() < self.runs.capacity() / 8 {
            self.runs.shrink_to(2 * self.runs.len());
        }
    }

    fn stretch(&mut self, batch: &Extent, run: &Run) {
        if !self.stretches.last_mut().is_some_and(|last| last.take_in(batch, run)) {
            self.stretches.push(Stretch::of(batch, run));
        }
    }

    /// Forgets the entries after `last`.
    pub(super) fn truncate_after(&mut self, last: Index) {
        if last >= self.last.index {
            return;
        }
        while self.runs.pop_back_if(|run| run.first > last.0).is_some() {}
        if let Some(run) = self.runs.back_mut() {
            *run = run.until(last.0 + 1);
            self.last = EntryId { term: Term(run.term), index: last };
            return;
        }
        while self.stretches.pop_if(|stretch| stretch.first > last.0).is_some() {}
        self.last = EntryId::default();
        if let Some(stretch) = self.stretches.last_mut() {
            stretch.count = (last.0 + 1 - stretch.first) as u32;
            self.last = EntryId { term: Term(stretch.term), index: last };
        }
    }

    /// The stretches from the one that holds the entry on; none, if it lies in memory.
    pub(super) fn on_disk_from(&self, index: Index) -> &[Stretch] {
        self.assert_has(index);
        let in_memory = self.runs.front().map_or(self.last.index.0 + 1, |run| run.first);
        if index.0 >= in_memory {
            return &[];
        }
        let after =
            partition_from_back(self.stretches.len(), |number| self.stretches[number].first <= index.0);
        &self.stretches[after - 1..]
    }

    /// The runs in memory from the one that holds the entry on; all, if it lies on the disk.
    pub(super) fn in_memory_from(&self, index: Index) -> impl Iterator<Item = &Run> {
        self.assert_has(index);
        let after = partition_from_back(self.runs.len(), |number| self.runs[number].first <= index.0);
        self.runs.range(after.saturating_sub(1)..)
    }

    pub(super) fn term_of(&self, index: Index) -> Term {
        let on_disk = self.on_disk_from(index).first().map(|stretch| stretch.term);
        let in_memory = || self.in_memory_from(index).next().map(|run| run.term);
        Term(on_disk.or_else(in_memory).expect("an entry lies on the disk or in memory"))
    }

    fn assert_has(&self, index: Index) {
        assert!(index > Index::ZERO && index <= self.last.index, "entry {index} of 1..={}", self.last.index);
    }

    /// The first entry of each term, ascending.
    pub(super) fn terms(&self) -> Vec<EntryId> {
        let on_disk = self.stretches.iter().map(|stretch| (stretch.term, stretch.first));
        let in_memory = self.runs.iter().map(|run| (run.term, run.first));
        let mut terms: Vec<EntryId> = Vec::new();
        for (term, first) in on_disk.chain(in_memory) {
            if terms.last().is_none_or(|id| id.term.0 != term) {
                terms.push(EntryId { term: Term(term), index: Index(first) });
            }
        }
        terms
    }

    /// How many stretches and how many runs are kept.
    #[cfg(test)]
    pub(super) fn lines(&self) -> (usize, usize) {
        (self.stretches.len(), self.runs.len())
    }

    /// For how many runs there is room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.runs.capacity()
    }
}

/// How many of the first `len` numbers hold; those that do come before those that do not. What is asked for is mostly
/// near the end, and there it is found in a few steps that stay in the cache.
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

/// All shards of a lane.
#[derive(Debug)]
pub(super) struct Shards {
    /// Ascending.
    pub(super) logs: Vec<ShardLog>,
    /// Whose each run in memory is, and where it begins; also of runs that were dropped since. Ascending by place, so
    /// that those of a batch that leaves memory are found without asking all shards.
    order: VecDeque<(Place, u32)>,
}

impl Shards {
    pub(super) fn new(shards: &[ShardId]) -> Shards {
        assert!(shards.is_sorted_by(|a, b| a < b), "a lane's shards are told ascending");
        Shards { logs: shards.iter().map(|&shard| ShardLog::new(shard)).collect(), order: VecDeque::new() }
    }

    /// Takes note of the entry that was laid at `place`, in memory; `shard` is a position.
    pub(super) fn append(&mut self, shard: usize, id: EntryId, place: Place, len_bytes: u32) {
        if self.logs[shard].append(id, place, len_bytes) {
            self.order.push_back((place, shard as u32));
        }
    }

    /// The oldest batch in memory leaves it. Takes a step for each run that was laid there.
    pub(super) fn fold(&mut self, batch: &Extent) {
        // A dropped run's turn may meet a later one of its shard in this batch: it goes before its own, and that meets
        // none.
        while let Some((_, shard)) = self.order.pop_front_if(|(place, _)| *place < batch.end) {
            self.logs[shard as usize].fold(batch);
        }
    }

    /// How many runs were laid in batches that are in memory.
    #[cfg(test)]
    pub(super) fn order_len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn position(&self, shard: ShardId) -> Option<usize> {
        self.logs.binary_search_by_key(&shard, |log| log.shard).ok()
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
