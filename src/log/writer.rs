//! Laying records into batches and starting their writes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::batch::{self, BLOCK_BYTES_MIN, HEADER_BYTES};
use super::flight::{Mark, clip};
use super::record::{self, Kind};
use super::recovery::Recovered;
use super::shards::Place;
use super::stretch::Extent;
use super::{Health, Identity, Log, NewEntry, NoRoom, Options};
use crate::io::{Disk, DiskError, Full, SegmentId, Write};
use crate::limits::{
    BATCH_BYTES_MAX, BLOCK_BYTES_MAX, CHUNK_BYTES, ENTRY_PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES,
    WRITES_IN_FLIGHT_MAX,
};
use crate::types::{Index, ShardId, Vote, WriteSequence};

/// Kept free at a segment's end until the next one exists, for votes and no-ops: a full log still elects.
const SEGMENT_RESERVE_BYTES: u64 = 512 << 10;

/// Kept free at a chunk's end, for votes and no-ops while all other chunks are held by writes.
const CHUNK_RESERVE_BYTES: usize = 2 * WRITES_IN_FLIGHT_MAX * BLOCK_BYTES_MAX;

/// The part of a log that leaders do not fill: one in so many.
const LEADER_RESERVE: u64 = 8;

/// Where batches go: the disk's segments and the chain.
#[derive(Debug)]
pub(super) struct Stream {
    identity: Identity,
    block: usize,
    segment_bytes: u64,
    segments_max: u64,
    segments_ahead: u64,
    /// Segments that exist, beyond those counted by `ready`.
    existing: BTreeSet<u64>,
    /// All segments before this one exist.
    ready: u64,
    /// A segment is being made.
    preparing: bool,
    /// It found no room; the disk tries on.
    pub(super) no_space: Option<DiskError>,
    /// Where the next batch begins, if it fits there.
    pub(super) next: Place,
    /// The last batch's.
    sequence: u64,
    previous_crc: u32,
    life: u32,
    /// Everything up to this sequence is durable.
    pub(super) durable: u64,
    /// Since it was opened: how many writes were started, and their bytes.
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
}

/// A batch that is being filled.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) place: Place,
    sequence: u64,
    /// Header and records so far.
    len_bytes: usize,
    digest: u32,
    marks: Vec<Mark>,
}

/// Who asks for room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    /// What may be refused.
    Ordinary,
    /// Votes and no-ops: they may use what is kept back, and do not wait for writes in flight.
    Reserve,
}

impl Right {
    /// That of records off the wire: of one no-op alone. Marks are as short, and come as often as their engine likes.
    fn of_received(records: &[u8]) -> Right {
        if records.len() != RECORD_HEADER_BYTES {
            return Right::Ordinary;
        }
        let header: record::Header = bytemuck::pod_read_unaligned(records);
        if header.kind() == Some(Kind::Noop) { Right::Reserve } else { Right::Ordinary }
    }
}

/// The payload of an entry that is to be laid, in its place in the open batch. See [`Log::draft`].
#[derive(Debug)]
#[must_use]
pub struct Draft {
    /// None where the log has failed.
    place: Option<Place>,
    len_bytes: usize,
}

/// A payload whose checksum is not the one that was given with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongSum;

/// Where records would lie.
#[derive(Clone, Copy)]
enum Fit {
    /// At the end of the open batch.
    Open,
    /// In a batch that begins there; in a new chunk or in this one.
    Fresh { place: Place, take_chunk: bool },
}

