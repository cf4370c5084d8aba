//! A bad day: nodes that stand still, leaders that are moved in the middle of something, clients that never read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use plimsoll::client::{self, Client, Completion, Reader, Submit};
use plimsoll::local::{Cluster, Shape, slowness};
use plimsoll::log::record::payload_crc;
use plimsoll::node::Config;
use plimsoll::node::config::LinkKind;
use plimsoll::types::{Acks, Epoch, Index, LaneId, NodeId, ShardId, StoreId, Timestamp};
use plimsoll::wire;
use plimsoll::wire::client::{Outcome, Reply, Request};
use plimsoll::wire::frame::{self, Builder, Kind};
use plimsoll::wire::hello::{Greeting, Hello};
use rustix::process::Signal;

use crate::ledger::{Ledger, payload};
use crate::{calm, cluster, small, turn};

const SHARD: ShardId = ShardId(0);

fn await_outcomes(client: &mut Client, count: usize, into: &mut Vec<Completion>) {
    let until = Instant::now() + Duration::from_secs(60);
    while into.len() < count {
        assert!(Instant::now() < until, "{} of {count} submits have an outcome", into.len());
        client.poll(Duration::from_millis(100), into);
    }
}

/// Records up to the one at `last`, as lengths and first bytes.
fn read_until(cluster: &Cluster, node: NodeId, last: Index) -> Vec<(Index, Vec<u8>)> {
    let mut reader = Reader::open(cluster.client_options(), node, SHARD, Index(1)).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let mut found = Vec::new();
    while found.last().is_none_or(|(index, _)| *index < last) {
        assert!(
            Instant::now() < until,
            "node {node} never gave {last}; committed there: {}",
            reader.commit()
        );
        if let Ok(Some(record)) = reader.next_record(Duration::from_millis(200)) {
            found.push((record.id.index, record.payload.to_vec()));
        }
    }
    found
}

/// A client that speaks the wire format by itself.
struct Raw {
    socket: TcpStream,
    incoming: Vec<u8>,
}

