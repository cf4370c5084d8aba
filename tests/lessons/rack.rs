//! Nodes for the lessons: in this process, with an engine's threads at each of them, or in processes of their own.

use std::path::Path;
use std::time::Instant;

use plimsoll::client::Reader;
use plimsoll::client::ring::{Attachment, Event, Options, Replica, RingError, Stream};
use plimsoll::local::{Cluster, Shape, be_patient};
use plimsoll::node::{Config, Node};
use plimsoll::raft::Role;
use plimsoll::types::{Acks, Epoch, Index, NodeId, ShardId, Stamp, Timestamp};
use plimsoll::wire::client::{Outcome, Reply, StreamRequest};

use crate::PATIENCE;

pub(crate) const NODES: u32 = 3;

/// Small logs and little memory, so that many clusters fit a machine.
pub(crate) fn small() -> Shape {
    Shape { nodes: NODES, segment_mib: 16, capacity_mib: 1024, chunks: 8, ..Shape::default() }
}

/// A cluster of which nothing runs yet. Its elections wait longer than a machine that does much else holds a process
/// up: how soon a leader is missed is for `tests/cluster` to show.
pub(crate) fn cluster(name: &str, shape: &Shape) -> Cluster {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
    let mut cluster = Cluster::new(Path::new(env!("CARGO_BIN_EXE_plimsoll")), &directory, shape).unwrap();
    for id in cluster.ids() {
        cluster.reconfigure(id, be_patient).unwrap();
    }
    cluster
}

/// One whose nodes, processes of their own, let engines in.
pub(crate) fn cluster_with_sockets(name: &str, shape: Shape) -> Cluster {
    fn tune(config: &mut Config) {
        config.engine.socket = Some(config.data_dir.with_extension("engines"));
    }
    cluster(name, &Shape { tune, ..shape })
}

/// An engine's thread in this process, at a node that is another one.
pub(crate) fn connect(cluster: &Cluster, node: NodeId, session: u64) -> Attachment {
    let socket = cluster.config(node).engine.socket.as_deref().unwrap();
    Attachment::connect(socket, options(cluster, 0, session)).unwrap()
}

fn options(cluster: &Cluster, shard: u32, session: u64) -> Options {
    Options::new(cluster.config(NodeId(1)).cluster_id(), ShardId(shard), session)
}

