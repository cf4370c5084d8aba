//! Who floods: a member that has gone mad, and strangers. Speaks the datagrams' format by itself, for the link would
//! not send such things.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use plimsoll::types::{ClusterId, NodeId};
use plimsoll::wire::datagram::{self, Body, Credit, Cut, HEADER_BYTES, MISSING_BYTES_MAX, Offer, Place};
use plimsoll::wire::hello::{Greeting, Hello};
use plimsoll::wire::identity::Identity;

use super::{Kind, LONGEST_BYTES};

/// What the session's window is told to be: the target can always answer.
const WINDOW: u64 = 1024;

/// How far beyond the last number that it has credit for a mad member numbers what it sends all the same.
const BEYOND: u64 = 64;

/// The target takes a member that it does not hear for gone.
const KEEPALIVE: Duration = Duration::from_millis(50);

/// The bytes of what is neither a greeting nor a fragment.
const BODY_BYTES: usize = 200;

/// The bytes of a fragment, and of a frame that never becomes whole.
const UNIT_BYTES: u16 = 1424;
const ENDLESS_BYTES: u32 = 100_000;

/// See the module.
pub(super) struct Hostile {
    socket: UdpSocket,
    target: SocketAddr,
    /// Who the mad member is, who its victim, and who is to be displaced.
    identity: Identity,
    neighbour: Identity,
    victim: NodeId,
    /// The id that the target drew for its session with the mad member; 0: there is none.
    session: u64,
    /// Of the next datagram in that session, and what the target gave credit for.
    number: u64,
    limit: u64,
    /// How far the target has numbered its own.
    heard: u64,
    /// Of the frame that is begun, and its next fragment.
    frame: u32,
    fragment: usize,
    spoke_at: Instant,
    random: u64,
}

impl Hostile {
    pub(super) fn new(
        socket: UdpSocket,
        target: SocketAddr,
        (identity, neighbour, victim): (Identity, Identity, NodeId),
    ) -> io::Result<Hostile> {
        socket.set_nonblocking(true)?;
        Ok(Hostile {
            socket,
            target,
            identity,
            neighbour,
            victim,
            session: 0,
            number: 0,
            limit: 0,
            heard: 0,
            frame: 0,
            fragment: 0,
            spoke_at: Instant::now(),
            random: 1,
        })
    }

    /// Whether the target believes in the mad member.
    pub(super) fn is_member(&self) -> bool {
        self.session != 0
    }

