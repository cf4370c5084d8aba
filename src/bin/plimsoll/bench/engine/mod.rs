//! `plimsoll bench engine`: the benchmark of Mako's replication, with its sizes, rates and checks.
//!
//! Three processes on this machine, a shard for each partition, a thread for each of the engine's, attached to the
//! leader's node by rings in shared memory. Records are due at a fixed rate and latency counts from when a record was
//! due, however long its thread was held up by earlier ones (no coordinated omission), until its submitter sees that
//! the leader has applied it. After the window, so that reading takes no core from what is measured, the leader's log
//! is read back and every record compared with what was submitted.

mod account;
mod case;
mod door;
mod payload;
mod stream;
mod tell;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use plimsoll::limits::RECORD_BYTES_MAX;
use plimsoll::node::config::LinkKind;

use self::case::{Case, LARGE_BYTES, PROTOCOL, Pace};
use self::door::Way;
use self::payload::HEADER_BYTES;
use self::stream::Schedule;
use self::tell::{Floors, Row};
use self::trial::{Plan, SEGMENT_MIB};
use super::floor;
use crate::common::{Failure, Interrupt, Own, Verdict};

/// The peak is looked for with these under way in each partition, ascending, until two in a row bring no more.
const WINDOWS: [usize; 6] = [1, 4, 16, 64, 256, 1024];
const WINDOW_BYTES_MAX: usize = 64 << 20;
/// What a greater window must bring to be worth its latency.
const WORTH: f64 = 1.05;
/// A step of that search is at most so long.
const STEP_WARM_UP: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(2);

const FLOOR: Duration = Duration::from_secs(3);

/// As many logs as a cluster on one disk writes.
const LOGS: usize = 3;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The protocol's cases to run; all of them, if none is named
    #[arg(long, value_name = "CASE,..", value_delimiter = ',', conflicts_with = "bytes",
        value_parser = PossibleValuesParser::new(PROTOCOL.map(|case| case.name)))]
    only: Vec<String>,
    /// A case of your own instead: the bytes of each record
    #[arg(long, value_parser = clap::value_parser!(u32).range(i64::from(HEADER_BYTES)..=RECORD_BYTES_MAX as i64))]
    bytes: Option<u32>,
    /// Its partitions
    #[arg(long, default_value_t = 1, requires = "bytes", value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Its records in a second, over all partitions; the peak is looked for, if not given
    #[arg(long, requires = "bytes", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Under way in each partition for a peak, instead of looking for the number that brings most
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..=4096))]
    window: Option<u64>,
    /// How long to warm up
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often; each on a fresh cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    trials: u32,
    /// Kill the leader of all partitions at this second of every window, and tell the outage
    #[arg(long, value_name = "SECOND")]
    kill_at: Option<u64>,
    /// How its threads reach the leader; with --kill-at over TCP alone, since rings end with their node [default: ring]
    #[arg(long, value_enum)]
    over: Option<Way>,
    /// Lanes of each node (at most as many as partitions)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: u16,
    /// How the nodes reach each other, the preferred first: rdma, dpdk, udp, tcp (tcp, if not given)
    #[arg(long, value_name = "LINK,..", value_delimiter = ',')]
    link: Vec<LinkKind>,
    /// Lanes never block
    #[arg(long)]
    busy_poll: bool,
    /// Logs of this size for each lane, made whole before the load begins: nothing but records is written then. Without
    /// it segments are made while it runs
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(2 * SEGMENT_MIB..=1 << 20))]
    made_ahead: Option<u64>,
    /// Where the cluster's data goes; without it, the system's directory for temporary files
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    if arguments.kill_at.is_some_and(|second| second >= arguments.seconds) {
        return Err(Failure("--kill-at: give a second within the window, less than --seconds".to_owned()));
    }
    if arguments.kill_at.is_some() && arguments.over == Some(Way::Ring) {
        return Err(Failure(
            "--over ring: rings end with the node that is killed; leave out one of the two".to_owned(),
        ));
    }
    let cases = arguments.cases();
    let mut floors = None;
    if cases.iter().any(|case| case.bytes == LARGE_BYTES) {
        let within = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
        floors = Some(Floors {
            stream_bytes_per_s: floor::stream_to_two(LARGE_BYTES as usize, FLOOR, &interrupt)?,
            logs_bytes_per_s: floor::logs(&within, LOGS, FLOOR, &interrupt)?,
        });
    }
    let mut rows = Vec::new();
    for case in cases {
        let (window, trials) = measure(arguments, &case, &interrupt)?;
        let floors = floors.filter(|_| case.bytes == LARGE_BYTES);
        rows.push(Row { case, window, trials, floors });
    }
    if arguments.json {
        tell::as_json(&rows, arguments.warm_up(), arguments.lasting(), arguments.trials);
    } else {
        tell::as_table(&rows);
    }
    Ok(if rows.iter().all(Row::is_good) { Verdict::Good } else { Verdict::Bad })
}

