//! What a client is told, what it tells, and how it fails.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;

use crate::limits::RECORD_BYTES_MAX;
use crate::node::config::{Config, lane_address};
use crate::types::{Acks, ClusterId, EntryId, Epoch, LaneId, NodeId, ShardId, Stamp, Timestamp};

/// What a client is told. Made by [`Options::new`] or [`Options::from_config`]; every field may be changed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster; a node of another one refuses.
    pub cluster: ClusterId,
    /// The nodes, each with the address at which clients reach its lane 0.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// The cluster's lanes; 0: learnt from the first node that answers.
    pub lanes: u16,
    /// How long a submit may take, the search for a leader included, before it is given up.
    pub deadline: Duration,
    /// How long one node may take to accept a connection and to greet.
    pub connect_timeout: Duration,
    /// The most submits that may be without an outcome that was taken from [`super::Client::poll`].
    pub outstanding_max: usize,
    /// The most bytes of records of those. A record longer than this is refused.
    pub outstanding_bytes_max: usize,
    /// How long [`super::Client::poll`] looks again and again before it blocks.
    pub spin: Duration,
    /// When a submit of a shard ends as anything but committed, what was submitted after it to the same shard and not
    /// sent yet ends as [`Outcome::Withdrawn`] instead of being sent.
    pub strict_order: bool,
}

/// One record to be made durable.
#[derive(Clone, Copy, Debug)]
pub struct Submit<'a> {
    /// For which shard.
    pub shard: ShardId,
    /// The record: 1 byte to [`RECORD_BYTES_MAX`].
    pub payload: &'a [u8],
    /// The engine's commit timestamp.
    pub timestamp: Timestamp,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// When it counts as committed.
    pub acks: Acks,
    /// Who submits; 0: nobody that cares about duplicates.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
}

/// Names a submit of one client in its completion. Later submits have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The one end of a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Of which submit.
    pub request: RequestId,
    /// For which shard it was.
    pub shard: ShardId,
    /// How it ended.
    pub outcome: Outcome,
    /// From [`super::Client::submit`] until the outcome was read off the connection.
    pub latency: Duration,
}

/// How a submit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, as durable as was asked for.
    Committed {
        /// Where: of a record in parts, its last entry.
        id: EntryId,
        /// As submitted.
        timestamp: Timestamp,
    },
    /// Not taken: no leader took it before the deadline, or a later submit of the shard was taken before it could be
    /// offered again, so that it could not be kept in order.
    NotLeader {
        /// Who leads, as far as was heard.
        leader: Option<NodeId>,
    },
    /// Not taken: the node met one of its bounds. Try again later.
    Busy,
    /// Not taken: the node's log is full.
    LogFull,
    /// Sent, and the connection or the leadership was lost before an answer: it may be in the log or not.
    Unknown,
    /// Sent, and not answered before the deadline: it may be in the log, now or later, or not.
    Deadline,
    /// Not taken: the node did not accept it as well-formed.
    Invalid,
    /// Not taken: the node is stopping. A submit is offered to another node instead.
    Stopping,
    /// Not taken: the stream has come to this stamp already.
    Behind {
        /// To which.
        last: Stamp,
    },
    /// Not taken: the stream is not registered, or has ended.
    Unregistered,
    /// Not taken: the stamp's epoch takes no records.
    EpochClosed {
        /// The one that does, or will when the end of the one before it is settled.
        open: Epoch,
    },
    /// Not sent: an earlier submit of its shard failed ([`Options::strict_order`]).
    Withdrawn,
}

/// Why a submit was not taken in. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// As many submits or bytes are outstanding as [`Options`] allows: poll first.
    Full,
    /// The record is empty, or longer than a record or than [`Options::outstanding_bytes_max`].
    Size {
        /// Its bytes.
        len_bytes: usize,
    },
    /// The cluster has no such shard.
    Shard {
        /// Which was asked for.
        shard: ShardId,
        /// How many there are, counted from 0.
        shards: u32,
    },
}

/// Why a question to a node was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No member has this id.
    NoSuchMember(NodeId),
    /// The cluster has no such shard.
    NoSuchShard {
        /// Which was asked for.
        shard: ShardId,
        /// How many there are, counted from 0.
        shards: u32,
    },
    /// Not one member could be reached; what each of them said.
    Nobody(String),
    /// The node could not be reached, or the connection was lost.
    Unreachable {
        /// Which.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// What happened.
        why: String,
    },
    /// The node did not answer in time.
    Timeout {
        /// Which.
        node: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// The node answered that it does not.
    Declined {
        /// Which.
        node: NodeId,
        /// What it said.
        outcome: Outcome,
    },
    /// The node sent what makes no sense; nothing of it is believed.
    Malformed {
        /// Which.
        node: NodeId,
        /// What was wrong.
        what: String,
    },
    /// The system refused a descriptor.
    System(String),
}

