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
//! thread, and the start has succeeded when all of them are ready.
//!
//! From then on a thread of the node's own hears the lanes, so that a program need not wait for the node before it
//! closes it: the stores of peers are written down as they are met, and a lane whose disk fails, or that dies of a
//! defect, stops the whole node at once. What it promised stands, and it promises nothing more: its other lanes stop in
//! good order, clients and attached engines are told or see the end, and [`Node::wait`] says why.

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
mod supervisor;
#[cfg(test)]
mod tests;
mod usher;
pub mod verify;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

pub use self::config::{Config, ConfigError};
pub use self::desk::{AttachError, Desk};
use self::devices::Claims;
use self::identity::DataDir;
use self::lane::Ports;
use self::links::Sockets;
use self::supervisor::Supervisor;
use self::usher::Listener;
use crate::admin;
use crate::admin::{LaneFigures, Panel};
use crate::engine::board::Board;
use crate::io::DiskError;
use crate::io::ring::port::Door;
use crate::types::{LaneId, StoreId};

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
    /// `None` once it was waited for.
    supervisor: Option<JoinHandle<Result<(), NodeError>>>,
    store: StoreId,
    board: Option<Arc<Board>>,
    desk: Desk,
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

/// Why a node has stopped although nobody asked it to: the whole of it, at once, because of one lane.
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
        let store = data_dir.store;
        let figures: Vec<Arc<LaneFigures>> =
            admin.iter().flat_map(|_| 0..config.lanes).map(|_| Arc::default()).collect();
        let stopper = Stopper { stopping, doors: Arc::new(Vec::new()) };
        // From here on what goes wrong drops it, which ends the lanes that run already.
        let mut supervisor = Supervisor { stopper, lanes: Vec::new(), reports, usher: None, data_dir };
        supervisor.start_lanes(reporter, &config, &devices, ports, board.as_ref(), &figures)?;
        supervisor.await_lanes()?;
        let stopper = supervisor.stopper.clone();
        let desk = Desk::new(&config, stopper.doors.to_vec());
        if let Some((listener, path)) = listener {
            let usher = listener.serve(desk.clone());
            supervisor.usher = Some(usher.map_err(|error| StartError::Socket { path, error })?);
        }
        let supervisor = supervisor.watch().map_err(|error| StartError::Lane {
            lane: LaneId(0),
            what: "start the thread that supervises it",
            error,
        })?;
        let mut node = Node { stopper, supervisor: Some(supervisor), store, board, desk, admin: None };
        if let Some(listener) = admin {
            node.admin = Some(node.serve_operator(&config, listener, figures)?);
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
        self.store
    }

    /// Where the engine's streams stand on this node, the watermark among it; `None` without `engine.streams`. Reading
    /// it takes no lock and no system call, from any thread.
    pub fn board(&self) -> Option<Arc<Board>> {
        self.board.clone()
    }

    /// Waits until the node has stopped: because it was asked to, or because a lane failed. What happens meanwhile does
    /// not wait for this call.
    ///
    /// # Errors
    /// The first failure of a lane, if the node stopped because of one.
    ///
    /// # Panics
    /// If the supervising thread has: by a defect in the program.
    pub fn wait(mut self) -> Result<(), NodeError> {
        let supervisor = self.supervisor.take().expect("it is taken here and on drop alone");
        supervisor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
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

fn listen_for_engines(path: &Path) -> Result<(Listener, PathBuf), StartError> {
    let path = path.to_owned();
    match patiently(|| Listener::bind(&path)) {
        Ok(listener) => Ok((listener, path)),
        Err(error) => Err(StartError::Socket { path, error }),
    }
}

fn bind<T>(
    address: SocketAddr,
    whom: &'static str,
    bind: impl Fn() -> io::Result<T>,
) -> Result<T, StartError> {
    patiently(bind).map_err(|error| StartError::Listen { address, whom, error })
}

/// Binds, and waits some time for who may be about to end.
fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::park_timeout(PORT_RETRY);
            }
            bound => return bound,
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
                "the disk of lane {lane} failed: {error}; what was acknowledged stands, this node stops"
            ),
            NodeError::Panicked { lane } => {
                write!(f, "lane {lane} died of a defect, see the lines above; this node stops")
            }
        }
    }
}

impl std::error::Error for NodeError {}
