//! A log buffer in Mako's format: transactions one after another, then a trailer. Little-endian, packed.
//!
//! ```text
//! transaction  u32 cid (stamp * 10 + the epoch's last digit) | u16 kv_count | u32 kv_bytes | kv…
//! kv           u16 klen | key | u16 vlen | value | u16 table
//! trailer      u32 stamp of the last transaction | u32 start_ms
//! ```
//! A `cid` has 32 bits, so a stamp beyond 429 million does not fit: that is said, and nothing wraps. The whole epoch is
//! in the record's stamp, which the log carries beside the buffer.

use plimsoll::types::Epoch;

const HEAD_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;

/// The writes of one transaction, as they go into the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    count: u16,
    bytes: Vec<u8>,
}

/// One transaction that is to be logged.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) stamp: u64,
    pub(crate) writes: Writes,
}

/// One key with its new value, where it lies in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write<'a> {
    pub(crate) table: u16,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Writes {
    pub(crate) fn put(&mut self, table: u16, key: &[u8], value: &[u8]) {
        self.count += 1;
        for part in [key, value] {
            self.bytes.extend_from_slice(&(part.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(&table.to_le_bytes());
    }
}

/// How long the buffer of these transactions is.
pub(crate) fn len_bytes<'a>(transactions: impl Iterator<Item = &'a Transaction>) -> usize {
    transactions.map(|transaction| HEAD_BYTES + transaction.writes.bytes.len()).sum::<usize>() + TRAILER_BYTES
}

/// Writes the buffer of these transactions, in place.
pub(crate) fn encode<'a>(
    mut room: &mut [u8],
    epoch: Epoch,
    start_ms: u32,
    transactions: impl Iterator<Item = &'a Transaction>,
) -> Result<(), String> {
    let mut put = |bytes: &[u8]| {
        let (here, rest) = core::mem::take(&mut room).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        room = rest;
    };
    let mut last = 0;
    for Transaction { stamp, writes } in transactions {
        let cid = u32::try_from(stamp * 10 + u64::from(epoch.0 % 10))
            .map_err(|_| format!("stamp {stamp} does not fit the format's 32 bits: begin a new epoch"))?;
        put(&cid.to_le_bytes());
        put(&writes.count.to_le_bytes());
        put(&(writes.bytes.len() as u32).to_le_bytes());
        put(&writes.bytes);
        last = *stamp;
    }
    put(&(last as u32).to_le_bytes());
    put(&start_ms.to_le_bytes());
    Ok(())
}

/// Gives every write of a buffer, with its transaction's stamp.
pub(crate) fn decode(
    bytes: &[u8],
    epoch: Epoch,
    mut each: impl FnMut(u64, Write<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let Some((mut rest, trailer)) = bytes.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(format!("a buffer of {} bytes has no trailer", bytes.len()));
    };
    let mut last = 0;
    while !rest.is_empty() {
        let cid = number(take(&mut rest, 4)?);
        if cid % 10 != u64::from(epoch.0 % 10) {
            return Err(format!("cid {cid} in a record of epoch {epoch}"));
        }
        let count = number(take(&mut rest, 2)?);
        let len_bytes = number(take(&mut rest, 4)?) as usize;
        let mut writes = take(&mut rest, len_bytes)?;
        for _ in 0..count {
            let write = take_write(&mut writes)?;
            each(cid / 10, write)?;
        }
        if !writes.is_empty() || cid / 10 <= last {
            return Err(format!("cid {cid} is out of order, or its writes are longer than it says"));
        }
        last = cid / 10;
    }
    if number(&trailer[..4]) != last {
        return Err(format!("the trailer does not name the last transaction, {last}"));
    }
    Ok(())
}

fn take_write<'a>(rest: &mut &'a [u8]) -> Result<Write<'a>, String> {
    let len_bytes = number(take(rest, 2)?) as usize;
    let key = take(rest, len_bytes)?;
    let len_bytes = number(take(rest, 2)?) as usize;
    let value = take(rest, len_bytes)?;
    let table = number(take(rest, 2)?) as u16;
    Ok(Write { table, key, value })
}

fn take<'a>(rest: &mut &'a [u8], len_bytes: usize) -> Result<&'a [u8], String> {
    let (taken, after) = rest.split_at_checked(len_bytes).ok_or("a buffer ends within a transaction")?;
    *rest = after;
    Ok(taken)
}

/// A little-endian number of at most 8 bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
