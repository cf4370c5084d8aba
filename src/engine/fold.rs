//! Where streams stand, who is registered, and what follows from it: folds over committed marks.

use alloc::collections::{BTreeMap, VecDeque};

use super::{Mark, REGISTRAR};
use crate::types::{Epoch, ShardId, Stamp, Timestamp};

/// How far one stream has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    last: Stamp,
    open: bool,
    ended: bool,
    /// The last epoch that it has ended.
    closed_through: Option<Epoch>,
    /// Where it stood at the ends of epochs that the registrar is not known to have closed. A stream may be read far
    /// into later epochs while the registrar's log is read behind: of the open epoch it counts where it stood there,
    /// not where it stands now.
    ends: VecDeque<End>,
}

/// Where a stream stood at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    epoch: Epoch,
    at: Stamp,
}

impl Position {
    /// Takes in the stream's next committed mark. Whether it counts: a record that comes after the end of its epoch, or
    /// is not beyond the one before it, is one that no leader lays, and nobody replays it.
    pub fn take(&mut self, mark: &Mark) -> bool {
        match *mark {
            Mark::Data(stamp) | Mark::Advance(stamp) => return self.move_to(stamp),
            Mark::Open { floor } => {
                self.open = true;
                self.last = self.last.max(floor);
                // It has nothing of the epochs before that; who knows of no later one must not begin something there.
                self.closed_through = self.closed_through.max(floor.epoch.previous());
            }
            Mark::EndOfStream => self.ended = true,
            Mark::EndOfEpoch { epoch, complete } => self.end(epoch, complete),
            Mark::Register { .. } | Mark::EpochClosed { .. } => {}
        }
        true
    }

    fn move_to(&mut self, stamp: Stamp) -> bool {
        let counts = !self.has_closed(stamp.epoch) && stamp > self.last;
        if counts {
            self.last = stamp;
        }
        counts
    }

    /// The first mark of an epoch counts, and none behind the end of the stream: what others have concluded from it
    /// stands.
    fn end(&mut self, epoch: Epoch, complete: bool) {
        if self.closed_through().is_none_or(|closed| closed < epoch) {
            let at = if complete { Stamp::end_of(epoch) } else { self.last.max(Stamp::begin_of(epoch)) };
            self.ends.push_back(End { epoch, at });
            self.closed_through = Some(epoch);
        }
    }

    /// The registrar is known to have closed all epochs before this one: where the stream stood at their ends is of no
    /// use any more.
    pub fn forget_before(&mut self, open: Epoch) {
        while self.ends.front().is_some_and(|end| end.epoch < open) {
            self.ends.pop_front();
        }
    }

    /// The last stamp of the stream.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// Whether it takes records: [`Mark::Open`] is behind it, and no end.
    pub fn is_open(&self) -> bool {
        self.open && !self.ended
    }

    /// Whether it has ended for good.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing of this epoch will follow.
    pub fn has_closed(&self, epoch: Epoch) -> bool {
        self.closed_through().is_some_and(|closed| closed >= epoch)
    }

    /// The last epoch that it has ended, if any; of a stream that has ended for good, the last of all.
    pub fn closed_through(&self) -> Option<Epoch> {
        if self.ended { Some(Epoch(u32::MAX - 1)) } else { self.closed_through }
    }

    /// The stamp up to which the stream is known, as long as `open` is the open epoch: nothing at or before it will
    /// follow.
    pub fn stands_at(&self, open: Epoch) -> Stamp {
        match self.ends.iter().find(|end| end.epoch >= open) {
            Some(end) => end.at,
            None if self.ended => Stamp::NEVER,
            None => self.last,
        }
    }
}

/// What the registrar's log has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    open: Epoch,
    floors: BTreeMap<ShardId, Stamp>,
    /// Of every closed epoch the last timestamp that lives: one for each change of a leader, 12 bytes.
    finals: BTreeMap<Epoch, Timestamp>,
}

impl Registry {
    /// Takes in the registrar's next committed mark; `registrar` is how far its own stream had come before it.
    pub fn take(&mut self, mark: &Mark, registrar: &Position) {
        match *mark {
            Mark::Register { stream } => {
                let floor = registrar.stands_at(self.open).max(Stamp::begin_of(self.open));
                self.floors.entry(stream).or_insert(floor);
            }
            Mark::EpochClosed { epoch, last } if epoch == self.open => {
                self.finals.insert(epoch, last);
                self.open = epoch.next();
            }
            // Closed already: two leaders may have written the same one after another.
            _ => {}
        }
    }

    /// The epoch that takes records.
    pub fn open_epoch(&self) -> Epoch {
        self.open
    }

    /// Beyond which stamp a stream may submit; `None`: it is not registered.
    pub fn floor(&self, stream: ShardId) -> Option<Stamp> {
        self.floors.get(&stream).copied()
    }

    /// The registered streams, ascending.
    pub fn streams(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.floors.keys().copied()
    }

