//! How each record of a partition ended, and whether the leader's log says the same.

use std::time::Duration;
use std::time::Instant;

use plimsoll::client::{Options, Reader};
use plimsoll::types::{Index, NodeId, ShardId};

use super::payload::Records;
use crate::common::{Failure, Interrupt};

/// How long the leader may show nothing new before that is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a submit ended, as far as the engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Committed,
    /// Not taken, and said so.
    Refused,
    /// Lost its leader on the way: it may be in the log or not.
    Unknown,
}

/// The ends of a partition's records, by number.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) ends: Vec<End>,
    /// Of the last that was committed.
    pub(super) last: Index,
}

/// What is wrong with what was read back. All of it should be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Committed, and not there.
    pub(super) gaps: u64,
    /// There more than once.
    pub(super) duplicates: u64,
    /// Behind a record that was submitted later.
    pub(super) disordered: u64,
    /// Not what was submitted, or refused and there all the same.
    pub(super) damaged: u64,
}

impl Findings {
    pub(super) fn are_good(&self) -> bool {
        *self == Findings::default()
    }

    pub(super) fn add(&mut self, other: Findings) {
        self.gaps += other.gaps;
        self.duplicates += other.duplicates;
        self.disordered += other.disordered;
        self.damaged += other.damaged;
    }
}

impl Account {
    pub(super) fn count(&self, end: End) -> u64 {
        self.ends.iter().filter(|found| **found == end).count() as u64
    }

    /// Reads what `node` has applied, from the first record to the last that was committed.
    pub(super) fn read_back(
        &self,
        options: Options,
        node: NodeId,
        shard: ShardId,
        records: &mut Records,
        interrupt: &Interrupt,
    ) -> Result<Findings, Failure> {
        let mut reader = Reader::open(options, node, shard, Index(1))?;
        let mut check = Check::of(self);
        let mut progress = Instant::now();
        while reader.position() <= self.last {
            interrupt.check()?;
            match reader.next_record(Duration::from_millis(100))? {
                Some(record) => {
                    check.take(records.recognise(record.payload));
                    progress = Instant::now();
                }
                None if progress.elapsed() > PATIENCE => {
                    let read = reader.position().previous();
                    return Err(Failure(format!(
                        "node {node} has partition {shard} up to {read} of {} and goes no further",
                        self.last
                    )));
                }
                None => {}
            }
        }
        Ok(check.finish())
    }
}

/// One pass over a log.
struct Check<'a> {
    ends: &'a [End],
    seen: Vec<bool>,
    /// The number after the greatest that was met.
    next: u64,
    findings: Findings,
}

impl<'a> Check<'a> {
    fn of(account: &'a Account) -> Check<'a> {
        let ends = &account.ends;
        Check { ends, seen: vec![false; ends.len()], next: 0, findings: Findings::default() }
    }

    /// The next record's number; `None`: it is none of ours.
    fn take(&mut self, number: Option<u64>) {
        let known = number.and_then(|number| Some((number, *self.ends.get(number as usize)?)));
        let Some((number, End::Committed | End::Unknown | End::Open)) = known else {
            self.findings.damaged += 1;
            return;
        };
        if core::mem::replace(&mut self.seen[number as usize], true) {
            self.findings.duplicates += 1;
        } else if number < self.next {
            self.findings.disordered += 1;
        }
        self.next = self.next.max(number + 1);
    }

    fn finish(mut self) -> Findings {
        let missing = |(end, seen): &(&End, &bool)| **end == End::Committed && !**seen;
        self.findings.gaps = self.ends.iter().zip(&self.seen).filter(missing).count() as u64;
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ends: &[End], numbers: &[Option<u64>]) -> [u64; 4] {
        let account = Account { ends: ends.to_vec(), last: Index::ZERO };
        let mut check = Check::of(&account);
        for number in numbers {
            check.take(*number);
        }
        let Findings { gaps, duplicates, disordered, damaged } = check.finish();
        [gaps, duplicates, disordered, damaged]
    }

    #[test]
    fn gaps_duplicates_disorder_and_damage_are_counted() {
        let all = [End::Committed; 4];
        assert_eq!(found(&all, &[Some(0), Some(1), Some(2), Some(3)]), [0, 0, 0, 0]);
        assert_eq!(found(&all, &[Some(0), Some(1), Some(3)]), [1, 0, 0, 0]);
        assert_eq!(found(&all, &[Some(0), Some(1), Some(1), Some(2), Some(3)]), [0, 1, 0, 0]);
        assert_eq!(found(&all, &[Some(0), Some(2), Some(1), Some(3)]), [0, 0, 1, 0]);
        assert_eq!(found(&all, &[Some(0), None, Some(2), Some(3)]), [1, 0, 0, 1]);
        assert_eq!(found(&all, &[Some(0), Some(1), Some(2), Some(3), Some(4)]), [0, 0, 0, 1]);
    }

    #[test]
    fn what_is_unknown_may_be_there_and_what_was_refused_may_not() {
        let ends = [End::Committed, End::Unknown, End::Refused, End::Committed];
        assert_eq!(found(&ends, &[Some(0), Some(3)]), [0, 0, 0, 0]);
        assert_eq!(found(&ends, &[Some(0), Some(1), Some(3)]), [0, 0, 0, 0]);
        assert_eq!(found(&ends, &[Some(0), Some(2), Some(3)]), [0, 0, 0, 1]);
    }
}
