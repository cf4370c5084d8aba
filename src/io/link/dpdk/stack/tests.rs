#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::limits::NEIGHBOURS_MAX;
use crate::wire::ethernet::{Refused, UDP_HEAD_BYTES, seal_udp};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const UDP_PORT: u16 = 7100;

fn ip(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, network, host)
}

fn at(network: u8, host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip(network, host), port)
}

fn millis(millis: u64) -> Time {
    Time(0).after(Duration::from_millis(millis))
}

/// Two ports, in networks 0 and 1, of lane 1 of three.
fn stack() -> Stack {
    let interface = |network| Interface { mac: OURS, address: ip(network, 1), prefix_bits: 24 };
    Stack::new(1, 3, UDP_PORT, vec![interface(0), interface(1)])
}

fn datagram(path: Path, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; UDP_HEAD_BYTES];
    frame.extend_from_slice(payload);
    seal_udp(&mut frame, &path);
    frame
}

fn to_us(from: SocketAddrV4, to: SocketAddrV4) -> Path {
    Path { from_mac: THEIRS, to_mac: OURS, from, to }
}

fn arp(operation: Operation, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Arp {
    Arp { operation, sender: THEIRS, sender_ip, target: Mac([0; 6]), target_ip }
}

fn receive<'a>(stack: &mut Stack, frame: &'a [u8]) -> Received<'a> {
    stack.receive(0, frame, Checksums::UNKNOWN, millis(0))
}

#[test]
fn a_host_is_asked_for_answers_and_is_sent_to() {
    let mut stack = stack();
    let to = at(1, 2, 7101);
    let Route::Ask(1, question) = stack.route(to, millis(0)) else { panic!("port 1 asks") };
    let asked = decode(&question, Checksums::UNKNOWN).unwrap();
    let Packet::Arp(asked_for) = asked.packet else { panic!("{asked:?}") };
    assert_eq!((asked.to, asked_for.sender_ip, asked_for.target_ip), (Mac::BROADCAST, ip(1, 1), ip(1, 2)));
    assert_eq!(stack.route(to, millis(1)), Route::Lost, "once is enough for a while");
    let reply = encode_arp(OURS, &arp(Operation::Reply, ip(1, 2), ip(1, 1)));
    let received = stack.receive(1, &reply, Checksums::UNKNOWN, millis(2));
    assert_eq!(received, Received::Arp { answer: None, found: Some(ip(1, 2)), share: true });
    assert_eq!(stack.at_host(ip(1, 2)).collect::<Vec<_>>(), [to]);
    let path = Path { from_mac: OURS, to_mac: THEIRS, from: at(1, 1, 7101), to };
    assert_eq!(stack.route(to, millis(3)), Route::Path(1, path));
    assert_eq!((stack.counters.unresolved, stack.counters.arp_asked), (2, 1));
    // Nobody answers when it is asked again: it is gone.
    let mut asked = 0;
    let lost = (0..100).find_map(|tenth| match stack.due(1, millis(20_100 + 100 * tenth)) {
        Some(Ok(_)) => {
            asked += 1;
            None
        }
        Some(Err(host)) => Some(host),
        None => None,
    });
    assert_eq!((lost, asked), (Some(ip(1, 2)), 10));
}

#[test]
fn a_question_is_answered_and_a_stranger_leaves_nothing_behind() {
    let mut stack = stack();
    let question = encode_arp(Mac::BROADCAST, &arp(Operation::Request, ip(0, 9), ip(0, 1)));
    let Received::Arp { answer: Some(answer), found: None, share: false } = receive(&mut stack, &question)
    else {
        panic!("it is answered");
    };
    let reply = decode(&answer, Checksums::UNKNOWN).unwrap();
    assert_eq!((reply.to, reply.from), (THEIRS, OURS));
    let Packet::Arp(told) = reply.packet else { panic!("{reply:?}") };
    assert_eq!((told.operation, told.sender_ip, told.target_ip), (Operation::Reply, ip(0, 1), ip(0, 9)));
    assert!(
        matches!(stack.route(at(0, 9, 1), millis(0)), Route::Ask(0, _)),
        "who asks is not believed unasked"
    );
    // For somebody else, and from another network.
    for frame in [
        encode_arp(Mac::BROADCAST, &arp(Operation::Request, ip(0, 9), ip(0, 7))),
        encode_arp(Mac::BROADCAST, &arp(Operation::Request, ip(1, 9), ip(0, 1))),
        encode_arp(Mac([2; 6]), &arp(Operation::Request, ip(0, 9), ip(0, 1))),
    ] {
        let answered = matches!(receive(&mut stack, &frame), Received::Arp { answer: Some(_), .. });
        assert!(!answered);
    }
    assert_eq!((stack.counters.other_address, stack.counters.other_station), (1, 1));
}

