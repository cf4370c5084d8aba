//! The C ABI: what an engine written in C or C++ needs of a node, as functions on handles. `include/plimsoll.h` is made
//! of these files (`.ci/header --write`), and what a caller must know is said there, which is to say on the functions
//! here.
//!
//! What holds for all of them:
//! - **Status.** Every function that can fail returns a [`Status`]; what happened, where and what to do about it is
//!   then in [`plimsoll_last_error`]. A request that was taken ends later, with a [`Completion`] whose status says how.
//! - **No panic crosses.** Each body runs behind `barrier::answer`: a panic is a defect, is caught and answered, and
//!   the handle in which it happened answers [`Status::Panicked`] from then on. This holds for the cargo profile
//!   `library`; a program that aborts on panics aborts.
//! - **Handles.** A handle that two threads use at once, or that a callback comes back to where it must not, is found
//!   out by a flag and answered (`barrier::Guarded`). A pointer that is no handle, or none any more, cannot be found
//!   out.
//! - **Callbacks hold nothing.** [`plimsoll_poll`] lets go of the stream before it calls out, so a callback may submit
//!   in it.
#![allow(clippy::missing_safety_doc, reason = "what a caller must see to is said once, at the header's top")]

mod barrier;
mod error;
#[cfg(debug_assertions)]
mod hook;
mod mako;
mod node;
mod poll;
mod replica;
mod request;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod texts;
mod types;
mod waker;

pub use self::error::{plimsoll_last_error, plimsoll_status_text, plimsoll_version};
pub use self::mako::{
    MakoHandle, plimsoll_mako_free, plimsoll_mako_host, plimsoll_mako_load, plimsoll_mako_node_open,
    plimsoll_mako_partitions, plimsoll_mako_site,
};
pub use self::node::{
    NodeHandle, plimsoll_node_close, plimsoll_node_open, plimsoll_node_vector, plimsoll_node_watermark,
};
pub use self::poll::{
    plimsoll_completions, plimsoll_follow, plimsoll_next_entry, plimsoll_on_apply, plimsoll_on_completion,
    plimsoll_on_epoch_closed, plimsoll_on_role, plimsoll_on_watermark, plimsoll_poll, plimsoll_wait,
};
pub use self::replica::{
    ReplicaHandle, plimsoll_replica_close, plimsoll_replica_connect, plimsoll_replica_open,
    plimsoll_replica_poll, plimsoll_replica_reattach, plimsoll_replica_wait, plimsoll_replica_waker,
    plimsoll_replica_watermark,
};
pub use self::request::{
    plimsoll_advance, plimsoll_cut_epoch, plimsoll_end_of_epoch, plimsoll_end_of_stream, plimsoll_read_index,
    plimsoll_register_stream, plimsoll_transfer,
};
pub use self::status::Status;
pub use self::stream::{
    StreamHandle, plimsoll_abandon, plimsoll_next_serial, plimsoll_outstanding, plimsoll_publish,
    plimsoll_reserve, plimsoll_stream_close, plimsoll_stream_connect, plimsoll_stream_epoch_closed,
    plimsoll_stream_open, plimsoll_stream_options_init, plimsoll_stream_reattach, plimsoll_stream_role,
    plimsoll_stream_stands_at, plimsoll_stream_watermark, plimsoll_submit,
};
pub use self::types::{
    Acks, Completion, CompletionCallback, Entry, EntryCallback, EpochClosedCallback, Kind, ReplayCallback,
    Role, RoleCallback, Stamp, StreamOptions, StreamStamp, WatermarkCallback,
};
pub use self::waker::{WakerHandle, plimsoll_stream_waker, plimsoll_wake, plimsoll_waker_close};
