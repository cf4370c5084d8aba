//! Real node processes on this machine: what must hold when they are killed, paused, stopped, started at odd times and
//! sent garbage. Each test runs on whichever disk backend `PLIMSOLL_DISK` or the system chooses.

#![allow(clippy::unwrap_used)]

mod devices;
mod elections;
mod garbage;
mod hostile;
mod kills;
mod ledger;
mod links;
#[path = "../loop_device/mod.rs"]
mod loop_device;
mod metrics;
mod power_cut;
mod proxy;
mod records;
mod start;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll::local::{Cluster, Shape, be_patient};

/// The program under test.
fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_plimsoll"))
}

fn scratch() -> PathBuf {
    std::env::temp_dir()
}

/// A small cluster that is not started yet.
fn cluster(name: &str, shape: &Shape) -> Cluster {
    let directory = Cluster::fresh_directory(&scratch(), name).unwrap();
    Cluster::new(binary(), &directory, shape).unwrap()
}

/// Small logs and little memory, so that many clusters fit a machine.
fn small() -> Shape {
    Shape { segment_mib: 16, capacity_mib: 8192, chunks: 8, ..Shape::default() }
}

/// The same, for tests in which nobody may lose its leadership, or with it what is under way, but by what they do.
fn calm() -> Shape {
    Shape { tune: be_patient, ..small() }
}

/// Three nodes and a load want the machine for themselves: tests that assert on times and elections take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
