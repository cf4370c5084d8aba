//! A directory of segment files, as both backends see it.
//!
//! `segment-00000007.log` is segment 7. A segment comes to be under another name, is filled with zeros to its end and
//! flushed, and only then gets its own: a name that can be seen is a segment that is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FallocateFlags, StatxFlags};

use super::medium::{Aligned, failure, in_pieces};
use super::settle;
use crate::io::locked::Locked;
use crate::io::{DiskError, SegmentId};
use crate::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES_MAX};

/// What the name of a segment that is being made ends with.
const UNFINISHED: &str = ".unfinished";

/// The smallest block that a device may have.
const BLOCK_BYTES_MIN: usize = 512;

/// Zeros are written in pieces of this size, with a pause after each. A record's flush waits for the piece before it:
/// with pieces of 1 MiB the p99.9 of a commit of 1 KiB was 783 us, with these it is 387 us (medians of three).
pub(super) const ZERO_PIECE_BYTES: usize = 128 << 10;

/// The directory. Locked: as long as this lives, no other process has it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Open, and locked, until the last user is gone.
    directory: Locked,
    segment_bytes: u64,
    block_bytes: usize,
    is_direct: bool,
    /// As if the filesystem had no room for another segment.
    #[cfg(test)]
    pub(super) is_full: std::sync::atomic::AtomicBool,
}

