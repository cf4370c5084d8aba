//! What goes between two ends beside the frames of Raft: [`Aside`], for a link that finds its way over this one.

use std::collections::VecDeque;

use super::TcpLink;
use super::stream::Broken;
use crate::io::Full;
use crate::limits::VOTERS_MAX;
use crate::types::NodeId;
use crate::wire::aside::Aside;

/// How many asides wait to be fetched; the oldest of more than these are dropped: who sent them sends them again.
pub const ASIDES_MAX: usize = 8 * VOTERS_MAX;

/// Those that have come.
#[derive(Debug, Default)]
pub(super) struct Asides {
    waiting: VecDeque<(NodeId, Aside)>,
    dropped: u64,
}

impl Asides {
    pub(super) fn take_in(&mut self, from: NodeId, frame: &[u8]) -> Result<(), Broken> {
        let aside = Aside::decode(frame).map_err(Broken::Malformed)?;
        if self.waiting.len() == ASIDES_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back((from, aside));
        Ok(())
    }
}

impl TcpLink {
    /// The next aside that has come, and from whom.
    pub fn aside(&mut self) -> Option<(NodeId, Aside)> {
        self.asides.waiting.pop_front()
    }

    /// How many asides were dropped because nobody fetched them.
    pub fn asides_dropped(&self) -> u64 {
        self.asides.dropped
    }

    /// Sends an aside. A peer that is not connected loses it; on `Full` it was not taken.
    pub fn send_aside(&mut self, to: NodeId, aside: &Aside) -> Result<(), Full<()>> {
        let Some(slot) = self.peers.iter().find(|peer| peer.id == to).and_then(|peer| peer.up) else {
            return Ok(());
        };
        let Some(connection) = self.slots[slot].as_mut().filter(|connection| connection.broken.is_none())
        else {
            return Ok(());
        };
        connection.stream.send(&[&aside.encode()]).unwrap_or_else(|broken| {
            connection.broken = Some(broken);
            self.unfinished = true;
            Ok(())
        })
    }

    /// Which connection with this peer is up, counted from 1 since the link was made: an aside belongs to one.
    pub fn connection(&self, peer: NodeId) -> Option<u64> {
        self.peers.iter().find(|known| known.id == peer && known.up.is_some()).map(|known| known.connections)
    }

    /// Whether frames can be sent to this peer.
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.peers.iter().any(|known| known.id == peer && known.up.is_some())
    }
}
