//! One election, one leader, and then quiet: however the nodes are started, and whoever is cut off for a while.

use std::time::{Duration, Instant};

use plimsoll::client::Client;
use plimsoll::local::Cluster;
use plimsoll::types::{NodeId, ShardId, Term};

use crate::ledger::Ledger;
use crate::proxy::Proxies;
use crate::{calm, cluster, turn};

/// The term and the leader that every node names.
fn agreed(cluster: &Cluster) -> (Term, NodeId) {
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let mut told = Vec::new();
    for id in cluster.ids() {
        let status = client.status(id, ShardId(0), Duration::from_secs(2)).unwrap();
        told.push((status.term, status.leader.unwrap()));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "the nodes do not agree: {told:?}");
    told[0]
}

/// Lets time pass in which nothing must happen. There is no event to wait for: that is the point.
fn quiet(duration: Duration) {
    std::thread::sleep(duration);
}

/// One leader, its term at most 2, one election in all, and ten seconds in which nothing happens.
fn assert_one_election(cluster: &mut Cluster) {
    cluster.await_leaders().unwrap();
    let (term, leader) = agreed(cluster);
    assert!(term <= Term(2), "term {term}");
    quiet(Duration::from_secs(10));
    assert_eq!(agreed(cluster), (term, leader), "ten quiet seconds change nothing");
    let won = |id: NodeId| cluster.log(id).matches(" leads term ").count();
    assert_eq!(cluster.ids().into_iter().map(won).sum::<usize>(), 1, "one election");
}

#[test]
fn nodes_started_at_once_elect_once() {
    let _turn = turn();
    let mut cluster = cluster("at-once", &calm());
    cluster.start_all().unwrap();
    assert_one_election(&mut cluster);
}

#[test]
fn nodes_started_two_seconds_apart_elect_once() {
    let _turn = turn();
    let mut cluster = cluster("apart", &calm());
    for id in cluster.ids() {
        cluster.start(id).unwrap();
        quiet(Duration::from_secs(2));
    }
    assert_one_election(&mut cluster);
}

#[test]
fn a_follower_that_was_cut_off_for_five_seconds_changes_neither_leader_nor_term() {
    let _turn = turn();
    let mut cluster = cluster("cut", &calm());
    let proxies = Proxies::between(&mut cluster);
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let before = agreed(&cluster);
    let follower = cluster.ids().into_iter().find(|&id| id != leader).unwrap();

    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load_for(8, Duration::from_millis(300));
    proxies.cut(follower);
    let cut_at = Instant::now();
    ledger.load(8, |_| cut_at.elapsed() >= Duration::from_secs(5));
    proxies.heal(follower);
    ledger.settle();
    assert!(ledger.acknowledged.len() > 100, "the other two go on: {}", ledger.acknowledged.len());
    let ids = cluster.ids();
    // The check reads the follower up to the seal, and so waits until it has caught up.
    ledger.check(&cluster, &ids);
    assert_eq!(agreed(&cluster), before, "leader and term stay");
}

#[test]
fn a_follower_that_was_stopped_for_five_seconds_changes_neither_leader_nor_term() {
    let _turn = turn();
    let mut cluster = cluster("stopped", &calm());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let before = agreed(&cluster);
    let follower = cluster.ids().into_iter().find(|&id| id != leader).unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    cluster.signal(follower, rustix::process::Signal::STOP).unwrap();
    let stopped_at = Instant::now();
    ledger.load(8, |_| stopped_at.elapsed() >= Duration::from_secs(5));
    cluster.signal(follower, rustix::process::Signal::CONT).unwrap();
    ledger.settle();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
    assert_eq!(agreed(&cluster), before, "leader and term stay");
}
