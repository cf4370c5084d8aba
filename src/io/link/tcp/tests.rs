#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::io::reactor::Kind as ReactorKind;
use crate::io::{ClientId, Flow, Full, Link, LinkEvent, Park, Port, PortEvent};
use crate::limits::*;
use crate::raft::Message;
use crate::types::*;
use crate::wire::client::{Request, Submit};
use crate::wire::frame::{Builder, Kind};
use crate::wire::hello::{GREETING_BYTES, Greeting};
use crate::wire::peer;

const PATIENCE: Duration = Duration::from_secs(20);

fn now(start: Instant) -> Time {
    Time(start.elapsed().as_nanos() as u64 + 1)
}

/// Runs `test` over each kind of reactor that this system has.
fn on_every_reactor(test: impl Fn(&dyn Fn() -> Reactor)) {
    let mut ran = 0;
    for kind in [ReactorKind::Epoll, ReactorKind::Uring] {
        match Reactor::new(kind) {
            Ok(_) => {
                test(&|| Reactor::new(kind).unwrap());
                ran += 1;
            }
            Err(error) => eprintln!("not run over {kind:?}: {error}"),
        }
    }
    assert!(ran > 0, "no reactor at all");
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn identity(node: u32) -> Identity {
    Identity {
        cluster: ClusterId(7),
        node: NodeId(node),
        store: StoreId(u64::from(node) + 100),
        lane: LaneId(0),
        lanes: 1,
        shards: 4,
    }
}

/// A link with its own reactor, and what it was told.
struct Node {
    link: TcpLink,
    reactor: Reactor,
    start: Instant,
    ups: usize,
    downs: Vec<bool>,
    frames: Vec<Vec<u8>>,
}

impl Node {
    fn new(reactor: Reactor, identity: Identity, listener: TcpListener, peers: &[(u32, SocketAddr)]) -> Node {
        let peers = peers.iter().map(|(id, address)| (NodeId(*id), *address)).collect();
        let options = LinkOptions { identity, listener, peers, stores: Vec::new() };
        let link = TcpLink::new(options, reactor.clone()).unwrap();
        Node { link, reactor, start: Instant::now(), ups: 0, downs: Vec::new(), frames: Vec::new() }
    }

    fn turn(&mut self) {
        self.reactor.poll();
        let Node { link, ups, downs, frames, start, .. } = self;
        link.poll(now(*start), &mut |event| match event {
            LinkEvent::Up(_) => *ups += 1,
            LinkEvent::Down { by_peer, .. } => downs.push(by_peer),
            LinkEvent::Frame { bytes, .. } => frames.push(bytes.to_vec()),
        });
    }
}

fn pump(nodes: &mut [&mut Node], mut done: impl FnMut(&mut [&mut Node]) -> bool) {
    let start = Instant::now();
    while !done(nodes) {
        let lines: Vec<_> = nodes.iter().map(|node| node.link.lines()).collect();
        assert!(start.elapsed() < PATIENCE, "nothing came of it: {lines:?}");
        nodes.iter_mut().for_each(|node| node.turn());
        nodes[0].reactor.park(Duration::from_micros(100));
    }
}

fn pair(reactor: &dyn Fn() -> Reactor, one: Identity, two: Identity) -> (Node, Node) {
    let (first, second) = (listener(), listener());
    let (at_first, at_second) = (first.local_addr().unwrap(), second.local_addr().unwrap());
    (Node::new(reactor(), one, first, &[(2, at_second)]), Node::new(reactor(), two, second, &[(1, at_first)]))
}

fn connected(reactor: &dyn Fn() -> Reactor) -> (Node, Node) {
    let (mut one, mut two) = pair(reactor, identity(1), identity(2));
    pump(&mut [&mut one, &mut two], |nodes| nodes.iter().all(|node| node.ups == 1));
    (one, two)
}

/// A peer frame with so many bytes of body, in the parts in which a lane sends it. Its records are no records: their
/// checksums are not the link's to check.
fn peer_frame(body_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut builder = Builder::new(Kind::Peer);
    let row = peer::encode(ShardId(1), &Message::VoteRefused { term: Term(body_bytes as u64) }, 0);
    builder.push(&row, body_bytes);
    (builder.seal().to_vec(), (0..body_bytes).map(|at| (at * 31 + body_bytes) as u8).collect())
}

#[test]
fn frames_of_every_size_arrive_whole_and_in_order_both_ways() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let sizes = [0, 1, 64, 4000, 65_440, 65_441, 70_000, 1 << 20, FRAME_BYTES_MAX - 96, 3];
        let mut expected = Vec::new();
        for size in sizes {
            let (head, body) = peer_frame(size);
            // In many parts, more than one system call takes, some of them empty.
            let pieces = body.chunks(size / 150 + 1);
            let parts: Vec<&[u8]> = [&head[..20], &[], &head[20..]].into_iter().chain(pieces).collect();
            one.link.send(NodeId(2), &parts).unwrap();
            two.link.send(NodeId(1), &[&head, &body]).unwrap();
            expected.push([head.clone(), body.clone()].concat());
        }
        pump(&mut [&mut one, &mut two], |nodes| nodes.iter().all(|node| node.frames.len() == sizes.len()));
        assert!(one.frames == expected && two.frames == expected, "not the same bytes");
        assert_eq!(one.link.counters().frames_in, sizes.len() as u64);
        assert_eq!(one.link.counters().bytes_in, two.link.counters().bytes_out);
        assert_eq!(one.link.learned(), [(NodeId(2), StoreId(102))]);
        assert_eq!(two.link.learned(), [(NodeId(1), StoreId(101))]);
        assert_eq!(two.link.learned(), []);
    });
}

