//! The way to one peer.

use std::collections::VecDeque;

use super::notice::Unavailable;
use super::setup::Setup;
use super::verbs::{Buffers, Queues, Tag};
use crate::types::NodeId;
use crate::wire::aside::{Reason, Says};

/// How many asides wait for the side channel to take them; the oldest of more are dropped: all are said again.
const SAYING_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Path {
    pub(super) peer: NodeId,
    pub(super) setup: Setup,
    pub(super) queues: Option<Queues>,
    /// The memory for the next queues, while there are none.
    pub(super) buffers: Option<Buffers>,
    /// Which queue pair it is, counted.
    pub(super) generation: u32,
    /// The first packet's number that was offered.
    pub(super) psn: u32,
    /// Something has come over this queue pair.
    pub(super) heard: bool,
    /// The last refusal that was told.
    pub(super) refused: Option<Reason>,
    /// Why no queue pair could be made, as it was told last.
    pub(super) failed: Option<Unavailable>,
    /// For the side channel.
    pub(super) saying: VecDeque<Says>,
}

impl Path {
    pub(super) fn new(peer: NodeId, offers: bool) -> Path {
        Path {
            peer,
            setup: Setup::new(offers),
            queues: None,
            buffers: None,
            generation: 0,
            psn: 0,
            heard: false,
            refused: None,
            failed: None,
            saying: VecDeque::with_capacity(SAYING_MAX),
        }
    }

    pub(super) fn say(&mut self, says: Says) {
        if self.saying.len() == SAYING_MAX {
            self.saying.pop_front();
        }
        self.saying.push_back(says);
    }

    /// The queue pair is of no use any more. Its memory is kept.
    pub(super) fn drop_queues(&mut self) {
        if let Some(queues) = self.queues.take() {
            self.buffers = Some(queues.into_buffers());
        }
    }

    /// The connected queues, if a completion with this tag is of them.
    pub(super) fn queues_of(&mut self, tag: Tag) -> Option<&mut Queues> {
        if self.generation == tag.generation { self.queues.as_mut() } else { None }
    }

    /// The connected queues.
    pub(super) fn connected(&mut self) -> Option<&mut Queues> {
        if self.setup.is_connected() { self.queues.as_mut() } else { None }
    }
}
