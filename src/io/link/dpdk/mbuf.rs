//! Frames' memory: pools, and frames that are owned until a port takes them.
#![allow(unsafe_code, reason = "buffers of a C library, each with one owner")]

use std::ffi::CStr;
use std::mem;
use std::ptr::NonNull;
use std::slice;

use dpdk_bindings as sys;

use super::OpenError;
use crate::wire::ethernet::{Checksums, ETHERNET_BYTES, IPV4_BYTES, Verdict};

/// Memory for the frames of one lane. Lives as long as the process: a port may hold some of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool(NonNull<sys::Mempool>);

// SAFETY: pools are made for several threads (libdpdk's default, "multi-producer, multi-consumer").
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// One frame, owned.
#[repr(transparent)]
#[derive(Debug)]
pub(super) struct Frame(NonNull<sys::Mbuf>);

/// A bounded queue of frames: every lane puts into it, one takes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring(NonNull<sys::Ring>);

// SAFETY: a ring is made for many producers; that only one lane takes out of it is kept by the one seat of every lane.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Pool {
    /// A pool for `count` frames of `frame_bytes`, near to the memory's node `socket`.
    pub(super) fn new(
        name: &CStr,
        count: u32,
        cached: u32,
        frame_bytes: u16,
        socket: i32,
    ) -> Result<Pool, OpenError> {
        // SAFETY: the name ends with a zero byte and is copied.
        let pool =
            unsafe { sys::plimsoll_dpdk_pool_create(name.as_ptr(), count, cached, frame_bytes, socket) };
        NonNull::new(pool).map(Pool).ok_or_else(|| {
            let megabytes = (u64::from(count) * (u64::from(frame_bytes) + 512)) >> 20;
            OpenError::failed(
                format_args!(
                    "{count} frames of {frame_bytes} bytes (about {megabytes} MiB) cannot be reserved; give DPDK more \
                     memory (`-m` in dpdk.eal), or lower dpdk.port.queue_frames"
                ),
                super::eal::last_errno(),
            )
        })
    }

    pub(super) fn as_ptr(self) -> *mut sys::Mempool {
        self.0.as_ptr()
    }

    /// How many frames nobody holds.
    pub(super) fn available(self) -> u32 {
        // SAFETY: a pool lives as long as the process.
        unsafe { sys::rte_mempool_avail_count(self.0.as_ptr()) }
    }
}

impl Frame {
    /// A frame of so many bytes, whatever they are, in one piece; `None` when the pool is empty.
    ///
    /// # Panics
    /// If that is more than the pool was made for.
    pub(super) fn new(pool: Pool, len_bytes: usize) -> Option<Frame> {
        // SAFETY: a pool lives as long as the process; what it gives has no other owner.
        let frame = Frame(NonNull::new(unsafe { sys::plimsoll_dpdk_mbuf_alloc(pool.0.as_ptr()) })?);
        let len = u16::try_from(len_bytes).expect("a frame's length has 16 bits");
        // SAFETY: this frame is owned, fresh, and of one segment.
        let bytes = unsafe { sys::plimsoll_dpdk_mbuf_append(frame.0.as_ptr(), len) };
        assert!(!bytes.is_null(), "a frame of {len_bytes} bytes fits those of its pool");
        Some(frame)
    }

    /// All of it; `None` when it lies in several pieces.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        let (begin, len) = self.first()?;
        // SAFETY: the first segment's bytes are initialised (the pool's memory was zeroed when it was mapped, and
        // frames only ever written), and nobody writes to an owned frame while it is borrowed.
        Some(unsafe { slice::from_raw_parts(begin, len) })
    }

    /// All of it, to be written.
    pub(super) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let (begin, len) = self.first()?;
        // SAFETY: as in `bytes`; and this borrow is the only one.
        Some(unsafe { slice::from_raw_parts_mut(begin.cast_mut(), len) })
    }

    /// Writes all of a new frame.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.bytes_mut().expect("a new frame is one piece").copy_from_slice(bytes);
    }

    fn first(&self) -> Option<(*const u8, usize)> {
        let (mut len, mut whole) = (0, 0);
        // SAFETY: this frame is owned; both places are written once.
        let begin = unsafe { sys::plimsoll_dpdk_mbuf_data(self.0.as_ptr(), &mut len, &mut whole) };
        (whole == 1).then_some((begin, len.into()))
    }

    /// What its port says of its checksums.
    pub(super) fn checksums(&self) -> Checksums {
        // SAFETY: this frame is owned.
        let said = unsafe { sys::plimsoll_dpdk_mbuf_checksums(self.0.as_ptr()) };
        let verdict = |good, bad| match (said & good != 0, said & bad != 0) {
            (_, true) => Verdict::Bad,
            (true, false) => Verdict::Good,
            (false, false) => Verdict::Unknown,
        };
        Checksums { ip: verdict(1, 2), udp: verdict(4, 8) }
    }

    /// The number of the port that it came from.
    pub(super) fn port(&self) -> u16 {
        // SAFETY: this frame is owned.
        unsafe { sys::plimsoll_dpdk_mbuf_port(self.0.as_ptr()) }
    }

    /// Makes it one that came from the port of this number.
    pub(super) fn set_port(&mut self, port: u16) {
        // SAFETY: this frame is owned.
        unsafe { sys::plimsoll_dpdk_mbuf_set_port(self.0.as_ptr(), port) }
    }

    /// Leaves its checksums to the port that sends it.
    pub(super) fn offload_checksums(&mut self) {
        // SAFETY: this frame is owned.
        unsafe { sys::plimsoll_dpdk_mbuf_offload(self.0.as_ptr(), ETHERNET_BYTES as u16, IPV4_BYTES as u16) };
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: this was its owner.
        unsafe { sys::plimsoll_dpdk_mbuf_free(self.0.as_ptr()) };
    }
}