#[test]
fn either_end_comes_back_after_a_restart() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let at = |node: &Node| node.link.acceptor_address();
        let (at_one, at_two) = (at(&one), at(&two));
        // The end that listens.
        drop(two);
        pump(&mut [&mut one], |nodes| nodes[0].downs == [true]);
        two = Node::new(reactor(), identity(2), TcpListener::bind(at_two).unwrap(), &[(1, at_one)]);
        let back = Instant::now();
        pump(&mut [&mut one, &mut two], |nodes| nodes.iter().all(|node| node.link.is_up_any()));
        assert!(back.elapsed() < Duration::from_secs(2));
        assert_eq!(one.link.counters().reconnects, 1);
        // The end that dials.
        drop(one);
        one = Node::new(reactor(), identity(1), TcpListener::bind(at_one).unwrap(), &[(2, at_two)]);
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].ups == 2 && nodes[0].link.is_up_any());
        assert_eq!(two.downs.len(), 1);
        let (head, body) = peer_frame(100);
        two.link.send(NodeId(1), &[&head, &body]).unwrap();
        pump(&mut [&mut one, &mut two], |nodes| nodes[0].frames.len() == 1);
    });
}

#[test]
fn a_hello_that_does_not_belong_is_refused_and_named_at_both_ends() {
    on_every_reactor(|reactor| {
        let other = [
            (Identity { cluster: ClusterId(8), ..identity(1) }, "cluster 0x0000000000000007 was expected"),
            (Identity { lanes: 2, ..identity(1) }, "a cluster of 1 lanes was expected"),
            (Identity { lane: LaneId(1), lanes: 2, ..identity(1) }, "a cluster of 1 lanes was expected"),
            (Identity { node: NodeId(0), ..identity(1) }, "node 0 is not a peer here"),
        ];
        for (wrong, words) in other {
            let (mut one, mut two) = pair(reactor, wrong, identity(2));
            pump(&mut [&mut one, &mut two], |nodes| nodes.iter().all(|node| !node.link.lines().is_empty()));
            for node in [&one, &two] {
                assert!(node.link.lines()[0].contains(words), "{:?}", node.link.lines());
                assert_eq!((node.ups, node.link.counters().refused >= 1), (0, true));
            }
        }
    });
}

