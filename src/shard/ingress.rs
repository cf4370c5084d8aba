//! What clients ask: submits become entries, bounded at every step.
//!
//! A bound that lasts is an answer (`Busy`, `LogFull`). A bound that passes within a write or two (no chunk free, the
//! next segment not ready) is no answer but a pause: the rest of the frame is held, the port is not read, and the
//! sockets push back.

use alloc::vec::Vec;

use super::clients::ClientRef;
use super::parts::Assembly;
use super::pending::Pending;
use super::reads::WaitingRead;
use super::{Groups, World};
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::limits::{SUBMIT_BYTES_PER_TURN_MAX, SUBMITS_PENDING_MAX, SUBMITS_PER_TURN_MAX};
use crate::log::record::{FLAG_CONTINUES, Kind};
use crate::log::{NewEntry, NoRoom, WrongSum};
use crate::raft::{Input, Refused, Role};
use crate::types::{Acks, EntryId, NodeId, Stamp, Time};
use crate::wire::client::{Outcome, Reply, Request, ShardStatus, Submit};
use crate::wire::{self};

/// The state between turns.
#[derive(Default)]
pub(super) struct Ingress {
    /// The frame whose rest waits for room; empty: none.
    held: Vec<u8>,
    held_from: Option<ClientRef>,
    /// How many of its requests are done.
    held_done: usize,
    /// The bytes of records in parts that are being put together or laid.
    pub(super) assembling_bytes: usize,
    /// The turn's time.
    pub(super) now: Time,
    /// Clients that broke the protocol in this turn, and how.
    broken: Vec<(ClientId, wire::Malformed)>,
}

/// What became of a request.
#[derive(PartialEq, Eq)]
pub(super) enum Taken {
    Done,
    /// There is no room at this moment: again in the next turn.
    NotNow,
}

impl<W: World> Groups<W> {
    /// Takes in what clients ask, at most [`SUBMITS_PER_TURN_MAX`] requests or [`SUBMIT_BYTES_PER_TURN_MAX`], and a
    /// frame.
    pub(super) fn take_requests(&mut self, now: Time, port: &mut W::Port) -> usize {
        self.ingress.now = now;
        let mut taken = self.lay_large();
        taken += self.resume_held(now);
        if self.ingress.held_from.is_some() {
            return taken;
        }
        let (mut requests, mut len_bytes) = (0, 0);
        taken += port.poll(now, &mut |event| {
            if let PortEvent::Frame { bytes, .. } | PortEvent::Request { payload: bytes, .. } = event {
                len_bytes += bytes.len();
            }
            match event {
                PortEvent::Opened(client) => self.clients.open(client),
                PortEvent::Closed(client) => self.forget_client(client),
                // Said farewell to; read only so that the connection closes in order.
                PortEvent::Frame { .. } | PortEvent::Request { .. } if self.drain.is_parting() => {
                    requests += 1
                }
                PortEvent::Frame { from, bytes } => requests += self.on_requests(now, from, bytes),
                PortEvent::Request { from, row, payload } => {
                    if self.on_request(now, from, row, payload) == Taken::NotNow {
                        return Flow::Again;
                    }
                    requests += 1;
                }
            }
            let enough = requests >= SUBMITS_PER_TURN_MAX || len_bytes >= SUBMIT_BYTES_PER_TURN_MAX;
            if self.ingress.held_from.is_none() && !enough { Flow::More } else { Flow::Stop }
        });
        for (client, malformed) in self.ingress.broken.drain(..) {
            port.close(client, &alloc::format!("{malformed}"));
        }
        taken
    }

    fn forget_client(&mut self, client: ClientId) {
        if let Some(Assembly::Taking(parts)) = self.clients.close(client) {
            self.ingress.assembling_bytes -= parts.total_bytes;
        }
    }

    /// Goes on with the frame that was held in an earlier turn.
    fn resume_held(&mut self, now: Time) -> usize {
        let Some(client) = self.ingress.held_from.take() else { return 0 };
        let mut frame = core::mem::take(&mut self.ingress.held);
        let done = self.ingress.held_done;
        let after =
            self.take_frame(now, client, &frame, done).expect("the frame was found good when it came");
        if self.ingress.held_from.is_none() {
            frame.clear();
        }
        self.ingress.held = frame;
        after - done
    }

