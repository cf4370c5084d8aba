//! The target `ethernet`: frames as they come from a port that the link owns itself.

use core::net::{Ipv4Addr, SocketAddrV4};

use crate::wire::ethernet::{
    Arp, Checksums, Ethernet, Mac, Operation, Packet, Path, UDP_HEAD_BYTES, Verdict, decode, encode_arp,
    seal_udp,
};

const HERE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THERE: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Frames of every kind.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let at = |last| SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, last), 7100);
    let path = Path { from_mac: HERE, to_mac: THERE, from: at(1), to: at(2) };
    let arp = |operation| Arp {
        operation,
        sender: HERE,
        sender_ip: *at(1).ip(),
        target: THERE,
        target_ip: *at(2).ip(),
    };
    let mut frames = vec![
        encode_arp(Mac::BROADCAST, &arp(Operation::Request)).to_vec(),
        encode_arp(THERE, &arp(Operation::Reply)).to_vec(),
    ];
    for payload in [0, 3, 64, 1472] {
        let mut frame = vec![0x5a; UDP_HEAD_BYTES + payload];
        seal_udp(&mut frame, &path);
        frames.push(frame);
    }
    frames
}

/// Sets the checksums right, so that what lies behind them is reached: of the header as it says that it is long, and of
/// what it says to hold.
pub(super) fn reseal(frame: &mut [u8]) {
    if frame.len() < UDP_HEAD_BYTES {
        return;
    }
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let packet = &mut frame[14..];
    let total = total.clamp(28, packet.len());
    packet[10..12].fill(0);
    let header = checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet[26..28].fill(0);
    let datagram = checksum(&packet[12..total], 17 + total as u32 - 20).max(1);
    packet[26..28].copy_from_slice(&datagram.to_be_bytes());
}

/// The checksum a word at a time: slower than the product's, and another.
fn checksum(bytes: &[u8], before: u32) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum = bytes.chunks(2).map(word).sum::<u32>() + before;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What is accepted is written back in the same bytes, but for what the reader does not look at: identification, the
/// don't-fragment bit, service and time to live, and the padding.
pub(super) fn attempt(input: &[u8]) -> bool {
    let trusted = Checksums { ip: Verdict::Good, udp: Verdict::Good };
    let believed = decode(input, trusted);
    let Ok(Ethernet { to, from, packet }) = decode(input, Checksums::UNKNOWN) else { return false };
    assert_eq!(believed, Ok(Ethernet { to, from, packet }), "who looks at more refuses more");
    match packet {
        Packet::Arp(arp) => {
            let mut again = encode_arp(to, &arp);
            again[6..12].copy_from_slice(&from.0);
            assert_eq!(again, input[..again.len()], "ARP is written as it was read");
        }
        Packet::Udp(udp) => {
            let mut again = input[..UDP_HEAD_BYTES + udp.payload.len()].to_vec();
            seal_udp(&mut again, &Path { from_mac: from, to_mac: to, from: udp.from, to: udp.to });
            let same = |range: core::ops::Range<usize>| assert_eq!(again[range.clone()], input[range]);
            same(0..15);
            same(16..18);
            same(23..24);
            same(26..40);
            assert_eq!(decode(&again, Checksums::UNKNOWN), Ok(Ethernet { to, from, packet }));
        }
    }
    true
}
