//! The client against scripted nodes: threads on loopback that say exactly what a test wants said.
#![allow(clippy::unwrap_used)]

mod patience;
mod reader;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::*;
use crate::limits::FRAME_HEADER_BYTES;
use crate::raft::Role;
use crate::types::{ClusterId, Index, StoreId, Term};
use crate::wire::client::{Reply, Request, ShardStatus};
use crate::wire::frame::{self, Builder, Kind};
use crate::wire::hello::{Greeting, Refusal, Welcome};

const CLUSTER: ClusterId = ClusterId(7);
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that outlives its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Submit { request: u64, shard: ShardId, timestamp: Timestamp, more_bytes: u32, payload: Vec<u8> },
    Read { request: u64, from: Index, wait: bool },
    Status { request: u64 },
    Transfer { request: u64 },
    ReadIndex { request: u64 },
}

impl Asked {
    fn request(&self) -> u64 {
        match self {
            Asked::Submit { request, .. }
            | Asked::Read { request, .. }
            | Asked::Status { request }
            | Asked::Transfer { request }
            | Asked::ReadIndex { request } => *request,
        }
    }
    fn payload(&self) -> &[u8] {
        match self {
            Asked::Submit { payload, .. } => payload,
            other => panic!("{other:?} is no submit"),
        }
    }
}

/// The node's end of a connection.
struct End {
    stream: TcpStream,
    asked: VecDeque<Asked>,
    frames: usize,
}

impl End {
    fn accept(listener: &TcpListener, node: u32) -> End {
        let (stream, _) = listener.accept().unwrap();
        let mut end = End { stream, asked: VecDeque::new(), frames: 0 };
        let Greeting::Hello(hello) = Greeting::decode(&end.frame()).unwrap() else { panic!("no hello") };
        assert_eq!((hello.cluster, hello.node), (CLUSTER, None));
        let welcome =
            Welcome { node: NodeId(node), store: StoreId(1), lane: hello.lane, lanes: 1, shards: 4 };
        end.stream.write_all(&Greeting::Welcome(welcome).encode()).unwrap();
        end
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut bytes).unwrap();
        let len_bytes = frame::announced_bytes(bytes.first_chunk().unwrap()).unwrap();
        bytes.resize(len_bytes, 0);
        self.stream.read_exact(&mut bytes[FRAME_HEADER_BYTES..]).unwrap();
        self.frames += 1;
        bytes
    }

    fn next(&mut self) -> Asked {
        while self.asked.is_empty() {
            let frame = self.frame();
            for request in crate::wire::client::requests(&frame).unwrap() {
                self.asked.push_back(match request {
                    Request::Submit(it) => {
                        assert_eq!(it.payload_crc, payload_crc(it.payload));
                        let (request, shard, timestamp) = (it.request, it.shard, it.timestamp);
                        let payload = it.payload.to_vec();
                        Asked::Submit { request, shard, timestamp, more_bytes: it.more_bytes, payload }
                    }
                    Request::Read { request, from, wait, .. } => Asked::Read { request, from, wait },
                    Request::Status { request, .. } => Asked::Status { request },
                    Request::Transfer { request, .. } => Asked::Transfer { request },
                    Request::ReadIndex { request, .. } => Asked::ReadIndex { request },
                    Request::Stream { .. } | Request::Subscribe { .. } => {
                        unreachable!("this client asks for no stream")
                    }
                });
            }
        }
        self.asked.pop_front().unwrap()
    }

    fn reply(&mut self, reply: &Reply<'_>, body: &[u8]) {
        let mut builder = Builder::new(Kind::Reply);
        builder.push(&reply.encode(body.len()), body.len());
        self.stream.write_all(builder.seal()).unwrap();
        self.stream.write_all(body).unwrap();
    }

    fn outcome(&mut self, asked: &Asked, outcome: wire::Outcome) {
        self.reply(&Reply::Outcome { request: asked.request(), outcome }, &[]);
    }

    fn commit(&mut self, asked: &Asked, index: u64) {
        let id = EntryId { term: Term(3), index: Index(index) };
        let Asked::Submit { timestamp, .. } = asked else { panic!("{asked:?} is no submit") };
        self.outcome(asked, wire::Outcome::Committed { id, timestamp: *timestamp });
    }

    /// Waits until the client has gone.
    fn until_closed(mut self) {
        while self.stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }
}

