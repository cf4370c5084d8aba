//! Random runs: messages lost, doubled and reordered, connections cut one way, processes killed with writes under
//! way. The oracle of [`super::cluster`] watches every step; in the end everything heals and work must go on.

use core::time::Duration;
use std::println;
use std::vec::Vec;

use super::super::random::Random;
use super::super::*;
use super::cluster::{Cluster, ELECTION_TIMEOUT};

const SEEDS: u64 = 2000;
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
            _ if self.random.next().is_multiple_of(3) => {
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
        let at = if self.random.next().is_multiple_of(4) { self.random.next() % waiting } else { 0 };
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
        assert!(
            committed > 60_000 && leaders > 4_000 && crashes > 5_000 && lost > 20_000,
            "too little happened"
        );
        assert!(doubled > 5_000 && reads > 5_000, "too little happened");
    }
}

/// One millisecond: what was sent in the last one arrives or is lost, every other time the disks finish what they have,
/// and who leads takes one proposal.
fn one_millisecond(cluster: &mut Cluster, random: &mut Random, loss_percent: u64) {
    cluster.now = cluster.now.after(Duration::from_millis(1));
    let ids: Vec<u32> = cluster.nodes.keys().copied().collect();
    for _ in 0..cluster.network.len() {
        let Some(envelope) = cluster.network.pop_front() else { break };
        if random.next() % 100 >= loss_percent {
            cluster.deliver(envelope);
        }
    }
    cluster.tick_due();
    for id in ids {
        if (cluster.now.0 / 1_000_000).is_multiple_of(2) {
            while cluster.flush_one(id) {}
        }
        let _ = cluster.propose(id, 64);
        cluster.replicate(id);
    }
}

#[test]
fn a_lossy_network_slows_but_does_not_stop() {
    for seed in 1..=10 {
        let _named = Named(seed);
        let mut random = Random::new(seed);
        let mut cluster = Cluster::new(3, seed);
        let mut slowest = usize::MAX;
        for second in 0..10 {
            let before = cluster.committed.len();
            for _ in 0..1_000 {
                one_millisecond(&mut cluster, &mut random, 30);
            }
            let committed = cluster.committed.len() - before;
            if second > 0 {
                slowest = slowest.min(committed);
            }
        }
        assert!(slowest > 100, "{slowest} commits in the slowest second but the first");
        println!("seed {seed}: {slowest} commits in the slowest second, {} leaders", cluster.leaders.len());
        // Now and then nobody is heard three heartbeats long, and check-quorum does what it is for.
        assert!(cluster.leaders.len() <= 10, "{} leaders in ten seconds", cluster.leaders.len());
    }
}

/// A leader's process ends, its followers see their connections close a little apart, and commits go on: well within
/// 500 ms in every run, in most within a fraction of the election timeout.
#[test]
fn failover_is_fast_when_connections_close() {
    let mut took_ms = Vec::new();
    for seed in 1..=300 {
        let _named = Named(seed);
        let mut random = Random::new(seed);
        let voters = if seed.is_multiple_of(3) { 5 } else { 3 };
        let mut cluster = Cluster::new(voters, seed);
        while cluster.committed.len() < 50 + seed as usize {
            one_millisecond(&mut cluster, &mut random, 0);
        }
        let leader = *cluster.leaders.values().last().expect("somebody has committed");
        cluster.crash(leader);
        let (killed, before) = (cluster.now, cluster.leaders.len());
        let others: Vec<u32> = (1..=voters).filter(|id| *id != leader).collect();
        let mut noticed = 0;
        while cluster.leaders.len() == before || {
            let new = *cluster.leaders.values().last().expect("one was added");
            cluster.raft(new).is_some_and(|raft| {
                cluster.nodes[&new].log[raft.commit().0 as usize - 1].term != raft.term().0
            })
        } {
            one_millisecond(&mut cluster, &mut random, 0);
            if let Some(id) = others.get(noticed).filter(|_| random.next().is_multiple_of(2)) {
                cluster.step(*id, Input::PeerDown(NodeId(leader)));
                noticed += 1;
            }
        }
        took_ms.push(cluster.now.since(killed).as_millis());
    }
    took_ms.sort_unstable();
    let (median, worst) = (took_ms[took_ms.len() / 2], took_ms[took_ms.len() - 1]);
    println!("failover: median {median} ms, 99 % {} ms, worst {worst} ms", took_ms[took_ms.len() * 99 / 100]);
    assert!(median < 60 && worst < 450, "median {median} ms, worst {worst} ms");
}
