#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::io::Park;
use crate::io::reactor::Kind as ReactorKind;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a carrier of a test was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Datagram(SocketAddr, Vec<u8>),
    Unreachable(SocketAddr),
    Broken(SocketAddr),
    TooLong(SocketAddr),
}

/// A carrier with its reactor, as a lane has them.
struct End {
    carrier: UdpCarrier,
    reactor: Reactor,
    start: Instant,
    told: Vec<Told>,
}

impl End {
    fn new(kind: ReactorKind, backend: Backend, ip: &str, mtu_bytes: usize, known: Vec<SocketAddr>) -> End {
        let reactor = Reactor::new(kind).unwrap();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let options = Options { backend, known, ..Options::new(socket, 2, mtu_bytes) };
        let carrier = UdpCarrier::new(options, &reactor).unwrap();
        End { carrier, reactor, start: Instant::now(), told: Vec::new() }
    }

    fn address(&self) -> SocketAddr {
        self.carrier.local_address().unwrap()
    }

    fn now(&self) -> Time {
        Time(1).after(self.start.elapsed())
    }

    /// One turn, as a lane makes it.
    fn turn(&mut self) -> usize {
        self.reactor.poll();
        let now = self.now();
        let told = &mut self.told;
        let count = self.carrier.poll(now, &mut |arrival| {
            told.push(match arrival {
                Arrival::Datagram { from, bytes } => Told::Datagram(from, bytes.to_vec()),
                Arrival::Unreachable(address) => Told::Unreachable(address),
                Arrival::Broken(address) => Told::Broken(address),
                Arrival::TooLong(address) => Told::TooLong(address),
                Arrival::Reachable(address) => panic!("nothing makes a path to {address}"),
            });
        });
        self.carrier.flush();
        self.reactor.kick();
        count
    }

    /// Turns and parks until so much was told.
    fn wait(&mut self, what: &str, done: impl Fn(&[Told]) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(&self.told) {
            assert!(Instant::now() < until, "{what}: {} told", self.told.len());
            if self.turn() == 0 {
                let pause = self.carrier.next_wake().since(self.now()).min(Duration::from_secs(1));
                if !pause.is_zero() {
                    self.reactor.park(pause);
                }
            }
        }
    }

    fn datagrams(&self) -> Vec<Vec<u8>> {
        let bytes = |told: &Told| match told {
            Told::Datagram(_, bytes) => Some(bytes.clone()),
            Told::Unreachable(_) | Told::Broken(_) | Told::TooLong(_) => None,
        };
        self.told.iter().filter_map(bytes).collect()
    }
}

/// Runs `test` over each way of speaking to the kernel that this system has, over each kind of reactor.
pub(super) fn on_every_way(test: impl Fn((ReactorKind, Backend))) {
    let mut ran = 0;
    for (kind, backend) in [
        (ReactorKind::Epoll, Backend::Plain),
        (ReactorKind::Uring, Backend::Plain),
        (ReactorKind::Uring, Backend::Uring),
    ] {
        match Reactor::new(kind) {
            Ok(reactor) => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let options = Options { backend, ..Options::new(socket, 1, 1500) };
                let carrier = UdpCarrier::new(options, &reactor).unwrap();
                if carrier.backend() != backend {
                    eprintln!("not run over {backend:?}: {:?}", carrier.notes());
                    continue;
                }
                eprintln!("over {kind:?} and {backend:?}");
                test((kind, backend));
                ran += 1;
            }
            Err(error) => eprintln!("not run over {kind:?}: {error}"),
        }
    }
    assert!(ran > 0, "no reactor at all");
}

/// Once with ends that know nobody, and once with ends that have sockets of their own for all that were made before
/// them.
fn on_every_backend(test: impl Fn(&dyn Fn(&str, usize) -> End)) {
    on_every_way(|(kind, backend)| {
        test(&|ip, mtu_bytes| End::new(kind, backend, ip, mtu_bytes, Vec::new()));
        let made = RefCell::new(Vec::new());
        test(&|ip, mtu_bytes| {
            let end = End::new(kind, backend, ip, mtu_bytes, made.borrow().clone());
            made.borrow_mut().push(end.address());
            end
        });
    });
}

