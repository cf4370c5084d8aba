//! `plimsoll bench catch-up`: what commits feel while a follower that is far behind is brought up, and how fast that
//! goes. Its start, in which it reads its own log, is told apart from what it is sent after that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use plimsoll::client::{Client, Completion, Outcome, Submit};
use plimsoll::local::{Cluster, Shape};
use plimsoll::types::{NodeId, ShardId};
use serde_json::json;

use crate::common::{
    Failure, Interrupt, Own, Verdict, figures_head, figures_json, figures_row, histogram, record, say,
};

/// What the log is filled with while the follower is down.
const POURED_RECORD_BYTES: usize = 64 << 10;
const POURED_OUTSTANDING: usize = 64;

/// How long the follower may take before that is a failure.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Own,
    /// How far behind the follower is
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    mib: u64,
    /// The bytes of each record whose latency is measured
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// Submits in a second, begun when they are due; latency counts from then
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// How long to measure before and after
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    if arguments.cluster.nodes < 3 || arguments.cluster.shards != 1 {
        return Err(Failure("give three nodes or more, so that one can be spared, and one shard".to_owned()));
    }
    let mut cluster = arguments
        .cluster
        .start("catch-up", Shape { segment_mib: 64, capacity_mib: 64 << 11, ..Shape::default() })?;
    let played = play(arguments, &interrupt, &mut cluster);
    let Told { before, starting, during, after, start_took, took } =
        played.map_err(|Failure(what)| Failure(format!("{what}{}", cluster.all_last_words())))?;
    let mb_per_s = (arguments.mib << 20) as f64 / 1e6 / took.as_secs_f64();
    if arguments.json {
        say(&json!({
            "catch_up": { "mib": arguments.mib, "seconds": took.as_secs_f64(), "mb_per_s": mb_per_s.round() },
            "start_seconds": start_took.as_secs_f64(),
            "commit_us": {
                "before": figures_json(&before),
                "starting": figures_json(&starting),
                "during": figures_json(&during),
                "after": figures_json(&after),
            },
        })
        .to_string());
    } else {
        let start_s = start_took.as_secs_f64();
        say(&format!(
            "started in {start_s:.2} s; {} MiB in {:.2} s: {mb_per_s:.0} MB/s",
            arguments.mib,
            took.as_secs_f64()
        ));
        say(&figures_head("microseconds"));
        say(&figures_row("commit, before", &before));
        say(&figures_row("while it starts", &starting));
        say(&figures_row("while catching up", &during));
        say(&figures_row("after", &after));
    }
    Ok(Verdict::Good)
}

struct Told {
    before: Histogram<u64>,
    starting: Histogram<u64>,
    during: Histogram<u64>,
    after: Histogram<u64>,
    /// From the start of its process until it answered.
    start_took: Duration,
    /// From then on until it had all.
    took: Duration,
}

fn play(arguments: &Arguments, interrupt: &Interrupt, cluster: &mut Cluster) -> Result<Told, Failure> {
    let leader = cluster.await_leaders().map_err(Failure::of)?[0];
    let mut options = cluster.client_options();
    options.deadline = Duration::from_secs(30);
    let mut load = Load::open(arguments, interrupt, Client::connect(options.clone())?)?;
    let behind = cluster.ids().into_iter().rev().find(|id| *id != leader).expect("there are three nodes");
    cluster.kill(behind).map_err(Failure::of)?;
    load.pour(arguments.mib << 20)?;

    let period = Duration::from_secs(arguments.seconds);
    let before = load.measure(|passed| Ok(passed >= period))?;
    let (watch, asker) = (Watch::default(), Client::connect(options)?);
    let (starting, during, start_took, took) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch.run(asker, leader, behind));
        let begun = Instant::now();
        let measured = (|| {
            cluster.start(behind).map_err(Failure::of)?;
            let until = |stage| {
                let watch = &watch;
                move |passed| match watch.stage.load(Ordering::Acquire) {
                    now if now >= stage => Ok(true),
                    _ if passed < PATIENCE => Ok(false),
                    _ => Err(Failure(format!("node {behind} has not caught up after {PATIENCE:?}"))),
                }
            };
            let starting = load.measure(until(ANSWERS))?;
            let start_took = begun.elapsed();
            let during = load.measure(until(LEVEL))?;
            Ok::<_, Failure>((starting, during, start_took, begun.elapsed().saturating_sub(start_took)))
        })();
        watch.over.store(true, Ordering::Relaxed);
        watcher.join().map_err(|_| Failure("who watches the nodes has ended".into()))?;
        measured
    })?;
    let after = load.measure(|passed| Ok(passed >= period))?;
    cluster.check().map_err(Failure::of)?;
    Ok(Told { before, starting, during, after, start_took, took })
}

