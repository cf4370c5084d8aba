//! The row that says how a shard is. Drawn in [`super`].

use super::role::{role_code, role_of};
use super::{ReplyRow, entry, node};
use crate::raft::Role;
use crate::types::{EntryId, Index, NodeId, ShardId, Term};
use crate::wire::Malformed;
use crate::wire::frame::{self, check_place};

/// One shard on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// What the node is in it.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Its last entry.
    pub last: EntryId,
    /// What is committed.
    pub commit: Index,
    /// What is durable on the node's own disk.
    pub durable: Index,
    /// How often a leader was elected here or learnt of since the node started.
    pub elections: u32,
}

impl ShardStatus {
    pub(super) fn row(&self) -> ReplyRow {
        ReplyRow {
            code: role_code(self.role),
            extent: self.elections,
            term: self.term.0,
            index: self.last.index.0,
            stamp: self.last.term.0,
            commit: self.commit.0,
            durable: self.durable.0,
            shard: self.shard.0,
            leader: self.leader.map_or(0, |id| id.0),
            ..ReplyRow::default()
        }
    }

    pub(super) fn read(row: &ReplyRow) -> Result<ShardStatus, Malformed> {
        Ok(ShardStatus {
            shard: frame::check_shard(row.shard)?,
            role: role_of(row.code)?,
            term: Term(check_place("term", row.term)?),
            leader: node(row.leader),
            last: entry(row.stamp, row.index)?,
            commit: Index(check_place("commit", row.commit)?),
            durable: Index(check_place("durable", row.durable)?),
            elections: row.extent,
        })
    }
}
