//! A log on a raw block device: no filesystem between it and the segments.
//!
//! ```text
//! | superblock .. 1 MiB | tables | lane: segment, segment, … | lane: … | tables | 1 MiB .. superblock |
//! ```
//! The superblock says whose log this is and how it is laid out, and stands at both ends; the tables, one per lane and
//! each twice, say which slot of a lane holds which segment. Segments are fixed regions, aligned to 1 MiB.
//!
//! *Nothing is destroyed by mistake.* The device is opened exclusively (`O_EXCL`), which the system refuses while it is
//! mounted, is a part of something else, or is another node's. Its first and its last MiB, where everybody keeps
//! signatures, must be zeros or ours; anything else is named and refused, until an operator says that it may go
//! ([`Claim::format`]).
//!
//! *A segment is made* by writing zeros to its end, by the device's own command (`fallocate` with `ZERO_RANGE`, which
//! becomes Write Zeroes) if it has one; then its cache is flushed, and only then is the segment entered in the table.
//! Discarding is no way to zero: what a device returns for discarded blocks is up to it. So it is used where nothing
//! need be read again: on the whole device when it is formatted. A log does not give segments back yet; when it does,
//! those are what `discard.rs` is for.
//!
//! *Blocks.* Writes are multiples of the device's logical block. A device that comes back with another one is served:
//! the log's own format bears that, and everything here lies at multiples of 4 KiB.

mod discard;
mod inspect;
mod region;
mod superblock;
mod table;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use self::region::Region;
use self::superblock::{EDGE_BYTES, META_BLOCK};
pub use self::superblock::{Owner, Superblock};
use self::table::Table;
use super::medium::{Aligned, failure};
use super::settle::{PATIENCE, RETRY};
use super::timing::{Timing, time_rewrites};
use crate::io::DiskError;
use crate::limits::BLOCK_BYTES_MAX;

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
        // What was formatted at another size has its last MiB where that ended: beyond may be anything that lay there
        // before the device grew, and what a device has lost by shrinking is told when it is opened.
        let formatted_bytes = inspect::formatted_bytes(head.bytes()).unwrap_or(self.device_bytes);
        if formatted_bytes <= self.device_bytes {
            let end = Superblock::second_at(formatted_bytes) + META_BLOCK;
            self.file.read_exact_at(tail.bytes(), end - EDGE_BYTES)?;
        }
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

    /// How long a durable write takes here, by writing again what stands in the last block, which is nothing or the
    /// second copy of the superblock.
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
        // Best effort, whatever the device says: it spares it from keeping what nobody will read.
        let _ = discard::discard(self.file.as_fd(), EDGE_BYTES, end - 2 * EDGE_BYTES);
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

    fn zeroing(&self) -> &File {
        self.zeroing.as_ref().expect("a device that is claimed for reading makes no segments")
    }
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

/// Tries again while it is in use, for a while: the kernel takes a killed process's io_uring apart a moment after the
/// process is gone, and lets go of the device then.
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
