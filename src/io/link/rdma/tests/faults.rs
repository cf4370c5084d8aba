//! Queue pairs in error, ends that do not fit together, a device that disappears, memory that may not be locked.

use std::net::Ipv4Addr;
use std::process::Command;

use super::super::verbs::{Event, Port};
use super::*;
use crate::wire::aside::Reason;

fn exchange_some(nodes: &mut [Node; 2], round: usize) {
    let before = [nodes[0].got.len(), nodes[1].got.len()];
    for number in 0..20 {
        let bytes = pattern(round * 100 + number, 2000);
        assert!(nodes[0].send(&[&bytes]) && nodes[1].send(&[&bytes]));
    }
    pump(nodes, |nodes| nodes.iter().zip(before).all(|(node, before)| node.got.len() == before + 20));
    for (node, before) in nodes.iter().zip(before) {
        for number in 0..20 {
            assert!(node.got[before + number] == pattern(round * 100 + number, 2000), "{round}: {number}");
        }
    }
}

#[test]
fn a_queue_pair_in_error_is_replaced_whosever_it_is() {
    if !has_device("a_queue_pair_in_error") {
        return;
    }
    let mut nodes = connected(|_| ());
    exchange_some(&mut nodes, 0);
    let slots_at = |nodes: &[Node; 2]| [0, 1].map(|at| nodes[at].carrier.slots_at(nodes[at].peer()));
    let before = slots_at(&nodes);
    for round in 1..=4 {
        let broken = round % 2;
        let peer = nodes[broken].peer();
        nodes[broken].carrier.spoil(peer);
        let wanted = round as u64 + 1;
        pump(&mut nodes, |nodes| {
            nodes.iter().all(|node| node.is_up() && node.carrier.counters().connected == wanted)
        });
        exchange_some(&mut nodes, round);
        assert_eq!(nodes[broken].changes.iter().filter(|up| !**up).count() as u64, wanted - 1);
    }
    // Once each queue pair took fresh memory. To register it stopped a lane for longer, in the guest for 100 ms, than
    // its peers wait for it: a node that had restarted, or two that met, cost the others their leader.
    assert!(before[0].is_some() && slots_at(&nodes) == before, "memory goes from queue pair to queue pair");
    for node in &nodes {
        assert_eq!(node.told(|notice| matches!(notice, Notice::Ended { .. })), 4);
        assert_eq!(node.carrier.counters().ended, 4);
        assert_eq!(node.changes, [true, false, true, false, true, false, true, false, true]);
        assert_eq!(node.left, 0, "a queue pair in error says nothing of who is at its other end");
        assert_eq!(node.pool.available(), 4);
    }
}

#[test]
fn ends_with_other_slots_refuse_each_other_and_say_why() {
    if !has_device("ends_with_other_slots") {
        return;
    }
    let mut nodes = pair(|options| options.slot_bytes = if options.node == NodeId(1) { 4096 } else { 8192 });
    let refused = |notice: &Notice| matches!(notice, Notice::Refused { reason: Reason::SlotBytes, .. });
    pump(&mut nodes, |nodes| nodes[0].told(refused) > 0);
    assert!(!nodes[0].is_up() && !nodes[1].is_up());
    assert!(nodes[0].send(&[b"lost"]), "what has no path is lost without a word");
    assert_eq!(nodes[0].carrier.counters().lost, 1);
}

#[test]
fn a_device_that_is_not_there_is_named_with_those_that_are() {
    if !has_device("a_device_that_is_not_there") {
        return;
    }
    let pool = Pool::new(1);
    let mut options = Options::new(NodeId(1), LaneId(0), vec![NodeId(2)], 1);
    options.device = Some("mlx9_9".to_owned());
    let reactor = Reactor::new(Kind::Epoll).unwrap();
    let Unavailable(why) = RdmaCarrier::new(options.clone(), &pool, reactor.clone()).unwrap_err();
    assert!(why.contains("no device of this name") && why.contains("rxe"), "{why}");
    options.device = device(1);
    options.gid_index = Some(200);
    let Unavailable(why) = RdmaCarrier::new(options, &pool, reactor).unwrap_err();
    assert!(why.contains("ibv_query_gid"), "{why}");
}

