//! A node: its lanes on their threads, over real disks and networks.
//!
//! A node is a value that a program can embed; the command is a thin shell around it.
//!
//! ```no_run
//! use plimsoll::node::{Config, Node};
//! let config = Config::load("node1.toml".as_ref()).expect("the configuration is sound");
//! let node = Node::start(config).expect("the node starts");
//! // … until somebody calls `node.stopper().stop()`
//! node.wait().expect("the node stops in good order");
//! ```
//!
//! [`Node::start`] checks everything before it touches anything: the configuration, the ports, the devices, the data
//! directory and whose they are. Each lane then builds its own world (reactor, disk, log, link, port) on its own
//! thread, and the start has succeeded when all of them are ready. A lane whose disk fails stops the whole node: what
//! it promised stands, and it promises nothing more.

mod clients;
pub mod config;
pub mod desk;
mod devices;
pub mod doctor;
mod figures;
mod identity;
mod lane;
mod links;
mod report;
mod usher;
pub mod verify;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

pub use self::config::{Config, ConfigError};
pub use self::desk::{AttachError, Desk};
use self::devices::Claims;
use self::identity::DataDir;
use self::lane::{Exit, Ports, Report, Seat};
use self::links::Sockets;
use self::usher::{Listener, Usher};
use crate::admin;
use crate::admin::{LaneFigures, Panel};
use crate::engine::board::Board;
use crate::io::DiskError;
use crate::io::ring::port::Door;
use crate::types::{LaneId, NodeId, StoreId};

/// How long a port in use is tried again before it is an error. The kernel takes a killed process's io_uring apart a
/// moment after the process is gone, and the listener with it: a node that is started again at once must not fail. On a
/// busy machine that moment was once longer than a second.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

/// How often.
const PORT_RETRY: Duration = Duration::from_millis(5);

/// A running node. Dropping it stops it, as [`Stopper::stop`] and [`Node::wait`] do.
#[derive(Debug)]
pub struct Node {
    stopper: Stopper,
    lanes: Vec<JoinHandle<()>>,
    reports: Receiver<Report>,
    data_dir: DataDir,
    board: Option<Arc<Board>>,
    desk: Desk,
    /// Lets engines of other processes in.
    usher: Option<Usher>,
    /// Tells an operator's tools how it is.
    admin: Option<admin::Server>,
}

/// Stops a node from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopper {
    stopping: Arc<CachePadded<AtomicBool>>,
    doors: Arc<Vec<Door>>,
}

