//! What the threads of a process share, and tell each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Instant;

use plimsoll::types::{Epoch, NodeId, Stamp};

use crate::clock::Clock;
use crate::tables::Tables;

/// The time in which this process runs transactions: in one epoch, as the leader of all streams.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) epoch: Epoch,
    pub(crate) tables: Tables,
    pub(crate) clock: Clock,
    /// Nothing is begun any more; what was begun is submitted.
    pub(crate) over: AtomicBool,
}

/// For as long as the process lives.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    /// Who leads shard 0, and so is to lead all; 0: nobody knows.
    pub(crate) home: AtomicU32,
    /// A worker, from 1, and whom it is to give its stream to, in the lower half: though it serves. 0: nobody.
    pub(crate) give: AtomicU64,
    /// Begin no transactions.
    pub(crate) quiet: AtomicBool,
    /// End.
    pub(crate) stop: AtomicBool,
    pub(crate) counts: Counts,
}

/// In transactions, since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Executed: visible to others, and not yet to the client.
    pub(crate) begun: AtomicU64,
    /// Executed again, because something read was overwritten meanwhile.
    pub(crate) repeated: AtomicU64,
    /// The client has its reply.
    pub(crate) released: AtomicU64,
    /// The client was told that it has not happened.
    pub(crate) died: AtomicU64,
}

/// A reply that waits for the watermark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) stamp: u64,
    /// When the client came with it: an open loop does not wait for the engine.
    pub(crate) due: Instant,
}

/// That a stream's leader takes records of this process, beyond a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready(pub(crate) Stamp);

/// What a worker tells the process.
#[derive(Debug)]
pub(crate) enum Told {
    /// It could serve; or can not any more.
    Ready(usize, Option<Ready>),
    /// Up to where everything is committed in all streams.
    Watermark(Stamp),
    /// It has left the tenure of this epoch; these replies still wait.
    Left(Epoch, VecDeque<Reply>),
    /// It begins no transactions any more, as it was ordered.
    Quiet,
    Failed(String),
}

/// What a worker is given.
pub(crate) type Order = Arc<Tenure>;
