//! Datagrams that wait to be sent, in one piece of memory that is made once.
//!
//! Consecutive datagrams of one length to one address lie one behind the other and are one [`Message`]: the kernel is
//! handed all of them with one call and cuts them apart itself (UDP_SEGMENT). Memory is given back in order.

use std::net::SocketAddr;

use super::socket::Name;

/// How many datagrams one message holds: what every kernel with UDP_SEGMENT takes.
const SEGMENTS_MAX: usize = 64;

/// How many bytes one message of several datagrams holds: with its headers it is still an IP packet.
const SEGMENTED_BYTES_MAX: usize = 65_000;

/// What the kernel is handed with one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) to: SocketAddr,
    /// The same, as the kernel reads it.
    pub(super) name: Name,
    offset: usize,
    pub(super) len_bytes: usize,
    /// The length of every datagram in it but the last, which may be shorter.
    pub(super) segment_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    UnderWay,
    Done,
}

impl Message {
    /// How many datagrams it is.
    pub(super) fn datagrams(&self) -> usize {
        self.len_bytes.div_ceil(self.segment_bytes.max(1)).max(1)
    }
}

/// See the module.
pub(super) struct Queue {
    memory: Box<[u8]>,
    messages: Box<[Message]>,
    /// Counters that only grow: of the oldest message, of the first that waits, and of the next to come.
    oldest: usize,
    waiting: usize,
    next: usize,
    /// Where the next bytes go.
    end: usize,
    /// Several datagrams may be one message.
    joins: bool,
    /// The socket is one of IPv6.
    is_v6: bool,
}

impl Queue {
    /// Room for so many bytes and messages. `messages` is a power of two.
    pub(super) fn new(bytes: usize, messages: usize, joins: bool, is_v6: bool) -> Queue {
        assert!(messages.is_power_of_two(), "places are found with a mask");
        let nothing = Message {
            to: SocketAddr::from(([0, 0, 0, 0], 0)),
            name: Name::default(),
            offset: 0,
            len_bytes: 0,
            segment_bytes: 0,
            state: State::Done,
        };
        let mut memory = vec![0; bytes].into_boxed_slice();
        // The system finds the pages now and not in the middle of a turn.
        memory.fill(1);
        let messages = vec![nothing; messages].into_boxed_slice();
        Queue { memory, messages, oldest: 0, waiting: 0, next: 0, end: 0, joins, is_v6 }
    }

    /// From now on every datagram is a message of its own.
    pub(super) fn stop_joining(&mut self) {
        self.joins = false;
    }

    pub(super) fn joins(&self) -> bool {
        self.joins
    }

    /// Takes one datagram. False: there is no room, and nothing of it was taken.
    pub(super) fn push(&mut self, to: SocketAddr, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        if let Some(offset) = self.place_behind_last(to, len) {
            let last = self.at_mut(self.next - 1);
            last.len_bytes += len;
            self.copy(offset, parts);
            return true;
        }
        if self.next - self.oldest == self.messages.len() {
            return false;
        }
        let Some(offset) = self.place(len) else { return false };
        let at = self.next;
        self.next += 1;
        *self.at_mut(at) = Message {
            to,
            name: Name::of(to, self.is_v6),
            offset,
            len_bytes: len,
            segment_bytes: len,
            state: State::Waits,
        };
        self.copy(offset, parts);
        true
    }

    fn copy(&mut self, mut offset: usize, parts: &[&[u8]]) {
        for part in parts {
            self.memory[offset..offset + part.len()].copy_from_slice(part);
            offset += part.len();
        }
        self.end = offset;
    }

    /// Where a datagram goes that becomes part of the last message, if it may.
    fn place_behind_last(&self, to: SocketAddr, len: usize) -> Option<usize> {
        if !self.joins || self.waiting == self.next || len == 0 {
            return None;
        }
        let last = self.at(self.next - 1);
        let fits = last.to == to
            && len <= last.segment_bytes
            && last.len_bytes.is_multiple_of(last.segment_bytes)
            && last.len_bytes / last.segment_bytes < SEGMENTS_MAX
            && last.len_bytes + len <= SEGMENTED_BYTES_MAX;
        (fits && self.room_at_end() >= len).then_some(self.end)
    }

    /// Bytes free behind `end` in one piece.
    fn room_at_end(&self) -> usize {
        let begin = self.begin();
        // Full and empty would look alike: one byte before the oldest stays free.
        if self.end >= begin { self.memory.len() - self.end } else { begin - self.end - 1 }
    }

    fn begin(&self) -> usize {
        if self.oldest == self.next { self.end } else { self.at(self.oldest).offset }
    }

    fn place(&mut self, len: usize) -> Option<usize> {
        if self.oldest == self.next {
            self.end = 0;
        }
        if self.room_at_end() >= len {
            return Some(self.end);
        }
        // The rest of the memory stays unused until the messages before it are done.
        (self.end >= self.begin() && self.oldest != self.next && len < self.begin()).then_some(0)
    }

    fn at(&self, number: usize) -> &Message {
        &self.messages[number & (self.messages.len() - 1)]
    }

    fn at_mut(&mut self, number: usize) -> &mut Message {
        &mut self.messages[number & (self.messages.len() - 1)]
    }