impl Directory {
    /// Opens it, makes it if it is not there, and clears away segments that were never finished. The notes are for the
    /// operator.
    pub(super) fn open(
        path: &Path,
        segment_bytes: u64,
        notes: &mut Vec<String>,
    ) -> Result<Directory, DiskError> {
        assert!(
            segment_bytes > 0
                && segment_bytes.is_multiple_of(BLOCK_BYTES_MAX as u64)
                && segment_bytes <= SEGMENT_BYTES_MAX,
            "a segment is whole blocks, and bounded"
        );
        let failed = |operation: &str, error: &io::Error| failure(operation, path.display(), error);
        std::fs::create_dir_all(path).map_err(|error| failed("create directory", &error))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| failed("flush parent directory", &error))?;
        }
        let directory = File::open(path).map_err(|error| failed("open directory", &error))?;
        directory.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DiskError {
                operation: "lock directory".into(),
                place: path.display().to_string(),
                cause: "it is in use, by another process or another lane".into(),
                no_space: false,
            },
            TryLockError::Error(error) => failed("lock directory", &error),
        })?;
        let mut opened = Directory {
            path: path.into(),
            directory: Locked::of(directory),
            segment_bytes,
            block_bytes: BLOCK_BYTES_MAX,
            is_direct: true,
            #[cfg(test)]
            is_full: false.into(),
        };
        opened.clear_unfinished()?;
        let segments = opened.segments()?;
        for &segment in &segments {
            settle::settle(&opened.path_of(segment))?;
        }
        opened.probe(segments.first().copied(), notes)?;
        Ok(opened)
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub(super) fn path_of(&self, segment: SegmentId) -> PathBuf {
        segment_path(&self.path, segment)
    }

    /// The segments that are there, ascending.
    pub(super) fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        let mut segments: Vec<SegmentId> = self.names()?.iter().filter_map(|name| segment_of(name)).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    /// Opens a segment so that every write to it is durable when it returns.
    pub(super) fn open_segment(&self, segment: SegmentId) -> Result<File, DiskError> {
        let path = self.path_of(segment);
        let failed = |error: &io::Error| failure("open segment", path.display(), error);
        let file = self.options(libc::O_DSYNC).open(&path).map_err(|error| failed(&error))?;
        let len_bytes = file.metadata().map_err(|error| failed(&error))?.len();
        if len_bytes != self.segment_bytes {
            return Err(DiskError {
                operation: "open segment".into(),
                place: path.display().to_string(),
                cause: format!("it has {len_bytes} bytes, but segments here have {}", self.segment_bytes),
                no_space: false,
            });
        }
        settle::hold(&file, &path)?;
        Ok(file)
    }

    /// Makes a segment, zeroed and durable, and opens it. `pause` is called between the pieces with how long a rest
    /// would be fair to the foreground, and says whether to go on.
    pub(super) fn create(
        &self,
        segment: SegmentId,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Option<File>, DiskError> {
        let path = self.path_of(segment);
        let unfinished = path.with_extension(format!("log{UNFINISHED}"));
        let outcome = self.create_as(&path, &unfinished, pause);
        if !matches!(outcome, Ok(true)) {
            // Best effort: what stays is cleared away when the directory is opened next.
            let _ = std::fs::remove_file(&unfinished);
        }
        match outcome {
            Ok(true) => self.open_segment(segment).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(failure(
                format!("create segment of {} bytes", self.segment_bytes),
                path.display(),
                &error,
            )),
        }
    }

    fn create_as(
        &self,
        path: &Path,
        unfinished: &Path,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<bool> {
        if path.try_exists()? {
            // Never write zeros over what may have been acknowledged.
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a segment of this number exists"));
        }
        let file = self.options(0).create_new(true).open(unfinished)?;
        #[cfg(test)]
        if self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let is_reserved = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.segment_bytes) {
            Ok(()) => true,
            // Where it cannot be reserved at once, the zeros do it piece by piece.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => false,
            Err(error) => return Err(error.into()),
        };
        // In memory there is no table of blocks that a later write would have to change and flush.
        if !(is_reserved && is_in_memory(&file)?) {
            let mut zeros = Aligned::zeroed(ZERO_PIECE_BYTES);
            let is_whole = in_pieces(self.segment_bytes, ZERO_PIECE_BYTES as u64, pause, |offset, piece| {
                file.write_all_at(&zeros.bytes()[..piece as usize], offset)
            })?;
            if !is_whole {
                return Ok(false);
            }
        }
        file.sync_data()?;
        std::fs::rename(unfinished, path)?;
        self.directory.sync_all()?;
        Ok(true)
    }

    /// Whether the filesystem, as far as it tells, has room for another segment.
    pub(super) fn may_have_room(&self) -> bool {
        rustix::fs::fstatvfs(&*self.directory)
            .map_or(true, |told| told.f_bavail.saturating_mul(told.f_frsize) >= self.segment_bytes)
    }

    /// Makes the directory itself durable: the names in it.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.directory.sync_all().map_err(|error| failure("flush directory", self.path.display(), &error))
    }

    fn names(&self) -> Result<Vec<String>, DiskError> {
        let failed = |error: &io::Error| failure("list directory", self.path.display(), error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            // What is not text is not ours.
            names.extend(entry.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn clear_unfinished(&self) -> Result<(), DiskError> {
        for name in self.names()? {
            if name.strip_suffix(UNFINISHED).and_then(segment_of).is_some() {
                let path = self.path.join(&name);
                std::fs::remove_file(&path)
                    .map_err(|error| failure("remove unfinished segment", path.display(), &error))?;
            }
        }
        Ok(())
    }

    /// Finds out whether this filesystem takes direct writes, and of what alignment. A segment that is there is asked:
    /// a filesystem that is full to the last file has room for no other. Else it is a file of its own.
    fn probe(&mut self, segment: Option<SegmentId>, notes: &mut Vec<String>) -> Result<(), DiskError> {
        let fresh = self.path.join(format!("segment-00000000.log{UNFINISHED}"));
        let path = segment.map_or_else(|| fresh.clone(), |segment| self.path_of(segment));
        let open = |directory: &Directory| directory.options(0).create_new(segment.is_none()).open(&path);
        let failed = |error: &io::Error| failure("probe directory", path.display(), error);
        let mut opened = open(self);
        if opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            self.give_up_direct(notes);
            // Some filesystems refuse after they have made the file.
            let _ = std::fs::remove_file(&fresh);
            opened = open(self);
        }
        let file = opened.map_err(|error| failed(&error))?;
        let asked = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
        if let Ok(answer) = asked
            && answer.stx_mask & StatxFlags::DIOALIGN.bits() != 0
            && answer.stx_dio_offset_align != 0
        {
            self.block_bytes = block_for(answer.stx_dio_offset_align, answer.stx_dio_mem_align);
        }
        if segment.is_none() {
            std::fs::remove_file(&fresh).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn give_up_direct(&mut self, notes: &mut Vec<String>) {
        self.is_direct = false;
        notes.push(format!(
            "{}: this filesystem refuses direct writes; writing through the page cache, flushed each time",
            self.path.display()
        ));
    }

    fn options(&self, flags: i32) -> OpenOptions {
        let direct = if self.is_direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(flags | direct | libc::O_CLOEXEC);
        options
    }
}

/// Whether a file lies in memory alone (tmpfs), where what is reserved is as good as written.
fn is_in_memory(file: &File) -> io::Result<bool> {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: i128 = 0x0102_1994;
    Ok(i128::from(rustix::fs::fstatfs(file)?.f_type) == TMPFS)
}

/// The unit of writing for a filesystem that wants offsets and memory aligned so.
fn block_for(offset_align: u32, memory_align: u32) -> usize {
    let wanted = offset_align.max(memory_align).max(BLOCK_BYTES_MIN as u32) as usize;
    wanted.checked_next_power_of_two().unwrap_or(BLOCK_BYTES_MAX).min(BLOCK_BYTES_MAX)
}

/// Where a segment of the log in `directory` lies.
pub fn segment_path(directory: &Path, segment: SegmentId) -> PathBuf {
    directory.join(format!("segment-{:08}.log", segment.0))
}

/// The segment whose file has this name; `None`: it is no segment's.
pub(crate) fn segment_of(name: &str) -> Option<SegmentId> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    // Exactly as it is written here: no sign, no other padding.
    (format!("{number:08}") == digits).then_some(SegmentId(number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(segment_of("segment-00000007.log"), Some(SegmentId(7)));
        assert_eq!(segment_of("segment-123456789.log"), Some(SegmentId(123_456_789)));
        for foreign in
            ["segment-7.log", "segment-+0000007.log", "segment-00000007.log.unfinished", "segment-.log"]
        {
            assert_eq!(segment_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_block_is_a_power_of_two_within_its_bounds() {
        assert_eq!(block_for(512, 4), 512);
        assert_eq!(block_for(1, 1), 512);
        assert_eq!(block_for(512, 4096), 4096);
        assert_eq!(block_for(3000, 1), 4096);
        assert_eq!(block_for(1 << 20, u32::MAX), 4096);
    }

    #[test]
    fn segments_are_opened_direct_and_durable_or_at_least_durable() {
        let path = std::env::temp_dir().join(format!("plimsoll-files-{}", std::process::id()));
        let mut notes = Vec::new();
        let mut directory = Directory::open(&path, 1 << 20, &mut notes).unwrap();
        for (segment, is_direct) in [(SegmentId(0), directory.is_direct), (SegmentId(1), false)] {
            if !is_direct && directory.is_direct {
                directory.give_up_direct(&mut notes);
                assert!(notes.last().unwrap().contains("refuses direct writes"));
            }
            let file = directory.create(segment, &mut |_| true).unwrap().unwrap();
            let flags = rustix::fs::fcntl_getfl(&file).unwrap().bits() as i32;
            assert_eq!(flags & libc::O_DIRECT != 0, is_direct);
            // Durable data, without the times of the file: what O_SYNC adds would cost a journal write each time.
            assert_eq!(flags & libc::O_SYNC, libc::O_DSYNC);
            file.write_all_at(Aligned::zeroed(4096).bytes(), 4096).unwrap();
        }
        // Given up half way: nothing stays.
        let mut pieces = 0;
        let given_up = directory.create(SegmentId(2), &mut |_| {
            pieces += 1;
            false
        });
        assert!(given_up.unwrap().is_none());
        assert_eq!(pieces, 1);
        assert_eq!(directory.segments().unwrap(), [SegmentId(0), SegmentId(1)]);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
        drop(directory);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
