//! Starts the processes, kills the one that leads, again and again, lets them come to rest, and checks.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::Config;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bank::Random;
use crate::check::{self, Findings};
use crate::common::{Failure, Settings};
use crate::member::{Members, State};

const PROCESSES: u32 = 3;

/// So many replies a leading process gives before it is killed, and for so long again as is drawn.
const SERVED_MIN: u64 = 200;
const LIFE_MS_MAX: u64 = 500;

/// Longer than an election takes.
const PAUSE: Duration = Duration::from_millis(600);

/// Two ticks, as they are if nothing else is said.
const STRIKE_WITHIN_US: u64 = 4000;

/// What has happened.
#[derive(Debug, Default)]
struct Course {
    pauses: u32,
    deposals: u32,
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

/// What is done to the leading process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL, and started again at once on its data.
    Kill,
    /// Stopped for longer than an election takes; then it goes on as if it still led.
    Pause,
    /// Made to give the leadership of one stream away, and so its epoch, in the middle of its work.
    Depose,
}

struct Play<'a> {
    settings: &'a Settings,
    members: Members<'a>,
    random: Random,
    began: Instant,
    course: Course,
    /// The last tenure that came to blows.
    tenure: u64,
    /// When that was, and whether it was killed.
    struck: Option<(Blow, Instant)>,
}

fn play(settings: &Settings, kills: u32, cluster: &Cluster, began: Instant) -> Result<Course, Failure> {
    let members = Members::start(settings, cluster)?;
    let course = Course::default();
    let random = Random::new(settings.seed);
    let mut play = Play { settings, members, random, began, course, tenure: 0, struck: None };
    for _ in 0..kills {
        // Before every kill, something from which a leading process comes back without its epoch.
        let milder = if play.random.below(2) == 0 { Blow::Pause } else { Blow::Depose };
        play.strike(milder)?;
        play.strike(Blow::Kill)?;
    }
    play.await_serving()?;
    play.finish()
}

impl Play<'_> {
    /// Waits until a process serves in a later tenure than the last one, and has for a while: which.
    fn await_serving(&mut self) -> Result<(usize, State), Failure> {
        let last = self.tenure;
        let newest = |states: &[State]| {
            let newest = (0..states.len()).max_by_key(|&at| states[at].tenure)?;
            (states[newest].tenure > last && states[newest].served > 0).then_some(newest)
        };
        self.members.wait_for("nobody serves", newest)?;
        if let Some((Blow::Kill, at)) = self.struck.take() {
            self.course.failovers.push(at.elapsed());
        }
        let until = Instant::now() + Duration::from_millis(self.random.below(LIFE_MS_MAX));
        self.members.wait_for("nobody serves for long", |states| {
            let at = newest(states).filter(|&at| states[at].served >= SERVED_MIN)?;
            (Instant::now() >= until).then_some((at, states[at]))
        })
    }

    fn strike(&mut self, blow: Blow) -> Result<(), Failure> {
        let (at, state) = self.await_serving()?;
        // At no particular moment of what it does: it has told its state just now.
        std::thread::park_timeout(Duration::from_micros(self.random.below(STRIKE_WITHIN_US)));
        match blow {
            Blow::Kill => {
                self.course.repeated += state.repeated;
                self.members.kill_and_restart(at)?;
            }
            Blow::Pause => {
                self.course.pauses += 1;
                self.members.signal(at, Signal::STOP)?;
                std::thread::park_timeout(PAUSE);
                self.members.signal(at, Signal::CONT)?;
            }
            Blow::Depose => {
                self.course.deposals += 1;
                let worker = self.random.below(self.settings.workers.into());
                let heir = (at as u64 + 1 + self.random.below(2)) % u64::from(PROCESSES) + 1;
                self.members.order(at, &format!("give {}", (worker + 1) << 32 | heir))?;
            }
        }
        (self.tenure, self.struck) = (state.tenure, Some((blow, Instant::now())));
        let (process, epoch) = (at + 1, state.tenure - 1);
        let what = format!(
            "{blow:?} of process {process}, which had given {} replies in epoch {epoch}",
            state.served
        );
        tell(self.began, &what);
        Ok(())
    }

    /// Lets all come to rest, and takes their tables.
    fn finish(self) -> Result<Course, Failure> {
        let Play { mut members, mut course, .. } = self;
        members.order_all("quiet")?;
        let states = members.wait_for("they do not come to rest", |states| {
            let goal = states.iter().map(|state| state.told).max()?;
            let is_rest = |state: &State| state.is_quiet && state.pending == 0 && state.watermark == goal;
            states.iter().all(is_rest).then(|| states.to_vec())
        })?;
        course.repeated += states.iter().map(|state| state.repeated).sum::<u64>();
        tell(self.began, &format!("all replicas are at {}", states[0].watermark));
        for (text, dead) in members.dump_all()? {
            course.dead_records = course.dead_records.max(dead);
            course.dumps.push(text);
        }
        members.end()?;
        Ok(course)
    }
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
            "pauses": course.pauses,
            "deposals": course.deposals,
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
        "{} transactions begun, {} live, {} dead ({} kills, {} pauses, {} deposals, {} epochs); {} replies released, {} of the dead",
        findings.begun,
        findings.live,
        findings.dead,
        failovers.len(),
        course.pauses,
        course.deposals,
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
