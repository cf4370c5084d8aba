//! Who is told how a stream is, and when.

use super::super::clients::ClientRef;
use super::super::{Groups, World};
use super::Streams;
use crate::limits::SUBSCRIBERS_MAX;
use crate::types::{Epoch, Stamp};
use crate::wire::client::{Outcome, Reply, StreamStatus};

/// Who is told, and what it was told last.
pub(super) struct Subscriber {
    client: ClientRef,
    request: u64,
    told: Option<StreamStatus>,
    /// The first epoch of whose end it was not told.
    next_epoch: Epoch,
}

impl<W: World> Groups<W> {
    /// From now on the client is told how the stream is.
    pub(in crate::shard) fn subscribe(&mut self, at: usize, client: ClientRef, request: u64) {
        if self.streams.is_none() {
            return self.clients.answer(client, request, Outcome::Invalid);
        }
        let clients = &self.clients;
        let subscribers = &mut self.shards[at].stream.subscribers;
        subscribers.retain(|subscriber| clients.id(subscriber.client).is_some());
        if subscribers.len() >= SUBSCRIBERS_MAX {
            return self.clients.answer(client, request, Outcome::Busy);
        }
        subscribers.push(Subscriber { client, request, told: None, next_epoch: Epoch(0) });
    }

    /// Tells every subscriber what it was not told, the ends of epochs before the epoch that follows them.
    pub(super) fn tell_subscribers(&mut self, at: usize, streams: &Streams) {
        let takes_records = self.takes_records(at, streams);
        let Groups { shards, clients, .. } = self;
        let shard = &mut shards[at];
        let open = streams.published_in;
        let position = &shard.stream.position;
        let stands_at = position.stands_at(open).clamp(Stamp::begin_of(open), Stamp::end_of(open));
        let status = StreamStatus {
            shard: shard.id,
            role: shard.raft.role(),
            term: shard.raft.term(),
            leader: shard.raft.leader(),
            epoch: open,
            open: position.is_open() && !position.has_closed(open),
            takes_records,
            closing: streams.closing,
            watermark: streams.watermark,
            stands_at: stands_at.timestamp,
        };
        for subscriber in &mut shard.stream.subscribers {
            let Subscriber { client, request, told, next_epoch } = subscriber;
            for last in streams.board.ends(*next_epoch, open) {
                clients.reply(*client, &Reply::EpochClosed { request: *request, shard: shard.id, last });
            }
            *next_epoch = open;
            if *told != Some(status) {
                *told = Some(status);
                clients.reply(*client, &Reply::Stream { request: *request, status });
            }
        }
        shard.stream.subscribers.retain(|subscriber| clients.id(subscriber.client).is_some());
    }
}
