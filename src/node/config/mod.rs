//! A node's configuration: a TOML file or a value built in code, every field checked before anything is touched.
//!
//! ```toml
//! cluster = "books"            # a name, or the cluster's id as 16 hex digits
//! node = 1                     # this node's id, one of the members below
//! lanes = 1                    # of the whole cluster; fixed when it is made
//! shards = 1                   # of the whole cluster; shard s lives in lane s mod lanes
//! data_dir = "/var/lib/plimsoll"
//! link = ["tcp"]               # to peers, the preferred first: rdma, dpdk, udp, tcp; each falls back to the next
//!
//! [[member]]                   # every node, this one included
//! id = 1
//! peer = "10.0.0.1:7100"       # where its peers reach it: lane i uses port + i
//! client = "10.0.0.1:7200"     # where its clients reach it: lane i uses port + i
//!
//! [raft]
//! election_timeout_ms = 150    # 10..=60000; an election is called after 1 to 2 times this
//! heartbeat_ms = 30            # at most a third of it
//!
//! [log]                        # of each lane
//! segment_mib = 64             # 8..=1024
//! capacity_mib = 4096          # a multiple of segment_mib; a log that is full refuses records
//! device = "/dev/nvme0n1"      # not given: files below data_dir. Given: the log lies on this block device, raw; lanes
//!                              # share it, or have one each: ["/dev/nvme0n1", "/dev/nvme1n1"]. What holds anything
//!                              # else is refused but for `plimsoll node --format`. Without capacity_mib all of it is
//!                              # used. data_dir still holds who this node is, and must be kept with the device
//! segments_ahead = 1           # 1..=65535, made ready before they are needed. As many as the capacity has, less one:
//!                              # the whole log is made in the background after the first start, and then only records
//!                              # are written
//! io_poll = false              # poll the device for completions: while a write is under way the lane does not block.
//!                              # It takes queues for that (nvme.poll_queues=N on the kernel's command line)
//!
//! [cpu]
//! cores = [2]                  # lane i runs on the i-th; fewer than lanes only if shared; empty: not pinned
//! shared = false               # whether several lanes or nodes may share a core
//! spin_us = "auto"             # or 0..=1000000: how long an idle lane polls before it blocks
//! busy_poll = false            # never block
//!
//! [engine]
//! streams = false              # shards are an engine's streams, with stamps and a watermark; the same on every node
//! epoch_grace_ms = 100         # 0..=60000: how long the engine is given to end an epoch that is cut short elsewhere
//! socket = "/run/plimsoll/1"   # where engines on this host are given rings in shared memory; nowhere, if not given.
//!                              # It is for the node's user and group
//!
//! [udp]
//! mtu_bytes = 1500             # 1280..=65535: what the path to every peer carries, headers included
//!
//! [rdma]
//! device = "mlx5_0"            # the first that there is, if not given
//! port = 1                     # 1..=255
//! gid_index = 3                # the address that reaches furthest, if not given
//! slots = 128                  # 64..=16384, a multiple of 64: datagrams of one peer that may wait
//! slot_bytes = 32768           # 4096..=1048576, a power of two, the same on every node: the longest datagram
//!
//! [memory]
//! chunks = 16                  # 4 MiB each, per lane; 4..=16384
//!
//! [admin]
//! listen = "127.0.0.1:9464"    # GET /metrics (Prometheus) and /health; nowhere, if not given
//! ```
//! A table `[dpdk]` says what [`dpdk`] does: ports that DPDK drives.
//!
//! What is not given has the value shown, but for `log.device`, `cpu.cores` (empty), `rdma.device`, `rdma.gid_index`,
//! `engine.socket` and `admin.listen`; `cluster`, `node`, `data_dir` and the members must be given. A key that is not
//! listed here is an error.

mod admin;
mod cpu;
pub mod dpdk;
mod engine;
mod links;
mod log;
pub mod mako;
mod rdma;
#[cfg(test)]
mod tests;

use core::fmt;
use core::fmt::Write as _;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::limits::{CHUNK_BYTES, LANES_MAX, SHARDS_MAX, VOTERS_MAX};
use crate::types::{ClusterId, LaneId, NodeId, ShardId};

pub use self::admin::Admin;
pub use self::cpu::{Cpu, Spin};
pub use self::engine::Engine;
pub use self::links::{LinkKind, Udp};
pub use self::log::{Devices, Log};
pub use self::rdma::Rdma;

const MIB: u64 = 1 << 20;

