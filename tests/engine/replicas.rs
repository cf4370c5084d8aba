//! What an engine's thread is told, and what replicas replay, on three nodes of this process of which one is stopped.

use std::cell::Cell;
use std::collections::BTreeMap;

use plimsoll::client::ring::{Event, Replica, Stream};
use plimsoll::local::be_patient;
use plimsoll::node::Node;
use plimsoll::raft::Role;
use plimsoll::types::{Stamp, Term};
use plimsoll::wire::client::StreamRequest;

use crate::*;

const SHARDS: u32 = 2;
const NODES: u32 = 3;
const ROUNDS: u64 = 40;
const RECORD_BYTES: usize = 300;

/// A cluster whose nodes are all in this process, with the threads' streams at each.
struct Rack {
    cluster: Cluster,
    seats: Vec<Option<Seat>>,
}

struct Seat {
    node: Node,
    streams: Vec<Stream>,
    replica: Replica,
    replayed: Vec<(ShardId, Stamp, Vec<u8>)>,
    /// What each stream was told of the ends of epochs.
    ends: [Vec<Stamp>; SHARDS as usize],
}

impl Rack {
    fn start(name: &str) -> Rack {
        let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
        let tune = |config: &mut Config| {
            config.engine.streams = true;
            be_patient(config);
        };
        let shape = Shape {
            nodes: NODES,
            lanes: 2,
            shards: SHARDS,
            segment_mib: 16,
            capacity_mib: 128,
            chunks: 8,
            tune,
            ..Shape::default()
        };
        let cluster = Cluster::new(Path::new(env!("CARGO_BIN_EXE_plimsoll")), &directory, &shape).unwrap();
        let seats = (1..=NODES).map(|id| Some(Seat::take(&cluster, NodeId(id)))).collect();
        Rack { cluster, seats }
    }

    /// Polls every stream and replica, telling what is told at which node and of which shard, until it is enough.
    fn run_until(
        &mut self,
        what: &str,
        mut each: impl FnMut(NodeId, ShardId, Event),
        mut is_done: impl FnMut(&mut Rack) -> bool,
    ) {
        let until = Instant::now() + PATIENCE;
        while !is_done(self) {
            assert!(Instant::now() < until, "{what}: {}", self.told());
            for (seat, id) in self.seats.iter_mut().zip(1..) {
                let Some(seat) = seat else { continue };
                for ((stream, ends), shard) in seat.streams.iter_mut().zip(&mut seat.ends).zip(0..) {
                    stream.poll(|event| {
                        if let Event::EpochClosed(last) = event {
                            ends.push(last);
                        }
                        each(NodeId(id), ShardId(shard), event);
                    });
                }
                let Seat { replica, replayed, .. } = seat;
                replica.poll(|shard, stamp, bytes| replayed.push((shard, stamp, bytes.into()))).unwrap();
            }
            std::thread::yield_now();
        }
    }

    /// What every stream was told last, for whoever looks into a failure.
    fn told(&self) -> String {
        let of_seat = |(seat, id): (&Option<Seat>, u32)| {
            let streams = &seat.as_ref()?.streams;
            let roles = streams
                .iter()
                .map(|stream| format!("{:?}, {} outstanding", stream.role(), stream.outstanding()));
            Some(format!("node {id}: {:#?}\n", roles.collect::<Vec<_>>()))
        };
        self.seats.iter().zip(1..).filter_map(of_seat).collect()
    }

    /// Where a thread of this shard may submit.
    fn leader(&mut self, shard: u32) -> Option<&mut Stream> {
        self.seats
            .iter_mut()
            .flatten()
            .map(|seat| &mut seat.streams[shard as usize])
            .find(|stream| stream.may_submit())
    }

    /// The epoch in which a thread of every shard may submit.
    fn open_epoch(&mut self) -> Option<Epoch> {
        let mut epochs = (0..SHARDS).map(|shard| Some(self.leader(shard)?.role()?.epoch));
        let first = epochs.next()??;
        epochs.all(|epoch| epoch == Some(first)).then_some(first)
    }

