//! What both ways of speaking to the kernel share: the socket and its set-up, what waits to be sent, and what is made
//! of errors.

use std::fmt;
use std::io;
use std::iter;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::connected::Connected;
use super::queue::Queue;
use super::socket::{self, Buffer, Name, Trouble};
use super::{Backend, Counters, Options};
use crate::io::datagram::{Arrival, WINDOW_MIN};
use crate::io::link::Reporter;
use crate::limits::UDP_MTU_BYTES_MIN;
use crate::types::Time;

/// The longest payload of a datagram of IPv4: the length of an IP packet has 16 bits.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The smallest and the largest MTU of use.
const MTU_BYTES: std::ops::RangeInclusive<usize> = UDP_MTU_BYTES_MIN..=65_536;

/// What one peer should be able to have under way: bytes, and the fewest and most datagrams. Where datagrams are long,
/// a window of bytes alone would be a short run of short ones.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOW_DATAGRAMS: std::ops::RangeInclusive<usize> = 128..=2048;

/// The length below which datagrams are not shortened for want of memory: the shortest MTU's.
const SHORTENED_BYTES_MIN: usize = 1232;

/// What may wait to be sent.
const QUEUE_BYTES: usize = 2 << 20;
const QUEUE_MESSAGES: usize = 2048;

/// The longest that the kernel hands over joined datagrams.
const JOINED_BYTES_MAX: usize = 65_536;

/// When the system has no room for what is sent, it is asked again after this at the latest.
const RETRY_PAUSE: Duration = Duration::from_micros(500);

/// How often a message is tried again because the socket told of an earlier one.
const ATTEMPTS_MAX: u32 = 3;

/// How much of the error queue one poll takes.
const TROUBLES_PER_POLL: usize = 16;

pub(super) struct Base {
    /// The one that was bound first. Whoever has none of their own speaks to it.
    pub(super) socket: UdpSocket,
    pub(super) connected: Vec<Connected>,
    /// Every peer has one of its own, as far as is known.
    pub(super) all_connected: bool,
    pub(super) queue: Queue,
    pub(super) datagram_bytes_max: usize,
    pub(super) window: usize,
    pub(super) counters: Counters,
    pub(super) notes: Vec<String>,
    /// The time as of the last poll.
    pub(super) now: Time,
    /// Before this time nothing is sent, unless the socket becomes writable.
    pub(super) retry_at: Time,
    /// An error queue may hold something.
    pub(super) has_troubles: bool,
    /// What is to be told with the next poll; never more than its room.
    tidings: Vec<Tiding>,
    is_v6: bool,
    joins_received: bool,
    reporter: Reporter,
    /// The operator knows that a path carries less than was configured.
    told_mtu: bool,
    /// The operator knows that the system does not send.
    told_unsent: Option<i32>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// What is to be said of an address. See [`Arrival`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tiding {
    Unreachable(SocketAddr),
    Broken(SocketAddr),
    TooLong(SocketAddr),
}

impl Tiding {
    /// What an error of the system says. Only a closed port says something of who was to listen there: all else is told
    /// by this machine or by what lies between.
    fn of(error: i32, to: SocketAddr) -> Tiding {
        match error {
            libc::ECONNREFUSED => Tiding::Unreachable(to),
            libc::EMSGSIZE => Tiding::TooLong(to),
            _ => Tiding::Broken(to),
        }
    }
}

/// What becomes of a message that the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The error was about an earlier one: try again at once.
    Again,
    /// There is no room now: it stays.
    Later,
    /// Each of its datagrams is to be sent alone.
    Apart,
    /// It is lost.
    Lost,
}

