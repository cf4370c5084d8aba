//! A replica of the engine's tables, which replays what is safe.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its, and that call back")]

use core::ffi::{c_char, c_void};
use core::time::Duration;

use super::Status;
use super::barrier::{Failure, Guarded, Out, answer, path, reference};
use super::node::NodeHandle;
use super::poll::waited_for;
use super::stream::{cluster_of, options_of};
use super::types::{ReplayCallback, Stamp, StreamOptions};
use super::waker::WakerHandle;
use crate::client::ring::{Attachment, Options, Replica};
use crate::limits::SHARDS_MAX;
use crate::types::ShardId;

/// A replica of the engine's tables: follows all streams at one node, and gives out what may be replayed. One thread at
/// a time uses it, and it may move from one to another.
#[derive(Debug)]
pub struct ReplicaHandle {
    guarded: Guarded<Replica>,
}

impl ReplicaHandle {
    fn boxed(rings: Vec<Attachment>, bytes_max: usize) -> *mut ReplicaHandle {
        Box::into_raw(Box::new(ReplicaHandle { guarded: Guarded::new(Replica::new(rings, bytes_max)) }))
    }
}

/// Follows all shards of a node of this process from the beginning of their logs. `session` is as of
/// plimsoll_stream_options, and at no shard the same as a stream's. `bytes_max` bounds what waits to be replayed, in
/// each stream, 64 bytes of each record's keeping included; one that has more is read on when the watermark has moved.
/// On PLIMSOLL_OK `*replica` is a handle that plimsoll_replica_close ends. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_open(
    node: *const NodeHandle,
    bytes_max: usize,
    session: u64,
    replica: *mut *mut ReplicaHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle of `plimsoll_node_open`, and room for the answer.
        let (node, mut out) = unsafe { (reference(node)?, Out::new(replica)?) };
        let attach = |shard| {
            let options = Options::new(node.desk.cluster(), ShardId(shard), session);
            Attachment::embedded(&node.desk, options)
        };
        let rings = (0..node.shards).map(attach).collect::<Result<_, _>>()?;
        out.set(ReplicaHandle::boxed(rings, bytes_max));
        Ok(())
    })
}

/// The same at a node that runs on this host: see plimsoll_stream_connect. The shards are 0 to `shards` - 1; the shard
/// of the options is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_connect(
    socket_path: *const c_char,
    options: *const StreamOptions,
    shards: u32,
    bytes_max: usize,
    replica: *mut *mut ReplicaHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a string, and room for the answer.
        let (socket, mut out) = unsafe { (path(socket_path)?, Out::new(replica)?) };
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(Failure::because(Status::BadArgument, "there are 1 to 65536 shards"));
        }
        // SAFETY: the caller hands in options, whose cluster is a string or null.
        let options = unsafe { options_of(options, cluster_of(options)?)? };
        let attach = |shard| Attachment::connect(socket, Options { shard: ShardId(shard), ..options });
        let rings = (0..shards).map(attach).collect::<Result<_, _>>()?;
        out.set(ReplicaHandle::boxed(rings, bytes_max));
        Ok(())
    })
}

/// Takes in what is committed and gives out what may be replayed: of every stream in its order, nothing beyond the
/// watermark, and nothing that died with an epoch. Between streams there is no order: per key the last writer by stamp
/// wins. `*count` is how many records were given out. Never blocks. PLIMSOLL_ENDED: the node is gone;
/// plimsoll_replica_reattach. The callback may use everything but this replica.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_poll(
    replica: *mut ReplicaHandle,
    callback: ReplayCallback,
    context: *mut c_void,
    count: *mut usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        let (replica, mut out) = unsafe { (reference(replica)?, Out::new(count)?) };
        let callback = callback.ok_or(Failure::new(Status::NullArgument))?;
        out.set(0);
        replica.guarded.with(|replica| {
            let given = replica.poll(|shard, stamp, bytes| {
                let stamp = Stamp::from(stamp);
                // SAFETY: the engine has given the two to be called so; who comes back to the replica is refused.
                unsafe { callback(context, shard.0, &stamp, bytes.as_ptr(), bytes.len()) }
            })?;
            out.set(given);
            if given == 0 && !replica.is_attached() { Err(Failure::new(Status::Ended)) } else { Ok(()) }
        })
    })
}

/// Waits until there is something to take in by plimsoll_replica_poll, for at most `timeout_us`: spins for a while,
/// then sleeps until any of the node's lanes has something. What is taken in need not be anything that may be replayed
/// yet. PLIMSOLL_OK: there is something, be it that the node is gone, which is told so once. PLIMSOLL_WOKEN:
/// plimsoll_wake was called, now or since the last wait that was answered so; there may be something as well.
/// PLIMSOLL_TIMED_OUT: neither. From the thread that uses the replica; not from its callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_wait(replica: *mut ReplicaHandle, timeout_us: u64) -> Status {
    answer(|| {
        let wait = |replica: &mut Replica| waited_for(replica.wait(Duration::from_micros(timeout_us)));
        // SAFETY: the caller hands in a handle.
        unsafe { reference(replica)? }.guarded.with(wait)
    })
}

/// Makes something by which other threads wake who waits in plimsoll_replica_wait: see plimsoll_wake. On PLIMSOLL_OK
/// `*waker` is a handle that plimsoll_waker_close ends, before the replica or after it. From the thread that uses the
/// replica.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_waker(
    replica: *mut ReplicaHandle,
    waker: *mut *mut WakerHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        let (replica, mut out) = unsafe { (reference(replica)?, Out::new(waker)?) };
        replica.guarded.with(|replica| {
            out.set(WakerHandle::boxed(replica.waker()));
            Ok(())
        })
    })
}

/// Up to where everything is committed in every registered stream, in the logs as they were read here. It covers what
/// was stamped in its own epoch: once it has moved on to a later one, what is left of the epoch before may be dead, and
/// plimsoll_replica_poll gives out only what lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_watermark(
    replica: *mut ReplicaHandle,
    watermark: *mut Stamp,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        let (replica, mut out) = unsafe { (reference(replica)?, Out::new(watermark)?) };
        replica.guarded.with(|replica| {
            out.set(replica.watermark().into());
            Ok(())
        })
    })
}

/// Attaches again after PLIMSOLL_ENDED, and goes on where it was. Does nothing while it is attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_reattach(replica: *mut ReplicaHandle) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle.
        unsafe { reference(replica)? }.guarded.with(|replica| Ok(replica.reattach()?))
    })
}

/// Detaches, and frees the handle; null is nothing to close. If it is in use PLIMSOLL_REENTERED is answered, and it is
/// not closed. Afterwards the handle is no more, and must not be handed in again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_replica_close(replica: *mut ReplicaHandle) -> Status {
    answer(|| {
        if replica.is_null() {
            return Ok(());
        }
        // SAFETY: the caller hands in a handle.
        unsafe { reference(replica)? }.guarded.take_for_good()?;
        // SAFETY: it comes of `ReplicaHandle::boxed`, nobody is in it, and the caller gives it up.
        drop(unsafe { Box::from_raw(replica) });
        Ok(())
    })
}
