use super::super::Carrier;
use super::net::*;
use crate::io::Link;
use crate::limits::FRAME_BYTES_MAX;
use crate::types::Time;

/// Sends so many frames of mixed lengths, one every 100 us, waits, and says how many of the long and of the short ones
/// have come. Everything that comes must be what was sent, and once.
fn exchange<const RELIABLE: bool>(
    world: &mut World<RELIABLE>,
    count: u64,
    check: bool,
) -> (u64, u64, u64, u64) {
    world.meet();
    let mut sent = Vec::new();
    for at in 0..count {
        let drawn = world.net.borrow_mut().draw();
        let len_bytes = if drawn.is_multiple_of(3) { 1500 + drawn % 40_000 } else { 96 + drawn % 800 };
        let frame = frame(at, len_bytes as usize);
        assert!(world.send(0, 1, &frame));
        sent.push(frame);
        world.pass(100 * US);
    }
    world.pass(400 * MS);
    let mut seen = vec![false; sent.len()];
    let (mut long, mut short) = (0, 0);
    for frame in world.frames(1) {
        let at = number(frame) as usize;
        assert!(!std::mem::replace(&mut seen[at], true), "frame {at} came twice");
        assert_eq!(frame.len(), sent[at].len());
        assert!(!check || *frame == sent[at], "frame {at} is another");
        *(if frame.len() > 1400 { &mut long } else { &mut short }) += 1;
    }
    let longs = sent.iter().filter(|frame| frame.len() > 1400).count() as u64;
    assert!(longs > count / 5 && longs < count / 2);
    (long, longs, short, count - longs)
}

#[test]
fn nothing_is_lost_on_a_path_that_loses_nothing() {
    for seed in 0..6 {
        let delay_ns = (10 * US, if seed % 2 == 0 { 10 * US } else { 700 * US });
        let adversary = Adversary { double: 50_000, delay_ns, ..CALM };
        let mut world = World::<false>::new(2, seed, adversary);
        let (long, longs, short, shorts) = exchange(&mut world, 300, true);
        assert_eq!((long, short), (longs, shorts));
        let counters = world.counters(1);
        assert_eq!((counters.lost, counters.frames_in), (0, 300));
        assert!(counters.duplicated > 20);
        assert_eq!(counters.reordered > 20, seed % 2 == 1, "{counters:?}");
        assert_eq!(world.counters(0).frames_out, 300);
    }
}

#[test]
fn frames_longer_than_a_datagram_survive_loss() {
    for (seed, loss) in [10_000, 50_000, 150_000, 300_000].into_iter().enumerate() {
        let adversary = Adversary { loss, double: 10_000, delay_ns: (10 * US, 300 * US), ..CALM };
        let mut world = World::<false>::new(2, seed as u64, adversary);
        let (long, longs, short, shorts) = exchange(&mut world, 600, true);
        // One of which nothing came is not missed there; that is as good as impossible for all but the shortest.
        assert!(long * 100 >= longs * 93, "{long} of {longs} at {loss}");
        // Short ones are repeated by Raft alone.
        assert!(
            short < shorts && short * 1_000_000 > shorts * u64::from(950_000 - loss - 50_000),
            "{short} of {shorts}"
        );
        let (sender, receiver) = (world.counters(0), world.counters(1));
        assert!(sender.repaired > 0 && receiver.repairs_asked > 0, "{sender:?} {receiver:?}");
        assert_eq!(receiver.repairs_withheld, 0, "{receiver:?}");
        let lost = receiver.lost as f64 / sender.datagrams_out as f64;
        assert!((lost * 1e6 - f64::from(loss)).abs() < f64::from(loss) / 3.0 + 3e3, "{lost} at {loss}");
    }
}

#[test]
fn corruption_is_dropped_where_it_is_seen() {
    let adversary = Adversary { corrupt: 100_000, delay_ns: (10 * US, 200 * US), ..CALM };
    let mut world = World::<false>::new(2, 11, adversary);
    // The bytes of records have checksums of their own, which the link does not look at.
    let (long, longs, ..) = exchange(&mut world, 600, false);
    assert!(long * 100 > longs * 80, "{long} of {longs}");
    assert!(world.counters(1).malformed > 20, "{:?}", world.counters(1));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
}

