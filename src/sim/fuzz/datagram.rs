//! Arbitrary bytes as datagrams: into their decoder, and into a link that has sessions, frames half put together, and
//! repairs under way.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::io::datagram::{Arrival, Carrier, DatagramLink, Options};
use crate::io::{Full, Link, LinkEvent};
use crate::limits::FRAME_BYTES_MAX;
use crate::sim::random::Random;
use crate::types::{ClusterId, LaneId, NodeId, StoreId, Time};
use crate::wire::datagram::{
    Body, Credit, Cut, HEADER_BYTES, HELLO_BYTES, MISSING_BYTES_MAX, Offer, Place, open, seal, write_body,
};
use crate::wire::frame::{self, Builder, Kind};
use crate::wire::hello::{Greeting, Refusal};
use crate::wire::identity::Identity;

/// The longest datagram of the link that is fuzzed.
const BYTES_MAX: usize = 1472;

/// How many of one peer its carrier holds.
const WINDOW: usize = 64;

/// What comes from one peer between two polls at most.
const WAITING_MAX: usize = 128;

fn whole(place: Place, body: &Body<'_>, frame: &[u8]) -> Vec<u8> {
    let mut drawn = [0; MISSING_BYTES_MAX];
    let drawn_bytes = write_body(body, &mut drawn);
    [&seal(place, body)[..], &drawn[..drawn_bytes], frame].concat()
}

/// One datagram of every kind.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let place = Place { session: 77, number: 3, limit: 48 };
    let offer = Offer { session: 99, takes_bytes: 1472, got_bytes: 0 };
    let cut = Cut { frame: 1, frame_bytes: 700, unit: 256 };
    let frame = a_frame(120);
    let mut hello = whole(
        Place { session: 0, number: 0, limit: 48 },
        &Body::Hello(offer, Greeting::Hello(identity(1).hello(NodeId(2)))),
        &[],
    );
    hello.resize(512, 0);
    let nowhere = Place { number: 0, ..place };
    let welcome = Body::Welcome(Offer { got_bytes: 512, ..offer }, Greeting::Welcome(identity(3).welcome()));
    let refusal = Body::Refusal(Greeting::Refusal(Refusal::Crowded));
    let credit = Body::Credit(Credit { probe: 2, echo: 1, got_bytes: 64, reserved: 0 });
    vec![
        hello,
        whole(nowhere, &welcome, &[]),
        whole(Place { limit: 0, ..nowhere }, &refusal, &[]),
        whole(place, &Body::Data(&frame), &frame),
        whole(place, &Body::Fragment { cut, fragment: 2, bytes: &[] }, &[7; 188]),
        whole(place, &Body::Repair { cut, first: 0, missing: &[5] }, &[]),
        whole(place, &credit, &[0; 40]),
        whole(place, &Body::Bye, &[]),
        whole(Place { limit: 0, ..nowhere }, &Body::Unknown, &[]),
    ]
}

/// Sets a datagram's checksum right.
pub(super) fn reseal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let drawn = match bytes[4] {
        1 | 2 => HELLO_BYTES,
        7 => HEADER_BYTES + size_of::<Credit>(),
        3 | 6 => bytes.len(),
        _ => HEADER_BYTES,
    };
    let end = drawn.min(bytes.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEADER_BYTES - 4]), &bytes[HEADER_BYTES..end]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// What is read is written in the same words.
pub(super) fn try_decoder(input: &[u8]) -> bool {
    let Ok((place, body)) = open(input) else { return false };
    let rest = match body {
        Body::Data(frame) => frame,
        Body::Fragment { bytes, .. } => bytes,
        _ => &[],
    };
    let again = whole(place, &body, rest);
    let (same, padding) = input.split_at(again.len());
    assert!(same == again && padding.iter().all(|&byte| byte == 0), "{place:?} {body:?}");
    if let Body::Fragment { cut, fragment, .. } = body {
        assert!(cut.range(fragment).end <= FRAME_BYTES_MAX && fragment < cut.fragments());
    }
    true
}

fn identity(node: u32) -> Identity {
    Identity {
        cluster: ClusterId(7),
        node: NodeId(node),
        store: StoreId(u64::from(node)),
        lane: LaneId(0),
        lanes: 1,
        shards: 1,
    }
}

fn a_frame(len_bytes: usize) -> Vec<u8> {
    let mut builder = Builder::new(Kind::Peer);
    builder.push(&[1; 64], len_bytes - HELLO_FRAME_BYTES);
    let mut bytes = builder.seal().to_vec();
    bytes.resize(len_bytes, 5);
    bytes
}

const HELLO_FRAME_BYTES: usize = crate::wire::hello::GREETING_BYTES;

/// What goes in and out of the link that is fuzzed: node 2, to which node 1 dials, and which dials node 3.
#[derive(Default)]
struct Air {
    inbox: Vec<(u8, Vec<u8>)>,
    hints: Vec<Arrival<'static, u8>>,
    full: bool,
    /// The ids that the link drew, by peer, as it told them.
    drawn: [u64; 4],
    /// The numbers that its peers have used.
    numbers: [u64; 4],
    sent: usize,
}

struct Socket(Rc<RefCell<Air>>);

impl Carrier for Socket {
    type Address = u8;
    const RELIABLE: bool = false;

