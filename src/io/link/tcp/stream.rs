//! A framed stream over one non-blocking socket.
//!
//! *In.* Bytes are read into one buffer and frames given out where they lie. The buffer is small until a header whose
//! length is within bounds asks for more, and then it is the owner who grants it: nothing that a peer says reserves
//! memory by itself. A frame is given out only when it is whole and its checksum holds.
//!
//! *Out.* A frame is offered to the socket at once, from the parts where they lie. What the socket does not take is
//! copied and waits, up to a bound; a frame that might not fit below the bound is refused before its first byte.
//!
//! Readiness is edge-triggered, so the stream remembers it: `readable` and `writable` are true until the socket said
//! that it would block.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use crate::io::Full;
use crate::io::reactor::Ready;
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::Malformed;
use crate::wire::frame::{self, Kind};
use crate::wire::hello::GREETING_BYTES;

/// The receive buffer of a connection that has not said hello.
pub(super) const GREETING_BUFFER_BYTES: usize = 4 << 10;

/// The receive buffer of a connection that has.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// A drained outgoing buffer beyond this gives its memory back.
const OUTGOING_KEPT_BYTES: usize = 1 << 20;

/// A frame of so many bytes at most is sent in one piece.
const SMALL_FRAME_BYTES: usize = 512;

/// The most parts that one system call is given.
const PARTS_PER_SEND: usize = 64;

/// Why a stream is of no more use.
#[derive(Debug)]
pub(super) enum Broken {
    /// The other end closed it between two frames.
    Closed,
    /// The other end closed it within a frame.
    ClosedWithin { have_bytes: usize },
    /// The other end reset it.
    Reset(io::Error),
    /// The system gave it up: nothing was heard for too long, no route, and the like.
    Failed(io::Error),
    /// What came is not a frame.
    Malformed(Malformed),
}

impl Broken {
    /// Whether the other end's system closed it, so that its process has most likely ended.
    pub(super) fn by_peer(&self) -> bool {
        matches!(self, Broken::Closed | Broken::ClosedWithin { .. } | Broken::Reset(_))
    }

    fn by_system(error: io::Error) -> Broken {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Broken::Reset(error),
            _ => Broken::Failed(error),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Closed => write!(f, "closed by the other end"),
            Broken::ClosedWithin { have_bytes } => {
                write!(f, "closed by the other end after {have_bytes} bytes of a frame")
            }
            Broken::Reset(error) | Broken::Failed(error) => write!(f, "{error}"),
            Broken::Malformed(malformed) => write!(f, "{malformed}"),
        }
    }
}

/// What the receive buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole frame, see [`Stream::bytes`]. It is consumed: the next call tells of the one after it.
    Frame(Kind, Range<usize>),
    /// Less than a frame, and room for the rest: [`Stream::fill`] goes on.
    Short,
    /// The frame that has begun needs a buffer of so many bytes: [`Stream::grow`], when the owner grants it.
    Grow(usize),
}

#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    /// Bytes of `start..end` have come and were not given out.
    incoming: Vec<u8>,
    start: usize,
    end: usize,
    /// The longest frame that is taken at this time.
    frame_bytes_max: usize,
    outgoing: VecDeque<u8>,
    outgoing_bytes_max: usize,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Reading goes on until it tells how the other end closed.
    closed: bool,
}

impl Stream {
    /// Over a non-blocking socket; takes greetings only until [`Stream::establish`].
    pub(super) fn new(socket: TcpStream, outgoing_bytes_max: usize) -> Stream {
        Stream {
            socket,
            incoming: vec![0; GREETING_BUFFER_BYTES],
            start: 0,
            end: 0,
            frame_bytes_max: GREETING_BYTES,
            outgoing: VecDeque::new(),
            outgoing_bytes_max,
            readable: true,
            writable: true,
            closed: false,
        }
    }

    /// Takes in what the reactor tells.
    pub(super) fn became(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.closed |= ready.closed;
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Both ends know each other: from now on every frame within the bounds is taken.
    pub(super) fn establish(&mut self) {
        self.frame_bytes_max = FRAME_BYTES_MAX;
        self.grow(BUFFER_BYTES);
    }

    /// The memory that the receive buffer holds.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.incoming.len()
    }

    /// Whether part of a frame has come.
    pub(super) fn is_within_frame(&self) -> bool {
        self.start < self.end
    }

    pub(super) fn outgoing_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Gives the receive buffer so many bytes, if it has less.
    pub(super) fn grow(&mut self, bytes: usize) {
        if self.incoming.len() < bytes {
            let mut grown = vec![0; bytes];
            grown[..self.end - self.start].copy_from_slice(&self.incoming[self.start..self.end]);
            self.adopt(grown);
        }
    }

    /// Gives a grown receive buffer back, if what it holds fits the usual one and asks for no more than that.
    pub(super) fn shrink(&mut self) {
        let held = self.end - self.start;
        if self.incoming.len() > BUFFER_BYTES && held < FRAME_HEADER_BYTES {
            let mut small = vec![0; BUFFER_BYTES];
            small[..held].copy_from_slice(&self.incoming[self.start..self.end]);
            self.adopt(small);
        }
    }

    fn adopt(&mut self, buffer: Vec<u8>) {
        self.end -= self.start;
        self.start = 0;
        self.incoming = buffer;
    }

