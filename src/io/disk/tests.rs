#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::io::Park;
use crate::io::pool::Slice;
use crate::limits::BLOCK_BYTES_MAX;

const SEGMENT_BYTES: u64 = 4 << 20;
const BLOCK: usize = BLOCK_BYTES_MAX;

/// A fresh directory, gone with the test.
struct Fresh(PathBuf);

impl Fresh {
    fn new() -> Fresh {
        Fresh::under(&std::env::temp_dir())
    }

    fn under(parent: &Path) -> Fresh {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("plimsoll-disk-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Fresh(path)
    }

    fn options(&self) -> Options {
        Options { directory: self.0.clone(), segment_bytes: SEGMENT_BYTES }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A disk and what belongs to it.
struct Bench {
    disk: FileDisk,
    reactor: Reactor,
    pool: Pool,
}

impl Bench {
    fn open(backend: Backend, kind: Kind, directory: &Fresh) -> Bench {
        let reactor = Reactor::new(kind).unwrap();
        let pool = Pool::new(4);
        let disk = FileDisk::open(backend, &directory.options(), &reactor, &pool).unwrap();
        Bench { disk, reactor, pool }
    }

    /// Blocks until `count` events have come.
    fn events(&mut self, count: usize) -> Vec<DiskEvent> {
        let until = Instant::now() + Duration::from_secs(20);
        let mut events = Vec::new();
        while events.len() < count {
            assert!(Instant::now() < until, "{} of {count} events: {events:?}", events.len());
            if self.disk.poll(&mut |event| events.push(event)) == 0 {
                self.reactor.park(Duration::from_millis(200));
            }
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// What comes within a short time.
    fn rest(&mut self) -> Vec<DiskEvent> {
        let mut events = Vec::new();
        for _ in 0..10 {
            self.reactor.park(Duration::from_millis(5));
            self.disk.poll(&mut |event| events.push(event));
        }
        events
    }

    fn prepare(&mut self, segment: u64) {
        self.disk.prepare(SegmentId(segment));
        match self.events(1).pop() {
            Some(DiskEvent::Prepared(SegmentId(prepared))) => assert_eq!(prepared, segment),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, sequence: u64, segment: u64, offset: u64, bytes: Slice) {
        let (sequence, segment) = (WriteSequence(sequence), SegmentId(segment));
        self.disk.write(Write { sequence, segment, offset, bytes }).unwrap();
    }
}

/// Every backend over every reactor that goes with it, and io_uring also as a system has it that registers neither
/// memory nor files. What is forbidden here is skipped aloud.
fn over_each(test: impl Fn(&dyn Fn(&Fresh) -> Bench)) {
    let mut ran = 0;
    let combinations = [
        (Backend::Blocking, Kind::Epoll, true),
        (Backend::Blocking, Kind::Uring, true),
        (Backend::Uring, Kind::Uring, true),
        (Backend::Uring, Kind::Uring, false),
    ];
    for (backend, kind, is_registered) in combinations {
        if let Err(error) = Reactor::new(kind) {
            assert_eq!(kind, Kind::Uring, "epoll is always there: {error}");
            println!("skipped {backend:?} over {kind:?}: {error}");
            continue;
        }
        test(&|directory| {
            let mut bench = Bench::open(backend, kind, directory);
            if let (Driver::Uring(disk), false) = (&mut bench.disk.driver, is_registered) {
                disk.forgo_registrations();
            }
            bench
        });
        ran += 1;
    }
    assert!(ran >= 1);
}

fn pattern(mark: u64, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|at| (at as u64 * 31 + mark * 97 + at as u64 / 4096) as u8).collect()
}

fn slice(chunk: &mut crate::io::pool::Chunk, bytes: &[u8]) -> Slice {
    chunk.spare_mut()[..bytes.len()].copy_from_slice(bytes);
    chunk.freeze(bytes.len())
}

fn sequences(events: &[DiskEvent]) -> BTreeSet<u64> {
    let written = |event: &DiskEvent| match event {
        DiskEvent::Written(flushed) => Some(flushed.sequence().0),
        _ => None,
    };
    let sequences: BTreeSet<u64> = events.iter().filter_map(written).collect();
    assert_eq!(sequences.len(), events.len(), "writes alone, each told once: {events:?}");
    sequences
}

#[test]
fn a_prepared_segment_is_zeroed_and_seen_after_it_is_whole() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        assert_eq!(bench.disk.segments().unwrap(), []);
        for segment in [0, 1, 5] {
            bench.prepare(segment);
        }
        assert_eq!(bench.disk.segments().unwrap(), [0, 1, 5].map(SegmentId));
        assert_eq!(bench.disk.segment_bytes(), SEGMENT_BYTES);
        let mut bytes = vec![1; SEGMENT_BYTES as usize];
        bench.disk.read_now(SegmentId(5), 0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        let names: BTreeSet<_> =
            std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let expected = ["segment-00000000.log", "segment-00000001.log", "segment-00000005.log"];
        assert_eq!(names, expected.map(Into::into).into());
    });
}

#[test]
fn what_was_written_is_read_back_also_after_it_is_opened_again() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        assert!(
            bench.disk.block_bytes().is_power_of_two() && (512..=BLOCK).contains(&bench.disk.block_bytes())
        );
        bench.prepare(0);
        let mut chunk = bench.pool.take().unwrap();
        let (first, second) = (pattern(1, BLOCK), pattern(2, 5 * BLOCK));
        let (a, b) = (slice(&mut chunk, &first), slice(&mut chunk, &second));
        bench.write(1, 0, 0, a);
        bench.write(2, 0, BLOCK as u64, b);
        bench.reactor.kick();
        assert_eq!(sequences(&bench.events(2)), [1, 2].into());
        let into = bench.pool.take().unwrap();
        let (segment, len_bytes) = (SegmentId(0), 6 * BLOCK);
        bench.disk.read(Read { token: 77, segment, offset: 0, len_bytes, into }).unwrap();
        match bench.events(1).pop() {
            Some(DiskEvent::Read { token: 77, chunk }) => {
                assert_eq!(chunk.spare()[..BLOCK], first);
                assert_eq!(chunk.spare()[BLOCK..6 * BLOCK], second);
            }
            other => panic!("{other:?}"),
        }
        let Bench { disk, reactor, .. } = bench;
        drop((disk, reactor));

        let mut bench = open(&directory);
        assert_eq!(bench.disk.segments().unwrap(), [SegmentId(0)]);
        assert_eq!(bench.disk.sync_now(WriteSequence(9)).unwrap().sequence(), WriteSequence(9));
        // Memory and place as they come: not aligned to anything.
        let mut bytes = vec![0; 3 * BLOCK + 19];
        bench.disk.read_now(SegmentId(0), 1001, &mut bytes[1..]).unwrap();
        let all = [first, second].concat();
        assert_eq!(bytes[1..], all[1001..1001 + 3 * BLOCK + 18]);
    });
}

