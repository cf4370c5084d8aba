//! What both backends have in common: the segments, what is to be told, the end after a failure, and the thread that
//! makes segments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::medium::{Extent, Medium, OpenSegment, OpenSegments, failure};
use super::spawn;
use crate::io::reactor::Waker;
use crate::io::{DiskError, DiskEvent, Read, SegmentId, Write};
use crate::types::{Flushed, WriteSequence};

/// How long after a segment found no room it is tried again.
const SPACE_RETRY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// The next segment is made without rests once so much, one part of so many, of the last one is written: whoever writes so
/// fast would wait for it.
const HURRY_PART: u64 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) medium: Arc<Medium>,
    open: OpenSegments,
    events: VecDeque<DiskEvent>,
    is_failed: bool,
    preparer: Preparer,
    /// The segment that was asked for last.
    preparing: Option<SegmentId>,
}

impl Base {
    pub(super) fn new(medium: Medium, waker: Waker) -> Result<Base, DiskError> {
        let medium = Arc::new(medium);
        let preparer = Preparer::new(Arc::clone(&medium), waker)?;
        let (open, events) = (OpenSegments::new(), VecDeque::new());
        Ok(Base { medium, open, events, is_failed: false, preparer, preparing: None })
    }

    /// The segment, and whether it was opened just now. `None`: it does not open, and the disk has failed.
    pub(super) fn segment(&mut self, segment: SegmentId) -> Option<(Arc<OpenSegment>, bool)> {
        match self.segment_now(segment) {
            Ok(opened) => Some(opened),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// The same, but an error is the caller's.
    pub(super) fn segment_now(&mut self, segment: SegmentId) -> Result<(Arc<OpenSegment>, bool), DiskError> {
        if let Some(open) = self.open.get(segment) {
            return Ok((open, false));
        }
        let extent = self.medium.open_segment(segment)?;
        Ok((self.open.insert(segment, extent), true))
    }

    #[cfg(test)]
    pub(super) fn fail_writes_to(&mut self, segment: SegmentId) -> Arc<OpenSegment> {
        let extent = self.medium.open_for_reading(segment);
        self.open.insert(segment, extent)
    }

    /// Something to be told, unless the disk has failed before.
    pub(super) fn tell(&mut self, event: DiskEvent) {
        if !self.is_failed {
            self.events.push_back(event);
        }
    }

    /// The end: told once, and nothing after it.
    pub(super) fn fail(&mut self, error: DiskError) {
        self.tell(DiskEvent::Failed(error));
        self.is_failed = true;
    }

    pub(super) fn is_failed(&self) -> bool {
        self.is_failed
    }

    pub(super) fn prepare(&mut self, segment: SegmentId) {
        if !self.is_failed {
            self.preparing = Some(segment);
            self.preparer.start(segment);
        }
    }

    /// Takes in segments that were made. Returns the first that is new since the last call, open.
    pub(super) fn next_prepared(&mut self) -> Option<Arc<OpenSegment>> {
        loop {
            let (segment, outcome) = self.preparer.next()?;
            match outcome {
                Ok(extent) => {
                    let open = self.open.insert(segment, extent);
                    self.tell(DiskEvent::Prepared(segment));
                    return Some(open);
                }
                Err(error) if error.no_space => self.tell(DiskEvent::NotPrepared { segment, error }),
                Err(error) => {
                    self.fail(error);
                    return None;
                }
            }
        }
    }

    pub(super) fn deliver(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        let mut count = 0;
        while let Some(event) = self.events.pop_front() {
            count += 1;
            sink(event);
        }
        count
    }

    /// Reads from a segment that is open.
    pub(super) fn read_now(
        &self,
        (segment, open): (SegmentId, &OpenSegment),
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), DiskError> {
        let end = offset + into.len() as u64;
        assert!(end <= self.medium.segment_bytes(), "a read ends inside the segment");
        open.extent.read_anyhow_at(into, offset, self.medium.block_bytes()).map_err(|error| {
            let operation = format!("read {} bytes at {offset} up to {end}", into.len());
            failure(operation, self.medium.place_of(segment), &error)
        })
    }

    pub(super) fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        self.medium.sync(&mut self.open)?;
        Ok(Flushed::by_disk(sequence))
    }

    /// A write begins. What a caller owes: whole blocks inside the segment, from memory that the device takes.
    pub(super) fn begin_write(&self, write: &Write) {
        let is_last = self.preparing == Some(SegmentId(write.segment.0 + 1));
        if is_last && write.offset >= self.medium.segment_bytes() / HURRY_PART {
            self.preparer.hurry();
        }
        self.check_place(write.offset, write.bytes.len());
        let block = self.medium.block_bytes();
        assert!(
            write.bytes.as_ptr().addr().is_multiple_of(block),
            "a write's memory is aligned to the block"
        );
    }

    /// As [`Base::begin_write`].
    pub(super) fn check_read(&self, read: &Read) {
        self.check_place(read.offset, read.len_bytes);
        let block = self.medium.block_bytes();
        let spare = read.into.spare();
        assert!(spare.len() >= read.len_bytes, "a read fits the chunk's spare room");
        assert!(spare.as_ptr().addr().is_multiple_of(block), "a read's memory is aligned to the block");
    }

    fn check_place(&self, offset: u64, len_bytes: usize) {
        let block = self.medium.block_bytes();
        assert!(len_bytes > 0 && len_bytes.is_multiple_of(block), "whole blocks are written and read");
        assert!(offset.is_multiple_of(block as u64), "writes and reads begin at a block");
        assert!(offset + len_bytes as u64 <= self.medium.segment_bytes(), "and end inside the segment");
    }
}

/// The thread that makes segments, one at a time. A segment that finds no room is told once and
/// tried again until it does: the operator may make room at any time, and nobody else need remember that it is wanted.
#[derive(Debug)]
struct Preparer {
    /// `None` once it is told to end.
    orders: Option<Sender<SegmentId>>,
    outcomes: Receiver<Outcome>,
    under_way: usize,
    stop: Arc<AtomicBool>,
    /// The segment under way is about to be waited for.
    hurry: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An error for want of room is not the last word on its segment; every other outcome is.
type Outcome = (SegmentId, Result<Extent, DiskError>);

impl Preparer {
    fn new(medium: Arc<Medium>, waker: Waker) -> Result<Preparer, DiskError> {
        let (orders, ordered) = channel::<SegmentId>();
        let (finished, outcomes) = channel();
        let [stop, hurry] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (stopped, hurried) = (Arc::clone(&stop), Arc::clone(&hurry));
        let thread = spawn("plimsoll-zero", &medium.place_of(SegmentId(0)), move || {
            let pause = |lasting: Duration| {
                let until = Instant::now() + lasting;
                while !stopped.load(Ordering::Relaxed) {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return true;
                    }
                    std::thread::park_timeout(left);
                }
                false
            };
            let mut rest = |fair| pause(if hurried.load(Ordering::Relaxed) { Duration::ZERO } else { fair });
            let tell = |outcome: Outcome| {
                let is_heard = finished.send(outcome).is_ok();
                waker.wake();
                is_heard
            };
            for segment in ordered {
                let Some(outcome) = insist(&medium, segment, (&mut rest, &pause), &tell) else { return };
                if !tell((segment, outcome)) {
                    return;
                }
            }
        })?;
        Ok(Preparer { orders: Some(orders), outcomes, under_way: 0, stop, hurry, thread: Some(thread) })
    }

