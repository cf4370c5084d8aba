//! Where all streams of a node stand, for all its lanes and whoever asks on this host: the only state of
//! engines that crosses lanes.
//!
//! One padded cell for each stream, written by the lane in which it lives, and what the registrar has told, written by
//! the registrar's lane. Readers take no lock and make no system call; a cell that is being written is read again.
//!
//! A watermark is made of cells that were written at different times, so the order matters: the registrar's lane makes
//! a registration visible before the registrar's own position moves beyond it, and a reader reads that position first.
//! What it reads afterwards is at least as new, and so no watermark passes a stream whose registration it has not seen.
//!
//! A cell tells where the stream stands in the epoch that was open when it was written. A reader that finds afterwards
//! that another one is open begins again, and so no cell that it has used is of a later epoch. One may be of an earlier
//! one, until that stream's lane has looked: it then tells too little of where the stream stands, which holds the
//! watermark back for a moment and does no harm; but where the open epoch has ended in it must not be taken from there.
//! And a lane that has read its stream far ahead of the registrar's may have found it in a later epoch: it tells where
//! the stream stood at the end of the open one, or, of a stream that begins later, that nothing of it will follow.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;

use super::REGISTRAR;
use super::fold::{self, Position, Standing};
use crate::types::{Epoch, ShardId, Stamp, Timestamp};

/// See the module.
#[derive(Debug)]
pub struct Board {
    streams: Box<[CachePadded<Stream>]>,
    /// The open epoch.
    open: CachePadded<AtomicU32>,
    /// Of epochs that are closed the last stamps that live, each where the epoch's number says. Written before the next
    /// one is open.
    ends: Box<[Cell]>,
}

/// Of how many epochs the board keeps what lives of them: the last ones.
const ENDS_KEPT: u32 = 64;

#[derive(Debug, Default)]
struct Stream {
    position: Cell,
    floor: Cell,
}

/// A stamp and a flag that are read as they were written, together: a sequence lock (Boehm, "Can seqlocks get along
/// with programming language memory models?", 2012). One writer.
#[derive(Debug, Default)]
struct Cell {
    /// Odd while it is being written.
    sequence: AtomicU64,
    timestamp: AtomicU64,
    /// The epoch, and above it what [`Flag`] says.
    rest: AtomicU64,
}

/// Of a position: how many epochs, from 0 on, the stream has ended. Of a floor, or the end of an epoch: whether there
/// is one.
type Flag = u32;

impl Cell {
    fn store(&self, stamp: Stamp, flag: Flag) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.timestamp.store(stamp.timestamp.0, Ordering::Relaxed);
        self.rest.store(u64::from(flag) << 32 | u64::from(stamp.epoch.0), Ordering::Relaxed);
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    fn load(&self) -> (Stamp, Flag) {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let timestamp = self.timestamp.load(Ordering::Relaxed);
            let rest = self.rest.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return (Stamp::new(Epoch(rest as u32), Timestamp(timestamp)), (rest >> 32) as u32);
            }
            core::hint::spin_loop();
        }
    }
}

impl Board {
    /// For so many shards, none registered.
    pub fn new(shards: u32) -> Board {
        Board {
            streams: (0..shards).map(|_| CachePadded::default()).collect(),
            open: CachePadded::new(AtomicU32::new(0)),
            ends: (0..ENDS_KEPT).map(|_| Cell::default()).collect(),
        }
    }

    /// How many streams there can be.
    pub fn shards(&self) -> u32 {
        self.streams.len() as u32
    }

    /// The stream's lane: how far the stream has come.
    pub fn publish(&self, stream: ShardId, position: &Position) {
        let closed = position.closed_through().map_or(0, |epoch| epoch.0 + 1);
        self.of(stream).position.store(position.stands_at(self.open_epoch()), closed);
    }

    /// The registrar's lane: a stream is registered. Before the registrar's position is published.
    pub fn register(&self, stream: ShardId, floor: Stamp) {
        self.of(stream).floor.store(floor, 1);
    }

