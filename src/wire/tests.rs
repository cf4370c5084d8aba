#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::aside::Aside;
use super::client::{
    Outcome, Reply, Request, ShardStatus, StreamRequest, StreamStatus, Submit, replies, replies_as_they_are,
    requests,
};
use super::frame::{Builder, Kind, announced_bytes, open};
use super::hello::{Greeting, Hello, Refusal, Welcome};
use super::{Malformed, peer};
use crate::limits::*;
use crate::raft::message::{Ack, Grant};
use crate::raft::{Message, Role};
use crate::types::*;

fn id(index: u64, term: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}

fn messages() -> Vec<(ShardId, Message, Vec<u8>)> {
    let term = Term(9);
    let append = |previous, entries_term, count| Message::Append {
        term,
        previous,
        entries_term: Term(entries_term),
        count,
        commit: Index(41),
        round: 77,
    };
    let list = [
        (Message::PreVote { term, last: id(5, 4) }, 0),
        (Message::PreVoteReply { term, granted: true }, 0),
        (Message::PreVoteReply { term: Term(0), granted: false }, 0),
        (Message::RequestVote { term, last: EntryId::default(), transfer: true }, 0),
        (Message::RequestVote { term, last: id(5, 4), transfer: false }, 0),
        (Message::VoteGranted(Grant::received(term)), 0),
        (Message::VoteRefused { term }, 0),
        (append(id(5, 4), 9, 0), 0),
        (append(id(5, 4), 4, 2), 136),
        (append(EntryId::default(), 1, 1), 64),
        (Message::Appended(Ack::received(term, Index(8), 3)), 0),
        (Message::Rejected { term, refused: Index(8), hint: id(2, 1), round: 6 }, 0),
        (Message::TimeoutNow { term }, 0),
    ];
    let body = |len: usize, seed: usize| (0..len).map(|at| (at * 7 + seed) as u8).collect();
    list.into_iter()
        .enumerate()
        .map(|(n, (message, len))| (ShardId(n as u32), message, body(len, n)))
        .collect()
}

fn frame_of(kind: Kind, rows: &[([u8; 64], Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(kind);
    for (row, body) in rows {
        assert!(builder.fits(body.len()));
        builder.push(row, body.len());
    }
    let mut frame = builder.seal().to_vec();
    rows.iter().for_each(|(_, body)| frame.extend_from_slice(body));
    frame
}

fn peer_frame() -> Vec<u8> {
    let rows: Vec<_> =
        messages().into_iter().map(|(shard, m, body)| (peer::encode(shard, &m, body.len()), body)).collect();
    frame_of(Kind::Peer, &rows)
}

fn submit(payload: &[u8]) -> Submit<'_> {
    Submit {
        request: 1,
        shard: ShardId(2),
        acks: Acks::Quorum,
        timestamp: Timestamp(u64::MAX),
        epoch: Epoch(4),
        session: 5,
        serial: 6,
        payload_crc: 7,
        more_bytes: 8,
        payload,
    }
}

fn sample_requests() -> Vec<Request<'static>> {
    vec![
        Request::Submit(submit(b"x")),
        Request::Submit(Submit { acks: Acks::None, more_bytes: 0, ..submit(b"a record") }),
        Request::Submit(Submit { acks: Acks::Leader, session: 0, serial: 0, ..submit(b"another record") }),
        Request::Read { request: 2, shard: ShardId(1), from: Index(3), bytes_max: u32::MAX, wait: true },
        Request::Read { request: 3, shard: ShardId(1), from: Index(0), bytes_max: 0, wait: false },
        Request::Status { request: u64::MAX, shard: ShardId(SHARDS_MAX - 1) },
        Request::Transfer { request: 4, shard: ShardId(0), to: NodeId(3) },
        stream(StreamRequest::Register(ShardId(SHARDS_MAX - 1))),
        stream(StreamRequest::Advance(Stamp::new(Epoch(u32::MAX), Timestamp(u64::MAX)))),
        stream(StreamRequest::EndOfStream),
        stream(StreamRequest::EndOfEpoch(Epoch(4))),
        stream(StreamRequest::CutEpoch(Epoch(u32::MAX))),
        Request::Subscribe { request: 6, shard: ShardId(2) },
    ]
}

