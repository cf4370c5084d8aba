//! Arbitrary bytes into everything that reads bytes of others, and arbitrary messages into the protocol. A target must
//! refuse or accept, never panic, and what it accepts it must write back in the same words.
//!
//! Mutations of a kept corpus, without feedback from coverage: checksums are set right again in every second attempt,
//! so that what lies behind them is reached.

mod datagram;
mod ethernet;

use std::collections::BTreeMap;

use super::model::Node;
use super::random::Random;
use crate::io::pool::Pool;
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::{BATCH_BYTES_MAX, ENTRY_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::log::record::{self, Kind};
use crate::log::{Log, LogEvent, NewEntry, Options, POOL_CHUNKS_MIN};
use crate::raft::effects::Span;
use crate::raft::message::{Ack, Grant};
use crate::raft::{Input, Message};
use crate::types::{
    ClusterId, EntryId, Epoch, Flushed, Index, LaneId, NodeId, ShardId, Term, Timestamp, WriteSequence,
};
use crate::wire::{self, frame};

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Frames of every kind.
    Wire,
    /// Ethernet frames.
    Ethernet,
    /// A log as it lies on a disk.
    Log,
    /// Any sequence of messages, timeouts, crashes and finished writes.
    Raft,
    /// Datagrams of every kind.
    Datagram,
    /// Any sequence of datagrams, times and sends at a link over them.
    DatagramLink,
}

/// One target with what it needs between two attempts.
pub struct Fuzzer {
    target: Target,
    pool: Pool,
    /// What mutations begin with.
    pub corpus: Vec<Vec<u8>>,
    /// Attempts that were accepted.
    pub accepted: u64,
}

impl Fuzzer {
    /// A fuzzer with samples of its own and those of `corpus`.
    pub fn new(target: Target, corpus: Vec<Vec<u8>>) -> Fuzzer {
        let pool = Pool::new(POOL_CHUNKS_MIN + 1);
        let mut corpus = corpus;
        match target {
            Target::Wire => corpus.extend(sample_frames()),
            Target::Ethernet => corpus.extend(ethernet::samples()),
            Target::Log => corpus.push(sample_log(&pool)),
            Target::Raft => corpus.push(vec![0; 64]),
            Target::Datagram => corpus.extend(datagram::samples()),
            Target::DatagramLink => corpus.push(datagram::sample_course()),
        }
        Fuzzer { target, pool, corpus, accepted: 0 }
    }

    /// The next input.
    pub fn next(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = random.pick(&self.corpus).clone();
        if self.target == Target::Raft && random.chance(500_000) {
            // Any bytes are a course of events; long ones go somewhere.
            bytes = (0..random.between(10, 120) * 12).map(|_| random.draw() as u8).collect();
        }
        if self.target == Target::DatagramLink && random.chance(500_000) {
            bytes = datagram::any_course(random);
        }
        let other = random.pick(&self.corpus);
        mutate(&mut bytes, random, other);
        if self.target == Target::Wire && random.chance(700_000) {
            reseal(&mut bytes);
        }
        if self.target == Target::Datagram && random.chance(700_000) {
            datagram::reseal(&mut bytes);
        }
        if self.target == Target::Ethernet && random.chance(700_000) {
            ethernet::reseal(&mut bytes);
        }
        bytes
    }

    /// Tries one input.
    ///
    /// # Panics
    /// If the target does: that is what this looks for.
    pub fn attempt(&mut self, input: &[u8]) {
        let accepted = match self.target {
            Target::Wire => try_wire(input),
            Target::Ethernet => ethernet::attempt(input),
            Target::Log => try_log(&self.pool, input),
            Target::Raft => try_raft(input),
            Target::Datagram => datagram::try_decoder(input),
            Target::DatagramLink => datagram::try_link(input),
        };
        self.accepted += u64::from(accepted);
    }
}

