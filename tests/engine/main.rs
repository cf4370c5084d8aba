//! Engines on a node's own host, attached by rings: in the node's process and in another one, alive, killed, and
//! writing garbage. What was submitted is read back from the log.

#![allow(clippy::unwrap_used)]

mod child;
mod embedded;
mod processes;
mod replicas;
mod seccomp;
mod streams;
mod strict;
mod told;
mod waits;

use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll::client::ring::{Attachment, Options, RingError};
use plimsoll::client::{self, Reader};
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::{AttachError, Config};
use plimsoll::types::{Acks, Epoch, Index, NodeId, ShardId, Timestamp};
use plimsoll::wire::attach::Refusal;
use plimsoll::wire::client::{Outcome, Reply};

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(0);

/// For what must happen, and does within moments.
const PATIENCE: Duration = Duration::from_secs(20);

/// One node that is not started yet, and lets engines in.
fn one_node(name: &str) -> Cluster {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
    let tune = |config: &mut Config| config.engine.socket = Some(config.data_dir.with_extension("engines"));
    let shape = Shape { nodes: 1, segment_mib: 16, capacity_mib: 2048, chunks: 8, tune, ..Shape::default() };
    Cluster::new(Path::new(env!("CARGO_BIN_EXE_plimsoll")), &directory, &shape).unwrap()
}

fn options(cluster: &Cluster, session: u64) -> Options {
    Options::new(cluster.config(NODE).cluster_id(), SHARD, session)
}

fn socket(cluster: &Cluster) -> &Path {
    cluster.config(NODE).engine.socket.as_deref().unwrap()
}

/// Attaches as soon as whoever held the session's place has been let go.
fn attach(mut attach: impl FnMut() -> Result<Attachment, AttachError>) -> Attachment {
    let until = Instant::now() + PATIENCE;
    loop {
        match attach() {
            Ok(attachment) => return attachment,
            Err(AttachError::Refused(Refusal::Held)) if Instant::now() < until => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn record(session: u64, serial: u64, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes as u64).map(|at| (session.wrapping_mul(91) + serial.wrapping_mul(7) + at) as u8).collect()
}

/// Waits until the node leads: a submit before that is not taken.
fn await_leader(attachment: &mut Attachment) {
    let until = Instant::now() + PATIENCE;
    let mut leads = false;
    while !leads {
        assert!(Instant::now() < until, "nobody leads");
        attachment.status().unwrap();
        assert!(attachment.wait(PATIENCE));
        attachment.poll(|reply| {
            let Reply::Status { status, .. } = reply else { panic!("{reply:?}") };
            leads = status.leader == Some(NODE) && status.commit > Index(0);
        });
    }
}

/// Submits records with the next `count` serials, written in place, and waits for all to be committed.
fn submit(attachment: &mut Attachment, session: u64, count: u64, len_bytes: usize) {
    for _ in 0..count {
        let serial = attachment.next_serial();
        loop {
            match attachment.reserve(len_bytes) {
                Ok(mut room) => {
                    room.bytes().copy_from_slice(&record(session, serial, len_bytes));
                    room.publish(Timestamp(serial), Epoch(1), Acks::Quorum);
                    break;
                }
                Err(RingError::Busy) => drain(attachment),
                Err(error) => panic!("{error}"),
            }
        }
    }
    while attachment.outstanding() > 0 {
        drain(attachment);
    }
}

fn drain(attachment: &mut Attachment) {
    assert!(attachment.wait(PATIENCE), "{} outstanding", attachment.outstanding());
    attachment.poll(|reply| {
        assert!(matches!(reply, Reply::Outcome { outcome: Outcome::Committed { .. }, .. }), "{reply:?}");
    });
}

/// All records of the log as (session, serial, payload), in order.
fn log_of(cluster: &Cluster, until_commit: u64) -> Vec<(u64, u64, Vec<u8>)> {
    let options: client::Options = cluster.client_options();
    let mut reader = Reader::open(options, NODE, SHARD, Index(1)).unwrap();
    let mut found = Vec::new();
    while (found.len() as u64) < until_commit {
        let record =
            reader.next_record(PATIENCE).unwrap().expect("the log has fewer records than were committed");
        found.push((record.session, record.serial, record.payload.to_vec()));
    }
    assert!(
        reader.next_record(Duration::ZERO).unwrap().is_none(),
        "the log has more records than were submitted"
    );
    found
}

/// Every record of the session is there once, in order, with the right bytes.
fn assert_whole(log: &[(u64, u64, Vec<u8>)], session: u64, count: u64) {
    let of_session = log.iter().filter(|(whose, ..)| *whose == session);
    let mut expected = 1;
    for (_, serial, payload) in of_session {
        assert_eq!(*serial, expected);
        assert_eq!(*payload, record(session, expected, payload.len()));
        expected += 1;
    }
    assert_eq!(expected - 1, count);
}
