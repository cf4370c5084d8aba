//! What is read back from the disk, for followers and clients that lag behind the hot tail.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use super::shards::{Place, ShardLog};
use crate::io::pool::{Pool, Slice};
use crate::io::{Disk, DiskError, Full, Read, SegmentId};
use crate::limits::{CHUNK_BYTES, READS_IN_FLIGHT_MAX};

/// How much is read at once, unless one run is longer.
const FETCH_BYTES: u32 = 1 << 20;

/// A region of the log being read, on behalf of one shard.
#[derive(Debug)]
struct Fetching {
    token: u64,
    shard: usize,
    begin: Place,
    len_bytes: usize,
}

/// A region in memory, in which the runs of one shard were checked.
#[derive(Debug)]
struct Fetched {
    shard: usize,
    /// Where the bytes begin.
    begin: Place,
    /// Where the first checked run begins.
    from: u32,
    /// Where the last checked run ends.
    until: u32,
    bytes: Slice,
    /// The turn in which it came or was last used: what was promised in a turn stays to its end.
    turn: u64,
}

/// Reads under way and what they brought, within a bound of chunks.
#[derive(Debug)]
pub(super) struct Fetches {
    fetching: Vec<Fetching>,
    fetched: VecDeque<Fetched>,
    chunks_max: usize,
    next_token: u64,
    turn: u64,
    /// Someone asked and no read could be started: they are told to ask again.
    refused: bool,
    /// The shard that was refused first, and when it asked last: it goes before the others.
    waiting: Option<(usize, u64)>,
}

impl Fetches {
    pub(super) fn new(chunks_max: usize) -> Fetches {
        assert!(chunks_max > 0, "a log needs a chunk to read back into");
        Fetches {
            fetching: Vec::new(),
            fetched: VecDeque::new(),
            chunks_max,
            next_token: 1,
            turn: 1,
            refused: false,
            waiting: None,
        }
    }

    /// A new turn begins; nothing promised before holds. Returns whether someone should ask again.
    pub(super) fn turn(&mut self) -> bool {
        self.turn += 1;
        core::mem::take(&mut self.refused)
    }

    /// The bytes at `place`, if they are here and were checked for this shard.
    pub(super) fn get(&self, shard: usize, place: Place, len_bytes: usize) -> Option<&[u8]> {
        let fetched = &self.fetched[self.find(shard, place, len_bytes)?];
        let at = (place.offset - fetched.begin.offset) as usize;
        Some(&fetched.bytes[at..at + len_bytes])
    }

    /// Keeps what is at `place` until the turn is over.
    pub(super) fn keep(&mut self, shard: usize, place: Place, len_bytes: usize) {
        if let Some(position) = self.find(shard, place, len_bytes) {
            self.fetched[position].turn = self.turn;
        }
    }

    fn find(&self, shard: usize, place: Place, len_bytes: usize) -> Option<usize> {
        self.fetched.iter().position(|fetched| {
            fetched.shard == shard
                && fetched.begin.segment == place.segment
                && fetched.from <= place.offset
                && place.offset as usize + len_bytes <= fetched.until as usize
        })
    }

    /// Starts to read the run `first` of a shard and those behind it, unless that is under way or there is no room.
    /// Nothing from `until` on is read: what lies there is in memory, and may not be on the disk yet.
    pub(super) fn start(
        &mut self,
        disk: &mut impl Disk,
        pool: &Pool,
        shard: usize,
        log: &ShardLog,
        first: usize,
        until: Place,
    ) {
        let run = log.runs[first];
        let covers = |fetching: &Fetching| {
            fetching.shard == shard
                && fetching.begin.segment == run.place.segment
                && fetching.begin.offset <= run.place.offset
                && run.end_offset() as usize <= fetching.begin.offset as usize + fetching.len_bytes
        };
        if self.fetching.iter().any(covers) {
            return;
        }
        if !self.may_start(shard) {
            return;
        }
        let Some(into) = pool.take() else {
            self.refuse(shard);
            return;
        };
        assert!(run.place < until, "what is in memory is not fetched");
        let block = disk.block_bytes() as u32;
        let offset = run.place.offset - run.place.offset % block;
        let mut end = run.end_offset();
        for next in &log.runs[first + 1..] {
            if next.place >= until
                || next.place.segment != run.place.segment
                || next.end_offset() > offset + FETCH_BYTES
            {
                break;
            }
            end = next.end_offset();
        }
        let len_bytes = (end - offset).next_multiple_of(block) as usize;
        assert!(len_bytes <= CHUNK_BYTES, "a batch and two blocks fit a chunk");
        let token = self.next_token;
        let segment = SegmentId(u64::from(run.place.segment));
        let read = Read { token, segment, offset: u64::from(offset), len_bytes, into };
        match disk.read(read) {
            Ok(()) => {
                self.next_token += 1;
                let begin = Place { offset, ..run.place };
                self.fetching.push(Fetching { token, shard, begin, len_bytes });
            }
            Err(Full(_)) => self.refuse(shard),
        }
    }