    fn start(&mut self, segment: SegmentId) {
        self.hurry.store(false, Ordering::Relaxed);
        let orders = self.orders.as_ref().expect("orders end only when it is dropped");
        orders.send(segment).expect("the thread takes orders until it is dropped");
        self.under_way += 1;
    }

    /// From now on the segment under way is made without rests.
    fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    fn next(&mut self) -> Option<Outcome> {
        if self.under_way == 0 {
            return None;
        }
        let outcome = self.outcomes.try_recv().ok()?;
        self.under_way -= usize::from(!is_for_want_of_room(&outcome.1));
        Some(outcome)
    }
}

/// Makes a segment, however long there is no room for it; the first time that there is none, `tell` is told. It rests between
/// the pieces, which may be cut short, and pauses between attempts. `None`: the disk is being dropped.
fn insist(
    medium: &Medium,
    segment: SegmentId,
    (rest, pause): (&mut dyn FnMut(Duration) -> bool, &dyn Fn(Duration) -> bool),
    tell: &dyn Fn(Outcome) -> bool,
) -> Option<Result<Extent, DiskError>> {
    let mut is_told = false;
    loop {
        let outcome = medium.create(segment, rest).transpose()?;
        if !is_for_want_of_room(&outcome) {
            return Some(outcome);
        }
        if !std::mem::replace(&mut is_told, true) && !tell((segment, outcome)) {
            return None;
        }
        // Not even tried where it cannot succeed: that would take from others, for a moment, the little that is left.
        while {
            if !pause(SPACE_RETRY) {
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
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panics only by a broken invariant, and has said so.
            let _ = thread.join();
        }
    }
}
