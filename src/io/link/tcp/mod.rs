//! Link and port over TCP, the system's own.
//!
//! One connection per pair of nodes and lane carries both directions, so that a peer's frames arrive in the order in
//! which they were sent. The node with the lower id dials; the other listens. Each connection begins with a greeting
//! ([`crate::wire::hello`]), and nothing else is taken before it was found good.
//!
//! What a stranger can cost is bounded: so many connections without a hello, each for at most [`HELLO_TIMEOUT`] and
//! with a buffer of a few KiB; so many accepts per poll; one line per offence, so many per second. When descriptors run
//! out, accepting pauses instead of spinning.

mod asides;
mod clients;
mod connection;
mod peers;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

pub use self::asides::ASIDES_MAX;
pub use self::clients::{PortOptions, TcpPort};
pub use self::peers::{LinkOptions, TcpLink};
use super::Reporter;
use crate::io::reactor::{Owner, Reactor};
use crate::types::Time;
pub use crate::wire::identity::Identity;

/// How long a connection may take to be made, and to say hello or welcome.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// How many connections may be without a hello at once; one more ends the oldest.
pub const UNGREETED_MAX: usize = 64;

/// How many connections one poll accepts.
const ACCEPTS_PER_POLL: usize = 16;

/// How long accepting pauses when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener's key at the reactor; connections have those after it.
const LISTENER_KEY: u32 = 0;

/// A listener that is polled.
#[derive(Debug)]
struct Acceptor {
    listener: TcpListener,
    /// Connections may be waiting.
    ready: bool,
    /// Not before this time.
    paused_until: Time,
}

impl Acceptor {
    fn new(listener: TcpListener, reactor: &Reactor, owner: Owner) -> io::Result<Acceptor> {
        listener.set_nonblocking(true)?;
        reactor.register(listener.as_fd(), owner, LISTENER_KEY)?;
        Ok(Acceptor { listener, ready: true, paused_until: Time(0) })
    }

    /// Gives what waits to `take`, a bounded amount.
    fn poll(&mut self, now: Time, reporter: &mut Reporter, mut take: impl FnMut(TcpStream, SocketAddr)) {
        if !self.ready || now < self.paused_until {
            return;
        }
        for _ in 0..ACCEPTS_PER_POLL {
            match self.listener.accept() {
                Ok((socket, address)) => take(socket, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready = false;
                    return;
                }
                // One that was closed again before it was accepted, or a signal: the next one may be good.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                    ) => {}
                Err(error) => {
                    self.paused_until = now.after(ACCEPT_PAUSE);
                    reporter.line(
                        now,
                        format_args!("accepting connections pauses for {ACCEPT_PAUSE:?}: {error}"),
                    );
                    return;
                }
            }
        }
    }

    /// When it wants to be polled although nothing came.
    fn next_wake(&self) -> Time {
        if self.ready { self.paused_until } else { Time::NEVER }
    }
}

/// Small frames leave at once, and a dead cable is noticed: by probes when nothing is under way, and otherwise when
/// what was sent has not been acknowledged for `unheard`.
fn set_options(socket: &TcpStream, unheard: Duration) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, (unheard / 2).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(socket, 3)?;
    sockopt::set_tcp_user_timeout(socket, unheard.as_millis() as u32)?;
    Ok(())
}

/// Never 0, and another one for every node, lane and process.
fn seed(identity: Identity) -> u64 {
    use std::hash::BuildHasher;
    let key = (identity.node.0, identity.lane.0);
    std::hash::RandomState::new().hash_one(key) | 1
}
