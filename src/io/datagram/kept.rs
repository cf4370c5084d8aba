//! Frames longer than a datagram, on their way out: a ring of bytes in which each lies until all of it was sent, and
//! after that for as long as it may have to be repaired, or until its room is needed.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::io::Full;
use crate::types::Time;
use crate::wire::datagram::{Cut, MISSING_BYTES_MAX};

/// Frames kept at most, per peer.
const FRAMES_MAX: usize = 512;

/// How long a frame is kept after its last fragment was sent.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(1);

/// A frame of no more fragments goes before longer ones.
const SHORT_FRAGMENTS: usize = 16;

/// Repair requests that wait to be served at most, per peer.
const ASKS_MAX: usize = 16;

/// The memory of a session's first long frames. It grows with what is kept, and stays.
const RING_BYTES_MIN: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Kept {
    ring: Vec<u8>,
    /// How far the ring may grow.
    ring_bytes_max: usize,
    /// In the order of their numbers, and of their places in the ring.
    frames: VecDeque<Frame>,
    /// Where the next frame goes.
    head: usize,
    next_frame: u32,
    /// All frames before this place were sent to the end.
    unsent_from: usize,
    asks: Vec<Ask>,
    /// Chosen so far, for the turn of long frames.
    chosen: u32,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    cut: Cut,
    /// How many fragments that makes.
    count: usize,
    at: usize,
    given_at: Time,
    /// Its fragments before this were sent.
    sent: usize,
    /// When the last one was.
    sent_at: Time,
    /// When one last was, be it for a second time.
    busy_at: Time,
}

/// A repair request that is being served.
#[derive(Clone, Copy, Debug)]
struct Ask {
    frame: u32,
    first: usize,
    missing: [u8; MISSING_BYTES_MAX],
    bits: usize,
    /// Bits before this are done.
    next: usize,
}

/// A fragment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) cut: Cut,
    pub(super) fragment: usize,
    /// It was sent before.
    pub(super) again: bool,
    place: usize,
}

impl Kept {
    /// Without memory for frames: see [`Kept::reset`].
    pub(super) fn new(ring_bytes_max: usize) -> Kept {
        Kept {
            ring: Vec::new(),
            ring_bytes_max,
            frames: VecDeque::with_capacity(FRAMES_MAX),
            head: 0,
            next_frame: 0,
            unsent_from: 0,
            asks: Vec::with_capacity(ASKS_MAX),
            chosen: 0,
        }
    }

    /// For a new session.
    pub(super) fn reset(&mut self) {
        if self.ring.is_empty() {
            self.ring = vec![0; RING_BYTES_MIN];
        }
        self.frames.clear();
        self.asks.clear();
        (self.head, self.next_frame, self.unsent_from) = (0, 0, 0);
    }

    /// How the next frame is to be cut.
    pub(super) fn cut(&self, frame_bytes: usize, unit: usize) -> Cut {
        Cut { frame: self.next_frame, frame_bytes: frame_bytes as u32, unit: unit as u16 }
    }

    /// The number of [`Kept::cut`] is used up by a frame that is not kept.
    pub(super) fn skip(&mut self) {
        self.next_frame = self.next_frame.wrapping_add(1);
    }

