//! The disk over the lane's io_uring.
//!
//! Segments are opened with `O_DIRECT | O_DSYNC`, so the completion of a write says that it is on stable storage.
//! Writes are queued by [`Disk::write`] and handed over together by the lane's next [`crate::io::Park::kick`] or
//! [`crate::io::Park::park`]. The pool's memory and the segments' files are registered with the ring where the
//! system allows it, and named with each operation where it does not.
//!
//! Where the device has a volatile cache and no forced unit access, the kernel ends such a write on a kernel thread of
//! the core that took the device's interrupt. A lane that spins on that very core holds it up until the scheduler steps
//! in, milliseconds later: let a lane block after a short budget, or keep interrupts off its core.
#![allow(unsafe_code)] // The kernel reads and writes the pool's memory while an operation is under way.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue};

use super::Options;
use super::base::Base;
use super::files::{Directory, OPEN_MAX, OpenSegment, failure};
use crate::io::pool::Pool;
use crate::io::reactor::Reactor;
use crate::io::reactor::uring::{Completion, Uring};
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};
use crate::types::{Flushed, WriteSequence};

/// How often an operation that the kernel put off is begun again.
const ATTEMPTS_MAX: u32 = 100;

/// How long a disk that is dropped waits for what is under way.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub struct UringDisk {
    base: Base,
    reactor: Reactor,
    /// Kept alive for as long as the ring knows its memory.
    _pool: Pool,
    has_buffers: bool,
    has_files: bool,
    operations: Vec<Option<Operation>>,
    free: Vec<u32>,
    writes_in_flight: usize,
    reads_in_flight: usize,
}

impl fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDisk").field("base", &self.base).finish_non_exhaustive()
    }
}

/// An operation under way. Its memory and its file live here until the kernel is done with them.
struct Operation {
    request: Request,
    open: Arc<OpenSegment>,
    done_bytes: usize,
    attempts: u32,
}

enum Request {
    Write(Write),
    Read(Read),
}

impl UringDisk {
    /// Opens the directory over the reactor's ring, of which it is the one disk.
    pub(super) fn open(
        options: &Options,
        reactor: &Reactor,
        pool: &Pool,
        notes: &mut Vec<String>,
    ) -> Result<UringDisk, DiskError> {
        let refused = |cause: &str| DiskError {
            operation: "open disk over io_uring".into(),
            place: options.directory.display().to_string(),
            cause: cause.into(),
            no_space: false,
        };
        let directory = Directory::open(&options.directory, options.segment_bytes, notes)?;
        let base = Base::new(directory, reactor.waker())?;
        let mut ring = reactor.ring().ok_or_else(|| refused("the lane's reactor is not over io_uring"))?;
        if !ring.claim() {
            return Err(refused("the lane's ring has a disk already"));
        }
        let has_buffers = register_buffers(&mut ring, pool, notes);
        let has_files = register_files(&mut ring, notes);
        drop(ring);
        let operations_max = WRITES_IN_FLIGHT_MAX + READS_IN_FLIGHT_MAX;
        Ok(UringDisk {
            base,
            reactor: reactor.clone(),
            _pool: pool.clone(),
            has_buffers,
            has_files,
            operations: (0..operations_max).map(|_| None).collect(),
            free: (0..operations_max as u32).rev().collect(),
            writes_in_flight: 0,
            reads_in_flight: 0,
        })
    }

    /// Opens the segment if it is not, and tells the ring.
    fn segment(&mut self, segment: SegmentId) -> Option<Arc<OpenSegment>> {
        if self.base.is_failed() {
            return None;
        }
        let (open, is_new) = self.base.segment(segment)?;
        if is_new {
            self.set_file(&open);
        }
        Some(open)
    }

    fn set_file(&mut self, open: &OpenSegment) {
        let mut ring = ring_of(&self.reactor);
        if self.has_files && ring.set_file(open.place, open.file.as_fd()).is_err() {
            // From now on descriptors are named with each operation, which costs a little and always works.
            self.has_files = false;
        }
    }

    /// As if the system had refused them.
    #[cfg(test)]
    pub(super) fn forgo_registrations(&mut self) {
        (self.has_buffers, self.has_files) = (false, false);
    }

    #[cfg(test)]
    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    #[cfg(test)]
    pub(super) fn fail_writes_to(&mut self, segment: SegmentId) {
        let open = self.base.fail_writes_to(segment);
        self.set_file(&open);
    }

    fn start(&mut self, request: Request, open: Arc<OpenSegment>) {
        let number = self.free.pop().expect("there is a place for every operation that the bounds allow");
        self.operations[number as usize] = Some(Operation { request, open, done_bytes: 0, attempts: 0 });
        self.submit(number);
    }

