//! Tells a device that it need not keep a range.
#![allow(unsafe_code, reason = "there is no safe call for it")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IO(0x12, 119)` of `linux/fs.h`.
const BLKDISCARD: libc::c_ulong = 0x1277;

/// The most that one call gives away: it does not return before the device has taken it.
const PIECE_BYTES: u64 = 1 << 30;

/// Lets the device forget the range: what is read there afterwards is anything. False: the device does not do that.
pub(super) fn discard(device: BorrowedFd<'_>, offset: u64, len_bytes: u64) -> io::Result<bool> {
    let end = offset + len_bytes;
    let mut offset = offset;
    while offset < end {
        let range = [offset, (end - offset).min(PIECE_BYTES)];
        // SAFETY: the call reads two u64 from `range`, which lives until it returns, and changes none of our memory.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD as _, range.as_ptr()) };
        if result != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(false) } else { Err(error) };
        }
        offset += range[1];
    }
    Ok(true)
}
