//! Who leads: elected once, each shard for itself, and told to the engine, whose epoch it ends.

use std::time::{Duration, Instant};

use plimsoll::client::ring::Event;
use plimsoll::client::{Client, Submit};
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::Config;
use plimsoll::raft::Role;
use plimsoll::types::{Epoch, NodeId, ShardId, Term};
use plimsoll::wire::client::{Outcome, ShardStatus};

use crate::rack::{Engine, at, cluster, small};
use crate::{PATIENCE, turn};

fn status(client: &mut Client, id: NodeId, shard: u32) -> ShardStatus {
    client.status(id, ShardId(shard), PATIENCE).unwrap()
}

/// What every node that runs has seen: one leader, elected once.
fn assert_elected_once(cluster: &mut Cluster) {
    let leader = cluster.await_leaders().unwrap()[0];
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let running = cluster.ids().into_iter().filter(|id| cluster.pid(*id).is_some());
    let seen: Vec<ShardStatus> = running.map(|id| status(&mut client, id, 0)).collect();
    for found in &seen {
        let is_seen = (found.leader, found.elections, found.term);
        assert_eq!(is_seen, (Some(leader), 1, seen[0].term), "{seen:?}{}", cluster.all_last_words());
        // Two that stand at the same moment may split the first term's votes.
        assert!(found.term <= Term(2), "{seen:?}{}", cluster.all_last_words());
    }
    let won = |id: NodeId| cluster.log(id).matches(" leads term ").count();
    assert_eq!(cluster.ids().into_iter().map(won).sum::<usize>(), 1);
}

#[test]
fn n02_nodes_started_at_once_or_apart_elect_once() {
    /// How far apart they were started there: several times as long as an election waits.
    const APART: Duration = Duration::from_secs(2);
    let _turn = turn();
    let mut at_once = cluster("at-once", &small());
    at_once.start_all().unwrap();
    assert_elected_once(&mut at_once);
    drop(at_once);

    let mut apart = cluster("apart", &small());
    apart.start(NodeId(1)).unwrap();
    let until = Instant::now() + PATIENCE;
    let mut client = loop {
        match Client::connect(apart.client_options()) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    // There is no event to wait for: in this time nothing must happen.
    std::thread::sleep(APART);
    let alone = status(&mut client, NodeId(1), 0);
    assert_eq!((alone.term, alone.leader, alone.elections), (Term(0), None, 0), "alone it asks, and stays");
    apart.start(NodeId(2)).unwrap();
    assert_elected_once(&mut apart);
    std::thread::sleep(APART);
    apart.start(NodeId(3)).unwrap();
    assert_elected_once(&mut apart);
}

/// Brings each shard's leadership to a node of its own.
fn lead(cluster: &mut Cluster, client: &mut Client, places: &[NodeId]) {
    let until = Instant::now() + PATIENCE;
    while cluster.await_leaders().unwrap() != places {
        assert!(Instant::now() < until, "the shards are not led by {places:?}");
        for (shard, to) in (0..).map(ShardId).zip(places) {
            // Whether it worked shows when the leaders are asked again.
            let _ = client.transfer(shard, *to, PATIENCE);
        }
    }
}

#[test]
fn n12_a_shard_without_a_leader_holds_no_other_up() {
    let _turn = turn();
    let tune = |config: &mut Config| {
        // So long, at least, shard 1 has nobody.
        config.raft.election_timeout_ms = 1000;
        config.raft.heartbeat_ms = 100;
    };
    let mut cluster = cluster("shards", &Shape { shards: 2, tune, ..small() });
    cluster.start_all().unwrap();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    lead(&mut cluster, &mut client, &[NodeId(1), NodeId(2)]);
    let before = status(&mut client, NodeId(1), 1).term;
    cluster.kill(NodeId(2)).unwrap();

    let (mut meanwhile, mut completions) = (0, Vec::new());
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "{meanwhile} commits, and shard 1 has no leader again");
        client.submit(Submit::new(ShardId(0), b"of shard 0")).unwrap();
        while client.outstanding() > 0 {
            assert!(Instant::now() < until, "shard 0 does not go on");
            client.flush();
            client.poll(PATIENCE, &mut completions);
        }
        let has_leader = [1, 3].iter().any(|id| {
            let status = status(&mut client, NodeId(*id), 1);
            status.role == Role::Leader && status.term > before
        });
        if has_leader {
            break;
        }
        meanwhile += completions.iter().filter(|ended| ended.outcome.is_committed()).count();
        completions.clear();
    }
    // Each of these was committed while shard 1 had nobody who could have.
    assert!(meanwhile > 0);
    assert_eq!(
        status(&mut client, NodeId(1), 0).role,
        Role::Leader,
        "shard 0 had the same leader all the while"
    );
    cluster.start(NodeId(2)).unwrap();
    cluster.await_leaders().unwrap();
}

#[test]
fn n15_a_change_of_leader_ends_the_epoch() {
    let _turn = turn();
    let mut engine = Engine::start("epochs", 2, 1 << 20);
    engine.register(0..2);
    engine.commit(0, at(0, 10), b"an entry");
    engine.commit(1, at(0, 12), b"an entry");
    let old = engine.leads(1).unwrap();
    let new = engine.rack.cluster.ids().into_iter().find(|id| *id != old).unwrap();
    let term = engine.seats[old.0 as usize - 1].streams[1].role().unwrap().term;

    let from = engine.told.len();
    engine.ring(old, 1).transfer(new).unwrap();
    let told = |engine: &Engine, node: NodeId, gained: bool| {
        engine.told[from..].iter().any(|told| match told {
            (at, ShardId(1), Event::Role(role)) if *at == node => {
                (role.role == Role::Leader) == gained && role.term > term
            }
            _ => false,
        })
    };
    engine.run_until("one is told that it has lost the lead, another that it has gained it", |engine| {
        told(engine, old, false) && told(engine, new, true)
    });
    // Shard 0 has kept its leader; its epoch ends all the same, and is over everywhere at the same stamp.
    engine.run_until("epoch 1 is told everywhere", |engine| {
        let mut roles =
            engine.seats.iter().flat_map(|seat| &seat.streams).map(|stream| stream.role().unwrap());
        roles.all(|role| role.epoch == Epoch(1))
    });
    engine.run_until("both streams take records", |engine| (0..2).all(|shard| engine.takes(shard).is_some()));
    for shard in 0..2 {
        assert_eq!(engine.submit(shard, at(0, 50), b"late"), Outcome::EpochClosed { open: Epoch(1) });
        engine.commit(shard, at(1, 1), b"an entry");
    }
    engine.await_watermark(at(1, 1));
    for seat in &engine.seats {
        let mut replayed: Vec<_> = seat.replayed.iter().map(|(shard, stamp, _)| (*stamp, shard.0)).collect();
        replayed.sort_unstable();
        // Nobody can know what stream 0 had beyond 10, nor stream 1 beyond 12: of epoch 0 lives what is under both.
        assert_eq!(replayed, [(at(0, 10), 0), (at(1, 1), 0), (at(1, 1), 1)]);
        assert_eq!(seat.replica.replay().counters().dead, 1);
    }
    engine.stop();
}