    fn leads(&mut self, shard: u32) -> Option<&mut Stream> {
        let leads = |stream: &Stream| stream.role().is_some_and(|role| role.role == Role::Leader);
        self.seats
            .iter_mut()
            .flatten()
            .map(|seat| &mut seat.streams[shard as usize])
            .find(|stream| leads(stream))
    }

    /// Registers all streams.
    fn register(&mut self) {
        for shard in (0..SHARDS).map(ShardId) {
            // A leader that is new may be busy, or another one by now.
            while !self.asks_to_register(shard) {}
        }
    }

    fn asks_to_register(&mut self, shard: ShardId) -> bool {
        self.run_until("somebody leads shard 0", |_, _, _| (), |rack| rack.leads(0).is_some());
        self.leads(0).unwrap().attachment().stream(StreamRequest::Register(shard)).unwrap();
        let ended = Cell::new(None);
        let take = |_, _, event| {
            if let Event::Ended { outcome, .. } = event {
                ended.set(Some(matches!(outcome, Outcome::Committed { .. })));
            }
        };
        self.run_until("it is registered, or refused", take, |_| ended.get().is_some());
        ended.get() == Some(true)
    }

    fn stop(mut self) {
        for seat in self.seats.drain(..).flatten() {
            seat.leave();
        }
    }
}

impl Seat {
    fn take(cluster: &Cluster, id: NodeId) -> Seat {
        let node = Node::start(cluster.config(id).clone()).unwrap();
        let desk = node.desk();
        let attach = |shard, session| {
            let options = Options { shard: ShardId(shard), ..options(cluster, session) };
            Attachment::embedded(&desk, options).unwrap()
        };
        let streams = (0..SHARDS).map(|shard| {
            let mut stream = Stream::new(attach(shard, 7));
            stream.follow(Index(1));
            stream
        });
        let streams = streams.collect();
        let replica = Replica::new((0..SHARDS).map(|shard| attach(shard, 8)), 1 << 20);
        Seat { node, streams, replica, replayed: Vec::new(), ends: [const { Vec::new() }; SHARDS as usize] }
    }

    fn leave(self) {
        self.node.stopper().stop();
        self.node.wait().unwrap();
    }
}

/// Of each stream, what a replica has replayed, in its order.
fn by_stream(replayed: &[(ShardId, Stamp, Vec<u8>)]) -> BTreeMap<ShardId, Vec<(Stamp, Vec<u8>)>> {
    let mut streams = BTreeMap::<_, Vec<_>>::new();
    for (shard, stamp, bytes) in replayed {
        streams.entry(*shard).or_default().push((*stamp, bytes.clone()));
    }
    streams
}

