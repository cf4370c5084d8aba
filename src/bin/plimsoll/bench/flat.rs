//! `plimsoll bench flat`: a long run at a steady rate, told in ten parts of equal length. Neither a node's memory nor
//! the tail of its latencies may depend on how long it has run; what leaks a little with every submit shows here and
//! nowhere else.

use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use plimsoll::client::{Client, Completion, Outcome, Submit, SubmitError};
use plimsoll::local::{Cluster, Shape};
use plimsoll::types::ShardId;
use serde_json::{Value, json};

use crate::common::{Failure, Interrupt, Own, Verdict, figures, figures_json, histogram, record, say};

/// What a run is told in. Ten minutes are told by the minute.
const PARTS: u32 = 10;

/// Before the first part: every memory chunk was written to once, and every queue has found its size.
const WARM_UP: Duration = Duration::from_secs(5);
const WARM_UP_RECORD_BYTES: usize = 64 << 10;

/// What may be under way, which no latency may be hidden behind.
const OUTSTANDING_MAX: usize = 32_768;

/// How long a submit may take: longer than any failover, so that an outage shows as latency.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Own,
    /// How long to measure
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Submits in a second, begun when they are due; latency counts from then
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// The bytes of each record
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A tenth of the run.
struct Part {
    ends: Ends,
    /// Of each node's process, at the part's end.
    resident_kib: Vec<u64>,
}

/// How submits ended.
struct Ends {
    /// Of those that were committed, from when they were due.
    latencies: Histogram<u64>,
    /// Refused or unknown: a leader was lost on the way.
    lost: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let shape = Shape { segment_mib: 64, capacity_mib: 64 << 14, ..Shape::default() };
    let chunks = shape.chunks;
    let mut cluster = arguments.cluster.start("flat", shape)?;
    let played = play(arguments, chunks, &interrupt, &mut cluster);
    let (warm_kib, parts) = played.map_err(|Failure(what)| {
        let words = if interrupt.has_come() { String::new() } else { cluster.all_last_words() };
        Failure(format!("{what}{words}"))
    })?;
    if arguments.json {
        say(&as_json(arguments, &warm_kib, &parts).to_string());
    } else {
        as_table(arguments, &warm_kib, &parts);
    }
    Ok(if parts.iter().all(|part| part.ends.lost == 0) { Verdict::Good } else { Verdict::Bad })
}

fn play(
    arguments: &Arguments,
    chunks: usize,
    interrupt: &Interrupt,
    cluster: &mut Cluster,
) -> Result<(Vec<u64>, Vec<Part>), Failure> {
    cluster.await_leaders().map_err(Failure::of)?;
    let mut options = cluster.client_options();
    (options.deadline, options.outstanding_max) = (DEADLINE, OUTSTANDING_MAX);
    let mut load = Load {
        client: Client::connect(options)?,
        interrupt,
        shards: arguments.cluster.shards,
        rate: arguments.rate,
        payload: (0..arguments.bytes).map(|at| at as u8).collect(),
        completions: Vec::new(),
    };
    load.fill(2 * chunks * plimsoll::limits::CHUNK_BYTES * usize::from(arguments.cluster.lanes))?;
    load.run(WARM_UP, 1, |_| Ok(()))?;
    let warm_kib = resident_kib(cluster)?;
    let mut parts = Vec::new();
    load.run(Duration::from_secs(arguments.seconds), PARTS, |ends| {
        parts.push(Part { ends, resident_kib: resident_kib(cluster)? });
        Ok(())
    })?;
    cluster.check().map_err(Failure::of)?;
    Ok((warm_kib, parts))
}

/// What each node's process has in memory.
fn resident_kib(cluster: &Cluster) -> Result<Vec<u64>, Failure> {
    let of = |id| {
        let pid = cluster.pid(id).ok_or_else(|| Failure(format!("node {id} has ended")))?;
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).map_err(Failure::on(&path))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kib.ok_or_else(|| Failure(format!("{path} does not tell how much is in memory")))
    };
    cluster.ids().into_iter().map(of).collect()
}

struct Load<'a> {
    client: Client,
    interrupt: &'a Interrupt,
    shards: u32,
    rate: u64,
    payload: Vec<u8>,
    completions: Vec<Completion>,
}

