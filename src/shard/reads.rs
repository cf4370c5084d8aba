//! Clients that read the committed log, from any replica. The bytes go out as they lie in the log.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::clients::ClientRef;
use super::{Groups, World};
use crate::io::Port;
use crate::limits::{APPEND_BYTES_MAX, READS_WAITING_MAX};
use crate::raft::{Input, ReadId, Span};
use crate::types::{Index, Time};
use crate::wire::client::{Outcome, Reply};
use crate::wire::frame::{Builder, Kind};

/// How many reads of one shard are served in one turn, so that readers cannot hold up commits.
const READS_PER_TURN: usize = 4;

/// A read that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingRead {
    pub(super) client: ClientRef,
    pub(super) request: u64,
    pub(super) from: Index,
    pub(super) bytes_max: usize,
    /// Answer only when there is something.
    pub(super) wait: bool,
}

/// A question for an index to read at, under the name that the protocol knows it by.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedIndex {
    read: ReadId,
    client: ClientRef,
    request: u64,
}

impl<W: World> Groups<W> {
    /// Asks the protocol for an index at which a linearizable read may read.
    pub(super) fn ask_read_index(&mut self, now: Time, at: usize, client: ClientRef, request: u64) {
        self.last_read.0 += 1;
        let read = self.last_read;
        self.shards[at].asked_index.push_back(AskedIndex { read, client, request });
        self.step(now, at, Input::ReadIndex(read), &[]);
    }

    /// Tells clients what the protocol has found out about their questions. Questions are few and answered mostly in
    /// the order in which they came, so the search is short.
    pub(super) fn answer_read_indexes(&mut self, at: usize) {
        let Groups { shards, effects, clients, .. } = self;
        let shard = &mut shards[at];
        for (read, index) in effects.reads_ready.drain(..) {
            let asked = take_asked(&mut shard.asked_index, read);
            clients.reply(asked.client, &Reply::ReadIndex { request: asked.request, index });
        }
        for read in effects.reads_refused.drain(..) {
            let asked = take_asked(&mut shard.asked_index, read);
            clients.answer(asked.client, asked.request, Outcome::NotLeader { leader: shard.raft.leader() });
        }
    }

    /// Takes a read in; it is answered at the end of this turn or of a later one.
    pub(super) fn take_read(&mut self, at: usize, read: WaitingRead) {
        let shard = &mut self.shards[at];
        if shard.reads.len() >= READS_WAITING_MAX {
            self.clients.answer(read.client, read.request, Outcome::Busy);
            return;
        }
        let bytes_max = read.bytes_max.min(APPEND_BYTES_MAX);
        let from = read.from.max(Index(1));
        shard.reads.push(WaitingRead { bytes_max, from, ..read });
        shard.touched = true;
    }

    /// Answers the reads of one shard that can be answered, and returns how many those were.
    pub(super) fn serve_reads(&mut self, at: usize, port: &mut W::Port) -> usize {
        let mut served = 0;
        let mut next = 0;
        while next < self.shards[at].reads.len() && served < READS_PER_TURN {
            let read = self.shards[at].reads[next];
            if self.clients.id(read.client).is_none() {
                self.shards[at].reads.swap_remove(next);
            } else if self.serve_read(at, read, port) {
                self.shards[at].reads.remove(next);
                served += 1;
            } else {
                next += 1;
            }
        }
        if served == READS_PER_TURN {
            // There may be more; the next turn goes on.
            self.shards[at].touched = true;
        }
        served
    }

    /// Whether it was answered.
    fn serve_read(&mut self, at: usize, read: WaitingRead, port: &mut W::Port) -> bool {
        let shard = &self.shards[at];
        let commit = shard.applied;
        if read.from > commit {
            if !read.wait {
                let none = Reply::Records { request: read.request, next: read.from, commit, records: &[] };
                self.clients.reply(read.client, &none);
            }
            return !read.wait;
        }
        let Span::Ready { count, .. } = self.log.span(shard.id, read.from, APPEND_BYTES_MAX) else {
            return false;
        };
        let count = u64::from(count).min(commit.0 - read.from.0 + 1) as u32;
        let count = self.log.count_within(shard.id, read.from, count, read.bytes_max);
        let next = Index(read.from.0 + u64::from(count));
        let body_bytes = self.log.bytes_of(shard.id, read.from, count);
        let mut head = Builder::new(Kind::Reply);
        let reply = Reply::Records { request: read.request, next, commit, records: &[] };
        head.push(&reply.encode(body_bytes), body_bytes);
        let mut parts = Vec::with_capacity(16);
        parts.push(head.seal());
        self.log.pieces(shard.id, read.from, count, &mut parts);
        if let Some(client) = self.clients.id(read.client) {
            port.send(client, &parts);
        }
        true
    }
}

fn take_asked(asked: &mut VecDeque<AskedIndex>, read: ReadId) -> AskedIndex {
    let place = asked.iter().position(|asked| asked.read == read);
    asked.remove(place.expect("the protocol answers what it was asked, once")).expect("it was just found")
}
