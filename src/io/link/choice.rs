//! Several links to the same peers, in an order of preference: each peer is sent to over the first that reaches it.
//!
//! All of them are up at all times, as far as they can be, so that falling back is a matter of the next frame: what was
//! under way on the link that died is lost, and Raft repeats it. A peer is heard over whichever link it chooses itself.
//!
//! A link that comes back is taken again when it has stayed for a while, and for a longer while each time that it
//! failed soon after: a link that comes and goes would lose frames at every turn.

use std::fmt;
use std::time::Duration;

use super::Reporter;
use crate::io::{Full, Link, LinkEvent};
use crate::types::{NodeId, StoreId, Time};

/// How long a link that failed must have been up again before it is preferred to one that works.
const TRUST_AFTER: Duration = Duration::from_millis(500);

/// The longest such time: it doubles with every failure within [`FORGIVEN_AFTER`].
const TRUST_AFTER_MAX: Duration = Duration::from_secs(30);

/// A link that worked for so long begins anew with [`TRUST_AFTER`].
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// One of several links.
pub trait Candidate: Link {
    /// As it stands in the configuration.
    fn name(&self) -> &'static str;

    /// Whether it carries frames, or is only there for another one to be set up over.
    fn carries(&self) -> bool {
        true
    }

    /// The data directories of peers that were met for the first time since the last call. A peer is met in coming up:
    /// this is asked after a poll that told [`LinkEvent::Up`], and only then.
    fn learned(&mut self) -> Vec<(NodeId, StoreId)>;

    /// Another link has met this peer with this data directory: from now on it is refused here with any other one. What
    /// this link knows already stays.
    fn know(&mut self, peer: NodeId, store: StoreId);

    /// Gives what it has to say to the operator to `tell`, a line each.
    fn tell(&mut self, tell: &mut dyn FnMut(fmt::Arguments<'_>)) {
        let _ = tell;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Choice<C> {
    candidates: Vec<C>,
    peers: Vec<Peer>,
    /// For what the candidates say; what becomes of it is told in any case.
    notices: Reporter,
    changes: Reporter,
    /// What candidates have learned, for the node to keep.
    learned: Vec<(NodeId, StoreId)>,
    /// When a link that is up again may be taken.
    next_look: Time,
}

#[derive(Debug)]
struct Peer {
    id: NodeId,
    /// As the candidates stand to it, in their order.
    ways: Vec<Way>,
    /// Which is sent over.
    taken: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    up: bool,
    since: Time,
    /// Not taken before, unless nothing else is up.
    trusted_at: Time,
    trust_after: Duration,
    failed: bool,
}

impl<C: Candidate> Choice<C> {
    /// Over these links, the preferred first, to these peers.
    ///
    /// # Panics
    /// If there are peers and none of the links carries frames.
    pub fn new(candidates: Vec<C>, peers: impl IntoIterator<Item = NodeId>) -> Choice<C> {
        let fresh =
            Way { up: false, since: Time(0), trusted_at: Time(0), trust_after: TRUST_AFTER, failed: false };
        let peer = |id| Peer { id, ways: vec![fresh; candidates.len()], taken: None };
        let peers: Vec<Peer> = peers.into_iter().map(peer).collect();
        let reaches = candidates.iter().any(Candidate::carries);
        assert!(reaches || peers.is_empty(), "a node reaches its peers over at least one link");
        Choice {
            candidates,
            peers,
            notices: Reporter::default(),
            changes: Reporter::default(),
            learned: Vec::new(),
            next_look: Time::NEVER,
        }
    }

    /// The data directories of peers that were met for the first time since the last call. What one link has learned
    /// all others know: a peer that comes with another one is refused over each.
    pub fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        std::mem::take(&mut self.learned)
    }

    /// Over which link a peer is sent to.
    pub fn taken(&self, peer: NodeId) -> Option<&'static str> {
        let taken = self.peers.iter().find(|known| known.id == peer)?.taken?;
        Some(self.candidates[taken].name())
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|peer| peer.id)
    }

    /// The links, in their order.
    pub fn candidates(&self) -> &[C] {
        &self.candidates
    }
}

