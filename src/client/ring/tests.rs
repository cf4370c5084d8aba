//! An attachment to a lane that does what the test says.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::io::reactor::{Kind, Reactor};
use crate::io::ring::port::RingPort;
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::limits::RING_BYTES_MIN;
use crate::types::Time;

const CLUSTER: ClusterId = ClusterId(7);

/// A lane, and the way in to it.
fn lane() -> (RingPort, Desk, Reactor) {
    let reactor = Reactor::new(Kind::Epoll).unwrap();
    let (port, door) = RingPort::new(reactor.waker(), true);
    (port, Desk::at(door, CLUSTER), reactor)
}

/// A turn, and who has come in it.
fn turn(port: &mut RingPort) -> Vec<ClientId> {
    let mut opened = Vec::new();
    port.poll(Time(0), &mut |event| {
        if let PortEvent::Opened(client) = event {
            opened.push(client);
        }
        Flow::More
    });
    opened
}

/// Attached, and answered with what is no frame.
fn attached_to_nonsense(port: &mut RingPort, desk: &Desk) -> Attachment {
    let mut attachment = Attachment::embedded(desk, Options::new(CLUSTER, ShardId(0), 1)).unwrap();
    let [client] = turn(port)[..] else { panic!("nobody came in") };
    let asked = attachment.status().unwrap();
    port.send(client, &[&[0xa5; 96]]);
    let mut told = Vec::new();
    attachment.poll(|reply| told.push(format!("{reply:?}")));
    assert_eq!(told, [format!("{:?}", Reply::Outcome { request: asked.0, outcome: Outcome::Unknown })]);
    assert!(!attachment.is_attached());
    attachment
}

#[test]
fn an_attachment_that_made_no_sense_is_attached_again_to_the_node_that_lives() {
    let (mut port, desk, _reactor) = lane();
    let mut attachment = attached_to_nonsense(&mut port, &desk);
    let attached = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !attached.load(Ordering::Acquire) {
                turn(&mut port);
                std::thread::yield_now();
            }
        });
        let again = attachment.reattach();
        attached.store(true, Ordering::Release);
        again.unwrap();
    });
    assert!(attachment.is_attached());
    // The next number: what was asked before has had its end.
    assert_eq!(attachment.status().unwrap(), RequestId(1));
}

#[test]
fn a_place_that_is_not_let_go_is_not_waited_for_for_ever() {
    let (mut port, desk, _reactor) = lane();
    let mut attachment = attached_to_nonsense(&mut port, &desk);
    let begun = Instant::now();
    let held = attachment.reattach().unwrap_err();
    assert!(matches!(held, AttachError::Refused(Refusal::Held)), "{held}");
    assert!(begun.elapsed() >= SEAT_PATIENCE && !attachment.is_attached());
    // The lane takes what was published before, and then lets the place go: the next try finds it free.
    turn(&mut port);
    turn(&mut port);
    attachment.reattach().unwrap();
    assert!(attachment.is_attached());
}

/// The parts that are in the ring cannot be taken back. What came after them had their number once, and was taken
/// for more of the same record.
#[test]
fn a_record_that_finds_no_room_for_a_later_part_ends_the_attachment() {
    let (mut port, desk, _reactor) = lane();
    let sizes = Sizes { submit_bytes: RING_BYTES_MIN, completion_bytes: RING_BYTES_MIN };
    let options = Options { sizes, ..Options::new(CLUSTER, ShardId(0), 1) };
    let mut attachment = Attachment::embedded(&desk, options).unwrap();
    turn(&mut port);
    let asked = attachment.status().unwrap();
    // The lane takes nothing.
    let record = vec![7; 2 * RING_BYTES_MIN];
    let given_up = attachment.submit(&record, Timestamp(0), Epoch(0), Acks::Quorum);
    assert!(matches!(given_up, Err(RingError::Ended(_))), "{given_up:?}");
    assert!(!attachment.is_attached());
    let mut told = Vec::new();
    attachment.poll(|reply| told.push(format!("{reply:?}")));
    assert_eq!(told, [format!("{:?}", Reply::Outcome { request: asked.0, outcome: Outcome::Unknown })]);
    assert_eq!(attachment.outstanding(), 0);
}
