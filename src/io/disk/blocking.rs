//! The disk over helper threads that block: for systems that forbid io_uring.
//!
//! Three threads write and one reads, so that several writes are under way and a read never waits behind one. Segments
//! are opened with `O_DSYNC`: a write is on stable storage when it returns. The queues are locked for as long as it
//! takes to push or pop, never while a thread is with the device.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::base::Base;
use super::files::{Directory, OpenSegment, failure};
use super::{Options, spawn};
use crate::io::pool::Chunk;
use crate::io::reactor::{Reactor, Waker};
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};
use crate::types::{Flushed, WriteSequence};

/// How many writes are with the device at once.
const WRITERS: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct BlockingDisk {
    pub(super) base: Base,
    writes: Arc<Queue<(Write, Arc<OpenSegment>)>>,
    reads: Arc<Queue<(Read, Arc<OpenSegment>)>>,
    done: Receiver<Done>,
    writes_in_flight: usize,
    reads_in_flight: usize,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
enum Done {
    Written(WriteSequence, Result<(), DiskError>),
    Read(u64, Result<Chunk, DiskError>),
}

impl BlockingDisk {
    /// Opens the directory and starts the threads. What they finish ends the reactor's block.
    pub(super) fn open(
        options: &Options,
        reactor: &Reactor,
        notes: &mut Vec<String>,
    ) -> Result<BlockingDisk, DiskError> {
        let directory = Directory::open(&options.directory, options.segment_bytes, notes)?;
        let (finished, done) = channel();
        let mut disk = BlockingDisk {
            base: Base::new(directory, reactor.waker())?,
            writes: Arc::new(Queue::new()),
            reads: Arc::new(Queue::new()),
            done,
            writes_in_flight: 0,
            reads_in_flight: 0,
            threads: Vec::new(),
        };
        for _ in 0..WRITERS {
            let worker = Worker::new(&disk, finished.clone(), reactor.waker());
            let queue = Arc::clone(&disk.writes);
            disk.threads.push(spawn("plimsoll-write", &options.directory, move || worker.write_all(&queue))?);
        }
        let worker = Worker::new(&disk, finished, reactor.waker());
        let queue = Arc::clone(&disk.reads);
        disk.threads.push(spawn("plimsoll-read", &options.directory, move || worker.read_all(&queue))?);
        Ok(disk)
    }

    fn take_in(&mut self, done: Done) {
        match done {
            Done::Written(sequence, outcome) => {
                self.writes_in_flight -= 1;
                match outcome {
                    Ok(()) => self.base.tell(DiskEvent::Written(Flushed::by_disk(sequence))),
                    Err(error) => self.base.fail(error),
                }
            }
            Done::Read(token, outcome) => {
                self.reads_in_flight -= 1;
                match outcome {
                    Ok(chunk) => self.base.tell(DiskEvent::Read { token, chunk }),
                    Err(error) => self.base.fail(error),
                }
            }
        }
        if self.base.is_failed() {
            // What has not begun shall not: a log with a hole is worse than one that ends.
            self.writes_in_flight -= self.writes.clear();
            self.reads_in_flight -= self.reads.clear();
        }
    }
}

impl Disk for BlockingDisk {
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
        if !self.base.is_failed()
            && let Some((open, _)) = self.base.segment(write.segment)
        {
            self.writes_in_flight += 1;
            self.writes.push((write, open));
        }
        Ok(())
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        self.base.check_read(&read);
        if self.reads_in_flight == READS_IN_FLIGHT_MAX {
            return Err(Full(read));
        }
        if !self.base.is_failed()
            && let Some((open, _)) = self.base.segment(read.segment)
        {
            self.reads_in_flight += 1;
            self.reads.push((read, open));
        }
        Ok(())
    }

    fn prepare(&mut self, segment: SegmentId) {
        self.base.prepare(segment);
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        if self.writes_in_flight + self.reads_in_flight > 0 {
            while let Ok(done) = self.done.try_recv() {
                self.take_in(done);
            }
        }
        while self.base.next_prepared().is_some() {}
        self.base.deliver(sink)
    }
}

/// What has not begun is given up, what has is waited for.
impl Drop for BlockingDisk {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
        for thread in self.threads.drain(..) {
            // It panics only by a broken invariant, and has said so.
            let _ = thread.join();
        }
    }
}

/// What a thread needs.
struct Worker {
    directory: Arc<Directory>,
    done: Sender<Done>,
    waker: Waker,
}

impl Worker {
    fn new(disk: &BlockingDisk, done: Sender<Done>, waker: Waker) -> Worker {
        Worker { directory: Arc::clone(&disk.base.directory), done, waker }
    }

    fn write_all(&self, queue: &Queue<(Write, Arc<OpenSegment>)>) {
        while let Some((write, open)) = queue.pop() {
            // Writes whole, also when the system takes it in pieces or is interrupted by a signal. Any other error is
            // final: a flush that failed once may "succeed" when it is asked again, and nothing was saved.
            let outcome = open.file.write_all_at(&write.bytes, write.offset).map_err(|error| {
                let operation = format!("write {} bytes at {}", write.bytes.len(), write.offset);
                failure(operation, &self.directory.path_of(write.segment), &error)
            });
            let sequence = write.sequence;
            // Gone before the lane hears of it, so that it finds the memory and the segment free.
            drop((write, open));
            self.finish(Done::Written(sequence, outcome));
        }
    }

    fn read_all(&self, queue: &Queue<(Read, Arc<OpenSegment>)>) {
        while let Some((read, open)) = queue.pop() {
            let Read { token, segment, offset, len_bytes, mut into } = read;
            let outcome = open.file.read_exact_at(&mut into.spare_mut()[..len_bytes], offset);
            drop(open);
            let outcome = match outcome {
                Ok(()) => Ok(into),
                Err(error) => {
                    drop(into);
                    let operation = format!("read {len_bytes} bytes at {offset}");
                    Err(failure(operation, &self.directory.path_of(segment), &error))
                }
            };
            self.finish(Done::Read(token, outcome));
        }
    }

    fn finish(&self, done: Done) {
        // The disk hears it, or is being dropped and does not care.
        let _ = self.done.send(done);
        self.waker.wake();
    }
}

/// Orders from the lane to threads that sleep while there are none.
#[derive(Debug)]
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct QueueState<T> {
    orders: VecDeque<T>,
    is_closed: bool,
}

impl<T> Queue<T> {
    fn new() -> Queue<T> {
        let orders = VecDeque::with_capacity(WRITES_IN_FLIGHT_MAX.max(READS_IN_FLIGHT_MAX));
        Queue { state: Mutex::new(QueueState { orders, is_closed: false }), changed: Condvar::new() }
    }

    fn push(&self, order: T) {
        self.lock().orders.push_back(order);
        self.changed.notify_one();
    }

    /// Waits for the next order; `None` once the queue is closed.
    fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(order) = state.orders.pop_front() {
                return Some(order);
            }
            state = self.changed.wait(state).expect("nothing panics under the queue's lock");
        }
    }

    /// Gives up what has not begun, and says how much that was.
    fn clear(&self) -> usize {
        let orders = std::mem::take(&mut self.lock().orders);
        orders.len()
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.clear();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().expect("nothing panics under the queue's lock")
    }
}
