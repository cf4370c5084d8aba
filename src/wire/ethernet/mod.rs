//! Ethernet II frames with ARP or with UDP over IPv4 in them: what a link sees that owns a network port itself.
//!
//! ```text
//! frame  | to 6 | from 6 | type 2 | ...
//! ARP    type 0x0806  | 1, 0x0800, 6, 4 | operation 2 | sender: MAC 6, address 4 | target: MAC 6, address 4 |
//! UDP    type 0x0800  | IPv4 header 20  | UDP header 8 | payload |
//! ```
//! Everything is big-endian. The frame may go on after the packet in it: short frames are padded. What no Plimsoll
//! sends is refused by name: VLAN tags, fragments, IP options, a UDP datagram without a checksum.

use core::net::{Ipv4Addr, SocketAddrV4};

/// The bytes before a UDP datagram's payload: Ethernet, IPv4 and UDP.
pub const UDP_HEAD_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;

/// The bytes before an IP packet.
pub const ETHERNET_BYTES: usize = 14;

/// An IPv4 header without options.
pub const IPV4_BYTES: usize = 20;

/// A UDP header.
pub const UDP_BYTES: usize = 8;

/// An ARP packet with the Ethernet header before it.
pub const ARP_FRAME_BYTES: usize = ETHERNET_BYTES + 28;

/// The longest payload of a datagram: an IP packet's length has 16 bits.
pub const UDP_PAYLOAD_BYTES_MAX: usize = u16::MAX as usize - IPV4_BYTES - UDP_BYTES;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const PROTOCOL_UDP: u8 = 17;
/// "Don't fragment" and a time to live that reaches every host of a data centre.
const FLAGS_DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_BITS: u16 = 0x3fff;
const TIME_TO_LIVE: u8 = 64;
/// What begins every ARP packet of Ethernet and IPv4.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// Whom it is for.
    pub to: Mac,
    /// Who sent it.
    pub from: Mac,
    /// What is in it.
    pub packet: Packet<'a>,
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A question for an address, or its answer.
    Arp(Arp),
    /// A datagram.
    Udp(Udp<'a>),
}

/// A question for an Ethernet address, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Which of both.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender: Mac,
    /// Its IP address.
    pub sender_ip: Ipv4Addr,
    /// The other's Ethernet address; anything in a question.
    pub target: Mac,
    /// Its IP address: whose Ethernet address is asked for.
    pub target_ip: Ipv4Addr,
}

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks who has the target's IP address.
    Request,
    /// Tells that the sender has its.
    Reply,
}

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// Whom it is for.
    pub to: SocketAddrV4,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Whether a checksum is still to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has: it is computed.
    Unknown,
    /// The port has, and it holds.
    Good,
    /// The port has, and it does not.
    Bad,
}

/// What a port says of a frame's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// Of the IPv4 header.
    pub ip: Verdict,
    /// Of the datagram.
    pub udp: Verdict,
}

/// Why a frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It ends before a header, or a length in it, says so.
    Truncated,
    /// It has a VLAN tag.
    Vlan,
    /// It is neither ARP nor IPv4.
    Type,
    /// An ARP packet of other kinds of addresses, of another operation, or from a group's address.
    Arp,
    /// Not IPv4, or a header of an impossible length.
    Header,
    /// An IPv4 header with options.
    Options,
    /// A part of a packet.
    Fragment,
    /// Neither header nor datagram of a length that can be.
    Length,
    /// The IPv4 header's checksum does not hold.
    IpChecksum,
    /// Not UDP.
    Protocol,
    /// The datagram's checksum does not hold, or there is none.
    UdpChecksum,
    /// From or to an address or a port that nobody has.
    Address,
}

impl Refused {
    /// Every reason, in the order of their numbers (`Refused as usize`).
    pub const ALL: [Refused; 12] = [
        Refused::Truncated,
        Refused::Vlan,
        Refused::Type,
        Refused::Arp,
        Refused::Header,
        Refused::Options,
        Refused::Fragment,
        Refused::Length,
        Refused::IpChecksum,
        Refused::Protocol,
        Refused::UdpChecksum,
        Refused::Address,
    ];
}

impl Mac {
    /// Every station's.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Of more than one station.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Checksums {
    /// A port that looks at nothing.
    pub const UNKNOWN: Checksums = Checksums { ip: Verdict::Unknown, udp: Verdict::Unknown };
}