fn stream(asked: StreamRequest) -> Request<'static> {
    Request::Stream { request: 5, shard: ShardId(0), asked }
}

fn request_frame() -> Vec<u8> {
    let body = |request: &Request<'_>| match request {
        Request::Submit(submit) => submit.payload.to_vec(),
        _ => Vec::new(),
    };
    frame_of(Kind::Request, &sample_requests().iter().map(|r| (r.encode(), body(r))).collect::<Vec<_>>())
}

fn sample_replies() -> Vec<Reply<'static>> {
    let outcomes = [
        Outcome::Committed { id: id(8, 2), timestamp: Timestamp(u64::MAX) },
        Outcome::NotLeader { leader: None },
        Outcome::NotLeader { leader: Some(NodeId(2)) },
        Outcome::Busy,
        Outcome::LogFull,
        Outcome::Unknown,
        Outcome::Invalid,
        Outcome::Stopping,
        Outcome::Accepted,
        Outcome::Behind { last: Stamp::new(Epoch(u32::MAX), Timestamp(4)) },
        Outcome::Unregistered,
        Outcome::EpochClosed { open: Epoch(7) },
    ];
    let mut list: Vec<_> =
        (0..).zip(outcomes).map(|(request, outcome)| Reply::Outcome { request, outcome }).collect();
    list.push(Reply::Records { request: 20, next: Index(4), commit: Index(9), records: &[5; 72] });
    list.push(Reply::Records { request: 21, next: Index(4), commit: Index(3), records: &[] });
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader] {
        let status = ShardStatus {
            shard: ShardId(6),
            role,
            term: Term(3),
            leader: (role == Role::Leader).then_some(NodeId(1)),
            last: id(7, 3),
            commit: Index(6),
            durable: Index(5),
            elections: u32::MAX,
        };
        list.push(Reply::Status { request: 22, status });
    }
    list.push(Reply::ReadIndex { request: 23, index: Index(11) });
    let status = StreamStatus {
        shard: ShardId(6),
        role: Role::Leader,
        term: Term(3),
        leader: Some(NodeId(1)),
        epoch: Epoch(2),
        open: true,
        takes_records: true,
        closing: false,
        watermark: Stamp::new(Epoch(1), Timestamp(u64::MAX)),
        stands_at: Timestamp(5),
    };
    list.push(Reply::Stream { request: 24, status });
    // Each flag has a bit of its own.
    let none = StreamStatus { open: false, takes_records: false, ..status };
    list.push(Reply::Stream { request: 24, status: none });
    list.push(Reply::Stream { request: 24, status: StreamStatus { open: true, ..none } });
    list.push(Reply::Stream { request: 24, status: StreamStatus { closing: true, ..none } });
    list.push(Reply::Stream { request: 24, status: StreamStatus { takes_records: true, ..none } });
    let last = Stamp::new(Epoch(u32::MAX - 1), Timestamp(u64::MAX));
    list.push(Reply::EpochClosed { request: 24, shard: ShardId(6), last });
    list.push(Reply::Farewell);
    list
}

fn reply_frame() -> Vec<u8> {
    let rows: Vec<_> = sample_replies()
        .iter()
        .map(|reply| {
            let body = if let Reply::Records { records, .. } = reply { records.to_vec() } else { Vec::new() };
            (reply.encode(body.len()), body)
        })
        .collect();
    frame_of(Kind::Reply, &rows)
}

