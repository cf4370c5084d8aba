//! Frames longer than a datagram, on their way in: put together in a bounded number of slots and bytes.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::limits::FRAME_BYTES_MAX;
use crate::types::Time;
use crate::wire::datagram::{Cut, FRAGMENTS_MAX, MISSING_BYTES_MAX};

/// Frames that are put together at once, per peer.
pub(super) const SLOTS: usize = 32;

/// The memory of all slots of a peer together.
pub(super) const BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// The memory of a slot that is used at all.
const SLOT_BYTES_MIN: usize = 16 << 10;

/// A frame of which nothing new came for so long is given up.
const ABANDONED_AFTER: Duration = super::kept::KEPT_FOR;

/// How far back it is remembered which frames are done with.
const FRAMES_REMEMBERED: u32 = 1024;

/// How far the number of a frame may be ahead of all others: every one in between took two datagrams at least.
const FRAMES_AHEAD_MAX: u32 = 1 << 16;

const WORDS: usize = FRAGMENTS_MAX.div_ceil(64);

#[derive(Debug)]
pub(super) struct Assembly {
    slots: Vec<Slot>,
    /// Slots in use.
    used: usize,
    /// The memory of all slots.
    bytes: usize,
    /// The highest frame of which something came.
    newest: u32,
    /// By the frame's number modulo their count: it was put together, or given up.
    done: [u64; FRAMES_REMEMBERED as usize / 64],
}

#[derive(Debug)]
struct Slot {
    used: bool,
    cut: Cut,
    /// Fragments that came.
    have: usize,
    /// One beyond the last fragment that came.
    high: usize,
    came: Vec<u64>,
    bytes: Vec<u8>,
    /// When to ask for what is missing.
    ask_at: Time,
    /// When something last came.
    fed_at: Time,
    /// Something came since it was last asked.
    fed: bool,
    /// How often it was asked in vain.
    tries: u32,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// More are missing.
    Taken,
    /// It was the last one: the frame lies in this slot until [`Assembly::release`].
    Whole(usize),
    /// It is there already, or the frame is done with.
    Late,
    /// It contradicts others of its frame, or no sender gets there.
    Contrary,
    /// There is no room for the frame.
    Crowded,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) cut: Cut,
    pub(super) first: usize,
    pub(super) bitmap: [u8; MISSING_BYTES_MAX],
    pub(super) len_bytes: usize,
}

impl Assembly {
    pub(super) fn new() -> Assembly {
        let slot = || Slot {
            used: false,
            cut: Cut::default(),
            have: 0,
            high: 0,
            came: Vec::new(),
            bytes: Vec::new(),
            ask_at: Time::NEVER,
            fed_at: Time(0),
            fed: false,
            tries: 0,
        };
        let slots = (0..SLOTS).map(|_| slot()).collect();
        Assembly { slots, used: 0, bytes: 0, newest: u32::MAX, done: [0; FRAMES_REMEMBERED as usize / 64] }
    }

