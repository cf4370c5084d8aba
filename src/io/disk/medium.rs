//! What a log's segments lie on: files of a directory, or regions of a block device. Both backends see this alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::device::Region;
use super::files::Directory;
use super::{Options, Place};
use crate::io::{DiskError, SegmentId};
use crate::limits::BLOCK_BYTES_MAX;

/// How many segments are held open at most. Beyond, the oldest that nothing is under way on is closed.
pub(super) const OPEN_MAX: usize = 256;

/// What is read at once at start-up when the caller's memory is not aligned.
const BOUNCE_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) enum Medium {
    Files(Directory),
    Device(Region),
}

impl Medium {
    /// Opens it. The notes are for the operator.
    pub(super) fn open(options: &Options, notes: &mut Vec<String>) -> Result<Medium, DiskError> {
        match &options.place {
            Place::Directory(path) => Directory::open(path, options.segment_bytes, notes).map(Medium::Files),
            Place::Device(device, lane) => {
                let region = Region::open(Arc::clone(device), *lane, notes)?;
                assert_eq!(
                    region.segment_bytes(),
                    options.segment_bytes,
                    "checked when the device was opened"
                );
                Ok(Medium::Device(region))
            }
        }
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        match self {
            Medium::Files(directory) => directory.segment_bytes(),
            Medium::Device(region) => region.segment_bytes(),
        }
    }

    pub(super) fn block_bytes(&self) -> usize {
        match self {
            Medium::Files(directory) => directory.block_bytes(),
            Medium::Device(region) => region.block_bytes(),
        }
    }

    /// Where a segment lies, for the operator.
    pub(super) fn place_of(&self, segment: SegmentId) -> String {
        match self {
            Medium::Files(directory) => directory.path_of(segment).display().to_string(),
            Medium::Device(region) => region.place_of(segment),
        }
    }

    /// The segments that are there, ascending.
    pub(super) fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        match self {
            Medium::Files(directory) => directory.segments(),
            Medium::Device(region) => Ok(region.segments()),
        }
    }

    /// Opens a segment so that every write to it is durable when it returns.
    pub(super) fn open_segment(&self, segment: SegmentId) -> Result<Extent, DiskError> {
        match self {
            Medium::Files(directory) => directory.open_segment(segment).map(Extent::whole),
            Medium::Device(region) => region.open_segment(segment),
        }
    }

    /// Makes a segment, zeroed and durable, and opens it. `pause` is called between the pieces with how long a rest
    /// would be fair to the foreground, and says whether to go on; `None`: it said no.
    pub(super) fn create(
        &self,
        segment: SegmentId,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Option<Extent>, DiskError> {
        match self {
            Medium::Files(directory) => Ok(directory.create(segment, pause)?.map(Extent::whole)),
            Medium::Device(region) => region.create(segment, pause),
        }
    }

    /// Whether there is, as far as can be told, room for another segment.
    pub(super) fn may_have_room(&self) -> bool {
        match self {
            Medium::Files(directory) => directory.may_have_room(),
            Medium::Device(region) => region.may_have_room(),
        }
    }

    /// Whether completions can be polled from what this lies on.
    pub(super) fn can_poll(&self, notes: &mut Vec<String>) -> bool {
        let place = match self {
            Medium::Device(region) if region.can_poll() => return true,
            Medium::Device(region) => region.path().display().to_string(),
            Medium::Files(_) => "files".to_owned(),
        };
        notes.push(format!(
            "{place}: completions cannot be polled; that takes a device with queues for it (nvme.poll_queues=N on the \
             kernel's command line, /sys/block/X/queue/io_poll)"
        ));
        false
    }

    /// Makes everything durable that can be read: every segment, and what says which there are.
    pub(super) fn sync(&self, open: &mut OpenSegments) -> Result<(), DiskError> {
        let directory = match self {
            Medium::Files(directory) => directory,
            // A device has one cache.
            Medium::Device(region) => return region.sync(),
        };
        for segment in directory.segments()? {
            // One that is not open stays so: who opens one for keeps tells the driver, which has a table of its own.
            let extent = match open.get(segment) {
                Some(opened) => opened.extent.clone(),
                None => self.open_segment(segment)?,
            };
            let synced = extent.file.sync_data();
            synced.map_err(|error| failure("flush segment", self.place_of(segment), &error))?;
        }
        directory.sync()
    }

    #[cfg(test)]
    pub(super) fn set_full(&self, is_full: bool) {
        let switch = match self {
            Medium::Files(directory) => &directory.is_full,
            Medium::Device(region) => &region.is_full,
        };
        switch.store(is_full, std::sync::atomic::Ordering::Relaxed);
    }

    /// The segment as one that the system does not let be written.
    #[cfg(test)]
    pub(super) fn open_for_reading(&self, segment: SegmentId) -> Extent {
        let (path, begins_at) = match self {
            Medium::Files(directory) => (directory.path_of(segment), 0),
            Medium::Device(region) => {
                (region.path().to_owned(), region.open_segment(segment).expect("it is there").begins_at)
            }
        };
        Extent { file: Arc::new(File::open(path).expect("the segment is there")), begins_at }
    }
}