impl Stream {
    pub(super) fn new(
        disk: &impl Disk,
        options: &Options,
        recovered: &Recovered,
        existing: BTreeSet<u64>,
    ) -> Stream {
        let next = Place {
            segment: u32::try_from(recovered.next.segment).expect("a batch tells its segment in 32 bits"),
            offset: u32::try_from(recovered.next.offset).expect("offsets in a segment fit 32 bits"),
        };
        let mut stream = Stream {
            identity: options.identity(),
            block: disk.block_bytes(),
            segment_bytes: disk.segment_bytes(),
            segments_max: options.segments_max.min(u64::from(u32::MAX)),
            segments_ahead: options.segments_ahead.max(1),
            existing,
            ready: 0,
            preparing: false,
            no_space: None,
            next: Place { offset: next.offset.next_multiple_of(disk.block_bytes() as u32), ..next },
            sequence: recovered.sequence,
            previous_crc: recovered.previous_crc,
            life: recovered.life,
            durable: recovered.sequence,
            writes: 0,
            written_bytes: 0,
        };
        stream.count_ready();
        stream
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    fn count_ready(&mut self) {
        while self.existing.remove(&self.ready) {
            self.ready += 1;
        }
    }

    /// Whether the segment exists in which the next batch begins.
    pub(super) fn has_segment(&self) -> bool {
        self.ready > u64::from(self.next.segment)
    }

    /// Has the next segment made, if there should be more than there are. One at a time, in order.
    pub(super) fn prepare(&mut self, disk: &mut impl Disk) {
        let wanted = (u64::from(self.next.segment) + 1 + self.segments_ahead).min(self.segments_max);
        if !self.preparing && (self.ready < wanted || !self.has_segment()) {
            self.preparing = true;
            disk.prepare(SegmentId(self.ready));
        }
    }

    pub(super) fn prepared(&mut self, segment: SegmentId, disk: &mut impl Disk) {
        assert!(self.preparing && segment.0 == self.ready, "a disk makes the segments that it was asked for");
        self.preparing = false;
        self.no_space = None;
        self.existing.insert(segment.0);
        self.count_ready();
        self.prepare(disk);
    }

    /// The segment found no room. It is still being made: the disk tries on.
    pub(super) fn not_prepared(&mut self, segment: SegmentId, error: DiskError) {
        assert!(
            self.preparing && segment.0 == self.ready,
            "a disk speaks of the segment that it was asked for"
        );
        self.no_space = Some(error);
    }

    /// How many bytes a batch may have at `place`, in a chunk with so many bytes to spare.
    fn capacity(&self, place: Place, spare_bytes: usize, right: Right) -> usize {
        let reserved = right == Right::Ordinary;
        let mut segment = self.segment_bytes - u64::from(place.offset);
        if reserved && self.ready <= u64::from(place.segment) + 1 {
            segment = segment.saturating_sub(self.reserve_bytes());
        }
        let chunk = if reserved { spare_bytes.saturating_sub(CHUNK_RESERVE_BYTES) } else { spare_bytes };
        (segment as usize).min(chunk).min(BATCH_BYTES_MAX)
    }

    /// What the log may have at most.
    pub(super) fn total_bytes(&self) -> u64 {
        self.segments_max.saturating_mul(self.segment_bytes)
    }

    /// Segments that exist, without gaps.
    pub(super) fn segments(&self) -> u64 {
        self.ready
    }

    /// What lies before the next batch.
    pub(super) fn end_bytes(&self) -> u64 {
        u64::from(self.next.segment) * self.segment_bytes + u64::from(self.next.offset)
    }

    /// What is left behind the last batch of a log of so many segments.
    fn left_bytes(&self, segments: u64) -> u64 {
        let segments = segments.saturating_sub(u64::from(self.next.segment));
        segments.saturating_mul(self.segment_bytes).saturating_sub(u64::from(self.next.offset))
    }

    /// Whether what is left behind `laid_bytes` more is kept from leaders. Without room for the next segment the log is
    /// as large as it is, and what is kept for votes at its end is not in the part that leaders leave to followers.
    fn is_full_for_leaders(&self, laid_bytes: u64) -> bool {
        let left = |segments| self.left_bytes(segments).saturating_sub(laid_bytes);
        let ready_bytes = self.ready.saturating_mul(self.segment_bytes);
        left(self.segments_max) < self.total_bytes() / LEADER_RESERVE
            || self.no_space.is_some()
                && left(self.ready) < ready_bytes / LEADER_RESERVE + self.reserve_bytes()
    }

    /// Whether `laid_bytes` more would go into what leaders leave if it turned out that there is no room for the next
    /// segment, which is being made. A fast leader must not be through its last segment before it is told. Half a
    /// segment is the most that is waited for: one made ahead in time is never waited for at all. Where none is being
    /// made, there is nothing to wait for.
    fn may_be_full_for_leaders(&self, laid_bytes: u64) -> bool {
        let kept = self.ready.saturating_mul(self.segment_bytes) / LEADER_RESERVE + self.reserve_bytes();
        self.preparing
            && self.left_bytes(self.ready).saturating_sub(laid_bytes)
                < kept.min(self.segment_bytes / 2 + self.reserve_bytes())
    }

    /// What is kept free at a segment's end until the next one exists.
    fn reserve_bytes(&self) -> u64 {
        SEGMENT_RESERVE_BYTES.min(self.segment_bytes / 8)
    }

    /// Why there is no room behind `segment`.
    fn no_segment_after(&self, segment: u32) -> NoRoom {
        let is_last = u64::from(segment) + 1 >= self.segments_max;
        if is_last || self.no_space.is_some() { NoRoom::Full } else { NoRoom::Busy }
    }
}

impl<D: Disk> Log<D> {
    /// Whether a leader can lay a new entry with such a payload at this moment. Room for votes is kept back, and an
    /// eighth of the log: a follower lays the same records in batches of its own, which may take more blocks, and must
    /// not be full before its leader is. The same holds of what there is while the filesystem has no room for more.
    pub fn room_for(&self, payload_bytes: usize) -> Result<(), NoRoom> {
        let span_bytes = record::span_bytes(payload_bytes);
        // The open batch counts: it may be as long as all that followers are left.
        let open_bytes = self.open.as_ref().map_or(HEADER_BYTES, |open| open.len_bytes);
        let laid_bytes = (open_bytes + span_bytes) as u64;
        if self.stream.is_full_for_leaders(laid_bytes) {
            return Err(NoRoom::Full);
        }
        if self.stream.may_be_full_for_leaders(laid_bytes) {
            return Err(NoRoom::Busy);
        }
        self.fit(span_bytes, Right::Ordinary).map(drop)
    }

