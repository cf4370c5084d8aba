//! The buffer pool that log, disk and links share: chunks of memory, filled from the front, frozen piece by piece.
//!
//! A [`Chunk`] is the one writer of its spare room. [`Chunk::freeze`] cuts what was written off as a [`Slice`]: shared,
//! immutable, alive as long as any holder (a write in flight, a peer that lags). When the chunk and all its slices are
//! gone its memory is the pool's again. Nothing is allocated after [`Pool::new`].
//!
//! Every chunk's memory counts its holders (its chunk and its slices) in one atomic number, in which one bit stands for
//! the pool itself. A chunk is free when only that bit is set; who sees that with acquire ordering comes after
//! everything that the last holder did. Memory outlives its pool while someone holds it: a disk's helper thread may
//! let go of a slice after the lane is gone.
#![allow(unsafe_code, reason = "one writer and many readers of disjoint parts of one allocation")]

use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, Range};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use crate::limits::{BLOCK_BYTES_MAX, CHUNK_BYTES};

/// Set in a region's count of holders while its pool exists.
const OWNED: u32 = 1 << 31;

const LAYOUT: Layout = match Layout::from_size_align(CHUNK_BYTES, BLOCK_BYTES_MAX) {
    Ok(layout) => layout,
    Err(_) => panic!("a chunk is a whole number of blocks, and a block a power of two"),
};

const _: () = assert!(CHUNK_BYTES <= u32::MAX as usize, "offsets in a chunk fit 32 bits");

/// The pool of one lane. Cheap to clone; all clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    regions: Arc<Regions>,
}

/// A chunk that is being filled.
pub struct Chunk {
    memory: Holder,
    /// Where the spare room begins: slices end here at the latest.
    filled: usize,
}

/// Frozen bytes of a chunk.
#[derive(Clone)]
pub struct Slice {
    memory: Holder,
    offset: u32,
    len_bytes: u32,
}

impl Pool {
    /// `chunks` chunks of [`crate::limits::CHUNK_BYTES`], zeroed, aligned to [`crate::limits::BLOCK_BYTES_MAX`].
    pub fn new(chunks: usize) -> Pool {
        let regions = (0..chunks).map(Region::allocate).collect::<Vec<_>>();
        Pool { regions: Arc::new(Regions(regions)) }
    }

    /// A chunk that nobody holds, all of it spare; `None` when all are in use.
    pub fn take(&self) -> Option<Chunk> {
        let memory = self.regions.0.iter().find_map(|&region| Holder::claim(region))?;
        Some(Chunk { memory, filled: 0 })
    }

    /// How many chunks nobody holds.
    pub fn available(&self) -> usize {
        let free = |region: &&NonNull<Region>| {
            // SAFETY: the pool's own bit keeps every region of its list allocated until the list is dropped.
            unsafe { region.as_ref() }.holders.load(Ordering::Relaxed) == OWNED
        };
        self.regions.0.iter().filter(free).count()
    }

    /// How many chunks there are, free or not.
    pub fn chunks(&self) -> usize {
        self.regions.0.len()
    }

    /// A hold on bytes that lie in one of this pool's chunks, frozen or not; `None` if they do not. For who sends from
    /// where records lie and goes on reading after the call.
    ///
    /// # Safety
    /// Nobody writes to these bytes while the hold lives. What a log has laid is never written again.
    pub unsafe fn hold(&self, bytes: &[u8]) -> Option<Slice> {
        let begin = bytes.as_ptr().addr();
        let at = self.regions.0.iter().find_map(|&region| {
            // SAFETY: the pool's own bit keeps every region of its list allocated until the list is dropped.
            let base = unsafe { region.as_ref() }.base.addr().get();
            let offset = begin.checked_sub(base).filter(|offset| offset + bytes.len() <= CHUNK_BYTES)?;
            Some((region, offset))
        });
        let (region, offset) = at?;
        // SAFETY: as above; and whoever lent `bytes` holds the region, so that its count is not the pool's alone.
        let holders = unsafe { &region.as_ref().holders };
        let before = holders.fetch_add(1, Ordering::Relaxed);
        assert!(before & !OWNED > 0, "bytes are borrowed from somebody who holds their chunk");
        Some(Slice { memory: Holder(region), offset: offset as u32, len_bytes: bytes.len() as u32 })
    }

