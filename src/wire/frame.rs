//! The frame's header, and the builder that every kind of frame shares. The header is drawn in [`super`].
//!
//! A row of the table is 64 bytes that mean something only together with the frame's kind: [`super::hello`],
//! [`super::peer`] and [`super::client`] draw theirs. Every row is written in one way only, so a reader checks it by
//! writing what it understood and comparing: unused bytes that are not zero are refused with the rest.

use alloc::vec::Vec;

use bytemuck::{Pod, Zeroable};

use super::Malformed;
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_MESSAGES_MAX, INDEX_MAX, TERM_MAX};

/// The first four bytes of every frame: "PLM1", read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"PLM1");

/// The version of the protocol that this build speaks.
pub const VERSION: u8 = 1;

/// The bytes of one row of a frame's table.
pub const ROW_BYTES: usize = 64;

/// Terms and indices beyond this are refused.
pub(super) const PLACE_MAX: u64 = INDEX_MAX;

const _: () = assert!(PLACE_MAX == TERM_MAX, "one bound serves both");

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first frame on a connection, from who opened it.
    Hello = 1,
    /// Hello was found good.
    Welcome = 2,
    /// Hello was not, and why.
    Refusal = 3,
    /// Raft messages between peers.
    Peer = 4,
    /// From a client.
    Request = 5,
    /// To a client.
    Reply = 6,
    /// Between peers, beside Raft: [`super::aside`].
    Aside = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Kind, Malformed> {
        Ok(match byte {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Refusal,
            4 => Kind::Peer,
            5 => Kind::Request,
            6 => Kind::Reply,
            7 => Kind::Aside,
            _ => return Err(Malformed::Field("kind")),
        })
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u32,
    len_bytes: u32,
    kind: u8,
    version: u8,
    count: u16,
    reserved: [u8; 16],
    crc: u32,
}

const _: () = assert!(size_of::<Header>() == FRAME_HEADER_BYTES);
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize && FRAME_MESSAGES_MAX <= u16::MAX as usize);
/// Where the checksum lies: it covers what is before it, and the table after it.
const CRC_AT: usize = FRAME_HEADER_BYTES - 4;

/// The header and table of a frame under construction. Reused: clearing keeps the memory.
#[derive(Debug)]
pub struct Builder {
    kind: Kind,
    /// The header's room, then the rows.
    head: Vec<u8>,
    count: usize,
    body_bytes: usize,
}

impl Builder {
    /// An empty frame of this kind.
    pub fn new(kind: Kind) -> Builder {
        let mut head = Vec::with_capacity(FRAME_HEADER_BYTES + 16 * ROW_BYTES);
        head.resize(FRAME_HEADER_BYTES, 0);
        Builder { kind, head, count: 0, body_bytes: 0 }
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.head.truncate(FRAME_HEADER_BYTES);
        self.count = 0;
        self.body_bytes = 0;
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether one more message with so many bytes of body fits.
    pub fn fits(&self, body_bytes: usize) -> bool {
        let taken = self.head.len() + ROW_BYTES + self.body_bytes;
        self.count < FRAME_MESSAGES_MAX && body_bytes <= FRAME_BYTES_MAX - taken.min(FRAME_BYTES_MAX)
    }

    /// Adds a row of the table; the caller sends the body's bytes after the head, in the same order.
    ///
    /// # Panics
    /// If it does not fit: the caller asks [`Builder::fits`] first.
    pub fn push(&mut self, row: &[u8; 64], body_bytes: usize) {
        assert!(self.fits(body_bytes), "a frame of {} messages takes no {body_bytes} bytes more", self.count);
        self.head.extend_from_slice(row);
        self.count += 1;
        self.body_bytes += body_bytes;
    }

    /// Completes length and checksum: the bytes of header and table, to be sent before the body.
    ///
    /// # Panics
    /// If nothing was added: there is no such frame.
    pub fn seal(&mut self) -> &[u8] {
        assert!(self.count > 0, "a frame carries at least one message");
        let len_bytes = self.head.len() + self.body_bytes;
        let header = header_of(self.kind, len_bytes, self.count, &self.head[FRAME_HEADER_BYTES..]);
        self.head[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        &self.head
    }
}

/// A whole frame of one row and no body. Takes no memory, for strangers can make this end read and answer such frames.
pub(super) fn seal_row(kind: Kind, row: &[u8; 64]) -> [u8; 96] {
    let mut frame = [0; FRAME_HEADER_BYTES + ROW_BYTES];
    let (header, table) = frame.split_at_mut(FRAME_HEADER_BYTES);
    header.copy_from_slice(&header_of(kind, FRAME_HEADER_BYTES + ROW_BYTES, 1, row));
    table.copy_from_slice(row);
    frame
}

fn header_of(kind: Kind, len_bytes: usize, count: usize, table: &[u8]) -> [u8; 32] {
    let mut header = Header {
        magic: MAGIC,
        len_bytes: len_bytes as u32,
        kind: kind as u8,
        version: VERSION,
        count: count as u16,
        reserved: [0; 16],
        crc: 0,
    };
    header.crc = checksum(bytemuck::bytes_of(&header), table);
    bytemuck::cast(header)
}

fn checksum(header: &[u8], table: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_AT]), table)
}

