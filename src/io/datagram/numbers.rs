//! The numbers of a session's datagrams: what has been seen, what may be sent.

use alloc::boxed::Box;
use alloc::vec;
use core::time::Duration;

use crate::types::Time;

/// The largest window that is used, however much a carrier holds.
const WINDOW_MAX: usize = 8192;

/// Numbers that may be sent beyond the limit, to ask for more: they are kept back from the window that is told.
pub(super) const PROBES_HELD: u64 = 16;

/// Fragments under way at most, so that a short frame waits behind no more of them.
const FRAGMENTS_UNDER_WAY_MAX: u64 = 256;

/// One datagram that has brought nothing is forgiven after each of these. See [`Seen::waste`].
const FORGIVEN_EACH: Duration = Duration::from_micros(250);

/// The window that is told, of what a carrier holds.
pub(super) fn window_of(carrier_window: usize) -> u64 {
    carrier_window.min(WINDOW_MAX) as u64 - PROBES_HELD
}

/// After how many datagrams the sender is told about new credits at the latest.
fn step_of(window: u64) -> u64 {
    (window / 4).clamp(1, 64)
}

/// What has come of the other end's numbers.
#[derive(Debug)]
pub(super) struct Seen {
    /// One beyond the highest that came.
    end: u64,
    /// For every number below `end`, as far back as there are bits: whether it came. The place is the number modulo
    /// their count.
    came: Box<[u64]>,
    /// The highest limit that was told.
    told: u64,
    window: u64,
    /// Datagrams that brought nothing and are not forgiven: the window is smaller by as many.
    wasted: u64,
    /// As of when.
    forgiven_at: Time,
}

/// A number that was not seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fresh {
    /// So many numbers were passed over.
    pub(super) passed: u64,
    /// It was one of those passed over before.
    pub(super) late: bool,
}

/// Why a number is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It has come before, or nobody remembers.
    Duplicate,
    /// It was never given credit for.
    Beyond,
}

impl Seen {
    pub(super) fn new(window: u64) -> Seen {
        let bits = (2 * window).next_power_of_two().max(1024) as usize;
        Seen {
            end: 0,
            came: vec![0; bits / 64].into_boxed_slice(),
            told: window,
            window,
            wasted: 0,
            forgiven_at: Time(0),
        }
    }

    /// For a new session.
    pub(super) fn reset(&mut self) {
        self.came.fill(0);
        (self.end, self.told, self.wasted) = (0, self.window, 0);
    }

    fn bits(&self) -> u64 {
        self.came.len() as u64 * 64
    }

    /// Takes note of a number.
    pub(super) fn take(&mut self, number: u64) -> Result<Fresh, Unfit> {
        if number >= self.told + PROBES_HELD {
            return Err(Unfit::Beyond);
        }
        if number + self.bits() < self.end {
            return Err(Unfit::Duplicate);
        }
        let late = number < self.end;
        let passed = number.saturating_sub(self.end);
        let from = self.end;
        if !late {
            // At most a window and the probes: what is passed over has not come yet.
            for passed in from..number {
                let (word, bit) = self.place(passed);
                self.came[word] &= !bit;
            }
            self.end = number + 1;
        }
        let (word, bit) = self.place(number);
        if late && self.came[word] & bit != 0 {
            return Err(Unfit::Duplicate);
        }
        self.came[word] |= bit;
        Ok(Fresh { passed, late })
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let at = number % self.bits();
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Below what the other end may number now; from here on it counts as told.
    pub(super) fn tell(&mut self) -> u64 {
        self.told = self.told.max(self.room());
        self.told
    }

    fn room(&self) -> u64 {
        self.end + self.window - self.wasted
    }

    /// Whether the other end has a right to hear about new credits.
    pub(super) fn owes(&self) -> bool {
        self.room() >= self.told + step_of(self.window)
    }

    /// When it has, if nothing else comes.
    pub(super) fn owes_at(&self) -> Time {
        let lacks = (self.told + step_of(self.window)).saturating_sub(self.room());
        if lacks == 0 || lacks > self.wasted {
            Time::NEVER
        } else {
            self.forgiven_at.after(FORGIVEN_EACH * lacks as u32)
        }
    }

    /// So many datagrams brought nothing. Credits for more of them would be sends that a flood asks for, and so they
    /// are given only as time passes, or for what is of use; one that is not given credit for is dropped unread.
    pub(super) fn waste(&mut self, datagrams: usize) {
        self.wasted = (self.wasted + datagrams as u64).min(self.window);
    }

    /// So many were of use, or not.
    pub(super) fn value(&mut self, datagrams: usize, of_use: bool) {
        if of_use {
            self.wasted = self.wasted.saturating_sub(datagrams as u64);
        } else {
            self.waste(datagrams);
        }
    }

    /// As if much time had passed.
    #[cfg(test)]
    pub(super) fn forgive_all(&mut self) {
        self.wasted = 0;
    }

    /// Time has passed.
    pub(super) fn forgive(&mut self, now: Time) {
        if self.wasted == 0 {
            self.forgiven_at = now;
            return;
        }
        let more = now.since(self.forgiven_at).as_nanos() as u64 / FORGIVEN_EACH.as_nanos() as u64;
        if more > 0 {
            self.wasted = self.wasted.saturating_sub(more);
            self.forgiven_at = now;
        }
    }
}

/// What a datagram is to the credits: who comes later leaves something to who comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Asks for credits when there are none.
    Probe,
    /// Credits for the other end, repair requests.
    Control,
    /// A whole frame.
    Data,
    /// A part of a long one.
    Fragment,
}

/// What may be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credits {
    /// The number of the next datagram.
    next: u64,
    /// The next number must be below this.
    limit: u64,
    /// The other end's window.
    window: u64,
    /// Kept for credits and repair requests, so that both ends can go on telling when neither may send frames.
    reserve: u64,
}

impl Credits {
    /// For a new session. `limit` is what the other end said first: its window.
    pub(super) fn new(limit: u64, own_window: u64) -> Credits {
        let window = limit.min(WINDOW_MAX as u64);
        // What the other end may send before it hears more is answered with so many credits.
        let reserve = (own_window / step_of(own_window) + 2).min(window / 2);
        Credits { next: 0, limit: window, window, reserve }
    }

    pub(super) fn has(&self, class: Class) -> bool {
        let Credits { next, limit, window, reserve } = *self;
        match class {
            Class::Probe => next < limit + PROBES_HELD,
            Class::Control => next < limit,
            Class::Data => next + reserve < limit,
            Class::Fragment => {
                next + reserve + window / 4 < limit && next + window < limit + FRAGMENTS_UNDER_WAY_MAX
            }
        }
    }

    /// The number of the next datagram; it is spent with [`Credits::spend`], once the carrier has taken it.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn spend(&mut self) {
        self.next += 1;
    }

    /// The other end has told a limit; whether that is news. Beyond what it can have seen it is not believed.
    pub(super) fn learn(&mut self, limit: u64) -> bool {
        let limit = limit.min(self.next + self.window);
        let news = limit > self.limit;
        self.limit = self.limit.max(limit);
        news
    }
}