/// Bytes as other fuzzers make them: flipped, overwritten, cut, doubled, spliced.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random, other: &[u8]) {
    for _ in 0..random.between(1, 6) {
        let len = bytes.len() as u64;
        if len == 0 {
            bytes.push(random.draw() as u8);
            continue;
        }
        let at = random.below(len) as usize;
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.draw() as u8,
            3 => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            4 => {
                let word = *random.pick(&[0, 1, 0xffff, 0xffff_ffff, u64::MAX, 1 << 62, 1 << 20]);
                for (byte, new) in bytes[at..].iter_mut().zip(word.to_le_bytes()) {
                    *byte = new;
                }
            }
            5 => bytes.truncate(at),
            6 => {
                let end = (at + random.between(1, 80) as usize).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ if !other.is_empty() => {
                let from = random.below(other.len() as u64) as usize;
                let until = (from + random.between(1, 128) as usize).min(other.len());
                let end = (at + until - from).min(bytes.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            _ => {}
        }
    }
}

/// Sets a frame's length and checksum right.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() < FRAME_HEADER_BYTES {
        return;
    }
    let len = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    let count = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let end = (FRAME_HEADER_BYTES + count * frame::ROW_BYTES).min(bytes.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[FRAME_HEADER_BYTES..end]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}

fn try_wire(input: &[u8]) -> bool {
    if let Some(head) = input.first_chunk::<FRAME_HEADER_BYTES>() {
        let _ = frame::announced_bytes(head);
    }
    let mut accepted = wire::hello::Greeting::decode(input).is_ok();
    if let Ok(aside) = wire::aside::Aside::decode(input) {
        accepted = true;
        assert_eq!(aside.encode(), input, "an aside is written as it was read");
    }
    if let Ok(messages) = wire::peer::decode(input) {
        accepted = true;
        for (shard, message, records) in messages {
            let row = wire::peer::encode(shard, &message, records.len());
            assert!(input.windows(row.len()).any(|bytes| bytes == row), "a row is written as it was read");
            let _ = record::check_run(records, shard, Index(1));
        }
    }
    if let Ok(requests) = wire::client::requests(input) {
        accepted = true;
        requests.for_each(|request| assert!(!request.encode().is_empty()));
    }
    if let Ok(replies) = wire::client::replies(input) {
        accepted = true;
        for reply in replies {
            let body =
                if let wire::client::Reply::Records { records, .. } = reply { records.len() } else { 0 };
            assert!(!reply.encode(body).is_empty());
        }
    }
    accepted
}

fn sample_frames() -> Vec<Vec<u8>> {
    let last = EntryId { term: Term(3), index: Index(7) };
    let messages = [
        Message::PreVote { term: Term(4), last },
        Message::PreVoteReply { term: Term(4), granted: true },
        Message::RequestVote { term: Term(4), last, transfer: false },
        Message::VoteGranted(Grant::received(Term(4))),
        Message::VoteRefused { term: Term(4) },
        Message::Append {
            term: Term(4),
            previous: last,
            entries_term: Term(4),
            count: 0,
            commit: Index(7),
            round: 1,
        },
        Message::Appended(Ack::received(Term(4), Index(7), 1)),
        Message::Rejected { term: Term(4), refused: Index(7), hint: last, round: 1 },
        Message::TimeoutNow { term: Term(4) },
    ];
    let mut all = frame::Builder::new(frame::Kind::Peer);
    messages.iter().for_each(|message| all.push(&wire::peer::encode(ShardId(1), message, 0), 0));
    let requests = [
        wire::client::Request::Read {
            request: 1,
            shard: ShardId(0),
            from: Index(1),
            bytes_max: 1,
            wait: true,
        },
        wire::client::Request::Status { request: 2, shard: ShardId(0) },
        wire::client::Request::Transfer { request: 3, shard: ShardId(0), to: NodeId(1) },
        wire::client::Request::ReadIndex { request: 4, shard: ShardId(0) },
    ];
    let mut asked = frame::Builder::new(frame::Kind::Request);
    requests.iter().for_each(|request| asked.push(&request.encode(), 0));
    let replies = [
        wire::client::Reply::Outcome { request: 1, outcome: wire::client::Outcome::Busy },
        wire::client::Reply::ReadIndex { request: 2, index: Index(3) },
        wire::client::Reply::Records { request: 3, next: Index(1), commit: Index(0), records: &[] },
    ];
    let mut told = frame::Builder::new(frame::Kind::Reply);
    replies.iter().for_each(|reply| told.push(&reply.encode(0), 0));
    vec![all.seal().to_vec(), asked.seal().to_vec(), told.seal().to_vec()]
}

