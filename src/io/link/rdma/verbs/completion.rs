//! What has finished: one queue for all of a lane's queue pairs.
#![allow(unsafe_code, reason = "calls of libibverbs, and structures that it fills")]

use std::ffi::CStr;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

use rdma_sys as sys;

use super::{Device, VerbError};

/// How many completions one call takes.
const BATCH: usize = 32;

/// The queue, and the channel that tells a lane which blocks that something has come.
pub(in super::super) struct CompletionQueue {
    raw: NonNull<sys::ibv_cq>,
    channel: NonNull<sys::ibv_comp_channel>,
    _device: Rc<Device>,
}

/// A work request that has finished.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Completion {
    /// What it was posted under.
    pub(super) id: u64,
    /// 0 is success.
    pub(super) status: u32,
    /// Of a receive that succeeded: how much has come.
    pub(super) len_bytes: u32,
}

impl CompletionQueue {
    /// For so many completions that were not polled yet.
    pub(in super::super) fn new(
        device: &Rc<Device>,
        entries: usize,
    ) -> Result<Rc<CompletionQueue>, VerbError> {
        // SAFETY: the device is open.
        let channel = NonNull::new(unsafe { sys::ibv_create_comp_channel(device.raw()) })
            .ok_or_else(|| VerbError::last("ibv_create_comp_channel"))?;
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: device and channel are open, and the channel outlives the queue.
        let raw = unsafe { sys::ibv_create_cq(device.raw(), entries, null_mut(), channel.as_ptr(), 0) };
        let Some(raw) = NonNull::new(raw) else {
            let error = VerbError::last("ibv_create_cq");
            // SAFETY: made above and told to nobody.
            unsafe { sys::ibv_destroy_comp_channel(channel.as_ptr()) };
            return Err(error);
        };
        let queue = CompletionQueue { raw, channel, _device: Rc::clone(device) };
        let flags = rustix::fs::fcntl_getfl(queue.fd())
            .and_then(|flags| rustix::fs::fcntl_setfl(queue.fd(), flags | rustix::fs::OFlags::NONBLOCK));
        flags.map_err(|error| VerbError { call: "fcntl", cause: error.into() })?;
        Ok(Rc::new(queue))
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_cq {
        self.raw.as_ptr()
    }

    /// Readable when something has come after [`CompletionQueue::arm`].
    pub(in super::super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel and its descriptor are open as long as this queue is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.channel.as_ref().fd) }
    }

    /// The next completion after this call makes the channel readable, once.
    pub(in super::super) fn arm(&self) -> Result<(), VerbError> {
        // SAFETY: the queue is there.
        VerbError::check("ibv_req_notify_cq", unsafe { sys::ibv_req_notify_cq(self.raw(), 0) })
    }

    /// Takes what the channel tells; whether it told anything.
    pub(in super::super) fn disarm(&self) -> bool {
        let (mut queue, mut context) = (null_mut(), null_mut());
        // SAFETY: the channel is open and does not block; both pointers are the caller's.
        let told = unsafe { sys::ibv_get_cq_event(self.channel.as_ptr(), &mut queue, &mut context) } == 0;
        if told {
            // SAFETY: one event of this queue, the channel's only one, was got and is acknowledged once.
            unsafe { sys::ibv_ack_cq_events(self.raw(), 1) };
        }
        told
    }

    /// Takes up to `into.len()` completions; how many.
    pub(in super::super) fn poll(&self, into: &mut [Completion; BATCH]) -> Result<usize, VerbError> {
        // SAFETY: plain numbers, of which zero is a value.
        let mut found: [sys::ibv_wc; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: the queue is there and the array takes as many as are asked for.
        let count = unsafe { sys::ibv_poll_cq(self.raw(), BATCH as i32, found.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(VerbError::last("ibv_poll_cq"));
        };
        for (completion, wc) in into.iter_mut().zip(&found[..count.min(BATCH)]) {
            *completion = Completion { id: wc.wr_id, status: wc.status, len_bytes: wc.byte_len };
        }
        Ok(count.min(BATCH))
    }
}

impl Completion {
    /// Why it failed, if it did.
    pub(in super::super) fn failure(&self) -> Option<&'static str> {
        if self.status == sys::ibv_wc_status::IBV_WC_SUCCESS {
            return None;
        }
        // SAFETY: the library returns a string of its own for every number.
        let text = unsafe { CStr::from_ptr(sys::ibv_wc_status_str(self.status)) };
        Some(text.to_str().unwrap_or("an unknown status"))
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue pairs that told it held it until now; the channel is destroyed after it.
        unsafe {
            sys::ibv_destroy_cq(self.raw());
            sys::ibv_destroy_comp_channel(self.channel.as_ptr());
        }
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompletionQueue")
    }
}
