//! What a link knows about one peer: the session that is up, if one is, and those that may come to be.

use alloc::vec::Vec;
use core::time::Duration;

use super::assembly::Assembly;
use super::kept::Kept;
use super::notice::Why;
use super::numbers::{Class, Credits, Seen};
use crate::types::{NodeId, StoreId, Time};
use crate::wire::datagram::HEADER_BYTES;
use crate::wire::hello::Refusal;

/// The first pause before dialling again is between this and twice this.
pub(super) const REDIAL_MIN: Duration = Duration::from_millis(10);

/// Sessions of one peer that were welcomed and not confirmed, at most.
pub(super) const PENDING_MAX: usize = 16;

/// How long a welcome may wait for what confirms it.
const PENDING_FOR: Duration = Duration::from_secs(2);

/// The longest time in which a peer hears nothing.
pub(super) const KEEPALIVE_MAX: Duration = Duration::from_millis(100);

/// The shortest time in which an answer is expected.
const RTT_MIN: Duration = Duration::from_micros(200);

/// The longest time that is waited for what is missing, before it is asked for.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The longest pause between two requests for credits.
const STARVED_PAUSE_MAX: Duration = Duration::from_millis(250);

/// How long a peer that is said to be gone has for an answer, at least.
const SUSPECT_FOR: Duration = Duration::from_millis(4);

/// How often it is asked in that time, about.
const SUSPECT_ASKS: u32 = 4;

/// A path that carries all it is configured to is asked so often whether it still does. What is too long for it is lost
/// until that is found out, and heartbeats pass: with [`PATH_MISSES`] it is found within a second.
const PATH_CHECK: Duration = Duration::from_millis(400);

/// A path that does not answer, or is known to be narrow, is asked this soon at first.
const PATH_PROBE_MIN: Duration = Duration::from_millis(20);

/// And this seldom at last, if it is narrow.
const PATH_PROBE_MAX: Duration = Duration::from_secs(2);

/// So many long probes without an answer, and a path that carried long datagrams is taken for narrow. From the second
/// one on they count only if a short probe that was sent beside the long one was answered: where nothing arrives at
/// all, for a moment, or a part of everything is lost, length is not to blame. Of 100 probes on a path that loses 30 of
/// 100 datagrams 49 are answered, and of 15 only the short one is: that the first is missed, and the latter happens
/// eleven times before the former, has a chance of one in 20 million, once in three months. With four misses it would
/// be once in a minute.
const PATH_MISSES: u32 = 12;

/// After so many probes without an answer the pauses between them double, each time, up to [`PATH_CHECK`].
const PATH_TRIES_AT_ONE_PACE: u32 = 16;

/// So many at the beginning, and the operator is told that it is.
const PATH_MISSES_AT_FIRST: u32 = 4;

/// What is sent on a path that does not carry what is configured.
pub(super) fn fallback_bytes(wanted: usize) -> usize {
    const USUAL: usize = 1200;
    if wanted > USUAL { USUAL } else { super::DATAGRAM_BYTES_MIN }
}

#[derive(Debug)]
pub(super) struct Peer<A> {
    pub(super) id: NodeId,
    /// As configured.
    pub(super) address: A,
    /// Whether this end dials.
    pub(super) dials: bool,
    pub(super) store: Option<StoreId>,
    pub(super) dial: Dial,
    pub(super) pending: Vec<Pending<A>>,
    /// Welcomes given so far: tells which of two pending sessions is older.
    pub(super) welcomed: u64,
    pub(super) session: Option<Session<A>>,
    /// Memory that goes from session to session.
    pub(super) seen: Seen,
    pub(super) kept: Kept,
    pub(super) assembly: Assembly,
    /// The last refusal told to the operator.
    pub(super) told_refusal: Option<Refusal>,
    pub(super) was_up: bool,
}

/// An attempt to get a session.
#[derive(Debug)]
pub(super) struct Dial {
    /// The id that this end drew for it.
    pub(super) own: u64,
    /// Hellos sent.
    pub(super) tries: u32,
    /// When the last one was.
    pub(super) sent_at: Time,
    pub(super) again_at: Time,
    pub(super) base: Duration,
}

