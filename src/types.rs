//! The vocabulary: newtypes for every number that crosses a module boundary, so that a term is never passed
//! where an index is meant, and [`Durable`], the type that makes "acknowledged before flushed" fail to compile.

use core::fmt;
use core::time::Duration;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype! {
    /// A Raft term. Term 0 is before any election.
    Term(u64)
}
newtype! {
    /// A position in a shard's log. The first entry has index 1; index 0 is the empty log.
    Index(u64)
}
newtype! {
    /// A member of the cluster. Chosen by the operator, never 0.
    NodeId(u32)
}
newtype! {
    /// A shard: one Raft group, one strictly ordered log.
    ShardId(u32)
}
newtype! {
    /// A lane: what one pinned core drives. Shard `s` lives in lane `s mod lanes`, on every node.
    LaneId(u16)
}
newtype! {
    /// The engine's commit timestamp. Opaque to the protocol.
    Timestamp(u64)
}
newtype! {
    /// The engine's epoch. Not the Raft term.
    Epoch(u32)
}
newtype! {
    /// Names a cluster: a node refuses peers, clients and data directories of another.
    ClusterId(u64)
}
newtype! {
    /// Names one life of a data directory, drawn at random when it is formatted: a node that lost its log and was
    /// formatted anew is told apart from the one that promised.
    StoreId(u64)
}
newtype! {
    /// The n-th write that a lane's log gave to its disk, counted from 1 since the log was formatted.
    WriteSequence(u64)
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }

    /// The epoch before this one; the first has none.
    pub fn previous(self) -> Option<Epoch> {
        self.0.checked_sub(1).map(Epoch)
    }
}

impl Index {
    /// The empty log.
    pub const ZERO: Index = Index(0);

    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; the empty log has none, and stays.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl ShardId {
    /// The lane in which this shard lives on every node of a cluster with so many lanes.
    pub fn lane(self, lanes: u16) -> LaneId {
        assert!(lanes > 0, "a cluster has at least one lane");
        LaneId((self.0 % u32::from(lanes)) as u16)
    }
}

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

/// A point on a clock that never goes back, in nanoseconds since an origin of the clock's own choosing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than every time that is met.
    pub const NEVER: Time = Time(u64::MAX);

    /// This time and `duration` more; saturates at [`Time::NEVER`].
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long it was from `earlier` to this time; zero if that is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What names an entry for the protocol: two logs that hold the same `EntryId` agree up to it (log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the leader that made the entry. First, so that the order is Raft's "more up to date".
    pub term: Term,
    /// Its place in the shard's log.
    pub index: Index,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A shard's term and what this node voted in it: what Raft calls the hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The highest term that this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub candidate: Option<NodeId>,
}

/// When a submit is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// As soon as the leader has taken it: may be lost with the leader.
    None,
    /// When it is durable on the leader: may be lost with the leader's disk, or be superseded by another leader.
    Leader,
    /// When it is durable on a quorum and applied in order: survives whatever a quorum survives.
    #[default]
    Quorum,
}

/// A disk's word that one write is on stable storage. It says nothing of others, earlier ones included, unless it comes
/// from [`Disk::sync_now`](crate::io::Disk::sync_now): then all that could be read before is.
///
/// Only a disk backend makes one, when the device has said so (`tests/tidy/main.rs` keeps the list of callers).
#[derive(Debug)]
pub struct Flushed(WriteSequence);

impl Flushed {
    /// For disk backends: the device has confirmed the write `sequence`.
    #[cfg_attr(not(any(feature = "node", feature = "sim")), allow(dead_code, reason = "no backend is built"))]
    pub(crate) fn by_disk(sequence: WriteSequence) -> Flushed {
        Flushed(sequence)
    }

    /// Which write.
    pub fn sequence(&self) -> WriteSequence {
        self.0
    }
}

/// A value that is on this node's stable storage.
///
/// An append acknowledgement, a vote that is granted and a leader's own voice in the quorum each need one, and one
/// is made only against a [`Flushed`]: acknowledging before the flush does not compile.
///
/// ```compile_fail
/// use plimsoll::types::{Durable, Index};
/// let wish = Durable { value: Index(7) }; // no such thing as declaring it durable
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable<T> {
    value: T,
}

impl<T> Durable<T> {
    /// What `proof` covers. The log calls it, for what it had laid in the write that was flushed.
    pub(crate) fn covered_by(_proof: &Flushed, value: T) -> Durable<T> {
        Durable { value }
    }

    /// The value itself.
    pub fn get(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
impl<T> Durable<T> {
    /// For tests of the protocol, where there is no disk.
    pub(crate) fn pretend(value: T) -> Durable<T> {
        Durable { value }
    }
}
