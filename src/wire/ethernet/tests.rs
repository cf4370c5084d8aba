#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::*;

const HERE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THERE: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn path() -> Path {
    let at = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, last), port);
    Path { from_mac: HERE, to_mac: THERE, from: at(1, 7100), to: at(2, 7101) }
}

fn sealed(payload: &[u8], path: &Path) -> Vec<u8> {
    let mut frame = vec![0xa5; UDP_HEAD_BYTES];
    frame.extend_from_slice(payload);
    seal_udp(&mut frame, path);
    frame
}

fn udp(frame: &[u8]) -> Result<Udp<'_>, Refused> {
    match decode(frame, Checksums::UNKNOWN)?.packet {
        Packet::Udp(udp) => Ok(udp),
        Packet::Arp(arp) => panic!("{arp:?}"),
    }
}

/// The checksum as RFC 1071 tells it, a word at a time.
fn slow_checksum(words: impl Iterator<Item = u16>) -> u16 {
    let mut sum = 0_u16;
    for word in words {
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    !sum
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) % bound) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// A datagram of another implementation (a resolver's question, as a packet analyser saw it on the wire).
#[test]
fn a_datagram_of_another_stack_is_read() {
    let frame = [
        0x00, 0xe0, 0x18, 0xb1, 0x0c, 0xad, 0x00, 0xc0, 0x9f, 0x32, 0x41, 0x8c, 0x08, 0x00, // Ethernet
        0x45, 0x00, 0x00, 0x38, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x65, 0x47, // IPv4
        0xc0, 0xa8, 0xaa, 0x08, 0xc0, 0xa8, 0xaa, 0x14, // from 192.168.170.8 to 192.168.170.20
        0x80, 0x1b, 0x00, 0x35, 0x00, 0x24, 0x85, 0xed, // UDP
        0x10, 0x32, 0x01, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, b'g', b'o', b'o', b'g',
        b'l', b'e', 0x03, b'c', b'o', b'm', 0x00, 0x00, 0x10, 0x00, 0x01,
    ];
    let udp = udp(&frame).unwrap();
    assert_eq!(udp.from.to_string(), "192.168.170.8:32795");
    assert_eq!(udp.to.to_string(), "192.168.170.20:53");
    assert_eq!(udp.payload.len(), 28);
}

#[test]
fn what_is_sealed_is_read_back_and_sums_as_the_standard_says() {
    let mut random = Random(11);
    for len in (0..300).chain([1471, 1472, 8972, UDP_PAYLOAD_BYTES_MAX]) {
        let payload = random.bytes(len);
        let mut path = path();
        path.from.set_port(1 + random.below(65_535) as u16);
        let mut frame = sealed(&payload, &path);
        assert_eq!(slow_checksum(words(&frame[14..34])), 0);
        let pseudo = [0, u16::from(PROTOCOL_UDP), (len + UDP_BYTES) as u16];
        assert_eq!(slow_checksum(words(&frame[26..]).chain(pseudo)), 0);
        // Short frames are padded by who sends them.
        frame.extend(random.bytes(60_usize.saturating_sub(frame.len())));
        let ethernet = decode(&frame, Checksums::UNKNOWN).unwrap();
        assert_eq!((ethernet.from, ethernet.to), (HERE, THERE));
        assert_eq!(udp(&frame).unwrap(), Udp { from: path.from, to: path.to, payload: &payload });
    }
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unseen() {
    let frame = sealed(b"what was sent", &path());
    let mut looked_at = 0;
    for bit in 8 * ETHERNET_BYTES..8 * frame.len() {
        let mut broken = frame.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert!(udp(&broken).is_err(), "bit {bit}");
        looked_at += 1;
    }
    assert_eq!(looked_at, 8 * (20 + 8 + 13));
    for len in 0..frame.len() {
        assert_eq!(udp(&frame[..len]), Err(Refused::Truncated), "{len} bytes");
    }
}

#[test]
fn each_kind_of_stranger_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Vec<u8>), why: Refused| {
        let mut frame = sealed(b"sixteen bytes ..", &path());
        change(&mut frame);
        // The checksums are not what these are refused for.
        let looked_at = Checksums { ip: Verdict::Good, udp: Verdict::Good };
        assert_eq!(decode(&frame, looked_at), Err(why), "{why:?}");
    };
    refused(&|frame| frame[12..14].copy_from_slice(&[0x81, 0]), Refused::Vlan);
    refused(&|frame| frame[12..14].copy_from_slice(&[0x88, 0xa8]), Refused::Vlan);
    refused(&|frame| frame[12..14].copy_from_slice(&[0x86, 0xdd]), Refused::Type);
    refused(&|frame| frame[6] = 1, Refused::Address);
    refused(&|frame| frame[14] = 0x65, Refused::Header);
    refused(&|frame| frame[14] = 0x44, Refused::Header);
    refused(&|frame| frame[14] = 0x46, Refused::Options);
    refused(&|frame| frame[20] = 0x20, Refused::Fragment);
    refused(&|frame| frame[21] = 1, Refused::Fragment);
    refused(&|frame| frame[23] = 6, Refused::Protocol);
    refused(&|frame| frame[17] = 0xff, Refused::Truncated);
    refused(&|frame| frame[17] = 19, Refused::Length);
    refused(&|frame| frame[17] = 27, Refused::Truncated);
    refused(&|frame| frame[39] -= 1, Refused::Length);
    refused(&|frame| frame[39] += 1, Refused::Length);
    refused(&|frame| frame[40..42].fill(0), Refused::UdpChecksum);
    refused(&|frame| frame[26..30].fill(0), Refused::Address);
    refused(&|frame| frame[26..30].fill(255), Refused::Address);
    refused(&|frame| frame[26] = 224, Refused::Address);
    refused(&|frame| frame[34..36].fill(0), Refused::Address);
}

