//! Puts the parts of long records together again.

use alloc::vec::Vec;

use super::record::{FLAG_CONTINUES, FLAG_MORE, Kind, Record};
use crate::limits::RECORD_BYTES_MAX;
use crate::types::{Index, Term};

/// What an entry completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Nothing: it is a no-op, or more parts are to come, or the first part was not seen.
    Nothing,
    /// A record that is the entry's own payload.
    Entry,
    /// A record in parts, of which this is the last: [`Assembler::bytes`].
    Parts {
        /// Where its first part is.
        first: Index,
    },
}

/// The parts that have come are longer than any record, which no node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Where the first of them is.
    pub first: Index,
}

/// Takes the committed entries of one shard in order and tells when a record is whole.
///
/// The parts of a record are consecutive entries of one term, and all but the first say that they continue it. A leader
/// that fails between two parts, or breaks a record off, leaves the first ones behind, followed by an entry that does
/// not continue them: those were never acknowledged and are dropped. So are parts whose beginning was not seen. Holds
/// at most [`RECORD_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    /// Term and index of the first part, while more are to come.
    open: Option<(Term, Index)>,
}

impl Assembler {
    /// Takes the next entry.
    ///
    /// # Panics
    /// If the record is a vote, which is not in a shard's order.
    pub fn push(&mut self, record: &Record<'_>) -> Result<Whole, TooLong> {
        let header = &record.header;
        assert_ne!(header.kind(), Some(Kind::Vote), "votes are no entries");
        let more = header.flags & FLAG_MORE != 0;
        let continues = header.flags & FLAG_CONTINUES != 0;
        self.open.take_if(|(term, _)| term.0 != header.term || !continues);
        if header.kind() != Some(Kind::Data) {
            return Ok(Whole::Nothing);
        }
        match self.open {
            None if continues => Ok(Whole::Nothing),
            None if !more => Ok(Whole::Entry),
            None => {
                self.bytes.clear();
                self.open = Some((Term(header.term), Index(header.index)));
                self.bytes.extend_from_slice(record.payload);
                Ok(Whole::Nothing)
            }
            Some((_, first)) if self.bytes.len() + record.payload.len() > RECORD_BYTES_MAX => {
                Err(TooLong { first })
            }
            Some((_, first)) => {
                self.bytes.extend_from_slice(record.payload);
                if more {
                    return Ok(Whole::Nothing);
                }
                self.open = None;
                Ok(Whole::Parts { first })
            }
        }
    }

    /// The bytes of the record that was completed last, until the next entry is pushed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::string::{String, ToString};

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

    /// The record that an entry completes: where it begins, and what it says.
    fn push(all: &mut Assembler, record: &Record<'_>) -> Option<(u64, String)> {
        let text = |bytes| core::str::from_utf8(bytes).unwrap().to_string();
        match all.push(record).unwrap() {
            Whole::Nothing => None,
            Whole::Entry => Some((record.header.index, text(record.payload))),
            Whole::Parts { first } => Some((first.0, text(all.bytes()))),
        }
    }

    #[test]
    fn parts_become_whole_and_others_pass_through() {
        let mut all = Assembler::default();
        assert_eq!(push(&mut all, &record(1, 1, Kind::Data, false, b"one")), Some((1, "one".into())));
        assert_eq!(push(&mut all, &record(1, 2, Kind::Data, true, b"t")), None);
        assert_eq!(push(&mut all, &further(1, 3, true, b"w")), None);
        assert_eq!(push(&mut all, &further(1, 4, false, b"o")), Some((2, "two".into())));
        assert_eq!(push(&mut all, &record(1, 5, Kind::Noop, false, b"")), None);
    }

    #[test]
    fn what_a_failed_leader_began_is_dropped() {
        let mut all = Assembler::default();
        assert_eq!(push(&mut all, &record(1, 1, Kind::Data, true, b"lost")), None);
        assert_eq!(push(&mut all, &record(2, 2, Kind::Noop, false, b"")), None);
        assert_eq!(push(&mut all, &record(2, 3, Kind::Data, false, b"kept")), Some((3, "kept".into())));
        assert_eq!(push(&mut all, &record(2, 4, Kind::Data, true, b"lost")), None);
        assert_eq!(push(&mut all, &record(3, 5, Kind::Data, false, b"new")), Some((5, "new".into())));
    }

    /// A leader broke a record off (it was handing over), went on leading in the same term, and laid the next record:
    /// that one was taken for the last part, and no reader ever saw it.
    #[test]
    fn what_the_same_leader_broke_off_is_dropped() {
        let mut all = Assembler::default();
        assert_eq!(push(&mut all, &record(1, 1, Kind::Data, true, b"lo")), None);
        assert_eq!(push(&mut all, &further(1, 2, true, b"st")), None);
        assert_eq!(push(&mut all, &record(1, 3, Kind::Data, false, b"kept")), Some((3, "kept".into())));
        assert_eq!(push(&mut all, &record(1, 4, Kind::Data, true, b"lost")), None);
        assert_eq!(push(&mut all, &record(1, 5, Kind::Data, true, b"to")), None);
        assert_eq!(push(&mut all, &further(1, 6, false, b"ld")), Some((5, "told".into())));
    }

    #[test]
    fn parts_without_their_beginning_are_passed_over() {
        let mut all = Assembler::default();
        assert_eq!(push(&mut all, &further(1, 7, true, b"half a")), None);
        assert_eq!(push(&mut all, &further(1, 8, false, b" record")), None);
        assert_eq!(push(&mut all, &record(1, 9, Kind::Data, false, b"whole")), Some((9, "whole".into())));
    }

    #[test]
    fn a_sequence_without_end_takes_no_more_than_the_largest_record() {
        let part = alloc::vec![7; crate::limits::ENTRY_PAYLOAD_BYTES_MAX];
        let mut all = Assembler::default();
        assert_eq!(all.push(&record(1, 1, Kind::Data, true, &part)), Ok(Whole::Nothing));
        let pushed = (2..=70).find_map(|index| {
            let pushed = all.push(&further(1, index, true, &part));
            assert!(all.bytes().len() <= RECORD_BYTES_MAX);
            pushed.err()
        });
        assert_eq!(pushed, Some(TooLong { first: Index(1) }));
    }
}
