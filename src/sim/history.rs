//! Whether what clients saw could have been one log, and one register per key, that every operation met at a single
//! moment between its call and its return (linearizability, Herlihy and Wing 1990).
//!
//! Every written value is unique, which makes the question a matter of sorting: Gibbons and Korach, "Testing Shared
//! Memories" (1997). There is always an answer.

use std::collections::BTreeMap;

use super::clients::KEYS;
use super::oracle::{Oracle, Told};
use crate::log::record::{FLAG_MORE, Kind};
use crate::types::{Index, ShardId};

/// One operation on the log: a place in it, and the time between call and return.
#[derive(Clone, Copy, Debug)]
struct Placed {
    call_ns: u64,
    return_ns: u64,
    index: u64,
    /// Appended there; else has read up to there.
    append: bool,
}

/// Checks all shards, as logs and as registers. The first thing that cannot be.
pub(super) fn check(oracle: &Oracle) -> Result<(), String> {
    for shard in (0..oracle.shards.len() as u32).map(ShardId) {
        check_log(shard, &mut placed(oracle, shard))?;
        for key in 0..KEYS {
            check_register(&registers(oracle, shard, key))
                .map_err(|why| format!("shard {shard}, key {key}: {why}"))?;
        }
    }
    Ok(())
}

fn placed(oracle: &Oracle, shard: ShardId) -> Vec<Placed> {
    let submits = oracle.submits.iter().flatten().filter(|submit| submit.shard == shard);
    let appends = submits.filter_map(|submit| {
        // Whoever was told less than the truth may have returned before it was true.
        let known = matches!(submit.told, Some(Told::Committed(_)));
        let return_ns = submit.return_ns.filter(|_| known).unwrap_or(u64::MAX);
        Some(Placed { call_ns: submit.call_ns, return_ns, index: submit.committed?.0, append: true })
    });
    let reads = oracle.index_reads.iter().filter(|read| read.shard == shard);
    let reads = reads.map(|read| Placed {
        call_ns: read.call_ns,
        return_ns: read.return_ns,
        index: read.index.0,
        append: false,
    });
    appends.chain(reads).collect()
}

/// Who was called after another had returned sees it, and does not come before it.
fn check_log(shard: ShardId, operations: &mut [Placed]) -> Result<(), String> {
    operations.sort_by_key(|operation| operation.call_ns);
    let mut returned: Vec<Placed> = operations.to_vec();
    returned.sort_by_key(|operation| operation.return_ns);
    let mut returned = returned.into_iter().peekable();
    let mut highest = 0;
    for operation in operations.iter() {
        while let Some(before) = returned.next_if(|before| before.return_ns < operation.call_ns) {
            highest = highest.max(before.index);
        }
        let least = if operation.append { highest + 1 } else { highest };
        if operation.index < least {
            return Err(format!(
                "shard {shard}: {operation:?}, though {highest} was known before it was called"
            ));
        }
    }
    Ok(())
}

/// One operation on a register. Values name the write: 0 is what was there first.
#[derive(Clone, Copy, Debug)]
struct Access {
    call_ns: u64,
    return_ns: u64,
    value: u64,
    write: bool,
}

fn registers(oracle: &Oracle, shard: ShardId, key: u64) -> Vec<Access> {
    // The register's values in the order of the log; a value is named by its index.
    let written: Vec<u64> = (1..)
        .zip(&oracle.shards[shard.0 as usize])
        .filter_map(|(index, entry)| {
            let content = entry.content?;
            let whole = content.kind == Kind::Data as u8 && content.flags & FLAG_MORE == 0;
            let submit =
                whole.then(|| &oracle.submits[content.session as usize - 1][content.serial as usize])?;
            (submit.key == key).then_some(index)
        })
        .collect();
    let submits = oracle.submits.iter().flatten().filter(|submit| submit.shard == shard && submit.key == key);
    let writes = submits.filter_map(|submit| {
        let known = matches!(submit.told, Some(Told::Committed(_)));
        let return_ns = submit.return_ns.filter(|_| known).unwrap_or(u64::MAX);
        Some(Access { call_ns: submit.call_ns, return_ns, value: submit.committed?.0, write: true })
    });
    let reads = oracle.index_reads.iter().filter(|read| read.shard == shard && read.key == key);
    let reads = reads.map(|read| {
        let Index(index) = read.index;
        let at = written.partition_point(|&value| value <= index);
        let value = at.checked_sub(1).map_or(0, |at| written[at]);
        Access { call_ns: read.call_ns, return_ns: read.return_ns, value, write: false }
    });
    writes.chain(reads).collect()
}

