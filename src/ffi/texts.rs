//! What each [`Status`] says, and which one stands for which error of the crate.

use core::ffi::CStr;

use super::Status;
use super::barrier::Failure;
use crate::client::ring::{RingError, WrongAnswer};
use crate::node::{AttachError, NodeError, StartError};
use crate::wire::attach::Refusal;
use crate::wire::client::Outcome;

/// What each means, in a few words.
const TEXTS: &[(Status, &CStr)] = &[
    (Status::Ok, c"done"),
    (Status::Committed, c"committed"),
    (Status::Accepted, c"accepted: the transfer has begun"),
    (Status::Confirmed, c"confirmed: the index to read up to"),
    (Status::NotLeader, c"not taken: this node does not lead the shard"),
    (Status::Busy, c"not taken: a bound was met; poll, and try again"),
    (Status::LogFull, c"not taken: the log is full"),
    (Status::Unknown, c"unknown: taken, but leadership or the node was lost before it was committed"),
    (Status::Invalid, c"not taken: it makes no sense for this shard"),
    (Status::Stopping, c"not taken: the node is stopping"),
    (Status::Behind, c"not taken: the stream has come to this stamp already"),
    (Status::Unregistered, c"not taken: no such stream is registered"),
    (Status::EpochClosed, c"not taken: the stamp's epoch takes no records"),
    (Status::TimedOut, c"the time is over, and there is nothing to poll"),
    (Status::NullArgument, c"a pointer that may not be null is null"),
    (Status::BadArgument, c"a number is none of those that are allowed"),
    (Status::BadUtf8, c"a string is not UTF-8"),
    (Status::Size, c"a size is not allowed here"),
    (Status::TooSmall, c"the array is too small"),
    (Status::NotReserved, c"nothing is reserved"),
    (Status::Reserved, c"a reservation is open: publish or abandon it first"),
    (Status::Reentered, c"the handle is in use: by another thread, or by who called this callback"),
    (Status::Followed, c"the stream is followed already"),
    (Status::Woken, c"woken by plimsoll_wake"),
    (Status::Ended, c"the attachment has ended: attach again when the node runs"),
    (Status::RefusedCluster, c"refused: the node is of another cluster"),
    (Status::RefusedShard, c"refused: there is no such shard"),
    (Status::RefusedHeld, c"refused: the session is attached to the shard already"),
    (Status::RefusedSizes, c"refused: a ring's size is a power of two from 256 KiB to 64 MiB"),
    (Status::RefusedSession, c"refused: session 0 names nobody"),
    (Status::RefusedStopping, c"refused: the node is stopping"),
    (Status::RefusedSystem, c"refused: the node's system gives it no memory"),
    (Status::RefusedVersion, c"refused: the node speaks another version"),
    (Status::Unreachable, c"the node cannot be reached at its socket"),
    (Status::Config, c"the configuration is not sound, or cannot be read"),
    (Status::Listen, c"an address cannot be listened on"),
    (Status::Socket, c"engines cannot be let in at engine.socket"),
    (Status::DataHeld, c"the data directory is held by another process"),
    (Status::DataForeign, c"the data directory is somebody else's"),
    (Status::DataDir, c"the data directory cannot be used"),
    (Status::LogLost, c"a lane had a log, and has none any more"),
    (Status::Log, c"a lane's log does not open"),
    (Status::Device, c"a block device cannot be used"),
    (Status::DeviceForeign, c"a block device holds something else than this node's log"),
    (Status::Lane, c"a lane cannot be set up"),
    (Status::DiskFailed, c"the disk of a lane has failed, and the node has stopped"),
    (Status::NoStreams, c"engine.streams is off in the node's configuration"),
    (Status::Corrupt, c"the node answers what no node answers: verify its log"),
    (Status::Panicked, c"a defect in Plimsoll was caught; close the handle"),
];

/// What is said of a number that is none.
pub(super) const NO_STATUS: &CStr = c"no status of Plimsoll";

/// The text of a number, if it is a status.
pub(super) fn text_of(status: i32) -> Option<&'static CStr> {
    TEXTS.iter().find(|(known, _)| *known as i32 == status).map(|(_, text)| *text)
}

impl From<&Outcome> for Status {
    fn from(outcome: &Outcome) -> Status {
        match outcome {
            Outcome::Committed { .. } => Status::Committed,
            Outcome::NotLeader { .. } => Status::NotLeader,
            Outcome::Busy => Status::Busy,
            Outcome::LogFull => Status::LogFull,
            Outcome::Unknown => Status::Unknown,
            Outcome::Invalid => Status::Invalid,
            Outcome::Stopping => Status::Stopping,
            Outcome::Accepted => Status::Accepted,
            Outcome::Behind { .. } => Status::Behind,
            Outcome::Unregistered => Status::Unregistered,
            Outcome::EpochClosed { .. } => Status::EpochClosed,
        }
    }
}

impl From<RingError> for Failure {
    #[cold]
    fn from(error: RingError) -> Failure {
        let status = match error {
            // What every engine meets when it is fast: no text is made for it.
            RingError::Busy => return Failure::new(Status::Busy),
            RingError::Size { .. } => Status::Size,
            RingError::Ended(_) => Status::Ended,
        };
        Failure::told(status, &error)
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Failure {
        let status = match &error {
            AttachError::Refused(refusal) => match refusal {
                Refusal::Cluster { .. } => Status::RefusedCluster,
                Refusal::Shard { .. } => Status::RefusedShard,
                Refusal::Held => Status::RefusedHeld,
                Refusal::Sizes => Status::RefusedSizes,
                Refusal::Session => Status::RefusedSession,
                Refusal::Stopping => Status::RefusedStopping,
                Refusal::System => Status::RefusedSystem,
                Refusal::Version => Status::RefusedVersion,
            },
            AttachError::System { .. } => Status::Unreachable,
        };
        Failure::told(status, &error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        let status = match &error {
            StartError::Config(_) => Status::Config,
            StartError::Listen { .. } => Status::Listen,
            StartError::Socket { .. } => Status::Socket,
            StartError::Held { .. } => Status::DataHeld,
            StartError::Foreign { .. } => Status::DataForeign,
            StartError::LogLost { .. } => Status::LogLost,
            StartError::DataDir { .. } => Status::DataDir,
            StartError::Device { .. } => Status::Device,
            StartError::DeviceHolds { .. } => Status::DeviceForeign,
            StartError::Log { .. } => Status::Log,
            StartError::Lane { .. } => Status::Lane,
        };
        Failure::told(status, &error)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        let status = match &error {
            NodeError::Disk { .. } => Status::DiskFailed,
            NodeError::Panicked { .. } => Status::Panicked,
        };
        Failure::told(status, &error)
    }
}

impl From<WrongAnswer> for Failure {
    fn from(error: WrongAnswer) -> Failure {
        Failure::told(Status::Corrupt, &error)
    }
}