use crate::types::EntryId;

struct Fake {
    listener: TcpListener,
    member: (NodeId, SocketAddr),
}

fn fake(node: u32) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let member = (NodeId(node), listener.local_addr().unwrap());
    Fake { listener, member }
}

/// Runs a node's script, from its first connection on.
fn play<T: Send + 'static>(
    fake: Fake,
    script: impl FnOnce(End, TcpListener) -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || {
        let end = End::accept(&fake.listener, fake.member.0.0);
        script(end, fake.listener)
    })
}

fn options(members: &[(NodeId, SocketAddr)]) -> Options {
    Options { deadline: PATIENCE, ..Options::new(CLUSTER, members.to_vec()) }
}

fn submit(client: &mut Client, payload: &[u8]) -> RequestId {
    let timestamp = Timestamp(u64::from(payload[0]));
    client.submit(Submit { timestamp, ..Submit::new(ShardId(1), payload) }).unwrap()
}

fn ends(client: &mut Client, count: usize) -> Vec<(u64, Outcome)> {
    let mut completions = Vec::new();
    let until = Instant::now() + 2 * PATIENCE;
    while completions.len() < count {
        client.poll(PATIENCE, &mut completions);
        assert!(Instant::now() < until, "only {completions:?}; {:?}", client.trouble());
    }
    let mut ends: Vec<_> = completions.iter().map(|it| (it.request.0, it.outcome)).collect();
    ends.sort_by_key(|(id, _)| *id);
    ends
}

/// The node's part of [`settle`].
fn settle_at(end: &mut End) {
    let asked = end.next();
    end.commit(&asked, 1);
}

/// One commit, after which the client knows who leads and pipelines.
fn settle(client: &mut Client) {
    submit(client, b"0");
    assert_eq!(ends(client, 1)[0].1, committed(1, b'0'));
}

fn committed(index: u64, timestamp: u8) -> Outcome {
    let id = EntryId { term: Term(3), index: Index(index) };
    Outcome::Committed { id, timestamp: Timestamp(timestamp.into()) }
}

#[test]
fn submits_are_coalesced_and_each_has_its_end() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, _| {
        settle_at(&mut end);
        let asked: Vec<_> = (0..3).map(|_| end.next()).collect();
        assert_eq!(end.frames, 3, "the hello, the first submit, and one frame for all that was submitted");
        assert_eq!(asked.iter().map(Asked::payload).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        for (at, asked) in asked.iter().enumerate().rev() {
            end.commit(asked, 10 + at as u64);
        }
        end.until_closed();
    });
    let mut client = Client::connect(options(&members)).unwrap();
    settle(&mut client);
    assert_eq!((client.lanes(), client.shards()), (1, 4));
    let ids = [submit(&mut client, b"a"), submit(&mut client, b"b"), submit(&mut client, b"c")];
    assert_eq!(client.outstanding(), 3);
    let ends = ends(&mut client, 3);
    let expected = [committed(10, b'a'), committed(11, b'b'), committed(12, b'c')];
    assert_eq!(ends, ids.iter().map(|id| id.0).zip(expected).collect::<Vec<_>>());
    assert_eq!(client.outstanding(), 0);
    assert_eq!(client.poll(Duration::ZERO, &mut Vec::new()), 0);
    drop(client);
    node.join().unwrap();
}

