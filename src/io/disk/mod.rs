//! Disks: segments in the files of a directory or on a raw block device, written through io_uring or by threads that
//! block.
//!
//! [`Place`] says where segments lie, [`Backend::choose`] decides at start-up how they are written; [`FileDisk`] is
//! every combination.
//!
//! # What makes a write durable
//! Everything is opened with `O_DIRECT | O_DSYNC`: the completion of a write says that it is on stable storage. On a
//! file that includes what the filesystem needs to find it again, which is nothing, since segments are whole before
//! they are written to. What the device sees is one write command with *forced unit access*, if it has that (NVMe
//! always, SATA rarely), else a write and a flush of its cache. A device that says that it has no volatile cache
//! ("write through" in `/sys/block/X/queue/write_cache`: those with power-loss protection) sees a plain write, and that
//! is enough. The kernel chooses among the three by what the device says of itself, and is right unless somebody
//! overrides that file.

mod base;
mod blocking;
pub mod device;
mod files;
mod medium;
mod preparer;
mod settle;
#[cfg(test)]
mod tests;
pub mod timing;
mod uring;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::base::Base;
use self::blocking::BlockingDriver;
use self::device::Device;
pub(crate) use self::files::segment_of;
pub use self::files::segment_path;
use self::medium::{Medium, OpenSegment, failure};
use self::uring::UringDriver;
use crate::io::pool::Pool;
use crate::io::reactor::{Kind, Reactor};
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};
use crate::types::{Flushed, LaneId, WriteSequence};

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
    /// Where its segments lie.
    pub place: Place,
    /// Every segment's size: a multiple of [`crate::limits::BLOCK_BYTES_MAX`], at most
    /// [`crate::limits::SEGMENT_BYTES_MAX`]; on a device, what it was formatted for.
    pub segment_bytes: u64,
    /// Whether completions are to be polled from the device: over io_uring, on a device that has queues for that.
    /// Elsewhere it is without effect, and noted.
    pub io_poll: bool,
}

/// Where the segments of one lane lie.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a directory, a file each. Made if it is not there; locked while the disk lives.
    Directory(PathBuf),
    /// On a block device, in the region of this lane. One disk at a time has a region.
    Device(Arc<Device>, LaneId),
}

/// A disk over a directory or a device: to the system both are files.
#[derive(Debug)]
pub struct FileDisk {
    /// Dropped first: it waits for what is under way.
    driver: Driver,
    base: Base,
    writes_in_flight: usize,
    reads_in_flight: usize,
    notes: Vec<String>,
}

/// What carries requests to the system and brings back what became of them.
#[derive(Debug)]
enum Driver {
    Uring(UringDriver),
    Blocking(BlockingDriver),
}

/// What a driver carries.
#[derive(Debug)]
enum Request {
    Write(Write),
    Read(Read),
}

/// A request that is over. Its memory is free but for the request itself.
#[derive(Debug)]
struct Done {
    request: Request,
    outcome: io::Result<()>,
}

impl FileDisk {
    /// Opens the place. [`Backend::Uring`] needs a reactor over io_uring, of which it is the one disk;
    /// [`Backend::Blocking`] goes with either. Everything that it writes from and reads into is `pool`'s.
    pub fn open(
        backend: Backend,
        options: &Options,
        reactor: &Reactor,
        pool: &Pool,
    ) -> Result<FileDisk, DiskError> {
        let mut notes = Vec::new();
        let base = Base::new(Medium::open(options, &mut notes)?, reactor.waker())?;
        let place = base.medium.place_of(SegmentId(0));
        let driver = match backend {
            Backend::Uring => {
                let is_polled = options.io_poll && base.medium.can_poll(&mut notes);
                Driver::Uring(UringDriver::new(&place, is_polled, reactor, pool, &mut notes)?)
            }
            Backend::Blocking => Driver::Blocking(BlockingDriver::new(&place, reactor)?),
        };
        Ok(FileDisk { driver, base, writes_in_flight: 0, reads_in_flight: 0, notes })
    }

    /// What the system did not grant, a line each, for the operator.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Gives a request to the driver, unless its segment does not open: then the disk has failed.
    fn start(&mut self, request: Request) {
        if self.base.is_failed() {
            return;
        }
        let Some((open, is_new)) = self.base.segment(request.segment()) else { return };
        if is_new {
            self.driver.opened(&open);
        }
        *self.in_flight(&request) += 1;
        self.driver.start(request, open);
    }

