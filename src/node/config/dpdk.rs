//! Ports that DPDK drives, for a link over them.
//!
//! ```toml
//! [dpdk]
//! eal = ["-a", "0000:01:00.0"]  # DPDK's own arguments; see below for what is added
//! udp_port = 7100               # of lane 0 on every member; lane i has port + i
//!
//! [[dpdk.port]]
//! name = "0000:01:00.0"         # as DPDK names it, or its number: id = 0
//! address = "10.9.0.1/24"       # this node's address on it, and the network behind it
//! mtu = 1500                    # 576..=9000, in bytes
//! queue_frames = 512            # 64..=4096: what each queue holds, and what a peer may send before it is heard
//!
//! [[dpdk.peer]]                 # where another member is reached: over the port whose network this is in
//! id = 2
//! address = "10.9.0.2"
//! ```
//! Memif ports (`--vdev=net_memif0,role=client,id=0,socket=...`) that connect have distinct ids in a node, 0 where none
//! is said: the driver tells by its id alone whose connection was refused. Give them `socket-abstract=no` and a path
//! that only these nodes reach: any process that may connect to the socket, and leaves before it is greeted, ends the
//! process that listens (DPDK 22.11: the driver closes the descriptor and leaves it with the interrupt thread, which
//! then panics).
//!
//! Unless `eal` says otherwise DPDK gets: no threads of its own on any core, files of this process's own, no telemetry,
//! and `--no-huge` with as much memory as the ports need where there are no huge pages.

use core::fmt;
use core::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Deserialize;

use super::{Config, ConfigError, LinkKind, quoted, within, wrong};
use crate::limits::{
    DPDK_MTU_BYTES_MAX, DPDK_MTU_BYTES_MIN, DPDK_PORTS_MAX, DPDK_QUEUE_FRAMES_MAX, DPDK_QUEUE_FRAMES_MIN,
};
use crate::types::{LaneId, NodeId};

/// The most arguments that DPDK is given.
const EAL_ARGUMENTS_MAX: usize = 64;

/// What a memif port says of itself that listens; the others connect.
const SERVES: [&str; 2] = ["role=server", "role=master"];

/// What a node says of the ports that DPDK drives. Without a port there is no such link, and `link` may not name it
/// unless the node is alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpdk {
    /// DPDK's own arguments.
    pub eal: Vec<String>,
    /// Lane 0's UDP port, on every member.
    pub udp_port: u16,
    /// The ports.
    #[serde(rename = "port")]
    pub ports: Vec<Port>,
    /// Where other members are reached.
    #[serde(rename = "peer")]
    pub peers: Vec<Peer>,
}

/// One port: `name` or `id`, not both.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// As DPDK names it.
    pub name: Option<String>,
    /// As DPDK numbers it.
    pub id: Option<u16>,
    /// This node's address on it.
    pub address: Network,
    /// The longest IP packet, in bytes.
    #[serde(default = "mtu")]
    pub mtu: u16,
    /// The frames that each of its queues holds.
    #[serde(default = "queue_frames")]
    pub queue_frames: u16,
}

/// Where another member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The member's id.
    pub id: u32,
    /// Its address in the network of one of the ports.
    pub address: Ipv4Addr,
}

/// An address and the network that it is in: `10.9.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    /// The address.
    pub address: Ipv4Addr,
    /// How many leading bits of it name the network: 1 to 31.
    pub prefix_bits: u8,
}

impl Default for Dpdk {
    fn default() -> Dpdk {
        Dpdk { eal: Vec::new(), udp_port: 7100, ports: Vec::new(), peers: Vec::new() }
    }
}

impl Dpdk {
    /// Where a member's lane is reached, if that is said.
    pub fn address_of(&self, node: NodeId, lane: LaneId) -> Option<SocketAddrV4> {
        let peer = self.peers.iter().find(|peer| peer.id == node.0)?;
        Some(SocketAddrV4::new(peer.address, self.udp_port.saturating_add(lane.0)))
    }

    /// What the link is opened with.
    #[cfg(feature = "dpdk")]
    pub fn link_options(&self, lanes: u16) -> crate::io::link::dpdk::Options {
        use crate::io::link::dpdk::{Device, Options, PortOptions};
        let port = |port: &Port| PortOptions {
            device: match (&port.name, port.id) {
                (Some(name), _) => Device::Name(name.clone()),
                (None, id) => Device::Id(id.unwrap_or_default()),
            },
            address: port.address.address,
            prefix_bits: port.address.prefix_bits,
            mtu: port.mtu,
            queue_frames: port.queue_frames,
        };
        let ports = self.ports.iter().map(port).collect();
        Options { eal: self.eal.clone(), ports, udp_port: self.udp_port, lanes, peers: self.peers.len() }
    }

