//! What must hold in the end, whatever was killed: see [`Findings::wrong`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hdrhistogram::Histogram;

use crate::bank::{Balances, CHECKING, DEPOSIT, KINDS, Operation, Place, ROW_BYTES, SAVINGS, read_row};
use crate::bank::{Effect, Row};
use crate::common::Failure;
use crate::journal::{self, Of};

/// Fewer replies than this for every leading process, and little was shown.
const REPLIES_MIN: u64 = 100;

#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) is_identical: bool,
    /// Of the tables of the first replica.
    pub(crate) crc: u32,
    /// In how many epochs transactions live.
    pub(crate) epochs: u64,
    /// Transactions that were executed.
    pub(crate) begun: u64,
    /// Those in the tables.
    pub(crate) live: u64,
    /// Those that are not.
    pub(crate) dead: u64,
    /// Replies to clients.
    pub(crate) released: u64,
    /// Replies for transactions that are not in the tables: acknowledged and lost.
    pub(crate) released_dead: u64,
    released_twice: u64,
    never_begun: u64,
    pub(crate) money: i64,
    /// What was deposited at the beginning, and by all that lives since then.
    pub(crate) expected_money: i64,
    /// Transactions that saw something else than the one who does them all again, alone and in the order of their
    /// stamps.
    unserial: u64,
    /// Balances that come out differently when they are.
    different: u64,
    kinds: usize,
    pub(crate) latencies_us: Histogram<u64>,
}

/// The tables as a replica has written them down.
struct Tables {
    balances: BTreeMap<(u16, u32), i64>,
    /// By epoch and stamp.
    history: BTreeMap<(u32, u64), (u64, Operation, Effect)>,
}

/// The bank of one who does one transaction after another.
struct Model(BTreeMap<(u16, u32), i64>);

impl Balances for Model {
    fn get(&mut self, Place { table, account }: Place) -> i64 {
        self.0.get(&(table, account)).copied().unwrap_or_default()
    }

    fn put(&mut self, Place { table, account }: Place, balance: i64) {
        self.0.insert((table, account), balance);
    }
}

pub(crate) fn all(dumps: &[String], accounts: u32, directory: &Path) -> Result<Findings, Failure> {
    let first = dumps.first().ok_or_else(|| Failure("there are no tables".to_owned()))?;
    let tables = read(first)?;
    let places = [SAVINGS, CHECKING].into_iter().flat_map(|table| (0..accounts).map(move |at| (table, at)));
    let mut model = Model(places.map(|place| (place, DEPOSIT)).collect());
    let deposited: i64 = model.0.values().sum();
    let unserial =
        tables.history.values().filter(|(_, operation, effect)| operation.run(&mut model) != *effect);
    let unserial = unserial.count() as u64;
    let different =
        model.0.iter().filter(|&(place, balance)| tables.balances.get(place) != Some(balance)).count() as u64;

    let live: BTreeSet<u64> = tables.history.values().map(|&(id, ..)| id).collect();
    let mut begun = BTreeSet::new();
    for (first, count) in journal::read_all(Of::Begun, directory).map_err(Failure::of)? {
        begun.extend(first..first + count);
    }
    let (mut released, mut released_twice) = (BTreeSet::new(), 0);
    let mut latencies_us = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(Failure::of)?;
    for (id, latency_us) in journal::read_all(Of::Released, directory).map_err(Failure::of)? {
        released_twice += u64::from(!released.insert(id));
        latencies_us.saturating_record(latency_us.max(1));
    }
    Ok(Findings {
        is_identical: dumps.iter().all(|dump| dump == first),
        crc: crc32c::crc32c(first.as_bytes()),
        epochs: tables.history.keys().map(|&(epoch, _)| epoch).collect::<BTreeSet<_>>().len() as u64,
        begun: begun.len() as u64,
        live: live.len() as u64,
        dead: begun.difference(&live).count() as u64,
        released: released.len() as u64,
        released_dead: released.difference(&live).count() as u64,
        released_twice,
        never_begun: live.difference(&begun).count() as u64,
        money: tables.balances.values().sum(),
        expected_money: deposited + tables.history.values().map(|(_, _, effect)| effect.delta).sum::<i64>(),
        unserial,
        different,
        kinds: tables
            .history
            .values()
            .map(|(_, operation, _)| operation.kind as u8)
            .collect::<BTreeSet<_>>()
            .len(),
        latencies_us,
    })
}

impl Findings {
    /// What does not hold. A run that did little shows little, and that is wrong, too.
    pub(crate) fn wrong(&self, kills: u32) -> Vec<String> {
        // Before every kill there is a milder blow, that ends an epoch as well.
        let lives = 2 * u64::from(kills) + 1;
        [
            (!self.is_identical, "the replicas differ"),
            (self.released_dead > 0, "a client was told of what is not in the tables"),
            (self.released_twice > 0, "a client was told twice"),
            (self.never_begun > 0, "the tables hold what nobody has begun"),
            (self.money != self.expected_money, "the money does not add up"),
            (self.unserial > 0, "a transaction saw what no serial order shows"),
            (self.different > 0, "the balances are not those that the transactions make"),
            (self.released < REPLIES_MIN * lives, "too few replies were released"),
            (self.epochs < lives, "fewer epochs than leading processes"),
            (
                kills > 0 && self.dead == 0,
                "no transaction has died: nothing was under way when a leader was killed",
            ),
            (self.kinds < KINDS.len(), "not every kind of transaction has run"),
        ]
        .into_iter()
        .filter(|&(is_wrong, _)| is_wrong)
        .map(|(_, what)| what.to_owned())
        .collect()
    }
}

fn read(dump: &str) -> Result<Tables, Failure> {
    let mut tables = Tables { balances: BTreeMap::new(), history: BTreeMap::new() };
    for line in dump.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let wrong = || Failure(format!("a replica's tables hold {line:?}"));
        let number = |word: &str| word.parse::<u64>().map_err(|_| wrong());
        match words.as_slice() {
            ["watermark", _] => {}
            [table @ ("savings" | "checking"), account, _, balance] => {
                let table = if *table == "savings" { SAVINGS } else { CHECKING };
                let balance = balance.parse().map_err(|_| wrong())?;
                tables.balances.insert((table, number(account)? as u32), balance);
            }
            ["history", id, epoch, stamp, row] => {
                let (operation, effect) = row_of_hex(row).as_ref().and_then(read_row).ok_or_else(wrong)?;
                let stamp = (number(epoch)? as u32, number(stamp)?);
                if tables.history.insert(stamp, (number(id)?, operation, effect)).is_some() {
                    return Err(Failure(format!("two transactions have stamp {stamp:?}")));
                }
            }
            _ => return Err(wrong()),
        }
    }
    Ok(tables)
}

fn row_of_hex(text: &str) -> Option<Row> {
    let mut row = [0; ROW_BYTES];
    for (at, byte) in row.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(row)
}
