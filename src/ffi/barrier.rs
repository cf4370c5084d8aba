//! What stands between C and the rest: panics end here, handles are used by one at a time, and pointers are looked at.
#![allow(unsafe_code, reason = "what C hands in are pointers")]

use core::any::Any;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::Status;
use super::error;

/// Why a call is not answered with [`Status::Ok`].
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: Status,
    /// Empty: the status says it all.
    pub(super) text: Cow<'static, str>,
}

impl Failure {
    pub(super) const fn new(status: Status) -> Failure {
        Failure { status, text: Cow::Borrowed("") }
    }

    pub(super) const fn because(status: Status, text: &'static str) -> Failure {
        Failure { status, text: Cow::Borrowed(text) }
    }

    #[cold]
    pub(super) fn told(status: Status, text: &dyn fmt::Display) -> Failure {
        Failure { status, text: Cow::Owned(text.to_string()) }
    }
}

/// Runs the body of a function of the ABI; whatever happens in it is answered.
#[inline]
pub(super) fn answer(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    // What a panic leaves in disorder is poisoned by `Guarded`.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(failure)) => failed(failure),
        Err(panic) => failed(Failure::told(Status::Panicked, &what_of(&*panic))),
    }
}

#[cold]
fn failed(failure: Failure) -> Status {
    let status = failure.status;
    // Kept by the thread, whose end may have begun; then nobody asks for it either. A panic here must not cross either.
    let _ = catch_unwind(AssertUnwindSafe(|| error::keep(failure)));
    status
}

fn what_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    format!("a defect in Plimsoll: {text}; close the handle, and report it")
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const POISONED: u32 = 2;

/// What a handle points to: used by one at a time, and by nobody after a panic.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    state: AtomicU32,
    /// The only thread that is let in, by a poll that is under way: see [`this_thread`]. 0: any.
    bound_to: AtomicUsize,
    inner: UnsafeCell<T>,
}

// SAFETY: what is in it is used by who has taken the flag, one at a time, as with a mutex.
unsafe impl<T: Send> Sync for Guarded<T> {}

/// Dropped by a panic only.
struct Poison<'a>(&'a AtomicU32);

impl Drop for Poison<'_> {
    fn drop(&mut self) {
        self.0.store(POISONED, Ordering::Release);
    }
}

/// As long as it is there only one thread is let in, and nobody ends the handle: who has it comes back to the handle.
/// Given back whatever happened in between, a panic too.
#[must_use]
pub(super) struct Bound<'a>(&'a AtomicUsize);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        // From here on the handle may be freed, so this is the last that is done with it.
        self.0.store(0, Ordering::Release);
    }
}

impl<T> Guarded<T> {
    pub(super) fn new(inner: T) -> Guarded<T> {
        Guarded { state: AtomicU32::new(FREE), bound_to: AtomicUsize::new(0), inner: UnsafeCell::new(inner) }
    }

    /// Uses what is in it. Whoever comes while that lasts is refused, and does not wait.
    #[inline]
    pub(super) fn with<R>(&self, body: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        self.take()?;
        let poison = Poison(&self.state);
        // SAFETY: the flag was free and is taken, so there is no other reference until it is given back below; after a
        // panic it never is.
        let result = body(unsafe { &mut *self.inner.get() });
        mem::forget(poison);
        self.state.store(FREE, Ordering::Release);
        result
    }

    /// As [`Guarded::with`]; and only this thread is let in as long as there is a [`Bound`].
    pub(super) fn bind<R>(
        &self,
        body: impl FnOnce(&mut T) -> Result<R, Failure>,
    ) -> Result<(Bound<'_>, R), Failure> {
        self.with(|inner| {
            let result = body(inner)?;
            self.bound_to.store(this_thread(), Ordering::Relaxed);
            Ok((Bound(&self.bound_to), result))
        })
    }

