//! The client of an engine on the node's own host: submits go into a ring in shared memory, and so do their answers
//! back. No system call is made to submit, unless the lane sleeps and must be woken, nor to look for answers.
//!
//! ```no_run
//! use plimsoll::client::ring::{Attachment, Options};
//! use plimsoll::types::{Acks, ClusterId, Epoch, ShardId, Timestamp};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new(ClusterId(7), ShardId(0), 42);
//! let mut attachment = Attachment::connect("/run/plimsoll/1".as_ref(), options)?;
//! let mut room = attachment.reserve(8)?;
//! room.bytes().copy_from_slice(b"a record");
//! let request = room.publish(Timestamp(1), Epoch(1), Acks::Quorum);
//! while attachment.outstanding() > 0 {
//!     attachment.wait(core::time::Duration::from_secs(1));
//!     attachment.poll(|reply| println!("{request:?}: {reply:?}"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//! One [`Attachment`] per engine thread and shard. It may move to another thread, and is used by one at a time: every
//! call that changes it takes `&mut`, and it is not `Sync`. Attachments of several threads share nothing.
//!
//! # Lifetimes
//! What [`Attachment::reserve`] gives is in the ring itself, and so borrows the attachment: write it, publish it or
//! drop it, then go on. What [`Attachment::poll`] shows is in the ring, too, until the closure returns.
//!
//! # What may be relied on
//! Everything that was published is answered once. If the node ends first, what is outstanding is answered here: as
//! [`Outcome::Unknown`] if it may be in the log, as [`Outcome::Stopping`] if the node said farewell and so has not
//! taken it. Nothing is offered to another node: that is the engine's decision, who reads the outcome
//! ([`Outcome::NotLeader`]) and knows where else it is attached.

mod join;
mod outstanding;
mod replica;
mod stream;
mod tail;
#[cfg(test)]
mod tests;
mod wait;

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use self::join::{Hold, Source};
use self::outstanding::Outstanding;
pub use self::replica::Replica;
pub use self::stream::{Event, Stream, StreamRole, WrongAnswer};
pub use self::wait::{Waited, Waker};
use super::RequestId;
pub use crate::io::ring::Sizes;
use crate::io::ring::port::ROW_BYTES;
use crate::io::ring::{EngineEnd, Refused};
use crate::limits::{ENTRY_PAYLOAD_BYTES_MAX, PART_PATIENCE, RECORD_BYTES_MAX};
use crate::log::record::payload_crc;
use crate::node::desk::{AttachError, Desk};
use crate::types::{Acks, ClusterId, Epoch, Index, NodeId, ShardId, Timestamp};
use crate::wire::attach::Refusal;
use crate::wire::client::{self as wire, Outcome, Reply, Request, StreamRequest};

/// How long a node that lives may take to let a place go that was given back. It does so within a turn of its lane.
const SEAT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a part of a record waits for room behind the one before it. Nobody has to sit through that in a test.
const ROOM_PATIENCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { PART_PATIENCE };

/// Who attaches, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The cluster; a node of another one refuses.
    pub cluster: ClusterId,
    /// The shard that is submitted to.
    pub shard: ShardId,
    /// Who submits, as its records will say; not 0. Attached once per shard at any time.
    pub session: u64,
    /// The first serial number; each record has the next one.
    pub first_serial: u64,
    /// The rings' sizes.
    pub sizes: Sizes,
    /// How long [`Attachment::wait`] looks again and again before it sleeps.
    pub spin: Duration,
}

impl Options {
    /// With serials from 1, rings of 4 MiB and 20 us of spinning.
    pub fn new(cluster: ClusterId, shard: ShardId, session: u64) -> Options {
        Options {
            cluster,
            shard,
            session,
            first_serial: 1,
            sizes: Sizes::default(),
            spin: Duration::from_micros(20),
        }
    }
}

/// Why nothing was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The ring is full: the lane is behind. Poll, and try again.
    Busy,
    /// Empty, or longer than is allowed here.
    Size {
        /// Its bytes.
        len_bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// The attachment has ended: [`Attachment::reattach`].
    Ended(String),
}

/// One thread's rings to one lane. See the module.
#[derive(Debug)]
pub struct Attachment {
    end: EngineEnd,
    /// None: it has ended, and its seat was given back.
    hold: Option<Hold>,
    source: Source,
    options: Options,
    next_serial: u64,
    outstanding: Outstanding,
    /// Why there is nobody at the other end any more.
    ended: Option<String>,
    /// When a wait last asked whether the node's process is there.
    looked_at: Instant,
    /// Used by one thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

/// Room for a record in the ring. Dropped without [`Reservation::publish`] nothing was submitted.
#[derive(Debug)]
pub struct Reservation<'a> {
    attachment: &'a mut Attachment,
    len_bytes: usize,
}

