//! What devices alone can show: what is refused, what formatting leaves, what a crash tears.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use super::*;
use crate::io::disk::device::Region;

/// One of the usual size; `None` was said.
fn attach() -> Option<LoopDevice> {
    LoopDevice::attach(48, 512)
}

fn raw(device: &LoopDevice) -> std::fs::File {
    OpenOptions::new().read(true).write(true).open(device.path()).unwrap()
}

fn whole(device: &LoopDevice) -> Vec<u8> {
    let mut bytes = Vec::new();
    raw(device).read_to_end(&mut bytes).unwrap();
    bytes
}

fn held(device: &LoopDevice) -> Held {
    Claim::of(device.path()).unwrap().held().clone()
}

fn other(device: &LoopDevice) -> String {
    match held(device) {
        Held::Other(what) => what,
        held => panic!("{held:?}"),
    }
}

fn refused(device: &LoopDevice) -> DiskError {
    Claim::of(device.path()).unwrap_err()
}

#[test]
fn what_holds_anything_is_named_and_nothing_of_it_is_changed() {
    let Some(device) = attach() else { return };
    assert_eq!(held(&device), Held::Nothing);
    let made = Command::new("mkfs.ext4").arg("-q").arg(device.path()).output();
    if made.is_ok_and(|output| output.status.success()) {
        let before = whole(&device);
        assert_eq!(other(&device), "an ext2, ext3 or ext4 filesystem");
        assert_eq!(whole(&device), before);
    } else {
        println!("not tested on a real filesystem: mkfs.ext4 is missing");
    }
    let file = raw(&device);
    file.write_all_at(&vec![0; 48 << 20], 0).unwrap();
    file.write_all_at(b"EFI PART", 512).unwrap();
    file.sync_all().unwrap();
    assert_eq!(other(&device), "a GUID partition table");
    file.write_all_at(&[0; 8], 512).unwrap();
    file.write_all_at(b"EFI PART", (48 << 20) - 512).unwrap();
    assert_eq!(other(&device), "the backup of a GUID partition table, at its end");
    file.write_all_at(&[0; 8], (48 << 20) - 512).unwrap();
    // What lies in between is nobody's signature.
    file.write_all_at(b"EFI PART", 10 << 20).unwrap();
    drop(file);
    assert_eq!(held(&device), Held::Nothing);
}

#[test]
fn what_is_mounted_or_held_or_no_device_is_refused() {
    let Some(device) = attach() else { return };
    let first = Claim::of(device.path()).unwrap();
    let error = refused(&device);
    assert!(error.cause.starts_with("it is in use: mounted, "), "{error}");
    assert_eq!(error.place, device.path().display().to_string());
    drop(first);
    Claim::of(device.path()).unwrap();

    let point = Fresh::directory();
    let made = Command::new("mkfs.ext4").arg("-q").arg(device.path()).output();
    let mounted = made.is_ok_and(|output| output.status.success())
        && Command::new("mount")
            .arg(device.path())
            .arg(point.path())
            .output()
            .is_ok_and(|output| output.status.success());
    if mounted {
        let error = refused(&device);
        assert!(Command::new("umount").arg(point.path()).status().unwrap().success());
        assert!(error.cause.starts_with("it is in use: mounted, "), "{error}");
    } else {
        println!("not tested on a mounted device: this process may not mount one");
    }

    let file = point.path().join("file");
    std::fs::write(&file, [0; 4096]).unwrap();
    for path in [file.as_path(), point.path(), Path::new("/dev/null")] {
        let error = Claim::of(path).unwrap_err();
        assert!(error.cause.contains("not a block device"), "{error}");
    }
    let error = Claim::of(&point.path().join("nowhere")).unwrap_err();
    assert!(error.cause.contains("No such file"), "{error}");
}

#[test]
fn what_is_too_small_is_refused_before_anything_is_written() {
    let Some(device) = LoopDevice::attach(9, 512) else { return };
    let error = Claim::of(device.path()).unwrap().format(owner(), SEGMENT_BYTES, 1).unwrap_err();
    assert!(error.cause.contains("it has 9 MiB: too little for two segments of 4 MiB"), "{error}");
    assert!(whole(&device).iter().all(|byte| *byte == 0));
    let tiny = LoopDevice::attach(3, 512).unwrap();
    assert!(refused(&tiny).cause.contains("too little for any log"));
}

