//! What happens, as it happens: a line each, with the time, and a bar where somebody watches.

use std::io::IsTerminal as _;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

pub(super) struct Teller {
    started: Instant,
    to_stderr: bool,
    bar: ProgressBar,
}

impl Teller {
    pub(super) fn new(to_stderr: bool, records: Option<u64>) -> Teller {
        let bar = match records {
            Some(count) if std::io::stderr().is_terminal() => {
                let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records, {per_sec} {eta}");
                ProgressBar::new(count).with_style(style.expect("the template is sound"))
            }
            _ => ProgressBar::hidden(),
        };
        Teller { started: Instant::now(), to_stderr, bar }
    }

    pub(super) fn say(&self, what: &str) {
        use std::io::Write as _;
        let line = format!("[{:>8.3} s] {what}", self.started.elapsed().as_secs_f64());
        self.bar.suspend(|| {
            // Nobody listening is no reason to stop.
            let _ = if self.to_stderr {
                writeln!(std::io::stderr(), "{line}")
            } else {
                writeln!(std::io::stdout(), "{line}")
            };
        });
    }

    pub(super) fn progress(&self, records: u64) {
        self.bar.set_position(records);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
