//! What a process has done, in files that outlive it however it ends: each note is one write of the system, not
//! buffered, and what the kernel has taken a killed process cannot take back.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::entry::number;

/// A note is two numbers.
const NOTE_BYTES: usize = 16;

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    bytes: Vec<u8>,
}

/// Which files there are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// Ids of transactions that were executed: the first, and how many. Noted before they are submitted.
    Begun,
    /// Replies to clients: a transaction's id, and its latency in microseconds. This note is the reply.
    Released,
}

impl Of {
    fn prefix(self) -> &'static str {
        match self {
            Of::Begun => "begun-",
            Of::Released => "released-",
        }
    }

    fn path(self, directory: &Path, name: &str) -> PathBuf {
        directory.join(format!("{}{name}", self.prefix()))
    }
}

impl Journal {
    pub(crate) fn create(of: Of, directory: &Path, name: &str) -> io::Result<Journal> {
        let file = File::options().append(true).create_new(true).open(of.path(directory, name))?;
        Ok(Journal { file, bytes: Vec::new() })
    }

    /// Writes them down, at once.
    pub(crate) fn note(&mut self, notes: impl IntoIterator<Item = (u64, u64)>) -> io::Result<()> {
        self.bytes.clear();
        for (first, second) in notes {
            self.bytes.extend_from_slice(&first.to_le_bytes());
            self.bytes.extend_from_slice(&second.to_le_bytes());
        }
        self.file.write_all(&self.bytes)
    }
}

/// All notes of all processes. One that its process was killed in was not made.
pub(crate) fn read_all(of: Of, directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(of.prefix()) {
            let bytes = fs::read(entry.path())?;
            let whole = bytes.chunks_exact(NOTE_BYTES);
            notes.extend(whole.map(|note| (number(&note[..8]), number(&note[8..]))));
        }
    }
    Ok(notes)
}
