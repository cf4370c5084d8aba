//! What an operator may know of a lane, read between two turns.

use super::{Lane, World};
use crate::log;
use crate::types::{Index, Time};
use crate::wire::client::ShardStatus;

/// A turn that took longer is counted as slow: it is longer than the whole path of a commit on good hardware, and every
/// shard of the lane has waited for it. In nanoseconds.
pub const SLOW_TURN_NS: u64 = 1_000_000;

/// How the turns of a lane went.
///
/// A turn is timed from its beginning to that of the next one, with the clock's reading that each turn takes anyway.
/// Only turns that found something to do are timed: after the others the lane may have blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How many there were.
    pub turns: u64,
    /// How many of those that found something took longer than [`SLOW_TURN_NS`].
    pub slow: u64,
    /// The longest of those that found something, in nanoseconds.
    pub longest_ns: u64,
    began: Time,
    was_busy: bool,
}

impl Pace {
    /// A turn begins.
    pub(super) fn begin(&mut self, now: Time) {
        self.turns += 1;
        if self.was_busy {
            let took_ns = now.0.saturating_sub(self.began.0);
            if took_ns > self.longest_ns {
                self.longest_ns = took_ns;
            }
            self.slow += u64::from(took_ns > SLOW_TURN_NS);
        }
        self.began = now;
    }

    /// It has ended.
    pub(super) fn end(&mut self, was_busy: bool) {
        self.was_busy = was_busy;
    }
}

/// How a shard stands.
#[derive(Clone, Copy, Debug)]
pub struct ShardFigures {
    /// What clients are told of it.
    pub status: ShardStatus,
    /// Up to where submits and reads have been told of commits.
    pub applied: Index,
    /// Submits that wait for their outcome.
    pub submits_waiting: usize,
    /// See [`crate::raft::Raft::contradictions`].
    pub contradictions: u64,
}

impl<W: World> Lane<W> {
    /// How its shards stand, ascending by id.
    pub fn shards(&self) -> impl Iterator<Item = ShardFigures> + '_ {
        let groups = &self.groups;
        groups.shards.iter().enumerate().map(|(at, shard)| ShardFigures {
            status: groups.status(at),
            applied: shard.applied,
            submits_waiting: shard.pending(),
            contradictions: shard.raft.contradictions(),
        })
    }

    /// How its log stands.
    pub fn log(&self) -> log::Figures {
        self.groups.log.figures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_turn_that_found_something_is_timed() {
        let mut pace = Pace::default();
        // When each turn begins, in microseconds, and whether it finds something.
        for (at_us, found) in [(10, false), (9_000, true), (9_400, true), (10_500, false), (90_000, true)] {
            pace.begin(Time(at_us * 1000));
            pace.end(found);
        }
        assert_eq!((pace.turns, pace.slow, pace.longest_ns), (5, 1, 1_100_000));
        // A clock that stands still, or goes back, times nothing.
        pace.begin(Time(0));
        assert_eq!((pace.turns, pace.slow, pace.longest_ns), (6, 1, 1_100_000));
    }
}