/// The length that a header announces, checked against the bounds. For links, before they reserve memory.
pub fn announced_bytes(header: &[u8; 32]) -> Result<usize, Malformed> {
    let header: Header = bytemuck::pod_read_unaligned(header);
    if header.magic != MAGIC {
        return Err(Malformed::Magic(header.magic));
    }
    if header.version != VERSION {
        return Err(Malformed::Version(header.version));
    }
    let len_bytes = header.len_bytes as usize;
    if !(FRAME_HEADER_BYTES + ROW_BYTES..=FRAME_BYTES_MAX).contains(&len_bytes) {
        return Err(Malformed::Length(header.len_bytes));
    }
    Ok(len_bytes)
}

/// Kind, table and body of a whole frame.
pub type Opened<'a> = (Kind, &'a [[u8; 64]], &'a [u8]);

/// Kind, table and body of a whole frame; bounds and checksum hold.
pub fn open(frame: &[u8]) -> Result<Opened<'_>, Malformed> {
    let Some((head, rest)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(Malformed::Truncated);
    };
    if announced_bytes(head)? != frame.len() {
        return Err(Malformed::Truncated);
    }
    let header: Header = bytemuck::pod_read_unaligned(head);
    let count = usize::from(header.count);
    if !(1..=FRAME_MESSAGES_MAX).contains(&count) {
        return Err(Malformed::Field("count"));
    }
    let Some((table, body)) = rest.split_at_checked(count * ROW_BYTES) else {
        return Err(Malformed::Truncated);
    };
    if checksum(head, table) != header.crc {
        return Err(Malformed::Checksum);
    }
    if header.reserved != [0; 16] {
        return Err(Malformed::Field("reserved"));
    }
    Ok((Kind::from_byte(header.kind)?, bytemuck::cast_slice(table), body))
}

/// As [`open`], of the one kind that is expected.
pub(super) fn open_as(expected: Kind, frame: &[u8]) -> Result<(&[[u8; 64]], &[u8]), Malformed> {
    let (kind, table, body) = open(frame)?;
    if kind != expected {
        return Err(Malformed::Field("kind"));
    }
    Ok((table, body))
}

/// Cuts a row's part off the front of the body.
pub(super) fn cut<'a>(body: &mut &'a [u8], len_bytes: u32) -> Result<&'a [u8], Malformed> {
    let (part, rest) = body.split_at_checked(len_bytes as usize).ok_or(Malformed::Truncated)?;
    *body = rest;
    Ok(part)
}

/// Whether a number stands for a place in a log or a term of an election.
pub(super) fn check_place(name: &'static str, place: u64) -> Result<u64, Malformed> {
    if place <= PLACE_MAX { Ok(place) } else { Err(Malformed::Field(name)) }
}

/// Whether a number names a shard.
pub(super) fn check_shard(shard: u32) -> Result<crate::types::ShardId, Malformed> {
    if shard < crate::limits::SHARDS_MAX {
        Ok(crate::types::ShardId(shard))
    } else {
        Err(Malformed::Field("shard"))
    }
}
