//! What clients ask and are answered. Both directions pipeline: `request` names what is answered, and a frame carries
//! as many as fit.
//!
//! ```text
//! request  0 kind         u8   1 submit, 2 read, 3 status, 4 transfer, 5 read index, 6 stream, 7 subscribe
//!          1 flag         u8   1: acks: 0 none, 1 leader, 2 quorum; 2: wait;
//!                              6: 1 register, 2 advance, 3 end of stream, 4 end of epoch, 5 cut epoch; else 0
//!          2 reserved     u16  0
//!          4 shard        u32
//!          8 request      u64
//!         16 place        u64  1, advance: timestamp; 2: from
//!         24 session      u64  1
//!         32 serial       u64  1
//!         40 number       u32  1, advance, end of epoch, cut epoch: epoch; 2: bytes_max; 4: the node to lead;
//!                              register: the stream
//!         44 payload_crc  u32  1: CRC32C of the bytes in the body
//!         48 more_bytes   u32  1: of the same record, still to come
//!         52 body_bytes   u32  1: of the payload, in the body
//!         56 reserved     u64  0
//!
//! reply    0 kind         u8   1 outcome, 2 records, 3 status, 4 read index, 5 farewell, 6 stream,
//!                              7 epoch closed
//!          1 code         u8   1: 1 committed, 2 not leader, 3 busy, 4 log full, 5 unknown, 6 invalid, 7 stopping,
//!                              8 accepted, 9 behind, 10 unregistered, 11 epoch closed;
//!                              3, 6: 0 follower, 1 pre-candidate, 2 candidate, 3 leader; else 0
//!          2 reserved     u16  0
//!          4 extent       u32  2: bytes of records in the body, a multiple of 8; 3: elections; behind: the epoch;
//!                              epoch closed, 6: the open epoch; 7: the closed one
//!          8 request      u64  5: 0
//!         16 term         u64  committed: the entry's; 3, 6: the node's
//!         24 index        u64  committed: the entry's; 2: next; 3: of the last entry; 4: to read at;
//!                              6: bit 0: the open epoch ends, bit 1: the stream is open, bit 2: it takes records
//!         32 stamp        u64  committed, behind: the timestamp; 3: the last entry's term; 6: the watermark's
//!                              timestamp; 7: the last timestamp that lives
//!         40 commit       u64  2, 3; 6: the watermark's epoch
//!         48 durable      u64  3; 6: up to which timestamp of the open epoch the stream stands
//!         56 shard        u32  3, 6, 7
//!         60 leader       u32  not leader, 3, 6: who leads; 0: nobody known
//! ```
//! What a kind does not use is zero; the parts of the body add up to it exactly. A submit's `payload_crc` is carried,
//! not checked here: the shard's ingress checks it when it takes the record, so that each byte is summed once.

mod role;
mod status;
mod stream;

use bytemuck::{Pod, Zeroable};

pub use self::status::ShardStatus;
pub use self::stream::{StreamRequest, StreamStatus};
use self::stream::{epoch_closed_row, read_epoch_closed};
use super::Malformed;
use super::frame::{self, Kind, check_place};
use crate::limits::{ENTRY_PAYLOAD_BYTES_MAX, FRAME_BYTES_MAX, RECORD_ALIGN_BYTES, RECORD_BYTES_MAX};
use crate::types::{Acks, EntryId, Epoch, Index, NodeId, ShardId, Stamp, Term, Timestamp};