impl<C: Candidate> Link for Choice<C> {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let mut events = 0;
        let mut changed = now >= self.next_look;
        for at in 0..self.candidates.len() {
            let Choice { candidates, peers, notices, .. } = self;
            let candidate = &mut candidates[at];
            let carries = candidate.carries();
            let mut met = false;
            events += candidate.poll(now, &mut |event| match event {
                LinkEvent::Frame { .. } => sink(event),
                LinkEvent::Up(_) if !carries => met = true,
                LinkEvent::Up(id) => {
                    met = true;
                    let Some(peer) = peers.iter_mut().find(|peer| peer.id == id) else { return };
                    let news = !peer.is_up();
                    peer.ways[at].came(now);
                    changed = true;
                    if news {
                        sink(LinkEvent::Up(id));
                    }
                }
                LinkEvent::Down { peer: id, by_peer } => {
                    let Some(peer) = peers.iter_mut().find(|peer| peer.id == id) else { return };
                    if carries {
                        peer.ways[at].went(now);
                        changed = true;
                    }
                    // The peer's system has closed one of its sockets: its process has most likely ended, and others
                    // need not be waited for. The protocol looks before it leaps.
                    if by_peer || carries && !peer.is_up() {
                        sink(LinkEvent::Down { peer: id, by_peer });
                    }
                }
            });
            candidate.tell(&mut |line| notices.line(now, line));
            if met {
                self.share(at);
            }
        }
        if changed {
            self.choose(now);
        }
        events
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let taken = self.peers.iter().find(|peer| peer.id == to).and_then(|peer| peer.taken);
        // A peer that no link reaches loses the frame.
        taken.map_or(Ok(()), |taken| self.candidates[taken].send(to, parts))
    }

    fn flush(&mut self) {
        self.candidates.iter_mut().for_each(Link::flush);
    }

    fn next_wake(&self) -> Time {
        self.candidates.iter().map(Link::next_wake).min().unwrap_or(Time::NEVER).min(self.next_look)
    }

    fn is_carrying(&self, to: NodeId, given_at: Time) -> bool {
        let taken = self.peers.iter().find(|peer| peer.id == to).and_then(|peer| peer.taken);
        taken.is_some_and(|taken| self.candidates[taken].is_carrying(to, given_at))
    }
}

impl<C: Candidate> Choice<C> {
    /// Gives what one candidate has learned to all others, before any of them is polled again: each refuses by itself
    /// who comes with another data directory, and a peer that lost its log would else be taken over a link on which it
    /// was never met.
    fn share(&mut self, from: usize) {
        let before = self.learned.len();
        self.learned.extend(self.candidates[from].learned());
        for &(peer, store) in &self.learned[before..] {
            let others = self.candidates.iter_mut().enumerate().filter(|&(at, _)| at != from);
            others.for_each(|(_, other)| other.know(peer, store));
        }
    }

    fn choose(&mut self, now: Time) {
        let Choice { candidates, peers, changes, next_look, .. } = self;
        *next_look = Time::NEVER;
        for peer in peers {
            let up = |at: &usize| peer.ways[*at].up;
            let trusted = (0..candidates.len()).find(|at| up(at) && now >= peer.ways[*at].trusted_at);
            // One that has just failed is better than none.
            let best = trusted.or_else(|| (0..candidates.len()).find(up));
            let before_best = 0..best.unwrap_or(candidates.len());
            let waits = before_best.filter(up).map(|at| peer.ways[at].trusted_at).min();
            *next_look = (*next_look).min(waits.unwrap_or(Time::NEVER));
            if best == peer.taken {
                continue;
            }
            let before = core::mem::replace(&mut peer.taken, best);
            if candidates.iter().filter(|candidate| candidate.carries()).count() < 2 {
                continue;
            }
            let name = |at: usize| candidates[at].name();
            match (best, before) {
                (Some(now_at), Some(then)) if peer.ways[then].up => {
                    let again = if peer.ways[now_at].failed { "again" } else { "now" };
                    changes.line(
                        now,
                        format_args!("node {}: over {} {again}, not {}", peer.id, name(now_at), name(then)),
                    );
                }
                (Some(now_at), Some(then)) => changes.line(
                    now,
                    format_args!(
                        "node {}: {} does not reach it any more; over {} now",
                        peer.id,
                        name(then),
                        name(now_at)
                    ),
                ),
                (Some(now_at), None) => {
                    let missing: Vec<&str> =
                        (0..now_at).filter(|&at| candidates[at].carries()).map(name).collect();
                    let missing = missing.join(" and ");
                    let rest = if missing.is_empty() {
                        String::new()
                    } else {
                        format!("; {missing} did not reach it yet")
                    };
                    changes.line(now, format_args!("node {}: over {}{rest}", peer.id, name(now_at)));
                }
                (None, _) => changes.line(now, format_args!("node {}: no link reaches it", peer.id)),
            }
        }
    }
}

