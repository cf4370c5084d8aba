//! Submits the records and keeps account of each.
//!
//! A record whose submit ended without a word (unknown) may be in the log or not. Then nothing more of its shard is
//! submitted until everything under way has ended, a marker is committed, and the log was read up to that marker: what
//! is in front of it is final. Records found there count as present; the others are submitted again, in order, before
//! the rest. So the log ends up with every record once and in order, whatever happened to its leaders.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::client::{Client, Completion, Options, Outcome, Reader, RequestId, Submit, SubmitError};
use plimsoll::local::Cluster;
use plimsoll::types::{Index, NodeId, ShardId, Term, Timestamp};

use super::tell::Teller;
use crate::common::{Failure, Interrupt, histogram, record};
use crate::source::{NUMBER_BYTES, Source};

/// The number that markers carry; no record has it.
pub(super) const MARKER: u64 = u64::MAX;
/// How long the cluster may be without a leader before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const OUTSTANDING_BYTES_MAX: usize = 4 << 20;

/// What is known of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// The number of the last submit that carried it; 0: none yet.
    pub(super) sequence: u64,
    /// Whether it was said to be committed.
    pub(super) acknowledged: bool,
    /// Whether it was found in front of a committed marker.
    pub(super) found: bool,
}

pub(super) struct Totals {
    pub(super) submitted: u64,
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) latencies: Histogram<u64>,
}

pub(super) struct Load<'a> {
    client: Client,
    options: Options,
    source: &'a Source,
    tell: &'a Teller,
    outstanding_max: usize,
    shards: Vec<ShardLoad>,
    accounts: Vec<Account>,
    under_way: BTreeMap<RequestId, Carried>,
    completions: Vec<Completion>,
    /// Counts the submits.
    sequence: u64,
    started: Instant,
    unknown: u64,
    latencies: Histogram<u64>,
    payload: Vec<u8>,
    stopped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Carried {
    shard: usize,
    /// A record, or [`MARKER`].
    number: u64,
    /// What was acknowledged when it was submitted: if it is in the log, then behind this.
    after: Index,
}

/// Where a shard is in its course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Submitting,
    /// Something failed: nothing new until all that is under way has ended.
    Draining,
    /// A marker is to be submitted.
    Marking,
    /// A marker is under way.
    Marked,
}

#[derive(Debug)]
struct ShardLoad {
    id: ShardId,
    phase: Phase,
    under_way: usize,
    /// The next record that was never submitted.
    next: u64,
    /// To be submitted before that, ascending.
    again: VecDeque<u64>,
    /// May be in the log or not.
    doubtful: Vec<u64>,
    /// They can only be behind this index.
    doubtful_after: Index,
    /// The highest index and term of an acknowledgement.
    last: Index,
    term: Term,
}

