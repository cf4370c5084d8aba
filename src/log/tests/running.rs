//! A log at work: laying, durability, reading, bounds.

use super::super::NoRoom;
use super::super::WrongSum;
use super::*;
use crate::limits::{ENTRY_PAYLOAD_BYTES_MAX, WRITES_IN_FLIGHT_MAX};

#[test]
fn what_is_laid_is_read_before_and_after_it_is_durable_and_after_reopening() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    lay(&mut log, 1, 1, b"one");
    lay(&mut log, 4, 1, b"other");
    lay(&mut log, 1, 1, b"two");
    let expected = vec![(1, b"one".to_vec()), (1, b"two".to_vec())];
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);
    assert!(!log.is_quiet());
    log.lay_vote(ShardId(7), vote(3, 2));
    log.submit();
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);
    let told = poll(&mut log);
    let votes = vec![Told::Vote(7, vote(3, 2))];
    assert_eq!(told, [votes, vec![Told::Entries(1, id(1, 2)), Told::Entries(4, id(1, 1))]].concat());
    assert!(log.is_quiet());
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);

    let image = log.disk().image.clone();
    drop(log);
    let (mut log, shards) = open(image, &pool).unwrap();
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);
    assert_eq!(read_all(&mut log, 4, 1 << 20), vec![(1, b"other".to_vec())]);
    let tell =
        |shard: &RecoveredShard| (shard.shard.0, *shard.vote.get(), *shard.last.get(), shard.terms.clone());
    assert_eq!(tell(&shards[0]), (1, Vote::default(), id(1, 2), vec![id(1, 1)]));
    assert_eq!(tell(&shards[1]), (4, Vote::default(), id(1, 1), vec![id(1, 1)]));
    assert_eq!(tell(&shards[2]), (7, vote(3, 2), EntryId::default(), vec![]));
}

#[test]
fn nothing_laid_writes_nothing() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    poll(&mut log);
    let before = log.disk().operations;
    log.submit();
    assert_eq!((poll(&mut log), log.disk().operations), (vec![], before));
}

#[test]
fn only_the_contiguous_prefix_is_told_durable() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    log.disk_mut().eager = false;
    for _ in 0..4 {
        lay(&mut log, 1, 1, b"entry");
        log.submit();
    }
    log.disk_mut().finish(3);
    log.disk_mut().finish(1);
    assert_eq!(poll(&mut log), []);
    log.disk_mut().finish(0);
    assert_eq!(poll(&mut log), [Told::Entries(1, id(1, 2))]);
    assert!(!log.is_quiet());
    log.disk_mut().finish(0);
    assert_eq!(poll(&mut log), [Told::Entries(1, id(1, 4))]);
    assert!(log.is_quiet());
}

/// A follower acknowledged entries of a deposed leader that it had dropped meanwhile: the write that held them was
/// still in flight when they were superseded, and its completion told them durable under the new leader's eyes.
#[test]
fn superseded_entries_in_flight_are_never_told_durable() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    log.disk_mut().eager = false;
    for _ in 0..5 {
        lay(&mut log, 1, 1, b"old");
        log.submit();
    }
    lay(&mut log, 1, 1, b"old, not submitted");
    log.truncate_after(ShardId(1), Index(2));
    assert_eq!(log.last(ShardId(1)), id(1, 2));
    log.lay_received(ShardId(1), &records(1, 2, 3, &[b"new".to_vec()]));
    log.submit();
    for _ in 0..5 {
        log.disk_mut().finish(0);
        for told in poll(&mut log) {
            let Told::Entries(1, told) = told else { panic!("{told:?}") };
            assert!(told <= id(1, 2), "{told}");
        }
    }
    log.disk_mut().finish(0);
    assert_eq!(poll(&mut log), [Told::Entries(1, id(2, 3))]);
    let expected = vec![(1, b"old".to_vec()), (1, b"old".to_vec()), (2, b"new".to_vec())];
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);
    let (mut log, shards) = open(log.disk().image.clone(), &Pool::new(4)).unwrap();
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);
    assert_eq!(shards[0].terms, [id(1, 1), id(2, 3)]);
}