    /// For a new session; the memory stays.
    pub(super) fn reset(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.used = false);
        self.used = 0;
        self.newest = u32::MAX;
        self.done.fill(0);
    }

    /// Takes a fragment in. What is missing is asked for after `wait`. In `abandoned` the frames are counted that had to go.
    pub(super) fn take(
        &mut self,
        now: Time,
        wait: Duration,
        (cut, fragment, bytes): (Cut, usize, &[u8]),
        abandoned: &mut u64,
    ) -> Outcome {
        let place = match self.slots.iter().position(|slot| slot.used && slot.cut.frame == cut.frame) {
            Some(place) => place,
            None => {
                match self.remember(cut.frame) {
                    Some(false) => {}
                    Some(true) => return Outcome::Late,
                    None => return Outcome::Contrary,
                }
                let Some(place) = self.open(now, wait, cut, abandoned) else { return Outcome::Crowded };
                place
            }
        };
        let slot = &mut self.slots[place];
        if slot.cut != cut {
            return Outcome::Contrary;
        }
        let (word, bit) = (fragment / 64, 1 << (fragment % 64));
        if slot.came[word] & bit != 0 {
            return Outcome::Late;
        }
        slot.came[word] |= bit;
        slot.bytes[cut.range(fragment)].copy_from_slice(bytes);
        slot.have += 1;
        let in_order = fragment == slot.high && slot.have == fragment + 1;
        slot.high = slot.high.max(fragment + 1);
        (slot.fed_at, slot.fed, slot.tries) = (now, true, 0);
        if slot.have == cut.fragments() {
            self.finish(place);
            return Outcome::Whole(place);
        }
        if in_order {
            // Nothing is missing but what is still to come.
            slot.ask_at = now.after(wait);
        }
        Outcome::Taken
    }

    /// A frame that is whole.
    pub(super) fn frame(&self, place: usize) -> &[u8] {
        let slot = &self.slots[place];
        &slot.bytes[..slot.cut.frame_bytes as usize]
    }

    /// Whether the frame is done with; `None`: its number is none.
    fn remember(&mut self, frame: u32) -> Option<bool> {
        let ahead = frame.wrapping_sub(self.newest);
        if (1..=FRAMES_AHEAD_MAX).contains(&ahead) {
            for passed in 1..=ahead.min(FRAMES_REMEMBERED) {
                // The one that was in this place is too far back to matter.
                self.mark(frame.wrapping_sub(ahead.min(FRAMES_REMEMBERED) - passed), false);
            }
            self.newest = frame;
            return Some(false);
        }
        let behind = self.newest.wrapping_sub(frame);
        if behind > u32::MAX / 2 {
            return None;
        }
        let place = frame % FRAMES_REMEMBERED;
        Some(behind >= FRAMES_REMEMBERED || self.done[place as usize / 64] >> (place % 64) & 1 == 1)
    }

    fn mark(&mut self, frame: u32, done: bool) {
        let place = frame % FRAMES_REMEMBERED;
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if done {
            self.done[word] |= bit;
        } else {
            self.done[word] &= !bit;
        }
    }

    fn finish(&mut self, place: usize) {
        self.slots[place].used = false;
        self.used -= 1;
        self.mark(self.slots[place].cut.frame, true);
    }

    /// A slot for a frame.
    fn open(&mut self, now: Time, wait: Duration, cut: Cut, abandoned: &mut u64) -> Option<usize> {
        let need = (cut.frame_bytes as usize).next_power_of_two().max(SLOT_BYTES_MIN);
        let place = match self.spare(need) {
            Some(place) => place,
            None => {
                // Who has waited for long gives way; who makes progress does not.
                let stale = |slot: &&Slot| slot.used && now.since(slot.fed_at) >= 8 * wait;
                let oldest = self.slots.iter().filter(stale).min_by_key(|slot| slot.fed_at)?.cut.frame;
                let place = self.slots.iter().position(|slot| slot.used && slot.cut.frame == oldest)?;
                self.finish(place);
                *abandoned += 1;
                self.spare(need)?
            }
        };
        let slot = &mut self.slots[place];
        let words = cut.fragments().div_ceil(64);
        slot.came[..words].fill(0);
        (slot.used, slot.cut, slot.have, slot.high) = (true, cut, 0, 0);
        (slot.ask_at, slot.fed_at, slot.fed, slot.tries) = (now.after(wait), now, true, 0);
        self.used += 1;
        Some(place)
    }

    /// A free slot with so much memory: the smallest that has it, else one that grows.
    fn spare(&mut self, need: usize) -> Option<usize> {
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.used);
        let fits =
            free().filter(|(_, slot)| slot.bytes.len() >= need).min_by_key(|(_, slot)| slot.bytes.len());
        if let Some((place, _)) = fits {
            return Some(place);
        }
        // One without memory first, so that short and long frames have slots of their own.
        let (place, _) = free().min_by_key(|(_, slot)| slot.bytes.len())?;
        let others = |at: &usize| *at != place;
        let mut bytes = self.bytes - self.slots[place].bytes.len();
        for at in (0..SLOTS).filter(others) {
            if bytes + need <= BYTES_MAX {
                break;
            }
            let slot = &mut self.slots[at];
            if !slot.used {
                bytes -= slot.bytes.len();
                slot.bytes = Vec::new();
            }
        }
        let slot = &mut self.slots[place];
        let fits = bytes + need <= BYTES_MAX;
        slot.bytes = if fits { vec![0; need] } else { Vec::new() };
        slot.came.resize(WORDS, 0);
        self.bytes = bytes + slot.bytes.len();
        fits.then_some(place)
    }

    /// When something is to be asked for, or given up.
    pub(super) fn next_wake(&self) -> Time {
        if self.used == 0 {
            return Time::NEVER;
        }
        self.slots.iter().filter(|slot| slot.used).map(|slot| slot.ask_at).min().unwrap_or(Time::NEVER)
    }

    /// The next frame for which it is time to ask, and what of it is missing.
    pub(super) fn due(&mut self, now: Time, wait: Duration, abandoned: &mut u64) -> Option<Missing> {
        while self.used > 0 {
            let place = self.slots.iter().position(|slot| slot.used && slot.ask_at <= now)?;
            let slot = &mut self.slots[place];
            if now.since(slot.fed_at) >= ABANDONED_AFTER {
                self.finish(place);
                *abandoned += 1;
                continue;
            }
            // While something comes what is behind it may still come by itself.
            let until = if slot.fed { slot.high } else { slot.cut.fragments() };
            slot.tries = if slot.fed { 0 } else { (slot.tries + 1).min(5) };
            slot.fed = false;
            slot.ask_at = now.after(wait * (1 << slot.tries));
            if let Some(missing) = slot.missing(until) {
                return Some(missing);
            }
        }
        None
    }

    /// The memory of all slots, in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        assert_eq!(self.bytes, self.slots.iter().map(|slot| slot.bytes.len()).sum::<usize>());
        self.bytes
    }
}

impl Slot {
    fn has(&self, fragment: usize) -> bool {
        self.came[fragment / 64] >> (fragment % 64) & 1 == 1
    }

    /// The first fragments below `until` that are missing, as many as a bitmap holds.
    fn missing(&self, until: usize) -> Option<Missing> {
        let first = (0..until).find(|&fragment| !self.has(fragment))?;
        let mut bitmap = [0; MISSING_BYTES_MAX];
        let mut len_bytes = 0;
        for fragment in first..until.min(first + MISSING_BYTES_MAX * 8) {
            if !self.has(fragment) {
                let bit = fragment - first;
                bitmap[bit / 8] |= 1 << (bit % 8);
                len_bytes = bit / 8 + 1;
            }
        }
        Some(Missing { cut: self.cut, first, bitmap, len_bytes })
    }
}