/// A session that was welcomed here and that nobody has used yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending<A> {
    pub(super) own: u64,
    pub(super) theirs: u64,
    pub(super) address: A,
    pub(super) store: StoreId,
    pub(super) takes_bytes: usize,
    pub(super) limit: u64,
    /// How long its hello was when it came.
    pub(super) hello_bytes: usize,
    pub(super) welcomed: u64,
    pub(super) until: Time,
}

/// Both ends know each other.
#[derive(Debug)]
pub(super) struct Session<A> {
    pub(super) address: A,
    /// What the peer's datagrams name.
    pub(super) own: u64,
    /// What ours name.
    pub(super) theirs: u64,
    pub(super) credits: Credits,
    pub(super) heard_at: Time,
    /// Something has come that names this session: the other end believes in it.
    pub(super) heard: bool,
    pub(super) spoke_at: Time,
    /// The longest datagram that both ends take.
    pub(super) wanted_bytes: usize,
    /// The longest that the path is known to carry.
    pub(super) path_bytes: usize,
    pub(super) path: PathProbe,
    /// Smoothed.
    pub(super) rtt: Duration,
    /// The number of the last probe.
    pub(super) probe: u32,
    pub(super) probe_at: Time,
    /// A probe of the peer to be answered: its number, and how long it was.
    pub(super) echo: Option<(u32, usize)>,
    /// There was something to send and no credit for it: since when more is asked for at which pauses.
    pub(super) starved: Option<Asking>,
    /// The path was said to lead nowhere.
    pub(super) suspect: Option<Suspicion>,
    /// Somebody has to hear at once that this session is there.
    pub(super) speaks: bool,
}

/// It is asked whether the session is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    pub(super) asking: Asking,
    /// Why it is, if nobody answers.
    why: Why,
}

/// Something that is asked for again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) since: Time,
    pub(super) next_at: Time,
    pub(super) pause: Duration,
}

/// The search for the longest datagram that the path carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathProbe {
    pub(super) next_at: Time,
    pub(super) pause: Duration,
    /// The number of the last long probe, until it is answered.
    pub(super) waits_for: Option<u32>,
    /// The number of a short probe that was sent beside it, until that is answered.
    pub(super) beside: Option<u32>,
    /// The short one was answered.
    beside_came: bool,
    /// Long probes since the last that was answered.
    tries: u32,
    /// Those of them whose length is to blame. See [`PATH_MISSES`].
    misses: u32,
    /// The operator knows that the path is narrow.
    pub(super) told: bool,
}

impl<A: Copy> Peer<A> {
    pub(super) fn waits_to_dial(&self) -> bool {
        self.dials && self.session.is_none()
    }

    /// Forgets welcomes that nobody took up.
    pub(super) fn expire_pending(&mut self, now: Time) {
        self.pending.retain(|pending| now < pending.until);
    }

    /// See [`crate::io::Link::is_carrying`].
    pub(super) fn is_carrying(&self, now: Time, given_at: Time) -> bool {
        let Some(session) = &self.session else { return false };
        // What is missed is asked for after a wait, and comes a round trip later.
        self.kept.is_carrying(now, given_at, 2 * session.wait())
    }

    /// When it wants to be looked after, of itself.
    pub(super) fn next_wake(&self, unheard: Duration, keepalive: Duration) -> Time {
        let Some(session) = &self.session else {
            return if self.dials { self.dial.again_at } else { Time::NEVER };
        };
        let asking = |asking: &Option<Asking>| asking.map_or(Time::NEVER, |asking| asking.next_at);
        let timers = [
            session.heard_at.after(unheard),
            session.spoke_at.after(session.keepalive(keepalive)),
            session.path.next_at,
            asking(&session.starved),
            asking(&session.suspect.map(|suspicion| suspicion.asking)),
            self.assembly.next_wake(),
            self.seen.owes_at(),
        ];
        let owes = session.echo.is_some() || self.seen.owes();
        let ready = owes && session.credits.has(Class::Control)
            || session.speaks
            || self.kept.has_work() && session.credits.has(Class::Fragment);
        if ready { Time(0) } else { timers.into_iter().min().unwrap_or(Time::NEVER) }
    }
}

