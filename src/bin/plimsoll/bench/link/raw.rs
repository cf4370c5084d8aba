//! The raw sockets beside which a link is measured: connected, not blocking, both ends spinning.

use std::io::{self, ErrorKind, Read, Write};
#[cfg(feature = "dpdk")]
use std::net::SocketAddr;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::common::record;

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// A datagram that is not back by then is lost.
const LOST_AFTER: Duration = Duration::from_millis(50);

pub(super) struct Raw {
    socket: Socket,
    buffer: Vec<u8>,
    /// How much of a message has come, of a stream.
    have: usize,
}

enum Socket {
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

impl Raw {
    pub(super) fn datagrams() -> io::Result<(Raw, Raw)> {
        let one = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        one.connect(other.local_addr()?)?;
        other.connect(one.local_addr()?)?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((Raw::over(Socket::Datagrams(one)), Raw::over(Socket::Datagrams(other))))
    }

    /// One end whose other end is another process.
    #[cfg(feature = "dpdk")]
    pub(super) fn to_other_process(socket: UdpSocket, other: SocketAddr) -> io::Result<Raw> {
        socket.connect(other)?;
        socket.set_nonblocking(true)?;
        Ok(Raw::over(Socket::Datagrams(socket)))
    }

    pub(super) fn stream() -> io::Result<(Raw, Raw)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let one = TcpStream::connect(listener.local_addr()?)?;
        let (other, _) = listener.accept()?;
        for socket in [&one, &other] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        Ok((Raw::over(Socket::Stream(one)), Raw::over(Socket::Stream(other))))
    }

    fn over(socket: Socket) -> Raw {
        Raw { socket, buffer: vec![0; 2 << 20], have: 0 }
    }

    /// One message after another, each when the one before is back.
    pub(super) fn ping(
        &mut self,
        bytes: usize,
        lasting: Duration,
        latencies: &mut Histogram<u64>,
    ) -> io::Result<()> {
        // A message needs a byte, and room for its number where one may be lost.
        let bytes = self.message_bytes(bytes);
        let (until, mut number) = (Instant::now() + lasting, 0_u64);
        loop {
            number += 1;
            let begun = Instant::now();
            if begun >= until {
                return Ok(());
            }
            self.buffer[..8].copy_from_slice(&number.to_le_bytes());
            self.send(bytes)?;
            loop {
                if self.receive(bytes)? && self.buffer[..8] == number.to_le_bytes() {
                    record(latencies, begun.elapsed());
                    break;
                }
                if begun.elapsed() > LOST_AFTER && matches!(self.socket, Socket::Datagrams(_)) {
                    break;
                }
            }
        }
    }

    /// Sends back what has come, if something has.
    pub(super) fn echo(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = self.message_bytes(bytes);
        if self.receive(bytes)? {
            self.send(bytes)?;
        }
        Ok(())
    }

    /// How long a message is for which so many bytes were asked: at most a datagram's.
    pub(super) fn message_bytes(&self, bytes: usize) -> usize {
        let most = if matches!(self.socket, Socket::Datagrams(_)) { DATAGRAM_BYTES_MAX } else { usize::MAX };
        bytes.clamp(8, most)
    }

    /// Whether a whole message has come.
    fn receive(&mut self, bytes: usize) -> io::Result<bool> {
        let have = match &self.socket {
            Socket::Datagrams(socket) => socket.recv(&mut self.buffer[..bytes]),
            Socket::Stream(socket) => (&mut &*socket).read(&mut self.buffer[self.have..bytes]),
        };
        match have {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(have) => {
                self.have += have;
                let whole = self.have >= bytes;
                if whole {
                    self.have = 0;
                }
                Ok(whole)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, bytes: usize) -> io::Result<()> {
        let mut rest = &self.buffer[..bytes];
        while !rest.is_empty() {
            let sent = match &self.socket {
                Socket::Datagrams(socket) => socket.send(rest),
                Socket::Stream(socket) => (&mut &*socket).write(rest),
            };
            match sent {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
