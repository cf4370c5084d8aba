//! Records of every size, every kind of acknowledgement, a log that is full.

use std::time::{Duration, Instant};

use plimsoll::client::{Client, Outcome, Reader, Submit};
use plimsoll::local::{Cluster, Shape};
use plimsoll::types::{Acks, Index, NodeId, ShardId, Timestamp};

use crate::ledger::payload;
use crate::{calm, cluster, small, turn};

fn submit_and_wait(client: &mut Client, submit: Submit<'_>) -> Outcome {
    let request = client.submit(submit).unwrap();
    client.flush();
    let until = Instant::now() + Duration::from_secs(60);
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(Instant::now() < until, "no outcome");
        client.poll(Duration::from_millis(100), &mut completions);
    }
    assert_eq!(completions.len(), 1);
    assert_eq!(completions[0].request, request);
    completions[0].outcome
}

/// Submits a record again for as long as its outcome leaves open whether it is there: a machine that stalls for longer
/// than an election timeout may cost a leader its term. Where it stands then, and how often it was submitted.
fn submit_until_committed(cluster: &Cluster, client: &mut Client, bytes: &[u8]) -> (Index, usize) {
    let mut submits = 0;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        submits += 1;
        match submit_and_wait(client, Submit::new(ShardId(0), bytes)) {
            Outcome::Committed { id, .. } => return (id.index, submits),
            Outcome::Unknown | Outcome::Deadline | Outcome::NotLeader { .. } if Instant::now() < until => {}
            other => panic!("{} bytes: {other:?}{}", bytes.len(), cluster.all_last_words()),
        }
    }
}

/// A node's records up to the one at `last`.
fn read_up_to(cluster: &Cluster, id: NodeId, last: Index) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(cluster.client_options(), id, ShardId(0), Index(1)).unwrap();
    let mut records = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "node {id} has {} records", records.len());
        if let Some(record) = reader.next_record(Duration::from_secs(1)).unwrap() {
            records.push(record.payload.to_vec());
            if record.id.index >= last {
                return records;
            }
        }
    }
}

fn read_all(cluster: &Cluster, count: usize) -> Vec<Vec<Vec<u8>>> {
    let mut replicas = Vec::new();
    for id in cluster.ids() {
        let mut reader = Reader::open(cluster.client_options(), id, ShardId(0), Index(1)).unwrap();
        let mut records = Vec::new();
        let until = Instant::now() + Duration::from_secs(60);
        while records.len() < count {
            assert!(Instant::now() < until, "node {id} has {} records", records.len());
            if let Some(record) = reader.next_record(Duration::from_secs(1)).unwrap() {
                records.push(record.payload.to_vec());
            }
        }
        replicas.push(records);
    }
    replicas
}

#[test]
fn records_from_one_byte_to_64_mib_come_back_whole_from_every_replica() {
    let _turn = turn();
    let shape = Shape { segment_mib: 64, capacity_mib: 1024, chunks: 16, ..Shape::default() };
    let mut cluster = cluster("sizes", &shape);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let sizes =
        [1, 7, 8, 4096, (1 << 20) - 64, (1 << 20) - 63, 286_208, 3 << 20, (16 << 20) + 1, 64 << 20, 100];
    let (mut expected, mut tries) = (Vec::new(), Vec::new());
    let mut last = Index(0);
    for (number, size) in sizes.into_iter().enumerate() {
        let mut bytes = payload(number as u64, size.max(8));
        bytes.truncate(size);
        let submits;
        (last, submits) = submit_until_committed(&cluster, &mut client, &bytes);
        expected.push(bytes);
        tries.push(submits);
    }
    for id in cluster.ids() {
        let mut records = read_up_to(&cluster, id, last);
        // One that was submitted again may be there as often, each time whole; any other one is there once.
        for (copies, tries) in records.chunk_by(|one, other| one == other).zip(&tries) {
            assert!(copies.len() <= *tries, "{} copies of {tries} on node {id}", copies.len());
        }
        records.dedup();
        let sizes = |records: &[Vec<u8>]| records.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&records), sizes(&expected), "node {id}");
        for (found, expected) in records.iter().zip(&expected) {
            assert!(found == expected, "a record of {} bytes is altered on node {id}", expected.len());
        }
    }
}