/// A record, or a part of one that is longer than an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submit<'a> {
    /// Names it in the outcome.
    pub request: u64,
    /// For which shard.
    pub shard: ShardId,
    /// When it is answered.
    pub acks: Acks,
    /// The engine's timestamp.
    pub timestamp: Timestamp,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// Who submits; 0: duplicates do not matter.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
    /// CRC32C of the bytes carried here.
    pub payload_crc: u32,
    /// How many bytes of the same record follow in further submits of the same request; 0: this is all, or the end.
    pub more_bytes: u32,
    /// The bytes, at most [`crate::limits::ENTRY_PAYLOAD_BYTES_MAX`], at least one.
    pub payload: &'a [u8],
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Make this durable.
    Submit(Submit<'a>),
    /// Committed records from an index on.
    Read {
        /// Names it in the answer.
        request: u64,
        /// Of which shard.
        shard: ShardId,
        /// The first index wanted.
        from: Index,
        /// The most bytes wanted in one answer, cut at [`crate::limits::APPEND_BYTES_MAX`]; one record comes however
        /// long it is.
        bytes_max: u32,
        /// If there is nothing at `from` yet, answer when there is.
        wait: bool,
    },
    /// How is this shard on this node?
    Status {
        /// Names it in the answer.
        request: u64,
        /// Which shard.
        shard: ShardId,
    },
    /// Hand the shard's leadership to another node. `Busy`: the leader has not heard that for an election timeout, and
    /// would refuse records to wait for it in vain.
    Transfer {
        /// Names it in the answer.
        request: u64,
        /// Which shard.
        shard: ShardId,
        /// To whom.
        to: NodeId,
    },
    /// Up to where must a reader have read so that it misses nothing that was acknowledged before it asked?
    ReadIndex {
        /// Names it in the answer.
        request: u64,
        /// Of which shard.
        shard: ShardId,
    },
    /// Of an engine's stream something is to be written down: answered when that is committed.
    Stream {
        /// Names it in the answer.
        request: u64,
        /// Which; a registration goes to the registrar's.
        shard: ShardId,
        /// What.
        asked: StreamRequest,
    },
    /// Tell how this stream is, and tell again whenever that changes.
    Subscribe {
        /// Names it in the answers.
        request: u64,
        /// Which.
        shard: ShardId,
    },
}

/// How a submit, or a request that cannot be answered otherwise, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, as durable as was asked for.
    Committed {
        /// Where: of a record in parts, its last entry.
        id: EntryId,
        /// As submitted.
        timestamp: Timestamp,
    },
    /// Not taken: this node does not lead the shard.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// Not taken: some bound was met; try again.
    Busy,
    /// Not taken: the log is full.
    LogFull,
    /// Taken, but leadership was lost before it committed: it may survive or not.
    Unknown,
    /// Not taken: no such shard here, a checksum that does not hold, a stamp that no record may have, a part that does
    /// not fit the one before it, a transfer to who is no voter, or a request for streams where the node has none.
    Invalid,
    /// Not taken, or given up: the node is stopping.
    Stopping,
    /// A transfer has begun.
    Accepted,
    /// Not taken: the stream has come to this stamp already, and stamps grow along a stream.
    Behind {
        /// To which.
        last: Stamp,
    },
    /// Not taken: no such stream is registered, as far as this node knows yet.
    Unregistered,
    /// Not taken: the stamp's epoch takes no records.
    EpochClosed {
        /// The one that does, or will when the end of the one before it is settled.
        open: Epoch,
    },
}

/// What a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The end of a submit or a transfer, or of a read or status that could not be answered.
    Outcome {
        /// What is answered.
        request: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Committed records, as they lie in the log.
    Records {
        /// What is answered.
        request: u64,
        /// Where the next read goes on.
        next: Index,
        /// What was committed when this was answered.
        commit: Index,
        /// Whole records ([`crate::log::record`]), one after another; empty: nothing at `from` yet.
        records: &'a [u8],
    },
    /// How a shard is.
    Status {
        /// What is answered.
        request: u64,
        /// How it is.
        status: ShardStatus,
    },
    /// A majority has confirmed that this was the shard's leader, and this its commit, after it was asked.
    ReadIndex {
        /// What is answered.
        request: u64,
        /// All that was acknowledged before the question is at or before this index.
        index: Index,
    },
    /// How a stream is, to who has subscribed.
    Stream {
        /// What is answered.
        request: u64,
        /// How it is.
        status: StreamStatus,
    },
    /// To who has subscribed: what lives of an epoch is settled. Told once for each epoch, in their order and before
    /// the status that speaks of a later one; to who subscribes, also of those that were closed before. Only the last
    /// 64 are known: of one that was closed longer ago, nothing is told.
    EpochClosed {
        /// What is answered.
        request: u64,
        /// Which stream was subscribed to; it holds for all.
        shard: ShardId,
        /// The epoch, and the last timestamp of it that lives: what is beyond is dead, everywhere and for ever.
        /// `u64::MAX`: all of it lives.
        last: Stamp,
    },
    /// The node stops, and this is the last that it says on the connection. What the client has sent here and was not
    /// answered before this was not taken, nor will anything be that comes after it.
    Farewell,
}

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct RequestRow {
    kind: u8,
    flag: u8,
    reserved: u16,
    shard: u32,
    request: u64,
    place: u64,
    session: u64,
    serial: u64,
    number: u32,
    payload_crc: u32,
    more_bytes: u32,
    body_bytes: u32,
    reserved_end: u64,
}

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct ReplyRow {
    kind: u8,
    code: u8,
    reserved: u16,
    extent: u32,
    request: u64,
    term: u64,
    index: u64,
    stamp: u64,
    commit: u64,
    durable: u64,
    shard: u32,
    leader: u32,
}

