//! What a log makes of a disk after a crash, and after decay.

use alloc::collections::BTreeSet;
use alloc::string::ToString;

use super::disk::Random;
use super::*;
use crate::log::batch::{self, HEADER_BYTES};
use crate::log::verify::{End, Report, verify};

/// Where each batch of an image begins and ends, over all segments.
fn batches(image: &Image) -> Vec<(u64, usize, usize)> {
    let mut found = Vec::new();
    for (&segment, bytes) in &image.0 {
        let mut at = 0;
        while at < bytes.len() {
            let header: batch::Header = bytemuck::pod_read_unaligned(&bytes[at..at + HEADER_BYTES]);
            if header.magic != batch::MAGIC {
                break;
            }
            found.push((segment, at, at + header.span_bytes()));
            at += header.span_bytes();
        }
    }
    found
}

fn report(image: &Image, pool: &Pool) -> Report {
    verify(&mut MemDisk::with(image.clone(), 512, SEGMENT_BYTES), pool, &options()).unwrap()
}

fn payloads(count: u64) -> Vec<(u64, Vec<u8>)> {
    (1..=count).map(|number| (1, format_payload(number).into_bytes())).collect()
}

#[test]
fn a_log_cut_off_at_every_byte_of_its_end_opens_with_everything_before_the_cut() {
    let pool = Pool::new(4);
    let image = image_of(40, &pool);
    let batches = batches(&image);
    let &(segment, _, end) = batches.last().unwrap();
    assert!(segment == 0 && end > 8192);
    let mut lengths = BTreeSet::new();
    for cut in end - 8192..=end {
        let mut image = image.clone();
        image.0.get_mut(&0).unwrap()[cut..].fill(0);
        let whole = batches.iter().filter(|&&(.., end)| end <= cut).count() as u64;
        let (mut log, shards) = open(image, &pool).unwrap();
        let last = shards[0].last.get().index.0;
        // One more if only padding was cut.
        assert!(last == whole || last == whole + 1, "cut at {cut}: {last} of {whole}");
        if lengths.insert(last) || cut % 64 == 0 {
            assert_eq!(read_all(&mut log, 1, 1 << 20), payloads(last), "cut at {cut}");
            lay(&mut log, 1, 2, b"goes on");
            log.submit();
            assert_eq!(poll(&mut log), [Told::Entries(1, id(2, last + 1))]);
            let image = log.disk().image.clone();
            drop(log);
            let (mut log, _) = open(image, &pool).unwrap();
            assert_eq!(read_all(&mut log, 1, 1 << 20)[last as usize..], [(2, b"goes on".to_vec())]);
        }
    }
    assert!(lengths.len() > 8, "{lengths:?}");
}

#[test]
fn a_flipped_bit_in_what_a_later_batch_proves_is_corruption_and_is_named() {
    let pool = Pool::new(4);
    let image = image_of(30, &pool);
    let batches = batches(&image);
    let mut random = Random::new(1);
    // The last one is proved by none, the one before it by the last.
    for &(segment, begin, end) in &batches[..batches.len() - 1] {
        let bytes = &image.0[&segment][begin..end];
        let header: batch::Header = bytemuck::pod_read_unaligned(&bytes[..HEADER_BYTES]);
        for _ in 0..20 {
            let at = begin + random.below(HEADER_BYTES as u64 + u64::from(header.len_bytes)) as usize;
            let mut image = image.clone();
            image.0.get_mut(&segment).unwrap()[at] ^= 1 << random.below(8);
            let found = report(&image, &pool);
            assert!(matches!(found.end, End::Corrupt { .. }), "{found:?}");
            assert_eq!((found.end_segment, found.end_offset), (segment, begin as u64));
            let error = open(image, &pool).unwrap_err();
            let OpenError::Corrupt { segment: named, offset, what } = &error else { panic!("{error:?}") };
            assert_eq!((*named, *offset), (segment, begin as u64));
            assert!(what.contains("proves that this was durable"), "{error}");
        }
    }
}

