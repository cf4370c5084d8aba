//! What a lane needs of the world, as traits: a [`Disk`], a [`Link`] to its peers, a [`Port`] for its clients, a
//! [`Clock`], and one place to block, [`Park`]. Production, the simulator and tests each bring their own; a concrete
//! backend is named by `node` alone.
//!
//! Nothing here is awaited: everything is polled, and says with its return value how much it found.

#[cfg(feature = "node")]
pub mod clock;
pub mod datagram;
#[cfg(feature = "node")]
pub mod disk;
#[cfg(feature = "node")]
pub mod link;
#[cfg(feature = "node")]
pub(crate) mod locked;
pub mod pool;
#[cfg(feature = "node")]
pub mod reactor;
pub mod ring;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use self::pool::{Chunk, Slice};
use crate::types::{Flushed, NodeId, Time, WriteSequence};

/// A clock that never goes back.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Time;
}

/// Which segment of a log: segments are numbered from 0 in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// A write of whole blocks: `bytes` go to `offset` of `segment`.
#[derive(Debug)]
pub struct Write {
    /// Named in the [`Flushed`] that confirms it.
    pub sequence: WriteSequence,
    /// Where.
    pub segment: SegmentId,
    /// Where in the segment: a multiple of the block.
    pub offset: u64,
    /// What: a multiple of the block, aligned to [`crate::limits::BLOCK_BYTES_MAX`] in memory.
    pub bytes: Slice,
}

/// A read of whole blocks into fresh memory.
#[derive(Debug)]
pub struct Read {
    /// Named in the answer.
    pub token: u64,
    /// Where.
    pub segment: SegmentId,
    /// Where in the segment: a multiple of the block.
    pub offset: u64,
    /// How much: a multiple of the block.
    pub len_bytes: usize,
    /// Into what: the bytes go to the start of its spare room.
    pub into: Chunk,
}

/// The disk takes no more at this moment; the request comes back unharmed.
#[derive(Debug)]
pub struct Full<T>(pub T);

/// What a disk has to say.
#[derive(Debug)]
pub enum DiskEvent {
    /// This write, and none before or after it by that token, is on stable storage. Writes may finish in any order.
    Written(Flushed),
    /// A read is done: the chunk holds what was asked for.
    Read {
        /// The reader's token.
        token: u64,
        /// The bytes, at the start of the chunk's spare room.
        chunk: Chunk,
    },
    /// The segment exists, is zeroed to its end, and survives a crash.
    Prepared(SegmentId),
    /// The system has no room for the segment at this moment. Told once: the disk goes on trying, and tells
    /// [`DiskEvent::Prepared`] when there was room. Nothing else is wrong with it.
    NotPrepared {
        /// Which.
        segment: SegmentId,
        /// What the system said; `no_space` is set.
        error: DiskError,
    },
    /// The disk does not keep its promises any more. Nothing after this is to be believed, nothing is retried.
    Failed(DiskError),
}

/// An operation that failed, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What was tried: "write", "read", "create segment", with place and length.
    pub operation: String,
    /// On what: a path.
    pub place: String,
    /// What the system said.
    pub cause: String,
    /// The system has no room: the one failure that an operator mends without replacing anything.
    pub no_space: bool,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: {}", self.operation, self.place, self.cause)
    }
}

/// Segments of one lane's log. One owner, polled.
pub trait Disk {
    /// The smallest unit of a write, a power of two, at most [`crate::limits::BLOCK_BYTES_MAX`].
    fn block_bytes(&self) -> usize;

    /// Every segment's size.
    fn segment_bytes(&self) -> u64;

    /// The segments that exist, ascending. For start-up.
    fn segments(&self) -> Result<Vec<SegmentId>, DiskError>;

    /// Reads at once, blocking. For start-up.
    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// Blocks until everything that [`Disk::read_now`] can see is on stable storage, and says so. For start-up:
    /// what a dead process left in flight may be readable and yet not durable.
    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError>;

    /// Starts a write. Several may be under way, and finish in any order.
    fn write(&mut self, write: Write) -> Result<(), Full<Write>>;

    /// Starts a read.
    fn read(&mut self, read: Read) -> Result<(), Full<Read>>;

    /// Starts to make a segment, zeroed and durable, beside the hot path. Where the system has no room for it the disk
    /// says so, and tries again at intervals of its own until there is.
    fn prepare(&mut self, segment: SegmentId);

