use super::super::assembly::{BYTES_MAX, SLOTS};
use super::super::peer::PENDING_MAX;
use super::net::*;
use crate::wire::datagram::{self, Body, Credit, Cut, Offer, Place};
use crate::wire::hello::Greeting;
use crate::wire::identity::Identity;

fn inject(world: &mut World<false>, from: u16, to: usize, head: &[u8], body: &[u8]) {
    let sent = Sent { from, to: address(to), bytes: [head, body].concat() };
    world.net.borrow_mut().deliver(sent);
}

/// As if node 1 gave credits for everything: then its assembly is all that bounds a flood.
fn forgive_all(world: &mut World<false>) {
    world.link(1).state.peers[0].seen.forgive_all();
}

/// What node 0 would name and number next in a datagram to node 1.
fn next_place(world: &mut World<false>) -> Place {
    let session = world.link(0).state.peers[0].session.as_mut().unwrap();
    let number = session.credits.next();
    session.credits.spend();
    Place { session: session.theirs, number, limit: 0 }
}

#[test]
fn datagrams_of_a_former_life_do_nothing() {
    let mut world = World::<false>::new(2, 21, CALM);
    world.net.borrow_mut().tapped = Some(Vec::new());
    world.meet();
    for at in 0..50 {
        world.send(0, 1, &frame(at, 300 + 200 * at as usize));
        world.send(1, 0, &frame(at, 300));
        world.pass(MS);
    }
    let former = world.net.borrow_mut().tapped.take().unwrap();
    assert!(former.len() > 200);
    (0..2).for_each(|node| world.start(node, identity(node)));
    world.meet();
    world.pass(10 * MS);
    let events = [world.told[0].len(), world.told[1].len()];
    let sessions = world.counters(1).reconnects + world.counters(0).reconnects;
    for sent in &former {
        world.net.borrow_mut().deliver(sent.clone());
        world.pass(20 * US);
    }
    world.pass(10 * MS);
    assert_eq!([world.told[0].len(), world.told[1].len()], events, "nothing came of it");
    assert_eq!(world.counters(1).reconnects + world.counters(0).reconnects, sessions);
    let dropped = |node: usize| world.counters(node).alien + world.counters(node).unasked;
    assert!(dropped(0) > 50 && dropped(1) > 50, "{} and {}", dropped(0), dropped(1));
    assert!(world.send(0, 1, &frame(99, 5_000)));
    world.pass(MS);
    assert_eq!(world.frames(1).last().map(|frame| number(frame)), Some(99));
}

#[test]
fn datagrams_of_this_session_count_once() {
    let mut world = World::<false>::new(2, 22, CALM);
    world.meet();
    world.net.borrow_mut().tapped = Some(Vec::new());
    for at in 0..50 {
        world.send(0, 1, &frame(at, 200 + 100 * at as usize));
        world.pass(MS / 2);
    }
    let all = world.net.borrow_mut().tapped.take().unwrap();
    let all: Vec<_> = all.into_iter().filter(|sent| sent.to == address(1)).collect();
    let before = world.counters(1);
    assert_eq!(world.frames(1).len(), 50);
    for sent in &all {
        world.net.borrow_mut().deliver(sent.clone());
    }
    world.pass(10 * MS);
    assert_eq!(world.frames(1).len(), 50);
    assert_eq!(world.counters(1).duplicated - before.duplicated, all.len() as u64);
}

fn hello(session: u64) -> ([u8; 48], [u8; 112]) {
    hello_of(identity(0), session)
}

fn hello_of(who: Identity, session: u64) -> ([u8; 48], [u8; 112]) {
    let offer = Offer { session, takes_bytes: 1472, got_bytes: 0 };
    let body = Body::Hello(offer, Greeting::Hello(who.hello(id(1))));
    let head = datagram::seal(Place { session: 0, number: 0, limit: 240 }, &body);
    let mut into = [0; datagram::MISSING_BYTES_MAX];
    assert_eq!(datagram::write_body(&body, &mut into), 112);
    (head, *into.first_chunk().unwrap())
}

