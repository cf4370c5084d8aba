//! The disks: writes finish in any order at times of their own, a crash keeps any of the blocks in flight, and a few
//! disks forget or mistake what they were given.
//!
//! What a disk holds is sparse: a segment ends in zeros, and those take no memory.

use std::collections::BTreeMap;

use super::fabric::{Event, Fabric, Shared};
use super::plan::DiskPlan;
use super::random::Random;
use super::trace::Note;
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::{READS_IN_FLIGHT_MAX, WRITES_IN_FLIGHT_MAX};
use crate::types::{Flushed, WriteSequence};

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

/// A decayed place must be proved to have been durable by what lies behind it: as far back as writes were in flight.
const PROVED_AFTER: usize = 2 * WRITES_IN_FLIGHT_MAX + 2;

/// How long after a segment found no room it is tried again. Sooner than a real disk does, so that what heals serves
/// well within the bound that is checked.
const SPACE_RETRY_NS: u64 = 100_000_000;

/// Something that a disk is doing.
#[derive(Debug)]
enum Op {
    Write(Write),
    Read(Read),
    Prepare(SegmentId),
}

/// One node's disk, which outlives its process.
pub(super) struct DiskState {
    segments: BTreeMap<u64, Vec<u8>>,
    /// What is under way, by its number, ascending.
    doing: Vec<(u64, Op)>,
    next_op: u64,
    done: Vec<DiskEvent>,
    /// What a dead process left and nobody has made durable: what was there before.
    unsettled: Vec<(u64, usize, Vec<u8>)>,
    /// The newest writes that are on the disk, oldest first.
    written: Vec<(u64, u64, usize)>,
    pub(super) stuck_until_ns: u64,
    /// The next write or read fails.
    pub(super) fails: bool,
    /// The next segment finds no room.
    pub(super) full: bool,
    pub(super) rotten: bool,
    /// A log is being opened, which waits for segments while the world stands still.
    opening: bool,
    block_bytes: usize,
    segment_bytes: u64,
}

impl DiskState {
    pub(super) fn new(plan: &DiskPlan) -> DiskState {
        DiskState {
            segments: BTreeMap::new(),
            doing: Vec::new(),
            next_op: 1,
            done: Vec::new(),
            unsettled: Vec::new(),
            written: Vec::new(),
            stuck_until_ns: 0,
            fails: false,
            full: false,
            rotten: false,
            opening: false,
            block_bytes: plan.block_bytes,
            segment_bytes: plan.segment_bytes,
        }
    }

    fn read_into(&self, segment: u64, offset: u64, into: &mut [u8]) {
        let held = self.segments.get(&segment).map_or(&[][..], |bytes| bytes);
        let from = (offset as usize).min(held.len());
        let until = (offset as usize + into.len()).min(held.len());
        into[..until - from].copy_from_slice(&held[from..until]);
        into[until - from..].fill(0);
    }

    fn lay(&mut self, segment: u64, offset: usize, bytes: &[u8]) {
        let held = self.segments.entry(segment).or_default();
        if held.len() < offset + bytes.len() {
            held.resize(offset + bytes.len(), 0);
        }
        held[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// The process is gone. Of each write in flight some sectors are kept, and those can be read, but are durable only
    /// when somebody says so.
    pub(super) fn crash(&mut self, random: &mut Random, kept_ppm: u32) {
        self.done.clear();
        for (_, op) in core::mem::take(&mut self.doing) {
            let kept_ppm = if kept_ppm > 1_000_000 { random.between(0, 1_000_000) as u32 } else { kept_ppm };
            match op {
                Op::Write(write) => {
                    for at in (0..write.bytes.len()).step_by(SECTOR_BYTES) {
                        if random.chance(kept_ppm) {
                            let offset = write.offset as usize + at;
                            let mut before = vec![0; SECTOR_BYTES];
                            self.read_into(write.segment.0, offset as u64, &mut before);
                            self.unsettled.push((write.segment.0, offset, before));
                            self.lay(write.segment.0, offset, &write.bytes[at..at + SECTOR_BYTES]);
                        }
                    }
                }
                Op::Prepare(segment) if random.chance(kept_ppm) => {
                    self.segments.entry(segment.0).or_default();
                }
                Op::Prepare(_) | Op::Read(_) => {}
            }
        }
    }

    /// The machine is gone, and with it some of what was readable and not durable.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        for (segment, offset, before) in core::mem::take(&mut self.unsettled).into_iter().rev() {
            if random.chance(500_000) {
                self.lay(segment, offset, &before);
            }
        }
    }

