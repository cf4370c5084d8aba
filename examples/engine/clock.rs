//! Commit stamps, and the *ticks* into which they are cut.
//!
//! A stamp is drawn from one counter, by a transaction that holds the locks of all that it writes and validates after
//! that what it has read: so of two transactions, the one that saw the other, or overwrote what it had read, has the
//! greater stamp.
//!
//! # Why ticks
//! A buffer holds several transactions and carries one stamp, and an epoch that is cut short kills whole buffers. Were
//! buffers cut anywhere, the cut could fall between two transactions of one buffer: a transaction elsewhere that has
//! read from the first of them would live, and the buffer, stamped with the second, would be dead. So all workers cut
//! at the same stamps, the multiples of [`TICK`], and a buffer carries its tick's end: every stamp that a watermark
//! comes to is one of these, and covers either all that a transaction may have read from, or not the transaction.

use std::sync::atomic::{AtomicU64, Ordering};

/// The stamps of a tick.
pub(crate) const TICK: u64 = 256;

/// The counter. One for each tenure.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// Beyond the end of a tick.
    pub(crate) fn new(last: u64) -> Clock {
        assert!(last.is_multiple_of(TICK), "a clock begins with a tick");
        Clock(AtomicU64::new(last))
    }

    /// A stamp greater than all that were drawn.
    pub(crate) fn draw(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Ends the tick of which something was drawn: what comes is of a later one. So that a tick ends in time, too.
    pub(crate) fn end_tick(&self) {
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
            (!last.is_multiple_of(TICK)).then(|| end_of(last))
        });
    }

    /// The end of the last tick of which nothing more will be drawn.
    pub(crate) fn ended(&self) -> u64 {
        self.0.load(Ordering::Acquire) / TICK * TICK
    }
}

/// The end of the tick of a stamp.
pub(crate) fn end_of(stamp: u64) -> u64 {
    stamp.next_multiple_of(TICK)
}