/// The addresses that this system has.
fn loopbacks() -> Vec<&'static str> {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        vec!["127.0.0.1", "::1"]
    } else {
        eprintln!("IPv6 is not tested: this system has no ::1");
        vec!["127.0.0.1"]
    }
}

fn content(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + number * 7) as u8).collect()
}

#[test]
fn datagrams_of_every_length_arrive_as_they_were_sent_both_ways() {
    on_every_backend(|end| {
        for ip in loopbacks() {
            let (mut one, mut other) = (end(ip, 65_536), end(ip, 65_536));
            let longest = one.carrier.datagram_bytes_max();
            assert_eq!(longest, if ip == "::1" { 65_488 } else { 65_507 });
            let lens = [0, 1, 63, 64, 1200, 1472, 9000, longest - 1, longest];
            for (sender, receiver) in [(true, false), (false, true)] {
                assert_ne!(sender, receiver);
                for (number, &len) in lens.iter().enumerate() {
                    let bytes = content(number, len);
                    let (first, rest) = bytes.split_at(len / 3);
                    one.carrier.send(other.address(), &[first, &[], rest]).unwrap();
                    one.wait_until_sent();
                    // One at a time: nothing is lost, and order is kept, on a path within one system.
                    other.wait("a datagram", |told| told.len() > number);
                }
                let from = one.address();
                let expected: Vec<Told> =
                    lens.iter().enumerate().map(|(n, &len)| Told::Datagram(from, content(n, len))).collect();
                assert_eq!(other.told, expected);
                let (sent, came) = (*one.carrier.counters(), *other.carrier.counters());
                assert_eq!(sent.datagrams_out, lens.len() as u64);
                assert_eq!((came.datagrams_in, came.bytes_in), (sent.datagrams_out, sent.bytes_out));
                other.told.clear();
                std::mem::swap(&mut one, &mut other);
            }
        }
    });
}

#[test]
fn a_run_of_datagrams_of_one_length_arrives_whole_and_in_order() {
    on_every_backend(|end| {
        for ip in loopbacks() {
            let (mut one, mut other) = (end(ip, 1500), end(ip, 1500));
            let len = one.carrier.datagram_bytes_max();
            assert_eq!(len, if ip == "::1" { 1452 } else { 1472 });
            // Within the window nothing may be lost.
            let count = one.carrier.window();
            assert!(count >= 64, "a window of {count}: {:?}", one.carrier.notes());
            for number in 0..count {
                // Every tenth is shorter, which ends a run.
                let bytes = content(number, if number % 10 == 9 { len / 2 } else { len });
                one.carrier.send(other.address(), &[&bytes]).unwrap();
            }
            one.wait_until_sent();
            other.wait("all", |told| told.len() == count);
            let expected = |number| content(number, if number % 10 == 9 { len / 2 } else { len });
            assert!(other.datagrams().iter().enumerate().all(|(n, bytes)| *bytes == expected(n)));
            let (sent, came) = (*one.carrier.counters(), *other.carrier.counters());
            assert_eq!((sent.datagrams_out, came.datagrams_in), (count as u64, count as u64));
            if one.carrier.notes().iter().all(|note| !note.contains("UDP_SEGMENT")) {
                assert!(sent.messages_out <= count as u64 / 5, "{sent:?}");
                assert!(came.messages_in <= count as u64 / 5, "{came:?}");
            }
        }
    });
}

