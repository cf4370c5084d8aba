//! A transaction engine beside Plimsoll: SmallBank on three processes, whose leading one is killed again and again.
//! README.md says what it shows.
//!
//! ```text
//! coordinator   starts, kills and restarts the processes; in the end compares their tables and their journals
//! process       an embedded node; keeps workers and replica together, makes tenures
//! worker        a thread with its stream: roles, handshake
//! session       a worker within a tenure: executes, submits, releases
//! tables, clock the shared tables and the commit stamps: optimistic concurrency control
//! replay        a follower's tables: what is certified
//! bank, entry   SmallBank; Mako's log format
//! check         what must hold in the end
//! ```

mod bank;
mod check;
mod clock;
mod common;
mod coordinator;
mod entry;
mod journal;
mod member;
mod process;
mod replay;
mod session;
mod tables;
mod tenure;
#[cfg(test)]
mod tests;
mod worker;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::common::Settings;

#[derive(Debug, Parser)]
#[command(about = "SmallBank on three processes, whose leading one is killed again and again")]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// How often the leading process is killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// Lanes of each node
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: u16,
    /// The result as JSON on standard output; what happens is told on standard error
    #[arg(long)]
    json: bool,
    /// Be one of the processes, with this configuration
    #[arg(long, hide = true, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Which life of that process it is
    #[arg(long, hide = true, default_value_t = 0)]
    life: u32,
}

fn main() -> ExitCode {
    let Arguments { settings, kills, lanes, json, process, life } = Arguments::parse();
    let done = match process {
        Some(config) => process::run(&settings, &config, life).map(|()| true),
        None => coordinator::run(&settings, kills, lanes, json),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "engine: {}", failure.0);
            ExitCode::from(2)
        }
    }
}