#[test]
fn a_zeroed_or_missing_piece_of_what_was_durable_is_corruption() {
    let pool = Pool::new(4);
    let image = image_of(200, &pool);
    assert!(image.0.len() >= 3);
    let mut zeroed = image.clone();
    zeroed.0.get_mut(&0).unwrap()[1024..].fill(0);
    assert!(matches!(open(zeroed, &pool), Err(OpenError::Corrupt { segment: 0, .. })));
    let mut missing = image.clone();
    missing.0.remove(&0);
    assert!(matches!(open(missing, &pool), Err(OpenError::Corrupt { segment: 0, offset: 0, .. })));
    let mut middle = image.clone();
    middle.0.remove(&1);
    assert!(matches!(open(middle, &pool), Err(OpenError::Corrupt { segment: 0, .. })));
    let mut first = image;
    first.0.get_mut(&0).unwrap()[..4096].fill(0xFF);
    assert!(matches!(open(first, &pool), Err(OpenError::Corrupt { segment: 0, offset: 0, .. })));
}

#[test]
fn the_last_batch_damaged_is_a_torn_tail() {
    let pool = Pool::new(4);
    let mut image = image_of(5, &pool);
    let &(segment, begin, _) = batches(&image).last().unwrap();
    image.0.get_mut(&segment).unwrap()[begin + 140] ^= 4;
    let found = report(&image, &pool);
    let End::Torn { what } = &found.end else { panic!("{found:?}") };
    assert!(what.contains("checksum"), "{what}");
    assert_eq!(found.batches, 4);
    let (mut log, shards) = open(image, &pool).unwrap();
    assert_eq!(shards[0].last.get(), &id(1, 4));
    assert_eq!(read_all(&mut log, 1, 1 << 20), payloads(4));
}

#[test]
fn a_first_batch_torn_is_an_empty_log() {
    let pool = Pool::new(4);
    let mut image = image_of(1, &pool);
    image.0.get_mut(&0).unwrap()[100] ^= 1;
    let (log, shards) = open(image, &pool).unwrap();
    assert_eq!((log.last(ShardId(1)), *shards[0].last.get()), (id(0, 0), id(0, 0)));
}

#[test]
fn another_node_s_log_and_another_format_are_refused_and_named() {
    let pool = Pool::new(4);
    let image = image_of(3, &pool);
    let refused = |options: Options, image: &Image| {
        let disk = MemDisk::with(image.clone(), 512, SEGMENT_BYTES);
        Log::open(disk, pool.clone(), options).map(|_| ()).unwrap_err().to_string()
    };
    let other = refused(Options { node: NodeId(3), ..options() }, &image);
    assert!(other.contains("found cluster 193, node 2, lane 1"), "{other}");
    assert!(other.contains("expected cluster 193, node 3, lane 1"), "{other}");
    assert!(refused(Options { cluster: ClusterId(1), ..options() }, &image).contains("another's"));
    assert!(refused(Options { lane: LaneId(0), ..options() }, &image).contains("another's"));
    assert!(refused(Options { shards: vec![ShardId(4)], ..options() }, &image).contains("shard 1"));

    let mut newer = image;
    let bytes = newer.0.get_mut(&0).unwrap();
    let mut header: batch::Header = bytemuck::pod_read_unaligned(&bytes[..HEADER_BYTES]);
    header.version = 2;
    bytes[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header.seal()));
    assert!(refused(options(), &newer).contains("format version 2"));
}

/// Writes in flight of a dead process outlived an earlier one that did not. When the log had grown again up to them,
/// byte for byte as long as before, they were taken for what came next.
#[test]
fn a_surviving_later_write_never_comes_to_life() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    lay(&mut log, 1, 1, b"durable");
    log.submit();
    poll(&mut log);
    log.disk_mut().eager = false;
    for payload in [b"lost", b"void", b"also"] {
        lay(&mut log, 1, 1, payload);
        log.submit();
    }
    log.disk_mut().finish(1);
    log.disk_mut().finish(1);
    assert_eq!(poll(&mut log), []);
    let image = log.disk().image.clone();
    drop(log);

    // The same batch again, bit for bit but for the life: what follows it on the disk is still void.
    let (mut log, shards) = open(image, &pool).unwrap();
    assert_eq!(*shards[0].last.get(), id(1, 1));
    lay(&mut log, 1, 1, b"lost");
    log.submit();
    assert_eq!(poll(&mut log), [Told::Entries(1, id(1, 2))]);
    let image = log.disk().image.clone();
    drop(log);
    assert!(matches!(report(&image, &pool).end, End::Torn { .. }));
    let (mut log, shards) = open(image, &pool).unwrap();
    assert_eq!(*shards[0].last.get(), id(1, 2));
    assert_eq!(read_all(&mut log, 1, 1 << 20), [(1, b"durable".to_vec()), (1, b"lost".to_vec())]);
}

