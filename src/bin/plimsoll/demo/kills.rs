//! Kills leaders, spread over the run, and brings them back.

use std::time::{Duration, Instant};

use plimsoll::client::{Client, Options};
use plimsoll::local::Cluster;
use plimsoll::raft::Role;
use plimsoll::types::{Index, NodeId, ShardId, Term};

use super::load::Load;
use super::tell::Teller;
use crate::common::{Failure, Interrupt};

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a failover or a node that catches up may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Kills<'a> {
    planned: u32,
    done: u32,
    failovers: Vec<Duration>,
    state: State,
    control: Client,
    tell: &'a Teller,
}

#[derive(Debug)]
enum State {
    Calm,
    /// A leader is dead; the next commit of its shard has not come yet.
    Leaderless {
        node: NodeId,
        shard: ShardId,
        term: Term,
        killed: Instant,
    },
    /// The dead has been started again and is behind.
    Behind {
        node: NodeId,
        since: Instant,
        goals: Vec<(ShardId, Index)>,
        look: Instant,
    },
}

impl<'a> Kills<'a> {
    pub(super) fn plan(planned: u32, cluster: &Cluster, tell: &'a Teller) -> Result<Kills<'a>, Failure> {
        let control =
            Client::connect(Options { deadline: Duration::from_secs(30), ..cluster.client_options() })?;
        Ok(Kills { planned, done: 0, failovers: Vec::new(), state: State::Calm, control, tell })
    }

    /// Does what is due when the run is so far, from 0 to 1.
    pub(super) fn turn(
        &mut self,
        progress: f64,
        load: &mut Load<'_>,
        cluster: &mut Cluster,
    ) -> Result<(), Failure> {
        let is_due = self.done < self.planned && progress >= self.next_at();
        match &mut self.state {
            State::Calm if is_due => self.strike(load, cluster),
            State::Calm => Ok(()),
            State::Leaderless { node, shard, term, killed } => {
                if load.term(*shard) <= *term {
                    let (shard, since) = (*shard, *killed);
                    return in_time(since, || {
                        format!("shard {shard} had no commit after its leader was killed")
                    });
                }
                let (node, failover) = (*node, killed.elapsed());
                self.failovers.push(failover);
                let millis = failover.as_secs_f64() * 1e3;
                self.tell.say(&format!("the next commit came {millis:.1} ms after the kill"));
                if can_do_without_one(cluster) {
                    cluster.start(node).map_err(Failure::of)?;
                    self.tell.say(&format!("started node {node} again"));
                }
                let goals = load.ends().collect();
                self.state = State::Behind { node, since: Instant::now(), goals, look: Instant::now() };
                Ok(())
            }
            State::Behind { .. } => self.look_after(),
        }
    }

    /// Up to which part of a file records may be begun: no further than the next kill.
    pub(super) fn hold_at(&self) -> f64 {
        if self.done < self.planned { self.next_at() } else { 1.0 }
    }

    /// Whether all are dead that should be, and alive again.
    pub(super) fn are_over(&self) -> bool {
        self.done == self.planned && matches!(self.state, State::Calm)
    }

    /// What is left when the last record is committed.
    pub(super) fn finish(
        &mut self,
        load: &mut Load<'_>,
        cluster: &mut Cluster,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        while !self.are_over() {
            interrupt.check()?;
            cluster.check().map_err(Failure::of)?;
            self.turn(1.0, load, cluster)?;
            if let State::Leaderless { shard, .. } = self.state {
                load.mark(shard);
            }
            load.turn(Duration::ZERO, 1.0, true)?;
        }
        // A marker may still be under way.
        while !load.is_done() {
            interrupt.check()?;
            cluster.check().map_err(Failure::of)?;
            load.turn(Duration::ZERO, 1.0, true)?;
        }
        Ok(())
    }

    pub(super) fn count(&self) -> u32 {
        self.done
    }

    pub(super) fn failovers_ms(&self) -> Vec<f64> {
        self.failovers.iter().map(|failover| (failover.as_secs_f64() * 1e4).round() / 10.0).collect()
    }

    fn next_at(&self) -> f64 {
        f64::from(self.done + 1) / f64::from(self.planned + 1)
    }

    fn strike(&mut self, load: &Load<'_>, cluster: &mut Cluster) -> Result<(), Failure> {
        let shard = ShardId(self.done % self.control.shards());
        // In an election there is nobody to kill: again in the next turn.
        let Some((node, term)) = self.leader(shard, cluster) else { return Ok(()) };
        let term = term.max(load.term(shard));
        let killed = cluster.kill(node).map_err(Failure::of)?;
        self.done += 1;
        self.tell.say(&format!("killed node {node}, the leader of shard {shard} in term {term}"));
        if !can_do_without_one(cluster) {
            cluster.start(node).map_err(Failure::of)?;
            self.tell.say(&format!("started node {node} again, without which there is no quorum"));
        }
        self.state = State::Leaderless { node, shard, term, killed };
        Ok(())
    }

    fn leader(&mut self, shard: ShardId, cluster: &Cluster) -> Option<(NodeId, Term)> {
        let statuses = cluster.ids().into_iter().filter_map(|node| {
            let status = self.control.status(node, shard, ANSWER_TIMEOUT).ok()?;
            (status.role == Role::Leader).then_some((node, status.term))
        });
        statuses.max_by_key(|(_, term)| *term)
    }

    fn look_after(&mut self) -> Result<(), Failure> {
        let State::Behind { node, since, goals, look } = &mut self.state else { return Ok(()) };
        if Instant::now() < *look {
            return Ok(());
        }
        let caught_up = goals.iter().all(|(shard, goal)| {
            let status = self.control.status(*node, *shard, ANSWER_TIMEOUT);
            status.is_ok_and(|status| status.commit >= *goal && status.durable >= *goal)
        });
        if !caught_up {
            *look = Instant::now() + LOOK_AGAIN;
            let (node, since) = (*node, *since);
            return in_time(since, || format!("node {node} did not catch up after it was started again"));
        }
        self.tell.say(&format!("node {node} has caught up after {:.3} s", since.elapsed().as_secs_f64()));
        self.state = State::Calm;
        Ok(())
    }
}

/// Whether there is a quorum without one of the nodes.
fn can_do_without_one(cluster: &Cluster) -> bool {
    cluster.ids().len() >= 3
}

fn in_time(since: Instant, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if since.elapsed() < PATIENCE { Ok(()) } else { Err(Failure(format!("{} within {PATIENCE:?}", what()))) }
}
