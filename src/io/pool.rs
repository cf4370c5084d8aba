//! The buffer pool that log, disk and links share: chunks of memory, filled from the front, frozen piece by piece.
//!
//! A [`Chunk`] is the one writer of its spare room. [`Chunk::freeze`] cuts what was written off as a [`Slice`]: shared,
//! immutable, alive as long as any holder (a write in flight, a peer that lags). When the chunk and all its slices are
//! gone its memory is the pool's again. Nothing is allocated after [`Pool::new`].

use alloc::sync::Arc;

/// The pool of one lane. Cheap to clone; all clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool {}

/// A chunk that is being filled.
#[derive(Debug)]
pub struct Chunk {}

/// Frozen bytes of a chunk.
#[derive(Clone, Debug)]
pub struct Slice {}

impl Pool {
    /// `chunks` chunks of [`crate::limits::CHUNK_BYTES`], zeroed, aligned to [`crate::limits::BLOCK_BYTES_MAX`].
    pub fn new(chunks: usize) -> Pool {
        unimplemented!()
    }
    /// A chunk that nobody holds, all of it spare; `None` when all are in use.
    pub fn take(&self) -> Option<Chunk> {
        unimplemented!()
    }
    /// How many chunks nobody holds.
    pub fn available(&self) -> usize {
        unimplemented!()
    }
}

impl Chunk {
    /// What was not frozen yet. Holds whatever its last user left.
    pub fn spare(&self) -> &[u8] {
        unimplemented!()
    }
    /// The same, to be written.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        unimplemented!()
    }
    /// Cuts the first `len_bytes` of the spare room off.
    pub fn freeze(&mut self, len_bytes: usize) -> Slice {
        unimplemented!()
    }
}

impl core::ops::Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        unimplemented!()
    }
}

impl Slice {
    /// A part of it.
    pub fn slice(&self, range: core::ops::Range<usize>) -> Slice {
        unimplemented!()
    }
}
