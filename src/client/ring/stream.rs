//! An engine thread's stream: its attachment, what the node tells of it, and what is committed in it, all delivered on
//! the thread that polls.
//!
//! ```no_run
//! use plimsoll::client::Item;
//! use plimsoll::client::ring::{Attachment, Event, Options, Stream};
//! use plimsoll::types::{ClusterId, Index, ShardId};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new(ClusterId(7), ShardId(0), 42);
//! let mut stream = Stream::new(Attachment::connect("/run/plimsoll/1".as_ref(), options)?);
//! stream.follow(Index(1));
//! loop {
//!     stream.wait(core::time::Duration::from_millis(100));
//!     stream.poll(|event| match event {
//!         Event::Ended { request, outcome } => println!("{request:?}: {outcome:?}"),
//!         Event::Confirmed { request, index } => println!("{request:?}: read up to {index}"),
//!         Event::Role(role) => println!("{role:?}"),
//!         Event::EpochClosed(last) => println!("of epoch {} lives what is up to {last}", last.epoch),
//!         Event::Watermark(stamp) => println!("safe up to {stamp}"),
//!         Event::Untold(outcome) => println!("the node does not tell: {outcome:?}"),
//!         Event::Detached => println!("the node is gone"),
//!     });
//!     while let Some(item) = stream.next_item()? {
//!         println!("{item:?}");
//!     }
//!     # break;
//! }
//! # Ok(())
//! # }
//! ```

use core::fmt;
use core::time::Duration;

use super::tail::Tail;
use super::wait::{self, Alarm, Waited, Waker};
use super::{Attachment, RingError};
use crate::client::RequestId;
use crate::client::records::{Item, Wrong};
use crate::node::desk::AttachError;
use crate::raft::Role;
use crate::types::{Epoch, Index, NodeId, Stamp, Term};
use crate::wire::client::{Outcome, Reply, StreamStatus};

/// What the node is in the stream's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRole {
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The epoch that takes records.
    pub epoch: Epoch,
    /// The engine may begin transactions in it: see [`StreamStatus::open`].
    pub open: bool,
    /// The node would have taken a record when it told this: see [`StreamStatus::takes_records`].
    pub takes_records: bool,
    /// The epoch comes to its end: see [`StreamStatus::closing`].
    pub closing: bool,
}

/// What a thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request has ended.
    Ended {
        /// Which.
        request: RequestId,
        /// How.
        outcome: Outcome,
    },
    /// [`Attachment::read_index`] is answered: all that was acknowledged before it was asked is at or before this
    /// index.
    Confirmed {
        /// Which request.
        request: RequestId,
        /// Up to where must be read.
        index: Index,
    },
    /// Leadership was gained or lost, the epoch has changed or begins to end, or the stream begins or ceases to take
    /// records.
    Role(StreamRole),
    /// What lives of an epoch is settled: nothing of it beyond this stamp, everywhere and for ever; a timestamp of
    /// `u64::MAX`: all of it. Told once for each epoch, in their order, before the role of a later epoch, and over
    /// [`Stream::reattach`]; at first also for those that were closed before this thread came. A node tells of the last
    /// 64: [`Replica`](super::Replica) knows them all.
    EpochClosed(Stamp),
    /// Everything up to this stamp is committed in every registered stream. Never goes back. It covers what was stamped
    /// in its own epoch: when it has moved on to the next one, what is left of the epoch before may be dead
    /// ([`Fold::fate`](crate::engine::Fold::fate)).
    Watermark(Stamp),
    /// The node does not tell of roles and watermarks, because of this: [`Outcome::Invalid`] if `engine.streams` is off
    /// in its configuration.
    Untold(Outcome),
    /// The node is gone: [`Stream::reattach`] when it runs again. It leads nothing that this thread could submit to.
    Detached,
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    ring: Attachment,
    alarm: Alarm,
    tail: Option<Tail>,
    subscription: Option<RequestId>,
    /// It is to be asked for.
    unsubscribed: bool,
    role: Option<StreamRole>,
    watermark: Stamp,
    epoch_closed: Option<Stamp>,
    status: Option<StreamStatus>,
    detached: bool,
}

