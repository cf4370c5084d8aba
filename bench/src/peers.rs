//! The comparison: every cell in alternating rounds, only one cluster up at a time, medians over the rounds.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::children::{Scratch, check};
use crate::figures::{Cell, Figures, median};
use crate::{etcd, plimsoll};

#[derive(Args)]
pub(crate) struct Options {
    /// How long each cluster is loaded in each round of each cell
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often each cell is measured; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
    /// Write the figures as JSON to this file, or to standard output with "-"
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Where the clusters keep their data: a directory on the disk to be measured [default: beside the executable]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Measure one side alone
    #[arg(long, value_enum)]
    only: Option<Side>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    Plimsoll,
    Etcd,
}

/// Small and middling records; one client for the latency, many for the throughput.
const CELLS: [Cell; 8] = [
    Cell { bytes: 64, clients: 1, outstanding: 1 },
    Cell { bytes: 64, clients: 16, outstanding: 1 },
    Cell { bytes: 64, clients: 64, outstanding: 1 },
    Cell { bytes: 64, clients: 64, outstanding: 16 },
    Cell { bytes: 1024, clients: 1, outstanding: 1 },
    Cell { bytes: 1024, clients: 16, outstanding: 1 },
    Cell { bytes: 1024, clients: 64, outstanding: 1 },
    Cell { bytes: 1024, clients: 64, outstanding: 16 },
];

/// One cell's runs.
struct Measured {
    cell: Cell,
    plimsoll: Vec<Figures>,
    etcd: Vec<Figures>,
    /// What each of Plimsoll's runs measured of the disk and the network alone.
    floors: Vec<Value>,
}

/// Measures every cell; prints the table and the JSON that was asked for.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let etcd = if options.only == Some(Side::Plimsoll) { None } else { etcd::find() };
    let plimsoll = if options.only == Some(Side::Etcd) { None } else { Some(plimsoll::find()?) };
    match &etcd {
        Some(etcd) => {
            eprintln!("etcd {}: three processes, its own defaults, every commit flushed", etcd.version)
        }
        None if options.only == Some(Side::Plimsoll) => {}
        None => eprintln!("etcd: not installed, its side is skipped (Debian: apt-get install etcd-server)"),
    }
    if let Some(plimsoll) = &plimsoll {
        eprintln!("plimsoll {}: three processes, every commit flushed", plimsoll.version);
    }
    if plimsoll.is_none() && etcd.is_none() {
        return Err("nothing to measure".to_owned());
    }
    let scratch = Scratch::below(&parent_directory(options)?)?;
    let mut all = Vec::new();
    for cell in CELLS {
        let mut measured = Measured { cell, plimsoll: vec![], etcd: vec![], floors: vec![] };
        for round in 1..=options.rounds {
            if let Some(plimsoll) = &plimsoll {
                progress(&cell, round, options.rounds, "plimsoll");
                let own = Scratch::below(scratch.path())?;
                let (figures, floor) = plimsoll::measure(plimsoll, &cell, options.seconds, own.path())?;
                measured.plimsoll.push(figures);
                measured.floors.push(floor);
            }
            check()?;
            if let Some(etcd) = &etcd {
                progress(&cell, round, options.rounds, "etcd");
                let own = Scratch::below(scratch.path())?;
                measured.etcd.push(etcd::measure(etcd, &cell, options.seconds, own.path())?);
            }
            check()?;
        }
        all.push(measured);
    }
    let versions = json!({
        "plimsoll": plimsoll.map(|plimsoll| plimsoll.version),
        "etcd": etcd.map(|etcd| etcd.version),
    });
    report(options, &all, versions)
}

fn report(options: &Options, all: &[Measured], versions: Value) -> Result<(), String> {
    let document = document(options, all, versions);
    let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
    match options.json.as_deref() {
        Some("-") => {
            eprint!("{}", table(all));
            println!("{text}");
        }
        Some(file) => {
            print!("{}", table(all));
            fs::write(file, text + "\n").map_err(|error| format!("cannot write {file}: {error}"))?;
        }
        None => print!("{}", table(all)),
    }
    Ok(())
}

/// Where the data goes: never into memory, where a flush costs nothing and tells nothing.
fn parent_directory(options: &Options) -> Result<PathBuf, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("where is the bench's own executable? {error}"))?;
    let directory =
        options.directory.clone().or_else(|| own.parent().map(Path::to_owned)).unwrap_or_default();
    let directory =
        directory.canonicalize().map_err(|error| format!("no directory {}: {error}", directory.display()))?;
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let system =
        rustix::fs::statfs(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    if matches!(system.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC) {
        return Err(format!(
            "{} lies in memory: name a directory on a disk with --directory",
            directory.display()
        ));
    }
    Ok(directory)
}

