//! A cluster of node processes on this machine, for the demo, the benchmarks and the tests: started on free ports in a
//! fresh directory, killed by process id, gone without a trace when dropped.

mod memif;
mod ports;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::client::{Client, Options};
use crate::node::Config;
use crate::node::config::{LinkKind, Member};
use crate::raft::Role;
use crate::types::{LaneId, NodeId, ShardId};

/// How long a node may take to answer after it was started.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a node that runs may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Names the links of local clusters, as in a configuration, separated by commas: `udp`, `udp,tcp`.
pub const LINK_VARIABLE: &str = "PLIMSOLL_LINK";

/// How many times slower this machine is than one of silicon, for an emulated guest alone: a local cluster's election
/// timeout, its heartbeat and the deadline of its clients are so many times as long. A few MiB that are under way there
/// take longer than an election timeout. Nothing but `tests/vm` sets it.
pub const SLOWNESS_VARIABLE: &str = "PLIMSOLL_EMULATED_SLOWNESS";

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many nodes.
    pub nodes: u32,
    /// How many lanes each has.
    pub lanes: u16,
    /// How many shards there are.
    pub shards: u32,
    /// The size of a log's segments.
    pub segment_mib: u64,
    /// The most that a lane's log may take.
    pub capacity_mib: u64,
    /// The segments made ready before they are needed.
    pub segments_ahead: u64,
    /// The memory chunks of each lane.
    pub chunks: usize,
    /// How the nodes reach each other, the preferred first. By default what [`LINK_VARIABLE`] names, separated by
    /// commas, or else TCP: so that the same tests run over every link.
    pub links: Vec<LinkKind>,
    /// Whether each node tells an operator's tools how it is, at a port of its own.
    pub admin: bool,
    /// Changed before each node's configuration is written.
    pub tune: fn(&mut Config),
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            nodes: 3,
            lanes: 1,
            shards: 1,
            segment_mib: 64,
            capacity_mib: 4096,
            segments_ahead: 1,
            chunks: 16,
            links: links_of_environment(),
            admin: false,
            tune: |_| {},
        }
    }
}

/// The cluster. Dropping it kills what runs and removes the directory.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
    nodes: Vec<Process>,
    shards: u32,
    _ports: ports::Ports,
}

#[derive(Debug)]
struct Process {
    config: Config,
    config_path: PathBuf,
    log_path: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    /// Lays out directories and configurations for nodes 1 to n that will run `binary node --config FILE`. Starts none.
    pub fn new(binary: &Path, directory: &Path, shape: &Shape) -> io::Result<Cluster> {
        fs::create_dir_all(directory)?;
        let (nodes, lanes) = (shape.nodes as usize, usize::from(shape.lanes));
        let admin = 2 * nodes * lanes;
        let ports = ports::Ports::claim(admin + if shape.admin { nodes } else { 0 })?;
        let member = |node: usize| Member {
            id: node as u32 + 1,
            peer: loopback(ports.at(2 * node * lanes)),
            client: loopback(ports.at((2 * node + 1) * lanes)),
        };
        let members: Vec<Member> = (0..shape.nodes as usize).map(member).collect();
        let cluster = format!("local-{}-{}", std::process::id(), ports.at(0));
        let mut nodes = Vec::new();
        for id in 1..=shape.nodes {
            let data_dir = directory.join(format!("node-{id}"));
            let mut config = Config::new(&cluster, NodeId(id), data_dir, members.clone());
            config.lanes = shape.lanes;
            config.shards = shape.shards;
            config.log.segment_mib = shape.segment_mib;
            config.log.capacity_mib = Some(shape.capacity_mib);
            config.log.segments_ahead = shape.segments_ahead;
            config.memory.chunks = shape.chunks;
            config.links.clone_from(&shape.links);
            config.admin.listen = shape.admin.then(|| loopback(ports.at(admin + id as usize - 1)));
            if shape.links.contains(&LinkKind::Dpdk) {
                config.dpdk = memif::between(&cluster, id, shape.nodes);
            }
            // The nodes share the machine's cores with each other and with whoever loads them.
            config.cpu.shared = true;
            (shape.tune)(&mut config);
            config.raft.election_timeout_ms *= slowness();
            config.raft.heartbeat_ms *= slowness();
            config.check().map_err(io::Error::other)?;
            let config_path = directory.join(format!("node-{id}.toml"));
            fs::write(&config_path, config.to_toml())?;
            let log_path = directory.join(format!("node-{id}.log"));
            nodes.push(Process { config, config_path, log_path, child: None });
        }
        Ok(Cluster {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            nodes,
            shards: shape.shards,
            _ports: ports,
        })
    }

