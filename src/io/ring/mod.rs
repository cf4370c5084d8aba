//! The way between a thread of a transaction engine and a lane on the same host: two rings in memory that both share,
//! submits one way and completions the other. No system call is made to submit or to take a completion.
//!
//! Each ring has one producer and one consumer. Records have any length up to half the ring, lie at multiples of a
//! cache line, and never wrap: what is left before the end is filled with a padding record.
//!
//! ```text
//! 0 length    u32  of the bytes behind this header; the highest bit: padding; 0 with the rest: nothing here yet
//! 4 place     u32  the record's position in lines, its lower 32 bits: what was not written for here is not believed
//! 8 bytes
//! ```
//! A record is published with its header, stored last and with release ordering, and that is what the consumer polls:
//! data and signal of a short record travel in one cache line, as in Aeron's one-to-one ring buffer, and no shared
//! index goes to and fro. Before that the header that comes next must be clear, which may still hold bytes of an
//! earlier round: the producer clears some lines ahead, when a record is published and nobody waits for it, so that the
//! stores of the next one find their lines in this core's cache and not behind a miss. How far the consumer has come
//! stands in a line of its own, which the producer reads only when what it knew of it says that the ring is full.
//!
//! The other end may be another process, and write anything at any time. Every word that comes from there is read once
//! and checked before it is used; what cannot be ends the attachment with [`Corrupt`], and reaches nothing outside the
//! ring. What the rings do not promise is that a record's bytes stay as they are while they are looked at: they are
//! copied once, and what is summed is the copy. An engine that goes on writing to what it has published is told
//! `Invalid`.
//!
//! [`LaneEnd`] and [`EngineEnd`] are the two rings as either side sees them, with the words by which one wakes the
//! other ([`bell`]). `port` is a lane's side over all its rings; `shared` has them in memory that two processes map.
#![allow(unsafe_code, reason = "who may touch a ring's bytes is decided here: see memory.rs")]

pub mod bell;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
#[cfg(feature = "node")]
pub mod port;
#[cfg(feature = "node")]
pub mod shared;
#[cfg(all(test, not(loom)))]
mod tests;

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;

pub use self::memory::Region;
use self::memory::{Lines, Which};
use crate::limits::{RING_BYTES_MAX, RING_BYTES_MIN};

/// Records begin at multiples of this.
pub(crate) const LINE_BYTES: usize = 64;

/// The bytes of a record's header.
pub const HEADER_BYTES: usize = 8;

/// So many lines beyond what was published have a clear header, where the consumer has taken what was in them.
const LINES_AHEAD: u64 = 4;

/// Set in a header's length: nothing is here, go on at the ring's start.
const PADDING: u32 = 1 << 31;

/// The sizes of an attachment's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The submit ring's.
    pub submit_bytes: usize,
    /// The completion ring's. What a read is answered must fit half of it.
    pub completion_bytes: usize,
}

impl Sizes {
    /// Whether both are powers of two from [`RING_BYTES_MIN`] to [`RING_BYTES_MAX`].
    pub fn are_sound(self) -> bool {
        [self.submit_bytes, self.completion_bytes]
            .iter()
            .all(|bytes| bytes.is_power_of_two() && (RING_BYTES_MIN..=RING_BYTES_MAX).contains(bytes))
    }
}

impl Default for Sizes {
    /// Rings that take the longest entry and the longest answer.
    fn default() -> Sizes {
        Sizes { submit_bytes: 4 << 20, completion_bytes: 4 << 20 }
    }
}

/// Why a producer has no room to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// None at this moment: the consumer is behind.
    Full,
    /// Longer than [`Producer::len_max`], or empty.
    Length,
    /// The consumer's word makes no sense.
    Corrupt(Corrupt),
}

/// The other end has written what cannot be; nothing more of it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupt {
    /// A header whose length leads out of the ring, or that was written for another place.
    Header(u64),
    /// A consumer that says that it has taken what was never published.
    Taken(u64),
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Corrupt::Header(word) => write!(f, "the ring holds a header that cannot be: {word:#018x}"),
            Corrupt::Taken(taken) => write!(f, "the ring's other end says that it took all up to {taken}"),
        }
    }
}

impl core::error::Error for Corrupt {}