    /// Whether the values are in their bounds and agree with each other and with the rest of the configuration.
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        // A node alone needs no link.
        if self.ports.is_empty() && config.links.contains(&LinkKind::Dpdk) && config.members.len() > 1 {
            let what =
                "names dpdk, and no [[dpdk.port]] says over which port; add one, or strike dpdk from link";
            return Err(wrong("link", what.to_owned()));
        }
        if *self == Dpdk::default() {
            return Ok(());
        }
        within("dpdk.port (their number)", self.ports.len() as u64, 1..=DPDK_PORTS_MAX as u64)?;
        within("dpdk.eal (its length)", self.eal.len() as u64, 0..=EAL_ARGUMENTS_MAX as u64)?;
        if self.eal.iter().any(|argument| argument.is_empty() || argument.contains('\0')) {
            return Err(wrong(
                "dpdk.eal",
                "has an empty argument, or a zero byte in one; strike it out".to_owned(),
            ));
        }
        within("dpdk.udp_port", self.udp_port.into(), 1..=u64::from(u16::MAX - config.lanes))?;
        self.check_memif_ids()?;
        self.check_ports()?;
        self.check_peers(config)
    }

    /// Memif ports that connect have ids of their own.
    fn check_memif_ids(&self) -> Result<(), ConfigError> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for argument in &self.eal {
            let device = argument.strip_prefix("--vdev=").unwrap_or(argument);
            let mut parts = device.split(',');
            let name = parts.next().filter(|name| name.starts_with("net_memif"));
            let Some(name) = name.filter(|_| !parts.clone().any(|part| SERVES.contains(&part))) else {
                continue;
            };
            let id = parts.find_map(|part| part.strip_prefix("id=")).unwrap_or("0");
            if let Some((other, _)) = seen.iter().find(|(_, seen)| *seen == id) {
                let what =
                    format!("has the memif clients {other} and {name} with one id, {id}; give each its own");
                return Err(wrong("dpdk.eal", what));
            }
            seen.push((name, id));
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        for (at, port) in self.ports.iter().enumerate() {
            let key = |field: &str| format!("dpdk.port {at} {field}");
            match (&port.name, port.id) {
                (Some(name), None) if !name.is_empty() && name.len() < 64 && !name.contains('\0') => {}
                (None, Some(_)) => {}
                (Some(_), None) => {
                    return Err(wrong(
                        &key("name"),
                        "is empty or longer than 63 bytes; give DPDK's name for it".to_owned(),
                    ));
                }
                _ => return Err(wrong(&key("name"), "or id, one of both, says which port it is".to_owned())),
            }
            within(&key("mtu"), port.mtu.into(), DPDK_MTU_BYTES_MIN.into()..=DPDK_MTU_BYTES_MAX.into())?;
            let frames = DPDK_QUEUE_FRAMES_MIN.into()..=DPDK_QUEUE_FRAMES_MAX.into();
            within(&key("queue_frames"), port.queue_frames.into(), frames)?;
            let network = port.address;
            if !network.is_host(network.address) {
                return Err(wrong(
                    &key("address"),
                    format!("{network} is no host's address; give this node's own"),
                ));
            }
            if let Some(other) = self.ports[..at].iter().find(|other| other.address.overlaps(network)) {
                let what = format!(
                    "{network} overlaps {} of another port: a peer is reached over the port whose network it is in",
                    other.address
                );
                return Err(wrong(&key("address"), what));
            }
        }
        Ok(())
    }

    fn check_peers(&self, config: &Config) -> Result<(), ConfigError> {
        for (at, peer) in self.peers.iter().enumerate() {
            let key = format!("dpdk.peer {}", peer.id);
            if peer.id == config.node || !config.members.iter().any(|member| member.id == peer.id) {
                return Err(wrong(&key, "is not another [[member]]; give the id of one".to_owned()));
            }
            if self.peers[..at].iter().any(|other| other.id == peer.id || other.address == peer.address) {
                return Err(wrong(
                    &key,
                    "or its address is given twice; each member has one of its own".to_owned(),
                ));
            }
            let reaches =
                |port: &Port| port.address.is_host(peer.address) && port.address.address != peer.address;
            if !self.ports.iter().any(reaches) {
                let what = format!("{}: no dpdk.port has a network with this host in it", peer.address);
                return Err(wrong(&key, what));
            }
        }
        Ok(())
    }

    /// As it stands in a file; nothing if nothing is said.
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::new();
        if *self == Dpdk::default() {
            return text;
        }
        let eal = self.eal.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(", ");
        let _ = write!(text, "\n[dpdk]\neal = [{eal}]\nudp_port = {}\n", self.udp_port);
        for Port { name, id, address, mtu, queue_frames } in &self.ports {
            text.push_str("\n[[dpdk.port]]\n");
            if let Some(name) = name {
                let _ = writeln!(text, "name = {}", quoted(name));
            }
            if let Some(id) = id {
                let _ = writeln!(text, "id = {id}");
            }
            let _ = write!(text, "address = \"{address}\"\nmtu = {mtu}\nqueue_frames = {queue_frames}\n");
        }
        for Peer { id, address } in &self.peers {
            let _ = write!(text, "\n[[dpdk.peer]]\nid = {id}\naddress = \"{address}\"\n");
        }
        text
    }
}

