//! [`Status`]: how a call, or what it asked for, has ended.

/// How a call, or a request, has ended. Of calls, 0 is success and what is negative an error, told by
/// plimsoll_last_error. What is positive is an outcome: of requests, in a plimsoll_completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done; a request was taken.
    Ok = 0,

    /// Outcome: it is in the log, as durable as was asked for.
    Committed = 1,
    /// Outcome of plimsoll_transfer: it has begun.
    Accepted = 2,
    /// Outcome of plimsoll_read_index: all that was acknowledged before it was asked is at or before `index`.
    Confirmed = 3,
    /// Outcome: not taken, this node does not lead the shard; `leader` says who does, if known.
    NotLeader = 10,
    /// Not taken, some bound was met: poll, and try again. Also answered by calls, when the ring is full.
    Busy = 11,
    /// Outcome: not taken, the log is full.
    LogFull = 12,
    /// Outcome: taken, but leadership or the node was lost before it was committed; it may survive or not.
    Unknown = 13,
    /// Outcome: not taken, the request makes no sense for this shard.
    Invalid = 14,
    /// Outcome: not taken, the node is stopping.
    Stopping = 15,
    /// Outcome: not taken, the stream has come to `stamp` already, and stamps grow along a stream.
    Behind = 16,
    /// Outcome: not taken, no such stream is registered.
    Unregistered = 17,
    /// Outcome: not taken, the stamp's epoch takes no records; `stamp.epoch` is the one that does, or will.
    EpochClosed = 18,

    /// plimsoll_wait, plimsoll_replica_wait: the time is over, and there is nothing to poll.
    TimedOut = -1,
    /// A pointer that may not be null is null.
    NullArgument = -2,
    /// A number is none of those that are allowed.
    BadArgument = -3,
    /// A string is not UTF-8.
    BadUtf8 = -4,
    /// A record is empty or too long, or a structure has another size than in this library.
    Size = -5,
    /// The array is too small; the count says how much there is.
    TooSmall = -6,
    /// Nothing was reserved, so nothing can be published.
    NotReserved = -7,
    /// A reservation is open: publish or abandon it first.
    Reserved = -8,
    /// The handle is in use: by another thread, or by the call that called this callback.
    Reentered = -9,
    /// The stream is followed already; from where, cannot be changed.
    Followed = -10,
    /// plimsoll_wait, plimsoll_replica_wait: plimsoll_wake was called.
    Woken = -11,

    /// The attachment has ended, and everything was told: plimsoll_stream_reattach, when the node runs again.
    Ended = -20,
    /// The node refuses: it is of another cluster.
    RefusedCluster = -21,
    /// The node refuses: there is no such shard.
    RefusedShard = -22,
    /// The node refuses: the session is attached to this shard already.
    RefusedHeld = -23,
    /// The node refuses: a ring's size is no power of two from 256 KiB to 64 MiB.
    RefusedSizes = -24,
    /// The node refuses: session 0 names nobody.
    RefusedSession = -25,
    /// The node refuses: it is stopping.
    RefusedStopping = -26,
    /// The node refuses: its system gives it no memory.
    RefusedSystem = -27,
    /// The node refuses: it speaks another version.
    RefusedVersion = -28,
    /// The node cannot be reached at its socket.
    Unreachable = -29,

    /// The configuration is not sound, or cannot be read.
    Config = -40,
    /// An address cannot be listened on.
    Listen = -41,
    /// Engines cannot be let in at engine.socket.
    Socket = -42,
    /// The data directory is held by another process.
    DataHeld = -43,
    /// The data directory is somebody else's.
    DataForeign = -44,
    /// The data directory cannot be used.
    DataDir = -45,
    /// A lane had a log, and has none any more.
    LogLost = -46,
    /// A lane's log does not open.
    Log = -47,
    /// A block device cannot be used.
    Device = -48,
    /// A block device holds something else than this node's log.
    DeviceForeign = -49,
    /// A lane cannot be set up.
    Lane = -50,
    /// The disk of a lane has failed, and the node has stopped. What was acknowledged stands.
    DiskFailed = -51,
    /// engine.streams is off in the node's configuration, so there are no watermarks.
    NoStreams = -52,

    /// The node answers what no node answers: verify its log.
    Corrupt = -60,
    /// A defect in Plimsoll was caught. The handle in which it happened answers nothing else any more; close it,
    /// but not from a callback of it.
    Panicked = -70,
}