/// The end of a ring that writes. Positions count bytes from the ring's beginning and never wrap.
#[derive(Debug)]
pub struct Producer {
    lines: Lines,
    position: u64,
    /// How far the consumer was known to have come.
    taken: u64,
    /// From the position up to here every line begins with a clear header.
    cleared: u64,
    /// Up to here the room of a record that is not published may have been written.
    written: u64,
}

/// Room for one record. Dropped without [`Reserved::publish`] it was never there.
#[derive(Debug)]
pub struct Reserved<'a> {
    producer: &'a mut Producer,
    len_bytes: usize,
}

/// The end of a ring that reads.
#[derive(Debug)]
pub struct Consumer {
    lines: Lines,
    position: u64,
    /// The bytes of the record that was looked at, header and all; 0: none.
    looked_at: u64,
}

fn span_of(len_bytes: usize) -> u64 {
    (HEADER_BYTES + len_bytes).next_multiple_of(LINE_BYTES) as u64
}

/// What a header at `position` says that `len` (with [`PADDING`] or without) bytes are behind it.
fn word(position: u64, len: u32) -> u64 {
    u64::from((position / LINE_BYTES as u64) as u32) << 32 | u64::from(len)
}

impl Producer {
    fn new(lines: Lines) -> Producer {
        // New memory is zero, and so clear.
        let cleared = LINES_AHEAD * LINE_BYTES as u64;
        Producer { lines, position: 0, taken: 0, cleared, written: 0 }
    }

    /// The longest record.
    pub fn len_max(&self) -> usize {
        self.lines.len_bytes() / 2 - HEADER_BYTES
    }

    /// Room for a record of so many bytes.
    #[inline]
    pub fn reserve(&mut self, len_bytes: usize) -> Result<Reserved<'_>, Refused> {
        if !(1..=self.len_max()).contains(&len_bytes) {
            return Err(Refused::Length);
        }
        let (span, rest) = (span_of(len_bytes), self.rest());
        let padding = if span <= rest { 0 } else { rest };
        // A line more than the record: its header is cleared before the record is published.
        let end = self.position + padding + span + LINE_BYTES as u64;
        let capacity = self.lines.len_bytes() as u64;
        if end > self.taken + capacity {
            self.look().map_err(Refused::Corrupt)?;
            if end > self.taken + capacity {
                return Err(Refused::Full);
            }
        }
        if padding > 0 {
            self.publish(padding, PADDING | (padding as u32 - HEADER_BYTES as u32));
        }
        Ok(Reserved { producer: self, len_bytes })
    }

    /// The bytes from here to the ring's end.
    fn rest(&self) -> u64 {
        (self.lines.len_bytes() - self.at()) as u64
    }

    fn at(&self) -> usize {
        offset(&self.lines, self.position)
    }

    /// Looks how far the consumer has come.
    #[cold]
    fn look(&mut self) -> Result<(), Corrupt> {
        let taken = self.lines.taken().load(Ordering::Acquire);
        let is_possible = (self.taken..=self.position).contains(&taken);
        if !is_possible || !taken.is_multiple_of(LINE_BYTES as u64) {
            return Err(Corrupt::Taken(taken));
        }
        self.taken = taken;
        Ok(())
    }

    #[inline]
    fn publish(&mut self, span: u64, len: u32) {
        let next = self.position + span;
        // Beyond a longer record that was given up, bytes of it lie where headers are expected.
        if self.cleared <= next || self.written > next {
            self.cleared = next;
            self.clear_line();
        }
        self.lines.header(self.at()).store(word(self.position, len), Ordering::Release);
        (self.position, self.written) = (next, next);
        self.clear_ahead();
    }

    /// Clears lines for the records to come, as far as they are known to be taken.
    #[inline]
    fn clear_ahead(&mut self) {
        let free = self.taken + self.lines.len_bytes() as u64;
        let until = free.min(self.position + LINES_AHEAD * LINE_BYTES as u64);
        while self.cleared < until {
            self.clear_line();
        }
    }

    #[inline]
    fn clear_line(&mut self) {
        self.lines.header(offset(&self.lines, self.cleared)).store(0, Ordering::Relaxed);
        self.cleared += LINE_BYTES as u64;
    }

    /// The room of a record that is reserved.
    #[inline]
    fn room(&mut self, len_bytes: usize) -> &mut [u8] {
        self.written = self.written.max(self.position + span_of(len_bytes));
        let at = self.at();
        // SAFETY: this is the one producer, the record is not published, and `reserve` has seen that the consumer has
        // taken what was here.
        unsafe { self.lines.room(at, len_bytes) }
    }
}

