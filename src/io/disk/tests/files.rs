//! What files alone can show: names, lengths, filesystems.

use super::*;
use std::os::unix::fs::MetadataExt;

#[test]
fn the_first_failure_is_told_once_and_nothing_after_it() {
    over_files(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
        bench.prepare(0);
        // Behind the disk's back the segment loses its second half, so that a read there finds nothing.
        let path = fresh.path().join("segment-00000000.log");
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
fn a_segment_that_is_missing_or_of_another_size_is_a_failure() {
    over_files(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
        let mut bytes = vec![0; BLOCK];
        let missing = bench.disk.read_now(SegmentId(4), 0, &mut bytes).unwrap_err();
        assert!(missing.place.ends_with("segment-00000004.log"), "{missing}");
        std::fs::write(fresh.path().join("segment-00000002.log"), [0; 100]).unwrap();
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
    over_files(|case| {
        let fresh = case.fresh();
        for name in ["segment-00000003.log.unfinished", "segment-00000000.log.unfinished", "notes.txt"] {
            std::fs::write(fresh.path().join(name), b"half").unwrap();
        }
        let bench = case.open(&fresh);
        assert_eq!(bench.disk.segments().unwrap(), []);
        let names: Vec<_> =
            std::fs::read_dir(fresh.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["notes.txt"]);
    });
}

#[test]
fn a_directory_has_one_disk_at_a_time() {
    over_files(|case| {
        let fresh = case.fresh();
        let bench = case.open(&fresh);
        let second = FileDisk::open(Backend::Blocking, &fresh.options(), &bench.reactor, &bench.pool);
        assert!(second.unwrap_err().cause.contains("in use"));
        drop(bench);
        case.open(&fresh);
    });
}

#[test]
fn a_filesystem_without_direct_writes_is_served_with_a_note() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return println!("skipped: no {}", memory.display());
    }
    over_files(|case| {
        let fresh = Fresh::under(memory);
        let mut bench = case.open(&fresh);
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
    over_files(|case| {
        let fresh = case.fresh();
        let count = medium::OPEN_MAX as u64 + 20;
        for segment in 0..count {
            let path = fresh.path().join(format!("segment-{segment:08}.log"));
            std::fs::File::create(path).unwrap().set_len(SEGMENT_BYTES).unwrap();
        }
        let mut bench = case.open(&fresh);
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

/// A log of more segments than are held open was flushed as a whole when it was opened, which dealt the places of open
/// files out anew without a word to the ring: what was written next went, with success, into another segment.
#[test]
fn what_is_written_after_all_was_flushed_goes_into_its_segment() {
    over_files(|case| {
        let fresh = case.fresh();
        let count = medium::OPEN_MAX as u64 + 20;
        let path = |segment: u64| fresh.path().join(format!("segment-{segment:08}.log"));
        for segment in 0..count {
            std::fs::File::create(path(segment)).unwrap().set_len(SEGMENT_BYTES).unwrap();
        }
        let mut bench = case.open(&fresh);
        let mut read = vec![0; BLOCK];
        for segment in 0..count {
            bench.disk.read_now(SegmentId(segment), 0, &mut read).unwrap();
        }
        bench.disk.sync_now(WriteSequence(1)).unwrap();
        let written = count - 2;
        let mut chunk = bench.pool.take().unwrap();
        let bytes = pattern(7, BLOCK);
        let frozen = slice(&mut chunk, &bytes);
        bench.write(2, written, 0, frozen);
        assert_eq!(sequences(&bench.events(1)), [2].into());
        for segment in 0..count {
            let mut first = vec![0; BLOCK];
            let file = std::fs::File::open(path(segment)).unwrap();
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, 0).unwrap();
            let expected = if segment == written { bytes.clone() } else { vec![0; BLOCK] };
            assert!(first == expected, "segment {segment}");
        }
    });
}

#[test]
fn a_segment_is_hurried_once_a_quarter_of_the_last_one_is_written() {
    over_files(|case| {
        let fresh = case.fresh();
        let mut bench = case.open(&fresh);
        for segment in [0, 1] {
            bench.prepare(segment);
        }
        bench.disk.prepare(SegmentId(2));
        let mut chunk = bench.pool.take().unwrap();
        let quarter = SEGMENT_BYTES / 4;
        let places = [(0, 3 * quarter), (1, 0), (1, quarter - BLOCK as u64), (1, quarter)];
        for (number, (segment, offset)) in places.into_iter().enumerate() {
            assert!(!bench.disk.base.is_hurried(), "before segment {segment} at {offset}");
            bench.write(number as u64 + 1, segment, offset, slice(&mut chunk, &pattern(1, BLOCK)));
        }
        assert!(bench.disk.base.is_hurried());
        bench.reactor.kick();
        // Four writes, and the segment.
        assert_eq!(bench.events(5).len(), 5);
        bench.disk.prepare(SegmentId(3));
        assert!(!bench.disk.base.is_hurried(), "the next one has time again");
    });
}

#[test]
fn in_memory_a_segment_is_reserved_whole_and_reads_as_zeros() {
    let parent = Path::new("/dev/shm");
    if !parent.is_dir() {
        return println!("skipped: no {}", parent.display());
    }
    let fresh = Fresh::under(parent);
    let mut bench = Bench::open(Backend::Blocking, Kind::Epoll, &fresh);
    bench.prepare(0);
    let mut bytes = vec![1; SEGMENT_BYTES as usize];
    bench.disk.read_now(SegmentId(0), 0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let about = std::fs::metadata(segment_path(fresh.path(), SegmentId(0))).unwrap();
    assert_eq!(about.len(), SEGMENT_BYTES);
    assert!(about.blocks() * 512 >= SEGMENT_BYTES, "{} blocks", about.blocks());
}
