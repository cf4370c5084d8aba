//! What processes leave that ended with DPDK running: a directory each, of a megabyte or so of memory, which nobody
//! reuses, for its name has the process's id in it. The next to start clears it away.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};

/// What the directories' names begin with; the process's id follows.
pub(super) const PREFIX: &str = "plimsoll-";

/// The file that DPDK holds a lock on for as long as it runs.
const LOCKED: &str = "config";

/// Clears away what is in `runtime` of processes that are gone. What cannot be cleared is left.
pub(super) fn clear(runtime: &Path) {
    let Ok(entries) = fs::read_dir(runtime) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if id.is_some_and(|id| is_gone(id, &entry.path())) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// One that starts has an id and no lock yet; one in another namespace has another id here, and a lock.
fn is_gone(id: u32, directory: &Path) -> bool {
    if Path::new("/proc").join(id.to_string()).exists() {
        return false;
    }
    let Ok(file) = File::options().read(true).write(true).open(directory.join(LOCKED)) else { return false };
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Hundreds of nodes that were killed had left hundreds of megabytes.
    #[test]
    fn who_is_gone_leaves_nothing_and_who_lives_or_is_somebody_else_all() {
        let runtime = std::env::temp_dir().join(format!("plimsoll-leftovers-{}", std::process::id()));
        let gone = format!("{PREFIX}{}", u32::MAX);
        let lives = format!("{PREFIX}{}", std::process::id());
        for name in [gone.as_str(), lives.as_str(), "rte", "plimsoll-mine"] {
            fs::create_dir_all(runtime.join(name)).unwrap();
            fs::write(runtime.join(name).join(LOCKED), "x").unwrap();
        }
        clear(&runtime);
        let is_left = |name: &str| runtime.join(name).exists();
        assert!(!is_left(&gone));
        assert!(is_left(&lives) && is_left("rte") && is_left("plimsoll-mine"));
        fs::remove_dir_all(&runtime).unwrap();
    }
}
