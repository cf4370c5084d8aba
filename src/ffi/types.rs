//! What goes over the ABI by value, and the callbacks' types.

use core::ffi::{c_char, c_void};

use super::Status;
use crate::client::Record;
use crate::client::ring::StreamRole;
use crate::types;
use crate::wire::client::Outcome;

/// When a submit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Acks {
    /// As soon as the leader has taken it: may be lost with the leader.
    None = 0,
    /// When it is durable on the leader's disk.
    Leader = 1,
    /// When it is durable on a quorum: survives whatever a quorum survives.
    Quorum = 2,
}

/// What the node is in a stream's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It follows.
    Follower = 0,
    /// It asks whether it could be elected.
    PreCandidate = 1,
    /// It stands for election.
    Candidate = 2,
    /// It leads.
    Leader = 3,
    /// Nobody knows: the node is gone, or has not told yet. plimsoll_stream_reattach when it runs again.
    Detached = 4,
    /// The node does not tell this stream of roles, epochs and watermarks, while all else works: engine.streams is off
    /// in its configuration, or it tells 64 streams of this shard already. It is asked once per attachment: in the
    /// latter case close one that is told, then close this one and open it again.
    Untold = 5,
}

/// The engine's epoch and commit timestamp: a place in the order of all streams, the epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stamp {
    /// The timestamp: 1 to UINT64_MAX - 1 in a stream's records.
    pub timestamp: u64,
    /// The epoch.
    pub epoch: u32,
    /// 0.
    pub reserved: u32,
}

/// How far a registered stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StreamStamp {
    /// The stamp of the last record of its committed prefix.
    pub stamp: Stamp,
    /// The stream: its shard.
    pub shard: u32,
    /// 0.
    pub reserved: u32,
}

/// The end of a request. What its status does not use is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Completion {
    /// What plimsoll_submit, or whatever asked, has given.
    pub request: u64,
    /// PLIMSOLL_COMMITTED: the entry's term.
    pub term: u64,
    /// PLIMSOLL_COMMITTED: the entry's index, of a record in parts that of its last entry. PLIMSOLL_CONFIRMED: the
    /// index to read up to.
    pub index: u64,
    /// PLIMSOLL_COMMITTED: the timestamp as submitted. PLIMSOLL_BEHIND: what the stream has come to.
    /// PLIMSOLL_EPOCH_CLOSED: the epoch that takes records.
    pub stamp: Stamp,
    /// How it has ended.
    pub status: Status,
    /// PLIMSOLL_NOT_LEADER: the node that leads, as far as this one knows; 0: nobody known.
    pub leader: u32,
}

/// What the node is in a stream's shard, and whether the stream takes records there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Role {
    /// The node's term.
    pub term: u64,
    /// What it is.
    pub role: Kind,
    /// The node that leads, as far as it knows; 0: nobody known.
    pub leader: u32,
    /// The epoch that takes records.
    pub epoch: u32,
    /// The engine may begin transactions in the stream, with stamps beyond plimsoll_stream_stands_at: what it begins
    /// before that nobody knows of. This does not say that the node would take a record.
    pub open: bool,
    /// The epoch comes to its end: submit what was begun in it, then plimsoll_end_of_epoch.
    pub closing: bool,
    /// When this was told the node would have taken a record of this epoch with a stamp beyond the last one: it led,
    /// owed the epoch no cut, was not stopping nor handing over, and knew of no stream that has ended the epoch. It
    /// promises nothing of what comes after, and says nothing of room, nor of refused records that are to come again
    /// first: a submit may be refused all the same. It is not set while the epoch closes, although records of what was
    /// begun before are taken then.
    pub takes_records: bool,
}

/// A committed record of a stream, whole and checked.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Entry {
    /// The term.
    pub term: u64,
    /// The index: of a record in parts, that of its last entry.
    pub index: u64,
    /// The index of its first entry.
    pub first_index: u64,
    /// The stamp, as submitted.
    pub stamp: Stamp,
    /// Who submitted it.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
    /// The record. Valid until the callback returns.
    pub bytes: *const u8,
    /// How long it is.
    pub len: usize,
}

/// Who attaches, and how. Fill it with plimsoll_stream_options_init first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StreamOptions {
    /// The size of this structure, set by plimsoll_stream_options_init.
    pub size_bytes: usize,
    /// plimsoll_stream_connect: the cluster, as in the node's configuration. plimsoll_stream_open does not read it.
    pub cluster: *const c_char,
    /// Who submits, as its records will say; not 0. Attached once per shard at any time.
    pub session: u64,
    /// The first record's serial number; each has the next one. 1 unless set.
    pub first_serial: u64,
    /// The submit ring: a power of two from 256 KiB to 64 MiB. 4 MiB unless set.
    pub submit_ring_bytes: usize,
    /// The completion ring, likewise. Committed records come through it.
    pub completion_ring_bytes: usize,
    /// How long plimsoll_wait looks again and again before it sleeps. 20 unless set.
    pub spin_us: u32,
    /// The shard, which is the stream. 0 unless set.
    pub shard: u32,
}

