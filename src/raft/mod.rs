//! The protocol: one Raft group as a pure state machine.
//!
//! # Contract
//! The caller passes in what happened ([`Input`]) and the time, and carries out what comes out ([`Effects`]). There
//! is no disk, no network, no clock, no thread and no byte of a record in here, and nothing is allocated per entry.
//!
//! *Persistence.* After a step the caller lays `effects.vote`, `effects.accept` and `effects.noop` in its log, in this
//! order, and before it steps this group again. When the disk has confirmed a write, the caller says so with
//! [`Input::DurableVote`] and [`Input::DurableLog`], in the order of the writes. An entry that a truncation took out of
//! the log is not told durable any more by the writes that began before the truncation, even if the same entry has
//! been laid anew. Messages that promise something
//! come out only then, and carry the proof in their type ([`message::Ack`], [`message::Grant`]).
//!
//! *Sending.* Messages may be lost, doubled, reordered and late; [`Raft::replicate`] and the ticks repeat what matters.
//!
//! *Room.* A caller that has no room for an append's records does not step the append: to the protocol it was lost.
//!
//! # Where to read
//! Each role alone: `election` (who leads), `follower` (what appends do), `replication` (what a leader sends and
//! commits), over `progress` (what one follower has), `read` and `transfer`. Below them `local` (this node's log and
//! what of it is durable), `terms`, `quorum` and `random`, which know nothing of roles.
//!
//! *Sources.* Log matching, leader completeness and state-machine safety as in Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm" (2014); pre-vote, check-quorum, transfer and read index as in Ongaro's thesis.

pub mod effects;
pub mod message;

mod election;
mod follower;
mod local;
mod progress;
mod quorum;
mod random;
mod read;
mod replication;
mod terms;
mod transfer;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

pub use self::effects::{Accept, Change, Effects, Entries, Input, ReadId, Role, Span};
use self::election::Standing;
use self::follower::{Carried, Follower};
use self::local::Local;
pub use self::message::Message;
use self::random::Random;
pub use self::replication::COMMIT_NOTICE;
use self::replication::Leader;
use crate::limits::VOTERS_MAX;
use crate::types::{Durable, EntryId, Index, NodeId, Term, Time, Vote};

/// What a group is told when it is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub id: NodeId,
    /// All voters, this node among them; at most [`crate::limits::VOTERS_MAX`].
    pub voters: Vec<NodeId>,
    /// Elections are called after a random time between this and twice this without a leader.
    pub election_timeout: Duration,
    /// How often a leader is heard from when there is nothing else to say; at most a third of the election timeout.
    pub heartbeat: Duration,
    /// How long a commit waits for an append to carry it to the followers, before an empty one does; zero: not at all.
    /// At most the heartbeat interval counts.
    pub commit_notice: Duration,
    /// Where the random timeouts come from. Nodes and shards must not share one.
    pub seed: u64,
}

/// What the disk held when the node started.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last vote.
    pub vote: Durable<Vote>,
    /// The last entry; [`EntryId::default`] for an empty log.
    pub last: Durable<EntryId>,
    /// Where each term begins: the first entry of each term that the log holds, ascending.
    pub terms: Vec<EntryId>,
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another node leads, as far as is known.
    NotLeader {
        /// Who.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over; the next leader will take it.
    Transferring {
        /// To whom.
        to: NodeId,
    },
}

/// One Raft group on one node.
#[derive(Clone, Debug)]
pub struct Raft {
    id: NodeId,
    voters: Vec<NodeId>,
    /// Where this node stands among the voters.
    place: usize,
    timing: Timing,
    random: Random,
    /// The term and the vote, durable or on their way there.
    vote: Vote,
    vote_durable: Durable<Vote>,
    /// The vote is to be told when it is durable.
    grant_owed: bool,
    local: Local,
    commit: Index,
    leader: Option<NodeId>,
    /// When a node that does not lead calls an election.
    election_at: Time,
    state: State,
    reported: Change,
    contradictions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    election: Duration,
    heartbeat: Duration,
    commit_notice: Duration,
}