#[test]
fn every_replica_replays_the_same_across_a_change_of_leader() {
    let mut rack = Rack::start("replicas");
    rack.run_until("somebody leads each shard", nothing, |rack| {
        (0..SHARDS).all(|shard| rack.leads(shard).is_some())
    });
    rack.register();
    rack.run_until("both streams are open", nothing, |rack| {
        (0..SHARDS).all(|shard| rack.leader(shard).is_some())
    });
    submit_all(&mut rack, Epoch(0));

    // The leader of shard 1 is stopped in order: a change of leader, and so of the epoch. If it leads shard 0, too,
    // that may be another one: lanes hand over each in its own time, and the second may do so in the next epoch.
    let before = [0, 1].map(|shard| {
        (1..=NODES).map(NodeId).find(|id| {
            let seat = rack.seats[id.0 as usize - 1].as_ref().unwrap();
            seat.streams[shard].role().is_some_and(|role| role.role == Role::Leader)
        })
    });
    let gone = before[1].unwrap().0 as usize - 1;
    rack.seats[gone].take().unwrap().leave();
    let mut gained = Vec::new();
    let mut owed = 0;
    rack.run_until(
        "a later epoch opens in both streams",
        |node, shard, event| {
            if let Event::Role(role) = event
                && role.role == Role::Leader
            {
                gained.push((node, shard, role.term));
                if role.epoch == Epoch(0) && before[shard.0 as usize] != Some(node) {
                    // Who leads it now owes the cut, although it leads and the stream is open.
                    assert!(!role.takes_records, "{role:?}");
                    owed += usize::from(role.open && !role.closing);
                }
            }
        },
        |rack| rack.open_epoch().is_some_and(|epoch| epoch > Epoch(0)),
    );
    assert!(gained.iter().any(|&(node, shard, term)| {
        node != NodeId(gone as u32 + 1) && shard == ShardId(1) && term > Term(1)
    }));
    assert!(owed > 0, "the first that was elected owed the cut before anybody knew that the epoch ends");
    let epoch = rack.open_epoch().unwrap();
    submit_all(&mut rack, epoch);

    // It comes back, reads all from the beginning, and has replayed the same in the end.
    rack.seats[gone] = Some(Seat::take(&rack.cluster, NodeId(gone as u32 + 1)));
    let expected = expected([Epoch(0), epoch]);
    // Nothing was submitted in the epochs between.
    let ends = (0..epoch.0)
        .map(|ended| if ended == 0 { stamp(Epoch(0), ROUNDS, 0) } else { Stamp::begin_of(Epoch(ended)) });
    let ends = ends.collect::<Vec<_>>();
    let total = expected.values().map(Vec::len).sum::<usize>();
    rack.run_until("every replica has replayed everything that is safe", nothing, |rack| {
        rack.seats
            .iter()
            .flatten()
            .all(|seat| seat.replayed.len() >= total && seat.ends.iter().all(|told| told.len() >= ends.len()))
    });
    for seat in rack.seats.iter().flatten() {
        assert_eq!(by_stream(&seat.replayed), expected);
        assert_eq!(seat.ends, [&ends; SHARDS as usize].map(Vec::clone), "told once, and alike everywhere");
        assert_eq!(seat.replica.replay().counters().dead, 1, "the last one of epoch 0 in stream 1");
    }
    rack.stop();
}

/// What is safe of two epochs in which stream 1 was last stamped beyond stream 0: all but its last record.
fn expected(epochs: [Epoch; 2]) -> BTreeMap<ShardId, Vec<(Stamp, Vec<u8>)>> {
    let mut streams = BTreeMap::<_, Vec<_>>::new();
    for epoch in epochs {
        for (round, shard) in all_rounds().filter(|&round| round != (ROUNDS, SHARDS - 1)) {
            let stamp = stamp(epoch, round, shard);
            streams
                .entry(ShardId(shard))
                .or_default()
                .push((stamp, record(u64::from(shard), round, RECORD_BYTES)));
        }
    }
    streams
}

/// Rounds and shards, in the order of their stamps.
fn all_rounds() -> impl Iterator<Item = (u64, u32)> {
    (1..=ROUNDS).flat_map(|round| (0..SHARDS).map(move |shard| (round, shard)))
}

fn stamp(epoch: Epoch, round: u64, shard: u32) -> Stamp {
    Stamp::new(epoch, Timestamp(2 * round + u64::from(shard)))
}

fn nothing(_: NodeId, _: ShardId, _: Event) {}

/// Submits the rounds of one epoch, to whoever leads, and waits until all is committed.
fn submit_all(rack: &mut Rack, epoch: Epoch) {
    for (round, shard) in all_rounds() {
        let stream = rack.leader(shard).unwrap();
        let bytes = record(u64::from(shard), round, RECORD_BYTES);
        let stamp = stamp(epoch, round, shard);
        stream.attachment().submit(&bytes, stamp.timestamp, stamp.epoch, Acks::Quorum).unwrap();
    }
    let mut committed = 0;
    rack.run_until(
        "all is committed",
        |_, _, event| {
            if let Event::Ended { outcome, .. } = event {
                assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
                committed += 1;
            }
        },
        |rack| (0..SHARDS).all(|shard| rack.leader(shard).unwrap().outstanding() == 0),
    );
    assert_eq!(committed, ROUNDS * u64::from(SHARDS));
}