#[test]
fn datagrams_to_several_in_turn_arrive_at_each() {
    on_every_backend(|end| {
        let mut hub = end("127.0.0.1", 1500);
        let mut spokes: Vec<End> = (0..3).map(|_| end("127.0.0.1", 1500)).collect();
        let addresses: Vec<SocketAddr> = spokes.iter().map(End::address).collect();
        for number in 0..300 {
            hub.carrier.send(addresses[number % 3], &[&content(number, 40 + number)]).unwrap();
        }
        hub.wait_until_sent();
        for (at, spoke) in spokes.iter_mut().enumerate() {
            spoke.wait("a third", |told| told.len() == 100);
            assert!(spoke.datagrams().iter().enumerate().all(|(n, bytes)| *bytes == {
                let number = 3 * n + at;
                content(number, 40 + number)
            }));
            // And back, so that the hub hears several.
            for number in 0..20 {
                spoke.carrier.send(hub.address(), &[&content(at, 10 + number)]).unwrap();
            }
            spoke.wait_until_sent();
        }
        hub.wait("three times twenty", |told| told.len() == 60);
        let mut from: HashMap<SocketAddr, usize> = HashMap::new();
        for told in &hub.told {
            let Told::Datagram(address, bytes) = told else { panic!("{told:?}") };
            let number = from.entry(*address).or_default();
            let at = addresses.iter().position(|known| known == address).unwrap();
            assert_eq!(*bytes, content(at, 10 + *number));
            *number += 1;
        }
        assert!(addresses.iter().all(|address| from[address] == 20));
    });
}

#[test]
fn a_socket_of_ipv6_speaks_with_ipv4_and_names_it_so() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return eprintln!("not tested: this system has no IPv6");
    }
    on_every_backend(|end| {
        let (mut both, mut four) = (end("::", 1500), end("127.0.0.1", 1500));
        let both_at = SocketAddr::from((Ipv4Addr::LOCALHOST, both.address().port()));
        four.carrier.send(both_at, &[b"to you"]).unwrap();
        four.wait_until_sent();
        both.wait("a datagram", |told| !told.is_empty());
        assert_eq!(both.told, [Told::Datagram(four.address(), b"to you".to_vec())]);
        both.carrier.send(four.address(), &[b"and back"]).unwrap();
        both.wait_until_sent();
        four.wait("an answer", |told| !told.is_empty());
        assert_eq!(four.told, [Told::Datagram(both_at, b"and back".to_vec())]);
        // The other way there is no way, which is told and costs nothing.
        four.told.clear();
        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
        four.carrier.send(six, &[b"nowhere"]).unwrap();
        four.wait("a word", |told| !told.is_empty());
        assert_eq!((&four.told[..], four.carrier.counters().unsent), (&[Told::Broken(six)][..], 1));
    });
}

/// A peer that is not there is told as unreachable by its address, and nothing that goes to others suffers.
#[test]
fn who_does_not_listen_is_told_and_others_hear_all() {
    on_every_backend(|end| {
        for ip in loopbacks() {
            let gone = end(ip, 1500).address();
            let (mut one, mut other) = (end(ip, 1500), end(ip, 1500));
            for number in 0..200 {
                one.carrier.send(gone, &[b"is anybody there?"]).unwrap();
                one.carrier.send(other.address(), &[&content(number, 100)]).unwrap();
                one.wait_until_sent();
                other.wait("each", |told| told.len() > number);
            }
            one.wait("a word", |told| told.contains(&Told::Unreachable(gone)));
            assert!(other.datagrams().iter().enumerate().all(|(n, bytes)| *bytes == content(n, 100)));
            assert!(one.told.iter().all(|told| *told == Told::Unreachable(gone)), "{:?}", one.told);
            let counters = one.carrier.counters();
            assert!(counters.unreachable >= 1 && counters.unsent == 0, "{counters:?}");
            assert_eq!(other.carrier.counters().datagrams_in, 200);
        }
    });
}