/// What each role alone has.
#[derive(Clone, Debug)]
enum State {
    Follower(Follower),
    PreCandidate(Standing),
    Candidate(Standing),
    Leader(Box<Leader>),
}

impl Raft {
    /// A follower with the log and the vote that the disk held. A voter without others need not wait for any and
    /// stands at the first tick.
    ///
    /// # Panics
    /// If `options` break the bounds that they document, or what was recovered is no log: terms that do not ascend, a
    /// last entry beyond the vote's term.
    pub fn new(options: Options, recovered: Recovered, now: Time) -> Raft {
        let Options { id, voters, election_timeout, heartbeat, commit_notice, seed } = options;
        let vote = *recovered.vote.get();
        assert!((1..=VOTERS_MAX).contains(&voters.len()), "between one voter and the most a shard may have");
        assert!((1..voters.len()).all(|at| !voters[..at].contains(&voters[at])), "every voter once");
        let place = voters.iter().position(|voter| *voter == id).expect("the node is one of the voters");
        assert!(!heartbeat.is_zero() && heartbeat * 3 <= election_timeout, "three heartbeats to a timeout");
        assert!(recovered.last.get().term <= vote.term, "no entry is of a term beyond the vote's");
        let alone = voters.len() == 1;
        let mut raft = Raft {
            id,
            voters,
            place,
            timing: Timing {
                election: election_timeout,
                heartbeat,
                commit_notice: commit_notice.min(heartbeat),
            },
            random: Random::new(seed),
            vote,
            vote_durable: recovered.vote,
            grant_owed: false,
            local: Local::new(recovered.terms, recovered.last),
            commit: Index::ZERO,
            leader: None,
            election_at: now,
            state: State::Follower(Follower::new(Index::ZERO, now)),
            reported: Change { role: Role::Follower, term: vote.term, leader: None },
            contradictions: 0,
        };
        if !alone {
            raft.rest(now);
        }
        raft
    }

