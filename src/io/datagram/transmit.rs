//! What goes: greetings, frames, fragments, and what the two ends of a session tell each other about it.

use alloc::vec::Vec;

use super::link::{Answer, DatagramLink, Reply, State};
use super::numbers::Class;
use super::peer::{Peer, Session, fallback_bytes};
use super::{Carrier, Counters, Notice};
use crate::io::Full;
use crate::types::Time;
use crate::wire::datagram::{
    self, Body, CREDIT_BYTES, Credit, Cut, HEADER_BYTES, HELLO_BYTES, MISSING_BYTES_MAX, Place,
};
use crate::wire::hello::Greeting;

/// Fragments that are sent to one peer at a time; others come between.
const FRAGMENTS_AT_ONCE: usize = 64;

/// After so many hellos without an answer the operator is told.
const TOLD_AFTER: u32 = 4;

static ZEROS: [u8; 1024] = [0; 1024];

/// What sending a datagram takes.
struct Out<'a, C: Carrier> {
    carrier: &'a mut C,
    list: &'a mut Vec<&'static [u8]>,
    counters: &'a mut Counters,
    full_at: &'a mut Option<Time>,
    now: Time,
}

impl<C: Carrier> DatagramLink<C> {
    /// Everything that became due, or that what came asks for.
    pub(super) fn answer(&mut self) {
        self.reply_all();
        for place in 0..self.state.peers.len() {
            if self.state.peers[place].session.is_some() {
                self.tell(place);
                self.ask_for_repair(place);
                self.send_fragments(place);
            } else if self.state.peers[place].dials && self.state.peers[place].dial.again_at <= self.state.now
            {
                self.dial(place);
            }
        }
    }

    /// See [`crate::io::Link::send`].
    pub(super) fn send_frame(
        &mut self,
        place: usize,
        parts: &[&[u8]],
        len_bytes: usize,
    ) -> Result<(), Full<()>> {
        let (peer, mut out) = split(&mut self.carrier, &mut self.list, &mut self.state, place);
        let Some(session) = &mut peer.session else { return Ok(()) };
        if HEADER_BYTES + len_bytes <= session.path_bytes {
            if !session.credits.has(Class::Data) {
                session.starve(out.now);
                return Err(Full(()));
            }
            let place =
                Place { session: session.theirs, number: session.credits.next(), limit: peer.seen.tell() };
            let head = datagram::seal_data(place, len_bytes);
            out.put(session, &head, parts)
        } else {
            self.send_long(place, parts, len_bytes)
        }
    }

    /// A frame that no datagram holds: sent from where it lies as far as may be, and kept if it has to be.
    fn send_long(&mut self, place: usize, parts: &[&[u8]], len_bytes: usize) -> Result<(), Full<()>> {
        let (peer, mut out) = split(&mut self.carrier, &mut self.list, &mut self.state, place);
        let Some(session) = &mut peer.session else { return Ok(()) };
        let cut = peer.kept.cut(len_bytes, session.unit());
        let mut sent = 0;
        if C::RELIABLE && !peer.kept.has_unsent() {
            let count = cut.fragments();
            while sent < count && session.credits.has(Class::Fragment) {
                let at = Place {
                    session: session.theirs,
                    number: session.credits.next(),
                    limit: peer.seen.tell(),
                };
                let head = fragment_head(at, cut, sent);
                if out.put_range(session, &head, parts, cut.range(sent)).is_err() {
                    break;
                }
                sent += 1;
            }
            if sent == count {
                peer.kept.skip();
                return Ok(());
            }
            if sent == 0 && *out.full_at == Some(out.now) {
                return Err(Full(()));
            }
        }
        // If some of it was sent already nothing else is kept, and it fits.
        peer.kept.push(out.now, cut, parts, sent)?;
        self.send_fragments(place);
        Ok(())
    }