impl<A: Copy> Pending<A> {
    /// How long it is kept.
    pub(super) fn until(now: Time) -> Time {
        now.after(PENDING_FOR)
    }
}

impl<A: Copy> Session<A> {
    pub(super) fn new(pending: &Pending<A>, own_window: u64, own_max: usize, now: Time) -> Session<A> {
        let wanted_bytes = own_max.min(pending.takes_bytes);
        Session {
            address: pending.address,
            own: pending.own,
            theirs: pending.theirs,
            credits: Credits::new(pending.limit, own_window),
            heard_at: now,
            heard: false,
            spoke_at: now,
            wanted_bytes,
            path_bytes: fallback_bytes(wanted_bytes),
            path: PathProbe::new(now),
            rtt: 5 * RTT_MIN,
            probe: 0,
            probe_at: now,
            echo: None,
            starved: None,
            suspect: None,
            speaks: true,
        }
    }

    /// How many bytes of a frame go into one of its fragments.
    pub(super) fn unit(&self) -> usize {
        (self.path_bytes - HEADER_BYTES).min(crate::wire::datagram::UNIT_BYTES_MAX) & !7
    }

    /// How long it takes until what was sent has been answered, mostly.
    pub(super) fn wait(&self) -> Duration {
        (self.rtt + self.rtt / 2).clamp(RTT_MIN, WAIT_MAX)
    }

    /// After how long a silence something is said, where `keepalive` is usual: a few may be lost before the peer takes
    /// this end for gone. Who welcomed does not know that the session is up before it hears so.
    pub(super) fn keepalive(&self, keepalive: Duration) -> Duration {
        if self.heard { keepalive } else { keepalive.min(2 * self.wait()) }
    }

    /// A round trip was measured.
    pub(super) fn measured(&mut self, rtt: Duration) {
        let rtt = rtt.clamp(RTT_MIN, WAIT_MAX);
        self.rtt = (7 * self.rtt + rtt) / 8;
    }

