//! What lies on the disk alone: how little is kept of it, and that it is found again among all that lies around it.

use alloc::format;
use alloc::string::String;

use super::*;
use crate::log::FETCH_BYTES;
use crate::log::batch::{self, HEADER_BYTES};
use crate::log::record::RunSummary;

/// How many stretches and runs the log keeps of a shard.
fn lines(log: &Log<MemDisk>, shard: u32) -> (usize, usize) {
    log.shards.logs[log.shards.of(ShardId(shard))].lines()
}

/// Lays each as a batch of its own, and waits until it is durable.
fn lay_each(log: &mut Log<MemDisk>, shard: u32, term: u64, payloads: &[Vec<u8>]) {
    for payload in payloads {
        lay(log, shard, term, payload);
        log.submit();
        poll(log);
    }
}

/// A new leader's entries take the place of all after `keep`.
fn supersede(log: &mut Log<MemDisk>, shard: u32, term: u64, keep: u64, payloads: &[Vec<u8>]) {
    log.truncate_after(ShardId(shard), Index(keep));
    log.lay_received(ShardId(shard), &records(shard, term, keep + 1, payloads));
    log.submit();
    poll(log);
}

fn of_term(term: u64, payloads: &[Vec<u8>]) -> Vec<Entry> {
    payloads.iter().map(|payload| (term, payload.clone())).collect()
}

fn numbered(what: &str, numbers: core::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("{what} {number}").into_bytes()).collect()
}

/// Reads in pieces of several sizes, from memory and from the disk alone, before and after the log is opened again.
fn assert_holds(log: Log<MemDisk>, options: &Options, shard: u32, expected: &[Entry]) {
    let mut log = log;
    let (block, segment_bytes) = (log.disk().block, log.disk().segment_bytes);
    for bytes_max in [1 << 20, 2000] {
        assert!(read_all(&mut log, shard, bytes_max) == expected, "shard {shard}");
        log.forget();
        assert_eq!(lines(&log, shard).1, 0, "nothing is in memory");
        assert!(read_all(&mut log, shard, bytes_max) == expected, "shard {shard} from the disk");
    }
    let disk = MemDisk::with(log.disk().image.clone(), block, segment_bytes);
    let (mut log, _) = Log::open(disk, Pool::new(4), options.clone()).unwrap();
    assert!(read_all(&mut log, shard, 2000) == expected, "shard {shard} after it was opened again");
}

/// A node's memory grew by a line for every batch that it had ever written.
#[test]
fn what_is_kept_grows_with_the_bytes_on_the_disk_and_not_with_the_batches() {
    const BATCHES: u64 = 24_000;
    let pool = Pool::new(4);
    let disk = || MemDisk::new(512, 8 << 20);
    let (mut log, _) = Log::open(disk(), pool.clone(), options()).unwrap();
    let mut laid = [0u64; 3];
    let mut runs_max = 0;
    for number in 0..BATCHES {
        // Both busy shards lie in every batch, the third in one of a hundred.
        for (at, shard) in [1, 4, 7].into_iter().enumerate().take(if number % 100 == 0 { 3 } else { 2 }) {
            laid[at] += 1;
            lay(&mut log, shard, 1, &laid[at].to_le_bytes());
        }
        log.submit();
        poll(&mut log);
        runs_max = runs_max.max(lines(&log, 1).1);
    }
    // A batch of one block takes 4 KiB of memory. Two chunks hold such as are durable, and one is being filled.
    assert!((1900..=3 * 1024).contains(&runs_max), "{runs_max} runs");
    let mib = (BATCHES * 512) as usize >> 20;
    assert_eq!(mib, 11);
    for shard in [1, 4, 7] {
        let (stretches, _) = lines(&log, shard);
        assert!((mib - 2..=mib + 3).contains(&stretches), "{stretches} stretches for {mib} MiB");
    }
    let order = log.shards.order_len();
    assert!(order <= 3 * 3 * 1024, "{order}");

    let image = log.disk().image.clone();
    for reopened in [false, true] {
        if reopened {
            drop(log);
            log = Log::open(MemDisk::with(image.clone(), 512, 8 << 20), pool.clone(), options()).unwrap().0;
        }
        for (shard, laid) in [1, 4, 7].into_iter().zip(laid) {
            let expected: Vec<_> = (1..=laid).map(|index| (1, index.to_le_bytes().to_vec())).collect();
            assert!(read_all(&mut log, shard, 1 << 20) == expected, "shard {shard}");
        }
    }
    for shard in [1, 4, 7] {
        let (stretches, runs) = lines(&log, shard);
        assert!((mib..=mib + 3).contains(&stretches) && runs == 0, "{stretches} stretches, {runs} runs");
    }
    // Reading back takes whole regions: one read for a megabyte and shard, and no more.
    let reads = log.disk().operations;
    assert!(reads <= 3 * (mib as u64 + 4), "{reads} reads");
}

