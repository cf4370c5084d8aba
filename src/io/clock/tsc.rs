//! The processor's time stamp counter as a clock.
//!
//! The counter is laid against the system's clock when the clock is made and every [`REBASE_NS`] after that, which
//! bounds how far the two drift apart: by the error of the measured rate over that time, some microseconds. A clock
//! that nobody read for longer is laid anew at the next reading, so a lane that slept is not wrong either. If laying
//! it anew finds that it ran ahead, it stands still until the system's clock has caught up: it never goes back.
#![allow(unsafe_code)] // Reading the counter is an intrinsic of the processor.

use std::arch::x86_64::_rdtsc;
use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Monotonic;
use crate::io::Clock;
use crate::types::Time;

/// How long one laying holds.
const REBASE_NS: u64 = 100_000_000;

/// How long the first measurement of the rate takes.
const CALIBRATION: Duration = Duration::from_millis(5);

/// Readings of both clocks, of which the one that was disturbed least is taken.
const READINGS: usize = 5;

/// Two clocks read at the same moment, as nearly as that goes.
#[derive(Clone, Copy, Debug)]
struct Pair {
    ticks: u64,
    ns: u64,
    /// Between the counter's readings around the other: the error is at most that.
    width_ticks: u64,
}

/// See the module. One per lane: it is not shared between threads.
#[derive(Debug)]
pub struct Tsc {
    base: Cell<Pair>,
    /// Nanoseconds per tick, times 2³².
    rate: Cell<u64>,
    /// Ticks from the base on for which it holds.
    valid_ticks: Cell<u64>,
    last_ns: Cell<u64>,
}

impl Tsc {
    /// Measures the counter against the system's clock for some milliseconds. An error says why it cannot serve.
    pub fn new() -> Result<Tsc, String> {
        has_invariant_counter()?;
        let first = Pair::read();
        let begun = Instant::now();
        while begun.elapsed() < CALIBRATION {
            std::hint::spin_loop();
        }
        let second = Pair::read();
        let rate = rate_between(first, second)
            .filter(|rate| plausible_rate(*rate))
            .ok_or("the processor's counter does not follow the system's clock")?;
        let clock = Tsc {
            base: Cell::new(second),
            rate: Cell::new(rate),
            valid_ticks: Cell::new(0),
            last_ns: Cell::new(second.ns),
        };
        clock.set_valid();
        Ok(clock)
    }

    /// Lays the counter against the system's clock anew.
    #[cold]
    fn rebase(&self) {
        let (base, pair) = (self.base.get(), Pair::read());
        let old_rate = self.rate.get();
        // The measured rate replaces the old one if it was measured long enough and is believable. A counter that
        // jumped (a guest that was moved) leaves the rate alone and is made good by the new base.
        if pair.ns.saturating_sub(base.ns) >= REBASE_NS / 2
            && let Some(rate) = rate_between(base, pair)
            && rate.abs_diff(old_rate) <= old_rate / 1000
        {
            self.rate.set(rate);
        }
        self.base.set(pair);
        self.set_valid();
    }

    fn set_valid(&self) {
        self.valid_ticks.set(((u128::from(REBASE_NS) << 32) / u128::from(self.rate.get())) as u64);
    }
}

impl Clock for Tsc {
    fn now(&self) -> Time {
        let mut ticks = counter();
        // A counter before the base wraps to a large difference, and is laid anew as well.
        if ticks.wrapping_sub(self.base.get().ticks) >= self.valid_ticks.get() {
            self.rebase();
            ticks = counter();
        }
        let base = self.base.get();
        let since = ticks.saturating_sub(base.ticks);
        let ns = base.ns + ((u128::from(since) * u128::from(self.rate.get())) >> 32) as u64;
        let ns = ns.max(self.last_ns.get());
        self.last_ns.set(ns);
        Time(ns)
    }
}

impl Pair {
    fn read() -> Pair {
        let once = || {
            let before = counter();
            let ns = Monotonic.now().0;
            let width_ticks = counter().saturating_sub(before);
            Pair { ticks: before + width_ticks / 2, ns, width_ticks }
        };
        let mut best = once();
        for _ in 1..READINGS {
            let next = once();
            if next.width_ticks < best.width_ticks {
                best = next;
            }
        }
        best
    }
}

fn counter() -> u64 {
    // SAFETY: every x86_64 processor has the counter; a system that forbids reading it kills the process, and Linux
    // does so only where a program asked for it.
    unsafe { _rdtsc() }
}

fn rate_between(from: Pair, to: Pair) -> Option<u64> {
    let (ticks, ns) = (to.ticks.checked_sub(from.ticks)?, to.ns.checked_sub(from.ns)?);
    if ticks == 0 {
        return None;
    }
    u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).ok().filter(|rate| *rate > 0)
}

/// Between 100 MHz and 10 GHz.
fn plausible_rate(rate: u64) -> bool {
    ((1 << 32) / 10..=10 << 32).contains(&rate)
}

/// Whether the counter runs at one rate on all cores, in whatever power state: the processor and the system both say.
fn has_invariant_counter() -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo: {error}"))?;
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or("");
    for wanted in ["constant_tsc", "nonstop_tsc"] {
        if !flags.split_whitespace().any(|flag| flag == wanted) {
            return Err(format!("the processor does not promise {wanted}"));
        }
    }
    let source = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    // The system takes the counter off this list when it has caught it running unevenly. A guest may have no such list
    // to show, or prefer its host's clock; then the flags decide.
    match std::fs::read_to_string(source) {
        Ok(sources) if !sources.split_whitespace().any(|source| source == "tsc") => {
            Err("the system does not trust the processor's counter".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back_and_stays_near_the_systems_clock() {
        let clock = match Tsc::new() {
            Ok(clock) => clock,
            Err(why) => return println!("skipped: {why}"),
        };
        let until = Instant::now() + Duration::from_millis(350);
        let (mut last, mut readings, mut near) = (Time(0), 0u64, 0u64);
        while Instant::now() < until {
            let before = Monotonic.now();
            let now = clock.now();
            let after = Monotonic.now();
            assert!(now >= last);
            last = now;
            readings += 1;
            // A thread that was interrupted between the readings says nothing about the clock.
            if after.since(before) < Duration::from_micros(20) {
                let off = now.0.abs_diff(before.0);
                assert!(off < 1_000_000, "{off} ns off after {readings} readings");
                near += u64::from(off < 100_000);
            }
        }
        assert!(readings > 1000, "{readings} readings");
        assert!(near * 2 > readings, "{near} of {readings} readings were within 100 µs");
    }

    #[test]
    fn a_clock_that_ran_ahead_stands_until_time_has_caught_up() {
        let Ok(clock) = Tsc::new() else { return println!("skipped: no invariant counter") };
        let ahead = clock.now().0 + 20_000_000;
        clock.last_ns.set(ahead);
        assert_eq!(clock.now(), Time(ahead));
        clock.rebase();
        assert_eq!(clock.now(), Time(ahead));
        std::thread::sleep(Duration::from_millis(25));
        assert!(clock.now() > Time(ahead));
    }

    #[test]
    fn a_wrong_base_is_made_good() {
        let Ok(clock) = Tsc::new() else { return println!("skipped: no invariant counter") };
        let base = clock.base.get();
        // As after a move to a host whose counter stands lower.
        clock.base.set(Pair { ticks: base.ticks + (1 << 50), ..base });
        assert!(clock.now().0.abs_diff(Monotonic.now().0) < 50_000_000);
    }
}