fn progress(cell: &Cell, round: u64, rounds: u64, side: &str) {
    if std::io::stderr().is_terminal() {
        let Cell { bytes, clients, outstanding } = cell;
        eprintln!(
            "{bytes} B, {clients} clients, {outstanding} outstanding, round {round} of {rounds}: {side}"
        );
    }
}

fn table(all: &[Measured]) -> String {
    let mut text = format!(
        "{:>5} {:>7} {:>11}  {:<8} {:>10} {:>10} {:>10} {:>10}\n",
        "bytes", "clients", "outstanding", "", "ops/s", "p50 us", "p99 us", "p99.9 us"
    );
    for Measured { cell, plimsoll, etcd, .. } in all {
        let (plimsoll, etcd) = (median(plimsoll), median(etcd));
        let head = format!("{:>5} {:>7} {:>11}", cell.bytes, cell.clients, cell.outstanding);
        for (name, figures) in [("plimsoll", plimsoll), ("etcd", etcd)] {
            if let Some(Figures { ops_per_s, p50_us, p99_us, p999_us, .. }) = figures {
                text += &format!(
                    "{head}  {name:<8} {ops_per_s:>10.0} {p50_us:>10.0} {p99_us:>10.0} {p999_us:>10.0}\n"
                );
            }
        }
        if let (Some(p), Some(e)) = (plimsoll, etcd) {
            let ratio = |ours: f64, theirs: f64| {
                let ratio = ours / theirs;
                if ratio < 0.1 { format!("{ratio:.4}x") } else { format!("{ratio:.2}x") }
            };
            let ratios = [
                (p.ops_per_s, e.ops_per_s),
                (p.p50_us, e.p50_us),
                (p.p99_us, e.p99_us),
                (p.p999_us, e.p999_us),
            ];
            let [ops, p50, p99, p999] = ratios.map(|(ours, theirs)| ratio(ours, theirs));
            text += &format!("{head}  {:<8} {ops:>10} {p50:>10} {p99:>10} {p999:>10}\n", "ratio");
        }
    }
    text
}

fn document(options: &Options, all: &[Measured], versions: Value) -> Value {
    let side = |rounds: &[Figures]| {
        let each: Vec<Value> = rounds.iter().map(figures_json).collect();
        median(rounds).map(|figures| {
            let mut value = figures_json(&figures);
            value["rounds"] = Value::Array(each);
            value
        })
    };
    let cells: Vec<Value> = all
        .iter()
        .map(|measured| {
            let ratio = median(&measured.plimsoll).zip(median(&measured.etcd)).map(|(ours, theirs)| {
                json!({
                    "ops_per_s": ours.ops_per_s / theirs.ops_per_s,
                    "p50": ours.p50_us / theirs.p50_us,
                    "p99": ours.p99_us / theirs.p99_us,
                    "p999": ours.p999_us / theirs.p999_us,
                })
            });
            json!({
                "bytes": measured.cell.bytes,
                "clients": measured.cell.clients,
                "outstanding": measured.cell.outstanding,
                "plimsoll": side(&measured.plimsoll),
                "etcd": side(&measured.etcd),
                "plimsoll_over_etcd": ratio,
                "floors": measured.floors,
            })
        })
        .collect();
    json!({
        "versions": versions,
        "host": {
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        },
        "seconds": options.seconds,
        "rounds": options.rounds,
        "cells": cells,
    })
}

fn figures_json(figures: &Figures) -> Value {
    json!({
        "ops_per_s": figures.ops_per_s,
        "commit_us": {
            "p50": figures.p50_us,
            "p99": figures.p99_us,
            "p999": figures.p999_us,
            "max": figures.max_us,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64) -> Figures {
        Figures { ops_per_s: value, p50_us: value, p99_us: value, p999_us: value, max_us: value }
    }

    #[test]
    fn the_median_is_of_each_figure_and_the_maximum_of_all() {
        let three = median(&[figures(3.0), figures(1.0), figures(2.0)]);
        assert_eq!(three, Some(Figures { max_us: 3.0, ..figures(2.0) }));
        let two = median(&[figures(1.0), figures(2.0)]);
        assert_eq!(two, Some(Figures { max_us: 2.0, ..figures(1.5) }));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_side_that_was_skipped_leaves_no_ratio() {
        let cell = CELLS[0];
        let alone = Measured { cell, plimsoll: vec![figures(2.0)], etcd: vec![], floors: vec![] };
        let both = Measured { cell, plimsoll: vec![figures(2.0)], etcd: vec![figures(8.0)], floors: vec![] };
        let table = table(&[alone, both]);
        assert_eq!(table.lines().count(), 1 + 1 + 3, "{table}");
        assert!(table.lines().last().is_some_and(|line| line.ends_with("0.25x")), "{table}");
    }
}
