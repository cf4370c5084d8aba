//! The simulator: the production lane, log, wire and protocol in one thread, under one seed, in a world made of faults.
//!
//! [`plan`] says what a seed stands for. `world` runs the nodes in the order of a virtual time; `net`, `datagrams`,
//! `disk`, `clock` and `port` are what a lane gets instead of a machine; `faults` breaks them; `clients` use them;
//! `oracle` and `history` say what must hold; `phases` is the course of a run; [`shrink`] looks for a shorter one that
//! fails alike.
//!
//! *The same seed gives the same run, bit for bit, on any machine*: there is one source of chance, no thread, no map
//! whose order is another on another day, and no clock but the world's. [`Run::hash`] stands for all that happened.

pub mod explore;
pub mod fuzz;
pub mod plan;
pub mod random;
pub mod shrink;

mod clients;
mod clock;
mod datagrams;
mod disk;
mod engine;
mod fabric;
mod faults;
mod history;
mod model;
mod net;
mod oracle;
mod phases;
mod port;
mod trace;
mod world;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use self::fabric::Shared;
pub use self::oracle::Counts;
pub use self::plan::{Bounds, Plan};
use self::world::World;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it was drawn from.
    pub seed: u64,
    /// What does not hold, if something does not.
    pub violation: Option<String>,
    /// In numbers.
    pub counts: Counts,
    /// How much of the world's time it took.
    pub simulated_ns: u64,
    /// Stands for all that happened.
    pub hash: u64,
    /// The last things that each node did, of a run that failed.
    pub trace: Vec<String>,
    /// What clients asked and were told, as JSON lines, if wanted.
    pub history: Vec<String>,
}

/// What to tell of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telling {
    /// Print everything as it happens.
    pub verbose: bool,
    /// Collect [`Run::history`].
    pub history: bool,
}

thread_local! {
    /// The run under way, for who has to tell of it when the code under test panics.
    static CURRENT: RefCell<Option<(u64, Shared)>> = const { RefCell::new(None) };
}

/// Runs one seed.
pub fn run(seed: u64, bounds: &Bounds, telling: Telling) -> Run {
    let mut world = World::new(Plan::draw(seed, bounds), telling.verbose);
    CURRENT.set(Some((seed, Rc::clone(&world.fabric))));
    world.run();
    CURRENT.set(None);
    let fabric = world.fabric.borrow();
    let violation = fabric.oracle.violation.clone();
    Run {
        seed,
        counts: fabric.oracle.counts,
        simulated_ns: fabric.now_ns,
        hash: fabric.hash(),
        trace: if violation.is_some() { fabric.trace.lines() } else { Vec::new() },
        history: if telling.history { history::lines(&fabric.oracle) } else { Vec::new() },
        violation,
    }
}

/// The seed under way on this thread and its trace so far: for a panic hook.
pub fn interrupted() -> Option<(u64, Vec<String>)> {
    CURRENT.with_borrow(|current| {
        let (seed, fabric) = current.as_ref()?;
        // Whoever panicked may hold it.
        let lines = fabric.try_borrow().map_or_else(|_| Vec::new(), |fabric| fabric.trace.lines());
        Some((*seed, lines))
    })
}