/// The zones of Gibbons and Korach: the operations on one value, from their first return to their last call. Where
/// that goes forward in time the register must hold the value throughout; elsewhere one moment is enough.
fn check_register(accesses: &[Access]) -> Result<(), String> {
    // Before everything else there was a write of 0.
    let mut zones: BTreeMap<u64, (u64, u64)> = BTreeMap::from([(0, (0, 0))]);
    let mut calls: BTreeMap<u64, u64> = BTreeMap::from([(0, 0)]);
    for access in accesses {
        if access.write {
            calls.insert(access.value, access.call_ns);
        }
        let zone = zones.entry(access.value).or_insert((u64::MAX, 0));
        *zone = (zone.0.min(access.return_ns), zone.1.max(access.call_ns));
    }
    for access in accesses {
        match calls.get(&access.value) {
            Some(&call_ns) if access.return_ns >= call_ns => {}
            _ => return Err(format!("{access:?} returns before its value was written")),
        }
    }
    let (mut forward, backward): (Vec<_>, Vec<_>) =
        zones.into_values().partition(|(first, last)| first < last);
    forward.sort_unstable();
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Err(format!("two values are held at once: {pair:?}"));
    }
    for (first_return, last_call) in backward {
        let at = forward.partition_point(|&(first, _)| first < last_call);
        if let Some(held) = at.checked_sub(1).map(|at| forward[at])
            && held.0 < last_call
            && first_return < held.1
        {
            return Err(format!("a value from {last_call} to {first_return} within another's time {held:?}"));
        }
    }
    Ok(())
}

/// The history as JSON lines for checkers of others: key, value and outcome as a register's.
pub(super) fn lines(oracle: &Oracle) -> Vec<String> {
    let mut lines = Vec::new();
    for (client, submits) in oracle.submits.iter().enumerate() {
        for (serial, submit) in submits.iter().enumerate() {
            let outcome = match submit.told {
                Some(Told::Committed(_)) => "ok",
                Some(Told::Rejected) => "failed",
                Some(Told::Weakly(_) | Told::Unknown) | None => "unknown",
            };
            let return_ns =
                submit.return_ns.filter(|_| outcome != "unknown").map_or("null".into(), |at| at.to_string());
            let (shard, key, call_ns) = (submit.shard, submit.key, submit.call_ns);
            lines.push(format!(
                r#"{{"client":{client},"op":"write","key":"{shard}/{key}","value":"{client}/{serial}","call_ns":{call_ns},"return_ns":{return_ns},"outcome":"{outcome}"}}"#
            ));
        }
    }
    for read in &oracle.index_reads {
        let book = &oracle.shards[read.shard.0 as usize][..read.index.0 as usize];
        let value = book.iter().rev().find_map(|entry| {
            let content =
                entry.content.filter(|content| content.kind == Kind::Data as u8 && content.flags == 0)?;
            let client = content.session as usize - 1;
            (oracle.submits[client][content.serial as usize].key == read.key)
                .then(|| format!(r#""{client}/{}""#, content.serial))
        });
        let value = value.unwrap_or_else(|| "null".to_owned());
        let (client, shard, key) = (read.client, read.shard, read.key);
        let (call_ns, return_ns) = (read.call_ns, read.return_ns);
        lines.push(format!(
            r#"{{"client":{client},"op":"read","key":"{shard}/{key}","value":{value},"call_ns":{call_ns},"return_ns":{return_ns},"outcome":"ok"}}"#
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(call_ns: u64, return_ns: u64, value: u64, write: bool) -> Access {
        Access { call_ns, return_ns, value, write }
    }

    #[test]
    fn registers_that_can_be_and_that_cannot() {
        let good =
            [access(1, 5, 1, true), access(2, 9, 2, true), access(6, 8, 2, false), access(10, 11, 2, false)];
        assert_eq!(check_register(&good), Ok(()));
        // A read that returns what had been overwritten before it was called.
        let stale = [access(1, 2, 1, true), access(3, 4, 2, true), access(5, 6, 1, false)];
        assert!(check_register(&stale).is_err());
        // Nothing was read where something had been written.
        assert!(check_register(&[access(1, 2, 1, true), access(3, 4, 0, false)]).is_err());
        // Back and forth.
        let flips = [
            access(1, 20, 1, true),
            access(1, 20, 2, true),
            access(3, 4, 1, false),
            access(5, 6, 2, false),
            access(7, 8, 1, false),
        ];
        assert!(check_register(&flips).is_err());
        // A read of what is written later.
        assert!(check_register(&[access(5, 6, 1, true), access(1, 2, 1, false)]).is_err());
        // A pending write may have happened, or not yet.
        let pending = [access(1, u64::MAX, 1, true), access(2, 3, 0, false), access(4, 5, 1, false)];
        assert_eq!(check_register(&pending), Ok(()));
    }
}
