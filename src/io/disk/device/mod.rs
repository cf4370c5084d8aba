//! A log on a raw block device: no filesystem between it and the segments.
//!
//! ```text
//! | superblock .. 1 MiB | tables | lane: segment, segment, … | lane: … | tables | 1 MiB .. superblock |
//! ```
//! The superblock says whose log this is and how it is laid out, and stands at both ends; the tables, one per lane and each
//! twice, say which slot of a lane holds which segment. Segments are fixed regions, aligned to 1 MiB.
//!
//! *Nothing is destroyed by mistake.* The device is opened exclusively (`O_EXCL`), which the system refuses while it is
//! mounted, is a part of something else, or is another node's. Its first and its last MiB, where everybody keeps
//! signatures, must be zeros or ours; anything else is named and refused, until an operator says that it may go
//! ([`Claim::format`]).
//!
//! *A segment is made* by writing zeros to its end, by the device's own command (`fallocate` with `ZERO_RANGE`, which
//! becomes Write Zeroes) if it has one; then its cache is flushed, and only then is the segment entered in the table.
//! Discarding is no way to zero: what a device returns for discarded blocks is up to it. So it is used where nothing need
//! be read again: on the whole device when it is formatted. A log does not give segments back yet; when it does, those
//! are what [`discard`] is for.
//!
//! *Blocks.* Writes are multiples of the device's logical block. A device that comes back with another one is served: the
//! log's own format bears that, and everything here lies at multiples of 4 KiB.

mod discard;
mod inspect;
mod superblock;
mod table;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use self::superblock::{EDGE_BYTES, META_BLOCK};
pub use self::superblock::{Owner, Superblock};
use self::table::Table;
use super::files::ZERO_PIECE_BYTES;
use super::medium::{Aligned, Extent, failure, in_pieces};
use super::timing::{Timing, time_rewrites};
use crate::io::{DiskError, SegmentId};
use crate::limits::BLOCK_BYTES_MAX;
use crate::types::LaneId;

/// How long a device in use is tried again before it is an error: the kernel takes a killed process's io_uring apart a
/// moment after the process is gone, and lets go of the device then.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 2000 });

/// How often.
const RETRY: Duration = Duration::from_millis(5);

/// How much the device zeroes by one command of its own.
const ZERO_COMMAND_BYTES: u64 = 1 << 20;

/// A block device that this process holds, and what it holds. Nothing on it has been changed.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Opened exclusively, direct and durable.
    file: Arc<File>,
    /// The same, but what is written is durable when it is flushed. `None`: claimed for reading alone.
    zeroing: Option<File>,
    device_bytes: u64,
    block_bytes: usize,
    held: Held,
}

/// Whether somebody holds the device: a filesystem, a volume, a node.
pub fn is_in_use(path: &Path) -> bool {
    let opened = options(false, libc::O_EXCL).open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Zeros wherever a signature could be.
    Nothing,
    /// A log of this kind.
    Log(Superblock),
    /// Something else, in words.
    Other(String),
}

/// A formatted device that this process holds. Lanes share it.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: Arc<File>,
    zeroing: Option<File>,
    block_bytes: usize,
    superblock: Superblock,
    /// Whether the device writes zeros by itself.
    zeroes: AtomicBool,
    /// Which lanes' regions have a disk.
    taken: Vec<AtomicBool>,
}

impl Claim {
    /// Claims the device and looks at what it holds. An error says that it is in use, or no block device, or what the
    /// system has against it.
    pub fn of(path: &Path) -> Result<Claim, DiskError> {
        Claim::with(path, true)
    }

    /// The same, for reading alone.
    pub fn for_reading(path: &Path) -> Result<Claim, DiskError> {
        Claim::with(path, false)
    }