#[test]
fn a_run_cut_in_the_middle_is_read_to_the_cut() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    for number in 0..10 {
        lay(&mut log, 1, 1, &[number; 20]);
    }
    log.truncate_after(ShardId(1), Index(4));
    lay(&mut log, 1, 2, b"after the cut");
    log.truncate_after(ShardId(1), Index(0));
    assert_eq!(log.last(ShardId(1)), EntryId::default());
    for number in 0..6 {
        lay(&mut log, 1, 3, &[number; 21]);
    }
    log.truncate_after(ShardId(1), Index(4));
    lay(&mut log, 1, 4, b"last");
    log.submit();
    assert_eq!(poll(&mut log), [Told::Entries(1, id(4, 5))]);
    let mut expected = (0..4).map(|number| (3, vec![number; 21])).collect::<Vec<_>>();
    expected.push((4, b"last".to_vec()));
    for bytes_max in [88, 100, 200, 1 << 20] {
        assert_eq!(read_all(&mut log, 1, bytes_max), expected);
    }
    let (mut log, _) = open(log.disk().image.clone(), &Pool::new(4)).unwrap();
    assert_eq!(read_all(&mut log, 1, 88), expected);
}

#[test]
fn with_all_writes_in_flight_records_gather_in_one_batch() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    log.disk_mut().eager = false;
    for number in 0..100 {
        assert_eq!(log.room_for(8), Ok(()), "{number}");
        lay(&mut log, 1, 1, b"gathered");
        log.submit();
    }
    assert_eq!(log.disk().writes.len(), WRITES_IN_FLIGHT_MAX);
    assert_eq!(log.room_for(52 << 10), Err(NoRoom::Busy));
    log.lay_vote(ShardId(1), vote(5, 5));
    log.submit();
    log.disk_mut().finish(0);
    assert_eq!(poll(&mut log), [Told::Entries(1, id(1, 1))]);
    assert_eq!(log.disk().writes.len(), WRITES_IN_FLIGHT_MAX, "the gathered batch is under way");
    log.disk_mut().eager = true;
    assert_eq!(poll(&mut log), [Told::Vote(1, vote(5, 5)), Told::Entries(1, id(1, 100))]);
    assert_eq!(read_all(&mut log, 1, 1 << 20).len(), 100);
}

#[test]
fn a_disk_that_refuses_gets_its_writes_later_and_in_order() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    (log.disk_mut().eager, log.disk_mut().writes_max) = (false, 2);
    for _ in 0..6 {
        lay(&mut log, 1, 1, b"entry");
        log.submit();
    }
    assert_eq!(log.disk().writes.len(), 2);
    for number in 1..=6 {
        assert_eq!(log.disk().writes[0].sequence.0, number);
        log.disk_mut().finish(0);
        assert_eq!(poll(&mut log), [Told::Entries(1, id(1, number))]);
    }
}

#[test]
fn a_failed_disk_ends_all_promises_and_is_left_alone() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    log.disk_mut().eager = false;
    lay(&mut log, 1, 1, b"before");
    log.submit();
    lay(&mut log, 1, 1, b"never");
    log.submit();
    log.disk_mut().finish(0);
    log.disk_mut().fail();
    log.disk_mut().finish(0);
    assert_eq!(poll(&mut log), [Told::Entries(1, id(1, 1)), Told::Failed("told to".into())]);
    let before = log.disk().operations;
    lay(&mut log, 1, 1, b"nothing");
    log.lay_vote(ShardId(1), vote(2, 2));
    log.submit();
    assert_eq!((poll(&mut log), log.disk().operations), (vec![], before));
    assert_eq!(log.room_for(1), Err(NoRoom::Busy));
    assert_eq!(log.span(ShardId(1), Index(3), 1 << 20), Span::Fetching, "what was laid since is not here");
}