/// A case's trials, and for a peak how many were under way in each partition.
fn measure(
    arguments: &Arguments,
    case: &Case,
    interrupt: &Interrupt,
) -> Result<(Option<usize>, Vec<trial::Trial>), Failure> {
    let (window, schedule) = match case.pace {
        Pace::PerSecond(per_second) => (None, Schedule::Open { per_second, partitions: case.partitions }),
        Pace::Peak => {
            let window = match arguments.window {
                Some(window) => window as usize,
                None => look_for_peak(arguments, case, interrupt)?,
            };
            (Some(window), Schedule::Closed { window })
        }
    };
    let plan = Plan {
        way: arguments.way(),
        schedule,
        warm_up: arguments.warm_up(),
        lasting: arguments.lasting(),
        kill_at: arguments.kill_at.map(Duration::from_secs),
        made_ahead_mib: arguments.made_ahead,
        read_back: true,
    };
    let own = arguments.own();
    let trials = (0..arguments.trials).map(|_| trial::run(&own, case, &plan, interrupt));
    Ok((window, trials.collect::<Result<_, _>>()?))
}

/// How many must be under way in each partition for the most commits in a second.
fn look_for_peak(arguments: &Arguments, case: &Case, interrupt: &Interrupt) -> Result<usize, Failure> {
    let (mut best, mut best_per_second, mut in_vain) = (WINDOWS[0], 0.0, 0);
    for window in WINDOWS {
        if window > 1 && window * case.bytes as usize > WINDOW_BYTES_MAX {
            break;
        }
        let plan = Plan {
            way: arguments.way(),
            schedule: Schedule::Closed { window },
            warm_up: arguments.warm_up().min(STEP_WARM_UP),
            lasting: arguments.lasting().min(STEP),
            kill_at: None,
            made_ahead_mib: arguments.made_ahead,
            read_back: false,
        };
        let per_second = trial::run(&arguments.own(), case, &plan, interrupt)?.per_second;
        if per_second > best_per_second * WORTH {
            (best, best_per_second, in_vain) = (window, per_second, 0);
        } else {
            in_vain += 1;
            if in_vain == 2 {
                break;
            }
        }
    }
    Ok(best)
}

impl Arguments {
    fn cases(&self) -> Vec<Case> {
        if let Some(bytes) = self.bytes {
            let pace = self.rate.map_or(Pace::Peak, Pace::PerSecond);
            return vec![Case::own(bytes, self.partitions, pace)];
        }
        let named = |case: &Case| self.only.is_empty() || self.only.iter().any(|name| name == case.name);
        PROTOCOL.into_iter().filter(named).collect()
    }

    /// The cluster, but for its shards, which are a case's partitions.
    fn own(&self) -> Own {
        Own {
            nodes: 3,
            shards: 1,
            lanes: self.lanes,
            link: self.link.clone(),
            busy_poll: self.busy_poll,
            dir: self.dir.clone(),
        }
    }

    fn way(&self) -> Way {
        self.over.unwrap_or(if self.kill_at.is_some() { Way::Tcp } else { Way::Ring })
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up)
    }

    fn lasting(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
