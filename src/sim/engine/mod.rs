//! A transaction engine: one thread for each shard, which begins transactions with stamps of a clock of its own,
//! submits them in order, ends epochs when it is asked to, registers when its time has come, and dies: what it had
//! begun is lost, and the one after it knows nothing. `thread` is what it knows, `books` say what a watermark and the
//! end of an epoch must never do.
//!
//! A transaction that has begun can be read by others at once. So one that is lost, for whatever reason, must take with
//! it everything of its epoch that was stamped after it: that is what the last check is about.

mod books;
mod thread;

use self::books::{Books, RECORD_BYTES};
use self::thread::{Asked, Claim, Life, Thread, Waiting};
use super::fabric::{ClientInput, Event, Fabric, PortInput};
use super::net::node_of;
use super::oracle::{Submitted, Told};
use crate::engine::REGISTRAR;
use crate::io::ClientId;
use crate::log::record;
use crate::raft::Role;
use crate::types::{Acks, ShardId, Stamp, Timestamp};
use crate::wire::client::{Outcome, Reply, Request, StreamRequest, StreamStatus, Submit, replies};
use crate::wire::frame::{Builder, Kind};

/// How many transactions a thread begins before it submits.
const BEGUN_MAX: usize = 4;

/// Threads that have waited for their stream to open, and begin as soon as they are told so.
const BEGINS_AT_ONCE_PPM: u32 = 500_000;

/// Streams that come late as another one's thread cuts the epoch: it ends while they open.
const COMES_WITH_CUT_PPM: u32 = 500_000;

/// Threads that die together with the leader that they are attached to.
const DIES_WITH_LEADER_PPM: u32 = 500_000;

/// All of it; without threads where the plan has no engine.
pub(super) struct Engine {
    threads: Vec<Thread>,
    first_client: usize,
    /// The registrar's stream is registered: others may be.
    has_registrar: bool,
    /// Threads that die by themselves, each time they look at what they have to do.
    dies_ppm: u32,
    pub(super) quiet: bool,
    books: Books,
}

impl Engine {
    pub(super) fn new(fabric: &mut Fabric, first_client: usize) -> Engine {
        let plan = fabric.plan.clone();
        let dies_ppm =
            if fabric.random.chance(600_000) { fabric.random.between(500, 8_000) as u32 } else { 0 };
        let mut threads = Vec::new();
        for shard in 0..if plan.engine { plan.shards as usize } else { 0 } {
            let client = first_client + shard;
            let late = fabric.random.chance(400_000);
            threads.push(Thread {
                client,
                connections: vec![None; plan.nodes],
                leader: fabric.random.below(plan.nodes as u64) as usize,
                registrar: fabric.random.below(plan.nodes as u64) as usize,
                register_ns: if late { fabric.random.below(plan.horizon_ns.max(1)) } else { 0 },
                dead_until_ns: 0,
                life: Life::new(Claim::Held, &mut fabric.random),
                waiting: None,
                next_request: 1,
            });
            let at_ns = fabric.random.below(plan.load.think_ns);
            fabric.schedule(at_ns, Event::Client { client });
        }
        fabric.oracle.submits.resize(first_client + threads.len(), Vec::new());
        let books = Books::new(plan.nodes);
        Engine { threads, first_client, has_registrar: false, dies_ppm, quiet: false, books }
    }

    /// Which of its threads, if any.
    pub(super) fn thread_of(&self, client: usize) -> Option<usize> {
        client.checked_sub(self.first_client).filter(|thread| *thread < self.threads.len())
    }

    /// A thread looks at what it has to do.
    pub(super) fn on_due(&mut self, fabric: &mut Fabric, at: usize) {
        if self.quiet {
            return;
        }
        if self.threads[at].dead_until_ns <= fabric.now_ns {
            self.live(fabric, at);
        }
        let next_ns = fabric.random.skewed(1, 2 * fabric.plan.load.think_ns);
        fabric.schedule(fabric.now_ns + next_ns, Event::Client { client: self.threads[at].client });
    }

