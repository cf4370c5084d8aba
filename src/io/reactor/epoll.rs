//! Readiness over epoll, edge-triggered.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::table::{Became, Table, Token};
use super::waker::Waker;
use super::{Owner, PARK_MAX};
use crate::types::Time;

/// Events taken from the kernel with one call; more stay there for the next.
const EVENTS_PER_CALL: usize = 256;

/// The waker's mark, which no registration has: generations have 30 bits.
const WAKER: u64 = u64::MAX;

/// After the kernel had nothing to tell, a lane that looks at a socket of datagrams in every turn asks again so much
/// later: what comes by a connection waits a fraction of what the connection itself takes, and what comes by a datagram
/// does not wait for a call that says nothing of it.
pub(super) const REST: Duration = Duration::from_micros(2);

/// A registration that is watched only while the lane blocks.
#[derive(Debug)]
struct Parked {
    token: Token,
    /// The same file under a number of its own, which stays what it is.
    fd: OwnedFd,
    /// As what it is watched now; `None`: it was told, and is not there any more. What is there costs every datagram
    /// that comes something, even if it is not to be told.
    armed: Option<EventFlags>,
    wanted: EventFlags,
}

/// Told once, and what is so already is told too.
const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

/// See the module.
pub(super) struct Epoll {
    epoll: OwnedFd,
    pub(super) table: Table,
    events: Vec<Event>,
    /// Registrations that are watched only while the lane blocks.
    parked: Vec<Parked>,
    /// The kernel had nothing to tell at this time.
    idle_at: Option<Time>,
    waker: Waker,
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Epoll {
    pub(super) fn new(waker: Waker) -> io::Result<Epoll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for event in waker.events() {
            epoll::add(&epoll, event, EventData::new_u64(WAKER), EventFlags::IN | EventFlags::ET)?;
        }
        let (table, events) = (Table::default(), Vec::with_capacity(EVENTS_PER_CALL));
        Ok(Epoll { epoll, table, events, parked: Vec::new(), idle_at: None, waker })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub(super) fn register(&mut self, fd: BorrowedFd<'_>, owner: Owner, key: u32) -> io::Result<()> {
        self.remove_stale(fd);
        let token = self.table.insert(fd.as_raw_fd(), owner, key);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(token.0);
        let added = match epoll::add(&self.epoll, fd, data, flags) {
            // The number was registered before and is still open: it gets the new mark, and its state told afresh.
            Err(Errno::EXIST) => epoll::modify(&self.epoll, fd, data, flags),
            other => other,
        };
        added.map_err(|error| {
            self.table.remove(token);
            error.into()
        })
    }

    pub(super) fn register_for_park(&mut self, fd: BorrowedFd<'_>, owner: Owner, key: u32) -> io::Result<()> {
        let own = fd.try_clone_to_owned()?;
        self.remove_stale(fd);
        let token = self.table.insert(fd.as_raw_fd(), owner, key);
        let added = epoll::add(&self.epoll, &own, EventData::new_u64(token.0), ONCE);
        self.parked.push(Parked { token, fd: own, armed: Some(ONCE), wanted: ONCE });
        added.map_err(|error| {
            self.remove(token);
            error.into()
        })
    }

    fn remove_stale(&mut self, fd: BorrowedFd<'_>) {
        if let Some(stale) = self.table.token_of(fd.as_raw_fd()) {
            self.remove(stale);
        }
    }

    fn remove(&mut self, token: Token) {
        self.table.remove(token);
        if let Some(at) = self.parked.iter().position(|parked| parked.token == token) {
            // An error says that it is not there, which is what was wanted.
            let _ = epoll::delete(&self.epoll, &self.parked.swap_remove(at).fd);
        }
    }

    pub(super) fn watch_writes(&mut self, fd: BorrowedFd<'_>, on: bool) {
        let Some(token) = self.table.token_of(fd.as_raw_fd()) else { return };
        if let Some(parked) = self.parked.iter_mut().find(|parked| parked.token == token) {
            parked.wanted = if on { ONCE | EventFlags::OUT } else { ONCE };
        }
    }

    /// Has those watched that are watched only while the lane blocks. What is ready at that moment is told.
    fn arm_parked(&mut self) {
        for parked in self.parked.iter_mut().filter(|parked| parked.armed != Some(parked.wanted)) {
            let data = EventData::new_u64(parked.token.0);
            let armed = match parked.armed {
                Some(_) => epoll::modify(&self.epoll, &parked.fd, data, parked.wanted),
                None => epoll::add(&self.epoll, &parked.fd, data, parked.wanted),
            };
            parked.armed = armed.is_ok().then_some(parked.wanted);
        }
    }

    pub(super) fn deregister(&mut self, fd: BorrowedFd<'_>) {
        if let Some(token) = self.table.token_of(fd.as_raw_fd()) {
            self.remove(token);
            // An error says that it is not there, which is what was wanted.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    pub(super) fn poll(&mut self) {
        self.wait(Duration::ZERO);
    }

    /// As [`Epoll::poll`], unless that has just been in vain and there is something else to look at.
    pub(super) fn glance(&mut self, now: Time) {
        let rests = self.idle_at.is_some_and(|at| now.since(at) < REST);
        if rests && !self.parked.is_empty() {
            return;
        }
        self.poll();
        self.idle_at = self.events.is_empty().then_some(now);
    }

    pub(super) fn park(&mut self, timeout: Duration) {
        if self.table.has_waiting() || !self.waker.enter_park() {
            return self.poll();
        }
        self.arm_parked();
        self.wait(timeout.min(PARK_MAX));
        self.waker.leave_park();
    }

    /// A block that a signal interrupts ends early: the lane looks around and comes back.
    fn wait(&mut self, timeout: Duration) {
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("the lane's epoll descriptor is its own and open, yet: {error}"),
        }
        for event in &self.events {
            let (data, flags) = (event.data, event.flags);
            if data.u64() == WAKER {
                self.waker.drain();
                continue;
            }
            if let Some(parked) = self.parked.iter_mut().find(|parked| parked.token.0 == data.u64()) {
                parked.armed = None;
                // An error says that it is not there, which is what was wanted.
                let _ = epoll::delete(&self.epoll, &parked.fd);
            }
            let closed = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            let readable = closed || flags.contains(EventFlags::IN);
            let writable = flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
            self.table.became_ready(Token(data.u64()), Became { readable, writable, closed });
        }
    }
}
