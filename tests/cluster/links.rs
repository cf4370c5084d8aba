//! Several links between the same nodes: the preferred one is taken, left when it dies, and taken again.

use std::time::{Duration, Instant};

use plimsoll::local::{Cluster, Shape};
use plimsoll::node::config::LinkKind;
use plimsoll::types::NodeId;

use crate::ledger::Ledger;
use crate::proxy::Proxies;
use crate::{cluster, small, turn};

const PATIENCE: Duration = Duration::from_secs(20);

fn with(links: &[LinkKind]) -> Shape {
    Shape { links: links.to_vec(), ..small() }
}

/// How often a node says, of each of its peers, that what it sends goes over a link from now on.
fn count(cluster: &Cluster, line: &str) -> usize {
    cluster.ids().into_iter().map(|id| cluster.log(id).matches(line).count()).sum()
}

/// Loads until all nodes together have said `line` so often.
fn load_until(cluster: &Cluster, ledger: &mut Ledger, line: &str, times: usize) {
    let until = Instant::now() + PATIENCE;
    ledger.load(8, |_| {
        let said = count(cluster, line) >= times;
        assert!(
            said || Instant::now() < until,
            "{line:?} was not said {times} times{}",
            cluster.all_last_words()
        );
        said
    });
}

#[test]
fn a_link_that_dies_is_left_and_taken_again_when_it_is_back() {
    let _turn = turn();
    let mut cluster = cluster("links", &with(&[LinkKind::Udp, LinkKind::Tcp]));
    let proxies = Proxies::between(&mut cluster);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    // Each of three nodes says it of two peers, whichever link was there first.
    load_until(&cluster, &mut ledger, ": over udp", 6);
    let acknowledged = ledger.acknowledged.len();

    proxies.cut_datagrams(true);
    load_until(&cluster, &mut ledger, ": udp does not reach it any more; over tcp now", 6);
    let on_tcp = ledger.acknowledged.len();
    ledger.load(8, |ledger| ledger.acknowledged.len() >= on_tcp + 200);

    proxies.cut_datagrams(false);
    load_until(&cluster, &mut ledger, ": over udp again, not tcp", 6);
    let again = ledger.acknowledged.len();
    ledger.load(8, |ledger| ledger.acknowledged.len() >= again + 200);
    ledger.settle();
    assert!(acknowledged <= on_tcp && on_tcp + 200 <= again && again + 200 <= ledger.acknowledged.len());
    assert!(ledger.refused.is_empty(), "{:?}", ledger.refused);
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

#[test]
fn commits_go_on_while_datagrams_are_lost_doubled_and_late() {
    let _turn = turn();
    let mut cluster = cluster("unkind", &with(&[LinkKind::Udp]));
    let proxies = Proxies::between(&mut cluster);
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(&cluster, 0);
    let mut before = 0;
    for percent in [1, 5, 30] {
        proxies.be_unkind(10 * percent);
        let until = Instant::now() + Duration::from_secs(3);
        let wanted = ledger.acknowledged.len() + 300;
        let patience = Instant::now() + 3 * PATIENCE;
        ledger.load(16, |ledger| {
            let enough = ledger.acknowledged.len() >= wanted;
            let has = ledger.acknowledged.len();
            assert!(Instant::now() < patience, "{percent} %: {has} of {wanted}{}", cluster.all_last_words());
            enough && Instant::now() >= until
        });
        let mistreated = proxies.mistreated();
        assert!(mistreated >= before + 20, "{percent} %: only {} were mistreated", mistreated - before);
        before = mistreated;
    }
    proxies.be_unkind(0);
    ledger.settle();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

#[test]
fn what_is_not_there_is_named_and_the_next_link_is_taken() {
    let _turn = turn();
    let missing = [
        cfg!(not(feature = "rdma")).then_some(LinkKind::Rdma),
        cfg!(not(feature = "dpdk")).then_some(LinkKind::Dpdk),
    ];
    let missing: Vec<LinkKind> = missing.into_iter().flatten().collect();
    let mut cluster = cluster("absent", &with(&[&missing[..], &[LinkKind::Udp]].concat()));
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let log = cluster.log(NodeId(1));
    for absent in missing {
        let line = format!("no link over {absent}: ");
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
    let mut ledger = Ledger::open(&cluster, 0);
    ledger.load(8, |ledger| ledger.acknowledged.len() >= 200);
    ledger.settle();
    let ids = cluster.ids();
    ledger.check(&cluster, &ids);
}

#[test]
fn a_node_without_any_of_its_links_does_not_start() {
    if cfg!(feature = "dpdk") {
        println!("skipped: this build has every link that a node could lack");
        return;
    }
    let mut cluster = cluster("none", &with(&[LinkKind::Dpdk]));
    cluster.start(NodeId(1)).unwrap();
    let status = cluster.wait(NodeId(1)).unwrap();
    assert!(!status.success());
    let log = cluster.log(NodeId(1));
    assert!(log.contains("none of the links that are configured (dpdk) is to be had"), "{log}");
}
