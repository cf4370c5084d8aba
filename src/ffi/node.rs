//! A node in the engine's own process.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its")]

use core::ffi::c_char;
use std::sync::Arc;

use super::Status;
use super::barrier::{Failure, Out, OutArray, answer, path, reference};
use super::types::{Stamp, StreamStamp};
use crate::engine::board::Board;
use crate::node::{Config, Desk, Node};

/// A node in this process.
#[derive(Debug)]
pub struct NodeHandle {
    node: Node,
    pub(super) desk: Desk,
    pub(super) shards: u32,
    board: Option<Arc<Board>>,
}

// What any thread may do with a node, it does with these alone.
const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Desk>();
    any_thread::<Arc<Board>>();
};

impl NodeHandle {
    pub(super) fn start(config: Config) -> Result<*mut NodeHandle, Failure> {
        let shards = config.shards;
        let node = Node::start(config)?;
        let (desk, board) = (node.desk(), node.board());
        Ok(Box::into_raw(Box::new(NodeHandle { node, desk, shards, board })))
    }

    fn board(&self) -> Result<&Board, Failure> {
        const OFF: Failure = Failure::because(
            Status::NoStreams,
            "the node keeps no watermarks: set engine.streams = true in its configuration",
        );
        self.board.as_deref().ok_or(OFF)
    }
}

/// Starts a node in this process, of the configuration at this path: as `plimsoll node` would. On PLIMSOLL_OK `*node`
/// is a handle that plimsoll_node_close ends; else nothing was changed. Blocks until the node is ready. From any
/// thread. A lane that fails later stops the whole node without being asked: its streams end, and plimsoll_node_close
/// says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_node_open(
    config_path: *const c_char,
    node: *mut *mut NodeHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a string, and room for the answer.
        let (path, mut out) = unsafe { (path(config_path)?, Out::new(node)?) };
        let config = Config::load(path).map_err(|error| Failure::told(Status::Config, &error))?;
        out.set(NodeHandle::start(config)?);
        Ok(())
    })
}

/// Stops the node and frees the handle, whatever is answered; null is nothing to close. What was submitted gets its
/// outcome: streams that are attached may be polled for it after this. Blocks for as long as that takes, at most a few
/// seconds. PLIMSOLL_DISK_FAILED or PLIMSOLL_PANICKED if the node had stopped by itself before. From any thread, while
/// no other uses the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_node_close(node: *mut NodeHandle) -> Status {
    answer(|| {
        if node.is_null() {
            return Ok(());
        }
        // SAFETY: it comes of `plimsoll_node_open`, and the caller gives it up.
        let handle = unsafe { Box::from_raw(node) };
        handle.node.stopper().stop();
        Ok(handle.node.wait()?)
    })
}

/// Up to where everything is committed in every registered stream, as far as this node knows. It covers what was
/// stamped in its own epoch: once it has moved on to a later one, what is left of the epoch before may be dead, and
/// plimsoll_stream_epoch_closed and plimsoll_on_epoch_closed tell what lives. Takes no lock and makes no system call.
/// Two calls one after the other may go back where an epoch has just begun: keep the largest. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_node_watermark(node: *const NodeHandle, watermark: *mut Stamp) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle of `plimsoll_node_open`, and room for the answer.
        let (node, mut out) = unsafe { (reference(node)?, Out::new(watermark)?) };
        out.set(node.board()?.watermark().into());
        Ok(())
    })
}

/// How far each registered stream has come, by shard, ascending; the minimum is the watermark. `*count` is how many
/// there are: if that is more than `capacity`, as many as fit are written, and PLIMSOLL_TOO_SMALL answered. From any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_node_vector(
    node: *const NodeHandle,
    stamps: *mut StreamStamp,
    capacity: usize,
    count: *mut usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle of `plimsoll_node_open`, and room for the answers.
        let (node, mut array, mut out) =
            unsafe { (reference(node)?, OutArray::new(stamps, capacity)?, Out::new(count)?) };
        let vector = node.board()?.vector();
        out.set(vector.len());
        array.fill(vector.iter().map(|&(shard, stamp)| StreamStamp {
            stamp: stamp.into(),
            shard: shard.0,
            reserved: 0,
        }));
        if vector.len() > array.capacity() { Err(Failure::new(Status::TooSmall)) } else { Ok(()) }
    })
}