#[test]
fn a_rejected_series_reaches_the_leader_in_order() {
    let (one, two) = (fake(1), fake(2));
    let members = [one.member, two.member];
    let follower = play(one, |mut end, _| {
        settle_at(&mut end);
        let asked: Vec<_> = (0..4).map(|_| end.next()).collect();
        for asked in &asked {
            end.outcome(asked, wire::Outcome::NotLeader { leader: Some(NodeId(2)) });
        }
        end.until_closed();
    });
    let mut client = Client::connect(options(&members[..1])).unwrap();
    client.options.members = members.to_vec();
    client.slots.resize_with(2, Slot::default);
    let leader = play(two, |mut end, _| {
        for (at, expected) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            let asked = end.next();
            assert_eq!(asked.payload(), expected);
            end.commit(&asked, at as u64 + 1);
        }
        end.until_closed();
    });
    settle(&mut client);
    for payload in [b"a", b"b", b"c"] {
        submit(&mut client, payload);
    }
    client.flush();
    submit(&mut client, b"d");
    let outcomes: Vec<_> = ends(&mut client, 4).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [committed(1, b'a'), committed(2, b'b'), committed(3, b'c'), committed(4, b'd')]);
    assert_eq!(client.leader(ShardId(1)), Some(NodeId(2)));
    drop(client);
    follower.join().unwrap();
    leader.join().unwrap();
}

#[test]
fn what_was_overtaken_is_not_offered_again() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, _| {
        settle_at(&mut end);
        let (first, second) = (end.next(), end.next());
        end.outcome(&first, wire::Outcome::NotLeader { leader: None });
        end.commit(&second, 1);
        end.until_closed();
    });
    let mut client = Client::connect(options(&members)).unwrap();
    settle(&mut client);
    submit(&mut client, b"a");
    submit(&mut client, b"b");
    let outcomes: Vec<_> = ends(&mut client, 2).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Outcome::NotLeader { leader: None }, committed(1, b'b')]);
    drop(client);
    node.join().unwrap();
}

#[test]
fn a_lost_connection_makes_unknown_and_the_next_node_is_asked() {
    let (one, two) = (fake(1), fake(2));
    let members = [one.member, two.member];
    let first = play(one, |mut end, _| drop((end.next(), end)));
    let mut client = Client::connect(options(&members[..1])).unwrap();
    client.options.members = members.to_vec();
    client.slots.resize_with(2, Slot::default);
    let second = play(two, |mut end, _| {
        let asked = end.next();
        assert_eq!(asked.payload(), b"b", "what was sent once is not sent again");
        end.commit(&asked, 1);
        end.until_closed();
    });
    submit(&mut client, b"a");
    assert_eq!(ends(&mut client, 1)[0].1, Outcome::Unknown);
    submit(&mut client, b"b");
    assert_eq!(ends(&mut client, 1)[0].1, committed(1, b'b'));
    drop(client);
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn what_a_stopping_node_left_unanswered_goes_to_another_in_order() {
    // A node that was stopped closed its connections while submits were still under way to it, and each of them ended
    // as unknown although the node had never seen it.
    let (one, two) = (fake(1), fake(2));
    let members = [one.member, two.member];
    let first = play(one, |mut end, _| {
        settle_at(&mut end);
        let asked = end.next();
        assert_eq!(asked.payload(), b"a");
        end.commit(&asked, 2);
        end.reply(&Reply::Farewell, &[]);
        // It closes with something unread: the reset that this makes must not hide the last words.
        end.stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut client = Client::connect(options(&members[..1])).unwrap();
    client.options.members = members.to_vec();
    client.slots.resize_with(2, Slot::default);
    settle(&mut client);
    for payload in [b"a", b"b", b"c"] {
        submit(&mut client, payload);
        client.flush();
    }
    let second = play(two, |mut end, _| {
        for (payload, index) in [(b"b", 3), (b"c", 4), (b"d", 5)] {
            let asked = end.next();
            assert_eq!(asked.payload(), payload);
            end.commit(&asked, index);
        }
        end.until_closed();
    });
    first.join().unwrap();
    // Written to a connection that is gone, before its last words were read.
    submit(&mut client, b"d");
    client.flush();
    let outcomes: Vec<_> = ends(&mut client, 4).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [committed(2, b'a'), committed(3, b'b'), committed(4, b'c'), committed(5, b'd')]);
    drop(client);
    second.join().unwrap();
}

#[test]
fn after_a_failure_a_strict_client_sends_nothing_more_of_the_shard() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, listener| {
        drop((end.next(), end));
        let mut end = End::accept(&listener, 1);
        let asked = end.next();
        assert_eq!(asked.payload(), b"c");
        end.commit(&asked, 1);
        end.until_closed();
    });
    let mut client = Client::connect(Options { strict_order: true, ..options(&members) }).unwrap();
    submit(&mut client, b"a");
    client.flush();
    submit(&mut client, b"b");
    // What was submitted since the last flush must still be unsent when the connection is lost.
    while client.completions.is_empty() {
        client.turn(Instant::now() + PATIENCE);
    }
    let outcomes: Vec<_> = ends(&mut client, 2).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Withdrawn]);
    submit(&mut client, b"c");
    assert_eq!(ends(&mut client, 1)[0].1, committed(1, b'c'));
    drop(client);
    node.join().unwrap();
}

