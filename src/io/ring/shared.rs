//! A region that two processes map: a memfd that can neither shrink nor grow, so that neither side can take the other's
//! memory from under it.
#![allow(unsafe_code, reason = "mapped memory comes as a pointer")]

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::{Region, Sizes};

/// Makes a region and maps it here; the descriptor is for the other process.
pub fn create(sizes: Sizes) -> io::Result<(Region, OwnedFd)> {
    let memory = rustix::fs::memfd_create("plimsoll-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memory, Region::bytes_for(sizes) as u64)?;
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok((map(&memory, sizes)?, memory))
}

/// Maps a region that the other process made. It must be as long as was agreed, and stay so.
pub fn open(memory: &OwnedFd, sizes: Sizes) -> io::Result<Region> {
    let seals = rustix::fs::fcntl_get_seals(memory)?;
    let len_bytes = rustix::fs::fstat(memory)?.st_size;
    if !seals.contains(SealFlags::SHRINK) || len_bytes != Region::bytes_for(sizes) as i64 {
        return Err(io::Error::other(format!("the node's memory is not as agreed: {len_bytes} bytes")));
    }
    map(memory, sizes)
}

fn map(memory: impl AsFd, sizes: Sizes) -> io::Result<Region> {
    let (len_bytes, access) = (Region::bytes_for(sizes), ProtFlags::READ | ProtFlags::WRITE);
    // No page fault is to meet the path of a submit.
    let flags = MapFlags::SHARED | MapFlags::POPULATE;
    // SAFETY: a new mapping at a place of the kernel's choosing touches no memory that is in use.
    let base = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len_bytes, access, flags, memory, 0) }?;
    let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
    // SAFETY: mapped just now with this length and to a page, sealed against shrinking, and `unmap` undoes it.
    Ok(unsafe { Region::over(base, sizes, unmap) })
}

/// # Safety
/// `base` was mapped with this length and is used by nobody any more.
unsafe fn unmap(base: NonNull<u8>, len_bytes: usize) {
    // SAFETY: by this function's own contract. There is nothing to be done about an error.
    let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len_bytes) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{EngineEnd, LaneEnd};
    use super::*;
    use crate::limits::RING_BYTES_MIN;

    #[test]
    fn two_mappings_are_one_ring_and_nobody_shrinks_it() {
        let sizes = Sizes { submit_bytes: RING_BYTES_MIN, completion_bytes: RING_BYTES_MIN };
        let (here, memory) = create(sizes).unwrap();
        assert!(rustix::fs::ftruncate(&memory, 4096).is_err());
        let there = open(&memory, sizes).unwrap();
        assert!(open(&memory, Sizes { submit_bytes: 2 * RING_BYTES_MIN, ..sizes }).is_err());
        drop(memory);
        let (mut lane, mut engine) = (LaneEnd::of(here), EngineEnd::of(there));
        let mut reserved = engine.submits.reserve(5).unwrap();
        reserved.bytes().copy_from_slice(b"hello");
        reserved.publish();
        drop(engine);
        assert_eq!(lane.submits.peek().unwrap().unwrap(), b"hello", "it outlives who wrote it");
        lane.submits.advance();
    }
}