#[test]
fn the_longest_frames_arrive_over_a_path_that_loses_three_in_ten() {
    for loss in [0, 10_000, 300_000] {
        let adversary = Adversary { loss, delay_ns: (10 * US, 60 * US), ..CALM };
        let mut world = World::<false>::with(2, 12, adversary, 1024, 1472);
        world.meet();
        let sent: Vec<_> = (0..3).map(|at| frame(at, FRAME_BYTES_MAX)).collect();
        sent.iter().for_each(|frame| assert!(world.send(0, 1, frame)));
        let begin = world.now();
        assert!(world.until(2_000 * MS, |world| world.frames(1).len() == 3), "{:?}", world.counters(1));
        let mut came: Vec<_> = world.frames(1).into_iter().cloned().collect();
        came.sort_by_key(|frame| number(frame));
        assert!(came == sent, "what came is what was sent");
        let took_ms = (world.now() - begin).as_millis();
        assert!(took_ms < if loss < 100_000 { 150 } else { 1000 }, "{took_ms} ms at {loss}");
        let again = world.counters(0).repaired;
        assert!(loss > 0 || again == 0, "{again} fragments were sent twice for nothing");
    }
}

fn crowd<const RELIABLE: bool>(window: usize) {
    let mut world = World::<RELIABLE>::with(2, 13, CALM, window, 1472);
    world.meet();
    let mut taken = [0_u64; 2];
    let mut refused = 0;
    for round in 0..400_u64 {
        for (from, to) in [(0, 1), (1, 0)] {
            for _ in 0..round % 7 * window as u64 / 32 {
                let drawn = world.net.borrow_mut().draw();
                let len_bytes =
                    if drawn.is_multiple_of(4) { 1500 + drawn % 60_000 } else { 96 + drawn % 500 };
                if world.send(from, to, &frame(taken[from], len_bytes as usize)) {
                    taken[from] += 1;
                } else {
                    refused += 1;
                }
            }
        }
        // Now one stands still, now the other, now both run.
        let runs: fn(usize) -> bool = [|_| true, |node| node == 0, |node| node == 1][round as usize / 20 % 3];
        world.pass_but(50 * US, runs);
    }
    assert!(refused > 100, "{refused} sends were refused over a window of {window}: it was not crowded");
    world.pass(1_500 * MS);
    assert_eq!(world.net.borrow().overruns, 0, "more was sent than the ring holds");
    assert_eq!([world.frames(1).len() as u64, world.frames(0).len() as u64], taken);
    assert_eq!((world.told[0].len(), world.told[1].len()), (taken[1] as usize + 1, taken[0] as usize + 1));
    if RELIABLE {
        let (first, second) = (world.counters(0), world.counters(1));
        assert_eq!((first.repairs_asked, second.repairs_asked, first.repaired), (0, 0, 0));
    }
}

#[test]
fn a_burst_never_overruns_a_ring() {
    for window in [32, 64, 500] {
        crowd::<true>(window);
        crowd::<false>(window);
    }
}

/// The datagrams that carried the credits were lost, and the sender, which had used its own up, never asked again: both
/// ends were up, and nothing was sent from one to the other ever after.
#[test]
fn a_lost_credit_is_asked_for_again() {
    for class in [300, 20_000] {
        let mut world = World::<false>::with(2, 14, CALM, 64, 1472);
        world.meet();
        world.net.borrow_mut().filter = |sent| sent.from == address(1);
        let mut taken = 0;
        while world.send(0, 1, &frame(taken, class)) && taken < 100_000 {
            taken += 1;
            world.pass(20 * US);
        }
        assert!(taken < 100_000, "the credits never end");
        world.pass(300 * MS);
        assert!(!world.send(0, 1, &frame(taken, class)));
        world.net.borrow_mut().filter = |_| false;
        let mut sent_again = |world: &mut World<false>| world.send(0, 1, &frame(taken, class));
        assert!(world.until(600 * MS, &mut sent_again));
        assert!(world.counters(0).starved > 0);
        world.pass(400 * MS);
        assert_eq!(world.frames(1).len() as u64, taken + 1);
    }
}

/// Both ends have used up everything at once, and each waits for the other's word.
#[test]
fn two_ends_that_used_up_all_credits_at_once_go_on() {
    for window in [32, 64, 256] {
        let mut world = World::<true>::with(2, 15, CALM, window, 1472);
        world.meet();
        for round in 0..20 {
            while world.send(0, 1, &frame(round, 200)) {}
            while world.send(1, 0, &frame(round, 200)) {}
            world.pass(MS);
        }
        assert_eq!(world.net.borrow().overruns, 0);
        // Without a single probe: what is kept back for credits is enough.
        assert_eq!((world.counters(0).starved, world.counters(1).starved), (0, 0), "window {window}");
        assert!(world.frames(0).len() > 20 * window / 4 && world.frames(1).len() > 20 * window / 4);
    }
}

