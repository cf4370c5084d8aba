//! The tables of a follower: what was replayed, and nothing else. Every process keeps them, the leading one too; they
//! are what it makes its shared tables of when it begins to lead.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use plimsoll::types::{Stamp, Timestamp};

use crate::bank::{CHECKING, DEPOSIT, HISTORY, Row, SAVINGS};
use crate::entry::{self, number};

/// A balance and who wrote it last.
pub(crate) type Held = (Stamp, i64);

#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) savings: Vec<Held>,
    pub(crate) checking: Vec<Held>,
    /// By the transaction's id.
    history: BTreeMap<u64, (Stamp, Row)>,
}

impl Replayed {
    /// What every process begins with.
    pub(crate) fn new(accounts: u32) -> Replayed {
        let table = vec![(Stamp::ZERO, DEPOSIT); accounts as usize];
        Replayed { savings: table.clone(), checking: table, history: BTreeMap::new() }
    }

    /// Takes in a buffer that lives. Buffers of different streams come in any order: per key, the last writer by stamp
    /// wins.
    pub(crate) fn apply(&mut self, record: Stamp, bytes: &[u8]) -> Result<(), String> {
        entry::decode(bytes, record.epoch, |stamp, write| {
            let stamp = Stamp::new(record.epoch, Timestamp(stamp));
            if stamp > record {
                return Err(format!("a transaction of {stamp} in a record of {record}"));
            }
            let wrong = || format!("a write to table {} that none of its keys or values is", write.table);
            let table = match write.table {
                SAVINGS => &mut self.savings,
                CHECKING => &mut self.checking,
                HISTORY => {
                    let (id, row) = (number(write.key), Row::try_from(write.value).map_err(|_| wrong())?);
                    return match self.history.insert(id, (stamp, row)) {
                        None => Ok(()),
                        Some(_) => Err(format!("transaction {id:x} came twice")),
                    };
                }
                _ => return Err(wrong()),
            };
            let held = table.get_mut(number(write.key) as usize).ok_or_else(wrong)?;
            if stamp > held.0 {
                *held = (stamp, number(write.value) as i64);
            }
            Ok(())
        })
    }

    /// All of it as lines, sorted: equal tables give equal text.
    pub(crate) fn dump(&self, watermark: Stamp) -> String {
        let mut text = format!("watermark {watermark}\n");
        for (name, table) in [("savings", &self.savings), ("checking", &self.checking)] {
            for (account, (stamp, balance)) in table.iter().enumerate() {
                let _ = writeln!(text, "{name} {account} {stamp} {balance}");
            }
        }
        for (id, (stamp, row)) in &self.history {
            let _ = write!(text, "history {id} {} {} ", stamp.epoch, stamp.timestamp);
            row.iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
            text.push('\n');
        }
        text
    }
}
