//! Where one shard's submits go, and in which order they go again when a node does not take them.
//!
//! A node that does not lead rejects; what it rejected may be offered to another, and must then come before whatever
//! was submitted later. But a node may also reject one submit, be elected, and take the next. So after a rejection
//! nothing new is sent until all that is in flight has its answer. Then, if nothing later was taken meanwhile, the
//! rejected go again, in order, before the rest of the queue. Those that were overtaken cannot: they end as rejected.

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

const DELAY_MAX: Duration = Duration::from_millis(10);

/// One shard's way. Submits are named by numbers that ascend.
#[derive(Debug)]
pub(super) struct Route {
    /// Which member is believed to lead.
    pub(super) member: usize,
    /// Not sent yet.
    pub(super) queue: VecDeque<u64>,
    /// Nothing is sent before.
    pub(super) not_before: Option<Instant>,
    in_flight: usize,
    rejected: Vec<u64>,
    hint: Option<usize>,
    tries: u32,
    /// The member has taken something: it leads. Until then one submit at a time goes to it, so that a member that is
    /// elected between two of them cannot take the second and have refused the first.
    leads: bool,
    /// What is in flight does not go again.
    broken: bool,
}

impl Route {
    pub(super) fn new(member: usize) -> Route {
        Route {
            member,
            queue: VecDeque::new(),
            not_before: None,
            in_flight: 0,
            rejected: Vec::new(),
            hint: None,
            tries: 0,
            leads: false,
            broken: false,
        }
    }

    /// The next to be sent, if one may be.
    pub(super) fn send_next(&mut self, now: Instant) -> Option<u64> {
        if self.broken || !self.rejected.is_empty() || self.not_before.is_some_and(|time| now < time) {
            return None;
        }
        if !self.leads && self.in_flight > 0 {
            return None;
        }
        let id = self.queue.pop_front()?;
        self.in_flight += 1;
        Some(id)
    }

    /// A node did not take one that was in flight. `hint`: whom it named.
    pub(super) fn rejected(&mut self, id: u64, hint: Option<usize>) {
        self.landed();
        self.rejected.push(id);
        self.hint = hint;
    }

    /// One that was in flight has come to its end. If it may be in the log, the rejected before it were overtaken:
    /// they are added to `overtaken`.
    pub(super) fn ended(&mut self, id: u64, may_be_in_log: bool, overtaken: &mut Vec<u64>) {
        self.landed();
        if may_be_in_log {
            overtaken.extend(self.rejected.extract_if(.., |rejected| *rejected < id));
        }
    }

    fn landed(&mut self) {
        self.in_flight -= 1;
        self.broken &= self.in_flight > 0;
    }

    /// Gives out the rejected; what is in flight does not go again either if it is rejected.
    pub(super) fn break_off(&mut self) -> Vec<u64> {
        self.broken = self.in_flight > 0;
        core::mem::take(&mut self.rejected)
    }

    /// Whether what is in flight may not go again.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.rejected.is_empty()
    }

    /// The member has taken something, or refused it as only a leader does.
    pub(super) fn settled(&mut self) {
        (self.tries, self.leads) = (0, true);
    }

    /// Once all that was in flight is answered: puts the rejected back and turns to the next member.
    pub(super) fn regroup(&mut self, members: usize, now: Instant) {
        if self.in_flight > 0 || self.rejected.is_empty() {
            return;
        }
        self.rejected.sort_unstable();
        for id in self.rejected.drain(..).rev() {
            self.queue.push_front(id);
        }
        let hint = self.hint.take().filter(|hint| *hint != self.member);
        self.turn_to(hint, members, now);
    }

    /// The member cannot be reached, or does not answer: on to the next.
    pub(super) fn turn_away(&mut self, members: usize, now: Instant) {
        // With the last answer of a rejected series comes the turn to another member, and only one.
        if self.in_flight > 0 || self.rejected.is_empty() {
            self.turn_to(None, members, now);
        }
    }

    fn turn_to(&mut self, hint: Option<usize>, members: usize, now: Instant) {
        self.member = hint.unwrap_or((self.member + 1) % members);
        self.tries = self.tries.saturating_add(1);
        self.leads = false;
        // The first hint is followed at once; hints that go round in a circle, and silence, are not.
        let delay = match self.tries {
            1 => Duration::ZERO,
            tries => Duration::from_millis(1 << (tries - 2).min(5)).min(DELAY_MAX),
        };
        self.not_before = Some(now + delay);
    }

    /// Takes one out that is not in flight.
    pub(super) fn forget(&mut self, id: u64) {
        self.rejected.retain(|rejected| *rejected != id);
        if let Ok(at) = self.queue.binary_search(&id) {
            self.queue.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(route: &mut Route, now: Instant) -> Vec<u64> {
        core::iter::from_fn(|| route.send_next(now)).collect()
    }

    fn led_by(member: usize) -> Route {
        let mut route = Route::new(member);
        route.settled();
        route
    }

    #[test]
    fn a_rejected_series_goes_again_in_order() {
        let now = Instant::now();
        let mut route = led_by(0);
        route.queue.extend([1, 2, 3]);
        assert_eq!(sent(&mut route, now), [1, 2, 3]);
        route.queue.push_back(4);
        route.rejected(2, Some(2));
        route.rejected(1, Some(2));
        assert_eq!(sent(&mut route, now), [], "nothing new while answers are awaited");
        route.regroup(3, now);
        assert_eq!(route.member, 0, "one is still in flight");
        route.rejected(3, Some(2));
        route.regroup(3, now);
        assert_eq!(route.member, 2);
        assert_eq!(sent(&mut route, now), [1], "one at a time until it is known to lead");
        route.settled();
        assert_eq!(sent(&mut route, now), [2, 3, 4]);
    }

    #[test]
    fn what_was_overtaken_is_given_up() {
        let now = Instant::now();
        let mut route = led_by(0);
        route.queue.extend([1, 2, 3, 4]);
        assert_eq!(sent(&mut route, now).len(), 4);
        route.rejected(1, None);
        let mut overtaken = Vec::new();
        route.ended(2, false, &mut overtaken);
        assert_eq!(overtaken, [], "a submit that is certainly not in the log overtakes nothing");
        route.ended(3, true, &mut overtaken);
        assert_eq!(overtaken, [1]);
        route.rejected(4, None);
        route.regroup(3, now);
        assert_eq!((route.member, sent(&mut route, now)), (1, vec![4]));
    }

    #[test]
    fn circles_are_slowed_down() {
        let mut now = Instant::now();
        let mut route = Route::new(0);
        route.queue.push_back(1);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(route.send_next(now), Some(1));
            route.rejected(1, Some(1 - route.member));
            route.regroup(2, now);
            let at = route.not_before.unwrap();
            waits.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 10, 10, 10, 10]);
        route.settled();
        route.turn_away(2, now);
        assert_eq!(route.not_before.unwrap(), now);
    }

    #[test]
    fn one_that_waits_can_be_forgotten() {
        let now = Instant::now();
        let mut route = Route::new(0);
        route.queue.extend([1, 2, 3]);
        route.forget(2);
        assert_eq!(route.send_next(now), Some(1));
        route.rejected(1, None);
        route.forget(1);
        assert_eq!(sent(&mut route, now), [3]);
    }
}
