//! The socket: its options, its addresses, its errors, and the calls that move several datagrams at once. Those go to
//! the kernel without the C library, whose wrappers are points of cancellation and cost a lane that spins.
#![allow(unsafe_code, reason = "options and calls that no safe interface has")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use libc::{c_int, c_void};

const SO_BUSY_POLL: c_int = 46;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// How long the kernel may look at a device's queue for us, in microseconds, when asked for what is not there yet.
const BUSY_POLL_US: c_int = 50;

/// The bytes of an address as the kernel writes it.
pub(super) const NAME_BYTES: usize = 32;

/// An address as the kernel reads and writes it: sockaddr_in or sockaddr_in6.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub(super) struct Name {
    bytes: [u8; NAME_BYTES],
}

impl Name {
    /// `is_v6`: for a socket of IPv6, which names an address of IPv4 in its own way.
    pub(super) fn of(address: SocketAddr, is_v6: bool) -> Name {
        let mut bytes = [0; NAME_BYTES];
        let address = match address {
            SocketAddr::V4(v4) if is_v6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            _ => address,
        };
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let family = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                libc::AF_INET
            }
            SocketAddr::V6(v6) => {
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                libc::AF_INET6
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        Name { bytes }
    }

    /// How much of it the kernel is to read.
    pub(super) fn len_bytes(&self) -> usize {
        if self.family() == libc::AF_INET {
            size_of::<libc::sockaddr_in>()
        } else {
            size_of::<libc::sockaddr_in6>()
        }
    }

    fn family(&self) -> c_int {
        c_int::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// The address; one of IPv4 that an IPv6 socket tells of is told as what it is.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        match self.family() {
            libc::AF_INET => {
                let ip: [u8; 4] = self.bytes[4..8].try_into().ok()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 => {
                let ip: [u8; 16] = self.bytes[8..24].try_into().ok()?;
                let ip = Ipv6Addr::from(ip);
                let scope = u32::from_ne_bytes(self.bytes[24..28].try_into().ok()?);
                Some(match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddrV4::new(v4, port).into(),
                    None => SocketAddrV6::new(ip, port, 0, scope).into(),
                })
            }
            _ => None,
        }
    }

    /// From what the kernel wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Name {
        let mut name = Name::default();
        let len = bytes.len().min(NAME_BYTES);
        name.bytes[..len].copy_from_slice(&bytes[..len]);
        name
    }
}

/// Room for the control messages of one datagram.
pub(super) const CONTROL_BYTES: usize = 64;

/// Control messages as the kernel reads and writes them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control {
    pub(super) bytes: [u8; CONTROL_BYTES],
}

const CONTROL_HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

impl Control {
    pub(super) const EMPTY: Control = Control { bytes: [0; CONTROL_BYTES] };

    /// The kernel is to cut the message into datagrams of this length.
    pub(super) fn segment(segment_bytes: usize) -> Control {
        let mut control = Control::EMPTY;
        let len = CONTROL_HEADER_BYTES + size_of::<u16>();
        control.bytes[..8].copy_from_slice(&len.to_ne_bytes());
        control.bytes[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        control.bytes[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        control.bytes[16..18].copy_from_slice(&(segment_bytes as u16).to_ne_bytes());
        control
    }

    /// What of it [`Control::segment`] has written, padded.
    pub(super) const SEGMENT_BYTES: usize = CONTROL_HEADER_BYTES + size_of::<u64>();
}

const _: () = assert!(size_of::<usize>() == 8 && CONTROL_HEADER_BYTES == 16, "a control header of 64 bits");

/// The length of the datagrams that the kernel has joined into one, if it says so.
pub(super) fn joined_segment(control: &[u8]) -> Option<usize> {
    let data = control_message(control, libc::SOL_UDP, &[libc::UDP_GRO])?;
    let value = c_int::from_ne_bytes(data.get(..4)?.try_into().ok()?);
    usize::try_from(value).ok().filter(|&bytes| bytes > 0)
}

/// The data of the first control message of this level and one of these types.
fn control_message<'a>(mut control: &'a [u8], level: c_int, types: &[c_int]) -> Option<&'a [u8]> {
    while let Some((header, _)) = control.split_first_chunk::<16>() {
        let len = u64::from_ne_bytes(header[..8].try_into().ok()?) as usize;
        let found_level = c_int::from_ne_bytes(header[8..12].try_into().ok()?);
        let found_type = c_int::from_ne_bytes(header[12..16].try_into().ok()?);
        let data = control.get(CONTROL_HEADER_BYTES..len)?;
        if found_level == level && types.contains(&found_type) {
            return Some(data);
        }
        control = control.get(len.next_multiple_of(8)..)?;
    }
    None
}

