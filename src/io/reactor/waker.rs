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
//!
//! Other processes have an eventfd of their own. It is an open file that they share with the lane, and so they can make
//! it block, empty it and fill it: the lane reads it without ever blocking, and nothing of the node writes to it. Who
//! empties it takes the others' wakes, which then end no block; a lane's timers do, within a heartbeat.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::ReadWriteFlags;

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
    /// What other processes write to.
    shared_event: OwnedFd,
}

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let state = CachePadded::new(AtomicU32::new(AWAKE));
        Ok(Waker { shared: Arc::new(Shared { state, event: event()?, shared_event: event()? }) })
    }

    /// Ends the lane's block, or keeps it from its next one. To be called after what it shall find was published.
    /// It finds it at the latest when it looks after its [`crate::io::Park::park`] has returned.
    pub fn wake(&self) {
        if self.shared.state.swap(WOKEN, Ordering::SeqCst) == PARKED {
            self.signal();
        }
    }

    /// A descriptor for another process: what is written there ends a block that is under way, or the next one.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.shared.shared_event.try_clone()
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

    /// An eventfd was told readable: empties both.
    pub(super) fn drain(&self) {
        let mut count = [0u8; 8];
        // Empty, or interrupted: either way the next write makes a new edge.
        let _ = rustix::io::read(&self.shared.event, &mut count);
        // Whether this would block is for others to say, and so it is said here. No file has this offset: its own.
        let into = &mut [IoSliceMut::new(&mut count)];
        let _ = rustix::io::preadv2(&self.shared.shared_event, into, u64::MAX, ReadWriteFlags::NOWAIT);
    }

    /// What is to be told readable: written to by this process, and by others.
    pub(super) fn events(&self) -> [BorrowedFd<'_>; 2] {
        [self.shared.event.as_fd(), self.shared.shared_event.as_fd()]
    }
}
