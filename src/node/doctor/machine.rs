//! What a machine tells of itself in files: `/sys`, `/proc`, `/dev`, its libraries. Under another root in tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

/// Where the loader finds libraries on the distributions that there are.
const LIBRARY_DIRECTORIES: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "lib64",
    "usr/local/lib",
    "usr/local/lib64",
    "usr/lib",
    "lib",
];

impl Machine {
    /// The one that this runs on.
    pub(super) fn this() -> Machine {
        Machine { root: "/".into() }
    }

    /// Another one, as files tell of it.
    #[cfg(test)]
    pub(super) fn under(root: &Path) -> Machine {
        Machine { root: root.to_owned() }
    }

    /// A path of this machine; given from the root, without the slash.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A file's text without the space around it. `None`: it is not there or not readable.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file's number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a directory, ascending; none if it is not there.
    pub(super) fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let names: BTreeSet<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.into_iter().collect()
    }

    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The first library whose file's name begins so.
    pub(super) fn library(&self, begins: &str) -> Option<String> {
        let found = |directory: &&'static str| {
            self.list(directory)
                .into_iter()
                .find(|name| name.starts_with(begins))
                .map(|name| format!("/{directory}/{name}"))
        };
        LIBRARY_DIRECTORIES.iter().find_map(found)
    }

    /// The version of the kernel: 6.1 is (6, 1).
    pub(super) fn kernel(&self) -> Option<(u32, u32)> {
        let text = self.read("proc/sys/kernel/osrelease")?;
        let mut parts = text.split(|character: char| !character.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// The numbers of a list as the kernel writes them: `0-2,7` is 0, 1, 2 and 7.
pub(super) fn parse_list(text: &str) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            numbers.extend(first..=last.min(first.saturating_add(65_536)));
        }
    }
    numbers
}

/// The choice in brackets: of `none [mq-deadline] bfq` it is `mq-deadline`. A text without brackets is the choice
/// itself.
pub(super) fn parse_choice(text: &str) -> &str {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text.trim(), |(choice, _)| choice)
}