    /// Whether something waits to be sent for the first time.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent_from < self.frames.len()
    }

    /// Whether something waits to be sent.
    pub(super) fn has_work(&self) -> bool {
        self.has_unsent() || !self.asks.is_empty()
    }

    /// Takes a frame in; its fragments before `sent` were sent already.
    pub(super) fn push(&mut self, now: Time, cut: Cut, parts: &[&[u8]], sent: usize) -> Result<(), Full<()>> {
        assert_eq!(cut.frame, self.next_frame, "frames are kept in the order of their numbers");
        if cut.fragments() > SHORT_FRAGMENTS && sent == 0 {
            // A follower that is far behind leaves room for the commits of others.
            let unsent = self.frames.range(self.unsent_from..);
            let waiting = unsent.map(|frame| frame.cut.frame_bytes as usize).sum::<usize>();
            if waiting + cut.frame_bytes as usize > self.ring_bytes_max / 2 {
                return Err(Full(()));
            }
        }
        let at = self.room(cut.frame_bytes as usize).ok_or(Full(()))?;
        let mut end = at;
        for part in parts {
            self.ring[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        assert_eq!(end - at, cut.frame_bytes as usize, "a frame is as long as its parts");
        self.head = end;
        self.skip();
        self.frames.push_back(Frame {
            cut,
            count: cut.fragments(),
            at,
            given_at: now,
            sent,
            sent_at: now,
            busy_at: now,
        });
        Ok(())
    }

    /// Where so many bytes fit. If nowhere, the ring grows; if that is at its end, the oldest frames give way, unless
    /// they were not sent yet.
    fn room(&mut self, bytes: usize) -> Option<usize> {
        loop {
            let found = self.free(bytes);
            if found.is_some() && self.frames.len() < FRAMES_MAX {
                return found;
            }
            if found.is_none() && self.ring.len() < self.ring_bytes_max {
                self.grow(bytes);
            } else if self.unsent_from == 0 {
                return None;
            } else {
                self.drop_oldest();
            }
        }
    }

    fn free(&self, bytes: usize) -> Option<usize> {
        match self.frames.front() {
            None => (bytes <= self.ring.len()).then_some(0),
            // The free room is behind the head and before the oldest.
            Some(oldest) if oldest.at < self.head => {
                if self.ring.len() - self.head >= bytes {
                    Some(self.head)
                } else {
                    (oldest.at >= bytes).then_some(0)
                }
            }
            // Between the two; none is left when they meet.
            Some(oldest) => (oldest.at - self.head >= bytes).then_some(self.head),
        }
    }

    /// A longer ring, with what is kept at its front.
    fn grow(&mut self, bytes: usize) {
        let wanted = (2 * self.ring.len()).max((self.ring.len() + bytes).next_power_of_two());
        let mut ring = vec![0; wanted.min(self.ring_bytes_max)];
        let mut end = 0;
        for frame in &mut self.frames {
            let len_bytes = frame.cut.frame_bytes as usize;
            ring[end..end + len_bytes].copy_from_slice(&self.ring[frame.at..frame.at + len_bytes]);
            (frame.at, end) = (end, end + len_bytes);
        }
        (self.ring, self.head) = (ring, end);
    }

    fn drop_oldest(&mut self) {
        self.frames.pop_front();
        self.unsent_from -= 1;
    }

    /// Whether one that was taken in at that time is not through yet, where what is missed of a frame is asked for
    /// within `answered` after something of it was sent.
    pub(super) fn is_carrying(&self, now: Time, given_at: Time, answered: Duration) -> bool {
        let of_it = |frame: &&Frame| frame.given_at == given_at;
        self.frames
            .iter()
            .filter(of_it)
            .any(|frame| frame.sent < frame.count || now.since(frame.busy_at) < answered)
    }

    /// Lets go of what was sent long ago.
    pub(super) fn expire(&mut self, now: Time) {
        while self.unsent_from > 0
            && self.frames.front().is_some_and(|oldest| now.since(oldest.sent_at) >= KEPT_FOR)
        {
            self.drop_oldest();
        }
    }

    /// The other end misses these. Of one frame the newest request counts. What cannot be noted is asked for again.
    pub(super) fn ask(&mut self, cut: &Cut, first: usize, missing: &[u8]) -> bool {
        if self.find(cut.frame).is_none_or(|place| self.frames[place].cut != *cut) {
            return false;
        }
        self.asks.retain(|ask| ask.frame != cut.frame);
        if self.asks.len() < ASKS_MAX {
            let mut ask = Ask {
                frame: cut.frame,
                first,
                missing: [0; MISSING_BYTES_MAX],
                bits: missing.len() * 8,
                next: 0,
            };
            ask.missing[..missing.len()].copy_from_slice(missing);
            self.asks.push(ask);
        }
        true
    }

    fn find(&self, frame: u32) -> Option<usize> {
        let oldest = self.frames.front()?.cut.frame;
        // Frames that were not kept leave gaps between those that were.
        let at_most = frame.wrapping_sub(oldest) as usize;
        (0..=at_most.min(self.frames.len().checked_sub(1)?))
            .rev()
            .find(|&at| self.frames[at].cut.frame == frame)
    }

    /// What is to be sent next: what is missed at the other end before what it never had, and short frames before long
    /// ones, which have every fourth turn all the same.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        while let Some(ask) = self.asks.first().copied() {
            let set = |bit: &usize| ask.missing[bit / 8] >> (bit % 8) & 1 == 1;
            let found = (ask.next..ask.bits).find(set).zip(self.find(ask.frame));
            // What was not sent for the first time is not missed yet.
            if let Some((bit, place)) = found
                && ask.first + bit < self.frames[place].sent
            {
                self.asks[0].next = bit;
                let cut = self.frames[place].cut;
                return Some(Piece { cut, fragment: ask.first + bit, again: true, place });
            }
            self.asks.remove(0);
        }
        let unsent = self.unsent_from..self.frames.len();
        let is_short = |place: &usize| {
            let frame = &self.frames[*place];
            frame.sent < frame.count && frame.count <= SHORT_FRAGMENTS
        };
        let longs_turn = self.chosen % 4 == 3;
        let short = if longs_turn { None } else { unsent.clone().find(is_short) };
        let place = short.or_else(|| unsent.clone().next())?;
        let frame = &self.frames[place];
        Some(Piece { cut: frame.cut, fragment: frame.sent, again: false, place })
    }

    /// The bytes of a piece.
    pub(super) fn bytes(&self, piece: &Piece) -> &[u8] {
        let range = piece.cut.range(piece.fragment);
        let at = self.frames[piece.place].at;
        &self.ring[at + range.start..at + range.end]
    }

    /// The piece of [`Kept::next_piece`] was sent. With `keep` its frame stays for repair.
    pub(super) fn sent(&mut self, now: Time, piece: &Piece, keep: bool) {
        let frame = &mut self.frames[piece.place];
        frame.busy_at = now;
        if piece.again {
            self.asks[0].next += 1;
            return;
        }
        self.chosen = self.chosen.wrapping_add(1);
        frame.sent += 1;
        frame.sent_at = now;
        while self.frames.get(self.unsent_from).is_some_and(|frame| frame.sent == frame.count) {
            self.unsent_from += 1;
        }
        while !keep && self.unsent_from > 0 {
            self.drop_oldest();
        }
    }
}
