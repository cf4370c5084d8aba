//! A disk in memory that crashes, reorders, refuses and decays on request.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::types::{Flushed, WriteSequence};

/// A small source of random numbers (xorshift64*), so that a seed names a run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Default, Clone, Debug)]
pub(crate) struct Image(pub(super) BTreeMap<u64, Vec<u8>>);

#[derive(Debug)]
pub(crate) struct MemDisk {
    pub(crate) block: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) image: Image,
    /// Given, not on the medium yet.
    pub(crate) writes: VecDeque<Write>,
    pub(crate) reads: VecDeque<Read>,
    preparing: VecDeque<SegmentId>,
    events: VecDeque<DiskEvent>,
    /// Polling finishes everything that was given.
    pub(crate) eager: bool,
    /// Segments are made when polled.
    pub(crate) prepares: bool,
    /// There is no room for another segment.
    pub(crate) no_space: bool,
    /// That was told.
    told_no_space: bool,
    /// How many writes it takes at once.
    pub(crate) writes_max: usize,
    /// How many operations it was asked for.
    pub(crate) operations: u64,
}

impl MemDisk {
    pub(crate) fn new(block: usize, segment_bytes: u64) -> MemDisk {
        MemDisk::with(Image::default(), block, segment_bytes)
    }

    pub(crate) fn with(image: Image, block: usize, segment_bytes: u64) -> MemDisk {
        MemDisk {
            block,
            segment_bytes,
            image,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            preparing: VecDeque::new(),
            events: VecDeque::new(),
            eager: true,
            prepares: true,
            no_space: false,
            told_no_space: false,
            writes_max: 64,
            operations: 0,
        }
    }

    /// Finishes the n-th write under way.
    pub(crate) fn finish(&mut self, position: usize) {
        let write = self.writes.remove(position).expect("a write is under way");
        self.apply(&write, |_| true);
        self.events.push_back(DiskEvent::Written(Flushed::by_disk(write.sequence)));
    }

    pub(crate) fn fail(&mut self) {
        let error = DiskError {
            operation: "write".into(),
            place: "memory".into(),
            cause: "told to".into(),
            no_space: false,
        };
        self.events.push_back(DiskEvent::Failed(error));
    }

    fn apply(&mut self, write: &Write, survives: impl Fn(usize) -> bool) {
        let segment = self.image.0.get_mut(&write.segment.0).expect("writes go to segments that exist");
        for (number, block) in write.bytes.chunks(self.block).enumerate() {
            if survives(number) {
                let at = write.offset as usize + number * self.block;
                segment[at..at + block.len()].copy_from_slice(block);
            }
        }
    }

    /// What a crash at this moment leaves: of each write under way nothing, everything, or some blocks.
    pub(crate) fn crash(&mut self, random: &mut Random) -> Image {
        while let Some(write) = self.writes.pop_front() {
            let fate = random.below(3);
            let mask = (u64::from(random.below(1 << 30) as u32) << 30) | random.below(1 << 30);
            self.apply(&write, |number| match fate {
                0 => false,
                1 => true,
                _ => mask >> (number % 60) & 1 == 1,
            });
        }
        self.image.clone()
    }
}

impl Disk for MemDisk {
    fn block_bytes(&self) -> usize {
        self.block
    }

    fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        Ok(self.image.0.keys().copied().map(SegmentId).collect())
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        assert!(offset.is_multiple_of(self.block as u64) && into.len().is_multiple_of(self.block));
        let at = offset as usize;
        into.copy_from_slice(&self.image.0[&segment.0][at..at + into.len()]);
        Ok(())
    }

    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        Ok(Flushed::by_disk(sequence))
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        self.operations += 1;
        assert!(
            write.offset.is_multiple_of(self.block as u64) && write.bytes.len().is_multiple_of(self.block)
        );
        assert!(write.bytes.as_ptr().addr().is_multiple_of(crate::limits::BLOCK_BYTES_MAX));
        assert!(write.offset + write.bytes.len() as u64 <= self.segment_bytes);
        if self.writes.len() >= self.writes_max {
            return Err(Full(write));
        }
        self.writes.push_back(write);
        Ok(())
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        self.operations += 1;
        assert!(read.offset.is_multiple_of(self.block as u64) && read.len_bytes.is_multiple_of(self.block));
        self.reads.push_back(read);
        Ok(())
    }

    fn prepare(&mut self, segment: SegmentId) {
        self.operations += 1;
        assert!(!self.image.0.contains_key(&segment.0), "segment {} is made once", segment.0);
        self.preparing.push_back(segment);
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        while self.eager && !self.writes.is_empty() {
            self.finish(0);
        }
        while let Some(Read { token, segment, offset, len_bytes, mut into }) = self.reads.pop_front() {
            let at = offset as usize;
            into.spare_mut()[..len_bytes].copy_from_slice(&self.image.0[&segment.0][at..at + len_bytes]);
            self.events.push_back(DiskEvent::Read { token, chunk: into });
        }
        if self.no_space
            && !self.told_no_space
            && let Some(&segment) = self.preparing.front()
        {
            let error = DiskError {
                operation: "create segment".into(),
                place: "memory".into(),
                cause: "the filesystem is full".into(),
                no_space: true,
            };
            self.events.push_back(DiskEvent::NotPrepared { segment, error });
        }
        self.told_no_space = self.no_space && !self.preparing.is_empty();
        while self.prepares
            && !self.no_space
            && let Some(segment) = self.preparing.pop_front()
        {
            self.image.0.insert(segment.0, vec![0; self.segment_bytes as usize]);
            self.events.push_back(DiskEvent::Prepared(segment));
        }
        let count = self.events.len();
        self.events.drain(..).for_each(sink);
        count
    }
}