/// An engine's memory can change until it was copied. What was summed there and copied after that lay in the log with a
/// sum that was not its own: no follower took it, and the lane, with all its shards, did not open again.
#[test]
fn what_is_summed_is_the_copy_and_nothing_is_left_of_a_wrong_one() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    // In a batch that was begun for it, and behind another entry.
    for round in 1..=3_u64 {
        assert_eq!(log.draft(b"changed since", record::payload_crc(b"as it was")).err(), Some(WrongSum));
        let payload = [round as u8; 100];
        let draft = log.draft(&payload, record::payload_crc(&payload)).unwrap();
        log.lay_draft(draft, new_entry(1, id(1, 2 * round - 1), &payload));
        assert_eq!(log.draft(&[9; 5000], 0).err(), Some(WrongSum));
        let draft =
            log.draft(b"its shard leads no more", record::payload_crc(b"its shard leads no more")).unwrap();
        log.withdraw(draft);
        lay(&mut log, 1, 1, b"short");
        log.submit();
        assert_eq!(poll(&mut log), [Told::Entries(1, id(1, 2 * round))]);
    }
    assert_eq!(log.draft(b"", 7).err(), Some(WrongSum));
    log.submit();
    assert!(poll(&mut log).is_empty(), "an empty batch is not written");

    let image = log.disk().image.clone();
    drop(log);
    let (mut log, shards) = Log::open(MemDisk::with(image, 512, SEGMENT_BYTES), pool, options()).unwrap();
    assert_eq!(*shards[0].last.get(), id(1, 6));
    assert_eq!(read_all(&mut log, 1, 1 << 20).len(), 6);
}

#[test]
fn entries_are_counted_within_a_bound_and_the_first_always() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    let payloads: Vec<Vec<u8>> = (1..200).map(|n| vec![7; 1 + n * 37 % 900]).collect();
    for batch in payloads.chunks(23) {
        for payload in batch {
            lay(&mut log, 1, 1, payload);
        }
        log.submit();
        poll(&mut log);
    }
    for from in [1, 2, 100, 199] {
        let Span::Ready { count, bytes } = log.span(ShardId(1), Index(from), 1 << 20) else { panic!() };
        for bytes_max in [0, 1, 63, 64, 128, 500, 5000, 50_000, bytes - 1, bytes, usize::MAX] {
            let spans = payloads[from as usize - 1..].iter().map(|payload| record::span_bytes(payload.len()));
            let sums = spans.scan(0, |sum, span| {
                *sum += span;
                Some(*sum)
            });
            let expected = sums.take_while(|sum| *sum <= bytes_max).count().max(1) as u32;
            assert_eq!(
                log.count_within(ShardId(1), Index(from), count, bytes_max),
                expected,
                "{from} {bytes_max}"
            );
        }
    }
}

#[test]
fn the_next_segment_not_being_ready_is_busy_and_not_full() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    poll(&mut log);
    log.disk_mut().prepares = false;
    while log.room_for(1000) == Ok(()) {
        lay(&mut log, 1, 1, &[7; 1000]);
        log.submit();
        poll(&mut log);
    }
    assert_eq!(log.room_for(1000), Err(NoRoom::Busy));
    assert_eq!(log.room_for_vote(), Ok(()));
    log.disk_mut().prepares = true;
    poll(&mut log);
    assert_eq!(log.room_for(1000), Ok(()));
}

/// A leader held the first part of a record of a megabyte back until the segment after the next was made, which nobody
/// was making: the record had no end, and a drain waited for it until its bound.
#[test]
fn nothing_is_waited_for_that_is_not_being_made() {
    let pool = Pool::new(4);
    let options = Options { segments_ahead: 1, ..options() };
    let (mut log, _) = Log::open(MemDisk::new(512, SEGMENT_BYTES), pool.clone(), options).unwrap();
    poll(&mut log);
    let half_segment = vec![7; SEGMENT_BYTES as usize / 2];
    let mut segments = 0;
    for number in 0..48 {
        assert_eq!(log.room_for(half_segment.len()), Ok(()), "entry {number}: the disk answers at once");
        lay(&mut log, 1, 1, &half_segment);
        log.submit();
        poll(&mut log);
        // What moves the place at which the next long entry is asked for.
        assert_eq!(log.room_for(1000), Ok(()), "entry {number}");
        lay(&mut log, 1, 1, &[7; 1000]);
        log.submit();
        poll(&mut log);
        segments = log.disk().image.0.len();
    }
    assert!(segments > 32, "{segments} segments were gone through");
}

