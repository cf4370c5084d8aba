use core::time::Duration;

use super::super::{Arrival, Counters, Notice, Why};
use super::net::*;
use crate::types::{ClusterId, NodeId, StoreId};
use crate::wire::hello::Refusal;
use crate::wire::identity::Identity;

const LOSSY: Adversary =
    Adversary { loss: 300_000, double: 100_000, corrupt: 20_000, delay_ns: (10 * US, 300 * US), ..CALM };

#[test]
fn peers_meet_and_learn_each_others_stores() {
    let mut world = World::<false>::new(3, 1, CALM);
    world.meet();
    assert!(world.now().as_nanos() < 2 * u128::from(MS), "it took {:?}", world.now());
    for node in 0..3 {
        let mut learned = world.link(node).learned();
        learned.sort();
        let others: Vec<_> = (0..3)
            .filter(|&other| other != node)
            .map(|other| (id(other), StoreId(other as u64 + 70)))
            .collect();
        assert_eq!(learned, others);
        assert_eq!(world.link(node).learned(), []);
        assert_eq!(world.notices(node).len(), 2);
    }
    assert_eq!(world.counters(0).lost, 0);
}

#[test]
fn peers_meet_over_a_bad_path() {
    for seed in 0..40 {
        let mut world = World::<false>::new(3, seed, LOSSY);
        world.meet();
    }
}

#[test]
fn a_silent_session_stays_up() {
    let mut world = World::<false>::new(2, 2, Adversary { loss: 200_000, ..CALM });
    world.meet();
    world.pass(10_000 * MS);
    assert_eq!((world.told[0].len(), world.told[1].len()), (1, 1), "{:?}", world.told);
    let Counters { datagrams_out, .. } = world.counters(0);
    assert!(datagrams_out < 400, "{datagrams_out} datagrams to say nothing");
}

#[test]
fn who_is_not_heard_is_down_and_comes_back() {
    let mut world = World::<false>::new(2, 3, CALM);
    world.meet();
    world.net.borrow_mut().adversary.loss = 1_000_000;
    assert!(world.until(3_000 * MS, |world| !world.is_up(0, 1) && !world.is_up(1, 0)));
    assert!(world.told[0].contains(&Told::Down(id(1), false)));
    world.net.borrow_mut().adversary.loss = 0;
    assert!(world.until(250 * MS, |world| world.is_up(0, 1) && world.is_up(1, 0)));
    assert_eq!(world.counters(0).reconnects, 1);
}

#[test]
fn a_killed_peer_is_noticed_at_once_and_so_is_its_next_life() {
    for killed in [0, 1] {
        let mut world = World::<false>::new(2, 4, CALM);
        world.meet();
        let other = 1 - killed;
        world.kill(killed);
        // Something is sent to it, as heartbeats are.
        assert!(world.send(other, killed, &frame(1, 100)));
        assert!(world.until(10 * MS, |world| !world.is_up(other, killed)), "killed {killed}");
        assert_eq!(world.told[other].last(), Some(&Told::Down(id(killed), true)));
        world.start(killed, identity(killed));
        assert!(world.until(500 * MS, |world| world.is_up(other, killed) && world.is_up(killed, other)));
    }
}

/// A node that is started again before anyone noticed that it was gone does not know the sessions of its former life.
/// It answers so, and its peer need not wait until it has not heard it for long.
#[test]
fn a_restart_that_nobody_saw_is_told() {
    for restarted in [0, 1] {
        let mut world = World::<false>::new(2, 5, CALM);
        world.meet();
        let other = 1 - restarted;
        world.kill(restarted);
        world.start(restarted, identity(restarted));
        assert!(world.send(other, restarted, &frame(1, 100)));
        assert!(world.until(5 * MS, |world| world.told[other].len() > 1), "restarted {restarted}");
        assert!(
            world.until(100 * MS, |world| world.is_up(other, restarted) && world.is_up(restarted, other))
        );
        assert!(world.frames(restarted).is_empty(), "what was meant for a former life is lost");
    }
}