    /// As many fragments to one peer as may go now.
    pub(super) fn send_fragments(&mut self, place: usize) {
        let (peer, mut out) = split(&mut self.carrier, &mut self.list, &mut self.state, place);
        let Some(session) = &mut peer.session else { return };
        let mut left = FRAGMENTS_AT_ONCE;
        while left > 0
            && session.credits.has(Class::Fragment)
            && let Some(piece) = peer.kept.next_piece()
        {
            let at =
                Place { session: session.theirs, number: session.credits.next(), limit: peer.seen.tell() };
            let head = fragment_head(at, piece.cut, piece.fragment);
            if out.put(session, &head, &[peer.kept.bytes(&piece)]).is_err() {
                return;
            }
            out.counters.repaired += u64::from(piece.again);
            peer.kept.sent(out.now, &piece, !C::RELIABLE);
            left -= 1;
        }
        if left > 0 && peer.kept.has_work() && !session.credits.has(Class::Fragment) {
            session.starve(out.now);
        }
    }

    /// Credits, probes and their answers, as far as they are due.
    fn tell(&mut self, place: usize) {
        let keepalive = self.state.keepalive;
        let (peer, mut out) = split(&mut self.carrier, &mut self.list, &mut self.state, place);
        let Some(session) = &mut peer.session else { return };
        let now = out.now;
        let mut narrow = false;
        if session.path.next_at <= now {
            narrow = session.path_probe_due(now);
            let len_bytes = session.wanted_bytes;
            if let Some(probe) = out.probe(session, &mut peer.seen, Class::Control, len_bytes) {
                session.path.waits_for = Some(probe);
                if session.path.asks_beside() {
                    session.path.beside = out.probe(session, &mut peer.seen, Class::Control, 0);
                }
            }
        }
        let starves = session.starved.as_mut().is_some_and(|asking| asking.is_due_slower(now));
        if starves || session.suspect.as_mut().is_some_and(|suspicion| suspicion.asking.is_due(now)) {
            out.counters.starved += u64::from(starves);
            out.probe(session, &mut peer.seen, Class::Probe, 0);
        }
        let due = session.spoke_at.after(session.keepalive(keepalive)) <= now;
        if session.speaks {
            session.speaks = out.probe(session, &mut peer.seen, Class::Control, 0).is_none();
        } else if due || session.echo.is_some() || peer.seen.owes() {
            let (echo, got_bytes) = session.echo.unwrap_or_default();
            let credit = Credit { probe: 0, echo, got_bytes: got_bytes as u32, reserved: 0 };
            if out.credit(session, &mut peer.seen, Class::Control, credit, 0).is_ok() {
                session.echo = None;
            } else if !session.credits.has(Class::Control) {
                session.starve(now);
                session.spoke_at = now;
            }
        }
        if narrow {
            let Session { wanted_bytes, path_bytes, .. } = *session;
            let peer = self.state.id_of(place);
            self.state.notices.push(Notice::Narrow { peer, wanted_bytes, path_bytes });
        }
    }

    /// Asks for what is missing of frames that come in fragments.
    fn ask_for_repair(&mut self, place: usize) {
        let (peer, mut out) = split(&mut self.carrier, &mut self.list, &mut self.state, place);
        let Some(session) = &mut peer.session else { return };
        let wait = session.wait();
        while let Some(missing) = peer.assembly.due(out.now, wait, out.counters) {
            if C::RELIABLE {
                continue;
            }
            let body = Body::Repair {
                cut: missing.cut,
                first: missing.first,
                missing: &missing.bitmap[..missing.len_bytes],
            };
            // What is kept back stays for credits.
            if out.body(session, &mut peer.seen, Class::Data, &body, 0).is_ok() {
                out.counters.repairs_asked += 1;
            }
        }
    }