    /// Queues what is left of an operation.
    fn submit(&mut self, number: u32) {
        let operation =
            self.operations[number as usize].as_mut().expect("an operation that is begun is there");
        let entry = operation.entry(self.has_buffers, self.has_files);
        // SAFETY: the entry names memory of the operation's slice or chunk, and the file of its open segment. Both stay
        // in `operations` until the completion was taken in; the drop of this disk waits for that, or leaks them. A
        // slice is never written again, and nobody but this operation has the chunk.
        unsafe { ring_of(&self.reactor).start(entry, number) }
    }

    fn take_in(&mut self, completion: Completion) {
        let Completion { operation: number, result } = completion;
        let operation =
            self.operations[number as usize].as_mut().expect("a completion is of an operation under way");
        match operation.advance(result) {
            Progress::Again => {
                self.submit(number);
                ring_of(&self.reactor).submit();
            }
            Progress::Done => {
                let event = match self.finish(number) {
                    Request::Write(write) => DiskEvent::Written(Flushed::by_disk(write.sequence)),
                    Request::Read(read) => DiskEvent::Read { token: read.token, chunk: read.into },
                };
                self.base.tell(event);
            }
            Progress::Failed(error) => {
                let (operation, segment) = match self.finish(number) {
                    Request::Write(write) => {
                        (format!("write {} bytes at {}", write.bytes.len(), write.offset), write.segment)
                    }
                    Request::Read(read) => {
                        (format!("read {} bytes at {}", read.len_bytes, read.offset), read.segment)
                    }
                };
                self.base.fail(failure(operation, &self.base.directory.path_of(segment), &error));
            }
        }
    }

    fn finish(&mut self, number: u32) -> Request {
        let operation = self.operations[number as usize].take().expect("it was under way until now");
        self.free.push(number);
        match operation.request {
            Request::Write(_) => self.writes_in_flight -= 1,
            Request::Read(_) => self.reads_in_flight -= 1,
        }
        operation.request
    }

    fn take_in_all(&mut self) {
        loop {
            let completion = ring_of(&self.reactor).next_completion();
            match completion {
                Some(completion) => self.take_in(completion),
                None => return,
            }
        }
    }
}

impl Disk for UringDisk {
    fn block_bytes(&self) -> usize {
        self.base.directory.block_bytes()
    }

    fn segment_bytes(&self) -> u64 {
        self.base.directory.segment_bytes()
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        self.base.directory.segments()
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        // The ring is told here too: a segment that recovery has read is the one that is written next.
        let (open, is_new) = self.base.segment_now(segment)?;
        if is_new {
            self.set_file(&open);
        }
        self.base.read_now(segment, offset, into)
    }

    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        self.base.sync_now(sequence)
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        self.base.check_write(&write);
        if self.writes_in_flight == WRITES_IN_FLIGHT_MAX {
            return Err(Full(write));
        }
        if let Some(open) = self.segment(write.segment) {
            self.writes_in_flight += 1;
            self.start(Request::Write(write), open);
        }
        Ok(())
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        self.base.check_read(&read);
        if self.reads_in_flight == READS_IN_FLIGHT_MAX {
            return Err(Full(read));
        }
        if let Some(open) = self.segment(read.segment) {
            self.reads_in_flight += 1;
            self.start(Request::Read(read), open);
        }
        Ok(())
    }

    fn prepare(&mut self, segment: SegmentId) {
        self.base.prepare(segment);
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        self.take_in_all();
        while let Some(open) = self.base.next_prepared() {
            self.set_file(&open);
        }
        self.base.deliver(sink)
    }
}

/// Waits until the kernel is done with the memory. What it does not give back in time is leaked, never freed.
impl Drop for UringDisk {
    fn drop(&mut self) {
        let until = Instant::now() + DROP_WAIT_MAX;
        while self.writes_in_flight + self.reads_in_flight > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                std::mem::forget(std::mem::take(&mut self.operations));
                return;
            }
            ring_of(&self.reactor).wait(left);
            self.take_in_all();
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
    fn len_bytes(&self) -> usize {
        match &self.request {
            Request::Write(write) => write.bytes.len(),
            Request::Read(read) => read.len_bytes,
        }
    }

    /// A short transfer goes on where it ended, and one that the kernel put off is begun again: neither is a failed
    /// flush. Everything else is.
    fn advance(&mut self, result: i32) -> Progress {
        match result {
            bytes if bytes > 0 => {
                self.done_bytes += bytes as usize;
                assert!(self.done_bytes <= self.len_bytes(), "the kernel moves no more than was asked");
                if self.done_bytes == self.len_bytes() { Progress::Done } else { Progress::Again }
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
        let fd = Fd(self.open.file.as_raw_fd());
        let place = Fixed(self.open.place);
        // A macro would be shorter; four arms are plainer.
        match &mut self.request {
            Request::Write(write) => {
                let left = &write.bytes[done..];
                let (memory, len, offset) = (left.as_ptr(), left.len() as u32, write.offset + done as u64);
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
                let (memory, len, offset) = (left.as_mut_ptr(), left.len() as u32, read.offset + done as u64);
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
