//! What can be shown without a node.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use plimsoll::types::{Epoch, Stamp, Timestamp};

use crate::bank::{Balances, DEPOSIT, HISTORY, Operation, Place, Random, SAVINGS, read_row, row_of};
use crate::clock::{Clock, TICK, end_of};
use crate::entry::{self, Transaction, Writes};
use crate::replay::Replayed;
use crate::tables::{Attempt, Tables};

fn transaction(stamp: u64, id: u64, account: u32, balance: i64) -> Transaction {
    let mut writes = Writes::default();
    writes.put(SAVINGS, &account.to_le_bytes(), &balance.to_le_bytes());
    let operation = Operation::draw(&mut Random::new(id), 10);
    let effect = operation.run(&mut Alone(DEPOSIT));
    writes.put(HISTORY, &id.to_le_bytes(), &row_of(&operation, &effect));
    Transaction { stamp, writes }
}

fn buffer(epoch: u32, transactions: &[Transaction]) -> Vec<u8> {
    let mut bytes = vec![0; entry::len_bytes(transactions.iter())];
    entry::encode(&mut bytes, Epoch(epoch), 7, transactions.iter()).unwrap();
    bytes
}

/// Every balance is the same, and nothing is kept.
struct Alone(i64);

impl Balances for Alone {
    fn get(&mut self, _: Place) -> i64 {
        self.0
    }

    fn put(&mut self, _: Place, _: i64) {}
}

#[test]
fn a_buffer_is_what_mako_writes() {
    let mut writes = Writes::default();
    writes.put(SAVINGS, b"key", b"value");
    let bytes = buffer(12, &[Transaction { stamp: 100, writes }]);
    let expected = [
        &1002_u32.to_le_bytes()[..],
        &[1, 0],
        &[14, 0, 0, 0],
        &[3, 0],
        b"key",
        &[5, 0],
        b"value",
        &[1, 0],
        &[100, 0, 0, 0],
        &[7, 0, 0, 0],
    ];
    assert_eq!(bytes, expected.concat());
    let far = [Transaction { stamp: u64::from(u32::MAX / 10) + 1, writes: Writes::default() }];
    let refused = entry::encode(&mut vec![0; entry::len_bytes(far.iter())], Epoch(0), 0, far.iter());
    assert!(refused.unwrap_err().contains("does not fit"));
}

#[test]
fn every_buffer_that_is_cut_or_of_another_epoch_is_refused() {
    let bytes = buffer(3, &[transaction(5, 1, 0, 1), transaction(6, 2, 1, 2)]);
    let decode = |bytes: &[u8], epoch| entry::decode(bytes, Epoch(epoch), |_, _| Ok(()));
    decode(&bytes, 3).unwrap();
    decode(&bytes, 13).unwrap();
    decode(&bytes, 4).unwrap_err();
    for len_bytes in 0..bytes.len() {
        assert!(decode(&bytes[..len_bytes], 3).is_err(), "{len_bytes} bytes of {}", bytes.len());
    }
}

/// Streams are replayed in any order: whoever wrote last by stamp has written last.
#[test]
fn the_last_writer_by_stamp_wins() {
    let record = Stamp::new(Epoch(0), Timestamp(TICK));
    let [early, late] = [transaction(5, 1, 0, 50), transaction(9, 2, 0, 90)].map(|one| buffer(0, &[one]));
    let next = buffer(1, &[transaction(1, 3, 0, 10)]);
    let (mut one, mut other) = (Replayed::new(2), Replayed::new(2));
    for bytes in [&early, &late] {
        one.apply(record, bytes).unwrap();
    }
    for bytes in [&late, &early] {
        other.apply(record, bytes).unwrap();
    }
    assert_eq!(one.dump(record), other.dump(record));
    assert_eq!(one.savings[0].1, 90);
    one.apply(Stamp::new(Epoch(1), Timestamp(TICK)), &next).unwrap();
    assert_eq!(one.savings[0].1, 10);
    assert!(one.apply(record, &late).unwrap_err().contains("twice"));
}

#[test]
fn a_row_of_history_is_read_as_it_was_written() {
    let mut random = Random::new(7);
    for _ in 0..1000 {
        let operation = Operation::draw(&mut random, 50);
        assert_ne!(operation.first, operation.second);
        let effect = operation.run(&mut Alone(100));
        assert_eq!(read_row(&row_of(&operation, &effect)), Some((operation, effect)));
    }
}

#[test]
fn ticks_end_when_their_last_stamp_is_drawn_or_when_they_are_ended() {
    let clock = Clock::new(0);
    clock.end_tick();
    assert_eq!(clock.ended(), 0, "nothing was drawn of it");
    assert_eq!((clock.draw(), clock.ended()), (1, 0));
    clock.end_tick();
    assert_eq!((clock.ended(), end_of(1)), (TICK, TICK));
    assert_eq!((0..TICK).map(|_| clock.draw()).last(), Some(2 * TICK));
    assert_eq!((clock.ended(), end_of(TICK + 1)), (2 * TICK, 2 * TICK));
}

/// Threads over few accounts, often interrupted between reading and committing: done again alone, in the order of their
/// stamps, all transactions see the same.
#[test]
fn transactions_of_many_threads_are_serial_in_the_order_of_their_stamps() {
    const ACCOUNTS: u32 = 4;
    let replayed = Replayed::new(ACCOUNTS);
    let tables = Tables::of(&replayed.savings, &replayed.checking);
    let (clock, done) = (Clock::new(0), Mutex::new(Vec::new()));
    let repeated = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (tables, clock, done, repeated) = (&tables, &clock, &done, &repeated);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..5000 {
                    let operation = Operation::draw(&mut random, ACCOUNTS);
                    loop {
                        let mut attempt = Attempt::new(tables);
                        let effect = operation.run(&mut attempt);
                        if random.below(4) == 0 {
                            std::thread::yield_now();
                        }
                        if let Some((stamp, _)) = attempt.commit(clock) {
                            done.lock().unwrap().push((stamp, operation, effect));
                            break;
                        }
                        repeated.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|&(stamp, ..)| stamp);
    assert!(done.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let (serial, alone) = (Tables::of(&replayed.savings, &replayed.checking), Clock::new(0));
    for (stamp, operation, effect) in &done {
        let mut attempt = Attempt::new(&serial);
        assert_eq!(operation.run(&mut attempt), *effect, "{operation:?} at {stamp}");
        attempt.commit(&alone).unwrap();
    }
    assert_eq!(done.len(), 20_000);
    assert!(repeated.into_inner() > 0, "nobody was in anybody's way");
}
