#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::*;

/// Runs a test over every kind that this system has, and every flavour of ring; at least epoll is always there.
fn over_each(test: impl Fn(&dyn Fn() -> Reactor)) {
    let mut ran = 0;
    let mut run = |kind: Kind, flavours: &[Flavour]| match Reactor::with(kind, flavours) {
        Ok(reactor) => {
            assert_eq!(reactor.kind(), kind);
            drop(reactor);
            test(&|| Reactor::with(kind, flavours).unwrap());
            ran += 1;
        }
        Err(error) => {
            assert_eq!(kind, Kind::Uring, "epoll is always there: {error}");
            println!("skipped over io_uring {flavours:?}: {error}");
        }
    };
    run(Kind::Epoll, &[]);
    for flavour in Flavour::ALL {
        run(Kind::Uring, &[flavour]);
    }
    assert!(ran >= 1);
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

/// Waits until `owner` is told something that `wanted` holds for.
fn wait_for(reactor: &mut Reactor, owner: Owner, wanted: impl Fn(&Ready) -> bool) -> Ready {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        while let Some(ready) = reactor.ready(owner) {
            if wanted(&ready) {
                return ready;
            }
        }
        assert!(Instant::now() < until, "nothing was told");
        reactor.park(Duration::from_millis(100));
    }
}

/// Everything that is told within a short time.
fn settle(reactor: &mut Reactor, owner: Owner) -> Vec<Ready> {
    let mut told = Vec::new();
    for _ in 0..3 {
        reactor.park(Duration::from_millis(2));
        told.extend(std::iter::from_fn(|| reactor.ready(owner)));
    }
    told
}

#[test]
fn what_was_there_before_the_registration_is_told() {
    over_each(|open| {
        let mut reactor = open();
        let (ours, mut theirs) = pair();
        theirs.write_all(b"early").unwrap();
        reactor.register(ours.as_fd(), Owner::Port, 7).unwrap();
        let ready = wait_for(&mut reactor, Owner::Port, |ready| ready.readable);
        assert_eq!(ready, Ready { key: 7, readable: true, writable: true, closed: false });
        assert_eq!(reactor.ready(Owner::Link), None);
    });
}