fn greetings() -> Vec<Greeting> {
    let hello = Hello {
        cluster: ClusterId(u64::MAX),
        node: Some(NodeId(3)),
        store: StoreId(4),
        to: Some(NodeId(u32::MAX)),
        lane: LaneId(1),
        lanes: 2,
    };
    let client = Hello { node: None, store: StoreId(0), to: None, ..hello };
    vec![
        Greeting::Hello(hello),
        Greeting::Hello(client),
        Greeting::Hello(Hello { lanes: 0, lane: LaneId(LANES_MAX - 1), ..client }),
        Greeting::Welcome(Welcome {
            node: NodeId(u32::MAX),
            store: StoreId(1),
            lane: LaneId(0),
            lanes: 1,
            shards: SHARDS_MAX,
        }),
        Greeting::Refusal(Refusal::Cluster { expected: ClusterId(1), found: ClusterId(2) }),
        Greeting::Refusal(Refusal::Lanes { expected: 1, found: 2 }),
        Greeting::Refusal(Refusal::Lane { expected: LaneId(1), found: LaneId(2) }),
        Greeting::Refusal(Refusal::Node { found: NodeId(2) }),
        Greeting::Refusal(Refusal::Store { expected: StoreId(1), found: StoreId(2) }),
        Greeting::Refusal(Refusal::Crowded),
        Greeting::Refusal(Refusal::Meant { expected: NodeId(3), found: NodeId(u32::MAX) }),
    ]
}

/// Every decoder's word on the same bytes, walked to the end: how many things came out.
fn decode_all(bytes: &[u8]) -> Result<usize, Malformed> {
    let results = [
        Greeting::decode(bytes).map(|_| 1),
        peer::decode(bytes).map(Iterator::count),
        requests(bytes).map(Iterator::count),
        replies(bytes).map(Iterator::count),
    ];
    assert!(results.iter().filter(|r| r.is_ok()).count() <= 1, "one frame has one meaning");
    let mut shown = 0;
    let as_they_are = replies_as_they_are(bytes, |_| shown += 1);
    assert_eq!(as_they_are.map(|()| shown), results[3], "two ways to read replies");
    results.into_iter().reduce(Result::or).unwrap()
}

fn samples() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = greetings().iter().map(|g| g.encode().to_vec()).collect();
    all.extend([peer_frame(), request_frame(), reply_frame()]);
    all
}

#[test]
fn every_message_comes_back_as_it_went() {
    let frame = peer_frame();
    assert_eq!(announced_bytes(frame.first_chunk().unwrap()), Ok(frame.len()));
    let back: Vec<_> = peer::decode(&frame).unwrap().map(|(s, m, body)| (s, m, body.to_vec())).collect();
    assert_eq!(back, messages());
    // Receive buffers give no alignment: the same bytes at every offset decode to the same.
    for shift in 1..8 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&frame);
        assert_eq!(peer::decode(&shifted[shift..]).unwrap().count(), messages().len());
    }
}

#[test]
fn every_request_reply_and_greeting_comes_back_as_it_went() {
    assert_eq!(requests(&request_frame()).unwrap().collect::<Vec<_>>(), sample_requests());
    assert_eq!(replies(&reply_frame()).unwrap().collect::<Vec<_>>(), sample_replies());
    for greeting in greetings() {
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
    }
}

/// Of a frame that its writer may still change nothing is read twice, and so no row was checked before it is shown.
#[test]
fn replies_as_they_are_come_until_one_makes_no_sense() {
    let mut shown = Vec::new();
    let frame = reply_frame();
    assert_eq!(replies_as_they_are(&frame, |reply| shown.push(reply)), Ok(()));
    assert_eq!(shown, sample_replies());
    let rows: Vec<_> = (0..3).map(|request| Reply::Outcome { request, outcome: Outcome::Busy }).collect();
    let mut frame =
        frame_of(Kind::Reply, &rows.iter().map(|row| (row.encode(0), Vec::new())).collect::<Vec<_>>());
    // The code of the last one.
    frame[32 + 2 * 64 + 1] = 99;
    reseal(&mut frame);
    assert!(replies(&frame).is_err());
    let mut shown = Vec::new();
    let wrong = replies_as_they_are(&frame, |reply| shown.push(reply));
    assert_eq!((wrong, &shown[..]), (Err(Malformed::Field("outcome")), &rows[..2]));
}

