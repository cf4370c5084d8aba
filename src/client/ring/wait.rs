//! How a thread waits for its rings, and how another thread wakes it.
//!
//! Nobody pays for this who does not wait: a lane makes the system call only for a thread that has said that it sleeps.
//! A thread that waits for several rings sleeps on the words of all of them at once (`futex_waitv`).

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::Attachment;
use crate::io::ring::EngineEnd;
use crate::io::ring::bell::{self, Rouser};

/// How long a thread sleeps at most before it looks whether the node is still there.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// How many words a thread can sleep on at once.
const WORDS_MAX: usize = 128;

/// How long a thread sleeps at most that cannot sleep on all its words: the kernel has no `futex_waitv` (before Linux
/// 5.16), or there are more of them than [`WORDS_MAX`].
const CLOSE_LOOK_PERIOD: Duration = Duration::from_millis(1);

/// Why a thread waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is something to poll or to take, be it that the node is gone.
    Ready,
    /// [`Waker::wake`] was called since a wait was last answered so. There may be something to poll as well.
    Woken,
    /// The time is over.
    TimedOut,
}

/// Wakes the thread that waits in [`Stream::wait`](super::Stream::wait) or [`Replica::wait`](super::Replica::wait), or
/// is the next to wait there. For any thread, at any time; it holds nothing, and a stream or replica that is no more is
/// not woken.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

/// What a stream or a replica has of its wakers.
#[derive(Debug)]
pub(super) struct Alarm(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rung: AtomicBool,
    /// The ring on whose word the thread sleeps: of several rings any one. Attaching again changes it.
    ring: Mutex<Option<Rouser>>,
}

impl Shared {
    fn set(&self, ring: Option<Rouser>) {
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner) = ring;
    }
}

impl Waker {
    /// Wakes it. A wait that is under way, or else the next one, ends with [`Waited::Woken`], once for all calls before
    /// it. Makes a system call only if the thread sleeps.
    pub fn wake(&self) {
        self.0.rung.store(true, Ordering::Release);
        let ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(word) = ring.as_ref().and_then(Rouser::sleeper) {
            // Not private: the thread sleeps as if the lane were in another process.
            let _ = futex::wake(word, futex::Flags::empty(), 1);
        }
    }
}

impl Alarm {
    pub(super) fn new(ring: Option<&Attachment>) -> Alarm {
        let alarm = Alarm(Arc::default());
        alarm.follow(ring);
        alarm
    }

    /// The thread sleeps on this one from now on.
    pub(super) fn follow(&self, ring: Option<&Attachment>) {
        self.0.set(ring.map(|ring| ring.end.rouser()));
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }

    fn has_rung(&self) -> bool {
        self.0.rung.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        self.has_rung() && self.0.rung.swap(false, Ordering::Acquire)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // A waker that is kept must not keep the ring's memory.
        self.0.set(None);
    }
}

/// Waits until one of the rings has something to poll, is found to have ended, or the alarm rings.
pub(super) fn wait(
    rings: &mut [Attachment],
    alarm: Option<&Alarm>,
    spin: Duration,
    timeout: Duration,
) -> Waited {
    let begun = Instant::now();
    loop {
        if alarm.is_some_and(Alarm::take) {
            return Waited::Woken;
        }
        if rings.iter().any(Attachment::has_something) {
            return Waited::Ready;
        }
        let passed = begun.elapsed();
        if passed >= timeout {
            // Who waits so shortly that it never sleeps must find out, too.
            let found = rings.iter_mut().any(|ring| ring.finds_end_in_time(begun));
            return if found { Waited::Ready } else { Waited::TimedOut };
        }
        if passed < spin {
            core::hint::spin_loop();
            continue;
        }
        sleep(rings, alarm, (timeout - passed).min(LOOK_PERIOD));
        // Who was woken for something does not ask of each ring whether its node is there: that is a system call.
        if !rings.iter().any(Attachment::has_something) && rings.iter_mut().any(Attachment::finds_end) {
            return Waited::Ready;
        }
    }
}

fn sleep(rings: &[Attachment], alarm: Option<&Alarm>, timeout: Duration) {
    let here = &rings[..rings.len().min(WORDS_MAX)];
    here.iter().for_each(|ring| ring.end.enter_sleep());
    bell::settle();
    // Of a ring that has ended nothing is waited for any more.
    let news = rings.iter().any(|ring| ring.ended.is_none() && ring.end.has_news());
    if !news && !alarm.is_some_and(Alarm::has_rung) {
        match here {
            // Nobody follows anything; an alarm is seen with the next look.
            [] => std::thread::park_timeout(timeout.min(CLOSE_LOOK_PERIOD)),
            [ring] => sleep_on_one(&ring.end, timeout),
            _ if here.len() < rings.len() => sleep_on_any(here, timeout.min(CLOSE_LOOK_PERIOD)),
            _ => sleep_on_any(here, timeout),
        }
    }
    here.iter().for_each(|ring| ring.end.leave_sleep());
}

fn sleep_on_one(end: &EngineEnd, timeout: Duration) {
    // Not private: the lane may be in another process. Whatever ends it, the caller looks again.
    let _ = futex::wait(end.sleep_word(), futex::Flags::empty(), bell::ASLEEP, Some(&timespec(timeout)));
}

fn sleep_on_any(rings: &[Attachment], timeout: Duration) {
    let mut words = [futex::Wait::new(); WORDS_MAX];
    for (word, ring) in words.iter_mut().zip(rings) {
        let address: *const _ = ring.end.sleep_word();
        word.uaddr = futex::WaitPtr::new(address.cast_mut().cast());
        word.val = bell::ASLEEP.into();
        word.flags = futex::WaitFlags::SIZE_U32;
    }
    let now = clock_gettime(ClockId::Monotonic);
    let until = now.checked_add(timespec(timeout)).unwrap_or(now);
    let woken = futex::waitv(
        &words[..rings.len()],
        futex::WaitvFlags::empty(),
        Some(&until),
        futex::ClockId::Monotonic,
    );
    match woken {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
        // The alarm goes to the first one's word.
        Err(_) => sleep_on_one(&rings[0].end, timeout.min(CLOSE_LOOK_PERIOD)),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
