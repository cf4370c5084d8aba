//! How a ring is set up: with the best that this kernel knows, or an error that says who forbids it.

use std::io;

use io_uring::IoUring;

/// Entries that can be queued between two submissions; a full queue is submitted at once, so this is no bound.
pub(super) const SUBMISSIONS: u32 = 256;

/// Completions that fit before the kernel has to keep them aside: one per client, and room.
const COMPLETIONS: u32 = 4096;

/// How a ring posts its completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io::reactor) enum Flavour {
    /// When the lane asks (Linux 6.1).
    Deferred,
    /// When the lane is in the kernel anyway (5.19).
    Cooperative,
    /// At once, interrupting the lane.
    Plain,
}

impl Flavour {
    /// From the best on.
    pub(in crate::io::reactor) const ALL: [Flavour; 3] =
        [Flavour::Deferred, Flavour::Cooperative, Flavour::Plain];

    /// As the kernel calls it.
    pub(in crate::io::reactor) fn words(self) -> &'static str {
        match self {
            Flavour::Deferred => "SINGLE_ISSUER and DEFER_TASKRUN",
            Flavour::Cooperative => "COOP_TASKRUN",
            Flavour::Plain => "no flags",
        }
    }

    fn set_up(self) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp();
        match self {
            Flavour::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            }
            Flavour::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            Flavour::Plain => {}
        }
        builder.build(SUBMISSIONS)
    }
}

/// The first of the flavours that this kernel knows.
pub(super) fn set_up(flavours: &[Flavour]) -> io::Result<IoUring> {
    let mut outcome = Err(io::Error::from_raw_os_error(libc::EINVAL));
    for flavour in flavours {
        outcome = flavour.set_up();
        if !outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            break;
        }
    }
    outcome
}

/// An error of the set-up in words for the operator.
pub(super) fn explain(error: &io::Error) -> io::Error {
    let words = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here, by kernel.io_uring_disabled or a seccomp filter"
        }
        Some(libc::ENOSYS) => "this kernel has no io_uring, or a seccomp filter hides it",
        Some(libc::ENOMEM) => "no memory for an io_uring: RLIMIT_MEMLOCK may be too small",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor is left for an io_uring",
        _ => "no io_uring can be set up",
    };
    io::Error::new(error.kind(), format!("{words} ({error})"))
}