#[test]
fn formatting_makes_an_empty_log_of_whatever_was_there() {
    for block_bytes in [512, 4096] {
        let Some(device) = LoopDevice::attach(48, block_bytes) else { return };
        let file = raw(&device);
        file.write_all_at(&vec![0x5a; 48 << 20], 0).unwrap();
        drop(file);
        assert_eq!(other(&device), "something (byte 0 is 0x5a)");
        let formatted = Claim::of(device.path()).unwrap().format(owner(), SEGMENT_BYTES, 3).unwrap();
        let superblock = *formatted.superblock();
        assert_eq!((superblock.owner, superblock.block_bytes), (owner(), block_bytes));
        assert_eq!((superblock.segments, superblock.segment_bytes), (11, SEGMENT_BYTES));
        let region = Region::open(Arc::new(formatted), LaneId(0), &mut Vec::new()).unwrap();
        assert_eq!(region.segments(), []);
        drop(region);
        assert_eq!(held(&device), Held::Log(superblock));
        // Either copy of the superblock is enough, and the other comes back.
        for at in [0, (48 << 20) - 4096] {
            raw(&device).write_all_at(&[0xff; 4], at + 20).unwrap();
            assert_eq!(held(&device), Held::Log(superblock));
            Claim::of(device.path()).unwrap().open().unwrap();
            let bytes = whole(&device);
            assert_eq!(bytes[..4096], bytes[(48 << 20) - 4096..], "both are there again");
        }
        for at in [0, (48 << 20) - 4096] {
            raw(&device).write_all_at(&[0xff; 4], at + 20).unwrap();
        }
        assert_eq!(other(&device), "a damaged superblock of a Plimsoll node");
    }
}

#[test]
fn a_device_that_has_shrunk_is_refused() {
    let Some(large) = LoopDevice::attach(48, 512) else { return };
    claim(large.path());
    let small = LoopDevice::attach(40, 512).unwrap();
    raw(&small).write_all_at(&whole(&large)[..4096], 0).unwrap();
    // Where it ends now there is log.
    raw(&small).write_all_at(&[0x5a; 4096], (40 << 20) - 4096).unwrap();
    let error = Claim::of(small.path()).unwrap().open().unwrap_err();
    assert!(error.cause.ends_with("it has shrunk"), "{error}");
    // One that has grown is not.
    let grown = LoopDevice::attach(60, 512).unwrap();
    raw(&grown).write_all_at(&whole(&large), 0).unwrap();
    // What lay on the part that it was given now is nobody's.
    raw(&grown).write_all_at(&[0x5a; 4096], (60 << 20) - 4096).unwrap();
    assert_eq!(Claim::of(grown.path()).unwrap().open().unwrap().superblock().segments, 11);
}

#[test]
fn a_region_has_one_disk_at_a_time_and_each_lane_its_own() {
    let Some(device) = attach() else { return };
    let two = Owner { lanes: 2, first_lane: LaneId(4), ..owner() };
    let formatted = Arc::new(Claim::of(device.path()).unwrap().format(two, SEGMENT_BYTES, 3).unwrap());
    assert_eq!(formatted.superblock().segments, 5);
    let reactor = Reactor::new(Kind::Epoll).unwrap();
    let pool = Pool::new(2);
    let open = |lane| {
        let place = Place::Device(Arc::clone(&formatted), LaneId(lane));
        FileDisk::open(
            Backend::Blocking,
            &Options { place, segment_bytes: SEGMENT_BYTES, io_poll: false },
            &reactor,
            &pool,
        )
    };
    let mut benches: Vec<Bench> = (4..6)
        .map(|lane| Bench { disk: open(lane).unwrap(), reactor: reactor.clone(), pool: pool.clone() })
        .collect();
    assert!(open(4).unwrap_err().cause.contains("in use already"));
    for (lane, bench) in benches.iter_mut().enumerate() {
        for segment in 0..5 {
            bench.prepare(segment);
            let mut chunk = bench.pool.take().unwrap();
            let bytes = slice(&mut chunk, &pattern(lane as u64 * 7 + segment, SEGMENT_BYTES as usize));
            bench.write(segment + 1, segment, 0, bytes);
            bench.events(1);
        }
        // Every slot has its segment.
        bench.disk.prepare(SegmentId(5));
        match bench.events(1).pop() {
            Some(DiskEvent::NotPrepared { error, .. }) => {
                assert_eq!(error.cause, "the device is full: all of its 5 segments are in use");
            }
            other => panic!("{other:?}"),
        }
    }
    for (lane, bench) in benches.iter_mut().enumerate() {
        for segment in 0..5 {
            let mut bytes = vec![0; SEGMENT_BYTES as usize];
            bench.disk.read_now(SegmentId(segment), 0, &mut bytes).unwrap();
            assert_eq!(bytes, pattern(lane as u64 * 7 + segment, SEGMENT_BYTES as usize), "{lane} {segment}");
        }
    }
}