/// More than the other end holds is lost there; this end refuses nothing for it, and what is held arrives whole.
#[test]
fn an_overrun_loses_and_goes_on() {
    on_every_backend(|end| {
        let (mut one, mut other) = (end("127.0.0.1", 65_536), end("127.0.0.1", 65_536));
        let len = 60_000;
        let (mut sent, mut full) = (0, 0);
        while sent < 40 * other.carrier.window() {
            match one.carrier.send(other.address(), &[&content(sent, len)]) {
                Ok(()) => sent += 1,
                Err(Full(())) => {
                    full += 1;
                    assert!(full < 1_000_000, "the queue never empties");
                    one.turn();
                }
            }
        }
        one.wait_until_sent();
        other.wait("what is held", |told| told.len() >= other_window(&one));
        while other.turn() > 0 {}
        let came = other.datagrams();
        assert!(came.len() >= other.carrier.window() && came.len() < sent, "{} of {sent}", came.len());
        assert!(came.iter().all(|bytes| bytes.len() == len));
        // Afterwards it works as before.
        other.told.clear();
        one.carrier.send(other.address(), &[b"still there?"]).unwrap();
        one.wait_until_sent();
        other.wait("the next", |told| told.len() == 1);
        assert_eq!(other.datagrams(), [b"still there?"]);
    });
}

fn other_window(end: &End) -> usize {
    end.carrier.window()
}

impl End {
    /// Turns until nothing waits to be sent.
    fn wait_until_sent(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.turn();
        while !self.carrier.base.queue.none_waits() || self.carrier.base.queue.under_way() > 0 {
            assert!(Instant::now() < until, "what waits is never sent");
            self.turn();
        }
    }
}

#[test]
fn what_is_too_long_is_counted_and_lost_in_either_direction() {
    on_every_backend(|end| {
        let (mut small, mut large) = (end("127.0.0.1", 1500), end("127.0.0.1", 65_536));
        small.carrier.send(large.address(), &[&[1; 1473]]).unwrap();
        assert_eq!(small.carrier.counters().too_long, 1);
        large.carrier.send(small.address(), &[&[2; 1473]]).unwrap();
        large.carrier.send(small.address(), &[&[3; 60_000]]).unwrap();
        large.carrier.send(small.address(), &[&[4; 1472]]).unwrap();
        large.wait_until_sent();
        small.wait("the one that fits", |told| !told.is_empty());
        assert_eq!(small.datagrams(), [vec![4; 1472]]);
        assert_eq!(small.carrier.counters().too_long, 3);
        small.carrier.send(large.address(), &[&[5; 1472]]).unwrap();
        small.wait_until_sent();
        large.wait("the other one", |told| !told.is_empty());
        assert_eq!(large.datagrams(), [vec![5; 1472]]);
    });
}

/// A flood of these was copied whole, only to be dropped. Runs of ours may be as long, and are left alone.
#[test]
fn what_is_too_long_and_none_of_ours_is_cut_off_in_the_kernel() {
    for ip in loopbacks() {
        let reactor = Reactor::new(ReactorKind::Epoll).unwrap();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let options = Options { begins_with: Some(*b"ours"), ..Options::new(socket, 1, 1500) };
        let mut carrier = UdpCarrier::new(options, &reactor).unwrap();
        let longest = carrier.datagram_bytes_max();
        let sender = UdpSocket::bind((ip, 0)).unwrap();
        let to = carrier.local_address().unwrap();
        let sent = |begin: &[u8; 4], len: usize| {
            let bytes = [begin, &content(len, len - 4)[..]].concat();
            sender.send_to(&bytes, to).unwrap();
        };
        for len in [longest + 1, 4 * longest, 60_000] {
            sent(b"else", len);
        }
        let mut room = vec![0; 65_536];
        assert_eq!(carrier.base.socket.peek(&mut room).unwrap(), longest + 1);
        for (begin, len) in [(b"else", longest), (b"else", 5), (b"ours", longest), (b"ours", longest + 1)] {
            sent(begin, len);
        }
        // A run that goes as one, and is longer than one of them may be.
        let mut other = End::new(ReactorKind::Epoll, Backend::Plain, ip, 1500, Vec::new());
        for number in 0..5 {
            other.carrier.send(to, &[b"ours", &content(number, 1_000)]).unwrap();
        }
        other.wait_until_sent();
        let mut lens = Vec::new();
        let until = Instant::now() + PATIENCE;
        while lens.len() + (carrier.counters().too_long as usize) < 12 {
            assert!(Instant::now() < until, "{lens:?}: {:?}", carrier.counters());
            carrier.poll(Time(0), &mut |arrival| {
                if let Arrival::Datagram { bytes, .. } = arrival {
                    lens.push(bytes.len());
                }
            });
        }
        let run = [1_004; 5];
        assert_eq!((lens, carrier.counters().too_long), ([&[longest, 5, longest][..], &run].concat(), 4));
    }
}

