//! No link allocates memory for a frame once it is up and has seen frames of that size.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "an allocator that counts is an implementation of an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use plimsoll::io::datagram::{self, DatagramLink};
use plimsoll::io::link::tcp::{Identity, LinkOptions, TcpLink};
use plimsoll::io::link::udp::{self, UdpCarrier};
use plimsoll::io::reactor::{Kind as ReactorKind, Reactor};
use plimsoll::io::{Link, LinkEvent, Park};
use plimsoll::types::{ClusterId, LaneId, NodeId, StoreId, Time};
use plimsoll::wire::frame::{Builder, Kind, ROW_BYTES};

/// Counts what the thread that asks for it allocates.
struct Counting;

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody asks for it.
    let _ = COUNTED.try_with(|counted| counted.set(counted.get() + 1));
}

// SAFETY: everything is left to the system's allocator; counting touches no memory but a thread's own cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by this function's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: by this function's own contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by this function's own contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len_bytes: usize) -> *mut u8 {
        count();
        // SAFETY: by this function's own contract.
        unsafe { System.realloc(memory, layout, len_bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const PATIENCE: Duration = Duration::from_secs(60);

/// So many frames of each size go each way in one round. Two rounds one after the other must allocate nothing, after so
/// many rounds at most.
const FRAMES: u64 = 5000;
const ROUNDS_MAX: usize = 8;

/// How many frames are under way at once, each way.
const UNDER_WAY: u64 = 8;

const SIZES: [usize; 2] = [64, 8192];

/// One end of a link.
struct End<L> {
    link: L,
    reactor: Reactor,
    start: Instant,
    peer: NodeId,
    is_up: bool,
    builder: Builder,
    body: Vec<u8>,
    sent: u64,
    came: u64,
    came_bytes: u64,
}

impl<L: Link> End<L> {
    fn new(link: L, reactor: Reactor, peer: NodeId) -> End<L> {
        End {
            link,
            reactor,
            start: Instant::now(),
            peer,
            is_up: false,
            builder: Builder::new(Kind::Peer),
            body: (0..SIZES[1]).map(|at| (at * 31) as u8).collect(),
            sent: 0,
            came: 0,
            came_bytes: 0,
        }
    }

    fn turn(&mut self) {
        self.reactor.poll();
        let now = Time(1).after(self.start.elapsed());
        let End { link, is_up, came, came_bytes, body, .. } = self;
        link.poll(now, &mut |event| match event {
            LinkEvent::Up(_) => *is_up = true,
            LinkEvent::Down { .. } => panic!("the link has broken"),
            LinkEvent::Frame { bytes, .. } => {
                let content = &bytes[32 + ROW_BYTES..];
                assert!(content == &body[..content.len()], "a frame of other content");
                *came += 1;
                *came_bytes += content.len() as u64;
            }
        });
        self.link.flush();
        self.reactor.kick();
    }

    /// Whether the link took one frame.
    fn send(&mut self, body_bytes: usize) {
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&self.sent.to_le_bytes());
        self.builder.clear();
        self.builder.push(&row, body_bytes);
        if self.link.send(self.peer, &[self.builder.seal(), &self.body[..body_bytes]]).is_ok() {
            self.sent += 1;
        }
    }
}

impl<L: Link> End<L> {
    /// Sends until enough is under way, or the link is full.
    fn fill(&mut self, frames: u64, came: u64, body_bytes: usize) {
        let mut before = u64::MAX;
        while self.sent < frames.min(came + UNDER_WAY) && self.sent != before {
            before = self.sent;
            self.send(body_bytes);
        }
    }
}

/// So many frames of this size each way.
fn exchange<L: Link>(one: &mut End<L>, other: &mut End<L>, frames: u64, body_bytes: usize) {
    let until = Instant::now() + PATIENCE;
    for end in [&mut *one, &mut *other] {
        (end.sent, end.came, end.came_bytes) = (0, 0, 0);
    }
    while one.came < frames || other.came < frames {
        assert!(Instant::now() < until, "{} and {} of {frames} frames came", one.came, other.came);
        one.fill(frames, other.came, body_bytes);
        other.fill(frames, one.came, body_bytes);
        one.turn();
        other.turn();
    }
    let expected = frames * body_bytes as u64;
    assert_eq!((one.came_bytes, other.came_bytes), (expected, expected));
}

/// The test of one kind of link.
fn counts_nothing<L: Link>(what: &str, mut one: End<L>, mut other: End<L>) {
    let until = Instant::now() + PATIENCE;
    while !(one.is_up && other.is_up) {
        assert!(Instant::now() < until, "{what}: the link does not come up");
        one.turn();
        other.turn();
    }
    for body_bytes in SIZES {
        let mut rounds = Vec::new();
        while !rounds.ends_with(&[0, 0]) {
            // What is kept and queued grows to what is under way at most, in a few steps, and then no more.
            assert!(
                rounds.len() < ROUNDS_MAX,
                "{what}: {rounds:?} allocations for frames of {body_bytes} bytes"
            );
            let before = COUNTED.get();
            exchange(&mut one, &mut other, FRAMES, body_bytes);
            rounds.push(COUNTED.get() - before);
        }
        let all: u64 = rounds.iter().sum();
        assert!(all < FRAMES / 20, "{what}: {rounds:?} allocations for frames of {body_bytes} bytes");
    }
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

/// The reactors that this system has.
fn reactors() -> Vec<ReactorKind> {
    let kinds = [ReactorKind::Epoll, ReactorKind::Uring].into_iter();
    let kinds: Vec<ReactorKind> = kinds
        .filter(|kind| {
            Reactor::new(*kind).inspect_err(|error| eprintln!("not run over {kind:?}: {error}")).is_ok()
        })
        .collect();
    assert!(!kinds.is_empty(), "no reactor at all");
    kinds
}

#[test]
fn the_allocator_counts() {
    let before = COUNTED.get();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(COUNTED.get() - before, 1);
}

#[test]
fn a_frame_over_tcp_allocates_nothing() {
    for kind in reactors() {
        let listeners = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let at: [SocketAddr; 2] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let [one, other] = listeners;
        let end = |node: u32, listener, peer: u32, peer_at| {
            let reactor = Reactor::new(kind).unwrap();
            let peers = vec![(NodeId(peer), peer_at)];
            let options = LinkOptions { identity: identity(node), listener, peers, stores: Vec::new() };
            End::new(TcpLink::new(options, reactor.clone()).unwrap(), reactor, NodeId(peer))
        };
        counts_nothing(&format!("tcp over {kind:?}"), end(1, one, 2, at[1]), end(2, other, 1, at[0]));
    }
}

#[test]
fn a_frame_over_udp_allocates_nothing() {
    let mut ran = 0;
    for kind in reactors() {
        for (backend, mtu_bytes) in
            [(udp::Backend::Plain, 65_536), (udp::Backend::Plain, 1500), (udp::Backend::Uring, 1500)]
        {
            if backend == udp::Backend::Uring && kind == ReactorKind::Epoll {
                continue;
            }
            let sockets = [1, 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
            let at: [SocketAddr; 2] = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
            let [one, other] = sockets;
            let end = |node: u32, socket, peer: u32, peer_at| {
                let reactor = Reactor::new(kind).unwrap();
                let options = udp::Options { backend, ..udp::Options::new(socket, 1, mtu_bytes) };
                let carrier = UdpCarrier::new(options, &reactor).unwrap();
                let peers = vec![(NodeId(peer), peer_at)];
                let options = datagram::Options::new(identity(node), peers, Vec::new(), node.into());
                End::new(DatagramLink::new(options, carrier), reactor, NodeId(peer))
            };
            let what = format!("udp over {kind:?} and {backend:?}, packets of {mtu_bytes} bytes");
            counts_nothing(&what, end(1, one, 2, at[1]), end(2, other, 1, at[0]));
            ran += 1;
        }
    }
    assert!(ran >= 2);
}

/// Shared memory between two nodes of one process. The driver wants one role for each socket of a process, and knows
/// sockets by their names: so this one has two.
#[cfg(feature = "dpdk")]
#[test]
fn a_frame_over_dpdk_allocates_nothing() {
    use plimsoll::io::link::dpdk::{Device, DpdkCarrier, Options, PortOptions};
    let directory = std::env::temp_dir().join(format!("plimsoll-allocations-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let vdev = |number: u32, role: &str, socket: &str| {
        let directory = directory.display();
        format!("--vdev=net_memif{number},role={role},id=0,socket={directory}/{socket},socket-abstract=no")
    };
    let eal = ["--no-huge".to_owned(), "--no-pci".to_owned()];
    let eal: Vec<String> =
        eal.into_iter().chain([vdev(1, "server", "socket"), vdev(2, "client", "./socket")]).collect();
    let end = |node: u32, peer: u32| {
        let address = |node: u32| std::net::Ipv4Addr::new(10, 99, 0, node as u8);
        let port = PortOptions {
            device: Device::Name(format!("net_memif{node}")),
            address: address(node),
            prefix_bits: 24,
            mtu: 1500,
            queue_frames: 512,
        };
        let options = Options { eal: eal.clone(), ports: vec![port], udp_port: 7100, lanes: 1, peers: 1 };
        let carrier = DpdkCarrier::open(&options, 0).unwrap();
        let peers = vec![(NodeId(peer), std::net::SocketAddrV4::new(address(peer), 7100))];
        let options = datagram::Options::new(identity(node), peers, Vec::new(), node.into());
        // Nothing there can be waited for, so the reactor has nothing to do.
        End::new(DatagramLink::new(options, carrier), Reactor::new(ReactorKind::Epoll).unwrap(), NodeId(peer))
    };
    let (one, other) = (end(1, 2), end(2, 1));
    std::fs::remove_dir_all(&directory).unwrap();
    counts_nothing("dpdk", one, other);
}
