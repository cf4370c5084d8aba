//! How the two ends of a path find each other over the side channel. Pure: it says what is to be done.
//!
//! The lower node id offers a queue pair; the other connects one of its own to it and answers; the first connects to
//! the answer. Each queue pair has an attempt's id, drawn by its end, so what belongs to an earlier one is known and
//! left.
//!
//! Whoever finds its queue pair broken says [`Says::Ended`], and the lower id offers a fresh one, after a pause that
//! grows while nothing lasts. When the side channel itself was lost in between, the lower id asks after its attempt by
//! offering it again: the same answer says that all is well, another one that the peer has restarted.

use std::time::Duration;

use crate::types::Time;
use crate::wire::aside::{Answered, Attempt, End, Reason, Says};

/// The first pause before a new offer; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An offer that has no answer for so long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Queue pairs for a peer's offers are made at most so often: an honest peer pauses longer between two.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A path that has lasted so long begins with the shortest pause again.
const LASTING: Duration = Duration::from_secs(5);

/// What the path is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Make a fresh queue pair, offer it, and call [`Setup::offered`].
    Offer,
    /// Connect the queue pair that was offered with this end.
    Connect(End),
    /// Make a fresh queue pair instead of any other, connect it with this end, and call [`Setup::accepted`].
    Accept(Attempt, End),
    /// Say this.
    Say(Says),
    /// The queue pair is of no use any more, for this reason.
    Close(Ended),
}

/// Why a queue pair is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The offer was not answered.
    Unanswered,
    /// The peer has another queue pair now: it has restarted.
    Replaced,
    /// The peer says that its own is gone.
    ByPeer,
    /// The peer refuses.
    Refused(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is there; an offer is made at this time at the earliest.
    Idle(Time),
    /// Waits for the answer until this time.
    Offered { mine: Attempt, end: End, until: Time },
    /// Connected since.
    Connected { mine: Attempt, end: End, theirs: Attempt, since: Time },
}

/// One path's part in it.
#[derive(Debug)]
pub(super) struct Setup {
    /// Whether this end offers.
    offers: bool,
    phase: Phase,
    /// The side channel's connection that was seen last.
    connection: Option<u64>,
    pause: Duration,
    /// When an offer may be accepted again.
    accept_at: Time,
}

impl Setup {
    /// Of a path that is not there.
    pub(super) fn new(offers: bool) -> Setup {
        Setup { offers, phase: Phase::Idle(Time(0)), connection: None, pause: PAUSE_MIN, accept_at: Time(0) }
    }