#[test]
fn each_kind_of_acknowledgement_is_answered() {
    let _turn = turn();
    let mut cluster = cluster("acks", &calm());
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let mut last = Index(0);
    for (number, acks) in
        [Acks::None, Acks::Leader, Acks::Quorum, Acks::None, Acks::Quorum].into_iter().enumerate()
    {
        let bytes = payload(number as u64, 64);
        let submit =
            Submit { acks, timestamp: Timestamp(900 + number as u64), ..Submit::new(ShardId(0), &bytes) };
        match submit_and_wait(&mut client, submit) {
            Outcome::Committed { id, timestamp } => {
                assert_eq!(timestamp, Timestamp(900 + number as u64));
                assert!(id.index > last);
                last = id.index;
            }
            other => panic!("{acks:?}: {other:?}"),
        }
    }
    for records in read_all(&cluster, 5) {
        assert!(records.iter().enumerate().all(|(number, bytes)| *bytes == payload(number as u64, 64)));
    }
}

/// Every answer was as long as an answer can be, whatever was asked for.
#[test]
fn a_read_is_as_long_as_was_asked_for_and_one_record_at_least() {
    let _turn = turn();
    let mut cluster = cluster("bounded", &calm());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let mut client = Client::connect(cluster.client_options()).unwrap();
    for number in 0..20 {
        let outcome = submit_and_wait(&mut client, Submit::new(ShardId(0), &payload(number, 1000)));
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }
    // Each is its header of 64 bytes and its payload; the first entry is the leader's no-op.
    for (bytes_max, records) in
        [(0, 1), (1063, 1), (1064, 1), (2127, 1), (2128, 2), (5000, 4), (u32::MAX, 20)]
    {
        let found = client.read(leader, ShardId(0), Index(2), bytes_max, None).unwrap().unwrap();
        assert_eq!(
            (found.bytes.len(), found.next),
            (records * 1064, Index(2 + records as u64)),
            "{bytes_max}"
        );
    }
}

#[test]
fn a_full_log_says_so_and_keeps_what_it_has() {
    let _turn = turn();
    let shape = Shape { segment_mib: 8, capacity_mib: 16, ..calm() };
    let mut cluster = cluster("full", &shape);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let mut taken = 0_u64;
    let outcome = loop {
        let bytes = payload(taken, 100_000);
        match submit_and_wait(&mut client, Submit::new(ShardId(0), &bytes)) {
            Outcome::Committed { .. } => taken += 1,
            other => break other,
        }
        assert!(taken < 200, "16 MiB do not hold {taken} records of 100 kB");
    };
    assert_eq!(outcome, Outcome::LogFull);
    assert!(taken > 100, "full after {taken} records of 100 kB");
    // What is there stays, over a restart of all nodes too: an election still finds room for its votes.
    for id in cluster.ids() {
        cluster.kill(id).unwrap();
    }
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    for records in read_all(&cluster, taken as usize) {
        assert!(records.iter().enumerate().all(|(number, bytes)| *bytes == payload(number as u64, 100_000)));
    }
}

/// Whoever reads a follower up to a read index has everything that was committed before it was asked for, whoever
/// leads.
#[test]
fn a_read_index_misses_nothing_that_was_committed_before() {
    let _turn = turn();
    let mut cluster = cluster("index", &small());
    cluster.start_all().unwrap();
    let mut leader = cluster.await_leaders().unwrap()[0];
    let (mut writer, mut asker) = [(); 2].map(|()| Client::connect(cluster.client_options()).unwrap()).into();
    let (patience, mut committed) = (Duration::from_secs(20), 0);
    for to in cluster.ids().into_iter().cycle().take(6) {
        committed += 1;
        let (last, _) = submit_until_committed(&cluster, &mut writer, &payload(committed, 100));
        let (_, index) = asker.read_index(ShardId(0), patience).unwrap();
        assert!(index >= last, "record {committed} is at {last}, and {index} is told");
        let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
        assert_eq!(read_up_to(&cluster, follower, last).last(), Some(&payload(committed, 100)));
        let until = Instant::now() + patience;
        while leader != to && cluster.await_leaders().unwrap() != [to] {
            assert!(Instant::now() < until, "node {to} does not lead");
            // Whether it worked shows when the leader is asked again.
            let _ = asker.transfer(ShardId(0), to, patience);
        }
        leader = to;
    }
    assert_eq!(committed, 6);
}