impl Raw {
    fn open(cluster: &Cluster, node: NodeId) -> Raw {
        let config = cluster.config(node);
        let socket = TcpStream::connect(config.me().unwrap().client_of(LaneId(0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let lanes = config.lanes;
        let hello = Hello {
            cluster: config.cluster_id(),
            node: None,
            store: StoreId(0),
            to: None,
            lane: LaneId(0),
            lanes,
        };
        let mut raw = Raw { socket, incoming: Vec::new() };
        raw.socket.write_all(&Greeting::Hello(hello).encode()).unwrap();
        assert!(matches!(Greeting::decode(&raw.frame()).unwrap(), Greeting::Welcome(_)));
        raw
    }

    fn send(&mut self, requests: &[Request<'_>]) {
        let mut builder = Builder::new(Kind::Request);
        let mut body = Vec::new();
        for request in requests {
            let payload = if let Request::Submit(submit) = request { submit.payload } else { &[] };
            builder.push(&request.encode(), payload.len());
            body.extend_from_slice(payload);
        }
        self.socket.write_all(builder.seal()).unwrap();
        self.socket.write_all(&body).unwrap();
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut bytes = [0; 1 << 16];
        loop {
            if let Some(header) = self.incoming.first_chunk() {
                let len_bytes = frame::announced_bytes(header).unwrap();
                if self.incoming.len() >= len_bytes {
                    return self.incoming.drain(..len_bytes).collect();
                }
            }
            let count = self.socket.read(&mut bytes).unwrap();
            assert!(count > 0, "the node has closed the connection");
            self.incoming.extend_from_slice(&bytes[..count]);
        }
    }

    /// Outcomes until there are so many, by request.
    fn outcomes(&mut self, count: usize) -> BTreeMap<u64, Outcome> {
        let mut outcomes = BTreeMap::new();
        while outcomes.len() < count {
            let frame = self.frame();
            for reply in wire::client::replies(&frame).unwrap() {
                if let Reply::Outcome { request, outcome } = reply {
                    outcomes.insert(request, outcome);
                }
            }
        }
        outcomes
    }
}

/// One part of a record.
fn part(request: u64, payload: &[u8], more_bytes: usize) -> Request<'_> {
    Request::Submit(wire::client::Submit {
        request,
        shard: SHARD,
        acks: Acks::Quorum,
        timestamp: Timestamp(0),
        epoch: Epoch(0),
        session: 0,
        serial: 0,
        payload_crc: payload_crc(payload),
        more_bytes: more_bytes as u32,
        payload,
    })
}

/// A leader was asked to hand over to a node that stood still, while it laid the parts of a long record. It refused the
/// rest of the record, kept leading in the same term when the transfer had come to nothing, and took the next record:
/// to every reader that was one more part of the one that had been broken off. Acknowledged, and gone.
#[test]
fn a_transfer_that_fails_while_a_long_record_is_laid_loses_nothing() {
    let _turn = turn();
    let mut cluster = cluster("transfer-long", &calm());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let asleep = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.signal(asleep, Signal::STOP).unwrap();

    let mut raw = Raw::open(&cluster, leader);
    let long = payload(1, 6 << 20);
    let parts: Vec<&[u8]> = long.chunks(1_000_000).collect();
    let mut more_bytes = long.len();
    for bytes in &parts[..parts.len() - 1] {
        more_bytes -= bytes.len();
        raw.send(&[part(1, bytes, more_bytes)]);
    }
    // The last part and the transfer come together, so that some parts are laid and some are not.
    let transfer = Request::Transfer { request: 2, shard: SHARD, to: asleep };
    raw.send(&[part(1, parts[parts.len() - 1], 0), transfer]);
    let outcomes = raw.outcomes(2);
    assert_eq!(outcomes[&2], Outcome::Accepted);

    let mut ends = Vec::new();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    for number in 2..5 {
        client.submit(Submit::new(SHARD, &payload(number, 100))).unwrap();
        await_outcomes(&mut client, number as usize - 1, &mut ends);
    }
    cluster.signal(asleep, Signal::CONT).unwrap();
    let mut committed: Vec<(u64, Index)> = ends
        .iter()
        .zip(2..)
        .map(|(end, number)| match end.outcome {
            client::Outcome::Committed { id, .. } => (number, id.index),
            other => panic!("record {number}: {other:?}"),
        })
        .collect();
    let last = committed.last().unwrap().1;
    if let Outcome::Committed { id, .. } = outcomes[&1] {
        committed.insert(0, (1, id.index));
    }
    for node in cluster.ids() {
        let found = read_until(&cluster, node, last);
        let told: Vec<(Index, usize)> = found.iter().map(|(index, bytes)| (*index, bytes.len())).collect();
        assert_eq!(found.len(), committed.len(), "{told:?} of {committed:?}, first {:?}", outcomes[&1]);
        for ((number, index), (at, bytes)) in committed.iter().zip(&found) {
            let expected = payload(*number, if *number == 1 { long.len() } else { 100 });
            assert!(at == index && *bytes == expected, "record {number} at {index} on node {node}: {told:?}");
        }
    }
}

/// Leaders that stand still and wake up again, for less and for more than anything waits.
#[test]
fn a_leader_that_stands_still_loses_nothing() {
    let _turn = turn();
    let mut cluster = cluster("stopped", &Shape { shards: 1, ..small() });
    cluster.start_all().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    for still_ms in [30, 120, 400, 1500, 3000] {
        let leader = cluster.await_leaders().unwrap()[0];
        ledger.load_for(32, Duration::from_millis(150));
        cluster.signal(leader, Signal::STOP).unwrap();
        ledger.load_for(32, Duration::from_millis(still_ms));
        cluster.signal(leader, Signal::CONT).unwrap();
        let before = ledger.acknowledged.len();
        ledger.load(32, |ledger| ledger.acknowledged.len() >= before + 50);
    }
    // All of them at once: nobody is left to notice.
    for id in cluster.ids() {
        cluster.signal(id, Signal::STOP).unwrap();
    }
    ledger.load_for(32, Duration::from_millis(1200));
    for id in cluster.ids() {
        cluster.signal(id, Signal::CONT).unwrap();
    }
    ledger.load_for(32, Duration::from_millis(300));
    ledger.settle();
    let ids = cluster.ids();
    let found = ledger.check(&cluster, &ids);
    println!("{found} there, {} unknown, {} refused", ledger.unknown.len(), ledger.refused.len());
    assert!(found > 300, "too little load: {found}");
}

fn descriptors(cluster: &Cluster, id: NodeId) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(id).unwrap())).unwrap().count()
}

