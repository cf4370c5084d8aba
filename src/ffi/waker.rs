//! What other threads wake a thread by that waits.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its")]

use super::Status;
use super::barrier::{Out, answer, reference};
use super::stream::{Inner, StreamHandle, with};
use crate::client::ring::Waker;

/// Wakes the thread that waits for a stream or a replica, so that it can be told to stop, say. Any number of threads
/// may use it at once.
#[derive(Debug)]
pub struct WakerHandle {
    waker: Waker,
}

impl WakerHandle {
    pub(super) fn boxed(waker: Waker) -> *mut WakerHandle {
        Box::into_raw(Box::new(WakerHandle { waker }))
    }
}

/// Makes something by which other threads wake who waits in plimsoll_wait: see plimsoll_wake. On PLIMSOLL_OK `*waker`
/// is a handle that plimsoll_waker_close ends, before the stream or after it. From the thread that uses the stream;
/// callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_stream_waker(
    stream: *mut StreamHandle,
    waker: *mut *mut WakerHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(waker)? };
        let make = |inner: &mut Inner| {
            out.set(WakerHandle::boxed(inner.stream.waker()));
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, make) }
    })
}

/// Ends the wait that is under way, or else the next one, with PLIMSOLL_WOKEN: once for all calls before it. Nothing is
/// lost if the thread does not wait yet, and nothing happens if its stream or replica is closed. Makes a system call
/// only if the thread sleeps. From any thread, also from several at once, and from callbacks; not from signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_wake(waker: *const WakerHandle) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle.
        unsafe { reference(waker)? }.waker.wake();
        Ok(())
    })
}

/// Frees the handle; null is nothing to close. From any thread, when no thread is in plimsoll_wake with it, nor comes
/// to it: this is not found out. Afterwards the handle is no more, and must not be handed in again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_waker_close(waker: *mut WakerHandle) -> Status {
    answer(|| {
        if !waker.is_null() {
            // SAFETY: it comes of `WakerHandle::boxed`, and the caller gives it up.
            drop(unsafe { Box::from_raw(waker) });
        }
        Ok(())
    })
}
