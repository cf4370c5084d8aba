//! What an operator may know of a log.

use super::Log;
use crate::io::Disk;

/// How a log stands, and what it has written since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Writes that were started.
    pub writes: u64,
    /// Their bytes, whole blocks.
    pub written_bytes: u64,
    /// Writes that are under way, at most [`crate::limits::WRITES_IN_FLIGHT_MAX`] by the log's own choice and a few
    /// more where votes do not wait.
    pub writes_in_flight: usize,
    /// Segments that are ready to be written, those that are full among them.
    pub segments: u64,
    /// Where the next write begins, counted from the log's beginning.
    pub end_bytes: u64,
    /// What the log may have at most.
    pub capacity_bytes: u64,
    /// The filesystem has no room for the next segment.
    pub no_space: bool,
    /// Chunks of memory that the lane has reserved, of [`crate::limits::CHUNK_BYTES`].
    pub chunks: usize,
    /// Of those, how many nobody holds.
    pub chunks_free: usize,
}

impl<D: Disk> Log<D> {
    /// How it stands. Looks at every chunk of the pool, so it is not for every turn.
    pub fn figures(&self) -> Figures {
        let stream = &self.stream;
        Figures {
            writes: stream.writes,
            written_bytes: stream.written_bytes,
            writes_in_flight: self.flight.len(),
            segments: stream.segments(),
            end_bytes: stream.end_bytes(),
            capacity_bytes: stream.total_bytes(),
            no_space: stream.no_space.is_some(),
            chunks: self.pool.chunks(),
            chunks_free: self.pool.available(),
        }
    }
}