fn offset(lines: &Lines, position: u64) -> usize {
    (position & (lines.len_bytes() as u64 - 1)) as usize
}

impl<'a> Reserved<'a> {
    /// The room, for as long as the producer is borrowed for it. Reserve the same length again to publish it.
    #[inline]
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.producer.room(self.len_bytes)
    }

    /// The room, with whatever was there before.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.producer.room(self.len_bytes)
    }

    /// Gives the record to the consumer.
    #[inline]
    pub fn publish(self) {
        self.producer.publish(span_of(self.len_bytes), self.len_bytes as u32);
    }
}

impl Consumer {
    fn new(lines: Lines) -> Consumer {
        Consumer { lines, position: 0, looked_at: 0 }
    }

    /// The oldest record that was not taken, in place. Looked at again, it is still there.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<&[u8]>, Corrupt> {
        loop {
            let at = offset(&self.lines, self.position);
            let found = self.lines.header(at).load(Ordering::Acquire);
            if found as u32 == 0 {
                return Ok(None);
            }
            let len = found as u32 & !PADDING;
            let (span, rest) = (span_of(len as usize), (self.lines.len_bytes() - at) as u64);
            if found != word(self.position, found as u32) || len == 0 || span > rest {
                return Err(Corrupt::Header(found));
            }
            self.looked_at = span;
            if found as u32 & PADDING == 0 {
                // SAFETY: this is the one consumer, it has seen the header with acquire ordering, and `advance`, which
                // says that the record is taken, cannot be called while the bytes are borrowed.
                return Ok(Some(unsafe { self.lines.bytes(at, len as usize) }));
            }
            // Padding ends where the ring ends, and is never all of it.
            if span != rest || at == 0 {
                return Err(Corrupt::Header(found));
            }
            self.advance();
        }
    }

    /// Whether something lies there that was not taken, sound or not.
    pub fn has_something(&self) -> bool {
        self.lines.header(offset(&self.lines, self.position)).load(Ordering::Acquire) as u32 != 0
    }

    /// The record that was looked at is taken: its room is the producer's again.
    #[inline]
    pub fn advance(&mut self) {
        self.position += core::mem::take(&mut self.looked_at);
        self.lines.taken().store(self.position, Ordering::Release);
    }
}

/// A lane's side of an attachment.
#[derive(Debug)]
pub struct LaneEnd {
    /// What the engine submits.
    pub submits: Consumer,
    /// What it is answered.
    pub completions: Producer,
    region: Arc<Region>,
}

/// An engine's side of an attachment. One thread uses it at a time.
#[derive(Debug)]
pub struct EngineEnd {
    /// What is submitted.
    pub submits: Producer,
    /// What the lane answers.
    pub completions: Consumer,
    region: Arc<Region>,
}

/// Both ends of a region within one process.
pub fn pair(region: Region) -> (EngineEnd, LaneEnd) {
    let region = Arc::new(region);
    (EngineEnd::new(Arc::clone(&region)), LaneEnd::new(region))
}

impl LaneEnd {
    /// The lane's end of a region whose other end is in another process.
    pub fn of(region: Region) -> LaneEnd {
        LaneEnd::new(Arc::new(region))
    }

    fn new(region: Arc<Region>) -> LaneEnd {
        LaneEnd {
            submits: Consumer::new(Lines::new(Arc::clone(&region), Which::Submits)),
            completions: Producer::new(Lines::new(Arc::clone(&region), Which::Completions)),
            region,
        }
    }
}

impl EngineEnd {
    /// The engine's end of a region whose other end is in another process.
    pub fn of(region: Region) -> EngineEnd {
        EngineEnd::new(Arc::new(region))
    }

    fn new(region: Arc<Region>) -> EngineEnd {
        EngineEnd {
            submits: Producer::new(Lines::new(Arc::clone(&region), Which::Submits)),
            completions: Consumer::new(Lines::new(Arc::clone(&region), Which::Completions)),
            region,
        }
    }
}
