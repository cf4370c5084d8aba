//! Over the lane's io_uring: one receive that goes on and on into memory that the kernel was provided with, and sends
//! that are handed over together with whatever else the lane starts in its turn.
#![allow(unsafe_code, reason = "the kernel reads and writes memory while an operation is under way")]

use std::fmt;
use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, Fd, RecvMsgOut};
use io_uring::{cqueue, opcode};

use super::base::{Base, Refused};
use super::plain::send_apart;
use super::socket::{CONTROL_BYTES, Control, NAME_BYTES, Name, joined_segment};
use crate::io::datagram::Arrival;
use crate::io::reactor::Reactor;
use crate::io::reactor::uring::{Datagram, RECEIVE, Uring};
use crate::types::Time;

/// How many messages may have come and not been polled; further ones wait in the socket.
const BUFFERS: u16 = 64;

/// The kernel's name for them.
const GROUP: u16 = 1;

/// How many sends are under way at once.
const SENDS_MAX: u32 = 64;

/// What the kernel puts before a message: lengths and flags, the sender's name, control messages.
const PREFIX_BYTES: usize = 16 + NAME_BYTES + CONTROL_BYTES;

/// How long a carrier that is dropped waits for what is under way.
const DROP_WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) struct Ring {
    reactor: Reactor,
    memory: Memory,
    /// The receive is under way.
    receives: bool,
    /// Which of the places are free.
    free: Vec<u32>,
    /// Of each place, whose operation has the number after [`RECEIVE`] and so on: the message that is under way there,
    /// and how often it was tried.
    sends: Vec<Option<(usize, u32)>>,
    /// Places whose message was refused for now.
    later: Vec<u32>,
}

/// What the kernel may read or write at any time. It never moves.
struct Memory {
    provided: Box<Page>,
    buffers: Box<[u8]>,
    each_bytes: usize,
    /// How many buffers were ever provided.
    tail: u16,
    /// What the receive is told.
    template: Box<libc::msghdr>,
    headers: Box<[Header]>,
}

/// The ring of provided buffers, at the beginning of a page.
#[repr(C, align(4096))]
struct Page([u64; 512]);

const _: () = assert!(BUFFERS as usize * size_of::<BufRingEntry>() <= size_of::<Page>());
const _: () = assert!(BUFFERS.is_power_of_two(), "places are found with a mask");

/// What one send is told.
#[repr(C)]
struct Header {
    header: libc::msghdr,
    part: libc::iovec,
    name: Name,
    control: Control,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("receives", &self.receives).finish_non_exhaustive()
    }
}

impl Ring {
    /// Over the reactor's ring. An error says that there is none, or that this kernel cannot do it (Linux 6.0 can).
    pub(super) fn new(base: &Base, reactor: &Reactor) -> io::Result<Ring> {
        let unsupported = |words: &str| io::Error::new(io::ErrorKind::Unsupported, words.to_owned());
        let mut memory = Memory::new(base.receive_bytes());
        let mut ring =
            reactor.ring().ok_or_else(|| unsupported("the lane's reactor is not over io_uring"))?;
        // SAFETY: the page is BUFFERS entries long at least, stays where it is, and lives until it is taken back: by
        // `close`, or it is leaked.
        unsafe { ring.provide_buffers(memory.provided.0.as_mut_ptr().addr() as u64, BUFFERS, GROUP)? };
        for buffer in 0..BUFFERS {
            memory.provide(buffer);
        }
        drop(ring);
        let mut ring = Ring {
            reactor: reactor.clone(),
            memory,
            receives: false,
            free: (0..SENDS_MAX).rev().collect(),
            sends: (0..SENDS_MAX).map(|_| None).collect(),
            later: Vec::with_capacity(SENDS_MAX as usize),
        };
        ring.receive(base);
        let mut lane = ring_of(reactor);
        lane.submit();
        lane.poll();
        let refused = lane.peek_came().filter(|told| told.result == -libc::EINVAL).is_some();
        if refused {
            lane.next_came();
            lane.take_back_buffers(GROUP);
            return Err(unsupported(
                "this kernel's io_uring does not receive datagrams on and on (Linux 6.0)",
            ));
        }
        drop(lane);
        Ok(ring)
    }