impl Load<'_> {
    /// Submits so many bytes to each shard, as fast as they are taken.
    fn fill(&mut self, bytes: usize) -> Result<(), Failure> {
        let record = vec![0x5a; WARM_UP_RECORD_BYTES];
        let mut left = bytes.div_ceil(record.len()) as u64 * u64::from(self.shards);
        while left > 0 || self.client.outstanding() > 0 {
            while left > 0 && self.client.outstanding() < 64 {
                let shard = ShardId((left % u64::from(self.shards)) as u32);
                self.client.submit(Submit::new(shard, &record)).map_err(Failure::of)?;
                left -= 1;
            }
            self.take(Duration::from_millis(20), |_, _, _| ())?;
        }
        Ok(())
    }

    /// Submits at the rate for so long, gives the ends in each of so many parts to `tell` when it is over, and waits
    /// for what is under way then. What ends late counts for the part in which it ends.
    fn run(
        &mut self,
        lasting: Duration,
        parts: u32,
        mut tell: impl FnMut(Ends) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (begun, rate) = (Instant::now(), self.rate);
        let due_at = |number: u64| {
            begun + Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(rate)) as u64)
        };
        let (mut number, mut first_request) = (0, None);
        for part in 1..=parts {
            let mut ends = Ends { latencies: histogram(), lost: 0 };
            let end = begun + lasting * part / parts;
            while due_at(number) < end || (part == parts && self.client.outstanding() > 0) {
                while due_at(number) < end.min(Instant::now()) {
                    let shard = ShardId((number % u64::from(self.shards)) as u32);
                    match self.client.submit(Submit::new(shard, &self.payload)) {
                        Ok(request) => first_request.get_or_insert(request.0),
                        // Its latency runs from when it was due all the same.
                        Err(SubmitError::Full) => break,
                        Err(error) => return Err(Failure::of(error)),
                    };
                    number += 1;
                }
                let first_request = first_request.unwrap_or(0);
                // Shorter than the gap between two submits: the machine's cores are for the nodes.
                self.take(Duration::from_micros(100), |request, is_committed, now| {
                    if is_committed {
                        let due = due_at(request - first_request);
                        record(&mut ends.latencies, now.saturating_duration_since(due));
                    } else {
                        ends.lost += 1;
                    }
                })?;
            }
            tell(ends)?;
        }
        Ok(())
    }

    /// Takes in what has ended: `each` is told which, whether it was committed, and when.
    fn take(&mut self, wait: Duration, mut each: impl FnMut(u64, bool, Instant)) -> Result<(), Failure> {
        self.interrupt.check()?;
        self.client.flush();
        self.client.poll(wait, &mut self.completions);
        let now = Instant::now();
        for completion in self.completions.drain(..) {
            if completion.outcome == Outcome::LogFull {
                return Err(Failure("the log is full: give a shorter run or a lower rate".to_owned()));
            }
            each(completion.request.0, completion.outcome.is_committed(), now);
        }
        Ok(())
    }
}

fn as_json(arguments: &Arguments, warm_kib: &[u64], parts: &[Part]) -> Value {
    let part = |Part { ends, resident_kib }: &Part| {
        json!({
            "committed": ends.latencies.len(),
            "lost": ends.lost,
            "commit_us": figures_json(&ends.latencies),
            "resident_kib": resident_kib,
        })
    };
    json!({
        "seconds": arguments.seconds,
        "offered_per_s": arguments.rate,
        "bytes": arguments.bytes,
        "resident_kib_warm": warm_kib,
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn as_table(arguments: &Arguments, warm_kib: &[u64], parts: &[Part]) {
    let mib =
        |kib: &[u64]| -> String { kib.iter().map(|kib| format!("{:>10.1}", *kib as f64 / 1024.0)).collect() };
    let part_s = arguments.seconds as f64 / f64::from(PARTS);
    say(&format!(
        "{} submits/s of {} B for {} s; each part is {part_s} s",
        arguments.rate, arguments.bytes, arguments.seconds
    ));
    say(&format!(
        "{:<6}{:>12}{:>8}{:>10}{:>10}{:>10}   memory of each node, MiB",
        "part", "committed", "lost", "p50 us", "p99 us", "p99.9 us"
    ));
    say(&format!("{:<56}{}", "warm", mib(warm_kib)));
    for (number, Part { ends: Ends { latencies, lost }, resident_kib }) in (1..).zip(parts) {
        let [p50, _, p99, p999, _] = figures(latencies).map(|(_, micros)| micros);
        let committed = latencies.len();
        let mib = mib(resident_kib);
        say(&format!("{number:<6}{committed:>12}{lost:>8}{p50:>10.1}{p99:>10.1}{p999:>10.1}{mib}"));
    }
}
