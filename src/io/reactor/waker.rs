//! How another thread ends a lane's block.
//!
//! One word says what the lane does: `AWAKE`, `PARKED`, or `WOKEN`. A waker swaps `WOKEN` in, and writes to the
//! eventfd only if it swapped `PARKED` out. The lane enters its block only by exchanging `AWAKE` for `PARKED`, so for
//! any wake one of two things holds: it came before the exchange, which then fails and the lane does not block; or it
//! came after, has seen `PARKED`, and its write ends the block. What was published before the wake is seen by the lane
//! after, because both sides touch the same word with acquire and release.
//!
//! A `WOKEN` that a busy lane finds costs it one turn without blocking. It is not cleared anywhere but in front of
//! a block: clearing it after the mailbox was looked at would lose what came in between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
const WOKEN: u32 = 2;

/// Wakes one lane from any thread. While the lane does not block, a wake is one atomic swap. Clones wake the same lane.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Written by other threads and by the lane at every block: a line of its own keeps those writes away from what the
    /// lane reads in every turn.
    state: CachePadded<AtomicU32>,
    event: OwnedFd,
}

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { shared: Arc::new(Shared { state: CachePadded::new(AtomicU32::new(AWAKE)), event }) })
    }

    /// Ends the lane's block, or keeps it from its next one. To be called after what it shall find was published.
    /// It finds it at the latest when it looks after its [`crate::io::Park::park`] has returned.
    pub fn wake(&self) {
        if self.shared.state.swap(WOKEN, Ordering::SeqCst) == PARKED {
            self.signal();
        }
    }

    /// A descriptor of the same eventfd, for another process: what is written there ends a block that is under way, or
    /// the next one.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.shared.event.try_clone()
    }

    fn signal(&self) {
        // The one thing that could refuse is a full counter, and a full counter is readable: the lane wakes anyway.
        while rustix::io::write(&self.shared.event, &1u64.to_ne_bytes()) == Err(rustix::io::Errno::INTR) {}
    }

    /// The lane is about to block. False: it was woken in the meantime and must not.
    pub(super) fn enter_park(&self) -> bool {
        let state = &self.shared.state;
        if state.compare_exchange(AWAKE, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return true;
        }
        // A swap, not a store: it reads the last wake, and so sees what was published before it.
        state.swap(AWAKE, Ordering::SeqCst);
        false
    }

    /// The lane does not block any more.
    pub(super) fn leave_park(&self) {
        self.shared.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// The eventfd was told readable: empties it.
    pub(super) fn drain(&self) {
        let mut count = [0u8; 8];
        // Empty, or interrupted: either way the next write makes a new edge.
        let _ = rustix::io::read(&self.shared.event, &mut count);
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