fn resident_mib(cluster: &Cluster, id: NodeId) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", cluster.pid(id).unwrap())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let _turn = turn();
    let mut cluster = cluster("comers", &calm());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let round = |count: u64| {
        for number in 0..count {
            let mut client = Client::connect(cluster.client_options()).unwrap();
            let _ = client.submit(Submit::new(SHARD, &payload(number, 300)));
            client.flush();
            let _ = client.poll(Duration::from_millis(if number % 3 == 0 { 5 } else { 0 }), &mut Vec::new());
            let mut reader = Reader::open(cluster.client_options(), leader, SHARD, Index(1 << 40)).unwrap();
            let _ = reader.next_record(Duration::from_millis(1));
            let address = cluster.config(leader).me().unwrap().peer_of(plimsoll::types::LaneId(0));
            drop(std::net::TcpStream::connect(address));
        }
    };
    round(100);
    let (files, memory) = (descriptors(&cluster, leader), resident_mib(&cluster, leader));
    round(400);
    let until = Instant::now() + Duration::from_secs(5);
    while descriptors(&cluster, leader) > files + 4 {
        assert!(Instant::now() < until, "{} descriptors, before {files}", descriptors(&cluster, leader));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let grown = resident_mib(&cluster, leader) - memory.min(resident_mib(&cluster, leader));
    assert!(grown < 8, "{grown} MiB more than before");
}

/// Puts so many MiB into each shard, in records of 100 kB.
fn pour(cluster: &Cluster, shards: u32, mib: u64) -> Vec<Index> {
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let mut ends = Vec::new();
    let count = mib * 10;
    let mut last = vec![Index(0); shards as usize];
    for number in 0..count {
        for shard in 0..shards {
            while client.outstanding() > 64 {
                client.poll(Duration::from_millis(100), &mut ends);
            }
            client.submit(Submit::new(ShardId(shard), &payload(number, 104_000))).unwrap();
        }
    }
    let total = (count * u64::from(shards)) as usize;
    await_outcomes(&mut client, total, &mut ends);
    for end in &ends {
        let client::Outcome::Committed { id, .. } = end.outcome else {
            panic!("{end:?}{}", cluster.all_last_words())
        };
        let place = &mut last[end.shard.0 as usize];
        *place = (*place).max(id.index);
    }
    last
}