/// The node has answered what no node answers; it, or what is between, is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongAnswer(pub String);

impl Stream {
    /// A thread's stream: that of the attachment's shard.
    pub fn new(ring: Attachment) -> Stream {
        Stream {
            alarm: Alarm::new(Some(&ring)),
            ring,
            tail: None,
            subscription: None,
            unsubscribed: true,
            role: None,
            watermark: Stamp::ZERO,
            epoch_closed: None,
            status: None,
            detached: false,
        }
    }

    /// From now on [`Stream::next_item`] gives what is committed, from this index on.
    pub fn follow(&mut self, from: Index) {
        assert!(self.tail.is_none(), "it follows already");
        self.tail = Some(Tail::new(self.ring.options.shard, from, self.ring.options.sizes));
    }

    /// Where to submit.
    pub fn attachment(&mut self) -> &mut Attachment {
        &mut self.ring
    }

    /// Tells what has happened, and returns how much that was. Never blocks.
    pub fn poll(&mut self, mut each: impl FnMut(Event)) -> usize {
        let mut count = 0;
        let Stream { ring, tail, subscription, role, watermark, epoch_closed, status, .. } = self;
        ring.poll(|reply| {
            if tail.as_mut().is_some_and(|tail| tail.take(&reply)) {
                return;
            }
            match reply {
                Reply::Stream { request, status: told } if Some(RequestId(request)) == *subscription => {
                    *status = Some(told);
                    count += tell(&told, role, watermark, &mut each);
                }
                // Another subscription tells again what an earlier one has told.
                Reply::EpochClosed { request, last, .. }
                    if Some(RequestId(request)) == *subscription
                        && epoch_closed.is_none_or(|known| known.epoch < last.epoch) =>
                {
                    *epoch_closed = Some(last);
                    each(Event::EpochClosed(last));
                    count += 1;
                }
                // Lost with the node: it is asked for again after that was found again.
                Reply::Outcome { request, outcome: Outcome::Unknown | Outcome::Stopping }
                    if Some(RequestId(request)) == *subscription => {}
                Reply::Outcome { request, outcome } if Some(RequestId(request)) == *subscription => {
                    each(Event::Untold(outcome));
                    count += 1;
                }
                Reply::Outcome { request, outcome } => {
                    each(Event::Ended { request: RequestId(request), outcome });
                    count += 1;
                }
                Reply::ReadIndex { request, index } => {
                    each(Event::Confirmed { request: RequestId(request), index });
                    count += 1;
                }
                // Answers to what was asked of the attachment itself.
                _ => {}
            }
        });
        if self.ring.ended.is_some() {
            if !self.detached {
                (self.detached, self.role) = (true, None);
                each(Event::Detached);
                count += 1;
            }
            return count;
        }
        // A full ring is no loss: the next call asks again.
        let _ = self.ask();
        count
    }

    /// Asks for what this thread is to be told and was not asked for.
    fn ask(&mut self) -> Result<(), RingError> {
        if self.unsubscribed {
            self.subscription = Some(self.ring.subscribe()?);
            self.unsubscribed = false;
        }
        match &mut self.tail {
            Some(tail) => tail.ask(&mut self.ring),
            None => Ok(()),
        }
    }