    /// Takes in one thing that happened. What a peer says that makes no sense (see [`Message::is_sane`]), or comes from
    /// a stranger, changes nothing.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Effects) {
        match input {
            Input::Tick => self.on_tick(now, effects),
            Input::Peer { from, message } => self.on_peer(now, from, (message, false), effects),
            Input::Overtaken { from, message } => self.on_peer(now, from, (message, true), effects),
            Input::PeerDown(peer) => self.on_peer_down(now, peer),
            Input::DurableLog(entry) => self.on_log_durable(now, entry, effects),
            Input::DurableVote(vote) => self.on_vote_durable(now, vote, effects),
            Input::Transfer { to } => self.on_transfer(now, to, effects),
            Input::ReadIndex(read) => self.on_read_index(read, effects),
        }
        let change = Change { role: self.role(), term: self.vote.term, leader: self.leader };
        if change != self.reported {
            self.reported = change;
            effects.change = Some(change);
        }
    }

    /// Claims the next entry for a record that the caller lays in its log at once.
    ///
    /// # Errors
    /// When this node does not lead, or is handing over.
    pub fn propose(&mut self) -> Result<EntryId, Refused> {
        let State::Leader(leader) = &self.state else {
            return Err(Refused::NotLeader { leader: self.leader });
        };
        if let Some(handover) = leader.handover {
            return Err(Refused::Transferring { to: handover.to });
        }
        self.local.append(self.vote.term, 1);
        Ok(self.local.last())
    }

    /// Leader: adds the appends for which followers have room, once per turn, after all proposals, and opens the round
    /// that the turn's reads share. Nothing elsewhere.
    pub fn replicate(&mut self, now: Time, entries: &mut impl Entries, effects: &mut Effects) {
        self.send_appends(now, entries, effects);
    }

    /// As leader: when the oldest append that is under way to this follower was handed out by [`Raft::replicate`]. None
    /// when all are answered, or where the follower's log parts from ours is not known.
    pub fn oldest_sent_at(&self, to: NodeId) -> Option<Time> {
        let State::Leader(leader) = &self.state else { return None };
        leader.followers.iter().find(|follower| follower.id == to)?.oldest_sent_at()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_wake(&self) -> Time {
        match &self.state {
            State::Leader(leader) => leader.next_wake(self.timing.commit_notice),
            State::PreCandidate(standing) | State::Candidate(standing) => {
                self.election_at.min(standing.again_at)
            }
            State::Follower(_) => self.election_at,
        }
    }

    /// The last entry known to be committed and present in this log. Never goes back while the node runs.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// What this node is.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower(_) => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.vote.term
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The last entry of the log, durable or not.
    pub fn last(&self) -> EntryId {
        self.local.last()
    }

    /// The term of the entry at `index`, if the log holds one there; that of index 0 is 0.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.local.terms().term_at(index)
    }

    /// As leader: how far each voter's disk is known to be, this node's own among them.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, Index)> + '_ {
        let leader = match &self.state {
            State::Leader(leader) => Some(leader),
            _ => None,
        };
        let own = leader.map(|_| (self.id, self.local.durable()));
        let others = leader.into_iter().flat_map(|leader| &leader.followers);
        own.into_iter().chain(others.map(|follower| (follower.id, follower.matched())))
    }

    /// How many messages contradicted what is committed or acknowledged here, and were dropped. Anything but 0 means
    /// that a member lies or has forgotten what it promised, and is worth an operator's look.
    pub fn contradictions(&self) -> u64 {
        self.contradictions
    }

    fn on_tick(&mut self, now: Time, effects: &mut Effects) {
        match self.state {
            State::Leader(_) => self.on_leader_tick(now, effects),
            _ if now >= self.election_at => self.on_election_timeout(now, effects),
            State::PreCandidate(Standing { again_at, .. }) | State::Candidate(Standing { again_at, .. })
                if now >= again_at =>
            {
                self.ask_open(now, effects);
            }
            _ => {}
        }
    }

    fn on_peer(
        &mut self,
        now: Time,
        from: NodeId,
        (message, overtaken): (Message, bool),
        effects: &mut Effects,
    ) {
        if from == self.id || !self.voters.contains(&from) || !message.is_sane() {
            return;
        }
        match message {
            // These do not raise a term by themselves.
            Message::PreVote { term, last } => return self.on_pre_vote(now, from, term, last, effects),
            Message::PreVoteReply { term, granted } => {
                return self.on_pre_vote_reply(now, from, term, granted, effects);
            }
            Message::RequestVote { term, last, transfer } => {
                return self.on_request_vote(now, from, (term, last, transfer), effects);
            }
            _ => {}
        }
        let term = message.term();
        if term > self.vote.term {
            self.follow(now, term, None, effects);
        }
        let is_old = term < self.vote.term;
        match message {
            Message::Append { previous, .. } if is_old => {
                self.on_append_of_old(from, term, previous, effects)
            }
            _ if is_old => {}
            Message::Append { previous, entries_term, count, commit, round, .. } => {
                self.on_append(now, from, Carried { previous, entries_term, count, commit, round }, effects);
            }
            Message::VoteGranted(_) => self.on_vote_reply(now, from, true, effects),
            Message::VoteRefused { .. } => self.on_vote_reply(now, from, false, effects),
            Message::Appended(ack) => self.on_appended(now, from, ack, effects),
            Message::Rejected { refused, hint, round, .. } => {
                self.on_rejected(now, from, (refused, hint, round), overtaken, effects);
            }
            Message::TimeoutNow { .. } => self.on_timeout_now(now, from, effects),
            Message::PreVote { .. } | Message::PreVoteReply { .. } | Message::RequestVote { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
