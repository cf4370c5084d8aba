//! What a leader knows of one follower, and how much it may send it.
//!
//! *Probe*: where the logs part is not known. One append with entries goes out; until it or a heartbeat is answered
//! only heartbeats follow, which carry no entries. *Replicate*: appends follow each other without waiting, within a
//! window of bytes and appends. The window in appends begins small after every probe and doubles with each
//! acknowledgement that brings news: a follower that has no room and drops what it gets is not sent the whole window
//! again and again.
//!
//! Every heartbeat names the entry before `next` as its previous one, the last that was sent. A follower that lost an
//! append refuses it, and so a loss is known after one heartbeat that arrives, while a follower whose disk is merely
//! slow accepts it and is sent nothing twice. No timer on unanswered appends is needed. Where a heartbeat can overtake
//! the appends before it, its refusal says nothing while the oldest of these is still being carried: the caller knows
//! that by the time at which it was sent, and hands the refusal in as [`super::Input::Overtaken`].

use alloc::collections::VecDeque;

use crate::limits::{APPEND_BYTES_MAX, ENTRY_BYTES_MAX, INFLIGHT_APPENDS_MAX, INFLIGHT_BYTES_MAX};
use crate::types::{Index, NodeId, Time};

/// How many appends may be under way at first after a probe.
const WINDOW_FIRST: usize = 2;

/// What a probe may carry a second time.
const SHORT_BYTES_MAX: u64 = 16 << 10;

/// How a follower is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Probe {
        /// What went out and was not answered yet: an append, perhaps an empty one.
        asked: Option<Sent>,
    },
    Replicate,
}

/// One append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    last: Index,
    bytes: u64,
    at: Time,
}

impl Sent {
    /// Whether it is not sent again before it must have been lost. A short one goes again when the heartbeat behind it
    /// is answered first, which spares a wait for the next one if it was lost.
    fn is_long(&self) -> bool {
        self.bytes > SHORT_BYTES_MAX
    }
}

/// What a leader knows of one follower.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) id: NodeId,
    pub(super) mode: Mode,
    /// The last index that is known to agree and to be durable there.
    matched: Index,
    /// The first index that was not sent yet.
    next: Index,
    /// Empty while it is probed.
    inflight: VecDeque<Sent>,
    inflight_bytes: u64,
    window_appends: usize,
    /// When anything of this term was last heard from it.
    pub(super) heard_at: Time,
    /// The highest round of confirmation that it echoed.
    pub(super) round_echoed: u64,
    /// The highest round that it was sent.
    pub(super) round_sent: u64,
    /// Since when the commit index is ahead of what it was told; none when it knows.
    pub(super) commit_unsaid_since: Option<Time>,
}

