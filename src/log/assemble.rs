//! Puts the parts of long records together again.

use alloc::vec::Vec;

use super::record::{FLAG_MORE, Header, Kind, Record};
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
/// The parts of a record are consecutive entries of one term. A leader that fails between two parts leaves the first
/// ones behind, followed by another leader's entry: those were never acknowledged and are dropped. Holds at most
/// [`RECORD_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    /// Term and index of the first part, while more are to come.
    open: Option<(Term, Index)>,
    /// The first part was not seen: the others are passed over.
    beheaded: bool,
}

impl Assembler {
    /// The first entry to come is the one after this, which is looked at only to tell whether a record is under way.
    pub fn begin_after(&mut self, header: &Header) {
        if is_part(header) {
            (self.open, self.beheaded) = (Some(start(header)), true);
        }
    }

    /// Takes the next entry.
    ///
    /// # Panics
    /// If the record is a vote, which is not in a shard's order.
    pub fn push(&mut self, record: &Record<'_>) -> Result<Whole, TooLong> {
        let header = &record.header;
        assert_ne!(header.kind(), Some(Kind::Vote), "votes are no entries");
        let is_data = header.kind() == Some(Kind::Data);
        if self.open.take_if(|(term, _)| term.0 != header.term || !is_data).is_some() {
            self.beheaded = false;
        }
        if !is_data {
            return Ok(Whole::Nothing);
        }
        let Some((_, first)) = self.open else {
            if !is_part(header) {
                return Ok(Whole::Entry);
            }
            self.bytes.clear();
            self.open = Some(start(header));
            self.bytes.extend_from_slice(record.payload);
            return Ok(Whole::Nothing);
        };
        if !self.beheaded {
            if self.bytes.len() + record.payload.len() > RECORD_BYTES_MAX {
                return Err(TooLong { first });
            }
            self.bytes.extend_from_slice(record.payload);
        }
        if is_part(header) {
            return Ok(Whole::Nothing);
        }
        self.open = None;
        Ok(if core::mem::take(&mut self.beheaded) { Whole::Nothing } else { Whole::Parts { first } })
    }

    /// The bytes of the record that was completed last, until the next entry is pushed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn start(header: &Header) -> (Term, Index) {
    (Term(header.term), Index(header.index))
}

/// Whether more parts follow.
fn is_part(header: &Header) -> bool {
    header.kind() == Some(Kind::Data) && header.flags & FLAG_MORE != 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::string::{String, ToString};

    use super::*;

    fn record(term: u64, index: u64, kind: Kind, more: bool, payload: &[u8]) -> Record<'_> {
        let flags = if more { FLAG_MORE } else { 0 };
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
        assert_eq!(push(&mut all, &record(1, 3, Kind::Data, true, b"w")), None);
        assert_eq!(push(&mut all, &record(1, 4, Kind::Data, false, b"o")), Some((2, "two".into())));
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

    #[test]
    fn who_begins_within_a_record_begins_with_the_next() {
        let mut all = Assembler::default();
        all.begin_after(&record(1, 1, Kind::Data, true, b"not seen").header);
        assert_eq!(push(&mut all, &record(1, 2, Kind::Data, true, b"of")), None);
        assert_eq!(push(&mut all, &record(1, 3, Kind::Data, false, b"it")), None);
        assert_eq!(push(&mut all, &record(1, 4, Kind::Data, false, b"next")), Some((4, "next".into())));
        // Of a record that its leader did not finish, nothing comes.
        all.begin_after(&record(1, 4, Kind::Data, true, b"not seen").header);
        assert_eq!(push(&mut all, &record(2, 5, Kind::Data, false, b"other")), Some((5, "other".into())));
    }

    #[test]
    fn a_sequence_without_end_takes_no_more_than_the_largest_record() {
        let part = alloc::vec![7; crate::limits::ENTRY_PAYLOAD_BYTES_MAX];
        let mut all = Assembler::default();
        let pushed = (1..=70).find_map(|index| {
            let pushed = all.push(&record(1, index, Kind::Data, true, &part));
            assert!(all.bytes().len() <= RECORD_BYTES_MAX);
            pushed.err()
        });
        assert_eq!(pushed, Some(TooLong { first: Index(1) }));
    }
}
