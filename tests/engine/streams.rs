//! An engine's streams on a real node: registration, the watermark, stamps that are refused, and epochs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use plimsoll::client::ring::Attachment;
use plimsoll::engine::Mark;
use plimsoll::engine::board::Board;
use plimsoll::engine::replay::Replay;
use plimsoll::log::record::records as records_of;
use plimsoll::node::Node;
use plimsoll::raft::Role;
use plimsoll::types::{Stamp, Term};
use plimsoll::wire::client::{StreamRequest, StreamStatus};

use crate::*;

const LANES: u16 = 2;

/// A node with two lanes, whose shards are streams; an attachment to each of two of them.
pub(crate) struct Engine {
    pub(crate) cluster: Cluster,
    pub(crate) node: Node,
    pub(crate) board: Arc<Board>,
    pub(crate) streams: [Stream; 2],
}

/// One stream as its thread has it.
pub(crate) struct Stream {
    pub(crate) ring: Attachment,
    pub(crate) status: StreamStatus,
    /// Of the epochs that were told to be closed, the last stamps that live.
    pub(crate) ends: Vec<Stamp>,
}

impl Engine {
    /// With three shards, attached to the first two.
    pub(crate) fn start(name: &str) -> Engine {
        Engine::with(name, 3, [0, 1].map(ShardId))
    }

    pub(crate) fn with(name: &str, shards: u32, attached: [ShardId; 2]) -> Engine {
        let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
        let tune = |config: &mut Config| {
            config.engine.streams = true;
            config.engine.socket = Some(config.data_dir.with_extension("engines"));
            // The engine of these tests always says itself that it ends an epoch.
            config.engine.epoch_grace_ms = 60_000;
        };
        let shape = Shape {
            nodes: 1,
            lanes: LANES,
            shards,
            segment_mib: 16,
            capacity_mib: 128,
            chunks: 8,
            admin: true,
            tune,
            ..Shape::default()
        };
        let binary = Path::new(env!("CARGO_BIN_EXE_plimsoll"));
        let cluster = Cluster::new(binary, &directory, &shape).unwrap();
        let node = Node::start(cluster.config(NODE).clone()).unwrap();
        let desk = node.desk();
        let streams = attached.map(|shard| {
            let options = Options { shard, ..options(&cluster, 7) };
            let mut ring = Attachment::embedded(&desk, options).unwrap();
            await_leader(&mut ring);
            Stream { ring, status: nothing_yet(shard), ends: Vec::new() }
        });
        let board = node.board().unwrap();
        Engine { cluster, node, board, streams }
    }

    /// Registers both streams, and waits until they take records.
    pub(crate) fn register(&mut self) {
        for shard in [0, 1].map(|at| self.streams[at].status.shard) {
            let outcome = self.streams[0].ask(StreamRequest::Register(shard));
            assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        }
        for stream in &mut self.streams {
            stream.ring.subscribe().unwrap();
            stream.await_status(|status| status.takes_records);
        }
    }

    pub(crate) fn stop(self) {
        drop(self.streams);
        self.node.stopper().stop();
        self.node.wait().unwrap();
        drop(self.cluster);
    }
}

fn nothing_yet(shard: ShardId) -> StreamStatus {
    StreamStatus {
        shard,
        role: Role::Follower,
        term: Term(0),
        leader: None,
        epoch: Epoch(0),
        open: false,
        takes_records: false,
        closing: false,
        watermark: Stamp::ZERO,
        stands_at: Timestamp(0),
    }
}

impl Stream {
    /// Takes in what has come until `is_done` says that it is enough.
    fn wait_until(
        &mut self,
        what: &str,
        mut is_done: impl FnMut(&mut Option<Outcome>, &StreamStatus) -> bool,
    ) {
        let until = Instant::now() + PATIENCE;
        let mut ended = None;
        while !is_done(&mut ended, &self.status) {
            assert!(Instant::now() < until, "{what}: {:?}", self.status);
            self.ring.wait(PATIENCE);
            self.ring.poll(|reply| match reply {
                Reply::Outcome { outcome, .. } => ended = Some(outcome),
                Reply::Stream { status, .. } => {
                    let is_told = (0..).map(Epoch).zip(&self.ends).all(|(epoch, end)| end.epoch == epoch);
                    assert!(
                        is_told && self.ends.len() == status.epoch.0 as usize,
                        "{status:?}: {:?}",
                        self.ends
                    );
                    self.status = status;
                }
                Reply::EpochClosed { last, .. } => self.ends.push(last),
                other => panic!("{other:?}"),
            });
        }
    }