#[test]
fn a_storm_of_forged_hellos_displaces_nothing_and_lets_others_in() {
    let mut world = World::<false>::new(2, 23, CALM);
    world.meet();
    let storm = |world: &mut World<false>, rounds: u64| {
        for round in 0..rounds {
            for at in 0..10 {
                let drawn = world.net.borrow_mut().draw();
                let (head, body) = hello(drawn | 1);
                inject(world, 5_000 + at, 1, &head, &body);
            }
            world.send(0, 1, &frame(round, 300));
            world.pass(20 * US);
        }
    };
    storm(&mut world, 2_000);
    world.pass(MS);
    assert_eq!(world.frames(1).len(), 2_000, "neighbours notice nothing");
    assert_eq!(world.told[1].len(), 2_001, "the session is what it was");
    assert_eq!(world.link(1).state.peers[0].pending.len(), PENDING_MAX);
    // Who comes back in the middle of it is let in.
    world.kill(0);
    world.start(0, identity(0));
    storm(&mut world, 20_000);
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    assert!(world.link(1).learned().len() <= 1, "nothing was learned of who was never heard again");
}

fn greet(world: &mut World<false>, from: u16, hellos: usize) {
    for _ in 0..hellos {
        let drawn = world.net.borrow_mut().draw();
        let (head, body) = hello(drawn | 1);
        inject(world, from, 1, &head, &body);
    }
}

/// Each was answered by a datagram as long, and half as much again was what a neighbour waited for it.
#[test]
fn hellos_in_the_name_of_a_peer_that_is_heard_are_answered_now_and_then() {
    let mut world = World::<false>::new(2, 30, CALM);
    world.meet();
    world.pass(MS);
    let before = world.counters(1);
    for _ in 0..1_000 {
        greet(&mut world, 5_000, 10);
        world.pass(20 * US);
    }
    world.pass(MS);
    let after = world.counters(1);
    let answered = 10_000 - (after.hellos_unanswered - before.hellos_unanswered);
    assert!((20..=32).contains(&answered), "{answered} answers in 21 ms");
    assert!(after.datagrams_out - before.datagrams_out < 40);
}

/// Those hellos must not keep out whom they name: one that has restarted and that nobody missed yet.
#[test]
fn who_restarts_amid_hellos_in_its_name_is_welcomed_in_time() {
    // From elsewhere they take nothing from it. From its own address they do, until it has not been heard for two
    // keepalives: then its next hello, after a pause for dialling, is answered.
    for (from, within_ms) in [(5_000, 2), (address(0), 200 + 200 + 20)] {
        for seed in 0..5 {
            let mut world = World::<false>::new(2, seed, CALM);
            world.meet();
            // Nobody is told that a session is not known: silence is all that there is.
            world.net.borrow_mut().filter = |sent| sent.bytes[4] == 9;
            (0..10).for_each(|_| {
                greet(&mut world, from, 20);
                world.pass(MS);
            });
            world.kill(0);
            world.start(0, identity(0));
            let mut passed_ms = 0;
            while !(world.is_up(0, 1) && world.is_up(1, 0)) {
                assert!(passed_ms < within_ms, "seed {seed}: not up {passed_ms} ms after it started");
                greet(&mut world, from, 20);
                world.pass(MS);
                passed_ms += 1;
            }
            assert!(world.counters(1).hellos_unanswered > 100);
        }
    }
}

/// Each was answered, at a cost beyond all else that was done about it.
#[test]
fn a_flood_of_strangers_is_dropped_without_an_answer_to_each() {
    let mut world = World::<false>::new(2, 29, CALM);
    world.meet();
    let before = world.counters(1);
    for round in 0..1_000 {
        let other = Identity { cluster: crate::types::ClusterId(1_000 + round), ..identity(0) };
        let (head, body) = hello_of(other, round + 1);
        inject(&mut world, 7, 1, &head, &body);
        let alien = Place { session: 1_000_000 + round, number: 0, limit: 0 };
        inject(&mut world, 8, 1, &datagram::seal_data(alien, 100), &[0; 100]);
        world.pass(20 * US);
    }
    world.pass(MS);
    let after = world.counters(1);
    assert_eq!((after.refused - before.refused, after.alien - before.alien), (1_000, 1_000));
    let answered = 2_000 - (after.unanswered - before.unanswered);
    assert!((20..=32).contains(&answered), "{answered} answers in 21 ms");
    // A notice of each had pushed all others out.
    let told = world.notices(1).len();
    assert!((9..=10).contains(&told), "{told} lines about it");
}

