//! What a process that is gone may have left behind it, before its segments are read.
//!
//! *Writes.* The kernel takes a killed process's io_uring apart a moment after the process is gone, and its writes may
//! still be under way then. One that arrives after the next process has read the place as empty would lie in the log as
//! if it had been acknowledged. Such writes hold their segment's open file, and with it the shared lock that every one
//! of them has: who gets an exclusive one knows that none is left.
//!
//! *Pages.* Where writes go through the page cache, one that failed stays there as if it were on the disk, and the
//! system tells of it once. A process that read it back would believe what no disk has: so the pages go first.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::Advice;

use super::medium::failure;
use crate::io::DiskError;
use crate::io::locked::Locked;

/// How long a segment or a device in use is tried again before it is an error.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How often.
pub(super) const RETRY: Duration = Duration::from_millis(5);

/// Waits until no other process writes to this segment, and has what is read of it read from the disk.
pub(super) fn settle(path: &Path) -> Result<(), DiskError> {
    settle_within(path, PATIENCE)
}

fn settle_within(path: &Path, patience: Duration) -> Result<(), DiskError> {
    let failed = |operation: &str, error: &std::io::Error| failure(operation, path.display(), error);
    let file = open(path).map_err(|error| failed("open segment", &error))?;
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::park_timeout(RETRY),
            Err(TryLockError::WouldBlock) => return Err(in_use(path)),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => break,
            Err(TryLockError::Error(error)) => return Err(failed("lock segment", &error)),
        }
    }
    let file = Locked::of(file);
    file.sync_data().map_err(|error| failed("flush segment", &error))?;
    // Advice: where there is no page cache there is nothing to drop.
    let _ = rustix::fs::fadvise(&*file, 0, None, Advice::DontNeed);
    Ok(())
}

/// An open segment says that it is: as long as anything uses the file, [`settle`] waits.
pub(super) fn hold(file: &File, path: &Path) -> Result<(), DiskError> {
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(()),
        Err(TryLockError::Error(error)) => Err(failure("lock segment", path.display(), &error)),
    }
}

/// For writing, too: over a network an exclusive lock wants that.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// A filesystem that knows no locks of files cannot tell who uses one; the directory's own lock is what is left.
fn has_no_locks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

fn in_use(path: &Path) -> DiskError {
    DiskError {
        operation: "lock segment".into(),
        place: path.display().to_string(),
        cause: "another process writes to it, or the kernel still does for one that has ended".into(),
        no_space: false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{IoSliceMut, Write as _};

    use rustix::io::{Errno, ReadWriteFlags};

    use super::*;

    fn fresh(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("plimsoll-settle-{name}-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(&[7; 64 << 10]).unwrap();
        file.sync_all().unwrap();
        path
    }

    #[test]
    fn a_segment_that_something_still_writes_to_is_waited_for_and_then_refused() {
        let path = fresh("held");
        let held = File::open(&path).unwrap();
        hold(&held, &path).unwrap();
        // Stands for the kernel's own reference, of a ring that is being taken apart.
        let kernels = held.try_clone().unwrap();
        drop(held);
        let refused = settle_within(&path, RETRY).unwrap_err();
        assert!(refused.cause.contains("another process writes to it"), "{refused:?}");
        let ended = std::thread::spawn(move || {
            std::thread::park_timeout(4 * RETRY);
            drop(kernels);
        });
        settle(&path).unwrap();
        ended.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_locked_is_open_for_writing() {
        let path = fresh("flags");
        let flags = rustix::fs::fcntl_getfl(open(&path).unwrap()).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::RDWR), "an exclusive lock over NFS wants it: {flags:?}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_read_after_it_comes_from_the_disk() {
        let path = fresh("cached");
        let file = File::open(&path).unwrap();
        let cached = || {
            let mut byte = [0_u8];
            rustix::io::preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT)
        };
        let before = cached();
        settle(&path).unwrap();
        match (before, cached()) {
            (Ok(1), Err(Errno::AGAIN)) => {}
            // Memory has no disk to be read from; other filesystems do not tell.
            (before, after) => println!("skipped: {before:?} before, {after:?} after"),
        }
        std::fs::remove_file(&path).unwrap();
    }
}