    /// The last timestamp of a closed epoch that lives; `None`: it is not closed.
    pub fn last_of(&self, epoch: Epoch) -> Option<Timestamp> {
        self.finals.get(&epoch).copied()
    }
}

/// One registered stream, as the watermark and the end of an epoch see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Nothing at or before this will follow in it.
    pub at: Stamp,
    /// Nothing of the open epoch will follow in it.
    pub closed: bool,
}

impl Standing {
    /// Whether the stream itself has ended the open epoch, and not only for good, with all that are to come.
    pub fn has_ended_epoch(&self) -> bool {
        self.closed && self.at < Stamp::NEVER
    }

    /// Of a stream with this floor, in this open epoch.
    pub fn of(position: &Position, floor: Stamp, open: Epoch) -> Standing {
        Standing {
            at: position.stands_at(open).max(floor).max(Stamp::begin_of(open)),
            closed: position.has_closed(open),
        }
    }
}

/// Up to where everything is committed in every registered stream. Nobody registered: nothing is.
pub fn watermark(standings: impl Iterator<Item = Standing>) -> Stamp {
    standings.map(|standing| standing.at).min().unwrap_or(Stamp::ZERO)
}

/// Beyond what everything of the open epoch is dead already, whatever else comes: where the streams stand that have
/// ended it. `None`: none has.
pub fn ceiling(standings: impl Iterator<Item = Standing>) -> Option<Stamp> {
    standings.filter(|standing| standing.closed).map(|standing| standing.at).min()
}

/// The last timestamp of the open epoch that lives, when every registered stream has ended it, and one of them not only
/// because it has ended for good: where all have, no epoch has an end any more.
pub fn last_that_lives(open: Epoch, standings: impl Iterator<Item = Standing>) -> Option<Timestamp> {
    let (mut least, mut has_end) = (Stamp::NEVER, false);
    for standing in standings {
        if !standing.closed {
            return None;
        }
        has_end |= standing.has_ended_epoch();
        least = least.min(standing.at);
    }
    // Streams that all stand beyond the epoch have lost nothing of it.
    has_end.then_some(if least.epoch == open { least.timestamp } else { Timestamp(u64::MAX) })
}

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is to be replayed, and who waits for it may be told.
    Live,
    /// It is never to be replayed, anywhere.
    Dead,
    /// That is not settled yet.
    Undecided,
}

/// Of a stream of which nothing was read yet.
static NOWHERE: Position =
    Position { last: Stamp::ZERO, open: false, ended: false, closed_through: None, ends: VecDeque::new() };

/// All streams together, as one replica sees them that reads their committed logs.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    registry: Registry,
    positions: BTreeMap<ShardId, Position>,
    watermark: Stamp,
    ceiling: Option<Stamp>,
}

impl Fold {
    /// Takes in the next committed mark of a stream; whether it counts, see [`Position::take`].
    pub fn take(&mut self, stream: ShardId, mark: &Mark) -> bool {
        let position = self.positions.entry(stream).or_default();
        let was_at = position.stands_at(self.registry.open_epoch());
        if stream == REGISTRAR {
            self.registry.take(mark, position);
        }
        let counts = position.take(mark);
        if matches!(mark, Mark::EpochClosed { .. }) {
            let open = self.registry.open_epoch();
            self.positions.values_mut().for_each(|position| position.forget_before(open));
        }
        if matches!(mark, Mark::Data(_)) && was_at > self.watermark {
            // It was not the one that holds the others back.
            return counts;
        }
        let watermark = watermark(self.standings());
        assert!(
            watermark >= self.watermark,
            "the watermark would go back from {} to {watermark}: {mark:?} in stream {stream}",
            self.watermark
        );
        self.watermark = watermark;
        self.ceiling = ceiling(self.standings());
        counts
    }

    /// Where the registered streams stand.
    pub fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        let open = self.registry.open_epoch();
        self.registry.floors.iter().map(move |(stream, &floor)| {
            let position = self.positions.get(stream).unwrap_or(&NOWHERE);
            Standing::of(position, floor, open)
        })
    }

    /// Up to where everything is committed in every registered stream. Never goes back.
    pub fn watermark(&self) -> Stamp {
        self.watermark
    }

    /// What the registrar's log has told.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How far one stream has come.
    pub fn position(&self, stream: ShardId) -> &Position {
        self.positions.get(&stream).unwrap_or(&NOWHERE)
    }

    /// What is to become of an entry that counts.
    pub fn fate(&self, stamp: Stamp) -> Fate {
        let open = self.registry.open_epoch();
        if stamp.epoch < open {
            let last = self.registry.last_of(stamp.epoch);
            return if last.is_some_and(|last| stamp.timestamp <= last) { Fate::Live } else { Fate::Dead };
        }
        if stamp <= self.watermark {
            Fate::Live
        } else if stamp.epoch == open && self.ceiling.is_some_and(|ceiling| stamp > ceiling) {
            Fate::Dead
        } else {
            Fate::Undecided
        }
    }
}
