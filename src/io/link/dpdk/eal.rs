//! libdpdk's environment, started once per process on a thread of its own, and what it says.
//!
//! It pins the thread that starts it and expects that thread to live: so none of a node's threads does it. The same
//! thread then keeps the ports ([`super::host::keep`]).
#![allow(unsafe_code, reason = "calls of a C library that has one state per process")]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{fs, ptr, slice, thread};

use dpdk_bindings as sys;
use rustix::process::getpid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::{OpenError, host, leftovers};

/// What is remembered of what libdpdk says, for the errors that it has no other words for.
const LINES_KEPT: usize = 8;

/// libdpdk's levels: what is at least this urgent is remembered.
const LEVEL_WARNING: c_int = 5;
const LEVEL_DEBUG: u32 = 8;

/// The driver of shared memory tells of its connections in lines for debugging alone: see [`host::hear`].
const MEMIF_LOG: &CStr = c"pmd.net.memif";

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

static STARTED: OnceLock<Result<Vec<String>, OpenError>> = OnceLock::new();

/// Starts libdpdk with these arguments, and those that everybody wants who does not say otherwise. Later calls find it
/// started, and fail if they want other arguments.
pub(super) fn start(arguments: &[String], memory_mib: u64) -> Result<(), OpenError> {
    let started = STARTED.get_or_init(|| {
        let (sender, receiver) = channel();
        let own = arguments.to_owned();
        let run = move || run(&own, memory_mib, &sender);
        let spawned = thread::Builder::new().name("plimsoll-dpdk".to_owned()).spawn(run);
        spawned.map_err(|error| OpenError(format!("a thread for DPDK cannot be started: {error}")))?;
        receiver.recv().map_err(|_| OpenError("DPDK ended the thread that started it".to_owned()))??;
        Ok(arguments.to_owned())
    });
    match started {
        Ok(with) if with == arguments => Ok(()),
        Ok(with) => Err(OpenError(format!(
            "DPDK runs in this process with the arguments {with:?} already and starts once; {arguments:?} cannot be added"
        ))),
        Err(error) => Err(error.clone()),
    }
}

fn run(arguments: &[String], memory_mib: u64, started: &Sender<Result<(), OpenError>>) {
    // This thread and those that it starts would inherit the one core of the lane that happens to be the first. They go
    // where the process may go.
    if let Ok(cores) = sched_getaffinity(Some(getpid())) {
        let _ = sched_setaffinity(None, &cores);
    }
    let result = initialise(completed(arguments, memory_mib));
    let good = result.is_ok();
    // Who asked has waited for this and nothing else.
    let _ = started.send(result);
    if good {
        host::keep();
    }
}

fn initialise(arguments: Vec<String>) -> Result<(), OpenError> {
    let told = format!("{arguments:?}");
    let all = ["plimsoll".to_owned()].into_iter().chain(arguments).map(CString::new);
    let all =
        all.collect::<Result<Vec<_>, _>>().map_err(|_| OpenError(format!("{told} has a zero byte in it")))?;
    let mut pointers = all.iter().map(|argument| argument.as_ptr().cast_mut()).collect::<Vec<*mut c_char>>();
    let count = c_int::try_from(pointers.len()).map_err(|_| OpenError("too many arguments".to_owned()))?;
    pointers.push(ptr::null_mut());
    // SAFETY: the sink is a function that lives as long as the process, and this comes before anything else of libdpdk.
    if unsafe { sys::plimsoll_dpdk_log_to(log) } != 0 {
        return Err(OpenError("DPDK's log cannot be opened".to_owned()));
    }
    // SAFETY: an array of strings as of a command line, ended by a null pointer; libdpdk may reorder the pointers and
    // keeps some of them.
    let ret = unsafe { sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    // Kept: see above. Once per process.
    std::mem::forget(all);
    if ret < 0 {
        return Err(OpenError::failed(format_args!("DPDK does not start with {told}"), last_errno()));
    }
    // SAFETY: a string of static storage, written when libdpdk was started.
    let own = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    if let Some(runtime) = Path::new(OsStr::from_bytes(own.to_bytes())).parent() {
        leftovers::clear(runtime);
    }
    // SAFETY: the pattern ends with a zero byte.
    unsafe { sys::plimsoll_dpdk_log_level(MEMIF_LOG.as_ptr(), LEVEL_DEBUG) };
    Ok(())
}

/// The arguments, with those that are wanted unless said otherwise: threads of its own nowhere, files of its own, huge
/// pages only where there are some.
fn completed(arguments: &[String], memory_mib: u64) -> Vec<String> {
    let says = |names: &[&str]| {
        let is = |argument: &String, name: &str| {
            let long = name.starts_with("--");
            let rest = argument.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || !long || rest.starts_with('='))
        };
        arguments.iter().any(|argument| names.iter().any(|name| is(argument, name)))
    };
    let mut all = arguments.to_vec();
    if !says(&["-l", "-c", "--lcores", "-s", "-S"]) {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let cores = cores.iter().map(|core| core.id.to_string()).collect::<Vec<_>>().join(",");
        if !cores.is_empty() {
            all.push(format!("--lcores=0@({cores})"));
        }
    }
    if !says(&["--file-prefix", "--in-memory", "--no-shconf"]) {
        all.push(format!("--file-prefix={}{}", leftovers::PREFIX, std::process::id()));
    }
    let memory_said = says(&["-m", "--socket-mem"]);
    let huge_said = says(&["--no-huge", "--in-memory", "--huge-dir", "--huge-unlink"]);
    if !huge_said && !huge_pages() {
        all.push("--no-huge".to_owned());
    }
    if !memory_said && all.iter().any(|argument| argument == "--no-huge") {
        all.extend(["-m".to_owned(), memory_mib.to_string()]);
    }
    if !says(&["--telemetry", "--no-telemetry"]) {
        all.push("--no-telemetry".to_owned());
    }
    all
}