    /// A fresh directory for a cluster, under `parent`.
    pub fn fresh_directory(parent: &Path, name: &str) -> io::Result<PathBuf> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        fs::create_dir_all(parent)?;
        loop {
            let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = parent.join(format!("plimsoll-{name}-{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => return made.map(|()| path),
            }
        }
    }

    /// Starts a node that does not run. Does not wait for it. It ends when the thread ends that called this, however
    /// that may be.
    pub fn start(&mut self, id: NodeId) -> io::Result<()> {
        let binary = self.binary.clone();
        let node = self.node_mut(id);
        assert!(node.child.is_none(), "node {id} runs already");
        let log = File::options().create(true).append(true).open(&node.log_path)?;
        let child = Command::new(binary)
            .args(["node", "--with-parent", "--config"])
            .arg(&node.config_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // An interrupt from the terminal is for this process, which ends its nodes itself.
            .process_group(0)
            .spawn()?;
        node.child = Some(child);
        Ok(())
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) -> io::Result<()> {
        for id in self.ids() {
            if self.node_mut(id).child.is_none() {
                self.start(id)?;
            }
        }
        Ok(())
    }

    /// Kills a node with SIGKILL and waits until its process is gone. The instant is that of the signal.
    pub fn kill(&mut self, id: NodeId) -> io::Result<Instant> {
        let at = Instant::now();
        let child = self.node_mut(id).child.as_mut();
        let child = child.unwrap_or_else(|| panic!("node {id} does not run"));
        child.kill()?;
        child.wait()?;
        self.node_mut(id).child = None;
        Ok(at)
    }

    /// Sends a signal to a node's process: SIGTERM to stop it in good order, SIGSTOP and SIGCONT to pause it.
    pub fn signal(&mut self, id: NodeId, signal: Signal) -> io::Result<()> {
        let child = self.node_mut(id).child.as_ref();
        let child = child.unwrap_or_else(|| panic!("node {id} does not run"));
        let pid = Pid::from_raw(child.id() as i32).expect("a process id is not 0");
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits until a node's process ends by itself.
    pub fn wait(&mut self, id: NodeId) -> io::Result<ExitStatus> {
        let child = self.node_mut(id).child.take();
        child.unwrap_or_else(|| panic!("node {id} does not run")).wait()
    }

    /// The status of a node whose process has ended by itself.
    pub fn has_ended(&mut self, id: NodeId) -> io::Result<Option<ExitStatus>> {
        match &mut self.node_mut(id).child {
            Some(child) => child.try_wait(),
            None => Ok(None),
        }
    }

    /// An error if a node's process has ended that nobody killed.
    pub fn check(&mut self) -> io::Result<()> {
        for id in self.ids() {
            if let Some(status) = self.has_ended(id)? {
                return Err(io::Error::other(format!("node {id} has ended by itself ({status})")));
            }
        }
        Ok(())
    }

    /// The process id of a node that runs.
    pub fn pid(&self, id: NodeId) -> Option<u32> {
        self.nodes[id.0 as usize - 1].child.as_ref().map(Child::id)
    }

    /// Waits until every node that runs answers and every shard has a leader that they agree on; returns who leads
    /// each.
    pub fn await_leaders(&mut self) -> io::Result<Vec<NodeId>> {
        let until = Instant::now() + READY_TIMEOUT;
        (0..self.shards).map(|shard| self.await_leader(ShardId(shard), until)).collect()
    }

    fn await_leader(&mut self, shard: ShardId, until: Instant) -> io::Result<NodeId> {
        let mut client = None;
        loop {
            self.check().map_err(|error| io::Error::other(format!("{error}{}", self.all_last_words())))?;
            let mut told = Vec::new();
            if client.is_none() {
                client = Client::connect(self.client_options()).ok();
            }
            for id in self.ids() {
                if self.pid(id).is_none() {
                    continue;
                }
                let asked = client.as_mut().map(|client| client.status(id, shard, STATUS_TIMEOUT));
                match asked {
                    Some(Ok(status)) => told.push((id, status)),
                    _ => break,
                }
            }
            let runs = self.nodes.iter().filter(|node| node.child.is_some()).count();
            if let Some(leader) = told.first().and_then(|(_, status)| status.leader)
                && told.len() == runs
                && told.iter().all(|(_, status)| status.leader == Some(leader) && status.commit.0 > 0)
                && told.iter().any(|(id, status)| *id == leader && status.role == Role::Leader)
            {
                return Ok(leader);
            }
            if Instant::now() >= until {
                return Err(io::Error::other(format!(
                    "shard {shard} has no leader after {READY_TIMEOUT:?}{}",
                    self.all_last_words()
                )));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The nodes' ids, ascending.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.config.node_id()).collect()
    }

    /// A node's configuration, as it was written.
    pub fn config(&self, id: NodeId) -> &Config {
        &self.nodes[id.0 as usize - 1].config
    }

    /// Where the segments of a node's logs lie, a directory for each lane.
    pub fn lane_directories(&self, id: NodeId) -> Vec<PathBuf> {
        let config = self.config(id);
        (0..config.lanes).map(|lane| config.log_directory(LaneId(lane))).collect()
    }

    /// Where a node's configuration lies.
    pub fn config_path(&self, id: NodeId) -> &Path {
        &self.nodes[id.0 as usize - 1].config_path
    }

    /// Changes a node's configuration for its next start.
    pub fn reconfigure(&mut self, id: NodeId, change: impl FnOnce(&mut Config)) -> io::Result<()> {
        let node = self.node_mut(id);
        change(&mut node.config);
        fs::write(&node.config_path, node.config.to_toml())
    }

    /// What a client of this cluster is told.
    pub fn client_options(&self) -> Options {
        let options = Options::from_config(&self.nodes[0].config);
        Options { deadline: options.deadline * slowness(), ..options }
    }

    /// Where the nodes' data, configurations and output lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All that a node has written.
    pub fn log(&self, id: NodeId) -> String {
        fs::read_to_string(&self.nodes[id.0 as usize - 1].log_path).unwrap_or_default()
    }

    /// The last lines of that, for a report of a failure.
    pub fn last_words(&self, id: NodeId) -> String {
        let log = self.log(id);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Those of all nodes, to be put behind an error that may have its cause there.
    pub fn all_last_words(&self) -> String {
        let words = |id: NodeId| {
            let words = self.last_words(id);
            let words = if words.is_empty() { "nothing" } else { &words };
            format!("\n  node {id} said last:\n    {}", words.replace('\n', "\n    "))
        };
        self.ids().into_iter().map(words).collect()
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Process {
        &mut self.nodes[id.0 as usize - 1]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What [`LINK_VARIABLE`] names.
///
/// # Panics
/// If it names what is no link.
fn links_of_environment() -> Vec<LinkKind> {
    let named = std::env::var(LINK_VARIABLE).unwrap_or_default();
    if named.is_empty() {
        return vec![LinkKind::Tcp];
    }
    let kind = |name: &str| name.parse().unwrap_or_else(|why| panic!("{LINK_VARIABLE}: {why}"));
    named.split(',').map(kind).collect()
}

/// For [`Shape::tune`]: elections wait longer than a machine that does much else holds a process up, so that nobody
/// loses a leadership that nothing has taken. How soon a leader is missed is not to be seen then.
pub fn be_patient(config: &mut Config) {
    config.raft.election_timeout_ms = config.raft.election_timeout_ms.max(500 / slowness());
    config.raft.heartbeat_ms = config.raft.heartbeat_ms.max(100 / slowness());
}

/// What [`SLOWNESS_VARIABLE`] says, 1 without it.
///
/// # Panics
/// If it is no number of 1 to 20.
pub fn slowness() -> u32 {
    let Ok(named) = std::env::var(SLOWNESS_VARIABLE) else { return 1 };
    let slowness = named.parse().ok().filter(|slowness| (1..=20).contains(slowness));
    slowness.unwrap_or_else(|| panic!("{SLOWNESS_VARIABLE} is to be 1 to 20, not {named:?}"))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
