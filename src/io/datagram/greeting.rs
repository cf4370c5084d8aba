//! How a session comes to be: hello, welcome, and the first datagram that names what the welcome gave.

use super::link::{Answer, State};
use super::notice::Notice;
use super::numbers::PROBES_HELD;
use super::peer::{PENDING_MAX, Peer, Pending, REDIAL_MIN, Session};
use super::{DATAGRAM_BYTES_MIN, WINDOW_MIN};
use crate::io::LinkEvent;
use crate::types::{NodeId, StoreId};
use crate::wire::datagram::{Offer, Place};
use crate::wire::hello::{Greeting, Hello, Refusal, Welcome};
use crate::wire::identity::check_store;

/// The smallest window that an end may tell.
const LIMIT_MIN: u64 = WINDOW_MIN as u64 - PROBES_HELD;

/// In so many of the times after which it says something in any case, a peer that is there is heard.
const HEARD_WITHIN: u32 = 2;

impl<A: Copy + Eq> State<A> {
    /// Somebody wants a session. Nothing is believed before a datagram names what is answered.
    pub(super) fn on_hello(
        &mut self,
        from: A,
        limit: u64,
        offer: Offer,
        greeting: Greeting,
        len_bytes: usize,
    ) {
        let Greeting::Hello(hello) = greeting else { return };
        let at = match self.admit(&hello) {
            Ok(at) => at,
            Err(refusal) => {
                self.counters.refused += 1;
                self.reply(from, offer.session, Answer::Refusal(Greeting::Refusal(refusal)));
                let who = hello.node.unwrap_or_default();
                let known = self.peers.iter_mut().find(|peer| peer.id == who);
                let is_told = known.as_ref().is_some_and(|peer| peer.told_refusal == Some(refusal));
                if !is_told && self.refusals_told.take(self.now) {
                    if let Some(peer) = known {
                        peer.told_refusal = Some(refusal);
                    }
                    self.notices.push(Notice::Refused { who, address: from, refusal });
                }
                return;
            }
        };
        let is_up = |session: &Session<A>| session.theirs == offer.session;
        let fits = offer.takes_bytes as usize >= DATAGRAM_BYTES_MIN && limit >= LIMIT_MIN;
        if !fits || self.peers[at].session.as_ref().is_some_and(is_up) {
            self.counters.unasked += 1;
            return;
        }
        if !self.may_welcome(at, from) {
            self.counters.hellos_unanswered += 1;
            return;
        }
        let own = self.pend(at, from, limit, &offer, hello.store, len_bytes);
        self.reply(from, offer.session, Answer::Welcome { own, got_bytes: len_bytes });
    }

    /// Whether a good hello of the peer at `at` is answered: each, unless the peer is heard. Then it hardly greets, and
    /// others may do so in its name; those who do it from elsewhere do not use up what is left for where it is. Who has
    /// restarted is not heard any more: no one but it can speak in its session.
    fn may_welcome(&mut self, at: usize, from: A) -> bool {
        let Some(session) = &self.peers[at].session else { return true };
        if self.now.since(session.heard_at) >= HEARD_WITHIN * session.keepalive(self.keepalive) {
            return true;
        }
        let is_there = session.address == from;
        let ration = if is_there { &mut self.welcomes_there } else { &mut self.welcomes_elsewhere };
        ration.take(self.now)
    }

    /// The id of a session that is welcomed: the same for the same hello, for as long as there is room.
    fn pend(
        &mut self,
        at: usize,
        address: A,
        limit: u64,
        offer: &Offer,
        store: StoreId,
        hello_bytes: usize,
    ) -> u64 {
        let (own, chosen) = (self.draw_id(), self.draw() as usize % PENDING_MAX);
        let now = self.now;
        let peer = &mut self.peers[at];
        peer.expire_pending(now);
        let same = |pending: &&mut Pending<A>| pending.theirs == offer.session && pending.address == address;
        if let Some(pending) = peer.pending.iter_mut().find(same) {
            (pending.until, pending.hello_bytes) = (Pending::<A>::until(now), hello_bytes);
            return pending.own;
        }
        peer.welcomed += 1;
        let pending = Pending {
            own,
            theirs: offer.session,
            address,
            store,
            takes_bytes: offer.takes_bytes as usize,
            limit,
            hello_bytes,
            welcomed: peer.welcomed,
            until: Pending::<A>::until(now),
        };
        // Who fills the room with hellos of no one cannot tell which of them goes, so an honest one mostly stays.
        if peer.pending.len() < PENDING_MAX {
            peer.pending.push(pending);
        } else {
            peer.pending[chosen] = pending;
        }
        own
    }

