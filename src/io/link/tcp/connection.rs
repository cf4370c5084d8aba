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
}

impl Connection {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
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
    slots[slot] =
        Some(Connection { stream, address, state, deadline: now.after(HELLO_TIMEOUT), broken: None });
    Ok(slot)
}

pub(super) fn remove(slots: &mut [Option<Connection>], reactor: &Reactor, slot: usize) {
    if let Some(connection) = slots[slot].take() {
        reactor.deregister(connection.stream.fd(), Owner::Link, slot as u32 + 1);
    }
}
