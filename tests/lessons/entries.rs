//! What a record may be: any bytes, any stamp, up to 64 MiB.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll::client::{Client, Outcome, Submit};
use plimsoll::engine::board::Board;
use plimsoll::engine::{Mark, Position};
use plimsoll::limits::{ENTRY_PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};
use plimsoll::local::{Cluster, Shape};
use plimsoll::log::record::{self, Header, Kind};
use plimsoll::node::config::LinkKind;
use plimsoll::types::{Acks, Epoch, NodeId, ShardId, Stamp, Timestamp};
use plimsoll::wire::client::{Outcome as Answer, Request};
use plimsoll::wire::frame;

use crate::rack::{
    Engine, Rack, assert_committed, at, cluster_with_sockets, connect, read, small, submit, submit_all, take,
};
use crate::{PATIENCE, turn};

/// Every byte, runs of one byte, the engine's control entries, the shortest and the longest that is one entry, and one
/// longer.
fn plain_records() -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    records.push((0..=u8::MAX).collect());
    for len_bytes in [2, 8, 64, 4096, 70_000] {
        records.extend([vec![0; len_bytes], vec![0xff; len_bytes]]);
    }
    records.push(b"no-ops:1".to_vec());
    for len_bytes in [ENTRY_PAYLOAD_BYTES_MAX, ENTRY_PAYLOAD_BYTES_MAX + 1] {
        records.push((0..len_bytes).map(|at| ((at * at) >> 7) as u8).collect());
    }
    records
}

/// What looks like this program's own: sealed records of every kind, and frames.
fn look_alikes() -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for kind in [Kind::Data, Kind::Noop, Kind::Vote, Kind::Mark] {
        for index in [0, 1, 300, u64::MAX] {
            let header = Header {
                len_bytes: 4,
                payload_crc: record::payload_crc(b"fake"),
                term: 1,
                index,
                serial: 2,
                kind: kind as u8,
                ..Header::default()
            };
            let mut laid = vec![0; record::span_bytes(4)];
            record::lay(header, b"fake", &mut laid);
            records.push(laid.repeat(3));
            records.push(laid);
        }
    }
    for kind in [frame::Kind::Request, frame::Kind::Peer] {
        let mut head = frame::Builder::new(kind);
        head.push(&Request::Status { request: 1, shard: ShardId(0) }.encode(), 0);
        records.push(head.seal().to_vec());
    }
    records
}

/// Pieces of a log as it lies on the disk, its own headers and marks among them.
fn pieces_of_log(data_dir: &Path) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for entry in std::fs::read_dir(data_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pieces.extend(pieces_of_log(&path));
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(ENTRY_PAYLOAD_BYTES_MAX);
        let lengths = [64, 512, 4096, bytes.len()].into_iter().filter(|len| (1..=bytes.len()).contains(len));
        pieces.extend(lengths.map(|len| bytes[..len].to_vec()));
    }
    pieces
}

#[test]
fn n01_entries_are_opaque_bytes() {
    let _turn = turn();
    let mut rack = Rack::start("opaque", &small());
    let leader = rack.leader();
    let mut ring = rack.attach(leader, 0, 1);
    let mut records = plain_records();
    records.extend(look_alikes());
    submit_all(&mut ring, &records);
    let refused = ring.submit(&[], Timestamp(0), Epoch(0), Acks::Quorum).unwrap_err();
    assert_eq!(refused.to_string(), format!("a record of 0 bytes: 1 to {RECORD_BYTES_MAX} are allowed"));

    // A log that holds pieces of itself is opened again, twice, and still told apart from them.
    for _ in 0..2 {
        drop(ring);
        rack.stop_all();
        let pieces = pieces_of_log(&rack.cluster.config(leader).data_dir);
        assert!(pieces.iter().any(|piece| piece.len() == ENTRY_PAYLOAD_BYTES_MAX), "no segment was found");
        rack.start_all();
        ring = rack.attach(rack.leader(), 0, 1);
        submit_all(&mut ring, &pieces);
        records.extend(pieces);
    }
    for id in rack.cluster.ids() {
        let found = read(&rack.cluster, id, records.len());
        for (at, (found, record)) in found.iter().zip(&records).enumerate() {
            assert!(found.payload == *record, "record {at}, of {} bytes, on node {id}", record.len());
        }
    }
    drop(ring);
    rack.stop_all();
}

/// Beyond 22 s of microseconds times ten, 31 and 32 bits, what a double holds, and the last.
const TIMESTAMPS: [u64; 7] = [
    21_474_837,
    1 << 31,
    (1 << 32) + 1,
    u32::MAX as u64 * 10 + 9,
    (i32::MAX as u64 * 10 + 9) * 10 + 5,
    (1 << 53) + 1,
    u64::MAX - 1,
];

