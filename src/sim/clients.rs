//! The clients: they submit records that nobody else submits, read them back, follow the leader, give up and try
//! another node, and tell the oracle all that they are told.

use std::collections::BTreeMap;

use super::fabric::{ClientInput, Event, Fabric, PortInput};
use super::net::{node_id, node_of};
use super::oracle::{Content, IndexRead, Submitted, Told};
use super::random::mix;
use crate::io::ClientId;
use crate::limits::ENTRY_PAYLOAD_BYTES_MAX;
use crate::log::record;
use crate::types::{Acks, EntryId, Epoch, Index, ShardId, Timestamp};
use crate::wire::client::{Outcome, Reply, Request, Submit, replies};
use crate::wire::frame::{Builder, Kind};

/// A record begins with its client, its number and its key.
const HEAD_BYTES: usize = 24;

/// How many registers there are in each shard.
pub(super) const KEYS: u64 = 3;

/// What clients do at this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What the plan says.
    Load,
    /// Find out whether these nodes serve every shard: `served` has a bit for each that they do.
    Probe { members: Vec<usize>, since_ns: u64, served: u64 },
    /// Wait for answers.
    Quiet,
}

/// A request that is not answered.
#[derive(Clone, Debug)]
struct Waiting {
    node: usize,
    connection: ClientId,
    shard: ShardId,
    call_ns: u64,
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Submit { serial: u64, acks: Acks },
    Read { from: Index, wait: bool, auditing: bool },
    ReadIndex { key: u64 },
    Transfer,
}

/// One client.
struct Client {
    /// Per node.
    connections: Vec<Option<ClientId>>,
    waiting: BTreeMap<u64, Waiting>,
    next_request: u64,
    /// Per shard: who is thought to lead.
    hints: Vec<usize>,
}

/// All of them. The last one never submits: it reads every replica at the end.
pub(super) struct Clients {
    all: Vec<Client>,
    pub(super) mode: Mode,
    /// Reads of the audit that are not finished.
    pub(super) auditing: usize,
}

impl Clients {
    pub(super) fn new(fabric: &mut Fabric) -> Clients {
        let plan = fabric.plan.clone();
        let client = |_| Client {
            connections: vec![None; plan.nodes],
            waiting: BTreeMap::new(),
            next_request: 1,
            hints: vec![0; plan.shards as usize],
        };
        let all: Vec<Client> = (0..=plan.load.clients).map(client).collect();
        fabric.oracle.submits = vec![Vec::new(); all.len()];
        for client in 0..plan.load.clients {
            let at_ns = fabric.random.below(plan.load.think_ns);
            fabric.schedule(at_ns, Event::Client { client });
        }
        Clients { all, mode: Mode::Load, auditing: 0 }
    }

    /// The client looks at what it has to do.
    pub(super) fn on_due(&mut self, fabric: &mut Fabric, client: usize) {
        let plan = fabric.plan.clone();
        let next_ns = match &self.mode {
            Mode::Load => {
                self.give_up(fabric, client, plan.load.patience_ns);
                if self.all[client].waiting.len() < plan.load.outstanding_max {
                    self.ask(fabric, client);
                }
                fabric.random.skewed(1, 4 * plan.load.think_ns)
            }
            Mode::Probe { .. } => {
                if client == 0 {
                    self.give_up(fabric, client, plan.election_ns / 2);
                    self.probe(fabric);
                }
                plan.election_ns / 4
            }
            Mode::Quiet => return,
        };
        fabric.schedule(fabric.now_ns + next_ns, Event::Client { client });
    }

