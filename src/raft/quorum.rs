//! What a majority of voters has reached, and how an election stands. Pure arithmetic over at most
//! [`VOTERS_MAX`] values; nothing is allocated.

use crate::limits::VOTERS_MAX;

/// How many of so many voters are a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority has reached, one value per voter. The commit index over durable indices, the
/// confirmed round over echoed rounds, the time at which a majority was last heard over times.
pub(super) fn reached<T: Copy + Ord + Default>(values: impl IntoIterator<Item = T>) -> T {
    let mut sorted = [T::default(); VOTERS_MAX];
    let mut count = 0;
    for value in values {
        assert!(count < VOTERS_MAX, "more voters than a shard may have");
        // Insertion from the left keeps the highest first; there are a handful of voters.
        let mut at = count;
        while at > 0 && sorted[at - 1] < value {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = value;
        count += 1;
    }
    assert!(count > 0, "a shard has at least one voter");
    sorted[majority(count) - 1]
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Won,
    Lost,
    Open,
}

/// Who said what in one election. A voter is counted once, whatever it repeats; its first word stands.
#[derive(Clone, Debug)]
pub(super) struct Votes {
    said: [Option<bool>; VOTERS_MAX],
    voters: usize,
}

impl Votes {
    pub(super) fn new(voters: usize) -> Votes {
        assert!((1..=VOTERS_MAX).contains(&voters), "between one voter and the most a shard may have");
        Votes { said: [None; VOTERS_MAX], voters }
    }

    /// The voter at this place among the voters has answered.
    pub(super) fn record(&mut self, voter: usize, granted: bool) -> Outcome {
        assert!(voter < self.voters, "a voter's place");
        self.said[voter].get_or_insert(granted);
        self.outcome()
    }

    /// Whether this voter has not answered yet.
    pub(super) fn is_open(&self, voter: usize) -> bool {
        self.said[voter].is_none()
    }

    pub(super) fn outcome(&self) -> Outcome {
        let said = &self.said[..self.voters];
        let granted = said.iter().filter(|said| **said == Some(true)).count();
        let refused = said.iter().filter(|said| **said == Some(false)).count();
        let needed = majority(self.voters);
        if granted >= needed {
            Outcome::Won
        } else if granted + (self.voters - granted - refused) < needed {
            Outcome::Lost
        } else {
            Outcome::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;
    use alloc::vec::Vec;

    /// The definition: the highest of the values that at least a majority is at or above.
    fn reached_slowly(values: &[u64]) -> u64 {
        let holds =
            |candidate: u64| 2 * values.iter().filter(|value| **value >= candidate).count() > values.len();
        values.iter().copied().filter(|value| holds(*value)).max().expect("the lowest is reached by all")
    }

    #[test]
    fn reached_is_what_the_definition_says() {
        let mut random = Random::new(0x51ab);
        for case in 0..50_000 {
            let voters = 1 + (random.next() as usize) % VOTERS_MAX;
            let spread = 1 + random.next() % 20;
            let values: Vec<u64> = (0..voters).map(|_| random.next() % spread).collect();
            assert_eq!(reached(values.iter().copied()), reached_slowly(&values), "case {case}: {values:?}");
        }
    }

    #[test]
    fn votes_are_what_the_definition_says() {
        let mut random = Random::new(0x707e);
        for case in 0..50_000 {
            let voters = 1 + (random.next() as usize) % VOTERS_MAX;
            let mut votes = Votes::new(voters);
            let mut said: Vec<(usize, bool)> = Vec::new();
            for _ in 0..random.next() % 25 {
                let (voter, granted) = ((random.next() as usize) % voters, random.next().is_multiple_of(2));
                votes.record(voter, granted);
                if said.iter().all(|(earlier, _)| *earlier != voter) {
                    said.push((voter, granted));
                }
            }
            // The definition: won when a majority granted, lost when so many refused that the rest is none.
            let granted = said.iter().filter(|(_, granted)| *granted).count();
            let refused = said.len() - granted;
            let expected = if 2 * granted > voters {
                Outcome::Won
            } else if 2 * (voters - refused) <= voters {
                Outcome::Lost
            } else {
                Outcome::Open
            };
            assert_eq!(votes.outcome(), expected, "case {case}: {voters} voters, {said:?}");
        }
    }

    #[test]
    fn an_even_number_needs_more_than_half() {
        assert_eq!(majority(4), 3);
        assert_eq!(reached([9_u64, 9, 1, 1]), 1);
    }
}
