//! Clocks. All count nanoseconds of the system's monotonic clock, so that times of different lanes can be compared.
//!
//! [`Monotonic`] asks the system. [`Tsc`] reads the processor's counter and asks the system only ten times a second.

#[cfg(target_arch = "x86_64")]
mod tsc;

#[cfg(target_arch = "x86_64")]
pub use self::tsc::Tsc;
use crate::io::Clock;
use crate::types::Time;

/// The system's monotonic clock, which stands still while the machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Time {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }
}

/// The best clock that this machine has. One per lane.
#[derive(Debug)]
pub enum LaneClock {
    /// The system's.
    Monotonic(Monotonic),
    /// The processor's.
    #[cfg(target_arch = "x86_64")]
    Tsc(Tsc),
}

impl LaneClock {
    /// Chooses, and says what and why, for one line at start-up. Takes a few milliseconds.
    pub fn choose() -> (LaneClock, String) {
        #[cfg(target_arch = "x86_64")]
        match Tsc::new() {
            Ok(clock) => (LaneClock::Tsc(clock), "clock tsc: the processor counts at a constant rate".into()),
            Err(why) => (LaneClock::Monotonic(Monotonic), format!("clock monotonic: {why}")),
        }
        #[cfg(not(target_arch = "x86_64"))]
        (LaneClock::Monotonic(Monotonic), "clock monotonic: the only one on this processor".into())
    }
}

impl Clock for LaneClock {
    fn now(&self) -> Time {
        match self {
            LaneClock::Monotonic(clock) => clock.now(),
            #[cfg(target_arch = "x86_64")]
            LaneClock::Tsc(clock) => clock.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_monotonic_clock_goes_on() {
        let before = Monotonic.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(Monotonic.now().since(before) >= Duration::from_millis(2));
    }

    #[test]
    fn the_chosen_clock_agrees_with_the_system() {
        let (clock, why) = LaneClock::choose();
        println!("{why}");
        assert!(why.starts_with("clock "));
        let apart = clock.now().0.abs_diff(Monotonic.now().0);
        assert!(apart < 50_000_000, "{apart} ns apart");
    }
}
