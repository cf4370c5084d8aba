//! One trial: a fresh cluster, a thread for each partition, perhaps a kill, and everything read back.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::client::Client;
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::Config;
use plimsoll::types::ShardId;

use super::account::{End, Findings};
use super::case::{Case, PREFERRED};
use super::door::Way;
use super::stream::{Schedule, Stream, Times};
use crate::common::{Failure, Interrupt, Own, histogram};

/// One segment of a log.
pub(super) const SEGMENT_MIB: u64 = 64;

/// Logs that are not made whole may grow by so many segments.
const SEGMENTS_MAX: u64 = 1 << 14;

/// How long a log may take that is made whole, for each segment of each node.
const SEGMENT_PATIENCE: Duration = Duration::from_secs(5);

/// How often is looked whether a log is whole.
const LOOK_AT_DISK: Duration = Duration::from_millis(50);

/// How long the leaderships may take to get there.
const HANDOVER: Duration = Duration::from_secs(20);

/// How long a trial is, and what happens in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) schedule: Schedule,
    pub(super) warm_up: Duration,
    pub(super) lasting: Duration,
    /// So long after the window began the leader is killed.
    pub(super) kill_at: Option<Duration>,
    /// Logs of this size are made whole before it begins.
    pub(super) made_ahead_mib: Option<u64>,
    pub(super) read_back: bool,
}

/// What a trial has shown, over all partitions.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) latencies: Histogram<u64>,
    pub(super) per_second: f64,
    pub(super) submitted: u64,
    pub(super) committed: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) findings: Findings,
    /// From the kill to the first commit under another leader, of the partition that waited longest.
    pub(super) outage: Option<Duration>,
}

pub(super) fn run(own: &Own, case: &Case, plan: &Plan, interrupt: &Interrupt) -> Result<Trial, Failure> {
    let own = Own { shards: case.partitions, lanes: own.lanes.min(case.partitions as u16), ..own.clone() };
    let tune = |config: &mut Config| config.engine.socket = Some(config.data_dir.with_extension("socket"));
    let segments = plan.made_ahead_mib.map(|mib| mib / SEGMENT_MIB);
    let shape = Shape {
        segment_mib: SEGMENT_MIB,
        capacity_mib: SEGMENT_MIB * segments.unwrap_or(SEGMENTS_MAX),
        segments_ahead: segments.map_or(1, |segments| segments - 1),
        tune,
        ..Shape::default()
    };
    let mut cluster = own.start("engine", shape)?;
    if let Some(segments) = segments {
        await_made(&cluster, segments, interrupt)?;
    }
    play(case, plan, &mut cluster, interrupt).map_err(|Failure(what)| {
        if interrupt.has_come() {
            Failure(what)
        } else {
            Failure(format!("{what}{}", cluster.all_last_words()))
        }
    })
}

fn play(case: &Case, plan: &Plan, cluster: &mut Cluster, interrupt: &Interrupt) -> Result<Trial, Failure> {
    lead_all(cluster, interrupt)?;
    let open = |partition| Stream::open(plan.way, cluster, partition, case.bytes, plan.schedule);
    let mut streams = (0..case.partitions).map(open).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    let warm = begun + plan.warm_up;
    let times = Times { begun, warm, end: warm + plan.lasting };
    let killed = std::thread::scope(|scope| {
        let threads: Vec<_> =
            streams.iter_mut().map(|stream| scope.spawn(|| stream.run(&times, interrupt))).collect();
        let killed = kill_in_time(plan, &times, cluster, interrupt);
        for thread in threads {
            thread.join().map_err(|_| Failure("an engine thread has ended".to_owned()))??;
        }
        killed
    })?;
    cluster.check().map_err(Failure::of)?;
    let outage = killed.map(|killed| outage(&streams, killed)).transpose()?;
    let mut trial = sum_up(&streams, plan, outage);
    if plan.read_back {
        let leaders = cluster.await_leaders().map_err(Failure::of)?;
        for (at, Stream { account, records, .. }) in streams.iter_mut().enumerate() {
            let (options, shard) = (cluster.client_options(), ShardId(at as u32));
            trial.findings.add(account.read_back(options, leaders[at], shard, records, interrupt)?);
        }
    }
    Ok(trial)
}

