//! How a node reaches its peers: by which links, in which order, and what each of them is told.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{ConfigError, within, wrong};
use crate::limits::UDP_MTU_BYTES_MIN;

/// A link to the same lane of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Reliable connections over verbs; set up over TCP. Needs the cargo feature `rdma` and a device.
    Rdma,
    /// Datagrams through ports that DPDK polls. Needs the cargo feature `dpdk`.
    Dpdk,
    /// Datagrams through the system's sockets.
    Udp,
    /// Connections through the system's sockets. Works everywhere.
    Tcp,
}

/// What the UDP link is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Udp {
    /// The longest packet that the path to every peer carries, IP and UDP headers included: 1280 (which IPv6
    /// asks of every path) to 65535. A path that
    /// carries less is found out, told, and served with short datagrams.
    pub mtu_bytes: u32,
}

impl Udp {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("udp.mtu_bytes", self.mtu_bytes.into(), UDP_MTU_BYTES_MIN as u64..=65_535)
    }
}

impl Default for Udp {
    fn default() -> Udp {
        Udp { mtu_bytes: 1500 }
    }
}

/// Whether `links` is an order of preference.
pub(super) fn check(links: &[LinkKind]) -> Result<(), ConfigError> {
    if links.is_empty() {
        return Err(wrong("link", "is empty; name at least one of rdma, dpdk, udp, tcp".to_owned()));
    }
    match links.iter().enumerate().find(|(at, kind)| links[..*at].contains(kind)) {
        Some((_, twice)) => {
            Err(wrong("link", format!("names {twice} twice; name each once, the preferred first")))
        }
        None => Ok(()),
    }
}

impl LinkKind {
    /// As it stands in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            LinkKind::Rdma => "rdma",
            LinkKind::Dpdk => "dpdk",
            LinkKind::Udp => "udp",
            LinkKind::Tcp => "tcp",
        }
    }
}

impl core::str::FromStr for LinkKind {
    type Err = String;
    fn from_str(name: &str) -> Result<LinkKind, String> {
        let all = [LinkKind::Rdma, LinkKind::Dpdk, LinkKind::Udp, LinkKind::Tcp];
        let found = all.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("{name:?} is no link; choose from rdma, dpdk, udp, tcp"))
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