/// Everything that a node is told. Made by [`Config::load`], or in code by [`Config::new`] and its public fields.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name, or its id as 16 hex digits. See [`Config::cluster_id`].
    pub cluster: String,
    /// This node's id.
    pub node: u32,
    /// The lanes of every node of the cluster.
    #[serde(default = "one")]
    pub lanes: u16,
    /// The shards of the cluster.
    #[serde(default = "one")]
    pub shards: u32,
    /// Where this node keeps its logs.
    pub data_dir: PathBuf,
    /// The links to peers, the preferred first. A peer is sent to over the first that reaches it.
    #[serde(default = "tcp_alone", rename = "link")]
    pub links: Vec<LinkKind>,
    /// All nodes, this one included.
    #[serde(default, rename = "member")]
    pub members: Vec<Member>,
    /// The protocol's times.
    #[serde(default)]
    pub raft: Raft,
    /// Each lane's log.
    #[serde(default)]
    pub log: Log,
    /// Where and how lanes run.
    #[serde(default)]
    pub cpu: Cpu,
    /// What it does for a transaction engine, and how one on this host reaches it.
    #[serde(default)]
    pub engine: Engine,
    /// The link over UDP.
    #[serde(default)]
    pub udp: Udp,
    /// The link over RDMA.
    #[serde(default)]
    pub rdma: Rdma,
    /// What a lane reserves.
    #[serde(default)]
    pub memory: Memory,
    /// Where an operator's tools ask how it is.
    #[serde(default)]
    pub admin: Admin,
    /// Ports that DPDK drives, if any.
    #[serde(default)]
    pub dpdk: dpdk::Dpdk,
}

/// One node of the cluster, as all nodes and clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its id, not 0.
    pub id: u32,
    /// Where its peers reach its lane 0; lane i is at port + i.
    pub peer: SocketAddr,
    /// Where its clients reach its lane 0; lane i is at port + i.
    pub client: SocketAddr,
}

/// The protocol's times, the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// Elections are called after a random time between this and twice this without a leader.
    pub election_timeout_ms: u32,
    /// How often an idle leader is heard from.
    pub heartbeat_ms: u32,
}

/// What a lane reserves when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Chunks of [`CHUNK_BYTES`] for records, disk writes and reads.
    pub chunks: usize,
}

/// Why a configuration is refused: one line that says what, where, what is allowed and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, if it came from one.
    pub file: Option<PathBuf>,
    /// The key in question, as in `log.segment_mib`; empty: the file as a whole.
    pub key: String,
    /// What is wrong, what is allowed, and what to do.
    pub what: String,
}

impl Config {
    /// A configuration with defaults for everything that has one.
    pub fn new(cluster: &str, node: NodeId, data_dir: impl Into<PathBuf>, members: Vec<Member>) -> Config {
        Config {
            cluster: cluster.to_owned(),
            node: node.0,
            lanes: 1,
            shards: 1,
            data_dir: data_dir.into(),
            links: tcp_alone(),
            members,
            raft: Raft::default(),
            log: Log::default(),
            cpu: Cpu::default(),
            engine: Engine::default(),
            udp: Udp::default(),
            rdma: Rdma::default(),
            memory: Memory::default(),
            admin: Admin::default(),
            dpdk: dpdk::Dpdk::default(),
        }
    }