    /// Hello, as long as the path is to carry; now and then shorter, for it may not.
    fn dial(&mut self, place: usize) {
        let state = &mut self.state;
        let pause = state.next_pause(place);
        let peer = &mut state.peers[place];
        let (now, wanted) = (state.now, state.takes_bytes);
        let dial = &mut peer.dial;
        (dial.sent_at, dial.again_at) = (now, now.after(pause));
        let is_short = dial.tries >= 2 && dial.tries.is_multiple_of(2);
        dial.tries = dial.tries.saturating_add(1);
        let (to, own, tries, id) = (peer.address, dial.own, dial.tries, peer.id);
        if tries == TOLD_AFTER {
            state.notices.push(Notice::Unreachable { peer: id, address: to });
        }
        let len_bytes = if is_short { fallback_bytes(wanted) } else { wanted };
        let greeting = Greeting::Hello(state.identity.hello(id));
        let body = Body::Hello(state.offer(own, 0), greeting);
        let at = Place { session: 0, number: 0, limit: state.window };
        self.send_greeting(to, at, &body, len_bytes.max(HELLO_BYTES));
    }

    fn reply_all(&mut self) {
        let mut replies = core::mem::take(&mut self.state.replies);
        for Reply { to, session, what } in replies.drain(..) {
            let state = &self.state;
            let at = Place { session, number: 0, limit: 0 };
            match what {
                Answer::Welcome { own, got_bytes } => {
                    let greeting = Greeting::Welcome(state.identity.welcome());
                    let body = Body::Welcome(state.offer(own, got_bytes), greeting);
                    let at = Place { limit: state.window, ..at };
                    let len_bytes = got_bytes.min(state.takes_bytes).max(HELLO_BYTES);
                    self.send_greeting(to, at, &body, len_bytes);
                }
                Answer::Refusal(greeting) => self.send_greeting(to, at, &Body::Refusal(greeting), 0),
                Answer::Unknown => self.send_greeting(to, at, &Body::Unknown, 0),
            }
        }
        self.state.replies = replies;
    }

    /// What is said without a session. If the carrier is full it is lost.
    fn send_greeting(&mut self, to: C::Address, at: Place, body: &Body<'_>, pad_to: usize) {
        let DatagramLink { carrier, list, state, .. } = self;
        let State { counters, full_at, now, .. } = state;
        let mut out = Out { carrier, list, counters, full_at, now: *now };
        let _ = out.written(to, at, body, pad_to);
    }

    /// The peers need not wait until they notice.
    pub(super) fn say_bye(&mut self) {
        for place in 0..self.state.peers.len() {
            let (peer, mut out) = split(&mut self.carrier, &mut self.list, &mut self.state, place);
            let Some(session) = &mut peer.session else { continue };
            let _ = out.body(session, &mut peer.seen, Class::Probe, &Body::Bye, 0);
        }
        self.carrier.flush();
    }
}

/// One peer, and what sending to it takes.
fn split<'a, C: Carrier>(
    carrier: &'a mut C,
    list: &'a mut Vec<&'static [u8]>,
    state: &'a mut State<C::Address>,
    place: usize,
) -> (&'a mut Peer<C::Address>, Out<'a, C>) {
    let State { peers, counters, full_at, now, .. } = state;
    (&mut peers[place], Out { carrier, list, counters, full_at, now: *now })
}

fn fragment_head(at: Place, cut: Cut, fragment: usize) -> [u8; 48] {
    datagram::seal(at, &Body::Fragment { cut, fragment, bytes: &[] })
}