    fn take_in(&mut self, done: Done) {
        let Done { request, outcome } = done;
        *self.in_flight(&request) -= 1;
        match (request, outcome) {
            (Request::Write(write), Ok(())) => {
                let sequence = write.sequence;
                // Gone before the lane hears of it, so that it finds the memory free.
                drop(write);
                self.base.tell(DiskEvent::Written(Flushed::by_disk(sequence)));
            }
            (Request::Read(read), Ok(())) => {
                self.base.tell(DiskEvent::Read { token: read.token, chunk: read.into });
            }
            (request, Err(error)) => {
                let place = self.base.medium.place_of(request.segment());
                self.base.fail(failure(request.words(), place, &error));
                // What has not begun shall not: a log with a hole is worse than one that ends.
                let (writes, reads) = self.driver.give_up();
                self.writes_in_flight -= writes;
                self.reads_in_flight -= reads;
            }
        }
    }

    fn in_flight(&mut self, request: &Request) -> &mut usize {
        match request {
            Request::Write(_) => &mut self.writes_in_flight,
            Request::Read(_) => &mut self.reads_in_flight,
        }
    }
}

impl Disk for FileDisk {
    fn block_bytes(&self) -> usize {
        self.base.medium.block_bytes()
    }

    fn segment_bytes(&self) -> u64 {
        self.base.medium.segment_bytes()
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        self.base.medium.segments()
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        // The driver is told here too: a segment that recovery has read is the one that is written next.
        let (open, is_new) = self.base.segment_now(segment)?;
        if is_new {
            self.driver.opened(&open);
        }
        self.base.read_now((segment, &open), offset, into)
    }

    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        self.base.sync_now(sequence)
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        self.base.begin_write(&write);
        if self.writes_in_flight == WRITES_IN_FLIGHT_MAX {
            return Err(Full(write));
        }
        self.start(Request::Write(write));
        Ok(())
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        self.base.check_read(&read);
        if self.reads_in_flight == READS_IN_FLIGHT_MAX {
            return Err(Full(read));
        }
        self.start(Request::Read(read));
        Ok(())
    }

    fn prepare(&mut self, segment: SegmentId) {
        self.base.prepare(segment);
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        while self.writes_in_flight + self.reads_in_flight > 0
            && let Some(done) = self.driver.next_done()
        {
            self.take_in(done);
        }
        while let Some(open) = self.base.next_prepared() {
            self.driver.opened(&open);
        }
        self.base.deliver(sink)
    }
}

impl Driver {
    /// A segment was opened.
    fn opened(&mut self, open: &OpenSegment) {
        match self {
            Driver::Uring(driver) => driver.opened(open),
            Driver::Blocking(_) => {}
        }
    }

    fn start(&mut self, request: Request, open: Arc<OpenSegment>) {
        match self {
            Driver::Uring(driver) => driver.start(request, open),
            Driver::Blocking(driver) => driver.start(request, open),
        }
    }

    /// The next that is over.
    fn next_done(&mut self) -> Option<Done> {
        match self {
            Driver::Uring(driver) => driver.next_done(),
            Driver::Blocking(driver) => driver.next_done(),
        }
    }

    /// Gives up what has not begun; returns how many writes and reads those were.
    fn give_up(&mut self) -> (usize, usize) {
        match self {
            // The kernel has all of them.
            Driver::Uring(_) => (0, 0),
            Driver::Blocking(driver) => driver.give_up(),
        }
    }
}

impl Request {
    fn segment(&self) -> SegmentId {
        match self {
            Request::Write(write) => write.segment,
            Request::Read(read) => read.segment,
        }
    }

    fn len_bytes(&self) -> usize {
        match self {
            Request::Write(write) => write.bytes.len(),
            Request::Read(read) => read.len_bytes,
        }
    }

    /// What is done, for the operator.
    fn words(&self) -> String {
        match self {
            Request::Write(write) => format!("write {} bytes at {}", write.bytes.len(), write.offset),
            Request::Read(read) => format!("read {} bytes at {}", read.len_bytes, read.offset),
        }
    }
}

#[cfg(test)]
impl FileDisk {
    /// From now on the device refuses writes to this segment: it is open for reading alone.
    pub(crate) fn fail_writes_to(&mut self, segment: SegmentId) {
        let open = self.base.fail_writes_to(segment);
        self.driver.opened(&open);
    }
}

/// A helper thread.
fn spawn(name: &str, place: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DiskError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|error| failure(format!("start thread {name}"), place, &error))
}
