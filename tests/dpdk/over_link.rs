//! The link over datagrams, over shared memory: frames that are cut and put together, and what a restart does to them.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use plimsoll::io::clock::LaneClock;
use plimsoll::io::datagram::{self, DatagramLink};
use plimsoll::io::link::dpdk::DpdkCarrier;
use plimsoll::io::{Clock, Link, LinkEvent};
use plimsoll::types::{ClusterId, LaneId, NodeId, StoreId};
use plimsoll::wire::frame::{Builder, Kind, ROW_BYTES};
use plimsoll::wire::identity::Identity;

use crate::child::{Order, open, tell};

/// What is under way at once.
const FRAMES: usize = 8;

/// Frames of every length up to this: one datagram, some, thousands.
const BODY_BYTES_MAX: usize = 3 << 20;

/// `node=` sends to `other=` (node 1), which sends back (node 2).
pub(crate) fn run(order: &Order, stop: &AtomicBool) {
    let Some(carrier) = open(order, 0) else { return };
    let (node, peer) = (order.number("node") as u32, NodeId(order.number("other") as u32));
    let identity = Identity {
        cluster: ClusterId(7),
        node: NodeId(node),
        store: StoreId(node.into()),
        lane: LaneId(0),
        lanes: 1,
        shards: 1,
    };
    let at = SocketAddrV4::new(order.get("peer").parse().unwrap(), 7100);
    let seed = std::process::id().into();
    let options = datagram::Options::new(identity, vec![(peer, at)], Vec::new(), seed);
    let link = DatagramLink::new(options, carrier);
    let clock = LaneClock::choose().0;
    if node == 1 { Asker::new(link, clock, peer).run(stop) } else { echo(link, &clock, peer, stop) }
}

fn told(event: &LinkEvent<'_>) {
    match event {
        LinkEvent::Up(_) => tell(format_args!("up")),
        LinkEvent::Down { .. } => tell(format_args!("down")),
        LinkEvent::Frame { .. } => {}
    }
}

fn echo(mut link: DatagramLink<DpdkCarrier>, clock: &LaneClock, peer: NodeId, stop: &AtomicBool) {
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let events = link.poll(clock.now(), &mut |event| {
            told(&event);
            if let LinkEvent::Frame { bytes, .. } = event {
                waiting.push(bytes.to_vec());
            }
        });
        // What the link has no room for waits here; the other end has so many under way and no more.
        waiting.retain(|bytes| link.send(peer, &[bytes]).is_err());
        assert!(waiting.len() <= 4 * FRAMES);
        link.flush();
        if events == 0 {
            thread::yield_now();
        }
    }
}

/// Sends frames, looks at every byte that comes back, and begins anew what a break of the link has lost.
struct Asker {
    link: DatagramLink<DpdkCarrier>,
    clock: LaneClock,
    peer: NodeId,
    is_up: bool,
    asked: Vec<u64>,
    next: u64,
    answered: u64,
    bytes: u64,
}

impl Asker {
    fn new(link: DatagramLink<DpdkCarrier>, clock: LaneClock, peer: NodeId) -> Asker {
        Asker { link, clock, peer, is_up: false, asked: Vec::new(), next: 0, answered: 0, bytes: 0 }
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut said = 0;
        while !stop.load(Ordering::Acquire) {
            if self.turn() == 0 {
                thread::yield_now();
            }
            while self.is_up && self.asked.len() < FRAMES {
                let (mut builder, body) = (Builder::new(Kind::Peer), body(self.next));
                let mut row = [0; ROW_BYTES];
                row[..8].copy_from_slice(&self.next.to_le_bytes());
                builder.push(&row, body.len());
                if self
                    .link
                    .send(self.peer, &[builder.seal(), &body[..body.len() / 2], &body[body.len() / 2..]])
                    .is_err()
                {
                    break;
                }
                self.asked.push(self.next);
                self.next += 1;
            }
            self.link.flush();
            if self.answered >= said + 25 {
                said = self.answered;
                tell(format_args!("answered {said} bytes={}", self.bytes));
            }
        }
        tell(format_args!("done answered={} bytes={}", self.answered, self.bytes));
    }

    fn turn(&mut self) -> usize {
        let Asker { link, is_up, asked, answered, bytes: total, .. } = self;
        link.poll(self.clock.now(), &mut |event| {
            told(&event);
            match event {
                LinkEvent::Up(_) => *is_up = true,
                LinkEvent::Down { .. } => {
                    *is_up = false;
                    asked.clear();
                }
                LinkEvent::Frame { bytes, .. } => {
                    let (_, rest) = bytes.split_at(plimsoll::limits::FRAME_HEADER_BYTES);
                    let (row, came) = rest.split_at(ROW_BYTES);
                    let number = u64::from_le_bytes(*row.first_chunk().unwrap());
                    assert!(came == body(number), "frame {number} came back changed");
                    // A frame of before a break, that the other end had, is nobody's any more.
                    if let Some(at) = asked.iter().position(|&asked| asked == number) {
                        asked.remove(at);
                        *answered += 1;
                        *total += bytes.len() as u64;
                    }
                }
            }
        })
    }
}

/// What follows from the number: short ones, and every fourth a long one.
fn body(number: u64) -> Vec<u8> {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let most = if number % 4 == 3 { BODY_BYTES_MAX } else { 4000 };
    let len = mixed as usize % most;
    (0..len).map(|at| (mixed as usize + at * 7 + at / 251) as u8).collect()
}