    fn live(&mut self, fabric: &mut Fabric, at: usize) {
        if fabric.random.chance(self.dies_ppm) {
            return self.die(fabric, at, Claim::Cut);
        }
        self.give_up(fabric, at);
        let begins_ppm = if self.threads[at].life.closing { 100_000 } else { 600_000 };
        self.begin(fabric, at, begins_ppm);
        if self.threads[at].waiting.is_none() {
            self.ask(fabric, at);
        }
    }

    /// What it had begun is lost, and so is all that it knew.
    fn die(&mut self, fabric: &mut Fabric, at: usize, claim: Claim) {
        for node in 0..fabric.nodes.len() {
            self.leave(fabric, at, node);
        }
        let Engine { threads, .. } = self;
        let thread = &mut threads[at];
        if let Some(Waiting { asked: Asked::Submit { serial, .. }, .. }) = thread.waiting.take() {
            fabric.oracle.on_told(fabric.now_ns, thread.client, serial, Told::Unknown);
        }
        // What is to be cut for the one before stays to be cut.
        let claim = if thread.life.claim == Claim::Cut { Claim::Cut } else { claim };
        thread.life = Life::new(claim, &mut fabric.random);
        thread.dead_until_ns = fabric.now_ns + fabric.random.skewed(1, 10 * fabric.plan.election_ns);
        fabric.oracle.counts.deaths += 1;
    }

    /// A node's process ends: threads that run beside the leader of their stream may end with it.
    pub(super) fn node_stops(&mut self, fabric: &mut Fabric, node: usize) {
        for at in 0..self.threads.len() {
            let thread = &self.threads[at];
            let leads = fabric.oracle.node_of_leader(ShardId(at as u32)) == Some(node);
            let beside = thread.leader == node && thread.connections[node].is_some() && thread.life.open;
            if leads && beside && fabric.random.chance(DIES_WITH_LEADER_PPM) {
                self.die(fabric, at, Claim::Promise);
            }
        }
    }

    fn begin(&mut self, fabric: &mut Fabric, at: usize, begins_ppm: u32) {
        let life = &mut self.threads[at].life;
        let may = life.open
            && life.claim == Claim::Held
            && !life.finished
            && life.ended != Some(life.epoch)
            && life.begun.len() < BEGUN_MAX;
        if may && fabric.random.chance(begins_ppm) {
            let stamp = life.next_stamp(self.books.latest(life.epoch), &mut fabric.random);
            life.begun.push_back(stamp);
            self.books.begin(ShardId(at as u32), stamp);
        }
    }

    fn ask(&mut self, fabric: &mut Fabric, at: usize) {
        let Thread { life, leader, registrar, register_ns, .. } = &mut self.threads[at];
        let (node, registrar) = (*leader, *registrar);
        if !life.registered {
            if fabric.now_ns >= *register_ns && (at == 0 || self.has_registrar) {
                let asked = StreamRequest::Register(ShardId(at as u32));
                let is_late = core::mem::take(register_ns) > 0;
                self.send(fabric, at, registrar, Asked::Register, asked);
                if is_late && fabric.random.chance(COMES_WITH_CUT_PPM) {
                    self.cut_beside(fabric, at);
                }
            }
            return;
        }
        match life.claim {
            Claim::Held => {}
            Claim::Cut => {
                let epoch = life.epoch;
                let asked = StreamRequest::CutEpoch(epoch);
                return self.send(fabric, at, node, Asked::CutEpoch(epoch), asked);
            }
            // Who has nothing to submit ends the stream at once; the leader does not take that before the cut that it
            // owes.
            Claim::Promise if life.finished => {}
            Claim::Promise => {
                life.finished = at > 0 && fabric.random.chance(100_000);
                let stamp = life.next_stamp(Timestamp(0), &mut fabric.random);
                return self.send(fabric, at, node, Asked::Advance(stamp), StreamRequest::Advance(stamp));
            }
        }
        if let Some(&stamp) = life.begun.front() {
            return self.submit(fabric, at, node, stamp);
        }
        // The registrar's thread stays, for those that come late. Who has said it begins nothing any more, whatever is
        // answered.
        let finishes_ppm = if life.closing { 20_000 } else { 2_000 };
        life.finished |= at > 0 && life.open && fabric.random.chance(finishes_ppm);
        if life.finished {
            return self.send(fabric, at, node, Asked::EndOfStream, StreamRequest::EndOfStream);
        }
        if life.ended == Some(life.epoch) {
            return;
        }
        if life.closing && fabric.random.chance(500_000) {
            life.ended = Some(life.epoch);
            let asked = StreamRequest::EndOfEpoch(life.epoch);
            self.send(fabric, at, node, Asked::EndOfEpoch, asked);
        } else if life.clock > 0 && fabric.random.chance(300_000) {
            // Whatever it begins from now on is stamped later.
            let stamp = Stamp::new(life.epoch, Timestamp(life.clock));
            self.send(fabric, at, node, Asked::Advance(stamp), StreamRequest::Advance(stamp));
        }
    }

