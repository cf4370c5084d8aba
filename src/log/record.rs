//! One record: the bytes that go to the disk, to every peer, to the follower's disk and to the reader, made once.
//!
//! ```text
//!  0  header_crc    u32  CRC32C of bytes 4..64
//!  4  payload_crc   u32  CRC32C of the payload, made by who submitted it
//!  8  len_bytes     u32  of the payload
//! 12  shard         u32
//! 16  term          u64
//! 24  index         u64
//! 32  timestamp     u64  the engine's
//! 40  session       u64  who submitted it; 0: nobody that cares about duplicates
//! 48  serial        u64  the submit's number in the session
//! 56  epoch         u32  the engine's
//! 60  kind          u8   1 data, 2 no-op, 3 vote, 4 mark
//! 61  flags         u8   bit 0: more parts of the same record follow; bit 1: not the first part of its record
//! 62  reserved      u16  0
//! 64  payload, then zeros to a multiple of 8
//! ```
//! Little-endian. A vote is a record without a place in the shard's order: `term` and `serial` hold the term and the
//! candidate (0: none), `index` is 0. A mark tells of an engine's stream; what it says is drawn in `engine/mark.rs`.

use bytemuck::{Pod, Zeroable};

use crate::limits::{ENTRY_PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::types::{EntryId, Index, NodeId, ShardId, Term, Vote};

/// A record's header as it lies in memory, on disk and on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(missing_docs, reason = "drawn in the module's docs")]
pub struct Header {
    pub header_crc: u32,
    pub payload_crc: u32,
    pub len_bytes: u32,
    pub shard: u32,
    pub term: u64,
    pub index: u64,
    pub timestamp: u64,
    pub session: u64,
    pub serial: u64,
    pub epoch: u32,
    pub kind: u8,
    pub flags: u8,
    pub reserved: u16,
}

const _: () = assert!(size_of::<Header>() == crate::limits::RECORD_HEADER_BYTES);
const _: () = assert!(cfg!(target_endian = "little"), "the formats are little-endian and read in place");

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes that a client submitted.
    Data = 1,
    /// Carries nothing; a leader's first entry.
    Noop = 2,
    /// A term and a vote.
    Vote = 3,
    /// Tells of an engine's stream, without a payload.
    Mark = 4,
}

/// Flag: more parts of the same record follow, in the next entries of the shard.
pub const FLAG_MORE: u8 = 1;

/// Flag: a further part of the record that the shard's entry before this one is a part of. A record that was broken off
/// between two parts is told by its absence, whoever lays the next entry and in which term.
pub const FLAG_CONTINUES: u8 = 2;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header or than the header says.
    Truncated,
    /// The header's checksum does not hold.
    HeaderChecksum,
    /// The payload's checksum does not hold.
    PayloadChecksum,
    /// A field holds what no writer writes.
    Field(&'static str),
}

/// A record in place: a header and a payload whose checksums hold.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload, without padding.
    pub payload: &'a [u8],
}

/// The bytes that a record with such a payload takes, padding included.
pub const fn span_bytes(payload_bytes: usize) -> usize {
    (crate::limits::RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(crate::limits::RECORD_ALIGN_BYTES)
}

/// CRC32C of a payload, as the submitter makes it.
pub fn payload_crc(payload: &[u8]) -> u32 {
    crc32c::crc32c(payload)
}

/// Lays a record at the front of `into`, sealing the header, and returns its span. The padding is zeroed.
///
/// The payload's checksum is the submitter's and is not made again.
///
/// # Panics
/// If the header's length is not the payload's, or `into` is too short.
pub fn lay(header: Header, payload: &[u8], into: &mut [u8]) -> usize {
    assert_eq!(header.len_bytes as usize, payload.len(), "a header tells its payload's length");
    payload_of(into, payload.len()).copy_from_slice(payload);
    seal(header, into)
}

/// Where a payload of so many bytes lies in the record at the front of `record`.
pub(super) fn payload_of(record: &mut [u8], len_bytes: usize) -> &mut [u8] {
    &mut record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len_bytes]
}

/// As [`lay`], of a record whose payload lies in its place already.
pub(super) fn seal(header: Header, into: &mut [u8]) -> usize {
    let len_bytes = header.len_bytes as usize;
    debug_assert_eq!(
        header.payload_crc,
        payload_crc(payload_of(into, len_bytes)),
        "a submitter sums what it submits"
    );
    let span = span_bytes(len_bytes);
    let mut header = header;
    header.header_crc = header_crc(bytemuck::bytes_of(&header));
    into[..RECORD_HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
    into[RECORD_HEADER_BYTES + len_bytes..span].fill(0);
    span
}

/// The record at the front of `bytes` and its span; checks bounds, fields and both checksums.
pub fn read(bytes: &[u8]) -> Result<(Record<'_>, usize), Malformed> {
    let (header, span) = peek(bytes)?;
    let end = RECORD_HEADER_BYTES + header.len_bytes as usize;
    let payload = &bytes[RECORD_HEADER_BYTES..end];
    if payload_crc(payload) != header.payload_crc {
        return Err(Malformed::PayloadChecksum);
    }
    if bytes[end..span].iter().any(|&byte| byte != 0) {
        return Err(Malformed::Field("padding"));
    }
    Ok((Record { header, payload }, span))
}

/// The header at the front of `bytes` and the record's span: everything that [`read`] checks but the payload's
/// checksum and the padding. `bytes` holds the whole span.
pub fn peek(bytes: &[u8]) -> Result<(Header, usize), Malformed> {
    let Some(head) = bytes.get(..RECORD_HEADER_BYTES) else { return Err(Malformed::Truncated) };
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.header_crc != header_crc(head) {
        return Err(Malformed::HeaderChecksum);
    }
    header.check()?;
    let span = span_bytes(header.len_bytes as usize);
    if span > bytes.len() {
        return Err(Malformed::Truncated);
    }
    Ok((header, span))
}

/// The records that lie in `bytes` one after another, each checked as by [`read`]. Ends after the first error.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match read(rest) {
            Ok((record, span)) => {
                rest = &rest[span..];
                Some(Ok(record))
            }
            Err(malformed) => {
                rest = &[];
                Some(Err(malformed))
            }
        }
    })
}

