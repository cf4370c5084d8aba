//! The leader's side: appends, heartbeats, commit, check-quorum.
//!
//! *Commit* is what a majority has on disk, this node's own disk a voice like any other, and only ever moves to an
//! entry of the leader's own term (Raft, figure 8).
//!
//! *Commit notices.* Followers learn the commit index from the next append. When none follows within the notice delay
//! ([`super::Options::commit_notice`]), an empty append tells them: a reader at a follower sees a commit at most that
//! much late, and a busy shard is not sent a frame more.

use alloc::vec::Vec;
use core::time::Duration;

use super::effects::{Effects, Entries, Span};
use super::local::Local;
use super::message::{Ack, Message};
use super::progress::{Mode, Progress};
use super::read::Reads;
use super::transfer::Handover;
use super::{Raft, State, quorum};
use crate::types::{EntryId, Index, NodeId, Term, Time};

/// How long a commit waits for an append to carry it to the followers, where nobody waits for it there.
pub const COMMIT_NOTICE: Duration = Duration::from_millis(5);

/// What only a leader has.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) followers: Vec<Progress>,
    /// The no-op, the first entry of the leader's own term.
    pub(super) begins: Index,
    pub(super) heartbeat_at: Time,
    /// When it is next looked at whether a quorum was heard. At or before the time by which it must have been.
    pub(super) check_at: Time,
    pub(super) handover: Option<Handover>,
    pub(super) reads: Reads,
}

/// What every append of one moment says alike.
#[derive(Clone, Copy)]
struct Says {
    term: Term,
    commit: Index,
    round: u64,
}

impl Says {
    fn empty(self, follower: &mut Progress, local: &Local, effects: &mut Effects) {
        self.push(follower, local, self.term, 0, effects);
    }

    fn push(
        self,
        follower: &mut Progress,
        local: &Local,
        entries_term: Term,
        count: u32,
        effects: &mut Effects,
    ) {
        let previous = local.entry(follower.next().previous());
        let Says { term, commit, round } = self;
        follower.round_sent = round;
        follower.commit_unsaid_since = None;
        let append = Message::Append { term, previous, entries_term, count, commit, round };
        effects.messages.push((follower.id, append));
    }
}

impl Leader {
    /// When something is due.
    pub(super) fn next_wake(&self, commit_notice: Duration) -> Time {
        if self.followers.is_empty() {
            return Time::NEVER;
        }
        let handover = self.handover.map_or(Time::NEVER, |handover| handover.until);
        let notices = self.followers.iter().filter_map(|follower| notice_at(follower, commit_notice));
        notices.fold(self.heartbeat_at.min(self.check_at).min(handover), Time::min)
    }
}

/// When a follower is to be told of a commit that no append has carried. One that is probed hears heartbeats alone.
fn notice_at(follower: &Progress, commit_notice: Duration) -> Option<Time> {
    let since = follower.commit_unsaid_since.filter(|_| follower.mode == Mode::Replicate)?;
    Some(since.after(commit_notice))
}

impl Raft {
    /// The election is won.
    pub(super) fn lead(&mut self, now: Time, effects: &mut Effects) {
        assert_eq!(self.vote_durable.get().term, self.vote.term, "a leader's term is durable");
        let last = self.local.last().index;
        let others = self.voters.iter().filter(|voter| **voter != self.id);
        self.leader = Some(self.id);
        self.state = State::Leader(alloc::boxed::Box::new(Leader {
            followers: others.map(|voter| Progress::new(*voter, last, now)).collect(),
            begins: last.next(),
            heartbeat_at: now.after(self.timing.heartbeat),
            check_at: now.after(self.timing.election),
            handover: None,
            reads: Reads::default(),
        }));
        self.local.append(self.vote.term, 1);
        effects.noop = Some(self.local.last());
    }

