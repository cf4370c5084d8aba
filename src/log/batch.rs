//! The header of a batch, sealed and checked. The drawing is in [the log's docs](super).

use bytemuck::{Pod, Zeroable};

use super::Identity;
use super::record::{self, Malformed};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES_MAX, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES};

/// The bytes before a batch's first record.
pub(super) const HEADER_BYTES: usize = 64;

/// What a batch begins with: "PLMB".
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"PLMB");

/// The format that this build writes, and the only one that it reads so far.
pub(super) const VERSION: u8 = 1;

/// The smallest block that a log lies on. Batches begin at multiples of it on every disk.
pub(super) const BLOCK_BYTES_MIN: usize = 512;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) header_crc: u32,
    pub(super) magic: u32,
    pub(super) version: u8,
    pub(super) block_shift: u8,
    pub(super) lane: u16,
    pub(super) node: u32,
    pub(super) cluster: u64,
    pub(super) sequence: u64,
    pub(super) durable: u64,
    pub(super) previous_crc: u32,
    pub(super) records_crc: u32,
    pub(super) len_bytes: u32,
    pub(super) offset: u32,
    pub(super) segment: u32,
    pub(super) life: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// What stands where a batch's header may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: the whole block is zero.
    Blank,
    /// Bytes that are no header, or a header whose checksum does not hold.
    Garbage,
    /// A header of a format that this build does not read.
    Version(u16),
    /// A good header of another log.
    Foreign(Header),
    /// A good header of this log, in the place that it names.
    Ours(Header),
    /// A good header of this log that belongs elsewhere.
    Misplaced,
}

impl Header {
    /// The bytes from the batch's beginning to where the next one may begin.
    pub(super) fn span_bytes(&self) -> usize {
        (HEADER_BYTES + self.len_bytes as usize).next_multiple_of(1 << self.block_shift)
    }

    /// Whether this batch may come right after that one.
    pub(super) fn follows(&self, previous: &Header) -> bool {
        self.sequence == previous.sequence + 1
            && self.previous_crc == previous.header_crc
            && self.life >= previous.life
    }

    /// Completes the checksum.
    pub(super) fn seal(mut self) -> Header {
        self.header_crc = crc32c::crc32c(&bytemuck::bytes_of(&self)[size_of::<u32>()..]);
        self
    }

    /// Looks at the block at `offset` of `segment`.
    pub(super) fn find(block: &[u8], identity: &Identity, segment: u64, offset: u64) -> Found {
        let header: Header = bytemuck::pod_read_unaligned(&block[..HEADER_BYTES]);
        if header.magic != MAGIC || header.seal().header_crc != header.header_crc {
            return if is_zero(block) { Found::Blank } else { Found::Garbage };
        }
        if header.version != VERSION {
            return Found::Version(u16::from(header.version));
        }
        let of = Identity { cluster: header.cluster, node: header.node, lane: header.lane };
        if of != *identity {
            return Found::Foreign(header);
        }
        let shifts = BLOCK_BYTES_MIN.trailing_zeros()..=BLOCK_BYTES_MAX.trailing_zeros();
        let bounded = shifts.contains(&u32::from(header.block_shift))
            && header.sequence > 0
            && header.durable < header.sequence
            && (header.len_bytes as usize).is_multiple_of(RECORD_ALIGN_BYTES)
            && (RECORD_HEADER_BYTES..=BATCH_BYTES_MAX).contains(&(header.len_bytes as usize));
        if u64::from(header.segment) != segment || u64::from(header.offset) != offset || !bounded {
            return Found::Misplaced;
        }
        Found::Ours(header)
    }

    /// Whether these are the records that the header was sealed over, each of them whole.
    pub(super) fn check_records(&self, records: &[u8]) -> Result<(), Malformed> {
        let mut digest = 0;
        for record in record::records(records) {
            digest = extend_digest(digest, record?.header.header_crc);
        }
        if digest == self.records_crc { Ok(()) } else { Err(Malformed::Field("records_crc")) }
    }
}

/// Where else than at `offset`, where the one before ends, a batch may begin in the same segment: at a multiple of a
/// larger block, if the log has moved to another device since.
pub(super) fn later_beginnings(offset: u64) -> impl Iterator<Item = u64> {
    let larger = BLOCK_BYTES_MIN.ilog2() + 1..=BLOCK_BYTES_MAX.ilog2();
    larger.map(move |shift| offset.next_multiple_of(1 << shift)).filter(move |there| *there > offset)
}

/// Most of a log that is opened is zeros, and every block of them is looked at.
fn is_zero(block: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK_BYTES_MIN] = [0; BLOCK_BYTES_MIN];
    block.chunks(BLOCK_BYTES_MIN).all(|part| part == &ZEROS[..part.len()])
}

/// A batch's digest with one more record. A record's header checksum stands for its header, and by way of the payload's
/// checksum for its payload: four bytes per record bind a batch's header to every byte of its records.
pub(super) fn extend_digest(digest: u32, header_crc: u32) -> u32 {
    crc32c::crc32c_append(digest, &header_crc.to_le_bytes())
}
