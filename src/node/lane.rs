//! A lane on its thread: builds its world there (rings and sockets do not move between threads) and runs it.

use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::clients::ClientPorts;
use super::config::{Config, Spin};
use super::devices::Devices;
use super::identity::DataDir;
use super::links::{self, Links, Sockets};
use super::report::{Lines, line};
use super::{StartError, figures, identity};
use crate::admin::{LaneFigures, Teller};
use crate::engine::board::Board;
use crate::io::DiskError;
use crate::io::clock::LaneClock;
use crate::io::disk;
use crate::io::link::tcp::{self, TcpPort};
use crate::io::pool::Pool;
use crate::io::reactor::Reactor;
use crate::io::ring::port::{Door, RingPort};
use crate::limits::CLIENTS_MAX;
use crate::log::{Log, OpenError};
use crate::raft::COMMIT_NOTICE;
use crate::shard::{self, Lane, Stopped, World};
use crate::types::{LaneId, NodeId, StoreId};
use crate::wire::identity::Identity;

/// How long a lane spins by default when it has its core to itself. Longer than a round trip and a flush on fast
/// hardware, so that the path of a commit never meets a sleeping core.
const SPIN_OWN_CORE: Duration = Duration::from_millis(1);

/// And when it shares its core, which it then yields between turns. Long enough for a flush; a core that spins is not
/// put to sleep, and waking one costs more than the whole path of a commit through the protocol.
const SPIN_SHARED_CORE: Duration = Duration::from_micros(50);

/// All that a lane's thread is given.
pub(super) struct Seat {
    pub(super) config: Arc<Config>,
    pub(super) lane: LaneId,
    pub(super) log: Place,
    pub(super) store: StoreId,
    pub(super) peers: Vec<(NodeId, StoreId)>,
    /// Looked at by every lane in every turn, so nothing that is written often may share its line.
    pub(super) stopping: Arc<CachePadded<AtomicBool>>,
    pub(super) reporter: Sender<Report>,
    /// Where the engine's streams stand, if there is an engine.
    pub(super) board: Option<Arc<Board>>,
    /// Where the lane's figures are told, if anybody may ask for them.
    pub(super) figures: Option<Arc<LaneFigures>>,
}

/// Where a lane's log lies, and how many segments it may have.
pub(super) struct Place {
    disk: disk::Place,
    segments_max: u64,
}

impl Place {
    pub(super) fn of(config: &Config, lane: LaneId, devices: &Devices, data_dir: &DataDir) -> Place {
        match devices.of(config, lane) {
            Some((disk, segments_max)) => Place { disk, segments_max },
            None => Place {
                disk: disk::Place::Directory(data_dir.lane(lane)),
                segments_max: config.log.segments_max().expect("without a device it is known"),
            },
        }
    }
}

/// The listeners of a lane, bound before anything else is touched.
pub(super) struct Ports {
    pub(super) peers: Sockets,
    pub(super) clients: TcpListener,
}

/// What lanes tell their node. The last that a lane tells is [`Report::NotStarted`] or [`Report::Ended`].
#[derive(Debug)]
pub(super) enum Report {
    /// The lane runs; by this engines attach to it, and it is woken.
    Ready(LaneId, Door),
    /// It does not.
    NotStarted(Box<StartError>),
    /// It has met these peers' stores.
    Met(Vec<(NodeId, StoreId)>),
    /// It has stopped.
    Ended(LaneId, Exit),
}

/// How a lane stopped.
#[derive(Debug)]
pub(super) enum Exit {
    Drained,
    Failed(DiskError),
    /// Of a defect. What the lane had is dropped: its clients and engines see the end.
    Panicked,
}

impl Seat {
    pub(super) fn run(self, ports: Ports) {
        // Nothing of a lane that panics is used again. Builds that abort do so instead, and the process is gone.
        let ended = catch_unwind(AssertUnwindSafe(|| self.build_and_run(ports)));
        let report = match ended {
            Ok(Ok(exit)) => Report::Ended(self.lane, exit),
            Ok(Err(error)) => Report::NotStarted(Box::new(error)),
            Err(_) => Report::Ended(self.lane, Exit::Panicked),
        };
        // A node that is gone has no use for reports: sends may fail.
        let _ = self.reporter.send(report);
    }