#[test]
fn the_format_on_the_wire_is_the_drawn_one() {
    let frame = Greeting::Refusal(Refusal::Lanes { expected: 1, found: 2 }).encode();
    let mut expected = [0u8; 96];
    expected[..4].copy_from_slice(b"PLM1");
    (expected[4], expected[8], expected[9], expected[10]) = (96, 3, 1, 1);
    (expected[32], expected[40], expected[48]) = (2, 1, 2);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&expected[..28]), &expected[32..]);
    expected[28..32].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(frame, expected);
}

#[test]
fn a_frame_cut_off_anywhere_or_followed_by_anything_is_refused() {
    for frame in samples() {
        assert!(decode_all(&frame).unwrap() > 0);
        for len in 0..frame.len() {
            assert!(decode_all(&frame[..len]).is_err(), "{len} of {} bytes", frame.len());
        }
        let mut longer = frame.clone();
        longer.push(0);
        assert_eq!(open(&longer), Err(Malformed::Truncated));
    }
}

#[test]
fn no_flipped_bit_in_header_or_table_is_believed() {
    for frame in samples() {
        let covered = frame.len() - open(&frame).unwrap().2.len();
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = decode_all(&flipped);
            assert_eq!(result.is_err(), bit / 8 < covered, "bit {bit}: {result:?}");
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Makes the frame's length and checksum true, so that decoders get to see what is wrong inside.
fn reseal(frame: &mut [u8]) {
    let len = frame.len() as u32;
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    let count = u16::from_le_bytes([frame[10], frame[11]]) as usize;
    let end = (32 + 64 * count).min(frame.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..28]), &frame[32..end]);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0u8; 256];
    for _ in 0..100_000 {
        let len = random.below(bytes.len() + 1);
        bytes[..len].iter_mut().for_each(|byte| *byte = random.next() as u8);
        assert!(decode_all(&bytes[..len]).is_err());
        if len >= 32 {
            bytes[..4].copy_from_slice(b"PLM1");
            bytes[9] = 1;
            let _ = announced_bytes(bytes.first_chunk().unwrap());
        }
    }
}

#[test]
fn what_a_liar_seals_is_refused_or_is_exactly_what_a_writer_writes() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let samples = samples();
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..100_000 {
        let mut frame = samples[random.below(samples.len())].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(frame.len());
            // Low bits, high bits and extremes alike: lengths and counts are where the harm would be.
            frame[at] = match random.below(4) {
                0 => 0xff,
                1 => 0,
                2 => frame[at] ^ 1 << random.below(8),
                _ => random.next() as u8,
            };
        }
        reseal(&mut frame);
        match decode_all(&frame) {
            Ok(_) => {
                taken += 1;
                assert_canonical(&frame);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000 && taken > 10_000, "{refused} refused, {taken} taken");
}

fn assert_canonical(frame: &[u8]) {
    let (kind, table, _) = open(frame).unwrap();
    let rows: Vec<[u8; 64]> = match kind {
        Kind::Hello | Kind::Welcome | Kind::Refusal => {
            assert_eq!(Greeting::decode(frame).unwrap().encode(), frame);
            return;
        }
        Kind::Aside => {
            assert_eq!(Aside::decode(frame).unwrap().encode(), frame);
            return;
        }
        Kind::Peer => {
            peer::decode(frame).unwrap().map(|(s, m, body)| peer::encode(s, &m, body.len())).collect()
        }
        Kind::Request => requests(frame).unwrap().map(|r| r.encode()).collect(),
        Kind::Reply => replies(frame)
            .unwrap()
            .map(|r| r.encode(if let Reply::Records { records, .. } = r { records.len() } else { 0 }))
            .collect(),
    };
    assert_eq!(rows, table);
}

