//! A lane: its shards, their one log, and the loop that drives them.
//!
//! Read [`turn`] first: it is the way that data takes, one step after another. The other files are those steps:
//! `ingress` takes requests in, `parts` puts long records together, `peers` takes Raft messages in and carries out what
//! the protocol wants, `outbox` coalesces what goes to each peer, `apply` ends what commits, `clients` coalesces what
//! goes to each client, `reads` serves the committed log, `streams` follows what an engine needs to know of it, `drain`
//! stops in good order. `figures` is what an operator may know of it all.
//!
//! The lane knows the world only through [`World`], so the simulator runs the very same code.

mod apply;
mod clients;
mod drain;
pub mod figures;
mod ingress;
mod outbox;
mod parts;
mod peers;
mod pending;
mod reads;
mod streams;
#[cfg(test)]
mod tests;
pub mod turn;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub use self::drain::{DRAIN_BOUND, Drained};
use self::parts::Large;
use self::pending::Pending;
use self::reads::{AskedIndex, WaitingRead};
pub use self::turn::{Lane, Stopped, Turn};
use crate::io::{Clock, Disk, DiskError, Link, Park, Port};
use crate::log::{LogEvent, RecoveredShard};
use crate::raft::{Change, Effects, Message, Raft, ReadId};
use crate::types::{Index, LaneId, NodeId, ShardId, Time};

/// Everything that a lane needs of the world, as one type parameter.
pub trait World {
    /// Where the log lies.
    type Disk: Disk;
    /// The way to the peers.
    type Link: Link;
    /// The way to the clients.
    type Port: Port;
    /// The time.
    type Clock: Clock;
    /// Where to block.
    type Park: Park;
    /// Who is told what happens.
    type Observer: Observer;
}

/// Told of what operators and tests want to know. Called on the lane's thread: be quick.
pub trait Observer {
    /// A shard's role, term or leader has changed on this node.
    fn changed(&mut self, shard: ShardId, change: Change) {
        let _ = (shard, change);
    }

    /// A shard's committed prefix has grown to `commit` on this node.
    fn committed(&mut self, shard: ShardId, commit: Index) {
        let _ = (shard, commit);
    }

    /// The filesystem has no room for the log's next segment, as `refused` says; `None`: that is over.
    fn space(&mut self, refused: Option<&DiskError>) {
        let _ = refused;
    }

    /// A peer's frame was dropped because of what it held.
    fn malformed(&mut self, peer: NodeId, what: &dyn core::fmt::Display) {
        let _ = (peer, what);
    }
}

/// What a lane is told when it is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// All voters of all shards, this node among them.
    pub voters: Vec<NodeId>,
    /// This lane.
    pub lane: LaneId,
    /// See [`crate::raft::Options::election_timeout`].
    pub election_timeout: core::time::Duration,
    /// See [`crate::raft::Options::heartbeat`].
    pub heartbeat: core::time::Duration,
    /// See [`crate::raft::Options::commit_notice`].
    pub commit_notice: core::time::Duration,
    /// Where random timeouts come from; differs from node to node.
    pub seed: u64,
    /// How long a turn that found nothing is repeated before the lane blocks.
    pub spin: core::time::Duration,
    /// Never block.
    pub busy_poll: bool,
    /// How long a stream's engine is given to end an epoch that is cut short elsewhere.
    pub epoch_grace: core::time::Duration,
    /// Others run on this core: a lane that spins offers it to them between two turns.
    pub shares_core: bool,
}

/// One Raft group as its lane sees it.
struct Shard {
    id: ShardId,
    raft: Raft,
    /// Submits that wait for a quorum, ascending by index.
    on_commit: VecDeque<Pending>,
    /// Submits that wait for this node's own disk, ascending by index.
    on_durable: VecDeque<Pending>,
    /// What of this shard's log is on this node's disk.
    durable: Index,
    /// Up to where submits and reads have been told of commits.
    applied: Index,
    /// A record in parts that is being laid, with more parts to come in later turns.
    large: Option<Large>,
    /// Reads that wait for a commit or for the disk.
    reads: Vec<WaitingRead>,
    /// Questions for an index to read at.
    asked_index: VecDeque<AskedIndex>,
    /// What the log tells of the engine's stream.
    stream: streams::Stream,
    /// Leaders that were elected here or learnt of.
    elections: u32,
    /// Something happened in this turn, so there may be something to replicate or to apply.
    touched: bool,
}

impl Shard {
    fn new(options: &Options, recovered: RecoveredShard, now: Time) -> Shard {
        let RecoveredShard { shard, vote, last, terms } = recovered;
        let raft = Raft::new(
            crate::raft::Options {
                id: options.node,
                voters: options.voters.clone(),
                election_timeout: options.election_timeout,
                heartbeat: options.heartbeat,
                commit_notice: options.commit_notice,
                // Shards of one node must not stand for election in step, nor must nodes of one shard.
                seed: options.seed ^ (u64::from(shard.0) << 32) ^ (u64::from(options.node.0) << 8),
            },
            crate::raft::Recovered { vote, last, terms },
            now,
        );
        Shard {
            id: shard,
            raft,
            on_commit: VecDeque::with_capacity(1024),
            on_durable: VecDeque::new(),
            durable: last.get().index,
            applied: Index::ZERO,
            large: None,
            reads: Vec::new(),
            asked_index: VecDeque::new(),
            stream: streams::Stream::default(),
            elections: 0,
            touched: true,
        }
    }

    fn pending(&self) -> usize {
        self.on_commit.len() + self.on_durable.len()
    }
}

/// What a lane owns beside the world's ways in and out: the state that every step of a turn works on.
struct Groups<W: World> {
    log: crate::log::Log<W::Disk>,
    observer: W::Observer,
    /// Ascending by id; the shards of a lane are `lane, lane + lanes, lane + 2 lanes …`.
    shards: Vec<Shard>,
    options: Options,
    outbox: outbox::Outbox,
    clients: clients::Clients,
    ingress: ingress::Ingress,
    drain: drain::Drain,
    /// `None`: the cluster serves no engine.
    streams: Option<streams::Streams>,
    /// Refusals that came in this turn: what they mean the link knows, which is busy while it hands them over.
    refusals: Vec<(NodeId, ShardId, Message)>,
    /// Reused by every step.
    effects: Effects,
    /// Reused by every turn.
    log_events: Vec<LogEvent>,
    /// The first time at which any shard wants a tick.
    next_tick: Time,
    /// The name that was last given to a question for an index to read at.
    last_read: ReadId,
    /// When submits that still wait after leadership was lost are answered as unknown.
    unknown_at: Time,
}

impl<W: World> Groups<W> {
    /// Where a shard stands in `shards`.
    fn position(&self, shard: ShardId) -> Option<usize> {
        self.shards.binary_search_by_key(&shard, |shard| shard.id).ok()
    }
}