    fn ask(&mut self, fabric: &mut Fabric, client: usize) {
        let plan = fabric.plan.clone();
        let load = &plan.load;
        let shard = ShardId(fabric.random.below(u64::from(plan.shards)) as u32);
        let mut leader = self.all[client].hints[shard.0 as usize];
        if fabric.random.chance(100_000) {
            leader = fabric.random.below(plan.nodes as u64) as usize;
        }
        if fabric.random.chance(load.read_ppm) {
            let node = fabric.random.below(plan.nodes as u64) as usize;
            let from = Index(fabric.random.below(fabric.oracle.committed(shard).0 + 2));
            let wait = fabric.random.chance(200_000);
            self.send_read(fabric, client, node, shard, from, wait);
        } else if fabric.random.chance(load.read_index_ppm) {
            let key = fabric.random.below(KEYS);
            self.request(fabric, client, leader, shard, Asked::ReadIndex { key }, |request| {
                Request::ReadIndex { request, shard }.encode()
            });
        } else {
            let acks = match fabric.random.chance(load.weak_acks_ppm) {
                true => *fabric.random.pick(&[Acks::None, Acks::Leader]),
                false => Acks::Quorum,
            };
            let len = fabric.random.skewed(HEAD_BYTES as u64, load.bytes_max.max(HEAD_BYTES as u64)) as usize;
            let large = fabric.random.chance(load.large_ppm);
            let len = if large {
                len + ENTRY_PAYLOAD_BYTES_MAX * fabric.random.between(1, 2) as usize
            } else {
                len
            };
            self.submit(fabric, client, leader, shard, len, acks);
        }
    }

    fn probe(&mut self, fabric: &mut Fabric) {
        let Mode::Probe { members, served, .. } = self.mode.clone() else { return };
        for shard in (0..fabric.plan.shards).map(ShardId).filter(|shard| served & 1 << shard.0 == 0) {
            let submitted = |waiting: &Waiting| matches!(waiting.asked, Asked::Submit { .. });
            if self.all[0].waiting.values().any(|waiting| waiting.shard == shard && submitted(waiting)) {
                continue;
            }
            let hint = self.all[0].hints[shard.0 as usize];
            // Who leads may be none of them, and serves all the same; but who does not answer is left for one of them.
            let known = self.all[0].connections[hint].is_some() || members.contains(&hint);
            let node =
                if known || fabric.random.chance(500_000) { hint } else { *fabric.random.pick(&members) };
            self.submit(fabric, 0, node, shard, HEAD_BYTES, Acks::Quorum);
        }
    }

    fn submit(
        &mut self,
        fabric: &mut Fabric,
        client: usize,
        node: usize,
        shard: ShardId,
        len_bytes: usize,
        acks: Acks,
    ) {
        let serial = fabric.oracle.submits[client].len() as u64;
        let key = fabric.random.below(KEYS);
        let Some(connection) = self.connect(fabric, client, node) else { return };
        let bytes = payload(client as u64 + 1, serial, key, len_bytes);
        let request = self.all[client].next_request;
        let parts = bytes.chunks(ENTRY_PAYLOAD_BYTES_MAX);
        let mut more_bytes = bytes.len();
        let mut last_crc = 0;
        for part in parts {
            more_bytes -= part.len();
            last_crc = record::payload_crc(part);
            let submit = Submit {
                request,
                shard,
                acks,
                // Among an engine's streams a record without a stamp is nobody's transaction.
                timestamp: Timestamp(if fabric.plan.engine { 0 } else { serial << 8 | client as u64 }),
                epoch: Epoch(key as u32),
                session: client as u64 + 1,
                serial,
                payload_crc: last_crc,
                more_bytes: more_bytes as u32,
                payload: part,
            };
            send(fabric, client, node, connection, &Request::Submit(submit).encode(), part);
        }
        let call_ns = fabric.now_ns;
        let submitted =
            Submitted { shard, key, last_crc, call_ns, return_ns: None, told: None, committed: None };
        fabric.oracle.submits[client].push(submitted);
        self.all[client].next_request += 1;
        let asked = Asked::Submit { serial, acks };
        self.all[client].waiting.insert(request, Waiting { node, connection, shard, call_ns, asked });
    }

    /// Asks something that is all said in its row.
    fn request(
        &mut self,
        fabric: &mut Fabric,
        client: usize,
        node: usize,
        shard: ShardId,
        asked: Asked,
        row: impl FnOnce(u64) -> [u8; 64],
    ) -> bool {
        let Some(connection) = self.connect(fabric, client, node) else { return false };
        let request = self.all[client].next_request;
        self.all[client].next_request += 1;
        send(fabric, client, node, connection, &row(request), &[]);
        let call_ns = fabric.now_ns;
        self.all[client].waiting.insert(request, Waiting { node, connection, shard, call_ns, asked });
        true
    }