impl Options {
    /// With defaults: 10 s deadline, 2 s to connect, 4096 submits or 80 MiB outstanding, 50 us of spinning.
    pub fn new(cluster: ClusterId, members: Vec<(NodeId, SocketAddr)>) -> Options {
        Options {
            cluster,
            members,
            lanes: 0,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            outstanding_max: 4096,
            outstanding_bytes_max: RECORD_BYTES_MAX + (16 << 20),
            spin: Duration::from_micros(50),
            strict_order: false,
        }
    }

    /// For the cluster that a node's configuration describes.
    pub fn from_config(config: &Config) -> Options {
        let members = config.members.iter().map(|member| (member.node_id(), member.client)).collect();
        Options { lanes: config.lanes, ..Options::new(config.cluster_id(), members) }
    }

    pub(super) fn address(&self, member: usize, lane: LaneId) -> SocketAddr {
        lane_address(self.members[member].1, lane)
    }
}

impl<'a> Submit<'a> {
    /// A record without timestamp, epoch or session that waits for a quorum.
    pub fn new(shard: ShardId, payload: &'a [u8]) -> Submit<'a> {
        let (timestamp, epoch) = (Timestamp(0), Epoch(0));
        Submit { shard, payload, timestamp, epoch, acks: Acks::Quorum, session: 0, serial: 0 }
    }
}

impl Outcome {
    /// Whether the record may be in the log although it was not said to be committed.
    pub fn is_unknown(self) -> bool {
        matches!(self, Outcome::Unknown | Outcome::Deadline)
    }

    /// Whether it was said to be committed.
    pub fn is_committed(self) -> bool {
        matches!(self, Outcome::Committed { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Committed { id, .. } => write!(f, "committed at {id}"),
            Outcome::NotLeader { leader: Some(leader) } => write!(f, "not taken: node {leader} leads"),
            Outcome::NotLeader { leader: None } => write!(f, "not taken: no leader is known"),
            Outcome::Busy => write!(f, "not taken: the node is busy, try again"),
            Outcome::LogFull => {
                write!(f, "not taken: the log is full, raise log.capacity_mib or make room on its filesystem")
            }
            Outcome::Unknown => write!(f, "unknown: the leader was lost, read the log to see"),
            Outcome::Deadline => write!(f, "unknown: not answered before the deadline, read the log to see"),
            Outcome::Invalid => write!(
                f,
                "not taken: no such shard here, or the request's checksum, stamp or target is not valid"
            ),
            Outcome::Stopping => write!(f, "not taken: the node is stopping"),
            Outcome::Behind { last } => {
                write!(f, "not taken: the stream has come to {last} already, and stamps grow along a stream")
            }
            Outcome::Unregistered => write!(f, "not taken: the stream is not registered, or has ended"),
            Outcome::EpochClosed { open } => {
                write!(f, "not taken: the epoch takes no records; the open one is {open}, or will be")
            }
            Outcome::Withdrawn => write!(f, "not sent: an earlier submit failed"),
        }
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Full => write!(f, "too much is outstanding: take completions first"),
            SubmitError::Size { len_bytes } => {
                write!(
                    f,
                    "a record of {len_bytes} bytes: 1 to {RECORD_BYTES_MAX} and what may be outstanding are allowed"
                )
            }
            SubmitError::Shard { shard, shards } => no_such_shard(f, *shard, *shards),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoSuchMember(node) => write!(f, "node {node} is not among the members given"),
            ClientError::NoSuchShard { shard, shards } => no_such_shard(f, *shard, *shards),
            ClientError::Nobody(said) => {
                write!(f, "no node of the cluster answers: {said}; are they running?")
            }
            ClientError::Unreachable { node, address, why } => {
                write!(f, "node {node} at {address}: {why}; is it running and reachable from here?")
            }
            ClientError::Timeout { node, address } => {
                write!(f, "node {node} at {address} did not answer in time; look at its log")
            }
            ClientError::Declined { node, outcome } => write!(f, "node {node} declined: {outcome}"),
            ClientError::Malformed { node, what } => {
                write!(f, "node {node} sent what makes no sense: {what}; do both ends run the same version?")
            }
            ClientError::System(what) => write!(f, "the system refuses a descriptor: {what}"),
        }
    }
}

fn no_such_shard(f: &mut fmt::Formatter<'_>, shard: ShardId, shards: u32) -> fmt::Result {
    write!(f, "shard {shard} does not exist: the cluster has {shards}, counted from 0")
}

impl std::error::Error for SubmitError {}
impl std::error::Error for ClientError {}
