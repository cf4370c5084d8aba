//! The tables that the workers of the leading process share, and transactions on them by optimistic concurrency
//! control, as in Silo ("Speedy Transactions in Multicore In-Memory Databases", SOSP 2013): read without locks, lock
//! what is written in one order, draw a stamp, validate what was read, write.
//!
//! They are speculative: what is here is seen by others at once and may die with its epoch. With it, the tables are
//! thrown away.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::bank::{Balances, Place, SAVINGS};
use crate::clock::Clock;
use crate::replay::Held;

const LOCKED: u64 = 1;

/// One balance, with the stamp of its last writer above the lock's bit.
#[derive(Debug)]
struct Cell {
    version: AtomicU64,
    balance: AtomicI64,
}

#[derive(Debug)]
pub(crate) struct Tables {
    savings: Vec<Cell>,
    checking: Vec<Cell>,
}

impl Tables {
    /// Of what is certified.
    pub(crate) fn of(savings: &[Held], checking: &[Held]) -> Tables {
        let cell =
            |&(_, balance): &Held| Cell { version: AtomicU64::new(0), balance: AtomicI64::new(balance) };
        Tables { savings: savings.iter().map(cell).collect(), checking: checking.iter().map(cell).collect() }
    }

    fn cell(&self, Place { table, account }: Place) -> &Cell {
        let cells = if table == SAVINGS { &self.savings } else { &self.checking };
        &cells[account as usize]
    }
}

impl Cell {
    fn read(&self) -> (u64, i64) {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let balance = self.balance.load(Ordering::Acquire);
            if before & LOCKED == 0 && self.version.load(Ordering::Acquire) == before {
                return (before, balance);
            }
            core::hint::spin_loop();
        }
    }

    fn lock(&self) -> u64 {
        loop {
            let version = self.version.load(Ordering::Relaxed) & !LOCKED;
            let locked = version | LOCKED;
            if self.version.compare_exchange(version, locked, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return version;
            }
            // Its holder may share this thread's core.
            std::thread::yield_now();
        }
    }
}

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Attempt<'t> {
    tables: &'t Tables,
    reads: Vec<(Place, u64)>,
    writes: Vec<(Place, i64)>,
}

impl<'t> Attempt<'t> {
    pub(crate) fn new(tables: &'t Tables) -> Attempt<'t> {
        Attempt { tables, reads: Vec::new(), writes: Vec::new() }
    }

    /// Its stamp and what it has written; `None`: what it read was overwritten meanwhile, and it has done nothing.
    pub(crate) fn commit(mut self, clock: &Clock) -> Option<(u64, Vec<(Place, i64)>)> {
        self.writes.sort_unstable_by_key(|&(place, _)| place);
        let locked: Vec<u64> = self.writes.iter().map(|&(place, _)| self.tables.cell(place).lock()).collect();
        let stamp = clock.draw();
        let is_valid = self.reads.iter().all(|&(place, version)| {
            match self.writes.binary_search_by_key(&place, |&(place, _)| place) {
                Ok(at) => locked[at] == version,
                Err(_) => self.tables.cell(place).version.load(Ordering::Acquire) == version,
            }
        });
        for (&(place, balance), &before) in self.writes.iter().zip(&locked) {
            let cell = self.tables.cell(place);
            if is_valid {
                cell.balance.store(balance, Ordering::Release);
            }
            cell.version.store(if is_valid { stamp << 1 } else { before }, Ordering::Release);
        }
        is_valid.then_some((stamp, self.writes))
    }
}

impl Balances for Attempt<'_> {
    fn get(&mut self, place: Place) -> i64 {
        if let Some(&(_, balance)) = self.writes.iter().find(|&&(written, _)| written == place) {
            return balance;
        }
        let (version, balance) = self.tables.cell(place).read();
        self.reads.push((place, version));
        balance
    }

    fn put(&mut self, place: Place, balance: i64) {
        match self.writes.iter_mut().find(|(written, _)| *written == place) {
            Some((_, written)) => *written = balance,
            None => self.writes.push((place, balance)),
        }
    }
}
