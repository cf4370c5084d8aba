//! How long a durable write of 4 KiB takes, one after another: what a commit cannot be faster than.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::medium::Aligned;

/// The size of one.
const WRITE_BYTES: usize = 4096;

/// They go round in a part of this size, which is written once before.
const PART_BYTES: usize = 1 << 20;

/// As many as are measured at most.
const SAMPLES_MAX: usize = 5000;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// How many there were.
    pub count: usize,
    /// Whether they went past the page cache.
    pub is_direct: bool,
}

/// Measures in a directory, in a file that has no name and is gone afterwards. An error may say that the filesystem
/// knows no such files.
pub fn time_writes_in(directory: &Path, lasting: Duration) -> io::Result<Timing> {
    let until = Instant::now() + lasting;
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_DSYNC | flags);
        options.open(directory)
    };
    let (file, is_direct) = match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (open(0)?, false),
        opened => (opened?, true),
    };
    let mut zeros = Aligned::zeroed(PART_BYTES);
    file.write_all_at(zeros.bytes(), 0)?;
    file.sync_all()?;
    let mut part = (0..PART_BYTES as u64).step_by(WRITE_BYTES).cycle();
    let taken = time(until, || {
        let at = part.next().unwrap_or(0);
        file.write_all_at(&zeros.bytes()[..WRITE_BYTES], at)
    })?;
    summary(taken, is_direct)
}

/// Measures by writing what is there already.
pub(super) fn time_rewrites(file: &File, at: u64, lasting: Duration) -> io::Result<Timing> {
    let until = Instant::now() + lasting;
    let mut block = Aligned::zeroed(WRITE_BYTES);
    file.read_exact_at(block.bytes(), at)?;
    summary(time(until, || file.write_all_at(block.bytes(), at))?, true)
}

fn time(until: Instant, mut write: impl FnMut() -> io::Result<()>) -> io::Result<Vec<Duration>> {
    let mut taken = Vec::new();
    // One at least, however long it takes.
    while taken.is_empty() || (taken.len() < SAMPLES_MAX && Instant::now() < until) {
        let begun = Instant::now();
        write()?;
        taken.push(begun.elapsed());
    }
    Ok(taken)
}

fn summary(mut taken: Vec<Duration>, is_direct: bool) -> io::Result<Timing> {
    taken.sort_unstable();
    let count = taken.len();
    let at = |hundredths: usize| taken[(count * hundredths / 100).min(count - 1)];
    Ok(Timing { p50: at(50), p99: at(99), count, is_direct })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let directory = std::env::temp_dir().join(format!("plimsoll-timing-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        match time_writes_in(&directory, Duration::from_millis(50)) {
            Ok(timing) => assert!(timing.count > 0 && timing.p50 <= timing.p99, "{timing:?}"),
            Err(error) => println!("not tested: {error}"),
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
        time_writes_in(&directory, Duration::from_millis(50)).unwrap_err();
    }

    #[test]
    fn quantiles_are_those_of_what_was_taken() {
        let taken = (1..=100).rev().map(Duration::from_micros).collect();
        let timing = summary(taken, true).unwrap();
        assert_eq!((timing.p50.as_micros(), timing.p99.as_micros(), timing.count), (51, 100, 100));
        let one = summary(vec![Duration::from_micros(7)], false).unwrap();
        assert_eq!((one.p50, one.p99), (Duration::from_micros(7), Duration::from_micros(7)));
    }
}
