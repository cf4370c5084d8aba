//! SmallBank: six small transactions over two tables, savings and checking ("The Cost of Serializability on Platforms
//! That Use Snapshot Isolation", ICDE 2008). Written once, and run by the engine's threads and by the check at the end
//! alike.
//!
//! Every transaction writes a row of history as well: what it was, what it saw, by how much it has changed the bank's
//! money. So the tables can be held against the sum of what has made them.

use crate::entry::number;

/// What each account holds at the beginning, in each table.
pub(crate) const DEPOSIT: i64 = 10_000;

/// Of ten transactions, so many have to do with the first tenth of the accounts.
const HOT_OF_TEN: u64 = 9;

pub(crate) const SAVINGS: u16 = 1;
pub(crate) const CHECKING: u16 = 2;
pub(crate) const HISTORY: u16 = 3;

/// A balance: its table and account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) table: u16,
    pub(crate) account: u32,
}

/// Where transactions read and write.
pub(crate) trait Balances {
    fn get(&mut self, place: Place) -> i64;
    fn put(&mut self, place: Place, balance: i64);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Balance,
    DepositChecking,
    TransactSavings,
    Amalgamate,
    WriteCheck,
    SendPayment,
}

pub(crate) const KINDS: [Kind; 6] = [
    Kind::Balance,
    Kind::DepositChecking,
    Kind::TransactSavings,
    Kind::Amalgamate,
    Kind::WriteCheck,
    Kind::SendPayment,
];

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) first: u32,
    pub(crate) second: u32,
    pub(crate) amount: i64,
}

/// What became of it: the reply to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The sum of what it has read.
    pub(crate) seen: i64,
    /// By how much the bank's money has changed.
    pub(crate) delta: i64,
}

impl Operation {
    pub(crate) fn draw(random: &mut Random, accounts: u32) -> Operation {
        let account = |random: &mut Random| {
            let hot = random.below(10) < HOT_OF_TEN;
            random.below(u64::from(if hot { accounts.div_ceil(10) } else { accounts })) as u32
        };
        let kind = KINDS[random.below(KINDS.len() as u64) as usize];
        let first = account(random);
        // Somebody else.
        let second = (first + 1 + account(random) % (accounts - 1)) % accounts;
        let amount = 1 + random.below(200) as i64;
        // Savings are drawn from as well as paid into.
        let is_drawn = kind == Kind::TransactSavings && random.below(2) == 0;
        Operation { kind, first, second, amount: if is_drawn { -amount } else { amount } }
    }

    /// Does it. What may not be done, such as a payment that is not covered, changes nothing.
    pub(crate) fn run(&self, balances: &mut impl Balances) -> Effect {
        let &Operation { kind, first, second, amount } = self;
        let [savings, checking, other] = [(SAVINGS, first), (CHECKING, first), (CHECKING, second)]
            .map(|(table, account)| Place { table, account });
        match kind {
            Kind::Balance => Effect { seen: balances.get(savings) + balances.get(checking), delta: 0 },
            Kind::DepositChecking => {
                let seen = balances.get(checking);
                balances.put(checking, seen + amount);
                Effect { seen, delta: amount }
            }
            Kind::TransactSavings => {
                let seen = balances.get(savings);
                if seen + amount < 0 {
                    return Effect { seen, delta: 0 };
                }
                balances.put(savings, seen + amount);
                Effect { seen, delta: amount }
            }
            Kind::Amalgamate => {
                let moved = balances.get(savings) + balances.get(checking);
                let seen = balances.get(other);
                balances.put(savings, 0);
                balances.put(checking, 0);
                balances.put(other, seen + moved);
                Effect { seen: seen + moved, delta: 0 }
            }
            Kind::WriteCheck => {
                let (saved, seen) = (balances.get(savings), balances.get(checking));
                // One that is not covered costs a penalty.
                let taken = amount + i64::from(saved + seen < amount);
                balances.put(checking, seen - taken);
                Effect { seen: saved + seen, delta: -taken }
            }
            Kind::SendPayment => {
                let (seen, theirs) = (balances.get(checking), balances.get(other));
                if seen >= amount {
                    balances.put(checking, seen - amount);
                    balances.put(other, theirs + amount);
                }
                Effect { seen: seen + theirs, delta: 0 }
            }
        }
    }
}

/// How many bytes a row of history has.
pub(crate) const ROW_BYTES: usize = 33;

/// A row of history.
pub(crate) type Row = [u8; ROW_BYTES];

pub(crate) fn row_of(operation: &Operation, effect: &Effect) -> Row {
    let mut row = [0; ROW_BYTES];
    row[0] = operation.kind as u8;
    row[1..5].copy_from_slice(&operation.first.to_le_bytes());
    row[5..9].copy_from_slice(&operation.second.to_le_bytes());
    row[9..17].copy_from_slice(&operation.amount.to_le_bytes());
    row[17..25].copy_from_slice(&effect.seen.to_le_bytes());
    row[25..33].copy_from_slice(&effect.delta.to_le_bytes());
    row
}

pub(crate) fn read_row(row: &Row) -> Option<(Operation, Effect)> {
    let operation = Operation {
        kind: *KINDS.get(usize::from(row[0]))?,
        first: number(&row[1..5]) as u32,
        second: number(&row[5..9]) as u32,
        amount: number(&row[9..17]) as i64,
    };
    Some((operation, Effect { seen: number(&row[17..25]) as i64, delta: number(&row[25..33]) as i64 }))
}

/// SplitMix64: the same seed, the same clients.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
