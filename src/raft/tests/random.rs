//! Random runs: messages lost, doubled and reordered, connections cut one way, processes killed with writes under
//! way. The oracle of [`super::cluster`] watches every step; in the end everything heals and work must go on.

use core::time::Duration;
use std::println;
use std::vec::Vec;

use super::super::random::Random;
use super::super::*;
use super::cluster::{Cluster, ELECTION_TIMEOUT};

const SEEDS: u64 = 300;
const STEPS: u64 = 1500;

struct Run {
    cluster: Cluster,
    random: Random,
    voters: u32,
    loss_percent: u64,
    reads: u64,
    crashes: u64,
    lost: u64,
    doubled: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random::new(seed);
        let voters = [1, 2, 3, 3, 3, 4, 5, 5][(random.next() % 8) as usize];
        let loss_percent = [0, 5, 30][(random.next() % 3) as usize];
        let cluster = Cluster::new(voters, seed);
        Run { cluster, random, voters, loss_percent, reads: 0, crashes: 0, lost: 0, doubled: 0 }
    }

    fn one_node(&mut self) -> u32 {
        1 + (self.random.next() % u64::from(self.voters)) as u32
    }

    fn act(&mut self) {
        let id = self.one_node();
        match self.random.next() % 100 {
            0..=54 => self.deliver(),
            55..=74 => {
                self.cluster.flush_one(id);
            }
            75..=84 => {
                let step = [1, 5, 20, 60][(self.random.next() % 4) as usize];
                self.cluster.now = self.cluster.now.after(Duration::from_millis(step));
                self.cluster.tick_due();
            }
            85..=92 => {
                let bytes = [64, 5000, 400_000][(self.random.next() % 3) as usize];
                for _ in 0..=self.random.next() % 4 {
                    let _ = self.cluster.propose(id, bytes);
                }
            }
            93..=95 => {
                if self.cluster.raft(id).is_some() {
                    self.reads += 1;
                    let read = self.reads;
                    self.cluster.read(id, read);
                }
            }
            96 => self.cluster.step(id, Input::Transfer { to: NodeId(1 + (self.random.next() % 5) as u32) }),
            97 => {
                let peer = self.one_node();
                self.cluster.step(id, Input::PeerDown(NodeId(peer)));
            }
            98 => {
                let link = (id, self.one_node());
                if !self.cluster.cut.remove(&link) && self.cluster.cut.len() < 3 {
                    self.cluster.cut.insert(link);
                }
            }
            _ if self.cluster.raft(id).is_none() => self.cluster.start(id),
            _ if self.random.next() % 3 == 0 => {
                self.crashes += 1;
                self.cluster.crash(id);
            }
            // Early ticks are harmless.
            _ => self.cluster.step(id, Input::Tick),
        }
        self.cluster.replicate(id);
    }

    /// Any message, mostly the oldest; lost, doubled or delivered.
    fn deliver(&mut self) {
        let waiting = self.cluster.network.len() as u64;
        if waiting == 0 {
            return;
        }
        let at = if self.random.next() % 4 == 0 { self.random.next() % waiting } else { 0 };
        let Some(envelope) = self.cluster.network.remove(at as usize) else { return };
        if self.random.next() % 100 < self.loss_percent {
            self.lost += 1;
            return;
        }
        if self.random.next() % 100 < 3 {
            self.doubled += 1;
            self.cluster.network.push_back(envelope.clone());
        }
        let to = envelope.to;
        self.cluster.deliver(envelope);
        self.cluster.replicate(to);
    }

    /// Everything heals: there is a leader soon, it commits, and all logs are the same.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        let ids: Vec<u32> = (1..=self.voters).collect();
        for id in &ids {
            if self.cluster.raft(*id).is_none() {
                self.cluster.start(*id);
            }
        }
        self.cluster.run_for(ELECTION_TIMEOUT * 20);
        let leader = ids.iter().copied().find(|id| self.cluster.raft(*id).unwrap().role() == Role::Leader);
        let leader = leader.expect("a healed cluster has a leader");
        let entry = self.cluster.propose(leader, 64).expect("a leader takes proposals");
        self.cluster.run_for(ELECTION_TIMEOUT);
        for id in ids {
            let raft = self.cluster.raft(id).unwrap();
            assert_eq!((raft.commit(), raft.leader()), (entry.index, Some(NodeId(leader))), "node {id}");
            assert_eq!(self.cluster.nodes[&id].log, self.cluster.committed, "node {id}");
            assert_eq!(self.cluster.nodes[&id].disk_log, self.cluster.committed, "node {id}");
        }
    }
}

/// Names the seed when a run panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

#[test]
fn random_runs_are_safe_and_go_on_when_healed() {
    let only = std::env::var("RAFT_SEED").ok().map(|seed| seed.parse().expect("RAFT_SEED is a number"));
    let seeds = only.map_or(1..SEEDS + 1, |seed: u64| seed..seed + 1);
    let (mut committed, mut leaders, mut crashes, mut lost, mut doubled, mut reads) = (0, 0, 0, 0, 0, 0);
    for seed in seeds {
        let _named = Named(seed);
        let mut run = Run::new(seed);
        for step in 0..STEPS {
            run.act();
            if step % 50 == 0 {
                run.cluster.check_log_matching();
            }
        }
        run.heal();
        run.cluster.check_log_matching();
        committed += run.cluster.committed.len();
        leaders += run.cluster.leaders.len();
        crashes += run.crashes;
        lost += run.lost;
        doubled += run.doubled;
        reads += run.cluster.reads_done;
    }
    println!(
        "{committed} committed, {leaders} leaders, {crashes} crashes, {lost} lost, {doubled} doubled, {reads} reads"
    );
    if only.is_none() {
        // A run in which little happened shows little.
        assert!(committed > 10_000 && leaders > 500 && crashes > 500 && lost > 5_000, "too little happened");
        assert!(doubled > 1_000 && reads > 1_000, "too little happened");
    }
}
