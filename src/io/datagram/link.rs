//! [`DatagramLink`]: what it is made of, and the order in which a poll goes.

use alloc::vec::Vec;
use core::time::Duration;

use super::assembly::Assembly;
use super::drawn::Drawn;
use super::kept::Kept;
use super::notice::{Notices, Why};
use super::numbers::{Seen, window_of};
use super::peer::{Dial, KEEPALIVE_MAX, Peer, REDIAL_MIN};
use super::ration::Ration;
use super::{Carrier, Counters, DATAGRAM_BYTES_MIN, Notice, WINDOW_MIN};
use crate::io::{Full, Link, LinkEvent};
use crate::limits::{FRAME_BYTES_MAX, PEER_OUTGOING_BYTES_MAX};
use crate::types::{NodeId, StoreId, Time};
use crate::wire::hello::Greeting;
use crate::wire::identity::Identity;

/// Answers to greetings and to strangers that one poll gives; beyond, they are not answered.
const REPLIES_MAX: usize = 64;

/// Answers to what anybody can send, of each sort: to who names a session that is not known, or greets and does not
/// belong here, and to hellos of a peer that is heard. Each costs more than what it answers, and who is honest asks
/// again: so many at once, and then one at a time, so that a flood is dropped and not answered.
const ANSWERS_MAX: u32 = 8;
const ANSWER_PAUSE: Duration = Duration::from_millis(1);

/// Hellos that are refused and of which the operator is told.
const REFUSALS_TOLD_MAX: u32 = 8;
const REFUSAL_TOLD_PAUSE: Duration = Duration::from_millis(100);

/// After a carrier was full it is tried again this soon, if it does not say so itself.
const FULL_PAUSE: Duration = Duration::from_micros(50);

/// What a link is told when it is made.
#[derive(Clone, Debug)]
pub struct Options<A> {
    /// Who this end is.
    pub identity: Identity,
    /// The other members, and where each takes datagrams for this lane. One that dials this node may come from
    /// elsewhere, and is answered there.
    pub peers: Vec<(NodeId, A)>,
    /// The data directories of peers that are known from earlier lives of this node.
    pub stores: Vec<(NodeId, StoreId)>,
    /// Session ids are drawn under it: another one in every life, and all of it such that a stranger cannot guess it.
    /// Who has seen some ids can tell no others.
    pub seed: u128,
    /// The memory per peer for frames longer than a datagram that wait for credits or may have to be repaired, at least
    /// two of the longest frames. Beyond, sends are refused as `Full`; long frames that wait take half of it at most.
    pub kept_bytes: usize,
    /// A peer of which nothing was heard for so long is taken for gone. Peers that allow this end as much are told
    /// often enough that it is there.
    pub unheard: Duration,
    /// The longest pause before dialling again.
    pub redial_max: Duration,
}

impl<A> Options<A> {
    /// With the bounds that fit most.
    pub fn new(
        identity: Identity,
        peers: Vec<(NodeId, A)>,
        stores: Vec<(NodeId, StoreId)>,
        seed: u128,
    ) -> Self {
        Options {
            identity,
            peers,
            stores,
            seed,
            kept_bytes: 2 * PEER_OUTGOING_BYTES_MAX,
            unheard: Duration::from_secs(2),
            redial_max: Duration::from_millis(200),
        }
    }
}

/// Frames to and from the same lane of every peer, over a carrier of datagrams. See the module.
///
/// Dropping it tells its peers that it is gone.
#[derive(Debug)]
pub struct DatagramLink<C: Carrier> {
    pub(super) carrier: C,
    pub(super) state: State<C::Address>,
    /// The memory of a datagram's list of parts, kept from one to the next.
    pub(super) list: Vec<&'static [u8]>,
    /// What is to be said besides frames waits for the next poll.
    puts_off: bool,
}

/// All but the carrier, which is busy while it hands over what has come.
#[derive(Debug)]
pub(super) struct State<A> {
    pub(super) identity: Identity,
    pub(super) peers: Vec<Peer<A>>,
    pub(super) replies: Vec<Reply<A>>,
    /// Answers that refuse.
    refusals: Ration,
    /// What the operator is told of refused hellos: every one may give another reason.
    pub(super) refusals_told: Ration,
    /// Welcomes to who greets as a peer that is heard: from where it is, and from elsewhere.
    pub(super) welcomes_there: Ration,
    pub(super) welcomes_elsewhere: Ration,
    pub(super) learned: Vec<(NodeId, StoreId)>,
    pub(super) notices: Notices<A>,
    pub(super) counters: Counters,
    drawn: Drawn,
    /// The carrier's own words.
    pub(super) reliable: bool,
    /// The longest datagram of the carrier.
    pub(super) takes_bytes: usize,
    /// The window that peers are told.
    pub(super) window: u64,
    pub(super) unheard: Duration,
    /// A peer hears something at least so often.
    pub(super) keepalive: Duration,
    pub(super) redial_max: Duration,
    /// At the last poll.
    pub(super) now: Time,
    /// The carrier took no more at that time.
    pub(super) full_at: Option<Time>,
}

