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
//! 60  kind          u8   1 data, 2 no-op, 3 vote
//! 61  flags         u8   bit 0: more parts of the same record follow
//! 62  reserved      u16  0
//! 64  payload, then zeros to a multiple of 8
//! ```
//! Little-endian. A vote is a record without a place in the shard's order: `term` and `serial` hold the term and the
//! candidate (0: none), `index` is 0.

use bytemuck::{Pod, Zeroable};

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
    /// Carries nothing; a leader's first entry, or one that moves an idle shard's watermark.
    Noop = 2,
    /// A term and a vote.
    Vote = 3,
}

/// Flag: more parts of the same record follow, in the next entries of the shard.
pub const FLAG_MORE: u8 = 1;

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
pub fn lay(header: Header, payload: &[u8], into: &mut [u8]) -> usize {
    unimplemented!()
}

/// The record at the front of `bytes` and its span; checks bounds, fields and both checksums.
pub fn read(bytes: &[u8]) -> Result<(Record<'_>, usize), Malformed> {
    unimplemented!()
}

pub struct Run { pub count: u32, pub term: crate::types::Term }
pub fn check_run(bytes: &[u8], shard: crate::types::ShardId, first: crate::types::Index) -> Result<Run, Malformed> { unimplemented!() }
pub fn prefix_bytes(bytes: &[u8], count: u32) -> usize { unimplemented!() }
impl core::fmt::Display for Malformed { fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { write!(f, "{self:?}") } }
