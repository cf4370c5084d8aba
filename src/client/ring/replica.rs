//! A replica of an engine's tables: follows all streams on one node and gives out what may be replayed.
//!
//! The streams are read through an attachment to each shard, and folded by [`crate::engine::replay`]: every replica that does
//! this replays the same, whatever was lost in between. What waits is bounded; a stream whose queue is full is not read on
//! until the watermark has moved.

use super::Attachment;
use super::stream::WrongAnswer;
use super::tail::Tail;
use crate::client::records::{Item, Wrong};
use crate::engine::Mark;
use crate::engine::replay::Replay;
use crate::node::desk::AttachError;
use crate::types::{Index, ShardId, Stamp};

/// See the module.
#[derive(Debug)]
pub struct Replica {
    followed: Vec<Followed>,
    replay: Replay,
}

#[derive(Debug)]
struct Followed {
    ring: Attachment,
    tail: Tail,
    /// What its queue had no room for.
    held: Option<(Mark, Box<[u8]>)>,
}

impl Replica {
    /// Of attachments to every shard that may be a stream, the registrar's among them; with room for so many bytes of deferred
    /// records in each stream. Every log is read from its beginning.
    pub fn new(rings: impl IntoIterator<Item = Attachment>, bytes_max: usize) -> Replica {
        let follow = |ring: Attachment| {
            let tail = Tail::new(ring.options.shard, Index(1), ring.options.sizes);
            Followed { ring, tail, held: None }
        };
        Replica { followed: rings.into_iter().map(follow).collect(), replay: Replay::new(bytes_max) }
    }

    /// Takes in what is committed and gives out what may be replayed: of every stream in order, nothing beyond the watermark.
    /// Between streams there is no order: per key the last writer by stamp wins. Returns how many records were given out.
    pub fn poll(&mut self, mut replay: impl FnMut(ShardId, Stamp, &[u8])) -> Result<usize, WrongAnswer> {
        let mut count = 0;
        for followed in &mut self.followed {
            followed.poll(&mut self.replay)?;
        }
        count += self.replay.drain(&mut replay);
        Ok(count)
    }

    /// Attaches again where the node has gone and come back; goes on where it was.
    pub fn reattach(&mut self) -> Result<(), AttachError> {
        self.followed.iter_mut().try_for_each(|followed| followed.ring.reattach())
    }

    /// Whether the node is at the other end of every attachment.
    pub fn is_attached(&mut self) -> bool {
        self.followed.iter_mut().all(|followed| followed.ring.is_attached())
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
    fn poll(&mut self, replay: &mut Replay) -> Result<(), WrongAnswer> {
        let Followed { ring, tail, held } = self;
        let shard = ring.options.shard;
        if let Some((mark, payload)) = held.take()
            && replay.push(shard, &mark, &payload).is_err()
        {
            *held = Some((mark, payload));
            return Ok(());
        }
        ring.poll(|reply| {
            tail.take(&reply);
        });
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
        if ring.ended.is_none() {
            // A full ring is no loss: the next call asks again.
            let _ = tail.ask(ring);
        }
        Ok(())
    }
}
