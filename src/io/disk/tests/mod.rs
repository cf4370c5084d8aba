//! Every backend over every medium.
#![allow(clippy::unwrap_used)]

mod device;
mod files;
#[path = "../../../../tests/loop_device/mod.rs"]
mod loop_device;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::loop_device::LoopDevice;
use super::device::{Claim, Held, Owner};
use super::*;
use crate::io::Park;
use crate::io::pool::Slice;
use crate::limits::BLOCK_BYTES_MAX;
use crate::types::{ClusterId, NodeId, StoreId};

const SEGMENT_BYTES: u64 = 4 << 20;
const BLOCK: usize = BLOCK_BYTES_MAX;

/// A fresh place for a disk, gone with the test.
enum Fresh {
    Directory(PathBuf),
    Device(LoopDevice),
    /// A device with queues that are polled, which belongs to the tests. See [`polled_device`].
    Polled(PathBuf),
}

/// Where the device that `PLIMSOLL_POLLED_DEVICE` names can be polled for completions, tests run on it too, one at a
/// time. Whatever is on it is lost.
fn polled_device() -> Option<PathBuf> {
    std::env::var_os("PLIMSOLL_POLLED_DEVICE").map(PathBuf::from)
}

impl Fresh {
    fn directory() -> Fresh {
        Fresh::under(&std::env::temp_dir())
    }

