//! What comes from peers, and what the protocol wants done about it.

use super::{Groups, Observer, Shard, World};
use crate::io::{Link, LinkEvent};
use crate::log::NewEntry;
use crate::log::record::{self, Kind};
use crate::raft::{Accept, Change, Input, Message, Role};
use crate::types::{EntryId, Epoch, Index, NodeId, ShardId, Time, Timestamp};
use crate::wire;

impl<W: World> Groups<W> {
    /// One event of the link.
    pub(super) fn on_link(&mut self, now: Time, event: LinkEvent<'_>) {
        match event {
            LinkEvent::Up(_) | LinkEvent::Down { by_peer: false, .. } => {}
            LinkEvent::Down { peer, by_peer: true } => {
                for at in 0..self.shards.len() {
                    self.step(now, at, Input::PeerDown(peer), &[]);
                }
            }
            LinkEvent::Frame { from, bytes } => match wire::peer::decode(bytes) {
                Ok(messages) => {
                    for (shard, message, records) in messages {
                        self.on_message(now, from, shard, message, records);
                    }
                }
                Err(malformed) => self.observer.malformed(from, &malformed),
            },
        }
    }

    fn on_message(&mut self, now: Time, from: NodeId, shard: ShardId, message: Message, records: &[u8]) {
        let Some(at) = self.position(shard) else {
            self.observer.malformed(from, &format_args!("shard {shard} does not live in this lane"));
            return;
        };
        if let Message::Append { term, previous, entries_term, count, commit, round } = message
            && count > 0
        {
            match record::check_run(records, shard, previous.index.next()) {
                Ok(run) if run.count == count && run.term == entries_term => {}
                Ok(_) => {
                    self.observer.malformed(from, &"an append's records are not those that it announces");
                    return;
                }
                Err(malformed) => {
                    self.observer.malformed(from, &malformed);
                    return;
                }
            }
            // A higher term is laid before the records are, and takes room: what is left for them is asked for after
            // it.
            if term > self.shards[at].raft.term() {
                let empty = Message::Append { term, previous, entries_term: term, count: 0, commit, round };
                self.step(now, at, Input::Peer { from, message: empty }, &[]);
            }
            // No room is as if the append had been lost: the leader repeats it.
            if self.log.room_for_received(records).is_err() {
                return;
            }
        }
        if matches!(message, Message::Rejected { .. }) {
            self.refusals.push((from, shard, message));
            return;
        }
        self.step(now, at, Input::Peer { from, message }, records);
    }

    /// What followers have refused. Short frames overtake long ones over datagrams: what is missed may be on its way.
    pub(super) fn take_refusals(&mut self, now: Time, link: &W::Link) {
        let mut refusals = core::mem::take(&mut self.refusals);
        for (from, shard, message) in refusals.drain(..) {
            let at = self.position(shard).expect("looked up when it came");
            let sent_at = self.shards[at].raft.oldest_sent_at(from);
            let input = if sent_at.is_some_and(|sent_at| link.is_carrying(from, sent_at)) {
                Input::Overtaken { from, message }
            } else {
                Input::Peer { from, message }
            };
            self.step(now, at, input, &[]);
        }
        self.refusals = refusals;
    }

    /// Gives `input` to the shard at `at` and carries out what comes of it. `records` are those of an append.
    pub(super) fn step(&mut self, now: Time, at: usize, input: Input, records: &[u8]) {
        let shard = &mut self.shards[at];
        shard.touched = true;
        shard.raft.step(now, input, &mut self.effects);
        self.next_tick = self.next_tick.min(shard.raft.next_wake());

        if let Some(vote) = self.effects.vote.take() {
            self.log.lay_vote(shard.id, vote);
        }
        if let Some(accept) = self.effects.accept.take() {
            lay_accepted(&mut self.log, shard, accept, records);
        }
        if let Some(id) = self.effects.noop.take() {
            self.log.lay(noop(shard.id, id), &[]);
        }
        for (to, message) in self.effects.messages.drain(..) {
            self.outbox.push(to, shard.id, message);
        }
        self.answer_read_indexes(at);
        if let Some(change) = self.effects.change.take() {
            self.on_change(now, at, change);
        }
    }

    /// Leadership has moved. What was submitted here and has not committed may still do so: it waits for the commit
    /// that decides, and only if none comes in time is it answered as unknown.
    fn on_change(&mut self, now: Time, at: usize, change: Change) {
        let shard = &mut self.shards[at];
        self.observer.changed(shard.id, change);
        shard.stream.changed(change.role, shard.raft.last().index);
        if change.leader.is_some() {
            shard.elections = shard.elections.saturating_add(1);
        }
        if let Some(large) = shard.large.take() {
            self.abandon(large, change.leader);
        }
        let shard = &mut self.shards[at];
        if change.role == Role::Leader {
            // What waits is of an earlier term, and its indices may be given again.
            self.clients.all_unknown(&mut shard.on_commit);
        } else if !shard.on_commit.is_empty() {
            self.unknown_at = self.unknown_at.min(now.after(2 * self.options.election_timeout));
        }
        self.clients.all_unknown(&mut shard.on_durable);
    }
}

/// Follower: lays what is new of an append's records, as they came.
fn lay_accepted<D: crate::io::Disk>(
    log: &mut crate::log::Log<D>,
    shard: &mut Shard,
    accept: Accept,
    records: &[u8],
) {
    if let Some(last) = accept.truncate_after {
        // The append may commit what it replaces this with, so the protocol's commit is no measure here.
        assert!(last >= shard.applied, "shard {}: dropping what was told to be committed", shard.id);
        log.truncate_after(shard.id, last);
        shard.durable = shard.durable.min(last);
    }
    if accept.take > 0 {
        let skipped = record::prefix_bytes(records, accept.skip);
        log.lay_received(shard.id, &records[skipped..]);
    }
}

/// What a leader lays to commit in its own term.
fn noop(shard: ShardId, id: EntryId) -> NewEntry {
    assert!(id.index > Index::ZERO, "a no-op has a place in the log");
    NewEntry {
        shard,
        id,
        kind: Kind::Noop,
        flags: 0,
        timestamp: Timestamp(0),
        epoch: Epoch(0),
        session: 0,
        serial: 0,
        payload_crc: record::payload_crc(&[]),
    }
}
