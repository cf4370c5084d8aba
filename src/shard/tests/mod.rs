//! What a lane answers to clients, over a disk in memory: a single voter, so that what is durable is committed. With
//! peers: [`peers`], [`lessons`]. With an engine: [`streams`].
#![allow(clippy::unwrap_used)]

mod lessons;
mod peers;
mod streams;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use super::*;
use crate::io::pool::Pool;
use crate::io::{ClientId, Flow, Full, LinkEvent, PortEvent};
use crate::limits::{
    ASSEMBLY_BYTES_MAX, ENTRY_PAYLOAD_BYTES_MAX, PARTS_MAX, RECORD_BYTES_MAX, SUBMITS_PENDING_MAX,
};
use crate::log::record::{self, payload_crc};
use crate::log::tests::disk::MemDisk;
use crate::log::{self, Log};
use crate::raft::COMMIT_NOTICE;
use crate::types::{Acks, ClusterId, EntryId, Epoch, Term, Timestamp};
use crate::wire::client::{Outcome, Reply, Request, Submit, replies};
use crate::wire::frame::{Builder, Kind};

const SEGMENT_BYTES: u64 = 8 << 20;
const ALICE: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);

struct Mock;

impl World for Mock {
    type Disk = MemDisk;
    type Link = MockLink;
    type Port = MockPort;
    type Clock = MockClock;
    type Park = NoPark;
    type Observer = Nobody;
}

/// What peers have sent, and what was sent to them.
#[derive(Default)]
struct MockLink {
    inbox: VecDeque<(NodeId, Vec<u8>)>,
    outbox: Vec<(NodeId, Vec<u8>)>,
    /// What was given at these times has not arrived.
    carrying: Vec<Time>,
}

impl Link for MockLink {
    fn poll(&mut self, _: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let frames = core::mem::take(&mut self.inbox);
        frames.iter().for_each(|(from, bytes)| sink(LinkEvent::Frame { from: *from, bytes }));
        frames.len()
    }
    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        self.outbox.push((to, parts.concat()));
        Ok(())
    }
    fn next_wake(&self) -> Time {
        Time::NEVER
    }
    fn is_carrying(&self, _: NodeId, given_at: Time) -> bool {
        self.carrying.contains(&given_at)
    }
}

struct NoPark;

impl Park for NoPark {
    fn poll(&mut self) {}
    fn kick(&mut self) {}
    fn park(&mut self, _: Duration) {}
}

struct Nobody;

impl Observer for Nobody {}

#[derive(Clone, Default)]
struct MockClock(Rc<Cell<u64>>);

impl Clock for MockClock {
    fn now(&self) -> Time {
        Time(self.0.get())
    }
}

enum Sent {
    Opened(ClientId),
    Frame(ClientId, Vec<u8>),
    /// As it lies in shared memory: its row and its payload.
    Request(ClientId, [u8; 64], Vec<u8>),
    Closed(ClientId),
}

#[derive(Default)]
struct Wires {
    inbox: VecDeque<Sent>,
    outbox: Vec<(ClientId, Vec<u8>)>,
    dropped: Vec<ClientId>,
}

#[derive(Clone, Default)]
struct MockPort(Rc<RefCell<Wires>>);

impl Port for MockPort {
    fn poll(&mut self, _: Time, sink: &mut impl FnMut(PortEvent<'_>) -> Flow) -> usize {
        let mut events = 0;
        while let Some(sent) = { self.0.borrow_mut().inbox.pop_front() } {
            events += 1;
            let flow = match &sent {
                Sent::Opened(client) => sink(PortEvent::Opened(*client)),
                Sent::Frame(from, bytes) => sink(PortEvent::Frame { from: *from, bytes }),
                Sent::Request(from, row, payload) => sink(PortEvent::Request { from: *from, row, payload }),
                Sent::Closed(client) => sink(PortEvent::Closed(*client)),
            };
            match flow {
                Flow::More => {}
                Flow::Stop => break,
                Flow::Again => {
                    self.0.borrow_mut().inbox.push_front(sent);
                    return events - 1;
                }
            }
        }
        events
    }
    fn send(&mut self, to: ClientId, parts: &[&[u8]]) {
        self.0.borrow_mut().outbox.push((to, parts.concat()));
    }
    fn close(&mut self, client: ClientId, _: &str) {
        self.0.borrow_mut().dropped.push(client);
    }
}

/// A lane that leads its one shard, with Alice and Bob connected.
struct Bench {
    lane: Lane<Mock>,
    port: MockPort,
    clock: MockClock,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_segments(16)
    }