/// What was there before is never taken for a segment, nor for its zeros.
#[test]
fn a_segment_that_was_not_entered_is_zeroed_anew() {
    over_devices(|case| {
        let fresh = case.fresh();
        let Fresh::Device(device) = &fresh else { unreachable!("the case is a device") };
        let file = raw(device);
        file.write_all_at(&vec![0xa5; 48 << 20], 0).unwrap();
        drop(file);
        Claim::of(device.path()).unwrap().format(owner(), SEGMENT_BYTES, 3).unwrap();
        let mut bench = case.open(&fresh);
        bench.prepare(0);
        // A crash before the entry: it is taken back in both copies of the table, as it would be if it were not
        // written.
        let before = whole(device);
        bench.prepare(1);
        let mut chunk = bench.pool.take().unwrap();
        let bytes = slice(&mut chunk, &pattern(3, BLOCK));
        bench.write(1, 1, 0, bytes);
        bench.events(1);
        drop((bench, chunk));
        let after = whole(device);
        let changed: Vec<usize> = (0..after.len() / 4096)
            .filter(|at| before[at * 4096..][..4096] != after[at * 4096..][..4096])
            .collect();
        let tables = [1 << 8, (47 << 8) - 1];
        assert!(tables.iter().all(|table| changed.contains(table)), "{changed:?}");
        for table in tables {
            raw(device).write_all_at(&before[table * 4096..][..4096], table as u64 * 4096).unwrap();
        }
        let mut bench = case.open(&fresh);
        assert_eq!(bench.disk.segments().unwrap(), [SegmentId(0)]);
        bench.prepare(1);
        let mut read = vec![1; SEGMENT_BYTES as usize];
        bench.disk.read_now(SegmentId(1), 0, &mut read).unwrap();
        assert!(read.iter().all(|byte| *byte == 0));
        drop(bench);

        // A crash between the two copies: the first one counts, and the second is made to agree.
        raw(device).write_all_at(&before[tables[1] * 4096..][..4096], tables[1] as u64 * 4096).unwrap();
        let bench = case.open(&fresh);
        assert_eq!(bench.disk.segments().unwrap(), [0, 1].map(SegmentId));
        assert!(
            bench.disk.notes().iter().any(|note| note.contains("torn or damaged")),
            "{:?}",
            bench.disk.notes()
        );
        drop(bench);
        let bytes = whole(device);
        assert_eq!(bytes[tables[0] * 4096..][..4096], bytes[tables[1] * 4096..][..4096]);

        // No crash leaves none.
        for table in tables {
            raw(device).write_all_at(&[0xee; 32], table as u64 * 4096 + 100).unwrap();
        }
        let reactor = Reactor::new(case.kind).unwrap();
        let refused = FileDisk::open(case.backend, &fresh.options(), &reactor, &Pool::new(1)).unwrap_err();
        assert!(refused.cause.contains("both copies of block 0"), "{refused}");
    });
}

#[test]
fn a_device_that_is_formatted_anew_has_nothing_of_what_it_had() {
    over_devices(|case| {
        let fresh = case.fresh();
        let Fresh::Device(device) = &fresh else { unreachable!("the case is a device") };
        let mut bench = case.open(&fresh);
        (0..3).for_each(|segment| bench.prepare(segment));
        let mut chunk = bench.pool.take().unwrap();
        let bytes = slice(&mut chunk, &pattern(3, BLOCK));
        bench.write(1, 1, 0, bytes);
        bench.events(1);
        drop((bench, chunk));
        Claim::of(device.path()).unwrap().format(owner(), SEGMENT_BYTES, 4).unwrap();
        let mut bench = case.open(&fresh);
        assert_eq!(bench.disk.segments().unwrap(), []);
        let mut read = vec![1; BLOCK];
        let missing = bench.disk.read_now(SegmentId(1), 0, &mut read).unwrap_err();
        assert_eq!(missing.cause, "it is not on this device");
        bench.prepare(1);
        bench.disk.read_now(SegmentId(1), 0, &mut read).unwrap();
        assert!(read.iter().all(|byte| *byte == 0));
    });
}
