//! Raft messages of all shards of a lane, coalesced into one frame.
//!
//! ```text
//! row  0 kind          u8   1 pre-vote, 2 pre-vote reply, 3 request vote, 4 vote granted, 5 vote refused,
//!                           6 append, 7 appended, 8 rejected, 9 timeout now
//!      1 flag          u8   2: granted; 3: transfer; else 0
//!      2 reserved      u16  0
//!      4 shard         u32
//!      8 term          u64
//!     16 index         u64  1, 3: of the last entry; 6: of the previous one; 7: matched; 8: refused
//!     24 entry_term    u64  1, 3: of the last entry; 6: of the previous one; 8: of the hint
//!     32 entries_term  u64  6: of the entries carried; 8: the hint's index
//!     40 commit        u64  6
//!     48 round         u64  6, 7, 8
//!     56 count         u32  6: entries carried
//!     60 body_bytes    u32  6: bytes of records in the body, a multiple of 8; 0 exactly if count is
//! ```
//! What a kind does not use is zero. The rows' `body_bytes` add up to the frame's body.

use bytemuck::{Pod, Zeroable};

use super::Malformed;
use super::frame::{self, Kind};
use crate::limits::{APPEND_BYTES_MAX, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES};
use crate::raft::Message;
use crate::raft::message::{Ack, Grant};
use crate::types::{EntryId, Index, ShardId, Term};

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Row {
    kind: u8,
    flag: u8,
    reserved: u16,
    shard: u32,
    term: u64,
    index: u64,
    entry_term: u64,
    entries_term: u64,
    commit: u64,
    round: u64,
    count: u32,
    body_bytes: u32,
}

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const REQUEST_VOTE: u8 = 3;
const VOTE_GRANTED: u8 = 4;
const VOTE_REFUSED: u8 = 5;
const APPEND: u8 = 6;
const APPENDED: u8 = 7;
const REJECTED: u8 = 8;
const TIMEOUT_NOW: u8 = 9;

/// The row of a frame's table that says `message` for `shard`, with so many bytes of records in the body.
///
/// # Panics
/// If there are bytes with a message that carries no entries, or more than [`APPEND_BYTES_MAX`].
pub fn encode(shard: ShardId, message: &Message, body_bytes: usize) -> [u8; 64] {
    let carries = matches!(message, Message::Append { count, .. } if *count > 0);
    assert_eq!(carries, body_bytes > 0, "records travel with an append that counts them");
    assert!(body_bytes <= APPEND_BYTES_MAX, "an append of {body_bytes} bytes");
    bytemuck::cast(row(shard, message, body_bytes as u32))
}

fn row(shard: ShardId, message: &Message, body_bytes: u32) -> Row {
    let row = Row { shard: shard.0, term: message.term().0, body_bytes, ..Row::default() };
    match *message {
        Message::PreVote { last, .. } => {
            Row { kind: PRE_VOTE, index: last.index.0, entry_term: last.term.0, ..row }
        }
        Message::PreVoteReply { granted, .. } => Row { kind: PRE_VOTE_REPLY, flag: u8::from(granted), ..row },
        Message::RequestVote { last, transfer, .. } => Row {
            kind: REQUEST_VOTE,
            flag: u8::from(transfer),
            index: last.index.0,
            entry_term: last.term.0,
            ..row
        },
        Message::VoteGranted(_) => Row { kind: VOTE_GRANTED, ..row },
        Message::VoteRefused { .. } => Row { kind: VOTE_REFUSED, ..row },
        Message::Append { previous, entries_term, count, commit, round, .. } => Row {
            kind: APPEND,
            index: previous.index.0,
            entry_term: previous.term.0,
            entries_term: entries_term.0,
            commit: commit.0,
            round,
            count,
            ..row
        },
        Message::Appended(ack) => Row { kind: APPENDED, index: ack.matched().0, round: ack.round(), ..row },
        Message::Rejected { refused, hint, round, .. } => Row {
            kind: REJECTED,
            index: refused.0,
            entry_term: hint.term.0,
            entries_term: hint.index.0,
            round,
            ..row
        },
        Message::TimeoutNow { .. } => Row { kind: TIMEOUT_NOW, ..row },
    }
}