#[test]
fn a_dialer_that_reaches_another_node_says_so_to_it() {
    on_every_reactor(|reactor| {
        let (first, third) = (listener(), listener());
        let (at_first, at_third) = (first.local_addr().unwrap(), third.local_addr().unwrap());
        // Node 1 was given node 3's address for node 2.
        let mut one = Node::new(reactor(), identity(1), first, &[(2, at_third)]);
        let mut three = Node::new(reactor(), identity(3), third, &[(1, at_first)]);
        let told =
            |node: &Node| node.link.lines().iter().any(|line| line.contains("node 3 is not a peer here"));
        pump(&mut [&mut one, &mut three], |nodes| nodes.iter().all(|node| told(node)));
        assert_eq!(one.ups, 0);
    });
}

#[test]
fn a_peer_that_lost_its_log_is_refused() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let (at_one, at_two) = (one.link.acceptor_address(), two.link.acceptor_address());
        drop(one);
        let formatted = Identity { store: StoreId(999), ..identity(1) };
        one = Node::new(reactor(), formatted, TcpListener::bind(at_one).unwrap(), &[(2, at_two)]);
        let told = |node: &Node| node.link.lines().iter().any(|line| line.contains("has lost its log"));
        pump(&mut [&mut one, &mut two], |nodes| nodes.iter().all(|node| told(node)));
        assert_eq!((one.ups, two.ups), (0, 1));
    });
}

#[test]
fn a_second_connection_of_a_peer_replaces_the_first() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let mut again = TcpStream::connect(two.link.acceptor_address()).unwrap();
        // A stranger's words do not count.
        again
            .write_all(&Greeting::Hello(Identity { cluster: ClusterId(1), ..identity(1) }.hello()).encode())
            .unwrap();
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].link.counters().refused == 1);
        assert_eq!((two.ups, two.downs.len()), (1, 0));
        let mut again = TcpStream::connect(two.link.acceptor_address()).unwrap();
        again.write_all(&Greeting::Hello(identity(1).hello()).encode()).unwrap();
        pump(&mut [&mut two], |nodes| nodes[0].ups == 2);
        assert_eq!(two.downs, [false]);
        let mut welcome = [0; GREETING_BYTES];
        again.read_exact(&mut welcome).unwrap();
        assert_eq!(Greeting::decode(&welcome), Ok(Greeting::Welcome(identity(2).welcome())));
    });
}

/// What a hostile or broken end sends as its first words, and what is said of it.
fn offences() -> Vec<(Vec<u8>, &'static str)> {
    let mut huge = Greeting::Hello(identity(1).hello()).encode().to_vec();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long = huge.clone();
    long[4..8].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
    let mut flipped = Greeting::Hello(identity(1).hello()).encode().to_vec();
    flipped[40] ^= 1;
    let mut future = huge.clone();
    future[9] = 9;
    vec![
        (b"GET / HTTP/1.1\r\nHost: plimsoll\r\n\r\n".to_vec(), "not a frame"),
        (vec![0xff; 3000], "not a frame"),
        (huge, "a frame of 4294967295 bytes"),
        (long, "a frame of 4194304 bytes"),
        (flipped, "checksum does not hold"),
        (future, "protocol version 9"),
        (Greeting::Welcome(identity(1).welcome()).encode().to_vec(), "field kind"),
    ]
}

fn assert_dropped(stranger: &mut TcpStream) {
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = stranger.read(&mut [0; 4096]);
    assert!(
        matches!(&end, Ok(0)) || end.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
}

#[test]
fn strangers_at_the_peer_port_are_dropped_and_cost_nothing() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let memory = two.link.memory_bytes();
        for (n, (words, said)) in offences().into_iter().enumerate() {
            let mut stranger = TcpStream::connect(two.link.acceptor_address()).unwrap();
            stranger.write_all(&words).unwrap();
            pump(&mut [&mut one, &mut two], |nodes| nodes[1].link.counters().malformed == n as u64 + 1);
            let line = two.link.lines().last().unwrap();
            let address = stranger.local_addr().unwrap().to_string();
            assert!(line.contains(said) && line.contains(&address), "{line}");
            assert_dropped(&mut stranger);
        }
        // Half a frame, and gone.
        let mut stranger = TcpStream::connect(two.link.acceptor_address()).unwrap();
        stranger.write_all(&Greeting::Hello(identity(1).hello()).encode()[..50]).unwrap();
        drop(stranger);
        pump(&mut [&mut one, &mut two], |nodes| {
            nodes[1].link.lines().last().unwrap().contains("after 50 bytes of a frame")
        });
        assert_eq!(two.link.memory_bytes(), memory);
        let (head, body) = peer_frame(1000);
        one.link.send(NodeId(2), &[&head, &body]).unwrap();
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].frames.len() == 1);
        assert_eq!((one.downs.len(), two.downs.len()), (0, 0));
    });
}

