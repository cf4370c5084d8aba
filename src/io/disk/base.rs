//! What both backends have in common: the segments, what is to be told, and the end after a failure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::medium::{Medium, OpenSegment, OpenSegments, failure};
use super::preparer::Preparer;
use crate::io::reactor::Waker;
use crate::io::{DiskError, DiskEvent, Read, SegmentId, Write};
use crate::types::{Flushed, WriteSequence};

/// The next segment is made without rests once so much, one part of so many, of the last one is written: whoever writes
/// so fast would wait for it.
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
    pub(super) fn is_hurried(&self) -> bool {
        self.preparer.tempo().is_hurried()
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
