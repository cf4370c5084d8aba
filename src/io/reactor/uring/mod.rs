//! Readiness and disk operations over one io_uring.
#![allow(unsafe_code)] // The ring takes raw descriptors and raw memory; who owns them is said at each block.

mod datagrams;
mod setup;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

pub(crate) use self::datagrams::{Datagram, RECEIVE};
pub(super) use self::setup::Flavour;
use self::setup::{SUBMISSIONS, explain, set_up};
use super::polled::Polled;
use super::table::{Became, Table, Token};
use super::waker::Waker;
use super::{Owner, PARK_MAX};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};

/// How long after the kernel refused a poll for now (no memory) it is armed again: neither deaf nor spinning.
const REARM_PAUSE: Duration = Duration::from_millis(100);

/// What a completion belongs to: the two highest bits of its user data.
const KIND_MASK: u64 = 3 << 62;
/// A registration's poll: the rest is its token.
const KIND_READY: u64 = 0;
/// A disk operation: the rest is the disk's number for it.
const KIND_DISK: u64 = 1 << 62;
/// The waker's polls; the rest says which of its events.
const KIND_WAKER: u64 = 2 << 62;
/// A datagram operation, where a disk's would be: the rest is its carrier's number for it.
const OF_DATAGRAMS: u64 = 1 << 61;
/// Of no interest: the answer to a cancellation.
const KIND_NONE: u64 = 3 << 62;

const READABLE: i32 =
    libc::POLLIN as i32 | libc::POLLRDHUP as i32 | libc::POLLHUP as i32 | libc::POLLERR as i32;
const CLOSED: i32 = libc::POLLRDHUP as i32 | libc::POLLHUP as i32 | libc::POLLERR as i32;
const WRITABLE: i32 = libc::POLLOUT as i32 | libc::POLLHUP as i32 | libc::POLLERR as i32;

/// A finished disk operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The disk's number for it.
    pub(crate) operation: u32,
    /// Bytes, or a negated error number.
    pub(crate) result: i32,
}