fn set(socket: &UdpSocket, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the value lives while the call reads it, and its length is told.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get(socket: &UdpSocket, level: c_int, option: c_int) -> io::Result<c_int> {
    let (mut value, mut len): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: value and length live while the call writes them, and the length says how much room there is.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast::<c_void>(), &raw mut len)
    };
    if outcome == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Nothing is cut on the way, and errors are told with the address that they are about.
pub(super) fn set_path_options(socket: &UdpSocket, is_v6: bool) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
    set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    if is_v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    Ok(())
}

/// Whether the kernel cuts a message into datagrams (Linux 4.18).
pub(super) fn can_segment(socket: &UdpSocket) -> bool {
    get(socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
}

/// Asks the kernel to join datagrams of one length from one sender (Linux 5.0).
pub(super) fn join_received(socket: &UdpSocket, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, c_int::from(on))
}

/// Has the kernel keep no more than `longest_bytes` and one of what is longer and does not begin so: of what is cut off
/// nothing is copied. What begins so may be a run of joined datagrams.
pub(super) fn cut_off(socket: &UdpSocket, begins_with: [u8; 4], longest_bytes: usize) -> io::Result<()> {
    /// The header of UDP: a filter sees it before what is sent.
    const HEADER_BYTES: u32 = 8;
    const LOAD_LEN: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
    const LOAD_AT: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS_GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    const IS_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const KEEP: u32 = libc::BPF_RET | libc::BPF_K;
    let longest = HEADER_BYTES + longest_bytes as u32;
    // The code, how many to skip if it is so and if not, and the operand.
    let mut program = [
        (LOAD_LEN, 0, 0, 0),
        (IS_GREATER, 0, 3, longest),
        (LOAD_AT, 0, 0, HEADER_BYTES),
        (IS_EQUAL, 1, 0, u32::from_be_bytes(begins_with)),
        (KEEP, 0, 0, longest + 1),
        (KEEP, 0, 0, u32::MAX),
    ]
    .map(|(code, jt, jf, k)| libc::sock_filter { code: code as u16, jt, jf, k });
    let whole = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program and what names it live while the call reads them, and their lengths are told.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const whole).cast::<c_void>(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As if the path of this socket, which is one of IPv6, carried packets of so many bytes and no longer ones.
#[cfg(test)]
pub(super) fn narrow(socket: &UdpSocket, mtu_bytes: c_int) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU, mtu_bytes)
}

/// How many packets the kernel takes from the device's queue at once.
const BUSY_POLL_BUDGET: c_int = 64;

/// Has the kernel look at the device's queue when it is asked for what is not there yet, instead of waiting for the
/// device's interrupt. What of it the system refuses.
pub(super) fn busy_poll(socket: &UdpSocket) -> Result<(), (&'static str, io::Error)> {
    for (name, option, value) in [
        ("SO_BUSY_POLL", SO_BUSY_POLL, BUSY_POLL_US),
        ("SO_PREFER_BUSY_POLL", SO_PREFER_BUSY_POLL, 1),
        ("SO_BUSY_POLL_BUDGET", SO_BUSY_POLL_BUDGET, BUSY_POLL_BUDGET),
    ] {
        set(socket, libc::SOL_SOCKET, option, value).map_err(|error| (name, error))?;
    }
    Ok(())
}

/// Those options of [`busy_poll`] that can be read, as they are.
#[cfg(test)]
pub(super) fn busy_poll_options(socket: &UdpSocket) -> [Option<c_int>; 2] {
    [SO_BUSY_POLL, SO_PREFER_BUSY_POLL].map(|option| get(socket, libc::SOL_SOCKET, option).ok())
}

/// A socket's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffer {
    Receive,
    Send,
}

