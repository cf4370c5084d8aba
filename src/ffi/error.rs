//! What a call has to say beyond its status: per thread, the last one's words.
#![allow(unsafe_code, reason = "functions that C calls")]

use core::cell::RefCell;
use core::ffi::{CStr, c_char};

use super::barrier::{Failure, OutArray};
use super::status::Status;
use super::texts::{NO_STATUS, text_of};

thread_local! {
    static LAST: RefCell<Failure> = const { RefCell::new(Failure::new(Status::Ok)) };
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version without a NUL in it"),
};

pub(super) fn keep(failure: Failure) {
    LAST.with_borrow_mut(|last| *last = failure);
}

/// The version of the library: "0.1.0". It is static, and never freed. From any thread.
#[unsafe(no_mangle)]
pub extern "C" fn plimsoll_version() -> *const c_char {
    VERSION.as_ptr()
}

/// A few words for a status, or for a number that is none. They are static, and never freed. From any thread.
#[unsafe(no_mangle)]
pub extern "C" fn plimsoll_status_text(status: i32) -> *const c_char {
    text_of(status).unwrap_or(NO_STATUS).as_ptr()
}

/// What went wrong with this thread's last call that returned an error: what happened, where, and what to do. Success
/// does not clear it. Writes at most `capacity` bytes with the NUL that ends them, and returns how long the text is
/// without it: with a null buffer or a capacity of 0, how much room it takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_last_error(buffer: *mut c_char, capacity: usize) -> usize {
    let text = LAST.try_with(|last| {
        let last = last.borrow();
        if last.text.is_empty() {
            text_of(last.status as i32).unwrap_or_default().to_string_lossy()
        } else {
            last.text.clone()
        }
    });
    // SAFETY: the caller has room for `capacity` bytes at a pointer that is not null.
    unsafe { write(&text.unwrap_or_default(), buffer, capacity) }
}

/// # Safety
/// The buffer is null, or `capacity` bytes may be written there.
unsafe fn write(text: &str, buffer: *mut c_char, capacity: usize) -> usize {
    let Some(room) = capacity.checked_sub(1) else { return text.len() };
    // SAFETY: what the caller must see to.
    if let Ok(mut out) = unsafe { OutArray::new(buffer, capacity) } {
        let bytes = text.bytes().take(room).chain([0]);
        out.fill(bytes.map(|byte| byte as c_char));
    }
    text.len()
}