/// A disk in memory, whose writes are done at once.
#[derive(Default)]
struct Memory {
    segments: BTreeMap<u64, Vec<u8>>,
    done: Vec<DiskEvent>,
}

impl Disk for Memory {
    fn block_bytes(&self) -> usize {
        512
    }

    fn segment_bytes(&self) -> u64 {
        BATCH_BYTES_MAX as u64
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        Ok(self.segments.keys().map(|&segment| SegmentId(segment)).collect())
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let held = &self.segments[&segment.0];
        let from = (offset as usize).min(held.len());
        let until = (offset as usize + into.len()).min(held.len());
        into[..until - from].copy_from_slice(&held[from..until]);
        into[until - from..].fill(0);
        Ok(())
    }

    fn sync_now(&mut self, sequence: WriteSequence) -> Result<Flushed, DiskError> {
        Ok(Flushed::by_disk(sequence))
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        let held = self.segments.entry(write.segment.0).or_default();
        let (from, until) = (write.offset as usize, write.offset as usize + write.bytes.len());
        held.resize(held.len().max(until), 0);
        held[from..until].copy_from_slice(&write.bytes);
        self.done.push(DiskEvent::Written(Flushed::by_disk(write.sequence)));
        Ok(())
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        let Read { token, segment, offset, len_bytes, mut into } = read;
        let _ = self.read_now(segment, offset, &mut into.spare_mut()[..len_bytes]);
        self.done.push(DiskEvent::Read { token, chunk: into });
        Ok(())
    }

    fn prepare(&mut self, segment: SegmentId) {
        self.segments.entry(segment.0).or_default();
        self.done.push(DiskEvent::Prepared(segment));
    }

    fn poll(&mut self, sink: &mut impl FnMut(DiskEvent)) -> usize {
        let done = core::mem::take(&mut self.done);
        let count = done.len();
        done.into_iter().for_each(sink);
        count
    }
}

fn log_options() -> Options {
    Options {
        cluster: ClusterId(7),
        node: NodeId(1),
        lane: LaneId(0),
        shards: vec![ShardId(0), ShardId(1)],
        segments_max: 8,
        segments_ahead: 1,
    }
}

fn lay_one(log: &mut Log<Memory>, shard: ShardId, last: EntryId) -> EntryId {
    let id = EntryId { term: last.term.max(Term(1)), index: last.index.next() };
    let payload = [id.index.0 as u8; 40];
    let entry = NewEntry {
        shard,
        id,
        kind: Kind::Data,
        flags: 0,
        timestamp: Timestamp(1),
        epoch: Epoch(1),
        session: 1,
        serial: id.index.0,
        payload_crc: record::payload_crc(&payload),
    };
    if log.room_for(payload.len()).is_ok() {
        log.lay(entry, &payload);
    }
    id
}

fn sample_log(pool: &Pool) -> Vec<u8> {
    let (mut log, _) =
        Log::open(Memory::default(), pool.clone(), log_options()).expect("an empty disk is a new log");
    for number in 0..12 {
        let shard = ShardId(number % 2);
        let last = log.last(shard);
        lay_one(&mut log, shard, last);
        log.submit();
        log.poll(&mut |_| {});
    }
    log.disk().segments[&0].clone()
}