    fn with_segments(segments_max: u64) -> Bench {
        let mut bench = Bench::of(1, segments_max);
        while bench.lane.status(ShardId(0)).unwrap().commit == Index(0) {
            bench.clock.0.set(bench.clock.0.get() + 10_000_000);
            bench.turn().unwrap();
        }
        bench
    }

    /// One of so many voters.
    fn of(voters: u32, segments_max: u64) -> Bench {
        Bench::of_shards(voters, 1, segments_max)
    }

    /// The same, with so many shards.
    fn of_shards(voters: u32, shards: u32, segments_max: u64) -> Bench {
        Bench::with_notice(voters, shards, segments_max, COMMIT_NOTICE)
    }

    /// The same; of a commit that no append carries followers are told so long after.
    fn with_notice(voters: u32, shards: u32, segments_max: u64, commit_notice: Duration) -> Bench {
        let log_options = log::Options {
            cluster: ClusterId(7),
            node: NodeId(1),
            lane: LaneId(0),
            shards: (0..shards).map(ShardId).collect(),
            segments_max,
            segments_ahead: 1,
        };
        let log = Log::open(MemDisk::new(512, SEGMENT_BYTES), Pool::new(8), log_options).unwrap();
        let options = Options {
            node: NodeId(1),
            voters: (1..=voters).map(NodeId).collect(),
            lane: LaneId(0),
            election_timeout: Duration::from_millis(150),
            heartbeat: Duration::from_millis(30),
            commit_notice,
            seed: 1,
            spin: Duration::ZERO,
            busy_poll: true,
            epoch_grace: Duration::from_millis(50),
            shares_core: false,
        };
        let (port, clock) = (MockPort::default(), MockClock::default());
        let lane = Lane::new(options, log, MockLink::default(), port.clone(), clock.clone(), NoPark, Nobody);
        let bench = Bench { lane, port, clock };
        for client in [ALICE, BOB] {
            bench.port.0.borrow_mut().inbox.push_back(Sent::Opened(client));
        }
        bench
    }

    fn turn(&mut self) -> Result<(), Stopped> {
        self.clock.0.set(self.clock.0.get() + 1000);
        self.lane.turn().map(drop)
    }

    fn send(&self, client: ClientId, requests: &[Request<'_>]) {
        let mut head = Builder::new(Kind::Request);
        let mut body = Vec::new();
        for request in requests {
            let payload: &[u8] = if let Request::Submit(submit) = request { submit.payload } else { &[] };
            head.push(&request.encode(), payload.len());
            body.extend_from_slice(payload);
        }
        let frame = [head.seal(), &body].concat();
        self.port.0.borrow_mut().inbox.push_back(Sent::Frame(client, frame));
    }

    /// Runs turns until nothing more is said; returns what this client was told.
    fn told(&mut self, client: ClientId) -> Vec<(u64, Outcome)> {
        for _ in 0..64 {
            self.turn().unwrap();
        }
        self.said(client)
    }

    /// What this client was told since it was last asked for, farewells as request 0.
    fn said(&self, client: ClientId) -> Vec<(u64, Outcome)> {
        let mut told = Vec::new();
        let frames = core::mem::take(&mut self.port.0.borrow_mut().outbox);
        for (to, frame) in frames {
            if to == client {
                told.extend(replies(&frame).unwrap().map(|reply| match reply {
                    Reply::Outcome { request, outcome } => (request, outcome),
                    Reply::Farewell => (0, Outcome::Stopping),
                    other => panic!("{other:?}"),
                }));
            }
        }
        told
    }

    fn groups(&mut self) -> &mut Groups<Mock> {
        &mut self.lane.groups
    }

    fn disk(&mut self) -> &mut MemDisk {
        self.lane.groups.log.disk_mut()
    }
}

fn submit(request: u64, payload: &[u8]) -> Submit<'_> {
    Submit {
        request,
        shard: ShardId(0),
        acks: Acks::Quorum,
        timestamp: Timestamp(request),
        epoch: Epoch(0),
        session: 0,
        serial: 0,
        payload_crc: payload_crc(payload),
        more_bytes: 0,
        payload,
    }
}

