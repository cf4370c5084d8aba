//! How either end of an attachment wakes the other, at the cost of a system call only when the other sleeps.
//!
//! Both ways are Dekker's: who goes to sleep says so, then looks once more at the ring; who publishes looks whether the other
//! has said so; and a fence between the two steps, on both sides, sees to it that at least one of them sees the
//! other. A lane that never sleeps says so once and for all, and its engines need no fence.

use core::sync::atomic::Ordering;

use super::memory::{AtomicU32, fence};
use super::{EngineEnd, LaneEnd};

/// The lane looks at its rings, or will before it blocks.
const AWAKE: u32 = 0;
/// It blocks, or is about to.
const PARKED: u32 = 1;
/// It never blocks.
const NEVER_PARKS: u32 = 2;
/// It blocks, and has more completions than the ring had room for.
const PARKED_FOR_ROOM: u32 = 4;
/// It has left, and does not look at the ring any more.
const GONE: u32 = 3;

/// The engine's thread does not sleep.
const UP: u32 = 0;
/// It sleeps, or is about to. A futex word: it sleeps while the word is this.
pub const ASLEEP: u32 = 1;

impl LaneEnd {
    fn word(&self) -> &AtomicU32 {
        &self.region.control().lane
    }

    /// Says that the lane never blocks: it needs no waking.
    pub fn never_parks(&self) {
        self.word().store(NEVER_PARKS, Ordering::Release);
    }

    /// The lane is about to block; followed by one [`settle`] for all its rings, and a last look at each. `for_room`: it
    /// also waits for completions to be taken.
    pub fn enter_park(&self, for_room: bool) {
        self.word().store(if for_room { PARKED_FOR_ROOM } else { PARKED }, Ordering::Relaxed);
    }

    /// The lane is awake again.
    pub fn leave_park(&self) {
        self.word().store(AWAKE, Ordering::Relaxed);
    }

    /// Says that nobody looks at the rings any more. What was published and not answered is in doubt.
    pub fn leave(&self) {
        self.word().store(GONE, Ordering::Release);
    }

    /// After something was published: the futex word to be woken, if the engine's thread sleeps. Told once.
    pub fn sleeper(&self) -> Option<&AtomicU32> {
        fence(Ordering::SeqCst);
        let word: &AtomicU32 = &self.region.control().engine;
        if word.load(Ordering::Relaxed) != ASLEEP {
            return None;
        }
        word.store(UP, Ordering::Relaxed);
        Some(word)
    }
}

/// Between saying that a lane will block and the last look at its rings.
pub fn settle() {
    fence(Ordering::SeqCst);
}

impl EngineEnd {
    fn lane(&self) -> &AtomicU32 {
        &self.region.control().lane
    }

    /// After something was published: whether the lane must be woken. Of several that find it parked at once one is told.
    #[inline]
    pub fn must_wake(&self) -> bool {
        let seen = self.lane().load(Ordering::Relaxed);
        if seen == NEVER_PARKS {
            return false;
        }
        fence(Ordering::SeqCst);
        let seen = self.lane().load(Ordering::Relaxed);
        matches!(seen, PARKED | PARKED_FOR_ROOM) && self.wakes(seen)
    }

    /// After completions were taken: whether the lane must be woken because it has more. Without a fence: what is missed
    /// here the next completion that is taken finds, and a lane's timers at the latest.
    #[inline]
    pub fn must_wake_for_room(&self) -> bool {
        self.lane().load(Ordering::Relaxed) == PARKED_FOR_ROOM && self.wakes(PARKED_FOR_ROOM)
    }

    fn wakes(&self, seen: u32) -> bool {
        self.lane().compare_exchange(seen, AWAKE, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Whether the lane has said that it looks at the rings no more.
    #[inline]
    pub fn is_left(&self) -> bool {
        self.lane().load(Ordering::Acquire) == GONE
    }

    /// The engine's thread is about to sleep on the word that comes back, while that is [`ASLEEP`]. `None`: something has
    /// come meanwhile.
    pub fn enter_sleep(&self) -> Option<&AtomicU32> {
        let word: &AtomicU32 = &self.region.control().engine;
        word.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.completions.has_something() || self.is_left() {
            word.store(UP, Ordering::Relaxed);
            return None;
        }
        Some(word)
    }

    /// It is awake again.
    pub fn leave_sleep(&self) {
        self.region.control().engine.store(UP, Ordering::Relaxed);
    }
}
