//! Reads a log without changing anything, and reports what is there.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::recovery::{self, Evidence, Spot, Verdict};
use super::scan::{Position, Scanner, Step};
use super::shards::{ShardLog, Shards};
use super::{Options, batch, record};
use crate::io::pool::Pool;
use crate::io::{Disk, DiskError};
use crate::types::{EntryId, ShardId, Vote};

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was written behind its last batch.
    Clean,
    /// A write that nobody was promised did not survive whole; the next opening cuts it off.
    Torn {
        /// What stands there.
        what: String,
    },
    /// Something that had been durable is not readable: the log does not open.
    Corrupt {
        /// What is wrong.
        what: String,
    },
    /// It is another's: the log does not open.
    Foreign {
        /// Whose.
        what: String,
    },
    /// It is of a format that this build does not read.
    Version {
        /// Of which.
        found: u16,
    },
}

/// One shard in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardReport {
    /// Which.
    pub shard: ShardId,
    /// How many entries stand.
    pub entries: u64,
    /// How many entries were written, those superseded since included.
    pub entries_written: u64,
    /// The last one.
    pub last: EntryId,
    /// The first entry of each term, ascending.
    pub terms: Vec<EntryId>,
    /// The last vote.
    pub vote: Vote,
    /// How many votes were written.
    pub votes_written: u64,
    /// The bytes of its payloads, as written.
    pub payload_bytes: u64,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many segments exist.
    pub segments: u64,
    /// How many batches are good, from the beginning on.
    pub batches: u64,
    /// How many records they hold, votes included.
    pub records: u64,
    /// Their bytes on disk, padding included.
    pub bytes: u64,
    /// The shards that have records, ascending.
    pub shards: Vec<ShardReport>,
    /// The segment in which the log ends.
    pub end_segment: u64,
    /// The byte at which it ends there.
    pub end_offset: u64,
    /// How it ends.
    pub end: End,
}

/// Reads all of a log. The shards named in `options` are not looked at: every shard found is reported.
///
/// # Panics
/// If the pool has no free chunk.
pub fn verify<D: Disk>(disk: &mut D, pool: &Pool, options: &Options) -> Result<Report, DiskError> {
    let segments = disk.segments()?.len() as u64;
    let memory = pool.take().expect("verifying needs a free chunk");
    let mut scanner = Scanner::new(disk, memory, options.identity())?;
    let mut tally = Tally::default();
    let mut report = Report {
        segments,
        batches: 0,
        records: 0,
        bytes: 0,
        shards: Vec::new(),
        end_segment: 0,
        end_offset: 0,
        end: End::Clean,
    };
    let (at, end) = loop {
        match scanner.step()? {
            Step::Batch(batch) => {
                report.batches += 1;
                report.bytes += batch.header.span_bytes() as u64;
                report.records += tally.count(batch.records);
                if let Err(what) = tally.replay(&batch.header, batch.records) {
                    let at = Position {
                        segment: u64::from(batch.header.segment),
                        offset: u64::from(batch.header.offset),
                    };
                    break (at, End::Corrupt { what });
                }
            }
            Step::End(at, evidence) => break (at, end_of(&evidence)),
        }
    };
    (report.end_segment, report.end_offset, report.end) = (at.segment, at.offset, end);
    report.shards = tally.into_reports();
    Ok(report)
}

fn end_of(evidence: &Evidence) -> End {
    let what = recovery::corruption(evidence);
    match (recovery::decide(evidence), evidence.spot) {
        (Verdict::Clean, _) => End::Clean,
        (Verdict::Torn, _) => End::Torn { what },
        (Verdict::Foreign, _) => End::Foreign { what },
        (Verdict::Version, Spot::Version(found)) => End::Version { found },
        (Verdict::Corrupt | Verdict::Version, _) => End::Corrupt { what },
    }
}

#[derive(Default)]
struct Counts {
    entries_written: u64,
    votes_written: u64,
    payload_bytes: u64,
}

#[derive(Default)]
struct Tally {
    counts: BTreeMap<u32, Counts>,
    shards: Option<Shards>,
}

impl Tally {
    /// Counts a batch's records, which were checked, and returns how many they are.
    fn count(&mut self, records: &[u8]) -> u64 {
        let mut count = 0;
        for record in record::records(records).flatten() {
            count += 1;
            let counts = self.counts.entry(record.header.shard).or_default();
            counts.payload_bytes += record.payload.len() as u64;
            match record.header.kind() {
                Some(record::Kind::Vote) => counts.votes_written += 1,
                _ => counts.entries_written += 1,
            }
        }
        count
    }

    /// Replays the batch as opening would.
    fn replay(&mut self, header: &batch::Header, records: &[u8]) -> Result<(), String> {
        let shards = self.shards.get_or_insert_with(|| Shards::new(&[]));
        for record in record::records(records).flatten() {
            let shard = ShardId(record.header.shard);
            if let Err(position) = shards.logs.binary_search_by_key(&shard, |log| log.shard) {
                shards.logs.insert(position, ShardLog::new(shard));
            }
        }
        recovery::replay(shards, header, records).map_err(|error| format!("{error}"))
    }

    fn into_reports(mut self) -> Vec<ShardReport> {
        let shards = self.shards.take().map_or(Vec::new(), |shards| shards.logs);
        let report = |log: ShardLog| {
            let counts = self.counts.remove(&log.shard.0).unwrap_or_default();
            ShardReport {
                shard: log.shard,
                entries: log.last.index.0,
                entries_written: counts.entries_written,
                last: log.last,
                terms: log.terms(),
                vote: log.vote,
                votes_written: counts.votes_written,
                payload_bytes: counts.payload_bytes,
            }
        };
        shards.into_iter().map(report).collect()
    }
}
