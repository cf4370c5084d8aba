//! Stopping in good order: what was accepted ends, leadership is handed over, the log falls quiet; within a bound.

use core::time::Duration;

use super::{Groups, World};
use crate::raft::{Input, Role};
use crate::types::{NodeId, Time};

/// A drain takes no longer than this.
pub const DRAIN_BOUND: Duration = Duration::from_secs(3);

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
    Handing { until: Time, again: Time },
}

impl Drain {
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Drain::No)
    }

    pub(super) fn next_wake(&self) -> Time {
        match *self {
            Drain::No => Time::NEVER,
            Drain::Ending { until } => until,
            Drain::Handing { until, again } => until.min(again),
        }
    }
}

impl<W: World> Groups<W> {
    pub(super) fn begin_drain(&mut self, now: Time) {
        if !self.drain.has_begun() {
            self.drain = Drain::Ending { until: now.after(DRAIN_BOUND) };
        }
    }

    /// Goes on with a drain, if there is one; the result when it has ended.
    pub(super) fn drained(&mut self, now: Time) -> Option<Drained> {
        match self.drain {
            Drain::No => None,
            Drain::Ending { until } => {
                let ended = self.shards.iter().all(|shard| shard.pending() == 0 && shard.large.is_none());
                if ended || now >= until {
                    self.hand_over(now, until);
                }
                None
            }
            Drain::Handing { until, again } => {
                if now >= again && now < until {
                    self.hand_over(now, until);
                }
                let kept = self.shards.iter().filter(|shard| shard.raft.role() == Role::Leader).count();
                let done = self.log.is_quiet() && (kept == 0 || self.options.voters.len() == 1);
                (done || now >= until).then(|| self.end_drain(kept))
            }
        }
    }

    /// Gives every shard that is led here to the voter whose log is the freshest.
    fn hand_over(&mut self, now: Time, until: Time) {
        self.drain = Drain::Handing { until, again: now.after(self.options.election_timeout) };
        for at in 0..self.shards.len() {
            let shard = &self.shards[at];
            if shard.raft.role() != Role::Leader {
                continue;
            }
            let others = shard.raft.progress().filter(|&(id, _)| id != self.options.node);
            let freshest: Option<(NodeId, _)> = others.max_by_key(|&(_, durable)| durable);
            if let Some((to, _)) = freshest {
                self.step(now, at, Input::Transfer { to }, &[]);
            }
        }
    }

    fn end_drain(&mut self, kept: usize) -> Drained {
        let mut unknown = 0;
        for shard in &mut self.shards {
            unknown += shard.pending();
            self.clients.all_unknown(&mut shard.on_commit);
            self.clients.all_unknown(&mut shard.on_durable);
        }
        Drained { unknown, kept }
    }
}