#[test]
fn every_arrival_is_an_edge_and_silence_is_none() {
    over_each(|open| {
        let mut reactor = open();
        let (mut ours, mut theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Link, 1).unwrap();
        wait_for(&mut reactor, Owner::Link, |ready| ready.writable && !ready.readable);
        for round in 0..50u8 {
            theirs.write_all(&[round]).unwrap();
            wait_for(&mut reactor, Owner::Link, |ready| ready.readable);
            let mut byte = [0];
            assert_eq!(ours.read(&mut byte).unwrap(), 1);
            assert_eq!(byte, [round]);
            assert_eq!(ours.read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(settle(&mut reactor, Owner::Link), []);
        // Not read: told once, and not again.
        theirs.write_all(b"x").unwrap();
        wait_for(&mut reactor, Owner::Link, |ready| ready.readable);
        assert_eq!(settle(&mut reactor, Owner::Link), []);
    });
}

#[test]
fn room_to_write_is_told_when_it_comes_back() {
    over_each(|open| {
        let mut reactor = open();
        let (mut ours, mut theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Link, 1).unwrap();
        wait_for(&mut reactor, Owner::Link, |ready| ready.writable);
        let block = [1u8; 65_536];
        let mut sent = 0;
        while let Ok(bytes) = ours.write(&block) {
            sent += bytes;
        }
        settle(&mut reactor, Owner::Link);
        let mut sink = vec![0; sent];
        theirs.read_exact(&mut sink).unwrap();
        wait_for(&mut reactor, Owner::Link, |ready| ready.writable);
        assert!(ours.write(&block).unwrap() > 0);
    });
}

#[test]
fn closing_is_told_as_readable() {
    over_each(|open| {
        let mut reactor = open();
        let (mut ours, theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Port, 3).unwrap();
        wait_for(&mut reactor, Owner::Port, |ready| ready.writable);
        drop(theirs);
        wait_for(&mut reactor, Owner::Port, |ready| ready.readable);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        // No storm: a closed connection is not told for ever.
        assert!(settle(&mut reactor, Owner::Port).len() <= 3);
    });
}

#[test]
fn a_closed_descriptor_closes_the_connection_at_once() {
    // A poll of io_uring holds its file: had its removal waited for the next submission, the other end would have
    // waited for the end of the connection as long.
    over_each(|open| {
        let reactor = open();
        let (ours, mut theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Port, 3).unwrap();
        reactor.deregister(ours.as_fd(), Owner::Port, 3);
        drop(ours);
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn many_descriptors_and_owners_are_told_apart() {
    const COUNT: u32 = 600;
    over_each(|open| {
        let mut reactor = open();
        let mut pairs: Vec<_> = (0..COUNT / 2).map(|_| pair()).collect();
        for (key, (ours, _)) in pairs.iter().enumerate() {
            let owner = if key % 2 == 0 { Owner::Link } else { Owner::Port };
            reactor.register(ours.as_fd(), owner, key as u32).unwrap();
        }
        for _ in 0..4 {
            reactor.poll();
        }
        for owner in [Owner::Link, Owner::Port] {
            let first: Vec<_> = std::iter::from_fn(|| reactor.ready(owner)).collect();
            assert_eq!(first.len(), pairs.len() / 2, "each is writable from the start");
        }
        for (_, theirs) in pairs.iter_mut().step_by(3) {
            theirs.write_all(b"!").unwrap();
        }
        let mut keys = Vec::new();
        let until = Instant::now() + Duration::from_secs(5);
        while keys.len() < pairs.len().div_ceil(3) && Instant::now() < until {
            reactor.park(Duration::from_millis(10));
            for (owner, parity) in [(Owner::Link, 0), (Owner::Port, 1)] {
                while let Some(ready) = reactor.ready(owner) {
                    assert!(ready.readable);
                    assert_eq!(ready.key % 2, parity);
                    keys.push(ready.key);
                }
            }
        }
        keys.sort_unstable();
        let expected: Vec<u32> = (0..pairs.len() as u32).step_by(3).collect();
        assert_eq!(keys, expected);
    });
}

#[test]
fn an_event_of_an_earlier_registration_is_dropped() {
    over_each(|open| {
        let mut reactor = open();
        for key in 0..100 {
            let (ours, mut theirs) = pair();
            reactor.register(ours.as_fd(), Owner::Port, key).unwrap();
            theirs.write_all(b"x").unwrap();
            reactor.poll();
            reactor.deregister(ours.as_fd(), Owner::Port, key);
            drop(ours);
            assert_eq!(reactor.ready(Owner::Port), None, "forgotten with its registration");
        }
        // The descriptor's number and the key come again; what is told is of the new one.
        let (ours, mut theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Port, 99).unwrap();
        assert!(settle(&mut reactor, Owner::Port).iter().all(|ready| !ready.readable));
        theirs.write_all(b"y").unwrap();
        assert_eq!(wait_for(&mut reactor, Owner::Port, |ready| ready.readable).key, 99);
    });
}

#[test]
fn a_number_registered_again_takes_the_place_of_the_old() {
    over_each(|open| {
        let mut reactor = open();
        let (ours, mut theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Port, 1).unwrap();
        reactor.register(ours.as_fd(), Owner::Link, 2).unwrap();
        // Under its old name it is not there any more.
        reactor.deregister(ours.as_fd(), Owner::Port, 1);
        theirs.write_all(b"x").unwrap();
        assert_eq!(wait_for(&mut reactor, Owner::Link, |ready| ready.readable).key, 2);
        assert_eq!(reactor.ready(Owner::Port), None);
        reactor.deregister(ours.as_fd(), Owner::Link, 2);
        theirs.write_all(b"x").unwrap();
        assert_eq!(settle(&mut reactor, Owner::Link), []);
        // And may come back.
        reactor.register(ours.as_fd(), Owner::Link, 2).unwrap();
        wait_for(&mut reactor, Owner::Link, |ready| ready.readable);
    });
}

#[test]
fn a_block_ends_at_its_time_and_not_before() {
    over_each(|open| {
        let mut reactor = open();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(30) {
            reactor.park(Duration::from_millis(30));
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        let mut blocks = 0;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            reactor.park(Duration::from_millis(5));
            blocks += 1;
        }
        assert!(blocks <= 12, "{blocks} blocks of 5 ms in 50 ms: it does not block");
    });
}

#[test]
fn what_was_not_taken_keeps_it_from_blocking() {
    over_each(|open| {
        let mut reactor = open();
        let (ours, mut theirs) = pair();
        reactor.register(ours.as_fd(), Owner::Link, 1).unwrap();
        theirs.write_all(b"x").unwrap();
        reactor.poll();
        let begun = Instant::now();
        reactor.park(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(reactor.ready(Owner::Link).is_some());
    });
}

#[test]
fn a_wake_before_the_block_is_not_lost() {
    over_each(|open| {
        let mut reactor = open();
        reactor.waker().wake();
        let begun = Instant::now();
        reactor.park(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
        // And is told once.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(10) {
            reactor.park(Duration::from_millis(10));
        }
    });
}

#[test]
fn no_wake_is_lost_between_two_threads() {
    // Each waits for the other's number to move on: one lost wake, and both sleep for a minute.
    const ROUNDS: u64 = 3_000;
    over_each(|open| {
        let mut reactor = open();
        let (here, there) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (tell, told) = std::sync::mpsc::channel();
        let kind = reactor.kind();
        let other = std::thread::spawn({
            let (here, there, waker) = (Arc::clone(&here), Arc::clone(&there), reactor.waker());
            move || {
                let mut reactor = Reactor::new(kind).unwrap();
                tell.send(reactor.waker()).unwrap();
                for round in 1..=ROUNDS {
                    there.store(round, Ordering::Relaxed);
                    waker.wake();
                    while here.load(Ordering::Relaxed) < round {
                        reactor.park(Duration::from_secs(60));
                    }
                }
            }
        });
        let waker = told.recv().unwrap();
        let begun = Instant::now();
        for round in 1..=ROUNDS {
            while there.load(Ordering::Relaxed) < round {
                reactor.park(Duration::from_secs(60));
            }
            here.store(round, Ordering::Relaxed);
            waker.wake();
        }
        other.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_wake_that_meets_a_busy_lane_costs_no_write() {
    over_each(|open| {
        let mut reactor = open();
        let waker = reactor.waker();
        for _ in 0..1000 {
            waker.wake();
        }
        // Had they been written, the eventfd would be readable now.
        reactor.poll();
        for event in waker.events() {
            assert_eq!(rustix::io::read(event, &mut [0u8; 8][..]), Err(rustix::io::Errno::AGAIN));
        }
        assert!(!waker.enter_park(), "and the next block is skipped");
        assert!(waker.enter_park(), "but only that one");
        waker.leave_park();
    });
}

#[test]
fn more_events_than_the_kernel_has_room_for_lose_none() {
    // The ring's completions overflow, which ends its polls: they are to be armed again, and tell what is there.
    over_each(|open| {
        let mut reactor = open();
        let mut pairs: Vec<_> = (0..4).map(|_| pair()).collect();
        for (key, (ours, _)) in pairs.iter().enumerate() {
            reactor.register(ours.as_fd(), Owner::Link, key as u32).unwrap();
        }
        for round in 0..6000 {
            let (ours, theirs) = &mut pairs[round % 4];
            theirs.write_all(b"x").unwrap();
            if round < 5996 {
                ours.read_exact(&mut [0]).unwrap();
            }
        }
        let mut keys = std::collections::BTreeSet::new();
        let until = Instant::now() + Duration::from_secs(5);
        while keys.len() < 4 && Instant::now() < until {
            reactor.park(Duration::from_millis(10));
            while let Some(ready) = reactor.ready(Owner::Link) {
                keys.extend(ready.readable.then_some(ready.key));
            }
        }
        assert_eq!(keys, (0..4).collect());
        settle(&mut reactor, Owner::Link);
        for (ours, theirs) in &mut pairs {
            ours.read_exact(&mut [0]).unwrap();
            theirs.write_all(b"y").unwrap();
            wait_for(&mut reactor, Owner::Link, |ready| ready.readable);
            ours.read_exact(&mut [0]).unwrap();
        }
    });
}

/// What its owner looks at in every turn costs no telling while the lane is awake, and ends a block.
#[test]
fn what_is_watched_only_while_blocked_is_told_then_and_only_then() {
    over_each(|open| {
        let mut reactor = open();
        let (mut ours, mut theirs) = pair();
        reactor.register_for_park(ours.as_fd(), Owner::Udp, 9).unwrap();
        for round in 0..3 {
            theirs.write_all(b"x").unwrap();
            let told = wait_for(&mut reactor, Owner::Udp, |ready| ready.readable);
            assert_eq!(told, Ready { key: 9, readable: true, writable: false, closed: false });
            // Awake: nothing more is told, whatever comes.
            theirs.write_all(b"y").unwrap();
            for _ in 0..10 {
                reactor.poll();
                assert_eq!(reactor.ready(Owner::Udp), None, "round {round}");
            }
            // What is left unread ends the next block too: nothing was missed between.
            let begun = Instant::now();
            reactor.park(Duration::from_secs(20));
            assert!(begun.elapsed() < Duration::from_secs(10));
            assert!(reactor.ready(Owner::Udp).is_some_and(|ready| ready.readable));
            assert_eq!(ours.read(&mut [0; 16]).unwrap(), 2);
        }
        // And nothing ends it when there is nothing.
        settle(&mut reactor, Owner::Udp);
        let begun = Instant::now();
        reactor.park(Duration::from_millis(30));
        assert!(begun.elapsed() >= Duration::from_millis(29) && reactor.ready(Owner::Udp).is_none());
    });
}

#[test]
fn room_to_write_is_told_to_who_asked_for_it() {
    over_each(|open| {
        let mut reactor = open();
        let (mut ours, mut theirs) = pair();
        reactor.register_for_park(ours.as_fd(), Owner::Link, 4).unwrap();
        let block = [1u8; 65_536];
        let mut sent = 0;
        while let Ok(bytes) = ours.write(&block) {
            sent += bytes;
        }
        // In a block already when it asks: what is watched anew is watched at the next one.
        assert!(settle(&mut reactor, Owner::Link).is_empty());
        reactor.watch_writes(ours.as_fd(), true);
        assert!(settle(&mut reactor, Owner::Link).is_empty());
        theirs.read_exact(&mut vec![0; sent]).unwrap();
        wait_for(&mut reactor, Owner::Link, |ready| ready.writable);
        reactor.watch_writes(ours.as_fd(), false);
        settle(&mut reactor, Owner::Link);
        assert!(settle(&mut reactor, Owner::Link).is_empty(), "it has asked no more");
        // With both watched, closing closes at once.
        reactor.watch_writes(ours.as_fd(), true);
        reactor.park(Duration::from_millis(1));
        reactor.deregister(ours.as_fd(), Owner::Link, 4);
        drop(ours);
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    });
}

/// With both ends spinning a frame of 64 bytes took 1.4 times as long as over a raw socket, because every second call
/// of the lane asked epoll, in vain.
#[test]
fn a_lane_that_looks_at_a_socket_itself_asks_epoll_now_and_then() {
    let mut reactor = Reactor::new(Kind::Epoll).unwrap();
    let at = |micros| Time(0).after(Duration::from_micros(micros));
    let (ours, mut theirs) = pair();
    reactor.register(ours.as_fd(), Owner::Port, 1).unwrap();
    let told = |reactor: &Reactor| std::iter::from_fn(|| reactor.ready(Owner::Port)).count();
    reactor.glance(at(10));
    assert_eq!(told(&reactor), 1, "it is writable");
    reactor.glance(at(11));
    theirs.write_all(b"x").unwrap();
    reactor.glance(at(11));
    assert_eq!(told(&reactor), 1, "there is nothing else to look at: it is asked in every turn");
    let (datagrams, _theirs) = pair();
    reactor.register_for_park(datagrams.as_fd(), Owner::Udp, 0).unwrap();
    reactor.glance(at(20));
    theirs.write_all(b"x").unwrap();
    reactor.glance(at(21));
    assert_eq!(told(&reactor), 0, "it rests");
    reactor.glance(at(22));
    assert_eq!(told(&reactor), 1);
    theirs.write_all(b"x").unwrap();
    reactor.glance(at(22));
    assert_eq!(told(&reactor), 1, "who was told something asks again at once");
}

/// An engine shares the eventfd that it was given with the lane, and can make it a blocking one, empty it and fill it.
/// A lane that read it then slept for ever, and everybody who woke it.
#[test]
fn what_another_process_does_to_its_eventfd_blocks_nobody() {
    over_each(|open| {
        let mut reactor = open();
        let waker = reactor.waker();
        let theirs = waker.descriptor().unwrap();
        rustix::fs::fcntl_setfl(&theirs, rustix::fs::OFlags::empty()).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn({
            let waker = waker.clone();
            move || {
                // Emptied by somebody else after it was told readable.
                waker.drain();
                // Full, and another thread of the node wakes the lane.
                rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();
                assert!(waker.enter_park());
                waker.wake();
                waker.leave_park();
                done.send(theirs).unwrap();
            }
        });
        let theirs = ended.recv_timeout(Duration::from_secs(20)).expect("nobody blocks");
        // It is full, and so it is told and emptied; then it wakes as before.
        let begun = Instant::now();
        reactor.park(Duration::from_secs(20));
        for _ in 0..3 {
            reactor.poll();
            rustix::io::write(&theirs, &1u64.to_ne_bytes()).unwrap();
            reactor.park(Duration::from_secs(20));
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "a write ends a block");
    });
}
