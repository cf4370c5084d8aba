//! Room: a log that is full, or has no space for its next segment, and what is kept for votes.

use super::super::NoRoom;
use super::*;

/// A record as a leader sends it, with so many bytes.
fn of_leader(payload_bytes: usize) -> Vec<u8> {
    records(1, 1, 1, &[vec![7; payload_bytes]])
}

/// A header without a payload, as the entry at `index`.
fn of_kind(kind: Kind, index: u64) -> Vec<u8> {
    let header = record::Header { shard: 1, term: 1, index, kind: kind as u8, ..record::Header::default() };
    let mut bytes = vec![0; record::span_bytes(0)];
    record::lay(header, &[], &mut bytes);
    bytes
}

#[test]
fn a_full_log_says_so_and_still_takes_votes_and_no_ops() {
    let pool = Pool::new(4);
    let options = Options { segments_max: 3, ..options() };
    let (mut log, _) = Log::open(MemDisk::new(512, SEGMENT_BYTES), pool.clone(), options.clone()).unwrap();
    let mut laid = 0;
    let mut full_for_leaders = 0;
    let full = loop {
        match log.room_for_received(&of_leader(1000)) {
            Ok(()) => lay(&mut log, 1, 1, &[7; 1000]),
            Err(NoRoom::Full) => break log.last(ShardId(1)),
            Err(NoRoom::Busy) => panic!("a disk that answers at once is never busy"),
        };
        laid += 1;
        full_for_leaders += usize::from(log.room_for(1000) == Err(NoRoom::Full));
        log.submit();
        poll(&mut log);
    };
    assert!(laid > 100, "{laid}");
    // An eighth of the log, of which votes and no-ops have a part.
    assert!(full_for_leaders * 16 > laid, "leaders stop earlier: {full_for_leaders} of {laid}");
    assert_eq!(log.disk().image.0.len(), 3);
    assert_eq!(log.room_for(1000), Err(NoRoom::Full));
    assert_eq!(
        log.room_for_received(&of_kind(Kind::Noop, 1)),
        Ok(()),
        "a leader's no-op is taken all the same"
    );
    for term in 2..8 {
        assert_eq!(log.room_for_vote(), Ok(()));
        log.lay_vote(ShardId(1), vote(term, 2));
        log.submit();
        assert_eq!(poll(&mut log), [Told::Vote(1, vote(term, 2))]);
    }
    let noop = id(8, full.index.0 + 1);
    log.lay(NewEntry { kind: Kind::Noop, ..new_entry(1, noop, b"") }, b"");
    log.submit();
    assert_eq!(poll(&mut log), [Told::Entries(1, noop)]);

    let image = log.disk().image.clone();
    drop(log);
    let (mut log, shards) = Log::open(MemDisk::with(image, 512, SEGMENT_BYTES), pool, options).unwrap();
    assert_eq!((*shards[0].vote.get(), *shards[0].last.get()), (vote(7, 2), noop));
    assert_eq!(log.room_for(1000), Err(NoRoom::Full));
    assert_eq!(read_all(&mut log, 1, 1 << 20).len(), laid + 1);

    // And when even that is used up, the log stops with a clear word.
    let mut last = Vec::new();
    for term in 9..200 {
        log.lay_vote(ShardId(1), vote(term, 2));
        log.submit();
        last = poll(&mut log);
        if last.iter().any(|told| matches!(told, Told::Failed(_))) {
            break;
        }
    }
    let [Told::Failed(cause)] = &last[..] else { panic!("{last:?}") };
    assert!(cause.contains("every segment"), "{cause}");
}

/// Everything without a payload was taken for a no-op: marks of idle streams, each alone in its append, used up what is
/// kept for votes, and a node without space for another segment stopped at its next vote, and at each start after that.
#[test]
fn marks_do_not_use_up_what_is_kept_for_votes() {
    for kind in [Kind::Mark, Kind::Data] {
        let pool = Pool::new(4);
        let mut log = empty(&pool);
        poll(&mut log);
        log.disk_mut().no_space = true;
        let mut laid = 0;
        loop {
            let record = of_kind(kind, laid + 1);
            if log.room_for_received(&record) != Ok(()) {
                break;
            }
            log.lay_received(ShardId(1), &record);
            log.submit();
            let told = poll(&mut log);
            assert!(!told.iter().any(|told| matches!(told, Told::Failed(_))), "after {laid}: {told:?}");
            laid += 1;
        }
        assert!(laid > 100, "{laid}");
        let first = of_kind(kind, laid + 1);
        assert_eq!(log.room_for_received(&first), Err(NoRoom::Full));
        assert_eq!(log.room_for_received(&of_kind(Kind::Noop, laid + 1)), Ok(()));
        for term in 2..8 {
            log.lay_vote(ShardId(1), vote(term, 2));
            log.submit();
            assert_eq!(poll(&mut log), [Told::Vote(1, vote(term, 2))]);
        }
    }
}

/// A filesystem that was full when the next segment was to be made ended the log's promises, and with it the node.
#[test]
fn without_space_for_the_next_segment_the_log_is_full_until_there_is_some() {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    poll(&mut log);
    log.disk_mut().no_space = true;
    let (mut told, mut full_for_leaders) = (Vec::new(), 0);
    while log.room_for_received(&of_leader(1000)) == Ok(()) {
        full_for_leaders += usize::from(log.room_for(1000) == Err(NoRoom::Full));
        lay(&mut log, 1, 1, &[7; 1000]);
        log.submit();
        told.extend(poll(&mut log));
    }
    assert_eq!(told.iter().filter(|told| **told == Told::NoSpace).count(), 1, "{told:?}");
    assert!(full_for_leaders > 1, "a leader stops before its followers have to");
    assert_eq!(
        (log.room_for(1000), log.room_for_received(&of_leader(1000))),
        (Err(NoRoom::Full), Err(NoRoom::Full))
    );
    // It is read, and it votes, and no-ops are laid.
    let full = log.last(ShardId(1));
    assert_eq!(read_all(&mut log, 1, 1 << 20).len() as u64, full.index.0);
    assert_eq!(log.room_for_vote(), Ok(()));
    log.lay_vote(ShardId(1), vote(2, 2));
    log.submit();
    assert_eq!(poll(&mut log), [Told::Vote(1, vote(2, 2))]);
    let noop = id(3, full.index.0 + 1);
    log.lay(NewEntry { kind: Kind::Noop, ..new_entry(1, noop, b"") }, b"");
    log.submit();
    assert_eq!(poll(&mut log), [Told::Entries(1, noop)]);

    log.disk_mut().no_space = false;
    assert_eq!(poll(&mut log), [Told::SpaceAgain]);
    assert_eq!((log.room_for(1000), log.room_for_received(&of_leader(1000))), (Ok(()), Ok(())));
    lay(&mut log, 1, 3, &[7; 1000]);
    log.submit();
    assert_eq!(poll(&mut log), [Told::Entries(1, id(3, full.index.0 + 2))]);
}