    /// The first measure.
    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt.clamp(RTT_MIN, WAIT_MAX);
    }

    /// There is something to send and no credit for it.
    pub(super) fn starve(&mut self, now: Time) {
        let pause = self.wait().max(Duration::from_millis(1));
        self.starved.get_or_insert(Asking { since: now, next_at: now.after(pause), pause });
    }

    /// The path is said to lead nowhere, and why: it is asked whether that is so.
    pub(super) fn suspect(&mut self, now: Time, why: Why) {
        let pause = SUSPECT_FOR.max(4 * self.rtt) / SUSPECT_ASKS;
        let asking = Asking { since: now, next_at: now, pause };
        let suspicion = self.suspect.get_or_insert(Suspicion { asking, why });
        // Of several hints the one that says more.
        if why.by_peer() {
            suspicion.why = why;
        }
    }

    /// Whether the session is over, and why.
    pub(super) fn is_over(&self, now: Time, unheard: Duration) -> Option<Why> {
        if let Some(Suspicion { asking: Asking { since, pause, .. }, why }) = self.suspect
            && now.since(since) >= SUSPECT_ASKS * pause
        {
            return Some(why);
        }
        // A hello needs no credits, and what the peer still says here is answered: it does not know the session any
        // more.
        if !self.credits.has(Class::Probe) && now.since(self.probe_at) >= STARVED_PAUSE_MAX {
            return Some(Why::Unanswered);
        }
        (now.since(self.heard_at) >= unheard).then_some(Why::Unheard(unheard))
    }

    /// A long probe is due: what became of the last one is settled. Whether the path has just been found narrow, for
    /// the operator.
    pub(super) fn path_probe_due(&mut self, now: Time) -> bool {
        let carries = self.path_bytes == self.wanted_bytes;
        let path = &mut self.path;
        let missed = path.waits_for.take().is_some();
        let to_blame = !path.asks_beside() || path.beside_came || !carries;
        path.misses += u32::from(missed && to_blame);
        (path.beside, path.beside_came) = (None, false);
        if carries && path.misses >= PATH_MISSES {
            self.path_bytes = fallback_bytes(self.wanted_bytes);
            path.pause = PATH_PROBE_MIN;
        }
        path.tries = path.tries.saturating_add(1);
        if self.path_bytes == self.wanted_bytes {
            let doubled = (path.tries / PATH_TRIES_AT_ONE_PACE).min(8);
            path.next_at = now.after((PATH_PROBE_MIN * (1 << doubled)).min(PATH_CHECK).max(2 * self.rtt));
        } else {
            path.next_at = now.after(path.pause.max(2 * self.rtt));
            path.pause = (2 * path.pause).min(PATH_PROBE_MAX);
        }
        let narrow = self.path_bytes < self.wanted_bytes && path.misses >= PATH_MISSES_AT_FIRST;
        narrow && !core::mem::replace(&mut path.told, true)
    }

    /// The path is said to carry less than what it carried: it is asked at once whether that is so. It is asked already
    /// if an answer is missing.
    pub(super) fn doubt_path(&mut self, now: Time) {
        let path = &mut self.path;
        if self.path_bytes == self.wanted_bytes && path.tries == 0 && path.next_at != Time::NEVER {
            (path.tries, path.misses, path.next_at) = (1, 1, now);
        }
    }

    /// The carrier sees to it that the path carries what it takes.
    pub(super) fn trust_path(&mut self) {
        (self.path_bytes, self.path.next_at) = (self.wanted_bytes, Time::NEVER);
    }

    /// A hello of this length was carried.
    pub(super) fn carried(&mut self, now: Time, got_bytes: usize) {
        if got_bytes >= self.wanted_bytes && self.path.next_at != Time::NEVER {
            self.path_bytes = self.wanted_bytes;
            self.path.answered(now);
        }
    }

    /// A probe was answered, which was `got_bytes` long when it came. Whether the operator believes the path to be
    /// narrow, and it is not.
    pub(super) fn echoed(&mut self, now: Time, echo: u32, got_bytes: usize) -> bool {
        if echo == self.probe && got_bytes > 0 {
            self.measured(now.since(self.probe_at));
        }
        self.path.beside_came |= self.path.beside == Some(echo);
        if self.path.waits_for != Some(echo) || got_bytes < self.wanted_bytes {
            return false;
        }
        self.path_bytes = self.wanted_bytes;
        self.path.answered(now);
        core::mem::replace(&mut self.path.told, false)
    }
}

impl PathProbe {
    fn new(now: Time) -> PathProbe {
        PathProbe {
            next_at: now,
            pause: PATH_PROBE_MIN,
            waits_for: None,
            beside: None,
            beside_came: false,
            tries: 0,
            misses: 0,
            told: false,
        }
    }

    /// The path carries what it is to carry.
    fn answered(&mut self, now: Time) {
        *self = PathProbe { told: self.told, ..PathProbe::new(now.after(PATH_CHECK)) };
    }

    /// Whether a short probe goes beside the next long one: an answer is missing.
    pub(super) fn asks_beside(&self) -> bool {
        self.misses > 0
    }
}

impl Asking {
    /// Whether it is time to ask; the next time is settled.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let due = self.next_at <= now;
        if due {
            self.next_at = now.after(self.pause);
        }
        due
    }

    /// As [`Asking::is_due`], and the pauses grow.
    pub(super) fn is_due_slower(&mut self, now: Time) -> bool {
        let due = self.next_at <= now;
        if due {
            self.pause = (2 * self.pause).min(STARVED_PAUSE_MAX);
            self.next_at = now.after(self.pause);
        }
        due
    }
}