/// See the module.
pub(crate) struct Uring {
    ring: IoUring,
    pub(super) table: Table,
    waker: Waker,
    /// Something was written for the waker since this was last cleared.
    woken: bool,
    completions: VecDeque<Completion>,
    /// Of datagrams: what came, and what became of sends.
    came: VecDeque<Datagram>,
    sent: VecDeque<Datagram>,
    /// Polls that ended and are to be armed again. Kept to spare an allocation.
    rearm: Vec<u64>,
    /// Polls that the kernel refused for now, and when they are armed again.
    later: Vec<u64>,
    later_at: Instant,
    /// Registrations that are watched only while the lane blocks.
    parked: Vec<Parked>,
    /// Queued entries that must not wait for the lane's next kick.
    urgent: bool,
    /// A disk has the ring's buffer and file tables.
    claimed: bool,
    /// The ring of a disk that is polled for completions.
    polled: Option<Box<Polled>>,
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring of the first of these flavours that the kernel knows.
    pub(super) fn new(waker: Waker, flavours: &[Flavour]) -> io::Result<Uring> {
        let ring = set_up(flavours).map_err(|error| explain(&error))?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "io_uring of this kernel is too old: it cannot wait with a timeout (Linux 5.11 and later can)",
            ));
        }
        let mut uring = Uring {
            ring,
            table: Table::default(),
            waker,
            woken: false,
            completions: VecDeque::with_capacity(WRITES_IN_FLIGHT_MAX + READS_IN_FLIGHT_MAX),
            came: VecDeque::with_capacity(SUBMISSIONS as usize),
            sent: VecDeque::with_capacity(SUBMISSIONS as usize),
            rearm: Vec::new(),
            later: Vec::new(),
            later_at: Instant::now(),
            parked: Vec::new(),
            urgent: false,
            claimed: false,
            polled: None,
        };
        uring.arm_waker(0);
        uring.arm_waker(1);
        uring.submit();
        Ok(uring)
    }

    /// See [`super::Reactor::poll_devices`].
    pub(super) fn poll_devices(&self, busy_poll_us: u32) -> io::Result<()> {
        super::napi::poll_by_ring(self.ring_fd(), busy_poll_us)
    }

    fn ring_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring is open for as long as this value is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    pub(super) fn register(&mut self, fd: BorrowedFd<'_>, owner: Owner, key: u32) -> io::Result<()> {
        if let Some(stale) = self.table.token_of(fd.as_raw_fd()) {
            self.remove(stale);
        }
        let token = self.table.insert(fd.as_raw_fd(), owner, key);
        self.arm(fd.as_raw_fd(), KIND_READY | token.0);
        self.submit();
        Ok(())
    }

    pub(super) fn register_for_park(&mut self, fd: BorrowedFd<'_>, owner: Owner, key: u32) {
        if let Some(stale) = self.table.token_of(fd.as_raw_fd()) {
            self.remove(stale);
        }
        let token = self.table.insert(fd.as_raw_fd(), owner, key);
        self.parked.push(Parked { token, read_armed: false, write_armed: false, wants_write: false });
    }

    pub(super) fn watch_writes(&mut self, fd: BorrowedFd<'_>, on: bool) {
        let Some(token) = self.table.token_of(fd.as_raw_fd()) else { return };
        if let Some(parked) = self.parked.iter_mut().find(|parked| parked.token == token) {
            parked.wants_write = on;
        }
    }

    /// Has those watched that are watched only while the lane blocks. Arming tells what is ready at that moment.
    fn arm_parked(&mut self) {
        for at in 0..self.parked.len() {
            let Parked { token, read_armed, write_armed, wants_write } = self.parked[at];
            let Some(fd) = self.table.fd(token) else { continue };
            let due = [(!read_armed, libc::POLLIN), (wants_write && !write_armed, libc::POLLOUT)];
            for (_, events) in due.into_iter().filter(|(is_due, _)| *is_due) {
                let entry = opcode::PollAdd::new(Fd(fd), events as u32).build();
                self.push_entry(&entry.user_data(KIND_READY | token.0));
            }
            self.parked[at].read_armed = true;
            self.parked[at].write_armed |= wants_write;
        }
    }

    pub(super) fn deregister(&mut self, fd: BorrowedFd<'_>) {
        if let Some(token) = self.table.token_of(fd.as_raw_fd()) {
            self.remove(token);
        }
    }

    /// A poll holds its file open. It is gone when this returns, so that closing the descriptor closes the connection.
    fn remove(&mut self, token: Token) {
        self.table.remove(token);
        let parked = self.parked.iter().position(|parked| parked.token == token);
        // Not POLL_REMOVE: that gives up on a poll whose event is just being delivered.
        let entry = opcode::AsyncCancel::new(KIND_READY | token.0).build().user_data(KIND_NONE);
        self.push_entry(&entry);
        if let Some(at) = parked {
            // It may have two.
            self.parked.swap_remove(at);
            self.push_entry(&entry);
        }
        self.submit();
        self.run_task_work();
        self.collect();
    }

    /// Collects without blocking. Enters the kernel only if it says that it has something aside.
    pub(crate) fn poll(&mut self) {
        self.poll_disk();
        self.take_up_refused();
        if self.urgent {
            self.submit();
        }
        self.run_task_work();
        self.collect();
    }

    pub(super) fn park(&mut self, timeout: Duration) {
        // A disk that is polled wakes nobody: the lane comes back at once, and asks it.
        if self.poll_disk() {
            self.submit();
            return self.poll();
        }
        self.take_up_refused();
        self.woken = false;
        self.collect();
        // What another process has written for the lane stands in no word of the waker's: here it ends the block.
        let told =
            self.woken || !self.completions.is_empty() || !self.came.is_empty() || !self.sent.is_empty();
        if self.table.has_waiting() || told || !self.waker.enter_park() {
            self.submit();
            return self.poll();
        }
        self.arm_parked();
        self.submit_and_wait(timeout.min(PARK_MAX));
        self.waker.leave_park();
        self.collect();
    }

    fn submit_and_wait(&mut self, timeout: Duration) {
        let timeout = if self.later.is_empty() { timeout } else { timeout.min(REARM_PAUSE) };
        let timespec = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timespec);
        let waited = self.ring.submitter().submit_with_args(1, &args);
        self.urgent = !self.ring.submission().is_empty();
        match waited {
            Ok(_) => {}
            // Timed out, interrupted, or short of memory or room: the lane looks around and comes back.
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("the lane's ring is its own and open, yet: {error}"),
        }
    }

    /// Hands what is queued to the kernel. What it cannot take now is handed over by the next poll.
    pub(crate) fn submit(&mut self) {
        self.poll_disk();
        loop {
            if self.ring.submission().is_empty() {
                self.urgent = false;
                return;
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if is_passing(&error) => {
                    self.urgent = true;
                    return;
                }
                Err(error) => panic!("the lane's ring is its own and open, yet: {error}"),
            }
        }
    }

    /// Turns the disk's own ring, if it has one; whether something is under way on it.
    fn poll_disk(&mut self) -> bool {
        let Some(polled) = &mut self.polled else { return false };
        polled.turn(&mut self.completions);
        polled.is_busy()
    }

    /// Lets the kernel post what it holds back until the lane enters it.
    fn run_task_work(&mut self) {
        let queue = self.ring.submission();
        let is_held_back = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if is_held_back {
            // Enters with GETEVENTS because of the flags just read. An error leaves the flags, and so comes back here.
            let _ = self.ring.submit();
        }
    }

    /// Takes in what the kernel has posted, and arms again what ended.
    fn collect(&mut self) {
        self.sort();
        if !self.rearm.is_empty() {
            self.arm_again();
        }
    }

    /// Takes in what the kernel has posted.
    fn sort(&mut self) {
        let Uring {
            ring, table, waker, woken, completions, came, sent, rearm, later, later_at, parked, ..
        } = self;
        for entry in ring.completion() {
            let user_data = entry.user_data();
            match user_data & KIND_MASK {
                KIND_READY => match sort_ready(table, user_data, entry.result(), entry.flags()) {
                    Then::Stays => {}
                    _ if disarm(parked, Token(user_data), entry.result()) => {}
                    Then::Again => rearm.push(user_data),
                    Then::Later => {
                        later.push(user_data);
                        *later_at = Instant::now() + REARM_PAUSE;
                    }
                },
                KIND_DISK if user_data & OF_DATAGRAMS != 0 => {
                    let told = Datagram::of(&entry);
                    if told.operation == RECEIVE { came.push_back(told) } else { sent.push_back(told) }
                }
                KIND_DISK => {
                    completions.push_back(Completion { operation: user_data as u32, result: entry.result() })
                }
                KIND_WAKER => {
                    waker.drain();
                    *woken = true;
                    if !cqueue::more(entry.flags()) {
                        rearm.push(user_data);
                    }
                }
                _ => {}
            }
        }
    }

    /// Has polls armed again that were refused, when they have rested.
    fn take_up_refused(&mut self) {
        if !self.later.is_empty() && Instant::now() >= self.later_at {
            self.rearm.append(&mut self.later);
            self.arm_again();
        }
    }

    /// Arming tells what is ready at that moment, so nothing is lost between a poll's end and its successor.
    fn arm_again(&mut self) {
        while let Some(user_data) = self.rearm.pop() {
            if user_data & KIND_MASK == KIND_WAKER {
                self.arm_waker((user_data & !KIND_MASK) as usize);
            } else if let Some(fd) = self.table.fd(Token(user_data)) {
                self.arm(fd, user_data);
            }
        }
        self.submit();
    }

    /// One of [`Waker::events`].
    fn arm_waker(&mut self, which: usize) {
        let event = self.waker.events()[which].as_raw_fd();
        self.arm(event, KIND_WAKER | which as u64);
    }

    fn arm(&mut self, fd: RawFd, user_data: u64) {
        let events = (libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP) as u32;
        let events = if user_data & KIND_MASK == KIND_WAKER { libc::POLLIN as u32 } else { events };
        let entry = opcode::PollAdd::new(Fd(fd), events).multi(true).build().user_data(user_data);
        self.push_entry(&entry);
    }

    /// Queues an entry that carries no memory.
    fn push_entry(&mut self, entry: &squeue::Entry) {
        self.urgent = true;
        // SAFETY: polls and cancellations point to no memory; a descriptor that is not open is answered with EBADF.
        unsafe { self.push(entry) }
    }

    /// # Safety
    /// The memory that the entry names stays valid, and is used by nobody in a conflicting way, until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: by this function's own contract.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand over. The kernel refuses only while its own completion queue overflows, which collecting ends.
            self.submit();
            self.run_task_work();
            self.sort();
        }
    }
}