    fn build_and_run(&self, ports: Ports) -> Result<Exit, StartError> {
        self.pin();
        let wanted = std::env::var(disk::BACKEND_VARIABLE).ok();
        let choice = disk::Backend::choose(wanted.as_deref())
            .map_err(|why| self.failed("choose how to reach the disk", io::Error::other(why)))?;
        let reactor =
            Reactor::new(choice.reactor()).map_err(|error| self.failed("set up its reactor", error))?;
        self.poll_devices(&reactor);
        let (clock, clock_choice) = LaneClock::choose();
        let pool = Pool::new(self.config.memory.chunks);
        let options = disk::Options {
            place: self.log.disk.clone(),
            segment_bytes: self.config.log.segment_bytes(),
            io_poll: self.config.log.io_poll,
        };
        let log_failed = |error| StartError::Log { lane: self.lane, error };
        let disk = disk::FileDisk::open(choice.backend, &options, &reactor, &pool)
            .map_err(|error| log_failed(OpenError::Disk(error)))?;
        line(format_args!("lane {}: {choice}; {clock_choice}", self.lane));
        for note in disk.notes() {
            line(format_args!("lane {}: {note}", self.lane));
        }
        let log = Log::open(disk, pool.clone(), self.log_options()).map_err(log_failed)?;
        let seat = links::Seat {
            config: &self.config,
            lane: self.lane,
            identity: self.identity(),
            stores: &self.peers,
            reactor: &reactor,
            pool: &pool,
            spin: (!self.config.cpu.busy_poll).then_some(self.lane_options().spin),
        };
        let link =
            seat.links(ports.peers).map_err(|error| self.failed("set up the links to its peers", error))?;
        let tcp = TcpPort::new(self.port_options(ports.clients), reactor.clone())
            .map_err(|error| self.failed("set up the port for its clients", error))?;
        let (rings, door) = RingPort::new(reactor.waker(), self.config.cpu.busy_poll);
        let port = ClientPorts::new(tcp, rings);
        let lines = Lines { node: self.config.node_id(), lane: self.lane, malformed: 0 };
        let mut lane: Lane<Production> =
            Lane::new(self.lane_options(), log, link, port, clock, reactor, lines);
        if let Some(board) = &self.board {
            lane.serve_engine(Arc::clone(board));
        }
        let mut teller = self.figures.as_ref().map(|figures| {
            Teller::new(Arc::clone(figures), self.lane, |told| {
                figures::lane(&lane, self.config.shards, told);
            })
        });
        let _ = self.reporter.send(Report::Ready(self.lane, door));
        let stopped = lane.run(|lane| {
            #[cfg(test)]
            super::tests::panic_if_doomed(&self.config.data_dir, self.lane);
            let met = lane.link_mut().learned();
            if !met.is_empty() {
                let _ = self.reporter.send(Report::Met(met));
            }
            if let Some(teller) = &mut teller
                && teller.is_asked()
            {
                teller.tell(|told| figures::lane(lane, self.config.shards, told));
            }
            self.stopping.load(Ordering::Acquire)
        });
        Ok(self.ended(stopped))
    }

    fn ended(&self, stopped: Stopped) -> Exit {
        match stopped {
            Stopped::Drained(drained) => {
                line(format_args!(
                    "lane {}: stopped in good order; {} submits ended as unknown, {} shards had nobody to lead them",
                    self.lane, drained.unknown, drained.kept
                ));
                Exit::Drained
            }
            Stopped::Disk(error) => Exit::Failed(error),
        }
    }

    fn pin(&self) {
        let Some(core) = self.config.core_of(self.lane) else { return };
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            line(format_args!("lane {}: the system does not let it be pinned to core {core}", self.lane));
        }
    }

    /// The kernel may look at network cards while the lane blocks, if the operator's sysctl says so.
    fn poll_devices(&self, reactor: &Reactor) {
        let sysctl = std::fs::read_to_string("/proc/sys/net/core/busy_poll").unwrap_or_default();
        let busy_poll_us = sysctl.trim().parse().unwrap_or(0);
        if busy_poll_us > 0
            && !self.config.cpu.busy_poll
            && let Err(error) = reactor.poll_devices(busy_poll_us)
        {
            line(format_args!("lane {}: network devices are not polled while it blocks: {error}", self.lane));
        }
    }

    fn log_options(&self) -> crate::log::Options {
        crate::log::Options {
            cluster: self.config.cluster_id(),
            node: self.config.node_id(),
            lane: self.lane,
            shards: self.config.shards_of(self.lane).collect(),
            segments_max: self.log.segments_max,
            segments_ahead: self.config.log.segments_ahead,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            cluster: self.config.cluster_id(),
            node: self.config.node_id(),
            store: self.store,
            lane: self.lane,
            lanes: self.config.lanes,
            shards: self.config.shards,
        }
    }

    fn port_options(&self, listener: TcpListener) -> tcp::PortOptions {
        tcp::PortOptions { identity: self.identity(), listener, clients_max: CLIENTS_MAX }
    }

    fn lane_options(&self) -> shard::Options {
        let cpu = &self.config.cpu;
        let own_core = self.config.core_of(self.lane).is_some() && !cpu.shared;
        shard::Options {
            node: self.config.node_id(),
            voters: self.config.members.iter().map(|member| member.node_id()).collect(),
            lane: self.lane,
            election_timeout: self.config.raft.election_timeout(),
            heartbeat: self.config.raft.heartbeat(),
            // Engines everywhere wait for the watermark, which is made of every stream's commits.
            commit_notice: if self.config.engine.streams { Duration::ZERO } else { COMMIT_NOTICE },
            seed: identity::draw(),
            spin: match cpu.spin_us {
                Spin::Micros(spin_us) => Duration::from_micros(spin_us.into()),
                Spin::Auto if own_core => SPIN_OWN_CORE,
                Spin::Auto => SPIN_SHARED_CORE,
            },
            busy_poll: cpu.busy_poll,
            epoch_grace: self.config.engine.epoch_grace(),
            shares_core: !own_core,
        }
    }

    fn failed(&self, what: &'static str, error: io::Error) -> StartError {
        StartError::Lane { lane: self.lane, what, error }
    }
}

/// The world of a lane in production.
pub(super) struct Production;

impl World for Production {
    type Disk = disk::FileDisk;
    type Link = Links;
    type Port = ClientPorts;
    type Clock = LaneClock;
    type Park = Reactor;
    type Observer = Lines;
}