/// The event is given by hand: Soft-RoCE is not removed while a process has it open. The device is then really not
/// there for some seconds. Run alone, by the guest.
#[test]
#[ignore = "removes the device rxe0 of this machine"]
fn a_device_that_disappears_is_found_again() {
    let rdma = |arguments: &str| {
        let done = Command::new("rdma").args(arguments.split(' ')).status().unwrap();
        assert!(done.success(), "rdma {arguments}");
    };
    assert!(has_device("a_device_that_disappears"));
    let mut nodes = connected(|_| ());
    exchange_some(&mut nodes, 0);
    for (node, event) in nodes.iter_mut().zip([Event::Gone, Event::Completions]) {
        let now = node.now();
        node.carrier.inject(now, event);
        assert!(!node.carrier.has_device() && !node.is_up());
        assert!(node.send(&[b"lost"]));
    }
    rdma("link delete rxe0");
    // The device's own end, and that it cannot be opened again: told once, however often it is tried.
    let start = Instant::now();
    pump(&mut nodes, |_| start.elapsed() > 3 * REOPEN_PAUSE);
    for node in &mut nodes {
        assert_eq!(node.told(|notice| matches!(notice, Notice::Lost { .. })), 1);
        assert_eq!(node.told(|notice| matches!(notice, Notice::NotFound(_))), 1);
        assert_eq!((node.changes.last(), node.left), (Some(&false), 0), "the other end's process is there");
        assert!(!node.carrier.has_device());
    }
    rdma("link add rxe0 type rxe netdev eth0");
    pump(&mut nodes, |nodes| nodes.iter().all(Node::is_up));
    exchange_some(&mut nodes, 1);
    for node in &nodes {
        assert_eq!(node.told(|notice| matches!(notice, Notice::Opened { .. })), 2);
    }
}

/// The cable is pulled: told at once, and when it is back the path is there again.
#[test]
#[ignore = "takes the interface eth0 of this machine down"]
fn a_port_that_goes_down_is_told_and_comes_back() {
    assert!(has_device("a_port_that_goes_down"));
    let mut nodes = connected(|_| ());
    exchange_some(&mut nodes, 0);
    ip("link set eth0 down");
    pump(&mut nodes, |nodes| nodes.iter().all(|node| node.told(|n| *n == Notice::Port { up: false }) == 1));
    assert!(nodes.iter().all(|node| node.changes == [true, false] && node.left == 0));
    ip("link set eth0 up");
    pump(&mut nodes, |nodes| nodes.iter().all(|node| node.told(|n| *n == Notice::Port { up: true }) == 1));
    pump(&mut nodes, |nodes| nodes.iter().all(Node::is_up));
    exchange_some(&mut nodes, 1);
}

/// What the port was when the device was opened held for every queue pair after that: after another MTU they sent what
/// the interface did not take, and after another address they sent from one that was nobody's, for ever.
///
/// `provoke` is done in every turn until the path has ended.
fn up_again_within_five_seconds(nodes: &mut [Node; 2], round: usize, mut provoke: impl FnMut(&mut Node)) {
    let (ended, connected) =
        ([0, 1].map(|at: usize| nodes[at].carrier.counters().ended), nodes[0].carrier.counters().connected);
    pump(nodes, |nodes| {
        if nodes[0].is_up() {
            provoke(&mut nodes[0]);
        }
        nodes.iter().zip(ended).all(|(node, ended)| node.carrier.counters().ended > ended)
    });
    let start = Instant::now();
    pump(nodes, |nodes| {
        nodes.iter().all(|node| node.is_up() && node.carrier.counters().connected > connected)
    });
    nodes.iter_mut().for_each(|node| node.got.clear());
    exchange_some(nodes, round);
    let took = start.elapsed();
    eprintln!("up again after {} ms", took.as_millis());
    assert!(took < Duration::from_secs(5), "up again after {took:?}");
}