#[test]
fn hellos_that_offer_nothing_are_dropped() {
    let mut world = World::<false>::new(2, 24, CALM);
    world.links[0] = None;
    for (takes_bytes, limit) in [(0, 240), (511, 240), (1472, 0), (1472, 15)] {
        let offer = Offer { session: 5, takes_bytes, got_bytes: 0 };
        let body = Body::Hello(offer, Greeting::Hello(identity(0).hello(id(1))));
        let mut into = [0; datagram::MISSING_BYTES_MAX];
        datagram::write_body(&body, &mut into);
        let head = datagram::seal(Place { session: 0, number: 0, limit }, &body);
        inject(&mut world, 7, 1, &head, &into[..112]);
    }
    world.pass(MS);
    assert_eq!(world.counters(1).unasked, 4);
    assert_eq!(world.link(1).state.peers[0].pending.len(), 0);
}

#[test]
fn a_flood_of_first_fragments_takes_bounded_memory_and_passes() {
    for frame_bytes in [4 << 20, 100_000, 1_500] {
        let mut world = World::<false>::new(2, 25, CALM);
        world.meet();
        for at in 0..20_000_u32 {
            let cut = Cut { frame: at, frame_bytes, unit: 1424 };
            let place = next_place(&mut world);
            let bytes = [7; 1424];
            let head = datagram::seal(place, &Body::Fragment { cut, fragment: 0, bytes: &bytes });
            inject(&mut world, address(0), 1, &head, &bytes);
            if at % 16 == 0 {
                world.pass(10 * US);
                forgive_all(&mut world);
            }
        }
        world.pass(20 * US);
        let memory_bytes = world.link(1).state.peers[0].assembly.memory_bytes();
        assert!(memory_bytes <= BYTES_MAX, "{memory_bytes} bytes");
        let counters = world.counters(1);
        assert!(counters.fragments_crowded > 1_000, "{counters:?}");
        assert!(counters.fragments_in <= 20_000 - counters.fragments_crowded);
        assert!(counters.frames_abandoned + SLOTS as u64 >= counters.fragments_in);
        // The peer comes to its senses. Its frames are numbered on from where the flood was.
        world.pass(1_100 * MS);
        (0..20_000).for_each(|_| world.link(0).state.peers[0].kept.skip());
        assert!(world.send(0, 1, &frame(1, 50_000)));
        assert!(world.until(50 * MS, |world| !world.frames(1).is_empty()), "{:?}", world.counters(1));
        assert!(world.link(1).state.peers[0].assembly.memory_bytes() <= BYTES_MAX);
    }
}

/// Each was asked for again and again, and every such request cost more than the fragments.
#[test]
fn frames_that_never_become_whole_are_hardly_asked_for() {
    let mut world = World::<false>::new(2, 31, CALM);
    world.meet();
    let begun = (world.counters(1), world.now());
    let cut = |frame| Cut { frame, frame_bytes: 100_000, unit: 1424 };
    for at in 0..20_000_u32 {
        // All but the last fragment of some, and the first and last of others.
        let fragment = if at < 10_000 { at as usize % 70 } else { at as usize % 2 * 70 };
        let frame = if at < 10_000 { at / 70 } else { at / 2 };
        let bytes = &[7; 1424][..cut(frame).range(fragment).len()];
        let place = next_place(&mut world);
        let head = datagram::seal(place, &Body::Fragment { cut: cut(frame), fragment, bytes });
        inject(&mut world, address(0), 1, &head, bytes);
        if at % 2 == 1 {
            world.pass(100 * US);
            forgive_all(&mut world);
        }
    }
    let counters = world.counters(1);
    let asked = counters.repairs_asked - begun.0.repairs_asked;
    let allowed = 64 + (world.now() - begun.1).as_millis() as u64 / 8;
    assert!(asked > 64 && asked <= allowed, "{asked} of {allowed}");
    assert!(counters.repairs_withheld > asked, "{counters:?}");
    // Who is mad no more is asked for what is lost.
    world.pass(1_100 * MS);
    (0..20_000).for_each(|_| world.link(0).state.peers[0].kept.skip());
    world.net.borrow_mut().adversary.loss = 200_000;
    assert!(world.send(0, 1, &frame(1, 50_000)));
    assert!(world.until(100 * MS, |world| !world.frames(1).is_empty()), "{:?}", world.counters(1));
}