    pub(super) fn poll(
        &mut self,
        base: &mut Base,
        now: Time,
        sink: &mut impl FnMut(Arrival<'_, SocketAddr>),
    ) -> usize {
        base.now = now;
        let mut events = 0;
        self.take_sent(base);
        loop {
            // Not in the loop's head: there the ring would stay borrowed.
            let told = ring_of(&self.reactor).next_came();
            match told {
                Some(told) => events += self.received(base, told, sink),
                None => break,
            }
        }
        if !self.receives {
            self.receive(base);
        }
        if !self.later.is_empty() && now >= base.retry_at {
            while let Some(place) = self.later.pop() {
                self.start(base, place);
            }
        }
        events += base.tell_troubles(sink);
        self.flush(base);
        events
    }

    /// Takes in what became of sends.
    fn take_sent(&mut self, base: &mut Base) {
        loop {
            let told = ring_of(&self.reactor).next_sent();
            match told {
                Some(told) => self.sent(base, told.operation - 1, told.result),
                None => return,
            }
        }
    }

    /// Hands over what is queued, and takes in what that made free.
    pub(super) fn make_room(&mut self, base: &mut Base) {
        self.flush(base);
        let mut lane = ring_of(&self.reactor);
        lane.submit();
        lane.poll();
        drop(lane);
        self.take_sent(base);
    }

    /// Queues what waits. The lane hands it over with its next kick.
    pub(super) fn flush(&mut self, base: &mut Base) {
        while !base.queue.none_waits() {
            let Some(place) = self.free.pop() else { return };
            let number = base.queue.hand_over();
            self.sends[place as usize] = Some((number, 0));
            self.start(base, place);
        }
    }

    pub(super) fn next_wake(&self, base: &Base) -> Time {
        if base.has_troubles {
            Time(0)
        } else if self.later.is_empty() {
            Time::NEVER
        } else {
            base.retry_at
        }
    }

    fn receive(&mut self, base: &Base) {
        let template = &raw const *self.memory.template;
        let entry = opcode::RecvMsgMulti::new(Fd(base.socket.as_raw_fd()), template, GROUP).build();
        // SAFETY: the template and the provided buffers stay where they are until the receive has ended: `close` waits
        // for that, or leaks them. The socket is open until then.
        unsafe { ring_of(&self.reactor).start_datagram(entry, RECEIVE, true) };
        self.receives = true;
    }

    fn received(
        &mut self,
        base: &mut Base,
        told: Datagram,
        sink: &mut impl FnMut(Arrival<'_, SocketAddr>),
    ) -> usize {
        if !cqueue::more(told.flags) {
            self.receives = false;
        }
        if told.result < 0 {
            // Out of buffers: they are there again by now. Everything else is about something that was sent.
            base.has_troubles |= told.result != -libc::ENOBUFS && told.result != -libc::ECANCELED;
            return 0;
        }
        let Some(buffer) = cqueue::buffer_select(told.flags) else { return 0 };
        let memory = &mut self.memory;
        let begin = usize::from(buffer) * memory.each_bytes;
        let whole = &memory.buffers[begin..begin + memory.each_bytes];
        let whole = &whole[..(told.result as usize).min(whole.len())];
        let events = match RecvMsgOut::parse(whole, &memory.template) {
            Ok(message) => {
                let segment_bytes = joined_segment(message.control_data());
                let from = Name::from_bytes(message.name_data());
                let is_cut = message.is_payload_truncated();
                base.deliver(from, segment_bytes, is_cut, message.payload_data(), sink)
            }
            Err(()) => 0,
        };
        memory.provide(buffer);
        events
    }

    /// Queues the message of a place.
    fn start(&mut self, base: &Base, place: u32) {
        let (number, _) = self.sends[place as usize].expect("a place that is started has a message");
        let message = base.queue.message(number);
        let bytes = base.queue.bytes(number);
        let header = &mut self.memory.headers[place as usize];
        header.name = message.name;
        header.part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        header.header.msg_name = (&raw mut header.name).cast();
        header.header.msg_namelen = message.name.len_bytes() as libc::socklen_t;
        header.header.msg_iov = &raw mut header.part;
        header.header.msg_iovlen = 1;
        if message.datagrams() > 1 {
            header.control = Control::segment(message.segment_bytes);
            header.header.msg_control = (&raw mut header.control).cast();
            header.header.msg_controllen = Control::SEGMENT_BYTES;
        } else {
            header.header.msg_control = std::ptr::null_mut();
            header.header.msg_controllen = 0;
        }
        let entry = opcode::SendMsg::new(Fd(base.socket.as_raw_fd()), &raw const header.header)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build();
        // SAFETY: the header is this place's until its completion; the message's bytes stay where they are until it is
        // done, which follows the completion. `close` waits for both, or leaks them. The socket is open until then.
        unsafe { ring_of(&self.reactor).start_datagram(entry, place + 1, false) };
    }

    /// The kernel is done with the message of a place.
    fn sent(&mut self, base: &mut Base, place: u32, result: i32) {
        let Some((number, attempts)) = self.sends[place as usize].as_mut() else { return };
        let number = *number;
        let &super::queue::Message { to, len_bytes, .. } = base.queue.message(number);
        let datagrams = base.queue.message(number).datagrams();
        if result >= 0 {
            base.sent(datagrams, len_bytes);
        } else {
            *attempts += 1;
            match base.refused(to, datagrams, -result, *attempts) {
                Refused::Again => return self.start(base, place),
                Refused::Later => return self.later.push(place),
                Refused::Apart => send_apart(base, number),
                Refused::Lost => {}
            }
        }
        base.queue.done(number);
        self.sends[place as usize] = None;
        self.free.push(place);
    }

    /// Ends everything that is under way, and waits for it. What the kernel does not give back in time is leaked.
    pub(super) fn close(&mut self, base: &mut Base) {
        let until = Instant::now() + DROP_WAIT_MAX;
        for place in std::mem::take(&mut self.later) {
            self.sends[place as usize] = None;
        }
        let mut lane = ring_of(&self.reactor);
        lane.cancel_datagrams(base.socket.as_raw_fd());
        while self.receives || self.sends.iter().any(Option::is_some) {
            while let Some(told) = lane.next_sent() {
                self.sends[told.operation as usize - 1] = None;
            }
            while let Some(told) = lane.next_came() {
                self.receives &= cqueue::more(told.flags);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                std::mem::forget(std::mem::replace(&mut self.memory, Memory::new(0)));
                base.leak_queue();
                return;
            }
            if self.receives || self.sends.iter().any(Option::is_some) {
                lane.wait(left.min(Duration::from_millis(10)));
            }
        }
        lane.take_back_buffers(GROUP);
    }
}

impl Memory {
    fn new(message_bytes: usize) -> Memory {
        let each_bytes = (PREFIX_BYTES + message_bytes).next_multiple_of(64);
        // SAFETY: all zeros is a message header without any parts.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { zeroed() });
        template.msg_namelen = NAME_BYTES as libc::socklen_t;
        template.msg_controllen = CONTROL_BYTES;
        let headers = (0..SENDS_MAX).map(|_| Header {
            // SAFETY: as above.
            header: unsafe { zeroed() },
            part: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: Name::default(),
            control: Control::EMPTY,
        });
        Memory {
            provided: Box::new(Page([0; 512])),
            // Not zeros: the system finds the pages now and not in the middle of a turn.
            buffers: vec![1; usize::from(BUFFERS) * each_bytes].into_boxed_slice(),
            each_bytes,
            tail: 0,
            template,
            headers: headers.collect(),
        }
    }

    /// Gives a buffer to the kernel.
    fn provide(&mut self, buffer: u16) {
        let base: *mut BufRingEntry = self.provided.0.as_mut_ptr().cast();
        let address = self.buffers[usize::from(buffer) * self.each_bytes..].as_mut_ptr().addr();
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the place lies in the page. There are as many places as buffers, and this buffer is ours, so the
        // kernel does not look at the place. The tail is a number of 16 bits within the page's first entry that only
        // this writes.
        unsafe {
            let entry = base.add(place);
            (*entry).set_addr(address as u64);
            (*entry).set_len(self.each_bytes as u32);
            (*entry).set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut());
            tail.store(self.tail, Ordering::Release);
        }
    }
}

fn ring_of(reactor: &Reactor) -> std::cell::RefMut<'_, Uring> {
    reactor.ring().expect("it had a ring when the carrier was made")
}