/// Where a segment's bytes lie: in this file, from here on. Offsets are the segment's own.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    file: Arc<File>,
    begins_at: u64,
}

impl Extent {
    /// A file that is the segment.
    fn whole(file: File) -> Extent {
        Extent { file: Arc::new(file), begins_at: 0 }
    }

    /// A part of a larger one.
    pub(super) fn part_of(file: &Arc<File>, begins_at: u64) -> Extent {
        Extent { file: Arc::clone(file), begins_at }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// An offset of the segment as one of the file.
    pub(super) fn in_file(&self, offset: u64) -> u64 {
        self.begins_at + offset
    }

    /// Writes whole, also when the system takes it in pieces or is interrupted by a signal.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, self.in_file(offset))
    }

    /// Reads whole, into memory that the device takes.
    pub(super) fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, self.in_file(offset))
    }

    /// Reads whole, into memory as it comes and from any place.
    pub(super) fn read_anyhow_at(&self, into: &mut [u8], offset: u64, block: usize) -> io::Result<()> {
        let is_aligned = into.as_ptr().addr().is_multiple_of(block) && into.len().is_multiple_of(block);
        if is_aligned && offset.is_multiple_of(block as u64) {
            return self.read_exact_at(into, offset);
        }
        let mut bounce = Aligned::zeroed(BOUNCE_BYTES);
        let mut done = 0;
        while done < into.len() {
            let from = offset + done as u64;
            let skip = (from % block as u64) as usize;
            let wanted = (into.len() - done).min(BOUNCE_BYTES - skip);
            let whole = (skip + wanted).next_multiple_of(block);
            self.read_exact_at(&mut bounce.bytes()[..whole], from - skip as u64)?;
            into[done..done + wanted].copy_from_slice(&bounce.bytes()[skip..skip + wanted]);
            done += wanted;
        }
        Ok(())
    }
}

/// An open segment. Whoever has an operation under way on it holds a clone.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) extent: Extent,
    /// Its place among [`OPEN_MAX`].
    pub(super) place: u32,
}

/// The open segments: those that were used last.
#[derive(Debug)]
pub(super) struct OpenSegments {
    /// Each with when it was used last.
    open: BTreeMap<SegmentId, (Arc<OpenSegment>, u64)>,
    free: Vec<u32>,
    /// Counts the uses.
    uses: u64,
}

impl OpenSegments {
    pub(super) fn new() -> OpenSegments {
        OpenSegments { open: BTreeMap::new(), free: (0..OPEN_MAX as u32).rev().collect(), uses: 0 }
    }

    /// The segment, if it is open.
    pub(super) fn get(&mut self, segment: SegmentId) -> Option<Arc<OpenSegment>> {
        let (open, used) = self.open.get_mut(&segment)?;
        self.uses += 1;
        *used = self.uses;
        Some(Arc::clone(open))
    }

