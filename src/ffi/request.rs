//! What else is asked of a stream's shard.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its")]

use super::Status;
use super::barrier::{Failure, Out, answer};
use super::stream::{Inner, StreamHandle, with};
use crate::client::RequestId;
use crate::client::ring::{Attachment, RingError};
use crate::limits::SHARDS_MAX;
use crate::types::{Epoch, NodeId, ShardId, Stamp, Timestamp};
use crate::wire::client::StreamRequest;

/// Asks, and says by which number it is answered.
///
/// # Safety
/// `stream` is null or a handle that was not closed; `request` is null or has room for the answer.
unsafe fn ask(
    stream: *mut StreamHandle,
    request: *mut u64,
    asked: impl FnOnce(&mut Attachment) -> Result<RequestId, RingError>,
) -> Result<(), Failure> {
    // SAFETY: what the caller must see to.
    let mut out = unsafe { Out::new(request)? };
    let ask = |inner: &mut Inner| {
        let RequestId(request) = asked(inner.ring()?)?;
        out.set(request);
        Ok(())
    };
    // SAFETY: likewise.
    unsafe { with(stream, ask) }
}

/// Registers a stream: from now on it counts for the watermark, and takes records beyond what the registrar has come
/// to. Asked in the registrar's stream, which is that of shard 0, and registers itself first: another one before it, or
/// after its end, ends as PLIMSOLL_UNREGISTERED, and as PLIMSOLL_BUSY while a new leader does not know or an epoch
/// comes to its end: try again. Ends as PLIMSOLL_COMMITTED. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_register_stream(
    registrar: *mut StreamHandle,
    shard: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        if shard >= SHARDS_MAX {
            return Err(Failure::because(Status::BadArgument, "there can be 65536 shards, counted from 0"));
        }
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(registrar, request, |ring| ring.stream(StreamRequest::Register(ShardId(shard)))) }
    })
}

/// Promises that nothing at or before this stamp will be submitted any more in this stream, so that it holds no
/// watermark back. A record that is under way and is refused is given up with it: await those first. Ends as
/// PLIMSOLL_COMMITTED. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_advance(
    stream: *mut StreamHandle,
    timestamp: u64,
    epoch: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        let stamp = Stamp::new(Epoch(epoch), Timestamp(timestamp));
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(stream, request, |ring| ring.stream(StreamRequest::Advance(stamp))) }
    })
}

/// Says that nothing will be submitted any more in this stream, for good. Ends as PLIMSOLL_COMMITTED. Callbacks may
/// call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_end_of_stream(stream: *mut StreamHandle, request: *mut u64) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(stream, request, |ring| ring.stream(StreamRequest::EndOfStream)) }
    })
}

/// Says that all that was begun in this epoch has been submitted in this stream. It ends the epoch in all others, too:
/// see `closing` of plimsoll_role. Ends as PLIMSOLL_COMMITTED. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_end_of_epoch(
    stream: *mut StreamHandle,
    epoch: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(stream, request, |ring| ring.stream(StreamRequest::EndOfEpoch(Epoch(epoch)))) }
    })
}

/// Says that what was begun in this epoch may be lost: the thread is not the one that began it, which has died. It is
/// said again, each time with the epoch that a role tells is open, until one ends as PLIMSOLL_COMMITTED, and nothing is
/// begun before. What others stamped after what is lost is then dead everywhere. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_cut_epoch(
    stream: *mut StreamHandle,
    epoch: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(stream, request, |ring| ring.stream(StreamRequest::CutEpoch(Epoch(epoch)))) }
    })
}

/// Hands the leadership of the stream's shard to another node. Ends as PLIMSOLL_ACCEPTED when that has begun; a role
/// tells when it is done. Until then, an election timeout at most, nothing is taken. As PLIMSOLL_BUSY if the node was
/// not heard for that long. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_transfer(
    stream: *mut StreamHandle,
    to_node: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        if to_node == 0 {
            return Err(Failure::because(Status::BadArgument, "no node has the number 0"));
        }
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(stream, request, |ring| ring.transfer(NodeId(to_node))) }
    })
}

/// Asks up to which index must be read to miss nothing that was acknowledged before: a majority confirms it. Ends as
/// PLIMSOLL_CONFIRMED. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_read_index(stream: *mut StreamHandle, request: *mut u64) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        unsafe { ask(stream, request, Attachment::read_index) }
    })
}
