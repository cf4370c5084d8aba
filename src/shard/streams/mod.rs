//! The engine's streams in this lane: how far each has come. `lead` is what their leaders write down, `subscribers` who
//! is told.
//!
//! What is committed is followed header by header, and where a stream stands goes to the node's [`Board`], where the
//! other lanes and whoever asks on this host read it. Everything that is decided here is decided from committed
//! entries, in the order of the logs: see [`crate::engine`]. A lane that nobody gave a board does nothing of this.
//!
//! Commits wake no other lane. A lane that blocks looks at the board every [`LOOK_PERIOD`] all the same, for what was
//! written there by others: that is for registrations, ends of epochs and subscribers elsewhere, never for a commit's
//! own watermark.

mod lead;
mod subscribers;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use self::lead::Lead;
use self::subscribers::Subscriber;
use super::{Groups, World};
use crate::engine::board::Board;
use crate::engine::fold::Registry;
use crate::engine::{Mark, Position, REGISTRAR};
use crate::io::Disk;
use crate::limits::APPEND_BYTES_MAX;
use crate::log::Log;
use crate::raft::{Role, Span};
use crate::types::{Epoch, Index, ShardId, Stamp, Time};

/// How many headers of one stream are followed in one turn.
const FOLLOWED_PER_TURN: u64 = 4096;

/// How often a lane that blocks looks at the board.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// What a lane keeps for all its streams.
pub(super) struct Streams {
    board: Arc<Board>,
    /// What the registrar has told; kept by the lane in which it lives.
    registry: Registry,
    /// The largest that was told.
    watermark: Stamp,
    next_look: Time,
    /// The open epoch in which positions were last published.
    published_in: Epoch,
    /// Whether the open epoch was coming to its end when the board was last looked at.
    closing: bool,
}

/// What a lane keeps for one stream.
#[derive(Default)]
pub(super) struct Stream {
    position: Position,
    /// Up to where the committed log was followed.
    followed: Index,
    lead: Option<Lead>,
    subscribers: Vec<Subscriber>,
}

impl Streams {
    pub(super) fn new(board: Arc<Board>) -> Streams {
        let (registry, watermark) = (Registry::default(), Stamp::ZERO);
        Streams { board, registry, watermark, next_look: Time(0), published_in: Epoch(0), closing: false }
    }

    pub(super) fn next_wake(&self) -> Time {
        self.next_look
    }
}

impl Stream {
    /// A leader was elected, or lost.
    pub(super) fn changed(&mut self, role: Role, last: Index) {
        self.lead = (role == Role::Leader).then(|| Lead::from(last));
    }

    /// Follows what is committed, as far as it is in memory; whether anything was found that counts.
    fn follow<D: Disk>(
        &mut self,
        shard: ShardId,
        commit: Index,
        log: &mut Log<D>,
        mut take: impl FnMut(&mut Position, &Mark),
    ) -> bool {
        let until = Index(commit.0.min(self.followed.0 + FOLLOWED_PER_TURN));
        let mut moved = false;
        while self.followed < until {
            let Span::Ready { count, .. } = log.span(shard, self.followed.next(), APPEND_BYTES_MAX) else {
                break;
            };
            let count = u64::from(count).min(until.0 - self.followed.0);
            log.each_header(shard, self.followed.next(), count as u32, |header| {
                // What no leader writes means nothing, on every node alike.
                if let Ok(Some(mark)) = Mark::of(header) {
                    take(&mut self.position, &mark);
                    moved = true;
                }
            });
            self.followed.0 += count;
        }
        moved
    }
}

impl<W: World> Groups<W> {
    /// Follows the streams in which something was committed, does what their leaders owe, and tells who has subscribed.
    pub(super) fn follow_streams(&mut self, now: Time) {
        let Some(mut streams) = self.streams.take() else { return };
        for at in 0..self.shards.len() {
            self.follow_stream(at, &mut streams);
        }
        self.turn_to_open_epoch(&mut streams);
        streams.closing = streams.board.closing() == Some(streams.published_in);
        for at in 0..self.shards.len() {
            if self.shards[at].stream.lead.is_some() {
                self.attend_lead(now, at, &mut streams);
            }
        }
        let watermark = streams.board.watermark();
        // One of a later epoch waits until the end of this one is told. There is none after the last stream has ended.
        if watermark.epoch <= streams.published_in || watermark == Stamp::NEVER {
            streams.watermark = streams.watermark.max(watermark);
        }
        streams.next_look = now.after(LOOK_PERIOD);
        for at in 0..self.shards.len() {
            if !self.shards[at].stream.subscribers.is_empty() {
                self.tell_subscribers(at, &streams);
            }
        }
        self.streams = Some(streams);
    }

    fn follow_stream(&mut self, at: usize, streams: &mut Streams) {
        let Groups { shards, log, .. } = self;
        let shard = &mut shards[at];
        let commit = shard.raft.commit();
        if shard.stream.followed == commit {
            return;
        }
        let Streams { board, registry, .. } = streams;
        let is_registrar = shard.id == REGISTRAR;
        let moved = shard.stream.follow(shard.id, commit, log, |position, mark| {
            if is_registrar {
                take_registration(registry, board, position, mark);
            }
            position.take(mark);
        });
        if moved {
            board.publish(shard.id, &shard.stream.position);
        }
        if shard.stream.followed < commit {
            // There is more, in memory or on its way from the disk.
            shard.touched = true;
        }
    }

    /// Another epoch has opened: every stream now stands where it has come to in that.
    fn turn_to_open_epoch(&mut self, streams: &mut Streams) {
        let open = streams.board.open_epoch();
        if streams.published_in != open {
            streams.published_in = open;
            for shard in &mut self.shards {
                shard.stream.position.forget_before(open);
                streams.board.publish(shard.id, &shard.stream.position);
            }
        }
    }
}

/// Takes in what the registrar tells, and makes it visible before the registrar's own position is.
fn take_registration(registry: &mut Registry, board: &Board, registrar: &Position, mark: &Mark) {
    registry.take(mark, registrar);
    match *mark {
        Mark::Register { stream } if stream.0 < board.shards() => {
            board.register(stream, registry.floor(stream).expect("it was registered just now, or before"));
        }
        Mark::EpochClosed { epoch, last } => board.close(Stamp::new(epoch, last)),
        _ => {}
    }
}
