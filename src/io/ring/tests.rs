//! The rings against a queue, between two threads, and against whoever writes garbage. They use the heap alone, so Miri
//! can run them: `cargo +nightly miri test --no-default-features --features sim --lib io::ring`. One of May 2026 breaks
//! down over memory that is written with and without atomics, and runs them with
//! `MIRIFLAGS=-Zmiri-disable-weak-memory-emulation`.
#![allow(clippy::unwrap_used)]

use alloc::collections::VecDeque;
use alloc::vec::Vec;
extern crate std;

use super::*;

const SMALL: Sizes = Sizes { submit_bytes: 1024, completion_bytes: 1024 };
const ROUNDS: u64 = if cfg!(miri) { 2_000 } else { 40_000 };

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % below
    }
}

fn fill(bytes: &mut [u8], seed: u64) {
    let pattern = (0_u64..).map(|at| (seed.wrapping_mul(31).wrapping_add(at * 7)) as u8);
    bytes.iter_mut().zip(pattern).for_each(|(byte, value)| *byte = value);
}

#[test]
fn a_ring_is_a_queue() {
    for seed in 1..=4 {
        let mut random = Random(seed << 40 | seed);
        let (mut engine, mut lane) = pair(Region::allocate(SMALL));
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut full, mut taken) = (0, 0);
        for round in 0..ROUNDS / 4 {
            if random.next(2) == 0 {
                let len = 1 + random.next(engine.submits.len_max() as u64) as usize;
                match engine.submits.reserve(len) {
                    Ok(mut reserved) => {
                        fill(reserved.bytes(), round);
                        // One in eight is abandoned.
                        if random.next(8) > 0 {
                            model.push_back(reserved.bytes().to_vec());
                            reserved.publish();
                        }
                    }
                    Err(Refused::Full) => {
                        full += 1;
                        assert!(!model.is_empty(), "an empty ring takes the longest record");
                    }
                    Err(other) => panic!("{other:?}"),
                }
            } else {
                let found = lane.submits.peek().unwrap().map(<[u8]>::to_vec);
                assert_eq!(found.as_ref(), model.front());
                assert_eq!(
                    lane.submits.peek().unwrap(),
                    model.front().map(Vec::as_slice),
                    "it is still there"
                );
                if found.is_some() && random.next(4) > 0 {
                    lane.submits.advance();
                    model.pop_front();
                    taken += 1;
                }
            }
        }
        assert!(full > ROUNDS / 400 && taken > ROUNDS / 40, "{full} times full, {taken} taken");
    }
}

#[test]
fn two_threads_lose_nothing_and_mix_nothing_up() {
    let (mut engine, mut lane) = pair(Region::allocate(SMALL));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(11);
            for round in 0..ROUNDS {
                let len = 1 + random.next(300) as usize;
                loop {
                    match engine.submits.reserve(len) {
                        Ok(mut reserved) => {
                            fill(reserved.bytes(), round);
                            reserved.publish();
                            break;
                        }
                        Err(Refused::Full) => std::thread::yield_now(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
        let (mut random, mut expected) = (Random(11), [0; 300]);
        for round in 0..ROUNDS {
            let len = 1 + random.next(300) as usize;
            fill(&mut expected[..len], round);
            loop {
                if let Some(found) = lane.submits.peek().unwrap() {
                    assert_eq!(found, &expected[..len]);
                    lane.submits.advance();
                    break;
                }
                std::thread::yield_now();
            }
        }
        assert_eq!(lane.submits.peek(), Ok(None));
    });
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let (mut engine, _lane) = pair(Region::allocate(SMALL));
    assert_eq!(engine.submits.reserve(0).unwrap_err(), Refused::Length);
    let max = engine.submits.len_max();
    assert_eq!(engine.submits.reserve(max + 1).unwrap_err(), Refused::Length);
    engine.submits.reserve(max).unwrap().publish();
    assert_eq!(engine.submits.reserve(max).unwrap_err(), Refused::Full);
}

/// Any word at all where a header is expected, and any where the other end says how far it has come: an error or a
/// record within the ring, and an end to every loop.
#[test]
fn garbage_ends_in_an_error_and_reaches_nothing() {
    let mut random = Random(77);
    let mut seen = [0; 3];
    for _ in 0..ROUNDS / 8 {
        let (mut engine, mut lane) = pair(Region::allocate(SMALL));
        for _ in 0..random.next(6) {
            engine.submits.reserve(1 + random.next(200) as usize).unwrap().publish();
            lane.submits.peek().unwrap();
            lane.submits.advance();
        }
        let position = lane.submits.position;
        let len_bytes = random.next(8).min(1) * random.next(1200);
        let len = len_bytes as u32 | if random.next(3) == 0 { PADDING } else { 0 };
        let found = if random.next(2) == 0 { word(position, len) } else { random.next(u64::MAX) };
        let at = offset(&lane.submits.lines, position);
        engine.submits.lines.header(at).store(found, Ordering::Release);
        match lane.submits.peek() {
            Ok(None) => seen[0] += 1,
            Ok(Some(bytes)) => {
                assert!(bytes.len() <= 1024 - at - HEADER_BYTES);
                seen[1] += 1;
            }
            Err(Corrupt::Header(_)) => seen[2] += 1,
            Err(other) => panic!("{other:?}"),
        }
        engine.submits.lines.taken().store(random.next(u64::MAX) | 1, Ordering::Release);
        let answer = (0..8).map(|_| engine.submits.reserve(400).map(Reserved::publish));
        assert!(answer.into_iter().any(|end| matches!(end, Err(Refused::Corrupt(Corrupt::Taken(_))))));
    }
    assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
}

#[test]
fn whoever_sleeps_is_woken_once_and_a_lane_that_never_does_not_at_all() {
    let (mut engine, mut lane) = pair(Region::allocate(SMALL));
    assert!(!engine.must_wake(), "it is awake");
    lane.enter_park(false);
    assert!(engine.must_wake());
    assert!(!engine.must_wake(), "told once");
    lane.never_parks();
    assert!(!engine.must_wake());
    assert!(lane.sleeper().is_none());
    engine.enter_sleep();
    assert!(!engine.has_news());
    assert!(lane.sleeper().is_some() && lane.sleeper().is_none());
    let rouser = engine.rouser();
    assert!(rouser.sleeper().is_none(), "the lane wakes it already");
    engine.enter_sleep();
    assert!(rouser.sleeper().is_some() && lane.sleeper().is_none(), "told once, whoever asks");
    lane.completions.reserve(1).unwrap().publish();
    assert!(engine.has_news(), "something has come");
    engine.completions.peek().unwrap();
    engine.completions.advance();
    assert!(!engine.has_news());
    lane.leave();
    assert!(engine.is_left() && engine.has_news());
}