    /// Whether these records, already checked, can be laid as they came. A lone no-op may use the room that is kept
    /// back: it must commit for a leader of a full log to serve at all.
    pub fn room_for_received(&self, records: &[u8]) -> Result<(), NoRoom> {
        self.fit(records.len(), Right::of_received(records)).map(drop)
    }

    /// Whether a vote or a no-op can be laid at this moment: what is kept back for them counts.
    pub fn room_for_vote(&self) -> Result<(), NoRoom> {
        self.fit(RECORD_HEADER_BYTES, Right::Reserve).map(drop)
    }

    /// Lays a new entry. The caller has asked for room. The entry follows the shard's last. A no-op needs no asking: it
    /// may use the room that is kept back for votes.
    ///
    /// # Panics
    /// If the entry does not follow the shard's last, or there is no room for data.
    pub fn lay(&mut self, entry: NewEntry, payload: &[u8]) {
        let right = if entry.kind == Kind::Noop { Right::Reserve } else { Right::Ordinary };
        let draft = self.copy(payload, right);
        self.lay_draft(draft, entry);
    }

    /// Copies the payload of a new entry to where it is to lie, and sums the copy: whoever can still write to where it
    /// came from, what is laid is what was summed. The caller has asked for room, and next either lays the draft or
    /// withdraws it.
    ///
    /// # Errors
    /// When the sum is another one. Nothing is left of it.
    ///
    /// # Panics
    /// If there is no room.
    pub fn draft(&mut self, payload: &[u8], payload_crc: u32) -> Result<Draft, WrongSum> {
        let draft = self.copy(payload, Right::Ordinary);
        if let Some(place) = draft.place {
            let copy = record::payload_of(self.room(place, record::span_bytes(payload.len())), payload.len());
            if record::payload_crc(copy) != payload_crc {
                self.withdraw(draft);
                return Err(WrongSum);
            }
        }
        Ok(draft)
    }

