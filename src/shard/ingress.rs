//! What clients ask: submits become entries, bounded at every step.
//!
//! A bound that lasts is an answer (`Busy`, `LogFull`). A bound that passes within a write or two (no chunk free, the
//! next segment not ready) is no answer but a pause: the rest of the frame is held, the port is not read, and the
//! sockets push back.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::apply::Pending;
use super::clients::ClientRef;
use super::reads::WaitingRead;
use super::{Groups, World};
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::limits::{
    ASSEMBLY_BYTES_MAX, BATCH_BYTES_MAX, PARTS_MAX, RECORD_BYTES_MAX, SUBMITS_PENDING_MAX,
    SUBMITS_PER_TURN_MAX,
};
use crate::log::record::{self, FLAG_CONTINUES, FLAG_MORE, Kind};
use crate::log::{NewEntry, NoRoom};
use crate::raft::{Input, Refused, Role};
use crate::types::{Acks, EntryId, NodeId, Time};
use crate::wire::client::{Outcome, Reply, Request, ShardStatus, Submit};
use crate::wire::{self};

/// How long a record may wait for its next part when others find no room for theirs.
pub(super) const PART_PATIENCE: Duration = Duration::from_secs(10);

/// The state between turns.
#[derive(Default)]
pub(super) struct Ingress {
    /// The turn's time.
    now: Time,
    /// The frame whose rest waits for room; empty: none.
    held: Vec<u8>,
    held_from: Option<ClientRef>,
    /// How many of its requests are done.
    held_done: usize,
    /// The bytes of records in parts that are being put together or laid.
    assembling_bytes: usize,
    /// Clients that broke the protocol in this turn, and how.
    broken: Vec<(ClientId, wire::Malformed)>,
}

/// A record in parts as it comes in from a client.
pub(super) enum Assembly {
    /// Its parts are kept.
    Taking(Box<Parts>),
    /// It was refused; the parts that still come are passed over, until the last or another submit.
    Refusing {
        /// Which.
        request: u64,
    },
}

/// The parts of one record.
pub(super) struct Parts {
    request: u64,
    acks: Acks,
    /// All that the parts share; `id`, `flags` and `payload_crc` are each part's own.
    entry: NewEntry,
    /// What each part adds to `bytes`, and its checksum.
    cuts: Vec<(usize, u32)>,
    bytes: Vec<u8>,
    more_bytes: usize,
    total_bytes: usize,
    /// When its last part came.
    fed_at: Time,
}

/// A whole record in parts whose parts are being laid, one entry each, nothing between them.
pub(super) struct Large {
    client: ClientRef,
    parts: Box<Parts>,
    laid: usize,
    laid_bytes: usize,
}

/// What became of a request.
#[derive(PartialEq, Eq)]
enum Taken {
    Done,
    /// There is no room at this moment: again in the next turn.
    NotNow,
}