impl Peer {
    fn is_up(&self) -> bool {
        self.ways.iter().any(|way| way.up)
    }
}

impl Way {
    fn came(&mut self, now: Time) {
        (self.up, self.since) = (true, now);
        self.trusted_at = if self.failed { now.after(self.trust_after) } else { now };
    }

    fn went(&mut self, now: Time) {
        if !self.up {
            return;
        }
        let lasted = now.since(self.since);
        self.trust_after = if lasted >= FORGIVEN_AFTER || !self.failed {
            TRUST_AFTER
        } else {
            (2 * self.trust_after).min(TRUST_AFTER_MAX)
        };
        (self.up, self.failed) = (false, true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A link that says what a test has put in, and keeps what is sent.
    #[derive(Default)]
    struct Fake {
        name: &'static str,
        events: Vec<(bool, bool)>,
        sent: usize,
        aside: bool,
        /// The data directory with which the peer comes to it next.
        meets: Option<StoreId>,
        knows: Vec<(NodeId, StoreId)>,
    }

    const PEER: NodeId = NodeId(2);

    impl Link for Fake {
        fn poll(&mut self, _now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
            let events: Vec<(bool, bool)> = self.events.drain(..).collect();
            for &(up, by_peer) in &events {
                sink(if up { LinkEvent::Up(PEER) } else { LinkEvent::Down { peer: PEER, by_peer } });
            }
            events.len()
        }

        fn send(&mut self, _to: NodeId, _parts: &[&[u8]]) -> Result<(), Full<()>> {
            self.sent += 1;
            Ok(())
        }

        fn next_wake(&self) -> Time {
            Time::NEVER
        }
    }

    impl Candidate for Fake {
        fn name(&self) -> &'static str {
            self.name
        }

        fn carries(&self) -> bool {
            !self.aside
        }

        fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
            self.meets.take().map(|store| (PEER, store)).into_iter().collect()
        }

        fn know(&mut self, peer: NodeId, store: StoreId) {
            self.knows.push((peer, store));
        }
    }

    fn two() -> Choice<Fake> {
        let fake = |name| Fake { name, ..Fake::default() };
        Choice::new(vec![fake("udp"), fake("tcp")], [PEER])
    }

    /// Polls at so many milliseconds after one candidate has told something, and returns what the lane is told.
    fn poll(choice: &mut Choice<Fake>, at_ms: u64, told: Option<(usize, bool, bool)>) -> Vec<String> {
        if let Some((candidate, up, by_peer)) = told {
            choice.candidates[candidate].events.push((up, by_peer));
        }
        let mut heard = Vec::new();
        choice.poll(at(at_ms), &mut |event| heard.push(format!("{event:?}")));
        heard
    }

    fn at(at_ms: u64) -> Time {
        Time(0).after(Duration::from_millis(at_ms))
    }

    const UP: &str = "Up(NodeId(2))";
    const DOWN: &str = "Down { peer: NodeId(2), by_peer: false }";

    #[test]
    fn the_preferred_link_is_taken_as_soon_as_it_is_there() {
        let mut choice = two();
        choice.send(PEER, &[b"lost"]).unwrap();
        assert_eq!(poll(&mut choice, 0, Some((1, true, false))), [UP]);
        assert_eq!(choice.taken(PEER), Some("tcp"));
        assert_eq!(poll(&mut choice, 1, Some((0, true, false))), [""; 0]);
        assert_eq!(choice.taken(PEER), Some("udp"));
        choice.send(PEER, &[b"sent"]).unwrap();
        assert_eq!((choice.candidates[0].sent, choice.candidates[1].sent), (1, 0));
        assert_eq!(
            choice.changes.lines,
            ["node 2: over tcp; udp did not reach it yet", "node 2: over udp now, not tcp"]
        );
    }