    /// Takes in what the target says, and says what keeps the session up.
    pub(super) fn attend(&mut self) {
        let mut bytes = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut bytes) {
            let Ok((place, body)) = datagram::open(&bytes[..len]) else { continue };
            if from != self.target {
                continue;
            }
            match body {
                Body::Hello(offer, _) => self.welcome(offer.session, len),
                Body::Data(_) | Body::Credit(_) | Body::Repair { .. } => {
                    self.limit = self.limit.max(place.limit);
                    self.heard = self.heard.max(place.number + 1);
                }
                _ => {}
            }
        }
        if self.is_member() && self.spoke_at.elapsed() >= KEEPALIVE {
            self.spoke_at = Instant::now();
            self.keep_alive();
        }
    }

    fn welcome(&mut self, session: u64, got_bytes: usize) {
        (self.session, self.number, self.limit, self.heard, self.frame) = (session, 0, 0, 0, 0);
        let offer = Offer {
            session: self.draw() | 1,
            takes_bytes: LONGEST_BYTES as u32,
            got_bytes: got_bytes as u32,
        };
        let body = Body::Welcome(offer, Greeting::Welcome(self.identity.welcome()));
        let place = Place { session, number: 0, limit: WINDOW };
        let bytes = written(place, &body);
        self.send(self.target, &bytes);
    }

    fn keep_alive(&mut self) {
        let place = self.next_place(true);
        let bytes = written(place, &Body::Credit(Credit::default()));
        self.send(self.target, &bytes);
    }

    /// One bad datagram, to the target or to somewhere else. `false`: not now, for there is no session.
    pub(super) fn strike(&mut self, kind: Kind, to: SocketAddr) -> bool {
        let at_target = to == self.target;
        if kind.is_of_a_member() && at_target && !self.is_member() {
            return false;
        }
        let bytes = self.bad(kind, at_target);
        self.send(to, &bytes);
        true
    }

    fn bad(&mut self, kind: Kind, at_target: bool) -> Vec<u8> {
        let drawn = self.draw();
        let garbage: Vec<u8> = (0..BODY_BYTES).map(|at| (drawn >> (at % 57)) as u8).collect();
        let alien = Place { session: drawn | 1, number: drawn % 1000, limit: drawn % 1000 };
        match kind {
            Kind::Garbage => garbage,
            Kind::Truncated => datagram::seal_data(alien, BODY_BYTES)[..HEADER_BYTES - 8].to_vec(),
            Kind::Oversized => vec![drawn as u8; 4 * LONGEST_BYTES],
            Kind::Alien => [&datagram::seal_data(alien, BODY_BYTES)[..], &garbage].concat(),
            Kind::OtherCluster => {
                let other = Identity { cluster: ClusterId(drawn | 1), ..self.neighbour };
                self.hello(other.hello(self.victim), drawn)
            }
            Kind::ForgedHello => self.hello(self.neighbour.hello(self.victim), drawn),
            Kind::Replayed => {
                let place = Place { session: self.session, number: 0, limit: 0 };
                [&datagram::seal_data(place, BODY_BYTES)[..], &garbage].concat()
            }
            Kind::BadFrame => {
                let place = self.next_place(at_target);
                [&datagram::seal_data(place, BODY_BYTES)[..], &garbage].concat()
            }
            Kind::Endless | Kind::Overlapping | Kind::FirstFragments => self.fragment(kind, at_target),
        }
    }

    fn hello(&self, hello: Hello, session: u64) -> Vec<u8> {
        let offer = Offer { session: session | 1, takes_bytes: LONGEST_BYTES as u32, got_bytes: 0 };
        let place = Place { session: 0, number: 0, limit: WINDOW };
        written(place, &Body::Hello(offer, Greeting::Hello(hello)))
    }

    fn fragment(&mut self, kind: Kind, at_target: bool) -> Vec<u8> {
        let mut cut = Cut { frame: self.frame, frame_bytes: ENDLESS_BYTES, unit: UNIT_BYTES };
        let fragment = self.fragment;
        match kind {
            // All fragments but the last, and then the next frame.
            Kind::Endless => self.go_on(cut.fragments() - 1),
            // Every second one claims that the frame is cut in another way.
            Kind::Overlapping => {
                self.go_on(cut.fragments() - 1);
                cut.unit -= 8 * (fragment % 2) as u16;
            }
            _ => {
                cut.frame_bytes = 4 << 20;
                self.go_on(1);
            }
        }
        let place = self.next_place(at_target);
        let bytes = [7; UNIT_BYTES as usize];
        let bytes = &bytes[..cut.range(fragment).len()];
        [&datagram::seal(place, &Body::Fragment { cut, fragment, bytes })[..], bytes].concat()
    }

    fn go_on(&mut self, fragments: usize) {
        self.fragment += 1;
        if self.fragment >= fragments {
            (self.frame, self.fragment) = (self.frame.wrapping_add(1), 0);
        }
    }

    /// Who has gone mad does not stop where its credits end. Nor does it use up those that keep its session.
    fn next_place(&mut self, spend: bool) -> Place {
        let has_credit = self.number < self.limit;
        let number = if has_credit { self.number } else { self.limit + BEYOND };
        self.number += u64::from(spend && has_credit);
        Place { session: self.session, number, limit: self.heard + WINDOW }
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        // What the system does not take is not sent: what was taken is counted at the target.
        let _ = self.socket.send_to(bytes, to);
    }

    /// A number that looks like none (xorshift).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn written(place: Place, body: &Body<'_>) -> Vec<u8> {
    let mut drawn = [0; MISSING_BYTES_MAX];
    let drawn_bytes = datagram::write_body(body, &mut drawn);
    [&datagram::seal(place, body)[..], &drawn[..drawn_bytes]].concat()
}
