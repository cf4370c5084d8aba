//! A cluster of real processes of this program, on loopback, in a fresh directory; gone when the value is.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plimsoll::client::Options;
use plimsoll::node::config::{Config, Member};
use plimsoll::types::{LaneId, NodeId};

use crate::common::Failure;

/// Lines of a node's output that are shown when it has failed.
const TAIL_LINES: usize = 20;
/// How long a killed node's ports may stay taken.
const PORTS_PATIENCE: Duration = Duration::from_secs(5);

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) nodes: u32,
    pub(crate) lanes: u16,
    pub(crate) shards: u32,
    pub(crate) segment_mib: u64,
    pub(crate) capacity_mib: u64,
    pub(crate) busy_poll: bool,
    /// In which directory the cluster's own is made.
    pub(crate) within: Option<PathBuf>,
}

/// The processes and their directory.
#[derive(Debug)]
pub(crate) struct Cluster {
    // In this order: the processes end before their directory goes.
    nodes: Vec<NodeProcess>,
    directory: Directory,
}

#[derive(Debug)]
struct NodeProcess {
    config: Config,
    file: PathBuf,
    output: PathBuf,
    child: Option<Child>,
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Cluster {
    /// Starts all nodes. They may not have found a leader yet.
    pub(crate) fn start(shape: &Shape) -> Result<Cluster, Failure> {
        let directory = Directory::fresh(shape.within.as_deref())?;
        let members = members(shape)?;
        let name = directory.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut cluster = Cluster { nodes: Vec::new(), directory };
        for member in &members {
            let root = &cluster.directory.0;
            let data_dir = root.join(format!("node{}", member.id));
            let mut config = Config::new(&name, member.node_id(), data_dir, members.clone());
            (config.lanes, config.shards) = (shape.lanes, shape.shards);
            (config.log.segment_mib, config.log.capacity_mib) = (shape.segment_mib, shape.capacity_mib);
            config.cpu.busy_poll = shape.busy_poll;
            config.check().map_err(Failure::of)?;
            let file = root.join(format!("node{}.toml", member.id));
            fs::write(&file, config.to_toml()).map_err(Failure::on(file.display()))?;
            let output = root.join(format!("node{}.log", member.id));
            cluster.nodes.push(NodeProcess { config, file, output, child: None });
        }
        for node in &mut cluster.nodes {
            node.start()?;
        }
        Ok(cluster)
    }

    pub(crate) fn options(&self) -> Options {
        Options::from_config(&self.nodes[0].config)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|node| node.config.node_id())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self, id: NodeId) {
        if let Some(mut child) = self.node(id).and_then(|node| node.child.take()) {
            end(&mut child);
        }
    }

    pub(crate) fn restart(&mut self, id: NodeId) -> Result<(), Failure> {
        let node = self.node(id).ok_or_else(|| Failure(format!("there is no node {id}")))?;
        node.await_ports();
        node.start()
    }

    /// An error if a process has ended that nobody killed.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            if let Some(status) = child.try_wait().map_err(Failure::on("watching a node"))? {
                return Err(node.has_ended(status));
            }
        }
        Ok(())
    }

    /// The last lines of every node's output, for an error that may have its cause there.
    pub(crate) fn tails(&self) -> String {
        self.nodes.iter().map(NodeProcess::tail).collect()
    }

    fn node(&mut self, id: NodeId) -> Option<&mut NodeProcess> {
        self.nodes.iter_mut().find(|node| node.config.node_id() == id)
    }
}

impl NodeProcess {
    fn start(&mut self) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(Failure::on("finding this program"))?;
        let output = File::options().create(true).append(true).open(&self.output);
        let output = output.map_err(Failure::on(self.output.display()))?;
        let copy = output.try_clone().map_err(Failure::on(self.output.display()))?;
        let child = Command::new(&program)
            .args(["node", "--with-parent", "--config"])
            .arg(&self.file)
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(output)
            // An interrupt from the terminal is for this process, which ends its nodes itself.
            .process_group(0)
            .spawn()
            .map_err(Failure::on(program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The system takes a ring of io_uring apart after its process is gone, and the sockets that wait in it with it: for
    /// a moment the ports of a node that was killed are still taken. If they stay so, the node says it itself.
    fn await_ports(&self) {
        let until = Instant::now() + PORTS_PATIENCE;
        let me = self.config.me().expect("checked: the node is a member");
        let addresses =
            (0..self.config.lanes).map(LaneId).flat_map(|lane| [me.peer_of(lane), me.client_of(lane)]);
        for address in addresses {
            while TcpListener::bind(address).is_err() && Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }

    fn has_ended(&self, status: ExitStatus) -> Failure {
        Failure(format!("node {} has ended by itself ({status})", self.config.node))
    }

    fn tail(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let said =
            if last.is_empty() { "    nothing".to_owned() } else { format!("    {}", last.join("\n    ")) };
        format!("\n  node {} said last:\n{said}", self.config.node)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended already; either way it is gone after the wait.
    let _ = child.kill();
    let _ = child.wait();
}

impl Directory {
    fn fresh(within: Option<&Path>) -> Result<Directory, Failure> {
        let within = within.map_or_else(std::env::temp_dir, Path::to_owned);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
        let path = within.join(format!("plimsoll-{}-{nanos:09}", std::process::id()));
        fs::create_dir(&path).map_err(Failure::on(path.display()))?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Members on ports that are free now. They lie below the range from which the system gives ports to outgoing
/// connections, so that none of those takes one while its node is down.
fn members(shape: &Shape) -> Result<Vec<Member>, Failure> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let mut port = 10_000 + (std::process::id().wrapping_mul(2_654_435_761) ^ nanos) % 15_000;
    let mut next = || {
        for _ in 0..10_000 {
            let first = port;
            port = if port > 30_000 { 10_000 } else { port + u32::from(shape.lanes) };
            let all_free = (first..first + u32::from(shape.lanes))
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port as u16)).is_ok());
            if all_free {
                return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, first as u16)));
            }
        }
        Err(Failure("no free ports between 10000 and 30000 on 127.0.0.1".to_owned()))
    };
    (1..=shape.nodes).map(|id| Ok(Member { id, peer: next()?, client: next()? })).collect()
}
