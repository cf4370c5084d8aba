//! Folds against the rules of the module, written down as small histories; and many random ones against a slow, obvious
//! model of what a watermark is.
#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::board::Board;
use super::replay::{Full, Replay};
use super::*;
use crate::log::record::{FLAG_MORE, Header, Kind};
use crate::types::{Epoch, Stamp, Timestamp};

/// Xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn at(epoch: u32, timestamp: u64) -> Stamp {
    Stamp::new(Epoch(epoch), Timestamp(timestamp))
}

fn data(epoch: u32, timestamp: u64) -> Mark {
    Mark::Data(at(epoch, timestamp))
}

fn register(stream: u32) -> Mark {
    Mark::Register { stream: ShardId(stream) }
}

fn end(epoch: u32, complete: bool) -> Mark {
    Mark::EndOfEpoch { epoch: Epoch(epoch), complete }
}

fn closed(epoch: u32, last: u64) -> Mark {
    Mark::EpochClosed { epoch: Epoch(epoch), last: Timestamp(last) }
}

fn fold(marks: &[(u32, Mark)]) -> Fold {
    let mut fold = Fold::default();
    for (stream, mark) in marks {
        fold.take(ShardId(*stream), mark);
    }
    fold
}

#[test]
fn the_watermark_is_the_least_of_the_registered_streams_and_not_the_largest() {
    let mut fold = fold(&[(0, register(0)), (0, register(1)), (0, data(0, 10)), (1, data(0, 7))]);
    assert_eq!(fold.watermark(), at(0, 7));
    // A stream that nobody registered holds nobody back, and does not count.
    fold.take(ShardId(2), &data(0, 3));
    assert_eq!(fold.watermark(), at(0, 7));
    fold.take(ShardId(1), &Mark::Advance(at(0, 12)));
    assert_eq!(fold.watermark(), at(0, 10));
}

/// Mako left streams that were still at zero out of the minimum, so the watermark could pass a stream that started
/// late.
#[test]
fn a_stream_that_has_submitted_nothing_yet_holds_the_watermark_back() {
    let mut fold = fold(&[(0, register(0)), (0, register(1)), (0, data(0, 5))]);
    assert_eq!(fold.watermark(), Stamp::ZERO);
    fold.take(ShardId(1), &data(0, 9));
    assert_eq!(fold.watermark(), at(0, 5));
}

#[test]
fn a_stream_that_registers_late_begins_where_the_registrar_stands() {
    let mut fold = fold(&[(0, register(0)), (0, data(0, 40))]);
    assert_eq!(fold.watermark(), at(0, 40));
    fold.take(REGISTRAR, &register(3));
    assert_eq!(fold.registry().floor(ShardId(3)), Some(at(0, 40)));
    fold.take(REGISTRAR, &data(0, 50));
    assert_eq!(fold.watermark(), at(0, 40), "stream 3 may still submit 41");
    fold.take(ShardId(3), &Mark::Open { floor: at(0, 40) });
    fold.take(ShardId(3), &data(0, 41));
    assert_eq!(fold.watermark(), at(0, 41));
}

/// A node that had read its log, and not yet that the epoch before had closed, told that it is open there: what the
/// engine began then was lost, and what may have read it lived.
#[test]
fn a_stream_has_ended_every_epoch_before_the_one_in_which_it_registers() {
    let mut fold = fold(&[(0, register(0)), (0, data(0, 40)), (0, end(0, true)), (0, closed(0, u64::MAX))]);
    fold.take(REGISTRAR, &data(1, 7));
    fold.take(REGISTRAR, &register(3));
    let floor = fold.registry().floor(ShardId(3)).unwrap();
    assert_eq!(floor, at(1, 7));
    let mut position = Position::default();
    position.take(&Mark::Open { floor });
    assert!(position.is_open() && position.has_closed(Epoch(0)) && !position.has_closed(Epoch(1)));
    assert_eq!(position.stands_at(Epoch(1)), floor);
    // A second leader that has laid the same changes nothing, and neither does an end that comes too late.
    for mark in [Mark::Open { floor }, end(0, false)] {
        let before = position.clone();
        position.take(&mark);
        assert_eq!(position, before, "{mark:?}");
    }
}