/// Reads a frame. Every length is checked before it is believed.
pub fn decode(frame: &[u8], checksums: Checksums) -> Result<Ethernet<'_>, Refused> {
    let (head, rest) = frame.split_first_chunk::<ETHERNET_BYTES>().ok_or(Refused::Truncated)?;
    let (to, from) = (Mac(part(head, 0)), Mac(part(head, 6)));
    if from.is_group() {
        return Err(Refused::Address);
    }
    let packet = match word(head, 12) {
        TYPE_IPV4 => Packet::Udp(decode_ipv4(rest, checksums)?),
        TYPE_ARP => Packet::Arp(decode_arp(rest)?),
        tagged if TYPES_VLAN.contains(&tagged) => return Err(Refused::Vlan),
        _ => return Err(Refused::Type),
    };
    Ok(Ethernet { to, from, packet })
}

fn decode_arp(bytes: &[u8]) -> Result<Arp, Refused> {
    let arp = bytes.first_chunk::<28>().ok_or(Refused::Truncated)?;
    let operation = match word(arp, 6) {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return Err(Refused::Arp),
    };
    let sender = Mac(part(arp, 8));
    if part(arp, 0) != ARP_KIND || sender.is_group() {
        return Err(Refused::Arp);
    }
    let (sender_ip, target_ip) = (Ipv4Addr::from(part(arp, 14)), Ipv4Addr::from(part(arp, 24)));
    Ok(Arp { operation, sender, sender_ip, target: Mac(part(arp, 18)), target_ip })
}

fn decode_ipv4(bytes: &[u8], checksums: Checksums) -> Result<Udp<'_>, Refused> {
    let header = bytes.first_chunk::<IPV4_BYTES>().ok_or(Refused::Truncated)?;
    match header[0] {
        0x45 => {}
        0x46..=0x4f => return Err(Refused::Options),
        _ => return Err(Refused::Header),
    }
    let total = usize::from(word(header, 2));
    if total > bytes.len() {
        return Err(Refused::Truncated);
    }
    let packet = bytes.get(IPV4_BYTES..total).ok_or(Refused::Length)?;
    let header_holds = match checksums.ip {
        Verdict::Unknown => folded(sum(header, 0)) == 0xffff,
        Verdict::Good => true,
        Verdict::Bad => false,
    };
    if !header_holds {
        return Err(Refused::IpChecksum);
    }
    if word(header, 6) & FRAGMENT_BITS != 0 {
        return Err(Refused::Fragment);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(Refused::Protocol);
    }
    let (from, to) = (Ipv4Addr::from(part(header, 12)), Ipv4Addr::from(part(header, 16)));
    decode_udp(packet, from, to, checksums.udp)
}

fn decode_udp(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr, verdict: Verdict) -> Result<Udp<'_>, Refused> {
    let header = packet.first_chunk::<UDP_BYTES>().ok_or(Refused::Truncated)?;
    let len = usize::from(word(header, 4));
    // A datagram shorter than its packet has bytes behind it that nothing accounts for.
    if len != packet.len() {
        return Err(Refused::Length);
    }
    let holds = match verdict {
        Verdict::Unknown => folded(sum(packet, pseudo_header(from, to, len))) == 0xffff,
        Verdict::Good => true,
        Verdict::Bad => false,
    };
    if !holds || word(header, 6) == 0 {
        return Err(Refused::UdpChecksum);
    }
    let from = SocketAddrV4::new(from, word(header, 0));
    let to = SocketAddrV4::new(to, word(header, 2));
    let sender = from.ip();
    if sender.is_unspecified() || sender.is_multicast() || sender.is_broadcast() || from.port() == 0 {
        return Err(Refused::Address);
    }
    Ok(Udp { from, to, payload: &packet[UDP_BYTES..] })
}

/// An ARP packet in its frame.
pub fn encode_arp(to: Mac, arp: &Arp) -> [u8; ARP_FRAME_BYTES] {
    let mut frame = [0; ARP_FRAME_BYTES];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&arp.sender.0);
    frame[12..14].copy_from_slice(&TYPE_ARP.to_be_bytes());
    frame[14..20].copy_from_slice(&ARP_KIND);
    frame[21] = match arp.operation {
        Operation::Request => 1,
        Operation::Reply => 2,
    };
    frame[22..28].copy_from_slice(&arp.sender.0);
    frame[28..32].copy_from_slice(&arp.sender_ip.octets());
    frame[32..38].copy_from_slice(&arp.target.0);
    frame[38..42].copy_from_slice(&arp.target_ip.octets());
    frame
}