/// The frames of a follower's catch-up filled all the memory in which frames wait for credits, and a commit of a few
/// fragments was refused as long as it went on. Short frames had a way around long ones, and no room to wait in.
#[test]
fn short_frames_pass_between_the_fragments_of_long_ones() {
    let mut world = World::<false>::with(2, 16, CALM, 1024, 1472);
    world.meet();
    let mut number_of = 0;
    let (mut small, mut waited_ns_max) = (0_u64, 0);
    let mut fed = 0_usize;
    while fed < 64 << 20 {
        // A follower that is far behind: as much as is taken.
        while world.send(0, 1, &frame(number_of, 1 << 20)) {
            (number_of, fed) = (number_of + 1, fed + (1 << 20));
        }
        world.net.borrow_mut().tapped = Some(Vec::new());
        let short = frame(1_000_000 + small, 400);
        assert!(world.send(0, 1, &short), "a short frame has credits of its own");
        let before = world.net.borrow_mut().tapped.take().unwrap();
        let at = before.iter().position(|sent| sent.bytes.len() == 448).unwrap();
        assert_eq!(at, 0, "nothing goes before it");
        // One of a few fragments waits for what is under way, and not for what is queued.
        world.net.borrow_mut().tapped = Some(Vec::new());
        let middle = frame(2_000_000 + small, 6_000);
        assert!(world.send(0, 1, &middle), "a frame of a few fragments has room of its own");
        let begin = world.now();
        let came = |world: &mut World<false>| {
            world.frames(1).iter().rev().take(64).any(|frame| number(frame) == 2_000_000 + small)
        };
        assert!(world.until(10 * MS, came), "it comes");
        waited_ns_max = waited_ns_max.max((world.now() - begin).as_nanos() as u64);
        let between = world.net.borrow_mut().tapped.take().unwrap();
        let between = between.iter().filter(|sent| sent.from == address(0)).count();
        assert!(between < 512, "{between} datagrams were sent before it came");
        small += 1;
        world.told[1].clear();
    }
    assert!(small > 20, "only {small} rounds");
    assert!(waited_ns_max < MS, "a frame of 6000 bytes came after {waited_ns_max} ns");
}

#[test]
fn a_carrier_that_is_full_now_and_then_loses_nothing_that_was_taken() {
    fn run<const RELIABLE: bool>() {
        let mut world = World::<RELIABLE>::new(2, 17, CALM);
        world.meet();
        let (mut taken, mut refused) = (Vec::new(), 0);
        for at in 0..600_u64 {
            let refuse = at % 3 == 0;
            world.net.borrow_mut().refuse = refuse;
            let frame = frame(at, 100 + (at as usize * 37) % 9_000);
            if world.send(0, 1, &frame) {
                taken.push(frame);
            } else {
                assert!(refuse);
                refused += 1;
            }
            world.pass(20 * US);
        }
        world.net.borrow_mut().refuse = false;
        world.pass(300 * MS);
        let mut came: Vec<_> = world.frames(1).into_iter().cloned().collect();
        came.sort_by_key(|frame| number(frame));
        assert!(came == taken, "{} of {}", came.len(), taken.len());
        assert!(refused > 20);
        assert_eq!(world.counters(0).full, refused);
    }
    run::<true>();
    run::<false>();
}

#[test]
fn a_peer_that_is_not_there_loses_its_frames_silently() {
    let mut world = World::<false>::new(2, 18, CALM);
    world.links[1] = None;
    for at in 0..100_000 {
        assert!(world.send(0, 1, &frame(at, 200)));
    }
    world.pass(20 * MS);
    let link = world.link(0);
    assert_eq!(link.counters().frames_out, 0);
    assert_eq!(link.carrier().window(), 256);
    world.start(1, identity(1));
    world.meet();
    assert!(world.frames(1).is_empty());
}

#[test]
fn a_long_frame_is_carried_until_it_must_have_come_and_short_ones_pass_it() {
    let mut world = World::<false>::with(2, 21, Adversary { delay_ns: (MS, MS), ..CALM }, 32, 1472);
    world.meet();
    let at = |world: &World<false>| Time(world.now().as_nanos() as u64);
    let (given_at, peer) = (at(&world), id(1));
    assert!(world.send(0, 1, &frame(0, 200_000)));
    world.pass(5 * MS);
    let later = at(&world);
    assert!(world.send(0, 1, &frame(1, 100)));
    assert!(world.until(20 * MS, |world| world.frames(1).len() == 1));
    assert_eq!(number(world.frames(1)[0]), 1, "the short one came first");
    assert!(world.link(0).is_carrying(peer, given_at), "the long one is on its way");
    assert!(!world.link(0).is_carrying(peer, later), "what is not kept is not carried");
    assert!(world.until(1_000 * MS, |world| world.frames(1).len() == 2));
    assert!(world.until(50 * MS, |world| !world.link(0).is_carrying(peer, given_at)), "it has come");
    // And what ends with its session is not carried either.
    let given_at = at(&world);
    assert!(world.send(0, 1, &frame(2, 200_000)) && world.link(0).is_carrying(peer, given_at));
    world.kill(1);
    assert!(world.until(5_000 * MS, |world| !world.is_up(0, 1)));
    assert!(!world.link(0).is_carrying(peer, given_at));
}
