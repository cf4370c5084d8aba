//! Who one end of a link is: what it says in a greeting, and what it takes from others.

use super::hello::{Hello, Refusal, Welcome};
use crate::types::{ClusterId, LaneId, NodeId, StoreId};

/// Who this end is, on one lane.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The life of its data directory.
    pub store: StoreId,
    /// The lane.
    pub lane: LaneId,
    /// How many lanes the cluster has.
    pub lanes: u16,
    /// How many shards the cluster has.
    pub shards: u32,
}

impl Identity {
    /// What it says to the peer `to`.
    pub fn hello(&self, to: NodeId) -> Hello {
        let Identity { cluster, node, store, lane, lanes, .. } = *self;
        Hello { cluster, node: Some(node), store, to: Some(to), lane, lanes }
    }

    /// What it answers to a hello that is good.
    pub fn welcome(&self) -> Welcome {
        let Identity { node, store, lane, lanes, shards, .. } = *self;
        Welcome { node, store, lane, lanes, shards }
    }

    /// What is the same for peers and clients.
    pub fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.cluster != self.cluster {
            return Err(Refusal::Cluster { expected: self.cluster, found: hello.cluster });
        }
        let unknown = hello.lanes == 0 && hello.node.is_none();
        if hello.lanes != self.lanes && !unknown {
            return Err(Refusal::Lanes { expected: self.lanes, found: hello.lanes });
        }
        if hello.lane != self.lane {
            return Err(Refusal::Lane { expected: self.lane, found: hello.lane });
        }
        Ok(())
    }
}