#[test]
fn a_peer_that_comes_back_elsewhere_says_so_and_a_thief_of_the_address_is_told_of() {
    let mut stack = stack();
    let to = at(0, 2, 7101);
    stack.route(to, millis(0));
    receive(&mut stack, &encode_arp(OURS, &arp(Operation::Reply, ip(0, 2), ip(0, 1))));
    let elsewhere = Arp { sender: Mac([4; 6]), ..arp(Operation::Request, ip(0, 2), ip(0, 2)) };
    let news = encode_arp(Mac::BROADCAST, &elsewhere);
    let received = stack.receive(0, &news, Checksums::UNKNOWN, millis(5));
    assert_eq!(received, Received::Arp { answer: None, found: Some(ip(0, 2)), share: true });
    let Route::Path(0, path) = stack.route(to, millis(6)) else { panic!("it is known") };
    assert_eq!(path.to_mac, Mac([4; 6]));
    let thief = encode_arp(Mac::BROADCAST, &arp(Operation::Request, ip(0, 1), ip(0, 1)));
    assert_eq!(receive(&mut stack, &thief), Received::Dropped);
    assert_eq!(stack.counters.conflicts, 1);
}

#[test]
fn datagrams_go_to_their_lane_and_strangers_nowhere() {
    let mut stack = stack();
    let (peer, here) = (at(0, 2, 7101), at(0, 1, 7101));
    let frame = datagram(to_us(peer, here), b"ours");
    assert_eq!(receive(&mut stack, &frame), Received::Datagram { from: peer, bytes: b"ours" });
    for lane in [0, 2] {
        let frame = datagram(to_us(peer, at(0, 1, UDP_PORT + lane)), b"theirs");
        assert_eq!(receive(&mut stack, &frame), Received::ForLane(lane));
    }
    let dropped = |path: Path, stack: &mut Stack| {
        assert_eq!(receive(stack, &datagram(path, b"stranger")), Received::Dropped, "{path:?}");
    };
    dropped(to_us(peer, at(0, 1, UDP_PORT + 3)), &mut stack);
    dropped(to_us(peer, at(0, 1, UDP_PORT - 1)), &mut stack);
    assert_eq!(stack.counters.other_port, 2);
    dropped(to_us(peer, at(1, 1, 7101)), &mut stack);
    dropped(to_us(at(1, 2, 7101), here), &mut stack);
    dropped(to_us(at(0, 255, 7101), here), &mut stack);
    dropped(to_us(at(0, 0, 7101), here), &mut stack);
    dropped(to_us(here, here), &mut stack);
    assert_eq!(stack.counters.other_address, 5);
    dropped(Path { to_mac: Mac([6; 6]), ..to_us(peer, here) }, &mut stack);
    dropped(Path { to_mac: Mac::BROADCAST, ..to_us(peer, here) }, &mut stack);
    assert_eq!(stack.counters.other_station, 2);
    let mut broken = frame;
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(receive(&mut stack, &broken), Received::Dropped);
    assert_eq!(receive(&mut stack, &broken[..30]), Received::Dropped);
    assert_eq!(stack.counters.refused(Refused::UdpChecksum), 1);
    assert_eq!(stack.counters.refused(Refused::Truncated), 1);
    assert_eq!((stack.counters.datagrams_in, stack.counters.bytes_in), (1, 4));
}

#[test]
fn who_is_in_no_network_is_not_sent_to() {
    let mut stack = stack();
    for to in [at(2, 2, 1), at(0, 1, 1), at(0, 255, 1), SocketAddrV4::new(Ipv4Addr::BROADCAST, 1)] {
        assert_eq!(stack.route(to, millis(0)), Route::Lost, "{to}");
    }
    assert_eq!(stack.counters.no_route, 4);
    let pair = Interface { mac: OURS, address: ip(0, 0), prefix_bits: 31 };
    assert!(pair.holds(ip(0, 1)) && !pair.holds(ip(0, 0)) && !pair.holds(ip(0, 2)));
}

#[test]
fn a_flood_of_questions_and_destinations_takes_no_more_than_the_tables() {
    let mut stack = stack();
    for number in 0..10_000_u32 {
        let host = Ipv4Addr::from_bits(ip(0, 2).to_bits() + number % 200);
        let flood = Arp {
            sender: Mac([2, 9, 9, 9, (number >> 8) as u8, number as u8]),
            ..arp(Operation::Request, host, ip(0, 1))
        };
        receive(&mut stack, &encode_arp(Mac::BROADCAST, &flood));
        stack.route(SocketAddrV4::new(host, number as u16), millis(number.into()));
    }
    assert!(stack.destinations.len() <= DESTINATIONS_MAX);
    assert_eq!(stack.counters.arp_answered, 10_000);
    let asked = (0..NEIGHBOURS_MAX * 20).filter_map(|_| stack.due(0, Time::NEVER)).count();
    assert!(asked <= NEIGHBOURS_MAX * 11, "{asked} questions are due");
}