    /// Gives what has finished to `sink` and returns how many events that were. Never blocks.
    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize;
}

/// What a link has to say.
#[derive(Debug)]
pub enum LinkEvent<'a> {
    /// Frames can be sent to this peer.
    Up(NodeId),
    /// The connection has closed. `by_peer`: from its side, in order or by reset, so its process has most likely ended.
    Down {
        /// The peer.
        peer: NodeId,
        /// Whether the peer's system closed it.
        by_peer: bool,
    },
    /// A whole frame whose bounds and checksum hold; its length is at most [`crate::limits::FRAME_BYTES_MAX`].
    Frame {
        /// Who sent it.
        from: NodeId,
        /// All of it.
        bytes: &'a [u8],
    },
}

/// Frames to and from the same lane of every peer. May lose, double, reorder and delay them.
pub trait Link {
    /// Gives what has come to `sink`, a bounded amount, and returns how many events that were. Never blocks.
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize;

    /// Sends one frame, the parts in this order. On `Full` nothing of it was taken. A peer that is not connected
    /// loses the frame and that is no error: Raft repeats it.
    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>>;

    /// Starts what `send` has queued: once per turn, after its last frame.
    fn flush(&mut self) {}

    /// When it wants to be polled although nothing came: a reconnect that is due.
    fn next_wake(&self) -> Time;

    /// Whether a frame to this peer that was given between the poll at `given_at` and the next one is still on its way,
    /// as far as this end knows, and what was given later may have come before it. Never so where frames arrive in the
    /// order in which they were given.
    fn is_carrying(&self, _to: NodeId, _given_at: Time) -> bool {
        false
    }
}

/// One connection of a client, unique while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What a port has to say.
#[derive(Debug)]
pub enum PortEvent<'a> {
    /// A client has said hello and was found to belong here.
    Opened(ClientId),
    /// A whole frame, as with [`LinkEvent::Frame`].
    Frame {
        /// Who sent it.
        from: ClientId,
        /// All of it.
        bytes: &'a [u8],
    },
    /// One request that came without a frame, where its client has written it. Its memory is shared: see
    /// [`ring`].
    Request {
        /// Who asks.
        from: ClientId,
        /// Its row ([`crate::wire::client`]), read once.
        row: &'a [u8; 64],
        /// Its payload, in place.
        payload: &'a [u8],
    },
    /// It is gone; what it waits for has no one to be told.
    Closed(ClientId),
}

/// Whether a sink takes more in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// This one was taken; keep the rest for the next turn.
    Stop,
    /// This one, a [`PortEvent::Request`], was not taken: there is no room at this moment. Offer it again in the next
    /// turn.
    Again,
}

/// The clients of one lane.
pub trait Port {
    /// Gives what has come to `sink`, fairly over all clients, until it says [`Flow::Stop`]. Never blocks.
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(PortEvent<'_>) -> Flow) -> usize;

    /// Sends one frame. A client that lets more than [`crate::limits::CLIENT_OUTGOING_BYTES_MAX`] wait is dropped.
    fn send(&mut self, to: ClientId, parts: &[&[u8]]);

    /// Drops a client that broke the protocol, after a line in the log that says how.
    fn close(&mut self, client: ClientId, why: &str);

    /// The lane is about to block: whoever can wake it is told that it must. False: something has come meanwhile, and
    /// the lane must not block. The next [`Port::poll`] ends it.
    fn before_park(&mut self) -> bool {
        true
    }
}

/// The one place where a lane blocks.
pub trait Park {
    /// Collects what is ready without blocking, before disk, link and port are polled.
    fn poll(&mut self);

    /// As [`Park::poll`], in each turn of a lane: what costs a system call and has just brought nothing may be left out
    /// for a moment.
    fn glance(&mut self, now: Time) {
        let _ = now;
        self.poll();
    }

    /// Starts what was queued (disk writes) without waiting for it.
    fn kick(&mut self);

    /// Blocks until something is ready or `timeout` is over.
    fn park(&mut self, timeout: Duration);

    /// Between two turns of a lane that spins on a core that it shares: lets whoever else wants the core have it, and
    /// returns at once if nobody does.
    fn yield_core(&mut self) {}
}