/// Submits a record as soon as the ring has room; `each` is told what ends meanwhile.
pub(crate) fn submit(
    ring: &mut Attachment,
    bytes: &[u8],
    stamp: Stamp,
    mut each: impl FnMut(u64, Outcome),
) -> u64 {
    loop {
        match ring.submit(bytes, stamp.timestamp, stamp.epoch, Acks::Quorum) {
            Ok(request) => return request.0,
            Err(RingError::Busy) => take(ring, &mut each),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits for outcomes and tells them.
pub(crate) fn take(ring: &mut Attachment, mut each: impl FnMut(u64, Outcome)) {
    assert!(ring.wait(PATIENCE), "{} without an outcome", ring.outstanding());
    ring.poll(|reply| match reply {
        Reply::Outcome { request, outcome } => each(request, outcome),
        other => panic!("{other:?}"),
    });
}

pub(crate) fn assert_committed(_: u64, outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
}

/// Submits records without stamps and waits for all to be committed.
pub(crate) fn submit_all(ring: &mut Attachment, records: &[Vec<u8>]) {
    for record in records {
        submit(ring, record, Stamp::ZERO, assert_committed);
    }
    while ring.outstanding() > 0 {
        take(ring, assert_committed);
    }
}

/// What one record of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) stamp: Stamp,
    pub(crate) session: u64,
    pub(crate) serial: u64,
    pub(crate) payload: Vec<u8>,
}

/// The first `count` records of a node's log of shard 0.
pub(crate) fn read(cluster: &Cluster, node: NodeId, count: usize) -> Vec<Found> {
    let mut found = Vec::new();
    read_until(cluster, node, |record| {
        found.push(record);
        found.len() == count
    });
    found
}

/// All records that are there before one that is submitted now, to a leader.
pub(crate) fn read_all(cluster: &Cluster, leader: NodeId, ring: &mut Attachment) -> Vec<Found> {
    const SEAL: &[u8] = b"the last one";
    submit_all(ring, &[SEAL.to_vec()]);
    let mut found = Vec::new();
    read_until(cluster, leader, |record| {
        let is_seal = record.payload == SEAL;
        found.extend((!is_seal).then_some(record));
        is_seal
    });
    found
}

fn read_until(cluster: &Cluster, node: NodeId, mut take: impl FnMut(Found) -> bool) {
    let mut reader = Reader::open(cluster.client_options(), node, ShardId(0), Index(1)).unwrap();
    loop {
        let record = reader.next_record(PATIENCE).unwrap().expect("the log ends before");
        let found = Found {
            stamp: Stamp::new(record.epoch, record.timestamp),
            session: record.session,
            serial: record.serial,
            payload: record.payload.to_vec(),
        };
        if take(found) {
            return;
        }
    }
}

pub(crate) fn at(epoch: u32, timestamp: u64) -> Stamp {
    Stamp::new(Epoch(epoch), Timestamp(timestamp))
}

/// A cluster whose nodes are all in this process.
pub(crate) struct Rack {
    pub(crate) cluster: Cluster,
    nodes: Vec<Option<Node>>,
}

impl Rack {
    pub(crate) fn start(name: &str, shape: &Shape) -> Rack {
        let cluster = cluster(name, shape);
        let nodes = cluster.ids().iter().map(|_| None).collect();
        let mut rack = Rack { cluster, nodes };
        rack.start_all();
        rack
    }

    pub(crate) fn start_all(&mut self) {
        for (node, id) in self.nodes.iter_mut().zip(1..) {
            node.get_or_insert_with(|| Node::start(self.cluster.config(NodeId(id)).clone()).unwrap());
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize - 1].as_ref().unwrap()
    }

    /// Takes a node out, to stop it.
    pub(crate) fn take(&mut self, id: NodeId) -> Node {
        self.nodes[id.0 as usize - 1].take().unwrap()
    }

    pub(crate) fn running(&self) -> Vec<NodeId> {
        self.cluster.ids().into_iter().filter(|id| self.nodes[id.0 as usize - 1].is_some()).collect()
    }

    /// Asks all to stop, then waits for each: none can hand over to another.
    pub(crate) fn stop_all(&mut self) {
        let nodes: Vec<Node> = self.nodes.iter_mut().filter_map(Option::take).collect();
        nodes.iter().for_each(|node| node.stopper().stop());
        nodes.into_iter().for_each(|node| node.wait().unwrap());
    }

    pub(crate) fn attach(&self, id: NodeId, shard: u32, session: u64) -> Attachment {
        Attachment::embedded(&self.node(id).desk(), options(&self.cluster, shard, session)).unwrap()
    }

    /// Waits until some node leads shard 0 and has committed something.
    pub(crate) fn leader(&self) -> NodeId {
        let rings = self.running().into_iter().map(|id| (id, self.attach(id, 0, u64::MAX)));
        let mut rings: Vec<_> = rings.collect();
        let until = Instant::now() + PATIENCE;
        loop {
            for (id, ring) in &mut rings {
                assert!(Instant::now() < until, "nobody leads");
                ring.status().unwrap();
                assert!(ring.wait(PATIENCE));
                let mut leads = false;
                ring.poll(|reply| {
                    let Reply::Status { status, .. } = reply else { panic!("{reply:?}") };
                    leads = status.role == Role::Leader && status.commit > Index(0);
                });
                if leads {
                    return *id;
                }
            }
        }
    }
}

/// An engine on three nodes of this process: of each node a stream for each shard, and a replica.
pub(crate) struct Engine {
    pub(crate) rack: Rack,
    pub(crate) seats: Vec<Seat>,
    /// All that any stream was told.
    pub(crate) told: Vec<(NodeId, ShardId, Event)>,
}

pub(crate) struct Seat {
    pub(crate) streams: Vec<Stream>,
    pub(crate) replica: Replica,
    pub(crate) replayed: Vec<(ShardId, Stamp, Vec<u8>)>,
}

impl Engine {
    /// With so many shards on two lanes (one if there is but one), and so much room for deferred records of each.
    pub(crate) fn start(name: &str, shards: u32, deferred_bytes_max: usize) -> Engine {
        let tune = |config: &mut Config| config.engine.streams = true;
        let rack = Rack::start(name, &Shape { lanes: shards.min(2) as u16, shards, tune, ..small() });
        let seat = |id| Seat {
            streams: (0..shards).map(|shard| Stream::new(rack.attach(id, shard, 7))).collect(),
            replica: Replica::new((0..shards).map(|shard| rack.attach(id, shard, 8)), deferred_bytes_max),
            replayed: Vec::new(),
        };
        let seats = rack.cluster.ids().into_iter().map(seat).collect();
        let mut engine = Engine { rack, seats, told: Vec::new() };
        engine.run_until("every shard has a leader", |engine| {
            (0..shards).all(|shard| engine.leads(shard).is_some())
        });
        engine
    }

    /// Takes in once what has come, everywhere.
    pub(crate) fn poll(&mut self) {
        for (seat, id) in self.seats.iter_mut().zip(1..) {
            let Seat { streams, replica, replayed } = seat;
            for (stream, shard) in streams.iter_mut().zip(0..) {
                stream.poll(|event| self.told.push((NodeId(id), ShardId(shard), event)));
            }
            replica.poll(|shard, stamp, bytes| replayed.push((shard, stamp, bytes.into()))).unwrap();
        }
    }

    pub(crate) fn run_until(&mut self, what: &str, mut is_done: impl FnMut(&mut Engine) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_done(self) {
            assert!(Instant::now() < until, "{what}: {:?}", self.told);
            self.poll();
            std::thread::yield_now();
        }
    }

    /// Which node leads a shard.
    pub(crate) fn leads(&self, shard: u32) -> Option<NodeId> {
        self.find(|seat| seat.role_is(shard, Role::Leader))
    }

    /// Where records of this shard are taken now.
    pub(crate) fn takes(&self, shard: u32) -> Option<NodeId> {
        self.find(|seat| seat.streams[shard as usize].may_submit())
    }

    fn find(&self, is_it: impl Fn(&Seat) -> bool) -> Option<NodeId> {
        self.seats.iter().position(is_it).map(|at| NodeId(at as u32 + 1))
    }

    pub(crate) fn ring(&mut self, id: NodeId, shard: u32) -> &mut Attachment {
        self.seats[id.0 as usize - 1].streams[shard as usize].attachment()
    }

    /// Registers streams and waits until they take records.
    pub(crate) fn register(&mut self, shards: core::ops::Range<u32>) {
        for shard in shards.clone() {
            let outcome = self.ask(0, StreamRequest::Register(ShardId(shard)));
            assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        }
        self.run_until("all are open", |engine| shards.clone().all(|shard| engine.takes(shard).is_some()));
    }

    /// Has something written down in a stream, by who leads it.
    pub(crate) fn ask(&mut self, shard: u32, asked: StreamRequest) -> Outcome {
        let leader = self.leads(shard).unwrap();
        let request = self.ring(leader, shard).stream(asked).unwrap().0;
        self.outcome(leader, shard, request)
    }

    /// Submits a record to a stream's leader and waits for its outcome.
    pub(crate) fn submit(&mut self, shard: u32, stamp: Stamp, bytes: &[u8]) -> Outcome {
        let leader = self.leads(shard).unwrap();
        let request = submit(self.ring(leader, shard), bytes, stamp, |_, _| ());
        self.outcome(leader, shard, request)
    }

    /// As [`Engine::submit`], of what is to be committed.
    pub(crate) fn commit(&mut self, shard: u32, stamp: Stamp, bytes: &[u8]) {
        let outcome = self.submit(shard, stamp, bytes);
        assert!(
            matches!(outcome, Outcome::Committed { timestamp, .. } if timestamp == stamp.timestamp),
            "{stamp}: {outcome:?}"
        );
    }

    fn outcome(&mut self, node: NodeId, shard: u32, request: u64) -> Outcome {
        let mut found = None;
        self.run_until("an outcome", |engine| {
            found = engine.told.iter().find_map(|told| match *told {
                (at, of, Event::Ended { request: ended, outcome }) if (at, of.0) == (node, shard) => {
                    (ended.0 == request).then_some(outcome)
                }
                _ => None,
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until every node's board, stream and replica tell this watermark, and not more.
    pub(crate) fn await_watermark(&mut self, stamp: Stamp) {
        self.run_until("every node tells the watermark", |engine| {
            let boards = engine.boards();
            let mut seats = engine.seats.iter();
            boards.iter().all(|board| board.watermark() == stamp)
                && seats.all(|seat| {
                    let mut streams = seat.streams.iter();
                    seat.replica.watermark() == stamp && streams.all(|stream| stream.watermark() == stamp)
                })
        });
    }

    /// Waits until every node knows that a stream has come so far.
    pub(crate) fn await_position(&mut self, shard: u32, stamp: Stamp) {
        self.run_until("every node knows where the stream stands", |engine| {
            let boards = engine.boards();
            boards.iter().all(|board| board.vector().contains(&(ShardId(shard), stamp)))
        });
    }

    fn boards(&self) -> Vec<std::sync::Arc<plimsoll::engine::board::Board>> {
        let ids = self.rack.running().into_iter();
        ids.map(|id| self.rack.node(id).board().unwrap()).collect()
    }

    /// Every watermark that any thread was told, in order, once.
    pub(crate) fn watermarks(&self) -> Vec<Stamp> {
        let mut found: Vec<Stamp> = self
            .told
            .iter()
            .filter_map(|told| match told {
                (_, _, Event::Watermark(stamp)) => Some(*stamp),
                _ => None,
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    pub(crate) fn stop(mut self) {
        self.seats.clear();
        self.rack.stop_all();
    }
}

impl Seat {
    fn role_is(&self, shard: u32, role: Role) -> bool {
        self.streams[shard as usize].role().is_some_and(|is| is.role == role)
    }
}