#[test]
fn many_writes_are_under_way_at_once_and_the_bound_is_an_answer() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        let mut chunk = bench.pool.take().unwrap();
        let (mut offset, mut expected) = (0, Vec::new());
        let (mut next, mut told) = (1, BTreeSet::new());
        let (mut refused, mut refusals) = (None, 0);
        while told.len() < 150 {
            while next <= 150 {
                let write = refused.take().unwrap_or_else(|| {
                    let bytes = pattern(next, (1 + next as usize % 3) * BLOCK);
                    let frozen = slice(&mut chunk, &bytes);
                    let place = offset;
                    offset += bytes.len() as u64;
                    expected.extend(bytes);
                    Write {
                        sequence: WriteSequence(next),
                        segment: SegmentId(0),
                        offset: place,
                        bytes: frozen,
                    }
                });
                if let Err(Full(write)) = bench.disk.write(write) {
                    assert_eq!(write.sequence, WriteSequence(next), "it comes back unharmed");
                    refused = Some(write);
                    refusals += 1;
                    break;
                }
                next += 1;
            }
            bench.reactor.park(Duration::from_millis(500));
            bench.disk.poll(&mut |event| match event {
                DiskEvent::Written(flushed) => assert!(told.insert(flushed.sequence().0)),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(told, (1..=150).collect());
        assert!(refusals > 0, "150 writes are more than can be under way");
        let mut bytes = vec![0; expected.len()];
        bench.disk.read_now(SegmentId(0), 0, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
    });
}

#[test]
fn reads_and_the_making_of_segments_go_on_beside_writes() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        let mut chunk = bench.pool.take().unwrap();
        let old = pattern(0, 4 * BLOCK);
        let bytes = slice(&mut chunk, &old);
        bench.write(1, 0, 0, bytes);
        bench.events(1);
        bench.disk.prepare(SegmentId(1));
        for round in 0..20u64 {
            for write in 0..4 {
                let bytes = slice(&mut chunk, &pattern(round, BLOCK));
                bench.write(2 + round * 4 + write, 0, (4 + round * 4 + write) * BLOCK as u64, bytes);
            }
            let into = bench.pool.take().unwrap();
            let (segment, len_bytes) = (SegmentId(0), 4 * BLOCK);
            bench.disk.read(Read { token: round, segment, offset: 0, len_bytes, into }).unwrap();
            let (mut written, mut read) = (0, 0);
            while written + read < 5 {
                bench.reactor.park(Duration::from_millis(500));
                bench.disk.poll(&mut |event| match event {
                    DiskEvent::Written(_) => written += 1,
                    DiskEvent::Read { token, chunk } => {
                        assert_eq!((token, &chunk.spare()[..4 * BLOCK]), (round, &old[..]));
                        read += 1;
                    }
                    DiskEvent::Prepared(segment) => assert_eq!(segment, SegmentId(1)),
                    DiskEvent::NotPrepared { error, .. } | DiskEvent::Failed(error) => panic!("{error}"),
                });
            }
            assert_eq!((written, read), (4, 1));
        }
        let until = Instant::now() + Duration::from_secs(20);
        while bench.disk.segments().unwrap().len() < 2 && Instant::now() < until {
            bench.reactor.park(Duration::from_millis(20));
        }
        assert_eq!(bench.disk.segments().unwrap().len(), 2);
    });
}

