//! The memory of one attachment: a block of control words, then the lines of its two rings.
//!
//! ```text
//! 0          control words, each in cache lines of its own
//! 1024       the submit ring
//! + its size the completion ring
//! ```
//! The sizes are agreed beside it and never read from it. It is zero when it is made, and zero is a meaning everywhere:
//! nothing published, nothing taken, nobody sleeps.
//!
//! Under `cfg(loom)` the same accesses go to loom's atomics, and every line has a cell that tells loom who touches it.
#![allow(unsafe_code, reason = "bytes that two threads or processes share are reached through pointers")]

use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
#[cfg(not(all(loom, test)))]
pub(super) use core::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(all(loom, test))]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

use crossbeam_utils::CachePadded;

use super::{LINE_BYTES, Sizes};

/// The bytes before the rings.
const CONTROL_BYTES: usize = 1024;

/// What memory is aligned to: a page, as mapped memory is.
const ALIGN_BYTES: usize = 4096;

/// The words beside the rings. Whoever writes one is named; the other side only reads it, and believes nothing.
#[repr(C)]
#[derive(Default)]
pub(super) struct Control {
    /// Up to where the lane has taken submits.
    pub(super) submits_taken: CachePadded<AtomicU64>,
    /// What the lane does: [`super::bell`].
    pub(super) lane: CachePadded<AtomicU32>,
    /// Up to where the engine has taken completions.
    pub(super) completions_taken: CachePadded<AtomicU64>,
    /// Whether the engine's thread sleeps: a futex word.
    pub(super) engine: CachePadded<AtomicU32>,
}

const _: () = assert!(size_of::<Control>() <= CONTROL_BYTES);

/// See the module. The memory goes when the last end that uses it goes.
pub struct Region {
    base: NonNull<u8>,
    sizes: Sizes,
    release: unsafe fn(NonNull<u8>, usize),
    #[cfg(all(loom, test))]
    shadow: Shadow,
}

// SAFETY: the memory belongs to no thread; what is in it is reached through atomics, or by the one end whose turn it is
// (`Lines`).
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// What loom is shown instead of raw memory.
#[cfg(all(loom, test))]
struct Shadow {
    control: Control,
    lines: alloc::vec::Vec<(AtomicU64, loom::cell::UnsafeCell<()>)>,
}

impl Region {
    /// How many bytes rings of these sizes take, control words included.
    pub fn bytes_for(sizes: Sizes) -> usize {
        CONTROL_BYTES + sizes.submit_bytes + sizes.completion_bytes
    }

    /// Memory of this process alone.
    pub fn allocate(sizes: Sizes) -> Region {
        let layout = layout(sizes);
        // SAFETY: the layout has a size: that of the control words at least.
        let base =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: made for it just now, zeroed, and given back with the same layout.
        unsafe { Region::over(base, sizes, free) }
    }

    /// Memory that comes from elsewhere.
    ///
    /// # Safety
    /// `base` points to [`Region::bytes_for`] bytes that are aligned to a page, stay readable and writable until
    /// `release` is called with them, and are used in this process through this region alone. If another process uses
    /// them, it is the other end, and keeps to this protocol or is no worse than a device that writes garbage.
    pub unsafe fn over(base: NonNull<u8>, sizes: Sizes, release: unsafe fn(NonNull<u8>, usize)) -> Region {
        Region {
            base,
            sizes,
            release,
            #[cfg(all(loom, test))]
            shadow: Shadow {
                control: Control::default(),
                lines: (0..Region::bytes_for(sizes) / LINE_BYTES).map(|_| Default::default()).collect(),
            },
        }
    }

    pub(super) fn control(&self) -> &Control {
        #[cfg(all(loom, test))]
        return &self.shadow.control;
        #[cfg(not(all(loom, test)))]
        // SAFETY: the region begins with the control words, is aligned to a page, and lives as long as `self`; all
        // that is in them is atomic, and every value of their bytes is one.
        unsafe {
            self.base.cast().as_ref()
        }
    }
}

fn layout(sizes: Sizes) -> Layout {
    Layout::from_size_align(Region::bytes_for(sizes), ALIGN_BYTES).expect("sizes were checked")
}

