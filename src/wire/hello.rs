//! What two ends tell each other before anything else.

use super::Malformed;
use crate::types::{ClusterId, LaneId, NodeId, StoreId};

/// Who opened a connection, and where it believes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster.
    pub cluster: ClusterId,
    /// A peer's node id; `None` for a client.
    pub node: Option<NodeId>,
    /// The life of the peer's data directory; 0 for a client.
    pub store: StoreId,
    /// The lane that is asked for.
    pub lane: LaneId,
    /// How many lanes the cluster has; 0: a client that does not know yet.
    pub lanes: u16,
}

/// Why a hello is refused. The refused end gets it too, and says it to its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another cluster.
    Cluster { expected: ClusterId, found: ClusterId },
    /// Another number of lanes.
    Lanes { expected: u16, found: u16 },
    /// Another lane than the one that listens here.
    Lane { expected: LaneId, found: LaneId },
    /// A node that is no member, or that is this one.
    Node { found: NodeId },
    /// The peer came before with another data directory: it lost its log.
    Store { expected: StoreId, found: StoreId },
    /// As many clients as a lane serves are here already.
    Crowded,
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
pub enum Greeting {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Refusal`].
    Refusal(Refusal),
}

impl Greeting {
    /// Reads one.
    pub fn decode(frame: &[u8]) -> Result<Greeting, Malformed> {
        unimplemented!()
    }
    /// The whole frame.
    pub fn encode(&self) -> [u8; 96] {
        unimplemented!()
    }
}