    /// Whether a read for this shard may start now: there is room, and no other shard has waited for it longer.
    fn may_start(&mut self, shard: usize) -> bool {
        let first = self.waiting.is_none_or(|(waiting, asked)| waiting == shard || asked + 1 < self.turn);
        if first && self.fetching.len() < READS_IN_FLIGHT_MAX && self.make_room() {
            self.waiting = None;
            return true;
        }
        self.refuse(shard);
        false
    }

    fn refuse(&mut self, shard: usize) {
        self.refused = true;
        match &mut self.waiting {
            Some((waiting, asked)) if *waiting != shard && *asked + 1 >= self.turn => {}
            waiting => *waiting = Some((shard, self.turn)),
        }
    }

    /// Whether one more chunk may be taken, after letting go of the one that was used longest ago.
    fn make_room(&mut self) -> bool {
        if self.fetching.len() + self.fetched.len() < self.chunks_max {
            return true;
        }
        let oldest = self.fetched.iter().enumerate().min_by_key(|(_, fetched)| fetched.turn);
        match oldest.map(|(position, fetched)| (position, fetched.turn)) {
            Some((position, turn)) if turn < self.turn => {
                self.fetched.remove(position);
                true
            }
            _ => false,
        }
    }

    /// Lets go of everything that nobody was promised in this turn. Returns whether there was anything.
    pub(super) fn evict(&mut self) -> bool {
        let before = self.fetched.len();
        let turn = self.turn;
        self.fetched.retain(|fetched| fetched.turn >= turn);
        self.fetched.len() < before
    }

    /// A read has brought `bytes`. Checks the shard's runs in them; what does not hold is an error of the disk.
    pub(super) fn done(&mut self, token: u64, bytes: Slice, shards: &[ShardLog]) -> Result<(), DiskError> {
        let position = self.fetching.iter().position(|fetching| fetching.token == token);
        let Fetching { shard, begin, .. } =
            self.fetching.swap_remove(position.expect("a disk answers reads that were asked for, once"));
        let log = &shards[shard];
        let end = begin.offset as usize + bytes.len();
        let first = log.runs.partition_point(|run| run.place < begin);
        let mut checked: Option<(u32, u32)> = None;
        for run in &log.runs[first..] {
            if run.place.segment != begin.segment || run.end_offset() as usize > end {
                break;
            }
            let at = (run.place.offset - begin.offset) as usize;
            run.check(log.shard, &bytes[at..at + run.len_bytes as usize]).map_err(|malformed| DiskError {
                operation: format!("read of {} bytes back from the log", run.len_bytes),
                place: format!("segment {} at byte {}", run.place.segment, run.place.offset),
                cause: format!(
                    "entries from {} on of shard {} have decayed: {malformed}",
                    run.first, log.shard
                ),
                no_space: false,
            })?;
            checked = Some((checked.map_or(run.place.offset, |(from, _)| from), run.end_offset()));
        }
        if let Some((from, until)) = checked {
            self.fetched.push_back(Fetched { shard, begin, from, until, bytes, turn: self.turn });
        }
        Ok(())
    }

    /// How many bytes the read `token` was asked for.
    pub(super) fn len_bytes(&self, token: u64) -> usize {
        let fetching = self.fetching.iter().find(|fetching| fetching.token == token);
        fetching.expect("a disk answers reads that were asked for, once").len_bytes
    }
}
