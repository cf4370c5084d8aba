//! What a transaction engine needs on top of a log: up to which stamp everything is safe, which entries of an epoch
//! that was cut short live and which are dead, and a place for what may not be replayed yet.
//!
//! An engine's worker threads each have a *stream*: the log of one shard. Every record of a stream carries a
//! [`Stamp`](crate::types::Stamp), the engine's epoch and commit timestamp, and stamps grow strictly along a stream. A
//! transaction that reads what others wrote may be told to its client, and replayed by a follower, only when everything
//! up to its stamp is committed in *every* stream: when the **watermark** covers it.
//!
//! Everything here is a fold over committed entries, so every replica comes to the same: no clock, no I/O, no message
//! of its own. What an entry means for it is a [`Mark`].
//!
//! # The watermark
//! The minimum over all *registered* streams of how far each has come: the stamp of the last whole record of its
//! committed prefix. A stream that has nothing to submit promises to stay beyond a stamp ([`Mark::Advance`], an entry
//! without bytes), so that it holds nobody back.
//!
//! *Who is registered* is written in one log only, the [`REGISTRAR`]'s, which is itself a stream and the first to be
//! registered. The stamp that the registrar has come to at a [`Mark::Register`] is the new stream's *floor*. The
//! watermark never passes the registrar, so a watermark beyond the floor was made of a prefix that holds the
//! registration: a stream that registers late cannot be overtaken, whatever anybody knew when. In exchange it may only
//! submit beyond its floor. None is registered between the registrar's end of an epoch and the next one: a stream
//! counts in every epoch from its floor's on.
//!
//! # Epochs
//! A leader that is lost may take transactions with it that others have read from. So a change of leader closes the
//! epoch:
//! 1. The stream's new leader, once its first entry is committed, lays [`Mark::EndOfEpoch`], `complete: false`: what is
//!    before the mark is all that there will ever be of this epoch, and the stream stands where that ends.
//! 2. Whoever leads another stream sees the mark committed and ends the epoch there too. If the engine says in time
//!    that it has submitted all that it had begun, the mark is `complete` and the stream stands at infinity; if not, as
//!    in 1.
//! 3. When every registered stream has its mark, the registrar's leader lays [`Mark::EpochClosed`] with the minimum of
//!    where they stand. Any leader of the registrar computes the same, for it is made of committed marks alone: a
//!    leader that is lost in the middle changes nothing.
//!
//! An entry of a closed epoch lives if its stamp is at or under that minimum, and is dead otherwise, everywhere and for
//! ever. The next epoch takes submits from then on.
//!
//! # An engine that comes back
//! A thread of the engine that dies takes with it what it had begun and not submitted, and no leader notices. Whoever
//! comes after it in its stream says so ([`StreamRequest::CutEpoch`](crate::wire::client::StreamRequest)), and the
//! leader lays the mark that a new leader would. It begins nothing before that mark is committed and the next epoch is
//! open: a mark that is committed is the first of its epoch, so nothing of a later one can have begun before it, and
//! all that was begun is at or before that end. Where it is told that the epoch is closed it asks again, in the next
//! one.
//!
//! A stream may end for good while an epoch ends. It then stands at infinity, but for the epoch whose end is before it
//! in its log: of that it counts where it stood. The leader takes no such end before it has laid the cut that it owes.
//!
//! # Records that are refused
//! A thread may have many records under way. If one of them is refused, because its leader was busy or about to hand
//! over, the leader takes none with a later stamp until that one was submitted again: else the watermark would pass a
//! transaction that others may have read from. So what is refused is submitted again with the same stamp, in order; or
//! given up, with [`StreamRequest::CutEpoch`](crate::wire::client::StreamRequest) if anybody may have read it, and with
//! `Advance` if not.
//!
//! # Records of several transactions
//! A record lives or dies as a whole, by its one stamp. An engine that puts several transactions into one must cut and
//! stamp the records of all its streams alike, so that whatever a transaction may have read from has a stamp that is no
//! greater than its own record's: else the end of an epoch can fall between the two, and what it has read from is dead.
//!
//! This is the scheme of the paper on Mako ("Mako: Speculative Distributed Transactions with Geo-Replication", OSDI
//! 2025), with its replicated configuration kept in the registrar's log.

pub mod board;
pub mod fold;
pub mod mark;
pub mod replay;
#[cfg(test)]
mod tests;

use crate::types::ShardId;

pub use self::fold::{Fate, Fold, Position};
pub use self::mark::Mark;

/// The stream in whose log registrations and the ends of epochs are written.
pub const REGISTRAR: ShardId = ShardId(0);