    /// The registrar's lane: of this epoch nothing lives beyond this stamp, and the next one takes records. Before the
    /// registrar's position is published.
    pub fn close(&self, last: Stamp) {
        // Two leaders may have written the same one after another: the first one counts.
        if last.epoch == self.open_epoch() {
            self.ends[(last.epoch.0 % ENDS_KEPT) as usize].store(last, 1);
            self.open(last.epoch.next());
        }
    }

    /// The registrar's lane: this epoch takes records now. Before the registrar's position is published.
    pub fn open(&self, epoch: Epoch) {
        self.open.store(epoch.0, Ordering::Release);
    }

    /// Of the epochs from `from` on that were closed before `open` was opened, ascending, the last stamp that lives.
    /// Only the last 64 are known: older ones, if there were so many, are left out.
    pub fn ends(&self, from: Epoch, open: Epoch) -> impl Iterator<Item = Stamp> + '_ {
        (from.0.max(open.0.saturating_sub(ENDS_KEPT))..open.0).filter_map(|epoch| {
            // Another one may have taken its place meanwhile.
            match self.ends[(epoch % ENDS_KEPT) as usize].load() {
                (last, 1) if last.epoch.0 == epoch => Some(last),
                _ => None,
            }
        })
    }

    /// The epoch that takes records.
    pub fn open_epoch(&self) -> Epoch {
        Epoch(self.open.load(Ordering::Acquire))
    }

    /// The floor of a stream's registration; `None`: it is not registered, as far as this node knows.
    pub fn floor(&self, stream: ShardId) -> Option<Stamp> {
        match self.streams.get(stream.0 as usize)?.floor.load() {
            (floor, 1) => Some(floor),
            _ => None,
        }
    }

    /// Up to where everything is committed in every registered stream: the scalar form. Of two calls, one after the
    /// other, the second may tell less if a lane has not published yet where its streams stand in an epoch that has
    /// just begun; whoever keeps it keeps the largest.
    pub fn watermark(&self) -> Stamp {
        self.read(|_, standings| fold::watermark(standings.map(|(_, standing)| standing)))
    }

    /// How far each registered stream has come, ascending: the vector form. Its minimum is the watermark.
    pub fn vector(&self) -> Vec<(ShardId, Stamp)> {
        self.read(|_, standings| standings.map(|(stream, standing)| (stream, standing.at)).collect())
    }

    /// Whether some registered stream has ended the open epoch, so that all must: which epoch that is. One that has
    /// ended for good takes nothing with it.
    pub fn closing(&self) -> Option<Epoch> {
        self.read(|open, standings| {
            let mut standings = standings;
            Iterator::any(&mut standings, |(_, standing)| standing.has_ended_epoch()).then_some(open)
        })
    }

    /// The open epoch and the last timestamp of it that lives, when every registered stream has ended it.
    pub fn settled(&self) -> Option<(Epoch, Timestamp)> {
        self.read(|open, standings| {
            Some((open, fold::last_that_lives(open, standings.map(|(_, standing)| standing))?))
        })
    }

    /// Makes something of the registered streams: see the module for the order.
    fn read<T>(&self, make: impl Fn(Epoch, &mut dyn Iterator<Item = (ShardId, Standing)>) -> T) -> T {
        loop {
            let registrar = self.of(REGISTRAR).position.load();
            let open = self.open_epoch();
            let mut standings = (0..).map(ShardId).zip(&self.streams).filter_map(|(stream, cells)| {
                let (floor, 1) = cells.floor.load() else { return None };
                let (at, closed) = if stream == REGISTRAR { registrar } else { cells.position.load() };
                // Where it stood at the end of an earlier epoch says nothing of the end of this one.
                let closed = closed > open.0 && at.epoch >= open;
                let at = at.max(floor).max(Stamp::begin_of(open));
                let at = if at == Stamp::NEVER { at } else { at.min(Stamp::end_of(open)) };
                Some((stream, Standing { at, closed }))
            });
            let made = make(open, &mut standings);
            // Whoever writes a cell has seen which epoch is open before, and so has whoever has read that cell.
            if self.open_epoch() == open {
                return made;
            }
            core::hint::spin_loop();
        }
    }

    fn of(&self, stream: ShardId) -> &Stream {
        &self.streams[stream.0 as usize]
    }
}
