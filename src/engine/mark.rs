//! What an entry means for the engine's streams, and how it is written in a record.
//!
//! ```text
//!                 kind     flags  timestamp      epoch       session  serial
//! Data            1 data   -      the record's   the record's  -      -
//! Open            4 mark   0      floor's        floor's     1        0
//! Advance         4        0      promised       promised    2        0
//! EndOfStream     4        0      0              0           3        0
//! EndOfEpoch      4        0      0              the epoch   4        0 cut, 1 complete
//! Register        4        0      0              0           5        the stream
//! EpochClosed     4        0      last that lives  the epoch 6        0
//! ```
//! A mark has no payload.

use crate::limits::SHARDS_MAX;
use crate::log::record::{FLAG_MORE, Header, Kind, Malformed};
use crate::types::{Epoch, ShardId, Stamp, Timestamp};

/// What one committed entry means for the engine's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A record of the engine, or the last part of one: the stream has come to this stamp.
    Data(Stamp),
    /// The stream takes records from here on, beyond the floor of its registration.
    Open {
        /// That of the registration.
        floor: Stamp,
    },
    /// Nothing at or before this stamp will follow in the stream.
    Advance(Stamp),
    /// Nothing will follow in the stream at all.
    EndOfStream,
    /// Nothing of this epoch will follow in the stream.
    EndOfEpoch {
        /// Which.
        epoch: Epoch,
        /// The engine has submitted all that it had begun; or else something may be lost.
        complete: bool,
    },
    /// In the registrar's log: a stream is registered, with what the registrar has come to as its floor.
    Register {
        /// Which.
        stream: ShardId,
    },
    /// In the registrar's log: what lives of an epoch is settled, and the next one is open.
    EpochClosed {
        /// Which.
        epoch: Epoch,
        /// The last timestamp of it that lives.
        last: Timestamp,
    },
}

const OPEN: u64 = 1;
const ADVANCE: u64 = 2;
const END_OF_STREAM: u64 = 3;
const END_OF_EPOCH: u64 = 4;
const REGISTER: u64 = 5;
const EPOCH_CLOSED: u64 = 6;

impl Mark {
    /// What an entry means; `None`: nothing. Of a record in parts only the last one counts, for before it the record is
    /// not whole.
    pub fn of(header: &Header) -> Result<Option<Mark>, Malformed> {
        let stamp = Stamp::new(Epoch(header.epoch), Timestamp(header.timestamp));
        match header.kind() {
            Some(Kind::Data) => {
                let counts = stamp.is_submittable() && header.flags & FLAG_MORE == 0;
                Ok(counts.then_some(Mark::Data(stamp)))
            }
            Some(Kind::Mark) => Mark::read(header, stamp).map(Some),
            Some(Kind::Noop | Kind::Vote) | None => Ok(None),
        }
    }

    fn read(header: &Header, stamp: Stamp) -> Result<Mark, Malformed> {
        let mark = match header.session {
            OPEN => Mark::Open { floor: stamp },
            ADVANCE if stamp.is_submittable() => Mark::Advance(stamp),
            END_OF_STREAM => Mark::EndOfStream,
            END_OF_EPOCH => Mark::EndOfEpoch { epoch: stamp.epoch, complete: header.serial == 1 },
            REGISTER if header.serial < u64::from(SHARDS_MAX) => {
                Mark::Register { stream: ShardId(header.serial as u32) }
            }
            EPOCH_CLOSED if stamp.epoch.0 < u32::MAX => {
                Mark::EpochClosed { epoch: stamp.epoch, last: stamp.timestamp }
            }
            _ => return Err(Malformed::Field("mark")),
        };
        // What a mark does not use must be zero, and so a second writing gives the same.
        let (stamp_again, session, serial) = mark.fields();
        if (stamp_again, session, serial) != (stamp, header.session, header.serial) {
            return Err(Malformed::Field("mark"));
        }
        Ok(mark)
    }

    /// Stamp, session and serial of the record that says it.
    ///
    /// # Panics
    /// If it is [`Mark::Data`], which is a record of the engine's own.
    pub fn fields(&self) -> (Stamp, u64, u64) {
        match *self {
            Mark::Data(_) => unreachable!("a record of data is laid as it was submitted"),
            Mark::Open { floor } => (floor, OPEN, 0),
            Mark::Advance(stamp) => (stamp, ADVANCE, 0),
            Mark::EndOfStream => (Stamp::ZERO, END_OF_STREAM, 0),
            Mark::EndOfEpoch { epoch, complete } => {
                (Stamp::begin_of(epoch), END_OF_EPOCH, u64::from(complete))
            }
            Mark::Register { stream } => (Stamp::ZERO, REGISTER, u64::from(stream.0)),
            Mark::EpochClosed { epoch, last } => (Stamp::new(epoch, last), EPOCH_CLOSED, 0),
        }
    }
}
