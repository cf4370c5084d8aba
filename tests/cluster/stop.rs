//! SIGTERM: accepted submits end, leadership is handed over, the log closes clean, within a bound.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ledger::Ledger;
use crate::{calm, cluster, small, turn};

#[test]
fn a_leader_that_is_stopped_hands_over_and_nothing_is_unknown() {
    let _turn = turn();
    let mut cluster = cluster("stop", &calm());
    cluster.start_all().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    for _ in 0..3 {
        let leader = cluster.await_leaders().unwrap()[0];
        let before = ledger.acknowledged.len();
        ledger.load(16, |ledger| ledger.acknowledged.len() >= before + 200);
        cluster.signal(leader, Signal::TERM).unwrap();
        let at = Instant::now();
        ledger.load(16, |ledger| ledger.acknowledged.len() >= before + 400);
        let status = cluster.wait(leader).unwrap();
        assert!(at.elapsed() < Duration::from_secs(5), "stopped only after {:?}", at.elapsed());
        assert_eq!(status.code(), Some(0), "{}", cluster.last_words(leader));
        let log = cluster.log(leader);
        assert!(log.contains("stopped in good order; 0 submits ended as unknown, 0 shards"), "{log}");
        cluster.start(leader).unwrap();
    }
    ledger.settle();
    assert_eq!(
        ledger.unknown.len(),
        0,
        "every accepted submit had an outcome: {:?}{}",
        ledger.unknown,
        cluster.all_last_words()
    );
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

#[test]
fn a_whole_cluster_that_is_stopped_comes_back() {
    let _turn = turn();
    let mut cluster = cluster("stop-all", &small());
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load(16, |ledger| ledger.acknowledged.len() >= 300);
    ledger.settle();
    for id in cluster.ids() {
        cluster.signal(id, Signal::TERM).unwrap();
    }
    for id in cluster.ids() {
        let status = cluster.wait(id).unwrap();
        assert_eq!(status.code(), Some(0), "{}", cluster.last_words(id));
    }
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}
