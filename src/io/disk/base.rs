//! What both backends have in common: the segments, what is to be told, the end after a failure, and the thread that
//! makes segments.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::files::{Aligned, Directory, OpenSegment, OpenSegments, failure};
use super::spawn;
use crate::io::reactor::Waker;
use crate::io::{DiskError, DiskEvent, Read, SegmentId, Write};
use crate::types::{Flushed, WriteSequence};

/// What is read at once at start-up when the caller's memory is not aligned.
const BOUNCE_BYTES: usize = 1 << 20;

/// How long after a segment found no room it is tried again.
const SPACE_RETRY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// See the module.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) directory: Arc<Directory>,
    open: OpenSegments,
    events: VecDeque<DiskEvent>,
    is_failed: bool,
    preparer: Preparer,
}

impl Base {
    pub(super) fn new(directory: Directory, waker: Waker) -> Result<Base, DiskError> {
        let directory = Arc::new(directory);
        let preparer = Preparer::new(Arc::clone(&directory), waker)?;
        Ok(Base { directory, open: OpenSegments::new(), events: VecDeque::new(), is_failed: false, preparer })
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
        let file = self.directory.open_segment(segment)?;
        Ok((self.open.insert(segment, file), true))
    }

    #[cfg(test)]
    pub(super) fn fail_writes_to(&mut self, segment: SegmentId) -> Arc<OpenSegment> {
        let file = File::open(self.directory.path_of(segment)).expect("the segment is there");
        self.open.insert(segment, file)
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
            self.preparer.start(segment);
        }
    }

    /// Takes in segments that were made. Returns the first that is new since the last call, open.
    pub(super) fn next_prepared(&mut self) -> Option<Arc<OpenSegment>> {
        loop {
            let (segment, outcome) = self.preparer.next()?;
            match outcome {
                Ok(file) => {
                    let open = self.open.insert(segment, file);
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

    pub(super) fn read_now(
        &mut self,
        segment: SegmentId,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), DiskError> {
        let (open, _) = self.segment_now(segment)?;
        let block = self.directory.block_bytes();
        let end = offset + into.len() as u64;
        let is_aligned = into.as_ptr().addr().is_multiple_of(block) && into.len().is_multiple_of(block);
        let done = if is_aligned && offset.is_multiple_of(block as u64) {
            open.file.read_exact_at(into, offset)
        } else {
            read_bounced(&open.file, offset, into, block)
        };
        done.map_err(|error| {
            let operation = format!("read {} bytes at {offset} up to {end}", into.len());
            failure(operation, &self.directory.path_of(segment), &error)
        })
    }

    pub(super) fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        for segment in self.directory.segments()? {
            let open = match self.open.get(segment) {
                Some(open) => open,
                None => self.open.insert(segment, self.directory.open_segment(segment)?),
            };
            open.file
                .sync_data()
                .map_err(|error| failure("flush segment".into(), &self.directory.path_of(segment), &error))?;
        }
        self.directory.sync()?;
        Ok(Flushed::by_disk(sequence))
    }

    /// What a caller owes: whole blocks inside the segment, from memory that the device takes.
    pub(super) fn check_write(&self, write: &Write) {
        self.check_place(write.offset, write.bytes.len());
        let block = self.directory.block_bytes();
        assert!(
            write.bytes.as_ptr().addr().is_multiple_of(block),
            "a write's memory is aligned to the block"
        );
    }

    /// As [`Base::check_write`].
    pub(super) fn check_read(&self, read: &Read) {
        self.check_place(read.offset, read.len_bytes);
        let block = self.directory.block_bytes();
        let spare = read.into.spare();
        assert!(spare.len() >= read.len_bytes, "a read fits the chunk's spare room");
        assert!(spare.as_ptr().addr().is_multiple_of(block), "a read's memory is aligned to the block");
    }

    fn check_place(&self, offset: u64, len_bytes: usize) {
        let block = self.directory.block_bytes();
        assert!(len_bytes > 0 && len_bytes.is_multiple_of(block), "whole blocks are written and read");
        assert!(offset.is_multiple_of(block as u64), "writes and reads begin at a block");
        assert!(offset + len_bytes as u64 <= self.directory.segment_bytes(), "and end inside the segment");
    }
}

fn read_bounced(file: &File, offset: u64, into: &mut [u8], block: usize) -> std::io::Result<()> {
    let mut bounce = Aligned::zeroed(BOUNCE_BYTES);
    let mut done = 0;
    while done < into.len() {
        let from = offset + done as u64;
        let skip = (from % block as u64) as usize;
        let wanted = (into.len() - done).min(BOUNCE_BYTES - skip);
        let whole = (skip + wanted).next_multiple_of(block);
        file.read_exact_at(&mut bounce.bytes()[..whole], from - skip as u64)?;
        into[done..done + wanted].copy_from_slice(&bounce.bytes()[skip..skip + wanted]);
        done += wanted;
    }
    Ok(())
}

/// The thread that makes segments, one at a time. Between pieces it rests for as long as the piece took, so that the
/// writes of the hot path find the device free at least half of the time. A segment that finds no room is told once and
/// tried again until it does: the operator may make room at any time, and nobody else need remember that it is wanted.
#[derive(Debug)]
struct Preparer {
    /// `None` once it is told to end.
    orders: Option<Sender<SegmentId>>,
    outcomes: Receiver<Outcome>,
    under_way: usize,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An error for want of room is not the last word on its segment; every other outcome is.
type Outcome = (SegmentId, Result<File, DiskError>);

impl Preparer {
    fn new(directory: Arc<Directory>, waker: Waker) -> Result<Preparer, DiskError> {
        let (orders, ordered) = channel::<SegmentId>();
        let (finished, outcomes) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = spawn("plimsoll-zero", &directory.path_of(SegmentId(0)), move || {
            let mut pause = |rest: Duration| {
                let until = Instant::now() + rest;
                while !stopped.load(Ordering::Relaxed) {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return true;
                    }
                    std::thread::park_timeout(left);
                }
                false
            };
            let tell = |outcome: Outcome| {
                let is_heard = finished.send(outcome).is_ok();
                waker.wake();
                is_heard
            };
            for segment in ordered {
                let Some(outcome) = insist(&directory, segment, &mut pause, &tell) else { return };
                if !tell((segment, outcome)) {
                    return;
                }
            }
        })?;
        Ok(Preparer { orders: Some(orders), outcomes, under_way: 0, stop, thread: Some(thread) })
    }

    fn start(&mut self, segment: SegmentId) {
        let orders = self.orders.as_ref().expect("orders end only when it is dropped");
        orders.send(segment).expect("the thread takes orders until it is dropped");
        self.under_way += 1;
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

/// Makes a segment, however long there is no room for it; the first time that there is none, `tell` is told. `None`: the
/// disk is being dropped.
fn insist(
    directory: &Directory,
    segment: SegmentId,
    pause: &mut dyn FnMut(Duration) -> bool,
    tell: &dyn Fn(Outcome) -> bool,
) -> Option<Result<File, DiskError>> {
    let mut is_told = false;
    loop {
        let outcome = directory.create(segment, pause).transpose()?;
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
            !directory.may_have_room()
        } {}
    }
}

fn is_for_want_of_room(outcome: &Result<File, DiskError>) -> bool {
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
