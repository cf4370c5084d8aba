//! What followers apply: everything, in order, once, and of what they must hold back no more than they may.

use std::time::Instant;

use plimsoll::client::Item;
use plimsoll::engine::replay::ENTRY_BYTES;
use plimsoll::types::{Index, ShardId, Stamp};
use plimsoll::wire::client::StreamRequest;

use crate::rack::{Engine, assert_committed, at, submit};
use crate::{PATIENCE, turn};

/// Each apply on the leader submits the next record, as that engine's own benchmark does: from within, while what is
/// applied is still held, through an attachment of its own. (Through the stream's own the compiler does not let it.)
#[test]
fn n04_every_node_applies_everything_in_order_once() {
    const SEEDS: u64 = 8;
    const RECORDS: u64 = 3000;
    let _turn = turn();
    let mut engine = Engine::start("apply", 1, 1 << 20);
    let leader = engine.leads(0).unwrap();
    let mut within = engine.rack.attach(leader, 0, 9);
    let mut next = 0;
    let mut submit_next = || {
        if next < RECORDS {
            submit(&mut within, &u64::to_le_bytes(next), Stamp::ZERO, assert_committed);
            next += 1;
        }
        within.poll(|_| ());
    };
    (0..SEEDS).for_each(|_| submit_next());
    let mut applied: Vec<Vec<(Index, u64)>> = vec![Vec::new(); engine.seats.len()];
    engine.seats.iter_mut().for_each(|seat| seat.streams[0].follow(Index(1)));
    let until = Instant::now() + PATIENCE;
    while applied.iter().any(|applied| applied.len() < RECORDS as usize) {
        let counts: Vec<usize> = applied.iter().map(Vec::len).collect();
        assert!(Instant::now() < until, "applied {counts:?} of {RECORDS}");
        for (at, seat) in engine.seats.iter_mut().enumerate() {
            let stream = &mut seat.streams[0];
            stream.poll(|_| ());
            while let Some(item) = stream.next_item().unwrap() {
                let Item::Record(record) = item else { continue };
                if at == leader.0 as usize - 1 {
                    submit_next();
                }
                let number = u64::from_le_bytes(record.payload.try_into().unwrap());
                applied[at].push((record.id.index, number));
            }
        }
        std::thread::yield_now();
    }
    let first = applied[0][0].0;
    let expected: Vec<_> = (0..RECORDS).map(|number| (Index(first.0 + number), number)).collect();
    applied.iter().for_each(|applied| assert_eq!(*applied, expected));
    drop(within);
    engine.stop();
}

#[test]
fn n05_what_is_deferred_is_owned_and_bounded_in_bytes() {
    const BYTES_MAX: usize = 64 << 10;
    const RECORDS: u64 = 500;
    const LEN: usize = 1000;
    let _turn = turn();
    let mut engine = Engine::start("deferred", 2, BYTES_MAX);
    engine.register(0..2);
    let record =
        |number: u64| -> Vec<u8> { (0..LEN as u64).map(|at| (at * 31 + number * 7) as u8).collect() };
    let deferred = |engine: &Engine| -> Vec<usize> {
        engine.seats.iter().map(|seat| seat.replica.replay().deferred_bytes()).collect()
    };
    // Stream 1 stands at nothing: not one of these is safe, and together they are eight times what may be held.
    for number in 1..=RECORDS {
        engine.commit(0, at(0, number), &record(number));
        assert!(deferred(&engine).iter().all(|bytes| *bytes <= BYTES_MAX));
    }
    engine.run_until("every replica holds what it may", |engine| {
        deferred(engine).iter().all(|bytes| bytes + ENTRY_BYTES + LEN > BYTES_MAX)
    });
    // What is full stays so, and holds nobody up: all was committed.
    (0..100).for_each(|_| engine.poll());
    assert!(deferred(&engine).iter().all(|bytes| *bytes <= BYTES_MAX), "{:?}", deferred(&engine));
    assert!(engine.seats.iter().all(|seat| seat.replayed.is_empty()));

    // The watermark moves over more than is held, then over all of it.
    let half = RECORDS / 2;
    engine.commit(1, at(0, half), b"of stream 1");
    engine.run_until("half is replayed", |engine| {
        assert!(
            deferred(engine).iter().all(|bytes| *bytes <= BYTES_MAX + ENTRY_BYTES + b"of stream 1".len())
        );
        engine.seats.iter().all(|seat| seat.replayed.len() as u64 == half + 1)
    });
    engine.ask(1, StreamRequest::Advance(at(0, RECORDS)));
    engine.run_until("all is replayed", |engine| {
        engine.seats.iter().all(|seat| seat.replayed.len() as u64 == RECORDS + 1)
    });
    assert_eq!(deferred(&engine), [0; 3]);
    // The rings that they came in were written over many times since: these bytes are the replica's own.
    let expected: Vec<_> = (1..=RECORDS).map(|number| (at(0, number), record(number))).collect();
    for seat in &engine.seats {
        let of_stream_0 = seat.replayed.iter().filter(|(shard, ..)| *shard == ShardId(0));
        let found: Vec<_> = of_stream_0.map(|(_, stamp, bytes)| (*stamp, bytes.clone())).collect();
        assert!(found == expected, "a replica replays something else");
    }
    engine.stop();
}
