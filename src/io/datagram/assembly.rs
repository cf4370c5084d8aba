//! Frames longer than a datagram, on their way in: put together in a bounded number of slots and bytes.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::Counters;
use super::ration::Ration;
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

/// A frame of which nothing came for so many times the wait for what is missing gives way to another.
const STALE_WAITS: u32 = 8;

/// Repair requests that may bring nothing: so many at once, and then one at a time. A frame that becomes whole allows
/// for a multiple of what it has cost, for on a bad path most requests may be lost, or their answers. A fragment alone
/// allows for none: who sends what never becomes whole can send those too. So they are rare only for it.
const ASKS_MAX: u32 = 64;
const ASK_PAUSE: Duration = Duration::from_millis(8);
const ASKS_PER_ASK: u32 = 4;

const WORDS: usize = FRAGMENTS_MAX.div_ceil(64);

#[derive(Debug)]
pub(super) struct Assembly {
    slots: Vec<Slot>,
    /// Slots in use, a bit each.
    used: u32,
    /// Their frames, side by side: every fragment looks for its own.
    frames: [u32; SLOTS],
    /// There is no room for a frame that needs so much, before this time or until one is done with.
    crowded: Option<(usize, Time)>,
    /// Repair requests.
    asks: Ration,
    /// Before this time nothing is to be asked for, nor given up.
    wake: Time,
    /// Where the last fragment went: the next one mostly goes there too.
    last: usize,
    /// The memory of all slots.
    bytes: usize,
    /// Fragments of frames that were given up, until they are asked for.
    wasted: usize,
    /// The highest frame of which something came.
    newest: u32,
    /// By the frame's number modulo their count: it was put together, or given up.
    done: [u64; FRAMES_REMEMBERED as usize / 64],
}

#[derive(Debug)]
struct Slot {
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
    /// Repair requests sent for it.
    asked: u32,
}

