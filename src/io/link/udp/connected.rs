//! A socket for one peer, at the port of the one that all share.
//!
//! The kernel finds the way to whom a socket is connected once, and for every datagram anew where it is not: over
//! loopback a round trip takes 0.7 us less by connected sockets. What the peer sends comes to its own socket as well,
//! in a buffer of its own: a flood that strangers send waits in the shared one.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// What comes from this peer's address and goes to it.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) peer: SocketAddr,
    pub(super) socket: UdpSocket,
}

impl Connected {
    /// Beside `shared` and those that were `made` before, with their address.
    pub(super) fn new(shared: &UdpSocket, made: &[Connected], peer: SocketAddr) -> io::Result<Connected> {
        let own = shared.local_addr()?;
        let whereto = match peer {
            SocketAddr::V4(v4) if own.is_ipv6() => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            _ => peer,
        };
        let family = if own.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = UdpSocket::from(socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?);
        // One port has several sockets only if each of them agrees to it when the next one comes, and afterwards none
        // of them does any more: a node that is configured for the same port is to be told that it is in use.
        let share = |on| {
            let made = made.iter().map(|connected| &connected.socket);
            made.chain([shared, &socket]).try_for_each(|socket| sockopt::set_socket_reuseport(socket, on))
        };
        let bound = share(true).and_then(|()| bind(&socket, &own));
        share(false)?;
        bound?;
        connect(&socket, &whereto)?;
        Ok(Connected { peer, socket })
    }
}
