//! The thread that lets engines of other processes in: it reads what they ask for, hands memory and the lane's eventfd
//! over, and holds each one's socket, whose hang-up says that the engine is gone, in whatever way. It does nothing on
//! the path of a submit, and is not pinned to a core.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, Timespec};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::desk::Desk;
use super::report::line;
use crate::io::ring::port::Presence;
use crate::io::ring::{LaneEnd, Sizes, shared};
use crate::limits::ATTACHMENTS_MAX;
use crate::wire::attach::{HELLO_BYTES, Hello, Refusal, encode_answer};

/// How long who has connected may take to say what it wants.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// How long nobody is let in when the system gives no descriptor: who waits to come in would keep the thread busy.
const DEAFNESS: Duration = Duration::from_millis(100);

/// How many connections may have said nothing yet, beside those that all lanes may have attached.
const CONNECTIONS_UNHEARD_MAX: usize = 64;

const BACKLOG: i32 = 64;

/// The socket, bound and listened on before anything else of the node is touched.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

/// See the module. Dropped, the thread ends, and with it every attachment through the socket.
#[derive(Debug)]
pub(super) struct Usher {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

struct Connection {
    socket: OwnedFd,
    since: Instant,
    /// Attached; dropped, the lane is told.
    presence: Option<Presence>,
}

impl Listener {
    /// Listens at `path`, for this user and group alone. A socket that nobody listens at any more is replaced.
    pub(super) fn bind(path: &Path) -> io::Result<Listener> {
        let address = SocketAddrUnix::new(path)?;
        let socket = packets()?;
        if net::connect(&socket, &address).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        let is_socket = rustix::fs::lstat(path)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket());
        if is_socket {
            std::fs::remove_file(path)?;
        }
        let socket = packets()?;
        net::bind(&socket, &address)?;
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)?;
        net::listen(&socket, BACKLOG)?;
        Ok(Listener { socket, path: path.to_owned() })
    }

    /// Starts to let engines in.
    pub(super) fn serve(self, desk: Desk) -> io::Result<Usher> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let Listener { socket, path } = self;
        let thread = std::thread::Builder::new()
            .name("usher".to_owned())
            .spawn(move || Room::new(desk, socket, stopped).run())?;
        Ok(Usher { stop, thread: Some(thread), path })
    }
}

fn packets() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Drop for Usher {
    fn drop(&mut self) {
        // While it is listened at, so that it is ours: what lies there afterwards is of the next node.
        let _ = std::fs::remove_file(&self.path);
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The usher's thread.
struct Room {
    desk: Desk,
    listener: OwnedFd,
    stop: OwnedFd,
    connections: Vec<Connection>,
    /// Until then the listener is not looked at.
    deaf_until: Option<Instant>,
    /// Somebody could not be let in, since when there was always somebody who waits; and the operator knows.
    is_starved: bool,
}

impl Room {
    fn new(desk: Desk, listener: OwnedFd, stop: OwnedFd) -> Room {
        Room { desk, listener, stop, connections: Vec::new(), deaf_until: None, is_starved: false }
    }

    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => return line(format_args!("no engine is let in any more: {error}")),
            };
            if ready[0] {
                return;
            }
            // From the last to the first: what is taken out does not move what is still to be looked at.
            for at in (0..self.connections.len()).rev() {
                let is_late = self.connections[at].presence.is_none()
                    && self.connections[at].since.elapsed() >= HELLO_TIMEOUT;
                if is_late || (ready[2 + at] && !self.attend(at)) {
                    self.connections.swap_remove(at);
                }
            }
            if ready[1] {
                self.accept();
            }
        }
    }

    /// Which descriptor has something: the one that says stop, the listener, then the connections.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        self.deaf_until = self.deaf_until.filter(|&until| until > now);
        let for_listener = if self.deaf_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut polled = vec![
            PollFd::new(&self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), for_listener),
        ];
        polled
            .extend(self.connections.iter().map(|connection| PollFd::new(&connection.socket, PollFlags::IN)));
        let is_awaited = self.connections.iter().any(|connection| connection.presence.is_none());
        let timeout = match self.deaf_until {
            Some(until) => Some(until - now),
            None => is_awaited.then_some(HELLO_TIMEOUT),
        };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(vec![false; polled.len()]),
            Err(error) => return Err(error.into()),
        }
        Ok(polled.iter().map(|descriptor| !descriptor.revents().is_empty()).collect())
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connections_max = self.desk.lanes() * ATTACHMENTS_MAX + CONNECTIONS_UNHEARD_MAX;
        loop {
            match net::accept_with(&self.listener, flags) {
                Ok(socket) if self.connections.len() < connections_max => {
                    self.connections.push(Connection { socket, since: Instant::now(), presence: None });
                }
                // Nobody is waited for while it is full: who comes then is turned away.
                Ok(_) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => return,
                // All who waited are in.
                Err(Errno::AGAIN) => return self.is_starved = false,
                Err(error) => return self.starve(error),
            }
        }
    }

    /// No descriptor is left, or no memory: whoever waits to come in goes on waiting.
    fn starve(&mut self, error: Errno) {
        self.deaf_until = Some(Instant::now() + DEAFNESS);
        if !std::mem::replace(&mut self.is_starved, true) {
            line(format_args!(
                "an engine that wants to attach waits until it can be let in: {error}; raise the limit of open files"
            ));
        }
    }

    /// Something came, or the other end hung up. False: the connection has ended.
    fn attend(&mut self, at: usize) -> bool {
        let connection = &mut self.connections[at];
        let mut packet = [0; HELLO_BYTES + 1];
        let len_bytes = match net::recv(&connection.socket, &mut packet, RecvFlags::DONTWAIT) {
            Ok((len_bytes, _)) => len_bytes,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        // Once it is attached all is said, and an end of the stream is an end.
        if len_bytes == 0 || connection.presence.is_some() {
            return false;
        }
        match admit(&self.desk, &connection.socket, &packet[..len_bytes]) {
            Ok(presence) => {
                connection.presence = Some(presence);
                true
            }
            Err(refusal) => {
                let _ = net::send(&connection.socket, &encode_answer(Err(refusal)), SendFlags::NOSIGNAL);
                false
            }
        }
    }
}

/// Gives who has said hello its rings.
fn admit(desk: &Desk, socket: &OwnedFd, packet: &[u8]) -> Result<Presence, Refusal> {
    let hello = Hello::decode(packet).map_err(|_| Refusal::Version)?;
    if hello.cluster != desk.cluster() {
        return Err(Refusal::Cluster { found: desk.cluster() });
    }
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(0);
    let sizes =
        Sizes { submit_bytes: size(hello.submit_bytes), completion_bytes: size(hello.completion_bytes) };
    let held = desk.claim(hello.shard, hello.session, sizes)?;
    let failed = |what: &str, error: io::Error| {
        line(format_args!("cannot give an engine its rings: {what}: {error}"));
        Refusal::System
    };
    let (region, memory) = shared::create(sizes).map_err(|error| failed("memory", error))?;
    let door = desk.door(hello.shard);
    let event = door.waker().descriptor().map_err(|error| failed("the lane's eventfd", error))?;
    let name = format!("session {:#x} at shard {}, over the socket", hello.session, hello.shard);
    let presence = desk.seat(hello.shard, LaneEnd::of(region), name, held)?;
    hand_over(socket, &[memory.as_fd(), event.as_fd()]).map_err(|error| failed("the socket", error))?;
    Ok(presence)
}

fn hand_over(socket: &OwnedFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    let welcome = encode_answer(Ok(()));
    net::sendmsg(socket, &[io::IoSlice::new(&welcome)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
