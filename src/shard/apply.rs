//! What a commit moves: outcomes of submits, reads that waited for it.

use super::pending::Pending;
use super::{Groups, Observer, Shard, World};
use crate::raft::Role;
use crate::types::Time;
use crate::wire::client::Outcome;

impl<W: World> Groups<W> {
    /// Ends what has become durable or has committed in every shard in which something happened.
    pub(super) fn apply(&mut self, now: Time, port: &mut W::Port) -> usize {
        let mut work = 0;
        for at in 0..self.shards.len() {
            if !core::mem::take(&mut self.shards[at].touched) {
                continue;
            }
            work += self.apply_shard(at);
            work += self.serve_reads(at, port);
        }
        if now >= self.unknown_at {
            self.give_up_waiting();
        }
        work
    }

    fn apply_shard(&mut self, at: usize) -> usize {
        let Groups { shards, clients, observer, .. } = self;
        let shard = &mut shards[at];
        let commit = shard.raft.commit();
        assert!(commit >= shard.applied, "shard {}: commit went back to {commit}", shard.id);
        if commit > shard.applied {
            shard.applied = commit;
            observer.committed(shard.id, commit);
        }
        let mut ended = 0;
        while let Some(pending) = shard.on_commit.front()
            && pending.id.index <= commit
        {
            clients.answer(pending.client, pending.request, decided(shard, pending));
            shard.on_commit.pop_front();
            ended += 1;
        }
        while let Some(pending) = shard.on_durable.front()
            && pending.id.index <= shard.durable
        {
            clients.answer(pending.client, pending.request, pending.committed());
            shard.on_durable.pop_front();
            ended += 1;
        }
        ended
    }

    /// No commit came in time that decides about submits of an earlier leadership.
    fn give_up_waiting(&mut self) {
        self.unknown_at = Time::NEVER;
        let Groups { shards, clients, .. } = self;
        for shard in shards.iter_mut().filter(|shard| shard.raft.role() != Role::Leader) {
            clients.all_unknown(&mut shard.on_commit);
        }
    }
}

/// The outcome of a submit at whose index something has committed: itself, or what superseded it. In the second case
/// it will never commit anywhere, for committed entries are final.
fn decided(shard: &Shard, pending: &Pending) -> Outcome {
    match shard.raft.term_at(pending.id.index) {
        Some(term) if term == pending.id.term => pending.committed(),
        Some(_) => Outcome::NotLeader { leader: shard.raft.leader() },
        None => unreachable!("shard {}: {} is committed and has no term", shard.id, pending.id.index),
    }
}