fn part(request: u64, payload: &[u8], more_bytes: usize) -> Submit<'_> {
    Submit { more_bytes: more_bytes as u32, ..submit(request, payload) }
}

/// The first entry is the no-op of the leader's term.
fn committed(request: u64, index: u64) -> (u64, Outcome) {
    let id = EntryId { term: Term(1), index: Index(index) };
    (request, Outcome::Committed { id, timestamp: Timestamp(request) })
}

#[test]
fn submits_are_answered_in_the_order_in_which_they_came() {
    let mut bench = Bench::new();
    let requests = [1, 2, 3].map(|request| Request::Submit(submit(request, b"a record")));
    bench.send(ALICE, &requests);
    assert_eq!(bench.told(ALICE), [committed(1, 2), committed(2, 3), committed(3, 4)]);
}

#[test]
fn acks_say_when_a_submit_is_answered() {
    let mut bench = Bench::new();
    bench.disk().eager = false;
    for (request, acks) in [(1, Acks::None), (2, Acks::Leader), (3, Acks::Quorum)] {
        bench.send(ALICE, &[Request::Submit(Submit { acks, ..submit(request, b"x") })]);
    }
    assert_eq!(bench.told(ALICE), [committed(1, 2)], "nothing is durable");
    bench.disk().eager = true;
    let mut told = bench.told(ALICE);
    told.sort_by_key(|(request, _)| *request);
    assert_eq!(told, [committed(2, 3), committed(3, 4)]);
}

#[test]
fn parts_become_one_record() {
    let mut bench = Bench::new();
    let (one, two, end) = ([1; 1000], [2; 1000], [3; 10]);
    let parts = [part(1, &one, 1010), part(1, &two, 10), part(1, &end, 0)];
    bench.send(ALICE, &parts.map(Request::Submit));
    bench.send(ALICE, &[Request::Submit(submit(2, b"after it"))]);
    assert_eq!(bench.told(ALICE), [committed(1, 4), committed(2, 5)]);
    assert_eq!(bench.groups().ingress.assembling_bytes(), 0);
    let flags: Vec<u8> =
        (2..=5).map(|index| bench.lane.peek(ShardId(0), Index(index)).unwrap().flags).collect();
    let (more, further) = (record::FLAG_MORE, record::FLAG_CONTINUES);
    assert_eq!(flags, [more, more | further, further, 0]);
}

#[test]
fn the_submit_after_a_refused_record_is_looked_at_for_itself() {
    // A client that was told that its long record is refused goes on with the next one. That one was taken for a part
    // which fits nothing, and refused as invalid.
    let mut bench = Bench::new();
    let bad = Submit { payload_crc: 1, ..part(1, &[1; 1000], 2000) };
    bench.send(ALICE, &[Request::Submit(bad), Request::Submit(part(1, &[2; 1000], 1000))]);
    bench.send(ALICE, &[Request::Submit(submit(2, b"fresh"))]);
    assert_eq!(bench.told(ALICE), [(1, Outcome::Invalid), committed(2, 2)]);

    let bad = Submit { payload_crc: 1, ..part(3, &[1; 1000], 2000) };
    bench.send(ALICE, &[Request::Submit(bad), Request::Submit(part(4, b"a", 1))]);
    bench.send(ALICE, &[Request::Submit(part(4, b"b", 0))]);
    assert_eq!(bench.told(ALICE), [(3, Outcome::Invalid), committed(4, 4)]);
}

#[test]
fn a_record_that_its_client_breaks_off_is_refused_and_the_next_is_taken() {
    let mut bench = Bench::new();
    bench.send(ALICE, &[Request::Submit(part(1, &[1; 1000], 2000))]);
    bench.send(ALICE, &[Request::Submit(submit(2, b"fresh"))]);
    assert_eq!(bench.told(ALICE), [(1, Outcome::Invalid), committed(2, 2)]);
    assert_eq!(bench.groups().ingress.assembling_bytes(), 0);
}

