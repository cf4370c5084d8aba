//! Handing leadership over (Ongaro's thesis, 3.10): proposals stop, the target catches up, and is then told to stand
//! at once. If it does not lead after an election timeout, everything goes on as before.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::effects::Effects;
use super::message::Message;
use super::progress::{Mode, Progress};
use super::{Raft, State, quorum};
use crate::types::{NodeId, Time};

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    pub(super) to: NodeId,
    /// When it is given up.
    pub(super) until: Time,
    /// Whether the target was told; heartbeats repeat it.
    told: bool,
}

impl Raft {
    /// As leader: whom to hand over to, the best first. Who is there comes before who may have gone, however fresh the
    /// log is that it left with; then who has more of the log.
    pub fn successors(&self, now: Time) -> Vec<NodeId> {
        let State::Leader(leader) = &self.state else { return Vec::new() };
        let mut followers = leader.followers.iter().collect::<Vec<_>>();
        followers.sort_by_key(|follower| (!self.is_there(follower, now), Reverse(follower.matched())));
        followers.into_iter().map(|follower| follower.id).collect()
    }

    /// As leader: whether those voters that are there are a majority without this one; or never can be, being too few.
    /// Always so for who does not lead.
    pub fn is_dispensable(&self, now: Time) -> bool {
        let State::Leader(leader) = &self.state else { return true };
        let majority = quorum::majority(self.voters.len());
        let there = leader.followers.iter().filter(|follower| self.is_there(follower, now));
        leader.followers.len() < majority || there.count() >= majority
    }

    /// Whether it leads and hands over: it takes no proposals then.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.state, State::Leader(leader) if leader.handover.is_some())
    }

    /// As leader: whether this voter was heard within an election timeout. Who was not will hardly take over, and
    /// nothing is proposed while it is waited for.
    pub fn hears(&self, id: NodeId, now: Time) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let follower = leader.followers.iter().find(|follower| follower.id == id);
        follower.is_some_and(|follower| now.since(follower.heard_at) < self.timing.election)
    }

    /// It is connected, answers, and is sent what is appended.
    fn is_there(&self, follower: &Progress, now: Time) -> bool {
        follower.mode == Mode::Replicate && now.since(follower.heard_at) <= 2 * self.timing.heartbeat
    }

    pub(super) fn on_transfer(&mut self, now: Time, to: NodeId, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        let known = leader.followers.iter().any(|follower| follower.id == to);
        if !known || leader.handover.is_some_and(|handover| handover.to == to) {
            return;
        }
        let until = now.after(self.timing.election);
        leader.handover = Some(Handover { to, until, told: false });
        self.hand_over(false, effects);
    }

    /// Tells the target to stand if its log is as fresh as ours: once, or again when `repeat` is set.
    pub(super) fn hand_over(&mut self, repeat: bool, effects: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(handover) = &mut leader.handover else { return };
        let last = self.local.last().index;
        let fresh =
            |id| leader.followers.iter().any(|follower| follower.id == id && follower.matched() == last);
        if (repeat || !handover.told) && fresh(handover.to) {
            handover.told = true;
            effects.messages.push((handover.to, Message::TimeoutNow { term: self.vote.term }));
        }
    }

    /// The leader of this term asks us to take over.
    pub(super) fn on_timeout_now(&mut self, now: Time, from: NodeId, effects: &mut Effects) {
        let follows = matches!(self.state, State::Follower(_));
        if follows && self.leader.is_none_or(|leader| leader == from) {
            self.stand(now, true, effects);
        }
    }
}