/// A node that came back was found at once, over Ethernet: but the welcome that it gave was lost, for it did not know
/// yet where its host was. Who dialled had done so for long by then, and its next hello came 100 to 200 milliseconds
/// later: a leadership that was handed to it meanwhile found no majority.
#[test]
fn a_path_that_is_found_is_used_at_once_by_both_ends() {
    let (dials, answers) = (0, 1);
    let mut world = World::<false>::new(2, 8, CALM);
    world.net.borrow_mut().adversary.loss = 1_000_000;
    world.pass(1_000 * MS);
    world.net.borrow_mut().adversary.loss = 0;
    world.net.borrow_mut().filter = |sent| sent.from == address(1);
    world.link(dials).carrier_mut().hints.push(Arrival::Reachable(address(answers)));
    world.pass(MS);
    world.net.borrow_mut().filter = |_| false;
    world.link(answers).carrier_mut().hints.push(Arrival::Reachable(address(dials)));
    assert!(world.until(MS, |world| world.is_up(0, 1) && world.is_up(1, 0)), "the welcome is said again");
}

/// What is said first on a new path may be lost as well: it is said again soon.
#[test]
fn a_path_that_is_found_is_tried_again_soon() {
    let mut world = World::<false>::new(2, 9, CALM);
    world.net.borrow_mut().adversary.loss = 1_000_000;
    world.pass(1_000 * MS);
    world.link(0).carrier_mut().hints.push(Arrival::Reachable(address(1)));
    world.pass(MS);
    world.net.borrow_mut().adversary.loss = 0;
    assert!(world.until(20 * MS, |world| world.is_up(0, 1) && world.is_up(1, 0)));
}

#[test]
fn a_bye_ends_a_session_at_once() {
    let mut world = World::<false>::new(2, 6, CALM);
    world.meet();
    world.links[1] = None;
    assert!(world.until(MS, |world| !world.is_up(0, 1)));
    assert_eq!(world.told[0].last(), Some(&Told::Down(id(1), true)));
    assert!(
        world.notices(0).contains(&Notice::Ended { peer: id(1), address: address(1), why: Why::Bye }),
        "the operator is told"
    );
}

/// A way was cut in one direction for so long that its sender had asked for credits as often as it may. When the way
/// was whole again nobody noticed: the sender had nothing left to speak with, and heard the other end all the time; or
/// the other end had given up and, not being the one that dials, waited for a word. Where a silence may last long, it
/// did.
#[test]
fn who_has_asked_for_credits_in_vain_greets_anew() {
    for (cut, gives_up) in [(0, false), (0, true), (1, false), (1, true)] {
        let other = 1 - cut;
        let mut world = World::<false>::with(2, 19, CALM, 32, 1472);
        world.meet();
        (0..2).for_each(|node| world.link(node).state.unheard = Duration::from_secs(60));
        let from: fn(&Sent) -> bool =
            if cut == 0 { |sent| sent.from == address(0) } else { |sent| sent.from == address(1) };
        world.net.borrow_mut().filter = from;
        while world.send(cut, other, &frame(0, 200)) {}
        world.pass(6_000 * MS);
        if gives_up {
            world.link(other).carrier_mut().hints.push(Arrival::Unreachable(address(cut)));
            assert!(world.until(10 * MS, |world| !world.is_up(other, cut)));
        }
        world.net.borrow_mut().filter = |_| false;
        let meet = |world: &mut World<false>| world.is_up(0, 1) && world.is_up(1, 0);
        assert!(world.until(500 * MS, meet), "{cut} was cut off, the other gave up: {gives_up}");
        assert!(world.send(cut, other, &frame(1, 200)) && world.send(other, cut, &frame(2, 200)));
        let came = |world: &mut World<false>| world.frames(0).len() + world.frames(1).len() == 2;
        assert!(world.until(10 * MS, came));
        let ended = |notice: &Notice<u16>| matches!(notice, Notice::Ended { why: Why::Unanswered, .. });
        assert!(world.notices(cut).iter().any(ended), "the operator is told");
    }
}