const SUBMIT: u8 = 1;
const READ: u8 = 2;
const STATUS: u8 = 3;
const TRANSFER: u8 = 4;
const READ_INDEX: u8 = 5;
const STREAM: u8 = 6;
const SUBSCRIBE: u8 = 7;

const OUTCOME: u8 = 1;
const RECORDS: u8 = 2;
const SHARD_STATUS: u8 = 3;
const CONFIRMED: u8 = 4;
const FAREWELL: u8 = 5;
const STREAM_STATUS: u8 = 6;
const EPOCH_CLOSED: u8 = 7;

impl Request<'_> {
    /// The row that says it; its payload is the row's body.
    ///
    /// # Panics
    /// If a submit's payload is empty or beyond [`ENTRY_PAYLOAD_BYTES_MAX`].
    pub fn encode(&self) -> [u8; 64] {
        if let Request::Submit(submit) = self {
            let len = submit.payload.len();
            assert!((1..=ENTRY_PAYLOAD_BYTES_MAX).contains(&len), "a submit of {len} bytes");
        }
        bytemuck::cast(self.row())
    }

    fn row(&self) -> RequestRow {
        match *self {
            Request::Submit(ref submit) => submit.row(),
            Request::Read { request, shard, from, bytes_max, wait } => RequestRow {
                kind: READ,
                flag: u8::from(wait),
                shard: shard.0,
                request,
                place: from.0,
                number: bytes_max,
                ..RequestRow::default()
            },
            Request::Status { request, shard } => {
                RequestRow { kind: STATUS, shard: shard.0, request, ..RequestRow::default() }
            }
            Request::Transfer { request, shard, to } => {
                RequestRow { kind: TRANSFER, shard: shard.0, request, number: to.0, ..RequestRow::default() }
            }
            Request::ReadIndex { request, shard } => {
                RequestRow { kind: READ_INDEX, shard: shard.0, request, ..RequestRow::default() }
            }
            Request::Stream { request, shard, asked } => {
                RequestRow { kind: STREAM, shard: shard.0, request, ..asked.row() }
            }
            Request::Subscribe { request, shard } => {
                RequestRow { kind: SUBSCRIBE, shard: shard.0, request, ..RequestRow::default() }
            }
        }
    }
}

impl<'a> Submit<'a> {
    fn row(&self) -> RequestRow {
        RequestRow {
            kind: SUBMIT,
            flag: match self.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::Quorum => 2,
            },
            shard: self.shard.0,
            request: self.request,
            place: self.timestamp.0,
            session: self.session,
            serial: self.serial,
            number: self.epoch.0,
            payload_crc: self.payload_crc,
            more_bytes: self.more_bytes,
            body_bytes: self.payload.len() as u32,
            ..RequestRow::default()
        }
    }

    fn read(row: &RequestRow, shard: ShardId, body: &mut &'a [u8]) -> Result<Submit<'a>, Malformed> {
        let acks = match row.flag {
            0 => Acks::None,
            1 => Acks::Leader,
            2 => Acks::Quorum,
            _ => return Err(Malformed::Field("acks")),
        };
        let len = row.body_bytes as usize;
        if !(1..=ENTRY_PAYLOAD_BYTES_MAX).contains(&len) {
            return Err(Malformed::Field("body_bytes"));
        }
        if row.more_bytes as usize > RECORD_BYTES_MAX - len {
            return Err(Malformed::Field("more_bytes"));
        }
        Ok(Submit {
            request: row.request,
            shard,
            acks,
            timestamp: Timestamp(row.place),
            epoch: Epoch(row.number),
            session: row.session,
            serial: row.serial,
            payload_crc: row.payload_crc,
            more_bytes: row.more_bytes,
            payload: frame::cut(body, row.body_bytes)?,
        })
    }
}

/// The requests of a whole frame. Everything is checked before the first is given out.
pub fn requests(frame: &[u8]) -> Result<impl Iterator<Item = Request<'_>>, Malformed> {
    rows(Kind::Request, frame, read_request)
}