/// Asks for a buffer of so many bytes, as the kernel counts them; how many it is.
pub(super) fn set_buffer(socket: &UdpSocket, which: Buffer, bytes: usize) -> io::Result<usize> {
    let (force, plain) = match which {
        Buffer::Receive => (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        Buffer::Send => (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    };
    // The kernel doubles what it is asked for, and counts its own bookkeeping.
    let asked = c_int::try_from(bytes / 2).unwrap_or(c_int::MAX / 2);
    if set(socket, libc::SOL_SOCKET, force, asked).is_err() {
        set(socket, libc::SOL_SOCKET, plain, asked)?;
    }
    Ok(get(socket, libc::SOL_SOCKET, plain)?.max(0) as usize)
}

/// What the kernel has kept of a datagram that could not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Whereto it went.
    pub(super) to: SocketAddr,
    pub(super) errno: c_int,
    /// With EMSGSIZE: the longest packet that the path carries.
    pub(super) mtu: u32,
}

/// The next entry of the socket's error queue. `Ok(None)`: one that says nothing of use.
pub(super) fn next_trouble(socket: &UdpSocket) -> io::Result<Option<Trouble>> {
    let (mut name, mut control) = (Name::default(), [0_u64; 64]);
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeros is a message header without any parts.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = NAME_BYTES as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: everything that the header names lives until the call is over, with the lengths that it tells.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes: &[u8] = bytemuck::cast_slice(&control);
    let control = &bytes[..header.msg_controllen.min(bytes.len())];
    let told = control_message(control, libc::IPPROTO_IP, &[libc::IP_RECVERR])
        .or_else(|| control_message(control, libc::IPPROTO_IPV6, &[libc::IPV6_RECVERR]));
    // sock_extended_err: errno, origin and type, code, padding, info, data.
    let Some(error) = told.and_then(|data| data.first_chunk::<16>()) else { return Ok(None) };
    let number = |at: usize| u32::from_ne_bytes([error[at], error[at + 1], error[at + 2], error[at + 3]]);
    Ok(name.address().map(|to| Trouble { to, errno: number(0) as c_int, mtu: number(8) }))
}

/// The most datagrams, or messages of several, that one call moves.
pub(super) const BATCH_MAX: usize = 16;

/// Memory that datagrams are received into, and all that the kernel is told of it, made once.
pub(super) struct Incoming {
    headers: Box<[libc::mmsghdr; BATCH_MAX]>,
    /// What the headers point to. Never moved and never looked at but by index, while no call is under way.
    _parts: Box<[libc::iovec; BATCH_MAX]>,
    names: Box<[Name; BATCH_MAX]>,
    controls: Box<[Control; BATCH_MAX]>,
    memory: Box<[u8]>,
    each_bytes: usize,
}

/// One message as it came.
pub(super) struct Received<'a> {
    pub(super) from: Name,
    pub(super) control: &'a [u8],
    pub(super) bytes: &'a [u8],
    /// It was longer than its room.
    pub(super) is_cut: bool,
}

impl Incoming {
    /// Room for [`BATCH_MAX`] messages of so many bytes.
    pub(super) fn new(each_bytes: usize) -> Incoming {
        let mut memory = vec![1_u8; BATCH_MAX * each_bytes].into_boxed_slice();
        let mut names = Box::new([Name::default(); BATCH_MAX]);
        let mut controls = Box::new([Control::EMPTY; BATCH_MAX]);
        let base = memory.as_mut_ptr();
        let mut parts = Box::new(std::array::from_fn(|at| libc::iovec {
            iov_base: base.wrapping_add(at * each_bytes).cast(),
            iov_len: each_bytes,
        }));
        let (names_at, controls_at, parts_at) =
            (names.as_mut_ptr(), controls.as_mut_ptr(), parts.as_mut_ptr());
        let headers = Box::new(std::array::from_fn(|at| {
            // SAFETY: all zeros is a message header without any parts.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_name = names_at.wrapping_add(at).cast();
            header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_hdr.msg_iov = parts_at.wrapping_add(at);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls_at.wrapping_add(at).cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            header
        }));
        Incoming { headers, _parts: parts, names, controls, memory, each_bytes }
    }