/// An answer to somebody with whom there is no session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<A> {
    pub(super) to: A,
    /// What it names.
    pub(super) session: u64,
    pub(super) what: Answer,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// With the id that was drawn here, and as long as the hello was.
    Welcome {
        own: u64,
        got_bytes: usize,
    },
    Refusal(Greeting),
    Unknown,
}

impl<C: Carrier> Link for DatagramLink<C> {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let DatagramLink { carrier, state, .. } = self;
        (state.now, state.full_at) = (now, None);
        let mut events = 0;
        let taken = carrier.poll(now, &mut |arrival| events += state.arrived(arrival, sink));
        for place in 0..self.state.peers.len() {
            events += self.state.look_after(place, sink);
        }
        // What came may be what a commit waits for: its frames go before credits, repair and greetings, which each cost
        // a send and can be asked for by a flood. They wait for the next turn, and no longer.
        self.puts_off = taken > 0 && !self.puts_off;
        if !self.puts_off {
            self.answer();
        }
        self.carrier.flush();
        taken.max(events)
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let Some(place) = self.state.peers.iter().position(|peer| peer.id == to) else { return Ok(()) };
        if self.state.peers[place].session.is_none() {
            return Ok(());
        }
        let len_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(len_bytes <= FRAME_BYTES_MAX, "a frame of {len_bytes} bytes");
        let sent = self.send_frame(place, parts, len_bytes);
        let counters = &mut self.state.counters;
        if sent.is_ok() {
            counters.frames_out += 1;
            counters.bytes_out += len_bytes as u64;
        } else {
            counters.full += 1;
        }
        sent
    }

    fn flush(&mut self) {
        for place in 0..self.state.peers.len() {
            self.send_fragments(place);
        }
        self.carrier.flush();
    }

    fn next_wake(&self) -> Time {
        if self.puts_off {
            return Time(0);
        }
        let state = &self.state;
        let peers = state.peers.iter().map(|peer| peer.next_wake(state.unheard, state.keepalive)).min();
        let not_before = state.full_at.map_or(Time(0), |at| at.after(FULL_PAUSE));
        peers.unwrap_or(Time::NEVER).max(not_before).min(self.carrier.next_wake())
    }

    fn is_carrying(&self, to: NodeId, given_at: Time) -> bool {
        let peer = self.state.peers.iter().find(|peer| peer.id == to);
        peer.is_some_and(|peer| peer.is_carrying(self.state.now, given_at))
    }
}

impl<C: Carrier> DatagramLink<C> {
    /// From now on a peer is taken for gone only after this silence; it hears from this end as often as before.
    pub fn allow_silence(&mut self, unheard: Duration) {
        self.state.unheard = unheard;
    }

    /// A link that dials at its first poll. Everything that it ever needs is allocated here, when a peer first comes
    /// up, or when the first frames of a size come.
    ///
    /// # Panics
    /// If this node's id is 0, or it is among its own peers; if the carrier's datagrams are shorter than
    /// [`DATAGRAM_BYTES_MIN`] or its window smaller than [`WINDOW_MIN`]; if two of the longest frames are more than is
    /// kept.
    pub fn new(options: Options<C::Address>, carrier: C) -> DatagramLink<C> {
        let Options { identity, peers, stores, seed, kept_bytes, unheard, redial_max } = options;
        let (takes_bytes, window) = (carrier.datagram_bytes_max(), carrier.window());
        assert!(identity.node != NodeId(0), "0 is no node's id");
        assert!(peers.iter().all(|(id, _)| *id != identity.node), "a node is not its own peer");
        assert!(takes_bytes >= DATAGRAM_BYTES_MIN, "datagrams of {takes_bytes} bytes are too short");
        assert!(window >= WINDOW_MIN, "a window of {window} datagrams is too small");
        assert!(
            kept_bytes >= 2 * FRAME_BYTES_MAX,
            "{kept_bytes} bytes keep less than two of the longest frames"
        );
        let window = window_of(window);
        let ration = || Ration::new(ANSWERS_MAX, ANSWER_PAUSE);
        let mut state = State {
            identity,
            peers: Vec::with_capacity(peers.len()),
            replies: Vec::with_capacity(REPLIES_MAX),
            refusals: ration(),
            refusals_told: Ration::new(REFUSALS_TOLD_MAX, REFUSAL_TOLD_PAUSE),
            welcomes_there: ration(),
            welcomes_elsewhere: ration(),
            learned: Vec::new(),
            notices: Notices::new(),
            counters: Counters::default(),
            drawn: Drawn::new(seed),
            reliable: C::RELIABLE,
            takes_bytes,
            window,
            unheard,
            keepalive: KEEPALIVE_MAX.min(unheard / 4),
            redial_max: redial_max.max(2 * REDIAL_MIN),
            now: Time(0),
            full_at: None,
        };
        for (id, address) in peers {
            let own = state.draw_id();
            let dial = Dial { own, tries: 0, sent_at: Time(0), again_at: Time(0), base: REDIAL_MIN };
            state.peers.push(Peer {
                id,
                address,
                dials: identity.node < id,
                store: stores.iter().find(|(known, _)| *known == id).map(|(_, store)| *store),
                dial,
                pending: Vec::with_capacity(super::peer::PENDING_MAX),
                welcomed: 0,
                session: None,
                seen: Seen::new(window),
                kept: Kept::new(kept_bytes),
                assembly: Assembly::new(),
                told_refusal: None,
                was_up: false,
            });
        }
        DatagramLink { carrier, state, list: Vec::with_capacity(1024), puts_off: false }
    }