    /// Another thread dies, and the one after it, which knows where the engine stands, has the epoch cut at once.
    fn cut_beside(&mut self, fabric: &mut Fabric, at: usize) {
        let holds = |(other, thread): &(usize, &Thread)| {
            let life = &thread.life;
            *other != at && life.registered && life.open && life.claim == Claim::Held && !life.finished
        };
        let holding: Vec<usize> =
            self.threads.iter().enumerate().filter(holds).map(|(other, _)| other).collect();
        if holding.is_empty() {
            return;
        }
        let other = *fabric.random.pick(&holding);
        let epoch = self.threads[other].life.epoch;
        self.die(fabric, other, Claim::Cut);
        let thread = &mut self.threads[other];
        thread.dead_until_ns = fabric.now_ns;
        thread.life.registered = true;
        thread.life.epoch = epoch;
        self.ask(fabric, other);
    }

    fn submit(&mut self, fabric: &mut Fabric, at: usize, node: usize, stamp: Stamp) {
        let Some(connection) = self.connect(fabric, at, node) else { return };
        let thread = &mut self.threads[at];
        let (client, shard) = (thread.client, ShardId(at as u32));
        let serial = fabric.oracle.submits[client].len() as u64;
        let mut payload = [at as u8; RECORD_BYTES];
        payload[..8].copy_from_slice(&serial.to_le_bytes());
        let payload_crc = record::payload_crc(&payload);
        let request = Request::Submit(Submit {
            request: thread.next_request,
            shard,
            acks: Acks::Quorum,
            timestamp: stamp.timestamp,
            epoch: stamp.epoch,
            session: client as u64 + 1,
            serial,
            payload_crc,
            more_bytes: 0,
            payload: &payload,
        });
        let (call_ns, key) = (fabric.now_ns, super::clients::KEYS);
        let submitted = Submitted {
            shard,
            key,
            last_crc: payload_crc,
            call_ns,
            return_ns: None,
            told: None,
            committed: None,
        };
        fabric.oracle.submits[client].push(submitted);
        self.post(fabric, at, (node, connection), &request, &payload, Asked::Submit { serial, stamp });
    }

    fn send(&mut self, fabric: &mut Fabric, at: usize, node: usize, what: Asked, asked: StreamRequest) {
        let Some(connection) = self.connect(fabric, at, node) else { return };
        let shard = if matches!(asked, StreamRequest::Register(_)) { REGISTRAR } else { ShardId(at as u32) };
        let request = Request::Stream { request: self.threads[at].next_request, shard, asked };
        self.post(fabric, at, (node, connection), &request, &[], what);
    }

    fn post(
        &mut self,
        fabric: &mut Fabric,
        at: usize,
        (node, connection): (usize, ClientId),
        request: &Request<'_>,
        body: &[u8],
        asked: Asked,
    ) {
        let thread = &mut self.threads[at];
        let (number, since_ns) = (thread.next_request, fabric.now_ns);
        thread.waiting = Some(Waiting { request: number, node, asked, since_ns });
        thread.next_request += 1;
        fabric.send_to_node(thread.client, node, PortInput::Frame(connection, frame(request, body)));
    }