#[test]
fn a_long_record_goes_in_parts() {
    let record: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    let expected = record.clone();
    let one = fake(1);
    let members = [one.member];
    let node = play(one, move |mut end, _| {
        let mut whole = Vec::new();
        let last = loop {
            let asked = end.next();
            let Asked::Submit { more_bytes, payload, .. } = &asked else { panic!("{asked:?}") };
            whole.extend_from_slice(payload);
            assert_eq!(*more_bytes as usize, expected.len() - whole.len());
            assert!(payload.len() <= ENTRY_PAYLOAD_BYTES_MAX);
            if *more_bytes == 0 {
                break asked;
            }
        };
        assert!(whole == expected, "the parts make the record");
        end.commit(&last, 5);
        end.until_closed();
    });
    let mut client = Client::connect(options(&members)).unwrap();
    submit(&mut client, &record);
    assert_eq!(ends(&mut client, 1)[0].1, committed(5, 0));
    drop(client);
    node.join().unwrap();
}

#[test]
fn a_record_refused_at_its_first_part_leaves_the_connection_in_order() {
    // A node passes the parts of a refused record over until the last one, or until the next record: the client sends
    // no more of it than was under way when it heard.
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, _| {
        settle_at(&mut end);
        let first = end.next();
        end.outcome(&first, wire::Outcome::Busy);
        let mut passed_over = 0;
        let next = loop {
            let asked = end.next();
            if asked.request() != first.request() {
                break asked;
            }
            passed_over += 1;
        };
        assert!(passed_over < RECORD_BYTES_MAX / ENTRY_PAYLOAD_BYTES_MAX, "not all parts were sent");
        assert_eq!(next.payload(), b"b");
        end.commit(&next, 2);
        end.until_closed();
    });
    let mut client = Client::connect(options(&members)).unwrap();
    settle(&mut client);
    submit(&mut client, &vec![7; RECORD_BYTES_MAX]);
    assert_eq!(ends(&mut client, 1)[0].1, Outcome::Busy);
    submit(&mut client, b"b");
    assert_eq!(ends(&mut client, 1)[0].1, committed(2, b'b'));
    drop(client);
    node.join().unwrap();
}

#[test]
fn bounds_are_answers() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |end, _| end.until_closed());
    let bounded = Options { outstanding_max: 2, outstanding_bytes_max: 100, ..options(&members) };
    let mut client = Client::connect(bounded).unwrap();
    let try_one = |client: &mut Client, bytes: usize, shard: u32| {
        client.submit(Submit::new(ShardId(shard), &vec![1; bytes])).map(|_| ())
    };
    assert_eq!(try_one(&mut client, 0, 0), Err(SubmitError::Size { len_bytes: 0 }));
    assert_eq!(try_one(&mut client, 101, 0), Err(SubmitError::Size { len_bytes: 101 }));
    assert_eq!(try_one(&mut client, 1, 4), Err(SubmitError::Shard { shard: ShardId(4), shards: 4 }));
    assert_eq!(try_one(&mut client, 60, 0), Ok(()));
    assert_eq!(try_one(&mut client, 60, 0), Err(SubmitError::Full));
    assert_eq!(try_one(&mut client, 40, 0), Ok(()));
    assert_eq!(try_one(&mut client, 1, 0), Err(SubmitError::Full));
    drop(client);
    node.join().unwrap();
}

