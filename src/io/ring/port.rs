//! [`RingPort`]: the engines' threads that are attached to one lane, and [`Door`], by which they come and go.
//!
//! Whoever attaches makes the region and hands the lane's end in through the door; whoever hangs up drops its
//! [`Presence`]. The lane looks at one flag per turn to learn of either, and is woken if it blocks.
//!
//! Rings are served in turn, a few records each. What does not fit a completion ring waits, bounded as with any client
//! ([`CLIENT_OUTGOING_BYTES_MAX`]); beyond that the attachment is ended. The id of a client here has its highest bit
//! set, by which it is told from the clients of other ports.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_utils::CachePadded;
use rustix::thread::futex;

use super::{LaneEnd, Refused, bell};
use crate::io::link::Reporter;
use crate::io::reactor::Waker;
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::limits::{ATTACHMENTS_MAX, CLIENT_OUTGOING_BYTES_MAX};
use crate::types::Time;

/// The bytes of a request's row that are written: its last 8 are reserved and zero, and the ring's own header takes
/// their place, so that the payload begins at a cache line.
pub const ROW_BYTES: usize = 56;

/// How many records one ring is looked at for before it is the next one's turn.
const RECORDS_PER_TURN: usize = 64;

/// Set in the ids of all clients of ring ports, and of no others.
pub const RING_CLIENT: u64 = 1 << 63;

/// A client's id holds its slot in the lower bits, and above them which of the slot's many users it is.
const SLOT_BITS: u32 = 16;
const _: () = assert!(ATTACHMENTS_MAX <= 1 << SLOT_BITS);

/// The way in to a lane's [`RingPort`], from any thread. Clones are the same door.
#[derive(Clone, Debug)]
pub struct Door {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    /// Somebody came or went. Looked at by the lane in every turn, so it has a line of its own.
    knocked: CachePadded<AtomicBool>,
    arrivals: Mutex<Vec<Arrival>>,
    /// The lane has left: nobody comes in any more.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Arrival {
    end: LaneEnd,
    name: String,
    gone: Arc<AtomicBool>,
    claim: Box<dyn Claim>,
}

/// Kept by the lane for as long as it serves an attachment; dropped when its memory is let go.
pub trait Claim: Send + fmt::Debug {}

/// Kept by the engine's side for as long as it is there: dropped, it tells the lane.
#[derive(Debug)]
pub struct Presence {
    gone: Arc<AtomicBool>,
    door: Door,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
        self.door.knock();
    }
}

impl Door {
    /// Hands a lane its end of an attachment, under a name for the operator. `None`: the lane has left.
    pub fn enter(&self, end: LaneEnd, name: String, claim: Box<dyn Claim>) -> Option<Presence> {
        let gone = Arc::new(AtomicBool::new(false));
        let mut arrivals = self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.closed.load(Ordering::Acquire) {
            return None;
        }
        arrivals.push(Arrival { end, name, gone: Arc::clone(&gone), claim });
        drop(arrivals);
        self.knock();
        Some(Presence { gone, door: self.clone() })
    }

    /// Wakes the lane.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    fn knock(&self) {
        self.shared.knocked.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[derive(Debug)]
struct Seat {
    id: ClientId,
    end: LaneEnd,
    name: String,
    gone: Arc<AtomicBool>,
    /// The last record found no room in the lane: there is no use in looking before something else has happened.
    stuck: bool,
    /// Replies for which the ring had no room.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Dropped with the seat.
    _claim: Box<dyn Claim>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end.leave();
        wake_sleeper(&self.end);
    }
}

/// See the module.
#[derive(Debug)]
pub struct RingPort {
    shared: Arc<Shared>,
    /// The lane never blocks.
    never_parks: bool,
    seats: Vec<Option<Seat>>,
    seated: usize,
    entered: u64,
    /// Whose turn it is first.
    first: usize,
    /// Whether seats were told that the lane blocks.
    is_parked: bool,
    opened: VecDeque<ClientId>,
    closed: VecDeque<ClientId>,
    now: Time,
    reporter: Reporter,
}

impl RingPort {
    /// A port without anybody, and the door to it. `never_parks`: the lane does not block, so nobody need wake it.
    pub fn new(waker: Waker, never_parks: bool) -> (RingPort, Door) {
        let shared = Arc::new(Shared::default());
        let port = RingPort {
            shared: Arc::clone(&shared),
            never_parks,
            seats: Vec::new(),
            seated: 0,
            entered: 0,
            first: 0,
            is_parked: false,
            opened: VecDeque::new(),
            closed: VecDeque::new(),
            now: Time(0),
            reporter: Reporter::default(),
        };
        (port, Door { shared, waker })
    }