#[test]
fn n07_stamps_are_64_bits_and_an_epoch_and_never_one_int() {
    let _turn = turn();
    // Through the log of shards that are nobody's streams every epoch may pass.
    let mut rack = Rack::start("stamps", &small());
    let mut ring = rack.attach(rack.leader(), 0, 1);
    let epochs = [0, 1 << 31, u32::MAX - 1];
    let stamps: Vec<Stamp> =
        epochs.iter().flat_map(|epoch| TIMESTAMPS.map(|timestamp| at(*epoch, timestamp))).collect();
    for stamp in &stamps {
        let request = submit(&mut ring, b"an entry", *stamp, assert_committed);
        take(&mut ring, |ended, outcome| {
            assert_eq!(ended, request);
            assert!(
                matches!(outcome, Answer::Committed { timestamp, .. } if timestamp == stamp.timestamp),
                "{stamp}: {outcome:?}"
            );
        });
    }
    for id in rack.cluster.ids() {
        let found: Vec<Stamp> =
            read(&rack.cluster, id, stamps.len()).iter().map(|found| found.stamp).collect();
        assert_eq!(found, stamps);
    }
    drop(ring);
    rack.stop_all();

    // Through streams, watermarks and replicas.
    let mut engine = Engine::start("stamps", 2, 1 << 20);
    engine.register(0..2);
    for timestamp in TIMESTAMPS {
        for shard in 0..2 {
            engine.commit(shard, at(0, timestamp), b"an entry");
        }
        engine.await_watermark(at(0, timestamp));
        assert_eq!(engine.submit(0, at(0, timestamp), b"again"), Answer::Behind { last: at(0, timestamp) });
    }
    assert_eq!(engine.submit(0, at(0, u64::MAX), b"the end"), Answer::Invalid);
    for seat in &engine.seats {
        let of_stream_0 = seat.replayed.iter().filter(|(shard, ..)| *shard == ShardId(0));
        let found: Vec<Stamp> = of_stream_0.map(|(_, stamp, _)| *stamp).collect();
        assert_eq!(found, TIMESTAMPS.map(|timestamp| at(0, timestamp)));
    }
    engine.stop();

    // And watermarks of epochs that no test lives to see.
    for epoch in epochs {
        let (board, mut position) = (Board::new(1), Position::default());
        board.open(Epoch(epoch));
        board.register(ShardId(0), Stamp::ZERO);
        for timestamp in TIMESTAMPS {
            assert!(position.take(&Mark::Data(at(epoch, timestamp))));
            board.publish(ShardId(0), &position);
            assert_eq!(board.watermark(), at(epoch, timestamp));
        }
    }
}

/// What all relays have carried towards nodes.
type Carried = Arc<AtomicU64>;

/// Puts a relay that counts in front of every node for each of the others. Before the nodes are started; over TCP.
fn relays_between(cluster: &mut Cluster) -> Carried {
    let carried = Carried::default();
    for from in cluster.ids() {
        for to in cluster.ids().into_iter().filter(|to| *to != from) {
            let address = relay(cluster.config(to).me().unwrap().peer, &carried);
            let redirect = |config: &mut plimsoll::node::Config| {
                let member = config.members.iter_mut().find(|member| member.node_id() == to).unwrap();
                member.peer = address;
            };
            cluster.reconfigure(from, redirect).unwrap();
        }
    }
    carried
}

/// Its threads end with the connections, and the last one with the process.
fn relay(target: SocketAddr, carried: &Carried) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let carried = Arc::clone(carried);
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(target)) else { continue };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let carried = Arc::clone(&carried);
                std::thread::spawn(move || carry(from, to, &carried));
            }
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, carried: &AtomicU64) {
    let mut bytes = vec![0; 256 << 10];
    loop {
        let read = match from.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        carried.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// What goes through the client must be committed.
fn commit(client: &mut Client, bytes: &[u8]) {
    client.submit(Submit::new(ShardId(0), bytes)).unwrap();
    let mut completions = Vec::new();
    let until = std::time::Instant::now() + PATIENCE;
    while completions.is_empty() {
        assert!(std::time::Instant::now() < until, "{} bytes: no outcome", bytes.len());
        client.flush();
        client.poll(PATIENCE, &mut completions);
    }
    let outcome = completions[0].outcome;
    assert!(matches!(outcome, Outcome::Committed { .. }), "{} bytes: {outcome}", bytes.len());
}

#[test]
fn n10_a_record_of_64_mib_passes_once_and_a_longer_one_is_refused() {
    let _turn = turn();
    let shape = Shape { segment_mib: 64, chunks: 16, links: vec![LinkKind::Tcp], ..small() };
    let mut cluster = cluster_with_sockets("long", shape);
    let carried = relays_between(&mut cluster);
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let mut record: Vec<u8> = (0..=RECORD_BYTES_MAX).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();

    let mut ring = connect(&cluster, leader, 1);
    let refused = ring.submit(&record, Timestamp(0), Epoch(0), Acks::Quorum).unwrap_err();
    let expected = format!("a record of {} bytes: 1 to {RECORD_BYTES_MAX} are allowed", record.len());
    assert_eq!(refused.to_string(), expected);
    let refused = client.submit(Submit::new(ShardId(0), &record)).unwrap_err();
    assert!(refused.to_string().starts_with(&expected[..expected.len() - "are allowed".len()]), "{refused}");
    assert_eq!((ring.outstanding(), client.outstanding()), (0, 0));

    record.pop();
    commit(&mut client, &record);
    for id in cluster.ids() {
        assert!(read(&cluster, id, 1)[0].payload == record, "altered on node {id}");
    }
    // Each follower was sent it once. A link that breaks may have been sent it again from where it broke; not for ever.
    let sent = carried.load(Ordering::Relaxed);
    let copies = sent as f64 / RECORD_BYTES_MAX as f64;
    assert!((1.9..4.0).contains(&copies), "{copies:.2} copies between the nodes");
    for _ in 0..50 {
        commit(&mut client, b"short");
    }
    let more = carried.load(Ordering::Relaxed) - sent;
    assert!(more < 1 << 20, "{more} bytes more for fifty short records: it is still being sent");
    assert_eq!(cluster.await_leaders().unwrap(), [leader], "nobody fell silent over it");
    let found = read(&cluster, NodeId(1), 51);
    assert!(found[1..].iter().all(|found| found.payload == b"short"));
}
