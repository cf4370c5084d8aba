//! The client over TCP: synchronous, polled, without threads. For an engine on a node's own host there is [`ring`].
//!
//! [`Client`] submits records, many at a time, and tells each one's end exactly once through [`Client::poll`]. It looks
//! for each shard's leader among the members, follows redirects, and keeps one connection per node and lane, opened
//! when it is needed. [`Reader`] gives the committed records of one shard as a chosen node holds them.
//!
//! ```no_run
//! use core::time::Duration;
//! use plimsoll::client::{Client, Options, Submit};
//! use plimsoll::types::{ClusterId, NodeId, ShardId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let members = vec![(NodeId(1), "127.0.0.1:7200".parse()?)];
//! let mut client = Client::connect(Options::new(ClusterId(7), members))?;
//! client.submit(Submit::new(ShardId(0), b"a record"))?;
//! let mut completions = Vec::new();
//! while completions.is_empty() {
//!     client.poll(Duration::from_secs(1), &mut completions);
//! }
//! println!("{}", completions[0].outcome);
//! # Ok(())
//! # }
//! ```
//!
//! # What may be relied on
//! *One end each.* Every submit that was taken in ends in exactly one [`Completion`], at the latest at its deadline.
//! *Order.* Of the submits of one client to one shard, those that are committed are in the log in the order in which
//! they were submitted (`order.rs` says how that is kept over redirects).
//! *Nothing twice.* Only what a node said it did not take is offered again. What was sent and lost its connection ends
//! as [`Outcome::Unknown`], and is for the caller to look up.
//! *Bounds.* What is outstanding, in number and bytes, is bounded by [`Options`]; so are all buffers.

mod connection;
mod options;
mod order;
mod question;
mod reader;
mod records;
pub mod ring;
mod socket;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::epoll;

pub use self::options::{ClientError, Completion, Options, Outcome, RequestId, Submit, SubmitError};
use self::order::Route;
pub use self::question::Records;
use self::question::{Question, Waiting};
pub use self::reader::Reader;
pub use self::records::{Item, Record};
use self::socket::Slot;
use crate::limits::{ENTRY_PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};
use crate::log::record::payload_crc;
use crate::types::{Acks, Epoch, LaneId, NodeId, ShardId, Timestamp};
use crate::wire::client as wire;

/// Payload buffers that are kept for later submits.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 << 10;

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    options: Options,
    epoll: std::os::fd::OwnedFd,
    /// By [`Client::slot`]: lane by lane, each with all members.
    slots: Vec<Slot>,
    lanes: u16,
    shards: u32,
    routes: BTreeMap<ShardId, Route>,
    /// The shards of which something waits to be sent.
    waiting: BTreeSet<ShardId>,
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    completions: VecDeque<Completion>,
    questions: BTreeMap<u64, Question>,
    /// Reads that are waiting at a node, one for each of its shards.
    waiting_reads: BTreeMap<(NodeId, ShardId), Waiting>,
    next_id: u64,
    spare: Vec<Vec<u8>>,
    trouble: Option<ClientError>,
}

/// A submit without an end.
#[derive(Debug)]
struct Pending {
    shard: ShardId,
    payload: Vec<u8>,
    acks: Acks,
    timestamp: Timestamp,
    epoch: Epoch,
    session: u64,
    serial: u64,
    submitted: Instant,
    /// Counts how often it was sent, so that a late answer to an earlier attempt is not taken for this one's.
    attempt: u8,
    /// On which connection it is in flight.
    slot: Option<usize>,
    /// Who was said to lead when it was last rejected.
    leader: Option<NodeId>,
}

