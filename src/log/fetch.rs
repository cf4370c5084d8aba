//! What is read back from the disk, for followers and clients that lag behind the hot tail.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use super::shards::{Place, Run, ShardLog};
use super::stretch::{Region, Stretch};
use super::{FETCH_BYTES, Identity};
use crate::io::pool::{Pool, Slice};
use crate::io::{Disk, DiskError, Full, Read, SegmentId};
use crate::limits::{CHUNK_BYTES, READS_IN_FLIGHT_MAX};
use crate::types::{EntryId, Index};

/// A region of the log being read, on behalf of one shard.
#[derive(Debug)]
struct Fetching {
    token: u64,
    shard: usize,
    begin: Place,
    len_bytes: usize,
    /// What is to be found there, as it was when the read began. It stays there, even if it is superseded meanwhile.
    stretches: Vec<Stretch>,
}

/// A region in memory, and the entries of one shard that were found in it.
#[derive(Debug)]
struct Fetched {
    shard: usize,
    /// Where the bytes begin.
    begin: Place,
    bytes: Slice,
    /// Ascending by index. Of a superseded entry nobody asks any more: what is here is found by term and index.
    runs: Vec<Run>,
    /// The turn in which it came or was last used: what was promised in a turn stays to its end.
    turn: u64,
}

impl Fetched {
    /// The number of the run that holds the entry.
    fn run_of(&self, shard: usize, id: EntryId) -> Option<usize> {
        if self.shard != shard {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= id.index.0);
        let number = after.checked_sub(1)?;
        let run = &self.runs[number];
        (run.term == id.term.0 && id.index.0 < run.end()).then_some(number)
    }
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

    /// Which region holds the entry, and in which of its runs.
    fn find(&self, shard: usize, id: EntryId) -> Option<(usize, usize)> {
        let mut regions = self.fetched.iter().enumerate();
        regions.find_map(|(region, fetched)| fetched.run_of(shard, id).map(|number| (region, number)))
    }

    /// The runs from the one that holds the entry on, if it is here, each with its bytes. Where they end another region
    /// may go on.
    pub(super) fn runs_from(&self, shard: usize, id: EntryId) -> Option<impl Iterator<Item = (&Run, &[u8])>> {
        let (region, number) = self.find(shard, id)?;
        let fetched = &self.fetched[region];
        let with_bytes = |run: &'_ Run| {
            let at = (run.place.offset - fetched.begin.offset) as usize;
            &fetched.bytes[at..at + run.len_bytes as usize]
        };
        Some(fetched.runs[number..].iter().map(move |run| (run, with_bytes(run))))
    }

    /// Keeps, until the turn is over, what of the entries of one term from `first` on and before `end` is here without
    /// a gap.
    pub(super) fn keep(&mut self, shard: usize, first: EntryId, end: Index) {
        let mut next = first;
        while next.index < end
            && let Some((region, _)) = self.find(shard, next)
        {
            let fetched = &mut self.fetched[region];
            fetched.turn = self.turn;
            // Its runs of one term are consecutive.
            let after = fetched.runs.partition_point(|run| run.term <= next.term.0);
            next.index = Index(fetched.runs[after - 1].end());
        }
    }

    /// Starts to read the stretches of a shard that lie on the disk, from the one that holds `index` on, unless that is
    /// under way or there is no room.
    pub(super) fn start(
        &mut self,
        disk: &mut impl Disk,
        pool: &Pool,
        shard: usize,
        log: &ShardLog,
        index: Index,
    ) {
        let on_disk = log.on_disk_from(index);
        let id = EntryId { term: log.term_of(index), index };
        let brings = |fetching: &Fetching| {
            fetching.shard == shard && fetching.stretches.iter().any(|stretch| stretch.holds(id))
        };
        if self.fetching.iter().any(brings) {
            return;
        }
        if !self.may_start(shard) {
            return;
        }
        let Some(into) = pool.take() else {
            self.refuse(shard);
            return;
        };
        let block = disk.block_bytes() as u32;
        let place = on_disk.first().expect("what is in memory is not fetched").place;
        let begin = Place { offset: place.offset - place.offset % block, ..place };
        let goes_along = |stretch: &Stretch| {
            stretch.place.segment == begin.segment && stretch.end_offset() <= begin.offset + FETCH_BYTES
        };
        let more = on_disk[1..].iter().take_while(|stretch| goes_along(stretch)).count();
        let stretches = &on_disk[..=more];
        let len_bytes = (stretches[more].end_offset() - begin.offset).next_multiple_of(block) as usize;
        assert!(len_bytes <= CHUNK_BYTES, "a region and two blocks fit a chunk");
        let token = self.next_token;
        let segment = SegmentId(u64::from(begin.segment));
        let read = Read { token, segment, offset: u64::from(begin.offset), len_bytes, into };
        match disk.read(read) {
            Ok(()) => {
                self.next_token += 1;
                let stretches = stretches.to_vec();
                self.fetching.push(Fetching { token, shard, begin, len_bytes, stretches });
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

    /// Lets go of everything, whatever was promised.
    pub(super) fn forget(&mut self) {
        self.fetched.clear();
    }

    /// A read has brought `bytes`. Finds in them what they were read for; what does not hold is an error of the disk.
    pub(super) fn done(
        &mut self,
        token: u64,
        bytes: Slice,
        identity: &Identity,
        logs: &[ShardLog],
    ) -> Result<(), DiskError> {
        let position = self.fetching.iter().position(|fetching| fetching.token == token);
        let Fetching { shard, begin, stretches, .. } =
            self.fetching.swap_remove(position.expect("a disk answers reads that were asked for, once"));
        let of = logs[shard].shard;
        let found = Region { begin, bytes: &bytes }.find(identity, of, &stretches);
        let runs = found.map_err(|decay| DiskError {
            operation: format!("read of {} bytes back from the log", bytes.len()),
            place: format!("segment {} at byte {}", decay.place.segment, decay.place.offset),
            cause: format!("entries from {} on of shard {of} have decayed: {decay}", decay.entry.index),
            no_space: false,
        })?;
        self.fetched.push_back(Fetched { shard, begin, bytes, runs, turn: self.turn });
        Ok(())
    }

    /// How many bytes the read `token` was asked for.
    pub(super) fn len_bytes(&self, token: u64) -> usize {
        let fetching = self.fetching.iter().find(|fetching| fetching.token == token);
        fetching.expect("a disk answers reads that were asked for, once").len_bytes
    }
}