    /// What waits for room will not be taken.
    pub(super) fn pass_over_held(&mut self) {
        self.ingress.held_from = None;
        self.ingress.held.clear();
    }

    fn on_requests(&mut self, now: Time, from: ClientId, frame: &[u8]) -> usize {
        let client = self.clients.find(from).expect("a port opens a client before it gives its frames");
        match self.take_frame(now, client, frame, 0) {
            Ok(done) => {
                if self.ingress.held_from.is_some() {
                    self.ingress.held.clear();
                    self.ingress.held.extend_from_slice(frame);
                }
                done
            }
            Err(malformed) => {
                self.ingress.broken.push((from, malformed));
                0
            }
        }
    }

    /// Takes one request that lies in shared memory. What finds no room stays there: nothing is held.
    fn on_request(&mut self, now: Time, from: ClientId, row: &[u8; 64], payload: &[u8]) -> Taken {
        let client = self.clients.find(from).expect("a port opens a client before it gives its requests");
        match wire::client::request(row, payload) {
            Ok(request) => self.take_request(now, client, request),
            Err(malformed) => {
                self.ingress.broken.push((from, malformed));
                Taken::Done
            }
        }
    }

    /// Takes the frame's requests from the one numbered `done` on; returns how many are done then, and says in
    /// `held_from` whether some are not.
    fn take_frame(
        &mut self,
        now: Time,
        client: ClientRef,
        frame: &[u8],
        mut done: usize,
    ) -> Result<usize, wire::Malformed> {
        for request in wire::client::requests(frame)?.skip(done) {
            if self.take_request(now, client, request) == Taken::NotNow {
                self.ingress.held_from = Some(client);
                self.ingress.held_done = done;
                break;
            }
            done += 1;
        }
        Ok(done)
    }

    fn take_request(&mut self, now: Time, client: ClientRef, request: Request<'_>) -> Taken {
        let (number, shard) = match &request {
            Request::Submit(submit) => (submit.request, submit.shard),
            Request::Read { request, shard, .. }
            | Request::Status { request, shard }
            | Request::Transfer { request, shard, .. }
            | Request::ReadIndex { request, shard }
            | Request::Stream { request, shard, .. }
            | Request::Subscribe { request, shard } => (*request, *shard),
        };
        let Some(at) = self.position(shard) else {
            self.clients.answer(client, number, Outcome::Invalid);
            return Taken::Done;
        };
        match request {
            Request::Submit(submit) => return self.take_submit(at, client, submit),
            Request::Read { request, from, bytes_max, wait, .. } => {
                let bytes_max = bytes_max as usize;
                self.take_read(at, WaitingRead { client, request, from, bytes_max, wait });
            }
            Request::Status { request, .. } => {
                let status = self.status(at);
                self.clients.reply(client, &Reply::Status { request, status });
            }
            Request::Transfer { request, to, .. } => {
                let outcome = self.transfer(now, at, to);
                self.clients.answer(client, request, outcome);
            }
            Request::ReadIndex { request, .. } => self.ask_read_index(now, at, client, request),
            Request::Stream { request, asked, .. } => self.take_stream_request(at, client, request, asked),
            Request::Subscribe { request, .. } => self.subscribe(at, client, request),
        }
        Taken::Done
    }

    pub(super) fn status(&self, at: usize) -> ShardStatus {
        let shard = &self.shards[at];
        ShardStatus {
            shard: shard.id,
            role: shard.raft.role(),
            term: shard.raft.term(),
            leader: shard.raft.leader(),
            last: shard.raft.last(),
            commit: shard.raft.commit(),
            durable: shard.durable,
            elections: shard.elections,
        }
    }

    fn transfer(&mut self, now: Time, at: usize, to: NodeId) -> Outcome {
        if self.shards[at].raft.role() != Role::Leader {
            return Outcome::NotLeader { leader: self.shards[at].raft.leader() };
        }
        if !self.options.voters.contains(&to) {
            return Outcome::Invalid;
        }
        if to != self.options.node && !self.shards[at].raft.hears(to, now) {
            return Outcome::Busy;
        }
        self.step(now, at, Input::Transfer { to }, &[]);
        Outcome::Accepted
    }

