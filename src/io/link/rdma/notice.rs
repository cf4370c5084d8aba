//! What a carrier has to tell an operator.

use std::fmt;

use super::setup::Ended;
use super::verbs::VerbError;
use crate::types::NodeId;
use crate::wire::aside::Reason;

/// Why there is no carrier: in words that name what to do where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

impl Unavailable {
    pub(super) fn of(error: &VerbError) -> Unavailable {
        let advice = match error.call {
            // What is refused here is memory: to be locked, for the process's limit, or at all.
            "ibv_reg_mr" => "; raise the memlock limit (ulimit -l, LimitMEMLOCK=), or lower rdma.slots",
            "ibv_get_device_list" => "; load the kernel's modules: ib_uverbs and the device's own",
            _ => "",
        };
        Unavailable(format!("{error}{advice}"))
    }
}

/// A line for the operator. The carrier itself prints nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The device is open.
    Opened {
        /// Its name.
        device: String,
        /// Its port.
        port: u8,
        /// Its port's address.
        gid: [u8; 16],
        /// Whether the port is up.
        active: bool,
    },
    /// The pool's memory cannot be registered: records are copied before they are sent.
    Copying(Unavailable),
    /// Queue pairs are connected.
    Connected {
        /// With whom.
        peer: NodeId,
    },
    /// They are not any more.
    Ended {
        /// With whom.
        peer: NodeId,
        /// Why, in words.
        why: String,
    },
    /// The peer refuses.
    Refused {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: Reason,
    },
    /// No queue pair can be made for a peer: told once for every reason.
    Failed {
        /// For whom.
        peer: NodeId,
        /// Why.
        why: Unavailable,
    },
    /// The device is gone. It is looked for.
    Lost {
        /// Its name.
        device: String,
        /// How that was found.
        why: String,
    },
    /// It is not found again, or cannot be used: told once for every reason.
    NotFound(Unavailable),
    /// The port is down, or up again.
    Port {
        /// Whether it is up.
        up: bool,
    },
    /// The port has another address, or carries packets of another length. Queue pairs made from now on go by it.
    Changed {
        /// Its address.
        gid: [u8; 16],
        /// The most that a packet carries.
        packet_bytes: u32,
    },
    /// So many notices were left out because nobody read them.
    LeftOut(u64),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Opened { device, port, gid, active } => {
                let gid = std::net::Ipv6Addr::from(*gid);
                let state = if *active { "" } else { ", which is down" };
                write!(f, "over device {device}, port {port} at {gid}{state}")
            }
            Notice::Copying(why) => {
                write!(
                    f,
                    "records are copied before they are sent, for their memory is not registered: {why}"
                )
            }
            Notice::Connected { peer } => write!(f, "queue pairs connected with node {peer}"),
            Notice::Ended { peer, why } => write!(f, "path to node {peer} ended: {why}"),
            Notice::Refused { peer, reason } => write!(f, "node {peer} refuses: {reason}"),
            Notice::Failed { peer, why } => write!(f, "no queue pair for node {peer}: {why}"),
            Notice::Lost { device, why } => {
                write!(f, "device {device} is gone ({why}); it is looked for every second")
            }
            Notice::NotFound(why) => write!(f, "{why}; the device is looked for every second"),
            Notice::Port { up: true } => f.write_str("the port is up"),
            Notice::Port { up: false } => f.write_str("the port is down"),
            Notice::Changed { gid, packet_bytes } => {
                let gid = std::net::Ipv6Addr::from(*gid);
                write!(f, "the port is at {gid} now, with packets of {packet_bytes} bytes")
            }
            Notice::LeftOut(count) => write!(f, "{count} more lines like the last ones were left out"),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Unanswered => f.write_str("the peer does not answer over TCP"),
            Ended::Replaced => f.write_str("the peer has restarted"),
            Ended::ByPeer => f.write_str("the peer says that its end is gone"),
            Ended::Refused(reason) => write!(f, "the peer refuses: {reason}"),
        }
    }
}