#[test]
fn what_the_port_says_of_checksums_is_believed() {
    let mut frame = sealed(b"what was sent", &path());
    let with = |ip, udp| Checksums { ip, udp };
    assert_eq!(decode(&frame, with(Verdict::Bad, Verdict::Good)), Err(Refused::IpChecksum));
    assert_eq!(decode(&frame, with(Verdict::Good, Verdict::Bad)), Err(Refused::UdpChecksum));
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&frame, with(Verdict::Good, Verdict::Unknown)), Err(Refused::UdpChecksum));
    decode(&frame, with(Verdict::Unknown, Verdict::Good)).unwrap();
}

#[test]
fn a_checksum_that_comes_out_as_zero_is_written_as_ones() {
    let path = path();
    // The payload that makes it so: what the checksum was when it was zero.
    let probe = sealed(&[0, 0], &path);
    let payload = [probe[40], probe[41]];
    let frame = sealed(&payload, &path);
    assert_eq!(frame[40..42], [0xff, 0xff]);
    assert_eq!(udp(&frame).unwrap().payload, payload);
}

#[test]
fn a_port_that_sums_is_given_the_pseudo_header() {
    let mut frame = vec![0; UDP_HEAD_BYTES];
    frame.extend_from_slice(b"odd");
    prepare_udp(&mut frame, &path());
    assert_eq!(frame[24..26], [0, 0]);
    // What the port does: the sum over the datagram, its field included, inverted.
    let mut done = frame.clone();
    done[24..26].copy_from_slice(&slow_checksum(words(&frame[14..34])).to_be_bytes());
    done[40..42].copy_from_slice(&slow_checksum(words(&frame[34..])).to_be_bytes());
    assert_eq!(done, sealed(b"odd", &path()));
}

#[test]
fn arp_is_read_as_it_was_written_and_nothing_else_is() {
    for operation in [Operation::Request, Operation::Reply] {
        let arp = Arp {
            operation,
            sender: HERE,
            sender_ip: Ipv4Addr::new(10, 9, 0, 1),
            target: Mac([0; 6]),
            target_ip: Ipv4Addr::new(10, 9, 0, 2),
        };
        let mut frame = encode_arp(Mac::BROADCAST, &arp).to_vec();
        let read = decode(&frame, Checksums::UNKNOWN).unwrap();
        assert_eq!(read, Ethernet { to: Mac::BROADCAST, from: HERE, packet: Packet::Arp(arp) });
        for len in 0..frame.len() {
            assert_eq!(decode(&frame[..len], Checksums::UNKNOWN), Err(Refused::Truncated));
        }
        for at in 14..22 {
            frame[at] ^= 0x10;
            assert_eq!(decode(&frame, Checksums::UNKNOWN), Err(Refused::Arp), "byte {at}");
            frame[at] ^= 0x10;
        }
        frame[22] |= 1;
        assert_eq!(decode(&frame, Checksums::UNKNOWN), Err(Refused::Arp));
    }
}

#[test]
fn arbitrary_bytes_are_refused_or_lie_within_the_frame() {
    let mut random = Random(23);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let len = random.below(80);
        let payload = random.bytes(len);
        let mut frame = sealed(&payload, &path());
        for _ in 0..random.below(3) {
            let at = random.below(frame.len() as u64);
            frame[at] = random.below(256) as u8;
        }
        frame.truncate(random.below(2 * frame.len() as u64));
        let Ok(Ethernet { packet: Packet::Udp(udp), .. }) = decode(&frame, Checksums::UNKNOWN) else {
            continue;
        };
        accepted += 1;
        assert!(udp.payload.len() + UDP_HEAD_BYTES <= frame.len());
        assert!(frame.as_ptr_range().contains(&udp.payload.as_ptr()) || udp.payload.is_empty());
    }
    assert!(accepted > 1000, "only {accepted} of the frames were read");
}

#[test]
fn reasons_are_numbered_without_gaps() {
    for (number, why) in Refused::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, number);
    }
}