    fn under(parent: &Path) -> Fresh {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("plimsoll-disk-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Fresh::Directory(path)
    }

    fn path(&self) -> &Path {
        match self {
            Fresh::Directory(path) => path,
            Fresh::Device(device) => device.path(),
            Fresh::Polled(path) => path,
        }
    }

    /// What a disk over it is opened with. A device is claimed, and formatted if nothing is on it.
    fn options(&self) -> Options {
        let place = match self {
            Fresh::Directory(path) => Place::Directory(path.clone()),
            Fresh::Device(_) | Fresh::Polled(_) => Place::Device(Arc::new(claim(self.path())), LaneId(0)),
        };
        Options { place, segment_bytes: SEGMENT_BYTES, io_poll: matches!(self, Fresh::Polled(_)) }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Fresh::Directory(path) = self {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}

fn owner() -> Owner {
    let (cluster, node, store) = (ClusterId(7), NodeId(1), StoreId(9));
    Owner { cluster, node, store, first_lane: LaneId(0), lanes: 1 }
}

fn claim(device: &Path) -> Device {
    let claim = Claim::of(device).unwrap();
    match claim.held() {
        Held::Nothing => claim.format(owner(), SEGMENT_BYTES, 3).unwrap(),
        Held::Log(_) => claim.open().unwrap(),
        Held::Other(what) => panic!("{what}"),
    }
}

/// A disk and what belongs to it.
struct Bench {
    disk: FileDisk,
    reactor: Reactor,
    pool: Pool,
}

impl Bench {
    fn open(backend: Backend, kind: Kind, fresh: &Fresh) -> Bench {
        let reactor = Reactor::new(kind).unwrap();
        let pool = Pool::new(4);
        let disk = FileDisk::open(backend, &fresh.options(), &reactor, &pool).unwrap();
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

/// One combination of what there is.
#[derive(Clone, Copy, Debug)]
struct Case {
    backend: Backend,
    kind: Kind,
    /// Whether the ring is told of memory and files, as some systems do not allow.
    is_registered: bool,
    /// The logical block of a device; `None`: files.
    device: Option<u32>,
    /// On the device whose queues are polled.
    is_polled: bool,
}

impl Case {
    /// A place of the case's medium. Only where [`over_each`] has found that there can be one.
    fn fresh(&self) -> Fresh {
        if self.is_polled {
            let path = polled_device().unwrap();
            Claim::of(&path).unwrap().format(owner(), SEGMENT_BYTES, 3).unwrap();
            return Fresh::Polled(path);
        }
        match self.device {
            None => Fresh::directory(),
            Some(block_bytes) => Fresh::Device(LoopDevice::attach(48, block_bytes).unwrap()),
        }
    }

    fn open(&self, fresh: &Fresh) -> Bench {
        let mut bench = Bench::open(self.backend, self.kind, fresh);
        let is_polled = bench.disk.notes().iter().any(|note| note.contains("polled for the completions"));
        assert_eq!(is_polled, self.is_polled, "{:?}", bench.disk.notes());
        if let (Driver::Uring(driver), false) = (&mut bench.disk.driver, self.is_registered) {
            driver.forgo_registrations();
        }
        bench
    }
}

/// Every backend over every reactor that goes with it, and io_uring also as a system has it that registers neither
/// memory nor files; each over files. What is forbidden here is skipped aloud.
fn over_files(test: impl Fn(Case)) {
    over(&[None], test);
}

/// The same over devices.
fn over_devices(test: impl Fn(Case)) {
    if LoopDevice::attach(48, 512).is_some() {
        over(&[Some(512), Some(4096)], test);
    }
}

/// Over both, and over a device that is polled if there is one.
fn over_each(test: impl Fn(Case)) {
    over_files(&test);
    over_devices(&test);
    if polled_device().is_some() {
        for is_registered in [true, false] {
            let (backend, kind, device) = (Backend::Uring, Kind::Uring, Some(512));
            test(Case { backend, kind, is_registered, device, is_polled: true });
        }
    }
}

fn over(devices: &[Option<u32>], test: impl Fn(Case)) {
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
        for device in devices.iter().copied() {
            test(Case { backend, kind, is_registered, device, is_polled: false });
            ran += 1;
        }
    }
    assert!(ran >= devices.len());
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
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
        assert_eq!(bench.disk.segments().unwrap(), []);
        for segment in [0, 1, 5] {
            bench.prepare(segment);
        }
        assert_eq!(bench.disk.segments().unwrap(), [0, 1, 5].map(SegmentId));
        assert_eq!(bench.disk.segment_bytes(), SEGMENT_BYTES);
        let mut bytes = vec![1; SEGMENT_BYTES as usize];
        bench.disk.read_now(SegmentId(5), 0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        if case.device.is_none() {
            let names = std::fs::read_dir(fresh.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let expected = ["segment-00000000.log", "segment-00000001.log", "segment-00000005.log"];
            assert_eq!(names.collect::<BTreeSet<_>>(), expected.map(Into::into).into());
        }
    });
}

#[test]
fn what_was_written_is_read_back_also_after_it_is_opened_again() {
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
        let block = bench.disk.block_bytes();
        assert!(block.is_power_of_two() && (512..=BLOCK).contains(&block));
        assert!(case.device.is_none_or(|expected| expected as usize == block));
        bench.prepare(0);
        let mut chunk = bench.pool.take().unwrap();
        let (first, second) = (pattern(1, BLOCK), pattern(2, 299 * BLOCK));
        let (a, b) = (slice(&mut chunk, &first), slice(&mut chunk, &second));
        bench.write(1, 0, 0, a);
        bench.write(2, 0, BLOCK as u64, b);
        bench.reactor.kick();
        assert_eq!(sequences(&bench.events(2)), [1, 2].into());
        let into = bench.pool.take().unwrap();
        let (segment, len_bytes) = (SegmentId(0), 300 * BLOCK);
        bench.disk.read(Read { token: 77, segment, offset: 0, len_bytes, into }).unwrap();
        match bench.events(1).pop() {
            Some(DiskEvent::Read { token: 77, chunk }) => {
                assert_eq!(chunk.spare()[..BLOCK], first);
                assert_eq!(chunk.spare()[BLOCK..300 * BLOCK], second);
            }
            other => panic!("{other:?}"),
        }
        let Bench { disk, reactor, .. } = bench;
        drop((disk, reactor));

        let mut bench = case.open(&fresh);
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
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
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
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
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
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
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
        let disk = FileDisk::open(Backend::Blocking, &fresh.options(), &reactor, &pool).unwrap();
        if case.device.is_none() {
            let left = std::fs::read_dir(fresh.path()).unwrap().count();
            assert_eq!(left, disk.segments().unwrap().len(), "nothing but whole segments");
        }
    });
}

#[test]
fn of_many_writes_under_way_when_one_fails_none_is_told_after_it() {
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
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
                let words = ["segment-00000001.log", ", segment 1 (from byte "];
                assert!(error.place.contains(words[usize::from(case.device.is_some())]), "{error}");
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
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
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
    over_each(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
        bench.prepare(0);
        let full = |bench: &Bench, is_full| bench.disk.base.medium.set_full(is_full);
        full(&bench, true);
        bench.disk.prepare(SegmentId(1));
        match bench.events(1).pop() {
            Some(DiskEvent::NotPrepared { segment: SegmentId(1), error }) => {
                assert!(error.no_space && error.cause.contains(" is full: "), "{error}");
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
        if case.device.is_none() {
            let unfinished = std::fs::read_dir(fresh.path()).unwrap().count();
            assert_eq!(unfinished, 2, "nothing is left behind by those that found no room");
        }
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
    let (first, second) = (Fresh::directory(), Fresh::directory());
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