#[test]
fn connections_that_say_nothing_are_few_and_short() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let base = two.link.memory_bytes().0;
        let silent: Vec<_> = (0..2 * UNGREETED_MAX)
            .map(|_| {
                let stranger = TcpStream::connect(two.link.acceptor_address()).unwrap();
                pump(&mut [&mut two], |nodes| !nodes[0].link.acceptor_has_more());
                stranger
            })
            .collect();
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].link.counters().late >= UNGREETED_MAX as u64);
        assert!(two.link.memory_bytes().0 <= base + UNGREETED_MAX * (4 << 10));
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].link.memory_bytes().0 == base);
        assert_eq!(two.link.counters().late, silent.len() as u64);
        assert_eq!(two.downs.len(), 0);
    });
}

#[test]
fn a_peer_that_does_not_read_makes_sends_full_and_nothing_else() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let (head, body) = peer_frame(1 << 20);
        let mut sent = 0;
        while one.link.send(NodeId(2), &[&head, &body]).is_ok() {
            sent += 1;
            assert!(sent < 1000, "somewhere it has to go");
            one.turn();
        }
        let waiting = one.link.memory_bytes().1;
        assert!(
            waiting <= PEER_OUTGOING_BYTES_MAX && waiting + head.len() + body.len() > PEER_OUTGOING_BYTES_MAX
        );
        assert_eq!(one.link.send(NodeId(2), &[&head, &body]).map_err(|Full(())| ()), Err(()));
        assert_eq!(one.link.counters().full, 2);
        // Every frame that was taken arrives, whole.
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].frames.len() == sent);
        let whole = [head, body].concat();
        assert!(two.frames.iter().all(|frame| *frame == whole));
        assert_eq!(one.link.memory_bytes().1, 0);
    });
}

/// A port with its own reactor, and what it was told.
struct Lane {
    port: TcpPort,
    reactor: Reactor,
    start: Instant,
    opened: Vec<ClientId>,
    closed: Vec<ClientId>,
    frames: BTreeMap<ClientId, Vec<Vec<u8>>>,
    /// How many events the sink takes in one poll.
    appetite: usize,
}

impl Lane {
    fn new(reactor: Reactor, clients_max: usize) -> Lane {
        let options = PortOptions { identity: identity(1), listener: listener(), clients_max };
        let port = TcpPort::new(options, reactor.clone()).unwrap();
        let (opened, closed, frames) = Default::default();
        Lane { port, reactor, start: Instant::now(), opened, closed, frames, appetite: usize::MAX }
    }

    fn turn(&mut self) -> usize {
        self.reactor.poll();
        let Lane { port, opened, closed, frames, start, appetite, .. } = self;
        let mut taken = 0;
        port.poll(now(*start), &mut |event| {
            match event {
                PortEvent::Opened(id) => opened.push(id),
                PortEvent::Closed(id) => closed.push(id),
                PortEvent::Frame { from, bytes } => frames.entry(from).or_default().push(bytes.to_vec()),
            }
            taken += 1;
            if taken >= *appetite { Flow::Stop } else { Flow::More }
        })
    }

    fn pump(&mut self, mut done: impl FnMut(&mut Lane) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "nothing came of it: {:?}", self.port.lines());
            // The contract: who has nothing to do may sleep, and does not sleep over what is there.
            if self.turn() == 0 {
                self.reactor.park(Duration::from_millis(20));
            }
        }
    }

    /// A client that has been welcomed.
    fn client(&mut self) -> TcpStream {
        let mut client = self.stranger();
        let opened = self.opened.len();
        client.write_all(&hello().encode()).unwrap();
        self.pump(|lane| lane.opened.len() > opened);
        assert_eq!(greeting(&mut client), Greeting::Welcome(identity(1).welcome()));
        client
    }

    fn stranger(&self) -> TcpStream {
        TcpStream::connect(self.port.acceptor_address()).unwrap()
    }

    fn frames(&self) -> usize {
        self.frames.values().map(Vec::len).sum()
    }
}