    fn with(path: &Path, writes: bool) -> Result<Claim, DiskError> {
        let failed = |error: &io::Error| failure("open device", path.display(), error);
        let found = std::fs::metadata(path).map_err(|error| failed(&error))?;
        if !found.file_type().is_block_device() {
            return Err(refusal(path, "it is not a block device; a log in files has a directory"));
        }
        let exclusive = libc::O_EXCL | libc::O_DIRECT | if writes { libc::O_DSYNC } else { 0 };
        let mut file = patiently(|| options(writes, exclusive).open(path)).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => refusal(
                path,
                "it is in use: mounted, swapped to, part of a volume or a RAID, or held by another node (`lsblk` and \
                 `fuser` tell)",
            ),
            Some(libc::EACCES | libc::EPERM) => refusal(
                path,
                &format!("{error}: the user that runs the node must be allowed to write it (group `disk`, or a rule of udev)"),
            ),
            _ => failed(&error),
        })?;
        let zeroing = match writes {
            true => Some(options(true, libc::O_DIRECT).open(path).map_err(|error| failed(&error))?),
            false => None,
        };
        let number = |file: &File| file.metadata().map(|found| found.rdev());
        let own = number(&file).map_err(|error| failed(&error))?;
        if let Some(zeroing) = &zeroing
            && number(zeroing).map_err(|error| failed(&error))? != own
        {
            return Err(refusal(path, "the name means another device than a moment ago"));
        }
        let device_bytes = file.seek(SeekFrom::End(0)).map_err(|error| failed(&error))?;
        let block = rustix::fs::ioctl_blksszget(&file).map_err(|error| failed(&error.into()))? as usize;
        if !block.is_power_of_two() || !(512..=BLOCK_BYTES_MAX).contains(&block) {
            return Err(refusal(
                path,
                &format!("its logical block has {block} bytes; 512 to 4096 are served"),
            ));
        }
        if device_bytes < 4 * EDGE_BYTES {
            return Err(refusal(path, &format!("it has {device_bytes} bytes, too little for any log")));
        }
        let mut claim = Claim {
            path: path.to_owned(),
            file: Arc::new(file),
            zeroing,
            device_bytes,
            block_bytes: block,
            held: Held::Nothing,
        };
        claim.held = claim.look().map_err(|error| failure("read signatures", path.display(), &error))?;
        Ok(claim)
    }

    fn look(&self) -> io::Result<Held> {
        let mut head = Aligned::zeroed(EDGE_BYTES as usize);
        let mut tail = Aligned::zeroed(EDGE_BYTES as usize);
        self.file.read_exact_at(head.bytes(), 0)?;
        let end = self.device_bytes - self.device_bytes % META_BLOCK;
        self.file.read_exact_at(tail.bytes(), end - EDGE_BYTES)?;
        Ok(inspect::inspect(head.bytes(), tail.bytes()))
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// How long a durable write takes here, by writing again what stands in the last block, which is nothing or the second
    /// copy of the superblock.
    ///
    /// # Panics
    /// If the device holds something else, or was claimed for reading alone.
    pub fn time_writes(&self, lasting: Duration) -> io::Result<Timing> {
        assert!(
            !matches!(self.held, Held::Other(_)) && self.zeroing.is_some(),
            "nobody else's device is written"
        );
        time_rewrites(&self.file, Superblock::second_at(self.device_bytes), lasting)
    }

    /// How many segments each lane would have if it were formatted. An error says that it is too small.
    pub fn room_for(&self, owner: Owner, segment_bytes: u64) -> Result<u64, DiskError> {
        self.lay_out(owner, segment_bytes, 0).map(|laid| laid.segments)
    }

    fn lay_out(&self, owner: Owner, segment_bytes: u64, life: u64) -> Result<Superblock, DiskError> {
        Superblock::lay_out(owner, self.device_bytes, self.block_bytes, segment_bytes, life)
            .map_err(|why| refusal(&self.path, &why))
    }

    /// Makes it an empty log of this owner, whatever it holds. `life` is drawn at random.
    ///
    /// A crash in the middle leaves a device without a superblock of anybody.
    pub fn format(self, owner: Owner, segment_bytes: u64, life: u64) -> Result<Device, DiskError> {
        let superblock = self.lay_out(owner, segment_bytes, life)?;
        self.format_as(&superblock).map_err(|error| failure("format device", self.path.display(), &error))?;
        Ok(self.into_device(superblock))
    }

    fn format_as(&self, superblock: &Superblock) -> io::Result<()> {
        let mut zeros = Aligned::zeroed(EDGE_BYTES as usize);
        let end = self.device_bytes - self.device_bytes % META_BLOCK;
        self.file.write_all_at(zeros.bytes(), 0)?;
        self.file.write_all_at(zeros.bytes(), end - EDGE_BYTES)?;
        self.file.sync_all()?;
        // Best effort: it spares the device from keeping what nobody will read.
        discard::discard(self.file.as_fd(), EDGE_BYTES, end - 2 * EDGE_BYTES)?;
        let mut block = Aligned::zeroed(META_BLOCK as usize);
        for lane in 0..superblock.owner.lanes {
            let table = Table::new(superblock, lane);
            for number in 0..table.blocks() {
                table.encode(number, block.bytes());
                for copy in 0..2 {
                    self.file.write_all_at(block.bytes(), table_block_at(superblock, copy, lane, number))?;
                }
            }
        }
        self.file.sync_all()?;
        write_superblocks(&self.file, superblock)
    }

    /// Goes on with the log that it holds. The copy of its superblock that is damaged, if one is, is written anew.
    ///
    /// # Panics
    /// If it holds none.
    pub fn open(self) -> Result<Device, DiskError> {
        let Held::Log(superblock) = self.held else { panic!("only a device that holds a log is opened") };
        if superblock.device_bytes > self.device_bytes {
            let why = format!(
                "it has {} bytes, and was formatted when it had {}: it has shrunk",
                self.device_bytes, superblock.device_bytes
            );
            return Err(refusal(&self.path, &why));
        }
        let failed = |error: &io::Error| failure("read superblock", self.path.display(), error);
        if self.zeroing.is_some() && !self.has_both(&superblock).map_err(|error| failed(&error))? {
            write_superblocks(&self.file, &superblock).map_err(|error| failed(&error))?;
        }
        Ok(self.into_device(superblock))
    }

    fn has_both(&self, superblock: &Superblock) -> io::Result<bool> {
        let mut block = Aligned::zeroed(META_BLOCK as usize);
        let mut expected = vec![0; META_BLOCK as usize];
        superblock.encode(&mut expected);
        for at in [0, Superblock::second_at(superblock.device_bytes)] {
            self.file.read_exact_at(block.bytes(), at)?;
            if block.bytes() != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn into_device(self, superblock: Superblock) -> Device {
        let zeroes = queue_number(&self.file, "write_zeroes_max_bytes").is_some_and(|bytes| bytes > 0);
        let taken = (0..superblock.owner.lanes).map(|_| AtomicBool::new(false)).collect();
        let Claim { path, file, zeroing, block_bytes, .. } = self;
        Device { path, file, zeroing, block_bytes, superblock, zeroes: zeroes.into(), taken }
    }
}

impl Device {
    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is and how it is laid out.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The block in which it is written.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn read_block(&self, at: u64, block: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(block, at)
    }
}

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
    pub(super) is_full: AtomicBool,
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

    pub(super) fn block_bytes(&self) -> usize {
        self.device.block_bytes
    }

    /// Whether the device has queues that are polled.
    pub(super) fn can_poll(&self) -> bool {
        queue_number(&self.device.file, "io_poll") == Some(1)
    }

    pub(super) fn path(&self) -> &Path {
        &self.device.path
    }

    pub(super) fn open_segment(&self, segment: SegmentId) -> Result<Extent, DiskError> {
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

    pub(super) fn may_have_room(&self) -> bool {
        #[cfg(test)]
        if self.is_full.load(Ordering::Relaxed) {
            return false;
        }
        self.table().free().is_some()
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        let flushed = self.device.file.sync_all();
        flushed.map_err(|error| failure("flush device", self.device.path.display(), &error))
    }

    /// As [`super::medium::Medium::create`]. One thread at a time.
    pub(super) fn create(
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

impl Device {
    fn zeroing(&self) -> &File {
        self.zeroing.as_ref().expect("a device that is claimed for reading makes no segments")
    }
}

fn load(device: &Device, lane: u16, notes: &mut Vec<String>) -> Result<Table, DiskError> {
    let superblock = &device.superblock;
    let mut block = Aligned::zeroed(META_BLOCK as usize);
    let read = |copy: usize, number: u32, into: &mut [u8]| {
        device.read_block(table_block_at(superblock, copy, lane, number), into)
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
    let mend = || {
        // What a dead process wrote last may be readable and not durable: it must be, before its other copy goes.
        device.file.sync_all()?;
        for repair in &repairs {
            table.encode(repair.number, block.bytes());
            device
                .file
                .write_all_at(block.bytes(), table_block_at(superblock, repair.copy, lane, repair.number))?;
        }
        Ok(())
    };
    mend_outcome(mend, device)?;
    Ok(table)
}

fn mend_outcome(mend: impl FnOnce() -> io::Result<()>, device: &Device) -> Result<(), DiskError> {
    mend().map_err(|error| failure("mend the table of segments", device.path.display(), &error))
}

fn table_block_at(superblock: &Superblock, copy: usize, lane: u16, number: u32) -> u64 {
    superblock.table_at(copy, lane) + u64::from(number) * META_BLOCK
}

fn write_superblocks(file: &File, superblock: &Superblock) -> io::Result<()> {
    let mut block = Aligned::zeroed(META_BLOCK as usize);
    superblock.encode(block.bytes());
    file.write_all_at(block.bytes(), 0)?;
    file.write_all_at(block.bytes(), Superblock::second_at(superblock.device_bytes))
}

/// Tries again while it is in use, for a while.
fn patiently(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                std::thread::park_timeout(RETRY);
            }
            opened => return opened,
        }
    }
}

fn options(writes: bool, flags: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(writes).custom_flags(flags | libc::O_CLOEXEC);
    options
}

fn refusal(path: &Path, cause: &str) -> DiskError {
    DiskError {
        operation: "use device".into(),
        place: path.display().to_string(),
        cause: cause.to_owned(),
        no_space: false,
    }
}

/// A number that the system tells of the device's queue; of a partition, of the device that it is on.
fn queue_number(device: &File, name: &str) -> Option<u64> {
    let number = device.metadata().ok()?.rdev();
    let of = format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let read = |path: String| std::fs::read_to_string(path).ok();
    let text = read(format!("{of}/queue/{name}")).or_else(|| read(format!("{of}/../queue/{name}")))?;
    text.trim().parse().ok()
}
