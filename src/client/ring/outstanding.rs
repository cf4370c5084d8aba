//! What was asked and has no end yet: requests are numbered as they are made, and end nearly in that order.

use std::collections::VecDeque;

use crate::wire::client::{Outcome, Reply};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// The number of the oldest that has no end.
    first: u64,
    /// From that one on: whether each has ended.
    ended: VecDeque<bool>,
    open: usize,
    /// Ended here, because there is nobody who could answer; not told yet.
    lost: VecDeque<(u64, Outcome)>,
}

impl Outstanding {
    /// The number that the next request will have.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.first + self.ended.len() as u64
    }

    /// One more.
    #[inline]
    pub(super) fn push(&mut self) -> u64 {
        let request = self.next();
        self.ended.push_back(false);
        self.open += 1;
        request
    }

    /// One has ended. False: it had no end to come.
    pub(super) fn end(&mut self, request: u64) -> bool {
        let at = request.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(ended) = at.and_then(|at| self.ended.get_mut(at)) else { return false };
        if std::mem::replace(ended, true) {
            return false;
        }
        self.open -= 1;
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.first += 1;
        }
        true
    }

    /// Nobody answers what is open any more: it ends like this.
    pub(super) fn lose(&mut self, outcome: Outcome) {
        let first = self.first;
        self.first = self.next();
        self.open = 0;
        let open = (first..).zip(self.ended.drain(..)).filter(|&(_, ended)| !ended);
        self.lost.extend(open.map(|(request, _)| (request, outcome)));
    }

    /// Whether it was asked and has no end.
    pub(super) fn is_open(&self, request: u64) -> bool {
        let at = request.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.ended.get(at)) == Some(&false)
    }

    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    pub(super) fn tell_lost(&mut self, each: &mut impl FnMut(Reply<'_>)) -> usize {
        let count = self.lost.len();
        self.lost.drain(..).for_each(|(request, outcome)| each(Reply::Outcome { request, outcome }));
        count
    }

    /// How many have no end that was told.
    pub(super) fn len(&self) -> usize {
        self.open + self.lost.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ends_once_in_whatever_order() {
        let mut outstanding = Outstanding::default();
        let requests: Vec<u64> = (0..6).map(|_| outstanding.push()).collect();
        for at in [3, 0, 1] {
            assert!(outstanding.end(requests[at]) && !outstanding.end(requests[at]));
        }
        assert!(!outstanding.end(99));
        assert_eq!((outstanding.len(), outstanding.next()), (3, 6));
        outstanding.lose(Outcome::Unknown);
        assert!(!outstanding.end(requests[2]) && outstanding.has_lost());
        assert_eq!(outstanding.push(), 6);
        let mut told = Vec::new();
        outstanding.tell_lost(&mut |reply| {
            if let Reply::Outcome { request, outcome: Outcome::Unknown } = reply {
                told.push(request);
            }
        });
        assert_eq!((told, outstanding.len()), (vec![2, 4, 5], 1));
    }
}
