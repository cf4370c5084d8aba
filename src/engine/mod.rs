//! What a transaction engine needs on top of a log: up to which stamp everything is safe, which entries of an epoch that was
//! cut short live and which are dead, and a place for what may not be replayed yet.
//!
//! An engine's worker threads each have a *stream*: the log of one shard. Every record of a stream carries a [`Stamp`], the
//! engine's epoch and commit timestamp, and stamps grow strictly along a stream. A transaction that reads what others wrote
//! may be told to its client, and replayed by a follower, only when everything up to its stamp is committed in *every*
//! stream: when the **watermark** covers it.
//!
//! Everything here is a fold over committed entries, so every replica comes to the same: no clock, no I/O, no message of its
//! own. What an entry means for it is a [`Mark`].
//!
//! # The watermark
//! The minimum over all *registered* streams of how far each has come: the stamp of the last whole record of its committed
//! prefix. A stream that has nothing to submit promises to stay beyond a stamp ([`Mark::Advance`], an entry without bytes),
//! so that it holds nobody back.
//!
//! *Who is registered* is written in one log only, the [`REGISTRAR`]'s, which is itself a stream and the first to be
//! registered. The stamp that the registrar has come to at a [`Mark::Register`] is the new stream's *floor*. The watermark
//! never passes the registrar, so a watermark beyond the floor was made of a prefix that holds the registration: a stream
//! that registers late cannot be overtaken, whatever anybody knew when. In exchange it may only submit beyond its floor.
//!
//! # Epochs
//! A leader that is lost may take transactions with it that others have read from. So a change of leader closes the epoch:
//! 1. The stream's new leader, once its first entry is committed, lays [`Mark::EndOfEpoch`], `complete: false`: what is
//!    before the mark is all that there will ever be of this epoch, and the stream stands where that ends.
//! 2. Whoever leads another stream sees the mark committed and ends the epoch there too. If the engine says in time that it
//!    has submitted all that it had begun, the mark is `complete` and the stream stands at infinity; if not, as in 1.
//! 3. When every registered stream has its mark, the registrar's leader lays [`Mark::EpochClosed`] with the minimum of
//!    where they stand. Any leader of the registrar computes the same, for it is made of committed marks alone: a leader
//!    that is lost in the middle changes nothing.
//!
//! An entry of a closed epoch lives if its stamp is at or under that minimum, and is dead otherwise, everywhere and for
//! ever. The next epoch takes submits from then on.
//!
//! This is the scheme of the paper on Mako ("Mako: Speculative Distributed Transactions with Geo-Replication", OSDI 2025),
//! with its replicated configuration kept in the registrar's log.

pub mod board;
pub mod fold;
pub mod mark;
pub mod replay;
#[cfg(test)]
mod tests;

use core::fmt;

use crate::types::{Epoch, ShardId, Timestamp};

pub use self::fold::{Fate, Fold, Position};
pub use self::mark::Mark;

/// The stream in whose log registrations and the ends of epochs are written.
pub const REGISTRAR: ShardId = ShardId(0);

/// A point in an engine's time: its epoch, and in it the commit timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// First, so that the order is that of the engine's time.
    pub epoch: Epoch,
    /// 1 to `u64::MAX - 1` in a record; 0 is the epoch's beginning, and a record that carries it has no stamp.
    pub timestamp: Timestamp,
}

impl Stamp {
    /// Before everything.
    pub const ZERO: Stamp = Stamp { epoch: Epoch(0), timestamp: Timestamp(0) };

    /// After everything: where a stream stands that has ended.
    pub const NEVER: Stamp = Stamp { epoch: Epoch(u32::MAX), timestamp: Timestamp(u64::MAX) };

    /// Both numbers.
    pub const fn new(epoch: Epoch, timestamp: Timestamp) -> Stamp {
        Stamp { epoch, timestamp }
    }

    /// Before everything of this epoch, and after everything of those before it.
    pub const fn begin_of(epoch: Epoch) -> Stamp {
        Stamp { epoch, timestamp: Timestamp(0) }
    }

    /// After everything of this epoch.
    pub const fn end_of(epoch: Epoch) -> Stamp {
        Stamp { epoch, timestamp: Timestamp(u64::MAX) }
    }

    /// Whether a record may carry it: neither of the two ends of an epoch, nor the epoch of what has ended.
    pub fn is_submittable(self) -> bool {
        (1..u64::MAX).contains(&self.timestamp.0) && self.epoch.0 < u32::MAX
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.timestamp)
    }
}
