//! A thread's stream: how it is opened and ended, and how records are submitted to it.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its")]

use core::ffi::c_char;
use core::time::Duration;

use super::Status;
use super::barrier::{Failure, Guarded, Out, answer, path, reference, slice, text};
use super::node::NodeHandle;
use super::poll::Delivery;
use super::types::{Role, Stamp, StreamOptions};
use crate::client::RequestId;
use crate::client::ring::{Attachment, Options, Stream};
use crate::node::config::cluster_id;
use crate::types::{Acks, ClusterId, Epoch, ShardId, Timestamp};

/// A thread's stream: the log of one shard, and what the node tells of it. One thread at a time uses it, and it may
/// move from one to another; a thread that comes while another is in a call is answered PLIMSOLL_REENTERED and has done
/// nothing.
#[derive(Debug)]
pub struct StreamHandle {
    pub(super) guarded: Guarded<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) stream: Stream,
    pub(super) delivery: Delivery,
    /// How long the record is for which there is room.
    reserved_bytes: Option<usize>,
}

impl Inner {
    /// Where to ask, if nothing is reserved: the next request would lie where the reservation does.
    #[inline]
    pub(super) fn ring(&mut self) -> Result<&mut Attachment, Failure> {
        self.check_unreserved()?;
        Ok(self.stream.attachment())
    }

    #[inline]
    pub(super) fn check_unreserved(&self) -> Result<(), Failure> {
        match self.reserved_bytes {
            None => Ok(()),
            Some(_) => Err(Failure::new(Status::Reserved)),
        }
    }
}

/// Uses a stream of the caller.
///
/// # Safety
/// The pointer is null, or a handle that was not closed.
#[inline]
pub(super) unsafe fn with<R>(
    stream: *mut StreamHandle,
    body: impl FnOnce(&mut Inner) -> Result<R, Failure>,
) -> Result<R, Failure> {
    // SAFETY: what the caller must see to.
    unsafe { reference(stream)? }.guarded.with(body)
}

#[inline]
fn acks_of(number: u32) -> Result<Acks, Failure> {
    match number {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        2 => Ok(Acks::Quorum),
        _ => Err(Failure::because(Status::BadArgument, "acks is one of plimsoll_acks: 0, 1 or 2")),
    }
}

/// Fills in what is to be set otherwise only where it should differ: all but the session, and, to connect, the cluster.
/// `size_bytes` is the size of the structure in the caller's program; if the library knows another, PLIMSOLL_SIZE is
/// answered. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_options_init(
    options: *mut StreamOptions,
    size_bytes: usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(options)? };
        check_size(size_bytes)?;
        let Options { first_serial, sizes, spin, shard, session, .. } =
            Options::new(ClusterId(0), ShardId(0), 0);
        out.set(StreamOptions {
            size_bytes,
            cluster: core::ptr::null(),
            session,
            first_serial,
            submit_ring_bytes: sizes.submit_bytes,
            completion_ring_bytes: sizes.completion_bytes,
            spin_us: spin.as_micros() as u32,
            shard: shard.0,
        });
        Ok(())
    })
}

fn check_size(size_bytes: usize) -> Result<(), Failure> {
    if size_bytes == size_of::<StreamOptions>() {
        return Ok(());
    }
    const OTHER: &str = "plimsoll_stream_options has another size in this library: fill it with \
                         plimsoll_stream_options_init, and build with the header of this library";
    Err(Failure::because(Status::Size, OTHER))
}

/// The options of the caller.
///
/// # Safety
/// The pointer is null, or points to as many bytes as its first field says, or as the structure has.
pub(super) unsafe fn options_of(
    options: *const StreamOptions,
    cluster: ClusterId,
) -> Result<Options, Failure> {
    // SAFETY: what the caller must see to.
    let asked = unsafe { reference(options)? };
    check_size(asked.size_bytes)?;
    let mut options = Options::new(cluster, ShardId(asked.shard), asked.session);
    options.first_serial = asked.first_serial;
    options.sizes.submit_bytes = asked.submit_ring_bytes;
    options.sizes.completion_bytes = asked.completion_ring_bytes;
    options.spin = Duration::from_micros(asked.spin_us.into());
    Ok(options)
}

/// The cluster that the options name.
///
/// # Safety
/// As of [`options_of`], and what it names is a string.
pub(super) unsafe fn cluster_of(options: *const StreamOptions) -> Result<ClusterId, Failure> {
    // SAFETY: what the caller must see to.
    let asked = unsafe { reference(options)? };
    check_size(asked.size_bytes)?;
    // SAFETY: likewise.
    Ok(cluster_id(unsafe { text(asked.cluster)? }))
}