/// Who has no other link allows a longer silence than a peer that has one, or that runs another version: such a peer
/// still hears enough.
#[test]
fn who_allows_a_long_silence_speaks_as_often_as_before() {
    let mut world = World::<false>::new(2, 23, CALM);
    world.meet();
    for node in 0..2 {
        let state = &mut world.link(node).state;
        (state.unheard, state.keepalive) = (Duration::from_millis(80), Duration::from_millis(20));
    }
    world.link(0).allow_silence(Duration::from_secs(1));
    world.pass(3_000 * MS);
    let ended = |notice: &Notice<u16>| matches!(notice, Notice::Ended { .. });
    assert!((0..2).all(|node| !world.notices(node).iter().any(ended)));
    // And when the other one falls silent it is left, a second later.
    world.net.borrow_mut().filter = |sent| sent.from == address(1);
    world.pass(900 * MS);
    assert!(world.is_up(0, 1) && world.notices(0).is_empty());
    assert!(world.until(200 * MS, |world| !world.is_up(0, 1)));
}

/// An ICMP message can be forged by anyone who guesses two ports. A peer that answers is not gone.
#[test]
fn a_forged_hint_takes_no_session_down() {
    let mut world = World::<false>::new(2, 7, Adversary { delay_ns: (200 * US, 400 * US), ..CALM });
    world.meet();
    for _ in 0..200 {
        let hint = Arrival::Unreachable(address(1));
        world.link(0).carrier_mut().hints.push(hint);
        world.pass(MS / 2);
    }
    assert_eq!(world.told[0].len(), 1, "{:?}", world.told[0]);
    // One that does not answer is.
    world.net.borrow_mut().adversary.loss = 1_000_000;
    world.pass(MS);
    let hint = Arrival::Unreachable(address(1));
    world.link(0).carrier_mut().hints.push(hint);
    assert!(world.until(10 * MS, |world| !world.is_up(0, 1)));
}

#[test]
fn strangers_are_refused_and_both_ends_say_why() {
    let refused = |identity: Identity, stores: Vec<(NodeId, StoreId)>| {
        let mut world = World::<false>::new(2, 8, CALM);
        world.links = vec![None, None];
        world.stores = stores;
        world.start(1, super::net::identity(1));
        world.stores = Vec::new();
        world.start(0, identity);
        world.pass(300 * MS);
        assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
        let here = world.notices(1).into_iter().find_map(|notice| match notice {
            Notice::Refused { refusal, .. } => Some(refusal),
            _ => None,
        });
        let there = world.notices(0).into_iter().find_map(|notice| match notice {
            Notice::RefusedBy { refusal, .. } => Some(refusal),
            Notice::MixedUp { .. } => here,
            _ => None,
        });
        assert_eq!(here, there);
        assert!(world.counters(0).refused > 0);
        here.unwrap()
    };
    let good = identity(0);
    let cluster = Identity { cluster: ClusterId(10), ..good };
    assert_eq!(
        refused(cluster, Vec::new()),
        Refusal::Cluster { expected: ClusterId(9), found: ClusterId(10) }
    );
    let lanes = Identity { lanes: 2, ..good };
    assert_eq!(refused(lanes, Vec::new()), Refusal::Lanes { expected: 1, found: 2 });
    assert_eq!(
        refused(good, vec![(id(0), StoreId(1))]),
        Refusal::Store { expected: StoreId(1), found: StoreId(70) }
    );
}

