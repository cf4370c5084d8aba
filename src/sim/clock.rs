//! Each node's clock: it runs a little fast or slow, starts anywhere, and sometimes jumps forward. It never goes back.

use super::fabric::Shared;
use crate::io::Clock;
use crate::types::Time;

/// How one node's clock stands to the world's time.
#[derive(Clone, Debug)]
pub(super) struct ClockState {
    pub(super) drift_ppm: i64,
    /// Of the node's clock when the world's was at `since_ns`.
    base_ns: u64,
    since_ns: u64,
}

impl ClockState {
    pub(super) fn new(drift_ppm: i64, base_ns: u64) -> ClockState {
        ClockState { drift_ppm, base_ns, since_ns: 0 }
    }

    /// What the clock shows.
    pub(super) fn local_ns(&self, world_ns: u64) -> u64 {
        let passed = (world_ns - self.since_ns) as i64;
        let drift = i128::from(passed) * i128::from(self.drift_ppm) / 1_000_000;
        (self.base_ns as i128 + i128::from(passed) + drift) as u64
    }

    /// When the clock will show `local`, or a moment later.
    pub(super) fn world_ns(&self, local: Time) -> u64 {
        if local == Time::NEVER {
            return u64::MAX;
        }
        let ahead = local.0.saturating_sub(self.base_ns);
        let drift = i128::from(ahead) * i128::from(self.drift_ppm) / 1_000_000;
        // First-order, and a little late rather than early: early wake-ups would be repeated.
        self.since_ns.saturating_add((i128::from(ahead) - drift + i128::from(ahead) / 2_000_000 + 2) as u64)
    }

    /// From `world_ns` on it shows `jump_ns` more.
    pub(super) fn jump(&mut self, world_ns: u64, jump_ns: u64) {
        self.base_ns = self.local_ns(world_ns) + jump_ns;
        self.since_ns = world_ns;
    }
}

/// A node's clock as its lane reads it.
pub(super) struct SimClock {
    pub(super) fabric: Shared,
    pub(super) node: usize,
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        let fabric = self.fabric.borrow();
        Time(fabric.nodes[self.node].clock.local_ns(fabric.now_ns))
    }
}
