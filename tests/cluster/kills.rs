//! Nodes killed for real, under load.

use std::time::Duration;

use plimsoll::local::{Shape, slowness};
use plimsoll::types::NodeId;

use crate::ledger::Ledger;
use crate::{cluster, small, turn};

/// A generator of its own: the run is not repeatable anyway, and its seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_50_kills_of_random_nodes() {
    let _turn = turn();
    let mut cluster = cluster("kills", &Shape { shards: 1, ..small() });
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    let mut random = Random(0x5eed_0050 ^ u64::from(std::process::id()));
    println!("random nodes from seed {:#x}", random.0);

    for kill in 0..50 {
        let before = ledger.acknowledged.len();
        // Some commits between any two kills, at a moment of no one's choosing.
        let more = 20 + random.below(200) as usize;
        ledger.load(16, |ledger| ledger.acknowledged.len() >= before + more);
        let node = NodeId(1 + random.below(3) as u32);
        cluster.kill(node).unwrap();
        ledger.load_for(16, Duration::from_millis(random.below(60)));
        cluster.start(node).unwrap();
        // Two of three must be back before the next one goes: a quorum is what was promised.
        cluster.await_leaders().unwrap_or_else(|error| panic!("after kill {kill} of node {node}: {error}"));
    }
    ledger.settle();
    let ids = cluster.ids();
    let found = ledger.check(&cluster, &ids);
    assert!(ledger.acknowledged.len() >= 50 * 20, "too little load: {}", ledger.acknowledged.len());
    println!(
        "{} acknowledged, {} unknown, {} refused, {found} there",
        ledger.acknowledged.len(),
        ledger.unknown.len(),
        ledger.refused.len()
    );
}

#[test]
fn all_nodes_killed_at_once_come_back_with_everything() {
    let _turn = turn();
    let mut cluster = cluster("blackout", &Shape { lanes: 2, shards: 4, ..small() });
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledgers: Vec<Ledger> = (0..4).map(|shard| Ledger::open(&cluster, shard)).collect();
    for round in 0..3 {
        for ledger in &mut ledgers {
            let before = ledger.acknowledged.len();
            ledger.load(8, |ledger| ledger.acknowledged.len() >= before + 100);
        }
        for id in cluster.ids() {
            cluster.kill(id).unwrap();
        }
        cluster.start_all().unwrap();
        cluster.await_leaders().unwrap_or_else(|error| panic!("after blackout {round}: {error}"));
    }
    let ids = cluster.ids();
    for ledger in &mut ledgers {
        ledger.settle();
        let found = ledger.check(&cluster, &ids);
        assert!(found >= 300, "too little load: {found}");
    }
}

#[test]
fn the_next_commit_after_the_leader_is_killed_comes_within_half_a_second() {
    let _turn = turn();
    let mut cluster = cluster("failover", &small());
    cluster.start_all().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    let mut took = Vec::new();
    for _ in 0..5 {
        let leader = cluster.await_leaders().unwrap()[0];
        ledger.load_for(4, Duration::from_millis(300));
        let killed = cluster.kill(leader).unwrap();
        ledger.settle();
        ledger.seal();
        took.push(killed.elapsed());
        cluster.start(leader).unwrap();
    }
    took.sort();
    println!("from the kill to the next acknowledged record: {took:?}");
    // The bound is the promise at default settings, not a benchmark: one slow moment of the machine is let pass.
    assert!(took[3] < Duration::from_millis(500) * slowness(), "{took:?}");
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}