    fn take_submit(&mut self, at: usize, client: ClientRef, submit: Submit<'_>) -> Taken {
        if let Some(taken) = self.go_on_with_parts(at, client, &submit) {
            return taken;
        }
        if submit.more_bytes > 0 {
            self.begin_parts(at, client, &submit);
            return Taken::Done;
        }
        let shard = &self.shards[at];
        if shard.large.is_some() {
            return Taken::NotNow;
        }
        let room = self.log.room_for(submit.payload.len());
        let outcome = match self.refusal_to_lay(at) {
            Some(refusal) => refusal,
            None if room == Err(NoRoom::Busy) => return Taken::NotNow,
            None if room == Err(NoRoom::Full) => Outcome::LogFull,
            None => match self.lay(at, entry_of(&submit), submit.payload) {
                Ok(id) => {
                    let pending =
                        Pending { id, client, request: submit.request, timestamp: submit.timestamp };
                    self.wait_for(at, submit.acks, pending);
                    return Taken::Done;
                }
                Err(refused) => refused,
            },
        };
        self.refuse_stamp(at, Stamp::new(submit.epoch, submit.timestamp), &outcome);
        self.clients.answer(client, submit.request, outcome);
        Taken::Done
    }

    /// Why nothing new is laid for a client at all, apart from room in the log.
    pub(super) fn refusal_to_lay(&self, at: usize) -> Option<Outcome> {
        let shard = &self.shards[at];
        if self.drain.has_begun() {
            Some(Outcome::Stopping)
        } else if shard.raft.role() != Role::Leader {
            Some(Outcome::NotLeader { leader: shard.raft.leader() })
        } else if shard.pending() >= SUBMITS_PENDING_MAX {
            Some(Outcome::Busy)
        } else {
            None
        }
    }

    /// Claims the next entry of the shard and lays it. There is room.
    pub(super) fn lay(&mut self, at: usize, entry: NewEntry, payload: &[u8]) -> Result<EntryId, Outcome> {
        // With a wrong sum it would be refused by every follower, and with it all that comes after.
        let draft = self.log.draft(payload, entry.payload_crc).map_err(|WrongSum| Outcome::Invalid)?;
        match self.propose(at, &entry) {
            Ok(id) => {
                self.log.lay_draft(draft, NewEntry { id, ..entry });
                self.claim_stamp(at, Stamp::new(entry.epoch, entry.timestamp));
                Ok(id)
            }
            Err(refusal) => {
                self.log.withdraw(draft);
                Err(refusal)
            }
        }
    }

    /// Claims the next entry of the shard, which is laid at once.
    fn propose(&mut self, at: usize, entry: &NewEntry) -> Result<EntryId, Outcome> {
        // The parts of a record share its stamp.
        if entry.flags & FLAG_CONTINUES == 0 {
            self.check_stamp(at, Stamp::new(entry.epoch, entry.timestamp))?;
        }
        let shard = &mut self.shards[at];
        let id = shard.raft.propose().map_err(|refused| match refused {
            Refused::NotLeader { leader } => Outcome::NotLeader { leader },
            Refused::Transferring { to } => Outcome::NotLeader { leader: Some(to) },
        })?;
        shard.touched = true;
        Ok(id)
    }

    /// The submit is in the log: answers it as soon as it is as durable as was asked for.
    pub(super) fn wait_for(&mut self, at: usize, acks: Acks, pending: Pending) {
        let shard = &mut self.shards[at];
        match acks {
            Acks::Quorum => shard.on_commit.push_back(pending),
            Acks::Leader => shard.on_durable.push_back(pending),
            Acks::None => {
                let outcome = Outcome::Committed { id: pending.id, timestamp: pending.timestamp };
                self.clients.answer(pending.client, pending.request, outcome);
            }
        }
    }
}

/// All of an entry but its place.
pub(super) fn entry_of(submit: &Submit<'_>) -> NewEntry {
    NewEntry {
        shard: submit.shard,
        id: EntryId::default(),
        kind: Kind::Data,
        flags: 0,
        timestamp: submit.timestamp,
        epoch: submit.epoch,
        session: submit.session,
        serial: submit.serial,
        payload_crc: submit.payload_crc,
    }
}

#[cfg(test)]
impl Ingress {
    pub(super) fn assembling_bytes(&self) -> usize {
        self.assembling_bytes
    }

    pub(super) fn is_held(&self) -> bool {
        self.held_from.is_some()
    }
}