#[test]
fn parts_with_a_gap_are_refused_to_the_last() {
    // What came behind the gap was once taken for a record of its own.
    let mut bench = Bench::new();
    bench.send(ALICE, &[Request::Submit(part(1, &[1; 1000], 2000))]);
    bench.send(ALICE, &[Request::Submit(part(1, &[3; 500], 500)), Request::Submit(part(1, &[4; 500], 0))]);
    bench.send(ALICE, &[Request::Submit(submit(2, b"fresh"))]);
    assert_eq!(bench.told(ALICE), [(1, Outcome::Invalid), committed(2, 2)]);
}

#[test]
fn what_cannot_be_laid_is_invalid() {
    let mut bench = Bench::new();
    bench.send(ALICE, &[Request::Submit(Submit { payload_crc: 5, ..submit(1, b"flipped") })]);
    bench.send(ALICE, &[Request::Submit(Submit { shard: ShardId(9), ..submit(2, b"whose?") })]);
    assert_eq!(bench.told(ALICE), [(1, Outcome::Invalid), (2, Outcome::Invalid)]);
    assert_eq!(bench.lane.status(ShardId(0)).unwrap().last.index, Index(1), "nothing was laid");
    assert!(bench.port.0.borrow().dropped.is_empty(), "a refusal is no reason to drop a client");
}

#[test]
fn who_breaks_the_protocol_is_dropped() {
    let mut bench = Bench::new();
    let mut head = Builder::new(Kind::Request);
    head.push(&[9; 64], 0);
    let frame = head.seal().to_vec();
    bench.port.0.borrow_mut().inbox.push_back(Sent::Frame(ALICE, frame));
    assert_eq!(bench.told(ALICE), []);
    assert_eq!(bench.port.0.borrow().dropped, [ALICE]);
}

#[test]
fn more_submits_than_may_wait_are_busy() {
    let mut bench = Bench::new();
    bench.disk().eager = false;
    let client = bench.groups().clients.find(BOB).unwrap();
    let id = EntryId { term: Term(1), index: Index(1 << 40) };
    let pending = Pending { id, client, request: 0, timestamp: Timestamp(0) };
    bench.groups().shards[0].on_commit.resize(SUBMITS_PENDING_MAX - 1, pending);
    bench.send(ALICE, &[Request::Submit(submit(1, b"the last")), Request::Submit(submit(2, b"too many"))]);
    assert_eq!(bench.told(ALICE), [(2, Outcome::Busy)]);
}

#[test]
fn more_bytes_in_parts_than_are_put_together_are_busy_until_a_client_goes() {
    let mut bench = Bench::new();
    let payload = vec![1; 1000];
    let clients: Vec<ClientId> = (10..).map(ClientId).take(ASSEMBLY_BYTES_MAX / RECORD_BYTES_MAX).collect();
    for &client in &clients {
        bench.port.0.borrow_mut().inbox.push_back(Sent::Opened(client));
        bench.send(client, &[Request::Submit(part(1, &payload, RECORD_BYTES_MAX - 1000))]);
    }
    bench.send(ALICE, &[Request::Submit(part(1, b"a", 1)), Request::Submit(part(1, b"b", 0))]);
    assert_eq!(bench.told(ALICE), [(1, Outcome::Busy)]);
    assert_eq!(bench.groups().ingress.assembling_bytes(), ASSEMBLY_BYTES_MAX);
    for &client in &clients {
        bench.port.0.borrow_mut().inbox.push_back(Sent::Closed(client));
    }
    bench.send(ALICE, &[Request::Submit(part(2, b"a", 1)), Request::Submit(part(2, b"b", 0))]);
    assert_eq!(bench.told(ALICE), [committed(2, 3)], "what the clients held was given back");
    assert_eq!(bench.groups().ingress.assembling_bytes(), 0);
}