#[test]
fn memory_is_free_when_a_write_is_told_and_when_the_disk_is_dropped() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        assert_eq!(bench.pool.available(), 4);
        let mut chunk = bench.pool.take().unwrap();
        let bytes = slice(&mut chunk, &pattern(1, BLOCK));
        bench.write(1, 0, 0, bytes);
        bench.events(1);
        drop(chunk);
        assert_eq!(bench.pool.available(), 4);
        let mut chunk = bench.pool.take().unwrap();
        for sequence in 2..10 {
            let bytes = slice(&mut chunk, &pattern(sequence, 16 * BLOCK));
            bench.write(sequence, 0, sequence * 16 * BLOCK as u64, bytes);
        }
        let into = bench.pool.take().unwrap();
        let (segment, len_bytes) = (SegmentId(0), BLOCK);
        bench.disk.read(Read { token: 1, segment, offset: 0, len_bytes, into }).unwrap();
        // A segment that is being made is given up, and leaves nothing behind.
        bench.disk.prepare(SegmentId(1));
        bench.reactor.kick();
        drop(chunk);
        let Bench { disk, pool, reactor } = bench;
        drop(disk);
        assert_eq!(pool.available(), 4);
        // The reactor serves the next disk.
        let disk = FileDisk::open(Backend::Blocking, &directory.options(), &reactor, &pool).unwrap();
        let left = std::fs::read_dir(&directory.0).unwrap().count();
        assert_eq!(left, disk.segments().unwrap().len(), "nothing but whole segments");
    });
}

#[test]
fn the_first_failure_is_told_once_and_nothing_after_it() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        // Behind the disk's back the segment loses its second half, so that a read there finds nothing.
        let path = directory.0.join("segment-00000000.log");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(SEGMENT_BYTES / 2).unwrap();
        let into = bench.pool.take().unwrap();
        let (segment, len_bytes) = (SegmentId(0), BLOCK);
        bench.disk.read(Read { token: 1, segment, offset: SEGMENT_BYTES / 2, len_bytes, into }).unwrap();
        match bench.events(1).pop() {
            Some(DiskEvent::Failed(error)) => {
                assert_eq!(error.place, path.display().to_string());
                assert!(error.operation.starts_with("read 4096 bytes at 2097152"), "{error}");
                assert!(!error.no_space);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.pool.available(), 4, "its memory came back");
        let mut chunk = bench.pool.take().unwrap();
        let bytes = slice(&mut chunk, &pattern(1, BLOCK));
        bench.write(1, 0, 0, bytes);
        bench.disk.prepare(SegmentId(3));
        let into = bench.pool.take().unwrap();
        bench.disk.read(Read { token: 2, segment, offset: 0, len_bytes, into }).unwrap();
        assert!(bench.rest().is_empty());
        drop(chunk);
        assert_eq!(bench.pool.available(), 4);
    });
}