#[test]
fn opening_changes_nothing_until_something_is_laid() {
    let pool = Pool::new(4);
    let image = image_of(150, &pool);
    let before = report(&image, &pool);
    assert_eq!((before.batches, before.records, before.end), (150, 150, End::Clean));
    assert_eq!((before.shards.len(), before.shards[0].last, before.shards[0].entries), (1, id(1, 150), 150));
    let mut image = image;
    for _ in 0..3 {
        let (log, _) = open(image.clone(), &pool).unwrap();
        let after = log.disk().image.clone();
        assert!(image.0.iter().all(|(segment, bytes)| after.0[segment] == *bytes));
        image = after;
    }
}

/// A log written on one device and moved to another with larger blocks was found corrupt at the next opening but one:
/// the batches after the move begin at multiples of the larger block, and were not looked for there.
#[test]
fn a_log_moves_between_devices_of_different_blocks() {
    let pool = Pool::new(4);
    let mut image = Image::default();
    let mut count = 0;
    for block in [512, 4096, 512, 1024, 4096, 4096, 2048, 512] {
        let disk = MemDisk::with(image, block, SEGMENT_BYTES);
        let (mut log, shards) = Log::open(disk, pool.clone(), options()).unwrap();
        assert_eq!(shards[0].last.get().index.0, count);
        for _ in 0..37 {
            count += 1;
            lay(&mut log, 1, 1, format_payload(count).as_bytes());
            log.submit();
            poll(&mut log);
        }
        assert_eq!(read_all(&mut log, 1, 1 << 20), payloads(count));
        image = log.disk().image.clone();
    }
}

#[test]
fn verifying_counts_what_is_there_and_what_was_superseded() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    for _ in 0..5 {
        lay(&mut log, 1, 1, b"12345");
    }
    log.lay_vote(ShardId(7), vote(2, 1));
    log.lay_vote(ShardId(7), vote(3, 2));
    log.submit();
    log.truncate_after(ShardId(1), Index(2));
    lay(&mut log, 1, 2, b"instead");
    log.submit();
    poll(&mut log);
    let found = report(&log.disk().image.clone(), &pool);
    assert_eq!((found.segments, found.batches, found.records, found.bytes), (2, 2, 8, 1024 + 512));
    assert_eq!((found.end_segment, found.end_offset, &found.end), (0, 1536, &End::Clean));
    let [one, seven] = &found.shards[..] else { panic!("{found:?}") };
    assert_eq!((one.shard, one.entries, one.entries_written, one.payload_bytes), (ShardId(1), 3, 6, 32));
    assert_eq!((one.last, &one.terms[..]), (id(2, 3), &[id(1, 1), id(2, 3)][..]));
    assert_eq!((seven.shard, seven.entries, seven.votes_written, seven.vote), (ShardId(7), 0, 2, vote(3, 2)));
}

#[test]
fn whatever_stands_on_the_disk_opening_never_panics_and_never_invents() {
    let pool = Pool::new(4);
    let image = image_of(120, &pool);
    let mut random = Random::new(7);
    let mut opened = 0;
    for _ in 0..1000 {
        let mut image = image.clone();
        for _ in 0..1 + random.below(4) {
            let segment = random.below(2);
            let bytes = image.0.get_mut(&segment).unwrap();
            let at = random.below(SEGMENT_BYTES / 512) as usize * 512;
            match random.below(5) {
                0 => bytes[at + random.below(512) as usize] ^= 1 << random.below(8),
                1 => bytes[at..at + 512].fill(0),
                2 => bytes[at..at + 512].fill_with(|| random.below(256) as u8),
                3 => bytes.copy_within(at..at + 512, random.below(SEGMENT_BYTES / 512) as usize * 512),
                _ => bytes[at..].fill(0),
            }
        }
        let found = report(&image, &pool);
        match open(image, &pool) {
            Ok((mut log, shards)) => {
                opened += 1;
                let last = shards[0].last.get().index.0;
                assert!(matches!(found.end, End::Clean | End::Torn { .. }), "{found:?}");
                assert_eq!(read_all(&mut log, 1, 1 << 20), payloads(last));
            }
            Err(error) => assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}"),
        }
    }
    assert!((20..980).contains(&opened), "{opened}");
}