    /// Whether the queue pair of this end is connected.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. })
    }

    /// Whether the side channel was there when it was looked at last.
    pub(super) fn has_side_channel(&self) -> bool {
        self.connection.is_some()
    }

    /// The side channel is this connection now. What was under way on another one is lost.
    pub(super) fn side_channel(&mut self, connection: Option<u64>) -> Option<Act> {
        if std::mem::replace(&mut self.connection, connection) == connection || connection.is_none() {
            return None;
        }
        match self.phase {
            Phase::Offered { mine, end, .. } | Phase::Connected { mine, end, .. } if self.offers => {
                Some(Act::Say(Says::Offer(mine, end)))
            }
            _ => None,
        }
    }

    /// What is due.
    pub(super) fn due(&mut self, now: Time) -> Option<Act> {
        match self.phase {
            Phase::Idle(at) if self.offers && self.connection.is_some() && now >= at => Some(Act::Offer),
            Phase::Offered { until, .. } if now >= until => Some(self.close(now, Ended::Unanswered)),
            _ => None,
        }
    }

    /// When [`Setup::due`] has something to say.
    pub(super) fn next_wake(&self) -> Time {
        match self.phase {
            Phase::Idle(at) if self.offers && self.connection.is_some() => at,
            Phase::Offered { until, .. } => until,
            _ => Time::NEVER,
        }
    }

    /// The offer was made.
    pub(super) fn offered(&mut self, now: Time, mine: Attempt, end: End) {
        self.phase = Phase::Offered { mine, end, until: now.after(ANSWER_TIMEOUT) };
    }

    /// The other end's offer was accepted; what is to be answered.
    pub(super) fn accepted(&mut self, now: Time, mine: Attempt, end: End, theirs: Attempt) -> Says {
        self.phase = Phase::Connected { mine, end, theirs, since: now };
        Says::Answer(mine, end, Answered(theirs.0))
    }

    /// The other end says something.
    pub(super) fn heard(&mut self, now: Time, says: Says) -> Option<Act> {
        match (says, self.phase) {
            (Says::Offer(theirs, end), _) if !self.offers => Some(match self.phase {
                Phase::Connected { mine, end: own, theirs: known, .. } if known == theirs => {
                    Act::Say(Says::Answer(mine, own, Answered(theirs.0)))
                }
                _ if now < self.accept_at => return None,
                _ => {
                    self.accept_at = now.after(ACCEPT_PAUSE);
                    Act::Accept(theirs, end)
                }
            }),
            (Says::Answer(theirs, to, answered), Phase::Offered { mine, end, .. })
                if answered.0 == mine.0 =>
            {
                self.phase = Phase::Connected { mine, end, theirs, since: now };
                Some(Act::Connect(to))
            }
            (Says::Answer(theirs, _, answered), Phase::Connected { mine, theirs: known, .. })
                if answered.0 == mine.0 && theirs != known =>
            {
                Some(self.close(now, Ended::Replaced))
            }
            (Says::Ended(answered), Phase::Connected { mine, .. } | Phase::Offered { mine, .. })
                if answered.0 == mine.0 =>
            {
                Some(self.close(now, Ended::ByPeer))
            }
            (
                Says::Refusal(answered, reason),
                Phase::Offered { mine, .. } | Phase::Connected { mine, .. },
            ) if answered.0 == mine.0 => {
                self.pause = PAUSE_MAX;
                Some(self.close(now, Ended::Refused(reason)))
            }
            _ => None,
        }
    }

    /// This end finds its queue pair of no use; what the other end is told.
    pub(super) fn broke(&mut self, now: Time) -> Option<Says> {
        let told = match self.phase {
            Phase::Connected { theirs, .. } => Some(Says::Ended(Answered(theirs.0))),
            Phase::Offered { .. } | Phase::Idle(_) => None,
        };
        self.rest(now);
        told
    }

    fn close(&mut self, now: Time, why: Ended) -> Act {
        self.rest(now);
        Act::Close(why)
    }

    /// Nothing is there any more; a new offer is made after a pause.
    fn rest(&mut self, now: Time) {
        if let Phase::Connected { since, .. } = self.phase
            && now.since(since) >= LASTING
        {
            self.pause = PAUSE_MIN;
        }
        self.phase = Phase::Idle(now.after(self.pause));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const fn end(qp: u32) -> End {
        End { qp, psn: 1, mtu: 3, slot_bytes: 4096, gid: [1; 16], lid: 0 }
    }

    fn at(millis: u64) -> Time {
        Time(0).after(Duration::from_millis(millis))
    }

    /// Both ends connected: 1 offers as attempt 11, 2 answers as attempt 22.
    fn connected() -> (Setup, Setup) {
        let (mut one, mut two) = (Setup::new(true), Setup::new(false));
        assert_eq!((one.side_channel(Some(1)), two.side_channel(Some(1))), (None, None));
        assert_eq!((one.due(at(0)), two.due(at(0))), (Some(Act::Offer), None));
        one.offered(at(0), Attempt(11), end(1));
        let offer = Says::Offer(Attempt(11), end(1));
        assert_eq!(two.heard(at(0), offer), Some(Act::Accept(Attempt(11), end(1))));
        let answer = two.accepted(at(0), Attempt(22), end(2), Attempt(11));
        assert_eq!(one.heard(at(0), answer), Some(Act::Connect(end(2))));
        assert!(one.is_connected() && two.is_connected());
        (one, two)
    }

    #[test]
    fn without_a_side_channel_nothing_is_offered() {
        let mut one = Setup::new(true);
        assert_eq!((one.due(at(5000)), one.next_wake()), (None, Time::NEVER));
        one.side_channel(Some(1));
        assert_eq!(one.due(at(5000)), Some(Act::Offer));
    }

    #[test]
    fn an_offer_without_an_answer_is_made_anew_after_a_pause_that_grows() {
        let mut one = Setup::new(true);
        one.side_channel(Some(1));
        let (mut now, mut pauses) = (at(0), Vec::new());
        for attempt in 1..9 {
            assert_eq!(one.due(now), Some(Act::Offer));
            one.offered(now, Attempt(attempt), end(1));
            assert_eq!(one.due(now), None);
            now = one.next_wake();
            assert_eq!(one.due(now), Some(Act::Close(Ended::Unanswered)));
            let ended = now;
            now = one.next_wake();
            pauses.push(now.since(ended).as_millis());
            // The answer to an attempt that was given up is nobody's.
            assert_eq!(one.heard(now, Says::Answer(Attempt(5), end(2), Answered(attempt))), None);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn a_side_channel_that_was_lost_and_made_again_leaves_a_good_path_alone() {
        let (mut one, mut two) = connected();
        assert_eq!((one.side_channel(None), two.side_channel(None)), (None, None));
        assert!(one.is_connected() && two.is_connected());
        let asked = one.side_channel(Some(2)).unwrap();
        assert_eq!(asked, Act::Say(Says::Offer(Attempt(11), end(1))));
        let answer = Says::Answer(Attempt(22), end(2), Answered(11));
        assert_eq!(two.heard(at(9), Says::Offer(Attempt(11), end(1))), Some(Act::Say(answer)));
        assert_eq!(one.heard(at(9), answer), None);
        assert!(one.is_connected() && two.is_connected());
    }

    #[test]
    fn a_peer_that_has_restarted_is_found_by_its_answer() {
        let (mut one, _) = connected();
        let mut again = Setup::new(false);
        one.side_channel(Some(2));
        assert_eq!(
            again.heard(at(9), Says::Offer(Attempt(11), end(1))),
            Some(Act::Accept(Attempt(11), end(1)))
        );
        let answer = again.accepted(at(9), Attempt(33), end(3), Attempt(11));
        assert_eq!(one.heard(at(9), answer), Some(Act::Close(Ended::Replaced)));
        assert_eq!(one.due(one.next_wake()), Some(Act::Offer));
    }

    #[test]
    fn a_peer_that_offers_anew_replaces_what_was() {
        let (_, mut two) = connected();
        assert_eq!(two.heard(at(9), Says::Offer(Attempt(12), end(4))), None, "a peer that floods");
        assert_eq!(
            two.heard(at(10), Says::Offer(Attempt(12), end(4))),
            Some(Act::Accept(Attempt(12), end(4)))
        );
    }

    #[test]
    fn who_breaks_says_so_and_the_lower_id_offers_anew() {
        let (mut one, mut two) = connected();
        let told = two.broke(at(7)).unwrap();
        assert_eq!((told, two.due(at(9000))), (Says::Ended(Answered(11)), None));
        assert_eq!(one.heard(at(8), told), Some(Act::Close(Ended::ByPeer)));
        assert_eq!(one.heard(at(8), told), None, "once");
        assert_eq!((one.due(at(27)), one.due(at(28))), (None, Some(Act::Offer)));

        let (mut one, _) = connected();
        assert_eq!(one.broke(at(6000)), Some(Says::Ended(Answered(22))));
        assert_eq!(one.next_wake(), at(6020));
        assert_eq!(one.broke(at(6001)), None, "what is not there cannot break");
    }

    #[test]
    fn a_refusal_is_heeded_only_by_the_attempt_that_it_names() {
        let mut one = Setup::new(true);
        one.side_channel(Some(1));
        one.offered(at(0), Attempt(11), end(1));
        assert_eq!(one.heard(at(1), Says::Refusal(Answered(10), Reason::NoDevice)), None);
        let refused = Act::Close(Ended::Refused(Reason::NoDevice));
        assert_eq!(one.heard(at(1), Says::Refusal(Answered(11), Reason::NoDevice)), Some(refused));
        assert_eq!(one.next_wake(), at(1001));
    }

    #[test]
    fn who_offers_takes_no_offer_and_who_answers_no_answer() {
        let (mut one, mut two) = connected();
        assert_eq!(one.heard(at(1), Says::Offer(Attempt(9), end(9))), None);
        assert_eq!(two.heard(at(1), Says::Answer(Attempt(9), end(9), Answered(21))), None);
        assert!(one.is_connected() && two.is_connected());
    }
}