    fn send_read(
        &mut self,
        fabric: &mut Fabric,
        client: usize,
        node: usize,
        shard: ShardId,
        from: Index,
        wait: bool,
    ) -> bool {
        let auditing = client + 1 == self.all.len();
        self.request(fabric, client, node, shard, Asked::Read { from, wait, auditing }, |request| {
            Request::Read { request, shard, from, bytes_max: 1 << 20, wait }.encode()
        })
    }

    /// An operator asks the shard's leader to hand over.
    pub(super) fn transfer(&mut self, fabric: &mut Fabric, shard: ShardId, to: usize) {
        let Some(node) = fabric.oracle.node_of_leader(shard) else { return };
        self.request(fabric, 0, node, shard, Asked::Transfer, |request| {
            Request::Transfer { request, shard, to: node_id(to) }.encode()
        });
    }

    /// Reads all of a replica's shard back.
    pub(super) fn audit(&mut self, fabric: &mut Fabric, node: usize, shard: ShardId, from: Index) {
        let auditor = self.all.len() - 1;
        if self.send_read(fabric, auditor, node, shard, from, false) {
            self.auditing += 1;
        }
    }

    fn connect(&mut self, fabric: &mut Fabric, client: usize, node: usize) -> Option<ClientId> {
        if let Some(connection) = self.all[client].connections[node] {
            return Some(connection);
        }
        if !fabric.nodes[node].up {
            let other = fabric.random.below(fabric.nodes.len() as u64) as usize;
            let hints = &mut self.all[client].hints;
            hints.iter_mut().filter(|hint| **hint == node).for_each(|hint| *hint = other);
            return None;
        }
        let connection = ClientId(fabric.next_connection);
        fabric.next_connection += 1;
        fabric.nodes[node].connections.push((connection, client));
        self.all[client].connections[node] = Some(connection);
        fabric.send_to_node(client, node, PortInput::Opened(connection));
        Some(connection)
    }

    /// A client that has waited too long for a node leaves it.
    fn give_up(&mut self, fabric: &mut Fabric, client: usize, patience_ns: u64) {
        let now_ns = fabric.now_ns;
        let tired = |waiting: &Waiting| {
            waiting.call_ns + patience_ns < now_ns && !matches!(waiting.asked, Asked::Read { wait: true, .. })
        };
        let waiting = self.all[client].waiting.values();
        let nodes: Vec<usize> =
            waiting.filter(|waiting| tired(waiting)).map(|waiting| waiting.node).collect();
        for node in nodes {
            self.hang_up(fabric, client, node);
            let other = fabric.random.below(fabric.nodes.len() as u64) as usize;
            let hints = &mut self.all[client].hints;
            hints.iter_mut().filter(|hint| **hint == node).for_each(|hint| *hint = other);
        }
    }

    /// The client closes its connection to a node.
    pub(super) fn hang_up(&mut self, fabric: &mut Fabric, client: usize, node: usize) {
        let Some(connection) = self.all[client].connections[node].take() else { return };
        fabric.send_to_node(client, node, PortInput::Closed(connection));
        fabric.nodes[node].connections.retain(|&(id, _)| id != connection);
        self.forget(fabric, client, connection);
    }

    /// Nothing more comes over this connection.
    fn forget(&mut self, fabric: &mut Fabric, client: usize, connection: ClientId) {
        let now_ns = fabric.now_ns;
        let mut lost = Vec::new();
        self.all[client].waiting.retain(|_, waiting| {
            let stays = waiting.connection != connection;
            if !stays {
                lost.push(waiting.asked);
            }
            stays
        });
        for asked in lost {
            match asked {
                Asked::Submit { serial, .. } => fabric.oracle.on_told(now_ns, client, serial, Told::Unknown),
                Asked::Read { auditing: true, .. } => {
                    fabric.oracle.fail("a replica is gone while it is read back".to_owned());
                }
                _ => {}
            }
        }
    }

