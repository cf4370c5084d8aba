//! What the members of one shard say to each other.
//!
//! An [`Message::Append`] carries no bytes here: the records travel beside it in the frame, and the shard lays them
//! into its log as they came. All entries of one append are of one term, so that a term, a count and the entry
//! before them say everything that the protocol needs to know of them; a sender cuts at the border of two terms.

use crate::limits::{INDEX_MAX, TERM_MAX};
use crate::types::{Durable, EntryId, Index, NodeId, Term, Vote};

/// One message of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Would you vote for me in `term`? Changes nothing on either side (Ongaro's thesis, 9.6).
    PreVote {
        /// The term that the sender would stand in: one above its own.
        term: Term,
        /// The last entry of the sender's log.
        last: EntryId,
    },
    /// The answer to [`Message::PreVote`].
    PreVoteReply {
        /// The term that was asked for if granted, else the answerer's own.
        term: Term,
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me in `term`.
    RequestVote {
        /// The term that the sender stands in.
        term: Term,
        /// The last entry of the sender's log.
        last: EntryId,
        /// The leader asked for this election, so hearing that leader is no reason to refuse.
        transfer: bool,
    },
    /// A vote, durable before it was told.
    VoteGranted(Grant),
    /// No vote.
    VoteRefused {
        /// The refuser's term.
        term: Term,
    },
    /// Entries, or with `count` 0 a heartbeat.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry just before the first one carried.
        previous: EntryId,
        /// The term of all entries carried; the leader's own where there are none.
        entries_term: Term,
        /// How many entries are carried: `previous.index + 1 ..= previous.index + count`.
        count: u32,
        /// The leader's commit index.
        commit: Index,
        /// The leader's latest round of confirmation for reads; echoed in the answer.
        round: u64,
    },
    /// The sender's log agrees with the leader's up to the index told, and that is on the sender's disk.
    Appended(Ack),
    /// The entry before those that came is not in the sender's log.
    Rejected {
        /// The sender's term.
        term: Term,
        /// The `previous.index` that was refused, so that a late refusal is known for what it is.
        refused: Index,
        /// Where the leader should try next: the last entry that may agree.
        hint: EntryId,
        /// The round of the append that was refused.
        round: u64,
    },
    /// The leader hands over: stand for election now, without waiting for the timeout.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
}

/// That a follower holds the leader's log up to an index, on its own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    term: Term,
    matched: Index,
    round: u64,
}

impl Ack {
    /// An acknowledgement of `matched`, at most what is `durable`. The one way for a node to make one.
    ///
    /// # Panics
    /// If `matched` is beyond what is durable: that acknowledgement would be a lie.
    pub fn new(term: Term, matched: Index, durable: &Durable<EntryId>, round: u64) -> Ack {
        assert!(matched <= durable.get().index, "acknowledging {matched}, durable {}", durable.get());
        Ack { term, matched, round }
    }

    /// One that a peer has made, off the wire.
    pub(crate) fn received(term: Term, matched: Index, round: u64) -> Ack {
        Ack { term, matched, round }
    }

    /// The acknowledger's term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The last index up to which the logs are known to agree.
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// The highest round of confirmation that this answers.
    pub fn round(&self) -> u64 {
        self.round
    }
}

/// A vote for the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    term: Term,
}

impl Grant {
    /// The vote for `candidate` that is durable. The one way for a node to make one.
    ///
    /// # Panics
    /// If the durable vote is for somebody else.
    pub fn new(vote: &Durable<Vote>, candidate: NodeId) -> Grant {
        assert_eq!(vote.get().candidate, Some(candidate), "the vote on disk is for another");
        Grant { term: vote.get().term }
    }

    /// One that a peer has made, off the wire.
    pub(crate) fn received(term: Term) -> Grant {
        Grant { term }
    }

    /// The term in which the vote counts.
    pub fn term(&self) -> Term {
        self.term
    }
}

impl Message {
    /// The sender's term, or for pre-votes the term that is spoken of.
    pub fn term(&self) -> Term {
        match *self {
            Message::PreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::RequestVote { term, .. }
            | Message::VoteRefused { term }
            | Message::Append { term, .. }
            | Message::Rejected { term, .. }
            | Message::TimeoutNow { term } => term,
            Message::VoteGranted(grant) => grant.term,
            Message::Appended(ack) => ack.term,
        }
    }

    /// Whether an honest peer could say this: terms and indices within bounds (so that no sum of them overflows), an
    /// index 0 exactly with term 0, no entry of a later term than the one it is spoken of in, and terms that ascend.
    pub fn is_sane(&self) -> bool {
        let term = self.term();
        let is_entry = |entry: EntryId| {
            entry.index.0 <= INDEX_MAX
                && (entry.index == Index::ZERO) == (entry.term == Term(0))
                && entry.term <= term
        };
        let content = match *self {
            Message::PreVote { last, .. } | Message::RequestVote { last, .. } => {
                is_entry(last) && last.term < term
            }
            Message::Append { previous, entries_term, count, .. } => {
                is_entry(previous)
                    && previous.index.0 + u64::from(count) <= INDEX_MAX
                    && (previous.term..=term).contains(&entries_term)
                    && entries_term > Term(0)
            }
            Message::Rejected { refused, hint, .. } => refused.0 <= INDEX_MAX && is_entry(hint),
            Message::Appended(ack) => ack.matched.0 <= INDEX_MAX,
            Message::PreVoteReply { .. }
            | Message::VoteGranted(_)
            | Message::VoteRefused { .. }
            | Message::TimeoutNow { .. } => true,
        };
        term.0 <= TERM_MAX && content
    }
}