fn handle_of(attachment: Attachment) -> *mut StreamHandle {
    let inner =
        Inner { stream: Stream::new(attachment), delivery: Delivery::default(), reserved_bytes: None };
    Box::into_raw(Box::new(StreamHandle { guarded: Guarded::new(inner) }))
}

/// Opens a stream at a node of this process. On PLIMSOLL_OK `*stream` is a handle that plimsoll_stream_close ends; else
/// nothing was changed. The node may be closed before the stream is. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_open(
    node: *const NodeHandle,
    options: *const StreamOptions,
    stream: *mut *mut StreamHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle of `plimsoll_node_open`, and room for the answer.
        let (node, mut out) = unsafe { (reference(node)?, Out::new(stream)?) };
        // SAFETY: the caller hands in options.
        let options = unsafe { options_of(options, node.desk.cluster())? };
        out.set(handle_of(Attachment::embedded(&node.desk, options)?));
        Ok(())
    })
}

/// Opens a stream at a node that runs on this host, through the socket that its configuration names as engine.socket.
/// The same in all else as plimsoll_stream_open; `options->cluster` must be set. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_connect(
    socket_path: *const c_char,
    options: *const StreamOptions,
    stream: *mut *mut StreamHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a string, and room for the answer.
        let (socket, mut out) = unsafe { (path(socket_path)?, Out::new(stream)?) };
        // SAFETY: the caller hands in options, whose cluster is a string or null.
        let options = unsafe { options_of(options, cluster_of(options)?)? };
        out.set(handle_of(Attachment::connect(socket, options)?));
        Ok(())
    })
}

/// Attaches again after PLIMSOLL_ENDED: the node was started again. What was outstanding stays so until plimsoll_poll
/// has told its end; the stream is followed from where it was; a reservation is given up, and its bytes are gone. Does
/// nothing while the stream is attached. Blocks for a second at most if the node has not let the session's place go
/// yet. Answers that had come and were not polled are lost, and end as unknown. Not from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_reattach(stream: *mut StreamHandle) -> Status {
    answer(|| {
        let reattach = |inner: &mut Inner| {
            inner.delivery.check_outside()?;
            inner.reserved_bytes = None;
            inner.stream.reattach()?;
            inner.delivery.reattached();
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, reattach) }
    })
}

/// Detaches, and frees the handle; null is nothing to close. What is outstanding may be committed all the same, and
/// nobody is told. What was reserved is given up. If the stream is in use PLIMSOLL_REENTERED is answered, and it is not
/// closed; this holds in its callbacks, too, whatever else they were answered. Afterwards the handle is no more, and
/// must not be handed in again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_close(stream: *mut StreamHandle) -> Status {
    answer(|| {
        if stream.is_null() {
            return Ok(());
        }
        // SAFETY: the caller hands in a handle.
        unsafe { reference(stream)? }.guarded.take_for_good()?;
        // SAFETY: it comes of `handle_of`, nobody is in it, and the caller gives it up.
        drop(unsafe { Box::from_raw(stream) });
        Ok(())
    })
}

/// Room for a record of `len` bytes, in the ring itself: write it at `*bytes`, then plimsoll_publish or
/// plimsoll_abandon. The room is valid until then, or until the stream is closed or attached again; until then nothing
/// else can be asked or polled (PLIMSOLL_RESERVED). PLIMSOLL_BUSY: the ring is full, poll and try again. Longer records
/// than an entry, or than half the ring, are PLIMSOLL_SIZE: plimsoll_submit takes them. Makes no system call. Callbacks
/// may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_reserve(
    stream: *mut StreamHandle,
    len: usize,
    bytes: *mut *mut u8,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(bytes)? };
        let reserve = |inner: &mut Inner| {
            let mut room = inner.ring()?.reserve(len)?;
            out.set(room.bytes().as_mut_ptr());
            inner.reserved_bytes = Some(len);
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, reserve) }
    })
}

