//! One connection to one lane of one node: bytes in, bytes out, both bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use core::ops::Range;
use core::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::types::{LaneId, NodeId};
use crate::wire::Malformed;
use crate::wire::client::Request;
use crate::wire::frame::{self, Builder, Kind};
use crate::wire::hello::{Greeting, Hello};

/// Beyond this many bytes waiting to be written no further submit is cut into frames.
const OUTGOING_SOFT_BYTES: usize = 2 << 20;
const INCOMING_START_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Greeting,
    Ready,
}

/// A record of which some parts are sent and some are not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) id: u64,
    pub(super) attempt: u8,
    pub(super) offset: usize,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) lane: LaneId,
    pub(super) state: State,
    pub(super) opened: Instant,
    pub(super) heard: Instant,
    pub(super) cut: Option<Cut>,
    /// Whether the epoll set watches for room to write.
    pub(super) watches_write: bool,
    stream: TcpStream,
    builder: Builder,
    body: Vec<u8>,
    outgoing: Vec<u8>,
    written: usize,
    incoming: Vec<u8>,
    filled: Range<usize>,
}

impl Connection {
    /// Ends it so that nothing that was sent and has not arrived is sent again: the system would go on with that for
    /// minutes, and it could come after what was submitted on another connection since.
    pub(super) fn abort(self) {
        // What it cannot be told it cannot be asked either: the connection is ended all the same.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    /// Starts to connect; the hello waits in the outgoing bytes.
    pub(super) fn open(address: SocketAddr, hello: Hello, now: Instant) -> io::Result<Connection> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Connection {
            lane: hello.lane,
            state: State::Connecting,
            opened: now,
            heard: now,
            cut: None,
            watches_write: true,
            stream,
            builder: Builder::new(Kind::Request),
            body: Vec::new(),
            outgoing: Greeting::Hello(hello).encode().to_vec(),
            written: 0,
            incoming: vec![0; INCOMING_START_BYTES],
            filled: 0..0,
        })
    }

    /// Connecting and writable: whether it worked.
    pub(super) fn connected(&mut self) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        // A free local port is sometimes chosen to be the one that is connected to, and then nobody else is there.
        if self.stream.peer_addr()? == self.stream.local_addr()? {
            return Err(io::Error::other("nobody listens there (the socket met itself)"));
        }
        self.state = State::Greeting;
        Ok(())
    }

    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() - self.written + self.body.len() < OUTGOING_SOFT_BYTES
    }

    /// Adds a request and its payload to the frame under construction.
    pub(super) fn push(&mut self, request: &Request<'_>, payload: &[u8]) {
        if !self.builder.fits(payload.len()) {
            self.seal();
        }
        self.builder.push(&request.encode(), payload.len());
        self.body.extend_from_slice(payload);
    }

    fn seal(&mut self) {
        if !self.builder.is_empty() {
            self.outgoing.extend_from_slice(self.builder.seal());
            self.outgoing.append(&mut self.body);
            self.builder.clear();
        }
    }

    /// Writes what the system takes. Whether something is left.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        self.seal();
        while self.written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What was written is dropped now and then, so that the rest does not creep through memory.
                    if self.written >= OUTGOING_SOFT_BYTES {
                        self.outgoing.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(false)
    }

    /// Reads once. Whether anything came.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        if self.filled.end == self.incoming.len() {
            self.make_room();
        }
        match self.stream.read(&mut self.incoming[self.filled.end..]) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection")),
            Ok(count) => {
                self.filled.end += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn make_room(&mut self) {
        self.incoming.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        if self.filled.end == self.incoming.len() {
            // A frame whose length was checked does not fit yet.
            let grown = (2 * self.incoming.len()).min(FRAME_BYTES_MAX + FRAME_HEADER_BYTES);
            assert!(grown > self.incoming.len(), "a frame within its bound fits the buffer");
            self.incoming.resize(grown, 0);
        }
    }

    /// The next whole frame's place in the bytes of [`Connection::take_incoming`].
    pub(super) fn next_frame(&mut self, incoming: &[u8]) -> Result<Option<Range<usize>>, Malformed> {
        let available = &incoming[self.filled.clone()];
        let Some(header) = available.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let len_bytes = frame::announced_bytes(header)?;
        if available.len() < len_bytes {
            return Ok(None);
        }
        let frame = self.filled.start..self.filled.start + len_bytes;
        self.filled.start = frame.end;
        Ok(Some(frame))
    }

    /// The bytes that came, for as long as frames are taken from them; [`Connection::put_incoming`] gives them back.
    pub(super) fn take_incoming(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.incoming)
    }

    pub(super) fn put_incoming(&mut self, incoming: Vec<u8>) {
        self.incoming = incoming;
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What a first frame says, in the words of an operator. `Ok`: lanes and shards.
pub(super) fn greeted(frame: &[u8], expected: NodeId, lane: LaneId) -> Result<(u16, u32), String> {
    use crate::wire::hello::Refusal;
    match Greeting::decode(frame).map_err(|malformed| malformed.to_string())? {
        Greeting::Welcome(welcome) if welcome.node != expected => {
            Err(format!("node {} answers there; correct the members' addresses", welcome.node))
        }
        Greeting::Welcome(welcome) if welcome.lane != lane || welcome.lanes == 0 || welcome.shards == 0 => {
            Err(format!("lane {} of {} answers where lane {lane} was expected", welcome.lane, welcome.lanes))
        }
        Greeting::Welcome(welcome) => Ok((welcome.lanes, welcome.shards)),
        Greeting::Refusal(Refusal::Cluster { expected, found }) => {
            Err(format!("it belongs to cluster {:016x}, not {:016x}", expected.0, found.0))
        }
        Greeting::Refusal(Refusal::Lanes { expected, found }) => {
            Err(format!("the cluster has {expected} lanes, not {found}"))
        }
        Greeting::Refusal(Refusal::Lane { expected, found }) => {
            Err(format!("lane {expected} listens there, not lane {found}"))
        }
        Greeting::Refusal(Refusal::Crowded) => Err("it serves as many clients as it can".to_owned()),
        Greeting::Refusal(other) => Err(format!("it refuses this client: {other:?}")),
        Greeting::Hello(_) => Err("another client answers there".to_owned()),
    }
}