/// Two clients began the longest record that there is and fell silent: nobody's long records were taken any more.
#[test]
fn who_falls_silent_within_a_record_makes_room_for_others() {
    let mut bench = Bench::new();
    for client in [ALICE, BOB] {
        bench.send(client, &[Request::Submit(part(1, b"begun", RECORD_BYTES_MAX - 5))]);
    }
    assert_eq!(bench.told(ALICE), []);
    let carol = ClientId(3);
    bench.port.0.borrow_mut().inbox.push_back(Sent::Opened(carol));
    let long = || [Request::Submit(part(2, b"a", 1)), Request::Submit(part(2, b"b", 0))];
    bench.send(carol, &long());
    assert_eq!(bench.told(carol), [(2, Outcome::Busy)]);
    // Bob goes on in time, Alice does not.
    bench.clock.0.set(bench.clock.0.get() + crate::limits::PART_PATIENCE.as_nanos() as u64 / 2);
    bench.send(BOB, &[Request::Submit(part(1, b"more", RECORD_BYTES_MAX - 9))]);
    bench.told(BOB);
    bench.clock.0.set(bench.clock.0.get() + crate::limits::PART_PATIENCE.as_nanos() as u64 / 2);
    bench.send(carol, &long());
    bench.turn().unwrap();
    assert_eq!(bench.groups().ingress.assembling_bytes(), RECORD_BYTES_MAX);
    for _ in 0..8 {
        bench.turn().unwrap();
    }
    let frames: Vec<_> = bench.port.0.borrow().outbox.iter().map(|(to, _)| *to).collect();
    assert!(frames.contains(&ALICE) && !frames.contains(&BOB), "{frames:?}");
    assert_eq!(bench.said(carol), [committed(2, 3)]);
    // What Alice sends of it all the same is passed over, and her next record is taken.
    bench.send(ALICE, &[Request::Submit(part(1, b"late", 7)), Request::Submit(submit(3, b"fresh"))]);
    assert_eq!(bench.told(ALICE), [committed(3, 4)]);
}

/// A record in parts of one byte cost the node sixteen bytes of bookkeeping and an entry for each.
#[test]
fn a_record_in_too_many_parts_is_refused() {
    let mut bench = Bench::new();
    for n in 0..=PARTS_MAX {
        bench.send(ALICE, &[Request::Submit(part(1, b"x", (1 << 20) - n))]);
    }
    assert_eq!(bench.told(ALICE), [(1, Outcome::Invalid)]);
    assert_eq!(bench.groups().ingress.assembling_bytes(), 0);
}

#[test]
fn a_full_log_is_an_answer_and_stays_one() {
    let mut bench = Bench::with_segments(2);
    let payload = vec![7; ENTRY_PAYLOAD_BYTES_MAX];
    let mut told = Vec::new();
    for request in 1..=20 {
        bench.send(ALICE, &[Request::Submit(submit(request, &payload))]);
        told.extend(bench.told(ALICE));
    }
    let taken = told.iter().take_while(|(_, outcome)| matches!(outcome, Outcome::Committed { .. })).count();
    assert!((8..16).contains(&taken), "{taken} records of 1 MiB in 16 MiB");
    assert!(told[taken..].iter().all(|(_, outcome)| *outcome == Outcome::LogFull), "{told:?}");
    assert_eq!(told.len(), 20);

    let parts = [part(21, &payload, payload.len()), part(21, &payload, 0)];
    parts.iter().for_each(|part| bench.send(ALICE, &[Request::Submit(*part)]));
    assert_eq!(bench.told(ALICE), [(21, Outcome::LogFull)]);
    assert_eq!(bench.groups().ingress.assembling_bytes(), 0);
}

#[test]
fn without_room_for_a_moment_a_frame_is_held_and_the_port_is_not_read() {
    let mut bench = Bench::new();
    bench.disk().eager = false;
    let payload = vec![7; ENTRY_PAYLOAD_BYTES_MAX];
    // More than all memory chunks take while no write ends.
    for request in 1..=40 {
        bench.send(ALICE, &[Request::Submit(submit(request, &payload))]);
    }
    bench.send(BOB, &[Request::Submit(submit(1, b"behind them"))]);
    assert_eq!(bench.told(ALICE), []);
    assert!(bench.groups().ingress.is_held());
    let unread = bench.port.0.borrow().inbox.len();
    assert!((1..40).contains(&unread), "{unread} frames are left to the sockets");

    bench.disk().eager = true;
    let mut told = Vec::new();
    for _ in 0..64 {
        bench.turn().unwrap();
    }
    let frames = core::mem::take(&mut bench.port.0.borrow_mut().outbox);
    for (client, frame) in &frames {
        told.extend(replies(frame).unwrap().map(|reply| match reply {
            Reply::Outcome { request, outcome: Outcome::Committed { id, .. } } => {
                (*client, request, id.index.0)
            }
            other => panic!("{other:?}"),
        }));
    }
    let mut expected: Vec<_> = (1..=40).map(|request| (ALICE, request, request + 1)).collect();
    expected.push((BOB, 1, 42));
    assert_eq!(told, expected);
}