    /// What is to be done with what has come.
    pub(super) fn next(&mut self) -> Result<Next, Broken> {
        let held = &self.incoming[self.start..self.end];
        let Some(header) = held.first_chunk::<FRAME_HEADER_BYTES>() else {
            self.make_room(FRAME_HEADER_BYTES);
            return Ok(Next::Short);
        };
        let len = frame::announced_bytes(header).map_err(Broken::Malformed)?;
        if len > self.frame_bytes_max {
            return Err(Broken::Malformed(Malformed::Length(len as u32)));
        }
        if held.len() >= len {
            let (kind, _, _) = frame::open(&held[..len]).map_err(Broken::Malformed)?;
            let range = self.start..self.start + len;
            self.start += len;
            return Ok(Next::Frame(kind, range));
        }
        if len > self.incoming.len() {
            return Ok(Next::Grow(len.next_power_of_two().min(FRAME_BYTES_MAX)));
        }
        self.make_room(len);
        Ok(Next::Short)
    }

    /// Moves what is held to the front if the frame that it begins does not fit behind.
    fn make_room(&mut self, len: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + len > self.incoming.len() {
            self.incoming.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// A frame that [`Stream::next`] told of; there until the next call of [`Stream::next`] or [`Stream::fill`].
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.incoming[range]
    }

    /// Reads once; how many bytes have come, 0 if it would block. To be called after [`Next::Short`].
    pub(super) fn fill(&mut self) -> Result<usize, Broken> {
        debug_assert!(self.end < self.incoming.len(), "Short promises room");
        loop {
            // Not by the standard library: the C library's call is a point of cancellation, which a lane that spins
            // pays for.
            match recv(&self.socket, &mut self.incoming[self.end..], RecvFlags::empty())
                .map(|(bytes, _)| bytes)
            {
                Ok(0) if self.start == self.end => return Err(Broken::Closed),
                Ok(0) => return Err(Broken::ClosedWithin { have_bytes: self.end - self.start }),
                Ok(bytes) => {
                    self.end += bytes;
                    // Room left over: the socket is empty, and what comes from now on is told anew.
                    self.readable = self.closed || self.end == self.incoming.len();
                    return Ok(bytes);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Ok(0);
                }
                Err(error) => return Err(Broken::by_system(error.into())),
            }
        }
    }

    /// Sends a frame, the parts in this order, or nothing of it.
    pub(super) fn send(&mut self, parts: &[&[u8]]) -> Result<Result<(), Full<()>>, Broken> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if self.outgoing.len() + total > self.outgoing_bytes_max {
            return Ok(Err(Full(())));
        }
        if total <= SMALL_FRAME_BYTES && self.outgoing.is_empty() && self.writable {
            return self.send_small(parts, total).map(Ok);
        }
        let mut rest = parts;
        // How much of the first of the rest is sent already.
        let mut skip = 0;
        while self.outgoing.is_empty() && self.writable && !rest.is_empty() {
            let mut sent = self.send_some(rest, skip)?;
            while let Some(first) = rest.first() {
                let left = first.len() - skip;
                if sent < left {
                    skip += sent;
                    break;
                }
                sent -= left;
                skip = 0;
                rest = &rest[1..];
            }
        }
        for part in rest {
            self.outgoing.extend(&part[skip..]);
            skip = 0;
        }
        Ok(Ok(()))
    }

    /// A short frame is put together first: the kernel takes one piece faster than a list of them.
    fn send_small(&mut self, parts: &[&[u8]], total: usize) -> Result<(), Broken> {
        let mut whole = [0; SMALL_FRAME_BYTES];
        let mut end = 0;
        for part in parts {
            whole[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let sent = loop {
            match send(&self.socket, &whole[..total], SendFlags::NOSIGNAL) {
                Ok(bytes) => break bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    break 0;
                }
                Err(error) => return Err(Broken::by_system(error.into())),
            }
        };
        self.outgoing.extend(&whole[sent..total]);
        Ok(())
    }

    /// One system call over the first of `parts`; how many bytes the socket took.
    fn send_some(&mut self, parts: &[&[u8]], skip: usize) -> Result<usize, Broken> {
        let mut slices = [IoSlice::new(&[]); PARTS_PER_SEND];
        let count = parts.len().min(PARTS_PER_SEND);
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        slices[0] = IoSlice::new(&parts[0][skip..]);
        self.send_slices(&slices[..count])
    }

    fn send_slices(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Broken> {
        loop {
            let mut nothing = SendAncillaryBuffer::default();
            match sendmsg(&self.socket, slices, &mut nothing, SendFlags::NOSIGNAL) {
                Ok(bytes) => return Ok(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) => return Err(Broken::by_system(error.into())),
            }
        }
    }

    /// Goes on with what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        while self.writable && !self.outgoing.is_empty() {
            let outgoing = std::mem::take(&mut self.outgoing);
            let (front, back) = outgoing.as_slices();
            let sent = self.send_slices(&[IoSlice::new(front), IoSlice::new(back)]);
            self.outgoing = outgoing;
            self.outgoing.drain(..sent?);
        }
        if self.outgoing.is_empty() && self.outgoing.capacity() > OUTGOING_KEPT_BYTES {
            self.outgoing = VecDeque::new();
        }
        Ok(())
    }

    /// Says a last word and ends the connection. What has come unread is read away first, a bounded amount: a close
    /// with unread bytes resets the connection, and the reset may overtake the last word.
    pub(super) fn leave(&mut self, last_word: &[u8]) {
        let _ = self.send(&[last_word]);
        let mut sink = [0; 4096];
        for _ in 0..16 {
            if !matches!((&self.socket).read(&mut sink), Ok(1..)) {
                break;
            }
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}