#[test]
fn a_stream_that_has_ended_holds_nobody_back() {
    let fold = fold(&[(0, register(0)), (0, register(1)), (0, data(0, 5)), (1, Mark::EndOfStream)]);
    assert_eq!(fold.watermark(), at(0, 5));
    assert!(fold.position(ShardId(1)).has_ended());
    // And it ends no epoch of the others.
    let board = Board::new(2);
    for stream in [0, 1].map(ShardId) {
        board.register(stream, Stamp::ZERO);
        board.publish(stream, fold.position(stream));
    }
    assert_eq!((board.watermark(), board.closing()), (at(0, 5), None));
}

/// A leader that ended its stream for good cut the epoch behind it, when the others ended that before the first was
/// committed: the stream came back from the end of everything, and the watermark with it.
#[test]
fn behind_the_end_of_a_stream_no_mark_counts() {
    let mut fold = fold(&[(0, register(0)), (0, register(1)), (0, data(0, 9)), (1, data(0, 5))]);
    fold.take(ShardId(1), &Mark::EndOfStream);
    assert_eq!(fold.watermark(), at(0, 9));
    fold.take(ShardId(1), &end(0, false));
    assert_eq!(fold.watermark(), at(0, 9));
    assert_eq!(fold.position(ShardId(1)).stands_at(Epoch(0)), Stamp::NEVER);
}

/// It may end for good when its epoch has its end: of that it counts where it stood, of what follows it holds nobody
/// back.
#[test]
fn a_stream_that_ends_in_an_epoch_that_was_cut_counts_there_where_it_was_cut() {
    let mut fold = fold(&[
        (0, register(0)),
        (0, register(1)),
        (0, data(0, 9)),
        (1, data(0, 5)),
        (1, end(0, false)),
        (1, Mark::EndOfStream),
    ]);
    assert_eq!((fold.watermark(), fold.fate(at(0, 9))), (at(0, 5), Fate::Dead));
    fold.take(REGISTRAR, &end(0, true));
    fold.take(REGISTRAR, &closed(0, 5));
    fold.take(REGISTRAR, &data(1, 3));
    assert_eq!(fold.watermark(), at(1, 3));
}

#[test]
fn what_a_cut_stream_never_had_kills_what_came_after_it_everywhere() {
    let history = [
        (0, register(0)),
        (0, register(1)),
        (0, data(0, 10)),
        (1, data(0, 12)),
        (0, data(0, 20)),
        (1, end(0, false)),
        (0, end(0, true)),
    ];
    let mut fold = fold(&history);
    assert_eq!(fold.watermark(), at(0, 12));
    // Nothing can save it any more, so nobody need wait for the end of the epoch.
    assert_eq!(fold.fate(at(0, 20)), Fate::Dead);
    fold.take(REGISTRAR, &closed(0, 12));
    for (stamp, fate) in [(10, Fate::Live), (12, Fate::Live), (20, Fate::Dead)] {
        assert_eq!(fold.fate(at(0, stamp)), fate, "{stamp}");
    }
    assert_eq!((fold.registry().open_epoch(), fold.watermark()), (Epoch(1), at(1, 0)));
    // What comes after a stream's end of an epoch is of nobody.
    assert!(!fold.take(ShardId(1), &data(0, 13)));
    assert!(fold.take(ShardId(1), &data(1, 13)));
}

/// A replica that has read one stream far into the next epoch, and the registrar's log not so far, took where that
/// stream stands now for where it stood at the end of the open one, and passed it.
#[test]
fn of_the_open_epoch_a_stream_counts_where_it_stood_at_its_end() {
    let mut fold = fold(&[
        (0, register(0)),
        (0, register(1)),
        (0, data(0, 460)),
        (1, data(0, 459)),
        (1, end(0, false)),
        (1, data(1, 500)),
    ]);
    assert_eq!(fold.watermark(), at(0, 459));
    fold.take(REGISTRAR, &end(0, false));
    fold.take(REGISTRAR, &closed(0, 459));
    fold.take(REGISTRAR, &data(1, 490));
    assert_eq!(fold.watermark(), at(1, 490));
}