impl Client {
    /// Reaches one node, which tells lanes and shards. Tries all members until the deadline of [`Options`].
    pub fn connect(options: Options) -> Result<Client, ClientError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| ClientError::System(error.to_string()))?;
        if options.members.is_empty() {
            return Err(ClientError::Nobody("no member is given".to_owned()));
        }
        let mut client = Client {
            slots: Vec::new(),
            lanes: 0,
            shards: 0,
            routes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            completions: VecDeque::new(),
            questions: BTreeMap::new(),
            waiting_reads: BTreeMap::new(),
            next_id: 1,
            spare: Vec::new(),
            trouble: None,
            epoll,
            options,
        };
        client.greet()?;
        Ok(client)
    }

    /// Takes in a record; it is sent with the next [`Client::flush`] or [`Client::poll`], together with what else was
    /// submitted until then.
    pub fn submit(&mut self, submit: Submit<'_>) -> Result<RequestId, SubmitError> {
        let len_bytes = submit.payload.len();
        if len_bytes == 0 || len_bytes > RECORD_BYTES_MAX.min(self.options.outstanding_bytes_max) {
            return Err(SubmitError::Size { len_bytes });
        }
        if submit.shard.0 >= self.shards {
            return Err(SubmitError::Shard { shard: submit.shard, shards: self.shards });
        }
        if self.outstanding() >= self.options.outstanding_max
            || self.pending_bytes + len_bytes > self.options.outstanding_bytes_max
        {
            return Err(SubmitError::Full);
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut payload = self.spare.pop().unwrap_or_default();
        payload.extend_from_slice(submit.payload);
        self.pending_bytes += len_bytes;
        let Submit { shard, acks, timestamp, epoch, session, serial, .. } = submit;
        let pending = Pending {
            shard,
            payload,
            acks,
            timestamp,
            epoch,
            session,
            serial,
            submitted: Instant::now(),
            attempt: 0,
            slot: None,
            leader: None,
        };
        self.pending.insert(id, pending);
        self.route(shard).queue.push_back(id);
        self.waiting.insert(shard);
        Ok(RequestId(id))
    }

    /// Sends what was submitted, as far as it can go now, with one write per connection. Never blocks.
    pub fn flush(&mut self) {
        let now = Instant::now();
        self.regroup(now);
        self.fill(now);
        self.write_all(now);
    }

    /// Flushes, waits up to `timeout` until at least one submit has come to its end, adds the ends to `completions` and
    /// returns how many there were. A zero timeout never blocks.
    pub fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> usize {
        let started = Instant::now();
        let (spin, until) = (started + self.options.spin.min(timeout), started + timeout);
        let mut now = started;
        loop {
            // What a caller is not told yet may change what it wants sent: nothing is sent over an untold completion.
            if self.completions.is_empty() {
                self.flush();
            }
            let wait = if now < spin || !self.completions.is_empty() { now } else { until };
            self.turn(wait);
            if !self.completions.is_empty() {
                let count = self.completions.len();
                completions.extend(self.completions.drain(..));
                return count;
            }
            now = Instant::now();
            if now >= until {
                return 0;
            }
            if now < spin {
                std::thread::yield_now();
            }
        }
    }

    /// How many submits have no end that was taken from [`Client::poll`] yet.
    pub fn outstanding(&self) -> usize {
        self.pending.len() + self.completions.len()
    }

    /// The cluster's lanes.
    pub fn lanes(&self) -> u16 {
        self.lanes
    }

    /// The cluster's shards.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// The node that is believed to lead the shard: that to which its submits go.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.routes.get(&shard).map(|route| self.options.members[route.member].0)
    }

    /// The last that went wrong with a connection, for whoever wonders why submits end badly.
    pub fn trouble(&self) -> Option<&ClientError> {
        self.trouble.as_ref()
    }

    fn route(&mut self, shard: ShardId) -> &mut Route {
        // A connection that is already there is the best guess.
        let lane = shard.lane(self.lanes);
        let members = self.options.members.len();
        let first = usize::from(lane.0) * members;
        let guess = self.slots[first..first + members].iter().position(|slot| slot.connection.is_some());
        self.routes.entry(shard).or_insert_with(|| Route::new(guess.unwrap_or(0)))
    }

    fn slot(&self, member: usize, lane: LaneId) -> usize {
        usize::from(lane.0) * self.options.members.len() + member
    }

    fn regroup(&mut self, now: Instant) {
        for shard in &self.waiting {
            if let Some(route) = self.routes.get_mut(shard) {
                route.regroup(self.options.members.len(), now);
            }
        }
    }

    /// Cuts what waits into frames, as far as connections have room.
    fn fill(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            self.continue_cut(slot);
        }
        let mut emptied = Vec::new();
        for shard in self.waiting.clone() {
            let Some(route) = self.routes.get(&shard) else { continue };
            let (member, lane) = (route.member, shard.lane(self.lanes));
            if !self.ensure_open(member, lane, now) {
                continue;
            }
            let slot = self.slot(member, lane);
            self.fill_from(shard, slot, now);
            if self.routes.get(&shard).is_some_and(Route::is_idle) {
                emptied.push(shard);
            }
        }
        for shard in emptied {
            self.waiting.remove(&shard);
        }
    }

    fn fill_from(&mut self, shard: ShardId, slot: usize, now: Instant) {
        loop {
            let Some(connection) = &self.slots[slot].connection else { return };
            if !connection.has_room() || connection.cut.is_some() {
                return;
            }
            let Some(id) = self.routes.get_mut(&shard).and_then(|route| route.send_next(now)) else { return };
            let pending = self.pending.get_mut(&id).expect("what is queued is pending");
            pending.attempt = pending.attempt.wrapping_add(1);
            pending.slot = Some(slot);
            let cut = connection::Cut { id, attempt: pending.attempt, offset: 0 };
            if let Some(connection) = &mut self.slots[slot].connection {
                connection.cut = Some(cut);
            }
            self.continue_cut(slot);
        }
    }

    /// Sends further parts of the record that is being cut, while there is room.
    fn continue_cut(&mut self, slot: usize) {
        let Some(connection) = &mut self.slots[slot].connection else { return };
        while let Some(cut) = connection.cut {
            // A record that was refused while it was being cut needs no more parts: the next submit breaks it off.
            let pending = self.pending.get(&cut.id);
            let Some(pending) = pending.filter(|it| it.slot == Some(slot) && it.attempt == cut.attempt)
            else {
                connection.cut = None;
                return;
            };
            if !connection.has_room() {
                return;
            }
            let rest = &pending.payload[cut.offset..];
            let part = &rest[..rest.len().min(ENTRY_PAYLOAD_BYTES_MAX)];
            let more_bytes = rest.len() - part.len();
            let submit = wire::Submit {
                request: wire_id(cut.id, cut.attempt),
                shard: pending.shard,
                acks: pending.acks,
                timestamp: pending.timestamp,
                epoch: pending.epoch,
                session: pending.session,
                serial: pending.serial,
                payload_crc: payload_crc(part),
                more_bytes: u32::try_from(more_bytes).expect("a record is shorter than 4 GiB"),
                payload: part,
            };
            connection.push(&wire::Request::Submit(submit), part);
            connection.cut =
                (more_bytes > 0).then_some(connection::Cut { offset: cut.offset + part.len(), ..cut });
        }
    }

    /// Takes in the end of a submit that was in flight.
    fn answered(&mut self, slot: usize, request: u64, outcome: wire::Outcome, now: Instant) {
        let (id, attempt) = (request >> 8, request as u8);
        let current = |pending: &&mut Pending| pending.slot == Some(slot) && pending.attempt == attempt;
        // A late answer to what was given up, or to an earlier attempt, means nothing any more.
        let Some(pending) = self.pending.get_mut(&id).filter(current) else { return };
        let shard = pending.shard;
        let outcome = match outcome {
            // A node that stops took nothing of it either, and hands its leadership over.
            wire::Outcome::NotLeader { leader } => return self.not_taken(id, leader, now),
            wire::Outcome::Stopping => return self.not_taken(id, None, now),
            wire::Outcome::Committed { id, timestamp } => {
                self.route(shard).settled();
                Outcome::Committed { id, timestamp }
            }
            wire::Outcome::Busy => {
                self.route(shard).settled();
                Outcome::Busy
            }
            wire::Outcome::LogFull => Outcome::LogFull,
            wire::Outcome::Unknown => Outcome::Unknown,
            wire::Outcome::Behind { last } => Outcome::Behind { last },
            wire::Outcome::Unregistered => Outcome::Unregistered,
            wire::Outcome::EpochClosed { open } => Outcome::EpochClosed { open },
            wire::Outcome::Invalid | wire::Outcome::Accepted => Outcome::Invalid,
        };
        self.end_in_flight(id, outcome, now);
    }

    /// A node did not take a submit that was in flight to it: another may, unless what came before it failed.
    fn not_taken(&mut self, id: u64, leader: Option<NodeId>, now: Instant) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let shard = pending.shard;
        pending.leader = leader;
        if self.route(shard).is_broken() {
            return self.end_in_flight(id, Outcome::NotLeader { leader }, now);
        }
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.slot = None;
        }
        let member = leader.and_then(|node| self.member(node).ok());
        self.route(shard).rejected(id, member);
        self.waiting.insert(shard);
    }

    /// Ends a submit that is in flight, and those that cannot be kept in order because of it.
    fn end_in_flight(&mut self, id: u64, outcome: Outcome, now: Instant) {
        let Some(shard) = self.pending.get(&id).map(|pending| pending.shard) else { return };
        let mut overtaken = Vec::new();
        let may_be_in_log = outcome.is_committed() || outcome.is_unknown();
        self.route(shard).ended(id, may_be_in_log, &mut overtaken);
        self.complete(id, outcome, now);
        for id in &overtaken {
            self.end_rejected(*id, now);
        }
        if self.options.strict_order && (!outcome.is_committed() || !overtaken.is_empty()) {
            self.withdraw(shard, now);
        }
    }

    fn end_rejected(&mut self, id: u64, now: Instant) {
        let leader = self.pending.get(&id).and_then(|pending| pending.leader);
        self.complete(id, Outcome::NotLeader { leader }, now);
    }

    /// Nothing of the shard that comes after a failure may go out any more.
    fn withdraw(&mut self, shard: ShardId, now: Instant) {
        for id in self.route(shard).break_off() {
            self.end_rejected(id, now);
        }
        let queue = core::mem::take(&mut self.route(shard).queue);
        for id in queue {
            self.complete(id, Outcome::Withdrawn, now);
        }
    }

    fn complete(&mut self, id: u64, outcome: Outcome, now: Instant) {
        let Some(mut pending) = self.pending.remove(&id) else { return };
        self.pending_bytes -= pending.payload.len();
        let latency = now.saturating_duration_since(pending.submitted);
        self.completions.push_back(Completion {
            request: RequestId(id),
            shard: pending.shard,
            outcome,
            latency,
        });
        if self.spare.len() < SPARE_MAX && pending.payload.capacity() <= SPARE_BYTES_MAX {
            pending.payload.clear();
            self.spare.push(pending.payload);
        }
    }

    /// Everything in flight on a connection that is gone is unknown.
    fn lost(&mut self, slot: usize, now: Instant) {
        for id in self.in_flight(slot) {
            self.end_in_flight(id, Outcome::Unknown, now);
        }
    }

    /// The node stops: what it has not answered on this connection it has not taken, and takes nothing more.
    fn farewell(&mut self, slot: usize, now: Instant) {
        for id in self.in_flight(slot) {
            self.not_taken(id, None, now);
        }
        self.close(slot, "it has stopped".to_owned(), now);
    }

    fn in_flight(&self, slot: usize) -> Vec<u64> {
        let here = self.pending.iter().filter(|(_, pending)| pending.slot == Some(slot));
        here.map(|(id, _)| *id).collect()
    }

    /// Gives up what is past its deadline. Deadlines ascend with the ids.
    fn expire(&mut self, now: Instant) {
        while let Some((&id, pending)) = self.pending.first_key_value() {
            if now < pending.submitted + self.options.deadline {
                return;
            }
            let (shard, slot, submitted, leader) =
                (pending.shard, pending.slot, pending.submitted, pending.leader);
            let Some(slot) = slot else {
                self.route(shard).forget(id);
                self.complete(id, Outcome::NotLeader { leader }, now);
                if self.options.strict_order {
                    self.withdraw(shard, now);
                }
                continue;
            };
            self.end_in_flight(id, Outcome::Deadline, now);
            let silent = self.slots[slot].connection.as_ref().is_some_and(|connection| {
                connection.heard <= submitted || connection.cut.is_some_and(|cut| cut.id == id)
            });
            if silent {
                self.close(slot, "it did not answer before the deadline of a submit".to_owned(), now);
            }
        }
    }

    fn member(&self, node: NodeId) -> Result<usize, ClientError> {
        let at = self.options.members.iter().position(|(id, _)| *id == node);
        at.ok_or(ClientError::NoSuchMember(node))
    }
}

/// An epoll descriptor that is readable when [`Client::poll`] has something to do. It does not show deadlines that pass
/// or connections that are due to be opened again: poll at least every few milliseconds while something is outstanding.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// The number that names a submit on the wire.
fn wire_id(id: u64, attempt: u8) -> u64 {
    id << 8 | u64::from(attempt)
}
