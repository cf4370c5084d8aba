//! The thread that hears what lanes report for as long as they live, whether or not somebody waits for the node: a
//! program that embeds one waits only when it closes it. It blocks until there is a report, and is not pinned to a
//! core.
//!
//! It remembers the stores of peers as they are met, and stops the whole node when one lane cannot go on. Others would
//! serve on, but a node that is there by half is taken for a whole one by its peers and its engine.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use super::config::Config;
use super::devices::Devices;
use super::identity::DataDir;
use super::lane::{Exit, Place, Ports, Report, Seat};
use super::report::line;
use super::usher::Usher;
use super::{NodeError, StartError, Stopper};
use crate::admin::LaneFigures;
use crate::engine::board::Board;
use crate::io::ring::port::Door;
use crate::types::{LaneId, NodeId, StoreId};

/// The lanes of a node and what it holds for as long as they run. Dropped, it stops them and waits for their end.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) stopper: Stopper,
    pub(super) lanes: Vec<JoinHandle<()>>,
    pub(super) reports: Receiver<Report>,
    /// Lets engines of other processes in; goes when the lanes are gone, and before the data directory is let go.
    pub(super) usher: Option<Usher>,
    pub(super) data_dir: DataDir,
}

impl Supervisor {
    /// Starts a lane's thread for each of these ports; each tells its own `figures`, if there are any. The reporter is
    /// taken, for the end of the lanes is known by the end of all its clones: it must be gone before this value is
    /// dropped.
    pub(super) fn start_lanes(
        &mut self,
        reporter: Sender<Report>,
        config: &Arc<Config>,
        devices: &Devices,
        ports: Vec<Ports>,
        board: Option<&Arc<Board>>,
        figures: &[Arc<LaneFigures>],
    ) -> Result<(), StartError> {
        for (lane, ports) in (0..config.lanes).map(LaneId).zip(ports) {
            let seat = Seat {
                config: Arc::clone(config),
                lane,
                log: Place::of(config, lane, devices, &self.data_dir),
                store: self.data_dir.store,
                peers: self.data_dir.peers.clone(),
                stopping: Arc::clone(&self.stopper.stopping),
                reporter: reporter.clone(),
                board: board.cloned(),
                figures: figures.get(usize::from(lane.0)).cloned(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("lane-{lane}"))
                .spawn(move || seat.run(ports))
                .map_err(|error| StartError::Lane { lane, what: "start its thread", error })?;
            self.lanes.push(thread);
        }
        Ok(())
    }

    /// Until every lane is ready, or one is not.
    pub(super) fn await_lanes(&mut self) -> Result<(), StartError> {
        let mut doors = Vec::new();
        let outcome = self.admit(&mut doors);
        // Lanes are ready in any order. Who is ready when another is not must be woken to stop, too.
        doors.sort_by_key(|&(lane, _)| lane);
        self.stopper.doors = Arc::new(doors.into_iter().map(|(_, door)| door).collect());
        outcome?;
        self.data_dir.completed()
    }

    fn admit(&mut self, doors: &mut Vec<(LaneId, Door)>) -> Result<(), StartError> {
        while doors.len() < self.lanes.len() {
            let report = self.reports.recv().expect("a lane reports before its thread ends");
            match report {
                Report::Ready(lane, door) => doors.push((lane, door)),
                Report::Met(peers) => self.remember(&peers),
                Report::NotStarted(error) => return Err(*error),
                Report::Ended(lane, exit) => {
                    let why = match exit {
                        Exit::Failed(error) => error.to_string(),
                        Exit::Drained | Exit::Panicked => "its thread has ended".to_owned(),
                    };
                    return Err(StartError::Lane { lane, what: "start", error: io::Error::other(why) });
                }
            }
        }
        Ok(())
    }

    /// Goes on with it on a thread of its own, which ends with the last lane.
    pub(super) fn watch(self) -> io::Result<JoinHandle<Result<(), NodeError>>> {
        let mut supervisor = self;
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || supervisor.run())
    }

    /// Until all lanes have ended; the first failure.
    fn run(&mut self) -> Result<(), NodeError> {
        let mut verdict = Ok(());
        // The channel closes when the last lane's thread is gone, in whatever way.
        while let Ok(report) = self.reports.recv() {
            match report {
                Report::Met(peers) => self.remember(&peers),
                // Its node does not start, and stops already.
                Report::Ready(_, door) => door.waker().wake(),
                Report::NotStarted(_) | Report::Ended(_, Exit::Drained) => {}
                Report::Ended(lane, exit) => {
                    self.stopper.stop();
                    let error = match exit {
                        Exit::Failed(error) => NodeError::Disk { lane, error },
                        Exit::Drained | Exit::Panicked => NodeError::Panicked { lane },
                    };
                    line(format_args!("{error}"));
                    verdict = verdict.and(Err(error));
                }
            }
        }
        for thread in self.lanes.drain(..) {
            // What a lane dies of, it has reported.
            let _ = thread.join();
        }
        verdict
    }

    fn remember(&mut self, peers: &[(NodeId, StoreId)]) {
        let contrary = |node: NodeId, known: StoreId, found: StoreId| {
            line(format_args!(
                "NODE {node} HAS LOST ITS LOG: one lane has met it with data directory {:#018x}, and another one with \
                 {:#018x}. What it had promised may be forgotten, and what was acknowledged lost: stop node {node} now, and \
                 find out which of the two it has. This node refuses the second one after its next start",
                known.0, found.0
            ));
        };
        if let Err(error) = self.data_dir.remember(peers, contrary) {
            line(format_args!("cannot remember the peers' stores: {error}; going on without"));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stopper.stop();
        // Without effect if all have ended.
        let _ = self.run();
    }
}
