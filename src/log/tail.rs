//! The hot tail: the newest batches, still in memory, for followers that keep up.

use alloc::collections::VecDeque;

use super::shards::{Place, Shards, partition_from_back};
use super::stretch::Extent;
use crate::io::pool::Slice;

/// A batch in memory.
#[derive(Debug)]
struct Hot {
    sequence: u64,
    extent: Extent,
    bytes: Slice,
}

/// The newest batches, oldest first; batches of one chunk stand together.
#[derive(Debug, Default)]
pub(super) struct Tail {
    batches: VecDeque<Hot>,
    /// How many chunks they lie in.
    chunks: usize,
}

impl Tail {
    /// How many chunks are held.
    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    pub(super) fn push(&mut self, sequence: u64, extent: Extent, bytes: Slice) {
        let region = bytes.region_index();
        if self.batches.back().is_none_or(|last| last.bytes.region_index() != region) {
            self.chunks += 1;
        }
        self.batches.push_back(Hot { sequence, extent, bytes });
    }

    /// The bytes at `place`, if their batch is here.
    pub(super) fn get(&self, place: Place, len_bytes: usize) -> Option<&[u8]> {
        let reached =
            partition_from_back(self.batches.len(), |number| self.batches[number].extent.begin <= place);
        let position = reached.checked_sub(1)?;
        let batch = &self.batches[position];
        let at = (place.offset - batch.extent.begin.offset) as usize;
        if batch.extent.begin.segment != place.segment || at >= batch.bytes.len() {
            return None;
        }
        Some(&batch.bytes[at..at + len_bytes])
    }

    /// Lets go of the oldest chunk, if all its batches are durable: until then they cannot be read from the disk.
    /// Returns whether it did.
    pub(super) fn evict_chunk(&mut self, durable: u64, shards: &mut Shards) -> bool {
        let Some(region) = self.batches.front().map(|batch| batch.bytes.region_index()) else { return false };
        let of_chunk = |batch: &&Hot| batch.bytes.region_index() == region;
        let count = self.batches.iter().take_while(of_chunk).count();
        if self.batches[count - 1].sequence > durable {
            return false;
        }
        for _ in 0..count {
            self.evict(shards);
        }
        true
    }

    /// Lets go of all batches that are durable.
    pub(super) fn evict_durable(&mut self, durable: u64, shards: &mut Shards) {
        while self.batches.front().is_some_and(|batch| batch.sequence <= durable) {
            self.evict(shards);
        }
    }

    /// Lets go of the oldest batch, of which there is one.
    fn evict(&mut self, shards: &mut Shards) {
        let batch = self.batches.pop_front().expect("there is a batch");
        let region = batch.bytes.region_index();
        if self.batches.front().is_none_or(|next| next.bytes.region_index() != region) {
            self.chunks -= 1;
        }
        shards.fold(&batch.extent);
    }
}
