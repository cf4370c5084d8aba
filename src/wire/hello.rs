//! What two ends tell each other before anything else.
//!
//! Each is a frame of one row and no body, 96 bytes in all. What is not drawn is zero.
//!
//! ```text
//! hello     0 cluster   u64
//!           8 store     u64  0 for a client
//!          16 node      u32  0: a client
//!          20 lane      u16
//!          22 lanes     u16  0: a client that does not know yet
//!          24 to        u32  the node that is meant; 0 for a client, which takes whomever it reaches
//!
//! welcome   0 store     u64
//!           8 node      u32  never 0
//!          12 shards    u32  at least 1
//!          16 lane      u16  below lanes
//!          18 lanes     u16  at least 1
//!
//! refusal   0 reason    u8   1 cluster, 2 lanes, 3 lane, 4 node, 5 store, 6 crowded, 7 meant
//!           8 expected  u64  0 for node and crowded
//!          16 found     u64  0 for crowded
//! ```

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::Malformed;
use super::frame::{self, Kind};
use crate::limits::{LANES_MAX, SHARDS_MAX};
use crate::types::{ClusterId, LaneId, NodeId, StoreId};

/// The bytes of every greeting's frame.
pub const GREETING_BYTES: usize = crate::limits::FRAME_HEADER_BYTES + frame::ROW_BYTES;

/// Who opened a connection, and where it believes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster.
    pub cluster: ClusterId,
    /// A peer's node id; `None` for a client.
    pub node: Option<NodeId>,
    /// The life of the peer's data directory; 0 for a client.
    pub store: StoreId,
    /// The peer that is meant; `None` for a client.
    pub to: Option<NodeId>,
    /// The lane that is asked for.
    pub lane: LaneId,
    /// How many lanes the cluster has; 0: a client that does not know yet.
    pub lanes: u16,
}

/// Why a hello is refused. The refused end gets it too, and says it to its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another cluster.
    Cluster {
        /// That of the end that refuses.
        expected: ClusterId,
        /// That of the hello.
        found: ClusterId,
    },
    /// Another number of lanes.
    Lanes {
        /// That of the end that refuses.
        expected: u16,
        /// That of the hello.
        found: u16,
    },
    /// Another lane than the one that listens here.
    Lane {
        /// The one that listens.
        expected: LaneId,
        /// The one of the hello.
        found: LaneId,
    },
    /// A node that is no member, or that is this one.
    Node {
        /// That of the hello.
        found: NodeId,
    },
    /// The hello is meant for another node: addresses are mixed up.
    Meant {
        /// The node that refuses.
        expected: NodeId,
        /// The one that the hello is meant for.
        found: NodeId,
    },
    /// The peer came before with another data directory: it lost its log.
    Store {
        /// The one it came with before.
        expected: StoreId,
        /// The one it came with now.
        found: StoreId,
    },
    /// As many clients as a lane serves are here already.
    Crowded,
}

/// In words that are true at both ends: "here" is the end that refuses.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Cluster { expected, found } => {
                write!(
                    f,
                    "cluster {:#018x} was expected, hello is from cluster {:#018x}",
                    expected.0, found.0
                )
            }
            Refusal::Lanes { expected, found } => {
                write!(f, "a cluster of {expected} lanes was expected, hello tells of {found}")
            }
            Refusal::Lane { expected, found } => {
                write!(f, "this is the address of lane {expected}, hello asks for lane {found}")
            }
            Refusal::Node { found } => write!(f, "node {found} is not a peer here"),
            Refusal::Meant { expected, found } => {
                write!(f, "this is the address of node {expected}, hello is meant for node {found}")
            }
            Refusal::Store { expected, found } => write!(
                f,
                "data directory {:#018x} was expected, hello is from {:#018x}: the node has lost its log",
                expected.0, found.0
            ),
            Refusal::Crowded => write!(f, "as many clients as a lane serves are here already"),
        }
    }
}

/// The answer to a client's or a peer's hello: who it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The node that answered.
    pub node: NodeId,
    /// The life of its data directory.
    pub store: StoreId,
    /// The lane that answered.
    pub lane: LaneId,
    /// How many lanes the cluster has.
    pub lanes: u16,
    /// How many shards the cluster has.
    pub shards: u32,
}

