//! What both ends do now: said by the one that measures.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// One phase for all threads of this process; the other end may be another process.
pub(super) struct Phase {
    now: AtomicU32,
    /// Where another process hears of it, a byte each.
    other: Option<Mutex<ChildStdin>>,
}

impl Phase {
    pub(super) fn new(phase: u32) -> Phase {
        Phase { now: AtomicU32::new(phase), other: None }
    }

    #[cfg(feature = "dpdk")]
    pub(super) fn told_to(phase: u32, other: ChildStdin) -> Phase {
        Phase { now: AtomicU32::new(phase), other: Some(Mutex::new(other)) }
    }

    pub(super) fn get(&self) -> u32 {
        self.now.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, phase: u32) {
        self.now.store(phase, Ordering::Release);
        if let Some(other) = &self.other
            && let Ok(mut other) = other.lock()
        {
            // One that has ended is missed by its link.
            let _ = other.write_all(&[phase as u8]);
        }
    }
}
