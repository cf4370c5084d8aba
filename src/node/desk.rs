//! [`Desk`]: where the threads of an engine attach to a node's lanes by rings. The same for an engine in the node's
//! process and for one that comes through the socket (`usher`).

use core::fmt;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::Config;
use crate::io::reactor::Waker;
use crate::io::ring::port::{Claim, Door, Presence};
use crate::io::ring::{self, EngineEnd, LaneEnd, Region, Sizes};
use crate::types::{ClusterId, ShardId};
use crate::wire::attach::Refusal;

/// Attaches threads to the lanes of one node. Cheap to clone; may outlive the node, and then refuses.
#[derive(Clone)]
pub struct Desk {
    doors: Arc<Vec<Door>>,
    cluster: ClusterId,
    shards: u32,
    claimed: Claimed,
}

type Claimed = Arc<Mutex<BTreeSet<(ShardId, u64)>>>;

/// What a thread of the node's own process gets.
#[derive(Debug)]
pub struct Seated {
    /// Its end of the rings.
    pub end: EngineEnd,
    /// Wakes the lane.
    pub waker: Waker,
    /// To be kept as long as it is attached.
    pub presence: Presence,
}

/// Why a thread is not attached.
#[derive(Debug)]
pub enum AttachError {
    /// The node refuses.
    Refused(Refusal),
    /// The node cannot be reached, or the system does not give what it takes.
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

/// Holds a session's place at a shard.
#[derive(Debug)]
struct Held {
    claimed: Claimed,
    key: (ShardId, u64),
}

impl Claim for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Desk {
    pub(super) fn new(config: &Config, doors: Vec<Door>) -> Desk {
        Desk {
            doors: Arc::new(doors),
            cluster: config.cluster_id(),
            shards: config.shards,
            claimed: Claimed::default(),
        }
    }

    /// At one lane, which has one shard.
    #[cfg(test)]
    pub(crate) fn at(door: Door, cluster: ClusterId) -> Desk {
        Desk { doors: Arc::new(vec![door]), cluster, shards: 1, claimed: Claimed::default() }
    }

    /// The cluster of its node.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// How many lanes its node has.
    pub(super) fn lanes(&self) -> usize {
        self.doors.len()
    }

    /// Attaches a thread of this process.
    pub fn attach(&self, shard: ShardId, session: u64, sizes: Sizes) -> Result<Seated, AttachError> {
        let held = self.claim(shard, session, sizes).map_err(AttachError::Refused)?;
        let (end, lane_end) = ring::pair(Region::allocate(sizes));
        let name = format!("session {session:#x} at shard {shard}, in this process");
        let presence = self.seat(shard, lane_end, name, held).map_err(AttachError::Refused)?;
        Ok(Seated { end, waker: self.door(shard).waker().clone(), presence })
    }

    /// Takes the session's place at the shard, if nobody has it.
    pub(super) fn claim(
        &self,
        shard: ShardId,
        session: u64,
        sizes: Sizes,
    ) -> Result<Box<dyn Claim>, Refusal> {
        if shard.0 >= self.shards {
            return Err(Refusal::Shard { shards: self.shards });
        }
        if session == 0 {
            return Err(Refusal::Session);
        }
        if !sizes.are_sound() {
            return Err(Refusal::Sizes);
        }
        let key = (shard, session);
        if !self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
            return Err(Refusal::Held);
        }
        Ok(Box::new(Held { claimed: Arc::clone(&self.claimed), key }))
    }

    pub(super) fn seat(
        &self,
        shard: ShardId,
        end: LaneEnd,
        name: String,
        held: Box<dyn Claim>,
    ) -> Result<Presence, Refusal> {
        self.door(shard).enter(end, name, held).ok_or(Refusal::Stopping)
    }

    pub(super) fn door(&self, shard: ShardId) -> &Door {
        &self.doors[usize::from(shard.lane(self.doors.len() as u16).0)]
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::Refused(refusal) => write!(f, "the node refuses the attachment: {refusal}"),
            AttachError::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for AttachError {}