/// Who sends a datagram, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The port that sends.
    pub from_mac: Mac,
    /// The port that it is for.
    pub to_mac: Mac,
    /// The sender.
    pub from: SocketAddrV4,
    /// The receiver.
    pub to: SocketAddrV4,
}

/// Writes the head of a datagram whose payload follows it in `frame`, both checksums computed.
///
/// # Panics
/// If the frame is shorter than a head or its payload longer than [`UDP_PAYLOAD_BYTES_MAX`].
pub fn seal_udp(frame: &mut [u8], path: &Path) {
    let len = write_heads(frame, path);
    let header = folded(sum(&frame[ETHERNET_BYTES..][..IPV4_BYTES], 0));
    frame[24..26].copy_from_slice(&(!header).to_be_bytes());
    let pseudo = pseudo_header(*path.from.ip(), *path.to.ip(), len);
    let checksum = match !folded(sum(&frame[ETHERNET_BYTES + IPV4_BYTES..], pseudo)) {
        0 => 0xffff, // zero would say that there is none
        checksum => checksum,
    };
    frame[40..42].copy_from_slice(&checksum.to_be_bytes());
}

/// The same for a port that computes both: the header's checksum is zero, the datagram's that of its pseudo header.
///
/// # Panics
/// As [`seal_udp`].
pub fn prepare_udp(frame: &mut [u8], path: &Path) {
    let len = write_heads(frame, path);
    let pseudo = folded(pseudo_header(*path.from.ip(), *path.to.ip(), len));
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
}

/// Everything but the checksums, which are zero; returns the datagram's length with its header.
fn write_heads(frame: &mut [u8], path: &Path) -> usize {
    let payload = frame.len().checked_sub(UDP_HEAD_BYTES).expect("a frame holds its head");
    assert!(payload <= UDP_PAYLOAD_BYTES_MAX, "a datagram's length has 16 bits");
    let len = payload + UDP_BYTES;
    let head = frame.first_chunk_mut::<UDP_HEAD_BYTES>().expect("a frame holds its head");
    head[..6].copy_from_slice(&path.to_mac.0);
    head[6..12].copy_from_slice(&path.from_mac.0);
    head[12..14].copy_from_slice(&TYPE_IPV4.to_be_bytes());
    head[14..16].copy_from_slice(&[0x45, 0]);
    head[16..18].copy_from_slice(&((len + IPV4_BYTES) as u16).to_be_bytes());
    head[18..20].copy_from_slice(&[0, 0]);
    head[20..22].copy_from_slice(&FLAGS_DONT_FRAGMENT.to_be_bytes());
    head[22..26].copy_from_slice(&[TIME_TO_LIVE, PROTOCOL_UDP, 0, 0]);
    head[26..30].copy_from_slice(&path.from.ip().octets());
    head[30..34].copy_from_slice(&path.to.ip().octets());
    head[34..36].copy_from_slice(&path.from.port().to_be_bytes());
    head[36..38].copy_from_slice(&path.to.port().to_be_bytes());
    head[38..40].copy_from_slice(&(len as u16).to_be_bytes());
    head[40..42].copy_from_slice(&[0, 0]);
    len
}

fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> u64 {
    let addresses = u64::from(from.to_bits()) + u64::from(to.to_bits());
    addresses + u64::from(PROTOCOL_UDP) + len as u64
}

/// The sum of the bytes' big-endian words upon `before`, to be folded: sums of words of 32 bits fold to the same.
fn sum(bytes: &[u8], before: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    before + whole + u64::from(u32::from_be_bytes(last))
}

/// The ones' complement sum of the words of 16 bits in it.
fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn part<const AT: usize, const LEN: usize>(bytes: &[u8; AT], from: usize) -> [u8; LEN] {
    core::array::from_fn(|at| bytes[from + at])
}

fn word<const AT: usize>(bytes: &[u8; AT], from: usize) -> u16 {
    u16::from_be_bytes(part(bytes, from))
}

#[cfg(test)]
mod tests;