#[test]
fn a_path_that_does_not_carry_what_is_configured_is_told_and_used_as_it_is() {
    let narrow = Adversary { path_bytes: 1300, ..CALM };
    let mut world = World::<false>::with(2, 9, narrow, 256, 8972);
    world.meet();
    world.pass(2_000 * MS);
    let told = Notice::Narrow { peer: id(1), wanted_bytes: 8972, path_bytes: 1200 };
    assert!(world.notices(0).contains(&told));
    let sent = frame(1, 20_000);
    assert!(world.send(0, 1, &sent) && world.send(1, 0, &sent));
    world.pass(10 * MS);
    assert_eq!((world.frames(0), world.frames(1)), (vec![&sent], vec![&sent]));
    // Mended, it is found out.
    world.net.borrow_mut().adversary.path_bytes = 9000;
    world.pass(5_000 * MS);
    assert!(world.notices(0).contains(&Notice::Wide { peer: id(1), path_bytes: 8972 }));
    world.net.borrow_mut().tapped = Some(Vec::new());
    assert!(world.send(0, 1, &sent));
    let fragments = world.net.borrow().tapped.as_ref().unwrap().len();
    assert_eq!(fragments, 3);
    // And one that becomes narrow under a session is found out too.
    world.net.borrow_mut().adversary.path_bytes = 1300;
    world.pass(40_000 * MS);
    assert!(world.send(0, 1, &sent));
    world.pass(10 * MS);
    assert_eq!(world.frames(1).len(), 3);
    assert_eq!(world.told[1].iter().filter(|told| !matches!(told, Told::Frame(..))).count(), 1, "still up");
}

#[test]
fn a_path_may_be_narrow_one_way() {
    let mut world = World::<false>::with(2, 10, CALM, 256, 8972);
    world.net.borrow_mut().filter = |sent| sent.from == address(1) && sent.bytes.len() > 1300;
    world.meet();
    world.pass(3_000 * MS);
    let sent = frame(1, 8_800);
    world.net.borrow_mut().tapped = Some(Vec::new());
    assert!(world.send(0, 1, &sent));
    assert_eq!(world.net.borrow_mut().tapped.replace(Vec::new()).unwrap().len(), 1);
    assert!(world.send(1, 0, &sent));
    assert_eq!(world.net.borrow_mut().tapped.take().unwrap().len(), 8);
    world.pass(10 * MS);
    assert_eq!((world.frames(0), world.frames(1)), (vec![&sent], vec![&sent]));
}

/// A link that was reconfigured carries less from one moment to the next, and what is too long for it is lost. Commits
/// wait until that is found: no longer than an election would take.
#[test]
fn a_path_that_becomes_narrow_under_a_session_is_found_out_within_a_second() {
    let mut world = World::<false>::with(2, 11, CALM, 256, 8972);
    world.meet();
    world.pass(5_000 * MS);
    world.net.borrow_mut().adversary.path_bytes = 1300;
    let begun = world.now();
    let came = |world: &mut World<false>| {
        // And a short one, as heartbeats are.
        world.send(0, 1, &frame(1, 5_000));
        world.send(0, 1, &frame(2, 100));
        world.pass(20 * MS);
        world.frames(1).iter().any(|came| came.len() == 5_000)
    };
    assert!(world.until(60_000 * MS, came), "never");
    let took = world.now() - begun;
    assert!(took < Duration::from_secs(1), "a frame of 5000 bytes found its way after {took:?}");
}

/// The carrier is told by who refuses to carry it, or by the system. Then nobody waits for the next check.
#[test]
fn a_path_that_is_said_to_be_narrow_is_asked_at_once() {
    let mut world = World::<false>::with(2, 13, CALM, 256, 8972);
    world.meet();
    world.pass(5_000 * MS);
    // One that is not narrow stays what it is, however often it is said.
    for _ in 0..50 {
        world.link(0).carrier_mut().hints.push(Arrival::TooLong(address(1)));
        world.pass(MS);
    }
    let sent = world.counters(0).datagrams_out;
    for _ in 0..1_000 {
        world.link(0).carrier_mut().hints.push(Arrival::TooLong(address(1)));
    }
    world.pass(MS);
    assert!(world.counters(0).datagrams_out <= sent + 4, "a hint is worth a probe or two");
    world.net.borrow_mut().adversary.path_bytes = 1300;
    world.link(0).carrier_mut().hints.push(Arrival::TooLong(address(1)));
    world.pass(300 * MS);
    let narrow = |notice: &Notice<u16>| matches!(notice, Notice::Narrow { .. });
    assert_eq!(world.notices(0).into_iter().filter(narrow).count(), 1);
    assert!(world.send(0, 1, &frame(1, 5_000)));
    world.pass(10 * MS);
    assert_eq!(world.frames(1).len(), 1);
}

