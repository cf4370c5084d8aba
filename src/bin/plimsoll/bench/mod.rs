//! `plimsoll bench`: each measures beside what this machine allows, in the same run.

mod catch_up;
mod commit;
mod engine;
mod flat;
mod flood;
mod floor;
mod link;
mod ring;
mod watermark;

use clap::Subcommand;

use crate::common::{Failure, Verdict};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Commit latency and throughput of a cluster on this machine, beside what its disk and network allow.
    Commit(commit::Arguments),
    /// The round trip of a frame through a link between two cores of this machine, beside a raw socket's.
    Link(link::Arguments),
    /// What it costs an engine's thread to reach a lane of the same host, beside a raw cache line's round trip.
    Ring(ring::Arguments),
    /// How much later than a commit the watermark is visible that it moves.
    Watermark(watermark::Arguments),
    /// What an engine's threads feel: the benchmark of Mako's replication, beside what was published for it.
    Engine(engine::Arguments),
    /// A long run at a steady rate: memory and latencies must not grow with it.
    Flat(flat::Arguments),
    /// The round trip between two nodes while somebody floods one of them with what is bad.
    Flood(flood::Arguments),
    /// Commits while a follower that is far behind is brought up.
    CatchUp(catch_up::Arguments),
}

pub(crate) fn run(command: &Command) -> Result<Verdict, Failure> {
    match command {
        Command::Commit(arguments) => commit::run(arguments),
        Command::Link(arguments) => link::run(arguments),
        Command::Ring(arguments) => ring::run(arguments),
        Command::Watermark(arguments) => watermark::run(arguments),
        Command::Engine(arguments) => engine::run(arguments),
        Command::Flat(arguments) => flat::run(arguments),
        Command::Flood(arguments) => flood::run(arguments),
        Command::CatchUp(arguments) => catch_up::run(arguments),
    }
}

/// A core for this thread alone, if there are two. Where the system says no, the figures show it.
fn pin(which: usize) {
    if let Some(cores) = core_affinity::get_core_ids().filter(|cores| cores.len() > 1)
        && let Some(core) = cores.get(which)
    {
        core_affinity::set_for_current(*core);
    }
}
