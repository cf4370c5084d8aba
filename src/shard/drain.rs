//! Stopping in good order: what was accepted ends, leadership is handed over, the log falls quiet, clients are told
//! farewell; within a bound.
//!
//! It begins when the other voters can do without this one. Members are mostly restarted one after the other, and the
//! one before may still be coming back: whoever led next would find no majority. Until then, and not for long, all goes
//! on.
//!
//! The farewell leaves nobody in doubt. What a client has sent is taken in the order in which it was sent, and answers
//! go the same way back: so what has no answer before the farewell was not taken, whether it still lies in a socket or
//! comes only now. The lane then reads and passes over what comes until the client has closed, for a connection that is
//! closed with something unread may lose its last words.

use core::time::Duration;

use super::{Groups, World};
use crate::raft::{Input, Role};
use crate::types::Time;

/// A drain takes no longer than this.
pub const DRAIN_BOUND: Duration = Duration::from_secs(3);

/// How many election timeouts of that others are given to come back.
const RETURN_TIMEOUTS: u32 = 2;

/// How long of that clients are given to hear the farewell and close.
const PARTING_BOUND: Duration = Duration::from_millis(200);

/// How a drain came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Submits that were answered as unknown because the bound was met.
    pub unknown: usize,
    /// Shards whose leadership nobody could be given.
    pub kept: usize,
}

/// The stages of a drain.
#[derive(Default)]
pub(super) enum Drain {
    /// There is none.
    #[default]
    No,
    /// It is wanted, and begins at `begins` at the latest.
    Wanted { begins: Time, until: Time },
    /// Nothing new is taken; what was accepted ends.
    Ending { until: Time },
    /// Leadership goes over; asked for anew at `again`, for who was asked may be out of reach.
    Handing { until: Time, again: Time, asked: usize },
    /// Clients have been told farewell, and close.
    Parting { until: Time, drained: Drained },
}

impl Drain {
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self, Drain::No)
    }

    /// Whether nothing new is taken any more.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Drain::No | Drain::Wanted { .. })
    }

    /// Whether clients have been told farewell: nothing that they send is looked at any more.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self, Drain::Parting { .. })
    }

    pub(super) fn next_wake(&self) -> Time {
        match *self {
            Drain::No => Time::NEVER,
            Drain::Wanted { begins, .. } => begins,
            Drain::Ending { until } | Drain::Parting { until, .. } => until,
            Drain::Handing { until, again, .. } => until.min(again),
        }
    }
}

impl<W: World> Groups<W> {
    pub(super) fn begin_drain(&mut self, now: Time) {
        if !self.drain.is_wanted() {
            let until = now.after(DRAIN_BOUND - PARTING_BOUND);
            let begins = now.after(RETURN_TIMEOUTS * self.options.election_timeout).min(until);
            self.drain = Drain::Wanted { begins, until };
            self.begin_if_dispensable(now);
        }
    }

    fn begin_if_dispensable(&mut self, now: Time) {
        if let Drain::Wanted { begins, until } = self.drain
            && (now >= begins || self.shards.iter().all(|shard| shard.raft.is_dispensable(now)))
        {
            self.drain = Drain::Ending { until };
        }
    }

    /// Goes on with a drain, if there is one; the result when it has ended.
    pub(super) fn drained(&mut self, now: Time) -> Option<Drained> {
        self.begin_if_dispensable(now);
        match self.drain {
            Drain::No | Drain::Wanted { .. } => None,
            Drain::Ending { until } => {
                let ended = self.shards.iter().all(|shard| shard.pending() == 0 && shard.large.is_none());
                if ended || now >= until {
                    self.hand_over(now, until, 0);
                }
                None
            }
            Drain::Handing { until, again, asked } => {
                if now >= again && now < until {
                    self.hand_over(now, until, asked + 1);
                }
                let kept = self.shards.iter().filter(|shard| shard.raft.role() == Role::Leader).count();
                let done = self.log.is_quiet() && (kept == 0 || self.options.voters.len() == 1);
                if done || now >= until {
                    let drained = self.part(kept);
                    self.drain = Drain::Parting { until: now.after(PARTING_BOUND), drained };
                }
                None
            }
            Drain::Parting { until, drained } => {
                let done = self.clients.count() == 0 && self.log.is_quiet();
                (done || now >= until).then_some(drained)
            }
        }
    }

    /// Gives every shard that is led here to the best successor, or, after `asked` attempts, to the next one.
    fn hand_over(&mut self, now: Time, until: Time, asked: usize) {
        self.drain = Drain::Handing { until, again: now.after(self.options.election_timeout), asked };
        for at in 0..self.shards.len() {
            let shard = &self.shards[at];
            if shard.raft.role() != Role::Leader {
                continue;
            }
            let successors = shard.raft.successors(now);
            // Who answers may not hear, so the next attempt asks the next one.
            if let Some(&to) = successors.get(asked % successors.len().max(1)) {
                self.step(now, at, Input::Transfer { to }, &[]);
            }
        }
    }

    /// Answers what was taken and has no end, and tells clients that all the rest was not taken.
    fn part(&mut self, kept: usize) -> Drained {
        let mut unknown = 0;
        for at in 0..self.shards.len() {
            let shard = &mut self.shards[at];
            unknown += shard.pending();
            self.clients.all_unknown(&mut shard.on_commit);
            self.clients.all_unknown(&mut shard.on_durable);
            // Readers turn elsewhere.
            shard.reads.clear();
            if let Some(large) = shard.large.take() {
                self.abandon(large, None);
            }
        }
        self.pass_over_held();
        self.clients.part();
        Drained { unknown, kept }
    }
}
