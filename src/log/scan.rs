//! Walks a log as it lies on a disk, batch by batch, and says what stands where the next one should be.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::batch::{self, BLOCK_BYTES_MIN, Found, HEADER_BYTES, Header};
use super::recovery::{Evidence, Spot};
use super::{Identity, record};
use crate::io::pool::Chunk;
use crate::io::{Disk, DiskError, SegmentId};

/// How much is read at once where nothing longer is asked for.
const READ_BYTES: u64 = 1 << 20;

/// A position on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// Reads a disk from its beginning through a window of memory.
pub(super) struct Scanner<'d, D> {
    disk: &'d mut D,
    identity: Identity,
    segments: Vec<u64>,
    memory: Chunk,
    /// What the window holds: of which segment, from where, how many bytes.
    window: (u64, u64, usize),
    /// Where the next batch is looked for.
    pub(super) next: Position,
    /// The last good batch's header.
    pub(super) previous: Option<Header>,
    /// The highest life that any header of this log tells.
    pub(super) life_max: u32,
}

/// A good batch.
pub(super) struct Batch<'a> {
    pub(super) header: Header,
    pub(super) records: &'a [u8],
}

/// What [`Scanner::step`] comes to.
pub(super) enum Step<'a> {
    /// The next batch.
    Batch(Batch<'a>),
    /// There is none; where it was looked for, and what was found there and behind it.
    End(Position, Evidence),
}