#[test]
fn a_span_goes_on_from_the_disk_into_memory_and_into_the_open_batch() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    lay_each(&mut log, 1, 1, &numbered("on the disk", 0..10));
    log.forget();
    assert_eq!(lines(&log, 1), (1, 0));
    assert!(log.peek(ShardId(1), Index(3)).is_none(), "peeking fetches nothing");
    lay_each(&mut log, 1, 1, &numbered("in memory", 0..5));
    lay(&mut log, 1, 1, b"open");
    assert_eq!(lines(&log, 1), (1, 6));
    assert_eq!(log.span(ShardId(1), Index(4), 1 << 20), Span::Fetching);
    assert_eq!(poll(&mut log), [Told::Fetched]);
    let Span::Ready { count: 13, bytes } = log.span(ShardId(1), Index(4), 1 << 20) else { panic!() };
    let mut pieces = Vec::new();
    log.pieces(ShardId(1), Index(4), 13, &mut pieces);
    let whole = pieces.concat();
    assert_eq!((whole.len(), log.bytes_of(ShardId(1), Index(4), 13)), (bytes, bytes));
    let RunSummary { term, count, last } = record::check_run(&whole, ShardId(1), Index(4)).unwrap();
    assert_eq!((term, count, last), (Term(1), 13, id(1, 16)));
    assert_eq!(log.peek(ShardId(1), Index(3)).unwrap().id(), id(1, 3), "the whole stretch was fetched");
    assert_eq!(log.peek(ShardId(1), Index(16)).unwrap().id(), id(1, 16));
}

/// A span ended where the next region had to be read: that read took the memory of what the span had just promised.
#[test]
fn a_read_that_starts_takes_nothing_that_was_promised_in_the_turn() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    let payloads: Vec<Vec<u8>> = (1..=150).map(|number| format_payload(number).into_bytes()).collect();
    lay_each(&mut log, 1, 1, &payloads);
    log.forget();
    assert!(lines(&log, 1).0 >= 2);
    assert_eq!(log.span(ShardId(1), Index(1), 1 << 20), Span::Fetching);
    assert_eq!(poll(&mut log), [Told::Fetched]);
    poll(&mut log);
    let Span::Ready { count, .. } = log.span(ShardId(1), Index(1), 1 << 20) else { panic!() };
    assert!(count < 150);
    // Memory for one read, and that is promised.
    assert_eq!(log.span(ShardId(1), Index(150), 1 << 20), Span::Fetching);
    assert!(log.disk().reads.is_empty());
    let mut pieces = Vec::new();
    log.pieces(ShardId(1), Index(1), count, &mut pieces);
    assert_eq!(record::check_run(&pieces.concat(), ShardId(1), Index(1)).unwrap().count, count);
}

#[test]
fn superseded_entries_around_live_ones_are_stepped_over() {
    let pool = Pool::new(4);
    for folded in [false, true] {
        let mut log = empty(&pool);
        lay_each(&mut log, 1, 1, &numbered("first", 0..6));
        lay_each(&mut log, 4, 1, &numbered("another shard's", 0..3));
        // The same indices again and again, of other terms, the last of them of several batches.
        for (term, keep) in [(2, 4), (3, 3), (4, 4), (6, 2)] {
            if folded {
                log.forget();
            }
            supersede(&mut log, 1, term, keep, &numbered("later", term * 100..term * 100 + 5));
        }
        lay_each(&mut log, 1, 6, &numbered("last", 0..4));
        let mut expected = of_term(1, &numbered("first", 0..2));
        expected.extend(of_term(6, &numbered("later", 600..605)));
        expected.extend(of_term(6, &numbered("last", 0..4)));
        assert_holds(log, &options(), 1, &expected);
    }
}

/// Figure 8 of the Raft paper: a leader comes back that had the entries which another one's had superseded.
#[test]
fn an_entry_that_was_superseded_and_came_again_is_found_once() {
    let pool = Pool::new(4);
    for folded in [false, true] {
        let mut log = empty(&pool);
        let old = numbered("of term 1", 0..6);
        lay_each(&mut log, 1, 1, &old);
        supersede(&mut log, 1, 2, 2, &numbered("of term 2", 0..2));
        if folded {
            log.forget();
        }
        supersede(&mut log, 1, 1, 2, &old[2..5]);
        lay_each(&mut log, 1, 3, &numbered("of term 3", 0..2));
        let mut expected = of_term(1, &old[..5]);
        expected.extend(of_term(3, &numbered("of term 3", 0..2)));
        assert_holds(log, &options(), 1, &expected);
    }
}