    fn outcome(&mut self) -> Outcome {
        let mut outcome = None;
        self.wait_until("no answer", |ended, _| {
            outcome = *ended;
            outcome.is_some()
        });
        outcome.unwrap()
    }

    pub(crate) fn ask(&mut self, asked: StreamRequest) -> Outcome {
        self.ring.stream(asked).unwrap();
        self.outcome()
    }

    pub(crate) fn put(&mut self, epoch: u32, timestamp: u64) -> Outcome {
        self.ring.submit(b"an entry", Timestamp(timestamp), Epoch(epoch), Acks::Quorum).unwrap();
        self.outcome()
    }

    fn await_status(&mut self, is_it: impl Fn(&StreamStatus) -> bool) {
        self.wait_until("the status does not come to that", |_, status| is_it(status));
    }
}

pub(crate) fn is_committed(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

pub(crate) fn at(epoch: u32, timestamp: u64) -> Stamp {
    Stamp::new(Epoch(epoch), Timestamp(timestamp))
}

/// What the node tells an operator's tools.
fn metrics(cluster: &Cluster) -> String {
    let mut socket = TcpStream::connect(cluster.config(NODE).admin.listen.unwrap()).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    let mut told = String::new();
    socket.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    told
}

#[test]
fn the_watermark_follows_the_slower_stream_and_is_told_across_lanes() {
    let mut engine = Engine::start("streams");
    assert!(!metrics(&engine.cluster).contains("plimsoll_watermark_timestamp"), "there is none yet");
    assert_eq!(engine.streams[1].put(0, 5), Outcome::Unregistered);
    engine.register();
    let Engine { streams: [first, second], board, cluster, .. } = &mut engine;
    assert!(is_committed(first.put(0, 10)));
    assert_eq!(board.watermark(), Stamp::ZERO, "stream 1 stands at nothing");
    assert!(is_committed(second.put(0, 7)));
    // A commit is answered after its own lane has published where the stream stands.
    assert_eq!(board.watermark(), at(0, 7));
    assert_eq!(board.vector(), [(ShardId(0), at(0, 10)), (ShardId(1), at(0, 7))]);
    first.await_status(|status| status.watermark == at(0, 7));
    let told = metrics(cluster);
    for line in [
        "plimsoll_streams_registered 2",
        "plimsoll_epoch_open 0",
        "plimsoll_watermark_epoch 0",
        "plimsoll_watermark_timestamp 7",
        "plimsoll_engines_attached{lane=\"0\"} 1",
        "plimsoll_engines_attached{lane=\"1\"} 1",
    ] {
        assert_eq!(told.lines().filter(|found| *found == line).count(), 1, "{line}:\n{told}");
    }

    assert_eq!(second.put(0, 7), Outcome::Behind { last: at(0, 7) });
    assert_eq!(second.put(1, 8), Outcome::EpochClosed { open: Epoch(0) });
    assert_eq!(second.put(0, u64::MAX), Outcome::Invalid);
    // An idle stream moves along without a record.
    assert!(is_committed(second.ask(StreamRequest::Advance(at(0, 30)))));
    assert_eq!(board.watermark(), at(0, 10));
    assert_eq!(second.put(0, 30), Outcome::Behind { last: at(0, 30) });
    // Records that carry no stamp are nobody's transactions, and go on as ever.
    assert!(is_committed(second.put(0, 0)));
    assert!(is_committed(second.ask(StreamRequest::EndOfStream)));
    assert!(is_committed(first.put(0, 99)));
    assert_eq!(board.watermark(), at(0, 99));
    engine.stop();
}

#[test]
fn an_epoch_ends_in_every_stream_and_the_next_one_takes_records() {
    let mut engine = Engine::start("streams-epoch");
    engine.register();
    let Engine { streams: [first, second], board, .. } = &mut engine;
    assert!(is_committed(first.put(0, 10)));
    assert!(is_committed(second.put(0, 12)));
    assert!(is_committed(second.ask(StreamRequest::EndOfEpoch(Epoch(0)))));
    assert_eq!(second.put(0, 13), Outcome::EpochClosed { open: Epoch(0) });
    // A node that has the stream's log, and the registrar's not so far, once told an engine to begin in an epoch that
    // had its end.
    second.await_status(|status| status.epoch == Epoch(0) && !status.open);
    assert!(!second.status.takes_records);
    // The other is asked, and does the same before its time is up.
    first.await_status(|status| status.closing);
    assert!(first.status.open && !first.status.takes_records, "it is to begin nothing");
    assert!(is_committed(first.put(0, 14)), "what was begun is taken");
    assert!(is_committed(first.ask(StreamRequest::EndOfEpoch(Epoch(0)))));
    first.await_status(|status| status.epoch == Epoch(1));
    second.await_status(|status| status.epoch == Epoch(1) && status.open);
    first.await_status(|status| status.takes_records);
    second.await_status(|status| status.takes_records);
    assert_eq!([&first.ends[..], &second.ends[..]], [[at(0, u64::MAX)]; 2], "nothing is dead");
    assert_eq!(board.open_epoch(), Epoch(1));
    assert_eq!(board.watermark(), at(1, 0), "all of epoch 0 lives, and nothing of epoch 1 is there");
    assert_eq!(first.put(0, 15), Outcome::EpochClosed { open: Epoch(1) });
    assert!(is_committed(first.put(1, 3)));
    assert!(is_committed(second.put(1, 4)));
    assert_eq!(board.watermark(), at(1, 3));
    engine.stop();
}

/// A thread of the engine dies with transactions that others may have read. The one after it says so.
#[test]
fn a_thread_that_comes_after_one_that_died_cuts_the_epoch() {
    let mut engine = Engine::start("streams-cut");
    engine.register();
    let Engine { cluster, node, streams: [first, second], board } = &mut engine;
    assert!(is_committed(first.put(0, 10)));
    assert!(is_committed(second.put(0, 12)));
    // It had begun 13 and 14 as well, when it died; from them others have read.
    assert!(is_committed(first.put(0, 20)));
    let options = Options { shard: ShardId(1), ..options(cluster, 8) };
    second.ring = Attachment::embedded(&node.desk(), options).unwrap();
    second.status = nothing_yet(ShardId(1));
    assert!(is_committed(second.ask(StreamRequest::CutEpoch(Epoch(0)))));
    // What was still on its way comes too late, before the epoch is closed and after.
    assert_eq!(second.put(0, 13), Outcome::EpochClosed { open: Epoch(0) });
    second.ring.subscribe().unwrap();
    first.await_status(|status| status.closing);
    assert!(is_committed(first.put(0, 21)));
    assert!(is_committed(first.ask(StreamRequest::EndOfEpoch(Epoch(0)))));
    first.await_status(|status| status.epoch == Epoch(1));
    second.await_status(|status| status.epoch == Epoch(1));
    assert_eq!(second.put(0, 14), Outcome::EpochClosed { open: Epoch(1) });
    assert!(is_committed(second.put(1, 1)));
    assert!(is_committed(first.put(1, 2)));
    assert_eq!(board.watermark(), at(1, 1));
    assert_eq!([&first.ends[..], &second.ends[..]], [[at(0, 12)]; 2], "where stream 1 was cut");
    let (lived, dead) = replayed(first, second);
    assert_eq!(lived, [at(0, 10), at(0, 12), at(1, 1)]);
    assert_eq!(dead, 2, "20 and 21 came after what was lost");
    engine.stop();
}

/// What a replica replays that reads both logs: which stamps, and how many are dead.
fn replayed(first: &mut Stream, second: &mut Stream) -> (Vec<Stamp>, u64) {
    let mut replay = Replay::new(1 << 20);
    for (shard, stream) in [(ShardId(1), second), (ShardId(0), first)] {
        let mut marks = Vec::new();
        stream.ring.read(Index(1), 1 << 20, false).unwrap();
        while marks.is_empty() {
            assert!(stream.ring.wait(PATIENCE), "the log is not told");
            stream.ring.poll(|reply| {
                if let Reply::Records { records, .. } = reply {
                    let headers = records_of(records).map(|record| record.unwrap().header);
                    marks.extend(headers.filter_map(|header| Mark::of(&header).unwrap()));
                }
            });
        }
        marks.iter().for_each(|mark| replay.push(shard, mark, b"an entry").unwrap());
    }
    let mut lived = Vec::new();
    replay.drain(|_, stamp, _| lived.push(stamp));
    lived.sort_unstable();
    (lived, replay.counters().dead)
}
