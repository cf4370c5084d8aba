//! Threads that wait for streams and replicas instead of asking again and again, and others that wake them.

use std::sync::mpsc;
use std::thread;

use plimsoll::client::ring::{Replica, Sizes, Stream, Waited, Waker};
use plimsoll::engine::Fate;
use plimsoll::engine::replay::ENTRY_BYTES;
use plimsoll::limits::RING_BYTES_MIN;
use plimsoll::types::Stamp;
use plimsoll::wire::client::StreamRequest;

use crate::streams::{Engine, at, is_committed};
use crate::*;

/// For what must not happen.
const MOMENT: Duration = Duration::from_millis(200);

const ROUNDS: u64 = 50;

/// A thread can sleep on so many words at once (`FUTEX_WAITV_MAX`).
const WORDS_MAX: u32 = 128;

/// A replica through the node's socket, as another process would have it.
fn replica(engine: &Engine, session: u64, bytes_max: usize) -> Replica {
    let config = engine.cluster.config(NODE);
    let socket = socket(&engine.cluster);
    let sizes = Sizes { submit_bytes: RING_BYTES_MIN, completion_bytes: 4 * RING_BYTES_MIN };
    let attach = |shard| {
        let options = Options { shard: ShardId(shard), sizes, ..options(&engine.cluster, session) };
        Attachment::connect(socket, options).unwrap()
    };
    Replica::new((0..config.shards).map(attach), bytes_max)
}

/// Polls only when it is told that there is something, until there was nothing for a while.
fn take_in(replica: &mut Replica) -> Vec<Stamp> {
    let mut replayed = Vec::new();
    while replica.wait(MOMENT) == Waited::Ready {
        replica.poll(|_, stamp, _| replayed.push(stamp)).unwrap();
    }
    replayed
}

#[test]
fn a_replica_sleeps_until_there_is_something_in_any_stream() {
    sleeps_until_there_is_something(Engine::start("waits-replica"), || {});
}

/// As before Linux 5.16.
#[test]
fn on_a_kernel_that_cannot_wait_for_several_words_it_does_so_too() {
    sleeps_until_there_is_something(Engine::start("waits-unable"), seccomp::refuse_waiting_for_several);
}

#[test]
fn beyond_the_words_that_a_thread_can_wait_for_it_does_so_too() {
    let engine = Engine::with("waits-many", WORDS_MAX + 2, [0, WORDS_MAX + 1].map(ShardId));
    sleeps_until_there_is_something(engine, || {});
}

/// A thread that was `prepared` follows a replica of all shards, in two of which something comes.
fn sleeps_until_there_is_something(mut engine: Engine, prepared: fn()) {
    engine.register();
    let mut replica = replica(&engine, 9, 1 << 20);
    let stop = replica.waker();
    let (told, replayed) = mpsc::channel();
    let thread = thread::spawn(move || {
        prepared();
        let mut polls = 0_u64;
        loop {
            match replica.wait(PATIENCE) {
                Waited::Ready => {}
                Waited::Woken => return (replica, polls),
                Waited::TimedOut => panic!("nobody wakes it"),
            }
            polls += 1;
            replica.poll(|_, stamp, _| told.send(stamp).unwrap()).unwrap();
        }
    });
    // One at a time, in two lanes: the second stream holds its last one back until the first has moved on.
    for round in 1..=ROUNDS {
        assert!(is_committed(engine.streams[0].put(0, 2 * round)));
        if round > 1 {
            assert_eq!(replayed.recv_timeout(PATIENCE), Ok(at(0, 2 * round - 1)));
        }
        assert!(is_committed(engine.streams[1].put(0, 2 * round + 1)));
        assert_eq!(replayed.recv_timeout(PATIENCE), Ok(at(0, 2 * round)));
    }
    stop.wake();
    let (replica, polls) = thread.join().unwrap();
    assert!(polls >= ROUNDS, "{polls} polls");
    // Each commit wakes it once or twice: its record, and what the answer to the next question carries.
    assert!(polls < 20 * ROUNDS, "{polls} polls for {} records: it does not sleep", 2 * ROUNDS);
    assert_eq!(replica.watermark(), at(0, 2 * ROUNDS));
    drop(replica);
    stop.wake();
    engine.stop();
}

