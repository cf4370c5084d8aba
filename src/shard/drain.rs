//! Stopping in good order: what was accepted ends, leadership is handed over, the log falls quiet, clients are told
//! farewell; within a bound.
//!
//! The farewell leaves nobody in doubt. What a client has sent is taken in the order in which it was sent, and answers
//! go the same way back: so what has no answer before the farewell was not taken, whether it still lies in a socket or
//! comes only now. The lane then reads and passes over what comes until the client has closed, for a connection that is
//! closed with something unread may lose its last words.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Groups, World};
use crate::raft::{Input, Role};
use crate::types::{Index, NodeId, Time};

/// A drain takes no longer than this.
pub const DRAIN_BOUND: Duration = Duration::from_secs(3);

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
    /// Nothing new is taken; what was accepted ends.
    Ending { until: Time },
    /// Leadership goes over; asked for anew at `again`, for who was asked may be out of reach.
    Handing { until: Time, again: Time, asked: usize },
    /// Clients have been told farewell, and close.
    Parting { until: Time, drained: Drained },
}

impl Drain {
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Drain::No)
    }

    /// Whether clients have been told farewell: nothing that they send is looked at any more.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self, Drain::Parting { .. })
    }

    pub(super) fn next_wake(&self) -> Time {
        match *self {
            Drain::No => Time::NEVER,
            Drain::Ending { until } | Drain::Parting { until, .. } => until,
            Drain::Handing { until, again, .. } => until.min(again),
        }
    }
}

impl<W: World> Groups<W> {
    pub(super) fn begin_drain(&mut self, now: Time) {
        if !self.drain.has_begun() {
            self.drain = Drain::Ending { until: now.after(DRAIN_BOUND - PARTING_BOUND) };
        }
    }

    /// Goes on with a drain, if there is one; the result when it has ended.
    pub(super) fn drained(&mut self, now: Time) -> Option<Drained> {
        match self.drain {
            Drain::No => None,
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

    /// Gives every shard that is led here to the voter whose log is the freshest, or, after `asked` attempts, to the next one.
    fn hand_over(&mut self, now: Time, until: Time, asked: usize) {
        self.drain = Drain::Handing { until, again: now.after(self.options.election_timeout), asked };
        for at in 0..self.shards.len() {
            let shard = &self.shards[at];
            if shard.raft.role() != Role::Leader {
                continue;
            }
            let others = shard.raft.progress().filter(|&(id, _)| id != self.options.node);
            let mut others: Vec<(NodeId, Index)> = others.collect();
            others.sort_by_key(|&(_, durable)| core::cmp::Reverse(durable));
            // Who answers may not hear, so the next attempt asks the next one.
            let freshest = others.get(asked % others.len().max(1)).copied();
            if let Some((to, _)) = freshest {
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