impl Network {
    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0)
    }

    /// Whether this is the address of one host of the network.
    fn is_host(self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask();
        let inside = (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0;
        let one = self.prefix_bits == 31 || (host != 0 && host != !self.mask());
        let unusual = address.is_unspecified() || address.is_multicast() || address.is_loopback();
        inside && one && !unusual
    }

    fn overlaps(self, other: Network) -> bool {
        (self.address.to_bits() ^ other.address.to_bits()) & self.mask() & other.mask() == 0
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let prefix_bits = bits.parse::<u8>().ok().filter(|bits| (1..=31).contains(bits))?;
            Some(Network { address: address.parse().ok()?, prefix_bits })
        });
        parsed.ok_or_else(|| {
            format!("{text:?} is not an IPv4 address with its network's bits, as in \"10.9.0.1/24\"")
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

fn mtu() -> u16 {
    1500
}

fn queue_frames() -> u16 {
    512
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "books"
node = 1
data_dir = "d"
lanes = 2
shards = 2

[[member]]
id = 1
peer = "127.0.0.1:7100"
client = "127.0.0.1:7200"

[[member]]
id = 2
peer = "127.0.0.1:7110"
client = "127.0.0.1:7210"

[dpdk]
eal = ["--no-pci", "--vdev=net_memif0,role=server,id=0,socket=/run/a"]
udp_port = 7300

[[dpdk.port]]
name = "net_memif0"
address = "10.9.0.1/24"

[[dpdk.port]]
id = 3
address = "10.9.1.1/30"
mtu = 9000
queue_frames = 1024

[[dpdk.peer]]
id = 2
address = "10.9.1.2"
"#;

    #[test]
    fn a_file_says_ports_and_peers_and_is_written_back() {
        let config = Config::from_toml(GOOD).unwrap();
        let dpdk = &config.dpdk;
        assert_eq!((dpdk.ports.len(), dpdk.ports[0].mtu, dpdk.ports[1].id), (2, 1500, Some(3)));
        assert_eq!(dpdk.address_of(NodeId(2), LaneId(1)).unwrap().to_string(), "10.9.1.2:7301");
        assert_eq!(dpdk.address_of(NodeId(3), LaneId(0)), None);
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
        let without = Config { dpdk: Dpdk::default(), ..config };
        assert!(!without.to_toml().contains("dpdk"));
    }

    /// No build and no machine could have had it, and with another link to fall back to it was never told but on a
    /// line.
    #[test]
    fn a_link_over_dpdk_without_a_port_is_refused_unless_the_node_is_alone() {
        let mut config = Config::from_toml(GOOD).unwrap();
        config.links = vec![LinkKind::Dpdk, LinkKind::Tcp];
        config.check_shape().unwrap();
        config.dpdk = Dpdk::default();
        let error = config.check_shape().unwrap_err();
        assert_eq!(error.key, "link");
        assert!(error.what.contains("[[dpdk.port]]") && error.what.contains("strike dpdk"), "{error}");
        config.members.pop();
        config.check_shape().unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused_where_it_stands() {
        for (from, to, part) in [
            ("10.9.0.1/24", "10.9.0.1", "10.9.0.1/24"),
            ("10.9.0.1/24", "10.9.0.1/0", "as in"),
            ("10.9.0.1/24", "10.9.0.0/24", "dpdk.port 0 address"),
            ("10.9.0.1/24", "10.9.0.1/16", "dpdk.port 1 address 10.9.1.1/30 overlaps 10.9.0.1/16"),
            ("mtu = 9000", "mtu = 9001", "dpdk.port 1 mtu is 9001; allowed is 576 to 9000"),
            ("queue_frames = 1024", "queue_frames = 63", "dpdk.port 1 queue_frames"),
            ("id = 3\n", "", "dpdk.port 1 name or id"),
            ("id = 3\n", "id = 3\nname = \"x\"\n", "dpdk.port 1 name or id"),
            ("\"net_memif0\"", "\"\"", "dpdk.port 0 name is empty"),
            ("udp_port = 7300", "udp_port = 65534", "dpdk.udp_port"),
            ("\"--no-pci\"", "\"\"", "dpdk.eal"),
            ("role=server", "role=client\", \"--vdev=net_memif1", "net_memif0 and net_memif1 with one id, 0"),
            ("\"10.9.1.2\"", "\"10.9.1.4\"", "dpdk.peer 2 10.9.1.4: no dpdk.port"),
            ("\"10.9.1.2\"", "\"10.9.1.1\"", "dpdk.peer 2"),
            ("[[dpdk.peer]]\nid = 2", "[[dpdk.peer]]\nid = 1", "dpdk.peer 1 is not another"),
            ("[[dpdk.port]]", "[[dpdk.ports]]", "unknown field `ports`"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let error = Config::from_toml(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}
