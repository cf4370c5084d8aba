//! Every order in which two threads may see each other's steps, on rings of a few lines:
//! `RUSTFLAGS="--cfg loom" cargo test --no-default-features --features sim --lib io::ring`.
#![allow(clippy::unwrap_used)]

extern crate std;

use loom::thread;

use super::*;

/// Four lines: two records of one line fill it, and every third meets its end.
const TINY: Sizes = Sizes { submit_bytes: 256, completion_bytes: 256 };

#[test]
fn what_is_taken_is_what_was_published() {
    loom::model(|| {
        let (mut engine, mut lane) = pair(Region::allocate(TINY));
        let producer = thread::spawn(move || {
            for (round, len) in [(1_u8, 8), (2, 100), (3, 8)] {
                loop {
                    match engine.submits.reserve(len) {
                        Ok(mut reserved) => {
                            reserved.bytes().fill(round);
                            reserved.publish();
                            break;
                        }
                        Err(Refused::Full) => thread::yield_now(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
        for (round, len) in [(1_u8, 8), (2, 100), (3, 8)] {
            while lane.submits.peek().unwrap().is_none() {
                thread::yield_now();
            }
            let found = lane.submits.peek().unwrap().unwrap();
            assert!(found.len() == len && found.iter().all(|&byte| byte == round));
            lane.submits.advance();
        }
        producer.join().unwrap();
    });
}

/// Either the lane sees the record in its last look, or the engine sees that it must wake it.
#[test]
fn a_lane_that_parks_misses_nothing() {
    loom::model(|| {
        let (mut engine, lane) = pair(Region::allocate(TINY));
        let engine = thread::spawn(move || {
            engine.submits.reserve(8).unwrap().publish();
            engine.must_wake()
        });
        lane.enter_park(false);
        bell::settle();
        let seen = lane.submits.has_something();
        let woken = engine.join().unwrap();
        assert!(seen || woken, "a record lies there, and the lane sleeps");
    });
}

/// And the same for an engine's thread that sleeps until a completion comes.
#[test]
fn an_engine_that_sleeps_misses_nothing() {
    loom::model(|| {
        let (engine, mut lane) = pair(Region::allocate(TINY));
        let lane = thread::spawn(move || {
            lane.completions.reserve(8).unwrap().publish();
            lane.sleeper().is_some()
        });
        let awake = engine.enter_sleep().is_none();
        let woken = lane.join().unwrap();
        assert!(awake || woken, "a completion lies there, and the engine sleeps");
    });
}
