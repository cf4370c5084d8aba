//! Nodes whose logs lie on raw block devices.

use std::path::{Path, PathBuf};

use plimsoll::local::{Cluster, Shape};
use plimsoll::node::config::Devices;
use plimsoll::node::verify::verify_device;
use plimsoll::types::NodeId;

use crate::ledger::Ledger;
use crate::loop_device::LoopDevice;
use crate::{cluster, small, turn};

/// A device for a node.
enum Given {
    Loop(LoopDevice),
    /// One of those that the environment names: its content is lost.
    Named(PathBuf),
}

impl Given {
    fn path(&self) -> &Path {
        match self {
            Given::Loop(device) => device.path(),
            Given::Named(path) => path,
        }
    }
}

/// Three devices; the third has blocks of 4 KiB. `PLIMSOLL_DEVICES` names others, apart by spaces, which must be blank.
/// If those are fewer, the other nodes' logs lie in files.
fn devices(mib: u64) -> Option<Vec<Given>> {
    match std::env::var("PLIMSOLL_DEVICES") {
        Ok(names) => Some(names.split_whitespace().map(|name| Given::Named(name.into())).collect()),
        Err(_) => [512, 512, 4096]
            .map(|block| LoopDevice::attach(mib, block).map(Given::Loop))
            .into_iter()
            .collect(),
    }
}

/// Three nodes of two lanes, each with one device that its lanes share. `PLIMSOLL_IO_POLL` has them polled.
fn on_devices(name: &str, devices: &[Given]) -> Cluster {
    let mut cluster = cluster(name, &Shape { lanes: 2, shards: 2, segment_mib: 8, ..small() });
    for (id, device) in cluster.ids().into_iter().zip(devices) {
        let change = |config: &mut plimsoll::node::Config| {
            config.log.device = Devices(vec![device.path().to_owned()]);
            config.log.capacity_mib = None;
            config.log.io_poll = std::env::var_os("PLIMSOLL_IO_POLL").is_some();
        };
        cluster.reconfigure(id, change).unwrap();
    }
    cluster
}

#[test]
fn three_nodes_on_devices_are_killed_one_by_one_and_all_at_once_and_lose_nothing() {
    let _turn = turn();
    let Some(devices) = devices(400) else { return };
    let mut cluster = on_devices("devices", &devices);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledgers: Vec<Ledger> = (0..2).map(|shard| Ledger::open(&cluster, shard)).collect();
    for round in 0..6 {
        for ledger in &mut ledgers {
            let before = ledger.acknowledged.len();
            ledger.load(16, |ledger| ledger.acknowledged.len() >= before + 300);
        }
        let all = cluster.ids();
        let killed = if round % 3 == 2 { all } else { vec![NodeId(1 + round % 3)] };
        for id in killed {
            cluster.kill(id).unwrap();
        }
        cluster.start_all().unwrap();
        cluster.await_leaders().unwrap_or_else(|error| panic!("after kill {round}: {error}"));
    }
    let ids = cluster.ids();
    for ledger in &mut ledgers {
        ledger.settle();
        cluster.check().unwrap_or_else(|error| panic!("{error}{}", cluster.all_last_words()));
        assert!(ledger.check(&cluster, &ids) >= 1800);
    }
    for id in ids {
        cluster.kill(id).unwrap();
    }
    for (node, device) in devices.iter().enumerate() {
        let reports = verify_device(device.path()).unwrap();
        assert_eq!(reports.len(), 2);
        for (lane, report) in reports {
            let entries: u64 = report.shards.iter().map(|shard| shard.entries).sum();
            // Beside the records there are those of leaders; a follower that was killed may lack the last ones.
            assert!(entries >= 1000, "node {} lane {lane}: {entries} entries", node + 1);
            assert!(report.segments >= 2, "node {} lane {lane}: {} segments", node + 1, report.segments);
        }
    }
}

#[test]
fn a_device_that_is_full_is_told_and_what_it_has_is_served() {
    let _turn = turn();
    // Two segments of 8 MiB for each of two lanes, and the edges.
    let Some(devices) = devices(37) else { return };
    let mut cluster = on_devices("device-full", &devices);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load(16, |ledger| ledger.refused.len() >= 20);
    assert!(ledger.acknowledged.len() >= 500, "{}", ledger.acknowledged.len());
    for id in cluster.ids() {
        cluster.kill(id).unwrap();
    }
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    ledger.load(1, |ledger| ledger.refused.len() >= 40);
    // A full log takes no record to seal it with, so it is counted where it lies: two of three have everything.
    for id in cluster.ids() {
        cluster.kill(id).unwrap();
    }
    let count = |device: &Given| -> u64 {
        let reports = verify_device(device.path()).unwrap();
        reports[0].1.shards.iter().map(|shard| shard.entries).sum()
    };
    let complete = devices.iter().filter(|device| count(device) >= ledger.acknowledged.len() as u64).count();
    assert!(complete >= 2, "{complete} of 3 hold all {} records", ledger.acknowledged.len());
}
