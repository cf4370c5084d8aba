//! Files of every released format version, as they were written then.
//!
//! A file holds a segment up to its last byte that is not zero. With `PLIMSOLL_REWRITE_FORMATS` in the environment the
//! file of the present version is written anew; the diff is to be read, and a format that changed is a new version.

use super::*;

const V1: &[u8] = include_bytes!("../../../tests/formats/v1/segment-0.bin");

fn image(bytes: &[u8]) -> Image {
    let mut image = Image::default();
    let mut segment = bytes.to_vec();
    segment.resize(SEGMENT_BYTES as usize, 0);
    image.0.insert(0, segment);
    image
}

/// Every kind of record, and batches of one block and of several.
fn write_sample() -> Vec<u8> {
    let pool = Pool::new(4);
    let mut log = empty(&pool);
    log.lay_vote(ShardId(1), vote(1, 2));
    log.lay(NewEntry { kind: Kind::Noop, ..new_entry(1, id(1, 1), b"") }, b"");
    log.submit();
    poll(&mut log);
    log.lay(
        NewEntry { flags: record::FLAG_MORE, ..new_entry(1, id(1, 2), b"first part, ") },
        b"first part, ",
    );
    log.lay(
        NewEntry { flags: record::FLAG_CONTINUES, ..new_entry(1, id(1, 3), b"second part") },
        b"second part",
    );
    lay(&mut log, 4, 1, &[0xAB; 700]);
    log.submit();
    poll(&mut log);
    log.truncate_after(ShardId(1), Index(2));
    log.lay_received(ShardId(1), &records(1, 3, 3, &[b"of another leader".to_vec(), vec![]]));
    log.lay_vote(ShardId(1), Vote { term: Term(4), candidate: None });
    log.submit();
    poll(&mut log);
    let segment = &log.disk().image.0[&0];
    let end = segment.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    segment[..end].to_vec()
}

#[test]
fn a_file_of_version_1_opens() {
    let pool = Pool::new(4);
    let (mut log, shards) = open(image(V1), &pool).unwrap();
    let tell = |shard: &RecoveredShard| (*shard.vote.get(), *shard.last.get(), shard.terms.clone());
    let none = Vote { term: Term(4), candidate: None };
    assert_eq!(tell(&shards[0]), (none, id(3, 4), vec![id(1, 1), id(3, 3)]));
    assert_eq!(tell(&shards[1]), (Vote::default(), id(1, 1), vec![id(1, 1)]));
    assert_eq!(tell(&shards[2]), (Vote::default(), EntryId::default(), vec![]));
    let expected =
        [(1, vec![]), (1, b"first part, ".to_vec()), (3, b"of another leader".to_vec()), (3, vec![])];
    assert_eq!(read_all(&mut log, 1, 1 << 20), expected);
    assert_eq!(read_all(&mut log, 4, 1 << 20), [(1, vec![0xAB; 700])]);

    while log.span(ShardId(1), Index(2), 1 << 20) == Span::Fetching {
        poll(&mut log);
    }
    let mut pieces = Vec::new();
    log.pieces(ShardId(1), Index(2), 1, &mut pieces);
    let header = record::read(pieces[0]).unwrap().0.header;
    assert_eq!((header.timestamp, header.epoch, header.session, header.serial), (102, 3, 9, 2));
    assert_eq!(header.flags, record::FLAG_MORE);
}

#[test]
fn the_same_is_written_as_in_version_1() {
    let written = write_sample();
    if std::env::var_os("PLIMSOLL_REWRITE_FORMATS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/v1/segment-0.bin");
        std::fs::write(path, &written).unwrap();
    }
    assert!(written == V1, "the format has changed: {} bytes, were {}", written.len(), V1.len());
}
