//! A run that is longer than it need be: memory does not grow with it. Ten minutes, with the latencies of the first and of the
//! last: `plimsoll bench flat --seconds 600`.

use std::time::Instant;

use plimsoll::client::{Client, Submit};
use plimsoll::limits::CHUNK_BYTES;
use plimsoll::local::Cluster;
use plimsoll::types::ShardId;

use crate::rack::{cluster, small};
use crate::{PATIENCE, turn};

/// What is under way, so that many records share a write.
const IN_FLIGHT: usize = 1024;

/// Of the nodes' processes, in bytes.
fn resident(cluster: &Cluster) -> Vec<u64> {
    let of = |id| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(id).unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    cluster.ids().into_iter().map(of).collect()
}

fn commit(client: &mut Client, count: usize, record: &[u8]) {
    let (mut submitted, mut completions) = (0, Vec::new());
    let mut progress = Instant::now();
    while submitted < count || client.outstanding() > 0 {
        assert!(progress.elapsed() < PATIENCE, "nothing commits any more");
        while submitted < count && client.outstanding() < IN_FLIGHT {
            client.submit(Submit::new(ShardId(0), record)).unwrap();
            submitted += 1;
        }
        client.flush();
        if client.poll(PATIENCE, &mut completions) > 0 {
            progress = Instant::now();
        }
        assert!(completions.drain(..).all(|ended| ended.outcome.is_committed()));
    }
}

#[test]
fn n14_memory_does_not_grow_with_the_length_of_the_run() {
    const RECORDS: usize = 300_000;
    let _turn = turn();
    let shape = small();
    let mut cluster = cluster("flat", &shape);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    // Every chunk of memory was written to, and every queue has found its size.
    let long = vec![0x5a; 64 << 10];
    commit(&mut client, 2 * shape.chunks * CHUNK_BYTES / long.len(), &long);
    commit(&mut client, RECORDS / 10, &[0x5a; 64]);
    let warm = resident(&cluster);
    commit(&mut client, RECORDS, &[0x5a; 64]);
    let after = resident(&cluster);
    println!("{warm:?} bytes when warm, {after:?} after {RECORDS} records more");
    for (warm, after) in warm.iter().zip(&after) {
        let grown = after.saturating_sub(*warm);
        assert!(grown < 8 * RECORDS as u64, "{grown} bytes: {warm:?}, then {after:?}");
    }
    cluster.check().unwrap();
}
