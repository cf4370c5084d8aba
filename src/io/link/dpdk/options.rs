//! What a node says of its ports.

use core::fmt;
use std::net::Ipv4Addr;

use super::host::{AF_PACKET, MEMIF};
use super::{OpenError, host};
use crate::limits::{
    DPDK_BURST_FRAMES, DPDK_HANDOVER_FRAMES_MAX, DPDK_MTU_BYTES_MAX, DPDK_MTU_BYTES_MIN, DPDK_PORTS_MAX,
    DPDK_QUEUE_FRAMES_MAX, DPDK_QUEUE_FRAMES_MIN, LANES_MAX,
};

/// What a node says of its ports. All its lanes say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// DPDK's own arguments, `--vdev=...` or `-a ADDRESS` among them. The same for all nodes of a process.
    pub eal: Vec<String>,
    /// The ports.
    pub ports: Vec<PortOptions>,
    /// Lane 0's UDP port; lane i has the i-th after it.
    pub udp_port: u16,
    /// How many lanes there are.
    pub lanes: u16,
    /// How many peers there are: they share a port's ring.
    pub peers: usize,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOptions {
    /// Which.
    pub device: Device,
    /// The node's address on it.
    pub address: Ipv4Addr,
    /// How many leading bits of that name its network.
    pub prefix_bits: u8,
    /// The longest IP packet, in bytes.
    pub mtu: u16,
    /// How many frames each of its queues holds.
    pub queue_frames: u16,
}

/// How DPDK knows a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// By name: "net_memif0", or a NIC's "0000:01:00.0".
    Name(String),
    /// By number.
    Id(u16),
}

impl Options {
    /// Whether this can be at all, whatever DPDK says.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: String| Err(OpenError(what));
        if self.ports.is_empty() || self.ports.len() > DPDK_PORTS_MAX {
            return wrong(format!("{} DPDK ports; 1 to {DPDK_PORTS_MAX} are allowed", self.ports.len()));
        }
        if self.lanes == 0
            || self.lanes > LANES_MAX
            || self.udp_port.checked_add(self.lanes).is_none()
            || self.udp_port == 0
        {
            return wrong(format!("{} lanes from UDP port {} on cannot be", self.lanes, self.udp_port));
        }
        for (at, port) in self.ports.iter().enumerate() {
            let PortOptions { device, address, prefix_bits, mtu, queue_frames } = port;
            if *prefix_bits > 31 || *prefix_bits == 0 || address.is_unspecified() || address.is_multicast() {
                return wrong(format!(
                    "port {device}: {address}/{prefix_bits} is no host's address in a network"
                ));
            }
            if !(DPDK_MTU_BYTES_MIN..=DPDK_MTU_BYTES_MAX).contains(mtu) {
                return wrong(format!(
                    "port {device}: an MTU of {mtu}; {DPDK_MTU_BYTES_MIN} to {DPDK_MTU_BYTES_MAX} are allowed"
                ));
            }
            if !(DPDK_QUEUE_FRAMES_MIN..=DPDK_QUEUE_FRAMES_MAX).contains(queue_frames) {
                return wrong(format!(
                    "port {device}: queues of {queue_frames} frames; {DPDK_QUEUE_FRAMES_MIN} to {DPDK_QUEUE_FRAMES_MAX} are allowed"
                ));
            }
            let mine = (*address, *prefix_bits);
            if let Some(other) =
                self.ports[..at].iter().find(|other| host::overlap(mine, (other.address, other.prefix_bits)))
            {
                return wrong(format!(
                    "ports {} and {device} have networks that overlap; a peer is reached over the one that holds its address",
                    other.device
                ));
            }
        }
        Ok(())
    }

    /// The frames of one lane: every ring full, what waits for them, and what other lanes hold.
    pub(super) fn frames_per_lane(&self) -> u32 {
        let rings: u32 = self.ports.iter().map(|port| 2 * u32::from(port.queue_frames)).sum();
        let waiting = (1 + self.ports.len() as u32) * DPDK_BURST_FRAMES as u32;
        // And twice what a pool keeps aside for its thread.
        rings + waiting + DPDK_HANDOVER_FRAMES_MAX + 4 * DPDK_BURST_FRAMES as u32
    }

    /// The memory that the frames take, and DPDK itself, without huge pages.
    pub(super) fn memory_mib(&self) -> u64 {
        let longest = self.ports.iter().map(|port| port.mtu).max().unwrap_or(0);
        let frame_bytes = u64::from(longest.max(2048)) + 512;
        let frames = u64::from(self.frames_per_lane()) * u64::from(self.lanes) * frame_bytes;
        64_u64.max(48 + (frames >> 20))
    }

    /// The driver's id of this memif port if it connects, as its arguments say; where it does not, the other end does.
    pub(super) fn memif_dials(&self, name: &str) -> Option<u32> {
        if self.vdev(name)?.any(|part| matches!(part, "role=server" | "role=master")) {
            return None;
        }
        let id = self.vdev(name)?.find_map(|part| part.strip_prefix("id="));
        Some(id.and_then(|id| id.parse().ok()).unwrap_or(0))
    }

    /// The kernel's interface that this af_packet port goes over.
    pub(super) fn kernel_interface(&self, name: &str) -> Option<String> {
        self.vdev(name)?.find_map(|part| part.strip_prefix("iface=")).map(str::to_owned)
    }

    /// How many frames each ring of this virtual port holds, whatever it is asked for when a queue is set up: what its
    /// arguments say, or else what its driver takes. `None`: what it is asked for counts.
    pub(super) fn ring_frames(&self, name: &str, driver: &str) -> Option<u16> {
        let argument = |key: &str| -> Option<u32> {
            self.vdev(name)?.find_map(|part| part.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
        };
        let frames = match driver {
            // The binary logarithm.
            MEMIF => 1 << argument("rsize").unwrap_or(10).min(14),
            AF_PACKET => argument("framecnt").unwrap_or(512),
            _ => return None,
        };
        Some(u16::try_from(frames).unwrap_or(u16::MAX))
    }

    /// What is said of a virtual port beside its name.
    fn vdev<'a>(&'a self, name: &str) -> Option<impl Iterator<Item = &'a str>> {
        let own = |argument: &&String| {
            let device = argument.strip_prefix("--vdev=").unwrap_or(argument);
            device.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        };
        self.eal.iter().find(own).map(|argument| argument.split(',').skip(1))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Name(name) => f.write_str(name),
            Device::Id(id) => write!(f, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_ports_hold_what_their_own_arguments_say() {
        let eal = [
            "--no-huge",
            "--vdev=net_memif0,role=server,rsize=8",
            "net_memif1,id=3",
            "net_af_packet0,framecnt=256",
        ];
        let options = Options {
            eal: eal.map(str::to_owned).to_vec(),
            ports: Vec::new(),
            udp_port: 1,
            lanes: 1,
            peers: 2,
        };
        assert_eq!(options.ring_frames("net_memif0", MEMIF), Some(256));
        assert_eq!(options.ring_frames("net_memif1", MEMIF), Some(1024));
        assert_eq!(options.ring_frames("net_af_packet0", AF_PACKET), Some(256));
        assert_eq!(options.ring_frames("net_af_packet1", AF_PACKET), Some(512));
        assert_eq!(options.ring_frames("0000:01:00.0", "net_mlx5"), None);
    }
}
