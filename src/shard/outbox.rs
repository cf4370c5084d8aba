//! What goes to each peer: one frame per turn, the messages of all shards in it. Records are named here and sent from
//! where they lie in the log.

use alloc::vec::Vec;

use super::{Groups, Options, World};
use crate::io::{Disk, Link};
use crate::limits::FRAME_BYTES_MAX;
use crate::log::Log;
use crate::raft::{Entries, Message, Span};
use crate::types::{Index, NodeId, ShardId, Time};
use crate::wire;
use crate::wire::frame::{Builder, Kind};

pub(super) struct Outbox {
    /// One for each peer.
    peers: Vec<Peer>,
    /// The memory of a frame's list of parts, kept from turn to turn.
    parts: Vec<&'static [u8]>,
}

struct Peer {
    id: NodeId,
    head: Builder,
    messages: Vec<(ShardId, Message)>,
}

impl Outbox {
    pub(super) fn new(options: &Options) -> Outbox {
        let peer = |&id| Peer { id, head: Builder::new(Kind::Peer), messages: Vec::with_capacity(256) };
        let peers = options.voters.iter().filter(|&&id| id != options.node).map(peer).collect();
        Outbox { peers, parts: Vec::with_capacity(1024) }
    }

    /// To be sent at the end of the turn.
    pub(super) fn push(&mut self, to: NodeId, shard: ShardId, message: Message) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == to).expect("raft speaks to voters only");
        peer.messages.push((shard, message));
    }
}

impl<W: World> Groups<W> {
    /// Fills appends for the followers of every shard in which something happened.
    pub(super) fn replicate(&mut self, now: Time) {
        for at in 0..self.shards.len() {
            if self.shards[at].touched {
                self.replicate_shard(now, at);
            }
        }
    }

    fn replicate_shard(&mut self, now: Time, at: usize) {
        let Groups { shards, log, effects, outbox, next_tick, .. } = self;
        let shard = &mut shards[at];
        let mut entries = ShardEntries { log, shard: shard.id };
        shard.raft.replicate(now, &mut entries, effects);
        *next_tick = (*next_tick).min(shard.raft.next_wake());
        for (to, message) in effects.messages.drain(..) {
            outbox.push(to, shard.id, message);
        }
        self.answer_read_indexes(at);
    }

    /// One frame to each peer that has messages; more only when they do not fit one.
    pub(super) fn send_frames(&mut self, link: &mut W::Link) {
        let Groups { log, outbox: Outbox { peers, parts }, .. } = self;
        for peer in peers.iter_mut().filter(|peer| !peer.messages.is_empty()) {
            let Peer { id, head, messages } = peer;
            let mut rest = &messages[..];
            while !rest.is_empty() {
                let taken = fill(head, log, rest);
                let mut frame = recycle(core::mem::take(parts));
                frame.push(head.seal());
                for &(shard, message) in &rest[..taken] {
                    if let Message::Append { previous, count, .. } = message
                        && count > 0
                    {
                        log.pieces(shard, previous.index.next(), count, &mut frame);
                    }
                }
                // A full link is a lost frame: Raft repeats what matters.
                let _ = link.send(*id, &frame);
                *parts = recycle(frame);
                head.clear();
                rest = &rest[taken..];
            }
            messages.clear();
        }
        link.flush();
    }
}

/// Puts as many of the messages into the table as the frame holds, at least one.
fn fill<D: Disk>(head: &mut Builder, log: &Log<D>, messages: &[(ShardId, Message)]) -> usize {
    let mut taken = 0;
    for &(shard, message) in messages {
        let body_bytes = match message {
            Message::Append { previous, count, .. } if count > 0 => {
                log.bytes_of(shard, previous.index.next(), count)
            }
            _ => 0,
        };
        if !head.fits(body_bytes) {
            break;
        }
        head.push(&wire::peer::encode(shard, &message, body_bytes), body_bytes);
        taken += 1;
    }
    assert!(taken > 0, "every message fits a frame of {FRAME_BYTES_MAX} bytes");
    taken
}

/// The same memory for slices of another lifetime. In-place collection keeps the allocation.
fn recycle<'to>(mut parts: Vec<&[u8]>) -> Vec<&'to [u8]> {
    parts.clear();
    parts.into_iter().map(|_| -> &'to [u8] { unreachable!("cleared above") }).collect()
}

/// A shard's part of the lane's log, as the protocol asks for it.
struct ShardEntries<'a, D> {
    log: &'a mut Log<D>,
    shard: ShardId,
}

impl<D: Disk> Entries for ShardEntries<'_, D> {
    fn span(&mut self, from: Index, bytes_max: usize) -> Span {
        self.log.span(self.shard, from, bytes_max)
    }
}
