//! Disks: a directory of segment files, written through io_uring or by threads that block.
//!
//! [`Backend::choose`] decides which at start-up; [`FileDisk`] is either.

mod base;
mod blocking;
mod files;
#[cfg(test)]
mod tests;
mod uring;

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

pub use self::blocking::BlockingDisk;
pub use self::files::segment_path;
pub use self::uring::UringDisk;
use crate::io::pool::Pool;
use crate::io::reactor::{Kind, Reactor};
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::types::{Flushed, WriteSequence};

/// The environment's word for the backend: `uring` or `blocking`.
pub const BACKEND_VARIABLE: &str = "PLIMSOLL_DISK";

/// How the disk is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Through the lane's io_uring.
    Uring,
    /// By helper threads.
    Blocking,
}

/// What was chosen, and why, for one line at start-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// Why this one and not the other.
    pub why: String,
}

impl Choice {
    /// The reactor that goes with it.
    pub fn reactor(&self) -> Kind {
        match self.backend {
            Backend::Uring => Kind::Uring,
            Backend::Blocking => Kind::Epoll,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.backend {
            Backend::Uring => "uring",
            Backend::Blocking => "blocking",
        };
        write!(f, "disk {name}: {}", self.why)
    }
}

impl Backend {
    /// Chooses: what is `wanted` (the value of [`BACKEND_VARIABLE`], if it is set and not empty), else io_uring where
    /// the system allows it. An error says that the word is unknown, or that what was wanted cannot be had.
    pub fn choose(wanted: Option<&str>) -> Result<Choice, String> {
        match wanted {
            Some("blocking") => Ok(Choice {
                backend: Backend::Blocking,
                why: format!("{BACKEND_VARIABLE}=blocking asks for it"),
            }),
            Some("uring") => match Reactor::new(Kind::Uring) {
                Ok(_) => Ok(Choice {
                    backend: Backend::Uring,
                    why: format!("{BACKEND_VARIABLE}=uring asks for it"),
                }),
                Err(error) => Err(format!("{BACKEND_VARIABLE}=uring cannot be had: {error}")),
            },
            None | Some("") => Ok(match Reactor::new(Kind::Uring) {
                Ok(_) => Choice { backend: Backend::Uring, why: "this system allows io_uring".into() },
                Err(error) => Choice { backend: Backend::Blocking, why: error.to_string() },
            }),
            Some(other) => Err(format!("{BACKEND_VARIABLE}={other:?} is neither \"uring\" nor \"blocking\"")),
        }
    }
}

/// Where a disk is and what it looks like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the segments. Made if it is not there; locked while the disk lives.
    pub directory: PathBuf,
    /// Every segment's size: a multiple of [`crate::limits::BLOCK_BYTES_MAX`], at most
    /// [`crate::limits::SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
}

/// A disk over a directory.
#[derive(Debug)]
pub struct FileDisk {
    driver: Driver,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Driver {
    Uring(UringDisk),
    Blocking(BlockingDisk),
}

impl FileDisk {
    /// Opens the directory. [`Backend::Uring`] needs a reactor over io_uring, of which it is the one disk;
    /// [`Backend::Blocking`] goes with either. Everything that it writes from and reads into is `pool`'s.
    pub fn open(
        backend: Backend,
        options: &Options,
        reactor: &Reactor,
        pool: &Pool,
    ) -> Result<FileDisk, DiskError> {
        let mut notes = Vec::new();
        let driver = match backend {
            Backend::Uring => Driver::Uring(UringDisk::open(options, reactor, pool, &mut notes)?),
            Backend::Blocking => Driver::Blocking(BlockingDisk::open(options, reactor, &mut notes)?),
        };
        Ok(FileDisk { driver, notes })
    }

    /// What the system did not grant, a line each, for the operator.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
impl FileDisk {
    /// From now on the device refuses writes to this segment: it is open for reading alone.
    pub(crate) fn fail_writes_to(&mut self, segment: SegmentId) {
        match &mut self.driver {
            Driver::Uring(disk) => disk.fail_writes_to(segment),
            Driver::Blocking(disk) => drop(disk.base.fail_writes_to(segment)),
        }
    }
}

/// Does the same with whichever driver there is.
macro_rules! either {
    ($disk:expr, $driver:ident => $call:expr) => {
        match $disk {
            Driver::Uring($driver) => $call,
            Driver::Blocking($driver) => $call,
        }
    };
}

impl Disk for FileDisk {
    fn block_bytes(&self) -> usize {
        either!(&self.driver, disk => disk.block_bytes())
    }

    fn segment_bytes(&self) -> u64 {
        either!(&self.driver, disk => disk.segment_bytes())
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        either!(&self.driver, disk => disk.segments())
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        either!(&mut self.driver, disk => disk.read_now(segment, offset, into))
    }

    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        either!(&mut self.driver, disk => disk.sync_now(sequence))
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        either!(&mut self.driver, disk => disk.write(write))
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        either!(&mut self.driver, disk => disk.read(read))
    }

    fn prepare(&mut self, segment: SegmentId) {
        either!(&mut self.driver, disk => disk.prepare(segment));
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        either!(&mut self.driver, disk => disk.poll(sink))
    }
}

/// A helper thread.
fn spawn(
    name: &str,
    place: &Path,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, DiskError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|error| files::failure(format!("start thread {name}"), place, &error))
}
