#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::*;

fn header(index: u64, payload: &[u8]) -> Header {
    Header {
        payload_crc: payload_crc(payload),
        len_bytes: payload.len() as u32,
        shard: 3,
        term: 7,
        index,
        timestamp: 11,
        kind: Kind::Data as u8,
        ..Header::default()
    }
}

fn laid(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xAA; span_bytes(payload.len())];
    assert_eq!(lay(header, payload, &mut bytes), bytes.len());
    bytes
}

fn run(indices: core::ops::Range<u64>) -> Vec<u8> {
    indices.flat_map(|index| laid(header(index, b"some bytes"), b"some bytes")).collect()
}

#[test]
fn what_was_laid_is_read_back() {
    for payload in [&b""[..], b"a", b"12345678", &[9; 1000], &[1; ENTRY_PAYLOAD_BYTES_MAX]] {
        let bytes = laid(header(5, payload), payload);
        let (record, span) = read(&bytes).unwrap();
        assert_eq!(span, bytes.len());
        assert_eq!(record.payload, payload);
        assert_eq!(record.header.id(), EntryId { term: Term(7), index: Index(5) });
        assert_eq!((record.header.timestamp, record.header.shard), (11, 3));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = laid(header(5, b"thirteen byte"), b"thirteen byte");
    for bit in 0..bytes.len() * 8 {
        let mut broken = bytes.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&broken).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_header_with_a_good_checksum_and_bad_fields_is_refused() {
    let refused = |change: fn(&mut Header)| {
        let mut header = header(5, b"");
        change(&mut header);
        header.header_crc = header_crc(bytemuck::bytes_of(&header));
        read(bytemuck::bytes_of(&header)).unwrap_err()
    };
    assert_eq!(refused(|h| h.kind = 0), Malformed::Field("kind"));
    assert_eq!(refused(|h| h.kind = 5), Malformed::Field("kind"));
    assert_eq!(refused(|h| h.flags = 4), Malformed::Field("flags"));
    assert_eq!(refused(|h| h.reserved = 1), Malformed::Field("reserved"));
    assert_eq!(refused(|h| h.index = 0), Malformed::Field("index"));
    assert_eq!(refused(|h| h.term = 0), Malformed::Field("term"));
    assert_eq!(refused(|h| h.kind = Kind::Vote as u8), Malformed::Field("index"));
    assert_eq!(refused(|h| h.len_bytes = u32::MAX), Malformed::Field("len_bytes"));
    assert_eq!(refused(|h| h.len_bytes = 1), Malformed::Truncated);
    assert_eq!(refused(|h| (h.kind, h.flags) = (Kind::Noop as u8, FLAG_MORE)), Malformed::Field("flags"));
    assert_eq!(refused(|h| (h.kind, h.flags) = (Kind::Mark as u8, FLAG_MORE)), Malformed::Field("flags"));
}

#[test]
fn a_vote_is_a_record() {
    for candidate in [None, Some(NodeId(4)), Some(NodeId(u32::MAX))] {
        let vote = Vote { term: Term(9), candidate };
        let bytes = laid(Header::vote(ShardId(2), vote), b"");
        let (record, _) = read(&bytes).unwrap();
        assert_eq!(record.header.kind(), Some(Kind::Vote));
        assert_eq!(record.header.as_vote(), vote);
    }
}

#[test]
fn an_appends_records_are_consecutive_and_of_one_shard_and_term() {
    let good = run(4..9);
    let summary = check_run(&good, ShardId(3), Index(4)).unwrap();
    let last = EntryId { term: Term(7), index: Index(8) };
    assert_eq!(summary, RunSummary { term: Term(7), count: 5, last });

    assert_eq!(check_run(&good, ShardId(2), Index(4)), Err(Malformed::Field("shard")));
    assert_eq!(check_run(&good, ShardId(3), Index(5)), Err(Malformed::Field("index")));
    assert_eq!(check_run(&[], ShardId(3), Index(4)), Err(Malformed::Truncated));
    assert_eq!(check_run(&good[..good.len() - 1], ShardId(3), Index(4)), Err(Malformed::Truncated));
    let gap = [run(4..5), run(6..7)].concat();
    assert_eq!(check_run(&gap, ShardId(3), Index(4)), Err(Malformed::Field("index")));
    let other_term = [run(4..5), laid(Header { term: 8, ..header(5, b"x") }, b"x")].concat();
    assert_eq!(check_run(&other_term, ShardId(3), Index(4)), Err(Malformed::Field("term")));
    let vote = laid(Header::vote(ShardId(3), Vote::default()), b"");
    assert_eq!(check_run(&vote, ShardId(3), Index(0)), Err(Malformed::Field("kind")));
    let mut end = laid(header(u64::MAX, b"x"), b"x");
    assert_eq!(check_run(&end, ShardId(3), Index(u64::MAX)), Err(Malformed::Field("index")));
    end[70] ^= 1;
    assert!(check_run(&end, ShardId(3), Index(u64::MAX)).is_err());
}
