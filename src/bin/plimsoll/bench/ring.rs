//! `plimsoll bench ring`: what it costs an engine's thread to reach a lane of the same host.
//!
//! The round trip of a record through two rings, beside the raw ping-pong of one cache line between the same two
//! threads; the two take turns, round by round, so that whatever else the machine does meets both alike. Then the
//! submit call alone, against a node in this process whose lane never blocks, so that no system call is made either:
//! each call that found room is timed, less what reading the clock takes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;
use plimsoll::client::ring::{Attachment, Options};
use plimsoll::io::ring::{EngineEnd, LaneEnd, Region, Sizes, pair};
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::Node;
use plimsoll::types::{Acks, Epoch, NodeId, ShardId, Timestamp};
use serde_json::{Value, json};

use crate::common::{Failure, Interrupt, Verdict, histogram, say};

/// How many round trips are one round.
const ROUND: u64 = 20_000;

/// How many submits are timed one after another, before their answers are taken.
const BURST: u64 = 64;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The bytes of each record
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// How long to measure each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let lasting = Duration::from_secs(arguments.seconds);
    let bytes = arguments.bytes as usize;
    let trips = round_trips(bytes, lasting, &interrupt)?;
    let calls = submit_calls(bytes, lasting, &interrupt)?;
    let told = json!({
        "bytes": bytes,
        "raw_ns": trips.raw,
        "ring_ns": trips.ring,
        "ring_to_raw": trips.ratio,
        "submit_ns": nanos(&calls.latencies),
        "clock_ns": calls.clock_ns,
        "submits": calls.latencies.len(),
    });
    if arguments.json {
        say(&told.to_string());
    } else {
        say(&format!("round trip of {bytes} B through two rings: {:.0} ns", trips.ring));
        say(&format!("round trip of one raw cache line:       {:.0} ns", trips.raw));
        say(&format!("median of the rounds' ratios:           {:.2}", trips.ratio));
        say(&format!("submit call, less {} ns for the clock:   {}", calls.clock_ns, told["submit_ns"]));
    }
    Ok(Verdict::Good)
}

/// Nanoseconds per round trip: medians over the rounds.
struct Trips {
    raw: f64,
    ring: f64,
    ratio: f64,
}

/// Two words, each in cache lines of its own.
#[derive(Default)]
struct Raw {
    there: CachePadded<AtomicU64>,
    back: CachePadded<AtomicU64>,
}

fn round_trips(bytes: usize, lasting: Duration, interrupt: &Interrupt) -> Result<Trips, Failure> {
    let (raw, done) = (Raw::default(), AtomicBool::new(false));
    let (mut engine, mut lane) = pair(Region::allocate(Sizes::default()));
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let (mut raw_ns, mut ring_ns, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            pin(cores.get(1));
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                // One round of each, until the other side is through with it.
                number = echo_raw(&raw, number, &done);
                echo_ring(&mut lane, &done);
            }
        });
        pin(cores.first());
        let (until, mut number) = (Instant::now() + lasting, 0);
        while Instant::now() < until && !interrupt.has_come() {
            let begun = Instant::now();
            number = ping_raw(&raw, number);
            let raw = begun.elapsed();
            let begun = Instant::now();
            ping_ring(&mut engine, bytes);
            let ring = begun.elapsed();
            let per_trip = |took: Duration| took.as_nanos() as f64 / ROUND as f64;
            raw_ns.push(per_trip(raw));
            ring_ns.push(per_trip(ring));
            ratios.push(ring.as_secs_f64() / raw.as_secs_f64());
        }
        done.store(true, Ordering::Relaxed);
        echo.join().map_err(|_| Failure("the other end has ended".to_owned()))
    })?;
    interrupt.check()?;
    Ok(Trips { raw: median(raw_ns), ring: median(ring_ns), ratio: median(ratios) })
}