/// What all parts of a record share.
#[derive(Clone, Copy)]
struct Label {
    timestamp: Timestamp,
    epoch: Epoch,
    acks: Acks,
    more_bytes: usize,
}

impl Attachment {
    /// Attaches to a node in this process.
    pub fn embedded(desk: &Desk, options: Options) -> Result<Attachment, AttachError> {
        Attachment::of(Source::Embedded(desk.clone()), options)
    }

    /// Attaches to a node through its socket (`engine.socket` of its configuration).
    pub fn connect(socket: &Path, options: Options) -> Result<Attachment, AttachError> {
        Attachment::of(Source::Socket(socket.to_owned()), options)
    }

    fn of(source: Source, options: Options) -> Result<Attachment, AttachError> {
        let (end, hold) = source.join(&options)?;
        Ok(Attachment {
            end,
            hold: Some(hold),
            source,
            next_serial: options.first_serial,
            options,
            outstanding: Outstanding::default(),
            ended: None,
            looked_at: Instant::now(),
            _not_sync: PhantomData,
        })
    }

    /// Attaches again, after the attachment has ended: because the node was started again, or because something made no
    /// sense. What was outstanding stays so until [`Attachment::poll`] has told its end; answers that were there and
    /// not polled are lost, and end as unknown. Does nothing while it lives. Gives the session's place back first, and
    /// waits up to a second for a node that lives to have taken it.
    pub fn reattach(&mut self) -> Result<(), AttachError> {
        self.reattach_if_ended().map(drop)
    }

    /// The same; whether it had ended.
    fn reattach_if_ended(&mut self) -> Result<bool, AttachError> {
        self.end_if_left();
        if self.ended.is_none() {
            return Ok(false);
        }
        self.outstanding.lose(Outcome::Unknown);
        self.hold = None;
        let (end, hold) = self.join_again()?;
        (self.end, self.hold, self.ended) = (end, Some(hold), None);
        Ok(true)
    }

    /// The lane lets a place go in a turn of its own: until then it is held, by nobody.
    fn join_again(&self) -> Result<(EngineEnd, Hold), AttachError> {
        let until = Instant::now() + SEAT_PATIENCE;
        loop {
            match self.source.join(&self.options) {
                Err(AttachError::Refused(Refusal::Held)) if Instant::now() < until => {
                    std::thread::yield_now();
                }
                joined => return joined,
            }
        }
    }

    /// The longest record that one reservation takes.
    pub fn len_max(&self) -> usize {
        ENTRY_PAYLOAD_BYTES_MAX.min(self.end.submits.len_max() - ROW_BYTES)
    }

