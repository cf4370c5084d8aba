//! One lane's part of a device: which segments are in it, and how one comes to be.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
#[cfg(test)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::superblock::META_BLOCK;
use super::table::{Repair, Table};
use super::{Device, queue_number, refusal, table_block_at};
use crate::io::disk::files::ZERO_PIECE_BYTES;
use crate::io::disk::medium::{Aligned, Extent, failure, in_pieces};
use crate::io::{DiskError, SegmentId};
use crate::types::LaneId;

/// How much the device zeroes by one command of its own.
const ZERO_COMMAND_BYTES: u64 = 1 << 20;

/// One lane's part of a device, with one user.
#[derive(Debug)]
pub struct Region {
    device: Arc<Device>,
    /// From the device's first.
    lane: u16,
    /// Held for as long as it takes to look something up, never while the device is busy.
    table: Mutex<Table>,
    /// As if there were no free slot.
    #[cfg(test)]
    pub(in crate::io::disk) is_full: AtomicBool,
}

impl Region {
    /// Reads the lane's table, and mends it where a crash has torn one of its copies. The notes are for the operator.
    pub fn open(device: Arc<Device>, lane: LaneId, notes: &mut Vec<String>) -> Result<Region, DiskError> {
        let owner = device.superblock.owner;
        let lane = lane.0.checked_sub(owner.first_lane.0).filter(|lane| *lane < owner.lanes);
        let lane = lane.expect("a lane's device is one that was formatted for it");
        if device.taken[usize::from(lane)].swap(true, Ordering::SeqCst) {
            return Err(refusal(&device.path, "this lane's part of it is in use already"));
        }
        let loaded = load(&device, lane, notes);
        let table = loaded.inspect_err(|_| device.taken[usize::from(lane)].store(false, Ordering::SeqCst))?;
        if device.zeroing.is_some() && !device.zeroes.load(Ordering::Relaxed) {
            notes.push(format!(
                "{}: it does not write zeros by itself; segments are made ready by writing them",
                device.path.display()
            ));
        }
        Ok(Region {
            device,
            lane,
            table: Mutex::new(table),
            #[cfg(test)]
            is_full: AtomicBool::new(false),
        })
    }

    /// Every segment's size.
    pub fn segment_bytes(&self) -> u64 {
        self.device.superblock.segment_bytes
    }