    fn copy(&mut self, payload: &[u8], right: Right) -> Draft {
        let len_bytes = payload.len();
        assert!(len_bytes <= ENTRY_PAYLOAD_BYTES_MAX, "an entry of {len_bytes} bytes");
        let span_bytes = record::span_bytes(len_bytes);
        let place = self.reserve(span_bytes, right, "an entry");
        if let Some(place) = place {
            record::payload_of(self.room(place, span_bytes), len_bytes).copy_from_slice(payload);
        }
        Draft { place, len_bytes }
    }

    /// Lays what was drafted, as this entry, which follows the shard's last.
    ///
    /// # Panics
    /// If it does not, or something was laid since it was drafted.
    pub fn lay_draft(&mut self, draft: Draft, entry: NewEntry) {
        assert!(entry.kind != Kind::Vote, "votes are laid by lay_vote");
        let Draft { place: Some(place), len_bytes } = draft else { return };
        let span_bytes = record::span_bytes(len_bytes);
        self.check_draft(place, span_bytes);
        let header = record::Header {
            header_crc: 0,
            payload_crc: entry.payload_crc,
            len_bytes: len_bytes as u32,
            shard: entry.shard.0,
            term: entry.id.term.0,
            index: entry.id.index.0,
            timestamp: entry.timestamp.0,
            session: entry.session,
            serial: entry.serial,
            epoch: entry.epoch.0,
            kind: entry.kind as u8,
            flags: entry.flags,
            reserved: 0,
        };
        record::seal(header, self.room(place, span_bytes));
        let shard = self.shards.of(entry.shard);
        self.shards.append(shard, entry.id, place, span_bytes as u32);
        self.laid(place);
        self.mark(shard).last = Some(entry.id);
    }

    /// Nothing is laid of what was drafted.
    pub fn withdraw(&mut self, draft: Draft) {
        let Draft { place: Some(place), len_bytes } = draft else { return };
        let span_bytes = record::span_bytes(len_bytes);
        self.check_draft(place, span_bytes);
        let open = self.open.as_mut().expect("a draft lies in an open batch");
        open.len_bytes -= span_bytes;
        // A batch that was begun for it is none.
        if open.len_bytes == HEADER_BYTES {
            self.open = None;
        }
    }

    fn check_draft(&self, place: Place, span_bytes: usize) {
        let end = self.open.as_ref().map(|open| open.place.plus(open.len_bytes));
        assert!(end == Some(place.plus(span_bytes)), "a draft is the last thing in the open batch");
    }

    /// Lays records as a leader sent them, already checked. They follow the shard's last entry.
    ///
    /// # Panics
    /// If they do not, or are not whole entries of that shard, or there is no room.
    pub fn lay_received(&mut self, shard: ShardId, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        let right = Right::of_received(records);
        let Some(begin) = self.reserve(records.len(), right, "entries") else { return };
        self.room(begin, records.len()).copy_from_slice(records);
        let position = self.shards.of(shard);
        let mut at = 0;
        while at < records.len() {
            let header: record::Header = bytemuck::pod_read_unaligned(&records[at..at + RECORD_HEADER_BYTES]);
            assert!(header.shard == shard.0 && header.index > 0, "an append was checked before it is laid");
            let span_bytes = record::span_bytes(header.len_bytes as usize);
            assert!(at + span_bytes <= records.len(), "an append carries whole records");
            let place = begin.plus(at);
            self.shards.append(position, header.id(), place, span_bytes as u32);
            self.laid(place);
            at += span_bytes;
        }
        let last = self.shards.logs[position].last;
        self.mark(position).last = Some(last);
    }

    /// Lays a vote. Uses the room that is kept back; where even that is gone, the log fails.
    pub fn lay_vote(&mut self, shard: ShardId, vote: Vote) {
        let Some(place) = self.reserve(RECORD_HEADER_BYTES, Right::Reserve, "a vote") else { return };
        record::lay(record::Header::vote(shard, vote), &[], self.room(place, RECORD_HEADER_BYTES));
        self.laid(place);
        let position = self.shards.of(shard);
        self.shards.logs[position].vote = vote;
        self.mark(position).vote = Some(vote);
    }