/// How far the one that was behind has come.
const ANSWERS: u32 = 1;
const LEVEL: u32 = 2;

/// Who asks the nodes how they are: beside the load, for a node that is slow to answer would hold up the submits.
#[derive(Default)]
struct Watch {
    stage: AtomicU32,
    over: AtomicBool,
}

impl Watch {
    fn run(&self, mut asker: Client, leader: NodeId, behind: NodeId) {
        const A_MOMENT: Duration = Duration::from_millis(500);
        // Asking costs the nodes something too: now and then is enough.
        const PAUSE: Duration = Duration::from_millis(10);
        while !self.over.load(Ordering::Relaxed) && self.stage.load(Ordering::Relaxed) < LEVEL {
            let led = asker.status(leader, ShardId(0), A_MOMENT);
            // It may not answer yet.
            if let (Ok(led), Ok(status)) = (led, asker.status(behind, ShardId(0), A_MOMENT)) {
                // But for what is under way.
                let is_level = status.durable.0 + 64 >= led.commit.0;
                self.stage.store(if is_level { LEVEL } else { ANSWERS }, Ordering::Release);
            }
            std::thread::park_timeout(PAUSE);
        }
    }
}

struct Load<'a> {
    interrupt: &'a Interrupt,
    client: Client,
    payload: Vec<u8>,
    rate: u64,
    completions: Vec<Completion>,
    due: BTreeMap<u64, Instant>,
}

impl<'a> Load<'a> {
    fn open(arguments: &Arguments, interrupt: &'a Interrupt, client: Client) -> Result<Load<'a>, Failure> {
        let payload = (0..arguments.bytes).map(|at| at as u8).collect();
        let rate = arguments.rate;
        Ok(Load { interrupt, client, payload, rate, completions: Vec::new(), due: BTreeMap::new() })
    }

    /// Fills the log with so many bytes.
    fn pour(&mut self, bytes: u64) -> Result<(), Failure> {
        let record = vec![0x5a; POURED_RECORD_BYTES];
        let mut left = bytes.div_ceil(POURED_RECORD_BYTES as u64);
        while left > 0 || self.client.outstanding() > 0 {
            while left > 0 && self.client.outstanding() < POURED_OUTSTANDING {
                self.client.submit(Submit::new(ShardId(0), &record)).map_err(Failure::of)?;
                left -= 1;
            }
            self.take(Duration::from_millis(20), &mut histogram())?;
        }
        Ok(())
    }

    /// Submits at the rate until `until` says stop, told how much time has passed; then everything ends.
    fn measure(
        &mut self,
        mut until: impl FnMut(Duration) -> Result<bool, Failure>,
    ) -> Result<Histogram<u64>, Failure> {
        let mut latencies = histogram();
        let begun = Instant::now();
        let mut started = 0_u64;
        while !until(begun.elapsed())? {
            loop {
                let after_ns = u128::from(started) * 1_000_000_000 / u128::from(self.rate);
                let due = begun + Duration::from_nanos(after_ns as u64);
                if due > Instant::now() {
                    break;
                }
                let id = self.client.submit(Submit::new(ShardId(0), &self.payload)).map_err(Failure::of)?;
                self.due.insert(id.0, due);
                started += 1;
            }
            // Shorter than the gap between two submits: the machine's cores are for the nodes.
            self.take(Duration::from_micros(100), &mut latencies)?;
        }
        while self.client.outstanding() > 0 {
            self.take(Duration::from_millis(20), &mut latencies)?;
        }
        Ok(latencies)
    }

    fn take(&mut self, wait: Duration, latencies: &mut Histogram<u64>) -> Result<(), Failure> {
        self.interrupt.check()?;
        self.client.flush();
        self.client.poll(wait, &mut self.completions);
        for completion in self.completions.drain(..) {
            if !matches!(completion.outcome, Outcome::Committed { .. }) {
                return Err(Failure(format!("a submit ended {}", completion.outcome)));
            }
            let due = self.due.remove(&completion.request.0);
            record(latencies, due.map_or(completion.latency, |due| due.elapsed()));
        }
        Ok(())
    }
}
