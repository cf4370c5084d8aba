//! Elections: pre-vote, votes, and what makes a node give up a role.
//!
//! *A leader that is heard is not deposed.* Within an election timeout of hearing the leader, neither a pre-vote nor a
//! vote is granted, and a vote asked for in a higher term does not even raise ours; a leader always hears itself. The
//! exception is a vote that the leader asked for (transfer).
//!
//! *A node with a higher term than its leader* could follow nobody that way. It answers the leader's appends with
//! its own term, which makes the leader step down ([`super::follower`]); and who asks for a pre-vote in too low a term
//! is told the higher one.
//!
//! *Told after durable.* A candidate asks for votes when its own vote is on its disk; a vote is told when it is on the
//! voter's. No message names a term above the durable one, except the term that a pre-vote proposes.

use core::time::Duration;

use super::effects::Effects;
use super::follower::Follower;
use super::message::{Grant, Message};
use super::quorum::{Outcome, Votes};
use super::{Raft, State};
use crate::limits::TERM_MAX;
use crate::types::{Durable, EntryId, NodeId, Term, Time, Vote};

/// Standing, or asking whether to.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    votes: Votes,
    /// The leader asked for it.
    transfer: bool,
    /// When those who have not answered are asked again: questions get lost, too.
    pub(super) again_at: Time,
}

impl Raft {
    /// Not a leader, and none was heard for the random timeout.
    pub(super) fn on_election_timeout(&mut self, now: Time, effects: &mut Effects) {
        if matches!(self.state, State::Candidate(_)) && *self.vote_durable.get() != self.vote {
            // Our own vote is not on disk: nobody was asked yet, and a higher term would only wait for the same disk.
            self.rest(now);
        } else {
            self.ask(now, effects);
        }
    }

    /// Asks whether an election would be won.
    fn ask(&mut self, now: Time, effects: &mut Effects) {
        if self.vote.term.0 >= TERM_MAX {
            self.rest(now);
            return;
        }
        let mut votes = Votes::new(self.voters.len());
        let outcome = votes.record(self.place, true);
        self.leader = None;
        self.state = State::PreCandidate(Standing { votes, transfer: false, again_at: now });
        self.rest(now);
        if outcome == Outcome::Won {
            self.stand(now, false, effects);
        } else {
            self.ask_open(now, effects);
        }
    }

    /// Asks those who have not answered, now and again after a heartbeat interval.
    pub(super) fn ask_open(&mut self, now: Time, effects: &mut Effects) {
        let (term, last) = (self.vote.term, self.local.last());
        let (standing, message) = match &mut self.state {
            State::PreCandidate(standing) => (standing, Message::PreVote { term: Term(term.0 + 1), last }),
            State::Candidate(standing) => {
                let transfer = standing.transfer;
                (standing, Message::RequestVote { term, last, transfer })
            }
            State::Follower(_) | State::Leader(_) => return,
        };
        standing.again_at = now.after(self.timing.heartbeat);
        let votes = &standing.votes;
        let voters = self.voters.iter().enumerate();
        let open = voters.filter(|(place, voter)| **voter != self.id && votes.is_open(*place));
        effects.messages.extend(open.map(|(_, voter)| (*voter, message)));
    }

    /// Stands for election: votes for itself, and asks the others when that is durable.
    pub(super) fn stand(&mut self, now: Time, transfer: bool, effects: &mut Effects) {
        if self.vote.term.0 >= TERM_MAX {
            return;
        }
        let vote = Vote { term: Term(self.vote.term.0 + 1), candidate: Some(self.id) };
        self.set_vote(vote, effects);
        self.leader = None;
        let votes = Votes::new(self.voters.len());
        self.state = State::Candidate(Standing { votes, transfer, again_at: Time::NEVER });
        self.rest(now);
    }

    pub(super) fn on_vote_durable(&mut self, now: Time, vote: Durable<Vote>, effects: &mut Effects) {
        assert!(vote.get().term <= self.vote.term, "the disk has no vote that was not made");
        if vote.get().term < self.vote_durable.get().term {
            return;
        }
        self.vote_durable = vote;
        if *self.vote_durable.get() == self.vote {
            match &mut self.state {
                State::Candidate(standing) => {
                    if standing.votes.record(self.place, true) == Outcome::Won {
                        self.lead(now, effects);
                    } else {
                        self.ask_open(now, effects);
                    }
                }
                _ if self.grant_owed => self.grant(effects),
                _ => {}
            }
        }
        self.answer_owed(effects);
    }

    pub(super) fn on_pre_vote(
        &mut self,
        now: Time,
        from: NodeId,
        term: Term,
        last: EntryId,
        effects: &mut Effects,
    ) {
        let free = self.leader.is_none() && self.vote.candidate.is_none_or(|candidate| candidate == from);
        let newer = term > self.vote.term || (term == self.vote.term && free);
        let granted = newer && last >= self.local.last() && !self.hears_leader(now);
        let reply = if granted { term } else { self.vote_durable.get().term };
        effects.messages.push((from, Message::PreVoteReply { term: reply, granted }));
        // Two that ask at the same moment would both stand and split the votes. The one with the better claim, by log
        // and then by name, goes on; the other waits.
        let asks = matches!(self.state, State::PreCandidate(_));
        if granted && asks && (last, from) > (self.local.last(), self.id) {
            self.follow(now, self.vote.term, None, effects);
        }
    }

