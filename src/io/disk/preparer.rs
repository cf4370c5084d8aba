//! The thread that makes segments before they are needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::medium::{Extent, Medium};
use super::spawn;
use crate::io::reactor::Waker;
use crate::io::{DiskError, SegmentId};

/// How long after a segment found no room it is tried again.
const SPACE_RETRY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// How the thread that makes segments goes about it, and whether it still should.
#[derive(Debug, Default)]
pub(super) struct Tempo {
    /// The segment under way is about to be waited for.
    hurry: AtomicBool,
    stop: AtomicBool,
}

impl Tempo {
    fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    fn take_time(&self) {
        self.hurry.store(false, Ordering::Relaxed);
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// Lets the hot path have the device for a while, unless it is the hot path that waits. Whether to go on.
    fn rest(&self, fair: Duration) -> bool {
        self.pause(if self.hurry.load(Ordering::Relaxed) { Duration::ZERO } else { fair })
    }

    /// Whether to go on, after so long. Its thread is unparked when it is to stop.
    fn pause(&self, lasting: Duration) -> bool {
        let until = Instant::now() + lasting;
        while !self.stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::park_timeout(left);
        }
        false
    }
}

/// The thread that makes segments, one at a time. A segment that finds no room is told once and
/// tried again until it does: the operator may make room at any time, and nobody else need remember that it is wanted.
#[derive(Debug)]
pub(super) struct Preparer {
    /// `None` once it is told to end.
    orders: Option<Sender<SegmentId>>,
    outcomes: Receiver<Outcome>,
    under_way: usize,
    tempo: Arc<Tempo>,
    thread: Option<JoinHandle<()>>,
}

/// An error for want of room is not the last word on its segment; every other outcome is.
type Outcome = (SegmentId, Result<Extent, DiskError>);

impl Preparer {
    pub(super) fn new(medium: Arc<Medium>, waker: Waker) -> Result<Preparer, DiskError> {
        let (orders, ordered) = channel::<SegmentId>();
        let (finished, outcomes) = channel();
        let tempo = Arc::new(Tempo::default());
        let its_tempo = Arc::clone(&tempo);
        let thread = spawn("plimsoll-zero", &medium.place_of(SegmentId(0)), move || {
            let tell = |outcome: Outcome| {
                let is_heard = finished.send(outcome).is_ok();
                waker.wake();
                is_heard
            };
            for segment in ordered {
                let Some(outcome) = insist(&medium, segment, &its_tempo, &tell) else { return };
                if !tell((segment, outcome)) {
                    return;
                }
            }
        })?;
        Ok(Preparer { orders: Some(orders), outcomes, under_way: 0, tempo, thread: Some(thread) })
    }

    pub(super) fn start(&mut self, segment: SegmentId) {
        self.tempo.take_time();
        let orders = self.orders.as_ref().expect("orders end only when it is dropped");
        orders.send(segment).expect("the thread takes orders until it is dropped");
        self.under_way += 1;
    }

    /// From now on the segment under way is made without rests.
    pub(super) fn hurry(&self) {
        self.tempo.hurry();
    }

    #[cfg(test)]
    pub(super) fn tempo(&self) -> &Tempo {
        &self.tempo
    }

    pub(super) fn next(&mut self) -> Option<Outcome> {
        if self.under_way == 0 {
            return None;
        }
        let outcome = self.outcomes.try_recv().ok()?;
        self.under_way -= usize::from(!is_for_want_of_room(&outcome.1));
        Some(outcome)
    }
}

/// Makes a segment, however long there is no room for it; the first time that there is none, `tell` is told. It rests
/// between the pieces, which may be cut short, and pauses between attempts. `None`: the disk is being dropped.
fn insist(
    medium: &Medium,
    segment: SegmentId,
    tempo: &Tempo,
    tell: &dyn Fn(Outcome) -> bool,
) -> Option<Result<Extent, DiskError>> {
    let mut is_told = false;
    loop {
        let outcome = medium.create(segment, &mut |fair| tempo.rest(fair)).transpose()?;
        if !is_for_want_of_room(&outcome) {
            return Some(outcome);
        }
        if !std::mem::replace(&mut is_told, true) && !tell((segment, outcome)) {
            return None;
        }
        // Not even tried where it cannot succeed: that would take from others, for a moment, the little that is left.
        while {
            if !tempo.pause(SPACE_RETRY) {
                return None;
            }
            !medium.may_have_room()
        } {}
    }
}

fn is_for_want_of_room(outcome: &Result<Extent, DiskError>) -> bool {
    outcome.as_ref().is_err_and(|error| error.no_space)
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.orders = None;
        self.tempo.stop();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panics only by a broken invariant, and has said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(86_400);

    #[test]
    fn who_hurries_does_not_rest_and_who_is_stopped_does_not_go_on() {
        let tempo = Tempo::default();
        assert!(tempo.rest(Duration::from_millis(1)));
        tempo.hurry();
        assert!(tempo.rest(FOR_EVER));
        tempo.take_time();
        tempo.stop();
        assert!(!tempo.rest(FOR_EVER));
        assert!(!tempo.pause(FOR_EVER));
    }
}
