//! The disk over the lane's io_uring.
//!
//! Segments are opened with `O_DIRECT | O_DSYNC`, so the completion of a write says that it is on stable storage.
//! Writes are queued by [`Disk::write`] and handed over together by the lane's next [`crate::io::Park::kick`] or
//! [`crate::io::Park::park`]. The pool's memory and the segments' files are registered with the ring where the
//! system allows it, and named with each operation where it does not.
//!
//! A disk that is polled has a ring of its own, for a ring whose completions are polled takes nothing else; see
//! `io/reactor/polled.rs`. Short writes go there, which is what commits wait for. Long ones and reads go over the
//! lane's ring: the kernel does not poll for what it must cut to the device's size, and refuses it over such a ring.
//!
//! Where the device has a volatile cache and no forced unit access, the kernel ends such a write on a kernel thread of
//! the core that took the device's interrupt. A lane that spins on that very core holds it up until the scheduler steps
//! in, milliseconds later: let a lane block after a short budget, or keep interrupts off its core.
#![allow(unsafe_code)] // The kernel reads and writes the pool's memory while an operation is under way.

use std::fmt;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue};

use super::medium::{OPEN_MAX, OpenSegment};
use super::{Done, Request};
use crate::io::DiskError;
use crate::io::pool::Pool;
use crate::io::reactor::Reactor;
use crate::io::reactor::uring::{Completion, Uring};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};

/// How often an operation that the kernel put off is begun again.
const ATTEMPTS_MAX: u32 = 100;

/// How long a disk that is dropped waits for what is under way.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest write that is polled for. A device takes no longer one in one piece than it says, and the kernel polls
/// for no request that it must cut; a long one is not what a commit's latency hangs on either.
const POLLED_BYTES_MAX: usize = 64 << 10;

/// As many as the bounds allow.
const OPERATIONS_MAX: usize = WRITES_IN_FLIGHT_MAX + READS_IN_FLIGHT_MAX;

/// See the module.
pub(super) struct UringDriver {
    reactor: Reactor,
    /// Kept alive for as long as the ring knows its memory.
    _pool: Pool,
    /// The disk has a ring of its own for what is polled. It alone knows memory and files.
    is_polled: bool,
    has_buffers: bool,
    has_files: bool,
    operations: Vec<Option<Operation>>,
    free: Vec<u32>,
}

impl fmt::Debug for UringDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDriver").finish_non_exhaustive()
    }
}

/// An operation under way. Its memory and its file live here until the kernel is done with them.
struct Operation {
    request: Request,
    open: Arc<OpenSegment>,
    done_bytes: usize,
    attempts: u32,
}

impl UringDriver {
    /// Takes the reactor's ring, of which it is the one disk.
    pub(super) fn new(
        place: &str,
        is_polled: bool,
        reactor: &Reactor,
        pool: &Pool,
        notes: &mut Vec<String>,
    ) -> Result<UringDriver, DiskError> {
        let refused = |cause: &str| DiskError {
            operation: "open disk over io_uring".into(),
            place: place.into(),
            cause: cause.into(),
            no_space: false,
        };
        let mut ring = reactor.ring().ok_or_else(|| refused("the lane's reactor is not over io_uring"))?;
        if !ring.claim() {
            return Err(refused("the lane's ring has a disk already"));
        }
        let mut is_polled = is_polled;
        if is_polled {
            match ring.set_polled() {
                Ok(()) => notes.push(format!("{place}: polled for the completions of short writes")),
                Err(error) => {
                    is_polled = false;
                    notes.push(format!("{place}: no ring that polls can be had ({error})"));
                }
            }
        }
        let has_buffers = register_buffers(&mut ring, pool, notes);
        let has_files = register_files(&mut ring, notes);
        drop(ring);
        Ok(UringDriver {
            reactor: reactor.clone(),
            _pool: pool.clone(),
            is_polled,
            has_buffers,
            has_files,
            operations: (0..OPERATIONS_MAX).map(|_| None).collect(),
            free: (0..OPERATIONS_MAX as u32).rev().collect(),
        })
    }

    /// Tells the ring of a segment's file.
    pub(super) fn opened(&mut self, open: &OpenSegment) {
        let mut ring = ring_of(&self.reactor);
        if self.has_files && ring.set_file(open.place, open.extent.fd()).is_err() {
            // From now on descriptors are named with each operation, which costs a little and always works.
            self.has_files = false;
        }
    }

    /// As if the system had refused them.
    #[cfg(test)]
    pub(super) fn forgo_registrations(&mut self) {
        (self.has_buffers, self.has_files) = (false, false);
    }

    pub(super) fn start(&mut self, request: Request, open: Arc<OpenSegment>) {
        let number = self.free.pop().expect("there is a place for every operation that the bounds allow");
        self.operations[number as usize] = Some(Operation { request, open, done_bytes: 0, attempts: 0 });
        self.submit(number);
    }

    /// The next operation that is over. What moved a part or was put off is begun again.
    pub(super) fn next_done(&mut self) -> Option<Done> {
        loop {
            let Completion { operation: number, result } = ring_of(&self.reactor).next_completion()?;
            let place = &mut self.operations[number as usize];
            let operation = place.as_mut().expect("a completion is of an operation under way");
            let outcome = match operation.advance(result) {
                Progress::Again => {
                    self.submit(number);
                    ring_of(&self.reactor).submit();
                    continue;
                }
                Progress::Done => Ok(()),
                Progress::Failed(error) => Err(error),
            };
            let Operation { request, .. } = place.take().expect("it was under way until now");
            self.free.push(number);
            return Some(Done { request, outcome });
        }
    }

