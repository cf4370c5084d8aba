//! Locks on files and directories that are given back for certain.

use std::fs::File;
use std::ops::Deref;

/// An open file with a lock (`flock`) that was taken on it, given back when this is dropped.
///
/// By a call, for closing the file is not enough: a child that another thread of this process is starting has it open
/// until it runs its own program, and with it the lock. An engine that starts programs while a node of its own starts
/// again would find the node's files in use.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Of a file that was locked just now.
    pub(crate) fn of(file: File) -> Locked {
        Locked(file)
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // It is closed next: what cannot be given back by name goes with that.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::TryLockError;

    use super::*;

    #[test]
    fn what_was_held_is_free_though_a_child_still_has_it_open() {
        let path = std::env::temp_dir().join(format!("plimsoll-locked-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        // Stands for the child's: the same open file, under another number.
        let _childs = file.try_clone().unwrap();
        file.try_lock().unwrap();
        let locked = Locked::of(file);
        let other = File::open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(locked);
        other.try_lock().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