    pub(super) fn on_pre_vote_reply(
        &mut self,
        now: Time,
        from: NodeId,
        term: Term,
        granted: bool,
        effects: &mut Effects,
    ) {
        if !granted && term > self.vote.term {
            self.follow(now, term, None, effects);
            return;
        }
        // A refusal in a lower term may be one of an earlier time.
        let meant = if granted { term.0 == self.vote.term.0 + 1 } else { term == self.vote.term };
        let State::PreCandidate(standing) = &mut self.state else { return };
        if !meant {
            return;
        }
        let Some(place) = self.voters.iter().position(|voter| *voter == from) else { return };
        match standing.votes.record(place, granted) {
            Outcome::Won => self.stand(now, false, effects),
            Outcome::Lost => self.follow(now, self.vote.term, None, effects),
            Outcome::Open => {}
        }
    }

    pub(super) fn on_request_vote(
        &mut self,
        now: Time,
        from: NodeId,
        (term, last, transfer): (Term, EntryId, bool),
        effects: &mut Effects,
    ) {
        let stays = self.hears_leader(now) && !transfer;
        if term > self.vote.term && !stays {
            self.follow(now, term, None, effects);
        }
        let same = term == self.vote.term;
        if same && self.vote.candidate == Some(from) {
            self.grant_owed = true;
        } else if same && self.vote.candidate.is_none() && self.leader.is_none() && last >= self.local.last()
        {
            self.follow(now, term, None, effects);
            self.set_vote(Vote { term, candidate: Some(from) }, effects);
            self.grant_owed = true;
        } else {
            effects.messages.push((from, Message::VoteRefused { term: self.vote_durable.get().term }));
        }
        if self.grant_owed && *self.vote_durable.get() == self.vote {
            self.grant(effects);
        }
    }

    pub(super) fn on_vote_reply(&mut self, now: Time, from: NodeId, granted: bool, effects: &mut Effects) {
        let State::Candidate(standing) = &mut self.state else { return };
        let Some(place) = self.voters.iter().position(|voter| *voter == from) else { return };
        // Nobody was asked before our own vote was durable, so an answer that comes earlier answers nothing.
        if *self.vote_durable.get() != self.vote {
            return;
        }
        match standing.votes.record(place, granted) {
            Outcome::Won => self.lead(now, effects),
            Outcome::Lost => self.follow(now, self.vote.term, None, effects),
            Outcome::Open => {}
        }
    }

    /// A connection has closed. A leader whose process ended is not heard any more: others may have our vote at once,
    /// and after a short random while we ask for theirs. If the leader lives, those who hear it refuse, and we wait
    /// out a whole timeout.
    pub(super) fn on_peer_down(&mut self, now: Time, peer: NodeId) {
        match &mut self.state {
            State::Leader(leader) => {
                if let Some(follower) = leader.followers.iter_mut().find(|follower| follower.id == peer) {
                    follower.disconnected(now);
                }
            }
            State::Follower(_) if self.leader == Some(peer) => {
                self.leader = None;
                let timeout = self.timing.election;
                self.election_at = now.after(self.random.between(timeout / 20, timeout / 4));
            }
            _ => {}
        }
    }

    /// Becomes a follower, in `term` or in the own one; of `leader` if one is known.
    pub(super) fn follow(&mut self, now: Time, term: Term, leader: Option<NodeId>, effects: &mut Effects) {
        assert!(term >= self.vote.term, "a term never falls");
        if let State::Leader(leader) = &mut self.state {
            leader.reads.refuse(effects);
        }
        if term > self.vote.term {
            self.set_vote(Vote { term, candidate: None }, effects);
        }
        self.leader = leader;
        self.state = State::Follower(Follower::new(self.commit, now));
        self.rest(now);
    }

    fn set_vote(&mut self, vote: Vote, effects: &mut Effects) {
        assert!(vote.term > self.vote.term || self.vote.candidate.is_none(), "one vote in a term");
        self.vote = vote;
        self.grant_owed = false;
        effects.vote = Some(vote);
    }

    fn grant(&mut self, effects: &mut Effects) {
        self.grant_owed = false;
        if let Some(candidate) = self.vote.candidate {
            effects
                .messages
                .push((candidate, Message::VoteGranted(Grant::new(&self.vote_durable, candidate))));
        }
    }

    /// Whether a leader is being heard, so that nobody needs another.
    fn hears_leader(&self, now: Time) -> bool {
        match &self.state {
            State::Leader(_) => true,
            State::Follower(follower) => {
                self.leader.is_some() && now.since(follower.heard_at) < self.timing.election
            }
            State::PreCandidate(_) | State::Candidate(_) => false,
        }
    }

    /// Waits a new random timeout.
    pub(super) fn rest(&mut self, now: Time) {
        let timeout: Duration = self.timing.election;
        self.election_at = now.after(self.random.between(timeout, timeout * 2));
    }
}
