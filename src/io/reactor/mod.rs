//! The one place where a lane blocks, and where it learns which of its descriptors are ready.
//!
//! One reactor per lane, on the lane's thread, shared by its disk, its link and its port through cheap clones. Over
//! io_uring one ring carries readiness and disk writes alike, so that a turn starts its writes and waits for whatever
//! comes first with one system call; over epoll the disk's helper thread wakes it through an eventfd.

mod epoll;
mod napi;
mod polled;
pub mod probe;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod uring;
mod waker;

use std::cell::{RefCell, RefMut};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use self::epoll::Epoll;
use self::uring::{Flavour, Uring};
pub use self::waker::Waker;

use crate::io::Park;
use crate::types::Time;

/// Who is told of a descriptor's readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// The link to the peers.
    Link = 0,
    /// The port for the clients.
    Port = 1,
    /// The disk.
    Disk = 2,
    /// The mailbox through which other threads reach the lane.
    Mailbox = 3,
    /// The carrier of datagrams over UDP.
    Udp = 4,
    /// The carrier of datagrams over RDMA.
    Rdma = 5,
}

/// A descriptor that became ready, edge-triggered: use it until it would block. May be spurious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What it was registered under.
    pub key: u32,
    /// Something can be read, the other end's closing included.
    pub readable: bool,
    /// Something can be written.
    pub writable: bool,
    /// The other end has closed, or there is an error: reading goes on until it tells. Without this, a read that got
    /// less than it had room for has emptied the descriptor, and need not be followed by one that would block.
    pub closed: bool,
}

/// Which kernel interface carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// The longest that one block lasts, whatever was asked for: what comes later is found by looking again.
const PARK_MAX: Duration = Duration::from_secs(3600);

/// See the module. Clones are the same reactor. Not `Send`: it stays on its lane's thread.
#[derive(Clone, Debug)]
pub struct Reactor {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Backend,
    waker: Waker,
}

#[derive(Debug)]
enum Backend {
    Uring(Box<RefCell<Uring>>),
    Epoll(Box<RefCell<Epoll>>),
}

impl Reactor {
    /// A reactor over `kind`, to be made on the thread that will use it: a ring takes entries from its maker alone.
    /// For [`Kind::Uring`] an error says that the kernel or its policy forbids it.
    pub fn new(kind: Kind) -> io::Result<Reactor> {
        Reactor::with(kind, &Flavour::ALL)
    }

    fn with(kind: Kind, flavours: &[Flavour]) -> io::Result<Reactor> {
        let waker = Waker::new()?;
        let backend = match kind {
            Kind::Uring => Backend::Uring(Box::new(RefCell::new(Uring::new(waker.clone(), flavours)?))),
            Kind::Epoll => Backend::Epoll(Box::new(RefCell::new(Epoll::new(waker.clone())?))),
        };
        Ok(Reactor { inner: Rc::new(Inner { backend, waker }) })
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self.inner.backend {
            Backend::Uring(_) => Kind::Uring,
            Backend::Epoll(_) => Kind::Epoll,
        }
    }

    /// Lets other threads end this reactor's block. What a wake announces must be looked for after every
    /// [`Park::park`], and before the next.
    pub fn waker(&self) -> Waker {
        self.inner.waker.clone()
    }

    /// From now on `owner` is told, under `key`, when `fd` becomes readable or writable; what it is already is told
    /// first. A descriptor is registered once: registering its number again ends the earlier registration.
    pub fn register(&self, fd: BorrowedFd<'_>, owner: Owner, key: u32) -> io::Result<()> {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow_mut().register(fd, owner, key),
            Backend::Epoll(epoll) => epoll.borrow_mut().register(fd, owner, key),
        }
    }

    /// As [`Reactor::register`], for a descriptor at which its owner looks in every turn anyway: it is watched only
    /// while the lane blocks, so that what comes to a lane that spins costs no telling. Only that something can be read
    /// is told, and what [`Reactor::watch_writes`] asks for.
    pub fn register_for_park(&self, fd: BorrowedFd<'_>, owner: Owner, key: u32) -> io::Result<()> {
        match &self.inner.backend {
            Backend::Uring(uring) => {
                uring.borrow_mut().register_for_park(fd, owner, key);
                Ok(())
            }
            Backend::Epoll(epoll) => epoll.borrow_mut().register_for_park(fd, owner, key),
        }
    }

    /// Whether one of [`Reactor::register_for_park`] is also to be told that something can be written: its owner has
    /// something that it could not write.
    pub fn watch_writes(&self, fd: BorrowedFd<'_>, on: bool) {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow_mut().watch_writes(fd, on),
            Backend::Epoll(epoll) => epoll.borrow_mut().watch_writes(fd, on),
        }
    }

    /// No more, and what was collected of it and not told yet is forgotten. To be called before the descriptor is
    /// closed. Does nothing if it is not registered under this owner and key.
    pub fn deregister(&self, fd: BorrowedFd<'_>, owner: Owner, key: u32) {
        let number = fd.as_raw_fd();
        match &self.inner.backend {
            Backend::Uring(uring) => {
                let mut uring = uring.borrow_mut();
                if uring.table.is(number, owner, key) {
                    uring.deregister(fd);
                }
            }
            Backend::Epoll(epoll) => {
                let mut epoll = epoll.borrow_mut();
                if epoll.table.is(number, owner, key) {
                    epoll.deregister(fd);
                }
            }
        }
    }

    /// The next of `owner`'s descriptors that became ready, as of the last [`Park::poll`] or [`Park::park`].
    pub fn ready(&self, owner: Owner) -> Option<Ready> {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow_mut().table.next(owner),
            Backend::Epoll(epoll) => epoll.borrow_mut().table.next(owner),
        }
    }

    /// From now on, while the lane blocks, the kernel looks at the queues of network devices for so many microseconds
    /// before it waits for their interrupts. An error says what this kernel lacks; then it waits, as it does without.
    pub fn poll_devices(&self, busy_poll_us: u32) -> io::Result<()> {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow().poll_devices(busy_poll_us),
            Backend::Epoll(epoll) => napi::poll_by_epoll(epoll.borrow().fd(), busy_poll_us),
        }
    }

    /// The ring, for a disk that shares it.
    pub(crate) fn ring(&self) -> Option<RefMut<'_, Uring>> {
        match &self.inner.backend {
            Backend::Uring(uring) => Some(uring.borrow_mut()),
            Backend::Epoll(_) => None,
        }
    }
}

impl Park for Reactor {
    fn poll(&mut self) {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow_mut().poll(),
            Backend::Epoll(epoll) => epoll.borrow_mut().poll(),
        }
    }

    /// Over epoll the kernel is left alone for `epoll::REST` after it had nothing to tell, if the lane has something to
    /// look at meanwhile: a descriptor of [`Reactor::register_for_park`].
    fn glance(&mut self, now: Time) {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow_mut().poll(),
            Backend::Epoll(epoll) => epoll.borrow_mut().glance(now),
        }
    }

    fn kick(&mut self) {
        if let Some(mut uring) = self.ring() {
            uring.submit();
        }
    }

    /// Returns at once if something was collected that nobody has taken yet, or if a [`Waker`] was used since the
    /// last block. May return early for no reason. Over epoll the timeout is rounded up to milliseconds.
    fn park(&mut self, timeout: Duration) {
        match &self.inner.backend {
            Backend::Uring(uring) => uring.borrow_mut().park(timeout),
            Backend::Epoll(epoll) => epoll.borrow_mut().park(timeout),
        }
    }

    fn yield_core(&mut self) {
        rustix::thread::sched_yield();
    }
}
