//! Reading entries back: out of the newest batches, and out of what was fetched from the disk.

use alloc::vec::Vec;

use super::shards::Run;
use super::{Health, Log, record};
use crate::io::Disk;
use crate::raft::effects::Span;
use crate::types::{EntryId, Index, ShardId, Term};

impl<D: Disk> Log<D> {
    /// How many entries from `from` on can be read from memory now, cut at `bytes_max` and where the term changes;
    /// starts to fetch them from disk if they are not in memory.
    ///
    /// # Panics
    /// If the shard has no entry `from`, or it alone is longer than `bytes_max`.
    pub fn span(&mut self, shard: ShardId, from: Index, bytes_max: usize) -> Span {
        if !matches!(self.health, Health::Good) {
            // What was laid since it failed is not here: nothing is promised any more.
            return Span::Fetching;
        }
        let position = self.shards.of(shard);
        let term = self.shards.logs[position].term_of(from);
        let mut count = 0;
        let mut bytes = 0;
        let missing = self.walk(position, from, |run, memory| {
            if run.term != term.0 {
                return false;
            }
            let skip = (from.0 + u64::from(count)) - run.first;
            let (more, range) = run.part(memory, skip, u64::from(u32::MAX - count), bytes_max - bytes);
            count += more;
            bytes += range.len();
            let is_whole = skip + u64::from(more) == u64::from(run.count);
            assert!(
                is_whole || count > 0,
                "entry {from} of shard {shard} alone is longer than {bytes_max} bytes"
            );
            is_whole
        });
        // Before a read starts, which takes the memory of what nobody was promised in this turn.
        self.fetches.keep(position, EntryId { term, index: from }, Index(from.0 + u64::from(count)));
        let log = &self.shards.logs[position];
        if let Some(index) = missing
            && log.term_of(index) == term
        {
            self.fetches.start(&mut self.disk, &self.pool, position, log, index);
        }
        if count == 0 { Span::Fetching } else { Span::Ready { count, bytes } }
    }

    /// The bytes of `count` entries from `from` on, piece by piece, of which [`Log::span`] has said in this turn that
    /// they can be read.
    ///
    /// # Panics
    /// If they cannot.
    pub fn pieces<'a>(&'a self, shard: ShardId, from: Index, count: u32, pieces: &mut Vec<&'a [u8]>) {
        self.each_piece(shard, from, count, |piece| pieces.push(piece));
    }

    /// The headers of `count` entries from `from` on, of which [`Log::span`] has said in this turn that they can be
    /// read.
    ///
    /// # Panics
    /// If they cannot.
    pub fn each_header(
        &self,
        shard: ShardId,
        from: Index,
        count: u32,
        mut give: impl FnMut(&record::Header),
    ) {
        self.each_piece(shard, from, count, |piece| {
            let mut rest = piece;
            while !rest.is_empty() {
                let (header, span_bytes) = record::peek(rest).expect("what is in memory was checked");
                give(&header);
                rest = &rest[span_bytes..];
            }
        });
    }

    /// How many bytes that are.
    ///
    /// # Panics
    /// As [`Log::pieces`].
    pub fn bytes_of(&self, shard: ShardId, from: Index, count: u32) -> usize {
        let mut bytes = 0;
        self.each_piece(shard, from, count, |piece| bytes += piece.len());
        bytes
    }

    /// How many of `count` entries from `from` on have at most `bytes_max` bytes together; the first is always among
    /// them.
    ///
    /// # Panics
    /// As [`Log::pieces`].
    pub fn count_within(&self, shard: ShardId, from: Index, count: u32, bytes_max: usize) -> u32 {
        if self.bytes_of(shard, from, count) <= bytes_max {
            return count;
        }
        let (mut fits, mut too_many) = (1, count);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if self.bytes_of(shard, from, middle) <= bytes_max { fits = middle } else { too_many = middle }
        }
        fits
    }

    fn each_piece<'a>(&'a self, shard: ShardId, from: Index, count: u32, mut give: impl FnMut(&'a [u8])) {
        let position = self.shards.of(shard);
        let last = self.shards.logs[position].last;
        let end = from.0 + u64::from(count);
        assert!(end <= last.index.0 + 1, "shard {shard} ends with {last}");
        if count == 0 {
            return;
        }
        let mut next = from.0;
        self.walk(position, from, |run, memory| {
            let (taken, range) = run.part(memory, next - run.first, end - next, usize::MAX);
            give(&memory[range]);
            next += u64::from(taken);
            next < end
        });
        assert!(next == end, "a span promised in this turn is in memory");
    }

    /// Goes from run to run and its bytes, from the run that holds `from` on, as long as `give` says so. Returns the
    /// first entry that would be next and is not in memory.
    fn walk<'a>(
        &'a self,
        shard: usize,
        from: Index,
        mut give: impl FnMut(&Run, &'a [u8]) -> bool,
    ) -> Option<Index> {
        let log = &self.shards.logs[shard];
        let mut next = from.0;
        for stretch in log.on_disk_from(from) {
            while next < stretch.end() {
                let id = EntryId { term: Term(stretch.term), index: Index(next) };
                let Some(runs) = self.fetches.runs_from(shard, id) else { return Some(Index(next)) };
                // Behind the stretch it may go on with what was superseded since.
                let stands = |run: &Run| run.term == stretch.term && run.first < stretch.end();
                for (run, memory) in runs.take_while(|(run, _)| stands(run)) {
                    let run = run.until(stretch.end());
                    if !give(&run, memory) {
                        return None;
                    }
                    next = run.end();
                }
            }
        }
        for run in log.in_memory_from(from) {
            if !give(run, self.memory(run)) {
                break;
            }
        }
        None
    }

    /// The bytes of a run that lies in memory.
    fn memory(&self, run: &Run) -> &[u8] {
        let len_bytes = run.len_bytes as usize;
        if let Some(open) = &self.open
            && run.place >= open.place
        {
            let at = (run.place.offset - open.place.offset) as usize;
            let chunk = self.chunk.as_ref().expect("an open batch lies in a chunk");
            return &chunk.spare()[at..at + len_bytes];
        }
        self.tail.get(run.place, len_bytes).expect("a run is in memory until its batch leaves it")
    }

    /// The header of one entry, if it is in memory. Fetches nothing and keeps nothing. For simulator and tests.
    pub fn peek(&self, shard: ShardId, index: Index) -> Option<record::Header> {
        let position = self.shards.of(shard);
        if index == Index::ZERO || index > self.shards.logs[position].last.index {
            return None;
        }
        let mut found = None;
        self.walk(position, index, |run, memory| {
            let (_, range) = run.part(memory, index.0 - run.first, 1, usize::MAX);
            found = record::peek(&memory[range]).ok().map(|(header, _)| header);
            false
        });
        found
    }
}