/// What strangers send fills their buffer until the kernel drops it there, and none of what the peer sends.
#[test]
fn strangers_take_no_room_from_a_peer_with_a_socket_of_its_own() {
    for ip in loopbacks() {
        let mut peer = End::new(ReactorKind::Epoll, Backend::Plain, ip, 1500, Vec::new());
        let mut end = End::new(ReactorKind::Epoll, Backend::Plain, ip, 1500, vec![peer.address()]);
        let stranger = UdpSocket::bind((ip, 0)).unwrap();
        let (strange, sent) = (content(1, 1000), 20_000);
        for _ in 0..sent {
            stranger.send_to(&strange, end.address()).unwrap();
        }
        let count = end.carrier.window();
        for number in 0..count {
            peer.carrier.send(end.address(), &[&content(number, 1400)]).unwrap();
        }
        peer.wait_until_sent();
        let of_peer = |told: &&Told| matches!(told, Told::Datagram(from, _) if *from == peer.address());
        end.wait("all of the peer's", |told| told.iter().filter(of_peer).count() == count);
        let came = end.told.iter().filter(of_peer).enumerate();
        let expected = |number| Told::Datagram(peer.address(), content(number, 1400));
        assert!(came.into_iter().all(|(number, told)| *told == expected(number)));
        let strangers =
            |told: &&Told| **told == Told::Datagram(stranger.local_addr().unwrap(), strange.clone());
        let heard = end.told.iter().filter(strangers).count();
        // Few of them were taken meanwhile: four a turn at most.
        assert!(heard < count, "{heard} of the strangers'");
        // The others are heard in the end, as far as there was room for them.
        while end.turn() > 0 {}
        let heard = end.told.iter().filter(strangers).count();
        assert!(heard >= 32 && heard < sent, "{heard} of {sent}");
    }
}

/// A socket that would share its port.
fn bind_sharing(address: SocketAddr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    Ok(bind(&socket, &address)?)
}