impl<'d, D: Disk> Scanner<'d, D> {
    pub(super) fn new(
        disk: &'d mut D,
        memory: Chunk,
        identity: Identity,
    ) -> Result<Scanner<'d, D>, DiskError> {
        let segments = disk.segments()?.into_iter().map(|segment| segment.0).collect();
        Ok(Scanner {
            disk,
            identity,
            segments,
            memory,
            window: (0, 0, 0),
            next: Position::default(),
            previous: None,
            life_max: 0,
        })
    }

    /// The next batch, checked to the last byte; or how the log ends.
    pub(super) fn step(&mut self) -> Result<Step<'_>, DiskError> {
        let here = self.next;
        let mut spot = self.look(here)?;
        if !matches!(spot, Spot::Good(_)) && here.offset > 0 {
            for there in self.elsewhere(here) {
                if let found @ Spot::Good(_) = self.look(there)? {
                    (self.next, spot) = (there, found);
                    break;
                }
            }
        }
        let Spot::Good(header) = spot else {
            let beyond = match &spot {
                Spot::Torn { span_bytes, .. } => *span_bytes as u64,
                Spot::Void => 0,
                _ => BLOCK_BYTES_MIN as u64,
            };
            let expected = self.previous.map_or(1, |previous| previous.sequence + 1);
            let behind = Position { offset: here.offset + beyond, ..here };
            let proof = self.find_proof(behind, expected)?;
            return Ok(Step::End(here, Evidence { spot, first: self.previous.is_none(), proof }));
        };
        let begin = self.next.offset;
        self.next.offset += header.span_bytes() as u64;
        self.previous = Some(header);
        self.life_max = self.life_max.max(header.life);
        let segment = u64::from(header.segment);
        let range = HEADER_BYTES..HEADER_BYTES + header.len_bytes as usize;
        let records = &self.bytes(segment, begin, header.span_bytes())?[range];
        Ok(Step::Batch(Batch { header, records }))
    }

    /// Where else the next batch may begin: at a multiple of a larger block, if the log has moved to another device
    /// since; or, if it did not fit the segment's rest, at the beginning of the next one.
    fn elsewhere(&self, here: Position) -> impl Iterator<Item = Position> + use<'d, D> {
        let larger = batch::later_beginnings(here.offset).map(move |offset| Position { offset, ..here });
        larger.chain([Position { segment: here.segment + 1, offset: 0 }])
    }

    /// What stands at `here`, where the next batch may begin.
    fn look(&mut self, here: Position) -> Result<Spot, DiskError> {
        let size = self.disk.segment_bytes();
        if !self.segments.contains(&here.segment) || here.offset + BLOCK_BYTES_MIN as u64 > size {
            return Ok(Spot::Blank);
        }
        let identity = self.identity;
        let block = self.bytes(here.segment, here.offset, BLOCK_BYTES_MIN)?;
        let header = match Header::find(block, &identity, here.segment, here.offset) {
            Found::Blank => return Ok(Spot::Blank),
            Found::Garbage | Found::Misplaced => return Ok(Spot::Garbage),
            Found::Version(version) => return Ok(Spot::Version(version)),
            Found::Foreign(header) => {
                let of = Identity { cluster: header.cluster, node: header.node, lane: header.lane };
                return Ok(Spot::Foreign(of));
            }
            Found::Ours(header) => header,
        };
        self.life_max = self.life_max.max(header.life);
        // Before the first batch comes one with nothing in it.
        if !header.follows(&self.previous.unwrap_or_default()) {
            return Ok(Spot::Void);
        }
        let span_bytes = header.span_bytes();
        if here.offset + span_bytes as u64 > size {
            return Ok(Spot::Garbage);
        }
        let batch = self.bytes(here.segment, here.offset, span_bytes)?;
        match header.check_records(&batch[HEADER_BYTES..HEADER_BYTES + header.len_bytes as usize]) {
            Ok(()) => Ok(Spot::Good(header)),
            Err(why) => Ok(Spot::Torn { span_bytes, why }),
        }
    }

    /// Looks at every block from `from` on for a whole batch that says that the write `expected` was durable.
    fn find_proof(&mut self, from: Position, expected: u64) -> Result<Option<Position>, DiskError> {
        let size = self.disk.segment_bytes();
        let identity = self.identity;
        let behind = |segment: &&u64| **segment >= from.segment;
        let segments = self.segments.iter().filter(behind).copied().collect::<Vec<_>>();
        for segment in segments {
            let mut offset = if segment == from.segment { from.offset } else { 0 };
            while offset + BLOCK_BYTES_MIN as u64 <= size {
                let block = self.bytes(segment, offset, BLOCK_BYTES_MIN)?;
                let Found::Ours(header) = Header::find(block, &identity, segment, offset) else {
                    offset += BLOCK_BYTES_MIN as u64;
                    continue;
                };
                self.life_max = self.life_max.max(header.life);
                let span_bytes = header.span_bytes();
                let whole = offset + span_bytes as u64 <= size && {
                    let batch = self.bytes(segment, offset, span_bytes)?;
                    header
                        .check_records(&batch[HEADER_BYTES..HEADER_BYTES + header.len_bytes as usize])
                        .is_ok()
                };
                if whole && header.sequence > expected && header.durable >= expected {
                    return Ok(Some(Position { segment, offset }));
                }
                offset += if whole { span_bytes } else { BLOCK_BYTES_MIN } as u64;
            }
        }
        Ok(None)
    }

    /// `len_bytes` from `offset` of `segment`, which has them.
    fn bytes(&mut self, segment: u64, offset: u64, len_bytes: usize) -> Result<&[u8], DiskError> {
        let (held, begin, held_bytes) = self.window;
        let end = offset + len_bytes as u64;
        if held != segment || offset < begin || end > begin + held_bytes as u64 {
            let block = self.disk.block_bytes() as u64;
            let size = self.disk.segment_bytes();
            let begin = offset - offset % block;
            let until = end.max(begin + READ_BYTES).min(size).next_multiple_of(block);
            let wanted = (until - begin) as usize;
            self.window = (0, 0, 0);
            let into = &mut self.memory.spare_mut()[..wanted];
            self.disk.read_now(SegmentId(segment), begin, into)?;
            self.window = (segment, begin, wanted);
        }
        let at = (offset - self.window.1) as usize;
        Ok(&self.memory.spare()[at..at + len_bytes])
    }
}

/// A position in words.
pub(super) fn place_of(position: Position) -> String {
    format!("segment {} at byte {}", position.segment, position.offset)
}

/// Why a batch is torn, in words.
pub(super) fn describe(why: record::Malformed) -> String {
    format!("{why}")
}