    /// Whether frames can be sent to this peer.
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.state.peers.iter().any(|known| known.id == peer && known.session.is_some())
    }

    /// The data directories of peers that were met for the first time since the last call, for the node to keep: given
    /// to the next life's [`Options::stores`], a peer that lost its log between is refused.
    pub fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        core::mem::take(&mut self.state.learned)
    }

    /// This peer was met with this data directory elsewhere: with another one it is refused from now on. What is known
    /// already stays, and none of it is told by [`DatagramLink::learned`].
    pub fn know(&mut self, peer: NodeId, store: StoreId) {
        if let Some(known) = self.state.peers.iter_mut().find(|known| known.id == peer) {
            known.store.get_or_insert(store);
        }
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// What it has to tell an operator, oldest first; `None` when all is told. A bounded number is kept.
    pub fn notice(&mut self) -> Option<Notice<C::Address>> {
        self.state.notices.next()
    }

    /// What moves the datagrams.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    /// The same, to be changed.
    pub fn carrier_mut(&mut self) -> &mut C {
        &mut self.carrier
    }
}

impl<C: Carrier> Drop for DatagramLink<C> {
    fn drop(&mut self) {
        self.say_bye();
    }
}

impl<A: Copy + Eq> State<A> {
    /// A number that nobody can tell who does not know the seed.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn.next()
    }

    /// The id of a session: never 0.
    pub(super) fn draw_id(&mut self) -> u64 {
        self.draw() | 1
    }

    /// What is due at one peer, but for what is to be sent; how many events that gave.
    fn look_after(&mut self, place: usize, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let (now, unheard) = (self.now, self.unheard);
        let peer = &mut self.peers[place];
        peer.expire_pending(now);
        let Some(session) = &peer.session else { return 0 };
        peer.kept.expire(now);
        peer.seen.waste(peer.assembly.take_wasted());
        peer.seen.forgive(now);
        let Some(why) = session.is_over(now, unheard) else { return 0 };
        self.counters.unheard += u64::from(matches!(why, Why::Unheard(_) | Why::Unanswered));
        self.end(place, why, sink)
    }

    /// A session has ended; how many events that gave.
    pub(super) fn end(&mut self, place: usize, why: Why, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let Some(session) = self.peers[place].session.take() else { return 0 };
        let own = self.draw_id();
        let pause = self.next_pause(place);
        let now = self.now;
        let peer = &mut self.peers[place];
        (peer.dial.own, peer.dial.tries, peer.dial.again_at) = (own, 0, now.after(pause));
        self.notices.push(Notice::Ended { peer: peer.id, address: session.address, why });
        sink(LinkEvent::Down { peer: peer.id, by_peer: why.by_peer() });
        1
    }

    /// How long to wait before the next hello, never in step with others.
    pub(super) fn next_pause(&mut self, place: usize) -> Duration {
        let drawn = self.draw();
        let dial = &mut self.peers[place].dial;
        let base = dial.base;
        dial.base = (base * 2).min(self.redial_max / 2);
        base + Duration::from_nanos(drawn % (base.as_nanos() as u64).max(1))
    }

    /// To be sent after what has come was taken in.
    pub(super) fn reply(&mut self, to: A, session: u64, what: Answer) {
        let welcomes = matches!(what, Answer::Welcome { .. });
        if self.replies.len() < REPLIES_MAX && (welcomes || self.refusals.take(self.now)) {
            self.replies.push(Reply { to, session, what });
        } else {
            self.counters.unanswered += 1;
        }
    }
}
