//! A small deterministic generator for timeouts: the same seed gives the same elections.

use core::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// A duration in `[from, to)`; `from` itself where that is empty. The bias of the remainder is far below what a
    /// timeout notices.
    pub(super) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let width = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX).max(1);
        from.saturating_add(Duration::from_nanos(self.next() % width))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_sequence() {
        let mut random = Random::new(1_234_567);
        let first: [u64; 3] = core::array::from_fn(|_| random.next());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn stays_between() {
        let mut random = Random::new(7);
        let (from, to) = (Duration::from_millis(150), Duration::from_millis(300));
        for _ in 0..10_000 {
            let drawn = random.between(from, to);
            assert!(from <= drawn && drawn < to);
        }
        assert_eq!(random.between(to, from), to, "an empty range");
    }
}