/// Told of a request's end. Called by plimsoll_poll on its thread; the completion is valid until it returns. An
/// exception or longjmp that leaves a callback ends the process.
pub type CompletionCallback =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, completion: *const Completion)>;

/// Told of a watermark that has moved: up to this stamp everything is committed in every registered stream. It covers
/// what was stamped in its own epoch: once it has moved on to a later one, what is left of the epoch before may be
/// dead, and plimsoll_on_epoch_closed and plimsoll_stream_epoch_closed tell what lives. See
/// plimsoll_completion_callback for when.
pub type WatermarkCallback =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, watermark: *const Stamp)>;

/// Told that what lives of an epoch is settled: of the records with the epoch of `last` those with its timestamp or a
/// lesser one, and no other, everywhere and for ever; UINT64_MAX: all of them. Called once for each epoch, in their
/// order, and before the role with a later epoch. A node tells of the last 64 epochs. See plimsoll_completion_callback
/// for when.
pub type EpochClosedCallback = Option<unsafe extern "C-unwind" fn(context: *mut c_void, last: *const Stamp)>;

/// Told of a role that has changed. See plimsoll_completion_callback for when.
pub type RoleCallback = Option<unsafe extern "C-unwind" fn(context: *mut c_void, role: *const Role)>;

/// Given the committed records of the stream, each once, in the order of its log. See plimsoll_completion_callback for
/// when.
pub type EntryCallback = Option<unsafe extern "C-unwind" fn(context: *mut c_void, entry: *const Entry)>;

/// Given what a replica may replay, on the thread that calls plimsoll_replica_poll. The bytes are valid until it
/// returns.
pub type ReplayCallback = Option<
    unsafe extern "C-unwind" fn(
        context: *mut c_void,
        shard: u32,
        stamp: *const Stamp,
        bytes: *const u8,
        len: usize,
    ),
>;

impl From<types::Stamp> for Stamp {
    fn from(stamp: types::Stamp) -> Stamp {
        Stamp { timestamp: stamp.timestamp.0, epoch: stamp.epoch.0, reserved: 0 }
    }
}

impl Completion {
    pub(super) fn of(request: u64, outcome: &Outcome) -> Completion {
        let mut told = Completion { status: outcome.into(), ..Completion::confirmed(request, 0) };
        match *outcome {
            Outcome::Committed { id, timestamp } => {
                (told.term, told.index, told.stamp.timestamp) = (id.term.0, id.index.0, timestamp.0);
            }
            Outcome::NotLeader { leader } => told.leader = leader.map_or(0, |id| id.0),
            Outcome::Behind { last } => told.stamp = last.into(),
            Outcome::EpochClosed { open } => told.stamp.epoch = open.0,
            _ => {}
        }
        told
    }

    pub(super) fn confirmed(request: u64, index: u64) -> Completion {
        let status = Status::Confirmed;
        Completion { request, term: 0, index, stamp: Stamp::default(), status, leader: 0 }
    }
}

impl Role {
    /// Nothing is known but this.
    pub(super) const fn only(role: Kind) -> Role {
        Role { term: 0, role, leader: 0, epoch: 0, open: false, closing: false, takes_records: false }
    }
}

impl From<StreamRole> for Role {
    fn from(told: StreamRole) -> Role {
        let StreamRole { role, term, leader, epoch, open, takes_records, closing } = told;
        let role = match role {
            crate::raft::Role::Follower => Kind::Follower,
            crate::raft::Role::PreCandidate => Kind::PreCandidate,
            crate::raft::Role::Candidate => Kind::Candidate,
            crate::raft::Role::Leader => Kind::Leader,
        };
        let leader = leader.map_or(0, |id| id.0);
        Role { term: term.0, role, leader, epoch: epoch.0, open, closing, takes_records }
    }
}

impl From<Record<'_>> for Entry {
    fn from(record: Record<'_>) -> Entry {
        Entry {
            term: record.id.term.0,
            index: record.id.index.0,
            first_index: record.first.0,
            stamp: Stamp { timestamp: record.timestamp.0, epoch: record.epoch.0, reserved: 0 },
            session: record.session,
            serial: record.serial,
            bytes: record.payload.as_ptr(),
            len: record.payload.len(),
        }
    }
}