    /// Drops the shard's entries after `last`, logically: later records supersede. What is in flight of them will not
    /// be told durable. Until a later record lies in the log, a crash brings them back.
    pub fn truncate_after(&mut self, shard: ShardId, last: Index) {
        let position = self.shards.of(shard);
        let log = &mut self.shards.logs[position];
        log.truncate_after(last);
        let last = log.last;
        self.flight.clip(position, last);
        if let Some(open) = &mut self.open {
            clip(&mut open.marks, position, last);
        }
    }

    /// Seals what was laid since the last time and starts its write. With as many writes in flight as may be, that is
    /// put off until one is done; what is laid until then goes along.
    pub fn submit(&mut self) {
        if self.open.is_none() || !matches!(self.health, Health::Good) {
            return;
        }
        self.overdue = self.flight.len() >= WRITES_IN_FLIGHT_MAX;
        if !self.overdue {
            self.seal();
        }
    }

    /// Finds room and opens a batch there if need be: where the bytes are to be laid. `None`: the log has failed.
    fn reserve(&mut self, bytes: usize, right: Right, what: &str) -> Option<Place> {
        if !matches!(self.health, Health::Good) {
            return None;
        }
        match self.fit(bytes, right) {
            Ok(Fit::Open) => {}
            Ok(Fit::Fresh { place, take_chunk }) => {
                self.seal();
                self.begin(place, take_chunk);
            }
            Err(no_room) => {
                assert!(right == Right::Reserve, "who lays {what} has asked for room: {no_room:?}");
                self.fail_for_room(no_room, what);
                return None;
            }
        }
        let open = self.open.as_mut().expect("a batch is open");
        let place = open.place.plus(open.len_bytes);
        open.len_bytes += bytes;
        Some(place)
    }

    /// Where so many bytes of records would lie.
    fn fit(&self, bytes: usize, right: Right) -> Result<Fit, NoRoom> {
        if !matches!(self.health, Health::Good) {
            return Err(NoRoom::Busy);
        }
        let stream = &self.stream;
        let mut spare_bytes = self.chunk.as_ref().map_or(0, |chunk| chunk.spare().len());
        let mut next = stream.next;
        if let Some(open) = &self.open {
            let grown = (open.len_bytes + bytes).next_multiple_of(stream.block);
            if grown <= stream.capacity(open.place, spare_bytes, right) {
                return Ok(Fit::Open);
            }
            let span_bytes = open.len_bytes.next_multiple_of(stream.block);
            next = open.place.plus(span_bytes);
            spare_bytes -= span_bytes.next_multiple_of(BLOCK_BYTES_MAX);
        }
        let wanted = (HEADER_BYTES + bytes).next_multiple_of(stream.block);
        assert!(wanted <= BATCH_BYTES_MAX, "{bytes} bytes of records fit no batch");
        if wanted > stream.capacity(next, CHUNK_BYTES, right) {
            if stream.ready <= u64::from(next.segment) + 1 {
                return Err(stream.no_segment_after(next.segment));
            }
            next = Place { segment: next.segment + 1, offset: 0 };
            if wanted > stream.capacity(next, CHUNK_BYTES, right) {
                return Err(stream.no_segment_after(next.segment));
            }
        }
        if self.open.is_some() && right == Right::Ordinary && self.flight.len() >= WRITES_IN_FLIGHT_MAX {
            return Err(NoRoom::Busy);
        }
        let take_chunk = wanted > stream.capacity(next, spare_bytes, right);
        if take_chunk && self.spare.is_none() && self.pool.available() == 0 {
            return Err(NoRoom::Busy);
        }
        Ok(Fit::Fresh { place: next, take_chunk })
    }

