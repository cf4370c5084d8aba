//! A transaction engine: one thread for each shard, which begins transactions with stamps of one clock, submits them in
//! order, ends epochs when it is asked to, and registers when its time has come. And the books that say what a watermark and
//! the end of an epoch must never do.
//!
//! A transaction that has begun can be read by others at once. So one that is lost, for whatever reason, must take with it
//! everything of its epoch that was stamped after it: that is what the last check is about.

use std::collections::{BTreeMap, VecDeque};

use super::fabric::{ClientInput, Event, Fabric, PortInput};
use super::net::node_of;
use super::oracle::{Submitted, Told};
use super::random::Random;
use crate::engine::replay::Replay;
use crate::engine::{Fate, Fold, Mark, REGISTRAR};
use crate::io::ClientId;
use crate::log::record;
use crate::types::{Acks, Epoch, ShardId, Stamp, Timestamp};
use crate::wire::client::{Outcome, Reply, Request, StreamRequest, Submit, replies};
use crate::wire::frame::{Builder, Kind};

/// How many transactions a thread begins before it submits.
const BEGUN_MAX: usize = 4;

/// The bytes of a record.
const RECORD_BYTES: usize = 40;

/// What is under way, one thing at a time: a thread keeps the order of its stamps.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Register,
    Submit { serial: u64, stamp: Stamp },
    Advance,
    EndOfEpoch,
    EndOfStream,
}

struct Thread {
    /// As connections know it.
    client: usize,
    connections: Vec<Option<ClientId>>,
    leader: usize,
    registrar: usize,
    register_ns: u64,
    registered: bool,
    /// The stream is known to take records.
    open: bool,
    /// It has nothing to submit any more.
    finished: bool,
    epoch: Epoch,
    closing: bool,
    /// It has said that it ends this epoch.
    ended: Option<Epoch>,
    begun: VecDeque<Stamp>,
    /// The first of them may have been taken: an earlier attempt ended as unknown.
    in_doubt: bool,
    waiting: Option<(u64, usize, Asked, u64)>,
    next_request: u64,
}

/// All of it; without threads where the plan has no engine.
pub(super) struct Engine {
    threads: Vec<Thread>,
    first_client: usize,
    clock: u64,
    pub(super) quiet: bool,
    books: Books,
}

/// What was seen.
#[derive(Default)]
struct Books {
    /// Every transaction that was begun.
    begun: Vec<(ShardId, Stamp)>,
    /// Of each epoch the largest watermark that any node told.
    told: BTreeMap<Epoch, Timestamp>,
    /// Per node: its watermark in this life.
    watermarks: Vec<Stamp>,
}

impl Engine {
    pub(super) fn new(fabric: &mut Fabric, first_client: usize) -> Engine {
        let plan = fabric.plan.clone();
        let mut threads = Vec::new();
        for shard in 0..if plan.engine { plan.shards as usize } else { 0 } {
            let client = first_client + shard;
            let late = fabric.random.chance(300_000);
            threads.push(Thread {
                client,
                connections: vec![None; plan.nodes],
                leader: fabric.random.below(plan.nodes as u64) as usize,
                registrar: fabric.random.below(plan.nodes as u64) as usize,
                register_ns: if late { fabric.random.below(plan.horizon_ns.max(1)) } else { 0 },
                registered: false,
                open: false,
                finished: false,
                epoch: Epoch(0),
                closing: false,
                ended: None,
                begun: VecDeque::new(),
                in_doubt: false,
                waiting: None,
                next_request: 1,
            });
            let at_ns = fabric.random.below(plan.load.think_ns);
            fabric.schedule(at_ns, Event::Client { client });
        }
        fabric.oracle.submits.resize(first_client + threads.len(), Vec::new());
        let books = Books { watermarks: vec![Stamp::ZERO; plan.nodes], ..Books::default() };
        Engine { threads, first_client, clock: 0, quiet: false, books }
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
        self.give_up(fabric, at);
        self.begin(fabric, at);
        if self.threads[at].waiting.is_none() {
            self.ask(fabric, at);
        }
        let next_ns = fabric.random.skewed(1, 2 * fabric.plan.load.think_ns);
        fabric.schedule(fabric.now_ns + next_ns, Event::Client { client: self.threads[at].client });
    }

