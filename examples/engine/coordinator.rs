//! Starts the processes, kills the one that leads, again and again, lets them come to rest, and checks.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::Config;
use serde_json::{Value, json};

use crate::bank::Random;
use crate::check::{self, Findings};
use crate::common::{Failure, Settings};
use crate::member::{Members, State};

const PROCESSES: u32 = 3;

/// So many replies a leading process gives before it is killed, and for so long again as is drawn.
const SERVED_MIN: u64 = 200;
const LIFE_MS_MAX: u64 = 500;

/// Two ticks, as they are if nothing else is said.
const KILL_WITHIN_US: u64 = 4000;

/// What has happened.
struct Course {
    /// From a kill to the first reply of the next leading process.
    failovers: Vec<Duration>,
    repeated: u64,
    dead_records: u64,
    dumps: Vec<String>,
}

pub(crate) fn run(settings: &Settings, kills: u32, lanes: u16, as_json: bool) -> Result<bool, Failure> {
    let began = Instant::now();
    let within = settings.dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = Cluster::fresh_directory(&within, "engine").map_err(Failure::on(within.display()))?;
    let shape = Shape {
        nodes: PROCESSES,
        lanes,
        shards: settings.workers,
        segment_mib: 16,
        capacity_mib: 4096,
        tune: |config: &mut Config| config.engine.streams = true,
        ..Shape::default()
    };
    // It starts none of its nodes: here they are parts of the engine's processes.
    let cluster = Cluster::new(Path::new(""), &directory, &shape).map_err(Failure::of)?;
    let course = play(settings, kills, &cluster, began)
        .map_err(|Failure(what)| Failure(format!("{what}{}", cluster.all_last_words())))?;
    let findings = check::all(&course.dumps, settings.accounts, cluster.directory())?;
    let wrong = findings.wrong(kills);
    report(&course, &findings, &wrong, began.elapsed(), as_json);
    Ok(wrong.is_empty())
}

fn play(settings: &Settings, kills: u32, cluster: &Cluster, began: Instant) -> Result<Course, Failure> {
    let mut random = Random::new(settings.seed);
    let mut members = Members::start(settings, cluster)?;
    let mut course = Course { failovers: Vec::new(), repeated: 0, dead_records: 0, dumps: Vec::new() };
    let mut killed_at = None;
    for kill in 0..=kills {
        let serving = |states: &[State]| states.iter().position(|state| state.served > 0);
        members.wait_for("nobody serves", serving)?;
        if let Some(at) = killed_at.take().map(|at: Instant| at.elapsed()) {
            course.failovers.push(at);
        }
        let until = Instant::now() + Duration::from_millis(random.below(LIFE_MS_MAX));
        let leading = members.wait_for("nobody serves for long", |states| {
            let leading = states.iter().position(|state| state.served >= SERVED_MIN)?;
            (Instant::now() >= until).then_some((leading, states[leading]))
        })?;
        if kill < kills {
            let (at, state) = leading;
            // At no particular moment of what it does: it has told its state just now.
            std::thread::park_timeout(Duration::from_micros(random.below(KILL_WITHIN_US)));
            members.kill_and_restart(at)?;
            killed_at = Some(Instant::now());
            course.repeated += state.repeated;
            tell(
                began,
                &format!(
                    "killed process {}, which had served {} in epoch {}",
                    at + 1,
                    state.served,
                    state.told.epoch
                ),
            );
        }
    }
    members.order_all("quiet")?;
    let states = members.wait_for("they do not come to rest", |states| {
        let goal = states.iter().map(|state| state.told).max()?;
        let is_rest = |state: &State| state.is_quiet && state.pending == 0 && state.watermark == goal;
        states.iter().all(is_rest).then(|| states.to_vec())
    })?;
    course.repeated += states.iter().map(|state| state.repeated).sum::<u64>();
    tell(began, &format!("all replicas are at {}", states[0].watermark));
    for (text, dead) in members.dump_all()? {
        course.dead_records = course.dead_records.max(dead);
        course.dumps.push(text);
    }
    members.end()?;
    Ok(course)
}

fn tell(began: Instant, what: &str) {
    let _ = writeln!(std::io::stderr(), "{:7.3} s  {what}", began.elapsed().as_secs_f64());
}

fn report(course: &Course, findings: &Findings, wrong: &[String], ran: Duration, as_json: bool) {
    let failovers: Vec<f64> =
        course.failovers.iter().map(|time| (time.as_secs_f64() * 1e4).round() / 10.0).collect();
    let latencies = figures(&findings.latencies_us);
    let mut out = std::io::stdout();
    if as_json {
        let result = json!({
            "kills": failovers.len(),
            "epochs": findings.epochs,
            "begun": findings.begun,
            "live": findings.live,
            "released": findings.released,
            "dead": findings.dead,
            "dead_records": course.dead_records,
            "released_dead": findings.released_dead,
            "repeated": course.repeated,
            "money": findings.money,
            "expected_money": findings.expected_money,
            "replicas_identical": findings.is_identical,
            "tables_crc32c": format!("{:08x}", findings.crc),
            "latency_us": latencies,
            "failover_ms": failovers,
            "run_s": (ran.as_secs_f64() * 10.0).round() / 10.0,
            "wrong": wrong,
        });
        let _ = writeln!(out, "{result}");
        return;
    }
    let _ = writeln!(
        out,
        "{} transactions begun, {} live, {} dead ({} kills, {} epochs); {} replies released, {} of the dead",
        findings.begun,
        findings.live,
        findings.dead,
        failovers.len(),
        findings.epochs,
        findings.released,
        findings.released_dead,
    );
    let _ = writeln!(
        out,
        "{} transactions executed again; {} committed buffers that are dead",
        course.repeated, course.dead_records
    );
    let _ = writeln!(
        out,
        "money {} of {}; replicas {} (CRC32C {:08x}); {:.1} s",
        findings.money,
        findings.expected_money,
        if findings.is_identical { "identical" } else { "DIFFERENT" },
        findings.crc,
        ran.as_secs_f64()
    );
    let _ = writeln!(out, "from a client's coming to its reply, us: {latencies}");
    let _ = writeln!(out, "from a kill to the next reply, ms: {failovers:?}");
    wrong.iter().for_each(|what| drop(writeln!(out, "WRONG: {what}")));
}

fn figures(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile);
    json!({
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": histogram.max(),
    })
}
