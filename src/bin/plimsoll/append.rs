//! `plimsoll append`: records from a file or standard input, by line or by fixed length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use plimsoll::client::{Client, Completion, Outcome, Submit, SubmitError};
use plimsoll::limits::RECORD_BYTES_MAX;
use plimsoll::types::{self, Epoch, Index, ShardId, Timestamp};

use crate::common::{Failure, Interrupt, Target, Verdict, complain, say};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Which shard
    #[arg(long, default_value_t = 0)]
    shard: u32,
    /// Where the records come from; "-" is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Each line is a record, without its line feed; empty lines are none (this is the default)
    #[arg(long, conflicts_with = "record_bytes")]
    lines: bool,
    /// Each so many bytes are a record; the last may be shorter
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RECORD_BYTES_MAX as u64))]
    record_bytes: Option<u64>,
    /// When a record counts as committed
    #[arg(long, value_enum, default_value_t = Acks::Quorum)]
    acks: Acks,
    /// The engine's epoch
    #[arg(long, default_value_t = 0)]
    epoch: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Acks {
    /// When the leader has taken it
    None,
    /// When it is durable on the leader
    Leader,
    /// When it is durable on a quorum
    Quorum,
}

/// What became of the records.
#[derive(Default)]
struct Tally {
    committed: u64,
    first: Option<Index>,
    last: Option<Index>,
    unknown: u64,
    failed: Option<Outcome>,
    /// Why the rest of the input was not sent.
    broken_off: Option<Failure>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let (mut input, len_bytes) = open(&arguments.input)?;
    let mut options = arguments.target.options()?;
    options.strict_order = true;
    let mut client = Client::connect(options)?;
    let bar = progress(len_bytes);
    let (mut tally, mut record, mut completions) = (Tally::default(), Vec::new(), Vec::new());
    let (mut number, started) = (0_u64, Instant::now());
    // After a failure nothing more is sent: what is appended is a prefix of the input, but for what is unknown.
    while tally.failed.is_none() && !interrupt.has_come() {
        match next(arguments, &mut input, &mut record) {
            Ok(true) => number += 1,
            Ok(false) => break,
            Err(failure) => {
                tally.broken_off = Some(failure);
                break;
            }
        }
        let refused = loop {
            match client.submit(submit(arguments, number, &record)) {
                Ok(_) => break None,
                Err(SubmitError::Full) => {
                    client.poll(Duration::from_millis(100), &mut completions);
                    tally.take(&mut completions);
                }
                Err(error) => break Some(Failure(format!("record {number}: {error}"))),
            }
        };
        if refused.is_some() {
            tally.broken_off = refused;
            break;
        }
        bar.inc(record.len() as u64);
        if client.outstanding().is_multiple_of(64) {
            client.poll(Duration::ZERO, &mut completions);
            tally.take(&mut completions);
        }
    }
    while client.outstanding() > 0 {
        client.poll(Duration::from_millis(100), &mut completions);
        tally.take(&mut completions);
    }
    bar.finish_and_clear();
    Ok(tally.report(number, started.elapsed(), &client, interrupt.has_come()))
}

fn submit<'a>(arguments: &Arguments, number: u64, payload: &'a [u8]) -> Submit<'a> {
    let acks = match arguments.acks {
        Acks::None => types::Acks::None,
        Acks::Leader => types::Acks::Leader,
        Acks::Quorum => types::Acks::Quorum,
    };
    let (timestamp, epoch) = (Timestamp(number), Epoch(arguments.epoch));
    Submit { acks, timestamp, epoch, ..Submit::new(ShardId(arguments.shard), payload) }
}

fn open(path: &PathBuf) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path).map_err(Failure::on(path.display()))?;
    let len_bytes = file.metadata().map_err(Failure::on(path.display()))?.len();
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), Some(len_bytes)))
}

/// The next record. A line longer than a record is refused before it is read to its end.
fn next(arguments: &Arguments, input: &mut dyn BufRead, record: &mut Vec<u8>) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure(format!("reading {}: {error}", arguments.input.display()));
    loop {
        record.clear();
        let Some(record_bytes) = arguments.record_bytes else {
            let mut line = input.take(RECORD_BYTES_MAX as u64 + 2);
            if line.read_until(b'\n', record).map_err(failed)? == 0 {
                return Ok(false);
            }
            record.pop_if(|byte| *byte == b'\n');
            if record.is_empty() {
                continue;
            }
            return Ok(true);
        };
        let count = input.take(record_bytes).read_to_end(record).map_err(failed)?;
        return Ok(count > 0);
    }
}

fn progress(len_bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let Some(len_bytes) = len_bytes else { return ProgressBar::new_spinner() };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(len_bytes).with_style(style.expect("the template is sound"))
}

impl Tally {
    fn take(&mut self, completions: &mut Vec<Completion>) {
        for completion in completions.drain(..) {
            match completion.outcome {
                Outcome::Committed { id, .. } => {
                    self.committed += 1;
                    self.first = Some(self.first.map_or(id.index, |first| first.min(id.index)));
                    self.last = self.last.max(Some(id.index));
                }
                outcome if outcome.is_unknown() => {
                    self.unknown += 1;
                    self.failed = Some(outcome);
                }
                Outcome::Withdrawn => {}
                outcome => self.failed = Some(self.failed.unwrap_or(outcome)),
            }
        }
    }

    fn report(&self, read: u64, took: Duration, client: &Client, interrupted: bool) -> Verdict {
        let Tally { committed, unknown, .. } = self;
        let between = match (self.first, self.last) {
            (Some(first), Some(last)) => format!(" at indices {first} to {last}"),
            _ => String::new(),
        };
        say(&format!(
            "{committed} records committed{between}, {unknown} unknown, in {:.3} s",
            took.as_secs_f64()
        ));
        if let Some(outcome) = self.failed {
            let trouble = client.trouble().map(|error| format!(" ({error})")).unwrap_or_default();
            complain(&format!("after {committed} of {read} records read: {outcome}{trouble}"));
        }
        if let Some(Failure(why)) = &self.broken_off {
            complain(&format!("nothing more was sent: {why}"));
        }
        let complete = *committed == read && !interrupted && self.broken_off.is_none();
        if complete { Verdict::Good } else { Verdict::Bad }
    }
}