impl<C: Carrier> Out<'_, C> {
    /// A datagram of a session whose head is sealed with the next number.
    fn put(
        &mut self,
        session: &mut Session<C::Address>,
        head: &[u8],
        parts: &[&[u8]],
    ) -> Result<(), Full<()>> {
        let mut list = recycle(core::mem::take(self.list));
        list.push(head);
        list.extend_from_slice(parts);
        let sent = self.carrier.send(session.address, &list);
        *self.list = recycle(list);
        self.spend(session, sent)
    }

    /// As [`Out::put`], of parts of which only a range is meant.
    fn put_range(
        &mut self,
        session: &mut Session<C::Address>,
        head: &[u8],
        parts: &[&[u8]],
        range: core::ops::Range<usize>,
    ) -> Result<(), Full<()>> {
        let mut list = recycle(core::mem::take(self.list));
        list.push(head);
        let mut begin = 0;
        for part in parts {
            let (from, until) = (range.start.max(begin), range.end.min(begin + part.len()));
            if from < until {
                list.push(&part[from - begin..until - begin]);
            }
            begin += part.len();
        }
        let sent = self.carrier.send(session.address, &list);
        *self.list = recycle(list);
        self.spend(session, sent)
    }

    fn spend(
        &mut self,
        session: &mut Session<C::Address>,
        sent: Result<(), Full<()>>,
    ) -> Result<(), Full<()>> {
        match sent {
            Ok(()) => {
                session.credits.spend();
                session.spoke_at = self.now;
                self.counters.datagrams_out += 1;
            }
            Err(_) => *self.full_at = Some(self.now),
        }
        sent
    }

    /// What a session says of itself, as far as the credits of its class go.
    fn body(
        &mut self,
        session: &mut Session<C::Address>,
        seen: &mut super::numbers::Seen,
        class: Class,
        body: &Body<'_>,
        pad_to: usize,
    ) -> Result<(), Full<()>> {
        if !session.credits.has(class) {
            return Err(Full(()));
        }
        let at = Place { session: session.theirs, number: session.credits.next(), limit: seen.tell() };
        let sent = self.written(session.address, at, body, pad_to);
        if sent.is_ok() {
            session.credits.spend();
            session.spoke_at = self.now;
        }
        sent
    }

    fn credit(
        &mut self,
        session: &mut Session<C::Address>,
        seen: &mut super::numbers::Seen,
        class: Class,
        credit: Credit,
        pad_to: usize,
    ) -> Result<(), Full<()>> {
        self.body(session, seen, class, &Body::Credit(credit), pad_to.max(CREDIT_BYTES))
    }

    /// Asks for an answer; the number of the probe, if it was sent.
    fn probe(
        &mut self,
        session: &mut Session<C::Address>,
        seen: &mut super::numbers::Seen,
        class: Class,
        pad_to: usize,
    ) -> Option<u32> {
        let probe = session.probe.wrapping_add(1).max(1);
        let (echo, got_bytes) = session.echo.unwrap_or_default();
        let credit = Credit { probe, echo, got_bytes: got_bytes as u32, reserved: 0 };
        self.credit(session, seen, class, credit, pad_to).ok()?;
        // What is long may not arrive: the answer is not left to it.
        if pad_to <= CREDIT_BYTES {
            session.echo = None;
        }
        (session.probe, session.probe_at) = (probe, self.now);
        Some(probe)
    }

    /// A datagram that is put together here, with zeros up to a length.
    fn written(&mut self, to: C::Address, at: Place, body: &Body<'_>, pad_to: usize) -> Result<(), Full<()>> {
        let head = datagram::seal(at, body);
        let mut drawn = [0; MISSING_BYTES_MAX];
        let drawn_bytes = datagram::write_body(body, &mut drawn);
        let mut list = recycle(core::mem::take(self.list));
        list.push(&head);
        list.push(&drawn[..drawn_bytes]);
        let mut padding = pad_to.saturating_sub(HEADER_BYTES + drawn_bytes);
        while padding > 0 {
            let piece = padding.min(ZEROS.len());
            list.push(&ZEROS[..piece]);
            padding -= piece;
        }
        let sent = self.carrier.send(to, &list);
        *self.list = recycle(list);
        match sent {
            Ok(()) => self.counters.datagrams_out += 1,
            Err(_) => *self.full_at = Some(self.now),
        }
        sent
    }
}

/// The same memory for slices of another lifetime. In-place collection keeps the allocation.
fn recycle<'to>(mut parts: Vec<&[u8]>) -> Vec<&'to [u8]> {
    parts.clear();
    parts.into_iter().map(|_| -> &'to [u8] { unreachable!("cleared above") }).collect()
}
