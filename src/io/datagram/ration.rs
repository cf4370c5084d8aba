//! [`Ration`]: how often is done what others can make this end do.

use core::time::Duration;

use crate::types::Time;

/// So many at once, and then one more after each pause.
#[derive(Debug)]
pub(super) struct Ration {
    most: u32,
    pause: Duration,
    left: u32,
    /// As of when.
    at: Time,
}

impl Ration {
    pub(super) fn new(most: u32, pause: Duration) -> Ration {
        Ration { most, pause, left: most, at: Time(0) }
    }

    /// Whether there is one now; it is taken.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let more = now.since(self.at).as_nanos() as u64 / self.pause.as_nanos() as u64;
        if more > 0 {
            self.left = u32::try_from(more).unwrap_or(self.most).saturating_add(self.left).min(self.most);
            self.at = now;
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }

    /// So many more, for what was well spent.
    pub(super) fn give(&mut self, more: u32) {
        self.left = (self.left + more).min(self.most);
    }

    /// All of it is there again.
    pub(super) fn refill(&mut self) {
        self.left = self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_after_each_pause() {
        let mut ration = Ration::new(3, Duration::from_millis(1));
        let at = |us| Time(1_000_000_000).after(Duration::from_micros(us));
        let mut taken = |us| (0..10).filter(|_| ration.take(at(us))).count();
        assert_eq!([taken(0), taken(999), taken(1_000), taken(2_500), taken(60_000)], [3, 0, 1, 1, 3]);
        assert!(!ration.take(at(60_000)));
        ration.give(1);
        assert!(ration.take(at(60_000)) && !ration.take(at(60_000)));
        ration.give(5);
        assert_eq!((0..5).filter(|_| ration.take(at(60_000))).count(), 3, "and no more than that");
    }
}
