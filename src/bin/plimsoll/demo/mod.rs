//! `plimsoll demo`: three processes, a real log, a leader killed in the middle, and a count of what was lost.

mod check;
mod kills;
mod load;
mod tell;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use plimsoll::limits::RECORD_BYTES_MAX;
use plimsoll::local::{Cluster, Shape};
use serde_json::json;

use self::check::Findings;
use self::kills::Kills;
use self::load::{Load, Totals};
use self::tell::Teller;
use crate::common::{Failure, Interrupt, Own, Verdict, figures_head, figures_json, figures_row, say};
use crate::source::{NUMBER_BYTES, Source};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Own,
    /// Replicate this file; without it, a generated engine log
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Cut the file into records of so many bytes (64 to 4096 by its length, if not given)
    #[arg(long, value_name = "N", requires = "input", value_parser = clap::value_parser!(u64).range(1..=(RECORD_BYTES_MAX - NUMBER_BYTES) as u64))]
    record_bytes: Option<u64>,
    /// How long to generate; a file takes as long as it takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often a leader is killed, spread over the run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// Submits under way at once, over all shards
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    outstanding: u32,
    /// The result as JSON on standard output; what happens is told on standard error
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let source = match &arguments.input {
        Some(path) => Source::file(path, arguments.record_bytes)?,
        None => Source::Generated { seed: seed() },
    };
    let tell = Teller::new(arguments.json, source.count());
    let mut cluster = arguments
        .cluster
        .start("demo", Shape { segment_mib: 16, capacity_mib: 1 << 18, ..Shape::default() })?;
    tell.say(&format!("started {} nodes in {}", arguments.cluster.nodes, cluster.directory().display()));
    let outcome = play(arguments, &source, &tell, &mut cluster, &interrupt);
    let (totals, kills, findings) = outcome.map_err(|Failure(what)| {
        if interrupt.has_come() {
            Failure(what)
        } else {
            Failure(format!("{what}{}", cluster.all_last_words()))
        }
    })?;
    tell.finish();
    report(arguments, &totals, &kills, &findings);
    Ok(if findings.are_good() { Verdict::Good } else { Verdict::Bad })
}

fn play<'a>(
    arguments: &Arguments,
    source: &Source,
    tell: &'a Teller,
    cluster: &mut Cluster,
    interrupt: &Interrupt,
) -> Result<(Totals, Kills<'a>, Findings), Failure> {
    let mut load = Load::open(cluster.client_options(), source, arguments.outstanding, tell)?;
    let mut kills = Kills::plan(arguments.kills, cluster, tell)?;
    load.await_leaders(interrupt, cluster)?;
    tell.say("the first record of each shard is committed");
    let lasting = Duration::from_secs(arguments.seconds);
    while !load.is_done() {
        interrupt.check()?;
        cluster.check().map_err(Failure::of)?;
        let progress = load.progress(lasting);
        kills.turn(progress, &mut load, cluster)?;
        let goal = kills.hold_at();
        load.turn(lasting, goal, kills.are_over())?;
    }
    kills.finish(&mut load, cluster, interrupt)?;
    let totals = load.totals();
    tell.say(&format!(
        "submitted {}, acknowledged {}; reading all replicas",
        totals.submitted, totals.acknowledged
    ));
    let findings = check::all_replicas(&load, source, cluster, interrupt, tell)?;
    Ok((totals, kills, findings))
}

fn report(arguments: &Arguments, totals: &Totals, kills: &Kills<'_>, findings: &Findings) {
    if arguments.json {
        let result = json!({
            "submitted": totals.submitted,
            "acknowledged": totals.acknowledged,
            "unknown": totals.unknown,
            "lost": findings.lost,
            "duplicated": findings.duplicated,
            "reordered": findings.reordered,
            "replicas_identical": findings.replicas_identical,
            "kills": kills.count(),
            "failover_ms": kills.failovers_ms(),
            "commit_us": figures_json(&totals.latencies),
        });
        return say(&result.to_string());
    }
    say("");
    say(&figures_head("microseconds"));
    say(&figures_row("commit", &totals.latencies));
    for (at, failover_ms) in kills.failovers_ms().iter().enumerate() {
        say(&format!("failover {:<13}{failover_ms:>12.1} ms from the kill to the next commit", at + 1));
    }
    say("");
    say(&format!(
        "submitted {}, acknowledged {}, unknown {} (looked up, and submitted again where missing)",
        totals.submitted, totals.acknowledged, totals.unknown
    ));
    say(&format!(
        "lost {}, duplicated {}, reordered {}, replicas {}",
        findings.lost,
        findings.duplicated,
        findings.reordered,
        if findings.replicas_identical { "identical" } else { "DIFFERENT" }
    ));
}

fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