/// Waits until every log has so many segments.
fn await_made(cluster: &Cluster, segments: u64, interrupt: &Interrupt) -> Result<(), Failure> {
    let lanes: Vec<PathBuf> = cluster.ids().into_iter().flat_map(|id| cluster.lane_directories(id)).collect();
    let until = Instant::now() + SEGMENT_PATIENCE * (segments as u32 * lanes.len() as u32);
    for lane in lanes {
        while made_in(&lane)? < segments {
            interrupt.check()?;
            if Instant::now() >= until {
                return Err(Failure(format!("{} is not made in time: give less", lane.display())));
            }
            std::thread::park_timeout(LOOK_AT_DISK);
        }
    }
    Ok(())
}

/// How many segments a directory has, which may not be there yet; those being made have another name.
fn made_in(lane: &Path) -> Result<u64, Failure> {
    let names = match std::fs::read_dir(lane) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        names => names.map_err(Failure::of)?,
    };
    let is_made = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    Ok(names.filter_map(Result::ok).filter(|name| is_made(&name.path())).count() as u64)
}

/// Brings every partition's leadership to the preferred node.
fn lead_all(cluster: &mut Cluster, interrupt: &Interrupt) -> Result<(), Failure> {
    let until = Instant::now() + HANDOVER;
    let mut client = Client::connect(cluster.client_options())?;
    loop {
        interrupt.check()?;
        let leaders = cluster.await_leaders().map_err(Failure::of)?;
        let elsewhere: Vec<usize> = (0..leaders.len()).filter(|at| leaders[*at] != PREFERRED).collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Failure(format!("node {PREFERRED} does not lead everything after {HANDOVER:?}")));
        }
        for at in elsewhere {
            // Whether it worked shows when the leaders are asked again.
            let _ = client.transfer(ShardId(at as u32), PREFERRED, Duration::from_secs(1));
        }
    }
}

/// Kills the leader when the plan says so. When that was.
fn kill_in_time(
    plan: &Plan,
    times: &Times,
    cluster: &mut Cluster,
    interrupt: &Interrupt,
) -> Result<Option<Instant>, Failure> {
    let Some(kill_at) = plan.kill_at else { return Ok(None) };
    let due = times.warm + kill_at;
    while Instant::now() < due {
        interrupt.check()?;
        std::thread::park_timeout(
            due.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)),
        );
    }
    cluster.kill(PREFERRED).map(Some).map_err(Failure::of)
}

fn outage(streams: &[Stream], killed: Instant) -> Result<Duration, Failure> {
    let each = streams.iter().enumerate().map(|(partition, stream)| {
        // What was under way to the dead may be told after the kill: only a later term counts.
        let old = stream.terms.iter().take_while(|(_, at)| *at <= killed).last().map(|(term, _)| *term);
        let next = stream.terms.iter().find(|(term, at)| *at > killed && Some(*term) > old);
        next.map(|(_, at)| at.duration_since(killed)).ok_or_else(|| {
            Failure(format!(
                "partition {partition} had no commit after its leader was killed: give longer runs"
            ))
        })
    });
    each.collect::<Result<Vec<_>, _>>().map(|outages| outages.into_iter().max().unwrap_or_default())
}

fn sum_up(streams: &[Stream], plan: &Plan, outage: Option<Duration>) -> Trial {
    let mut latencies = histogram();
    for stream in streams {
        latencies += &stream.latencies;
    }
    let count = |end| streams.iter().map(|stream| stream.account.count(end)).sum();
    let in_window: u64 = streams.iter().map(|stream| stream.committed).sum();
    Trial {
        latencies,
        per_second: in_window as f64 / plan.lasting.as_secs_f64(),
        submitted: streams.iter().map(|stream| stream.account.ends.len() as u64).sum(),
        committed: count(End::Committed),
        refused: count(End::Refused),
        unknown: count(End::Unknown),
        findings: Findings::default(),
        outage,
    }
}
