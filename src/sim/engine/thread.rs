//! One thread of the engine: what it knows of its stream, and its clock.

use std::collections::VecDeque;

use crate::io::ClientId;
use crate::sim::random::Random;
use crate::types::{Epoch, Stamp, Timestamp};

/// What is under way, one thing at a time: a thread keeps the order of its stamps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Register,
    Submit { serial: u64, stamp: Stamp },
    Advance(Stamp),
    EndOfEpoch,
    CutEpoch(Epoch),
    EndOfStream,
}

/// A request, and of whom and when it was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) request: u64,
    pub(super) node: usize,
    pub(super) asked: Asked,
    pub(super) since_ns: u64,
}

/// Whether the stream is the thread's to begin transactions in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is: nobody had it before, or what was lost lies behind the end of its epoch.
    Held,
    /// The thread before it died, and no leader knows: the epoch is to be cut.
    Cut,
    /// The thread before it died together with the leader. The next leader cuts the epoch, and takes nothing before it
    /// has: a promise that is committed shows it.
    Promise,
}

/// A thread for good: its way to the nodes.
pub(super) struct Thread {
    /// As connections know it.
    pub(super) client: usize,
    pub(super) connections: Vec<Option<ClientId>>,
    pub(super) leader: usize,
    pub(super) registrar: usize,
    pub(super) register_ns: u64,
    /// It is dead until then.
    pub(super) dead_until_ns: u64,
    pub(super) life: Life,
    pub(super) waiting: Option<Waiting>,
    pub(super) next_request: u64,
}

/// What a thread knows, and forgets when it dies.
pub(super) struct Life {
    pub(super) claim: Claim,
    pub(super) registered: bool,
    /// The stream is known to take records.
    pub(super) open: bool,
    /// It has nothing to submit any more.
    pub(super) finished: bool,
    pub(super) epoch: Epoch,
    pub(super) closing: bool,
    /// It begins nothing more in this epoch: it has said that it ends it, or had it cut.
    pub(super) ended: Option<Epoch>,
    pub(super) begun: VecDeque<Stamp>,
    /// The first of them may have been taken: an earlier attempt ended as unknown.
    pub(super) in_doubt: bool,
    /// The last timestamp of the epoch that it has used or will not use.
    pub(super) clock: u64,
    /// How fast its clock goes: that of another is far ahead soon.
    stride: u64,
}

impl Life {
    pub(super) fn new(claim: Claim, random: &mut Random) -> Life {
        Life {
            claim,
            registered: false,
            open: false,
            finished: false,
            epoch: Epoch(0),
            closing: false,
            ended: None,
            begun: VecDeque::new(),
            in_doubt: false,
            clock: 0,
            stride: random.skewed(1, 64),
        }
    }

    /// The next stamp of its own clock. Who reads what another has begun is stamped after that: `latest`.
    pub(super) fn next_stamp(&mut self, latest: Timestamp, random: &mut Random) -> Stamp {
        if random.chance(100_000) {
            self.clock = self.clock.max(latest.0);
        }
        self.clock += random.between(1, self.stride);
        Stamp::new(self.epoch, Timestamp(self.clock))
    }

    /// The stream is known to have come to this timestamp of the epoch.
    pub(super) fn stands_at(&mut self, timestamp: Timestamp) {
        if timestamp.0 < u64::MAX {
            self.clock = self.clock.max(timestamp.0);
        }
    }

    /// Another epoch takes records: what was begun in an earlier one is given up. Stamps may begin anew.
    pub(super) fn turn_to(&mut self, epoch: Epoch, random: &mut Random) {
        self.epoch = epoch;
        self.closing = false;
        self.in_doubt = false;
        self.begun.clear();
        if random.chance(500_000) {
            self.clock = 0;
        }
    }
}
