//! The log over real files and a block device, through every backend that this system has: what it told durable is
//! there when it is opened again.
#![allow(clippy::unwrap_used)]

#[path = "loop_device/mod.rs"]
mod loop_device;

use std::sync::Arc;
use std::time::{Duration, Instant};

use loop_device::LoopDevice;

use plimsoll::io::Park;
use plimsoll::io::disk::device::{Claim, Held, Owner};
use plimsoll::io::disk::{Backend, FileDisk, Options as DiskOptions, Place};
use plimsoll::io::pool::Pool;
use plimsoll::io::reactor::{Kind, Reactor};
use plimsoll::log::record::{self, Kind as RecordKind};
use plimsoll::log::{Log, LogEvent, NewEntry, NoRoom, Options};
use plimsoll::types::{ClusterId, EntryId, Epoch, Index, LaneId, NodeId, ShardId, StoreId, Term, Timestamp};

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

/// Three lives of a log; `place` gives its place at the beginning of each.
fn live(backend: Backend, kind: Kind, place: impl Fn() -> Place) {
    let pool = Pool::new(16);
    // The first write after a reopening failed once with "bad file descriptor": recovery had opened the segment, and
    // the ring had not been told of it. So each life of the log appends.
    for life in 1..=3 {
        let mut reactor = Reactor::new(kind).unwrap();
        let disk_options = DiskOptions { place: place(), segment_bytes: 8 << 20, io_poll: false };
        let disk = FileDisk::open(backend, &disk_options, &reactor, &pool).unwrap();
        drop(disk_options);
        let (mut log, shards) = Log::open(disk, pool.clone(), options()).unwrap();
        assert_eq!(shards.len(), 1);
        let held = ENTRIES * (life - 1);
        assert_eq!(shards[0].last.get().index, Index(held));
        append(&mut log, &mut reactor, ENTRIES * life);
    }
}

fn run(backend: Backend, kind: Kind) {
    let directory =
        std::env::temp_dir().join(format!("plimsoll-log-{}-{backend:?}-{kind:?}", std::process::id()));
    live(backend, kind, || Place::Directory(directory.clone()));
    std::fs::remove_dir_all(directory).unwrap();
    for block_bytes in [512, 4096] {
        let Some(device) = LoopDevice::attach(80, block_bytes) else { continue };
        live(backend, kind, || {
            let claim = Claim::of(device.path()).unwrap();
            let (cluster, node, store, lane) = (ClusterId(7), NodeId(1), StoreId(1), LaneId(0));
            let formatted = match claim.held() {
                Held::Nothing => {
                    claim.format(Owner { cluster, node, store, first_lane: lane, lanes: 1 }, 8 << 20, 1)
                }
                _ => claim.open(),
            };
            Place::Device(Arc::new(formatted.unwrap()), lane)
        });
    }
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