    /// A link that has never met a peer would take one that lost its log.
    #[test]
    fn what_one_link_has_learned_all_others_know_before_they_are_polled_again() {
        let fakes = ["udp", "tcp", "rdma"].map(|name| Fake { name, ..Fake::default() });
        let mut choice = Choice::new(fakes.into(), [PEER]);
        poll(&mut choice, 0, None);
        assert_eq!(choice.learned(), []);
        choice.candidates[1].meets = Some(StoreId(7));
        poll(&mut choice, 1, Some((1, true, false)));
        let knows =
            |choice: &Choice<Fake>| choice.candidates.iter().map(|fake| fake.knows.len()).collect::<Vec<_>>();
        assert_eq!(knows(&choice), [1, 0, 1]);
        assert_eq!(choice.candidates[0].knows, [(PEER, StoreId(7))]);
        // One that sets another up and carries nothing has met it as well.
        choice.candidates[2].aside = true;
        choice.candidates[2].meets = Some(StoreId(7));
        poll(&mut choice, 2, Some((2, true, false)));
        assert_eq!(knows(&choice), [2, 1, 1]);
        assert_eq!(choice.learned(), [(PEER, StoreId(7)); 2]);
        assert_eq!(choice.learned(), []);
        poll(&mut choice, 3, Some((0, true, false)));
        assert_eq!(knows(&choice), [2, 1, 1], "nothing was learned");
    }

    #[test]
    fn a_link_that_dies_is_left_and_taken_again_when_it_has_stayed() {
        let mut choice = two();
        poll(&mut choice, 0, Some((0, true, false)));
        poll(&mut choice, 0, Some((1, true, false)));
        assert_eq!(poll(&mut choice, 10, Some((0, false, false))), [""; 0], "another link reaches it");
        assert_eq!(choice.taken(PEER), Some("tcp"));
        poll(&mut choice, 20, Some((0, true, false)));
        assert_eq!((choice.taken(PEER), choice.next_wake()), (Some("tcp"), at(520)));
        poll(&mut choice, 519, None);
        assert_eq!(choice.taken(PEER), Some("tcp"));
        poll(&mut choice, 520, None);
        assert_eq!((choice.taken(PEER), choice.next_wake()), (Some("udp"), Time::NEVER));
        // It fails again soon: it is waited for twice as long.
        poll(&mut choice, 600, Some((0, false, false)));
        poll(&mut choice, 700, Some((0, true, false)));
        assert_eq!(choice.next_wake(), at(1700));
        // One that has just failed is better than none.
        assert_eq!(poll(&mut choice, 800, Some((1, false, false))), [""; 0]);
        assert_eq!(choice.taken(PEER), Some("udp"));
        assert_eq!(poll(&mut choice, 900, Some((0, false, false))), [DOWN]);
        assert_eq!(choice.taken(PEER), None);
    }

    #[test]
    fn a_long_good_time_is_remembered() {
        let mut choice = two();
        for fall in 0..10 {
            poll(&mut choice, fall * 100_000, Some((0, true, false)));
            poll(&mut choice, fall * 100_000 + 70_000, Some((0, false, false)));
            assert_eq!(choice.peers[0].ways[0].trust_after, TRUST_AFTER);
        }
        for fall in 0..10 {
            poll(&mut choice, 2_000_000 + fall * 1000, Some((0, true, false)));
            poll(&mut choice, 2_000_000 + fall * 1000 + 1, Some((0, false, false)));
        }
        assert_eq!(choice.peers[0].ways[0].trust_after, TRUST_AFTER_MAX);
    }

    #[test]
    fn a_peer_that_closes_is_told_of_although_another_link_has_not_noticed() {
        let mut choice = two();
        poll(&mut choice, 0, Some((0, true, false)));
        poll(&mut choice, 0, Some((1, true, false)));
        assert_eq!(poll(&mut choice, 5, Some((1, false, true))), ["Down { peer: NodeId(2), by_peer: true }"]);
        assert_eq!(choice.taken(PEER), Some("udp"));
    }

    #[test]
    fn what_is_only_there_to_set_another_up_carries_nothing() {
        let fake = |name, aside| Fake { name, aside, ..Fake::default() };
        let mut choice = Choice::new(vec![fake("rdma", false), fake("tcp", true)], [PEER]);
        assert_eq!(poll(&mut choice, 0, Some((1, true, false))), [""; 0]);
        assert_eq!(choice.taken(PEER), None);
        assert_eq!(poll(&mut choice, 1, Some((0, true, false))), [UP]);
        assert_eq!(choice.taken(PEER), Some("rdma"));
    }
}
