//! What the link over RDMA is told.

use core::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{ConfigError, within, wrong};

/// The link over RDMA. Memory is registered, and locked, when a peer is met: `slots` times `slot_bytes` for each, and a
/// fourth of that again; and the lane's pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rdma {
    /// The device's name, as `ibv_devices` tells it; without one, the first that there is.
    pub device: Option<String>,
    /// Its port: 1..=255.
    pub port: u8,
    /// Which of the port's addresses, as `ibv_devinfo -v` tells them; without one, the one that reaches furthest: RoCE
    /// v2 over IPv4, then over IPv6, then any.
    pub gid_index: Option<u8>,
    /// How many datagrams of one peer wait at most to be taken in: a multiple of 64, 64..=16384.
    pub slots: u32,
    /// The longest datagram, the same on every node: a power of two, 4096..=1048576.
    pub slot_bytes: u32,
}

impl Rdma {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.device.as_ref().is_some_and(String::is_empty) {
            return Err(wrong("rdma.device", "is empty; name a device, or leave the key out".to_owned()));
        }
        within("rdma.port", self.port.into(), 1..=255)?;
        within("rdma.slots", self.slots.into(), 64..=16_384)?;
        if !self.slots.is_multiple_of(64) {
            return Err(wrong("rdma.slots", format!("is {}, not a multiple of 64", self.slots)));
        }
        within("rdma.slot_bytes", self.slot_bytes.into(), 4096..=1 << 20)?;
        if !self.slot_bytes.is_power_of_two() {
            return Err(wrong("rdma.slot_bytes", format!("is {}, not a power of two", self.slot_bytes)));
        }
        Ok(())
    }

    /// What is locked for each peer of each lane.
    pub fn bytes_per_peer(&self) -> u64 {
        let (slots, slot_bytes) = (u64::from(self.slots), u64::from(self.slot_bytes));
        slots * slot_bytes + (slots * slot_bytes / 4).max(4 * slot_bytes)
    }

    /// The section that says this.
    pub(super) fn to_toml(&self) -> String {
        let mut text = "\n[rdma]\n".to_owned();
        if let Some(device) = &self.device {
            let _ = writeln!(text, "device = {}", super::quoted(device));
        }
        if let Some(gid_index) = self.gid_index {
            let _ = writeln!(text, "gid_index = {gid_index}");
        }
        let _ =
            write!(text, "port = {}\nslots = {}\nslot_bytes = {}\n", self.port, self.slots, self.slot_bytes);
        text
    }
}

impl Default for Rdma {
    fn default() -> Rdma {
        Rdma { device: None, port: 1, gid_index: None, slots: 128, slot_bytes: 32 << 10 }
    }
}
