//! Where each term of a log begins: all that the protocol needs to know of the entries themselves.

use alloc::vec::Vec;

use crate::types::{EntryId, Index, Term};

/// A log as runs of entries of one term. As many items as the log saw terms, not entries.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The first entry of each run, ascending in term and index.
    runs: Vec<EntryId>,
    last: EntryId,
}

impl Terms {
    /// A log that was recovered.
    pub(super) fn new(runs: Vec<EntryId>, last: EntryId) -> Terms {
        assert!(runs.is_sorted_by(|a, b| a.term < b.term && a.index < b.index), "terms and indices ascend");
        match runs.last() {
            None => assert_eq!(last, EntryId::default(), "a log without a term is empty"),
            Some(run) => assert!(
                run.term == last.term && run.index <= last.index && run.index > Index::ZERO,
                "the last term begins at {run} and holds the last entry {last}"
            ),
        }
        Terms { runs, last }
    }

    /// Adds so many entries of one term.
    pub(super) fn append(&mut self, term: Term, count: u64) {
        assert!(term >= self.last.term && term > Term(0), "terms never fall: {term} after {}", self.last);
        assert!(count > 0, "something to append");
        if term > self.last.term {
            self.runs.push(EntryId { term, index: self.last.index.next() });
        }
        self.last = EntryId { term, index: Index(self.last.index.0 + count) };
    }

    /// Drops every entry after `index`.
    pub(super) fn truncate_after(&mut self, index: Index) {
        assert!(index <= self.last.index, "truncating after {index}, the last is {}", self.last);
        while self.runs.last().is_some_and(|run| run.index > index) {
            self.runs.pop();
        }
        self.last = match self.runs.last() {
            Some(run) => EntryId { term: run.term, index },
            None => EntryId::default(),
        };
    }

    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    /// The term of the entry at `index`: 0 for the empty log's index 0, none beyond the last.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == Index::ZERO {
            return Some(Term(0));
        }
        self.run_of(index).map(|run| self.runs[run].term)
    }

    /// The last entry's index of the run that `index` lies in, which must be in the log.
    pub(super) fn run_last(&self, index: Index) -> Index {
        let run = self.run_of(index).expect("the index is in the log");
        self.runs.get(run + 1).map_or(self.last.index, |next| next.index.previous())
    }

    /// The last entry at or before `index` whose term is at most `term`; the empty log where there is none. It skips
    /// whole terms: what two diverging logs can agree on lies at or before it.
    pub(super) fn last_of_term_at_most(&self, index: Index, term: Term) -> EntryId {
        let mut index = index.min(self.last.index);
        for run in self.runs.iter().rev() {
            if run.index > index {
                continue;
            }
            if run.term <= term {
                return EntryId { term: run.term, index };
            }
            index = run.index.previous();
        }
        EntryId::default()
    }

    /// From the end: what is asked for is nearly always recent.
    fn run_of(&self, index: Index) -> Option<usize> {
        if index > self.last.index {
            return None;
        }
        self.runs.iter().rposition(|run| run.index <= index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// The obvious log: one term per entry.
    fn check(terms: &Terms, model: &[u64], probe: u64, term: u64, case: usize) {
        let at = |index: u64| if index == 0 { Some(0) } else { model.get(index as usize - 1).copied() };
        let last = model.len() as u64;
        assert_eq!(
            terms.last(),
            EntryId { term: Term(at(last).unwrap_or(0)), index: Index(last) },
            "case {case}"
        );
        assert_eq!(terms.term_at(Index(probe)), at(probe).map(Term), "case {case}: {probe} in {model:?}");
        let mut agreed = probe.min(last);
        while at(agreed).expect("in the log") > term {
            agreed -= 1;
        }
        let expected = EntryId { term: Term(at(agreed).expect("in the log")), index: Index(agreed) };
        assert_eq!(terms.last_of_term_at_most(Index(probe), Term(term)), expected, "case {case}: {model:?}");
        if (1..=last).contains(&probe) {
            let mut end = probe;
            while at(end + 1) == at(probe) {
                end += 1;
            }
            assert_eq!(terms.run_last(Index(probe)), Index(end), "case {case}: {probe} in {model:?}");
        }
    }

    #[test]
    fn agrees_with_one_term_per_entry() {
        let mut random = Random::new(0x7e23);
        let mut cases = 0;
        while cases < 50_000 {
            let mut terms = Terms::new(Vec::new(), EntryId::default());
            let mut model: Vec<u64> = Vec::new();
            for _ in 0..50 {
                if random.next().is_multiple_of(4) {
                    let keep = random.next() % (model.len() as u64 + 1);
                    terms.truncate_after(Index(keep));
                    model.truncate(keep as usize);
                } else {
                    let term = model.last().copied().unwrap_or(1) + random.next() % 3;
                    let count = 1 + random.next() % 4;
                    terms.append(Term(term), count);
                    model.extend((0..count).map(|_| term));
                }
                let probe = random.next() % (model.len() as u64 + 3);
                let term = random.next() % (model.last().copied().unwrap_or(1) + 2);
                check(&terms, &model, probe, term, cases);
                cases += 1;
            }
            // What was recovered from the same runs is the same log.
            let again = Terms::new(terms.runs.clone(), terms.last());
            check(&again, &model, random.next() % 20, random.next() % 20, cases);
        }
    }
}
