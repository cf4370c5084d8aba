//! One partition's engine thread: it submits its stream and sees every record's end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::client::{Client, Completion, Options, Outcome, Submit, SubmitError};
use plimsoll::types::{ShardId, Term};

use super::account::{Account, End};
use super::payload::Records;
use crate::common::{Failure, Interrupt, histogram, record};

/// What a client may have under way in an open loop, which no latency may be hidden behind.
const OPEN_OUTSTANDING: usize = 32_768;
const OPEN_OUTSTANDING_BYTES: usize = 256 << 20;

/// How long a submit may take: longer than any failover, so that an outage shows as latency.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a thread waits for an end before it looks at the interrupt again.
const LOOK: Duration = Duration::from_millis(20);

/// When records are submitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Schedule {
    /// At so many a second over all partitions, which take turns; latency counts from when a record was due, so that what
    /// had to wait behind others is not left out.
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
    client: Client,
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
    completions: Vec<Completion>,
    /// The request of record 0.
    first_request: Option<u64>,
}

impl Stream {
    pub(super) fn open(
        options: &Options,
        partition: u32,
        bytes: u32,
        schedule: Schedule,
    ) -> Result<Stream, Failure> {
        let (outstanding_max, outstanding_bytes_max) = match schedule {
            Schedule::Open { .. } => (OPEN_OUTSTANDING, OPEN_OUTSTANDING_BYTES.max(2 * bytes as usize)),
            Schedule::Closed { window } => (window, window * bytes as usize),
        };
        let options =
            Options { deadline: DEADLINE, outstanding_max, outstanding_bytes_max, ..options.clone() };
        Ok(Stream {
            client: Client::connect(options)?,
            shard: ShardId(partition),
            schedule,
            records: Records::new(partition, bytes),
            account: Account::default(),
            latencies: histogram(),
            committed: 0,
            terms: Vec::new(),
            completions: Vec::new(),
            first_request: None,
        })
    }

    /// Submits until the end and waits for the ends of all that was submitted.
    pub(super) fn run(&mut self, times: &Times, interrupt: &Interrupt) -> Result<(), Failure> {
        while let Some(wait) = self.submit_due(times)? {
            interrupt.check()?;
            self.take(wait, times)?;
        }
        while self.client.outstanding() > 0 {
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
            // A thread that is late still owes the records that were due before the end: without them it would look better.
            if due >= times.end {
                return Ok(None);
            }
            if due > now {
                return Ok(Some(due.duration_since(now).min(LOOK)));
            }
            let payload = self.records.make(number, due.duration_since(times.begun));
            match self.client.submit(Submit::new(self.shard, payload)) {
                Ok(request) => {
                    self.first_request.get_or_insert(request.0);
                    self.account.ends.push(End::Open);
                }
                // In an open loop its latency runs from when it was due all the same.
                Err(SubmitError::Full) => return Ok(Some(LOOK)),
                Err(error) => return Err(Failure::of(error)),
            }
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
        self.client.poll(wait, &mut self.completions);
        let now = Instant::now();
        for at in 0..self.completions.len() {
            let completion = self.completions[at];
            let number = completion.request.0 - self.first_request.unwrap_or(0);
            let end = match completion.outcome {
                Outcome::Committed { id, .. } => {
                    self.account.last = self.account.last.max(id.index);
                    if self.terms.last().is_none_or(|(term, _)| *term < id.term) {
                        self.terms.push((id.term, now));
                    }
                    self.committed_at(number, completion.latency, now, times);
                    End::Committed
                }
                Outcome::LogFull => return Err(Failure("the log is full: give shorter runs".to_owned())),
                outcome if outcome.is_unknown() => End::Unknown,
                _ => End::Refused,
            };
            self.account.ends[number as usize] = end;
        }
        self.completions.clear();
        Ok(())
    }

    fn committed_at(&mut self, number: u64, latency: Duration, now: Instant, times: &Times) {
        let from = self.due(number, times).unwrap_or_else(|| now.checked_sub(latency).unwrap_or(now));
        if times.warm <= from && from < times.end {
            record(&mut self.latencies, now.duration_since(from));
        }
        if times.warm <= now && now < times.end {
            self.committed += 1;
        }
    }
}
