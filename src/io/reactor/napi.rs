//! While a lane blocks, the kernel may look at the queues of network devices for it for a moment, before it waits for
//! their interrupts (NAPI busy polling). It has to be asked to: by a registration with the ring, or by epoll's
//! parameters, both since Linux 6.9.
#![allow(unsafe_code, reason = "calls that no safe interface has")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `IORING_REGISTER_NAPI` and `IORING_UNREGISTER_NAPI`.
const REGISTER: libc::c_uint = 27;
const UNREGISTER: libc::c_uint = 28;

/// `EPIOCSPARAMS` and `EPIOCGPARAMS`.
const SET_PARAMETERS: libc::Ioctl = 0x4008_8a01;
#[cfg(test)]
const GET_PARAMETERS: libc::Ioctl = 0x8008_8a02;

/// `struct io_uring_napi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct RingPoll {
    busy_poll_us: u32,
    prefer_busy_poll: u8,
    operation: u8,
    padding: [u8; 2],
    strategy: u32,
    reserved: u32,
}

/// `struct epoll_params`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct EpollPoll {
    busy_poll_us: u32,
    busy_poll_budget: u16,
    prefer_busy_poll: u8,
    padding: u8,
}

/// Packets that the kernel takes from a device at once; more takes CAP_NET_ADMIN.
const BUDGET: u16 = 8;

/// Has the ring's waits look at devices for so long.
pub(super) fn poll_by_ring(ring: BorrowedFd<'_>, busy_poll_us: u32) -> io::Result<()> {
    let mut poll = RingPoll { busy_poll_us, prefer_busy_poll: 1, ..RingPoll::default() };
    register(ring, REGISTER, &mut poll)
}

/// Ends that; what it was.
pub(super) fn end_by_ring(ring: BorrowedFd<'_>) -> io::Result<RingPoll> {
    let mut poll = RingPoll::default();
    register(ring, UNREGISTER, &mut poll)?;
    Ok(poll)
}

fn register(ring: BorrowedFd<'_>, operation: libc::c_uint, poll: &mut RingPoll) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one structure of this layout, which is borrowed until the call is over.
    let outcome = unsafe {
        let poll = std::ptr::from_mut(poll);
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), operation, poll, 1 as libc::c_uint)
    };
    if outcome < 0 { Err(explain(io::Error::last_os_error())) } else { Ok(()) }
}

/// Has epoll's waits look at devices for so long.
pub(super) fn poll_by_epoll(epoll: BorrowedFd<'_>, busy_poll_us: u32) -> io::Result<()> {
    let poll = EpollPoll { busy_poll_us, busy_poll_budget: BUDGET, prefer_busy_poll: 1, padding: 0 };
    // SAFETY: the kernel reads one structure of this layout, which lives until the call is over.
    let outcome = unsafe { libc::ioctl(epoll.as_raw_fd(), SET_PARAMETERS, &raw const poll) };
    if outcome < 0 { Err(explain(io::Error::last_os_error())) } else { Ok(()) }
}

/// In words for the operator.
fn explain(error: io::Error) -> io::Error {
    let words = match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOTTY) => "this kernel does not know it (Linux 6.9 does)",
        Some(libc::EOPNOTSUPP) => "this kernel was built without busy polling (CONFIG_NET_RX_BUSY_POLL)",
        _ => return error,
    };
    io::Error::new(io::ErrorKind::Unsupported, format!("{words} ({error})"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_ring_is_registered_where_the_kernel_knows_how() {
        let Ok(ring) = io_uring::IoUring::new(8) else { return println!("not tested: no io_uring here") };
        // SAFETY: the ring is open until the end of this function.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        match poll_by_ring(fd, 50) {
            Ok(()) => {
                let was = end_by_ring(fd).unwrap();
                assert_eq!((was.busy_poll_us, was.prefer_busy_poll), (50, 1));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
    }

    #[test]
    fn epoll_is_told_where_the_kernel_knows_how() {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        match poll_by_epoll(epoll.as_fd(), 50) {
            Ok(()) => {
                let mut told = EpollPoll::default();
                // SAFETY: the kernel writes one structure of this layout, which lives until the call is over.
                let outcome = unsafe { libc::ioctl(epoll.as_raw_fd(), GET_PARAMETERS, &raw mut told) };
                assert_eq!(outcome, 0);
                let wanted =
                    EpollPoll { busy_poll_us: 50, busy_poll_budget: BUDGET, prefer_busy_poll: 1, padding: 0 };
                assert_eq!(told, wanted);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_told_in_words() {
        for (number, words) in [
            (libc::EINVAL, "Linux 6.9"),
            (libc::ENOTTY, "Linux 6.9"),
            (libc::EOPNOTSUPP, "CONFIG_NET_RX_BUSY_POLL"),
        ] {
            let told = explain(io::Error::from_raw_os_error(number)).to_string();
            assert!(told.contains(words), "{told}");
        }
    }
}