/// What a disk does with the ring.
impl Uring {
    /// The ring's tables of buffers and files have one user. False: they have one already.
    pub(crate) fn claim(&mut self) -> bool {
        !std::mem::replace(&mut self.claimed, true)
    }

    /// Gives the disk a ring of its own, whose completions are polled from the device. To be called before anything is
    /// registered or started.
    pub(crate) fn set_polled(&mut self) -> io::Result<()> {
        self.polled = Some(Box::new(Polled::new()?));
        Ok(())
    }

    /// The ring that has the disk's operations and tables.
    fn disk_ring(&mut self) -> &mut IoUring {
        match &mut self.polled {
            Some(polled) => &mut polled.ring,
            None => &mut self.ring,
        }
    }

    /// Ends [`Uring::claim`] and empties the tables.
    pub(crate) fn release(&mut self) {
        self.polled = None;
        // Errors say that a table was never made.
        let _ = self.ring.submitter().unregister_buffers();
        let _ = self.ring.submitter().unregister_files();
        self.claimed = false;
    }

    /// Makes regions of memory known to the kernel, so that it need not pin them with every operation.
    ///
    /// # Safety
    /// The regions stay allocated until [`Uring::release`].
    pub(crate) unsafe fn register_buffers(&mut self, regions: &[libc::iovec]) -> io::Result<()> {
        // SAFETY: by this function's own contract.
        unsafe { self.disk_ring().submitter().register_buffers(regions) }
    }

