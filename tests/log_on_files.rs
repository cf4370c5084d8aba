//! The log over real files, through every backend that this system has: what it told durable is there when it is
//! opened again.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use plimsoll::io::Park;
use plimsoll::io::disk::{Backend, FileDisk, Options as DiskOptions};
use plimsoll::io::pool::Pool;
use plimsoll::io::reactor::{Kind, Reactor};
use plimsoll::log::record::{self, Kind as RecordKind};
use plimsoll::log::{Log, LogEvent, NewEntry, NoRoom, Options};
use plimsoll::types::{ClusterId, EntryId, Epoch, Index, LaneId, NodeId, ShardId, Term, Timestamp};

/// Of each life of the log.
const ENTRIES: u64 = 1500;
const SHARD: ShardId = ShardId(0);

fn options() -> Options {
    Options {
        cluster: ClusterId(7),
        node: NodeId(1),
        lane: LaneId(0),
        shards: vec![SHARD],
        segments_max: 8,
        segments_ahead: 1,
    }
}

fn payload(index: u64) -> Vec<u8> {
    (0..(index * 131 % 9000)).map(|at| (at * 7 + index) as u8).collect()
}

fn lay(log: &mut Log<FileDisk>, index: u64) {
    let payload = payload(index);
    let entry = NewEntry {
        shard: SHARD,
        id: EntryId { term: Term(1), index: Index(index) },
        kind: RecordKind::Data,
        flags: 0,
        timestamp: Timestamp(index),
        epoch: Epoch(1),
        session: 1,
        serial: index,
        payload_crc: record::payload_crc(&payload),
    };
    log.lay(entry, &payload);
}

/// Lays the entries up to `end` and waits until they are durable.
fn append(log: &mut Log<FileDisk>, reactor: &mut Reactor, end: u64) {
    let mut laid = log.last(SHARD).index.0;
    let mut durable = laid;
    let until = Instant::now() + Duration::from_secs(60);
    while durable < end {
        assert!(Instant::now() < until, "{durable} of {end} entries are durable");
        for _ in 0..25 {
            match log.room_for(payload(laid + 1).len()) {
                Ok(()) if laid < end => {
                    laid += 1;
                    lay(log, laid);
                }
                Err(NoRoom::Full) => panic!("eight segments are room enough"),
                _ => break,
            }
        }
        log.submit();
        reactor.kick();
        let found = log.poll(&mut |event| match event {
            LogEvent::Entries(shard, last) => {
                assert_eq!(shard, SHARD);
                durable = last.get().index.0;
            }
            LogEvent::NoSpace(error) | LogEvent::Failed(error) => panic!("{error}"),
            _ => {}
        });
        if found == 0 {
            reactor.park(Duration::from_millis(100));
        }
        reactor.poll();
    }
}

fn run(backend: Backend, kind: Kind) {
    let directory =
        std::env::temp_dir().join(format!("plimsoll-log-{}-{backend:?}-{kind:?}", std::process::id()));
    let disk_options = DiskOptions { directory: directory.clone(), segment_bytes: 8 << 20 };
    let pool = Pool::new(16);
    // The first write after a reopening failed once with "bad file descriptor": recovery had opened the segment, and
    // the ring had not been told of it. So each life of the log appends.
    for life in 1..=3 {
        let mut reactor = Reactor::new(kind).unwrap();
        let disk = FileDisk::open(backend, &disk_options, &reactor, &pool).unwrap();
        let (mut log, shards) = Log::open(disk, pool.clone(), options()).unwrap();
        assert_eq!(shards.len(), 1);
        let held = ENTRIES * (life - 1);
        assert_eq!(shards[0].last.get().index, Index(held));
        append(&mut log, &mut reactor, ENTRIES * life);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_was_told_durable_is_there_when_it_is_opened_again() {
    run(Backend::Blocking, Kind::Epoll);
    match Reactor::new(Kind::Uring) {
        Ok(_) => {
            run(Backend::Blocking, Kind::Uring);
            run(Backend::Uring, Kind::Uring);
        }
        Err(error) => println!("skipped over io_uring: {error}"),
    }
}
