//! The rows that speak of an engine's streams. Drawn in [`super`].

use super::role::{role_code, role_of};
use super::{ReplyRow, RequestRow, node};
use crate::raft::Role;
use crate::types::{Epoch, NodeId, ShardId, Stamp, Term, Timestamp};
use crate::wire::Malformed;
use crate::wire::frame::{self, check_place};

const REGISTER: u8 = 1;
const ADVANCE: u8 = 2;
const END_OF_STREAM: u8 = 3;
const END_OF_EPOCH: u8 = 4;
const CUT_EPOCH: u8 = 5;

/// What is to be written down of an engine's stream: see [`crate::engine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRequest {
    /// This stream counts from now on.
    Register(ShardId),
    /// Nothing at or before this stamp will be submitted any more. What was refused there is given up.
    Advance(Stamp),
    /// Nothing will be submitted any more: all that was begun is committed. Taken while an epoch ends, too; only before
    /// a cut that is due, and before the stream is open, it is refused as busy.
    EndOfStream,
    /// All that was begun in this epoch is committed, and nothing more will be begun in it.
    EndOfEpoch(Epoch),
    /// What was begun in this epoch may be lost: the engine's thread is not the one that began it. It says so again,
    /// each time with the epoch that it is told is open, until one is committed, and begins nothing before. An answer
    /// that the epoch is closed is not enough: the one before it may have begun in the next, unseen by who answers.
    CutEpoch(Epoch),
}

/// How an engine's stream is, as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// Which.
    pub shard: ShardId,
    /// What the node is in it.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The epoch that takes records.
    pub epoch: Epoch,
    /// The stream's beginning is committed and its end in that epoch is not: the engine may begin transactions in it,
    /// with stamps beyond `stands_at`. What it begins before that nobody knows of, and an epoch may end without it. It
    /// does not say that this node would take a record: one that has just come to lead may owe the epoch a cut, and
    /// then none is taken.
    pub open: bool,
    /// When this was told, the node would have taken a record of that epoch with a stamp beyond the last one, and
    /// nothing that it knew of was about to end the epoch: it led, was not stopping nor handing over; the stream was
    /// registered and open; all that earlier leaders have left was known and settled, so that no cut was owed; and no
    /// stream was known to have ended the epoch.
    ///
    /// It promises nothing of what comes after: leadership may be lost and an epoch end at any time. It says nothing of
    /// room either, nor of records that were refused and are to come again first: a submit that is refused for them is
    /// `Busy`. While the epoch closes it is not set, and records of transactions that were begun before are taken all
    /// the same.
    pub takes_records: bool,
    /// That epoch comes to its end: submit what was begun in it, then say [`StreamRequest::EndOfEpoch`].
    pub closing: bool,
    /// Up to where everything is committed in every registered stream.
    pub watermark: Stamp,
    /// Up to which timestamp of the open epoch this stream stands.
    pub stands_at: Timestamp,
}

impl StreamRequest {
    pub(super) fn row(self) -> RequestRow {
        let row = RequestRow::default();
        match self {
            StreamRequest::Register(stream) => RequestRow { flag: REGISTER, number: stream.0, ..row },
            StreamRequest::Advance(Stamp { epoch, timestamp }) => {
                RequestRow { flag: ADVANCE, place: timestamp.0, number: epoch.0, ..row }
            }
            StreamRequest::EndOfStream => RequestRow { flag: END_OF_STREAM, ..row },
            StreamRequest::EndOfEpoch(epoch) => RequestRow { flag: END_OF_EPOCH, number: epoch.0, ..row },
            StreamRequest::CutEpoch(epoch) => RequestRow { flag: CUT_EPOCH, number: epoch.0, ..row },
        }
    }

    pub(super) fn read(row: &RequestRow) -> Result<StreamRequest, Malformed> {
        Ok(match row.flag {
            REGISTER => StreamRequest::Register(frame::check_shard(row.number)?),
            ADVANCE => StreamRequest::Advance(Stamp::new(Epoch(row.number), Timestamp(row.place))),
            END_OF_STREAM => StreamRequest::EndOfStream,
            END_OF_EPOCH => StreamRequest::EndOfEpoch(Epoch(row.number)),
            CUT_EPOCH => StreamRequest::CutEpoch(Epoch(row.number)),
            _ => return Err(Malformed::Field("stream request")),
        })
    }
}

impl StreamStatus {
    pub(super) fn row(&self) -> ReplyRow {
        ReplyRow {
            code: role_code(self.role),
            extent: self.epoch.0,
            term: self.term.0,
            index: u64::from(self.closing) | u64::from(self.open) << 1 | u64::from(self.takes_records) << 2,
            stamp: self.watermark.timestamp.0,
            commit: u64::from(self.watermark.epoch.0),
            durable: self.stands_at.0,
            shard: self.shard.0,
            leader: self.leader.map_or(0, |id| id.0),
            ..ReplyRow::default()
        }
    }

    pub(super) fn read(row: &ReplyRow) -> Result<StreamStatus, Malformed> {
        let epoch = u32::try_from(row.commit).map_err(|_| Malformed::Field("epoch"))?;
        Ok(StreamStatus {
            shard: frame::check_shard(row.shard)?,
            role: role_of(row.code)?,
            term: Term(check_place("term", row.term)?),
            leader: node(row.leader),
            epoch: Epoch(row.extent),
            open: row.index & 2 != 0,
            closing: row.index & 1 != 0,
            takes_records: row.index & 4 != 0,
            watermark: Stamp::new(Epoch(epoch), Timestamp(row.stamp)),
            stands_at: Timestamp(row.durable),
        })
    }
}

pub(super) fn epoch_closed_row(shard: ShardId, last: Stamp) -> ReplyRow {
    ReplyRow { extent: last.epoch.0, stamp: last.timestamp.0, shard: shard.0, ..ReplyRow::default() }
}

pub(super) fn read_epoch_closed(row: &ReplyRow) -> Result<(ShardId, Stamp), Malformed> {
    Ok((frame::check_shard(row.shard)?, Stamp::new(Epoch(row.extent), Timestamp(row.stamp))))
}