    /// Registers a little memory and a few files, and takes them back: whether the system allows it.
    pub(super) fn try_registrations(&mut self) -> (io::Result<()>, io::Result<()>) {
        let memory = vec![0u8; 1 << 20];
        let region = libc::iovec { iov_base: memory.as_ptr().cast_mut().cast(), iov_len: memory.len() };
        // SAFETY: nothing is read into the memory or written from it, and it outlives the `release` below.
        let buffers = unsafe { self.register_buffers(&[region]) };
        let files = self.register_files(4);
        self.release();
        drop(memory);
        (buffers, files)
    }

    /// Has network devices polled, and ends that: whether the system allows it.
    pub(super) fn try_poll_devices(&self) -> io::Result<()> {
        self.poll_devices(1)?;
        super::napi::end_by_ring(self.ring_fd()).map(drop)
    }

    /// Makes an empty table of files.
    pub(crate) fn register_files(&mut self, files: u32) -> io::Result<()> {
        self.disk_ring().submitter().register_files_sparse(files)
    }

    /// Puts a file into the table. What was queued against the place before keeps the file that it meant.
    pub(crate) fn set_file(&mut self, place: u32, file: BorrowedFd<'_>) -> io::Result<()> {
        self.submit();
        let ring = self.disk_ring();
        if !ring.submission().is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        ring.submitter().register_files_update(place, &[file.as_raw_fd()]).map(drop)
    }

    /// Queues a disk operation, on the disk's own ring if `is_polled` and it has one; [`Uring::next_completion`] gives
    /// the number back once. What is registered is known to the disk's own ring alone.
    ///
    /// # Safety
    /// The memory that the entry names stays valid, and is used by nobody in a conflicting way, and its descriptor
    /// stays open, until then.
    pub(crate) unsafe fn start(&mut self, entry: squeue::Entry, operation: u32, is_polled: bool) {
        let entry = entry.user_data(KIND_DISK | u64::from(operation));
        let Some(polled) = self.polled.as_mut().filter(|_| is_polled) else {
            // SAFETY: by this function's own contract.
            return unsafe { self.push(&entry) };
        };
        // SAFETY: by this function's own contract.
        while !unsafe { polled.push(&entry) } {
            polled.turn(&mut self.completions);
        }
    }

    /// The next disk operation that finished, as of the last poll.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Submits, and blocks until something has happened or the time is over.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        self.poll();
        if self.completions.is_empty() && !self.poll_disk() {
            self.submit_and_wait(timeout.min(PARK_MAX));
            self.collect();
        }
    }
}

