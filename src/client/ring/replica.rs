//! A replica of an engine's tables: follows all streams on one node and gives out what may be replayed.
//!
//! The streams are read through an attachment to each shard, and folded by [`crate::engine::replay`]: every replica
//! that does this replays the same, whatever was lost in between. What waits is bounded; a stream whose queue is full
//! is not read on until the watermark has moved.

use core::time::Duration;

use super::Attachment;
use super::stream::WrongAnswer;
use super::tail::Tail;
use super::wait::{self, Alarm, Waited, Waker};
use crate::client::records::{Item, Wrong};
use crate::engine::Mark;
use crate::engine::replay::Replay;
use crate::node::desk::AttachError;
use crate::types::{Index, ShardId, Stamp};

/// See the module.
#[derive(Debug)]
pub struct Replica {
    /// One to each shard, and what is read through it.
    rings: Vec<Attachment>,
    followed: Vec<Followed>,
    replay: Replay,
    alarm: Alarm,
}

#[derive(Debug)]
struct Followed {
    tail: Tail,
    /// What its queue had no room for.
    held: Option<(Mark, Box<[u8]>)>,
    /// A poll has found that the attachment has ended.
    is_over: bool,
}

impl Replica {
    /// Of attachments to every shard that may be a stream, the registrar's among them; with room for so many bytes of
    /// deferred records in each stream. Every log is read from its beginning.
    pub fn new(rings: impl IntoIterator<Item = Attachment>, bytes_max: usize) -> Replica {
        let rings: Vec<_> = rings.into_iter().collect();
        let follow = |ring: &Attachment| {
            let tail = Tail::new(ring.options.shard, Index(1), ring.options.sizes);
            Followed { tail, held: None, is_over: false }
        };
        let followed = rings.iter().map(follow).collect();
        let alarm = Alarm::new(rings.first());
        Replica { rings, followed, replay: Replay::new(bytes_max), alarm }
    }

    /// Takes in what is committed and gives out what may be replayed: of every stream in order, nothing beyond the
    /// watermark. Between streams there is no order: per key the last writer by stamp wins. Returns how many records
    /// were given out.
    pub fn poll(&mut self, mut replay: impl FnMut(ShardId, Stamp, &[u8])) -> Result<usize, WrongAnswer> {
        let mut count = 0;
        for (ring, followed) in self.rings.iter_mut().zip(&mut self.followed) {
            followed.poll(ring, &mut self.replay)?;
        }
        count += self.replay.drain(&mut replay);
        Ok(count)
    }

    /// Waits until a poll has something to take in, the node is found to be gone ([`Replica::is_attached`]; a poll has
    /// seen it then too, and it is told once), or a [`Replica::waker`] wakes it; for `timeout` at most. What was taken
    /// in need not be anything that may be replayed yet. Spins as long as the first attachment would, then sleeps on
    /// all rings at once; on a kernel that cannot do that (before Linux 5.16), or beyond 128 rings, it looks at them
    /// every millisecond.
    pub fn wait(&mut self, timeout: Duration) -> Waited {
        for (ring, followed) in self.rings.iter_mut().zip(&mut self.followed) {
            followed.ask(ring);
        }
        // Who is to be told to stop is told so however much there is to take in.
        let timeout = if self.has_something() { Duration::ZERO } else { timeout };
        let spin = self.rings.first().map_or(Duration::ZERO, |ring| ring.options.spin);
        let waited = wait::wait(&mut self.rings, Some(&self.alarm), spin, timeout);
        if waited == Waited::TimedOut && self.has_something() { Waited::Ready } else { waited }
    }

    /// Whether a poll would get on without anything that is still to come.
    fn has_something(&self) -> bool {
        let mut all = self.rings.iter().zip(&self.followed);
        all.any(|(ring, followed)| {
            let has_more = match &followed.held {
                Some((_, payload)) => self.replay.has_room(ring.options.shard, payload.len()),
                None => followed.tail.has_something(),
            };
            has_more || (ring.ended.is_some() && !followed.is_over)
        })
    }

    /// Wakes the thread that waits, from any other one: see [`Waker`].
    pub fn waker(&self) -> Waker {
        self.alarm.waker()
    }

    /// Attaches again where the node has gone and come back; goes on where it was.
    pub fn reattach(&mut self) -> Result<(), AttachError> {
        let attached = self.rings.iter_mut().try_for_each(Attachment::reattach);
        // Even if not all of them: the first one may be another one now.
        self.alarm.follow(self.rings.first());
        for (ring, followed) in self.rings.iter().zip(&mut self.followed) {
            followed.is_over &= ring.ended.is_some();
        }
        attached
    }

    /// Whether the node is at the other end of every attachment.
    pub fn is_attached(&mut self) -> bool {
        self.rings.iter_mut().all(Attachment::is_attached)
    }

    /// What was replayed, what is dead, and where all streams stand.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Up to where everything is committed in every registered stream, in the logs as they were read here.
    pub fn watermark(&self) -> Stamp {
        self.replay.fold().watermark()
    }
}

impl Followed {
    fn poll(&mut self, ring: &mut Attachment, replay: &mut Replay) -> Result<(), WrongAnswer> {
        let Followed { tail, held, is_over } = self;
        let shard = ring.options.shard;
        ring.poll(|reply| {
            tail.take(&reply);
        });
        *is_over = ring.ended.is_some();
        if let Some((mark, payload)) = held.take()
            && replay.push(shard, &mark, &payload).is_err()
        {
            *held = Some((mark, payload));
            return Ok(());
        }
        while let Some(found) = tail.advance().map_err(|Wrong(what)| WrongAnswer(what))? {
            let (mark, payload) = match tail.item(found) {
                Item::Mark(mark) => (mark, &[][..]),
                Item::Record(record) => match record.mark() {
                    Some(mark) => (mark, record.payload),
                    // It has no stamp, and so is none of a stream's.
                    None => continue,
                },
            };
            if replay.push(shard, &mark, payload).is_err() {
                *held = Some((mark, payload.into()));
                return Ok(());
            }
        }
        self.ask(ring);
        Ok(())
    }

    /// Asks for what comes next, when all that has come was taken in.
    fn ask(&mut self, ring: &mut Attachment) {
        if ring.ended.is_none() && self.held.is_none() {
            // A full ring is no loss: the next call asks again.
            let _ = self.tail.ask(ring);
        }
    }
}
