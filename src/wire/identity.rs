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

    /// Which peer's hello it is, if it is a peer's and meant for this node. Whether that one is a member, and dials,
    /// and has the data directory that it came with before, is for the caller and for [`check_store`].
    pub fn check_peer(&self, hello: &Hello) -> Result<NodeId, Refusal> {
        self.check(hello)?;
        match hello.to {
            Some(found) if found != self.node => Err(Refusal::Meant { expected: self.node, found }),
            _ => Ok(hello.node.unwrap_or_default()),
        }
    }

    /// Whether a welcome is what `peer` would answer, but for its data directory.
    pub fn check_welcome(&self, peer: NodeId, welcome: &Welcome) -> Result<(), Refusal> {
        if welcome.node != peer {
            return Err(Refusal::Node { found: welcome.node });
        }
        if welcome.lanes != self.lanes {
            return Err(Refusal::Lanes { expected: self.lanes, found: welcome.lanes });
        }
        if welcome.lane != self.lane {
            return Err(Refusal::Lane { expected: self.lane, found: welcome.lane });
        }
        Ok(())
    }
}

/// Whether a peer comes with the data directory that it came with before, if it ever came: one that lost its log has
/// forgotten what it promised, and over no link may it come back under its old name.
pub fn check_store(known: Option<StoreId>, found: StoreId) -> Result<(), Refusal> {
    match known {
        Some(expected) if expected != found => Err(Refusal::Store { expected, found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u32) -> Identity {
        Identity {
            cluster: ClusterId(9),
            node: NodeId(node),
            store: StoreId(node.into()),
            lane: LaneId(1),
            lanes: 2,
            shards: 4,
        }
    }

    #[test]
    fn a_hello_is_taken_from_a_peer_that_means_this_node_in_this_lane() {
        let here = identity(2);
        let good = identity(1).hello(NodeId(2));
        assert_eq!(here.check_peer(&good), Ok(NodeId(1)));
        let (cluster, lane) = (ClusterId(8), LaneId(0));
        for (hello, refusal) in [
            (Hello { cluster, ..good }, Refusal::Cluster { expected: here.cluster, found: cluster }),
            (Hello { lanes: 3, ..good }, Refusal::Lanes { expected: 2, found: 3 }),
            (Hello { lane, ..good }, Refusal::Lane { expected: here.lane, found: lane }),
            (Hello { to: Some(NodeId(3)), ..good }, Refusal::Meant { expected: NodeId(2), found: NodeId(3) }),
        ] {
            assert_eq!(here.check_peer(&hello), Err(refusal));
        }
    }

    #[test]
    fn a_welcome_is_taken_from_whom_it_was_asked_of() {
        let here = identity(1);
        let good = identity(2).welcome();
        assert_eq!(here.check_welcome(NodeId(2), &good), Ok(()));
        assert_eq!(here.check_welcome(NodeId(3), &good), Err(Refusal::Node { found: NodeId(2) }));
        let other = Welcome { lanes: 3, ..good };
        assert_eq!(here.check_welcome(NodeId(2), &other), Err(Refusal::Lanes { expected: 2, found: 3 }));
        let other = Welcome { lane: LaneId(0), ..good };
        let refusal = Refusal::Lane { expected: LaneId(1), found: LaneId(0) };
        assert_eq!(here.check_welcome(NodeId(2), &other), Err(refusal));
    }

    #[test]
    fn a_peer_keeps_the_data_directory_that_it_first_came_with() {
        assert_eq!(check_store(None, StoreId(5)), Ok(()));
        assert_eq!(check_store(Some(StoreId(5)), StoreId(5)), Ok(()));
        let refusal = Refusal::Store { expected: StoreId(5), found: StoreId(6) };
        assert_eq!(check_store(Some(StoreId(5)), StoreId(6)), Err(refusal));
    }
}
