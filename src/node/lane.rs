//! A lane on its thread: builds its world there (rings and sockets do not move between threads) and runs it.

use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::config::{Config, Spin};
use super::report::{Lines, line};
use super::{StartError, identity};
use crate::io::clock::Monotonic;
use crate::io::disk::{self, Backend, BlockingDisk, UringDisk};
use crate::io::link::tcp::{self, TcpLink, TcpPort};
use crate::io::pool::Pool;
use crate::io::reactor::{Reactor, Waker};
use crate::io::{Disk, DiskError};
use crate::log::Log;
use crate::shard::{self, Lane, Stopped, World};
use crate::types::{LaneId, NodeId, StoreId};

/// How long a lane spins by default when it has its core to itself. Longer than a round trip and a flush on fast
/// hardware, so that the path of a commit never meets a sleeping core.
const SPIN_OWN_CORE: Duration = Duration::from_millis(1);

/// And when it shares its core: a longer one would take the core from the process that is waited for.
const SPIN_SHARED_CORE: Duration = Duration::from_micros(20);

/// All that a lane's thread is given.
pub(super) struct Seat {
    pub(super) config: Arc<Config>,
    pub(super) lane: LaneId,
    pub(super) directory: PathBuf,
    pub(super) store: StoreId,
    pub(super) peers: Vec<(NodeId, StoreId)>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) reporter: Sender<Report>,
}

/// The listeners of a lane, bound before anything else is touched.
pub(super) struct Ports {
    pub(super) peers: TcpListener,
    pub(super) clients: TcpListener,
}

/// What lanes tell their node.
pub(super) enum Report {
    /// The lane runs; this wakes it.
    Ready(Waker),
    /// It does not.
    NotStarted(Box<StartError>),
    /// It has met these peers' stores.
    Met(Vec<(NodeId, StoreId)>),
    /// It has stopped.
    Ended(LaneId, Exit),
}

/// How a lane stopped.
pub(super) enum Exit {
    Drained,
    Failed(DiskError),
}

impl Seat {
    pub(super) fn run(self, ports: Ports) {
        let (lane, reporter) = (self.lane, self.reporter.clone());
        // A node that is gone has no use for reports: sends may fail.
        match self.build_and_run(ports) {
            Ok(exit) => {
                let _ = reporter.send(Report::Ended(lane, exit));
            }
            Err(error) => {
                let _ = reporter.send(Report::NotStarted(Box::new(error)));
            }
        }
    }

    fn build_and_run(&self, ports: Ports) -> Result<Exit, StartError> {
        self.pin();
        let chosen = disk::choose().map_err(self.lane_error("choose how to reach the disk"))?;
        let reactor = Reactor::new(chosen.reactor).map_err(self.lane_error("set up its reactor"))?;
        line(format_args!("lane {}: disk over {}", self.lane, chosen));
        let pool = Pool::new(self.config.memory.chunks);
        let options = disk::Options {
            directory: self.directory.clone(),
            segment_bytes: self.config.log.segment_bytes(),
        };
        match chosen.backend {
            Backend::Uring => {
                let disk = UringDisk::open(&options, &reactor, &pool).map_err(self.disk_error())?;
                self.over(disk, pool, reactor, ports)
            }
            Backend::Blocking => {
                let disk = BlockingDisk::open(&options, &reactor).map_err(self.disk_error())?;
                self.over(disk, pool, reactor, ports)
            }
        }
    }

    fn over<D: Disk + disk::Notes>(
        &self,
        disk: D,
        pool: Pool,
        reactor: Reactor,
        ports: Ports,
    ) -> Result<Exit, StartError> {
        for note in disk.notes() {
            line(format_args!("lane {}: {note}", self.lane));
        }
        let log = Log::open(disk, pool, self.log_options())
            .map_err(|error| StartError::Log { lane: self.lane, error })?;
        let clock = Monotonic::new();
        let link = TcpLink::new(&reactor, self.link_options(ports.peers))
            .map_err(self.lane_error("set up the link to its peers"))?;
        let port = TcpPort::new(&reactor, self.port_options(ports.clients))
            .map_err(self.lane_error("set up the port for its clients"))?;
        let waker = reactor.waker().map_err(self.lane_error("set up its waker"))?;
        let lines = Lines { node: self.config.node_id(), lane: self.lane, malformed: 0 };
        let mut lane: Lane<Over<D>> =
            Lane::new(self.lane_options(), log, link, port, clock, reactor, lines);
        let _ = self.reporter.send(Report::Ready(waker));
        let stopped = lane.run(|| self.stopping.load(Ordering::Acquire));
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

    fn log_options(&self) -> crate::log::Options {
        crate::log::Options {
            cluster: self.config.cluster_id(),
            node: self.config.node_id(),
            lane: self.lane,
            shards: self.config.shards_of(self.lane).collect(),
            segments_max: self.config.log.segments_max(),
            segments_ahead: self.config.log.segments_ahead,
        }
    }

    fn link_options(&self, listener: TcpListener) -> tcp::PeerOptions {
        let others = self.config.members.iter().filter(|member| member.node_id() != self.config.node_id());
        tcp::PeerOptions {
            cluster: self.config.cluster_id(),
            node: self.config.node_id(),
            store: self.store,
            lane: self.lane,
            lanes: self.config.lanes,
            shards: self.config.shards,
            listener,
            peers: others.map(|member| (member.node_id(), member.peer_of(self.lane))).collect(),
            stores: self.peers.clone(),
            seed: identity::draw(),
        }
    }

    fn port_options(&self, listener: TcpListener) -> tcp::PortOptions {
        tcp::PortOptions {
            cluster: self.config.cluster_id(),
            node: self.config.node_id(),
            store: self.store,
            lane: self.lane,
            lanes: self.config.lanes,
            shards: self.config.shards,
            listener,
        }
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
            seed: identity::draw(),
            spin: match cpu.spin_us {
                Spin::Micros(spin_us) => Duration::from_micros(spin_us.into()),
                Spin::Auto if own_core => SPIN_OWN_CORE,
                Spin::Auto => SPIN_SHARED_CORE,
            },
            busy_poll: cpu.busy_poll,
        }
    }

    fn lane_error(&self, what: &'static str) -> impl Fn(io::Error) -> StartError + use<> {
        let lane = self.lane;
        move |error| StartError::Lane { lane, what, error }
    }

    fn disk_error(&self) -> impl Fn(DiskError) -> StartError + use<> {
        let lane = self.lane;
        move |error| StartError::Log { lane, error: crate::log::OpenError::Disk(error) }
    }
}

/// The world of a lane in production, over one of the disk backends.
struct Over<D>(PhantomData<D>);

impl<D: Disk> World for Over<D> {
    type Disk = D;
    type Link = TcpLink;
    type Port = TcpPort;
    type Clock = Monotonic;
    type Park = Reactor;
    type Observer = Lines;
}