    pub(super) fn on_leader_tick(&mut self, now: Time, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.handover.is_some_and(|handover| now >= handover.until) {
            leader.handover = None;
        }
        if now >= leader.check_at {
            let others = leader.followers.iter().map(|follower| follower.heard_at);
            let heard_at = quorum::reached(others.chain(core::iter::once(Time::NEVER)));
            leader.check_at = heard_at.after(self.timing.election);
            if now >= leader.check_at && !leader.followers.is_empty() {
                self.follow(now, self.vote.term, None, effects);
                return;
            }
        }
        let says = Says { term: self.vote.term, commit: self.commit, round: leader.reads.round };
        let beats = now >= leader.heartbeat_at;
        for follower in &mut leader.followers {
            let notice = notice_at(follower, self.timing.commit_notice).is_some_and(|at| now >= at);
            if beats || notice {
                says.empty(follower, &self.local, effects);
            }
        }
        if beats {
            leader.heartbeat_at = now.after(self.timing.heartbeat);
            self.hand_over(true, effects);
        }
    }

    /// See [`Raft::replicate`].
    pub(super) fn send_appends(&mut self, now: Time, entries: &mut impl Entries, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        if self.commit >= leader.begins {
            leader.reads.open(self.commit);
        }
        let says = Says { term: self.vote.term, commit: self.commit, round: leader.reads.round };
        for follower in &mut leader.followers {
            send_entries(now, says, follower, &self.local, entries, effects);
            let probes_nothing =
                follower.mode == Mode::Probe { asked: None } && follower.next() > self.local.last().index;
            if probes_nothing {
                follower.sent(now, 0, 0);
            }
            if probes_nothing || follower.round_sent < says.round {
                says.empty(follower, &self.local, effects);
            }
        }
        self.confirm_reads(effects);
    }

    pub(super) fn on_appended(&mut self, now: Time, from: NodeId, ack: Ack, effects: &mut Effects) {
        let last = self.local.last().index;
        let State::Leader(leader) = &mut self.state else { return };
        let Some(follower) = leader.followers.iter_mut().find(|follower| follower.id == from) else { return };
        if ack.matched() > last || ack.round() > leader.reads.round {
            // It speaks of what we never sent.
            self.contradictions += 1;
            return;
        }
        follower.heard_at = now;
        follower.round_echoed = follower.round_echoed.max(ack.round());
        if follower.acknowledged(ack.matched()) {
            self.advance_commit(now);
            self.hand_over(false, effects);
        }
        self.confirm_reads(effects);
    }

    pub(super) fn on_rejected(
        &mut self,
        now: Time,
        from: NodeId,
        (refused, hint, round): (Index, EntryId, u64),
        overtaken: bool,
        effects: &mut Effects,
    ) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(follower) = leader.followers.iter_mut().find(|follower| follower.id == from) else { return };
        if round > leader.reads.round {
            self.contradictions += 1;
            return;
        }
        follower.heard_at = now;
        follower.round_echoed = follower.round_echoed.max(round);
        if !overtaken && follower.is_refusal_new(refused) {
            let agreed = self.local.terms().last_of_term_at_most(hint.index, hint.term);
            follower.refused(refused, agreed.index);
        }
        self.confirm_reads(effects);
    }

    /// Moves the commit index to what a majority has on disk, if that is of our own term.
    pub(super) fn advance_commit(&mut self, now: Time) {
        let own = self.local.durable();
        let State::Leader(leader) = &mut self.state else { return };
        let others = leader.followers.iter().map(Progress::matched);
        let durable = quorum::reached(others.chain(core::iter::once(own)));
        if durable <= self.commit || durable < leader.begins {
            return;
        }
        assert!(durable <= self.local.last().index, "a quorum holds what the leader has");
        self.commit = durable;
        for follower in &mut leader.followers {
            follower.commit_unsaid_since.get_or_insert(now);
        }
    }
}

/// As many appends as the follower has room for.
fn send_entries(
    now: Time,
    says: Says,
    follower: &mut Progress,
    local: &Local,
    entries: &mut impl Entries,
    effects: &mut Effects,
) {
    while follower.next() <= local.last().index {
        let Some(budget) = follower.budget() else { return };
        let first = follower.next();
        let Span::Ready { count, bytes } = entries.span(first, budget) else { return };
        let end = Index(first.0 + u64::from(count)).previous();
        assert!(count > 0 && end <= local.terms().run_last(first), "a span is not empty, and of one term");
        let term = local.entry(first).term;
        says.push(follower, local, term, count, effects);
        follower.sent(now, count, bytes);
    }
}