/// As before, and of the entries that come only some were here: the same indices of the other term lie between them.
#[test]
fn entries_between_those_of_one_term_are_not_taken_for_them() {
    let pool = Pool::new(4);
    for folded in [false, true] {
        let mut log = empty(&pool);
        let old = numbered("of term 1", 0..6);
        lay_each(&mut log, 1, 1, &old[..3]);
        supersede(&mut log, 1, 2, 2, &numbered("of term 2", 0..4));
        if folded {
            log.forget();
        }
        supersede(&mut log, 1, 1, 2, &old[2..]);
        log.forget();
        assert_eq!(lines(&log, 1), (1, 0), "they all lie in one stretch");
        assert_holds(log, &options(), 1, &of_term(1, &old));
    }
}

#[test]
fn a_log_cut_back_into_what_is_on_the_disk_alone_goes_on() {
    let pool = Pool::new(4);
    let old = numbered("old", 0..20);
    for keep in [0, 1, 7, 10, 11, 19] {
        let mut log = empty(&pool);
        lay_each(&mut log, 1, 1, &old[..10]);
        log.forget();
        lay_each(&mut log, 1, 2, &old[10..]);
        log.forget();
        assert_eq!(lines(&log, 1), (2, 0));
        // Read, so that it is in memory when it is superseded.
        assert_eq!(read_all(&mut log, 1, 1 << 20).len(), 20);
        supersede(&mut log, 1, 5, keep, &numbered("new", 0..3));
        lay_each(&mut log, 1, 5, &numbered("newer", 0..3));
        let mut expected = of_term(1, &old[..10]);
        expected.extend(of_term(2, &old[10..]));
        expected.truncate(keep as usize);
        expected.extend(of_term(5, &numbered("new", 0..3)));
        expected.extend(of_term(5, &numbered("newer", 0..3)));
        assert_eq!(log.last(ShardId(1)), id(5, keep + 6));
        assert!(log.peek(ShardId(1), Index(keep + 1)).unwrap().id() == id(5, keep + 1));
        assert_holds(log, &options(), 1, &expected);
    }
}

/// The entries that were fetched lie together, and only some of them still stand.
#[test]
fn what_was_fetched_is_read_to_where_it_was_cut() {
    let pool = Pool::new(4);
    for keep in [1, 6, 9] {
        let mut log = empty(&pool);
        let old = numbered("old", 0..10);
        log.lay_received(ShardId(1), &records(1, 1, 1, &old));
        log.submit();
        poll(&mut log);
        log.forget();
        assert_eq!(read_all(&mut log, 1, 1 << 20), of_term(1, &old));
        supersede(&mut log, 1, 2, keep, &numbered("new", 0..3));
        let mut expected = of_term(1, &old[..keep as usize]);
        expected.extend(of_term(2, &numbered("new", 0..3)));
        assert_eq!(read_all(&mut log, 1, 1 << 20), expected, "{keep} kept");
        assert_holds(log, &options(), 1, &expected);
    }
}

/// What a read was for changes while it is under way: it has grown, was cut back, or is another's altogether.
#[test]
fn a_read_under_way_brings_what_still_stands() {
    let pool = Pool::new(4);
    let old = numbered("old", 0..10);
    for (keep, term) in [(10, 1), (10, 2), (6, 2), (1, 2), (0, 2)] {
        let mut log = empty(&pool);
        lay_each(&mut log, 1, 1, &old);
        log.forget();
        assert_eq!(log.span(ShardId(1), Index(1), 1 << 20), Span::Fetching);
        let reads = core::mem::take(&mut log.disk_mut().reads);
        assert_eq!(reads.len(), 1);
        supersede(&mut log, 1, term, keep, &numbered("new", 0..4));
        log.forget();
        log.disk_mut().reads = reads;
        assert_eq!(poll(&mut log), [Told::Fetched]);
        let mut expected = of_term(1, &old[..keep as usize]);
        expected.extend(of_term(term, &numbered("new", 0..4)));
        assert_eq!(read_all(&mut log, 1, 1 << 20), expected, "{keep} kept");
        assert_holds(log, &options(), 1, &expected);
    }
}