/// One port has several sockets only while they are made: who is configured for it by mistake is told.
#[test]
fn a_port_with_sockets_of_peers_is_in_use() {
    for ip in loopbacks() {
        let peers: Vec<UdpSocket> = (0..4).map(|_| UdpSocket::bind((ip, 0)).unwrap()).collect();
        let known = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
        let end = End::new(ReactorKind::Epoll, Backend::Plain, ip, 1500, known);
        assert_eq!(end.carrier.base.connected.len(), 4, "{:?}", end.carrier.notes());
        let mut room = [0; 8];
        for (number, (peer, connected)) in peers.iter().zip(&end.carrier.base.connected).enumerate() {
            peer.send_to(&content(number, 5), end.address()).unwrap();
            assert_eq!(connected.socket.recv(&mut room).unwrap(), 5, "each hears its own");
            assert_eq!(room[..5], content(number, 5));
        }
        let refused = UdpSocket::bind(end.address()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // Not even by who would share it.
        let refused = bind_sharing(end.address()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // When it is gone the port is free.
        let address = end.address();
        drop(end);
        UdpSocket::bind(address).unwrap();
    }
}

/// A kernel or a device may take no joined datagrams: they go one by one, from then on all.
#[test]
fn what_is_refused_joined_goes_apart() {
    on_every_backend(|end| {
        let (mut one, mut other) = (end("127.0.0.1", 1500), end("127.0.0.1", 1500));
        for number in 0..10 {
            one.carrier.send(other.address(), &[&content(number, 700)]).unwrap();
        }
        let number = one.carrier.base.queue.hand_over();
        plain::send_apart(&mut one.carrier.base, number);
        one.carrier.base.queue.done(number);
        assert!(!one.carrier.base.queue.joins());
        for number in 10..20 {
            one.carrier.send(other.address(), &[&content(number, 700)]).unwrap();
        }
        one.wait_until_sent();
        other.wait("all", |told| told.len() == 20);
        assert!(other.datagrams().iter().enumerate().all(|(n, bytes)| *bytes == content(n, 700)));
        assert_eq!(one.carrier.counters().datagrams_out, 20);
        assert_eq!(one.carrier.counters().messages_out, 11, "one for the refused message, then one each");
    });
}

/// A path becomes narrow: of datagrams that were joined the long ones are refused alone as well, and the last one,
/// which is short, passes. That says nothing against joining, and the link is told that the path carries less.
#[test]
fn a_path_that_became_narrow_is_told_and_joining_goes_on() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return eprintln!("not tested: this system has no IPv6");
    }
    on_every_backend(|end| {
        let (mut one, mut other) = (end("::1", 1500), end("::1", 1500));
        if !one.carrier.base.queue.joins() {
            return eprintln!("not tested: this kernel does not join datagrams");
        }
        socket::narrow(&one.carrier.base.socket, 1280).unwrap();
        let short = content(3, 100);
        for number in 0..3 {
            one.carrier.send(other.address(), &[&content(number, 1400)]).unwrap();
        }
        one.carrier.send(other.address(), &[&short]).unwrap();
        one.wait_until_sent();
        one.wait("a word", |told| told.contains(&Told::TooLong(other.address())));
        assert!(one.told.iter().all(|told| *told == Told::TooLong(other.address())), "{:?}", one.told);
        assert_eq!((one.carrier.counters().too_long, one.carrier.counters().unsent), (3, 0));
        assert!(one.carrier.base.queue.joins());
        other.wait("the short one", |told| told.len() == 1);
        assert_eq!(other.datagrams(), [short]);
        // What the path carries goes joined.
        let before = one.carrier.counters().messages_out;
        for number in 4..8 {
            one.carrier.send(other.address(), &[&content(number, 700)]).unwrap();
        }
        one.wait_until_sent();
        other.wait("all", |told| told.len() == 5);
        assert_eq!(one.carrier.counters().messages_out, before + 1);
    });
}

/// That the kernel looks at the device's queue takes CAP_NET_ADMIN: a lane without it is told so in one line, and runs.
#[test]
fn busy_polling_is_set_where_it_is_asked_for_and_allowed() {
    let reactor = Reactor::new(ReactorKind::Epoll).unwrap();
    for busy_poll in [false, true] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = socket::busy_poll_options(&socket);
        let options = Options { busy_poll, ..Options::new(socket, 1, 1500) };
        let carrier = UdpCarrier::new(options, &reactor).unwrap();
        let after = socket::busy_poll_options(&carrier.base.socket);
        let told = carrier.notes().iter().filter(|note| note.contains("BUSY_POLL")).count();
        match (busy_poll, told) {
            (false, 0) => assert_eq!(after, before),
            (true, 0) => assert_eq!(after, [Some(50), Some(1)]),
            (true, 1) => println!("not allowed here: {:?}", carrier.notes()),
            other => panic!("{other:?}: {:?}", carrier.notes()),
        }
    }
}

#[test]
fn an_mtu_that_no_path_has_is_refused() {
    let reactor = Reactor::new(ReactorKind::Epoll).unwrap();
    for mtu_bytes in [0, 1279, 65_537, usize::MAX] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = Options { busy_poll: true, ..Options::new(socket, 1, mtu_bytes) };
        let refused = UdpCarrier::new(options, &reactor).unwrap_err();
        assert!(refused.to_string().contains("an MTU of"), "{refused}");
    }
}