    /// Whether everything was handed over.
    pub(super) fn none_waits(&self) -> bool {
        self.waiting == self.next
    }

    /// The messages that wait, from the oldest, with their numbers.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, &Message, &[u8])> {
        (self.waiting..self.next).map(|number| {
            let message = self.at(number);
            (number, message, self.bytes(number))
        })
    }

    pub(super) fn message(&self, number: usize) -> &Message {
        self.at(number)
    }

    /// A message's bytes. They stay where they are until it is done.
    pub(super) fn bytes(&self, number: usize) -> &[u8] {
        let Message { offset, len_bytes, .. } = *self.at(number);
        &self.memory[offset..offset + len_bytes]
    }

    /// The oldest that waits was handed over, and the kernel reads its memory until [`Queue::done`].
    pub(super) fn hand_over(&mut self) -> usize {
        assert!(self.waiting < self.next, "something waits");
        let number = self.waiting;
        self.at_mut(number).state = State::UnderWay;
        self.waiting += 1;
        number
    }

    /// The kernel is done with this message; in any order.
    pub(super) fn done(&mut self, number: usize) {
        let message = self.at_mut(number);
        assert!(message.state == State::UnderWay, "only what was handed over is done");
        message.state = State::Done;
        while self.oldest < self.waiting && self.at(self.oldest).state == State::Done {
            self.oldest += 1;
        }
    }

    /// The oldest of those that wait is done: it was sent, or is lost.
    pub(super) fn done_at_once(&mut self) {
        let number = self.hand_over();
        self.done(number);
    }

    /// How many messages the kernel has.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        (self.oldest..self.waiting).filter(|&number| self.at(number).state == State::UnderWay).count()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn lens(queue: &Queue) -> Vec<(u16, usize, usize)> {
        queue.waiting().map(|(_, m, _)| (m.to.port(), m.len_bytes, m.datagrams())).collect()
    }

    #[test]
    fn datagrams_of_one_length_to_one_address_are_one_message() {
        let mut queue = Queue::new(4096, 16, true, false);
        let sent: [(u16, usize); 8] = [(1, 10), (1, 10), (1, 4), (1, 4), (2, 4), (1, 4), (1, 5), (1, 0)];
        for (port, len) in sent {
            assert!(queue.push(address(port), &[&vec![len as u8; len]]));
        }
        assert_eq!(
            lens(&queue),
            [(1, 24, 3), (1, 4, 1), (2, 4, 1), (1, 4, 1), (1, 5, 1), (1, 0, 1)],
            "a shorter one ends a message, a longer one begins another, and nothing joins nothing"
        );
        let (_, message, bytes) = queue.waiting().next().unwrap();
        assert_eq!((message.segment_bytes, &bytes[18..22]), (10, &[10, 10, 4, 4][..]));
        let mut alone = Queue::new(4096, 16, false, false);
        assert!(alone.push(address(1), &[b"ab"]) && alone.push(address(1), &[b"cd"]));
        assert_eq!(lens(&alone).len(), 2);
    }

    #[test]
    fn a_message_has_so_many_datagrams_and_bytes() {
        let mut queue = Queue::new(1 << 20, 16, true, false);
        for _ in 0..SEGMENTS_MAX + 1 {
            assert!(queue.push(address(1), &[&[7; 100]]));
        }
        for _ in 0..50 {
            assert!(queue.push(address(2), &[&[7; 1472]]));
        }
        assert_eq!(lens(&queue), [(1, 6400, 64), (1, 100, 1), (2, 44 * 1472, 44), (2, 6 * 1472, 6)]);
    }

    /// Every byte that waits is what was pushed, whatever the order in which messages end.
    #[test]
    fn memory_is_given_back_in_order_and_nothing_is_overwritten() {
        let mut queue = Queue::new(1000, 8, true, false);
        let (mut random, mut pushed, mut refused) = (1_u64, 0_u64, 0);
        let mut under_way: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut waits: std::collections::VecDeque<Vec<u8>> = Default::default();
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = (random >> 33) as usize;
            match draw % 3 {
                0 => {
                    let bytes = vec![pushed as u8; 1 + draw / 3 % 400];
                    let port = (draw / 1200 % 2) as u16;
                    let before = queue.waiting().count();
                    if queue.push(address(port), &[&bytes[..1], &bytes[1..]]) {
                        pushed += 1;
                        if queue.waiting().count() == before {
                            waits.back_mut().unwrap().extend(&bytes);
                        } else {
                            waits.push_back(bytes);
                        }
                    } else {
                        refused += 1;
                    }
                }
                1 if !queue.none_waits() => {
                    let number = queue.hand_over();
                    under_way.push((number, waits.pop_front().unwrap()));
                }
                _ if !under_way.is_empty() => {
                    let (number, bytes) = under_way.swap_remove(draw / 3 % under_way.len());
                    assert_eq!(queue.bytes(number), bytes);
                    queue.done(number);
                }
                _ => {}
            }
            assert_eq!(queue.under_way(), under_way.len());
            assert!(queue.waiting().zip(&waits).all(|((_, _, bytes), expected)| bytes == expected));
        }
        assert!(pushed > 2000 && refused > 200, "{pushed} pushed, {refused} refused");
    }
}