impl<W: World> Groups<W> {
    /// Takes in what clients ask, at most [`SUBMITS_PER_TURN_MAX`] requests and a frame.
    pub(super) fn take_requests(&mut self, now: Time, port: &mut W::Port) -> usize {
        self.ingress.now = now;
        let mut taken = self.lay_large();
        taken += self.resume_held(now);
        if self.ingress.held_from.is_some() {
            return taken;
        }
        let mut requests = 0;
        taken += port.poll(now, &mut |event| {
            match event {
                PortEvent::Opened(client) => self.clients.open(client),
                PortEvent::Closed(client) => self.forget_client(client),
                // Said farewell to; read only so that the connection closes in order.
                PortEvent::Frame { .. } if self.drain.is_parting() => requests += 1,
                PortEvent::Frame { from, bytes } => requests += self.on_requests(now, from, bytes),
            }
            let more = self.ingress.held_from.is_none() && requests < SUBMITS_PER_TURN_MAX;
            if more { Flow::More } else { Flow::Stop }
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
            | Request::ReadIndex { request, shard } => (*request, *shard),
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
        let outcome = match self.refusal(at, &submit) {
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
        self.clients.answer(client, submit.request, outcome);
        Taken::Done
    }

    /// Why a submit is not taken, apart from room in the log.
    fn refusal(&self, at: usize, submit: &Submit<'_>) -> Option<Outcome> {
        let shard = &self.shards[at];
        if self.drain.has_begun() {
            Some(Outcome::Stopping)
        } else if shard.raft.role() != Role::Leader {
            Some(Outcome::NotLeader { leader: shard.raft.leader() })
        } else if shard.pending() >= SUBMITS_PENDING_MAX {
            Some(Outcome::Busy)
        } else if record::payload_crc(submit.payload) != submit.payload_crc {
            // Laid all the same, it would be refused by every follower, and with it all that comes after.
            Some(Outcome::Invalid)
        } else {
            None
        }
    }

    /// Claims the next entry of the shard and lays it. There is room.
    fn lay(&mut self, at: usize, entry: NewEntry, payload: &[u8]) -> Result<EntryId, Outcome> {
        let shard = &mut self.shards[at];
        let id = shard.raft.propose().map_err(|refused| match refused {
            Refused::NotLeader { leader } => Outcome::NotLeader { leader },
            Refused::Transferring { to } => Outcome::NotLeader { leader: Some(to) },
        })?;
        shard.touched = true;
        self.log.lay(NewEntry { id, ..entry }, payload);
        Ok(id)
    }

    /// The submit is in the log: answers it as soon as it is as durable as was asked for.
    fn wait_for(&mut self, at: usize, acks: Acks, pending: Pending) {
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

    /// If a record in parts is under way from this client: takes its next part, or passes it over if the record was
    /// refused. A submit with another number breaks that record off and is looked at for itself: `None`.
    fn go_on_with_parts(&mut self, at: usize, client: ClientRef, submit: &Submit<'_>) -> Option<Taken> {
        let stopping = self.drain.has_begun();
        let slot = self.clients.assembly(client)?;
        let mut parts = match slot.take()? {
            Assembly::Refusing { request } => {
                return (request == submit.request).then(|| self.pass_over(client, submit));
            }
            Assembly::Taking(parts) => parts,
        };
        if parts.takes(submit) && !stopping {
            if submit.more_bytes > 0 {
                parts.add(submit, self.ingress.now);
                *slot = Some(Assembly::Taking(parts));
            } else if self.shards[at].large.is_some() {
                *slot = Some(Assembly::Taking(parts));
                return Some(Taken::NotNow);
            } else {
                parts.add(submit, self.ingress.now);
                self.shards[at].large = Some(Large { client, parts, laid: 0, laid_bytes: 0 });
                self.lay_large();
            }
            return Some(Taken::Done);
        }
        self.ingress.assembling_bytes -= parts.total_bytes;
        let outcome = if stopping { Outcome::Stopping } else { Outcome::Invalid };
        self.clients.answer(client, parts.request, outcome);
        (parts.request == submit.request).then(|| self.pass_over(client, submit))
    }

    /// A part of a record that was refused: so will the others be, to the last.
    fn pass_over(&mut self, client: ClientRef, submit: &Submit<'_>) -> Taken {
        if let Some(slot) = self.clients.assembly(client) {
            *slot = (submit.more_bytes > 0).then_some(Assembly::Refusing { request: submit.request });
        }
        Taken::Done
    }

    /// The first part of a record that is longer than an entry.
    fn begin_parts(&mut self, at: usize, client: ClientRef, submit: &Submit<'_>) {
        let total_bytes = submit.payload.len() + submit.more_bytes as usize;
        let refusal = if total_bytes > RECORD_BYTES_MAX {
            Some(Outcome::Invalid)
        } else if !self.can_assemble(total_bytes) {
            Some(Outcome::Busy)
        } else {
            self.refusal(at, submit)
        };
        if let Some(outcome) = refusal {
            self.clients.answer(client, submit.request, outcome);
            self.pass_over(client, submit);
        } else if let Some(slot) = self.clients.assembly(client) {
            self.ingress.assembling_bytes += total_bytes;
            *slot = Some(Assembly::Taking(Box::new(Parts::begin(submit, total_bytes, self.ingress.now))));
        }
    }

    /// Whether there is room for the parts of one more record, if need be that of records whose senders have fallen silent.
    fn can_assemble(&mut self, total_bytes: usize) -> bool {
        let enough = |held_bytes| held_bytes + total_bytes <= ASSEMBLY_BYTES_MAX;
        if enough(self.ingress.assembling_bytes) {
            return true;
        }
        let now = self.ingress.now;
        let silent = self.clients.refuse_parts(|parts| now.since(parts.fed_at) >= PART_PATIENCE);
        for (client, parts) in silent {
            self.ingress.assembling_bytes -= parts.total_bytes;
            self.clients.answer(client, parts.request, Outcome::Busy);
        }
        enough(self.ingress.assembling_bytes)
    }

    /// Lays what there is room for of the records in parts, a batch per shard and turn at most.
    fn lay_large(&mut self) -> usize {
        let mut work = 0;
        for at in 0..self.shards.len() {
            let Some(mut large) = self.shards[at].large.take() else { continue };
            let mut laid_bytes = 0;
            loop {
                let Some((entry, payload)) = large.next() else {
                    self.ingress.assembling_bytes -= large.parts.total_bytes;
                    break;
                };
                match self.log.room_for(payload.len()) {
                    Ok(()) if laid_bytes < BATCH_BYTES_MAX => {}
                    Ok(()) | Err(NoRoom::Busy) => {
                        self.shards[at].large = Some(large);
                        break;
                    }
                    Err(NoRoom::Full) => {
                        self.end_large(large, Outcome::LogFull);
                        break;
                    }
                }
                let (last, bytes) = (entry.flags & FLAG_MORE == 0, payload.len());
                match self.lay(at, entry, payload) {
                    Ok(id) => {
                        (work, laid_bytes) = (work + 1, laid_bytes + bytes);
                        large.laid += 1;
                        large.laid_bytes += bytes;
                        if last {
                            self.wait_for(at, large.parts.acks, large.pending(id));
                        }
                    }
                    Err(outcome) => {
                        self.end_large(large, outcome);
                        break;
                    }
                }
            }
        }
        work
    }

    /// Leadership moved while a record was being laid. Its last part is in no log, so it will never be whole.
    pub(super) fn abandon(&mut self, large: Large, leader: Option<NodeId>) {
        self.end_large(large, Outcome::NotLeader { leader });
    }

    fn end_large(&mut self, large: Large, outcome: Outcome) {
        self.ingress.assembling_bytes -= large.parts.total_bytes;
        self.clients.answer(large.client, large.parts.request, outcome);
    }

    /// Sends each client its replies of this turn.
    pub(super) fn send_replies(&mut self, port: &mut W::Port) {
        self.clients.send(port);
    }
}

/// All of an entry but its place.
fn entry_of(submit: &Submit<'_>) -> NewEntry {
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

impl Parts {
    fn begin(submit: &Submit<'_>, total_bytes: usize, now: Time) -> Parts {
        let mut parts = Parts {
            request: submit.request,
            acks: submit.acks,
            entry: entry_of(submit),
            cuts: Vec::new(),
            bytes: Vec::with_capacity(total_bytes),
            more_bytes: total_bytes,
            total_bytes,
            fed_at: now,
        };
        parts.add(submit, now);
        parts
    }

    /// Whether this is the next part.
    fn takes(&self, submit: &Submit<'_>) -> bool {
        submit.request == self.request
            && submit.shard == self.entry.shard
            && submit.payload.len() + submit.more_bytes as usize == self.more_bytes
            && self.cuts.len() < PARTS_MAX
            && record::payload_crc(submit.payload) == submit.payload_crc
    }

    pub(super) fn request(&self) -> u64 {
        self.request
    }

    fn add(&mut self, submit: &Submit<'_>, now: Time) {
        self.fed_at = now;
        self.cuts.push((submit.payload.len(), submit.payload_crc));
        self.bytes.extend_from_slice(submit.payload);
        self.more_bytes -= submit.payload.len();
    }
}

impl Large {
    /// The next part to be laid.
    fn next(&self) -> Option<(NewEntry, &[u8])> {
        let &(len_bytes, payload_crc) = self.parts.cuts.get(self.laid)?;
        let more = self.laid + 1 < self.parts.cuts.len();
        let flags = if more { FLAG_MORE } else { 0 } | if self.laid > 0 { FLAG_CONTINUES } else { 0 };
        let payload = &self.parts.bytes[self.laid_bytes..self.laid_bytes + len_bytes];
        Some((NewEntry { flags, payload_crc, ..self.parts.entry }, payload))
    }

    fn pending(&self, id: EntryId) -> Pending {
        let Parts { request, entry, .. } = &*self.parts;
        Pending { id, client: self.client, request: *request, timestamp: entry.timestamp }
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