    /// Queues what is left of an operation.
    fn submit(&mut self, number: u32) {
        let operation =
            self.operations[number as usize].as_mut().expect("an operation that is begun is there");
        let is_polled = self.is_polled && operation.can_be_polled();
        let is_registered = is_polled || !self.is_polled;
        let entry = operation.entry(is_registered && self.has_buffers, is_registered && self.has_files);
        // SAFETY: the entry names memory of the operation's slice or chunk, and the file of its open segment. Both stay
        // in `operations` until the completion was taken in; the drop of this disk waits for that, or leaks them. A
        // slice is never written again, and nobody but this operation has the chunk.
        unsafe { ring_of(&self.reactor).start(entry, number, is_polled) }
    }
}

/// Waits until the kernel is done with the memory. What it does not give back in time is leaked, never freed.
impl Drop for UringDriver {
    fn drop(&mut self) {
        let until = Instant::now() + DROP_WAIT_MAX;
        while self.free.len() < OPERATIONS_MAX {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                std::mem::forget(std::mem::take(&mut self.operations));
                return;
            }
            ring_of(&self.reactor).wait(left);
            while self.next_done().is_some() {}
        }
        ring_of(&self.reactor).release();
    }
}

/// What a completion means.
enum Progress {
    Done,
    /// Queue what is left.
    Again,
    Failed(std::io::Error),
}

impl Operation {
    /// Short writes, once: what the device puts off there, it takes with an interrupt.
    fn can_be_polled(&self) -> bool {
        let is_short_write =
            matches!(&self.request, Request::Write(write) if write.bytes.len() <= POLLED_BYTES_MAX);
        is_short_write && self.attempts == 0
    }

    /// A short transfer goes on where it ended, and one that the kernel put off is begun again: neither is a failed
    /// flush. Everything else is.
    fn advance(&mut self, result: i32) -> Progress {
        match result {
            bytes if bytes > 0 => {
                self.done_bytes += bytes as usize;
                assert!(
                    self.done_bytes <= self.request.len_bytes(),
                    "the kernel moves no more than was asked"
                );
                if self.done_bytes == self.request.len_bytes() { Progress::Done } else { Progress::Again }
            }
            0 => Progress::Failed(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "the system moved nothing, inside the segment",
            )),
            error => {
                let is_put_off = error == -libc::EAGAIN || error == -libc::EINTR;
                if is_put_off && self.attempts < ATTEMPTS_MAX {
                    self.attempts += 1;
                    return Progress::Again;
                }
                Progress::Failed(std::io::Error::from_raw_os_error(-error))
            }
        }
    }

    fn entry(&mut self, has_buffers: bool, has_files: bool) -> squeue::Entry {
        let done = self.done_bytes;
        let fd = Fd(self.open.extent.fd().as_raw_fd());
        let place = Fixed(self.open.place);
        let extent = &self.open.extent;
        // A macro would be shorter; four arms are plainer.
        match &mut self.request {
            Request::Write(write) => {
                let left = &write.bytes[done..];
                let (memory, len, offset) =
                    (left.as_ptr(), left.len() as u32, extent.in_file(write.offset + done as u64));
                let region = write.bytes.region_index() as u16;
                match (has_buffers, has_files) {
                    (true, true) => {
                        opcode::WriteFixed::new(place, memory, len, region).offset(offset).build()
                    }
                    (true, false) => opcode::WriteFixed::new(fd, memory, len, region).offset(offset).build(),
                    (false, true) => opcode::Write::new(place, memory, len).offset(offset).build(),
                    (false, false) => opcode::Write::new(fd, memory, len).offset(offset).build(),
                }
            }
            Request::Read(read) => {
                let region = read.into.region_index() as u16;
                let left = &mut read.into.spare_mut()[done..read.len_bytes];
                let (memory, len, offset) =
                    (left.as_mut_ptr(), left.len() as u32, extent.in_file(read.offset + done as u64));
                match (has_buffers, has_files) {
                    (true, true) => opcode::ReadFixed::new(place, memory, len, region).offset(offset).build(),
                    (true, false) => opcode::ReadFixed::new(fd, memory, len, region).offset(offset).build(),
                    (false, true) => opcode::Read::new(place, memory, len).offset(offset).build(),
                    (false, false) => opcode::Read::new(fd, memory, len).offset(offset).build(),
                }
            }
        }
    }
}

fn ring_of(reactor: &Reactor) -> std::cell::RefMut<'_, Uring> {
    reactor.ring().expect("it had a ring when the disk was opened")
}

fn register_buffers(ring: &mut Uring, pool: &Pool, notes: &mut Vec<String>) -> bool {
    let regions: Vec<libc::iovec> =
        pool.regions().map(|(base, len)| libc::iovec { iov_base: base.cast(), iov_len: len }).collect();
    // SAFETY: the pool's memory lives as long as the pool, of which the disk keeps a clone past `release`.
    match unsafe { ring.register_buffers(&regions) } {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!(
                "io_uring: the pool's memory cannot be registered ({error}); each write pins its own. Raising \
                 RLIMIT_MEMLOCK beyond the pool's size avoids that"
            ));
            false
        }
    }
}

fn register_files(ring: &mut Uring, notes: &mut Vec<String>) -> bool {
    match ring.register_files(OPEN_MAX as u32) {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!("io_uring: files cannot be registered ({error}); each write names its own"));
            false
        }
    }
}