#[test]
fn without_space_for_the_first_segment_a_log_does_not_open() {
    let mut disk = MemDisk::new(512, SEGMENT_BYTES);
    disk.no_space = true;
    let refused = Log::open(disk, Pool::new(4), options()).unwrap_err();
    assert!(refused.to_string().contains("the filesystem is full"), "{refused}");
}

#[test]
fn the_largest_entries_and_a_lagging_reader_in_the_smallest_pool() {
    let pool = Pool::new(4);
    let disk = MemDisk::new(4096, 8 << 20);
    let (mut log, _) = Log::open(disk, pool.clone(), options()).unwrap();
    let payload = |number: u64| vec![number as u8; ENTRY_PAYLOAD_BYTES_MAX - (number as usize % 3)];
    let mut laid = 0;
    while laid < 40 {
        if log.room_for(ENTRY_PAYLOAD_BYTES_MAX) == Ok(()) {
            lay(&mut log, 4, 1 + laid / 10, &payload(laid));
            lay(&mut log, 1, 1, b"small");
            laid += 1;
            log.submit();
        }
        poll(&mut log);
    }
    let all = read_all(&mut log, 4, crate::limits::APPEND_BYTES_MAX);
    assert_eq!(all.len(), 40);
    for (number, entry) in (0..).zip(all) {
        assert!(entry == (1 + number / 10, payload(number)), "entry {number}");
    }
    assert_eq!(read_all(&mut log, 1, 1 << 20).len(), 40);
}