#[test]
fn refusals_and_garbage_are_named() {
    for (say, part) in [
        (
            Greeting::Refusal(Refusal::Cluster { expected: ClusterId(9), found: CLUSTER }).encode().to_vec(),
            "cluster 0000000000000009",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nand some more".to_vec(), "not a frame"),
        (
            Greeting::Welcome(Welcome {
                node: NodeId(5),
                store: StoreId(1),
                lane: LaneId(0),
                lanes: 1,
                shards: 1,
            })
            .encode()
            .to_vec(),
            "node 5 answers there",
        ),
    ] {
        let one = fake(1);
        let members = [one.member];
        let node = std::thread::spawn(move || {
            one.listener.set_nonblocking(false).unwrap();
            let (mut stream, _) = one.listener.accept().unwrap();
            stream.read_exact(&mut [0; 96]).unwrap();
            stream.write_all(&say).unwrap();
        });
        let deadline = Duration::from_millis(300);
        let error = Client::connect(Options { deadline, ..options(&members) }).unwrap_err().to_string();
        node.join().unwrap();
        // The node answers once; whatever came after is "refused" by the system, and either may be the last word.
        assert!(error.contains(part) || error.contains("refused"), "{error}");
        assert!(error.contains("node 1 at 127.0.0.1"), "{error}");
    }
}

#[test]
fn status_and_transfer_find_their_node() {
    let (one, two) = (fake(1), fake(2));
    let members = [one.member, two.member];
    let status = ShardStatus {
        shard: ShardId(1),
        role: Role::Follower,
        term: Term(3),
        leader: Some(NodeId(2)),
        last: EntryId { term: Term(3), index: Index(9) },
        commit: Index(8),
        durable: Index(9),
        elections: 1,
    };
    let first = play(one, move |mut end, _| {
        let asked = end.next();
        end.reply(&Reply::Status { request: asked.request(), status }, &[]);
        let asked = end.next();
        assert!(matches!(asked, Asked::Transfer { .. }));
        end.outcome(&asked, wire::Outcome::NotLeader { leader: Some(NodeId(2)) });
        let asked = end.next();
        assert!(matches!(asked, Asked::ReadIndex { .. }));
        end.outcome(&asked, wire::Outcome::NotLeader { leader: None });
        end.until_closed();
    });
    let second = play(two, |mut end, _| {
        let asked = end.next();
        assert!(matches!(asked, Asked::Transfer { .. }));
        end.outcome(&asked, wire::Outcome::Accepted);
        let asked = end.next();
        assert!(matches!(asked, Asked::ReadIndex { .. }));
        end.reply(&Reply::ReadIndex { request: asked.request(), index: Index(8) }, &[]);
        end.until_closed();
    });
    let mut client = Client::connect(options(&members)).unwrap();
    assert_eq!(client.status(NodeId(1), ShardId(1), PATIENCE).unwrap(), status);
    assert_eq!(client.transfer(ShardId(1), NodeId(1), PATIENCE).unwrap(), NodeId(2));
    assert_eq!(client.read_index(ShardId(1), PATIENCE).unwrap(), (NodeId(2), Index(8)));
    assert_eq!(client.status(NodeId(7), ShardId(1), PATIENCE), Err(ClientError::NoSuchMember(NodeId(7))));
    let beyond = ClientError::NoSuchShard { shard: ShardId(4), shards: 4 };
    assert_eq!(client.status(NodeId(1), ShardId(4), PATIENCE), Err(beyond));
    drop(client);
    first.join().unwrap();
    second.join().unwrap();
}