fn port_of(node: &Node) -> Port {
    node.carrier.open.as_ref().expect("the device is open").port
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

/// No device tells of another MTU. On two devices: within one, packets of any length pass below. The path is ended by
/// hand: Soft-RoCE takes the most retries that there are for no end of them.
#[test]
#[ignore = "changes the MTU of the interface veth2 of this machine"]
fn after_another_mtu_below_a_path_comes_back() {
    assert!(has_device("after_another_mtu_below"));
    let packets_of = |nodes: &[Node; 2], bytes: [u32; 2]| {
        let found = [0, 1].map(|at: usize| port_of(&nodes[at]).packet_bytes());
        assert_eq!(found, bytes);
    };
    let mut nodes = connected(|_| ());
    exchange_some(&mut nodes, 0);
    packets_of(&nodes, [1024, 1024]);
    ip("link set veth2 mtu 700");
    let peer = nodes[0].peer();
    nodes[0].carrier.spoil(peer);
    up_again_within_five_seconds(&mut nodes, 1, |_| ());
    packets_of(&nodes, [1024, 512]);
    // What fits is carried on, and the next queue pairs take more again.
    ip("link set veth2 mtu 1500");
    exchange_some(&mut nodes, 2);
    nodes[0].carrier.spoil(peer);
    up_again_within_five_seconds(&mut nodes, 3, |_| ());
    packets_of(&nodes, [1024, 1024]);
    for bytes in [512, 1024] {
        let told = |notice: &Notice| matches!(notice, Notice::Changed { packet_bytes, .. } if *packet_bytes == bytes);
        assert_eq!([0, 1].map(|at: usize| nodes[at].told(told)), [0, 1], "{bytes} bytes");
    }
}

#[test]
#[ignore = "changes the address of the interface eth0 of this machine"]
fn after_another_address_a_path_comes_back() {
    assert!(has_device("after_another_address"));
    let mut nodes = connected(|_| ());
    exchange_some(&mut nodes, 0);
    let mapped = |last| Ipv4Addr::new(10, 99, 0, last).to_ipv6_mapped().octets();
    assert!(nodes.iter().all(|node| port_of(node).gid == mapped(1)));
    for (round, from, to) in [(1, 1, 7), (2, 7, 1)] {
        ip(&format!("addr del 10.99.0.{from}/24 dev eth0"));
        ip(&format!("addr add 10.99.0.{to}/24 dev eth0"));
        // The device tells, before anything is sent.
        pump(&mut nodes, |nodes| nodes.iter().all(|node| port_of(node).gid == mapped(to)));
        up_again_within_five_seconds(&mut nodes, round, |node| _ = node.send(&[&[7; 3000]]));
        let changed = |notice: &Notice| matches!(notice, Notice::Changed { gid, .. } if *gid == mapped(to));
        assert!(nodes.iter().all(|node| node.told(changed) == 1));
    }
}

/// With a memlock limit below the pool's 16 MiB and above what paths need.
#[test]
#[ignore = "run by the guest, as a user with a low memlock limit"]
fn a_pool_that_may_not_be_locked_is_copied_from() {
    assert!(has_device("a_pool_that_may_not_be_locked"));
    let mut nodes = connected(|options| (options.slots, options.slot_bytes) = (64, 4096));
    for node in &nodes {
        assert_eq!(node.told(|notice| matches!(notice, Notice::Copying(_))), 1);
    }
    let mut chunk = nodes[0].pool.take().unwrap();
    chunk.spare_mut()[..3000].copy_from_slice(&pattern(0, 3000));
    let frozen = chunk.freeze(3000);
    assert!(nodes[0].send(&[&frozen]));
    pump(&mut nodes, |nodes| nodes[1].got.len() == 1);
    exchange_some(&mut nodes, 0);
    assert_eq!(nodes[1].got[0], pattern(0, 3000));
    assert_eq!(nodes[0].carrier.counters().gathered_bytes, 0);
}

/// With a limit below what a path needs.
#[test]
#[ignore = "run by the guest, as a user with a very low memlock limit"]
fn memory_that_may_not_be_locked_at_all_is_told_with_advice() {
    assert!(has_device("memory_that_may_not_be_locked"));
    let mut options = Options::new(NodeId(1), LaneId(0), vec![NodeId(2)], 1);
    options.device = device(1);
    let reactor = Reactor::new(Kind::Epoll).unwrap();
    let Unavailable(why) = RdmaCarrier::new(options, &Pool::new(1), reactor).unwrap_err();
    assert!(why.contains("memlock"), "told before the lane runs, so that it takes another link: {why}");
}
