//! A ring of bytes: room is taken in order, each piece in one stretch, and given back in the same order.

/// Pieces begin at multiples of this: a cache line.
const ALIGN_BYTES: u64 = 64;

/// See the module. Places are counted from the beginning and never wrap.
#[derive(Debug)]
pub(super) struct Ring {
    capacity: u64,
    head: u64,
    tail: u64,
    /// Where the last piece begins.
    last: u64,
}

impl Ring {
    /// An empty ring.
    pub(super) fn new(capacity_bytes: usize) -> Ring {
        assert!(
            (capacity_bytes as u64).is_multiple_of(ALIGN_BYTES),
            "a ring is a whole number of cache lines"
        );
        Ring { capacity: capacity_bytes as u64, head: 0, tail: 0, last: 0 }
    }

    /// Room for so many bytes, as an offset; `None` if there is none at this time.
    pub(super) fn reserve(&mut self, len_bytes: usize) -> Option<usize> {
        let len = (len_bytes as u64).next_multiple_of(ALIGN_BYTES);
        let at = self.head % self.capacity;
        // What does not fit before the end begins at the front.
        let begin = if at + len <= self.capacity { self.head } else { self.head + self.capacity - at };
        if begin + len > self.tail + self.capacity {
            return None;
        }
        self.last = begin;
        self.head = begin + len;
        Some((begin % self.capacity) as usize)
    }

    /// So many bytes at the end of the last piece were not used.
    pub(super) fn shorten(&mut self, by_bytes: usize) {
        let used = self.head.saturating_sub(by_bytes as u64).max(self.last);
        self.head = used.next_multiple_of(ALIGN_BYTES).min(self.head);
    }

    /// Where the last piece ends: what [`Ring::release`] is given when it is done with.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Its size.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Everything before this place is free.
    pub(super) fn release(&mut self, end: u64) {
        assert!((self.tail..=self.head).contains(&end), "pieces are given back in the order of their making");
        self.tail = end;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn pieces_never_overlap_and_all_room_comes_back() {
        let mut ring = Ring::new(4096);
        let mut under_way: VecDeque<(u64, usize, usize)> = VecDeque::new();
        let (mut random, mut taken, mut refused) = (7_u64, 0, 0);
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let want = (random % 1500) as usize;
            let Some(offset) = ring.reserve(want) else {
                refused += 1;
                let (end, ..) = under_way.pop_front().unwrap();
                ring.release(end);
                continue;
            };
            let used = want - (random >> 20) as usize % (want + 1);
            ring.shorten(want - used);
            assert!(offset + want <= 4096, "in one stretch");
            for &(_, other, len) in &under_way {
                assert!(offset + used <= other || other + len <= offset || used == 0 || len == 0, "overlap");
            }
            under_way.push_back((ring.head(), offset, used));
            taken += 1;
        }
        assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
        ring.release(ring.head());
        assert!(ring.reserve(4096).is_some() || ring.reserve(2048).is_some());
    }
}
