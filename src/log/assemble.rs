//! Puts the parts of long records together again.

use alloc::vec::Vec;

use super::record::{FLAG_CONTINUES, FLAG_MORE, Kind, Record};
use crate::limits::RECORD_BYTES_MAX;
use crate::types::{EntryId, Index, Term};

/// A record as its submitter gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    /// Its last entry, which is what the submitter was told.
    pub id: EntryId,
    /// Its first entry; the same as the last for a record of one part.
    pub first: Index,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Takes the entries of one shard in order and gives the records out whole.
///
/// The parts of a record are consecutive entries of one term. A leader that fails between two parts, or breaks a record
/// off, leaves the first ones behind, followed by an entry that does not continue them: those were never acknowledged
/// and are dropped. So are parts whose beginning was not seen. Holds at most [`RECORD_BYTES_MAX`] bytes; a sequence of
/// parts that goes beyond is dropped as well, to its end.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: Vec<u8>,
    /// The last part and the first one's index, while more are to come.
    open: Option<(EntryId, Index)>,
    /// The open sequence has become too long: nothing of it is kept.
    too_long: bool,
    /// How many sequences were dropped.
    dropped: u64,
}

impl Assembler {
    /// One that has nothing yet.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Takes the next entry; returns the record that it completes, if it does. A no-op completes none.
    ///
    /// # Panics
    /// If the record is a vote, which is not in a shard's order.
    pub fn push<'a>(&'a mut self, record: &Record<'a>) -> Option<Whole<'a>> {
        let id = record.header.id();
        assert_ne!(record.header.kind(), Some(Kind::Vote), "votes are no entries");
        let is_further = record.header.flags & FLAG_CONTINUES != 0;
        let first = match self.open.take() {
            Some((last, first)) if is_further && follows(last, id) => Some(first),
            Some(_) => {
                self.forget();
                None
            }
            None => None,
        };
        if record.header.kind() == Some(Kind::Noop) {
            return None;
        }
        let more = record.header.flags & FLAG_MORE != 0;
        let Some(first) = first else {
            if is_further {
                return None;
            }
            if !more {
                return Some(Whole { id, first: id.index, payload: record.payload });
            }
            self.parts.clear();
            self.parts.extend_from_slice(record.payload);
            self.open = Some((id, id.index));
            return None;
        };
        self.extend(record.payload);
        if more {
            self.open = Some((id, first));
            return None;
        }
        if self.too_long {
            self.forget();
            return None;
        }
        Some(Whole { id, first, payload: &self.parts })
    }

    /// Whether a record has begun and not ended: the reader must not go back behind its first part.
    pub fn open_since(&self) -> Option<(Term, Index)> {
        self.open.map(|(last, first)| (last.term, first))
    }

    /// How many records were begun and never ended, or were too long.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn extend(&mut self, payload: &[u8]) {
        if self.too_long || self.parts.len() + payload.len() > RECORD_BYTES_MAX {
            self.too_long = true;
            self.parts = Vec::new();
        } else {
            self.parts.extend_from_slice(payload);
        }
    }

    fn forget(&mut self) {
        self.parts.clear();
        self.too_long = false;
        self.dropped += 1;
    }
}