    /// A connection to the node; a new one subscribes.
    fn connect(&mut self, fabric: &mut Fabric, at: usize, node: usize) -> Option<ClientId> {
        let nodes = fabric.nodes.len() as u64;
        let thread = &mut self.threads[at];
        if thread.connections[node].is_some() {
            return thread.connections[node];
        }
        if !fabric.nodes[node].up {
            thread.leader = fabric.random.below(nodes) as usize;
            thread.registrar = fabric.random.below(nodes) as usize;
            return None;
        }
        let connection = ClientId(fabric.next_connection);
        fabric.next_connection += 1;
        fabric.nodes[node].connections.push((connection, thread.client));
        thread.connections[node] = Some(connection);
        fabric.send_to_node(thread.client, node, PortInput::Opened(connection));
        let request = Request::Subscribe { request: thread.next_request, shard: ShardId(at as u32) };
        thread.next_request += 1;
        fabric.send_to_node(thread.client, node, PortInput::Frame(connection, frame(&request, &[])));
        Some(connection)
    }

    /// A thread that has waited too long for a node leaves it.
    fn give_up(&mut self, fabric: &mut Fabric, at: usize) {
        let Some(Waiting { node, since_ns, .. }) = self.threads[at].waiting else { return };
        if since_ns + fabric.plan.load.patience_ns < fabric.now_ns {
            self.leave(fabric, at, node);
            self.lost(fabric, at, node);
        }
    }

    fn leave(&mut self, fabric: &mut Fabric, at: usize, node: usize) {
        let thread = &mut self.threads[at];
        if let Some(connection) = thread.connections[node].take() {
            fabric.send_to_node(thread.client, node, PortInput::Closed(connection));
            fabric.nodes[node].connections.retain(|&(id, _)| id != connection);
        }
    }

    /// Nobody will answer what this node was asked.
    fn lost(&mut self, fabric: &mut Fabric, at: usize, node: usize) {
        let thread = &mut self.threads[at];
        let nodes = fabric.nodes.len() as u64;
        if thread.leader == node {
            thread.leader = fabric.random.below(nodes) as usize;
        }
        if thread.registrar == node {
            thread.registrar = fabric.random.below(nodes) as usize;
        }
        self.end_as(fabric, at, node, Outcome::Unknown);
    }

    /// What this node was asked ends without its word.
    fn end_as(&mut self, fabric: &mut Fabric, at: usize, node: usize, outcome: Outcome) {
        if let Some(waiting) = self.threads[at].waiting.take_if(|waiting| waiting.node == node) {
            self.ended(fabric, at, waiting.asked, outcome);
        }
    }

    /// Something has come from a node.
    pub(super) fn on_input(&mut self, fabric: &mut Fabric, at: usize, input: ClientInput) {
        match input {
            ClientInput::Closed(connection) => {
                let held = self.threads[at].connections.iter().position(|held| *held == Some(connection));
                if let Some(node) = held {
                    self.threads[at].connections[node] = None;
                    self.lost(fabric, at, node);
                }
            }
            ClientInput::Frame(connection, bytes) => {
                let held = self.threads[at].connections.iter().position(|held| *held == Some(connection));
                let Some(node) = held else { return };
                match replies(&bytes) {
                    Ok(replies) => replies.for_each(|reply| self.on_reply(fabric, at, node, reply)),
                    Err(malformed) => {
                        fabric.oracle.fail(format!("an engine does not understand a node: {malformed}"));
                    }
                }
            }
        }
    }

    fn on_reply(&mut self, fabric: &mut Fabric, at: usize, node: usize, reply: Reply<'_>) {
        match reply {
            Reply::Stream { status, .. } => self.on_status(fabric, at, &status),
            Reply::EpochClosed { last, .. } => self.books.epoch_closed(fabric, last),
            Reply::Outcome { request, outcome } => {
                let waiting = &mut self.threads[at].waiting;
                if let Some(waiting) = waiting.take_if(|waiting| waiting.request == request) {
                    self.ended(fabric, at, waiting.asked, outcome);
                }
            }
            Reply::Farewell => {
                self.leave(fabric, at, node);
                // What is not answered by now was not taken.
                self.end_as(fabric, at, node, Outcome::Stopping);
            }
            Reply::Records { .. } | Reply::Status { .. } | Reply::ReadIndex { .. } => {
                fabric.oracle.fail(format!("an engine is told {reply:?}"));
            }
        }
    }