#[test]
fn of_many_writes_under_way_when_one_fails_none_is_told_after_it() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        bench.prepare(1);
        bench.disk.fail_writes_to(SegmentId(1));
        let mut chunk = bench.pool.take().unwrap();
        for sequence in 1..=16u64 {
            let segment = u64::from(sequence == 3 || sequence == 9);
            let bytes = slice(&mut chunk, &pattern(sequence, BLOCK));
            bench.write(sequence, segment, sequence * BLOCK as u64, bytes);
        }
        bench.reactor.kick();
        let mut events = Vec::new();
        let until = Instant::now() + Duration::from_secs(20);
        while !matches!(events.last(), Some(DiskEvent::Failed(_))) && Instant::now() < until {
            bench.reactor.park(Duration::from_millis(100));
            bench.disk.poll(&mut |event| events.push(event));
        }
        events.extend(bench.rest());
        let failure = events.pop();
        match failure {
            Some(DiskEvent::Failed(error)) => {
                assert!(error.operation.starts_with("write 4096 bytes at "), "{error}");
                assert!(error.place.ends_with("segment-00000001.log"), "{error}");
            }
            other => panic!("the failure is the last that is told: {other:?}"),
        }
        let told = sequences(&events);
        assert!(!told.contains(&3) && !told.contains(&9), "{told:?}");
        drop(chunk);
        let Bench { disk, pool, .. } = bench;
        drop(disk);
        assert_eq!(pool.available(), 4);
    });
}

#[test]
fn a_segment_that_exists_is_never_made_anew() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        let mut chunk = bench.pool.take().unwrap();
        let bytes = pattern(5, BLOCK);
        let frozen = slice(&mut chunk, &bytes);
        bench.write(1, 0, 0, frozen);
        bench.events(1);
        bench.disk.prepare(SegmentId(0));
        match bench.events(1).pop() {
            Some(DiskEvent::Failed(error)) => assert!(error.cause.contains("exists"), "{error}"),
            other => panic!("{other:?}"),
        }
        let mut read = vec![0; BLOCK];
        bench.disk.read_now(SegmentId(0), 0, &mut read).unwrap();
        assert_eq!(read, bytes);
    });
}

