//! The verbs, safe: what is registered, posted and destroyed in which order is settled here, and nowhere else.
//!
//! Everything that the device may still touch outlives the queue pair that it was posted to: a [`Queues`] drops its
//! queue pair first, and each object holds what it was made of.

mod completion;
mod device;
mod memory;
mod queues;
mod receive;
mod send;

use std::fmt;
use std::io;

pub(super) use self::completion::{Completion, CompletionQueue};
pub(super) use self::device::{Device, Event, Port};
pub(super) use self::memory::{Domain, Region};
pub(super) use self::queues::{Buffers, Queues, Shape, Tag};

/// A call that failed.
#[derive(Debug)]
pub(super) struct VerbError {
    pub(super) call: &'static str,
    pub(super) cause: io::Error,
}

impl VerbError {
    /// Of a call that leaves the cause in errno.
    fn last(call: &'static str) -> VerbError {
        VerbError { call, cause: io::Error::last_os_error() }
    }

    /// Of a call that returns the cause; 0 is none.
    fn check(call: &'static str, returned: i32) -> Result<(), VerbError> {
        match returned {
            0 => Ok(()),
            -1 => Err(VerbError::last(call)),
            code => Err(VerbError { call, cause: io::Error::from_raw_os_error(code.abs()) }),
        }
    }
}

impl fmt::Display for VerbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.cause)
    }
}
