//! Writes under way, and what becomes durable when they are done: the contiguous prefix, never what lies behind a gap.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::LogEvent;
use super::shards::ShardLog;
use crate::limits::WRITES_IN_FLIGHT_MAX;
use crate::types::{Durable, EntryId, Flushed, Vote};

/// What one batch holds of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The shard's position among the lane's.
    pub(super) shard: usize,
    /// Its last entry in the batch that still stands.
    pub(super) last: Option<EntryId>,
    /// Its last vote in the batch.
    pub(super) vote: Option<Vote>,
}

/// A write under way.
#[derive(Debug)]
struct InFlight {
    sequence: u64,
    marks: Vec<Mark>,
    done: Option<Flushed>,
}

/// All of them, in the order of their sequence.
#[derive(Debug)]
pub(super) struct Flight {
    writes: VecDeque<InFlight>,
    /// Emptied lists of marks, to be used again.
    lists: Vec<Vec<Mark>>,
    /// What became durable in this poll: for each of the lane's shards its last entry, and which have one.
    entries: Vec<Option<Durable<EntryId>>>,
    dirty: Vec<usize>,
}

impl Flight {
    pub(super) fn new(shards: usize) -> Flight {
        Flight {
            writes: VecDeque::with_capacity(WRITES_IN_FLIGHT_MAX),
            lists: Vec::new(),
            entries: alloc::vec![None; shards],
            dirty: Vec::with_capacity(shards),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// An empty list for the next batch's marks.
    pub(super) fn list(&mut self) -> Vec<Mark> {
        self.lists.pop().unwrap_or_default()
    }

    pub(super) fn push(&mut self, sequence: u64, marks: Vec<Mark>) {
        assert!(
            self.writes.back().is_none_or(|last| last.sequence + 1 == sequence),
            "writes are numbered without gaps"
        );
        self.writes.push_back(InFlight { sequence, marks, done: None });
    }

    /// The disk has confirmed one.
    pub(super) fn written(&mut self, proof: Flushed) {
        let position = self.writes.binary_search_by_key(&proof.sequence().0, |write| write.sequence);
        let write = &mut self.writes[position.expect("a disk confirms writes that it was given, once")];
        assert!(write.done.is_none(), "a write is confirmed once");
        write.done = Some(proof);
    }

    /// Takes out the finished prefix. Tells votes at once, and each shard's entries once at the end. Returns the last
    /// sequence of the prefix, if it has grown.
    pub(super) fn settle(&mut self, shards: &[ShardLog], sink: &mut impl FnMut(LogEvent)) -> Option<u64> {
        let mut durable = None;
        while let Some(InFlight { sequence, mut marks, done: Some(proof) }) =
            self.writes.pop_front_if(|write| write.done.is_some())
        {
            durable = Some(sequence);
            for mark in marks.drain(..) {
                if let Some(vote) = mark.vote {
                    sink(LogEvent::Vote(shards[mark.shard].shard, Durable::covered_by(&proof, vote)));
                }
                let Some(last) = mark.last else { continue };
                let last = Durable::covered_by(&proof, last);
                if self.entries[mark.shard].replace(last).is_none() {
                    self.dirty.push(mark.shard);
                }
            }
            self.lists.push(marks);
        }
        for shard in self.dirty.drain(..) {
            let last = self.entries[shard].take().expect("a dirty shard has something to tell");
            sink(LogEvent::Entries(shards[shard].shard, last));
        }
        durable
    }

    /// The shard's log now ends with `last`: nothing behind it is told durable of what is under way.
    pub(super) fn clip(&mut self, shard: usize, last: EntryId) {
        for write in &mut self.writes {
            clip(&mut write.marks, shard, last);
        }
    }
}

/// See [`Flight::clip`].
pub(super) fn clip(marks: &mut [Mark], shard: usize, last: EntryId) {
    let marks = marks.iter_mut().filter(|mark| mark.shard == shard);
    for mark in marks.filter(|mark| mark.last.is_some_and(|id| id.index > last.index)) {
        mark.last = (last.index.0 > 0).then_some(last);
    }
}