/// Submits what was reserved. `acks` is of plimsoll_acks. On PLIMSOLL_OK `*request` names it in its completion, and the
/// reservation is over; so it is on PLIMSOLL_ENDED, and nothing was submitted. Makes no system call unless the node's
/// lane sleeps and must be woken. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_publish(
    stream: *mut StreamHandle,
    timestamp: u64,
    epoch: u32,
    acks: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(request)? };
        let acks = acks_of(acks)?;
        let publish = |inner: &mut Inner| {
            let len = inner.reserved_bytes.take().ok_or(Failure::new(Status::NotReserved))?;
            // The same room again: nothing was asked in between.
            let room = inner.stream.attachment().reserve(len)?;
            let RequestId(request) = room.publish(Timestamp(timestamp), Epoch(epoch), acks);
            out.set(request);
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, publish) }
    })
}

/// Gives up what was reserved; nothing was submitted. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_abandon(stream: *mut StreamHandle) -> Status {
    answer(|| {
        let abandon = |inner: &mut Inner| {
            inner.reserved_bytes.take().map(drop).ok_or(Failure::new(Status::NotReserved))
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, abandon) }
    })
}

/// Copies a record of 1 byte to 64 MiB into the ring and submits it. `acks` is of plimsoll_acks; `*request` names it in
/// its completion. `bytes` is read before the call returns, not after. PLIMSOLL_BUSY: the ring is full, poll and try
/// again. A record that is longer than an entry goes in parts, and the call waits for room between them. Callbacks may
/// call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_submit(
    stream: *mut StreamHandle,
    bytes: *const u8,
    len: usize,
    timestamp: u64,
    epoch: u32,
    acks: u32,
    request: *mut u64,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in bytes, and room for the answer.
        let (record, mut out) = unsafe { (slice(bytes, len)?, Out::new(request)?) };
        let acks = acks_of(acks)?;
        let submit = |inner: &mut Inner| {
            let RequestId(request) =
                inner.ring()?.submit(record, Timestamp(timestamp), Epoch(epoch), acks)?;
            out.set(request);
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, submit) }
    })
}

/// How many requests have no end that was told yet. Callbacks may call it; what the poll that calls them has in hand
/// counts as told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_outstanding(stream: *mut StreamHandle, count: *mut usize) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(count)? };
        let look = |inner: &mut Inner| {
            out.set(inner.stream.outstanding() + inner.delivery.untaken());
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, look) }
    })
}

/// The serial number that the next record will have. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_next_serial(stream: *mut StreamHandle, serial: *mut u64) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(serial)? };
        let look = |inner: &mut Inner| {
            out.set(inner.stream.attachment().next_serial());
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, look) }
    })
}

/// What was last told of the watermark, by plimsoll_poll or plimsoll_completions: up to there everything is committed
/// in every registered stream. It covers what was stamped in its own epoch: once it has moved on to a later one, what
/// is left of the epoch before may be dead, and plimsoll_stream_epoch_closed and plimsoll_on_epoch_closed tell what
/// lives. Never goes back. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_watermark(
    stream: *mut StreamHandle,
    watermark: *mut Stamp,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(watermark)? };
        let look = |inner: &mut Inner| {
            out.set(inner.stream.watermark().into());
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, look) }
    })
}

/// What was last told of the ends of epochs, by plimsoll_poll or plimsoll_completions: `*found` says whether anything
/// was, and `*last` is then as in plimsoll_epoch_closed_callback. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_epoch_closed(
    stream: *mut StreamHandle,
    last: *mut Stamp,
    found: *mut bool,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answers.
        let (mut last, mut found) = unsafe { (Out::new(last)?, Out::new(found)?) };
        let look = |inner: &mut Inner| {
            let told = inner.stream.epoch_closed();
            found.set(told.is_some());
            if let Some(told) = told {
                last.set(told.into());
            }
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, look) }
    })
}

/// Up to where the stream stands in the epoch that takes records, as was last told: what is begun is stamped beyond
/// that. A timestamp of UINT64_MAX: the stream has ended that epoch, or ended for good. Zero, if nothing was told yet.
/// Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_stands_at(stream: *mut StreamHandle, stamp: *mut Stamp) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(stamp)? };
        let look = |inner: &mut Inner| {
            let status = inner.stream.status();
            let stands_at = status.map(|status| crate::types::Stamp::new(status.epoch, status.stands_at));
            out.set(stands_at.unwrap_or_default().into());
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, look) }
    })
}

/// What was last told of the node's role, by plimsoll_poll or plimsoll_completions: PLIMSOLL_ROLE_DETACHED before
/// anything was, PLIMSOLL_ROLE_UNTOLD if the node does not tell. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_role(stream: *mut StreamHandle, role: *mut Role) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(role)? };
        let look = |inner: &mut Inner| {
            out.set(inner.delivery.role(inner.stream.role()));
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, look) }
    })
}