    /// Room for a record of so many bytes, to be written in place.
    #[inline]
    pub fn reserve(&mut self, len_bytes: usize) -> Result<Reservation<'_>, RingError> {
        let max = self.len_max();
        if !(1..=max).contains(&len_bytes) {
            return Err(RingError::Size { len_bytes, max });
        }
        self.make_room(ROW_BYTES + len_bytes)?;
        Ok(Reservation { attachment: self, len_bytes })
    }

    #[inline]
    fn make_room(&mut self, len_bytes: usize) -> Result<(), RingError> {
        if self.ended.is_some() || self.end.is_left() {
            return Err(self.has_ended());
        }
        match self.end.submits.reserve(len_bytes) {
            Ok(_) => Ok(()),
            Err(Refused::Full) => Err(RingError::Busy),
            Err(refused) => {
                self.finish(format!("its submit ring: {refused:?}"));
                Err(self.has_ended())
            }
        }
    }

    #[cold]
    fn has_ended(&mut self) -> RingError {
        self.look();
        RingError::Ended(self.ended.clone().unwrap_or_default())
    }

    /// Copies a record into the ring, in parts if it is longer than an entry or than the ring takes. Only between parts
    /// does it wait for room.
    ///
    /// # Errors
    /// [`RingError::Busy`] if there is no room for its beginning: nothing was submitted. [`RingError::Ended`] if the
    /// node is gone, or has made no room for a later part for [`PART_PATIENCE`]: what is outstanding is then answered
    /// as when the node is gone.
    pub fn submit(
        &mut self,
        record: &[u8],
        timestamp: Timestamp,
        epoch: Epoch,
        acks: Acks,
    ) -> Result<RequestId, RingError> {
        let max = RECORD_BYTES_MAX;
        if !(1..=max).contains(&record.len()) {
            return Err(RingError::Size { len_bytes: record.len(), max });
        }
        let (part_max, mut rest, mut is_first) = (self.len_max(), record, true);
        let request = self.outstanding.next();
        loop {
            let (part, after) = rest.split_at(rest.len().min(part_max));
            match self.make_room(ROW_BYTES + part.len()) {
                Ok(()) => {}
                Err(RingError::Busy) if !is_first => self.wait_for_room(ROW_BYTES + part.len())?,
                Err(error) => return Err(error),
            }
            let label = Label { timestamp, epoch, acks, more_bytes: after.len() };
            self.publish(request, part.len(), label, |room| room.copy_from_slice(part));
            if after.is_empty() {
                return Ok(self.published());
            }
            (rest, is_first) = (after, false);
        }
    }

    fn wait_for_room(&mut self, len_bytes: usize) -> Result<(), RingError> {
        let until = Instant::now() + ROOM_PATIENCE;
        loop {
            std::thread::yield_now();
            match self.make_room(len_bytes) {
                Err(RingError::Busy) if Instant::now() < until => self.look(),
                // The parts that are in the ring cannot be taken back, and another record must not follow them.
                Err(RingError::Busy) => {
                    self.finish(format!("it took no further part of a record for {ROOM_PATIENCE:?}"));
                    return Err(self.has_ended());
                }
                ended => return ended,
            }
        }
    }

    /// Writes a submit whose room was made, and gives it to the lane.
    #[inline]
    fn publish(&mut self, request: u64, len_bytes: usize, label: Label, fill: impl FnOnce(&mut [u8])) {
        let Label { timestamp, epoch, acks, more_bytes } = label;
        let mut reserved =
            self.end.submits.reserve(ROW_BYTES + len_bytes).expect("room was made for it before");
        let (row, payload) = reserved.bytes().split_at_mut(ROW_BYTES);
        fill(payload);
        let submit = wire::Submit {
            request,
            shard: self.options.shard,
            acks,
            timestamp,
            epoch,
            session: self.options.session,
            serial: self.next_serial,
            payload_crc: payload_crc(payload),
            more_bytes: more_bytes as u32,
            payload,
        };
        let encoded = Request::Submit(submit).encode();
        row.copy_from_slice(&encoded[..ROW_BYTES]);
        reserved.publish();
        self.wake_lane();
    }

    /// A record is published to its end.
    #[inline]
    fn published(&mut self) -> RequestId {
        self.next_serial += 1;
        RequestId(self.outstanding.push())
    }

    #[inline]
    fn wake_lane(&self) {
        if self.end.must_wake() {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if let Some(hold) = &self.hold {
            hold.wake();
        }
    }

    /// Asks for committed records from an index on. An answer must fit half of the completion ring.
    pub fn read(&mut self, from: Index, bytes_max: u32, wait: bool) -> Result<RequestId, RingError> {
        let (request, shard) = (self.outstanding.next(), self.options.shard);
        self.ask(&Request::Read { request, shard, from, bytes_max, wait })
    }

    /// Asks how the shard is on this node.
    pub fn status(&mut self) -> Result<RequestId, RingError> {
        let (request, shard) = (self.outstanding.next(), self.options.shard);
        self.ask(&Request::Status { request, shard })
    }

    /// Asks up to where must be read to miss nothing.
    pub fn read_index(&mut self) -> Result<RequestId, RingError> {
        let (request, shard) = (self.outstanding.next(), self.options.shard);
        self.ask(&Request::ReadIndex { request, shard })
    }

    /// Asks for the shard's leadership to be handed over.
    pub fn transfer(&mut self, to: NodeId) -> Result<RequestId, RingError> {
        let (request, shard) = (self.outstanding.next(), self.options.shard);
        self.ask(&Request::Transfer { request, shard, to })
    }

    /// Has something written down of the shard's stream ([`crate::engine`]); answered when that is committed. A
    /// registration goes to the registrar's shard.
    pub fn stream(&mut self, asked: StreamRequest) -> Result<RequestId, RingError> {
        let (request, shard) = (self.outstanding.next(), self.options.shard);
        self.ask(&Request::Stream { request, shard, asked })
    }

    /// Wants to be told how the shard's stream is, and again whenever that changes: role, epoch, watermark.
    pub fn subscribe(&mut self) -> Result<RequestId, RingError> {
        let (request, shard) = (self.outstanding.next(), self.options.shard);
        self.ask(&Request::Subscribe { request, shard })
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<RequestId, RingError> {
        self.make_room(ROW_BYTES)?;
        let mut reserved = self.end.submits.reserve(ROW_BYTES).expect("room was made for it before");
        reserved.bytes().copy_from_slice(&request.encode()[..ROW_BYTES]);
        reserved.publish();
        self.wake_lane();
        Ok(RequestId(self.outstanding.push()))
    }

    /// Shows every answer that has come, in place, and returns how many there were. Never blocks.
    pub fn poll(&mut self, mut each: impl FnMut(Reply<'_>)) -> usize {
        let mut count = self.outstanding.tell_lost(&mut each);
        if self.ended.is_some() {
            return count;
        }
        // Looked at before the ring: what the lane has said before it left is all there.
        let is_left = self.end.is_left();
        let (mut taken, mut farewell, mut wrong) = (false, false, None);
        loop {
            let frame = match self.end.completions.peek() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(corrupt) => {
                    wrong = Some(corrupt.to_string());
                    break;
                }
            };
            let shown = wire::replies_as_they_are(frame, |reply| match request_of(&reply) {
                None => farewell = true,
                // A subscription is answered again and again.
                Some(request) if matches!(reply, Reply::Stream { .. } | Reply::EpochClosed { .. }) => {
                    count += usize::from(self.outstanding.end(request));
                    each(reply);
                }
                Some(request) if self.outstanding.end(request) => {
                    count += 1;
                    each(reply);
                }
                // A part of what was given up.
                Some(_) => {}
            });
            if let Err(malformed) = shown {
                wrong = Some(malformed.to_string());
                break;
            }
            self.end.completions.advance();
            taken = true;
        }
        if taken && self.end.must_wake_for_room() {
            self.wake();
        }
        if farewell {
            self.outstanding.lose(Outcome::Stopping);
            self.finish("it has stopped".to_owned());
        } else if let Some(wrong) = wrong {
            self.finish(wrong);
        } else if is_left {
            self.finish("its lane has left, or has ended the attachment: see its log".to_owned());
        }
        count + self.outstanding.tell_lost(&mut each)
    }

    /// Waits until [`Attachment::poll`] has something to tell or the node is found to be gone, and says whether that is
    /// so. Spins, then sleeps.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let spin = self.options.spin;
        wait::wait(core::slice::from_mut(self), None, spin, timeout) == Waited::Ready
    }

    fn has_something(&self) -> bool {
        self.outstanding.has_lost()
            || (self.ended.is_none() && (self.end.completions.has_something() || self.end.is_left()))
    }

    /// Whether the node is still at the other end, as far as can be seen without asking it. Makes a system call if the
    /// node is another process.
    pub fn is_attached(&mut self) -> bool {
        self.look();
        self.ended.is_none()
    }

    /// How many requests have no end that was told by [`Attachment::poll`].
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// The serial number of the next record.
    pub fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// Looks whether the node is still there.
    fn look(&mut self) {
        if !self.end.completions.has_something() {
            self.end_if_left();
        }
    }

    /// Looks whether the node is still there, whatever it has said before it went.
    fn end_if_left(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if self.end.is_left() {
            self.finish("its lane has left, or has ended the attachment: see its log".to_owned());
        } else if self.hold.as_ref().is_some_and(Hold::is_hung_up) {
            self.finish("its process has ended".to_owned());
        }
    }

    /// Looks, and says whether it has ended just now.
    fn finds_end(&mut self) -> bool {
        let was_there = self.ended.is_none();
        self.look();
        was_there && self.ended.is_some()
    }

    /// The same, for who comes often: at most once in a while, for it is a system call.
    fn finds_end_in_time(&mut self, now: Instant) -> bool {
        let is_due = now.duration_since(self.looked_at) >= wait::LOOK_PERIOD;
        if is_due {
            self.looked_at = now;
        }
        is_due && self.finds_end()
    }

    fn finish(&mut self, why: String) {
        self.outstanding.lose(Outcome::Unknown);
        self.ended = Some(why);
    }
}