/// Why a node does not start. Nothing of what was there has been changed.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is not sound.
    Config(ConfigError),
    /// An address cannot be listened on.
    Listen {
        /// Which.
        address: SocketAddr,
        /// What for: "peers", "clients" or "admin".
        whom: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Engines cannot be let in at the socket's path.
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The data directory is held by another process.
    Held {
        /// Which.
        path: PathBuf,
        /// The process that holds it, as far as it said.
        holder: String,
    },
    /// The data directory is somebody else's.
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose, and what was expected.
        what: String,
    },
    /// A lane had a log there, and has none any more.
    LogLost {
        /// Where.
        path: PathBuf,
        /// Which lane's.
        lane: LaneId,
    },
    /// The data directory cannot be used.
    DataDir {
        /// What.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A block device cannot be used.
    Device {
        /// Which, what was tried, and why not.
        error: DiskError,
    },
    /// A block device holds something that is not this node's log.
    DeviceHolds {
        /// Which.
        path: PathBuf,
        /// What, and what to do.
        what: String,
    },
    /// A lane's log does not open.
    Log {
        /// Which lane's.
        lane: LaneId,
        /// Why.
        error: crate::log::OpenError,
    },
    /// A lane cannot be set up.
    Lane {
        /// Which.
        lane: LaneId,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Why a node has stopped although nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// The disk of a lane failed.
    Disk {
        /// Which lane's.
        lane: LaneId,
        /// How.
        error: DiskError,
    },
    /// A lane's thread died of a defect in the program; its last words are on standard error.
    Panicked {
        /// Which lane's.
        lane: LaneId,
    },
}

impl Node {
    /// Starts a node, or says why not.
    pub fn start(config: Config) -> Result<Node, StartError> {
        Node::start_on(config, false)
    }

    /// The same, and block devices for the log that hold something else are formatted: whatever is on them is lost. Not
    /// if this node's log was made already, on these or others.
    pub fn format_and_start(config: Config) -> Result<Node, StartError> {
        Node::start_on(config, true)
    }

    fn start_on(config: Config, may_format: bool) -> Result<Node, StartError> {
        config.check().map_err(StartError::Config)?;
        let config = Arc::new(config);
        let mut ports = Vec::new();
        for lane in (0..config.lanes).map(LaneId) {
            ports.push(listen(&config, lane)?);
        }
        let listener = config.engine.socket.as_deref().map(listen_for_engines).transpose()?;
        let asked_at = config.admin.listen;
        let admin = asked_at.map(|at| bind(at, "admin", || TcpListener::bind(at))).transpose()?;
        let claims = Claims::of(&config, may_format)?;
        let data_dir = DataDir::open(&config)?;
        let devices = claims.ready(&config, data_dir.store)?;

        let board = config.engine.streams.then(|| Arc::new(Board::new(config.shards)));
        let stopping = Arc::new(CachePadded::new(AtomicBool::new(false)));
        let (reporter, reports) = channel();
        let mut lanes = Vec::new();
        let mut told = Vec::new();
        for (lane, ports) in (0..config.lanes).map(LaneId).zip(ports) {
            let figures = admin.is_some().then(Arc::<LaneFigures>::default);
            told.extend(figures.clone());
            let seat = Seat {
                config: Arc::clone(&config),
                lane,
                log: lane::Place::of(&config, lane, &devices, &data_dir),
                store: data_dir.store,
                peers: data_dir.peers.clone(),
                stopping: Arc::clone(&stopping),
                reporter: reporter.clone(),
                board: board.clone(),
                figures,
            };
            let thread = std::thread::Builder::new()
                .name(format!("lane-{lane}"))
                .spawn(move || seat.run(ports))
                .map_err(|error| StartError::Lane { lane, what: "start its thread", error })?;
            lanes.push(thread);
        }
        drop(reporter);
        let mut node = Node {
            stopper: Stopper { stopping, doors: Arc::new(Vec::new()) },
            lanes,
            reports,
            data_dir,
            board,
            desk: Desk::new(&config, Vec::new()),
            usher: None,
            admin: None,
        };
        node.await_lanes()?;
        node.desk = Desk::new(&config, node.stopper.doors.to_vec());
        if let Some((listener, path)) = listener {
            let usher = listener.serve(node.desk());
            node.usher = Some(usher.map_err(|error| StartError::Socket { path, error })?);
        }
        if let Some(listener) = admin {
            node.admin = Some(node.serve_operator(&config, listener, told)?);
        }
        Ok(node)
    }

    /// Begins to answer an operator's tools.
    fn serve_operator(
        &self,
        config: &Arc<Config>,
        listener: TcpListener,
        lanes: Vec<Arc<LaneFigures>>,
    ) -> Result<admin::Server, StartError> {
        let (doors, board) = (Arc::clone(&self.stopper.doors), self.board.clone());
        let wake = move || doors.iter().for_each(|door| door.waker().wake());
        let of_node = Arc::clone(config);
        let rest = move |told: &mut dyn admin::Told| {
            figures::node(&of_node.cluster, of_node.node_id(), board.as_deref(), told);
        };
        let panel = Panel::new(lanes, wake, rest);
        let cores = config.cpu.cores.clone();
        admin::Server::start(listener, panel, admin::Limits::default(), cores).map_err(|error| {
            let address = config.admin.listen.expect("it is served where it was bound");
            StartError::Listen { address, whom: "admin", error }
        })
    }

    /// Until every lane is ready, or one is not.
    fn await_lanes(&mut self) -> Result<(), StartError> {
        let mut doors = Vec::new();
        while doors.len() < self.lanes.len() {
            match self.reports.recv() {
                Ok(Report::Ready(lane, door)) => doors.push((lane, door)),
                Ok(Report::NotStarted(error)) => {
                    self.stopper.doors = in_order(doors);
                    return Err(*error);
                }
                Ok(Report::Met(peers)) => self.remember(&peers),
                Ok(Report::Ended(..)) | Err(_) => {
                    let lane = LaneId(doors.len() as u16);
                    let error = io::Error::other("its thread has ended");
                    return Err(StartError::Lane { lane, what: "start", error });
                }
            }
        }
        self.stopper.doors = in_order(doors);
        self.data_dir.completed()
    }

    /// Where threads of an engine in this process attach to this node's lanes: see
    /// [`crate::client::ring::Attachment::embedded`].
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// A handle that stops this node.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// The life of this node's data directory.
    pub fn store(&self) -> StoreId {
        self.data_dir.store
    }

    /// Where the engine's streams stand on this node, the watermark among it; `None` without `engine.streams`. Reading
    /// it takes no lock and no system call, from any thread.
    pub fn board(&self) -> Option<Arc<Board>> {
        self.board.clone()
    }

    /// Waits until the node has stopped: because it was asked to, or because a disk failed.
    pub fn wait(mut self) -> Result<(), NodeError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), NodeError> {
        let mut result = Ok(());
        let mut ended = 0;
        while ended < self.lanes.len() {
            // The channel closes when the last lane's thread is gone, in whatever way.
            let Ok(report) = self.reports.recv() else { break };
            match report {
                Report::Met(peers) => self.remember(&peers),
                Report::Ready(..) => {}
                Report::NotStarted(_) => ended += 1,
                Report::Ended(lane, exit) => {
                    ended += 1;
                    if let Exit::Failed(error) = exit {
                        result = result.and(Err(NodeError::Disk { lane, error }));
                        self.stopper.stop();
                    }
                }
            }
        }
        for (lane, thread) in self.lanes.drain(..).enumerate() {
            if thread.join().is_err() {
                result = result.and(Err(NodeError::Panicked { lane: LaneId(lane as u16) }));
            }
        }
        result
    }

    fn remember(&mut self, peers: &[(NodeId, StoreId)]) {
        let contrary = |node: NodeId, known: StoreId, found: StoreId| {
            report::line(format_args!(
                "NODE {node} HAS LOST ITS LOG: one lane has met it with data directory {:#018x}, and another one with \
                 {:#018x}. What it had promised may be forgotten, and what was acknowledged lost: stop node {node} now, and \
                 find out which of the two it has. This node refuses the second one after its next start",
                known.0, found.0
            ));
        };
        if let Err(error) = self.data_dir.remember(peers, contrary) {
            report::line(format_args!("cannot remember the peers' stores: {error}; going on without"));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopper.stop();
        let _ = self.join();
    }
}

impl Stopper {
    /// Asks the node to stop in good order: submits that it accepted end, leadership is handed over, the log falls
    /// quiet, all within [`crate::shard::DRAIN_BOUND`]. Returns at once; [`Node::wait`] returns when it is done.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.doors.iter().for_each(|door| door.waker().wake());
    }
}

