//! Backends of [`crate::io::Link`] and [`crate::io::Port`].

pub mod choice;
#[cfg(feature = "dpdk")]
pub mod dpdk;
#[cfg(feature = "rdma")]
pub mod rdma;
mod report;
pub mod tcp;
pub mod udp;

pub use self::report::{Reporter, line};

/// What a link or a port has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames given to the sink.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames taken to be sent.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Link: sends refused as `Full`. Port: clients dropped because they did not take what was sent to them.
    pub full: u64,
    /// Connections dropped because what came over them was not understood.
    pub malformed: u64,
    /// Hellos refused, ours by others included.
    pub refused: u64,
    /// Connections that came up: with a peer for a second time or later; of clients, all.
    pub reconnects: u64,
    /// Connections dropped because nothing, or only half a frame, came within the time allowed.
    pub late: u64,
}