const _: () = assert!(SLOTS == u32::BITS as usize, "every slot has a bit");

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
            cut: Cut::default(),
            have: 0,
            high: 0,
            came: Vec::new(),
            bytes: Vec::new(),
            ask_at: Time::NEVER,
            fed_at: Time(0),
            fed: false,
            tries: 0,
            asked: 0,
        };
        Assembly {
            slots: (0..SLOTS).map(|_| slot()).collect(),
            used: 0,
            frames: [0; SLOTS],
            crowded: None,
            asks: Ration::new(ASKS_MAX, ASK_PAUSE),
            wake: Time::NEVER,
            last: 0,
            bytes: 0,
            wasted: 0,
            newest: u32::MAX,
            done: [0; FRAMES_REMEMBERED as usize / 64],
        }
    }

    /// For a new session; the memory stays.
    pub(super) fn reset(&mut self) {
        (self.used, self.crowded, self.wake) = (0, None, Time::NEVER);
        self.asks.refill();
        self.wasted = 0;
        self.newest = u32::MAX;
        self.done.fill(0);
    }

    /// Takes a fragment in. What is missing is asked for after `wait`. The frames that had to go for it are counted.
    pub(super) fn take(
        &mut self,
        now: Time,
        wait: Duration,
        (cut, fragment, bytes): (Cut, usize, &[u8]),
        counters: &mut Counters,
    ) -> Outcome {
        let is_it = |at: &usize| self.frames[*at] == cut.frame && self.is_used(*at);
        let place = match Some(self.last).filter(is_it).or_else(|| (0..SLOTS).find(is_it)) {
            Some(place) => place,
            None => {
                match self.remember(cut.frame) {
                    Some(false) => {}
                    Some(true) => return Outcome::Late,
                    None => return Outcome::Contrary,
                }
                let Some(place) = self.open(now, wait, cut, counters) else { return Outcome::Crowded };
                place
            }
        };
        self.last = place;
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
            self.asks.give(ASKS_PER_ASK * slot.asked);
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

    fn is_used(&self, place: usize) -> bool {
        self.used >> place & 1 == 1
    }

    /// The slots in use, or the others.
    fn places(&self, used: bool) -> impl Iterator<Item = usize> + use<> {
        let bits = if used { self.used } else { !self.used };
        (0..SLOTS).filter(move |place| bits >> place & 1 == 1)
    }

    fn finish(&mut self, place: usize) {
        self.used &= !(1 << place);
        self.crowded = None;
        self.mark(self.slots[place].cut.frame, true);
    }

    fn abandon(&mut self, place: usize, counters: &mut Counters) {
        self.finish(place);
        self.wasted += self.slots[place].have;
        counters.frames_abandoned += 1;
    }

    /// How many fragments of frames that were given up have come, since this was last asked.
    pub(super) fn take_wasted(&mut self) -> usize {
        core::mem::take(&mut self.wasted)
    }

    /// A slot for a frame.
    fn open(&mut self, now: Time, wait: Duration, cut: Cut, counters: &mut Counters) -> Option<usize> {
        let need = (cut.frame_bytes as usize).next_power_of_two().max(SLOT_BYTES_MIN);
        if self.crowded.is_some_and(|(least, until)| need >= least && now < until) {
            return None;
        }
        let place = match self.spare(need) {
            Some(place) => place,
            None => {
                // Who has waited for long gives way; who makes progress does not.
                let oldest = self.places(true).min_by_key(|&place| self.slots[place].fed_at)?;
                let stale_at = self.slots[oldest].fed_at.after(STALE_WAITS * wait);
                if now < stale_at {
                    self.crowded = Some((need, stale_at));
                    return None;
                }
                self.abandon(oldest, counters);
                self.spare(need)?
            }
        };
        let slot = &mut self.slots[place];
        let words = cut.fragments().div_ceil(64);
        slot.came[..words].fill(0);
        (slot.cut, slot.have, slot.high, slot.asked) = (cut, 0, 0, 0);
        (slot.ask_at, slot.fed_at, slot.fed, slot.tries) = (now.after(wait), now, true, 0);
        self.frames[place] = cut.frame;
        self.used |= 1 << place;
        self.wake = self.wake.min(slot.ask_at);
        Some(place)
    }

    /// A free slot with so much memory: the smallest that has it, else one that grows.
    fn spare(&mut self, need: usize) -> Option<usize> {
        let len_bytes = |place: &usize| self.slots[*place].bytes.len();
        let fits = self.places(false).filter(|place| len_bytes(place) >= need).min_by_key(len_bytes);
        if fits.is_some() {
            return fits;
        }
        // One without memory first, so that short and long frames have slots of their own.
        let place = self.places(false).min_by_key(len_bytes)?;
        if need + self.places(true).map(|place| len_bytes(&place)).sum::<usize>() > BYTES_MAX {
            return None;
        }
        let mut bytes = self.bytes - len_bytes(&place);
        for other in self.places(false).filter(|other| *other != place) {
            if bytes + need <= BYTES_MAX {
                break;
            }
            bytes -= core::mem::take(&mut self.slots[other].bytes).len();
        }
        let slot = &mut self.slots[place];
        slot.bytes = vec![0; need];
        slot.came.resize(WORDS, 0);
        self.bytes = bytes + need;
        Some(place)
    }

    /// When something may have to be asked for, or given up.
    pub(super) fn next_wake(&self) -> Time {
        self.wake
    }

    /// The next frame for which it is time to ask, and what of it is missing.
    pub(super) fn due(&mut self, now: Time, wait: Duration, counters: &mut Counters) -> Option<Missing> {
        while self.wake <= now {
            // Most fragments come in their order and put their frame's time off: only here it is looked for.
            let first = self.places(true).min_by_key(|&place| self.slots[place].ask_at);
            let ask_at = |place: usize| self.slots[place].ask_at;
            self.wake = first.map_or(Time::NEVER, ask_at);
            let Some(place) = first.filter(|_| self.wake <= now) else { break };
            let slot = &mut self.slots[place];
            if now.since(slot.fed_at) >= ABANDONED_AFTER {
                self.abandon(place, counters);
                continue;
            }
            // While something comes what is behind it may still come by itself.
            let until = if slot.fed { slot.high } else { slot.cut.fragments() };
            slot.tries = if slot.fed { 0 } else { (slot.tries + 1).min(5) };
            slot.fed = false;
            slot.ask_at = now.after(wait * (1 << slot.tries));
            if slot.have == until {
                continue;
            }
            // What is missing is costly to find: not for who has used its requests up.
            if self.asks.take(now) {
                slot.asked += 1;
                return slot.missing(until);
            }
            counters.repairs_withheld += 1;
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
    /// The first fragments below `until` that are missing, as many as a bitmap holds.
    fn missing(&self, until: usize) -> Option<Missing> {
        let gaps = |word: usize| {
            let bits = until - 64 * word;
            !self.came[word] & if bits < 64 { (1 << bits) - 1 } else { u64::MAX }
        };
        let words = until.div_ceil(64);
        let first = (0..words).find(|&word| gaps(word) != 0)?;
        let mut bitmap = [0; MISSING_BYTES_MAX];
        for (bytes, word) in bitmap.chunks_exact_mut(8).zip(first..words) {
            bytes.copy_from_slice(&gaps(word).to_le_bytes());
        }
        let len_bytes = bitmap.iter().rposition(|&byte| byte != 0)? + 1;
        Some(Missing { cut: self.cut, first: 64 * first, bitmap, len_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(1);
    const LONG: Cut = Cut { frame: 0, frame_bytes: 4 << 20, unit: 65_528 };

    fn take(assembly: &mut Assembly, now: Time, cut: Cut, fragment: usize) -> Outcome {
        let bytes = vec![7; cut.range(fragment).len()];
        assembly.take(now, WAIT, (cut, fragment, &bytes), &mut Counters::default())
    }

    #[test]
    fn what_is_missing_is_asked_for_and_nothing_else() {
        let cut = Cut { frame: 0, frame_bytes: 300 * 256 - 1, unit: 256 };
        for missing in [&[0][..], &[63, 64], &[0, 1, 127, 299], &[130, 255, 256, 298]] {
            let mut assembly = Assembly::new();
            for fragment in (0..300).filter(|fragment| !missing.contains(fragment)) {
                assert_eq!(take(&mut assembly, Time(0), cut, fragment), Outcome::Taken);
            }
            let mut asked = Vec::new();
            for wait in 1..4 {
                let due = assembly.due(Time(0).after(wait * WAIT), WAIT, &mut Counters::default());
                let Some(Missing { first, bitmap, len_bytes, .. }) = due else { continue };
                let bits = (0..8 * len_bytes).filter(|bit| bitmap[bit / 8] >> (bit % 8) & 1 == 1);
                asked = bits.map(|bit| first + bit).collect();
            }
            assert_eq!(asked, missing);
        }
    }

    /// That there was no room is remembered: it must not outlive what it was true for.
    #[test]
    fn room_is_found_as_soon_as_there_is_some() {
        let mut assembly = Assembly::new();
        let long = |frame| Cut { frame, ..LONG };
        let at = |waits| Time(0).after(waits * WAIT);
        for frame in 0..4 {
            assert_eq!(take(&mut assembly, at(frame), long(frame), 0), Outcome::Taken);
        }
        for frame in 4..8 {
            assert_eq!(take(&mut assembly, at(4), long(frame), 0), Outcome::Crowded);
        }
        // A long frame that becomes whole makes room.
        let last = LONG.fragments() - 1;
        for fragment in 1..last {
            assert_eq!(take(&mut assembly, at(4), long(3), fragment), Outcome::Taken);
        }
        assert_eq!(take(&mut assembly, at(4), long(3), last), Outcome::Whole(3));
        assert_eq!(take(&mut assembly, at(4), long(4), 0), Outcome::Taken);
        // So does one that is stale, but not before it is.
        assert_eq!(take(&mut assembly, at(7), long(5), 0), Outcome::Crowded);
        assert_eq!(take(&mut assembly, at(STALE_WAITS), long(5), 0), Outcome::Taken);
        assert_eq!(take(&mut assembly, at(STALE_WAITS), long(6), 0), Outcome::Crowded);
        assert_eq!(take(&mut assembly, at(STALE_WAITS + 1), long(6), 0), Outcome::Taken);
        assert_eq!(take(&mut assembly, at(STALE_WAITS + 1), long(7), 0), Outcome::Crowded);
        // A new session has all of it.
        assembly.reset();
        assert_eq!(take(&mut assembly, at(STALE_WAITS + 1), long(0), 0), Outcome::Taken);
    }
}