    /// Reads a file and checks everything that does not depend on the machine it is read on ([`Config::check_shape`]),
    /// so that clients can use a node's file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let in_file = |error: ConfigError| ConfigError { file: Some(path.to_owned()), ..error };
        let text = std::fs::read_to_string(path)
            .map_err(|error| in_file(wrong("", format!("cannot be read: {error}; give an existing file"))))?;
        Config::from_toml(&text).map_err(in_file)
    }

    /// As [`Config::load`], from text.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let config: Config = parse(text).map_err(|what| wrong("", what))?;
        config.check_shape()?;
        Ok(config)
    }

    /// The file that says this configuration.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "cluster = {}\nnode = {}\nlanes = {}\nshards = {}\ndata_dir = {}\nlink = {:?}\n",
            quoted(&self.cluster),
            self.node,
            self.lanes,
            self.shards,
            quoted(&self.data_dir.to_string_lossy()),
            self.links.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
        );
        for Member { id, peer, client } in &self.members {
            let _ = write!(text, "\n[[member]]\nid = {id}\npeer = \"{peer}\"\nclient = \"{client}\"\n");
        }
        let Raft { election_timeout_ms, heartbeat_ms } = self.raft;
        let log = self.log.to_toml();
        let Cpu { cores, shared, spin_us, busy_poll } = &self.cpu;
        let spin = match spin_us {
            Spin::Auto => "\"auto\"".to_owned(),
            Spin::Micros(spin_us) => spin_us.to_string(),
        };
        let _ = write!(
            text,
            "\n[raft]\nelection_timeout_ms = {election_timeout_ms}\nheartbeat_ms = {heartbeat_ms}\n\
             {log}\
             \n[cpu]\ncores = {cores:?}\nshared = {shared}\nspin_us = {spin}\nbusy_poll = {busy_poll}\n\
             \n[udp]\nmtu_bytes = {}\n{}\n[memory]\nchunks = {}\n",
            self.udp.mtu_bytes,
            self.rdma.to_toml(),
            self.memory.chunks
        );
        text.push_str(&self.engine.to_toml());
        text.push_str(&self.admin.to_toml());
        text.push_str(&self.dpdk.to_toml());
        text
    }

    /// Everything: [`Config::check_shape`], and whether this machine has what is asked for. A node calls it before it
    /// touches anything.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_shape()?;
        let present: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        if let Some(core) = self.cpu.cores.iter().find(|core| !present.contains(core)) {
            return Err(wrong(
                "cpu.cores",
                format!("core {core} is not one that this process may use; choose from {present:?}"),
            ));
        }
        self.check_memory(rustix::system::sysinfo().totalram)
    }

    /// All of it is reserved at start, and a system that has less kills the node in the middle of that.
    fn check_memory(&self, machine_bytes: u64) -> Result<(), ConfigError> {
        let wanted_bytes = self.memory.bytes() as u64 * u64::from(self.lanes);
        if machine_bytes > 0 && wanted_bytes > machine_bytes {
            let what = format!(
                "is {}: {} MiB for {} lanes, of {} MiB that this machine has; choose a lower number",
                self.memory.chunks,
                wanted_bytes / MIB,
                self.lanes,
                machine_bytes / MIB
            );
            return Err(wrong("memory.chunks", what));
        }
        Ok(())
    }

    /// Whether the values are in their bounds and agree with each other.
    pub fn check_shape(&self) -> Result<(), ConfigError> {
        self.check_identity()?;
        self.check_members()?;
        self.check_ports()?;
        self.check_times_and_sizes()?;
        links::check(&self.links)?;
        self.udp.check()?;
        self.cpu.check(self.lanes)?;
        self.engine.check()?;
        self.rdma.check()?;
        self.admin.check(self)?;
        self.dpdk.check(self)
    }

    fn check_identity(&self) -> Result<(), ConfigError> {
        if self.cluster.is_empty() || self.cluster.len() > 128 {
            return Err(wrong(
                "cluster",
                "is empty or longer than 128 bytes; give the cluster a name".to_owned(),
            ));
        }
        within("lanes", self.lanes.into(), 1..=LANES_MAX.into())?;
        within("shards", self.shards.into(), 1..=SHARDS_MAX.into())?;
        if self.shards < u32::from(self.lanes) {
            let what = format!(
                "is {}, more than the {} shards: a lane without a shard does nothing; lower lanes or raise shards",
                self.lanes, self.shards
            );
            return Err(wrong("lanes", what));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(wrong("data_dir", "is empty; give a directory that this node alone uses".to_owned()));
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        within("member (their number)", self.members.len() as u64, 1..=VOTERS_MAX as u64)?;
        for (at, member) in self.members.iter().enumerate() {
            within("member.id", member.id.into(), 1..=u32::MAX.into())?;
            if self.members[..at].iter().any(|earlier| earlier.id == member.id) {
                return Err(wrong(
                    "member.id",
                    format!("{} is given twice; each node has its own", member.id),
                ));
            }
        }
        if self.me().is_none() {
            let what = format!(
                "is {}, which no [[member]] has; the members are {:?}",
                self.node,
                self.members.iter().map(|member| member.id).collect::<Vec<_>>()
            );
            return Err(wrong("node", what));
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let mut taken: Vec<(IpAddr, RangeInclusive<u32>, String)> = Vec::new();
        for member in &self.members {
            for (address, name) in [(member.peer, "peer"), (member.client, "client")] {
                let key = format!("member {} {name}", member.id);
                if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
                    let what =
                        format!("{address} cannot be connected to; give the node's own address and a port");
                    return Err(wrong(&key, what));
                }
                let first = u32::from(address.port());
                let ports = first..=first + u32::from(self.lanes) - 1;
                if *ports.end() > u32::from(u16::MAX) {
                    let what = format!(
                        "{address}: lane i uses port + i, and the last of {} lanes would need port {}; choose a lower one",
                        self.lanes,
                        ports.end()
                    );
                    return Err(wrong(&key, what));
                }
                let clash = taken.iter().find(|(ip, other, _)| {
                    *ip == address.ip() && other.start() <= ports.end() && ports.start() <= other.end()
                });
                if let Some((_, other, whose)) = clash {
                    let what = format!(
                        "{address}: its ports {} to {} (one per lane) overlap {} to {} of {whose}; move one of them",
                        ports.start(),
                        ports.end(),
                        other.start(),
                        other.end()
                    );
                    return Err(wrong(&key, what));
                }
                taken.push((address.ip(), ports, key));
            }
        }
        Ok(())
    }

    fn check_times_and_sizes(&self) -> Result<(), ConfigError> {
        let Raft { election_timeout_ms, heartbeat_ms } = self.raft;
        within("raft.election_timeout_ms", election_timeout_ms.into(), 10..=60_000)?;
        within("raft.heartbeat_ms", heartbeat_ms.into(), 1..=u64::from(election_timeout_ms / 3)).map_err(
            |error| {
                let rule = "that is at most a third of raft.election_timeout_ms";
                ConfigError { what: format!("{}; {rule} ({election_timeout_ms})", error.what), ..error }
            },
        )?;
        self.log.check(self.lanes)?;
        within("memory.chunks", self.memory.chunks as u64, 4..=16_384)
    }

    /// The id that `cluster` names: 16 hex digits are the id itself, anything else is hashed with 64-bit FNV-1a.
    pub fn cluster_id(&self) -> ClusterId {
        cluster_id(&self.cluster)
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// This node among the members.
    pub fn me(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.id == self.node)
    }

    /// The shards of a lane, ascending.
    pub fn shards_of(&self, lane: LaneId) -> impl Iterator<Item = ShardId> + use<> {
        (u32::from(lane.0)..self.shards).step_by(self.lanes.into()).map(ShardId)
    }

    /// Where the segments of a lane's log lie, unless they lie on a device.
    pub fn log_directory(&self, lane: LaneId) -> PathBuf {
        super::identity::lane_path(&self.data_dir, lane)
    }

    /// The core of a lane, if it is to be pinned.
    pub fn core_of(&self, lane: LaneId) -> Option<usize> {
        let cores = &self.cpu.cores;
        if cores.is_empty() { None } else { Some(cores[usize::from(lane.0) % cores.len()]) }
    }
}