fn hello() -> Greeting {
    Greeting::Hello(Hello { node: None, store: StoreId(0), lanes: 0, ..identity(1).hello() })
}

fn greeting(client: &mut TcpStream) -> Greeting {
    let mut frame = [0; GREETING_BYTES];
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut frame).unwrap();
    Greeting::decode(&frame).unwrap()
}

fn request_frame(request: u64, payloads: &[usize]) -> Vec<u8> {
    let mut builder = Builder::new(Kind::Request);
    let mut body = Vec::new();
    for len in payloads {
        let payload = vec![request as u8; *len];
        let submit = Submit {
            request,
            shard: ShardId(0),
            acks: Acks::Quorum,
            timestamp: Timestamp(1),
            epoch: Epoch(1),
            session: 0,
            serial: 0,
            payload_crc: 0,
            more_bytes: 0,
            payload: &payload,
        };
        builder.push(&Request::Submit(submit).encode(), *len);
        body.extend_from_slice(&payload);
    }
    [builder.seal(), &body].concat()
}

#[test]
fn many_frames_in_one_segment_and_one_frame_in_many() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        let mut client = lane.client();
        let expected: Vec<_> = (0..500).map(|n| request_frame(n, &[1 + n as usize % 50])).collect();
        client.write_all(&expected.concat()).unwrap();
        lane.pump(|lane| lane.frames() == 500);
        assert_eq!(lane.frames[&lane.opened[0]], expected);
        client.set_nodelay(true).unwrap();
        let frame = request_frame(500, &[100]);
        for byte in &frame {
            client.write_all(&[*byte]).unwrap();
            lane.turn();
        }
        lane.pump(|lane| lane.frames() == 501);
        assert_eq!(lane.frames[&lane.opened[0]].last(), Some(&frame));
    });
}

#[test]
fn two_hundred_clients_are_served_in_turn() {
    on_every_reactor(|reactor| {
        const CLIENTS: usize = 200;
        let mut lane = Lane::new(reactor(), CLIENTS);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| lane.client()).collect();
        let mut crowded = lane.stranger();
        crowded.write_all(&hello().encode()).unwrap();
        lane.pump(|lane| lane.port.counters().refused == 1);
        assert_eq!(greeting(&mut crowded), Greeting::Refusal(Refusal::Crowded));
        // One of them has far more to say than the others, and said it first.
        let loud: Vec<u8> = (0..400).flat_map(|n| request_frame(n, &[10])).collect();
        clients[0].write_all(&loud).unwrap();
        for client in &mut clients[1..] {
            client.write_all(&request_frame(1, &[10]).repeat(2)).unwrap();
        }
        lane.appetite = 7;
        lane.pump(|lane| lane.frames.len() == CLIENTS && lane.frames.values().skip(1).all(|f| f.len() == 2));
        let of_loud = lane.frames[&lane.opened[0]].len();
        assert!(of_loud < 50, "{of_loud} frames of the loud one while the others waited");
        lane.pump(|lane| lane.frames() == 400 + 2 * (CLIENTS - 1));
        // All leave; each is told once.
        drop(clients);
        lane.pump(|lane| lane.closed.len() == CLIENTS);
        lane.closed.sort();
        lane.opened.sort();
        assert_eq!((lane.port.clients(), &lane.closed), (0, &lane.opened));
        assert_eq!(lane.port.buffer_bytes(), 0);
    });
}

