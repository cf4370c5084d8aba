//! Every order in which two threads may see each other's steps, on rings of a few lines:
//! `RUSTFLAGS="--cfg loom" cargo test --no-default-features --features sim --lib io::ring`.
#![allow(clippy::unwrap_used)]

extern crate std;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::memory::AtomicU32;
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
        engine.enter_sleep();
        bell::settle();
        let awake = engine.has_news();
        let woken = lane.join().unwrap();
        assert!(awake || woken, "a completion lies there, and the engine sleeps");
    });
}

/// A futex as far as it matters: who finds the word changed does not sleep, and who changes it first and wakes then
/// wakes all.
#[derive(Default)]
struct Futex {
    lock: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn wait(&self, word: &AtomicU32) {
        let guard = self.lock.lock().unwrap();
        if word.load(Ordering::Relaxed) == bell::ASLEEP {
            drop(self.woken.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.lock.lock().unwrap();
        self.woken.notify_all();
    }
}

/// An engine's thread that is woken by its lane and by another thread, which take each other's part: it sleeps again
/// and again until it has both, and loom says so if it sleeps for ever.
#[test]
fn an_engine_that_two_wake_misses_neither() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut engine, mut lane) = pair(Region::allocate(TINY));
        let (rouser, futex, rung) =
            (engine.rouser(), Arc::new(Futex::default()), Arc::new(AtomicU32::new(0)));
        let lane = {
            let futex = Arc::clone(&futex);
            thread::spawn(move || {
                lane.completions.reserve(8).unwrap().publish();
                if lane.sleeper().is_some() {
                    futex.wake();
                }
            })
        };
        let third = {
            let (futex, rung) = (Arc::clone(&futex), Arc::clone(&rung));
            thread::spawn(move || {
                rung.store(1, Ordering::Release);
                if rouser.sleeper().is_some() {
                    futex.wake();
                }
            })
        };
        let (mut has_completion, mut was_rung) = (false, false);
        while !(has_completion && was_rung) {
            engine.enter_sleep();
            bell::settle();
            let news = !has_completion && engine.has_news();
            if !news && (was_rung || rung.load(Ordering::Relaxed) == 0) {
                futex.wait(engine.sleep_word());
            }
            engine.leave_sleep();
            was_rung |= rung.load(Ordering::Acquire) == 1;
            if !has_completion && engine.completions.peek().unwrap().is_some() {
                engine.completions.advance();
                has_completion = true;
            }
        }
        lane.join().unwrap();
        third.join().unwrap();
    });
}

/// A thread that sleeps on the rings of two lanes is woken by either.
#[test]
fn an_engine_that_sleeps_on_two_rings_misses_neither() {
    loom::model(|| {
        let pairs = [pair(Region::allocate(TINY)), pair(Region::allocate(TINY))];
        let (mut engines, mut lanes) = (std::vec::Vec::new(), std::vec::Vec::new());
        for (engine, mut lane) in pairs {
            engines.push(engine);
            lanes.push(thread::spawn(move || {
                lane.completions.reserve(8).unwrap().publish();
                lane.sleeper().is_some()
            }));
        }
        engines.iter().for_each(EngineEnd::enter_sleep);
        bell::settle();
        let seen: std::vec::Vec<_> = engines.iter().map(EngineEnd::has_news).collect();
        for (seen, lane) in seen.into_iter().zip(lanes) {
            assert!(lane.join().unwrap() || seen, "a completion lies there, and the engine sleeps");
        }
    });
}
