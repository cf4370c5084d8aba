//! The committed entries of one shard as answers to reads bring them: checked, in order, and records in parts whole
//! again.

use core::ops::Range;

use crate::engine::Mark;
use crate::log::assemble::{Assembler, TooLong, Whole};
use crate::log::record::{self, Header, Kind};
use crate::types::{EntryId, Epoch, Index, ShardId, Stamp, Term, Timestamp};

/// One record as it was submitted: whole, its checksums verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it is in the log: of a record in parts, its last entry.
    pub id: EntryId,
    /// The index of its first entry.
    pub first: Index,
    /// The engine's timestamp.
    pub timestamp: Timestamp,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// Who submitted it; 0: nobody that cares about duplicates.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
    /// What was submitted.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// What it means for its stream; `None`: it has no stamp, and so is none of a stream's.
    pub fn mark(&self) -> Option<Mark> {
        let stamp = Stamp::new(self.epoch, self.timestamp);
        stamp.is_submittable().then_some(Mark::Data(stamp))
    }
}

/// What a reader in order comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A record.
    Record(Record<'a>),
    /// Something written down of the shard's stream.
    Mark(Mark),
}

/// An answer that holds what no node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

/// Where something is that was found.
#[derive(Debug)]
pub(super) struct Found {
    header: Header,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Mark(Mark),
    Entry(Range<usize>),
    Parts { first: Index },
}

impl Found {
    /// Whether it is a record, and no mark.
    pub(super) fn is_record(&self) -> bool {
        !matches!(self.place, Place::Mark(_))
    }
}

/// Goes through the answers to reads that follow one another.
#[derive(Debug)]
pub(super) struct Cursor {
    shard: ShardId,
    /// The entry that comes next.
    next: Index,
    bytes: Vec<u8>,
    at: usize,
    parts: Assembler,
}

impl Cursor {
    /// A reader that starts within a record in parts begins with the record after it.
    pub(super) fn new(shard: ShardId, from: Index) -> Cursor {
        Cursor { shard, next: from.max(Index(1)), bytes: Vec::new(), at: 0, parts: Assembler::default() }
    }

    /// The index that the next answer must begin with.
    pub(super) fn position(&self) -> Index {
        self.next
    }

    /// Whether all that has come was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Takes in an answer: whole records, from [`Cursor::position`] on.
    pub(super) fn refill(&mut self, records: &[u8]) {
        assert!(self.is_empty(), "what has come is taken before more is asked for");
        self.bytes.clear();
        self.bytes.extend_from_slice(records);
        self.at = 0;
    }

    /// Goes on to what comes next, if it has come: [`Cursor::item`] shows it.
    pub(super) fn advance(&mut self) -> Result<Option<Found>, Wrong> {
        while !self.is_empty() {
            let at = self.at;
            let (header, span) = self.check(at)?;
            self.at += span;
            self.next = Index(header.index).next();
            let payload = at + size_of::<Header>()..at + size_of::<Header>() + header.len_bytes as usize;
            let whole = self.parts.push(&record::Record { header, payload: &self.bytes[payload.clone()] });
            let place = match whole.map_err(|TooLong { first }| too_long(first))? {
                Whole::Entry => Place::Entry(payload),
                Whole::Parts { first } => Place::Parts { first },
                // A mark that no leader writes means nothing, on every node alike.
                Whole::Nothing => match Mark::of(&header) {
                    Ok(Some(mark)) if header.kind() == Some(Kind::Mark) => Place::Mark(mark),
                    _ => continue,
                },
            };
            return Ok(Some(Found { header, place }));
        }
        Ok(None)
    }

    /// What [`Cursor::advance`] has just found.
    pub(super) fn item(&self, found: Found) -> Item<'_> {
        let Found { header, place } = found;
        let index = Index(header.index);
        let (first, payload) = match place {
            Place::Mark(mark) => return Item::Mark(mark),
            Place::Entry(bytes) => (index, &self.bytes[bytes]),
            Place::Parts { first } => (first, self.parts.bytes()),
        };
        Item::Record(Record {
            id: EntryId { term: Term(header.term), index },
            first,
            timestamp: Timestamp(header.timestamp),
            epoch: Epoch(header.epoch),
            session: header.session,
            serial: header.serial,
            payload,
        })
    }

    /// The header of the record at `at` and its span, once everything about it was found right.
    fn check(&self, at: usize) -> Result<(Header, usize), Wrong> {
        let (record, span) = record::read(&self.bytes[at..])
            .map_err(|malformed| Wrong(format!("record {}: {malformed:?}", self.next)))?;
        let header = record.header;
        if (header.shard, header.index) != (self.shard.0, self.next.0) {
            return Err(Wrong(format!(
                "record {} of shard {} where {} of {} was asked for",
                header.index, header.shard, self.next, self.shard
            )));
        }
        Ok((header, span))
    }
}

fn too_long(first: Index) -> Wrong {
    Wrong(format!("the record that begins at {first} is longer than a record may be"))
}