fn pin(core: Option<&core_affinity::CoreId>) {
    if let Some(core) = core {
        core_affinity::set_for_current(*core);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ping_raw(raw: &Raw, from: u64) -> u64 {
    for number in from + 1..=from + ROUND {
        raw.there.store(number, Ordering::Release);
        while raw.back.load(Ordering::Acquire) != number {
            core::hint::spin_loop();
        }
    }
    from + ROUND
}

fn echo_raw(raw: &Raw, from: u64, done: &AtomicBool) -> u64 {
    for number in from + 1..=from + ROUND {
        while raw.there.load(Ordering::Acquire) != number {
            if done.load(Ordering::Relaxed) {
                return number;
            }
            core::hint::spin_loop();
        }
        raw.back.store(number, Ordering::Release);
    }
    from + ROUND
}

fn ping_ring(engine: &mut EngineEnd, bytes: usize) {
    for number in 0..ROUND {
        let mut room = engine.submits.reserve(bytes).expect("the ring is empty");
        room.bytes().fill(number as u8);
        room.publish();
        while engine.completions.peek().expect("nobody writes garbage here").is_none() {
            core::hint::spin_loop();
        }
        engine.completions.advance();
    }
}

fn echo_ring(lane: &mut LaneEnd, done: &AtomicBool) {
    for _ in 0..ROUND {
        let record = loop {
            if let Ok(Some(record)) = lane.submits.peek() {
                break record;
            }
            if done.load(Ordering::Relaxed) {
                return;
            }
            core::hint::spin_loop();
        };
        let mut room = lane.completions.reserve(record.len()).expect("the ring is empty");
        room.bytes().copy_from_slice(record);
        room.publish();
        lane.submits.advance();
    }
}

struct Calls {
    latencies: Histogram<u64>,
    clock_ns: u64,
}

fn submit_calls(bytes: usize, lasting: Duration, interrupt: &Interrupt) -> Result<Calls, Failure> {
    let within = std::env::temp_dir();
    let directory = Cluster::fresh_directory(&within, "bench-ring").map_err(Failure::on(within.display()))?;
    let program = std::env::current_exe().map_err(Failure::on("finding this program"))?;
    let shape = Shape { nodes: 1, segment_mib: 64, capacity_mib: 16_384, ..Shape::default() };
    let cluster = Cluster::new(&program, &directory, &shape).map_err(Failure::on("laying out a node"))?;
    let mut config = cluster.config(NodeId(1)).clone();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    config.cpu.shared = false;
    config.cpu.busy_poll = true;
    config.cpu.cores = cores.get(1).map(|core| core.id).into_iter().collect();
    let options = Options::new(config.cluster_id(), ShardId(0), 1);
    let node = Node::start(config).map_err(Failure::of)?;
    let mut attachment = Attachment::embedded(&node.desk(), options).map_err(Failure::of)?;
    let calls = time_calls(&mut attachment, bytes, lasting, interrupt);
    drop(attachment);
    node.stopper().stop();
    node.wait().map_err(Failure::of)?;
    calls
}

fn time_calls(
    attachment: &mut Attachment,
    bytes: usize,
    lasting: Duration,
    interrupt: &Interrupt,
) -> Result<Calls, Failure> {
    let clock_ns = clock_ns();
    let (mut latencies, payload) = (histogram(), vec![0x5a; bytes]);
    let (until, mut timestamp) = (Instant::now() + lasting, 0);
    while Instant::now() < until {
        for _ in 0..BURST {
            timestamp += 1;
            let begun = Instant::now();
            let mut room = attachment.reserve(bytes).map_err(Failure::of)?;
            room.bytes().copy_from_slice(&payload);
            room.publish(Timestamp(timestamp), Epoch(1), Acks::Quorum);
            let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latencies.saturating_record(took.saturating_sub(clock_ns).max(1));
        }
        while attachment.outstanding() > 0 {
            interrupt.check()?;
            attachment.poll(|_| ());
            core::hint::spin_loop();
        }
    }
    Ok(Calls { latencies, clock_ns })
}

/// What two looks at the clock, one after the other, tell.
fn clock_ns() -> u64 {
    let mut looks = histogram();
    for _ in 0..10_000 {
        let begun = Instant::now();
        looks.saturating_record((begun.elapsed().as_nanos() as u64).max(1));
    }
    looks.value_at_quantile(0.5)
}

fn nanos(latencies: &Histogram<u64>) -> Value {
    json!({
        "p50": latencies.value_at_quantile(0.5),
        "p90": latencies.value_at_quantile(0.9),
        "p99": latencies.value_at_quantile(0.99),
        "p999": latencies.value_at_quantile(0.999),
        "max": latencies.max(),
    })
}
