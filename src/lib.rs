//! Plimsoll replicates each thread's log of a transaction engine in microseconds and says up to where it is safe.
#![cfg_attr(not(any(feature = "node", feature = "sim")), no_std)]

extern crate alloc;

#[cfg(feature = "node")]
pub mod client;
pub mod io;
pub mod limits;
#[cfg(feature = "node")]
pub mod local;
pub mod log;
#[cfg(feature = "node")]
pub mod node;
pub mod raft;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod types;
pub mod wire;