/// One request that came without a frame: its row, and for body what came behind it.
pub fn request<'a>(row: &[u8; 64], mut body: &'a [u8]) -> Result<Request<'a>, Malformed> {
    let found = read_request(row, &mut body)?;
    if body.is_empty() { Ok(found) } else { Err(Malformed::Truncated) }
}

/// The rows of a frame that nobody writes to any more, all of them read once to check them, and then again as they are
/// asked for.
fn rows<'a, T>(
    kind: Kind,
    frame: &'a [u8],
    read: impl Fn(&[u8; 64], &mut &'a [u8]) -> Result<T, Malformed>,
) -> Result<impl Iterator<Item = T>, Malformed> {
    let (table, mut body) = frame::open_as(kind, frame)?;
    let mut rest = body;
    for row in table {
        read(row, &mut rest)?;
    }
    if !rest.is_empty() {
        return Err(Malformed::Truncated);
    }
    Ok(table
        .iter()
        .map(move |row| read(row, &mut body).expect("every row was checked when the frame was opened")))
}

fn read_request<'a>(bytes: &[u8; 64], body: &mut &'a [u8]) -> Result<Request<'a>, Malformed> {
    let row: RequestRow = bytemuck::pod_read_unaligned(bytes);
    let shard = frame::check_shard(row.shard)?;
    let request = row.request;
    let found = match row.kind {
        SUBMIT => Request::Submit(Submit::read(&row, shard, body)?),
        READ => Request::Read {
            request,
            shard,
            from: Index(check_place("from", row.place)?),
            bytes_max: row.number,
            wait: row.flag == 1,
        },
        STATUS => Request::Status { request, shard },
        TRANSFER => Request::Transfer { request, shard, to: node(row.number).ok_or(Malformed::Field("to"))? },
        READ_INDEX => Request::ReadIndex { request, shard },
        STREAM => Request::Stream { request, shard, asked: StreamRequest::read(&row)? },
        SUBSCRIBE => Request::Subscribe { request, shard },
        _ => return Err(Malformed::Field("request kind")),
    };
    // What the kind does not use must be zero, and so a second writing gives the same bytes.
    if bytemuck::bytes_of(&found.row()) != bytes {
        return Err(Malformed::Field("reserved"));
    }
    Ok(found)
}

fn node(id: u32) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

impl Reply<'_> {
    /// The row that says it; `body_bytes` of records follow in the body (they may come in several pieces, so the
    /// `records` field is not looked at).
    ///
    /// # Panics
    /// If there are bytes with a reply that carries no records, or more than a frame takes.
    pub fn encode(&self, body_bytes: usize) -> [u8; 64] {
        assert!(body_bytes == 0 || matches!(self, Reply::Records { .. }), "only records have a body");
        assert!(body_bytes <= FRAME_BYTES_MAX, "a reply of {body_bytes} bytes");
        bytemuck::cast(self.row(body_bytes as u32))
    }

    fn row(&self, body_bytes: u32) -> ReplyRow {
        match *self {
            Reply::Outcome { request, outcome } => ReplyRow { kind: OUTCOME, request, ..outcome.row() },
            Reply::Records { request, next, commit, .. } => ReplyRow {
                kind: RECORDS,
                extent: body_bytes,
                request,
                index: next.0,
                commit: commit.0,
                ..ReplyRow::default()
            },
            Reply::Status { request, status } => ReplyRow { kind: SHARD_STATUS, request, ..status.row() },
            Reply::ReadIndex { request, index } => {
                ReplyRow { kind: CONFIRMED, request, index: index.0, ..ReplyRow::default() }
            }
            Reply::EpochClosed { request, shard, last } => {
                ReplyRow { kind: EPOCH_CLOSED, request, ..epoch_closed_row(shard, last) }
            }
            Reply::Stream { request, status } => ReplyRow { kind: STREAM_STATUS, request, ..status.row() },
            Reply::Farewell => ReplyRow { kind: FAREWELL, ..ReplyRow::default() },
        }
    }
}

