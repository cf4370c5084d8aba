//! The disk over helper threads that block: for systems that forbid io_uring.
//!
//! Three threads write and one reads, so that several writes are under way and a read never waits behind one. Segments
//! are opened with `O_DSYNC`: a write is on stable storage when it returns. The queues are locked for as long as it
//! takes to push or pop, never while a thread is with the device.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::medium::OpenSegment;
use super::{Done, Request, spawn};
use crate::io::DiskError;
use crate::io::reactor::{Reactor, Waker};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};

/// How many writes are with the device at once.
const WRITERS: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct BlockingDriver {
    writes: Arc<Queue<Order>>,
    reads: Arc<Queue<Order>>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

type Order = (Request, Arc<OpenSegment>);

impl BlockingDriver {
    /// Starts the threads. What they finish ends the reactor's block.
    pub(super) fn new(place: &str, reactor: &Reactor) -> Result<BlockingDriver, DiskError> {
        let (finished, done) = channel();
        let mut driver = BlockingDriver {
            writes: Arc::new(Queue::new()),
            reads: Arc::new(Queue::new()),
            done,
            threads: Vec::new(),
        };
        let writers = std::iter::repeat_n(("plimsoll-write", Arc::clone(&driver.writes)), WRITERS);
        for (name, queue) in writers.chain([("plimsoll-read", Arc::clone(&driver.reads))]) {
            let worker = Worker { done: finished.clone(), waker: reactor.waker() };
            driver.threads.push(spawn(name, place, move || worker.serve(&queue))?);
        }
        Ok(driver)
    }

    pub(super) fn start(&mut self, request: Request, open: Arc<OpenSegment>) {
        match request {
            Request::Write(_) => self.writes.push((request, open)),
            Request::Read(_) => self.reads.push((request, open)),
        }
    }

    pub(super) fn next_done(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    pub(super) fn give_up(&mut self) -> (usize, usize) {
        (self.writes.clear(), self.reads.clear())
    }
}

/// What has not begun is given up, what has is waited for.
impl Drop for BlockingDriver {
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
    done: Sender<Done>,
    waker: Waker,
}

impl Worker {
    fn serve(&self, queue: &Queue<Order>) {
        while let Some((mut request, open)) = queue.pop() {
            // An error of a write is final: a flush that failed once may "succeed" when it is asked again, and nothing
            // was saved.
            let outcome = match &mut request {
                Request::Write(write) => open.extent.write_all_at(&write.bytes, write.offset),
                Request::Read(read) => {
                    let len_bytes = read.len_bytes;
                    open.extent.read_exact_at(&mut read.into.spare_mut()[..len_bytes], read.offset)
                }
            };
            // Gone before the lane hears of it, so that it finds the segment free.
            drop(open);
            // The disk hears it, or is being dropped and does not care.
            let _ = self.done.send(Done { request, outcome });
            self.waker.wake();
        }
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
