//! Linearizable reads without a log entry (Ongaro's thesis, 6.4).
//!
//! A read that arrives waits for the end of the turn, and all of one turn share a round: a number that every append
//! carries from then on and that followers echo. When a majority has echoed a round, no other leader had been elected
//! when they did, so the commit index noted when the round was opened covers all that had completed before the
//! reads. A round's number is used once in a term, and an echo counts in its own term alone: an old heartbeat never
//! confirms a new read.
//!
//! Before the leader has committed an entry of its own term it does not know what is committed; reads wait until then.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::effects::{Effects, ReadId};
use super::{Raft, State, quorum};
use crate::limits::READ_INDEXES_WAITING_MAX;
use crate::types::Index;

#[derive(Clone, Copy, Debug)]
struct Opened {
    read: ReadId,
    round: u64,
    index: Index,
}

/// A leader's reads under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// The latest round; 0 before the first.
    pub(super) round: u64,
    /// Not in a round yet.
    waiting: Vec<ReadId>,
    /// In a round, oldest first.
    opened: VecDeque<Opened>,
}

impl Reads {
    /// Opens a round for what waits.
    pub(super) fn open(&mut self, commit: Index) {
        if self.waiting.is_empty() {
            return;
        }
        self.round += 1;
        let round = self.round;
        self.opened.extend(self.waiting.drain(..).map(|read| Opened { read, round, index: commit }));
    }

    /// A majority has echoed `round`.
    pub(super) fn confirm(&mut self, round: u64, effects: &mut Effects) {
        while let Some(opened) = self.opened.front().filter(|opened| opened.round <= round) {
            effects.reads_ready.push((opened.read, opened.index));
            self.opened.pop_front();
        }
    }

    /// Leadership is lost.
    pub(super) fn refuse(&mut self, effects: &mut Effects) {
        effects.reads_refused.extend(self.opened.drain(..).map(|opened| opened.read));
        effects.reads_refused.append(&mut self.waiting);
    }

    fn is_full(&self) -> bool {
        self.waiting.len() + self.opened.len() >= READ_INDEXES_WAITING_MAX
    }
}

impl Raft {
    pub(super) fn on_read_index(&mut self, read: ReadId, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else {
            effects.reads_refused.push(read);
            return;
        };
        if leader.reads.is_full() {
            effects.reads_refused.push(read);
        } else if leader.followers.is_empty() && self.commit >= leader.begins {
            effects.reads_ready.push((read, self.commit));
        } else {
            leader.reads.waiting.push(read);
        }
    }

    /// Leader: answers the reads whose round a majority has echoed. The leader itself has, of every round.
    pub(super) fn confirm_reads(&mut self, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        let own = core::iter::once(leader.reads.round);
        let confirmed =
            quorum::reached(leader.followers.iter().map(|follower| follower.round_echoed).chain(own));
        leader.reads.confirm(confirmed, effects);
    }
}