impl Progress {
    pub(super) fn new(id: NodeId, last: Index, now: Time) -> Progress {
        Progress {
            id,
            mode: Mode::Probe { asked: None },
            matched: Index::ZERO,
            next: last.next(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            window_appends: WINDOW_FIRST,
            heard_at: now,
            round_echoed: 0,
            round_sent: 0,
            commit_unsaid_since: None,
        }
    }

    /// The bytes that the next append with entries may have; none if nothing may be sent now.
    pub(super) fn budget(&self) -> Option<usize> {
        match self.mode {
            Mode::Probe { asked } => asked.is_none().then_some(APPEND_BYTES_MAX),
            Mode::Replicate => {
                let room = usize::try_from(INFLIGHT_BYTES_MAX - self.inflight_bytes).unwrap_or(usize::MAX);
                let open = self.inflight.len() < self.window_appends && room >= ENTRY_BYTES_MAX;
                open.then_some(room.min(APPEND_BYTES_MAX))
            }
        }
    }

    /// An append with so many entries from `next` on is on its way.
    pub(super) fn sent(&mut self, now: Time, count: u32, bytes: usize) {
        assert!(self.budget().is_some_and(|budget| bytes <= budget), "{bytes} bytes are within the window");
        let last = Index(self.next.0 + u64::from(count) - 1);
        let sent = Sent { last, bytes: bytes as u64, at: now };
        match &mut self.mode {
            // `next` stays: the answer to heartbeats that follow must speak of the same place.
            Mode::Probe { asked } => *asked = Some(sent),
            Mode::Replicate => self.under_way(sent),
        }
    }

    fn under_way(&mut self, sent: Sent) {
        self.inflight.push_back(sent);
        self.inflight_bytes += sent.bytes;
        self.next = sent.last.next();
    }

    /// When the oldest append under way was sent. None of a follower that is probed: it is not sent anything that it
    /// may refuse for want of what was sent before.
    pub(super) fn oldest_sent_at(&self) -> Option<Time> {
        self.inflight.front().map(|sent| sent.at)
    }

    /// The follower holds our log up to `matched`, durably. Whether that is news.
    pub(super) fn acknowledged(&mut self, matched: Index) -> bool {
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        let probed = matched.next() >= self.next;
        self.next = self.next.max(self.matched.next());
        match self.mode {
            Mode::Probe { asked } if probed => {
                self.mode = Mode::Replicate;
                self.window_appends = WINDOW_FIRST;
                // Perhaps a heartbeat was answered, and what the probe carries is on its way.
                if let Some(sent) = asked.filter(|sent| sent.is_long() && sent.last >= self.next) {
                    self.under_way(sent);
                }
            }
            Mode::Replicate if news => {
                self.window_appends = (self.window_appends * 2).min(INFLIGHT_APPENDS_MAX);
            }
            _ => {}
        }
        while self.inflight.front().is_some_and(|sent| sent.last <= self.matched) {
            let freed = self.inflight.pop_front().expect("there is a first one");
            self.inflight_bytes -= freed.bytes;
        }
        news
    }

    /// Whether a refusal of an append after `refused` tells anything: else it is late, or for what is known to agree.
    pub(super) fn is_refusal_new(&self, refused: Index) -> bool {
        match self.mode {
            Mode::Probe { .. } => refused > self.matched && refused.next() == self.next,
            Mode::Replicate => refused > self.matched && refused < self.next,
        }
    }

    /// The append after `refused` was refused; the logs may agree up to `agreed`.
    pub(super) fn refused(&mut self, refused: Index, agreed: Index) {
        assert!(self.is_refusal_new(refused), "asked before");
        self.probe_after(agreed.min(refused.previous()).max(self.matched), None);
    }

    /// Its connection has closed, and what was on its way is most likely lost. The next heartbeat asks.
    pub(super) fn disconnected(&mut self, now: Time) {
        self.probe_after(self.matched, Some(Sent { last: self.matched, bytes: 0, at: now }));
    }

    fn probe_after(&mut self, agreed: Index, asked: Option<Sent>) {
        self.mode = Mode::Probe { asked };
        self.next = agreed.next();
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    pub(super) fn matched(&self) -> Index {
        self.matched
    }

    pub(super) fn next(&self) -> Index {
        self.next
    }

    /// How many appends are under way, and their bytes.
    #[cfg(test)]
    pub(super) fn inflight(&self) -> (usize, u64) {
        (self.inflight.len(), self.inflight_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;
    use alloc::vec::Vec;

    /// The obvious version: remembers every append that was sent and works everything out anew each time.
    #[derive(Debug)]
    struct Model {
        replicate: bool,
        /// Last index and bytes of what a probe asked with.
        probe_sent: Option<(u64, u64)>,
        matched: u64,
        next: u64,
        /// Last index and bytes of each append since the last probe.
        sent: Vec<(u64, u64)>,
        /// How many acknowledgements brought news since the last probe.
        doublings: u32,
    }

    impl Model {
        fn under_way(&self) -> (usize, u64) {
            let open: Vec<u64> =
                self.sent.iter().filter(|(last, _)| *last > self.matched).map(|(_, bytes)| *bytes).collect();
            (open.len(), open.iter().sum())
        }

        fn budget(&self) -> Option<usize> {
            let (appends, bytes) = self.under_way();
            let window = WINDOW_FIRST.saturating_mul(1 << self.doublings.min(20)).min(INFLIGHT_APPENDS_MAX);
            let room = (INFLIGHT_BYTES_MAX - bytes) as usize;
            if self.replicate {
                (appends < window && room >= ENTRY_BYTES_MAX).then_some(room.min(APPEND_BYTES_MAX))
            } else {
                self.probe_sent.is_none().then_some(APPEND_BYTES_MAX)
            }
        }

        fn back_to_probe(&mut self, next: u64, sent: Option<(u64, u64)>) {
            (self.replicate, self.probe_sent, self.next, self.doublings) = (false, sent, next, 0);
            self.sent.clear();
        }
    }

    fn act(random: &mut Random, progress: &mut Progress, model: &mut Model) {
        match random.next() % 8 {
            0..=3 => {
                let Some(budget) = progress.budget() else { return };
                let count = 1 + random.next() % 50;
                let bytes = 1 + random.next() % budget as u64;
                progress.sent(Time(0), count as u32, bytes as usize);
                let sent = (model.next + count - 1, bytes);
                if model.replicate {
                    model.sent.push(sent);
                    model.next += count;
                } else {
                    model.probe_sent = Some(sent);
                }
            }
            4 | 5 => {
                // Any index that the follower could have, late and doubled ones among them.
                let matched = random.next() % (model.next + 40);
                let news = progress.acknowledged(Index(matched));
                assert_eq!(news, matched > model.matched);
                let probed = !model.replicate && matched + 1 >= model.next;
                if model.replicate && news {
                    model.doublings += 1;
                }
                model.matched = model.matched.max(matched);
                model.next = model.next.max(model.matched + 1);
                if probed {
                    (model.replicate, model.doublings) = (true, 0);
                    let still =
                        model.probe_sent.filter(|(last, bytes)| *last > model.matched && *bytes > 16 << 10);
                    model.sent.extend(still);
                    model.next = still.map_or(model.next, |(last, _)| last + 1);
                }
            }
            6 => {
                let refused = random.next() % (model.next + 3);
                let agreed = random.next() % (model.next + 3);
                let expected = refused > model.matched
                    && if model.replicate { refused < model.next } else { refused + 1 == model.next };
                assert_eq!(progress.is_refusal_new(Index(refused)), expected, "{refused} {model:?}");
                if expected {
                    progress.refused(Index(refused), Index(agreed));
                    model.back_to_probe(agreed.min(refused - 1).max(model.matched) + 1, None);
                }
            }
            _ => {
                progress.disconnected(Time(0));
                model.back_to_probe(model.matched + 1, Some((model.matched, 0)));
            }
        }
    }

    #[test]
    fn agrees_with_the_obvious_version() {
        let mut random = Random::new(0x960);
        for round in 0..500 {
            let last = random.next() % 100;
            let mut progress = Progress::new(NodeId(2), Index(last), Time(0));
            let mut model = Model {
                replicate: false,
                probe_sent: None,
                matched: 0,
                next: last + 1,
                sent: Vec::new(),
                doublings: 0,
            };
            for step in 0..100 {
                act(&mut random, &mut progress, &mut model);
                let at = alloc::format!("round {round}, step {step}: {model:?}");
                assert_eq!(progress.matched(), Index(model.matched), "{at}");
                assert_eq!(progress.next(), Index(model.next), "{at}");
                assert_eq!(progress.inflight(), model.under_way(), "{at}");
                assert_eq!(progress.budget(), model.budget(), "{at}");
                let asked = |(last, bytes)| Sent { last: Index(last), bytes, at: Time(0) };
                let expected = if model.replicate {
                    Mode::Replicate
                } else {
                    Mode::Probe { asked: model.probe_sent.map(asked) }
                };
                assert_eq!(progress.mode, expected, "{at}");
                assert!(progress.matched() < progress.next());
                assert!(progress.inflight().1 <= INFLIGHT_BYTES_MAX);
            }
        }
    }

    #[test]
    fn a_long_probe_is_not_repeated_for_an_answered_heartbeat() {
        let mut progress = Progress::new(NodeId(2), Index(7), Time(0));
        progress.sent(Time(3), 2, 100_000);
        assert_eq!(
            (progress.next(), progress.oldest_sent_at()),
            (Index(8), None),
            "a probe is not overtaken"
        );
        // The heartbeat behind it came first.
        progress.acknowledged(Index(7));
        assert_eq!((progress.next(), progress.inflight()), (Index(10), (1, 100_000)));
        progress.sent(Time(4), 1, 10);
        assert_eq!(progress.oldest_sent_at(), Some(Time(3)));
        progress.acknowledged(Index(9));
        assert_eq!((progress.oldest_sent_at(), progress.inflight()), (Some(Time(4)), (1, 10)));
        progress.acknowledged(Index(10));
        assert_eq!(progress.oldest_sent_at(), None);

        // A short one may have been lost, and goes again.
        let mut progress = Progress::new(NodeId(2), Index(7), Time(0));
        progress.sent(Time(3), 2, 1000);
        progress.acknowledged(Index(7));
        assert_eq!((progress.next(), progress.inflight()), (Index(8), (0, 0)));
    }

    #[test]
    fn the_window_bounds_bytes() {
        let mut progress = Progress::new(NodeId(2), Index(0), Time(0));
        progress.acknowledged(Index(0));
        // Acknowledgements open the window in appends as far as it goes.
        for index in 1..20 {
            progress.sent(Time(0), 1, 100);
            progress.acknowledged(Index(index));
        }
        let mut appends = 0;
        while let Some(budget) = progress.budget() {
            progress.sent(Time(0), 1, budget);
            appends += 1;
        }
        assert_eq!(appends, INFLIGHT_BYTES_MAX as usize / APPEND_BYTES_MAX);
        progress.acknowledged(Index(20));
        assert_eq!(progress.budget(), Some(APPEND_BYTES_MAX), "an acknowledgement makes room again");
    }

    #[test]
    fn the_window_bounds_appends() {
        let mut progress = Progress::new(NodeId(2), Index(0), Time(0));
        progress.acknowledged(Index(0));
        for index in 1..20 {
            progress.sent(Time(0), 1, 100);
            progress.acknowledged(Index(index));
        }
        let mut appends = 0;
        while progress.budget().is_some() {
            progress.sent(Time(0), 1, 100);
            appends += 1;
        }
        assert_eq!(appends, INFLIGHT_APPENDS_MAX);
    }
}