/// What becomes of a poll after a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It goes on, or is gone for good.
    Stays,
    /// It has ended, and is armed again at once.
    Again,
    /// It was refused for now, and is armed again after a rest.
    Later,
}

/// A registration that is watched only while the lane blocks.
#[derive(Clone, Copy, Debug)]
struct Parked {
    token: Token,
    /// Whether polls are under way: from this block or an earlier one.
    read_armed: bool,
    write_armed: bool,
    wants_write: bool,
}

/// Whether this was the poll of a registration that the next block arms again.
fn disarm(parked: &mut [Parked], token: Token, result: i32) -> bool {
    let Some(parked) = parked.iter_mut().find(|parked| parked.token == token) else { return false };
    let (read, write) = (result & libc::POLLIN as i32 != 0, result & libc::POLLOUT as i32 != 0);
    // What says neither says it to both, or to one of them: one poll too many is told once and gone.
    let neither = result < 0 || !(read || write);
    parked.read_armed &= !(read || neither);
    parked.write_armed &= !(write || neither);
    true
}

fn sort_ready(table: &mut Table, user_data: u64, result: i32, flags: u32) -> Then {
    let token = Token(user_data);
    if result == -libc::ECANCELED {
        // By its owner, then the token is not live; or by the kernel, then it is armed again.
        return Then::Again;
    }
    if result < 0 {
        // Whoever reads the descriptor looks for himself meanwhile, and is told why if it is broken. A poll that cannot
        // be had at all is not armed again: that would only spin.
        table.became_ready(token, Became { readable: true, writable: true, closed: true });
        let is_for_now = is_passing(&io::Error::from_raw_os_error(-result));
        return if is_for_now { Then::Later } else { Then::Stays };
    }
    let readable = result & READABLE != 0;
    let writable = result & WRITABLE != 0;
    table.became_ready(token, Became { readable, writable, closed: result & CLOSED != 0 });
    if cqueue::more(flags) { Then::Stays } else { Then::Again }
}

/// Errors that say "not now", or that the time is over.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_refusal_says_who_refuses() {
        for (number, words) in [
            (libc::EPERM, "forbidden here, by kernel.io_uring_disabled or a seccomp filter"),
            (libc::ENOSYS, "this kernel has no io_uring"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        ] {
            let told = explain(&io::Error::from_raw_os_error(number)).to_string();
            assert!(told.contains(words), "{told}");
        }
    }

    /// A listener whose poll was refused for want of memory was told ready once, and then never again.
    #[test]
    fn a_poll_that_was_refused_for_now_is_armed_again_after_a_rest() {
        let waker = Waker::new().unwrap();
        let mut uring = match Uring::new(waker, &Flavour::ALL) {
            Ok(uring) => uring,
            Err(error) => return println!("not tested: {error}"),
        };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let told =
            |uring: &mut Uring| std::iter::from_fn(|| uring.table.next(Owner::Link)).collect::<Vec<_>>();
        // Registered, and its poll was refused.
        let token = uring.table.insert(ours.as_raw_fd(), Owner::Link, 5);
        assert_eq!(sort_ready(&mut uring.table, token.0, -libc::ENOMEM, 0), Then::Later);
        uring.later.push(token.0);
        uring.later_at = Instant::now() + REARM_PAUSE;
        assert_eq!(told(&mut uring).len(), 1, "told once, to look for itself");
        theirs.write_all(b"x").unwrap();
        let begun = Instant::now();
        uring.poll();
        assert!(told(&mut uring).is_empty() || begun.elapsed() >= REARM_PAUSE, "it rests");
        let until = begun + Duration::from_secs(5);
        loop {
            // Longer than the rest: the block must end for it.
            uring.park(Duration::from_secs(10));
            if told(&mut uring).iter().any(|ready| ready.key == 5 && ready.readable) {
                break;
            }
            assert!(Instant::now() < until, "it is deaf");
        }
        assert!(begun.elapsed() < Duration::from_secs(5) && uring.later.is_empty());
        // One that cannot be had at all is not tried again.
        assert_eq!(sort_ready(&mut uring.table, token.0, -libc::EBADF, 0), Then::Stays);
        uring.deregister(ours.as_fd());
    }
}