    /// Takes in one that was opened.
    pub(super) fn insert(&mut self, segment: SegmentId, extent: Extent) -> Arc<OpenSegment> {
        if self.free.is_empty() {
            let idle = self.open.iter().filter(|(_, (open, _))| Arc::strong_count(open) == 1);
            let oldest = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            let oldest = oldest.expect("fewer operations can be under way than segments can be open");
            let (closed, _) = self.open.remove(&oldest).expect("it was just found");
            self.free.push(closed.place);
        }
        let place = self.free.pop().expect("one was freed if there was none");
        let opened = Arc::new(OpenSegment { extent, place });
        self.uses += 1;
        if let Some((replaced, _)) = self.open.insert(segment, (Arc::clone(&opened), self.uses)) {
            self.free.push(replaced.place);
        }
        opened
    }
}

/// Memory that direct reads and writes accept.
#[derive(Debug)]
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len_bytes: usize,
}

impl Aligned {
    pub(super) fn zeroed(len_bytes: usize) -> Aligned {
        let memory = vec![0; len_bytes + BLOCK_BYTES_MAX];
        let start = memory.as_ptr().addr().next_multiple_of(BLOCK_BYTES_MAX) - memory.as_ptr().addr();
        Aligned { memory, start, len_bytes }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len_bytes]
    }
}

/// Calls `piece` for each piece of a range from 0 on, of at most `piece_bytes`, with a rest after each for as long as
/// it took, so that the writes of the hot path find the device free at least half of the time. False: `pause` said no.
pub(super) fn in_pieces(
    len_bytes: u64,
    piece_bytes: u64,
    pause: &mut dyn FnMut(Duration) -> bool,
    mut piece: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<bool> {
    /// The longest rest.
    const PAUSE_MAX: Duration = Duration::from_millis(20);
    let mut offset = 0;
    while offset < len_bytes {
        let wanted = (len_bytes - offset).min(piece_bytes);
        let begun = std::time::Instant::now();
        piece(offset, wanted)?;
        offset += wanted;
        if !pause(begun.elapsed().min(PAUSE_MAX)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A system's refusal in words for the operator.
pub(super) fn failure(operation: impl Into<String>, place: impl ToString, error: &io::Error) -> DiskError {
    let no_space = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
        || error.kind() == io::ErrorKind::StorageFull;
    let cause = if no_space { format!("the filesystem is full: {error}") } else { error.to_string() };
    DiskError { operation: operation.into(), place: place.to_string(), cause, no_space }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn aligned_memory_is_aligned() {
        let mut memory = Aligned::zeroed(8192);
        assert_eq!(memory.bytes().len(), 8192);
        assert!(memory.bytes().as_ptr().addr().is_multiple_of(BLOCK_BYTES_MAX));
    }

    /// Segments that were made far ahead are opened as well: that being written must not go for them.
    #[test]
    fn the_segment_that_was_not_used_for_longest_is_closed() {
        let mut open = OpenSegments::new();
        let extent = || Extent::whole(File::open("/dev/null").unwrap());
        for segment in 0..OPEN_MAX as u64 {
            open.insert(SegmentId(segment), extent());
        }
        for ahead in 1..100 {
            assert!(open.get(SegmentId(0)).is_some(), "{ahead}");
            open.insert(SegmentId(OPEN_MAX as u64 + ahead), extent());
            let is_open = |segment| open.open.contains_key(&SegmentId(segment));
            assert!(!is_open(ahead) && is_open(ahead + 1));
        }
    }

    #[test]
    fn a_full_filesystem_is_told_apart() {
        let full = failure("write", "/x", &io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(full.no_space);
        assert!(full.cause.contains("full"), "{}", full.cause);
        let other = failure("write", "/x", &io::Error::from_raw_os_error(libc::EIO));
        assert!(!other.no_space);
    }

    #[test]
    fn pieces_cover_all_of_a_range_and_stop_when_they_are_told_to() {
        let mut seen = Vec::new();
        let whole = in_pieces(10, 4, &mut |_| true, |offset, len| {
            seen.push((offset, len));
            Ok(())
        });
        assert!(whole.unwrap());
        assert_eq!(seen, [(0, 4), (4, 4), (8, 2)]);
        assert!(!in_pieces(10, 4, &mut |_| false, |_, _| Ok(())).unwrap());
    }
}