/// Whatever lies on a disk, a log opens or says why not; and one that opens can be written and opened again.
fn try_log(pool: &Pool, input: &[u8]) -> bool {
    let image = input[..input.len().min(BATCH_BYTES_MAX)].to_vec();
    let disk = Memory { segments: BTreeMap::from([(0, image)]), done: Vec::new() };
    let Ok((mut log, shards)) = Log::open(disk, pool.clone(), log_options()) else { return false };
    let last = shards[0].last.get();
    let id = lay_one(&mut log, ShardId(0), *last);
    log.submit();
    log.poll(&mut |_| {});
    let laid = log.last(ShardId(0)) == id && log.is_quiet();
    let segments = log.disk().segments.clone();
    drop(log);
    let disk = Memory { segments, done: Vec::new() };
    match Log::open(disk, pool.clone(), log_options()) {
        Ok((mut log, shards)) => {
            assert!(!laid || *shards[0].last.get() == id, "what was durable is there again");
            shards.iter().for_each(|shard| read_back(&mut log, shard.shard));
        }
        Err(error) => panic!("a log that was opened and written does not open again: {error}"),
    }
    true
}

/// Everything that opening found is found again by reading.
fn read_back(log: &mut Log<Memory>, shard: ShardId) {
    let last = log.last(shard).index;
    let mut next = Index(1);
    while next <= last {
        let Span::Ready { count, .. } = log.span(shard, next, ENTRY_BYTES_MAX) else {
            log.poll(&mut |event| {
                if let LogEvent::Failed(error) = event {
                    panic!("a log that was opened is not read back: {error}");
                }
            });
            continue;
        };
        log.each_header(shard, next, count, |header| {
            assert_eq!((header.shard, header.index), (shard.0, next.0), "another entry than was asked for");
            next = next.next();
        });
    }
}

/// Any course of events whatever, of which each byte sequence names one.
fn try_raft(input: &[u8]) -> bool {
    let mut node = Node::new(0, 3);
    for event in input.chunks(12) {
        let byte = |at: usize| event.get(at).copied().unwrap_or_default();
        let small = |at: usize| u64::from(byte(at) % 8);
        match byte(0) % 10 {
            0 => drop(node.time_out()),
            1 => drop(node.write_done()),
            2 => drop(node.propose()),
            3 if byte(1) < 40 => node.crash(usize::from(byte(1) % 3)),
            4 => drop(node.step(Input::PeerDown(NodeId(u32::from(byte(1) % 5))))),
            5 => drop(node.step(Input::Transfer { to: NodeId(u32::from(byte(1) % 5)) })),
            _ => {
                // One more than there are: strangers speak too.
                let from = NodeId(u32::from(byte(1) % 5));
                drop(node.step(Input::Peer { from, message: any_message(byte(2), small) }));
            }
        }
    }
    node.raft.commit() > Index::ZERO
}

fn any_message(kind: u8, number: impl Fn(usize) -> u64) -> Message {
    // Now and then a number that no cluster gets to.
    let far = |at: usize| if number(at) == 7 { u64::MAX - number(at + 1) } else { number(at) };
    let term = Term(far(3));
    let entry = EntryId { term: Term(number(5)), index: Index(far(6)) };
    match kind % 9 {
        0 => Message::PreVote { term, last: entry },
        1 => Message::PreVoteReply { term, granted: number(4) < 4 },
        2 => Message::RequestVote { term, last: entry, transfer: number(4) == 0 },
        3 => Message::VoteGranted(Grant::received(term)),
        4 => Message::VoteRefused { term },
        5 => Message::Append {
            term,
            previous: entry,
            entries_term: Term(number(7)),
            count: number(8) as u32,
            commit: Index(far(9)),
            round: number(10),
        },
        6 => Message::Appended(Ack::received(term, entry.index, number(8))),
        7 => Message::Rejected { term, refused: Index(number(9)), hint: entry, round: number(8) },
        _ => Message::TimeoutNow { term },
    }
}