/// The error that a frame of one row meets after `change` and a true checksum.
fn refusal_of(kind: Kind, row: [u8; 64], body: &[u8], change: impl Fn(&mut [u8])) -> Malformed {
    let mut frame = frame_of(kind, &[(row, body.to_vec())]);
    assert_eq!(decode_all(&frame), Ok(1));
    change(&mut frame[32..96]);
    reseal(&mut frame);
    match kind {
        Kind::Peer => peer::decode(&frame).err(),
        Kind::Request => requests(&frame).err(),
        Kind::Reply => replies(&frame).err(),
        Kind::Aside => Aside::decode(&frame).err(),
        Kind::Hello | Kind::Welcome | Kind::Refusal => Greeting::decode(&frame).err(),
    }
    .unwrap()
}

#[test]
fn each_bound_of_an_append_is_kept() {
    let append = Message::Append {
        term: Term(9),
        previous: id(5, 4),
        entries_term: Term(6),
        count: 2,
        commit: Index(5),
        round: 0,
    };
    let row = peer::encode(ShardId(1), &append, 128);
    let refused = |change: &dyn Fn(&mut [u8])| refusal_of(Kind::Peer, row, &[0; 128], change);
    let field = |name| Malformed::Field(name);
    assert_eq!(refused(&|row| row[0] = 10), field("message kind"));
    assert_eq!(refused(&|row| row[1] = 1), field("reserved"));
    assert_eq!(refused(&|row| row[7] = 1), field("shard"));
    assert_eq!(refused(&|row| row[15] = 0x80), field("term"));
    assert_eq!(refused(&|row| row[23] = 0xff), field("index"));
    assert_eq!(refused(&|row| row[24] = 0), field("entry_term"));
    assert_eq!(refused(&|row| row[32] = 3), field("entries_term"));
    assert_eq!(refused(&|row| row[32] = 10), field("entries_term"));
    assert_eq!(refused(&|row| row[47] = 0x80), field("commit"));
    assert_eq!(refused(&|row| row[56] = 0), field("entries_term"));
    assert_eq!(refused(&|row| (row[56], row[32]) = (0, 9)), field("count"));
    assert_eq!(refused(&|row| row[56] = 3), field("count"));
    assert_eq!(refused(&|row| row[60] = 0), field("count"));
    assert_eq!(refused(&|row| row[60] = 132), field("body_bytes"));
    assert_eq!(refused(&|row| row[63] = 1), field("body_bytes"));
    assert_eq!(refused(&|row| row[60] = 136), Malformed::Truncated);
    // A byte of the body that no row accounts for.
    let mut frame = frame_of(Kind::Peer, &[(row, vec![0; 136])]);
    reseal(&mut frame);
    assert_eq!(peer::decode(&frame).err(), Some(Malformed::Truncated));
}

#[test]
fn each_bound_of_a_submit_is_kept() {
    let row = Request::Submit(submit(b"12345678")).encode();
    let refused = |change: &dyn Fn(&mut [u8])| refusal_of(Kind::Request, row, b"12345678", change);
    let number = |at: usize, value: usize| {
        move |row: &mut [u8]| row[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes())
    };
    assert_eq!(refused(&|row| row[0] = 8), Malformed::Field("request kind"));
    assert_eq!(refused(&|row| row[1] = 3), Malformed::Field("acks"));
    assert_eq!(refused(&|row| row[63] = 1), Malformed::Field("reserved"));
    assert_eq!(refused(&number(4, SHARDS_MAX as usize)), Malformed::Field("shard"));
    assert_eq!(refused(&number(52, 0)), Malformed::Field("body_bytes"));
    assert_eq!(refused(&number(52, ENTRY_PAYLOAD_BYTES_MAX + 1)), Malformed::Field("body_bytes"));
    assert_eq!(refused(&number(52, ENTRY_PAYLOAD_BYTES_MAX)), Malformed::Truncated);
    assert_eq!(refused(&number(52, 7)), Malformed::Truncated);
    assert_eq!(refused(&number(48, RECORD_BYTES_MAX - 7)), Malformed::Field("more_bytes"));
    let transfer = Request::Transfer { request: 4, shard: ShardId(0), to: NodeId(3) };
    let nobody = refusal_of(Kind::Request, transfer.encode(), &[], |row| row[40] = 0);
    assert_eq!(nobody, Malformed::Field("to"));
}