#[test]
fn the_first_mark_of_an_epoch_counts() {
    let mut fold = fold(&[(0, register(0)), (0, register(1)), (1, data(0, 4)), (0, data(0, 9))]);
    fold.take(ShardId(1), &end(0, false));
    fold.take(ShardId(1), &end(0, true));
    assert_eq!(fold.watermark(), at(0, 4));
    fold.take(REGISTRAR, &closed(0, 4));
    fold.take(REGISTRAR, &closed(0, 9));
    assert_eq!(fold.registry().last_of(Epoch(0)), Some(Timestamp(4)));
    assert_eq!(fold.registry().open_epoch(), Epoch(1));
}

#[test]
fn only_the_last_part_of_a_record_moves_its_stream() {
    let part = Header { kind: Kind::Data as u8, flags: FLAG_MORE, timestamp: 5, ..Header::default() };
    assert_eq!(Mark::of(&part), Ok(None));
    assert_eq!(Mark::of(&Header { flags: 0, ..part }), Ok(Some(data(0, 5))));
    // Records without a stamp, and stamps that mean the ends of an epoch, move nothing.
    for timestamp in [0, u64::MAX] {
        assert_eq!(Mark::of(&Header { flags: 0, timestamp, ..part }), Ok(None));
    }
}

#[test]
fn every_mark_is_read_as_it_was_written_and_in_no_other_way() {
    let marks = [
        Mark::Open { floor: at(3, 4) },
        Mark::Advance(at(0, 9)),
        Mark::EndOfStream,
        end(7, true),
        end(7, false),
        register(8),
        closed(2, u64::MAX),
    ];
    for mark in marks {
        let (stamp, session, serial) = mark.fields();
        let header = Header {
            kind: Kind::Mark as u8,
            timestamp: stamp.timestamp.0,
            epoch: stamp.epoch.0,
            session,
            serial,
            ..Header::default()
        };
        assert_eq!(Mark::of(&header), Ok(Some(mark)));
        for changed in [
            Header { session: 9, ..header },
            Header { serial: header.serial + (1 << 40), ..header },
            Header { session: 0, ..header },
        ] {
            assert!(Mark::of(&changed).is_err(), "{changed:?}");
        }
    }
}

#[test]
fn deferred_entries_come_out_in_order_as_the_watermark_moves() {
    let mut replay = Replay::new(1 << 10);
    let mut give = |stream: u32, mark: Mark| replay.push(ShardId(stream), &mark, b"entry").unwrap();
    give(0, register(0));
    give(0, register(1));
    for timestamp in [3, 5, 8] {
        give(0, data(0, timestamp));
    }
    let mut out = Vec::new();
    assert_eq!(replay.drain(|_, _, _| unreachable!("stream 1 stands at nothing")), 0);
    replay.push(ShardId(1), &data(0, 6), b"other").unwrap();
    replay.drain(|stream, stamp, payload| out.push((stream.0, stamp.timestamp.0, payload.len())));
    assert_eq!(out, [(0, 3, 5), (0, 5, 5), (1, 6, 5)]);
    assert_eq!(replay.deferred_bytes(), 5 + replay::ENTRY_BYTES);
}

#[test]
fn a_full_queue_takes_no_more_of_its_stream_until_it_is_drained() {
    let mut replay = Replay::new(100);
    for stream in [0, 1] {
        replay.push(REGISTRAR, &register(stream), &[]).unwrap();
    }
    // One always fits, however long it is.
    replay.push(REGISTRAR, &data(0, 1), &[0; 500]).unwrap();
    assert_eq!(replay.push(REGISTRAR, &data(0, 2), &[0; 1]), Err(Full));
    assert_eq!(replay.fold().position(REGISTRAR).last(), at(0, 1), "nothing of it was taken");
    // The other has room of its own, and with it the first is drained.
    replay.push(ShardId(1), &data(0, 9), &[0; 100]).unwrap();
    assert_eq!(replay.drain(|_, _, _| ()), 1);
    replay.push(REGISTRAR, &data(0, 2), &[0; 1]).unwrap();
}

