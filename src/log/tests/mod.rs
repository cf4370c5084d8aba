#![allow(clippy::unwrap_used)]

mod cold;
mod crash;
pub(crate) mod disk;
mod format;
mod model;
mod room;
mod running;

use alloc::vec;
use alloc::vec::Vec;

use self::disk::{Image, MemDisk};
use super::record::{self, Kind};
use super::{Log, LogEvent, NewEntry, OpenError, Options, RecoveredShard};
use crate::io::pool::Pool;
use crate::raft::effects::Span;
use crate::types::{ClusterId, EntryId, Epoch, Index, LaneId, NodeId, ShardId, Term, Timestamp, Vote};

const SEGMENT_BYTES: u64 = 64 << 10;

/// What an entry is to a reader: its term and its payload.
type Entry = (u64, Vec<u8>);

fn options() -> Options {
    Options {
        cluster: ClusterId(0xC1),
        node: NodeId(2),
        lane: LaneId(1),
        shards: vec![ShardId(1), ShardId(4), ShardId(7)],
        segments_max: 64,
        segments_ahead: 1,
    }
}

fn open(image: Image, pool: &Pool) -> Result<(Log<MemDisk>, Vec<RecoveredShard>), OpenError> {
    Log::open(MemDisk::with(image, 512, SEGMENT_BYTES), pool.clone(), options())
}

fn empty(pool: &Pool) -> Log<MemDisk> {
    open(Image::default(), pool).unwrap().0
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}

fn vote(term: u64, candidate: u32) -> Vote {
    Vote { term: Term(term), candidate: Some(NodeId(candidate)) }
}

fn new_entry(shard: u32, id: EntryId, payload: &[u8]) -> NewEntry {
    NewEntry {
        shard: ShardId(shard),
        id,
        kind: Kind::Data,
        flags: 0,
        timestamp: Timestamp(100 + id.index.0),
        epoch: Epoch(3),
        session: 9,
        serial: id.index.0,
        payload_crc: record::payload_crc(payload),
    }
}

/// Lays the shard's next entry of this term.
fn lay(log: &mut Log<MemDisk>, shard: u32, term: u64, payload: &[u8]) -> EntryId {
    let id = id(term, log.last(ShardId(shard)).index.0 + 1);
    log.lay(new_entry(shard, id, payload), payload);
    id
}

/// The bytes of records as a leader sends them.
fn records(shard: u32, term: u64, first: u64, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, payload) in (first..).zip(payloads) {
        let header = record::Header {
            payload_crc: record::payload_crc(payload),
            len_bytes: payload.len() as u32,
            shard,
            term,
            index,
            kind: Kind::Data as u8,
            ..record::Header::default()
        };
        let at = bytes.len();
        bytes.resize(at + record::span_bytes(payload.len()), 0);
        record::lay(header, payload, &mut bytes[at..]);
    }
    bytes
}

/// What a poll tells, in words that are easy to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Entries(u32, EntryId),
    Vote(u32, Vote),
    Fetched,
    NoSpace,
    SpaceAgain,
    Failed(alloc::string::String),
}

fn poll(log: &mut Log<MemDisk>) -> Vec<Told> {
    let mut told = Vec::new();
    log.poll(&mut |event| {
        told.push(match event {
            LogEvent::Entries(shard, id) => Told::Entries(shard.0, *id.get()),
            LogEvent::Vote(shard, vote) => Told::Vote(shard.0, *vote.get()),
            LogEvent::Fetched => Told::Fetched,
            LogEvent::NoSpace(error) => {
                assert!(error.no_space, "{error}");
                Told::NoSpace
            }
            LogEvent::SpaceAgain => Told::SpaceAgain,
            LogEvent::Failed(error) => Told::Failed(error.cause),
        });
    });
    told
}

/// Reads a shard from its first entry to its last: term and payload of each.
fn read_all(log: &mut Log<MemDisk>, shard: u32, bytes_max: usize) -> Vec<Entry> {
    let last = log.last(ShardId(shard)).index.0;
    let mut entries = Vec::new();
    let mut waited = 0;
    while (entries.len() as u64) < last {
        let from = Index(entries.len() as u64 + 1);
        let Span::Ready { count, bytes } = log.span(ShardId(shard), from, bytes_max) else {
            waited += 1;
            assert!(waited < 100_000, "fetching never ends");
            let told = poll(log);
            assert!(!told.iter().any(|told| matches!(told, Told::Failed(_))), "{told:?}");
            continue;
        };
        let mut pieces = Vec::new();
        log.pieces(ShardId(shard), from, count, &mut pieces);
        let whole = pieces.concat();
        assert_eq!(whole.len(), bytes);
        assert!(bytes <= bytes_max);
        record::check_run(&whole, ShardId(shard), from).unwrap();
        let before = entries.len();
        for record in record::records(&whole) {
            let record = record.unwrap();
            entries.push((record.header.term, record.payload.to_vec()));
        }
        assert_eq!(entries.len() - before, count as usize);
    }
    entries
}

/// An image with so many single-entry batches of shard 1, all acknowledged.
fn image_of(batches: u64, pool: &Pool) -> Image {
    let mut log = empty(pool);
    for number in 1..=batches {
        lay(&mut log, 1, 1, format_payload(number).as_bytes());
        log.submit();
        assert_eq!(poll(&mut log).last(), Some(&Told::Entries(1, id(1, number))));
    }
    log.disk().image.clone()
}

fn format_payload(number: u64) -> alloc::string::String {
    alloc::format!("payload number {number}, {}", "x".repeat((number as usize * 37) % 900))
}