/// What lies in shared memory stays there: it is offered until there is room, and taken once.
#[test]
fn without_room_for_a_moment_a_request_in_a_ring_is_offered_again() {
    let mut bench = Bench::new();
    bench.disk().eager = false;
    let payload = vec![7; ENTRY_PAYLOAD_BYTES_MAX];
    for request in 1..=40 {
        let row = Request::Submit(submit(request, &payload)).encode();
        bench.port.0.borrow_mut().inbox.push_back(Sent::Request(ALICE, row, payload.clone()));
    }
    assert_eq!(bench.told(ALICE), []);
    assert!(!bench.groups().ingress.is_held(), "the lane keeps no copy");
    let left = bench.port.0.borrow().inbox.len() as u64;
    assert!((1..40).contains(&left), "{left} requests are left to the ring");
    let first = bench.lane.status(ShardId(0)).unwrap().last.index;
    assert_eq!(first, Index(41 - left), "what was refused was not laid");
    bench.turn().unwrap();
    assert_eq!(bench.port.0.borrow().inbox.len() as u64, left, "nothing has become free");

    bench.disk().eager = true;
    let expected: Vec<_> = (1..=40).map(|request| committed(request, request + 1)).collect();
    assert_eq!(bench.told(ALICE), expected);
}

#[test]
fn a_drain_ends_what_was_taken_and_parts_from_the_rest() {
    let mut bench = Bench::new();
    bench.disk().eager = false;
    bench.send(ALICE, &[Request::Submit(submit(1, b"taken")), Request::Submit(part(2, b"half", 1))]);
    bench.turn().unwrap();
    bench.lane.drain();
    bench.send(ALICE, &[Request::Submit(part(2, b"!", 0)), Request::Submit(submit(3, b"too late"))]);
    bench.turn().unwrap();
    assert_eq!(bench.said(ALICE), [(2, Outcome::Stopping), (3, Outcome::Stopping)]);
    bench.disk().eager = true;
    assert_eq!(bench.told(ALICE), [committed(1, 2), (0, Outcome::Stopping)], "the farewell is the last word");

    // What still comes is passed over without a word; who still comes is told the same.
    bench.send(ALICE, &[Request::Submit(submit(4, b"unheard"))]);
    bench.port.0.borrow_mut().inbox.push_back(Sent::Opened(ClientId(3)));
    bench.turn().unwrap();
    assert_eq!(bench.said(ClientId(3)), [(0, Outcome::Stopping)]);
    assert_eq!(bench.lane.status(ShardId(0)).unwrap().last.index, Index(2));
    for client in [ALICE, BOB, ClientId(3)] {
        assert_eq!(bench.turn(), Ok(()), "a client is still there");
        bench.port.0.borrow_mut().inbox.push_back(Sent::Closed(client));
    }
    let drained = Drained { unknown: 0, kept: 1 };
    assert_eq!(bench.turn(), Err(Stopped::Drained(drained)));
    assert!(bench.port.0.borrow().outbox.is_empty());
}

#[test]
fn a_drain_waits_for_nobody_for_ever() {
    let mut bench = Bench::new();
    bench.disk().eager = false;
    bench.send(ALICE, &[Request::Submit(submit(1, b"never durable"))]);
    bench.turn().unwrap();
    bench.lane.drain();
    let began = bench.clock.0.get();
    let stopped = loop {
        bench.clock.0.set(bench.clock.0.get() + 1_000_000);
        if let Err(stopped) = bench.turn() {
            break stopped;
        }
    };
    assert_eq!(stopped, Stopped::Drained(Drained { unknown: 1, kept: 1 }));
    assert_eq!(bench.said(ALICE), [(1, Outcome::Unknown), (0, Outcome::Stopping)]);
    let took = Duration::from_nanos(bench.clock.0.get() - began);
    assert!(took <= DRAIN_BOUND + Duration::from_millis(10), "{took:?}");
}
