//! The hot tail: the newest batches, still in memory, for followers that keep up.

use alloc::collections::VecDeque;

use super::shards::{Place, partition_from_back};
use crate::io::pool::Slice;

/// A batch in memory.
#[derive(Debug)]
struct Hot {
    sequence: u64,
    place: Place,
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

    /// Where the oldest batch begins.
    pub(super) fn begin(&self) -> Option<Place> {
        self.batches.front().map(|batch| batch.place)
    }

    pub(super) fn push(&mut self, sequence: u64, place: Place, bytes: Slice) {
        let region = bytes.region_index();
        if self.batches.back().is_none_or(|last| last.bytes.region_index() != region) {
            self.chunks += 1;
        }
        self.batches.push_back(Hot { sequence, place, bytes });
    }

    /// The bytes at `place`, if their batch is here.
    pub(super) fn get(&self, place: Place, len_bytes: usize) -> Option<&[u8]> {
        let reached = partition_from_back(self.batches.len(), |number| self.batches[number].place <= place);
        let position = reached.checked_sub(1)?;
        let batch = &self.batches[position];
        let at = (place.offset - batch.place.offset) as usize;
        if batch.place.segment != place.segment || at >= batch.bytes.len() {
            return None;
        }
        Some(&batch.bytes[at..at + len_bytes])
    }

    /// Lets go of the oldest chunk, if all its batches are durable: until then they cannot be read from the disk.
    /// Returns whether it did.
    pub(super) fn evict_chunk(&mut self, durable: u64) -> bool {
        let Some(region) = self.batches.front().map(|batch| batch.bytes.region_index()) else { return false };
        let of_chunk = |batch: &&Hot| batch.bytes.region_index() == region;
        let count = self.batches.iter().take_while(of_chunk).count();
        if self.batches[count - 1].sequence > durable {
            return false;
        }
        self.batches.drain(..count);
        self.chunks -= 1;
        true
    }
}
