//! What is safe: the least of where the registered streams stand.

use plimsoll::types::{ShardId, Stamp};
use plimsoll::wire::client::{Outcome, StreamRequest};

use crate::rack::{Engine, at};
use crate::turn;

#[test]
fn n08_the_watermark_is_the_least_and_not_the_largest() {
    let _turn = turn();
    let mut engine = Engine::start("least", 3, 1 << 20);
    engine.register(0..3);
    for (shard, timestamp) in [(0, 10), (1, 7), (2, 30)] {
        engine.commit(shard, at(0, timestamp), b"an entry");
    }
    engine.await_watermark(at(0, 7));
    engine.commit(1, at(0, 20), b"an entry");
    engine.await_watermark(at(0, 10));
    engine.commit(0, at(0, 40), b"an entry");
    engine.await_watermark(at(0, 20));
    // On no node, in no stream and at no time was anything else told.
    assert_eq!(engine.watermarks(), [at(0, 7), at(0, 10), at(0, 20)]);
    // And what is replayed is what is under it.
    for seat in &engine.seats {
        let mut replayed: Vec<_> =
            seat.replayed.iter().map(|(shard, stamp, _)| (stamp.timestamp.0, shard.0)).collect();
        replayed.sort_unstable();
        assert_eq!(replayed, [(7, 1), (10, 0), (20, 1)]);
    }
    engine.stop();
}

#[test]
fn n09_a_stream_at_zero_and_one_that_comes_late_hold_the_watermark() {
    let _turn = turn();
    let mut engine = Engine::start("late", 3, 1 << 20);
    engine.register(0..2);
    for timestamp in [10, 20, 30] {
        engine.commit(0, at(0, timestamp), b"an entry");
    }
    // Every node knows that stream 0 has come to 30, and that stream 1 has come to nothing.
    engine.await_position(0, at(0, 30));
    engine.await_watermark(Stamp::ZERO);
    assert_eq!(engine.watermarks(), []);

    // Stream 2 registers where the registrar, stream 0, stands: at 30. It may still submit 31.
    engine.register(2..3);
    let outcome = engine.ask(1, StreamRequest::Advance(at(0, 100)));
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    engine.commit(0, at(0, 50), b"an entry");
    engine.await_position(0, at(0, 50));
    engine.await_position(2, at(0, 30));
    engine.await_watermark(at(0, 30));
    assert_eq!(engine.submit(2, at(0, 30), b"too late"), Outcome::Behind { last: at(0, 30) });
    engine.commit(2, at(0, 31), b"an entry");
    engine.await_watermark(at(0, 31));
    let told = engine.watermarks();
    assert!(told.iter().all(|stamp| [at(0, 30), at(0, 31)].contains(stamp)), "{told:?}");
    assert!(engine.seats.iter().all(|seat| seat.replayed.last().unwrap().0 == ShardId(2)));
    engine.stop();
}