fn follows(last: EntryId, next: EntryId) -> bool {
    last.term == next.term && last.index.next() == next.index
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::string::ToString;

    use super::super::record::Header;
    use super::*;

    fn record(term: u64, index: u64, kind: Kind, more: bool, payload: &[u8]) -> Record<'_> {
        with_flags(term, index, kind, if more { FLAG_MORE } else { 0 }, payload)
    }

    fn further(term: u64, index: u64, more: bool, payload: &[u8]) -> Record<'_> {
        let flags = if more { FLAG_MORE } else { 0 } | FLAG_CONTINUES;
        with_flags(term, index, Kind::Data, flags, payload)
    }

    fn with_flags(term: u64, index: u64, kind: Kind, flags: u8, payload: &[u8]) -> Record<'_> {
        Record { header: Header { term, index, kind: kind as u8, flags, ..Header::default() }, payload }
    }

    fn text(whole: Option<Whole<'_>>) -> Option<(u64, alloc::string::String)> {
        whole.map(|whole| (whole.first.0, core::str::from_utf8(whole.payload).unwrap().to_string()))
    }

    #[test]
    fn parts_become_whole_and_others_pass_through() {
        let mut all = Assembler::new();
        assert_eq!(text(all.push(&record(1, 1, Kind::Data, false, b"one"))), Some((1, "one".into())));
        assert_eq!(text(all.push(&record(1, 2, Kind::Data, true, b"t"))), None);
        assert_eq!(all.open_since(), Some((Term(1), Index(2))));
        assert_eq!(text(all.push(&further(1, 3, true, b"w"))), None);
        assert_eq!(text(all.push(&further(1, 4, false, b"o"))), Some((2, "two".into())));
        assert_eq!(text(all.push(&record(1, 5, Kind::Noop, false, b""))), None);
        assert_eq!(all.dropped(), 0);
    }

    #[test]
    fn what_a_failed_leader_began_is_dropped() {
        let mut all = Assembler::new();
        assert_eq!(text(all.push(&record(1, 1, Kind::Data, true, b"lost"))), None);
        assert_eq!(text(all.push(&record(2, 2, Kind::Noop, false, b""))), None);
        assert_eq!(text(all.push(&record(2, 3, Kind::Data, false, b"kept"))), Some((3, "kept".into())));
        assert_eq!(text(all.push(&record(2, 4, Kind::Data, true, b"lost"))), None);
        assert_eq!(text(all.push(&record(3, 5, Kind::Data, false, b"new"))), Some((5, "new".into())));
        assert_eq!(all.dropped(), 2);
    }

    /// A leader broke a record off (it was handing over), went on leading in the same term, and laid the next record:
    /// that one was taken for the last part, and no reader ever saw it.
    #[test]
    fn what_the_same_leader_broke_off_is_dropped() {
        let mut all = Assembler::new();
        assert_eq!(text(all.push(&record(1, 1, Kind::Data, true, b"lo"))), None);
        assert_eq!(text(all.push(&further(1, 2, true, b"st"))), None);
        assert_eq!(text(all.push(&record(1, 3, Kind::Data, false, b"kept"))), Some((3, "kept".into())));
        assert_eq!(text(all.push(&record(1, 4, Kind::Data, true, b"lost"))), None);
        assert_eq!(text(all.push(&record(1, 5, Kind::Data, true, b"to"))), None);
        assert_eq!(text(all.push(&further(1, 6, false, b"ld"))), Some((5, "told".into())));
        assert_eq!(all.dropped(), 2);
    }

    #[test]
    fn parts_without_their_beginning_are_passed_over() {
        let mut all = Assembler::new();
        assert_eq!(text(all.push(&further(1, 7, true, b"half a"))), None);
        assert_eq!(text(all.push(&further(1, 8, false, b" record"))), None);
        assert_eq!(all.open_since(), None);
        assert_eq!(text(all.push(&record(1, 9, Kind::Data, false, b"whole"))), Some((9, "whole".into())));
    }

    #[test]
    fn a_sequence_without_end_takes_no_more_than_the_largest_record() {
        let part = alloc::vec![7; crate::limits::ENTRY_PAYLOAD_BYTES_MAX];
        let mut all = Assembler::new();
        assert!(all.push(&record(1, 1, Kind::Data, true, &part)).is_none());
        for index in 2..=70 {
            assert!(all.push(&further(1, index, true, &part)).is_none());
            assert!(all.parts.len() <= RECORD_BYTES_MAX);
        }
        assert!(all.push(&further(1, 71, false, &part)).is_none());
        assert_eq!((all.dropped(), all.open_since()), (1, None));
        assert_eq!(text(all.push(&record(1, 72, Kind::Data, false, b"next"))), Some((72, "next".into())));
    }
}