/// The messages of a whole peer frame. Everything is checked before the first is given out.
pub fn decode(frame: &[u8]) -> Result<Messages<'_>, Malformed> {
    let (table, body) = frame::open_as(Kind::Peer, frame)?;
    let mut rest = body;
    for bytes in table {
        read(bytes, &mut rest)?;
    }
    if !rest.is_empty() {
        return Err(Malformed::Truncated);
    }
    Ok(Messages { table, body })
}

/// See [`decode`]. The records of an append are its third part; their own checksums are still to be checked.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    table: &'a [[u8; 64]],
    body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = (ShardId, Message, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (row, rest) = self.table.split_first()?;
        self.table = rest;
        Some(read(row, &mut self.body).expect("every row was checked when the frame was decoded"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.table.len(), Some(self.table.len()))
    }
}

/// One row and its part of the body.
fn read<'a>(bytes: &[u8; 64], body: &mut &'a [u8]) -> Result<(ShardId, Message, &'a [u8]), Malformed> {
    let fields: Row = bytemuck::pod_read_unaligned(bytes);
    let shard = frame::check_shard(fields.shard)?;
    let message = message(&fields)?;
    // What the kind does not use must be zero, and so a second writing gives the same bytes.
    if bytemuck::bytes_of(&row(shard, &message, fields.body_bytes)) != bytes {
        return Err(Malformed::Field("reserved"));
    }
    let len = fields.body_bytes as usize;
    if len > APPEND_BYTES_MAX || !len.is_multiple_of(RECORD_ALIGN_BYTES) {
        return Err(Malformed::Field("body_bytes"));
    }
    let records = fields.count as usize;
    if (records == 0) != (len == 0) || records > len / RECORD_HEADER_BYTES {
        return Err(Malformed::Field("count"));
    }
    Ok((shard, message, frame::cut(body, fields.body_bytes)?))
}

fn message(row: &Row) -> Result<Message, Malformed> {
    let term = Term(frame::check_place("term", row.term)?);
    let index = Index(frame::check_place("index", row.index)?);
    let entry_term = Term(frame::check_place("entry_term", row.entry_term)?);
    Ok(match row.kind {
        PRE_VOTE => Message::PreVote { term, last: entry(entry_term, index)? },
        PRE_VOTE_REPLY => Message::PreVoteReply { term, granted: row.flag == 1 },
        REQUEST_VOTE => {
            Message::RequestVote { term, last: entry(entry_term, index)?, transfer: row.flag == 1 }
        }
        VOTE_GRANTED => Message::VoteGranted(Grant::received(term)),
        VOTE_REFUSED => Message::VoteRefused { term },
        APPEND => {
            let previous = entry(entry_term, index)?;
            let entries_term = Term(row.entries_term);
            // Terms do not fall along a log, and no entry is of a later term than its leader.
            if entries_term > term || entries_term < previous.term || (row.count == 0 && entries_term != term)
            {
                return Err(Malformed::Field("entries_term"));
            }
            let commit = Index(frame::check_place("commit", row.commit)?);
            Message::Append { term, previous, entries_term, count: row.count, commit, round: row.round }
        }
        APPENDED => Message::Appended(Ack::received(term, index, row.round)),
        REJECTED => {
            let hint =
                EntryId { term: entry_term, index: Index(frame::check_place("hint", row.entries_term)?) };
            Message::Rejected { term, refused: index, hint, round: row.round }
        }
        TIMEOUT_NOW => Message::TimeoutNow { term },
        _ => return Err(Malformed::Field("message kind")),
    })
}

/// The empty log's place, or that of an entry: the two numbers are zero together.
fn entry(term: Term, index: Index) -> Result<EntryId, Malformed> {
    if (term == Term(0)) != (index == Index::ZERO) {
        return Err(Malformed::Field("entry_term"));
    }
    Ok(EntryId { term, index })
}
