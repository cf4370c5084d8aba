//! How an attachment comes to its rings, and what it holds on to.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::Options;
use crate::io::reactor::Waker;
use crate::io::ring::port::Presence;
use crate::io::ring::{EngineEnd, shared};
use crate::node::desk::{AttachError, Desk, Seated};
use crate::wire::attach::{ANSWER_BYTES, Hello, decode_answer};

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the node is.
#[derive(Debug)]
pub(super) enum Source {
    /// In this process.
    Embedded(Desk),
    /// Behind this socket.
    Socket(PathBuf),
}

/// What is held while attached: dropped, the node lets the rings go. And how the lane is woken.
#[derive(Debug)]
pub(super) enum Hold {
    /// In this process.
    Embedded { waker: Waker, _presence: Presence },
    /// In another one.
    Socket { socket: OwnedFd, event: OwnedFd },
}

impl Source {
    pub(super) fn join(&self, options: &Options) -> Result<(EngineEnd, Hold), AttachError> {
        match self {
            Source::Embedded(desk) => {
                let Seated { end, waker, presence } =
                    desk.attach(options.shard, options.session, options.sizes)?;
                Ok((end, Hold::Embedded { waker, _presence: presence }))
            }
            Source::Socket(path) => {
                let failed = |error| AttachError::System {
                    what: format!(
                        "cannot attach at {}; is a node with this engine.socket running?",
                        path.display()
                    ),
                    error,
                };
                ask(path, options).map_err(failed)?.map_err(AttachError::Refused)
            }
        }
    }
}

type Answer = Result<(EngineEnd, Hold), crate::wire::attach::Refusal>;

fn ask(path: &Path, options: &Options) -> io::Result<Answer> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let hello = Hello {
        cluster: options.cluster,
        shard: options.shard,
        session: options.session,
        submit_bytes: options.sizes.submit_bytes as u64,
        completion_bytes: options.sizes.completion_bytes as u64,
    };
    net::send(&socket, &hello.encode(), SendFlags::NOSIGNAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut packet = [0; ANSWER_BYTES];
    let mut parts = [io::IoSliceMut::new(&mut packet)];
    let received = net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let answer = decode_answer(&packet[..received.bytes])
        .map_err(|malformed| io::Error::other(format!("the node's answer makes no sense: {malformed}")))?;
    if let Err(refusal) = answer {
        return Ok(Err(refusal));
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors = descriptors.next().into_iter().flatten();
    let (Some(memory), Some(event)) = (descriptors.next(), descriptors.next()) else {
        return Err(io::Error::other("the node's welcome comes without its descriptors"));
    };
    let region = shared::open(&memory, options.sizes)?;
    Ok(Ok((EngineEnd::of(region), Hold::Socket { socket, event })))
}

impl Hold {
    /// Wakes the lane.
    pub(super) fn wake(&self) {
        match self {
            Hold::Embedded { waker, .. } => waker.wake(),
            Hold::Socket { event, .. } => {
                // The one thing that could refuse is a full counter, and a full counter is readable.
                while rustix::io::write(event, &1_u64.to_ne_bytes()) == Err(rustix::io::Errno::INTR) {}
            }
        }
    }

    /// Whether the node's process has ended. The node says nothing more on the socket, so anything that can be read is
    /// its end.
    pub(super) fn is_hung_up(&self) -> bool {
        let Hold::Socket { socket, .. } = self else { return false };
        let mut byte = [0; 1];
        !matches!(
            net::recv(socket, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }
}