/// The bytes that the first `count` of consecutive records take.
///
/// # Panics
/// If there are fewer, or they were not checked and make no sense.
pub fn prefix_bytes(records: &[u8], count: u32) -> usize {
    let mut bytes = 0;
    for _ in 0..count {
        bytes += peek(&records[bytes..]).expect("the records were checked").1;
    }
    bytes
}

/// What [`check_run`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSummary {
    /// The term of all its entries.
    pub term: Term,
    /// How many entries; never none.
    pub count: u32,
    /// The last one.
    pub last: EntryId,
}

/// Checks what an append carries: whole records and nothing else, all of `shard`, with consecutive indices from
/// `first` on, of one term, entries and no votes, all checksums good.
pub fn check_run(bytes: &[u8], shard: ShardId, first: Index) -> Result<RunSummary, Malformed> {
    let mut next = first;
    let mut term = None;
    for record in records(bytes) {
        let header = record?.header;
        if header.shard != shard.0 {
            return Err(Malformed::Field("shard"));
        }
        if header.index != next.0 {
            return Err(Malformed::Field("index"));
        }
        if header.kind == Kind::Vote as u8 {
            return Err(Malformed::Field("kind"));
        }
        if *term.get_or_insert(header.term) != header.term {
            return Err(Malformed::Field("term"));
        }
        next = Index(next.0.checked_add(1).ok_or(Malformed::Field("index"))?);
    }
    let Some(term) = term.map(Term) else { return Err(Malformed::Truncated) };
    let count = u32::try_from(next.0 - first.0).map_err(|_| Malformed::Field("count"))?;
    Ok(RunSummary { term, count, last: EntryId { term, index: next.previous() } })
}

fn header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c(&header[size_of::<u32>()..RECORD_HEADER_BYTES])
}

impl Header {
    /// The entry that it names.
    pub fn id(&self) -> EntryId {
        EntryId { term: Term(self.term), index: Index(self.index) }
    }

    /// What it is for; `None` for a number that no writer writes.
    pub fn kind(&self) -> Option<Kind> {
        match self.kind {
            1 => Some(Kind::Data),
            2 => Some(Kind::Noop),
            3 => Some(Kind::Vote),
            4 => Some(Kind::Mark),
            _ => None,
        }
    }

    /// A vote as a record.
    pub fn vote(shard: ShardId, vote: Vote) -> Header {
        Header {
            shard: shard.0,
            term: vote.term.0,
            serial: vote.candidate.map_or(0, |node| u64::from(node.0)),
            kind: Kind::Vote as u8,
            payload_crc: payload_crc(&[]),
            ..Header::default()
        }
    }

    /// The vote that this record is. Meaningful for [`Kind::Vote`] alone.
    pub fn as_vote(&self) -> Vote {
        let candidate = u32::try_from(self.serial).ok().filter(|&node| node != 0).map(NodeId);
        Vote { term: Term(self.term), candidate }
    }

    /// Whether the fields hold what a writer writes.
    fn check(&self) -> Result<(), Malformed> {
        let fault = Malformed::Field;
        if self.reserved != 0 {
            return Err(fault("reserved"));
        }
        if self.len_bytes as usize > ENTRY_PAYLOAD_BYTES_MAX {
            return Err(fault("len_bytes"));
        }
        let Some(kind) = self.kind() else { return Err(fault("kind")) };
        match kind {
            Kind::Data if self.flags & !(FLAG_MORE | FLAG_CONTINUES) != 0 => Err(fault("flags")),
            Kind::Noop | Kind::Vote | Kind::Mark if self.flags != 0 => Err(fault("flags")),
            Kind::Noop | Kind::Vote | Kind::Mark if self.len_bytes != 0 => Err(fault("len_bytes")),
            Kind::Data | Kind::Noop | Kind::Mark if self.index == 0 => Err(fault("index")),
            Kind::Data | Kind::Noop | Kind::Mark if self.term == 0 => Err(fault("term")),
            Kind::Vote if self.index != 0 => Err(fault("index")),
            Kind::Vote if self.serial > u64::from(u32::MAX) => Err(fault("serial")),
            _ => Ok(()),
        }
    }
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Malformed::Truncated => write!(f, "the record is cut short"),
            Malformed::HeaderChecksum => write!(f, "the record's header fails its checksum"),
            Malformed::PayloadChecksum => write!(f, "the record's payload fails its checksum"),
            Malformed::Field(name) => write!(f, "the record's field {name} holds what no writer writes"),
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