/// Long and short datagrams are lost alike: it is not their length.
#[test]
fn a_path_that_loses_much_is_not_taken_for_narrow() {
    for seed in 0..3 {
        let lossy = Adversary { loss: 300_000, delay_ns: (100 * US, 900 * US), ..CALM };
        let mut world = World::<false>::with(2, seed, lossy, 256, 8972);
        world.meet();
        world.pass(3_000 * MS);
        let wide = |world: &mut World<false>| {
            (0..2).all(|node| {
                let peer = &world.link(node).state.peers[0];
                peer.session.as_ref().is_some_and(|session| session.path_bytes == 8972)
            })
        };
        assert!(wide(&mut world), "{seed}");
        (0..2).for_each(|node| drop(world.notices(node)));
        world.pass(20_000 * MS);
        let narrow = |notice: &Notice<u16>| matches!(notice, Notice::Narrow { .. });
        assert!((0..2).all(|node| !world.notices(node).iter().any(narrow)), "{seed}");
        // Nor if for a moment nothing at all arrives.
        world.net.borrow_mut().adversary.loss = 1_000_000;
        world.pass(1_200 * MS);
        world.net.borrow_mut().adversary.loss = 300_000;
        world.pass(2_000 * MS);
        assert!((0..2).all(|node| !world.notices(node).iter().any(narrow)), "{seed}");
    }
}

/// A cable, a device at either end: whoever listens there still does. That nobody does is told of as an end.
#[test]
fn a_way_that_broke_says_nothing_of_who_is_at_its_other_end() {
    for (also_gone, by_peer) in [(false, false), (true, true)] {
        let mut world = World::<false>::new(2, 14, CALM);
        world.meet();
        world.net.borrow_mut().adversary.loss = 1_000_000;
        world.link(0).carrier_mut().hints.push(Arrival::Broken(address(1)));
        world.pass(MS / 2);
        if also_gone {
            world.link(0).carrier_mut().hints.push(Arrival::Unreachable(address(1)));
        }
        assert!(world.until(10 * MS, |world| !world.is_up(0, 1)));
        assert_eq!(world.told[0].last(), Some(&Told::Down(id(1), by_peer)));
        let why = if by_peer { Why::Unreachable } else { Why::Broken };
        assert!(world.notices(0).contains(&Notice::Ended { peer: id(1), address: address(1), why }));
    }
}

/// A peer that has not heard this end for a while gives the session up, and says so when it hears of it again. It has
/// not restarted, and its process lives: an election need not be called for it.
#[test]
fn a_peer_that_gave_a_session_up_is_not_told_of_as_one_that_ended() {
    let mut world = World::<false>::new(2, 12, CALM);
    world.meet();
    // As with an election timeout of 150 ms and another link to go over.
    for node in 0..2 {
        let state = &mut world.link(node).state;
        (state.unheard, state.keepalive) = (Duration::from_millis(75), Duration::from_millis(18));
    }
    world.pass(100 * MS);
    // Node 0 stands still for a moment.
    world.pass_but(90 * MS, |node| node == 1);
    assert!(!world.is_up(1, 0));
    world.pass(200 * MS);
    let downs: Vec<&Told> = world.told[0].iter().filter(|told| matches!(told, Told::Down(..))).collect();
    assert!(!downs.contains(&&Told::Down(id(1), true)), "{downs:?}: node 1 never ended");
}
