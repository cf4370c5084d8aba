//! The reader against a scripted node that serves a log.

use super::*;
use crate::log::record::{self, FLAG_CONTINUES, FLAG_MORE, Header, Kind as EntryKind};

/// An entry as it lies in the log.
fn entry(index: u64, term: u64, kind: EntryKind, more: bool, payload: &[u8]) -> Vec<u8> {
    entry_with(index, term, kind, if more { FLAG_MORE } else { 0 }, payload)
}

fn further(index: u64, term: u64, more: bool, payload: &[u8]) -> Vec<u8> {
    let flags = if more { FLAG_MORE } else { 0 } | FLAG_CONTINUES;
    entry_with(index, term, EntryKind::Data, flags, payload)
}

fn entry_with(index: u64, term: u64, kind: EntryKind, flags: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        payload_crc: payload_crc(payload),
        len_bytes: payload.len() as u32,
        shard: 1,
        term,
        index,
        timestamp: 100 + index,
        kind: kind as u8,
        flags,
        ..Header::default()
    };
    let mut bytes = vec![0; record::span_bytes(payload.len())];
    record::lay(header, payload, &mut bytes);
    bytes
}

/// A node that answers reads from these entries, a few at a time.
fn serve_reads(mut end: End, entries: Vec<Vec<u8>>) {
    while let Some(asked) = end.next_or_closed() {
        let Asked::Read { request, from, .. } = asked else { panic!("{asked:?}") };
        let commit = Index(entries.len() as u64);
        let batch: Vec<&Vec<u8>> = entries.iter().skip(from.0 as usize - 1).take(2).collect();
        let next = Index(from.0 + batch.len() as u64);
        let body: Vec<u8> = batch.into_iter().flatten().copied().collect();
        end.reply(&Reply::Records { request, next, commit, records: &[] }, &body);
    }
}

impl End {
    fn next_or_closed(&mut self) -> Option<Asked> {
        let closed = self.asked.is_empty() && self.stream.peek(&mut [0]).unwrap_or(0) == 0;
        (!closed).then(|| self.next())
    }
}

/// What a reader gives from `from` on: first and last index and the payload; or the error.
fn read_all(entries: Vec<Vec<u8>>, from: u64) -> Result<Vec<(u64, u64, Vec<u8>)>, ClientError> {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, move |end, _| serve_reads(end, entries));
    let mut reader = Reader::open(options(&members), NodeId(1), ShardId(1), Index(from)).unwrap();
    let mut read = Vec::new();
    let outcome = loop {
        match reader.next_record(Duration::ZERO) {
            Ok(Some(it)) => {
                assert_eq!(it.timestamp.0, 100 + it.id.index.0);
                read.push((it.first.0, it.id.index.0, it.payload.to_vec()));
            }
            Ok(None) => break Ok(read),
            Err(error) => break Err(error),
        }
    };
    drop(reader);
    node.join().unwrap();
    outcome
}

fn log_with_parts() -> Vec<Vec<u8>> {
    vec![
        entry(1, 1, EntryKind::Noop, false, b""),
        entry(2, 1, EntryKind::Data, false, b"one"),
        entry(3, 1, EntryKind::Data, true, b"tw"),
        further(4, 1, true, b"o-par"),
        further(5, 1, false, b"ts"),
        entry(6, 1, EntryKind::Data, true, b"begun by a leader that was lost"),
        entry(7, 2, EntryKind::Noop, false, b""),
        entry(8, 2, EntryKind::Data, false, b"three"),
        entry(9, 2, EntryKind::Data, true, b"begun by a leader"),
        further(10, 2, true, b"that broke it off and went on"),
        entry(11, 2, EntryKind::Data, false, b"four"),
    ]
}

#[test]
fn a_reader_gives_whole_records() {
    let whole = [
        (2, 2, b"one".to_vec()),
        (3, 5, b"two-parts".to_vec()),
        (8, 8, b"three".to_vec()),
        (11, 11, b"four".to_vec()),
    ];
    for from in 0..=12 {
        let expected: Vec<_> = whole.iter().filter(|(first, ..)| *first >= from).cloned().collect();
        assert_eq!(read_all(log_with_parts(), from).unwrap(), expected, "from {from}");
    }
}

#[test]
fn a_reader_believes_no_byte_unchecked() {
    for (at, byte) in [(1, 64), (1, 20), (4, 65), (2, 3)] {
        let mut entries = log_with_parts();
        entries[at][byte] ^= 1;
        let error = read_all(entries, 1).unwrap_err();
        assert!(matches!(error, ClientError::Malformed { node: NodeId(1), .. }), "{error}");
    }
    let mut entries = log_with_parts();
    entries.remove(3);
    let error = read_all(entries, 1).unwrap_err().to_string();
    assert!(error.contains("record 5 of shard 1 where 4"), "{error}");
}

/// A reader that had waited in vain and was then asked not to wait took the answer to come for its own, and blocked
/// until its deadline.
#[test]
fn a_reader_that_does_not_wait_is_not_answered_by_what_waits() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, _listener| {
        let waiting = end.next();
        let Asked::Read { from, wait: true, .. } = waiting else { panic!("{waiting:?}") };
        let asked = end.next();
        let Asked::Read { request, wait: false, .. } = asked else { panic!("{asked:?}") };
        end.reply(&Reply::Records { request, next: from, commit: Index(0), records: &[] }, &[]);
        let request = waiting.request();
        let bytes = entry(1, 1, EntryKind::Data, false, b"at last");
        end.reply(&Reply::Records { request, next: Index(2), commit: Index(1), records: &bytes }, &bytes);
        end.until_closed();
    });
    let mut reader = Reader::open(options(&members), NodeId(1), ShardId(1), Index(1)).unwrap();
    assert!(reader.next_record(Duration::from_millis(1)).unwrap().is_none());
    assert!(reader.next_record(Duration::ZERO).unwrap().is_none());
    assert_eq!(reader.next_record(PATIENCE).unwrap().unwrap().payload, b"at last");
    drop(reader);
    node.join().unwrap();
}
