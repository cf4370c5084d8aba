//! What comes: every datagram is of a session that is up, or of one that it brings up, or a greeting, or nothing.

use super::assembly::Outcome;
use super::link::{Answer, State};
use super::notice::{Notice, Why};
use super::numbers::Unfit;
use super::peer::Session;
use super::{Arrival, Counters};
use crate::io::LinkEvent;
use crate::types::{NodeId, Time};
use crate::wire::datagram::{self, Body, Credit, Cut, Place};
use crate::wire::frame::{self, Kind};

impl<A: Copy + Eq> State<A> {
    /// Something has come; how many events that gave.
    pub(super) fn arrived(&mut self, arrival: Arrival<'_, A>, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        match arrival {
            Arrival::Datagram { from, bytes } => self.datagram(from, bytes, sink),
            Arrival::Unreachable(address) => {
                self.hinted(address, |session, now| session.suspect(now, Why::Unreachable))
            }
            Arrival::Broken(address) => {
                self.hinted(address, |session, now| session.suspect(now, Why::Broken))
            }
            Arrival::TooLong(address) => self.hinted(address, Session::doubt_path),
            Arrival::Reachable(address) => {
                self.on_path(address);
                0
            }
        }
    }

    /// Something was said of an address: no event by itself.
    fn hinted(&mut self, address: A, what: impl Fn(&mut Session<A>, Time)) -> usize {
        let now = self.now;
        let sessions = self.peers.iter_mut().filter_map(|peer| peer.session.as_mut());
        sessions.filter(|session| session.address == address).for_each(|session| what(session, now));
        0
    }

    fn datagram(&mut self, from: A, bytes: &[u8], sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        self.counters.datagrams_in += 1;
        let (place, body) = match datagram::open(bytes) {
            Ok(opened) => opened,
            Err(how) => {
                self.counters.malformed += 1;
                self.notices.malformed(self.now, from, how);
                return 0;
            }
        };
        match body {
            Body::Hello(offer, greeting) => {
                self.on_hello(from, place.limit, offer, greeting, bytes.len());
                0
            }
            Body::Welcome(offer, greeting) => self.on_welcome(from, place, offer, greeting, sink),
            Body::Refusal(greeting) => {
                self.on_refusal(from, place.session, greeting);
                0
            }
            Body::Unknown => match self.peers.iter().position(|peer| peer.names(place.session)) {
                Some(peer) => self.end(peer, Why::Forgotten, sink),
                None => {
                    self.counters.unasked += 1;
                    0
                }
            },
            _ => self.of_session(from, bytes.len(), place, &body, sink),
        }
    }

    /// A datagram that names a session.
    fn of_session(
        &mut self,
        from: A,
        len_bytes: usize,
        place: Place,
        body: &Body<'_>,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> usize {
        let is_up = |session: &Session<A>| session.own == place.session;
        let mut events = 0;
        let at = match self.peers.iter().position(|peer| peer.session.as_ref().is_some_and(is_up)) {
            Some(at) => at,
            None => match self.confirm(place.session, sink) {
                Some((at, told)) => {
                    events += told;
                    at
                }
                None => {
                    self.counters.alien += 1;
                    if !matches!(body, Body::Bye) {
                        self.reply(from, place.session, Answer::Unknown);
                    }
                    return 0;
                }
            },
        };
        events + self.take(at, len_bytes, place, body, sink)
    }

    /// A datagram of the session that is up with the peer at `at`.
    fn take(
        &mut self,
        at: usize,
        len_bytes: usize,
        place: Place,
        body: &Body<'_>,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> usize {
        let State { peers, counters, now, .. } = self;
        let peer = &mut peers[at];
        let Some(session) = &mut peer.session else { return 0 };
        match peer.seen.take(place.number) {
            Ok(fresh) => {
                counters.lost = (counters.lost + fresh.passed).saturating_sub(u64::from(fresh.late));
                counters.reordered += u64::from(fresh.late);
            }
            Err(unfit) => {
                counters.duplicated += u64::from(unfit == Unfit::Duplicate);
                counters.beyond += u64::from(unfit == Unfit::Beyond);
                return 0;
            }
        }
        (session.heard_at, session.heard, session.suspect) = (*now, true, None);
        if session.credits.learn(place.limit) {
            session.starved = None;
        }
        match *body {
            Body::Data(bytes) => {
                let events = hand_on(peer.id, bytes, counters, sink);
                peer.seen.value(1, events > 0);
                events
            }
            Body::Fragment { cut, fragment, bytes } => self.on_fragment(at, (cut, fragment, bytes), sink),
            Body::Repair { cut, first, missing } => {
                if !peer.kept.ask(&cut, first, missing) {
                    counters.repairs_missed += 1;
                }
                0
            }
            Body::Credit(credit) => {
                self.on_credit(at, credit, len_bytes);
                0
            }
            Body::Bye => self.end(at, Why::Bye, sink),
            Body::Hello(..) | Body::Welcome(..) | Body::Refusal(_) | Body::Unknown => 0,
        }
    }

    fn on_fragment(
        &mut self,
        at: usize,
        piece: (Cut, usize, &[u8]),
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> usize {
        let State { peers, counters, now, .. } = self;
        let peer = &mut peers[at];
        let wait = peer.session.as_ref().map_or_else(Default::default, Session::wait);
        let outcome = peer.assembly.take(*now, wait, piece, counters);
        match outcome {
            Outcome::Taken | Outcome::Whole(_) => counters.fragments_in += 1,
            Outcome::Late => counters.fragments_late += 1,
            Outcome::Contrary => counters.fragments_contrary += 1,
            Outcome::Crowded => counters.fragments_crowded += 1,
        }
        peer.seen.waste(peer.assembly.take_wasted());
        match outcome {
            Outcome::Whole(place) => {
                let events = hand_on(peer.id, peer.assembly.frame(place), counters, sink);
                peer.seen.value(piece.0.fragments(), events > 0);
                events
            }
            Outcome::Taken => 0,
            Outcome::Late | Outcome::Contrary | Outcome::Crowded => {
                peer.seen.waste(1);
                0
            }
        }
    }

    fn on_credit(&mut self, at: usize, credit: Credit, len_bytes: usize) {
        let now = self.now;
        let peer = &mut self.peers[at];
        let Some(session) = &mut peer.session else { return };
        if credit.probe != 0 {
            // Of several the longest is answered, else the last.
            let longer = session.echo.is_some_and(|(_, waiting)| waiting > len_bytes);
            session.echo = session.echo.filter(|_| longer).or(Some((credit.probe, len_bytes)));
        }
        if credit.echo != 0 && session.echoed(now, credit.echo, credit.got_bytes as usize) {
            self.notices.push(Notice::Wide { peer: peer.id, path_bytes: session.path_bytes });
        }
    }
}

/// Gives a whole frame to the sink, if it is one.
fn hand_on(
    from: NodeId,
    bytes: &[u8],
    counters: &mut Counters,
    sink: &mut impl FnMut(LinkEvent<'_>),
) -> usize {
    if !frame::open(bytes).is_ok_and(|(kind, _, _)| kind == Kind::Peer) {
        counters.malformed += 1;
        return 0;
    }
    counters.frames_in += 1;
    counters.bytes_in += bytes.len() as u64;
    sink(LinkEvent::Frame { from, bytes });
    1
}