/// A filesystem that was full at the moment when the next segment was to be made stopped the node, and nodes with equal
/// disks with it, although nothing of what they had was lost.
#[test]
fn a_segment_that_finds_no_room_is_told_once_and_made_when_there_is_some() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        bench.prepare(0);
        let full = |bench: &Bench, is_full: bool| {
            let base = match &bench.disk.driver {
                Driver::Uring(disk) => disk.base(),
                Driver::Blocking(disk) => &disk.base,
            };
            base.directory.is_full.store(is_full, std::sync::atomic::Ordering::Relaxed);
        };
        full(&bench, true);
        bench.disk.prepare(SegmentId(1));
        match bench.events(1).pop() {
            Some(DiskEvent::NotPrepared { segment: SegmentId(1), error }) => {
                assert!(error.no_space && error.cause.contains("the filesystem is full"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        let told = bench.rest();
        assert!(told.is_empty(), "{told:?}");
        // What it has it keeps serving.
        let mut chunk = bench.pool.take().unwrap();
        let frozen = slice(&mut chunk, &pattern(6, BLOCK));
        bench.write(1, 0, 0, frozen);
        assert_eq!(sequences(&bench.events(1)), BTreeSet::from([1]));

        full(&bench, false);
        assert!(matches!(bench.events(1)[..], [DiskEvent::Prepared(SegmentId(1))]));
        assert_eq!(bench.disk.segments().unwrap(), [SegmentId(0), SegmentId(1)]);
        let unfinished = std::fs::read_dir(&directory.0).unwrap().count();
        assert_eq!(unfinished, 2, "nothing is left behind by those that found no room");
        // And it ends at once although it waits.
        full(&bench, true);
        bench.disk.prepare(SegmentId(2));
        bench.events(1);
        let begun = Instant::now();
        drop(bench);
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_segment_that_is_missing_or_of_another_size_is_a_failure() {
    over_each(|open| {
        let directory = Fresh::new();
        let mut bench = open(&directory);
        let mut bytes = vec![0; BLOCK];
        let missing = bench.disk.read_now(SegmentId(4), 0, &mut bytes).unwrap_err();
        assert!(missing.place.ends_with("segment-00000004.log"), "{missing}");
        std::fs::write(directory.0.join("segment-00000002.log"), [0; 100]).unwrap();
        let short = bench.disk.read_now(SegmentId(2), 0, &mut bytes).unwrap_err();
        assert_eq!(short.cause, format!("it has 100 bytes, but segments here have {SEGMENT_BYTES}"));
        let mut chunk = bench.pool.take().unwrap();
        let frozen = slice(&mut chunk, &bytes);
        bench.write(1, 2, 0, frozen);
        assert!(matches!(bench.events(1)[..], [DiskEvent::Failed(_)]));
    });
}

#[test]
fn what_was_never_finished_is_cleared_away_and_what_is_foreign_stays() {
    over_each(|open| {
        let directory = Fresh::new();
        for name in ["segment-00000003.log.unfinished", "segment-00000000.log.unfinished", "notes.txt"] {
            std::fs::write(directory.0.join(name), b"half").unwrap();
        }
        let bench = open(&directory);
        assert_eq!(bench.disk.segments().unwrap(), []);
        let names: Vec<_> =
            std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["notes.txt"]);
    });
}

#[test]
fn a_directory_has_one_disk_at_a_time() {
    over_each(|open| {
        let directory = Fresh::new();
        let bench = open(&directory);
        let second = FileDisk::open(Backend::Blocking, &directory.options(), &bench.reactor, &bench.pool);
        assert!(second.unwrap_err().cause.contains("in use"));
        drop(bench);
        open(&directory);
    });
}

#[test]
fn a_filesystem_without_direct_writes_is_served_with_a_note() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return println!("skipped: no {}", memory.display());
    }
    over_each(|open| {
        let directory = Fresh::under(memory);
        let mut bench = open(&directory);
        let notes = bench.disk.notes().join("\n");
        // Newer kernels take direct writes to memory; then there is nothing to note.
        println!("notes: {notes}");
        bench.prepare(0);
        let mut chunk = bench.pool.take().unwrap();
        let bytes = pattern(8, 2 * BLOCK);
        let frozen = slice(&mut chunk, &bytes);
        bench.write(1, 0, BLOCK as u64, frozen);
        bench.reactor.kick();
        assert_eq!(sequences(&bench.events(1)), [1].into());
        let mut read = vec![0; 2 * BLOCK];
        bench.disk.read_now(SegmentId(0), BLOCK as u64, &mut read).unwrap();
        assert_eq!(read, bytes);
    });
}

#[test]
fn a_segment_beyond_those_held_open_is_opened_again() {
    over_each(|open| {
        let directory = Fresh::new();
        let count = files::OPEN_MAX as u64 + 20;
        for segment in 0..count {
            let path = directory.0.join(format!("segment-{segment:08}.log"));
            std::fs::File::create(path).unwrap().set_len(SEGMENT_BYTES).unwrap();
        }
        let mut bench = open(&directory);
        assert_eq!(bench.disk.segments().unwrap().len(), count as usize);
        for segment in (0..count).chain(0..4) {
            let mut chunk = bench.pool.take().unwrap();
            let frozen = slice(&mut chunk, &pattern(segment, BLOCK));
            bench.write(segment + 1, segment, 0, frozen);
            bench.events(1);
        }
        for segment in 0..count {
            let mut read = vec![0; BLOCK];
            bench.disk.read_now(SegmentId(segment), 0, &mut read).unwrap();
            assert_eq!(read, pattern(segment, BLOCK), "segment {segment}");
        }
    });
}

#[test]
fn the_choice_is_what_was_asked_for_or_what_there_is() {
    let forced = Backend::choose(Some("blocking")).unwrap();
    assert_eq!((forced.backend, forced.reactor()), (Backend::Blocking, Kind::Epoll));
    let unknown = Backend::choose(Some("io_uring")).unwrap_err();
    assert!(unknown.contains("neither \"uring\" nor \"blocking\""), "{unknown}");
    let own = Backend::choose(None).unwrap();
    assert_eq!(own, Backend::choose(Some("")).unwrap());
    match Reactor::new(Kind::Uring) {
        Ok(_) => {
            assert_eq!((own.backend, own.reactor()), (Backend::Uring, Kind::Uring));
            assert_eq!(Backend::choose(Some("uring")).unwrap().backend, Backend::Uring);
        }
        Err(error) => {
            assert_eq!((own.backend, own.why), (Backend::Blocking, error.to_string()));
            assert!(Backend::choose(Some("uring")).unwrap_err().contains(&error.to_string()));
        }
    }
}

#[test]
fn the_ring_has_one_disk_and_epoll_has_none() {
    let (first, second) = (Fresh::new(), Fresh::new());
    let pool = Pool::new(1);
    let epoll = Reactor::new(Kind::Epoll).unwrap();
    let refused = FileDisk::open(Backend::Uring, &first.options(), &epoll, &pool).unwrap_err();
    assert!(refused.cause.contains("not over io_uring"), "{refused}");
    let Ok(reactor) = Reactor::new(Kind::Uring) else { return println!("skipped: no io_uring") };
    let disk = FileDisk::open(Backend::Uring, &first.options(), &reactor, &pool).unwrap();
    let refused = FileDisk::open(Backend::Uring, &second.options(), &reactor, &pool).unwrap_err();
    assert!(refused.cause.contains("has a disk already"), "{refused}");
    drop(disk);
    FileDisk::open(Backend::Uring, &second.options(), &reactor, &pool).unwrap();
}