    /// How many there are that submit.
    pub(super) fn count(&self) -> usize {
        self.all.len() - 1
    }

    /// Requests to nodes that never answered, in words; reads that may wait for ever aside.
    pub(super) fn unanswered(&self) -> Option<String> {
        let all = self.all.iter().enumerate();
        let mut waiting =
            all.flat_map(|(client, state)| state.waiting.iter().map(move |waiting| (client, waiting)));
        let found =
            waiting.find(|(_, (_, waiting))| !matches!(waiting.asked, Asked::Read { wait: true, .. }));
        found.map(|(client, (request, waiting))| {
            let Waiting { node, shard, asked, .. } = waiting;
            format!(
                "shard {shard}: node {} never answers request {request} of client {}: {asked:?}",
                node + 1,
                client + 1
            )
        })
    }

    /// Something has come from a node.
    pub(super) fn on_input(&mut self, fabric: &mut Fabric, client: usize, input: ClientInput) {
        match input {
            ClientInput::Closed(connection) => {
                let connections = &mut self.all[client].connections;
                let Some(place) = connections.iter_mut().find(|held| **held == Some(connection)) else {
                    return;
                };
                *place = None;
                self.forget(fabric, client, connection);
            }
            ClientInput::Frame(connection, bytes) => {
                if !self.all[client].connections.contains(&Some(connection)) {
                    return;
                }
                match replies(&bytes) {
                    Ok(replies) => replies.for_each(|reply| self.on_reply(fabric, client, connection, reply)),
                    Err(malformed) => {
                        fabric.oracle.fail(format!("a client does not understand a node: {malformed}"))
                    }
                }
            }
        }
    }

    fn on_reply(&mut self, fabric: &mut Fabric, client: usize, connection: ClientId, reply: Reply<'_>) {
        let request = match reply {
            Reply::Outcome { request, .. }
            | Reply::Records { request, .. }
            | Reply::Status { request, .. }
            | Reply::ReadIndex { request, .. }
            | Reply::Stream { request, .. }
            | Reply::EpochClosed { request, .. } => request,
            Reply::Farewell => return self.on_farewell(fabric, client, connection),
        };
        let waiting =
            self.all[client].waiting.remove(&request).filter(|waiting| waiting.connection == connection);
        let Some(waiting) = waiting else {
            return fabric
                .oracle
                .fail(format!("request {request} of client {} is answered twice: {reply:?}", client + 1));
        };
        match (reply, waiting.asked) {
            (Reply::Outcome { outcome, .. }, asked) => {
                self.on_outcome(fabric, client, (request, waiting), asked, outcome)
            }
            (Reply::Records { next, commit, records, .. }, Asked::Read { from, auditing, .. }) => {
                self.on_records(fabric, &waiting, (from, next, commit), records, auditing);
            }
            (Reply::ReadIndex { index, .. }, Asked::ReadIndex { key }) => {
                let (shard, call_ns, return_ns) = (waiting.shard, waiting.call_ns, fabric.now_ns);
                fabric.oracle.counts.index_reads += 1;
                fabric.oracle.index_reads.push(IndexRead { client, shard, key, call_ns, return_ns, index });
            }
            (reply, asked) => fabric.oracle.fail(format!("{asked:?} is answered with {reply:?}")),
        }
    }

    /// The node stops: what it has not answered here it has not taken.
    fn on_farewell(&mut self, fabric: &mut Fabric, client: usize, connection: ClientId) {
        let now_ns = fabric.now_ns;
        self.all[client].waiting.retain(|_, waiting| {
            if waiting.connection != connection {
                return true;
            }
            let Asked::Submit { serial, .. } = waiting.asked else { return true };
            fabric.oracle.on_told(now_ns, client, serial, Told::Rejected);
            false
        });
        let node = self.all[client].connections.iter().position(|held| *held == Some(connection));
        if let Some(node) = node {
            self.hang_up(fabric, client, node);
        }
    }