    /// Takes up to `batch` messages that have come; how many those are.
    pub(super) fn receive(&mut self, socket: &UdpSocket, batch: usize) -> io::Result<usize> {
        let batch = batch.min(BATCH_MAX) as libc::c_uint;
        if batch == 1 {
            return self.receive_one(socket);
        }
        let headers = self.headers.as_mut_ptr();
        // SAFETY: the headers name memory of this value, which is borrowed until the call is over: boxes that are never
        // replaced, with the lengths that the headers tell.
        let count = unsafe {
            let timeout = std::ptr::null_mut::<libc::timespec>();
            let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
            libc::syscall(libc::SYS_recvmmsg, fd, headers, batch, flags, timeout)
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// With the call that is made for one.
    fn receive_one(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let header = &raw mut self.headers[0].msg_hdr;
        // SAFETY: as for the call above.
        let len = unsafe { libc::syscall(libc::SYS_recvmsg, socket.as_raw_fd(), header, libc::MSG_DONTWAIT) };
        self.headers[0].msg_len = libc::c_uint::try_from(len).map_err(|_| io::Error::last_os_error())?;
        Ok(1)
    }

    /// One of those that the last call took; to be asked for once.
    pub(super) fn take(&mut self, at: usize) -> Received<'_> {
        let header = &mut self.headers[at];
        let len = (header.msg_len as usize).min(self.each_bytes);
        let control_bytes = header.msg_hdr.msg_controllen.min(CONTROL_BYTES);
        let is_cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_hdr.msg_controllen = CONTROL_BYTES;
        let begin = at * self.each_bytes;
        Received {
            from: self.names[at],
            control: &self.controls[at].bytes[..control_bytes],
            bytes: &self.memory[begin..begin + len],
            is_cut,
        }
    }
}

/// One message that is sent: to whom, unless that is whom its socket is connected to, its bytes, and of what length its
/// datagrams are, if there are several.
pub(super) struct Outgoing<'a> {
    pub(super) name: Option<&'a Name>,
    pub(super) bytes: &'a [u8],
    pub(super) segment_bytes: Option<usize>,
}

/// Sends some of these messages, from the first; how many the kernel took.
pub(super) fn send<'a>(
    socket: &UdpSocket,
    messages: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let mut messages = messages.peekable();
    let first = messages.next();
    if let (Some(only), None) = (&first, messages.peek())
        && only.segment_bytes.is_none()
    {
        return send_one(socket, only);
    }
    // SAFETY: all zeros is a message header without any parts.
    let mut headers: [libc::mmsghdr; BATCH_MAX] = unsafe { zeroed() };
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH_MAX];
    let mut controls = [const { std::mem::MaybeUninit::<Control>::uninit() }; BATCH_MAX];
    let mut count = 0;
    for message in first.into_iter().chain(messages).take(BATCH_MAX) {
        parts[count] =
            libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() };
        let header = &mut headers[count].msg_hdr;
        (header.msg_name, header.msg_namelen) = pointer_to(message.name);
        header.msg_iov = &raw mut parts[count];
        header.msg_iovlen = 1;
        if let Some(segment_bytes) = message.segment_bytes {
            let control = controls[count].write(Control::segment(segment_bytes));
            header.msg_control = std::ptr::from_mut(control).cast();
            header.msg_controllen = Control::SEGMENT_BYTES;
        }
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the headers name locals and memory borrowed for 'a, which the kernel only reads, until the call is over.
    let sent = unsafe {
        let (headers, count) = (headers.as_mut_ptr(), count as libc::c_uint);
        libc::syscall(libc::SYS_sendmmsg, socket.as_raw_fd(), headers, count, flags)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// An address as a call takes it, that only reads it; none is null.
fn pointer_to(name: Option<&Name>) -> (*mut c_void, libc::socklen_t) {
    name.map_or((std::ptr::null_mut(), 0), |name| {
        (std::ptr::from_ref(name).cast_mut().cast(), name.len_bytes() as libc::socklen_t)
    })
}

/// One datagram, with the call that takes the least: nothing is copied into the kernel but it and its address.
fn send_one(socket: &UdpSocket, message: &Outgoing<'_>) -> io::Result<usize> {
    let Outgoing { name, bytes, .. } = message;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel only reads the bytes and the address, both borrowed until the call is over, with their
    // lengths.
    let sent = unsafe {
        let (to, to_bytes) = pointer_to(*name);
        libc::sendto(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags, to.cast(), to_bytes)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) }
}
