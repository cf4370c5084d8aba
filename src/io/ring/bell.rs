//! How either end of an attachment wakes the other, at the cost of a system call only when the other sleeps.
//!
//! Both ways are Dekker's: who goes to sleep says so, then looks once more at the ring; who publishes looks whether the
//! other has said so; and a fence between the two steps, on both sides, sees to it that at least one of them sees the
//! other. A lane that never sleeps says so once and for all, and its engines need no fence. A thread that waits for
//! several lanes sleeps on the words of all its rings, and any of them wakes it.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::memory::{AtomicU32, fence};
use super::{EngineEnd, LaneEnd, Region};

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

    /// The lane is about to block; followed by one [`settle`] for all its rings, and a last look at each. `for_room`:
    /// it also waits for completions to be taken.
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
        sleeper(&self.region)
    }
}

/// Wakes an engine's thread that sleeps on its ring, from a third side: another thread of the engine. What it is woken
/// for must be written before, and looked at by the sleeper in its last look.
#[derive(Clone, Debug)]
pub struct Rouser {
    region: Arc<Region>,
}

impl Rouser {
    /// After what it is woken for was written: the futex word to be woken, if the engine's thread sleeps. If the lane
    /// has taken that over meanwhile it is the lane that wakes it.
    pub fn sleeper(&self) -> Option<&AtomicU32> {
        sleeper(&self.region)
    }
}

fn sleeper(region: &Region) -> Option<&AtomicU32> {
    fence(Ordering::SeqCst);
    let word: &AtomicU32 = &region.control().engine;
    if word.load(Ordering::Relaxed) != ASLEEP {
        return None;
    }
    word.store(UP, Ordering::Relaxed);
    Some(word)
}

/// Between saying that a lane will block, or that an engine's thread will sleep, and the last look at its rings.
pub fn settle() {
    fence(Ordering::SeqCst);
}

impl EngineEnd {
    fn lane(&self) -> &AtomicU32 {
        &self.region.control().lane
    }

    /// After something was published: whether the lane must be woken. Of several that find it parked at once one is
    /// told.
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

    /// After completions were taken: whether the lane must be woken because it has more. Without a fence: what is
    /// missed here the next completion that is taken finds, and a lane's timers at the latest.
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

    /// The engine's thread is about to sleep; followed by one [`settle`] for all the rings on which it does, and a last
    /// look at each ([`EngineEnd::has_news`]) and at whatever else it is woken for.
    pub fn enter_sleep(&self) {
        self.sleep_word().store(ASLEEP, Ordering::Relaxed);
    }

    /// What the thread sleeps on, while it is [`ASLEEP`].
    pub fn sleep_word(&self) -> &AtomicU32 {
        &self.region.control().engine
    }

    /// Whether there is something that a thread does not sleep over: a completion, or that the lane has left.
    pub fn has_news(&self) -> bool {
        self.completions.has_something() || self.is_left()
    }

    /// It is awake again.
    pub fn leave_sleep(&self) {
        self.sleep_word().store(UP, Ordering::Relaxed);
    }

    /// What others of the engine wake the thread by.
    pub fn rouser(&self) -> Rouser {
        Rouser { region: Arc::clone(&self.region) }
    }
}
