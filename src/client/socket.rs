//! The client's connections: opened when wanted, greeted, watched, closed with a reason.

use core::time::Duration;
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use super::connection::{Connection, State, greeted};
use super::{Client, ClientError};
use crate::types::{LaneId, StoreId};
use crate::wire::client as wire;
use crate::wire::frame::{self, Kind};
use crate::wire::hello::Hello;

/// How long a node is left alone after a connection to it failed.
const REST: Duration = Duration::from_millis(10);
/// Frames' reads from one connection in one turn, so that one that sends without end does not keep the others waiting.
const READS_PER_TURN: usize = 16;

/// Where a connection to one lane of one node is, or was.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) connection: Option<Connection>,
    /// It is not opened again before.
    not_before: Option<Instant>,
    /// How often it failed, and why the last time.
    pub(super) failures: u64,
    pub(super) why: String,
}

impl Client {
    /// Waits until one node has told lanes and shards.
    pub(super) fn greet(&mut self) -> Result<(), ClientError> {
        let members = self.options.members.len();
        self.slots.resize_with(members, Slot::default);
        let until = Instant::now() + self.options.deadline;
        while self.lanes == 0 {
            let now = Instant::now();
            if now >= until {
                return Err(ClientError::Nobody(self.what_all_said()));
            }
            for member in 0..members {
                self.ensure_open(member, LaneId(0), now);
            }
            self.turn(until.min(now + REST));
        }
        self.slots.resize_with(members * usize::from(self.lanes), Slot::default);
        Ok(())
    }

    fn what_all_said(&self) -> String {
        let said = self.options.members.iter().zip(&self.slots).map(|((node, address), slot)| {
            let why = if slot.why.is_empty() { "no answer" } else { &slot.why };
            format!("node {node} at {address}: {why}")
        });
        said.collect::<Vec<_>>().join("; ")
    }

    /// Whether there is a connection that takes requests; starts to open one if not.
    pub(super) fn ensure_open(&mut self, member: usize, lane: LaneId, now: Instant) -> bool {
        let at = self.slot(member, lane);
        let slot = &mut self.slots[at];
        if let Some(connection) = &slot.connection {
            return connection.state == State::Ready;
        }
        if slot.not_before.is_some_and(|time| now < time) {
            return false;
        }
        let lanes = if self.lanes > 0 { self.lanes } else { self.options.lanes };
        let hello =
            Hello { cluster: self.options.cluster, node: None, store: StoreId(0), to: None, lane, lanes };
        let opened =
            Connection::open(self.options.address(member, lane), hello, now).and_then(|connection| {
                let data = epoll::EventData::new_u64(at as u64);
                let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                epoll::add(&self.epoll, &connection, data, flags)?;
                Ok(connection)
            });
        match opened {
            Ok(connection) => slot.connection = Some(connection),
            Err(error) => self.close(at, format!("cannot connect: {error}"), now),
        }
        false
    }

    /// Takes in what is ready, or waits for it until `until` at most, and gives up what is due.
    pub(super) fn turn(&mut self, until: Instant) {
        let now = Instant::now();
        let wait = self.next_due(until).saturating_duration_since(now);
        let timeout =
            Timespec { tv_sec: wait.as_secs().min(3600) as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut events = Vec::with_capacity(16);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => self.trouble = Some(ClientError::System(error.to_string())),
        }
        let now = Instant::now();
        for epoll::Event { data, flags } in events {
            let at = data.u64() as usize;
            if flags.contains(epoll::EventFlags::OUT) || flags.contains(epoll::EventFlags::ERR) {
                self.writable(at, now);
            }
            self.readable(at, now);
        }
        self.check_greetings(now);
        self.expire(now);
    }

    /// The earliest time at which something happens by itself, at most `until`.
    fn next_due(&self, until: Instant) -> Instant {
        let mut due = until;
        if let Some((_, oldest)) = self.pending.first_key_value() {
            due = due.min(oldest.submitted + self.options.deadline);
        }
        for slot in &self.slots {
            match &slot.connection {
                Some(connection) if connection.state != State::Ready => {
                    due = due.min(connection.opened + self.options.connect_timeout);
                }
                _ => {}
            }
        }
        for shard in &self.waiting {
            let Some(route) = self.routes.get(shard) else { continue };
            let slot = &self.slots[self.slot(route.member, shard.lane(self.lanes))];
            let rests = if slot.connection.is_none() { slot.not_before } else { None };
            // What waits for an answer or for room is woken by its connection.
            due = [route.not_before, rests]
                .into_iter()
                .flatten()
                .filter(|time| *time > Instant::now())
                .fold(due, Instant::min);
        }
        due
    }

    fn writable(&mut self, at: usize, now: Instant) {
        let Some(connection) = self.slots.get_mut(at).and_then(|slot| slot.connection.as_mut()) else {
            return;
        };
        if connection.state == State::Connecting
            && let Err(error) = connection.connected()
        {
            return self.close(at, format!("cannot connect: {error}"), now);
        }
        self.continue_cut(at);
        self.write(at, now);
    }