impl Outcome {
    fn row(&self) -> ReplyRow {
        let row = ReplyRow::default();
        match *self {
            Outcome::Committed { id, timestamp } => {
                ReplyRow { code: 1, term: id.term.0, index: id.index.0, stamp: timestamp.0, ..row }
            }
            Outcome::NotLeader { leader } => ReplyRow { code: 2, leader: leader.map_or(0, |id| id.0), ..row },
            Outcome::Busy => ReplyRow { code: 3, ..row },
            Outcome::LogFull => ReplyRow { code: 4, ..row },
            Outcome::Unknown => ReplyRow { code: 5, ..row },
            Outcome::Invalid => ReplyRow { code: 6, ..row },
            Outcome::Stopping => ReplyRow { code: 7, ..row },
            Outcome::Accepted => ReplyRow { code: 8, ..row },
            Outcome::Behind { last } => {
                ReplyRow { code: 9, stamp: last.timestamp.0, extent: last.epoch.0, ..row }
            }
            Outcome::Unregistered => ReplyRow { code: 10, ..row },
            Outcome::EpochClosed { open } => ReplyRow { code: 11, extent: open.0, ..row },
        }
    }

    fn read(row: &ReplyRow) -> Result<Outcome, Malformed> {
        Ok(match row.code {
            1 => Outcome::Committed { id: entry(row.term, row.index)?, timestamp: Timestamp(row.stamp) },
            2 => Outcome::NotLeader { leader: node(row.leader) },
            3 => Outcome::Busy,
            4 => Outcome::LogFull,
            5 => Outcome::Unknown,
            6 => Outcome::Invalid,
            7 => Outcome::Stopping,
            8 => Outcome::Accepted,
            9 => Outcome::Behind { last: Stamp::new(Epoch(row.extent), Timestamp(row.stamp)) },
            10 => Outcome::Unregistered,
            11 => Outcome::EpochClosed { open: Epoch(row.extent) },
            _ => return Err(Malformed::Field("outcome")),
        })
    }
}

fn entry(term: u64, index: u64) -> Result<EntryId, Malformed> {
    Ok(EntryId { term: Term(check_place("term", term)?), index: Index(check_place("index", index)?) })
}

/// The replies of a whole frame. Everything is checked before the first is given out; the records' own checksums are
/// still to be checked.
pub fn replies(frame: &[u8]) -> Result<impl Iterator<Item = Reply<'_>>, Malformed> {
    rows(Kind::Reply, frame, read_reply)
}

/// Shows the replies of a frame that whoever wrote it may still write to: each row is read once, and checked before it
/// is shown. What comes before one that makes no sense was shown. The bytes of records may change as long as they are
/// looked at.
pub fn replies_as_they_are<'a>(frame: &'a [u8], mut each: impl FnMut(Reply<'a>)) -> Result<(), Malformed> {
    let (table, mut body) = frame::open_as(Kind::Reply, frame)?;
    for row in table {
        // Kept from being read where it lies again, which is the compiler's right otherwise.
        let row = core::hint::black_box(*row);
        each(read_reply(&row, &mut body)?);
    }
    if body.is_empty() { Ok(()) } else { Err(Malformed::Truncated) }
}

fn read_reply<'a>(bytes: &[u8; 64], body: &mut &'a [u8]) -> Result<Reply<'a>, Malformed> {
    let row: ReplyRow = bytemuck::pod_read_unaligned(bytes);
    let request = row.request;
    let found = match row.kind {
        OUTCOME => Reply::Outcome { request, outcome: Outcome::read(&row)? },
        RECORDS => {
            if !(row.extent as usize).is_multiple_of(RECORD_ALIGN_BYTES) {
                return Err(Malformed::Field("extent"));
            }
            let next = Index(check_place("next", row.index)?);
            let commit = Index(check_place("commit", row.commit)?);
            Reply::Records { request, next, commit, records: frame::cut(body, row.extent)? }
        }
        SHARD_STATUS => Reply::Status { request, status: ShardStatus::read(&row)? },
        STREAM_STATUS => Reply::Stream { request, status: StreamStatus::read(&row)? },
        EPOCH_CLOSED => {
            let (shard, last) = read_epoch_closed(&row)?;
            Reply::EpochClosed { request, shard, last }
        }
        CONFIRMED => Reply::ReadIndex { request, index: Index(check_place("index", row.index)?) },
        FAREWELL => Reply::Farewell,
        _ => return Err(Malformed::Field("reply kind")),
    };
    // What the kind does not use must be zero, and so a second writing gives the same bytes.
    if bytemuck::bytes_of(&found.row(row.extent)) != bytes {
        return Err(Malformed::Field("reserved"));
    }
    Ok(found)
}