    /// The next committed record or mark, if one has come. Nothing more is asked for until all that has come was taken.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, WrongAnswer> {
        let Some(tail) = &mut self.tail else { return Ok(None) };
        let found = tail.advance().map_err(|Wrong(what)| WrongAnswer(what))?;
        match found {
            Some(found) => Ok(Some(tail.item(found))),
            None => Ok(None),
        }
    }

    /// Waits until there is something to poll or to take, the node is found to be gone, or a [`Stream::waker`] wakes
    /// it; for `timeout` at most. Spins, then sleeps.
    pub fn wait(&mut self, timeout: Duration) -> Waited {
        if self.ring.ended.is_none() {
            let _ = self.ask();
        }
        // Who is to be told to stop is told so however much there is to take.
        let timeout = if self.has_something() { Duration::ZERO } else { timeout };
        let spin = self.ring.options.spin;
        let waited = wait::wait(core::slice::from_mut(&mut self.ring), Some(&self.alarm), spin, timeout);
        if waited == Waited::TimedOut && self.has_something() { Waited::Ready } else { waited }
    }

    /// Whether something has come that was not taken, or not told: that the node is gone.
    fn has_something(&self) -> bool {
        self.tail.as_ref().is_some_and(Tail::has_something) || (self.ring.ended.is_some() && !self.detached)
    }

    /// Wakes this thread when it waits, from any other one: see [`Waker`].
    pub fn waker(&self) -> Waker {
        self.alarm.waker()
    }

    /// Attaches again after [`Event::Detached`], or before it if a submit has told that the attachment has ended, and
    /// goes on where it was: see [`Attachment::reattach`].
    pub fn reattach(&mut self) -> Result<(), AttachError> {
        if self.ring.reattach_if_ended()? || self.detached {
            (self.detached, self.unsubscribed, self.subscription, self.role) = (false, true, None, None);
        }
        self.alarm.follow(Some(&self.ring));
        Ok(())
    }

    /// What was last told of the node's role.
    pub fn role(&self) -> Option<StreamRole> {
        self.role
    }

    /// Whether this thread may begin something and submit it here, as far as was told: see
    /// [`StreamStatus::takes_records`].
    pub fn may_submit(&self) -> bool {
        self.role.is_some_and(|role| role.takes_records)
    }

    /// All that was last told.
    pub fn status(&self) -> Option<&StreamStatus> {
        self.status.as_ref()
    }

    /// Up to where everything is known to be committed in every registered stream.
    pub fn watermark(&self) -> Stamp {
        self.watermark
    }

    /// Of the last epoch that was told to be closed, the last stamp that lives: see [`Event::EpochClosed`].
    pub fn epoch_closed(&self) -> Option<Stamp> {
        self.epoch_closed
    }

    /// The index of the entry that [`Stream::next_item`] comes to next, and what was committed when the node last
    /// answered.
    pub fn position(&self) -> Option<(Index, Index)> {
        self.tail.as_ref().map(|tail| (tail.position(), tail.commit()))
    }

    /// How many of the thread's own requests have no end that was told.
    pub fn outstanding(&self) -> usize {
        let asking = self.tail.as_ref().is_some_and(Tail::is_asking);
        let subscribing =
            self.subscription.is_some_and(|RequestId(request)| self.ring.outstanding.is_open(request));
        self.ring.outstanding() - usize::from(asking) - usize::from(subscribing)
    }
}

/// Tells what is new in a status; how much that was.
fn tell(
    told: &StreamStatus,
    role: &mut Option<StreamRole>,
    watermark: &mut Stamp,
    each: &mut impl FnMut(Event),
) -> usize {
    let &StreamStatus { role: is, term, leader, epoch, open, takes_records, closing, .. } = told;
    let now = StreamRole { role: is, term, leader, epoch, open, takes_records, closing };
    let mut count = 0;
    if *role != Some(now) {
        *role = Some(now);
        each(Event::Role(now));
        count += 1;
    }
    if told.watermark > *watermark {
        *watermark = told.watermark;
        each(Event::Watermark(told.watermark));
        count += 1;
    }
    count
}

impl fmt::Display for WrongAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node answers a read with what is no log: {}; verify its log", self.0)
    }
}

impl core::error::Error for WrongAnswer {}
