//! Reads every replica back and counts what is wrong: byte by byte against the source, and replica against replica.

use std::time::{Duration, Instant};

use plimsoll::client::{Reader, Record};
use plimsoll::local::Cluster;
use plimsoll::log::record::payload_crc;
use plimsoll::types::{Index, NodeId, ShardId};

use super::load::{Account, Load, MARKER, number_of};
use super::tell::Teller;
use crate::common::{Failure, Interrupt};
use crate::source::Source;

/// How long a replica may show nothing new before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is wrong; of each kind that on the worst replica, but `lost` over all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged, and missing or different on some replica.
    pub(super) lost: u64,
    /// There more than once, or never submitted.
    pub(super) duplicated: u64,
    /// Behind a record that was submitted later.
    pub(super) reordered: u64,
    pub(super) replicas_identical: bool,
}

impl Findings {
    pub(super) fn are_good(&self) -> bool {
        (self.lost, self.duplicated, self.reordered, self.replicas_identical) == (0, 0, 0, true)
    }
}

/// One replica while it is read.
struct Replica<'a> {
    accounts: &'a [Account],
    source: &'a Source,
    /// How often each record was found, as it was submitted.
    seen: Vec<u8>,
    duplicated: u64,
    reordered: u64,
    /// Over everything that was read, in order.
    digest: u64,
    /// Of the shard that is read: the latest submit that was met.
    latest: u64,
    expected: Vec<u8>,
}

pub(super) fn all_replicas(
    load: &Load<'_>,
    source: &Source,
    cluster: &mut Cluster,
    interrupt: &Interrupt,
    tell: &Teller,
) -> Result<Findings, Failure> {
    let accounts = load.accounts();
    let mut findings = Findings { replicas_identical: true, ..Findings::default() };
    let mut missing = vec![false; accounts.len()];
    let mut digests = Vec::new();
    for node in cluster.ids() {
        let begun = Instant::now();
        let mut replica = Replica::new(accounts, source);
        for (shard, end) in load.ends() {
            interrupt.check()?;
            cluster.check().map_err(Failure::of)?;
            replica.latest = 0;
            read(load, node, shard, end, &mut replica, interrupt)?;
        }
        for (missing, (account, seen)) in missing.iter_mut().zip(accounts.iter().zip(&replica.seen)) {
            *missing |= (account.acknowledged || account.found) && *seen == 0;
        }
        findings.duplicated = findings.duplicated.max(replica.duplicated);
        findings.reordered = findings.reordered.max(replica.reordered);
        digests.push(replica.digest);
        let count = replica.seen.iter().filter(|seen| **seen > 0).count();
        tell.say(&format!("read {count} records from node {node} in {:.3} s", begun.elapsed().as_secs_f64()));
    }
    findings.lost = missing.iter().filter(|missing| **missing).count() as u64;
    findings.replicas_identical = digests.windows(2).all(|pair| pair[0] == pair[1]);
    Ok(findings)
}

fn read(
    load: &Load<'_>,
    node: NodeId,
    shard: ShardId,
    end: Index,
    replica: &mut Replica<'_>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let mut reader = Reader::open(load.options().clone(), node, shard, Index(1))?;
    let mut progress = Instant::now();
    while reader.position() <= end {
        match reader.next_record(Duration::from_millis(100))? {
            Some(record) => {
                replica.take(&record)?;
                progress = Instant::now();
            }
            None if progress.elapsed() > PATIENCE => {
                return Err(Failure(format!(
                    "node {node} has shard {shard} up to {} of {end} and goes no further",
                    reader.position().previous()
                )));
            }
            None => interrupt.check()?,
        }
    }
    Ok(())
}

impl<'a> Replica<'a> {
    fn new(accounts: &'a [Account], source: &'a Source) -> Replica<'a> {
        Replica {
            accounts,
            source,
            seen: vec![0; accounts.len()],
            duplicated: 0,
            reordered: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            latest: 0,
            expected: Vec::new(),
        }
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        let place = [record.id.index.0, record.id.term.0, record.first.0, record.timestamp.0];
        let content =
            [record.payload.len() as u64, payload_crc(record.payload).into(), record.session, record.serial];
        for word in place.into_iter().chain(content) {
            self.digest = (self.digest ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(29);
        }
        let number = match number_of(record.payload) {
            Some(MARKER) => return Ok(()),
            Some(number)
                if self.accounts.get(number as usize).is_some_and(|account| account.sequence > 0) =>
            {
                number
            }
            _ => {
                self.duplicated += 1;
                return Ok(());
            }
        };
        let account = &self.accounts[number as usize];
        self.source.record(number, &mut self.expected).map_err(Failure::on("reading the input again"))?;
        if self.expected != record.payload {
            return Ok(());
        }
        let seen = &mut self.seen[number as usize];
        *seen = seen.saturating_add(1);
        if *seen > 1 {
            self.duplicated += 1;
            return Ok(());
        }
        if account.sequence < self.latest {
            self.reordered += 1;
        }
        self.latest = self.latest.max(account.sequence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use plimsoll::types::{EntryId, Epoch, Term, Timestamp};

    /// What is found in a replica that holds these records, of five submitted.
    fn found(numbers: &[u64], spoil: Option<usize>) -> (u64, u64, Vec<u8>, u64) {
        let source = Source::Generated { seed: 3 };
        let accounts: Vec<_> =
            (1..=5).map(|sequence| Account { sequence, acknowledged: true, found: false }).collect();
        let mut replica = Replica::new(&accounts, &source);
        for (at, number) in numbers.iter().enumerate() {
            let mut payload = Vec::new();
            source.record(*number, &mut payload).unwrap();
            if spoil == Some(at) {
                *payload.last_mut().unwrap() ^= 1;
            }
            let index = Index(at as u64 + 1);
            let id = EntryId { term: Term(1), index };
            let (timestamp, epoch) = (Timestamp(0), Epoch(0));
            replica
                .take(&Record {
                    id,
                    first: index,
                    timestamp,
                    epoch,
                    session: 0,
                    serial: 0,
                    payload: &payload,
                })
                .unwrap();
        }
        (replica.duplicated, replica.reordered, replica.seen, replica.digest)
    }

    #[test]
    fn a_whole_replica_has_nothing_wrong() {
        let (duplicated, reordered, seen, digest) = found(&[0, 1, 2, MARKER, 3, 4], None);
        assert_eq!((duplicated, reordered, seen), (0, 0, vec![1; 5]));
        assert_eq!(digest, found(&[0, 1, 2, MARKER, 3, 4], None).3);
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let whole = found(&[0, 1, 2, 3, 4], None);
        assert_eq!(found(&[0, 1, 3, 4], None).2, [1, 1, 0, 1, 1]);
        assert_eq!(found(&[0, 1, 2, 3, 4], Some(2)).2, [1, 1, 0, 1, 1]);
        assert_ne!(found(&[0, 1, 2, 3, 4], Some(2)).3, whole.3);
        assert_eq!(found(&[0, 1, 1, 2, 3, 4], None).0, 1);
        assert_eq!(found(&[0, 2, 1, 3, 4], None).1, 1);
        assert_ne!(found(&[0, 2, 1, 3, 4], None).3, whole.3);
        assert_eq!(found(&[0, 1, 2, 3, 4, 5], None).0, 1, "never submitted");
    }
}
