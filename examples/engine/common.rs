//! What all of it shares.

use core::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::bank::Random;
use crate::journal::Journal;

/// Why it could not be done.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn of(error: impl fmt::Display) -> Failure {
        Failure(error.to_string())
    }

    /// For `map_err`: what was tried.
    pub(crate) fn on<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Failure {
        move |error| Failure(format!("{what}: {error}"))
    }
}

/// What the coordinator and its processes are told alike.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Decides what clients want, and when leaders are killed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Worker threads of each process; each has a stream
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// Accounts of the bank
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) accounts: u32,
    /// Transactions a second, over all workers; clients do not wait for each other
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// How long a buffer gathers transactions
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) tick_us: u32,
    /// Where processes write their journals (for the coordinator: where it makes a directory of its own)
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Settings {
    /// As arguments of a process.
    pub(crate) fn arguments(&self, directory: &std::path::Path) -> Vec<String> {
        let Settings { seed, workers, accounts, rate, tick_us, dir: _ } = self;
        let pairs = [
            ("--seed", seed.to_string()),
            ("--workers", workers.to_string()),
            ("--accounts", accounts.to_string()),
            ("--rate", rate.to_string()),
            ("--tick-us", tick_us.to_string()),
            ("--dir", directory.display().to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

/// One worker's clients, and its journals.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) random: Random,
    pub(crate) accounts: u32,
    pub(crate) workers: u32,
    pub(crate) tick: Duration,
    /// Between two clients.
    pub(crate) period: Duration,
    /// Of the next transaction. No two of any processes share one.
    pub(crate) next_id: u64,
    pub(crate) begun: Journal,
    pub(crate) released: Journal,
}

impl Load {
    /// The format wants it; nothing here reads it.
    pub(crate) fn start_ms(&self) -> u32 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u32)
    }
}