#[test]
fn a_follower_far_behind_catches_up_beside_readers_with_little_memory() {
    let _turn = turn();
    let (shards, mib) = (4, 25);
    let shape = Shape { shards, nodes: 3, capacity_mib: 1024, chunks: 4, ..calm() };
    let mut cluster = cluster("behind", &shape);
    cluster.start_all().unwrap();
    let leaders = cluster.await_leaders().unwrap();
    let behind = cluster.ids().into_iter().find(|id| *id != leaders[0]).unwrap();
    cluster.kill(behind).unwrap();
    let begun = Instant::now();
    let last = pour(&cluster, shards, mib);
    println!("poured in {:?}", begun.elapsed());
    let begun = Instant::now();
    cluster.start(behind).unwrap();
    let readers: Vec<_> = (0..shards)
        .map(|shard| {
            let (options, node, last) = (cluster.client_options(), leaders[0], last[shard as usize]);
            std::thread::spawn(move || {
                let begun = Instant::now();
                let mut reader = Reader::open(options, node, ShardId(shard), Index(1)).unwrap();
                let mut count = 0;
                loop {
                    let Some(record) = reader.next_record(Duration::from_secs(20)).unwrap() else {
                        panic!("shard {shard}: nothing after {count} records")
                    };
                    count += 1;
                    if record.id.index >= last {
                        return (count, begun.elapsed());
                    }
                }
            })
        })
        .collect();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    for shard in 0..shards {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let status = client.status(behind, ShardId(shard), Duration::from_secs(5));
            if status.as_ref().is_ok_and(|status| status.commit >= last[shard as usize]) {
                break;
            }
            assert!(Instant::now() < until, "shard {shard} is at {status:?}, wanted {last:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        println!("shard {shard} caught up after {:?}", begun.elapsed());
    }
    for reader in readers {
        let (count, took) = reader.join().unwrap();
        println!("{count} records read in {took:?}");
        assert_eq!(count, mib * 10);
    }
}

/// A node that is killed in its first moments, again and again, and then left alone.
#[test]
fn a_node_killed_while_it_starts_opens_at_last() {
    let _turn = turn();
    let mut cluster = cluster("infant", &small());
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let victim = NodeId(3);
    let mut ledger = Ledger::open(&cluster, 0);
    cluster.kill(victim).unwrap();
    let mut state = u64::from(std::process::id());
    for _ in 0..30 {
        cluster.start(victim).unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ledger.load_for(8, Duration::from_micros(state >> 33 & 0xffff));
        assert!(cluster.has_ended(victim).unwrap().is_none(), "{}", cluster.last_words(victim));
        cluster.kill(victim).unwrap();
    }
    cluster.start(victim).unwrap();
    cluster.await_leaders().unwrap();
    ledger.settle();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

/// A whole cluster that is killed before it has its first segment, again and again.
#[test]
fn a_cluster_killed_while_it_is_made_is_made_at_last() {
    let _turn = turn();
    let mut cluster = cluster("unborn", &small());
    let mut state = u64::from(std::process::id());
    for _ in 0..12 {
        cluster.start_all().unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::park_timeout(Duration::from_micros(state >> 33 & 0x1ffff));
        for id in cluster.ids() {
            assert!(cluster.has_ended(id).unwrap().is_none(), "{}", cluster.last_words(id));
            cluster.kill(id).unwrap();
        }
    }
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load_for(8, Duration::from_millis(200));
    ledger.settle();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

#[test]
fn a_hundred_thousand_submits_at_once_all_end() {
    let _turn = turn();
    let mut cluster = cluster("many", &calm());
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut options = cluster.client_options();
    options.outstanding_max = 100_000;
    let mut client = Client::connect(options).unwrap();
    for number in 0..100_000 {
        client.submit(Submit::new(SHARD, &payload(number, 16))).unwrap();
    }
    let mut ends = Vec::new();
    await_outcomes(&mut client, 100_000, &mut ends);
    let committed = ends.iter().filter(|end| end.outcome.is_committed()).count();
    let mut others: Vec<_> = ends.iter().map(|end| end.outcome).filter(|end| !end.is_committed()).collect();
    others.dedup();
    println!("{committed} committed, others {others:?}");
    assert!(committed >= 65_536, "{committed} {others:?}");
}

/// A lane's directory lay on a filesystem of its own that was not mounted: the node began a new log, with no vote and
/// no record of what it had promised, and its peers believed it because its identity was still there.
#[test]
fn a_node_whose_log_is_gone_does_not_start() {
    let mut cluster = cluster("lost-log", &Shape { nodes: 1, lanes: 2, shards: 2, ..small() });
    let id = NodeId(1);
    cluster.start(id).unwrap();
    cluster.await_leaders().unwrap();
    // The node says that it is complete a moment after its lanes have begun to serve.
    let data_dir = cluster.config(id).data_dir.clone();
    let until = Instant::now() + Duration::from_secs(5);
    while !data_dir.join("complete").exists() {
        assert!(Instant::now() < until, "the directory is never complete");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    cluster.kill(id).unwrap();
    let (lane, kept) = (data_dir.join("lane-0001"), data_dir.join("elsewhere"));
    std::fs::rename(&lane, &kept).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir(&lane).unwrap();
        }
        cluster.start(id).unwrap();
        assert_eq!(cluster.wait(id).unwrap().code(), Some(2), "{}", cluster.last_words(id));
        assert!(cluster.last_words(id).contains("the log of lane 1 is gone"), "{}", cluster.last_words(id));
    }
    std::fs::remove_dir(&lane).unwrap();
    std::fs::rename(&kept, &lane).unwrap();
    cluster.start(id).unwrap();
    cluster.await_leaders().unwrap();
}

/// Followers of the log that never read what they are sent, and one that reads: the silent ones are dropped, memory
/// does not grow with what is committed, commits go on.
#[test]
fn readers_that_never_read_are_dropped() {
    let _turn = turn();
    let shape = Shape { segment_mib: 16, capacity_mib: 1024, chunks: 8, ..Shape::default() };
    let mut cluster = cluster("mute", &shape);
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let last = pour(&cluster, 1, 20)[0];
    let before = resident_mib(&cluster, leader);
    let mut mute: Vec<Raw> = (0..20).map(|_| Raw::open(&cluster, leader)).collect();
    for raw in &mut mute {
        let read =
            |request| Request::Read { request, shard: SHARD, from: Index(2), bytes_max: 1 << 20, wait: true };
        let requests: Vec<Request<'_>> = (0..40).map(read).collect();
        raw.send(&requests);
    }
    let began = Instant::now();
    let found = read_until(&cluster, leader, last);
    println!("{} records beside the mute in {:?}", found.len(), began.elapsed());
    assert_eq!(found.len(), 200);
    pour(&cluster, 1, 20);
    let until = Instant::now() + Duration::from_secs(10);
    while cluster.log(leader).matches("it does not read").count() < mute.len().min(5) {
        assert!(Instant::now() < until, "nobody was dropped:\n{}", cluster.last_words(leader));
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let grown = resident_mib(&cluster, leader).saturating_sub(before);
    assert!(grown < 100, "{grown} MiB more for what nobody reads");
    drop(mute);
}

/// Clusters of one node and of five, on the other family of addresses.
#[test]
fn one_node_and_five_over_ipv6() {
    let _turn = turn();
    for nodes in [1, 5] {
        let on_six = |config: &mut plimsoll::node::Config| {
            for member in &mut config.members {
                for address in [&mut member.peer, &mut member.client] {
                    address.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
                }
            }
        };
        let shape = Shape { nodes, shards: 3, tune: on_six, ..small() };
        let mut cluster = cluster("six", &shape);
        cluster.start_all().unwrap();
        let leader = cluster.await_leaders().unwrap()[1];
        let mut ledger = Ledger::open(&cluster, 1);
        ledger.load_for(8, Duration::from_millis(200));
        if nodes > 1 {
            let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
            cluster.kill(leader).unwrap();
            cluster.kill(other).unwrap();
            ledger.load_for(8, Duration::from_millis(500));
            cluster.start_all().unwrap();
            cluster.await_leaders().unwrap();
        } else {
            // Whoever is alone has nobody to hand over to, and nothing to wait for.
            let begun = Instant::now();
            ledger.settle();
            cluster.signal(leader, Signal::TERM).unwrap();
            assert_eq!(cluster.wait(leader).unwrap().code(), Some(0));
            println!("stopped in {:?}", begun.elapsed());
            cluster.start_all().unwrap();
            cluster.await_leaders().unwrap();
        }
        ledger.settle();
        let ids = cluster.ids();
        let found = ledger.check(&cluster, &ids);
        println!("{nodes} nodes: {found} records");
    }
}

/// Exchanges the addresses of the first node's two peers, over every link.
fn exchange_others(config: &mut Config) {
    let (two, three) = (config.members[1].peer, config.members[2].peer);
    (config.members[1].peer, config.members[2].peer) = (three, two);
    if let [two, three] = &mut config.dpdk.peers[..] {
        core::mem::swap(&mut two.address, &mut three.address);
    }
}

/// Where a node's configuration says that another is reached over the link that it prefers.
fn address_of(config: &Config, node: NodeId) -> SocketAddr {
    match config.links[0] {
        LinkKind::Dpdk => config.dpdk.address_of(node, LaneId(0)).unwrap().into(),
        _ => config.members[node.0 as usize - 1].peer,
    }
}

/// Two addresses of the others exchanged by mistake.
#[test]
fn a_node_that_has_its_peers_mixed_up_disturbs_nobody() {
    let _turn = turn();
    let mut cluster = cluster("mixed", &small());
    cluster.reconfigure(NodeId(1), exchange_others).unwrap();
    cluster.start_all().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load_for(8, Duration::from_secs(2) * slowness());
    ledger.settle();
    assert!(ledger.acknowledged.len() > 100, "the other two serve: {}", ledger.acknowledged.len());
    for (expected, found) in [(2, 3), (3, 2)] {
        let at = address_of(cluster.config(NodeId(1)), NodeId(expected));
        let line = format!("node {expected} was expected at {at}, and node {found} answers there");
        let log = cluster.log(NodeId(1));
        assert_eq!(log.matches(&line).count(), 1, "said once, not at every attempt:\n{log}");
        let log = cluster.log(NodeId(found));
        assert!(!log.contains("connected with node 1"), "{log}");
        assert_eq!(log.matches(&format!("hello is meant for node {expected}")).count(), 1, "{log}");
    }
    // What is put right is right again, and nothing of the mistake stays.
    cluster.kill(NodeId(1)).unwrap();
    cluster.reconfigure(NodeId(1), exchange_others).unwrap();
    cluster.start(NodeId(1)).unwrap();
    cluster.await_leaders().unwrap();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

/// A node without peers has no heartbeat that wakes it: whatever waits must be woken by what it waits for.
#[test]
fn many_readers_of_a_lonely_node_with_little_memory_all_come_to_the_end() {
    let _turn = turn();
    let (shards, mib) = (3, 20);
    let shape = Shape { shards, nodes: 1, segment_mib: 16, capacity_mib: 512, chunks: 4, ..Shape::default() };
    let mut cluster = cluster("lonely", &shape);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let last = pour(&cluster, shards, mib);
    let readers: Vec<_> = (0..12)
        .map(|number| {
            let (options, shard) = (cluster.client_options(), number % shards);
            let last = last[shard as usize];
            std::thread::spawn(move || {
                let from = Index(1 + 13 * u64::from(number));
                let mut reader = Reader::open(options, NodeId(1), ShardId(shard), from).unwrap();
                let mut slowest = Duration::ZERO;
                loop {
                    let begun = Instant::now();
                    let record = reader.next_record(Duration::from_secs(10)).unwrap();
                    slowest = slowest.max(begun.elapsed());
                    let Some(record) = record else { panic!("reader {number}: nothing more in 10 s") };
                    if record.id.index >= last {
                        return slowest;
                    }
                }
            })
        })
        .collect();
    let slowest: Vec<Duration> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    println!("slowest steps {slowest:?}");
}