    #[inline]
    fn take(&self) -> Result<(), Failure> {
        loop {
            let taken = self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed);
            let bound_to = self.bound_to.load(Ordering::Relaxed);
            match taken {
                Ok(_) if bound_to == 0 || bound_to == this_thread() => return Ok(()),
                Ok(_) => {
                    self.state.store(FREE, Ordering::Release);
                    return Err(refused(TAKEN));
                }
                // Somebody else is being refused, in this moment.
                Err(TAKEN) if bound_to == this_thread() => core::hint::spin_loop(),
                Err(state) => return Err(refused(state)),
            }
        }
    }

    /// Takes it for good, to end it: as [`Guarded::with`], but what is poisoned can be ended, too. While it is bound
    /// nobody ends it, its own thread least of all: the poll that has called it would come back to freed memory.
    pub(super) fn take_for_good(&self) -> Result<(), Failure> {
        let taken = self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Acquire);
        if matches!(taken, Err(TAKEN)) {
            return Err(refused(TAKEN));
        }
        if self.bound_to.load(Ordering::Acquire) != 0 {
            if taken.is_ok() {
                self.state.store(FREE, Ordering::Release);
            }
            return Err(refused(TAKEN));
        }
        Ok(())
    }
}

/// A number that no other thread has while this one runs, and that costs less than its id: where something of it lies.
#[inline]
fn this_thread() -> usize {
    std::thread_local! { static PLACE: u8 = const { 0 } }
    PLACE.with(|place| core::ptr::from_ref(place).addr())
}

#[cold]
fn refused(state: u32) -> Failure {
    Failure::new(if state == POISONED { Status::Panicked } else { Status::Reentered })
}

/// What a pointer of the caller points to.
///
/// # Safety
/// It is null, or points to a `T` that lives and is not changed as long as the reference does.
#[inline]
pub(super) unsafe fn reference<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: what the caller must see to.
    unsafe { pointer.as_ref() }.ok_or(NULL)
}

/// The values of the caller. Of none, the pointer may be null.
///
/// # Safety
/// The pointer is null, or `len` values are there that live and are not changed as long as the slice does.
#[inline]
pub(super) unsafe fn slice<'a, T>(values: *const T, len: usize) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if values.is_null() {
        return Err(NULL);
    }
    if len > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::new(Status::Size));
    }
    // SAFETY: not null, of a length that can be, and the rest is what the caller must see to.
    Ok(unsafe { core::slice::from_raw_parts(values, len) })
}

/// A string of the caller.
///
/// # Safety
/// It is null, or ends with a NUL and is not changed as long as the reference lives.
pub(super) unsafe fn text<'a>(string: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: what the caller must see to.
    let string = unsafe { c_string(string)? };
    string.to_str().map_err(|error| Failure::told(Status::BadUtf8, &error))
}

/// A path of the caller, in whatever bytes.
///
/// # Safety
/// As of [`text`].
pub(super) unsafe fn path<'a>(string: *const c_char) -> Result<&'a Path, Failure> {
    // SAFETY: what the caller must see to.
    let string = unsafe { c_string(string)? };
    Ok(Path::new(OsStr::from_bytes(string.to_bytes())))
}

/// # Safety
/// As of [`text`].
unsafe fn c_string<'a>(string: *const c_char) -> Result<&'a CStr, Failure> {
    if string.is_null() {
        return Err(NULL);
    }
    // SAFETY: it is not null, and the rest is what the caller must see to.
    Ok(unsafe { CStr::from_ptr(string) })
}

const NULL: Failure = Failure::new(Status::NullArgument);

/// Where an answer goes that is more than a status. It is written only.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// The pointer is null, or a `T` may be written there as long as this lives.
    #[inline]
    pub(super) unsafe fn new(pointer: *mut T) -> Result<Out<T>, Failure> {
        if pointer.is_null() { Err(NULL) } else { Ok(Out(pointer)) }
    }

    #[inline]
    pub(super) fn set(&mut self, value: T) {
        // SAFETY: not null, and who made this has promised the rest.
        unsafe { self.0.write(value) }
    }
}

/// An array of the caller that is to be filled. Of no room, the pointer may be null.
pub(super) struct OutArray<T> {
    pointer: *mut T,
    capacity: usize,
}

impl<T> OutArray<T> {
    /// # Safety
    /// The pointer is null, or `capacity` values of `T` may be written there as long as this lives.
    pub(super) unsafe fn new(pointer: *mut T, capacity: usize) -> Result<OutArray<T>, Failure> {
        if pointer.is_null() && capacity > 0 { Err(NULL) } else { Ok(OutArray { pointer, capacity }) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes as many as there is room for, and says how many that were.
    pub(super) fn fill(&mut self, values: impl Iterator<Item = T>) -> usize {
        let mut count = 0;
        for value in values.take(self.capacity) {
            // SAFETY: `count` is below the capacity, for which who made this has promised room.
            unsafe { self.pointer.add(count).write(value) };
            count += 1;
        }
        count
    }
}
