//! A ring whose completions are polled from the device (`IORING_SETUP_IOPOLL`): no interrupt, and nobody who could wake
//! a lane that blocks. It takes nothing but reads and writes, so it stands beside the lane's own ring, and while
//! something is under way on it the lane does not block.
#![allow(unsafe_code, reason = "the ring takes raw memory; who owns it is said by the caller")]

use std::collections::VecDeque;
use std::io;

use io_uring::{IoUring, squeue};

use super::uring::Completion;

/// More than a disk has under way.
const ENTRIES: u32 = 64;

/// See the module.
pub(super) struct Polled {
    pub(super) ring: IoUring,
    in_flight: usize,
}

impl Polled {
    pub(super) fn new() -> io::Result<Polled> {
        let mut builder = IoUring::builder();
        builder.setup_iopoll().setup_single_issuer();
        Ok(Polled { ring: builder.build(ENTRIES)?, in_flight: 0 })
    }

    /// Whether the lane must not block.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Queues an operation. `false`: it takes no more before something was submitted.
    ///
    /// # Safety
    /// As [`super::uring::Uring::start`].
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: by this function's own contract.
        let is_queued = unsafe { self.ring.submission().push(entry) }.is_ok();
        self.in_flight += usize::from(is_queued);
        is_queued
    }

    /// Hands what is queued to the kernel, asks the device what has finished, and takes that in.
    pub(super) fn turn(&mut self, completions: &mut VecDeque<Completion>) {
        if self.in_flight == 0 {
            return;
        }
        // What it could not take now it takes in the next turn: while something is in flight there is one. Other errors
        // are told by the operations' own completions.
        let _ = self.ring.submit();
        for entry in self.ring.completion() {
            self.in_flight -= 1;
            completions.push_back(Completion { operation: entry.user_data() as u32, result: entry.result() });
        }
    }
}