    fn begin(&mut self, fabric: &mut Fabric, at: usize) {
        let thread = &mut self.threads[at];
        let may = thread.open
            && !thread.finished
            && thread.ended != Some(thread.epoch)
            && thread.begun.len() < BEGUN_MAX;
        let wants = fabric.random.chance(if thread.closing { 100_000 } else { 600_000 });
        if may && wants {
            self.clock += 1;
            let stamp = Stamp::new(thread.epoch, Timestamp(self.clock));
            thread.begun.push_back(stamp);
            self.books.begun.push((ShardId(at as u32), stamp));
        }
    }

    fn ask(&mut self, fabric: &mut Fabric, at: usize) {
        let registrar_is = self.threads[0].registered;
        let thread = &mut self.threads[at];
        let shard = ShardId(at as u32);
        if !thread.registered {
            if fabric.now_ns >= thread.register_ns && (at == 0 || registrar_is) {
                let asked = StreamRequest::Register(shard);
                self.send(fabric, at, self.threads[at].registrar, REGISTRAR, Asked::Register, asked);
            }
            return;
        }
        let node = thread.leader;
        if let Some(&stamp) = thread.begun.front() {
            return self.submit(fabric, at, node, stamp);
        }
        if thread.ended == Some(thread.epoch) {
            return;
        }
        // The registrar's thread stays, for those that come late. Who has said it begins nothing any more, whatever is answered.
        thread.finished |= at > 0 && thread.open && fabric.random.chance(2_000);
        if thread.finished {
            return self.send(fabric, at, node, shard, Asked::EndOfStream, StreamRequest::EndOfStream);
        }
        if thread.closing && fabric.random.chance(500_000) {
            thread.ended = Some(thread.epoch);
            let asked = StreamRequest::EndOfEpoch(thread.epoch);
            self.send(fabric, at, node, shard, Asked::EndOfEpoch, asked);
        } else if fabric.random.chance(300_000) && self.clock > 0 {
            // Whatever it begins from now on is stamped later.
            let asked = StreamRequest::Advance(Stamp::new(thread.epoch, Timestamp(self.clock)));
            self.send(fabric, at, node, shard, Asked::Advance, asked);
        }
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

    fn send(
        &mut self,
        fabric: &mut Fabric,
        at: usize,
        node: usize,
        shard: ShardId,
        what: Asked,
        asked: StreamRequest,
    ) {
        let Some(connection) = self.connect(fabric, at, node) else { return };
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
        thread.waiting = Some((thread.next_request, node, asked, fabric.now_ns));
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
        let Some((_, node, _, since_ns)) = self.threads[at].waiting else { return };
        if since_ns + fabric.plan.load.patience_ns < fabric.now_ns {
            if let Some(connection) = self.threads[at].connections[node].take() {
                fabric.send_to_node(self.threads[at].client, node, PortInput::Closed(connection));
                fabric.nodes[node].connections.retain(|&(id, _)| id != connection);
            }
            self.lost(fabric, at, node);
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
        if let Some((_, asked_of, asked, _)) = thread.waiting
            && asked_of == node
        {
            thread.waiting = None;
            self.ended(fabric, at, asked, Outcome::Unknown);
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
        let thread = &mut self.threads[at];
        match reply {
            Reply::Stream { status, .. } => {
                if status.epoch > thread.epoch {
                    thread.turn_to(status.epoch);
                }
                thread.open |= status.open;
                if status.epoch == thread.epoch {
                    thread.closing = status.closing;
                }
            }
            Reply::Outcome { request, outcome } => {
                if let Some((asked_as, _, asked, _)) = thread.waiting
                    && asked_as == request
                {
                    thread.waiting = None;
                    self.ended(fabric, at, asked, outcome);
                }
            }
            Reply::Farewell => {
                if let Some(connection) = thread.connections[node].take() {
                    fabric.send_to_node(thread.client, node, PortInput::Closed(connection));
                    fabric.nodes[node].connections.retain(|&(id, _)| id != connection);
                }
                // What is not answered by now was not taken.
                if let Some((_, asked_of, asked, _)) = thread.waiting
                    && asked_of == node
                {
                    thread.waiting = None;
                    self.ended(fabric, at, asked, Outcome::Stopping);
                }
            }
            Reply::Records { .. } | Reply::Status { .. } | Reply::ReadIndex { .. } => {
                fabric.oracle.fail(format!("an engine is told {reply:?}"));
            }
        }
    }

    fn ended(&mut self, fabric: &mut Fabric, at: usize, asked: Asked, outcome: Outcome) {
        let now_ns = fabric.now_ns;
        let random = fabric.random.below(fabric.nodes.len() as u64) as usize;
        let thread = &mut self.threads[at];
        if let Asked::Submit { serial, stamp } = asked {
            let told = match outcome {
                Outcome::Committed { id, .. } => Told::Committed(id),
                Outcome::Unknown => Told::Unknown,
                _ => Told::Rejected,
            };
            fabric.oracle.on_told(now_ns, thread.client, serial, told);
            // What ended as unknown is offered again: if it was taken, the stream is not behind it any more.
            let is_behind = matches!(outcome, Outcome::Behind { .. });
            if is_behind && !thread.in_doubt && stamp.epoch == thread.epoch {
                fabric.oracle.fail(format!("stream {at}: {stamp} grows, and is {outcome:?}"));
            }
            // Of an earlier epoch it was given up already.
            if thread.begun.front() == Some(&stamp) {
                if is_behind || matches!(outcome, Outcome::Committed { .. }) {
                    thread.begun.pop_front();
                    thread.in_doubt = false;
                }
                thread.in_doubt |= told == Told::Unknown;
            }
        }
        match (asked, outcome) {
            (Asked::Register, Outcome::Committed { .. }) => thread.registered = true,
            (Asked::Register, Outcome::NotLeader { leader }) => {
                thread.registrar = leader.map_or(random, node_of);
            }
            (_, Outcome::NotLeader { leader }) => thread.leader = leader.map_or(random, node_of),
            (_, Outcome::EpochClosed { open }) if open > thread.epoch => thread.turn_to(open),
            (_, Outcome::Invalid) => {
                fabric.oracle.fail(format!("stream {at}: {asked:?} is answered Invalid"))
            }
            _ => {}
        }
    }

    /// After a turn of a node: the watermark that it tells. `None`: it has just started.
    pub(super) fn observe(&mut self, fabric: &mut Fabric, node: usize, watermark: Option<Stamp>) {
        let before = &mut self.books.watermarks[node];
        let Some(watermark) = watermark else {
            *before = Stamp::ZERO;
            return;
        };
        if watermark < *before {
            let why = format!("node {}: the watermark goes back from {before} to {watermark}", node + 1);
            return fabric.oracle.fail(why);
        }
        *before = watermark;
        fabric.oracle.published = fabric.oracle.published.max(watermark);
        let told = self.books.told.entry(watermark.epoch).or_default();
        *told = (*told).max(watermark.timestamp);
    }

    /// All is committed and read back: what was told must be true.
    pub(super) fn check(&self, fabric: &mut Fabric) -> Result<(), String> {
        if self.threads.is_empty() || fabric.oracle.violation.is_some() {
            return Ok(());
        }
        let logs = logs_of(fabric);
        let truth = self.check_overtaken(&logs)?;
        for (&epoch, &told) in &self.books.told {
            if truth.registry().last_of(epoch).is_some_and(|last| told > last) {
                return Err(format!(
                    "epoch {epoch}: the watermark {told} was told, and dead is what it covers"
                ));
            }
        }
        if let Some((node, told)) = self.books.watermarks.iter().enumerate().find(|(node, told)| {
            fabric.nodes[*node].up && !fabric.nodes[*node].disk.rotten && **told != truth.watermark()
        }) {
            let (node, all) = (node + 1, truth.watermark());
            return Err(format!("node {node} tells the watermark {told} for good, where all is {all}"));
        }
        let first = replayed(&logs, truth.watermark(), &mut fabric.random)?;
        let second = replayed(&logs, truth.watermark(), &mut fabric.random)?;
        if first != second {
            return Err("two replicas replay different entries".to_owned());
        }
        self.check_replayed(&logs, &truth, &first)?;
        fabric.oracle.counts.replayed += first.iter().map(|stream| stream.len() as u64).sum::<u64>();
        fabric.oracle.counts.epochs += u64::from(truth.registry().open_epoch().0);
        Ok(())
    }

    /// No entry was committed at or under a watermark that was told before it.
    fn check_overtaken(&self, logs: &[Vec<(Mark, Stamp)>]) -> Result<Fold, String> {
        let mut truth = Fold::default();
        for (stream, log) in (0..).map(ShardId).zip(logs) {
            for (mark, published) in log {
                let counts = truth.take(stream, mark);
                if let Mark::Data(stamp) = mark
                    && counts
                    && stamp <= published
                {
                    return Err(format!(
                        "stream {stream}: {stamp} is overtaken by the watermark {published}"
                    ));
                }
            }
        }
        Ok(truth)
    }

    fn check_replayed(
        &self,
        logs: &[Vec<(Mark, Stamp)>],
        truth: &Fold,
        replayed: &[Vec<Stamp>],
    ) -> Result<(), String> {
        let mut last_live: BTreeMap<Epoch, Timestamp> = BTreeMap::new();
        for (stream, stamps) in replayed.iter().enumerate() {
            if !stamps.is_sorted() {
                return Err(format!("stream {stream}: is replayed out of order"));
            }
            for stamp in stamps {
                if truth.fate(*stamp) != Fate::Live {
                    return Err(format!("stream {stream}: {stamp} is replayed, and is not live"));
                }
                let last = last_live.entry(stamp.epoch).or_default();
                *last = (*last).max(stamp.timestamp);
            }
            let mut position = crate::engine::Position::default();
            let live = logs[stream].iter().filter(|(mark, _)| {
                let counts = position.take(mark);
                matches!(mark, Mark::Data(stamp) if counts && truth.fate(*stamp) == Fate::Live)
            });
            if live.count() != stamps.len() {
                return Err(format!("stream {stream}: not all that lives is replayed"));
            }
        }
        for (stream, stamp) in &self.books.begun {
            let after = last_live.get(&stamp.epoch).is_some_and(|last| *last > stamp.timestamp);
            if after && replayed[stream.0 as usize].binary_search(stamp).is_err() {
                return Err(format!(
                    "stream {stream}: {stamp} is lost, and what may have read it is live up to {:?}",
                    last_live[&stamp.epoch]
                ));
            }
        }
        Ok(())
    }
}

impl Thread {
    /// Another epoch takes records: what was begun in an earlier one is given up.
    fn turn_to(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.closing = false;
        self.in_doubt = false;
        self.begun.clear();
    }
}

/// The committed marks of every stream, each with the largest watermark that was told before it was committed.
fn logs_of(fabric: &Fabric) -> Vec<Vec<(Mark, Stamp)>> {
    let of = |entry: &super::oracle::Committed| {
        let header = entry.content.expect("everything was read back").header();
        Mark::of(&header).ok().flatten().map(|mark| (mark, entry.published))
    };
    fabric.oracle.shards.iter().map(|log| log.iter().filter_map(of).collect()).collect()
}

/// What a replica replays that reads the streams in some order, with hardly any room, until its watermark is `last` and it
/// has read all that it can.
fn replayed(
    logs: &[Vec<(Mark, Stamp)>],
    last: Stamp,
    random: &mut Random,
) -> Result<Vec<Vec<Stamp>>, String> {
    let mut replay = Replay::new(3 * RECORD_BYTES);
    let mut next = vec![0; logs.len()];
    let mut replayed = vec![Vec::new(); logs.len()];
    loop {
        let mut moved = false;
        for _ in 0..logs.len() {
            let stream = random.below(logs.len() as u64) as usize;
            let many = random.between(1, 8) as usize;
            for (mark, _) in logs[stream].iter().skip(next[stream]).take(many) {
                if replay.push(ShardId(stream as u32), mark, &[0; RECORD_BYTES]).is_err() {
                    break;
                }
                next[stream] += 1;
                moved = true;
            }
        }
        moved |= replay.drain(|stream, stamp, _| replayed[stream.0 as usize].push(stamp)) > 0;
        let left = (0..logs.len()).any(|stream| next[stream] < logs[stream].len());
        let stands_still = !moved && !can_move(logs, &next, &replay);
        if !left || stands_still && replay.fold().watermark() == last {
            return Ok(replayed);
        }
        if stands_still {
            return Err("deferred replay is stuck: every stream that has more waits for another".to_owned());
        }
    }
}

/// Whether some stream can be given more, whichever it is.
fn can_move(logs: &[Vec<(Mark, Stamp)>], next: &[usize], replay: &Replay) -> bool {
    (0..logs.len()).any(|stream| {
        logs[stream].get(next[stream]).is_some_and(|(mark, _)| {
            !matches!(mark, Mark::Data(_)) || replay.has_room(ShardId(stream as u32), RECORD_BYTES)
        })
    })
}

fn frame(request: &Request<'_>, body: &[u8]) -> Vec<u8> {
    let mut frame = Builder::new(Kind::Request);
    frame.push(&request.encode(), body.len());
    let mut bytes = frame.seal().to_vec();
    bytes.extend_from_slice(body);
    bytes
}