impl<'a> Load<'a> {
    pub(super) fn open(
        mut options: Options,
        source: &'a Source,
        outstanding_max: u32,
        tell: &'a Teller,
    ) -> Result<Load<'a>, Failure> {
        options.deadline = PATIENCE;
        options.strict_order = true;
        let client = Client::connect(options.clone())?;
        // A short file is to have a middle in which a leader can be killed.
        let records = source.count().unwrap_or(u64::MAX);
        let outstanding_max = u64::from(outstanding_max).min(records / 8).max(1) as usize;
        let shards = (0..client.shards()).map(|shard| ShardLoad {
            id: ShardId(shard),
            phase: Phase::Submitting,
            under_way: 0,
            next: shard.into(),
            again: VecDeque::new(),
            doubtful: Vec::new(),
            doubtful_after: Index(u64::MAX),
            last: Index::ZERO,
            term: Term(0),
        });
        Ok(Load {
            shards: shards.collect(),
            client,
            options,
            source,
            tell,
            outstanding_max,
            accounts: Vec::new(),
            under_way: BTreeMap::new(),
            completions: Vec::new(),
            sequence: 0,
            started: Instant::now(),
            unknown: 0,
            latencies: histogram(),
            payload: Vec::new(),
            stopped: false,
        })
    }

    /// Commits a marker in each shard: all have a leader then.
    pub(super) fn await_leaders(
        &mut self,
        interrupt: &Interrupt,
        cluster: &mut Cluster,
    ) -> Result<(), Failure> {
        for shard in &mut self.shards {
            shard.phase = Phase::Marking;
        }
        let until = Instant::now() + PATIENCE;
        while self.shards.iter().any(|shard| shard.phase != Phase::Submitting) {
            interrupt.check()?;
            cluster.check().map_err(Failure::of)?;
            self.turn(Duration::MAX, 0, false)?;
            if Instant::now() > until {
                return Err(Failure(format!("no leader within {PATIENCE:?}{}", self.trouble())));
            }
        }
        self.started = Instant::now();
        // How long the first election took says nothing of commits.
        self.latencies.reset();
        Ok(())
    }

    /// Commits a marker in this shard, for want of a record.
    pub(super) fn mark(&mut self, shard: ShardId) {
        let shard = &mut self.shards[shard.0 as usize];
        if shard.phase == Phase::Submitting {
            shard.phase = Phase::Marking;
        }
    }

    /// How far the run is, from 0 to 1.
    pub(super) fn progress(&self, lasting: Duration) -> f64 {
        match self.source.count() {
            Some(count) => self.accounts.len() as f64 / count as f64,
            None => self.started.elapsed().as_secs_f64() / lasting.as_secs_f64(),
        }
    }

    /// Submits what may be submitted and takes in what has ended. Records are not begun beyond the part `goal` of a
    /// file; a generated log ends when its time is over and `may_end`.
    pub(super) fn turn(
        &mut self,
        lasting: Duration,
        goal: impl Into<f64>,
        may_end: bool,
    ) -> Result<(), Failure> {
        if self.source.count().is_none() && may_end && self.started.elapsed() >= lasting {
            self.stopped = true;
        }
        let goal = goal.into();
        let end = match self.source.count() {
            Some(count) => (count as f64 * goal).ceil() as u64,
            None if self.stopped || goal == 0.0 => 0,
            None => MARKER,
        };
        // In turn over the shards, so that records go out about in the order of their numbers.
        let mut went_out = true;
        while went_out {
            went_out = false;
            for at in 0..self.shards.len() {
                went_out |= self.submit_next(at, end)?;
            }
        }
        self.client.poll(Duration::from_millis(2), &mut self.completions);
        let completions = core::mem::take(&mut self.completions);
        for completion in &completions {
            self.take(completion)?;
        }
        self.completions = completions;
        self.completions.clear();
        self.tell.progress(self.accounts.len() as u64);
        Ok(())
    }

    /// Whether everything that will be submitted has ended well.
    pub(super) fn is_done(&self) -> bool {
        let count = self.source.count();
        self.under_way.is_empty()
            && self.shards.iter().all(|shard| {
                let all_begun = count.map_or(self.stopped, |count| shard.next >= count);
                all_begun && shard.again.is_empty() && shard.phase == Phase::Submitting
            })
    }

    pub(super) fn totals(&self) -> Totals {
        let count =
            |of: fn(&Account) -> bool| self.accounts.iter().filter(|account| of(account)).count() as u64;
        Totals {
            submitted: count(|account| account.sequence > 0),
            acknowledged: count(|account| account.acknowledged),
            unknown: self.unknown,
            latencies: self.latencies.clone(),
        }
    }

    pub(super) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The shards, and up to where each must be on every replica.
    pub(super) fn ends(&self) -> impl Iterator<Item = (ShardId, Index)> + '_ {
        self.shards.iter().map(|shard| (shard.id, shard.last))
    }

    /// The highest term of which the shard has acknowledged anything.
    pub(super) fn term(&self, shard: ShardId) -> Term {
        self.shards[shard.0 as usize].term
    }

    fn submit_next(&mut self, at: usize, end: u64) -> Result<bool, Failure> {
        let stride = self.shards.len() as u64;
        let shard = &mut self.shards[at];
        let number = match shard.phase {
            Phase::Marking => MARKER,
            Phase::Submitting if self.under_way.len() >= self.outstanding_max => return Ok(false),
            Phase::Submitting => match shard.again.front() {
                Some(number) => *number,
                None if shard.next < end => shard.next,
                None => return Ok(false),
            },
            Phase::Draining | Phase::Marked => return Ok(false),
        };
        if number == MARKER {
            self.payload.clear();
            self.payload.extend_from_slice(&MARKER.to_le_bytes());
        } else {
            self.source.record(number, &mut self.payload).map_err(Failure::on("reading the input"))?;
        }
        self.sequence += 1;
        let submit = Submit { timestamp: Timestamp(self.sequence), ..Submit::new(shard.id, &self.payload) };
        let request = match self.client.submit(submit) {
            Ok(request) => request,
            Err(SubmitError::Full) => return Ok(false),
            Err(error) => return Err(Failure::of(error)),
        };
        self.under_way.insert(request, Carried { shard: at, number, after: shard.last });
        shard.under_way += 1;
        if number == MARKER {
            shard.phase = Phase::Marked;
            return Ok(true);
        }
        if shard.again.pop_front().is_none() {
            shard.next += stride;
        }
        let position = number as usize;
        if self.accounts.len() <= position {
            self.accounts.resize(position + 1, Account::default());
        }
        self.accounts[position].sequence = self.sequence;
        let bytes_full = self.under_way.len() * self.payload.len() > OUTSTANDING_BYTES_MAX;
        Ok(!bytes_full)
    }

    fn take(&mut self, completion: &Completion) -> Result<(), Failure> {
        let carried =
            self.under_way.remove(&completion.request).expect("every completion is of a submit, once");
        let shard = &mut self.shards[carried.shard];
        shard.under_way -= 1;
        match completion.outcome {
            Outcome::Committed { id, .. } => {
                shard.last = shard.last.max(id.index);
                shard.term = shard.term.max(id.term);
                if carried.number == MARKER {
                    self.resolve(carried.shard, id.index)?;
                } else {
                    self.accounts[carried.number as usize].acknowledged = true;
                    record(&mut self.latencies, completion.latency);
                }
            }
            Outcome::LogFull | Outcome::Invalid => {
                let shard = shard.id;
                return Err(Failure(format!("shard {shard}: {}{}", completion.outcome, self.trouble())));
            }
            _ if carried.number == MARKER => shard.phase = Phase::Marking,
            outcome => {
                shard.phase = Phase::Draining;
                if outcome.is_unknown() {
                    shard.doubtful.push(carried.number);
                    shard.doubtful_after = shard.doubtful_after.min(carried.after);
                    self.unknown += 1;
                } else {
                    shard.again.push_back(carried.number);
                }
            }
        }
        let shard = &mut self.shards[carried.shard];
        if shard.phase == Phase::Draining && shard.under_way == 0 {
            shard.again.make_contiguous().sort_unstable();
            shard.phase = if shard.doubtful.is_empty() { Phase::Submitting } else { Phase::Marking };
        }
        Ok(())
    }

    /// Looks for the doubtful records in front of a committed marker.
    fn resolve(&mut self, at: usize, marker: Index) -> Result<(), Failure> {
        let shard = &mut self.shards[at];
        shard.phase = Phase::Submitting;
        if shard.doubtful.is_empty() {
            return Ok(());
        }
        let (id, mut doubtful) = (shard.id, core::mem::take(&mut shard.doubtful));
        let from = core::mem::replace(&mut shard.doubtful_after, Index(u64::MAX)).next();
        doubtful.sort_unstable();
        let mut found = vec![false; doubtful.len()];
        let node = self.client.leader(id).ok_or_else(|| Failure(format!("shard {id} has no leader")))?;
        let mut reader = self.reader(node, id, from)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match reader.next_record(Duration::from_millis(100)) {
                Ok(Some(record)) => {
                    if let Some(Ok(place)) =
                        number_of(record.payload).map(|number| doubtful.binary_search(&number))
                    {
                        found[place] = true;
                    }
                    if record.id.index >= marker {
                        break;
                    }
                }
                // A node that was killed meanwhile: another one has the same log.
                outcome => {
                    if Instant::now() > until {
                        return Err(Failure(format!(
                            "shard {id} cannot be read up to {marker}: {outcome:?}"
                        )));
                    }
                    if outcome.is_err() {
                        let position = reader.position().max(from);
                        reader = self.reader_anywhere(id, position)?;
                    }
                }
            }
        }
        let present = found.iter().filter(|found| **found).count();
        self.tell.say(&format!(
            "shard {id}: of {} records of unknown fate {present} are in the log, the others are submitted again",
            doubtful.len()
        ));
        let shard = &mut self.shards[at];
        for (number, found) in doubtful.into_iter().zip(found) {
            if found {
                self.accounts[number as usize].found = true;
            } else {
                shard.again.push_back(number);
            }
        }
        shard.again.make_contiguous().sort_unstable();
        Ok(())
    }

    fn reader(&self, node: NodeId, shard: ShardId, from: Index) -> Result<Reader, Failure> {
        match Reader::open(
            Options { deadline: Duration::from_secs(2), ..self.options.clone() },
            node,
            shard,
            from,
        ) {
            Ok(reader) => Ok(reader),
            Err(_) => self.reader_anywhere(shard, from),
        }
    }

    fn reader_anywhere(&self, shard: ShardId, from: Index) -> Result<Reader, Failure> {
        let options = Options { deadline: Duration::from_millis(500), ..self.options.clone() };
        let until = Instant::now() + PATIENCE;
        loop {
            let opened = options
                .members
                .iter()
                .find_map(|(node, _)| Reader::open(options.clone(), *node, shard, from).ok());
            match opened {
                Some(reader) => return Ok(reader),
                None if Instant::now() > until => {
                    return Err(Failure(format!("no node lets shard {shard} be read")));
                }
                None => {}
            }
        }
    }

    fn trouble(&self) -> String {
        self.client.trouble().map(|error| format!(" ({error})")).unwrap_or_default()
    }
}

/// The number with which a payload begins.
pub(super) fn number_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk::<NUMBER_BYTES>().map(|bytes| u64::from_le_bytes(*bytes))
}