#[test]
fn a_flipped_bit_on_the_disk_is_an_error_or_harmless_and_never_wrong_data() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    for number in 0..12 {
        lay(&mut log, 4, 1, format_payload(number).as_bytes());
        lay(&mut log, 1, 1, format!("payload {number}").as_bytes());
        log.submit();
        poll(&mut log);
    }
    supersede(&mut log, 1, 2, 6, &numbered("instead", 0..3));
    let mut expected = of_term(1, &numbered("payload", 0..6));
    expected.extend(of_term(2, &numbered("instead", 0..3)));
    let end = log.stream.next.offset as usize;
    assert!(end > 8000);
    let (mut harmless, mut found) = (0, 0);
    for at in (0..end).step_by(3) {
        log.forget();
        log.disk_mut().image.0.get_mut(&0).unwrap()[at] ^= 1 << (at % 8);
        match try_read_all(&mut log, 1) {
            Ok(entries) => {
                assert_eq!(entries, expected, "byte {at}");
                harmless += 1;
            }
            Err((index, cause)) => {
                let begins = format!("entries from {index} on of shard 1 have decayed: ");
                assert!(cause.starts_with(&begins), "byte {at}: {cause}");
                found += 1;
                let mut image = log.disk().image.clone();
                image.0.get_mut(&0).unwrap()[at] ^= 1 << (at % 8);
                drop(log);
                log = open(image, &pool).unwrap().0;
                continue;
            }
        }
        log.disk_mut().image.0.get_mut(&0).unwrap()[at] ^= 1 << (at % 8);
    }
    // Headers are at every batch and record; the other shard's payloads and the padding are not this shard's matter.
    assert!(found > 400 && harmless > 800, "{found} found, {harmless} harmless");
}

/// Reads a shard; the index that was asked for and the cause, if the disk was found to have decayed.
fn try_read_all(log: &mut Log<MemDisk>, shard: u32) -> Result<Vec<Entry>, (u64, String)> {
    let last = log.last(ShardId(shard)).index.0;
    let mut entries = Vec::new();
    while (entries.len() as u64) < last {
        let from = Index(entries.len() as u64 + 1);
        let Span::Ready { count, .. } = log.span(ShardId(shard), from, 1 << 20) else {
            for told in poll(log) {
                let Told::Failed(cause) = told else { continue };
                let index = cause.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
                assert!((from.0..=last).contains(&index), "{from}: {cause}");
                return Err((index, cause));
            }
            continue;
        };
        let mut pieces = Vec::new();
        log.pieces(ShardId(shard), from, count, &mut pieces);
        let whole = pieces.concat();
        record::check_run(&whole, ShardId(shard), from).unwrap();
        let records = record::records(&whole).map(Result::unwrap);
        entries.extend(records.map(|record| (record.header.term, record.payload.to_vec())));
    }
    Ok(entries)
}

#[test]
fn a_batch_that_lies_elsewhere_or_does_not_follow_is_decay() {
    let pool = Pool::new(4);
    let image = image_of(6, &pool);
    let headers = |image: &Image, at: usize| -> batch::Header {
        bytemuck::pod_read_unaligned(&image.0[&0][at..at + HEADER_BYTES])
    };
    let second = headers(&image, 0).span_bytes();
    let third = second + headers(&image, second).span_bytes();
    let spoil = |what: &dyn Fn(&mut Vec<u8>)| {
        let (mut log, _) = open(image.clone(), &pool).unwrap();
        what(log.disk_mut().image.0.get_mut(&0).unwrap());
        try_read_all(&mut log, 1).unwrap_err()
    };
    // Another batch of this log, whole, in the place of the second one; one of another node; zeros.
    let decayed = |index| {
        format!("entries from {index} on of shard 1 have decayed: the batch that was laid there is not")
    };
    assert_eq!(spoil(&|bytes| bytes.copy_within(third..third + 512, second)), (2, decayed(2)));
    let with_header = |bytes: &mut Vec<u8>, change: &dyn Fn(&mut batch::Header)| {
        let mut header: batch::Header = bytemuck::pod_read_unaligned(&bytes[second..second + HEADER_BYTES]);
        change(&mut header);
        bytes[second..second + HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header.seal()));
    };
    let changed = |change: &dyn Fn(&mut batch::Header)| spoil(&|bytes| with_header(bytes, change));
    assert_eq!(changed(&|header| header.node += 1), (2, decayed(2)));
    assert_eq!(changed(&|header| header.offset += 512), (2, decayed(2)));
    assert_eq!(spoil(&|bytes| bytes[second..third].fill(0)), (2, decayed(2)));
    // The batch after it follows another one.
    assert_eq!(changed(&|header| header.life += 1), (3, decayed(3)));
    assert_eq!(changed(&|header| header.sequence += 1), (3, decayed(3)));
    assert_eq!(changed(&|header| header.durable = 0), (3, decayed(3)));
}