#[test]
fn a_stream_request_is_refused_for_what_it_does_not_use() {
    let refused = |asked: StreamRequest, at: usize, byte: u8| {
        refusal_of(Kind::Request, stream(asked).encode(), &[], |row| row[at] = byte)
    };
    let cut = StreamRequest::CutEpoch(Epoch(4));
    for flag in [0, 6, 255] {
        assert_eq!(refused(cut, 1, flag), Malformed::Field("stream request"));
    }
    // A cut of an epoch has no timestamp, session, serial or body.
    for at in [2, 16, 24, 32, 44, 48, 52, 63] {
        assert_eq!(refused(cut, at, 1), Malformed::Field("reserved"), "byte {at}");
    }
    assert_eq!(refused(StreamRequest::EndOfStream, 40, 1), Malformed::Field("reserved"));
    // The end of a stream that speaks of an epoch is none.
    assert_eq!(refused(cut, 1, 3), Malformed::Field("reserved"));
    let register = StreamRequest::Register(ShardId(0));
    assert_eq!(refused(register, 43, 1), Malformed::Field("shard"));
}

#[test]
fn a_header_is_refused_for_what_it_is() {
    let good = greetings()[0].encode();
    let header = |at: usize, bytes: &[u8]| {
        let mut header: [u8; 32] = *good.first_chunk().unwrap();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        announced_bytes(&header)
    };
    assert_eq!(header(0, b"HTTP"), Err(Malformed::Magic(u32::from_le_bytes(*b"HTTP"))));
    assert_eq!(header(9, &[2]), Err(Malformed::Version(2)));
    for len in [0, 95, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        assert_eq!(header(4, &len.to_le_bytes()), Err(Malformed::Length(len)));
    }
    assert_eq!(header(4, &(FRAME_BYTES_MAX as u32).to_le_bytes()), Ok(FRAME_BYTES_MAX));
    let resealed = |change: &dyn Fn(&mut [u8])| {
        let mut frame = good.to_vec();
        change(&mut frame);
        reseal(&mut frame);
        open(&frame).err()
    };
    assert_eq!(resealed(&|frame| frame[8] = 8), Some(Malformed::Field("kind")));
    assert_eq!(resealed(&|frame| frame[10] = 0), Some(Malformed::Field("count")));
    assert_eq!(resealed(&|frame| frame[10] = 2), Some(Malformed::Truncated));
    assert_eq!(resealed(&|frame| frame[11] = 5), Some(Malformed::Field("count")));
    assert_eq!(resealed(&|frame| frame[27] = 1), Some(Malformed::Field("reserved")));
}

#[test]
fn a_builder_fills_up_to_its_bounds_and_starts_again() {
    let row = peer::encode(ShardId(0), &Message::VoteRefused { term: Term(1) }, 0);
    let mut builder = Builder::new(Kind::Peer);
    assert!(builder.is_empty());
    for _ in 0..FRAME_MESSAGES_MAX {
        assert!(builder.fits(0));
        builder.push(&row, 0);
    }
    assert!(!builder.fits(0));
    let sealed = builder.seal().to_vec();
    assert_eq!(peer::decode(&sealed).unwrap().count(), FRAME_MESSAGES_MAX);
    builder.clear();
    assert!(builder.is_empty());
    assert!(builder.fits(FRAME_BYTES_MAX - 96) && !builder.fits(FRAME_BYTES_MAX - 95));
    assert!(!builder.fits(usize::MAX));
    builder.push(&row, 0);
    let one = builder.seal().to_vec();
    builder.push(&row, 0);
    assert_eq!(peer::decode(&one).unwrap().count(), 1);
    assert_eq!(peer::decode(builder.seal()).unwrap().count(), 2);
}