    /// Opens a batch at `place`.
    fn begin(&mut self, place: Place, take_chunk: bool) {
        assert!(self.open.is_none() && place >= self.stream.next, "batches follow one another");
        if take_chunk {
            let chunk = self.spare.take().or_else(|| self.pool.take());
            self.chunk = Some(chunk.expect("only this lane takes from its pool"));
        }
        if place.segment > self.stream.next.segment {
            self.stream.next = place;
            self.stream.prepare(&mut self.disk);
        }
        let sequence = self.stream.sequence + 1;
        let marks = self.flight.list();
        self.open = Some(OpenBatch { place, sequence, len_bytes: HEADER_BYTES, digest: 0, marks });
    }

    /// Completes the open batch, if there is one, and starts its write.
    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.overdue = false;
        let stream = &mut self.stream;
        let span_bytes = open.len_bytes.next_multiple_of(stream.block);
        let header = batch::Header {
            header_crc: 0,
            magic: batch::MAGIC,
            version: batch::VERSION,
            block_shift: stream.block.trailing_zeros() as u8,
            lane: stream.identity.lane,
            node: stream.identity.node,
            cluster: stream.identity.cluster,
            sequence: open.sequence,
            durable: stream.durable,
            previous_crc: stream.previous_crc,
            records_crc: open.digest,
            len_bytes: (open.len_bytes - HEADER_BYTES) as u32,
            offset: open.place.offset,
            segment: open.place.segment,
            life: stream.life,
        }
        .seal();
        let chunk = self.chunk.as_mut().expect("an open batch lies in a chunk");
        let room = &mut chunk.spare_mut()[..span_bytes];
        room[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
        room[open.len_bytes..].fill(0);
        let bytes = chunk.freeze(span_bytes.next_multiple_of(BLOCK_BYTES_MAX)).slice(0..span_bytes);
        stream.sequence = open.sequence;
        stream.previous_crc = header.header_crc;
        stream.next = open.place.plus(span_bytes);
        stream.writes += 1;
        stream.written_bytes += span_bytes as u64;
        self.flight.push(open.sequence, open.marks);
        self.tail.push(open.sequence, Extent::of(&header), bytes.clone());
        self.write(Write {
            sequence: WriteSequence(open.sequence),
            segment: SegmentId(u64::from(open.place.segment)),
            offset: u64::from(open.place.offset),
            bytes,
        });
    }

    /// Gives a write to the disk, behind those that it refused.
    fn write(&mut self, write: Write) {
        if !self.refused.is_empty() {
            self.refused.push_back(write);
        } else if let Err(Full(write)) = self.disk.write(write) {
            self.refused.push_back(write);
        }
    }

    /// The open batch's memory at `place`.
    fn room(&mut self, place: Place, len_bytes: usize) -> &mut [u8] {
        let open = self.open.as_ref().expect("a batch is open");
        let at = (place.offset - open.place.offset) as usize;
        let chunk = self.chunk.as_mut().expect("an open batch lies in a chunk");
        &mut chunk.spare_mut()[at..at + len_bytes]
    }

    /// Takes the record at `place` into the batch's digest.
    fn laid(&mut self, place: Place) {
        let crc: u32 = bytemuck::pod_read_unaligned(&self.room(place, size_of::<u32>())[..]);
        let open = self.open.as_mut().expect("a batch is open");
        open.digest = batch::extend_digest(open.digest, crc);
    }

    /// What the open batch holds of this shard.
    fn mark(&mut self, shard: usize) -> &mut Mark {
        let open = self.open.as_mut().expect("a batch is open");
        let known = &mut self.shards.logs[shard].mark;
        if known.0 != open.sequence {
            *known = (open.sequence, open.marks.len() as u32);
            open.marks.push(Mark { shard, last: None, vote: None });
        }
        &mut open.marks[known.1 as usize]
    }
}

const _: () = assert!(BLOCK_BYTES_MIN >= HEADER_BYTES + RECORD_HEADER_BYTES, "a vote fits a block");
const _: () =
    assert!(CHUNK_RESERVE_BYTES + BATCH_BYTES_MAX <= CHUNK_BYTES, "a fresh chunk takes the largest batch");