    /// Address and length in bytes of every chunk, in the order of [`Slice::region_index`]: what a kernel is told when
    /// the buffers are registered with it. The addresses hold as long as the pool or any part of a chunk lives.
    pub fn regions(&self) -> impl Iterator<Item = (*mut u8, usize)> + '_ {
        // SAFETY: the pool's own bit keeps every region of its list allocated until the list is dropped.
        self.regions.0.iter().map(|region| (unsafe { region.as_ref() }.base.as_ptr(), CHUNK_BYTES))
    }
}

impl Chunk {
    /// What was not frozen yet. Holds whatever its last user left.
    pub fn spare(&self) -> &[u8] {
        // SAFETY: `filled` is at most CHUNK_BYTES; the memory was zeroed when allocated and is initialised ever after.
        // Only this chunk writes behind `filled`, and it is borrowed while the bytes are.
        unsafe { core::slice::from_raw_parts(self.spare_ptr(), CHUNK_BYTES - self.filled) }
    }

    /// The same, to be written.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `spare`; and slices end at `filled`, so that no other reference reaches these bytes.
        unsafe { core::slice::from_raw_parts_mut(self.spare_ptr(), CHUNK_BYTES - self.filled) }
    }

    /// Where the spare room begins: for a kernel that reads into it while this chunk is kept and left alone.
    pub fn spare_ptr(&self) -> *mut u8 {
        // SAFETY: `filled` is at most CHUNK_BYTES, the size of the allocation that begins at `base`.
        unsafe { self.memory.region().base.as_ptr().add(self.filled) }
    }

    /// Which of [`Pool::regions`] it lies in.
    pub fn region_index(&self) -> usize {
        self.memory.region().index
    }

    /// Cuts the first `len_bytes` of the spare room off.
    ///
    /// # Panics
    /// If the spare room is shorter.
    pub fn freeze(&mut self, len_bytes: usize) -> Slice {
        assert!(len_bytes <= CHUNK_BYTES - self.filled, "only spare room is frozen");
        let slice =
            Slice { memory: self.memory.clone(), offset: self.filled as u32, len_bytes: len_bytes as u32 };
        self.filled += len_bytes;
        slice
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: a slice lies before its chunk's `filled`, where nobody writes until the last holder is gone, and
        // this is one.
        unsafe { core::slice::from_raw_parts(self.as_ptr(), self.len_bytes as usize) }
    }
}

impl Slice {
    /// A part of it.
    ///
    /// # Panics
    /// If the range does not lie in it.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len_bytes as usize, "a part lies in its whole");
        Slice {
            memory: self.memory.clone(),
            offset: self.offset + range.start as u32,
            len_bytes: (range.end - range.start) as u32,
        }
    }

    /// Where it begins in memory.
    pub fn as_ptr(&self) -> *const u8 {
        // SAFETY: `offset` was at most CHUNK_BYTES when this was cut, the size of the allocation behind `base`.
        unsafe { self.memory.region().base.as_ptr().add(self.offset as usize) }
    }

    /// Which of [`Pool::regions`] it lies in.
    pub fn region_index(&self) -> usize {
        self.memory.region().index
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} chunks free)", self.available(), self.chunks())
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({}, {} bytes spare)", self.region_index(), CHUNK_BYTES - self.filled)
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({}, {} bytes at {})", self.region_index(), self.len_bytes, self.offset)
    }
}

/// One chunk's memory.
struct Region {
    base: NonNull<u8>,
    index: usize,
    /// How many chunks and slices lie in it, and [`OWNED`].
    holders: AtomicU32,
}

impl Region {
    fn allocate(index: usize) -> NonNull<Region> {
        // SAFETY: LAYOUT is not of size zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(LAYOUT) }) else { handle_alloc_error(LAYOUT) };
        // SAFETY: the allocation is CHUNK_BYTES long and nobody else knows of it. Writing the zeros once more makes
        // the system find the pages now and not in the middle of a turn.
        unsafe { base.as_ptr().write_bytes(0, CHUNK_BYTES) };
        let region = Box::new(Region { base, index, holders: AtomicU32::new(OWNED) });
        NonNull::from(Box::leak(region))
    }