    /// Writes what waits, and watches for room exactly as long as something is left.
    fn write(&mut self, at: usize, now: Instant) {
        let Some(connection) = self.slots[at].connection.as_mut() else { return };
        if connection.state == State::Connecting {
            return;
        }
        let left = match connection.write() {
            Ok(left) => left || connection.cut.is_some(),
            Err(error) => {
                // The node is gone, but its last words may have come: they say how some of the submits ended.
                while self.read_some(at, now) {}
                return self.close_if_open(at, format!("the connection broke: {error}"), now);
            }
        };
        if left != connection.watches_write {
            connection.watches_write = left;
            let flags =
                if left { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            let data = epoll::EventData::new_u64(at as u64);
            if let Err(error) = epoll::modify(&self.epoll, &*connection, data, flags) {
                self.close(at, format!("cannot be watched: {error}"), now);
            }
        }
    }

    pub(super) fn write_all(&mut self, now: Instant) {
        for at in 0..self.slots.len() {
            self.write(at, now);
        }
    }

    fn readable(&mut self, at: usize, now: Instant) {
        for _ in 0..READS_PER_TURN {
            if !self.read_some(at, now) {
                return;
            }
        }
    }

    /// Reads once. Whether something came, and the connection is still there.
    fn read_some(&mut self, at: usize, now: Instant) -> bool {
        let Some(connection) = self.slots.get_mut(at).and_then(|slot| slot.connection.as_mut()) else {
            return false;
        };
        if connection.state == State::Connecting {
            return false;
        }
        match connection.receive() {
            Ok(true) => connection.heard = now,
            Ok(false) => return false,
            Err(error) => {
                self.close(at, format!("the connection broke: {error}"), now);
                return false;
            }
        }
        let incoming = connection.take_incoming();
        let outcome = self.take_frames(at, &incoming, now);
        // A frame may have closed the connection; its bytes go with it.
        if let Some(connection) = self.slots[at].connection.as_mut() {
            connection.put_incoming(incoming);
        }
        if let Err(what) = outcome {
            self.close_if_open(at, what, now);
        }
        self.slots[at].connection.is_some()
    }

    fn take_frames(&mut self, at: usize, incoming: &[u8], now: Instant) -> Result<(), String> {
        let garbled = |malformed: crate::wire::Malformed| format!("sent what makes no sense: {malformed}");
        loop {
            let Some(connection) = self.slots[at].connection.as_mut() else { return Ok(()) };
            let (lane, greeting) = (connection.lane, connection.state == State::Greeting);
            let Some(range) = connection.next_frame(incoming).map_err(garbled)? else { return Ok(()) };
            let frame = &incoming[range];
            if greeting {
                self.take_greeting(at, lane, frame)?;
                continue;
            }
            let (kind, _, _) = frame::open(frame).map_err(garbled)?;
            if kind != Kind::Reply {
                return Err(format!("sent a frame of kind {kind:?} to a client"));
            }
            for reply in wire::replies(frame).map_err(garbled)? {
                match reply {
                    wire::Reply::Outcome { request, outcome }
                        if !self.questions.contains_key(&(request >> 8)) =>
                    {
                        self.answered(at, request, outcome, now);
                    }
                    wire::Reply::Farewell => {
                        self.farewell(at, now);
                        return Ok(());
                    }
                    answer => self.question_answered(at, answer),
                }
            }
        }
    }

    fn take_greeting(&mut self, at: usize, lane: LaneId, frame: &[u8]) -> Result<(), String> {
        let node = self.options.members[at % self.options.members.len()].0;
        let (lanes, shards) = greeted(frame, node, lane)?;
        if self.lanes == 0 {
            (self.lanes, self.shards) = (lanes, shards);
        }
        if (lanes, shards) != (self.lanes, self.shards) {
            return Err(format!(
                "it has {lanes} lanes and {shards} shards where others have {} and {}",
                self.lanes, self.shards
            ));
        }
        if let Some(connection) = self.slots[at].connection.as_mut() {
            connection.state = State::Ready;
        }
        Ok(())
    }

    fn check_greetings(&mut self, now: Instant) {
        for at in 0..self.slots.len() {
            let late = self.slots[at].connection.as_ref().is_some_and(|connection| {
                connection.state != State::Ready && now >= connection.opened + self.options.connect_timeout
            });
            if late {
                self.close(at, "it did not accept or greet in time".to_owned(), now);
            }
        }
    }

    fn close_if_open(&mut self, at: usize, why: String, now: Instant) {
        if self.slots[at].connection.is_some() {
            self.close(at, why, now);
        }
    }

    /// Drops a connection: what is in flight on it is unknown, and its shards turn elsewhere.
    pub(super) fn close(&mut self, at: usize, why: String, now: Instant) {
        let members = self.options.members.len();
        let (member, lane) = (at % members, LaneId((at / members) as u16));
        let slot = &mut self.slots[at];
        if let Some(connection) = slot.connection.take() {
            connection.abort();
        }
        slot.failures += 1;
        slot.not_before = Some(now + REST);
        slot.why.clone_from(&why);
        let (node, address) = (self.options.members[member].0, self.options.address(member, lane));
        let error = ClientError::Unreachable { node, address, why };
        for question in self.questions.values_mut().filter(|question| question.slot == at) {
            question.answer.get_or_insert_with(|| Err(error.clone()));
        }
        self.trouble = Some(error);
        self.lost(at, now);
        let lanes = self.lanes;
        for (shard, route) in &mut self.routes {
            if route.member == member && shard.lane(lanes) == lane {
                route.turn_away(members, now);
            }
        }
    }
}