/// The id of the cluster of this name: 16 hex digits are the id itself, anything else is hashed with 64-bit FNV-1a.
pub fn cluster_id(name: &str) -> ClusterId {
    if name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return ClusterId(u64::from_str_radix(name, 16).expect("16 hex digits are a u64"));
    }
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    ClusterId(hash)
}

impl Member {
    /// Its id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.id)
    }

    /// Where its peers reach this lane.
    pub fn peer_of(&self, lane: LaneId) -> SocketAddr {
        lane_address(self.peer, lane)
    }

    /// Where its clients reach this lane.
    pub fn client_of(&self, lane: LaneId) -> SocketAddr {
        lane_address(self.client, lane)
    }
}

/// The address of a lane, given that of lane 0.
pub fn lane_address(base: SocketAddr, lane: LaneId) -> SocketAddr {
    SocketAddr::new(base.ip(), base.port().saturating_add(lane.0))
}

impl Raft {
    /// See [`Raft::election_timeout_ms`].
    pub fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.election_timeout_ms.into())
    }

    /// See [`Raft::heartbeat_ms`].
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.into())
    }
}

impl Memory {
    /// What one lane's chunks take.
    pub fn bytes(&self) -> usize {
        self.chunks * CHUNK_BYTES
    }
}

impl Default for Raft {
    fn default() -> Raft {
        Raft { election_timeout_ms: 150, heartbeat_ms: 30 }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { chunks: 16 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration")?;
        if let Some(file) = &self.file {
            write!(f, " {}", file.display())?;
        }
        write!(f, ": ")?;
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for ConfigError {}

/// Reads TOML; what is wrong with it, in one line.
pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{place}{}", error.message().replace('\n', "; "))
    })
}

fn tcp_alone() -> Vec<LinkKind> {
    vec![LinkKind::Tcp]
}

fn one<T: From<u8>>() -> T {
    T::from(1)
}

fn wrong(key: &str, what: String) -> ConfigError {
    ConfigError { file: None, key: key.to_owned(), what }
}

fn within(key: &str, found: u64, allowed: RangeInclusive<u64>) -> Result<(), ConfigError> {
    if allowed.contains(&found) {
        return Ok(());
    }
    Err(wrong(key, format!("is {found}; allowed is {} to {}", allowed.start(), allowed.end())))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