    fn on_outcome(
        &mut self,
        fabric: &mut Fabric,
        client: usize,
        (request, waiting): (u64, Waiting),
        asked: Asked,
        outcome: Outcome,
    ) {
        let Waiting { node, connection, shard, .. } = waiting;
        if let Outcome::NotLeader { leader } = outcome {
            let random = fabric.random.below(fabric.nodes.len() as u64) as usize;
            self.all[client].hints[shard.0 as usize] = leader.map_or(random, node_of);
        }
        let Asked::Submit { serial, acks } = asked else {
            if let Asked::Read { auditing: true, .. } = asked {
                fabric.oracle.fail(format!("node {} does not let itself be read: {outcome:?}", node + 1));
            }
            return;
        };
        let told = match (outcome, acks) {
            (Outcome::Committed { id, .. }, Acks::Quorum) => Told::Committed(id),
            (Outcome::Committed { id, .. }, _) => Told::Weakly(id),
            (Outcome::NotLeader { .. } | Outcome::Busy | Outcome::LogFull, _) => Told::Rejected,
            (Outcome::Unknown | Outcome::Stopping, _) => Told::Unknown,
            (
                Outcome::Invalid
                | Outcome::Accepted
                | Outcome::Behind { .. }
                | Outcome::Unregistered
                | Outcome::EpochClosed { .. },
                _,
            ) => {
                return fabric.oracle.fail(format!("a good submit is answered with {outcome:?}"));
            }
        };
        // Who did not ask for a quorum may hear of an entry that is lost, and be told no more.
        let now_ns = fabric.now_ns;
        fabric.oracle.on_told(now_ns, client, serial, told);
        if let Told::Committed(id) = told {
            fabric.oracle.on_order(connection, shard, request, id.index);
            let call_ns = waiting.call_ns;
            if let Mode::Probe { served, since_ns, .. } = &mut self.mode
                && call_ns >= *since_ns
            {
                *served |= 1 << shard.0;
            }
        }
    }

    fn on_records(
        &mut self,
        fabric: &mut Fabric,
        waiting: &Waiting,
        (from, next, commit): (Index, Index, Index),
        records: &[u8],
        auditing: bool,
    ) {
        let &Waiting { node, shard, .. } = waiting;
        let mut at = from.max(Index(1));
        for record in record::records(records) {
            let header = match record {
                // Summed here once more: whoever laid it may not have.
                Ok(record) if record::payload_crc(record.payload) != record.header.payload_crc => {
                    return fabric.oracle.fail(format!("node {} gives a reader a changed payload", node + 1));
                }
                Ok(record) => record.header,
                Err(malformed) => {
                    return fabric
                        .oracle
                        .fail(format!("node {} gives a reader bad bytes: {malformed}", node + 1));
                }
            };
            if header.shard != shard.0 || header.index != at.0 || at > commit {
                return fabric
                    .oracle
                    .fail(format!("node {} answers a read from {from} with {header:?}", node + 1));
            }
            let id = EntryId { term: crate::types::Term(header.term), index: at };
            fabric.oracle.on_committed(node, shard, id, Some(Content::of(&header)));
            at = at.next();
        }
        if next != at {
            fabric.oracle.fail(format!("node {} says {next} follows {at}", node + 1));
        }
        if auditing {
            self.auditing -= 1;
            if at <= commit {
                self.audit(fabric, node, shard, at);
            }
        }
    }
}

fn send(fabric: &mut Fabric, client: usize, node: usize, connection: ClientId, row: &[u8; 64], body: &[u8]) {
    let mut frame = Builder::new(Kind::Request);
    frame.push(row, body.len());
    let mut bytes = frame.seal().to_vec();
    bytes.extend_from_slice(body);
    fabric.send_to_node(client, node, PortInput::Frame(connection, bytes));
}

/// A record that nobody else submits.
fn payload(session: u64, serial: u64, key: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len_bytes);
    for word in [session, serial, key] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.resize(len_bytes, mix(session << 32 ^ serial) as u8);
    bytes
}
