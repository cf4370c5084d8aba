//! A defect to order, for the test of what becomes of one: only in builds with debug assertions, and in no header.
#![allow(unsafe_code, reason = "a function that C calls, with a pointer of its")]

use super::Status;
use super::barrier::answer;
use super::stream::{StreamHandle, with};

/// Panics while it uses the stream.
#[unsafe(no_mangle)]
#[allow(missing_docs)]
pub(super) unsafe extern "C" fn plimsoll_test_panic(stream: *mut StreamHandle) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, |_| panic!("ordered by a test")) }
    })
}