/// Takes what came on a queue, as much as `into` has room for without growing.
///
/// # Safety
/// The port is started, and no other thread is in a burst of the same queue and direction.
pub(super) unsafe fn receive(port: u16, queue: u16, into: &mut Vec<Frame>) -> usize {
    let room = into.spare_capacity_mut();
    let count = u16::try_from(room.len()).unwrap_or(u16::MAX);
    // SAFETY: a frame is a pointer that is not null, which is what the port writes, `count` at most; the rest is the
    // caller's promise.
    let came = unsafe { sys::plimsoll_dpdk_rx_burst(port, queue, room.as_mut_ptr().cast(), count) };
    assert!(came <= count, "a port gives no more than it is asked for");
    // SAFETY: that many were written, and are this caller's alone.
    unsafe { into.set_len(into.len() + usize::from(came)) };
    came.into()
}

/// Hands frames to a queue; what it does not take stays in `frames`.
///
/// # Safety
/// As for [`receive`].
pub(super) unsafe fn transmit(port: u16, queue: u16, frames: &mut Vec<Frame>) -> usize {
    let count = u16::try_from(frames.len()).unwrap_or(u16::MAX);
    // SAFETY: a frame is a pointer; those that are taken are forgotten here.
    let taken = unsafe { sys::plimsoll_dpdk_tx_burst(port, queue, frames.as_mut_ptr().cast(), count) };
    let taken = usize::from(taken.min(count));
    frames.drain(..taken).for_each(mem::forget);
    taken
}

impl Ring {
    /// A ring for `count` frames.
    pub(super) fn new(name: &CStr, count: u32, socket: i32) -> Result<Ring, OpenError> {
        // SAFETY: the name ends with a zero byte and is copied.
        let ring = unsafe { sys::plimsoll_dpdk_ring_create(name.as_ptr(), count, socket) };
        let failed = || {
            OpenError::failed(
                format_args!("a ring for {count} frames cannot be made"),
                super::eal::last_errno(),
            )
        };
        NonNull::new(ring).map(Ring).ok_or_else(failed)
    }

    /// Puts a frame in; a full ring gives it back.
    pub(super) fn put(self, frame: Frame) -> Result<(), Frame> {
        // SAFETY: a ring lives as long as the process and takes from every thread.
        let ret = unsafe { sys::plimsoll_dpdk_ring_enqueue(self.0.as_ptr(), frame.0.as_ptr()) };
        if ret != 0 {
            return Err(frame);
        }
        mem::forget(frame);
        Ok(())
    }

    /// Takes what is in it, as much as `into` has room for without growing.
    ///
    /// # Safety
    /// No other thread takes from this ring meanwhile.
    pub(super) unsafe fn take(self, into: &mut Vec<Frame>) -> usize {
        let room = into.spare_capacity_mut();
        let count = u32::try_from(room.len()).unwrap_or(u32::MAX);
        // SAFETY: only frames were put in; at most `count` are written.
        let came =
            unsafe { sys::plimsoll_dpdk_ring_dequeue(self.0.as_ptr(), room.as_mut_ptr().cast(), count) };
        assert!(came <= count, "a ring gives no more than it is asked for");
        // SAFETY: that many were written, and are this caller's alone.
        unsafe { into.set_len(into.len() + came as usize) };
        came as usize
    }
}
