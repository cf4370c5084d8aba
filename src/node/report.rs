//! What a node tells its operator: one line per event on standard error, with the time since the node started.

use core::fmt;

use crate::io::DiskError;
pub(super) use crate::io::link::line;
use crate::raft::{Change, Role};
use crate::shard::Observer;
use crate::types::{LaneId, NodeId, ShardId};

/// Tells the operator of elections and of peers that send what they should not.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) node: NodeId,
    pub(super) lane: LaneId,
    /// How many malformed frames were told; beyond [`MALFORMED_LINES_MAX`] they are only counted.
    pub(super) malformed: u64,
}

/// A peer that sends nothing but garbage must not fill the operator's disk.
const MALFORMED_LINES_MAX: u64 = 100;

impl Observer for Lines {
    fn changed(&mut self, shard: ShardId, change: Change) {
        let node = self.node;
        match (change.role, change.leader) {
            (Role::Leader, _) => line(format_args!("shard {shard}: node {node} leads term {}", change.term)),
            (Role::Follower, Some(leader)) => {
                line(format_args!(
                    "shard {shard}: node {node} follows node {leader} in term {}",
                    change.term
                ));
            }
            (Role::Follower, None) => {
                line(format_args!("shard {shard}: node {node} knows no leader in term {}", change.term));
            }
            (Role::PreCandidate, _) => {
                line(format_args!(
                    "shard {shard}: node {node} asks whether it could lead after term {}",
                    change.term
                ));
            }
            (Role::Candidate, _) => {
                line(format_args!("shard {shard}: node {node} stands for election in term {}", change.term));
            }
        }
    }

    fn space(&mut self, refused: Option<&DiskError>) {
        let lane = self.lane;
        match refused {
            Some(error) => line(format_args!(
                "lane {lane}: no room for the next segment of the log: {error}. It is tried again every second; when \
                 what is there is full, submits are refused"
            )),
            None => line(format_args!("lane {lane}: there is room again for segments of the log")),
        }
    }

    fn malformed(&mut self, peer: NodeId, what: &dyn fmt::Display) {
        self.malformed += 1;
        if self.malformed <= MALFORMED_LINES_MAX {
            line(format_args!("lane {}: dropped a frame of node {peer}: {what}", self.lane));
        }
    }
}