/// A full queue waits for the watermark, and not for what cannot be taken in.
#[test]
fn a_replica_with_a_full_queue_sleeps_until_another_stream_has_moved() {
    let mut engine = Engine::start("waits-full");
    engine.register();
    let mut replica = replica(&engine, 9, 2 * (8 + ENTRY_BYTES) + 4);
    let [first, second] = &mut engine.streams;
    for timestamp in 1..=6 {
        assert!(is_committed(first.put(0, timestamp)));
    }
    assert_eq!(take_in(&mut replica), []);
    assert_eq!(
        replica.replay().deferred_bytes(),
        2 * (8 + ENTRY_BYTES),
        "two of 8 bytes, and the third has no room"
    );
    assert_eq!(replica.wait(Duration::ZERO), Waited::TimedOut);
    assert!(is_committed(second.ask(StreamRequest::Advance(at(0, 4)))));
    assert_eq!(replica.wait(PATIENCE), Waited::Ready);
    assert_eq!(take_in(&mut replica), (1..=4).map(|timestamp| at(0, timestamp)).collect::<Vec<_>>());
    assert_eq!(replica.replay().fold().fate(at(0, 5)), Fate::Undecided);
    engine.stop();
}

#[test]
fn who_is_woken_is_told_so_once_and_not_over_what_there_is_to_poll() {
    let mut engine = Engine::start("waits-woken");
    engine.register();
    let options = Options { shard: ShardId(1), ..options(&engine.cluster, 8) };
    let mut stream = Stream::new(Attachment::embedded(&engine.node.desk(), options).unwrap());
    let mut replica = replica(&engine, 9, 1 << 20);
    fn check(waker: &Waker, mut wait: impl FnMut(Duration) -> Waited) {
        // Whatever it has to poll by now is not polled here.
        assert_eq!(wait(PATIENCE), Waited::Ready);
        waker.wake();
        waker.clone().wake();
        assert_eq!(wait(PATIENCE), Waited::Woken);
        assert_eq!(wait(PATIENCE), Waited::Ready);
    }
    check(&stream.waker(), |timeout| stream.wait(timeout));
    check(&replica.waker(), |timeout| replica.wait(timeout));
    engine.stop();
}

/// Woken as often as it sleeps, at whatever point of its way to sleep that comes.
#[test]
fn no_call_of_a_waker_is_lost() {
    let mut engine = Engine::start("waits-often");
    engine.register();
    let options = Options { shard: ShardId(1), spin: Duration::ZERO, ..options(&engine.cluster, 8) };
    let mut stream = Stream::new(Attachment::embedded(&engine.node.desk(), options).unwrap());
    while stream.wait(MOMENT) == Waited::Ready {
        stream.poll(|_| ());
    }
    let mut replica = replica(&engine, 9, 1 << 20);
    take_in(&mut replica);
    let wakers = [stream.waker(), replica.waker()];
    let (ready, next) = mpsc::channel();
    let other = thread::spawn(move || {
        for which in next {
            let waker: &Waker = &wakers[which];
            waker.wake();
        }
    });
    for _ in 0..2000 {
        ready.send(0).unwrap();
        assert_eq!(stream.wait(PATIENCE), Waited::Woken);
        ready.send(1).unwrap();
        assert_eq!(replica.wait(PATIENCE), Waited::Woken);
    }
    drop(ready);
    other.join().unwrap();
    engine.stop();
}

#[test]
fn that_the_node_is_gone_ends_a_wait_and_is_told_once() {
    let mut engine = Engine::start("waits-gone");
    engine.register();
    let options = Options { shard: ShardId(1), ..options(&engine.cluster, 8) };
    let mut stream = Stream::new(Attachment::embedded(&engine.node.desk(), options).unwrap());
    while stream.wait(MOMENT) == Waited::Ready {
        stream.poll(|_| ());
    }
    // Two of its records wait for stream 1, so nothing is asked of its shard when the node goes.
    let mut replica = replica(&engine, 9, 8);
    assert!(is_committed(engine.streams[0].put(0, 1)));
    assert!(is_committed(engine.streams[0].put(0, 2)));
    take_in(&mut replica);
    let waiting = thread::spawn(move || (stream.wait(PATIENCE), stream));
    let replaying = thread::spawn(move || (replica.wait(PATIENCE), replica));
    engine.stop();
    let (waited, mut stream) = waiting.join().unwrap();
    assert_eq!(waited, Waited::Ready);
    while stream.wait(MOMENT) == Waited::Ready {
        assert!(stream.poll(|_| ()) > 0, "woken for nothing");
    }
    assert_eq!(stream.wait(Duration::ZERO), Waited::TimedOut);
    let (waited, mut replica) = replaying.join().unwrap();
    assert_eq!(waited, Waited::Ready);
    assert_eq!(take_in(&mut replica), []);
    assert!(!replica.is_attached());
    let waker = replica.waker();
    waker.wake();
    assert_eq!(replica.wait(PATIENCE), Waited::Woken, "what has ended can be woken, too");
}