/// A hello, a welcome or a refusal, off a whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Refusal`].
    Refusal(Refusal),
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HelloRow {
    cluster: u64,
    store: u64,
    node: u32,
    lane: u16,
    lanes: u16,
    to: u32,
    reserved: [u32; 9],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct WelcomeRow {
    store: u64,
    node: u32,
    shards: u32,
    lane: u16,
    lanes: u16,
    reserved: [u32; 11],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RefusalRow {
    reason: u64,
    expected: u64,
    found: u64,
    reserved: [u64; 5],
}

impl Greeting {
    /// Reads one.
    pub fn decode(frame: &[u8]) -> Result<Greeting, Malformed> {
        let (kind, table, body) = frame::open(frame)?;
        let [row] = table else { return Err(Malformed::Field("count")) };
        if !body.is_empty() {
            return Err(Malformed::Truncated);
        }
        let greeting = match kind {
            Kind::Hello => Greeting::Hello(Hello::from_row(row)?),
            Kind::Welcome => Greeting::Welcome(Welcome::from_row(row)?),
            Kind::Refusal => Greeting::Refusal(Refusal::from_row(row)?),
            Kind::Peer | Kind::Request | Kind::Reply | Kind::Aside => return Err(Malformed::Field("kind")),
        };
        if greeting.row() != *row {
            return Err(Malformed::Field("reserved"));
        }
        Ok(greeting)
    }

    /// The whole frame.
    pub fn encode(&self) -> [u8; 96] {
        let kind = match self {
            Greeting::Hello(_) => Kind::Hello,
            Greeting::Welcome(_) => Kind::Welcome,
            Greeting::Refusal(_) => Kind::Refusal,
        };
        frame::seal_row(kind, &self.row())
    }

    fn row(&self) -> [u8; 64] {
        match self {
            Greeting::Hello(hello) => hello.row(),
            Greeting::Welcome(welcome) => welcome.row(),
            Greeting::Refusal(refusal) => refusal.row(),
        }
    }
}

impl Hello {
    fn row(&self) -> [u8; 64] {
        bytemuck::cast(HelloRow {
            cluster: self.cluster.0,
            store: self.store.0,
            node: self.node.map_or(0, |node| node.0),
            lane: self.lane.0,
            lanes: self.lanes,
            to: self.to.map_or(0, |node| node.0),
            reserved: [0; 9],
        })
    }

    fn from_row(row: &[u8; 64]) -> Result<Hello, Malformed> {
        let row: HelloRow = bytemuck::pod_read_unaligned(row);
        let node = (row.node != 0).then_some(NodeId(row.node));
        if row.lanes > LANES_MAX || (row.lanes == 0 && node.is_some()) {
            return Err(Malformed::Field("lanes"));
        }
        let below = if row.lanes == 0 { LANES_MAX } else { row.lanes };
        if row.lane >= below {
            return Err(Malformed::Field("lane"));
        }
        if node.is_none() && row.store != 0 {
            return Err(Malformed::Field("store"));
        }
        let to = (row.to != 0).then_some(NodeId(row.to));
        if node.is_some() != to.is_some() {
            return Err(Malformed::Field("to"));
        }
        let (cluster, store) = (ClusterId(row.cluster), StoreId(row.store));
        Ok(Hello { cluster, node, store, to, lane: LaneId(row.lane), lanes: row.lanes })
    }
}

impl Welcome {
    fn row(&self) -> [u8; 64] {
        bytemuck::cast(WelcomeRow {
            store: self.store.0,
            node: self.node.0,
            shards: self.shards,
            lane: self.lane.0,
            lanes: self.lanes,
            reserved: [0; 11],
        })
    }

    fn from_row(row: &[u8; 64]) -> Result<Welcome, Malformed> {
        let row: WelcomeRow = bytemuck::pod_read_unaligned(row);
        if row.node == 0 {
            return Err(Malformed::Field("node"));
        }
        if !(1..=SHARDS_MAX).contains(&row.shards) {
            return Err(Malformed::Field("shards"));
        }
        if !(1..=LANES_MAX).contains(&row.lanes) {
            return Err(Malformed::Field("lanes"));
        }
        if row.lane >= row.lanes {
            return Err(Malformed::Field("lane"));
        }
        let (node, store) = (NodeId(row.node), StoreId(row.store));
        Ok(Welcome { node, store, lane: LaneId(row.lane), lanes: row.lanes, shards: row.shards })
    }
}

impl Refusal {
    fn row(&self) -> [u8; 64] {
        let (reason, expected, found) = match *self {
            Refusal::Cluster { expected, found } => (1, expected.0, found.0),
            Refusal::Lanes { expected, found } => (2, u64::from(expected), u64::from(found)),
            Refusal::Lane { expected, found } => (3, u64::from(expected.0), u64::from(found.0)),
            Refusal::Node { found } => (4, 0, u64::from(found.0)),
            Refusal::Store { expected, found } => (5, expected.0, found.0),
            Refusal::Crowded => (6, 0, 0),
            Refusal::Meant { expected, found } => (7, u64::from(expected.0), u64::from(found.0)),
        };
        bytemuck::cast(RefusalRow { reason, expected, found, reserved: [0; 5] })
    }

    fn from_row(row: &[u8; 64]) -> Result<Refusal, Malformed> {
        let RefusalRow { reason, expected, found, .. } = bytemuck::pod_read_unaligned(row);
        let narrow = |name, value: u64| u16::try_from(value).map_err(|_| Malformed::Field(name));
        let node = |name, value: u64| u32::try_from(value).map(NodeId).map_err(|_| Malformed::Field(name));
        Ok(match reason {
            1 => Refusal::Cluster { expected: ClusterId(expected), found: ClusterId(found) },
            2 => Refusal::Lanes { expected: narrow("expected", expected)?, found: narrow("found", found)? },
            3 => Refusal::Lane {
                expected: LaneId(narrow("expected", expected)?),
                found: LaneId(narrow("found", found)?),
            },
            4 => Refusal::Node { found: node("found", found)? },
            5 => Refusal::Store { expected: StoreId(expected), found: StoreId(found) },
            6 => Refusal::Crowded,
            7 => Refusal::Meant { expected: node("expected", expected)?, found: node("found", found)? },
            _ => return Err(Malformed::Field("reason")),
        })
    }
}
