//! The one place where a lane blocks, and where it learns which of its descriptors are ready.
//!
//! One reactor per lane, on the lane's thread, shared by its disk, its link and its port through cheap clones. Over
//! io_uring one ring carries readiness and disk writes alike, so that a turn starts its writes and waits for whatever
//! comes first with one system call; over epoll the disk's helper thread wakes it through an eventfd.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::io::Park;

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
}

/// Which kernel interface carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// See the module. Clones are the same reactor. Not `Send`: it stays on its lane's thread.
#[derive(Clone, Debug)]
pub struct Reactor {}

impl Reactor {
    /// A reactor over `kind`. For [`Kind::Uring`] an error says that the kernel or its policy forbids it.
    pub fn new(kind: Kind) -> io::Result<Reactor> {
        let _ = kind;
        unimplemented!()
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        unimplemented!()
    }

    /// From now on `owner` is told, under `key`, when `fd` becomes readable or writable.
    pub fn register(&self, fd: BorrowedFd<'_>, owner: Owner, key: u32) -> io::Result<()> {
        let _ = (fd, owner, key);
        unimplemented!()
    }

    /// No more. To be called before the descriptor is closed. A readiness already collected may still be told.
    pub fn deregister(&self, fd: BorrowedFd<'_>, owner: Owner, key: u32) {
        let _ = (fd, owner, key);
        unimplemented!()
    }

    /// The next of `owner`'s descriptors that became ready, as of the last [`Park::poll`] or [`Park::park`].
    pub fn ready(&self, owner: Owner) -> Option<Ready> {
        let _ = owner;
        unimplemented!()
    }
}

impl Park for Reactor {
    fn poll(&mut self) {
        unimplemented!()
    }
    fn kick(&mut self) {
        unimplemented!()
    }
    fn park(&mut self, timeout: Duration) {
        let _ = timeout;
        unimplemented!()
    }
}