#[test]
fn decay_found_when_reading_back_stops_the_node() {
    let pool = Pool::new(4);
    let image = image_of(3, &pool);
    let (mut log, _) = open(image, &pool).unwrap();
    let segment = log.disk_mut().image.0.get_mut(&0).unwrap();
    segment[64 + 64 + 3] ^= 1;
    assert_eq!(log.span(ShardId(1), Index(1), 1 << 20), Span::Fetching);
    let told = poll(&mut log);
    let [Told::Failed(cause)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(cause, "entries from 1 on of shard 1 have decayed: the record's payload fails its checksum");
    assert_eq!(log.span(ShardId(1), Index(1), 1 << 20), Span::Fetching);
}

#[test]
fn many_shards_share_one_write() {
    let pool = Pool::new(4);
    let shards = (0..500).map(|number| ShardId(number * 4)).collect::<Vec<_>>();
    let options = Options { shards: shards.clone(), ..options() };
    let (mut log, _) = Log::open(MemDisk::new(512, 1 << 20), pool.clone(), options.clone()).unwrap();
    for round in 1..=3 {
        for shard in &shards {
            lay(&mut log, shard.0, 1, &shard.0.to_le_bytes());
        }
        log.submit();
        assert_eq!(log.disk().writes.len(), 1);
        let told = poll(&mut log);
        let expected = shards.iter().map(|shard| Told::Entries(shard.0, id(1, round)));
        assert_eq!(told, expected.collect::<Vec<_>>());
    }
    let image = log.disk().image.clone();
    drop(log);
    let (mut log, recovered) = Log::open(MemDisk::with(image, 512, 1 << 20), pool, options).unwrap();
    assert_eq!(recovered.len(), 500);
    for shard in shards {
        assert_eq!(read_all(&mut log, shard.0, 1 << 20), vec![(1, shard.0.to_le_bytes().to_vec()); 3]);
    }
}

/// A region read back from the disk reached into batches that were still in flight, found zeros, and called it decay.
#[test]
fn what_is_in_flight_is_never_read_back() {
    let pool = Pool::new(4);
    let disk = MemDisk::new(512, 4 << 20);
    let (mut log, _) = Log::open(disk, pool.clone(), options()).unwrap();
    log.disk_mut().eager = false;
    let mut laid = [0u64; 3];
    for number in 0..6000usize {
        if log.room_for(8) == Ok(()) {
            let shard = number % 3;
            laid[shard] += 1;
            lay(&mut log, [1, 4, 7][shard], 1, &laid[shard].to_le_bytes());
            log.submit();
        }
        if log.disk().writes.len() > 10 {
            log.disk_mut().finish(number % 3);
        }
        poll(&mut log);
        if number % 500 == 499 {
            for (shard, laid) in [1, 4, 7].into_iter().zip(laid) {
                let expected = (1..=laid).map(|index| (1, index.to_le_bytes().to_vec())).collect::<Vec<_>>();
                assert!(read_all(&mut log, shard, 1 << 20) == expected, "shard {shard} after {number}");
            }
            assert!(log.disk().writes.len() >= 8);
        }
    }
    assert!(laid.iter().all(|&laid| laid > 1900), "{laid:?}");
}

/// With memory for one read, the shard that asked first in every turn was served over and over, and no other ever.
#[test]
fn lagging_readers_of_several_shards_take_turns() {
    let pool = Pool::new(4);
    let options = options();
    let (mut log, _) = Log::open(MemDisk::new(512, 16 << 20), pool.clone(), options.clone()).unwrap();
    for number in 0..12 {
        for shard in [1, 4, 7] {
            lay(&mut log, shard, 1, &vec![number; 300_000]);
            log.submit();
        }
        poll(&mut log);
    }
    let image = log.disk().image.clone();
    drop(log);
    let (mut log, _) = Log::open(MemDisk::with(image, 512, 16 << 20), pool, options).unwrap();
    let mut next = [1u64; 3];
    for turn in 0.. {
        assert!(turn < 1000, "someone starves: {next:?}");
        let mut pieces = 0;
        for (shard, next) in [1, 4, 7].into_iter().zip(&mut next) {
            if *next <= 12
                && let Span::Ready { count, .. } = log.span(ShardId(shard), Index(*next), 1 << 20)
            {
                let mut bytes = Vec::new();
                log.pieces(ShardId(shard), Index(*next), count, &mut bytes);
                record::check_run(&bytes.concat(), ShardId(shard), Index(*next)).unwrap();
                *next += u64::from(count);
                pieces += 1;
            }
        }
        assert!(pieces <= 1, "memory for one read serves one shard in a turn");
        let (least, most) = (next.iter().min().unwrap(), next.iter().max().unwrap());
        assert!(most - least <= 6, "{next:?}");
        if *least > 12 {
            break;
        }
        poll(&mut log);
    }
}

#[test]
fn a_disk_that_finishes_nothing_makes_the_log_busy_and_votes_are_still_taken() {
    let pool = Pool::new(5);
    let (mut log, _) = Log::open(MemDisk::new(4096, 16 << 20), pool.clone(), options()).unwrap();
    poll(&mut log);
    for round in 0..3 {
        log.disk_mut().eager = false;
        let mut laid = 0;
        while log.room_for(500_000) == Ok(()) {
            lay(&mut log, 1, 1, &vec![round; 500_000]);
            laid += 1;
            log.submit();
            poll(&mut log);
        }
        assert_eq!(log.room_for(500_000), Err(NoRoom::Busy));
        assert!(laid >= 16, "{laid} in round {round}");
        for term in 1..=200 {
            log.lay_vote(ShardId(4), vote(term, 3));
            log.submit();
            assert_eq!(poll(&mut log), []);
        }
        let last = log.last(ShardId(1));
        log.disk_mut().eager = true;
        let mut told = Vec::new();
        while !log.is_quiet() {
            told.extend(poll(&mut log));
        }
        assert!(told.contains(&Told::Vote(4, vote(200, 3))));
        assert_eq!(told.last(), Some(&Told::Entries(1, last)));
    }
    assert_eq!(read_all(&mut log, 1, 1 << 20).len() as u64, log.last(ShardId(1)).index.0);
}
