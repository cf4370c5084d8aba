//! Deferred replay: what a replica may not replay yet, in queues bounded in bytes that own their memory.
//!
//! A replica gives in the committed entries of every stream, each in the order of its log, and takes out what is to be
//! replayed: of every stream in order, and of no stream anything beyond the watermark or of the dead. What is drained
//! for one stream says nothing of the order between streams: per key the last writer by stamp wins.
//!
//! # Full queues cannot wait for each other
//! Each stream has a bound of its own, and one entry always fits an empty queue. A full queue means "give this stream
//! no more until it is drained", and the log keeps what is not given. That never stops all: the stream that holds the
//! watermark back stands, with the last entry given in, at the watermark itself, so all that it has queued is covered
//! and can be drained. Where an epoch ends, what is queued beyond a stream that was cut short is dead at once
//! ([`super::fold::ceiling`]), and so the registrar's queue does not wait for an end of the epoch that lies behind it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use super::{Fate, Fold, Mark};
use crate::types::{ShardId, Stamp};

/// An entry whose stream's queue is full; nothing of it was taken. Drain and give it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What has become of what was given in, in numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries replayed.
    pub replayed: u64,
    /// Entries that are dead: of an epoch that was cut short before them.
    pub dead: u64,
}

/// What an entry that waits takes beside its payload, in bytes: its place in the queue, and what memory of its own
/// costs at least.
pub const ENTRY_BYTES: usize = size_of::<(Stamp, Box<[u8]>)>() + 32;

/// Deferred entries of all streams.
#[derive(Debug)]
pub struct Replay {
    fold: Fold,
    queues: BTreeMap<ShardId, Queue>,
    bytes_max: usize,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<(Stamp, Box<[u8]>)>,
    bytes: usize,
}

impl Replay {
    /// With room for so many bytes in each stream: those of each record that waits, and [`ENTRY_BYTES`] more for
    /// it.
    pub fn new(bytes_max: usize) -> Replay {
        Replay { fold: Fold::default(), queues: BTreeMap::new(), bytes_max, counters: Counters::default() }
    }

    /// Takes in the stream's next committed entry: what it means, and of a record of the engine its bytes, put together
    /// if it came in parts. A record without a stamp is not deferred, and not for here.
    pub fn push(&mut self, stream: ShardId, mark: &Mark, payload: &[u8]) -> Result<(), Full> {
        let Mark::Data(stamp) = *mark else {
            self.fold.take(stream, mark);
            return Ok(());
        };
        if !self.has_room(stream, payload.len()) {
            return Err(Full);
        }
        let queue = self.queues.entry(stream).or_default();
        if self.fold.take(stream, mark) {
            queue.bytes += ENTRY_BYTES + payload.len();
            queue.entries.push_back((stamp, payload.into()));
        } else {
            self.counters.dead += 1;
        }
        Ok(())
    }

    /// Whether a record of so many bytes would be taken.
    pub fn has_room(&self, stream: ShardId, len_bytes: usize) -> bool {
        let queue = self.queues.get(&stream);
        queue.is_none_or(|queue| {
            queue.entries.is_empty() || queue.bytes + ENTRY_BYTES + len_bytes <= self.bytes_max
        })
    }

    /// Gives to `replay` what may be replayed by now, each stream in the order of its log, and returns how many entries
    /// that were.
    pub fn drain(&mut self, mut replay: impl FnMut(ShardId, Stamp, &[u8])) -> usize {
        let Replay { fold, queues, counters, .. } = self;
        let mut count = 0;
        for (&stream, queue) in queues {
            while let Some((stamp, payload)) = queue.entries.front() {
                match fold.fate(*stamp) {
                    Fate::Undecided => break,
                    Fate::Dead => counters.dead += 1,
                    Fate::Live => {
                        replay(stream, *stamp, payload);
                        count += 1;
                    }
                }
                queue.bytes -= ENTRY_BYTES + payload.len();
                queue.entries.pop_front();
            }
        }
        counters.replayed += count as u64;
        count
    }

    /// Where all streams stand.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// What has become of what was given in.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The bytes of what waits, over all streams, counted as the bound is.
    pub fn deferred_bytes(&self) -> usize {
        self.queues.values().map(|queue| queue.bytes).sum()
    }
}

const _: () = assert!(ENTRY_BYTES == 64, "the C ABI says so");