#[test]
fn strangers_at_the_client_port_are_dropped_and_cost_nothing() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        let mut client = lane.client();
        let memory = lane.port.buffer_bytes();
        for (n, (words, said)) in offences().into_iter().enumerate() {
            let mut stranger = lane.stranger();
            stranger.write_all(&words).unwrap();
            lane.pump(|lane| lane.port.counters().malformed == n as u64 + 1);
            let line = lane.port.lines().last().unwrap();
            assert!(
                line.contains(said) && line.contains(&stranger.local_addr().unwrap().to_string()),
                "{line}"
            );
            assert_dropped(&mut stranger);
        }
        for (hello, expected) in [
            (Hello { cluster: ClusterId(9), ..identity(1).hello() }, "cluster"),
            (Hello { lanes: 3, ..identity(1).hello() }, "lanes"),
            (
                Hello { lanes: 0, lane: LaneId(5), node: None, store: StoreId(0), ..identity(1).hello() },
                "lane 5",
            ),
            (identity(2).hello(), "node 2 is not"),
        ] {
            let mut stranger = lane.stranger();
            let refused = lane.port.counters().refused;
            stranger.write_all(&Greeting::Hello(hello).encode()).unwrap();
            lane.pump(|lane| lane.port.counters().refused == refused + 1);
            let Greeting::Refusal(refusal) = greeting(&mut stranger) else { panic!("not refused") };
            assert!(refusal.to_string().contains(expected), "{refusal}");
            assert_dropped(&mut stranger);
        }
        assert_eq!((lane.opened.len(), lane.closed.len(), lane.port.buffer_bytes()), (1, 0, memory));
        client.write_all(&request_frame(1, &[1])).unwrap();
        lane.pump(|lane| lane.frames() == 1);
        // A client that is known and breaks the protocol then is dropped too, and the shard is told.
        client.write_all(&peer_frame(0).0).unwrap();
        lane.pump(|lane| lane.closed == lane.opened);
        assert_dropped(&mut client);
    });
}

#[test]
fn lines_are_few_however_many_offend() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        for n in 0..50 {
            lane.stranger().write_all(b"nonsense nonsense nonsense nonsense").unwrap();
            lane.pump(|lane| lane.port.counters().malformed == n + 1);
        }
        let seconds = lane.start.elapsed().as_secs() as usize + 1;
        assert!(lane.port.lines().len() <= 10 * seconds && lane.port.reporter_suppressed() > 0);
    });
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        let (_deaf, _other) = (lane.client(), lane.client());
        let chunk = vec![7; 1 << 20];
        let mut sent = 0;
        while lane.port.clients() == 2 {
            lane.port.send(lane.opened[0], &[&chunk, b"end"]);
            sent += 1;
            assert!(sent < 1000, "somewhere it has to go");
        }
        lane.pump(|lane| lane.closed.len() == 1);
        assert_eq!((lane.closed[0], lane.port.counters().full), (lane.opened[0], 1));
        assert!(lane.port.lines().last().unwrap().contains("it does not read"));
        // Gone is gone: a late answer to it is nobody's, also when another has taken its place.
        let mut fresh = lane.client();
        lane.port.send(lane.opened[0], &[b"stale"]);
        lane.port.send(lane.opened[2], &[b"fresh"]);
        let mut answer = [0; 5];
        fresh.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"fresh");
    });
}

#[test]
fn long_frames_of_many_clients_share_one_allowance() {
    on_every_reactor(|reactor| {
        const CLIENTS: usize = 40;
        let mut lane = Lane::new(reactor(), CLIENTS);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| lane.client()).collect();
        let frame = request_frame(1, &[1_000_000, 1_000_000, 1_000_000]);
        // More than the allowance is announced at once, and nobody gets more than that; all arrive in the end.
        let mut sent = vec![0; CLIENTS];
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        let mut most = 0;
        lane.pump(|lane| {
            for (client, sent) in clients.iter_mut().zip(&mut sent) {
                if *sent < frame.len() {
                    *sent += client.write(&frame[*sent..(*sent + 200_000).min(frame.len())]).unwrap_or(0);
                }
            }
            most = most.max(lane.port.buffer_bytes());
            lane.frames() == CLIENTS
        });
        assert!(most <= clients::GROWN_BYTES_MAX + CLIENTS * (64 << 10), "{most} bytes");
        assert!(most > clients::GROWN_BYTES_MAX / 2, "the allowance was not tried: {most} bytes");
        assert!(lane.frames.values().all(|frames| frames[0] == frame));
    });
}