    /// A bit of something that was durable long ago is another from now on. Returns where, if there is such a place.
    pub(super) fn rot(&mut self, random: &mut Random) -> Option<(u64, u64)> {
        let old = self.written.len().checked_sub(PROVED_AFTER).filter(|&old| old > 0)?;
        let (segment, offset, len) = self.written[random.below(old as u64) as usize];
        let bit = random.below(len as u64 * 8);
        let held = self.segments.get_mut(&segment)?;
        *held.get_mut(offset as usize + bit as usize / 8)? ^= 1 << (bit % 8);
        Some((segment, offset))
    }

    /// A write of long ago turns out to have gone over another one. Returns where it should have gone.
    pub(super) fn misdirect(&mut self, random: &mut Random) -> Option<(u64, u64)> {
        let old = self.written.len().checked_sub(PROVED_AFTER).filter(|&old| old > 1)?;
        let (from, to) = (random.below(old as u64) as usize, random.below(old as u64) as usize);
        let ((segment, offset, len), (other, place, room)) = (self.written[from], self.written[to]);
        if from == to {
            return None;
        }
        let mut bytes = vec![0; len];
        self.read_into(segment, offset, &mut bytes);
        self.lay(segment, offset as usize, &vec![0; len]);
        bytes.truncate(room);
        self.lay(other, place as usize, &bytes);
        Some((segment, offset))
    }

    /// While a log is opened, segments are made at once.
    pub(super) fn open(&mut self, opening: bool) {
        self.opening = opening;
    }
}

impl Fabric {
    fn start_op(&mut self, node: usize, op: Op) {
        let plan = self.plan.clone();
        let random = &mut self.random;
        let state = &mut self.nodes[node];
        let mut took = random.skewed(plan.disk.write_min_ns, plan.disk.write_max_ns);
        if !self.calm && random.chance(plan.disk.spike_ppm) {
            took *= 100;
        }
        let number = state.disk.next_op;
        state.disk.next_op += 1;
        let life = state.life;
        let at_ns = (self.now_ns + took).max(state.disk.stuck_until_ns);
        state.disk.doing.push((number, op));
        self.mark(number << 8 ^ took);
        self.schedule(at_ns, Event::Disk { node, life, op: number });
    }

    /// An operation is done, if its process still lives.
    pub(super) fn finish_op(&mut self, node: usize, life: u32, number: u64) {
        if self.nodes[node].life != life || !self.nodes[node].up {
            return;
        }
        let now_ns = self.now_ns;
        let disk = &mut self.nodes[node].disk;
        if now_ns < disk.stuck_until_ns {
            let at_ns = disk.stuck_until_ns;
            self.schedule(at_ns, Event::Disk { node, life, op: number });
            return;
        }
        let Ok(place) = disk.doing.binary_search_by_key(&number, |&(number, _)| number) else { return };
        let (_, op) = disk.doing.remove(place);
        let event = match op {
            Op::Write(_) | Op::Read(_) if core::mem::take(&mut disk.fails) => {
                // Some of it may be there, as after a crash.
                disk.doing.push((u64::MAX, op));
                DiskEvent::Failed(failure("write or read", "Input/output error", false))
            }
            Op::Prepare(segment) if core::mem::take(&mut disk.full) => {
                disk.doing.insert(place, (number, op));
                self.schedule(now_ns + SPACE_RETRY_NS, Event::Disk { node, life, op: number });
                let error = failure("create segment", "No space left on device", true);
                DiskEvent::NotPrepared { segment, error }
            }
            Op::Write(write) => {
                disk.lay(write.segment.0, write.offset as usize, &write.bytes);
                disk.written.push((write.segment.0, write.offset, write.bytes.len()));
                DiskEvent::Written(Flushed::by_disk(write.sequence))
            }
            Op::Read(Read { token, segment, offset, len_bytes, mut into }) => {
                disk.read_into(segment.0, offset, &mut into.spare_mut()[..len_bytes]);
                DiskEvent::Read { token, chunk: into }
            }
            Op::Prepare(segment) => {
                disk.segments.entry(segment.0).or_default();
                DiskEvent::Prepared(segment)
            }
        };
        if let DiskEvent::Written(flushed) = &event {
            let sequence = flushed.sequence();
            self.note(node, Note::Written { sequence });
        }
        self.nodes[node].disk.done.push(event);
        self.wake(node, now_ns);
    }
}

