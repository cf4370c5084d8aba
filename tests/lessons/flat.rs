//! A run that is longer than it need be: memory does not grow with it. Ten minutes, with the latencies of the first and
//! of the last: `plimsoll bench flat --seconds 600`.

use std::time::Instant;

use plimsoll::client::{Client, Submit};
use plimsoll::limits::{CHUNK_BYTES, FRAME_BYTES_MAX};
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

/// What leaks grows in every round. A buffer that finds its size late grows in one.
#[test]
fn n14_memory_does_not_grow_with_the_length_of_the_run() {
    const ROUNDS: usize = 5;
    const RECORDS: usize = 60_000;
    let _turn = turn();
    let shape = small();
    let mut cluster = cluster("flat", &shape);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut client = Client::connect(cluster.client_options()).unwrap();
    // Every chunk of memory was written to, and most queues have found their size.
    let long = vec![0x5a; 64 << 10];
    commit(&mut client, 2 * shape.chunks * CHUNK_BYTES / long.len(), &long);
    let mut after = vec![resident(&cluster)];
    for _ in 0..ROUNDS {
        commit(&mut client, RECORDS, &[0x5a; 64]);
        after.push(resident(&cluster));
    }
    println!("bytes, warm and after each {RECORDS} records: {after:?}");
    for node in 0..after[0].len() {
        let mut grown: Vec<u64> =
            after.windows(2).map(|pair| pair[1][node].saturating_sub(pair[0][node])).collect();
        grown.sort_unstable();
        assert!(grown[ROUNDS / 2] < RECORDS as u64, "a byte for each record: {after:?}");
        let all = after[ROUNDS][node].saturating_sub(after[0][node]);
        assert!(all < 4 * FRAME_BYTES_MAX as u64, "more than some buffers: {after:?}");
    }
    cluster.check().unwrap();
}