/// What a member sends in vain it is not given credits for as fast as it sends: each such credit was a send. What it
/// sends beyond them is not looked at, and what else comes of it meanwhile is not held up for long.
#[test]
fn a_flood_of_what_is_of_no_use_is_given_few_credits() {
    let mut world = World::<false>::new(2, 32, CALM);
    world.meet();
    let begun = world.counters(1);
    let limit = |world: &mut World<false>| world.link(1).state.peers[0].seen.tell();
    let granted = limit(&mut world);
    let cut = Cut { frame: 0, frame_bytes: 3_000, unit: 1424 };
    let Place { session, number: first, .. } = next_place(&mut world);
    let mut next = first + 1;
    // The second time that the first fragment comes, and all others, are of no use.
    for _ in 0..2_000 {
        let number = if next < limit(&mut world) { next } else { next + 100 };
        next += u64::from(number == next);
        let body = Body::Fragment { cut, fragment: 0, bytes: &[7; 1424] };
        let head = datagram::seal(Place { session, number, limit: 0 }, &body);
        inject(&mut world, address(0), 1, &head, &[7; 1424]);
        world.pass(50 * US);
    }
    let counters = world.counters(1);
    let window = world.link(1).state.window;
    let more = limit(&mut world) - granted;
    assert!((100_000 / 250 - 64..=100_000 / 250 + 1).contains(&more), "{more} credits in 100 ms");
    let beyond = counters.beyond - begun.beyond;
    assert!(beyond > 2_000 - window - more - 64, "{beyond}: {counters:?}");
    let sent = counters.datagrams_out - begun.datagrams_out;
    assert!(sent < 40, "{sent} datagrams were sent for it");
    // After it has come to its senses it may send as much as ever, at once for what is of use and soon for all.
    (0..granted + more - 1)
        .for_each(|_| world.link(0).state.peers[0].session.as_mut().unwrap().credits.spend());
    (0..20).for_each(|_| world.link(0).state.peers[0].kept.skip());
    world.pass(100 * MS);
    for at in 0..20 {
        assert!(world.send(0, 1, &frame(at, 20_000)));
        world.pass(5 * MS);
    }
    assert_eq!(world.frames(1).len(), 20, "{:?}", world.counters(1));
    let sent = world.link(0).state.peers[0].session.as_ref().unwrap().credits.next();
    assert_eq!(limit(&mut world), sent + window, "the window is whole again");
}

/// A frame's number is told by its fragments alone. One that claimed another length for the same frame was put in its
/// place, and what came out was never sent by anybody.
#[test]
fn fragments_that_contradict_each_other_are_not_put_together() {
    let mut world = World::<false>::new(2, 26, CALM);
    world.meet();
    let sent = frame(1, 3_000);
    let piece = |world: &mut World<false>, cut: Cut, fragment: usize, bytes: &[u8]| {
        let place = next_place(world);
        let head = datagram::seal(place, &Body::Fragment { cut, fragment, bytes });
        inject(world, address(0), 1, &head, bytes);
        world.pass(40 * US);
    };
    let cut = Cut { frame: 0, frame_bytes: 3_000, unit: 1424 };
    piece(&mut world, cut, 0, &sent[..1424]);
    piece(&mut world, Cut { frame_bytes: 3_001, ..cut }, 1, &[9; 1424]);
    piece(&mut world, Cut { unit: 1416, ..cut }, 1, &[9; 1416]);
    // Again the first one, with another content: what came first counts.
    piece(&mut world, cut, 0, &[9; 1424]);
    piece(&mut world, cut, 2, &sent[2848..]);
    assert_eq!(world.frames(1).len(), 0);
    piece(&mut world, cut, 1, &sent[1424..2848]);
    assert_eq!(world.frames(1), vec![&sent]);
    // And after it was whole nothing of it begins anew.
    piece(&mut world, cut, 0, &sent[..1424]);
    piece(&mut world, Cut { frame: 1 << 20, ..cut }, 0, &sent[..1424]);
    let counters = world.counters(1);
    assert_eq!((counters.fragments_contrary, counters.fragments_late, counters.fragments_in), (3, 2, 3));
}