fn failure(operation: &str, cause: &str, no_space: bool) -> DiskError {
    DiskError {
        operation: operation.to_owned(),
        place: "a simulated disk".to_owned(),
        cause: cause.to_owned(),
        no_space,
    }
}

/// A node's disk as its log sees it.
pub(super) struct SimDisk {
    pub(super) fabric: Shared,
    pub(super) node: usize,
}

impl SimDisk {
    fn doing(&self, is_kind: impl Fn(&Op) -> bool) -> usize {
        let fabric = self.fabric.borrow();
        fabric.nodes[self.node].disk.doing.iter().filter(|(_, op)| is_kind(op)).count()
    }

    fn start(&self, op: Op) {
        self.fabric.borrow_mut().start_op(self.node, op);
    }
}

impl Disk for SimDisk {
    fn block_bytes(&self) -> usize {
        self.fabric.borrow().nodes[self.node].disk.block_bytes
    }

    fn segment_bytes(&self) -> u64 {
        self.fabric.borrow().nodes[self.node].disk.segment_bytes
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        Ok(self.fabric.borrow().nodes[self.node].disk.segments.keys().map(|&id| SegmentId(id)).collect())
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.fabric.borrow().nodes[self.node].disk.read_into(segment.0, offset, into);
        Ok(())
    }

    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        self.fabric.borrow_mut().nodes[self.node].disk.unsettled.clear();
        Ok(Flushed::by_disk(sequence))
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        assert!(write.offset.is_multiple_of(self.block_bytes() as u64), "a write begins at a block");
        assert!(write.bytes.len().is_multiple_of(self.block_bytes()), "a write is whole blocks");
        let held = self.fabric.borrow().nodes[self.node].disk.segments.contains_key(&write.segment.0);
        assert!(held, "a write goes to a segment that was made");
        if self.doing(|op| matches!(op, Op::Write(_))) >= WRITES_IN_FLIGHT_MAX {
            return Err(Full(write));
        }
        self.start(Op::Write(write));
        Ok(())
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        if self.doing(|op| matches!(op, Op::Read(_))) >= READS_IN_FLIGHT_MAX {
            return Err(Full(read));
        }
        self.fabric.borrow_mut().oracle.counts.reads_back += 1;
        self.start(Op::Read(read));
        Ok(())
    }

    fn prepare(&mut self, segment: SegmentId) {
        let mut fabric = self.fabric.borrow_mut();
        let disk = &mut fabric.nodes[self.node].disk;
        if disk.opening {
            disk.segments.entry(segment.0).or_default();
            disk.done.push(DiskEvent::Prepared(segment));
        } else {
            drop(fabric);
            self.start(Op::Prepare(segment));
        }
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        let mut done = core::mem::take(&mut self.fabric.borrow_mut().nodes[self.node].disk.done);
        let count = done.len();
        done.drain(..).for_each(&mut *sink);
        count
    }
}