#[test]
fn the_dead_are_dropped_and_counted() {
    let mut replay = Replay::new(1 << 10);
    let history = [
        (0, register(0)),
        (0, register(1)),
        (0, data(0, 1)),
        (0, data(0, 9)),
        (1, data(0, 4)),
        (1, end(0, false)),
        (0, end(0, false)),
        (0, closed(0, 4)),
        (1, data(0, 5)),
    ];
    for (stream, mark) in history {
        replay.push(ShardId(stream), &mark, b"x").unwrap();
    }
    let mut out = Vec::new();
    replay.drain(|_, stamp, _| out.push(stamp));
    assert_eq!(out, [at(0, 1), at(0, 4)]);
    assert_eq!(replay.counters(), replay::Counters { replayed: 2, dead: 2 });
    assert_eq!(replay.deferred_bytes(), 0);
}

/// A node's board, written stream by stream, tells what the fold over the same marks does.
#[test]
fn a_board_tells_what_the_fold_does() {
    // Miri is slow.
    let rounds = if cfg!(miri) { 4 } else { 200 };
    let mut random = Chance(9);
    let mut moved = 0;
    for _ in 0..rounds {
        let streams = 3;
        let board = Board::new(streams);
        let (mut fold, mut registry) = (Fold::default(), fold::Registry::default());
        let mut positions = vec![Position::default(); streams as usize];
        let mut clock = 0;
        for step in 0..60 {
            let stream = if step < streams { 0 } else { random.below(u64::from(streams)) as u32 };
            clock += 1;
            let open = registry.open_epoch();
            let mark = match random.below(12) {
                _ if step < streams => register(step),
                0 => end(open.0, random.below(2) == 0),
                1 => Mark::Advance(at(open.0, clock)),
                2 if stream == 0 => match board.settled() {
                    Some((epoch, last)) => Mark::EpochClosed { epoch, last },
                    None => data(open.0, clock),
                },
                _ => data(open.0, clock),
            };
            let before = fold.watermark();
            fold.take(ShardId(stream), &mark);
            moved += usize::from(fold.watermark() > before);
            if stream == 0 {
                registry.take(&mark, &positions[0]);
                if let Mark::Register { stream } = mark {
                    board.register(stream, registry.floor(stream).unwrap());
                }
                if let Mark::EpochClosed { epoch, last } = mark {
                    board.close(Stamp::new(epoch, last));
                }
                assert_eq!(board.open_epoch(), registry.open_epoch());
            }
            positions[stream as usize].take(&mark);
            for (stream, position) in (0..).map(ShardId).zip(&mut positions) {
                position.forget_before(registry.open_epoch());
                board.publish(stream, position);
            }
            assert_eq!(board.watermark(), fold.watermark(), "after {mark:?} in stream {stream}");
            let least = board.vector().into_iter().map(|(_, stamp)| stamp).min().unwrap_or_default();
            assert_eq!(least, fold.watermark());
        }
    }
    assert!(moved > 5 * rounds, "the watermark moved {moved} times, which shows little");
}

#[test]
fn a_board_keeps_what_lives_of_the_last_epochs() {
    let board = Board::new(1);
    assert_eq!(board.ends(Epoch(0), board.open_epoch()).count(), 0);
    for epoch in 0..100 {
        board.close(at(epoch, u64::from(epoch) + 7));
        // Another leader has written it, too, and sees it otherwise: nobody counts that.
        board.close(at(epoch, 1));
        assert_eq!(board.open_epoch(), Epoch(epoch + 1));
    }
    let ends = |from, open| board.ends(Epoch(from), Epoch(open)).collect::<Vec<_>>();
    assert_eq!(ends(97, 100), [at(97, 104), at(98, 105), at(99, 106)]);
    assert_eq!(ends(0, 100), (36..100).map(|epoch| at(epoch, u64::from(epoch) + 7)).collect::<Vec<_>>());
    assert_eq!(ends(0, 37), [at(36, 43)], "those before had to make room");
    assert_eq!(ends(100, 100), []);
}