#[test]
fn a_stretch_ends_with_its_segment() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    let payloads: Vec<Vec<u8>> = (1..=300).map(|number| format_payload(number).into_bytes()).collect();
    lay_each(&mut log, 1, 1, &payloads);
    log.forget();
    let segments = log.stream.next.segment as usize + 1;
    assert!(segments >= 4, "{segments}");
    assert_eq!(lines(&log, 1), (segments, 0));
    assert_holds(log, &options(), 1, &of_term(1, &payloads));
}

/// Entries of several shards mixed in batches of the largest size, and entries as large as a read.
#[test]
fn large_batches_and_large_entries_are_found() {
    let pool = Pool::new(6);
    let disk = MemDisk::new(512, 16 << 20);
    let (mut log, _) = Log::open(disk, pool.clone(), options()).unwrap();
    let mut expected = [Vec::new(), Vec::new(), Vec::new()];
    let mut number = 0u64;
    while log.stream.next.segment == 0 {
        let mut at = 0;
        while at < 1_900_000 {
            for (shard, expected) in [1, 4, 7].into_iter().zip(&mut expected) {
                let payload = vec![number as u8; 1 + number as usize * 37 % 30_000];
                number += 1;
                lay(&mut log, shard, 1, &payload);
                at += record::span_bytes(payload.len());
                expected.push((1, payload));
            }
        }
        log.submit();
        poll(&mut log);
    }
    log.forget();
    for (shard, expected) in [1, 4, 7].into_iter().zip(&expected) {
        let (stretches, runs) = lines(&log, shard);
        assert!((15..=18).contains(&stretches) && runs == 0, "{stretches} stretches");
        assert!(read_all(&mut log, shard, 1 << 20) == *expected, "shard {shard}");
    }
    let large: Vec<Vec<u8>> = (0..3).map(|number| vec![number; FETCH_BYTES as usize - 64]).collect();
    let before = lines(&log, 4).0;
    lay_each(&mut log, 4, 1, &large);
    log.forget();
    assert_eq!(lines(&log, 4).0 - before, 3);
    expected[1].extend(of_term(1, &large));
    assert!(read_all(&mut log, 4, 1 << 20) == expected[1]);
    let image = log.disk().image.clone();
    drop(log);
    let (mut log, _) = Log::open(MemDisk::with(image, 4096, 16 << 20), pool, options()).unwrap();
    for (shard, expected) in [1, 4, 7].into_iter().zip(&expected) {
        assert!(read_all(&mut log, shard, 1 << 20) == *expected, "shard {shard} after it was opened again");
    }
}

/// Between the last good batch and the next multiple of a larger block there may stand one that never came to life.
#[test]
fn a_void_batch_in_the_gap_before_a_larger_block_is_stepped_over() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    lay_each(&mut log, 1, 1, &numbered("durable", 0..3));
    log.disk_mut().eager = false;
    for (shard, payload) in [(4, b"lost"), (1, b"void")] {
        lay(&mut log, shard, 1, payload);
        log.submit();
    }
    log.disk_mut().finish(1);
    let mut image = log.disk().image.clone();
    drop(log);
    let mut expected = of_term(1, &numbered("durable", 0..3));
    for block in [4096, 512] {
        let (mut log, _) =
            Log::open(MemDisk::with(image, block, SEGMENT_BYTES), pool.clone(), options()).unwrap();
        lay_each(&mut log, 1, 1, &numbered("after", 0..2));
        expected.extend(of_term(1, &numbered("after", 0..2)));
        log.forget();
        assert_eq!(lines(&log, 1), (1, 0));
        assert_eq!(read_all(&mut log, 1, 1 << 20), expected, "block of {block}");
        image = log.disk().image.clone();
    }
    let at = 4 * 512;
    let void: batch::Header = bytemuck::pod_read_unaligned(&image.0[&0][at..at + HEADER_BYTES]);
    assert_eq!((void.magic, void.sequence), (batch::MAGIC, 5), "it is still there");
}

#[test]
fn a_shard_that_was_busy_once_gives_its_memory_back() {
    let pool = Pool::new(4);
    let (mut log, _) = Log::open(MemDisk::new(512, 8 << 20), pool, options()).unwrap();
    lay_each(&mut log, 1, 1, &numbered("busy", 0..2000));
    assert!(log.shards.logs[0].room() >= 2000);
    lay_each(&mut log, 4, 1, &numbered("another", 0..5000));
    assert_eq!(lines(&log, 1).1, 0);
    assert!(log.shards.logs[0].room() <= 64, "{}", log.shards.logs[0].room());
}
