//! What a carrier of datagrams does with the ring.
#![allow(unsafe_code, reason = "the ring takes raw descriptors and raw memory")]

use std::io;
use std::os::fd::RawFd;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};

use super::{KIND_DISK, KIND_NONE, OF_DATAGRAMS, Uring};

/// What the kernel has to say of an operation on datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// The carrier's number for it.
    pub(crate) operation: u32,
    /// Bytes, or a negated error number.
    pub(crate) result: i32,
    /// See [`cqueue`]: whether there is more to come, and which provided buffer it is.
    pub(crate) flags: u32,
}

/// The number of the one receive.
pub(crate) const RECEIVE: u32 = 0;

impl Datagram {
    pub(super) fn of(entry: &cqueue::Entry) -> Datagram {
        Datagram { operation: entry.user_data() as u32, result: entry.result(), flags: entry.flags() }
    }
}

impl Uring {
    /// Makes a ring of so many provided buffers known to the kernel, as a group.
    ///
    /// # Safety
    /// `address` is that of as many entries, at the beginning of a page; they and the buffers that they name stay
    /// allocated, and are left alone while they are the kernel's, until [`Uring::take_back_buffers`].
    pub(crate) unsafe fn provide_buffers(
        &mut self,
        address: u64,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: by this function's own contract.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, entries, group, 0) }
    }

    /// Ends [`Uring::provide_buffers`].
    pub(crate) fn take_back_buffers(&mut self, group: u16) {
        // An error says that there are none.
        let _ = self.ring.submitter().unregister_buf_ring(group);
    }

    /// Queues an operation on datagrams; [`Uring::next_came`] (of the receive) or [`Uring::next_sent`] gives the number
    /// back at least once. What is not urgent waits for the lane's next kick.
    ///
    /// # Safety
    /// The memory that the entry names stays valid, and is used by nobody in a conflicting way, and its descriptor
    /// stays open, until the kernel has said the last of it.
    pub(crate) unsafe fn start_datagram(&mut self, entry: squeue::Entry, operation: u32, urgent: bool) {
        self.urgent |= urgent;
        // SAFETY: by this function's own contract.
        unsafe { self.push(&entry.user_data(KIND_DISK | OF_DATAGRAMS | u64::from(operation))) }
    }

    /// The next word on the receive, as of the last poll.
    pub(crate) fn next_came(&mut self) -> Option<Datagram> {
        self.came.pop_front()
    }

    /// The same, and it stays.
    pub(crate) fn peek_came(&self) -> Option<Datagram> {
        self.came.front().copied()
    }

    /// The next word on a send, as of the last poll.
    pub(crate) fn next_sent(&mut self) -> Option<Datagram> {
        self.sent.pop_front()
    }

    /// Asks the kernel to end all operations on this descriptor. Each is answered for itself.
    pub(crate) fn cancel_datagrams(&mut self, fd: RawFd) {
        let which = CancelBuilder::fd(Fd(fd)).all();
        let entry = opcode::AsyncCancel2::new(which).build().user_data(KIND_NONE);
        self.push_entry(&entry);
        self.submit();
    }
}
