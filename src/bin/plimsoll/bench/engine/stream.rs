//! One partition's engine thread: it submits its stream and sees every record's end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::local::Cluster;
use plimsoll::types::{ShardId, Term};

use super::account::{Account, End};
use super::door::{Door, Told, Way};
use super::payload::Records;
use crate::common::{Failure, Interrupt, histogram, record};

/// How long a thread waits for an end before it looks at the interrupt again.
const LOOK: Duration = Duration::from_millis(20);

/// When records are submitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Schedule {
    /// At so many a second over all partitions, which take turns; latency counts from when a record was due, so that
    /// what had to wait behind others is not left out.
    Open { per_second: u64, partitions: u32 },
    /// With so many under way, a new one for each that ends; latency counts from the submit.
    Closed { window: usize },
}

/// The times of a run, the same for all partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) begun: Instant,
    pub(super) warm: Instant,
    pub(super) end: Instant,
}

pub(super) struct Stream {
    door: Door,
    shard: ShardId,
    schedule: Schedule,
    /// Makes records, and in the end knows them again.
    pub(super) records: Records,
    pub(super) account: Account,
    /// Of the records that were due in the window.
    pub(super) latencies: Histogram<u64>,
    /// Committed within the window.
    pub(super) committed: u64,
    /// The first commit of each term.
    pub(super) terms: Vec<(Term, Instant)>,
    /// When each record was submitted.
    submitted: Vec<Instant>,
    /// The request of record 0.
    first_request: Option<u64>,
}

impl Stream {
    pub(super) fn open(
        way: Way,
        cluster: &Cluster,
        partition: u32,
        bytes: u32,
        schedule: Schedule,
    ) -> Result<Stream, Failure> {
        let shard = ShardId(partition);
        Ok(Stream {
            door: Door::open(way, cluster, shard, bytes as usize)?,
            shard,
            schedule,
            records: Records::new(partition, bytes),
            account: Account::default(),
            latencies: histogram(),
            committed: 0,
            terms: Vec::new(),
            submitted: Vec::new(),
            first_request: None,
        })
    }

    /// Submits until the end and waits for the ends of all that was submitted.
    pub(super) fn run(&mut self, times: &Times, interrupt: &Interrupt) -> Result<(), Failure> {
        while let Some(wait) = self.submit_due(times)? {
            interrupt.check()?;
            self.take(wait, times)?;
        }
        while self.door.outstanding() > 0 {
            interrupt.check()?;
            self.take(LOOK, times)?;
        }
        Ok(())
    }

    /// Submits what is due, as far as the bounds allow. For how long nothing is due then; `None`: nothing more will be.
    fn submit_due(&mut self, times: &Times) -> Result<Option<Duration>, Failure> {
        loop {
            let now = Instant::now();
            let number = self.account.ends.len() as u64;
            let due = self.due(number, times).unwrap_or(now);
            // A thread that is late still owes the records that were due before the end: without them it would look
            // better.
            if due >= times.end {
                return Ok(None);
            }
            if due > now {
                return Ok(Some(due.duration_since(now).min(LOOK)));
            }
            if let Schedule::Closed { window } = self.schedule
                && self.door.outstanding() >= window
            {
                return Ok(Some(LOOK));
            }
            let payload = self.records.make(number, due.duration_since(times.begun));
            // Without room it comes later; in an open loop its latency runs from when it was due all the same.
            let Some(request) = self.door.submit(self.shard, payload)? else { return Ok(Some(LOOK)) };
            self.first_request.get_or_insert(request);
            self.account.ends.push(End::Open);
            self.submitted.push(now);
        }
    }

    /// When a record is due in an open loop.
    fn due(&self, number: u64, times: &Times) -> Option<Instant> {
        let Schedule::Open { per_second, partitions } = self.schedule else { return None };
        let place = u128::from(number) * u128::from(partitions) + u128::from(self.shard.0);
        let after_ns = place * 1_000_000_000 / u128::from(per_second);
        Some(times.begun + Duration::from_nanos(after_ns as u64))
    }

    fn take(&mut self, wait: Duration, times: &Times) -> Result<(), Failure> {
        let Stream { door, account, terms, .. } = self;
        let first = self.first_request.unwrap_or(0);
        let (mut committed, mut is_full) = (Vec::new(), false);
        door.take(wait, |request, told| {
            let number = request - first;
            account.ends[number as usize] = match told {
                Told::Committed(id) => {
                    account.last = account.last.max(id.index);
                    if terms.last().is_none_or(|(term, _)| *term < id.term) {
                        terms.push((id.term, Instant::now()));
                    }
                    committed.push(number);
                    End::Committed
                }
                Told::Unknown => End::Unknown,
                Told::Refused | Told::LogFull => End::Refused,
            };
            is_full |= told == Told::LogFull;
        });
        let now = Instant::now();
        committed.into_iter().for_each(|number| self.committed_at(number, now, times));
        if is_full { Err(Failure("the log is full: give shorter runs".to_owned())) } else { Ok(()) }
    }

    fn committed_at(&mut self, number: u64, now: Instant, times: &Times) {
        let from = self.due(number, times).unwrap_or(self.submitted[number as usize]);
        if times.warm <= from && from < times.end {
            record(&mut self.latencies, now.duration_since(from));
        }
        if times.warm <= now && now < times.end {
            self.committed += 1;
        }
    }
}