impl Reservation<'_> {
    /// The room, with whatever was there before.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        let reserved = self.attachment.end.submits.reserve(ROW_BYTES + self.len_bytes);
        &mut reserved.expect("room was made for it before").into_bytes()[ROW_BYTES..]
    }

    /// Submits what was written.
    #[inline]
    pub fn publish(self, timestamp: Timestamp, epoch: Epoch, acks: Acks) -> RequestId {
        let Reservation { attachment, len_bytes } = self;
        let label = Label { timestamp, epoch, acks, more_bytes: 0 };
        attachment.publish(attachment.outstanding.next(), len_bytes, label, |_| ());
        attachment.published()
    }
}

fn request_of(reply: &Reply<'_>) -> Option<u64> {
    match reply {
        Reply::Outcome { request, .. }
        | Reply::Records { request, .. }
        | Reply::Status { request, .. }
        | Reply::ReadIndex { request, .. }
        | Reply::Stream { request, .. }
        | Reply::EpochClosed { request, .. } => Some(*request),
        Reply::Farewell => None,
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Busy => write!(f, "the ring is full: take completions, then try again"),
            RingError::Size { len_bytes, max } => {
                write!(f, "a record of {len_bytes} bytes: 1 to {max} are allowed")
            }
            RingError::Ended(why) => write!(f, "not attached to the node: {why}; attach again"),
        }
    }
}

impl std::error::Error for RingError {}