    fn datagram_bytes_max(&self) -> usize {
        BYTES_MAX
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn poll(&mut self, _now: Time, sink: &mut impl FnMut(Arrival<'_, u8>)) -> usize {
        let (inbox, hints) = {
            let mut air = self.0.borrow_mut();
            (core::mem::take(&mut air.inbox), core::mem::take(&mut air.hints))
        };
        hints.into_iter().for_each(&mut *sink);
        inbox.iter().for_each(|(from, bytes)| sink(Arrival::Datagram { from: *from, bytes }));
        inbox.len()
    }

    fn send(&mut self, to: u8, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let mut air = self.0.borrow_mut();
        if air.full {
            return Err(Full(()));
        }
        let bytes = parts.concat();
        assert!(bytes.len() <= BYTES_MAX, "a datagram of {} bytes", bytes.len());
        let (_, body) = open(&bytes).expect("what a link sends is well formed");
        if let Body::Hello(offer, _) | Body::Welcome(offer, _) = body {
            let place = usize::from(to % 4);
            if air.drawn[place] != offer.session {
                (air.drawn[place], air.numbers[place]) = (offer.session, 0);
            }
        }
        air.sent += 1;
        Ok(())
    }

    fn flush(&mut self) {}
}

/// Any course of datagrams, times, sends and troubles, of which each byte sequence names one.
pub(super) fn try_link(input: &[u8]) -> bool {
    let air = Rc::new(RefCell::new(Air::default()));
    let peers = vec![(NodeId(1), 1), (NodeId(3), 3)];
    let mut link =
        DatagramLink::new(Options::new(identity(2), peers, Vec::new(), 11), Socket(Rc::clone(&air)));
    let mut now = Time(0);
    let mut ups = 0;
    let mut rest = input;
    while let Some((&op, after)) = rest.split_first() {
        rest = after;
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at(count.min(rest.len()));
            rest = after;
            taken
        };
        match op % 16 {
            0 => now = now.after(Duration::from_micros(100 * u64::from(take(1).first().map_or(1, |&n| n)))),
            1 => now = now.after(Duration::from_millis(u64::from(take(1).first().map_or(1, |&n| n)))),
            2 => {
                let bytes = 97 + 40 * usize::from(take(1).first().map_or(0, |&n| n));
                let frame = a_frame(bytes);
                let to = NodeId(u32::from(op >> 4) % 4);
                let _ = link.send(to, &[&frame[..96], &frame[96..]]);
                link.flush();
            }
            3 => {
                let to = (op >> 4) % 4;
                air.borrow_mut().hints.push(match op >> 6 {
                    0 => Arrival::Unreachable(to),
                    1 => Arrival::Reachable(to),
                    2 => Arrival::Broken(to),
                    _ => Arrival::TooLong(to),
                });
            }
            4 => air.borrow_mut().full ^= true,
            _ => {
                let len = take(2).iter().fold(0, |len, &byte| len << 8 | usize::from(byte)) % (BYTES_MAX + 8);
                let bytes = take(len).to_vec();
                hear(&mut air.borrow_mut(), op, bytes);
            }
        }
        let before = air.borrow().sent;
        link.poll(now, &mut |event| match event {
            LinkEvent::Up(_) => ups += 1,
            LinkEvent::Down { .. } => {}
            LinkEvent::Frame { bytes, .. } => assert!(frame::open(bytes).is_ok(), "frames are whole"),
        });
        let sent = air.borrow().sent - before;
        assert!(sent < 512, "{sent} datagrams at once");
        while link.notice().is_some() {}
        let _ = link.next_wake();
    }
    ups > 0
}

/// A datagram comes: as it is, or with what makes it reach further set right.
fn hear(air: &mut Air, op: u8, mut bytes: Vec<u8>) {
    let from = if op & 0x20 == 0 { 1 } else { 3 };
    let place = usize::from(from);
    let mut put = |at: usize, value: u64| {
        if bytes.len() >= at + 8 {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    };
    if op & 0x40 == 0 {
        put(8, air.drawn[place]);
        put(16, air.numbers[place]);
        air.numbers[place] += 1;
    }
    if op & 0x80 == 0 {
        reseal(&mut bytes);
    }
    if air.inbox.len() < WAITING_MAX {
        air.inbox.push((from, bytes));
    }
}

/// A course in which both peers come up and all kinds of datagrams come.
pub(super) fn sample_course() -> Vec<u8> {
    let mut course = vec![0, 1];
    let mut hear = |op: u8, bytes: &[u8]| {
        course.push(op);
        course.extend((bytes.len() as u16).to_be_bytes());
        course.extend(bytes);
        course.extend([0, 3]);
    };
    let samples = samples();
    // A hello names nothing, a welcome what the link drew and no number.
    hear(0x45, &samples[0]);
    hear(0x25, &samples[1]);
    for sample in &samples[3..7] {
        hear(0x05, sample);
    }
    for fragment in 0..3_usize {
        let cut = Cut { frame: 0, frame_bytes: 700, unit: 256 };
        let frame = a_frame(700);
        let bytes = &frame[cut.range(fragment)];
        hear(0x05, &whole(Place::default(), &Body::Fragment { cut, fragment, bytes }, bytes));
    }
    course.extend([0x12, 90, 1, 120, 0x12, 200, 1, 50]);
    course
}

/// Any course whatever, made of samples that are set right.
pub(super) fn any_course(random: &mut Random) -> Vec<u8> {
    let samples = samples();
    let mut course = sample_course();
    for _ in 0..random.between(1, 40) {
        if random.chance(300_000) {
            course.extend([random.below(5) as u8 | (random.draw() as u8) << 4, random.draw() as u8]);
            continue;
        }
        let mut bytes = random.pick(&samples).clone();
        if random.chance(500_000) {
            let other = random.pick(&samples).clone();
            super::mutate(&mut bytes, random, &other);
        }
        bytes.truncate(BYTES_MAX);
        course.push(0x05 | (random.draw() as u8) & if random.chance(800_000) { 0x20 } else { 0xf0 });
        course.extend((bytes.len() as u16).to_be_bytes());
        course.extend(&bytes);
    }
    course
}