    /// How many are attached at this time.
    pub fn attached(&self) -> usize {
        self.seated
    }

    /// Whether a client is one of a ring port.
    pub fn is_one(client: ClientId) -> bool {
        client.0 & RING_CLIENT != 0
    }

    fn answer_door(&mut self) {
        self.shared.knocked.store(false, Ordering::Relaxed);
        // Taken after the flag was put down: whoever comes in from now on knocks again.
        std::sync::atomic::fence(Ordering::SeqCst);
        let arrivals =
            std::mem::take(&mut *self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
        arrivals.into_iter().for_each(|arrival| self.admit(arrival));
        for slot in 0..self.seats.len() {
            // What a dead engine has published is still taken; then it is gone.
            let is_gone =
                |seat: &Seat| seat.gone.load(Ordering::Acquire) && !seat.end.submits.has_something();
            if self.seats[slot].as_ref().is_some_and(is_gone) {
                self.remove(slot);
            } else if self.seats[slot].as_ref().is_some_and(|seat| seat.gone.load(Ordering::Acquire)) {
                self.shared.knocked.store(true, Ordering::Relaxed);
            }
        }
    }

    fn admit(&mut self, arrival: Arrival) {
        let Arrival { end, name, gone, claim } = arrival;
        if self.seated == ATTACHMENTS_MAX {
            self.reporter.line(self.now, format_args!("refused {name}: {ATTACHMENTS_MAX} are attached"));
            return end.leave();
        }
        if self.never_parks {
            end.never_parks();
        }
        let slot = self.seats.iter().position(Option::is_none).unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        self.entered += 1;
        let id = ClientId(RING_CLIENT | self.entered << SLOT_BITS | slot as u64);
        let (waiting, waiting_bytes) = (VecDeque::new(), 0);
        self.seats[slot] =
            Some(Seat { id, end, name, gone, stuck: false, waiting, waiting_bytes, _claim: claim });
        self.seated += 1;
        self.opened.push_back(id);
    }

    fn remove(&mut self, slot: usize) {
        if let Some(seat) = self.seats[slot].take() {
            self.seated -= 1;
            self.closed.push_back(seat.id);
        }
    }

    /// Ends an attachment, with a line that says why.
    fn end(&mut self, slot: usize, why: fmt::Arguments<'_>) {
        if let Some(seat) = &self.seats[slot] {
            self.reporter.line(self.now, format_args!("ended the attachment of {}: {why}", seat.name));
            self.remove(slot);
        }
    }

    fn leave_park(&mut self) {
        if std::mem::take(&mut self.is_parked) {
            self.seats.iter().flatten().for_each(|seat| seat.end.leave_park());
        }
    }

    /// Gives what one ring holds to the sink. `None`: the sink has enough.
    fn turn(
        &mut self,
        slot: usize,
        events: &mut usize,
        sink: &mut impl FnMut(PortEvent<'_>) -> Flow,
    ) -> Option<()> {
        for _ in 0..RECORDS_PER_TURN {
            let Some(seat) = self.seats[slot].as_mut() else { break };
            seat.stuck = false;
            let record = match seat.end.submits.peek() {
                Ok(None) => break,
                Ok(Some(record)) => record,
                Err(corrupt) => {
                    self.end(slot, format_args!("{corrupt}"));
                    break;
                }
            };
            let Some((head, payload)) = record.split_first_chunk::<ROW_BYTES>() else {
                self.end(slot, format_args!("a record that is shorter than a request"));
                break;
            };
            // Read once: whoever wrote it may still write.
            let mut row = [0; 64];
            row[..ROW_BYTES].copy_from_slice(head);
            let flow = sink(PortEvent::Request { from: seat.id, row: &row, payload });
            if flow == Flow::Again {
                seat.stuck = true;
                return None;
            }
            seat.end.submits.advance();
            *events += 1;
            if flow == Flow::Stop {
                return None;
            }
        }
        Some(())
    }

    /// Sends what waits, as far as there is room.
    fn flush(&mut self, slot: usize) {
        let Some(seat) = self.seats[slot].as_mut() else { return };
        while let Some(frame) = seat.waiting.front() {
            match write(&mut seat.end, &[frame]) {
                Ok(()) => {
                    seat.waiting_bytes -= frame.len();
                    seat.waiting.pop_front();
                }
                Err(Refused::Full) => return,
                Err(refused) => return self.end(slot, format_args!("its completion ring: {refused:?}")),
            }
        }
    }

    fn slot_of(&self, client: ClientId) -> Option<usize> {
        let slot = (client.0 & ((1 << SLOT_BITS) - 1)) as usize;
        self.seats.get(slot)?.as_ref().is_some_and(|seat| seat.id == client).then_some(slot)
    }
}

fn write(end: &mut LaneEnd, parts: &[&[u8]]) -> Result<(), Refused> {
    let len_bytes = parts.iter().map(|part| part.len()).sum();
    let mut reserved = end.completions.reserve(len_bytes)?;
    let mut room = reserved.bytes();
    for part in parts {
        let (here, rest) = room.split_at_mut(part.len());
        here.copy_from_slice(part);
        room = rest;
    }
    reserved.publish();
    wake_sleeper(end);
    Ok(())
}

fn wake_sleeper(end: &LaneEnd) {
    if let Some(word) = end.sleeper() {
        // Not private: the sleeper may be in another process. It sleeps for so long at most, whatever becomes of this.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }
}

impl Port for RingPort {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(PortEvent<'_>) -> Flow) -> usize {
        self.now = now;
        self.leave_park();
        if self.shared.knocked.load(Ordering::Acquire) {
            self.answer_door();
        }
        let mut events = 0;
        // Opened before closed: who came and went at once is told of in this order.
        while let Some(event) = self.opened.pop_front().map(PortEvent::Opened) {
            events += 1;
            if sink(event) == Flow::Stop {
                return events;
            }
        }
        while let Some(event) = self.closed.pop_front().map(PortEvent::Closed) {
            events += 1;
            if sink(event) == Flow::Stop {
                return events;
            }
        }
        let count = self.seats.len();
        for step in 0..count {
            let slot = (self.first + step) % count;
            self.flush(slot);
            if self.turn(slot, &mut events, sink).is_none() {
                // Who was cut short does not come first again.
                self.first = (slot + 1) % count;
                return events;
            }
        }
        events + self.closed.len()
    }

    fn send(&mut self, to: ClientId, parts: &[&[u8]]) {
        let Some(slot) = self.slot_of(to) else { return };
        let Some(seat) = self.seats[slot].as_mut() else { return };
        let sent = if seat.waiting.is_empty() { write(&mut seat.end, parts) } else { Err(Refused::Full) };
        match sent {
            Ok(()) => {}
            Err(Refused::Full) => {
                seat.waiting.push_back(parts.concat());
                seat.waiting_bytes += parts.iter().map(|part| part.len()).sum::<usize>();
                let waiting_bytes = seat.waiting_bytes;
                if waiting_bytes > CLIENT_OUTGOING_BYTES_MAX {
                    self.end(slot, format_args!("it does not read: {waiting_bytes} bytes wait for it"));
                }
            }
            Err(Refused::Length) => {
                self.end(slot, format_args!("an answer is longer than half of its completion ring"));
            }
            Err(Refused::Corrupt(corrupt)) => self.end(slot, format_args!("{corrupt}")),
        }
    }

    fn close(&mut self, client: ClientId, why: &str) {
        if let Some(slot) = self.slot_of(client) {
            self.end(slot, format_args!("{why}"));
        }
    }

    fn before_park(&mut self) -> bool {
        if !self.opened.is_empty() || !self.closed.is_empty() {
            return false;
        }
        self.is_parked = true;
        self.seats.iter().flatten().for_each(|seat| seat.end.enter_park(!seat.waiting.is_empty()));
        bell::settle();
        let has_something = |seat: &Seat| !seat.stuck && seat.end.submits.has_something();
        let idle = !self.seats.iter().flatten().any(has_something);
        if !idle || self.shared.knocked.load(Ordering::Relaxed) {
            self.leave_park();
            return false;
        }
        true
    }
}

impl Drop for RingPort {
    fn drop(&mut self) {
        let mut arrivals = self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.closed.store(true, Ordering::Release);
        arrivals.drain(..).for_each(|arrival| arrival.end.leave());
    }
}