    /// The segments that are there, ascending.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.table().segments()
    }

    /// Reads at once from a segment, into memory as it comes.
    pub fn read_at(&self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let end = offset + into.len() as u64;
        assert!(end <= self.segment_bytes(), "a read ends inside the segment");
        self.open_segment(segment)?.read_anyhow_at(into, offset, self.device.block_bytes).map_err(|error| {
            failure(format!("read {} bytes at {offset}", into.len()), self.place_of(segment), &error)
        })
    }

    /// Where a segment lies, for the operator.
    pub fn place_of(&self, segment: SegmentId) -> String {
        let path = self.device.path.display();
        match self.table().slot_of(segment) {
            Some(slot) => format!("{path}, segment {} (from byte {})", segment.0, self.slot_at(slot)),
            None => format!("{path}, segment {}", segment.0),
        }
    }

    pub(in crate::io::disk) fn block_bytes(&self) -> usize {
        self.device.block_bytes
    }

    /// Whether the device has queues that are polled.
    pub(in crate::io::disk) fn can_poll(&self) -> bool {
        queue_number(&self.device.file, "io_poll") == Some(1)
    }

    pub(in crate::io::disk) fn path(&self) -> &Path {
        &self.device.path
    }

    pub(in crate::io::disk) fn open_segment(&self, segment: SegmentId) -> Result<Extent, DiskError> {
        let slot = self.table().slot_of(segment);
        match slot {
            Some(slot) => Ok(Extent::part_of(&self.device.file, self.slot_at(slot))),
            None => Err(DiskError {
                operation: "open segment".into(),
                place: self.place_of(segment),
                cause: "it is not on this device".into(),
                no_space: false,
            }),
        }
    }

    pub(in crate::io::disk) fn may_have_room(&self) -> bool {
        #[cfg(test)]
        if self.is_full.load(Ordering::Relaxed) {
            return false;
        }
        self.table().free().is_some()
    }

    pub(in crate::io::disk) fn sync(&self) -> Result<(), DiskError> {
        let flushed = self.device.file.sync_all();
        flushed.map_err(|error| failure("flush device", self.device.path.display(), &error))
    }

    /// As [`crate::io::disk::medium::Medium::create`]. One thread at a time.
    pub(in crate::io::disk) fn create(
        &self,
        segment: SegmentId,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Option<Extent>, DiskError> {
        let refused = |cause: &str, no_space: bool| DiskError {
            operation: format!("create segment of {} bytes", self.segment_bytes()),
            place: self.place_of(segment),
            cause: cause.to_owned(),
            no_space,
        };
        if self.table().slot_of(segment).is_some() {
            // Never write zeros over what may have been acknowledged.
            return Err(refused("a segment of this number exists", false));
        }
        let free = if self.may_have_room() { self.table().free() } else { None };
        let Some(slot) = free else {
            let slots = self.device.superblock.segments;
            return Err(refused(
                &format!("the device is full: all of its {slots} segments are in use"),
                true,
            ));
        };
        match self.make(slot, segment, pause) {
            Ok(true) => self.open_segment(segment).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(refused(&error.to_string(), false)),
        }
    }

    fn make(
        &self,
        slot: u64,
        segment: SegmentId,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<bool> {
        if !self.zero(slot, pause)? {
            return Ok(false);
        }
        self.device.zeroing().sync_all()?;
        let mut block = Aligned::zeroed(META_BLOCK as usize);
        // Entered on the device before it is entered here.
        let mut table = self.table().clone();
        let number = table.enter(slot, segment);
        table.encode(number, block.bytes());
        for copy in 0..2 {
            let at = table_block_at(&self.device.superblock, copy, self.lane, number);
            self.device.file.write_all_at(block.bytes(), at)?;
        }
        *self.table() = table;
        Ok(true)
    }

    fn zero(&self, slot: u64, pause: &mut dyn FnMut(Duration) -> bool) -> io::Result<bool> {
        let begin = self.slot_at(slot);
        let device = &self.device;
        if device.zeroes.load(Ordering::Relaxed) {
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            let done = in_pieces(self.segment_bytes(), ZERO_COMMAND_BYTES, pause, |offset, piece| {
                Ok(rustix::fs::fallocate(&*device.file, flags, begin + offset, piece)?)
            });
            match done {
                // It has said that it could, and cannot.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    device.zeroes.store(false, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        let mut zeros = Aligned::zeroed(ZERO_PIECE_BYTES);
        in_pieces(self.segment_bytes(), ZERO_PIECE_BYTES as u64, pause, |offset, piece| {
            device.zeroing().write_all_at(&zeros.bytes()[..piece as usize], begin + offset)
        })
    }

    fn slot_at(&self, slot: u64) -> u64 {
        self.device.superblock.slot_at(self.lane, slot)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics under the table's lock")
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.device.taken[usize::from(self.lane)].store(false, Ordering::SeqCst);
    }
}

fn load(device: &Device, lane: u16, notes: &mut Vec<String>) -> Result<Table, DiskError> {
    let superblock = &device.superblock;
    let mut block = Aligned::zeroed(META_BLOCK as usize);
    let read = |copy: usize, number: u32, into: &mut [u8]| {
        device.file.read_exact_at(into, table_block_at(superblock, copy, lane, number))
    };
    let (table, repairs) = Table::load(superblock, lane, read, block.bytes()).map_err(|cause| DiskError {
        operation: "read the table of segments".into(),
        place: device.path.display().to_string(),
        cause,
        no_space: false,
    })?;
    if device.zeroing.is_none() || repairs.is_empty() {
        return Ok(table);
    }
    notes.push(format!(
        "{}: one copy of {} blocks of the table of segments was torn or damaged, and is written anew",
        device.path.display(),
        repairs.len()
    ));
    mend(device, &table, lane, &repairs)
        .map_err(|error| failure("mend the table of segments", device.path.display(), &error))?;
    Ok(table)
}

fn mend(device: &Device, table: &Table, lane: u16, repairs: &[Repair]) -> io::Result<()> {
    // What a dead process wrote last may be readable and not durable: it must be, before its other copy goes.
    device.file.sync_all()?;
    let mut block = Aligned::zeroed(META_BLOCK as usize);
    for Repair { copy, number } in repairs {
        table.encode(*number, block.bytes());
        device.file.write_all_at(block.bytes(), table_block_at(&device.superblock, *copy, lane, *number))?;
    }
    Ok(())
}