    /// A datagram names a session that was welcomed: it is up now. The peer's place, and how many events that gave.
    pub(super) fn confirm(
        &mut self,
        session: u64,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> Option<(usize, usize)> {
        let find = |peer: &Peer<A>| peer.pending.iter().position(|pending| pending.own == session);
        let (at, place) = self.peers.iter().enumerate().find_map(|(at, peer)| Some((at, find(peer)?)))?;
        let pending = self.peers[at].pending[place];
        // What was welcomed before this one is of the past.
        self.peers[at].pending.retain(|other| other.welcomed > pending.welcomed);
        if check_store(self.peers[at].store, pending.store).is_err() {
            return None;
        }
        Some((at, self.establish(at, &pending, sink)))
    }

    /// A hello of ours was answered; how many events that gave.
    pub(super) fn on_welcome(
        &mut self,
        from: A,
        place: Place,
        offer: Offer,
        greeting: Greeting,
        sink: &mut impl FnMut(LinkEvent<'_>),
    ) -> usize {
        let Greeting::Welcome(welcome) = greeting else { return 0 };
        let asked =
            |peer: &Peer<A>| peer.waits_to_dial() && peer.dial.own == place.session && peer.dial.tries > 0;
        let fits = offer.takes_bytes as usize >= DATAGRAM_BYTES_MIN && place.limit >= LIMIT_MIN;
        let Some(at) = self.peers.iter().position(asked).filter(|_| fits) else {
            self.counters.unasked += 1;
            return 0;
        };
        if let Err(refusal) = self.check_welcome(at, &welcome) {
            self.counters.refused += 1;
            self.put_off(at);
            let peer = &mut self.peers[at];
            if peer.told_refusal.replace(refusal) != Some(refusal) {
                self.notices.push(match refusal {
                    Refusal::Node { found } => Notice::MixedUp { expected: peer.id, address: from, found },
                    _ => Notice::Refused { who: welcome.node, address: from, refusal },
                });
            }
            return 0;
        }
        let (own, address, sent_at) = {
            let peer = &self.peers[at];
            (peer.dial.own, peer.address, peer.dial.sent_at)
        };
        let pending = Pending {
            own,
            theirs: offer.session,
            address,
            store: welcome.store,
            takes_bytes: offer.takes_bytes as usize,
            limit: place.limit,
            hello_bytes: 0,
            welcomed: 0,
            until: self.now,
        };
        let events = self.establish(at, &pending, sink);
        let now = self.now;
        if let Some(session) = &mut self.peers[at].session {
            session.set_rtt(now.since(sent_at));
            session.carried(now, offer.got_bytes as usize);
        }
        events
    }

    /// A peer does not want us.
    pub(super) fn on_refusal(&mut self, from: A, session: u64, greeting: Greeting) {
        let Greeting::Refusal(refusal) = greeting else { return };
        let asked = |peer: &Peer<A>| peer.waits_to_dial() && peer.dial.own == session && peer.dial.tries > 0;
        let Some(at) = self.peers.iter().position(asked) else {
            self.counters.unasked += 1;
            return;
        };
        self.counters.refused += 1;
        self.put_off(at);
        let peer = &mut self.peers[at];
        if peer.told_refusal.replace(refusal) != Some(refusal) {
            self.notices.push(match refusal {
                Refusal::Meant { expected, .. } => {
                    Notice::MixedUp { expected: peer.id, address: from, found: expected }
                }
                _ => Notice::RefusedBy { peer: peer.id, address: from, refusal },
            });
        }
    }

    fn establish(&mut self, at: usize, pending: &Pending<A>, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let mut events = self.end(at, super::Why::Replaced, sink);
        let State { now, window, takes_bytes, .. } = *self;
        let peer = &mut self.peers[at];
        let mut session = Session::new(pending, window, takes_bytes, now);
        if self.reliable {
            session.trust_path();
        }
        peer.seen.reset();
        peer.kept.reset();
        peer.assembly.reset();
        if peer.store.is_none() {
            peer.store = Some(pending.store);
            self.learned.push((peer.id, pending.store));
        }
        self.counters.reconnects += u64::from(core::mem::replace(&mut peer.was_up, true));
        (peer.told_refusal, peer.dial.base) = (None, REDIAL_MIN);
        let path_bytes = session.path_bytes;
        self.notices.push(Notice::Connected { peer: peer.id, address: session.address, path_bytes });
        peer.session = Some(session);
        sink(LinkEvent::Up(peer.id));
        events += 1;
        events
    }

    /// There is a path to this address that may not have been there before: what was said into the void is said again
    /// at once, a hello as well as a welcome, and again soon after.
    pub(super) fn on_path(&mut self, address: A) {
        let now = self.now;
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            if peer.address == address && peer.waits_to_dial() {
                (peer.dial.base, peer.dial.again_at) = (REDIAL_MIN, now);
            }
            peer.expire_pending(now);
            let there = peer.pending.iter().filter(|pending| pending.address == address);
            if let Some(&Pending { own, theirs, hello_bytes, .. }) =
                there.max_by_key(|pending| pending.welcomed)
            {
                self.reply(address, theirs, Answer::Welcome { own, got_bytes: hello_bytes });
            }
        }
    }

    /// No use to ask again soon.
    fn put_off(&mut self, at: usize) {
        self.peers[at].dial.base = self.redial_max / 2;
        let pause = self.next_pause(at);
        self.peers[at].dial.again_at = self.now.after(pause);
    }

    /// Whose hello it is, if it belongs here.
    fn admit(&self, hello: &Hello) -> Result<usize, Refusal> {
        let found = self.identity.check_peer(hello)?;
        // Only a lower id dials: another one would be a second session beside the one that this end makes.
        let place = self.peers.iter().position(|peer| peer.id == found && !peer.dials);
        let place = place.ok_or(Refusal::Node { found })?;
        check_store(self.peers[place].store, hello.store)?;
        Ok(place)
    }

    fn check_welcome(&self, at: usize, welcome: &Welcome) -> Result<(), Refusal> {
        self.identity.check_welcome(self.peers[at].id, welcome)?;
        check_store(self.peers[at].store, welcome.store)
    }

    /// Who this end is, to the peer at `at`.
    pub(super) fn offer(&self, own: u64, got_bytes: usize) -> Offer {
        Offer { session: own, takes_bytes: self.takes_bytes as u32, got_bytes: got_bytes as u32 }
    }

    /// The peer's name.
    pub(super) fn id_of(&self, at: usize) -> NodeId {
        self.peers[at].id
    }
}

impl<A> Peer<A> {
    /// Whether it is with this peer that the id names a session, by the peer's own drawing.
    pub(super) fn names(&self, theirs: u64) -> bool {
        self.session.as_ref().is_some_and(|session| session.theirs == theirs)
    }
}
