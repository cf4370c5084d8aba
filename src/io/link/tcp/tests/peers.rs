#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::aside::{Answered, Aside, Says};

/// A link with its own reactor, and what it was told.
struct Node {
    link: TcpLink,
    reactor: Reactor,
    watch: Watch,
    ups: usize,
    downs: Vec<bool>,
    frames: Vec<Vec<u8>>,
}

impl Node {
    fn new(reactor: Reactor, identity: Identity, listener: TcpListener, peers: &[(u32, SocketAddr)]) -> Node {
        let peers = peers.iter().map(|(id, address)| (NodeId(*id), *address)).collect();
        let options = LinkOptions { identity, listener, peers, stores: Vec::new() };
        let link = TcpLink::new(options, reactor.clone()).unwrap();
        Node { link, reactor, watch: Watch::new(), ups: 0, downs: Vec::new(), frames: Vec::new() }
    }

    fn turn(&mut self) {
        self.reactor.poll();
        let Node { link, ups, downs, frames, watch, .. } = self;
        link.poll(watch.now(), &mut |event| match event {
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
fn a_node_that_is_no_member_is_refused() {
    on_every_reactor(|reactor| {
        let (second, third) = (listener(), listener());
        let (at_second, at_third) = (second.local_addr().unwrap(), third.local_addr().unwrap());
        let mut two = Node::new(reactor(), identity(2), second, &[(3, at_third)]);
        let mut three = Node::new(reactor(), identity(3), third, &[(1, at_second)]);
        let told =
            |node: &Node| node.link.lines().iter().any(|line| line.contains("node 2 is not a peer here"));
        pump(&mut [&mut two, &mut three], |nodes| nodes.iter().all(|node| told(node)));
        assert_eq!((two.ups, three.ups), (0, 0));
    });
}

/// A connection to `node` that has said hello as node 1, with nothing behind it.
fn puppet(node: &mut Node) -> TcpStream {
    let ups = node.ups;
    let mut puppet = TcpStream::connect(node.link.acceptor_address()).unwrap();
    puppet.write_all(&Greeting::Hello(identity(1).hello(NodeId(2))).encode()).unwrap();
    pump(&mut [node], |nodes| nodes[0].ups == ups + 1);
    assert_eq!(greeting(&mut puppet), Greeting::Welcome(identity(2).welcome()));
    puppet
}

#[test]
fn a_peer_that_breaks_off_or_breaks_the_protocol_is_down() {
    on_every_reactor(|reactor| {
        let nowhere = listener().local_addr().unwrap();
        let mut node = Node::new(reactor(), identity(2), listener(), &[(1, nowhere)]);
        let (head, body) = peer_frame(100_000);
        let whole = [head, body].concat();
        // Gone within a frame: what came before it counts, and its process has most likely ended.
        let mut peer = puppet(&mut node);
        peer.write_all(&[&whole[..], &whole[..50_000]].concat()).unwrap();
        drop(peer);
        pump(&mut [&mut node], |nodes| nodes[0].downs.len() == 1);
        assert_eq!((node.frames.len(), node.downs[0]), (1, true));
        assert!(node.link.lines().last().unwrap().contains("after 50000 bytes of a frame"));
        // Gone between two frames.
        drop(puppet(&mut node));
        pump(&mut [&mut node], |nodes| nodes[0].downs.len() == 2);
        assert!(node.downs[1]);
        // A reset: closed with bytes unread.
        let peer = puppet(&mut node);
        let (head, _) = peer_frame(0);
        node.link.send(NodeId(1), &[&head]).unwrap();
        peer.peek(&mut [0]).unwrap();
        drop(peer);
        pump(&mut [&mut node], |nodes| nodes[0].downs.len() == 3);
        assert!(node.downs[2] && node.link.lines().last().unwrap().contains("reset"));
        // A flipped bit after a good frame, and a request where there are none: this end closes.
        let mut flipped = whole.clone();
        flipped[40] ^= 1;
        for (n, bad) in [flipped, request_frame(1, &[1])].into_iter().enumerate() {
            let mut peer = puppet(&mut node);
            peer.write_all(&[&whole[..], &bad].concat()).unwrap();
            pump(&mut [&mut node], |nodes| nodes[0].downs.len() == 4 + n);
            assert_eq!((node.frames.len(), node.downs[3 + n]), (2 + n, false));
            assert_eq!(node.link.counters().malformed, 1 + n as u64);
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
        let told = |node: &Node, words: &str| node.link.lines().iter().any(|line| line.contains(words));
        pump(&mut [&mut one, &mut three], |nodes| {
            told(nodes[0], &format!("node 2 was expected at {at_third}, and node 3 answers there"))
                && told(nodes[1], "this is the address of node 3, hello is meant for node 2")
        });
        // It was taken for a peer there until the dialer had read who answered, once a second for as long as it lasted.
        pump(&mut [&mut one, &mut three], |nodes| nodes[1].link.counters().refused == 3);
        let lines = three.link.lines().iter().filter(|line| line.contains("is meant for node 2")).count();
        assert_eq!((one.ups, three.ups, three.downs.len(), lines), (0, 0, 0, 1));
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
            .write_all(
                &Greeting::Hello(Identity { cluster: ClusterId(1), ..identity(1) }.hello(NodeId(2))).encode(),
            )
            .unwrap();
        pump(&mut [&mut one, &mut two], |nodes| nodes[1].link.counters().refused == 1);
        assert_eq!((two.ups, two.downs.len()), (1, 0));
        let mut again = TcpStream::connect(two.link.acceptor_address()).unwrap();
        again.write_all(&Greeting::Hello(identity(1).hello(NodeId(2))).encode()).unwrap();
        pump(&mut [&mut two], |nodes| nodes[0].ups == 2);
        assert_eq!(two.downs, [false]);
        let mut welcome = [0; GREETING_BYTES];
        again.read_exact(&mut welcome).unwrap();
        assert_eq!(Greeting::decode(&welcome), Ok(Greeting::Welcome(identity(2).welcome())));
    });
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
        stranger.write_all(&Greeting::Hello(identity(1).hello(NodeId(2))).encode()[..50]).unwrap();
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

#[test]
fn a_listener_that_never_welcomes_is_left_and_dialled_again() {
    on_every_reactor(|reactor| {
        let mute = listener();
        let mut node = Node::new(reactor(), identity(1), listener(), &[(2, mute.local_addr().unwrap())]);
        mute.set_nonblocking(true).unwrap();
        for round in 0..6 {
            let mut dialed = None;
            pump(&mut [&mut node], |nodes| {
                // A lane that sleeps until the link wants to be polled misses no dial.
                let wake = nodes[0].link.next_wake();
                assert!(wake <= nodes[0].watch.now().after(HELLO_TIMEOUT), "sleeps until {wake:?}");
                dialed = dialed.take().or_else(|| mute.accept().ok());
                dialed.is_some()
            });
            let mut dialed = dialed.unwrap().0;
            dialed.set_nonblocking(true).unwrap();
            let mut hello = [0; GREETING_BYTES];
            pump(&mut [&mut node], |_| dialed.peek(&mut hello).is_ok_and(|len| len == GREETING_BYTES));
            dialed.set_nonblocking(false).unwrap();
            assert_eq!(greeting(&mut dialed), Greeting::Hello(identity(1).hello(NodeId(2))));
            node.watch.skipped += HELLO_TIMEOUT;
            pump(&mut [&mut node], |nodes| nodes[0].link.counters().late == round + 1);
            assert_dropped(&mut dialed);
        }
        // Told once, not six times.
        let told = node.link.lines().iter().filter(|line| line.contains("no greeting within")).count();
        assert_eq!((told, node.ups, node.downs.len()), (1, 0, 0));
    });
}

#[test]
fn asides_arrive_in_order_beside_frames_and_tell_of_one_connection() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        assert_eq!((one.link.connection(NodeId(2)), one.link.connection(NodeId(9))), (Some(1), None));
        let aside = |answers: u64| Aside { lane: LaneId(0), says: Says::Ended(Answered(answers)) };
        let (head, body) = peer_frame(1000);
        let count = ASIDES_MAX as u64 + 5;
        for answers in 1..=count {
            one.link.send_aside(NodeId(2), &aside(answers)).unwrap();
        }
        one.link.send(NodeId(2), &[&head, &body]).unwrap();
        two.link.send_aside(NodeId(1), &aside(7)).unwrap();
        pump(&mut [&mut one, &mut two], |nodes| {
            nodes[1].frames.len() == 1 && nodes[1].link.asides_dropped() == 5
        });
        // Nobody fetched them: the oldest gave way.
        for answers in 6..=count {
            assert_eq!(two.link.aside(), Some((NodeId(1), aside(answers))));
        }
        assert_eq!(two.link.aside(), None);
        let mut told = None;
        pump(&mut [&mut one, &mut two], |nodes| {
            told = told.or_else(|| nodes[0].link.aside());
            told.is_some()
        });
        assert_eq!(told, Some((NodeId(2), aside(7))));
    });
}

/// What is not understood ends the connection, as with every other frame; the next one has a number of its own.
#[test]
fn a_malformed_aside_ends_its_connection() {
    on_every_reactor(|reactor| {
        let (mut one, mut two) = connected(reactor);
        let mut builder = Builder::new(Kind::Aside);
        let mut row = [0; 64];
        (row[0], row[40]) = (9, 1);
        builder.push(&row, 0);
        let frame = builder.seal().to_vec();
        one.link.send(NodeId(2), &[&frame]).unwrap();
        pump(&mut [&mut one, &mut two], |nodes| {
            nodes[0].link.connection(NodeId(2)) == Some(2) && nodes[1].link.connection(NodeId(1)) == Some(2)
        });
        assert_eq!((two.link.counters().malformed, two.link.aside()), (1, None));
        assert!(two.link.lines().iter().any(|line| line.contains("field what")), "{:?}", two.link.lines());
    });
}