impl Base {
    pub(super) fn new(options: Options) -> io::Result<Base> {
        let Options { socket, peers, known, mtu_bytes, busy_poll, joins, backend, begins_with } = options;
        if !MTU_BYTES.contains(&mtu_bytes) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("an MTU of {mtu_bytes} bytes: give {} to {}", MTU_BYTES.start(), MTU_BYTES.end()),
            ));
        }
        let is_v6 = socket.local_addr()?.is_ipv6();
        let headers_bytes = if is_v6 { 48 } else { 28 };
        let datagram_bytes_max = (mtu_bytes - headers_bytes).min(DATAGRAM_BYTES_MAX);
        let mut notes = Vec::new();
        let known = if backend == Backend::Plain { known } else { Vec::new() };
        let connected = connect_all(&socket, known, &mut notes);
        let all = || connected.iter().map(|connected| &connected.socket).chain([&socket]);
        for socket in all() {
            socket.set_nonblocking(true)?;
            socket::set_path_options(socket, is_v6)?;
        }
        if busy_poll && let Err((option, error)) = all().try_for_each(socket::busy_poll) {
            notes.push(format!(
                "udp: the kernel does not look at the device's queue for a lane that spins, or not as it might ({option}: \
                 {error}); CAP_NET_ADMIN allows it all, Linux 5.11 knows it all"
            ));
        }
        let segments = joins && socket::can_segment(&socket);
        let joins_received = joins && all().all(|socket| socket::join_received(socket, true).is_ok());
        if joins && !(segments && joins_received) {
            notes.push("udp: this kernel does not join datagrams (UDP_SEGMENT, UDP_GRO: Linux 5.0)".into());
        }
        // Whoever comes from elsewhere shares one.
        let (datagram_bytes_max, window) = set_buffers(
            connected.iter().map(|connected| (&connected.socket, 1)).chain([(&socket, peers.max(1))]),
            datagram_bytes_max,
            &mut notes,
        )?;
        if let Some(begins_with) = begins_with
            && let Err(error) =
                all().try_for_each(|socket| socket::cut_off(socket, begins_with, datagram_bytes_max))
        {
            notes.push(format!("udp: the kernel copies all of what is too long (SO_ATTACH_FILTER: {error})"));
        }
        Ok(Base {
            socket,
            all_connected: !connected.is_empty() && connected.len() >= peers,
            connected,
            queue: Queue::new(QUEUE_BYTES, QUEUE_MESSAGES, segments, is_v6),
            datagram_bytes_max,
            window,
            counters: Counters::default(),
            notes,
            now: Time(0),
            retry_at: Time(0),
            has_troubles: false,
            tidings: Vec::with_capacity(TROUBLES_PER_POLL),
            is_v6,
            joins_received,
            reporter: Reporter::default(),
            told_mtu: false,
            told_unsent: None,
        })
    }

    /// Every socket, with a number of its own: the shared one has 0, and the peers' follow in their order.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (u32, &UdpSocket)> {
        let connected = self.connected.iter().map(|connected| &connected.socket);
        (0..).zip(iter::once(&self.socket).chain(connected))
    }

    /// The place of the peer's own socket to this address, if it has one.
    pub(super) fn connected_to(&self, to: SocketAddr) -> Option<usize> {
        self.connected.iter().position(|connected| connected.peer == to)
    }

    /// The socket at this place, or the shared one.
    pub(super) fn socket_at(&self, place: Option<usize>) -> &UdpSocket {
        place.map_or(&self.socket, |place| &self.connected[place].socket)
    }

    /// The kernel may still read what was to be sent: it is never freed.
    pub(super) fn leak_queue(&mut self) {
        std::mem::forget(std::mem::replace(&mut self.queue, Queue::new(0, 1, false, self.is_v6)));
    }

    /// How much room a message needs that comes.
    pub(super) fn receive_bytes(&self) -> usize {
        if self.joins_received {
            JOINED_BYTES_MAX
        } else {
            (self.datagram_bytes_max + 1).next_multiple_of(64)
        }
    }

    /// Whether such a datagram can be sent at all; one that cannot is lost.
    pub(super) fn can_go(&mut self, to: SocketAddr, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > self.datagram_bytes_max {
            self.counters.too_long += 1;
            return false;
        }
        let has_family = self.is_v6 || to.is_ipv4();
        if !has_family {
            self.counters.unsent += 1;
            self.tell_later(Tiding::Broken(to));
        }
        has_family
    }

    /// Gives one message to the sink, its datagrams apart; how many those were.
    pub(super) fn deliver(
        &mut self,
        from: Name,
        segment_bytes: Option<usize>,
        is_cut: bool,
        bytes: &[u8],
        sink: &mut impl FnMut(Arrival<'_, SocketAddr>),
    ) -> usize {
        self.counters.messages_in += 1;
        let Some(from) = from.address() else {
            self.counters.nameless += 1;
            return 0;
        };
        if is_cut {
            self.counters.too_long += 1;
            return 0;
        }
        let (mut count, mut rest) = (0, bytes);
        // An empty message is an empty datagram.
        loop {
            let (datagram, behind) = rest.split_at(segment_bytes.unwrap_or(rest.len()).min(rest.len()));
            if datagram.len() <= self.datagram_bytes_max {
                count += 1;
                self.counters.bytes_in += datagram.len() as u64;
                sink(Arrival::Datagram { from, bytes: datagram });
            } else {
                self.counters.too_long += 1;
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        self.counters.datagrams_in += count as u64;
        count
    }

    /// The oldest message that waits was sent.
    pub(super) fn sent(&mut self, datagrams: usize, len_bytes: usize) {
        self.counters.messages_out += 1;
        self.counters.datagrams_out += datagrams as u64;
        self.counters.bytes_out += len_bytes as u64;
        self.told_unsent = None;
    }

    /// The system did not take this message, at the so-and-so-manieth attempt.
    pub(super) fn refused(&mut self, to: SocketAddr, datagrams: usize, error: i32, attempts: u32) -> Refused {
        match error {
            libc::EINTR => Refused::Again,
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => {
                self.retry_at = self.now.after(RETRY_PAUSE);
                Refused::Later
            }
            // A device or a path on which the kernel does not cut: it says so in several ways. Or the path has become
            // narrow, and short ones among them pass.
            libc::EINVAL | libc::EIO | libc::EOPNOTSUPP | libc::EMSGSIZE if datagrams > 1 => Refused::Apart,
            libc::EMSGSIZE => {
                self.too_long(to, datagrams);
                Refused::Lost
            }
            // The socket tells once of what happened to an earlier datagram, and sends nothing by that.
            _ if attempts < ATTEMPTS_MAX => {
                self.has_troubles = true;
                Refused::Again
            }
            _ => {
                self.counters.unsent += datagrams as u64;
                self.tell_later(Tiding::of(error, to));
                if self.told_unsent.replace(error) != Some(error) {
                    let error = io::Error::from_raw_os_error(error);
                    self.reporter
                        .line(self.now, format_args!("udp: the system does not send to {to}: {error}"));
                }
                Refused::Lost
            }
        }
    }

    /// Datagrams go alone from now on: that worked, and joined they were refused.
    pub(super) fn stop_joining(&mut self) {
        if self.queue.joins() {
            self.queue.stop_joining();
            self.reporter.line(
                self.now,
                format_args!(
                    "udp: the system refuses joined datagrams (UDP_SEGMENT); they are sent one by one, which costs more"
                ),
            );
        }
    }

    /// So many datagrams were longer than what the path to this address carries, as the system knows already.
    pub(super) fn too_long(&mut self, to: SocketAddr, datagrams: usize) {
        self.has_troubles = true;
        self.counters.too_long += datagrams as u64;
        self.tell_later(Tiding::TooLong(to));
    }

    fn tell_later(&mut self, tiding: Tiding) {
        if self.tidings.len() < self.tidings.capacity() && !self.tidings.contains(&tiding) {
            self.tidings.push(tiding);
        }
    }

    /// Takes in what the socket has to say of what could not arrive, and tells it; how much that was.
    pub(super) fn tell_troubles(&mut self, sink: &mut impl FnMut(Arrival<'_, SocketAddr>)) -> usize {
        if self.has_troubles {
            self.take_troubles();
        }
        let count = self.tidings.len();
        for tiding in self.tidings.drain(..) {
            self.counters.unreachable += u64::from(!matches!(tiding, Tiding::TooLong(_)));
            sink(match tiding {
                Tiding::Unreachable(address) => Arrival::Unreachable(address),
                Tiding::Broken(address) => Arrival::Broken(address),
                Tiding::TooLong(address) => Arrival::TooLong(address),
            });
        }
        count
    }

    fn take_troubles(&mut self) {
        let mut left = TROUBLES_PER_POLL;
        for place in (0..self.connected.len()).map(Some).chain([None]) {
            while left > 0 {
                let Ok(trouble) = socket::next_trouble(self.socket_at(place)) else { break };
                left -= 1;
                if let Some(trouble) = trouble {
                    self.take_trouble(&trouble);
                }
            }
        }
        self.has_troubles = left == 0;
    }

    fn take_trouble(&mut self, trouble: &Trouble) {
        self.tell_later(Tiding::of(trouble.errno, trouble.to));
        if trouble.errno == libc::EMSGSIZE && !std::mem::replace(&mut self.told_mtu, true) {
            self.reporter.line(
                self.now,
                format_args!(
                    "udp: the path to {} carries packets of {} bytes and no longer ones: set the MTU to that",
                    trouble.to, trouble.mtu
                ),
            );
        }
    }
}

/// A socket for each of these. Whoever gets none is reached by the shared one.
fn connect_all(shared: &UdpSocket, known: Vec<SocketAddr>, notes: &mut Vec<String>) -> Vec<Connected> {
    let mut made = Vec::with_capacity(known.len());
    for peer in known {
        match Connected::new(shared, &made, peer) {
            Ok(connected) => made.push(connected),
            Err(error) => notes
                .push(format!("udp: {peer} has no socket of its own, and each datagram costs more: {error}")),
        }
    }
    made
}

/// What the kernel charges a receive buffer for one datagram of this length: the packet's memory, which drivers take in
/// pages, and its bookkeeping.
fn charged_bytes(datagram_bytes: usize) -> usize {
    (datagram_bytes + 640).next_multiple_of(2048) + 256
}

/// Sizes the buffers of sockets, each with how many peers share it: how long datagrams are, and how many of one peer
/// there is room for. Where the system gives little, datagrams are shorter, so that there is room for [`WINDOW_MIN`] of
/// them.
fn set_buffers<'a>(
    sockets: impl Iterator<Item = (&'a UdpSocket, usize)>,
    longest_bytes: usize,
    notes: &mut Vec<String>,
) -> io::Result<(usize, usize)> {
    let wanted = (WINDOW_BYTES / longest_bytes).clamp(*WINDOW_DATAGRAMS.start(), *WINDOW_DATAGRAMS.end());
    let (mut given_bytes, mut sharers_max) = (usize::MAX, 0);
    for (socket, sharers) in sockets {
        let wanted_bytes = wanted * charged_bytes(longest_bytes) * sharers;
        given_bytes = given_bytes.min(socket::set_buffer(socket, Buffer::Receive, wanted_bytes)? / sharers);
        // What waits here need not wait in the socket too; but a burst should go in one piece.
        socket::set_buffer(socket, Buffer::Send, wanted_bytes)?;
        sharers_max = sharers_max.max(sharers);
    }
    let (datagram_bytes, window) = fit(given_bytes, longest_bytes, wanted);
    if (datagram_bytes, window) != (longest_bytes, wanted) {
        notes.push(format!(
            "udp: the system gives a socket a small receive buffer: there is room for {window} datagrams of \
             {datagram_bytes} bytes of each peer, and {wanted} of {longest_bytes} are wanted. Set sysctl net.core.rmem_max \
             to {}, or give the process CAP_NET_ADMIN",
            wanted * charged_bytes(longest_bytes) * sharers_max / 2
        ));
    }
    Ok((datagram_bytes, window))
}

/// What fits so many bytes for each peer: the length of datagrams, and how many.
fn fit(given_bytes: usize, longest_bytes: usize, wanted: usize) -> (usize, usize) {
    let mut datagram_bytes = longest_bytes;
    while given_bytes / charged_bytes(datagram_bytes) < WINDOW_MIN && datagram_bytes > SHORTENED_BYTES_MIN {
        datagram_bytes = (datagram_bytes / 2).max(SHORTENED_BYTES_MIN);
    }
    // With too many peers for the buffer some datagrams may be lost, which is repaired.
    (datagram_bytes, (given_bytes / charged_bytes(datagram_bytes)).clamp(WINDOW_MIN, wanted))
}
