//! Plimsoll replicates each thread's log of a transaction engine in microseconds: a record is durable on a quorum of
//! machines when its submit is answered, and survives whatever a quorum survives.
//!
//! # The way that data takes
//! ```text
//!  client::Client ──frame──▶ io::Port ─▶ shard::ingress ─▶ raft.propose ─▶ log.lay ──────┐  (leader)
//!        ▲                                                                               │ the same bytes:
//!        │                                     ┌─── shard::outbox ◀── log.pieces ◀───────┤ disk, peers, readers
//!        │                                     ▼                                         ▼
//!        │                                 io::Link                               log.submit ─▶ io::Disk
//!        │                                     │                                         │
//!        │        (follower) wire::peer ─▶ record::check_run ─▶ raft.step ─▶ log.lay_received ─▶ io::Disk
//!        │                                     ▲                                         │
//!        │                                     └───── Ack(Durable<EntryId>) ◀────────────┘
//!  shard::clients ◀─ shard::apply ◀── raft.commit: a majority of durable indices, the leader's own among them
//! ```
//! [`shard::turn`] is that path as a loop, and the page to read first. A record is laid out once; what is told durable
//! is a [`types::Durable`], which only a disk's completion makes.
//!
//! # What to use
//! - To embed a node: [`node::Node`], made of a [`node::Config`]. The command `plimsoll node` is a thin shell around
//!   it.
//! - To submit and read from another process or machine: [`client::Client`] and [`client::Reader`].
//! - To submit from the node's own host without system calls: [`client::ring::Attachment`].
//! - The same from C and C++: [`ffi`], and `include/plimsoll.h`, which is made of it.
//! - To start whole clusters on this machine, in tests and demos: [`local::Cluster`].
//! - To read logs by other means: [`log::record`] and [`log::assemble`] have the format, [`log::verify`] checks a whole
//!   log.
//!
//! # Where things live
//! ```text
//! types, limits      newtypes for every number, and the bounds that modules share
//! wire/              bytes of other processes into types: the only code that does that
//! raft/              the protocol, pure: one file for each role, and for what it stands on
//! log/               the format of records and segments, and one log for each lane
//! io/                traits for disk, link, port and clock; below it what they are over:
//!   disk/            io_uring or threads, files or a raw device
//!   link/            tcp, udp, rdma, dpdk, and the choice between them
//!   datagram/        sessions, fragments, credits: what udp, rdma and dpdk share
//!   ring/            rings in memory that an engine's thread and a lane share
//!   reactor/ clock/  where a lane blocks; the time stamp counter
//! shard/             a lane's turn: read turn.rs first
//! engine/            watermarks, epochs, deferred replay: folds over committed marks
//! node/              configuration, start and stop, the threads of lanes, doctor
//! client/ ffi/       the Rust client over TCP and rings; the C ABI
//! admin/             metrics and health for an operator's tools
//! local/ sim/        whole clusters of processes on this machine; whole clusters in one thread, under one seed
//! bin/               the command `plimsoll`, and `plimsoll-sim`
//! ```
//!
//! # What it is made of
//! Dependencies point down only, and a test keeps that:
//! ```text
//! { local, ffi } → client → node → shard → { raft, log, wire, engine } → { types, limits }
//! ```
//! with the traits of [`io`] named by shard and log, and a concrete backend by node alone. `raft`, `log`, `wire`,
//! `engine` and `shard` know no operating system, nor do the traits of [`io`], its buffer pool, its datagrams and its
//! rings: without the feature `node` the crate is `no_std`, and that is all of it that is left. [`admin`], which an
//! operator's tools ask, is named by node and knows `types` alone.
#![cfg_attr(not(any(feature = "node", feature = "sim")), no_std)]

extern crate alloc;

#[cfg(feature = "node")]
pub mod admin;
#[cfg(feature = "node")]
pub mod client;
pub mod engine;
#[cfg(feature = "node")]
pub mod ffi;
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