    /// Takes `bits` away from the count, and frees the region if that was all.
    ///
    /// # Safety
    /// The caller owns those bits and does not touch the region afterwards.
    unsafe fn release(this: NonNull<Region>, bits: u32) {
        // SAFETY: the caller's bits were counted until here, so that the region is still allocated.
        if unsafe { this.as_ref() }.holders.fetch_sub(bits, Ordering::Release) != bits {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: the count is zero, so this was the last holder; both allocations were made by `allocate` alike.
        unsafe {
            let region = Box::from_raw(this.as_ptr());
            dealloc(region.base.as_ptr(), LAYOUT);
        }
    }
}

struct Regions(Vec<NonNull<Region>>);

// SAFETY: the list never changes and what it points to is counted atomically.
unsafe impl Send for Regions {}
// SAFETY: as above.
unsafe impl Sync for Regions {}

impl Drop for Regions {
    fn drop(&mut self) {
        for &region in &self.0 {
            // SAFETY: OWNED is this list's own bit, given back once, and the list is gone after this.
            unsafe { Region::release(region, OWNED) };
        }
    }
}

/// One counted hold on a region.
struct Holder(NonNull<Region>);

// SAFETY: the count is atomic, and who may touch which bytes is said by chunk (one writer, `&mut`) and slice (readers
// only), wherever they are.
unsafe impl Send for Holder {}
// SAFETY: a shared holder gives out nothing but the region's address and shared bytes.
unsafe impl Sync for Holder {}

impl Holder {
    /// The first hold on a region that nobody holds.
    fn claim(region: NonNull<Region>) -> Option<Holder> {
        // SAFETY: called with regions of a living pool, whose own bit keeps them allocated.
        let holders = unsafe { &region.as_ref().holders };
        // Acquire: everything that the last holder did with the memory, on whatever thread, comes before.
        holders
            .compare_exchange(OWNED, OWNED + 1, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Holder(region))
    }

    fn region(&self) -> &Region {
        // SAFETY: this hold is counted, so the region is allocated.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Holder {
    fn clone(&self) -> Holder {
        let before = self.region().holders.fetch_add(1, Ordering::Relaxed);
        assert!(before & !OWNED < OWNED / 2, "a chunk has fewer holders than bytes");
        Holder(self.0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: this hold was counted once and ends here.
        unsafe { Region::release(self.0, 1) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_held_outlive_their_chunk() {
        let pool = Pool::new(2);
        let mut chunk = pool.take().unwrap();
        chunk.spare_mut()[..5].copy_from_slice(b"laid.");
        // SAFETY: nobody writes to these bytes again.
        let held = unsafe { pool.hold(&chunk.spare()[1..4]) }.unwrap();
        // SAFETY: these bytes are constant.
        assert!(unsafe { pool.hold(b"elsewhere") }.is_none());
        drop(chunk);
        assert_eq!((&*held, pool.available()), (&b"aid"[..], 1));
        drop(held);
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn a_chunk_comes_back_when_its_last_slice_is_gone() {
        let pool = Pool::new(2);
        let mut chunk = pool.take().unwrap();
        let other = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert_eq!(chunk.spare().len(), CHUNK_BYTES);
        assert!(chunk.spare().as_ptr().addr().is_multiple_of(BLOCK_BYTES_MAX));
        chunk.spare_mut()[..3].copy_from_slice(b"abc");
        let slice = chunk.freeze(3);
        assert_eq!(chunk.spare().len(), CHUNK_BYTES - 3);
        chunk.spare_mut()[0] = b'd';
        let part = slice.slice(1..3);
        assert_eq!((&*slice, &*part), (&b"abc"[..], &b"bc"[..]));
        assert_eq!(part.region_index(), chunk.region_index());
        drop((chunk, slice));
        assert_eq!(pool.available(), 0);
        drop(part);
        assert_eq!(pool.available(), 1);
        drop(other);
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn a_slice_outlives_its_pool() {
        let pool = Pool::new(1);
        let mut chunk = pool.take().unwrap();
        chunk.spare_mut()[..5].copy_from_slice(b"later");
        let slice = chunk.freeze(5);
        drop((pool, chunk));
        assert_eq!(&*slice, b"later");
    }

    #[test]
    fn two_threads_never_hold_the_same_spare_room() {
        let pool = Pool::new(2);
        let work = |mark: u8, pool: Pool| {
            move || {
                for _ in 0..2000 {
                    let Some(mut chunk) = pool.take() else { continue };
                    chunk.spare_mut()[..64].fill(mark);
                    let slice = chunk.freeze(64);
                    drop(chunk);
                    assert!(slice.iter().all(|&byte| byte == mark));
                }
            }
        };
        let threads = [1, 2, 3].map(|mark| std::thread::spawn(work(mark, pool.clone())));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn regions_are_told_in_the_order_of_their_index() {
        let pool = Pool::new(3);
        let regions = pool.regions().collect::<Vec<_>>();
        assert_eq!(regions.len(), 3);
        let chunk = pool.take().unwrap();
        assert_eq!(regions[chunk.region_index()], (chunk.spare_ptr(), CHUNK_BYTES));
    }
}
