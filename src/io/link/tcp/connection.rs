//! The connections of a [`super::TcpLink`], each in its slot, from the first packet to the last.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use super::stream::{Broken, Stream};
use super::{HELLO_TIMEOUT, set_options};
use crate::io::reactor::{Owner, Reactor};
use crate::limits::PEER_OUTGOING_BYTES_MAX;
use crate::types::Time;

/// A peer that has not acknowledged what was sent to it for so long is taken for gone: dialling anew finds a mended
/// path sooner than TCP's own retries, whose pauses grow.
pub(super) const PEER_UNHEARD: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Dialled; the system has not said yet whether it is made. The number is the peer's place in the list.
    Connecting(usize),
    /// Hello was said.
    AwaitsWelcome(usize),
    /// Accepted; from whom, hello will tell.
    AwaitsHello,
    /// Both ends know each other.
    Up(usize),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) address: SocketAddr,
    pub(super) state: State,
    /// Until when the greeting must be over.
    pub(super) deadline: Time,
    /// A send found it broken: the next poll ends it.
    pub(super) broken: Option<Broken>,
    /// It is read from in every poll, and the reactor watches it only while the lane blocks.
    pub(super) eager: bool,
    /// The reactor watches for room to write too.
    pub(super) watches_writes: bool,
}

impl Connection {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// From now on it is read from in every poll.
    pub(super) fn make_eager(&mut self, reactor: &Reactor, slot: usize) {
        let (fd, key) = (self.stream.fd(), slot as u32 + 1);
        reactor.deregister(fd, Owner::Link, key);
        self.eager = reactor.register_for_park(fd, Owner::Link, key).is_ok();
        if !self.eager && reactor.register(fd, Owner::Link, key).is_err() {
            // Nobody would tell of it: it ends, and is dialled anew.
            let refused = io::Error::new(io::ErrorKind::OutOfMemory, "the system does not watch it");
            self.broken = Some(Broken::Failed(refused));
        }
    }

    /// What is read from in every poll is also written to, if something waits.
    pub(super) fn look_anyway(&mut self) {
        if self.eager {
            (self.stream.readable, self.stream.writable) = (true, true);
        }
    }

    /// Has the reactor watch for room to write while something waits for it.
    pub(super) fn watch_writes(&mut self, reactor: &Reactor) {
        let waits = self.stream.outgoing_bytes() > 0;
        if self.eager && waits != self.watches_writes {
            self.watches_writes = waits;
            reactor.watch_writes(self.stream.fd(), waits);
        }
    }

    /// Whether the connection that was dialled is there.
    pub(super) fn is_made(&self) -> Result<bool, Broken> {
        let socket = self.stream.socket();
        if let Some(error) = socket.take_error().map_err(Broken::Failed)? {
            return Err(Broken::Failed(error));
        }
        if socket.peer_addr().is_err() {
            return Ok(false);
        }
        // Dialling a free port of this host, the system may choose that very port to dial from, and the socket then
        // speaks to itself and holds the port that the peer wants to listen at.
        if socket.local_addr().ok() == Some(self.address) {
            let itself = io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there");
            return Err(Broken::Failed(itself));
        }
        Ok(true)
    }
}

pub(super) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = TcpStream::from(socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?);
    set_options(&socket, PEER_UNHEARD)?;
    match connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn insert(
    slots: &mut Vec<Option<Connection>>,
    reactor: &Reactor,
    socket: TcpStream,
    address: SocketAddr,
    state: State,
    now: Time,
) -> io::Result<usize> {
    let slot = slots.iter().position(Option::is_none).unwrap_or_else(|| {
        slots.push(None);
        slots.len() - 1
    });
    reactor.register(socket.as_fd(), Owner::Link, slot as u32 + 1)?;
    let stream = Stream::new(socket, PEER_OUTGOING_BYTES_MAX);
    slots[slot] = Some(Connection {
        stream,
        address,
        state,
        deadline: now.after(HELLO_TIMEOUT),
        broken: None,
        eager: false,
        watches_writes: false,
    });
    Ok(slot)
}

pub(super) fn remove(slots: &mut [Option<Connection>], reactor: &Reactor, slot: usize) {
    if let Some(connection) = slots[slot].take() {
        reactor.deregister(connection.stream.fd(), Owner::Link, slot as u32 + 1);
    }
}