    fn on_status(&mut self, fabric: &mut Fabric, at: usize, status: &StreamStatus) {
        let may_take = status.role == Role::Leader && status.open && !status.closing;
        if status.takes_records && !may_take {
            fabric.oracle.fail(format!("stream {at} takes records, as it is told: {status:?}"));
        }
        if status.open && status.stands_at.0 == u64::MAX {
            fabric
                .oracle
                .fail(format!("stream {at} is open where no stamp is left, as it is told: {status:?}"));
        }
        let life = &mut self.threads[at].life;
        if status.epoch > life.epoch {
            life.turn_to(status.epoch, &mut fabric.random);
        }
        let opens = status.open && !life.open;
        life.open |= status.open;
        if status.epoch == life.epoch {
            life.closing = status.closing;
            life.stands_at(status.stands_at);
        }
        if opens {
            self.begin(fabric, at, BEGINS_AT_ONCE_PPM);
        }
    }

    fn ended(&mut self, fabric: &mut Fabric, at: usize, asked: Asked, outcome: Outcome) {
        let random = fabric.random.below(fabric.nodes.len() as u64) as usize;
        let Thread { client, life, leader, registrar, .. } = &mut self.threads[at];
        if let Asked::Submit { serial, stamp } = asked {
            submit_ended(fabric, *client, life, (serial, stamp), outcome);
        }
        match (asked, outcome) {
            (Asked::Register, Outcome::Committed { .. }) => {
                life.registered = true;
                self.has_registrar = true;
            }
            (Asked::Register, Outcome::NotLeader { leader }) => *registrar = leader.map_or(random, node_of),
            (_, Outcome::NotLeader { leader: known }) => *leader = known.map_or(random, node_of),
            (Asked::CutEpoch(epoch), Outcome::Committed { .. }) => {
                life.claim = Claim::Held;
                life.ended = Some(epoch);
                fabric.oracle.counts.cuts += 1;
            }
            (Asked::Advance(_), Outcome::Committed { .. }) => life.claim = Claim::Held,
            (Asked::Advance(stamp), Outcome::Behind { last }) if stamp.epoch == life.epoch => {
                life.stands_at(last.timestamp);
            }
            (Asked::EndOfStream, Outcome::EpochClosed { .. }) | (_, Outcome::Invalid) => {
                fabric.oracle.fail(format!("stream {at}: {asked:?} is answered {outcome:?}"));
            }
            (_, Outcome::EpochClosed { open }) if open > life.epoch => life.turn_to(open, &mut fabric.random),
            _ => {}
        }
    }

    /// After a turn of a node: the watermark that it tells. `None`: it has just started.
    pub(super) fn observe(&mut self, fabric: &mut Fabric, node: usize, watermark: Option<Stamp>) {
        self.books.observe(fabric, node, watermark);
    }

    /// All is committed and read back: what was told must be true.
    pub(super) fn check(&self, fabric: &mut Fabric) -> Result<(), String> {
        if self.threads.is_empty() || fabric.oracle.violation.is_some() {
            return Ok(());
        }
        self.books.check(fabric)
    }
}

fn submit_ended(
    fabric: &mut Fabric,
    client: usize,
    life: &mut Life,
    (serial, stamp): (u64, Stamp),
    outcome: Outcome,
) {
    let told = match outcome {
        Outcome::Committed { id, .. } => Told::Committed(id),
        Outcome::Unknown => Told::Unknown,
        _ => Told::Rejected,
    };
    fabric.oracle.on_told(fabric.now_ns, client, serial, told);
    // What ended as unknown is offered again: if it was taken, the stream is not behind it any more.
    let is_behind = matches!(outcome, Outcome::Behind { .. });
    if is_behind && !life.in_doubt && stamp.epoch == life.epoch {
        fabric.oracle.fail(format!("client {}: {stamp} grows, and is {outcome:?}", client + 1));
    }
    // Of an earlier epoch it was given up already.
    if life.begun.front() == Some(&stamp) {
        if is_behind || matches!(outcome, Outcome::Committed { .. }) {
            life.begun.pop_front();
            life.in_doubt = false;
        }
        life.in_doubt |= told == Told::Unknown;
    }
}

fn frame(request: &Request<'_>, body: &[u8]) -> Vec<u8> {
    let mut frame = Builder::new(Kind::Request);
    frame.push(&request.encode(), body.len());
    let mut bytes = frame.seal().to_vec();
    bytes.extend_from_slice(body);
    bytes
}
