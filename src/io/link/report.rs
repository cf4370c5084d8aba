//! The one place that writes to the operator: a line each on standard error, with the time since the first one. What
//! others can cause goes through a [`Reporter`], so many lines per second and no more.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::types::Time;

/// How many lines one reporter writes per second; those beyond are counted and told in the next line.
const LINES_PER_SECOND: u32 = 10;

/// Writes one line. Not for the path of a commit.
pub fn line(what: fmt::Arguments<'_>) {
    static START: OnceLock<Instant> = OnceLock::new();
    let at = START.get_or_init(Instant::now).elapsed();
    eprintln!("plimsoll: [{:>10.6}] {what}", at.as_secs_f64());
}

/// Writes lines for one link or port: offenders that come again and again do not flood the log.
#[derive(Debug, Default)]
pub struct Reporter {
    window: Time,
    written: u32,
    suppressed: u64,
    #[cfg(test)]
    pub(crate) lines: Vec<String>,
}

impl Reporter {
    /// Writes `line`, or counts it when too many were written within this second.
    pub fn line(&mut self, now: Time, line: fmt::Arguments<'_>) {
        if now.since(self.window) >= Duration::from_secs(1) {
            self.window = now;
            self.written = 0;
        }
        if self.written == LINES_PER_SECOND {
            self.suppressed += 1;
            return;
        }
        self.written += 1;
        if self.suppressed > 0 {
            self::line(format_args!("{} more lines like the last ones were left out", self.suppressed));
            self.suppressed = 0;
        }
        self::line(line);
        #[cfg(test)]
        self.lines.push(line.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_one_starts_afresh() {
        let mut reporter = Reporter::default();
        let at = |millis| Time(0).after(Duration::from_millis(millis));
        for n in 0..25 {
            reporter.line(at(2000 + n), format_args!("offence {n}"));
        }
        assert_eq!((reporter.lines.len(), reporter.suppressed), (10, 15));
        reporter.line(at(2999), format_args!("still the same second"));
        assert_eq!((reporter.lines.len(), reporter.suppressed), (10, 16));
        reporter.line(at(3000), format_args!("the next"));
        assert_eq!((reporter.lines.last().map(String::as_str), reporter.suppressed), (Some("the next"), 0));
    }
}
