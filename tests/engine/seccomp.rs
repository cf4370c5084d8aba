//! Kernels that can do less: a thread is refused a system call by a filter, as one that does not know it would.
#![allow(unsafe_code, reason = "the kernel is given a program")]

use rustix::io::Errno;
use rustix::thread::futex;

/// Linux knows it since 5.16; the libraries' names for it are not on every system.
const FUTEX_WAITV: u32 = 449;

/// Where a filter finds the call's number, and on which architecture it was made.
const NUMBER: u32 = 0;

const fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// From now on `futex_waitv` is no call that the kernel knows, for this thread.
pub(crate) fn refuse_waiting_for_several() {
    let unless =
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, FUTEX_WAITV) };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER),
        unless,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: changes what this thread may ask the kernel for; the program is read during the call and not kept.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(refused, "no filter can be set: {}", std::io::Error::last_os_error());
    let answer = futex::waitv(&[], futex::WaitvFlags::empty(), None, futex::ClockId::Monotonic);
    assert_eq!(answer, Err(Errno::NOSYS));
}
