//! The follower's side of replication: what appends do to the log, and when they are answered.
//!
//! An acknowledgement names the lesser of two indices: up to where this leader's appends were found to agree with
//! the log (`verified`), and up to where the log is durable. Durable entries of an earlier leader beyond what this one
//! has verified may be none of its log and are not acknowledged. No answer leaves before its term is durable.

use super::effects::{Accept, Effects};
use super::message::Message;
use super::{Raft, State};
use crate::types::{Durable, EntryId, Index, NodeId, Term, Time};

/// What a follower knows of its leader's log.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    /// When the leader was last heard; means something while there is one.
    pub(super) heard_at: Time,
    /// Up to where this log and the leader's are known to agree. What is committed is in every leader's log.
    verified: Index,
    /// The highest index that was acknowledged to this leader.
    told: Index,
    /// The highest round that this leader sent.
    round: u64,
    /// An answer that waits for the term to be durable.
    owed: Option<Answer>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Acknowledge,
    Refuse { refused: Index, hint: EntryId },
}

/// An append, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) previous: EntryId,
    pub(super) entries_term: Term,
    pub(super) count: u32,
    pub(super) commit: Index,
    pub(super) round: u64,
}

impl Follower {
    pub(super) fn new(commit: Index, now: Time) -> Follower {
        Follower { heard_at: now, verified: commit, told: Index::ZERO, round: 0, owed: None }
    }
}

impl Raft {
    /// An append of our own term.
    pub(super) fn on_append(&mut self, now: Time, from: NodeId, carried: Carried, effects: &mut Effects) {
        if matches!(self.state, State::Leader(_)) || self.leader.is_some_and(|leader| leader != from) {
            // Two leaders in one term: somebody lies, or lost its votes.
            self.contradictions += 1;
            return;
        }
        if !matches!(self.state, State::Follower(_)) {
            self.follow(now, self.vote.term, Some(from), effects);
        }
        self.leader = Some(from);
        self.rest(now);
        let State::Follower(follower) = &mut self.state else { return };
        follower.heard_at = now;
        let round_is_new = carried.round > follower.round;
        follower.round = follower.round.max(carried.round);
        if self.local.terms().term_at(carried.previous.index) != Some(carried.previous.term) {
            let hint = self.local.terms().last_of_term_at_most(carried.previous.index, carried.previous.term);
            self.answer(Answer::Refuse { refused: carried.previous.index, hint }, effects);
            return;
        }
        let Some(taken) = self.take(carried, effects) else {
            self.contradictions += 1;
            return;
        };
        self.follow_commit(carried.commit);
        // Entries are acknowledged when they are durable; all else, and a round that reads wait for, at once.
        if taken == 0 || round_is_new {
            self.answer(Answer::Acknowledge, effects);
        }
    }

    /// Decides what to do with entries that follow one of ours. Returns how many are new; none if they contradict what
    /// is committed or was acknowledged to the same leader, which an honest leader's never do.
    fn take(&mut self, carried: Carried, effects: &mut Effects) -> Option<u32> {
        let State::Follower(follower) = &mut self.state else { return None };
        let Carried { previous, entries_term, count, .. } = carried;
        let terms = self.local.terms();
        let first = previous.index.next();
        let here = if count > 0 && terms.term_at(first) == Some(entries_term) {
            terms.run_last(first).0 - previous.index.0
        } else {
            0
        };
        let skip = u32::try_from(here).unwrap_or(u32::MAX).min(count);
        let take = count - skip;
        if take > 0 {
            let agreed = Index(previous.index.0 + u64::from(skip));
            let conflicts = agreed < self.local.last().index;
            if conflicts && agreed < follower.verified {
                return None;
            }
            if conflicts {
                self.local.truncate_after(agreed, self.commit);
            }
            self.local.append(entries_term, u64::from(take));
            effects.accept = Some(Accept { truncate_after: conflicts.then_some(agreed), skip, take });
        }
        follower.verified = follower.verified.max(Index(previous.index.0 + u64::from(count)));
        Some(take)
    }

    /// Everything up to the leader's commit index that agrees with its log is committed.
    fn follow_commit(&mut self, commit: Index) {
        let State::Follower(follower) = &self.state else { return };
        self.commit = self.commit.max(commit.min(follower.verified));
        assert!(self.commit <= self.local.last().index, "what is committed is in the log");
    }

    /// An append of a lower term than ours: its leader must learn of the higher one, or we could follow nobody.
    pub(super) fn on_append_of_old(
        &mut self,
        from: NodeId,
        term: Term,
        previous: EntryId,
        effects: &mut Effects,
    ) {
        let durable = self.vote_durable.get().term;
        if durable > term {
            let refusal = Message::Rejected {
                term: durable,
                refused: previous.index,
                hint: EntryId::default(),
                round: 0,
            };
            effects.messages.push((from, refusal));
        }
    }

    pub(super) fn on_log_durable(&mut self, now: Time, entry: Durable<EntryId>, effects: &mut Effects) {
        if !self.local.confirm(entry) {
            return;
        }
        match &self.state {
            State::Leader(_) => self.advance_commit(now),
            State::Follower(follower) if self.agreed_and_durable(follower) > follower.told => {
                self.answer(Answer::Acknowledge, effects);
            }
            _ => {}
        }
    }

    /// The vote is durable, and so the term: what waited for it can be told.
    pub(super) fn answer_owed(&mut self, effects: &mut Effects) {
        let State::Follower(follower) = &mut self.state else { return };
        if let Some(answer) = follower.owed.take() {
            self.answer(answer, effects);
        }
    }

    fn answer(&mut self, answer: Answer, effects: &mut Effects) {
        let State::Follower(follower) = &self.state else { return };
        let Some(leader) = self.leader else { return };
        let term = self.vote.term;
        let is_told = self.vote_durable.get().term == term;
        let (matched, round) = (self.agreed_and_durable(follower), follower.round);
        let State::Follower(follower) = &mut self.state else { return };
        if !is_told {
            follower.owed = Some(answer);
            return;
        }
        let message = match answer {
            Answer::Acknowledge => {
                follower.told = follower.told.max(matched);
                Message::Appended(self.local.ack(term, matched, round))
            }
            Answer::Refuse { refused, hint } => Message::Rejected { term, refused, hint, round },
        };
        effects.messages.push((leader, message));
    }

    fn agreed_and_durable(&self, follower: &Follower) -> Index {
        follower.verified.min(self.local.durable())
    }
}
