//! This node's own log: what it holds, and how much of that its disk has.

use alloc::vec::Vec;

use super::message::Ack;
use super::terms::Terms;
use crate::types::{Durable, EntryId, Index, Term};

/// The log that the caller keeps, in the terms of the protocol.
#[derive(Clone, Debug)]
pub(super) struct Local {
    terms: Terms,
    /// The last word of the disk on an entry that was this log's when it was told.
    proof: Durable<EntryId>,
    /// How much of this log is durable. Below `proof` once a truncation has taken proven entries away.
    durable: Index,
}

impl Local {
    pub(super) fn new(runs: Vec<EntryId>, last: Durable<EntryId>) -> Local {
        let durable = last.get().index;
        Local { terms: Terms::new(runs, *last.get()), proof: last, durable }
    }

    pub(super) fn append(&mut self, term: Term, count: u64) {
        self.terms.append(term, count);
    }

    /// Drops what comes after `index`. What the disk has of it does not count any more: other entries come there.
    pub(super) fn truncate_after(&mut self, index: Index, commit: Index) {
        assert!(index >= commit, "truncating after {index}, committed is {commit}");
        self.terms.truncate_after(index);
        self.durable = self.durable.min(index);
    }

    /// Takes in what the disk has confirmed; whether that is news. An entry that was superseded while its write was
    /// in flight is none of this log's, and says nothing about what took its place.
    pub(super) fn confirm(&mut self, entry: Durable<EntryId>) -> bool {
        let EntryId { term, index } = *entry.get();
        if index <= self.durable || self.terms.term_at(index) != Some(term) {
            return false;
        }
        self.durable = index;
        self.proof = entry;
        true
    }

    /// An acknowledgement of what is durable here, up to `matched`.
    pub(super) fn ack(&self, term: Term, matched: Index, round: u64) -> Ack {
        assert!(matched <= self.durable, "acknowledging {matched}, durable {}", self.durable);
        Ack::new(term, matched, &self.proof, round)
    }

    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    pub(super) fn last(&self) -> EntryId {
        self.terms.last()
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The name of the entry at `index`, which the log must hold.
    pub(super) fn entry(&self, index: Index) -> EntryId {
        EntryId { term: self.terms.term_at(index).expect("the index is in the log"), index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64) -> EntryId {
        EntryId { term: Term(term), index: Index(index) }
    }

    #[test]
    fn durable_recedes_with_a_truncation_and_ignores_what_was_superseded() {
        let mut local = Local::new(alloc::vec![entry(1, 1)], Durable::pretend(entry(1, 10)));
        local.truncate_after(Index(5), Index(5));
        local.append(Term(2), 5);
        assert_eq!(local.durable(), Index(5), "entries 6 to 10 are others now");
        assert!(!local.confirm(Durable::pretend(entry(1, 10))), "told late of what was superseded");
        assert_eq!(local.durable(), Index(5));
        assert!(local.confirm(Durable::pretend(entry(2, 7))));
        assert_eq!(local.ack(Term(2), Index(7), 0).matched(), Index(7));
    }

    #[test]
    #[should_panic(expected = "acknowledging 6, durable 5")]
    fn nothing_is_acknowledged_beyond_the_durable_log() {
        let mut local = Local::new(alloc::vec![entry(1, 1)], Durable::pretend(entry(1, 10)));
        local.truncate_after(Index(5), Index(5));
        local.append(Term(2), 5);
        // The disk did once have index 6, of another term: that proof must not serve.
        local.ack(Term(2), Index(6), 0);
    }

    #[test]
    #[should_panic(expected = "truncating after 4, committed is 5")]
    fn what_is_committed_is_never_truncated() {
        let mut local = Local::new(alloc::vec![entry(1, 1)], Durable::pretend(entry(1, 10)));
        local.truncate_after(Index(4), Index(5));
    }
}