#[test]
fn what_is_out_of_bounds_is_counted_and_dropped() {
    let mut world = World::<false>::new(2, 27, CALM);
    world.meet();
    let place = next_place(&mut world);
    let far = Place { number: place.number + 10_000, ..place };
    let credit = Body::Credit(Credit::default());
    let head = datagram::seal(far, &credit);
    inject(&mut world, address(0), 1, &head, &[0; 16]);
    // A limit that nobody can tell buys nothing.
    let place = Place { limit: datagram::NUMBER_MAX, ..place };
    let head = datagram::seal(place, &credit);
    inject(&mut world, address(0), 1, &head, &[0; 16]);
    // A repair request for what was never sent.
    let cut = Cut { frame: 3, frame_bytes: 9_000, unit: 1424 };
    let place = next_place(&mut world);
    let head = datagram::seal(place, &Body::Repair { cut, first: 0, missing: &[0x7f] });
    inject(&mut world, address(0), 1, &head, &[0x7f]);
    world.pass(MS);
    let counters = world.counters(1);
    assert_eq!((counters.beyond, counters.repairs_missed, counters.malformed), (1, 1, 0));
    let mut taken = 0;
    while world.send(1, 0, &frame(taken, 200)) {
        taken += 1;
    }
    assert!(taken < 256, "{taken} datagrams went into a ring of 256");
}

#[test]
fn garbage_is_counted_and_nobody_notices() {
    let mut world = World::<false>::new(2, 28, CALM);
    world.net.borrow_mut().tapped = Some(Vec::new());
    world.meet();
    world.send(0, 1, &frame(1, 9_000));
    world.pass(MS);
    let seen = world.net.borrow_mut().tapped.take().unwrap();
    let before = world.counters(1).malformed;
    let mut injected = 0;
    for sent in seen.iter().filter(|sent| sent.to == address(1)) {
        let data = sent.bytes[4] == 5;
        for len in 0..sent.bytes.len().min(200) {
            let cut = Sent { bytes: sent.bytes[..len].to_vec(), ..sent.clone() };
            world.net.borrow_mut().deliver(cut);
            injected += 1;
        }
        for bit in 0..48 * 8 {
            let mut broken = sent.clone();
            broken.bytes[bit / 8] ^= 1 << (bit % 8);
            world.net.borrow_mut().deliver(broken);
            injected += 1;
            if bit % 32 == 0 {
                world.pass(40 * US);
            }
        }
        assert!(data || sent.bytes.len() > 48);
        world.pass(MS);
    }
    let drawn: Vec<u8> = (0..4_000).map(|_| world.net.borrow_mut().draw() as u8).collect();
    for at in 0..2_000 {
        inject(&mut world, 9, 1, &drawn[at..at + at % 1_400], &[]);
        injected += 1;
        if at % 16 == 0 {
            world.pass(40 * US);
        }
    }
    world.pass(MS);
    let counters = world.counters(1);
    // A hello that was cut in its padding is a hello.
    let dropped = counters.malformed - before + counters.unasked + world.net.borrow().overruns;
    assert!(dropped + 40 >= injected && injected > 5_000, "{dropped} of {injected}: {counters:?}");
    assert_eq!(world.frames(1).len(), 1);
    assert_eq!(world.told[1].len(), 2);
    let told = world.notices(1).len();
    assert!(told < 10, "{told} lines about it");
}