fn listen(config: &Config, lane: LaneId) -> Result<Ports, StartError> {
    let me = config.me().expect("checked: this node is a member");
    let (peers, clients) = (me.peer_of(lane), me.client_of(lane));
    let stream = |wanted: bool| wanted.then(|| bind(peers, "peers", || TcpListener::bind(peers))).transpose();
    let datagrams =
        |wanted: bool| wanted.then(|| bind(peers, "peers", || UdpSocket::bind(peers))).transpose();
    Ok(Ports {
        peers: Sockets {
            stream: stream(Sockets::wants_stream(config))?,
            datagrams: datagrams(Sockets::wants_datagrams(config))?,
        },
        clients: bind(clients, "clients", || TcpListener::bind(clients))?,
    })
}

/// The doors by lane: lanes are ready in any order.
fn in_order(mut doors: Vec<(LaneId, Door)>) -> Arc<Vec<Door>> {
    doors.sort_by_key(|&(lane, _)| lane);
    Arc::new(doors.into_iter().map(|(_, door)| door).collect())
}

fn listen_for_engines(path: &Path) -> Result<(Listener, PathBuf), StartError> {
    let path = path.to_owned();
    match Listener::bind(&path) {
        Ok(listener) => Ok((listener, path)),
        Err(error) => Err(StartError::Socket { path, error }),
    }
}

fn bind<T>(
    address: SocketAddr,
    whom: &'static str,
    bind: impl Fn() -> io::Result<T>,
) -> Result<T, StartError> {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::park_timeout(PORT_RETRY);
            }
            bound => return bound.map_err(|error| StartError::Listen { address, whom, error }),
        }
    }
}

impl StartError {
    fn data_dir(path: &Path, what: &'static str, error: io::Error) -> StartError {
        StartError::DataDir { path: path.to_owned(), what, error }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Listen { address, whom, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{address} (for {whom}) is in use by another process: stop it, or give this node another address"
                )
            }
            StartError::Listen { address, whom, error } => {
                write!(
                    f,
                    "cannot listen on {address} for {whom}: {error}; give this node an address of this machine"
                )
            }
            StartError::Socket { path, error } => {
                write!(
                    f,
                    "cannot let engines in at {}: {error}; give engine.socket another path",
                    path.display()
                )
            }
            StartError::Held { path, holder } => write!(
                f,
                "data directory {} is held by another node (process {}): stop it, or give this node another directory",
                path.display(),
                if holder.is_empty() { "unknown" } else { holder }
            ),
            StartError::Foreign { path, what } => {
                write!(
                    f,
                    "data directory {} is not this node's: {what}; nothing was changed. Correct the configuration, or name \
                     another data_dir",
                    path.display()
                )
            }
            StartError::LogLost { path, lane } => write!(
                f,
                "the log of lane {lane} is gone: it was in {}, and a node without it would break what it promised; \
                 bring it back (is a filesystem not mounted?)",
                path.display()
            ),
            StartError::DataDir { path, what, error } => write!(f, "{}: {what}: {error}", path.display()),
            StartError::Device { error } => error.fmt(f),
            StartError::DeviceHolds { path, what } => {
                write!(f, "device {} {what}; nothing was changed", path.display())
            }
            StartError::Log { lane, error } => write!(f, "the log of lane {lane} does not open: {error}"),
            StartError::Lane { lane, what, error } => write!(f, "lane {lane}: cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Disk { lane, error } => write!(
                f,
                "the disk of lane {lane} failed: {error}; what was acknowledged stands, this node has stopped"
            ),
            NodeError::Panicked { lane } => write!(f, "lane {lane} died of a defect; see the lines above"),
        }
    }
}

impl std::error::Error for NodeError {}