/// Whether there are free huge pages and a place where they are to be had.
fn huge_pages() -> bool {
    let mounted = fs::read_to_string("/proc/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs")));
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else { return false };
    let free = |size: fs::DirEntry| {
        let count = fs::read_to_string(size.path().join("free_hugepages")).ok()?;
        count.trim().parse::<u64>().ok()
    };
    mounted && sizes.flatten().filter_map(free).any(|free| free > 0)
}

pub(super) extern "C" fn log(level: c_int, line: *const c_char, len_bytes: usize) {
    // SAFETY: libdpdk hands out so many bytes for the time of this call.
    let line = unsafe { slice::from_raw_parts(line.cast::<u8>(), len_bytes) };
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    host::hear(line);
    if level <= LEVEL_WARNING && !line.is_empty() {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
}

/// What libdpdk has complained of since this was last asked.
pub(super) fn complaints() -> String {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let all = lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
    lines.clear();
    all
}

/// What went wrong last on this thread.
pub(super) fn last_errno() -> i32 {
    // SAFETY: reads a number of this thread's.
    unsafe { sys::plimsoll_dpdk_errno() }
}

/// What an errno of libdpdk means.
pub(super) fn error_text(errno: i32) -> String {
    // SAFETY: takes any number.
    let text = unsafe { sys::rte_strerror(errno.saturating_abs()) };
    if text.is_null() {
        return format!("error {errno}");
    }
    // SAFETY: a string of this thread's, that the next such call overwrites: copied before.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// libdpdk's version.
pub(super) fn version() -> String {
    // SAFETY: a string of static storage.
    unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
}

/// Gives this thread an id among libdpdk's, and with it a cache in every pool, until it ends. Without one all goes on,
/// a little slower.
pub(super) fn register_thread() {
    struct Registered;
    impl Drop for Registered {
        fn drop(&mut self) {
            // SAFETY: this thread was registered, and ends.
            unsafe { sys::rte_thread_unregister() };
        }
    }
    thread_local! {
        static REGISTERED: OnceLock<Registered> = const { OnceLock::new() };
    }
    // SAFETY: both concern this thread alone, and libdpdk has been started.
    if unsafe { sys::plimsoll_dpdk_thread_known() } == 0 && unsafe { sys::rte_thread_register() } == 0 {
        REGISTERED.with(|registered| {
            let _ = registered.set(Registered);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_added_and_what_is_said_is_left() {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let bare = completed(&owned(&["--no-pci", "--no-huge"]), 80);
        assert_eq!(bare[..2], owned(&["--no-pci", "--no-huge"]));
        assert!(bare.iter().any(|argument| argument.starts_with("--lcores=0@(")), "{bare:?}");
        assert!(bare.contains(&format!("--file-prefix=plimsoll-{}", std::process::id())));
        assert!(bare.ends_with(&owned(&["-m", "80", "--no-telemetry"])), "{bare:?}");
        let said = owned(&["--no-huge", "-m64", "-l", "1", "--file-prefix=own", "--no-telemetry"]);
        assert_eq!(completed(&said, 80), said);
        let said = owned(&["--in-memory", "-c1", "--telemetry"]);
        assert_eq!(completed(&said, 80), said);
    }
}