/// # Safety
/// `base` is what [`Region::allocate`] was given for so many bytes.
unsafe fn free(base: NonNull<u8>, len_bytes: usize) {
    let layout = Layout::from_size_align(len_bytes, ALIGN_BYTES).expect("it was allocated with this layout");
    // SAFETY: by this function's own contract.
    unsafe { dealloc(base.as_ptr(), layout) }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: nobody is left who could use it, and this is the one call.
        unsafe { (self.release)(self.base, Region::bytes_for(self.sizes)) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// Which of a region's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Submits,
    Completions,
}

/// The lines of one ring. Offsets count from the ring's first line.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    region: Arc<Region>,
    which: Which,
    begin: usize,
    len_bytes: usize,
}

impl Lines {
    pub(super) fn new(region: Arc<Region>, which: Which) -> Lines {
        let Sizes { submit_bytes, completion_bytes } = region.sizes;
        let (begin, len_bytes) = match which {
            Which::Submits => (CONTROL_BYTES, submit_bytes),
            Which::Completions => (CONTROL_BYTES + submit_bytes, completion_bytes),
        };
        Lines { region, which, begin, len_bytes }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Up to where the consumer has taken.
    pub(super) fn taken(&self) -> &AtomicU64 {
        let control = self.region.control();
        match self.which {
            Which::Submits => &control.submits_taken,
            Which::Completions => &control.completions_taken,
        }
    }

    /// The header word of the line at `at`.
    pub(super) fn header(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(LINE_BYTES) && at < self.len_bytes, "a header at {at}");
        #[cfg(all(loom, test))]
        return &self.region.shadow.lines[(self.begin + at) / LINE_BYTES].0;
        #[cfg(not(all(loom, test)))]
        // SAFETY: within the region, as was just checked, at a multiple of a line; the first word of a line that may
        // hold a header is only ever reached as an atomic: bytes begin behind it, and only at the line after a
        // record's first do they cover that word, when no header can be there.
        unsafe {
            self.region.base.add(self.begin + at).cast().as_ref()
        }
    }

    /// What was published behind the header at `at`.
    ///
    /// # Safety
    /// The caller is the ring's consumer, has seen the header with acquire ordering, and has not said that it has taken
    /// the record.
    pub(super) unsafe fn bytes(&self, at: usize, len_bytes: usize) -> &[u8] {
        let first = self.reach(at, len_bytes);
        #[cfg(all(loom, test))]
        self.touch(at, len_bytes, |cell| cell.with(|_| ()));
        // SAFETY: in bounds, as was just checked; not written as long as the contract holds.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), len_bytes) }
    }

    /// The room behind the header at `at`.
    ///
    /// # Safety
    /// The caller is the ring's producer, has not published the record, and has seen with acquire ordering that the
    /// consumer is done with what was there.
    pub(super) unsafe fn room(&mut self, at: usize, len_bytes: usize) -> &mut [u8] {
        let first = self.reach(at, len_bytes);
        #[cfg(all(loom, test))]
        self.touch(at, len_bytes, |cell| cell.with_mut(|_| ()));
        // SAFETY: in bounds, as was just checked; used by nobody else as long as the contract holds.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), len_bytes) }
    }

    fn reach(&self, at: usize, len_bytes: usize) -> NonNull<u8> {
        let first = at + super::HEADER_BYTES;
        assert!(first <= self.len_bytes && len_bytes <= self.len_bytes - first, "{len_bytes} bytes at {at}");
        // SAFETY: within the region, as was just checked.
        unsafe { self.region.base.add(self.begin + first) }
    }

    #[cfg(all(loom, test))]
    fn touch(&self, at: usize, len_bytes: usize, touch: impl Fn(&loom::cell::UnsafeCell<()>)) {
        let first = (self.begin + at) / LINE_BYTES;
        let count = (super::HEADER_BYTES + len_bytes).div_ceil(LINE_BYTES);
        self.region.shadow.lines[first..first + count].iter().for_each(|(_, cell)| touch(cell));
    }
}
