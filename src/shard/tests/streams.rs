//! A lane whose one shard is an engine's stream, and the registrar: what the engine asks of it, and what the board
//! tells.

use alloc::sync::Arc;

use super::*;
use crate::engine::board::Board;
use crate::engine::{Mark, Position};
use crate::raft::Role;
use crate::types::Stamp;
use crate::wire::client::{StreamRequest, StreamStatus};

const LATER: Outcome = Outcome::EpochClosed { open: Epoch(1) };

/// A lane that leads its one shard, which is registered and open.
struct Engine {
    bench: Bench,
    board: Arc<Board>,
    next_request: u64,
}

impl Engine {
    fn start() -> Engine {
        let mut bench = Bench::new();
        let board = Arc::new(Board::new(2));
        bench.lane.serve_engine(Arc::clone(&board));
        let mut engine = Engine { bench, board, next_request: 1 };
        assert_eq!(engine.ask(StreamRequest::CutEpoch(Epoch(0))), Outcome::Unregistered);
        assert!(is_committed(engine.ask(StreamRequest::Register(ShardId(0)))));
        engine
    }

    /// Sends it and does not wait.
    fn send(&mut self, asked: StreamRequest) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.bench.send(ALICE, &[Request::Stream { request, shard: ShardId(0), asked }]);
        request
    }

    fn ask(&mut self, asked: StreamRequest) -> Outcome {
        let request = self.send(asked);
        self.answer_to(request)
    }

    fn put(&mut self, epoch: u32, timestamp: u64) -> Outcome {
        let request = self.next_request;
        self.next_request += 1;
        let stamped =
            Submit { epoch: Epoch(epoch), timestamp: Timestamp(timestamp), ..submit(request, b"data") };
        self.bench.send(ALICE, &[Request::Submit(stamped)]);
        self.answer_to(request)
    }

    /// A submit whose bytes were torn on their way.
    fn put_torn(&mut self, epoch: u32, timestamp: u64) -> Outcome {
        let request = self.next_request;
        self.next_request += 1;
        let stamped = Submit {
            epoch: Epoch(epoch),
            timestamp: Timestamp(timestamp),
            payload_crc: 0,
            ..submit(request, b"data")
        };
        self.bench.send(ALICE, &[Request::Submit(stamped)]);
        self.answer_to(request)
    }

    fn answer_to(&mut self, request: u64) -> Outcome {
        let told = self.bench.told(ALICE);
        told.into_iter().find(|(answered, _)| *answered == request).expect("it is answered").1
    }

    /// From now on BOB is told.
    fn subscribe(&mut self) {
        self.bench.send(BOB, &[Request::Subscribe { request: 1, shard: ShardId(0) }]);
    }

    /// What BOB is told in so many turns; what others are is lost.
    fn told_bob(&mut self, turns: usize) -> (Vec<StreamStatus>, Vec<Stamp>) {
        (0..turns).for_each(|_| self.bench.turn().unwrap());
        let (mut statuses, mut ends) = (Vec::new(), Vec::new());
        let frames = core::mem::take(&mut self.bench.port.0.borrow_mut().outbox);
        for (_, frame) in frames.into_iter().filter(|(to, _)| *to == BOB) {
            for reply in replies(&frame).unwrap() {
                match reply {
                    Reply::Stream { status, .. } => {
                        assert_eq!(
                            ends.last().map(|end: &Stamp| end.epoch < status.epoch),
                            ends.last().map(|_| true)
                        );
                        statuses.push(status);
                    }
                    Reply::EpochClosed { last, .. } => ends.push(last),
                    other => panic!("{other:?}"),
                }
            }
        }
        (statuses, ends)
    }

    /// The last that BOB is told: whether the stream takes records, is open, and in which epoch.
    fn last_told(&mut self) -> (bool, bool, Epoch) {
        let (statuses, _) = self.told_bob(4);
        let last = statuses.last().expect("something has changed");
        (last.takes_records, last.open, last.epoch)
    }

    /// The marks of the log.
    fn marks(&self) -> Vec<Mark> {
        let last = self.bench.lane.status(ShardId(0)).unwrap().last.index;
        let header = |index| self.bench.lane.peek(ShardId(0), Index(index)).unwrap();
        (1..=last.0).filter_map(|index| Mark::of(&header(index)).unwrap()).collect()
    }
}

fn is_committed(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

fn cut(epoch: u32) -> Mark {
    Mark::EndOfEpoch { epoch: Epoch(epoch), complete: false }
}

#[test]
fn an_engine_that_has_lost_what_it_had_begun_cuts_the_epoch() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    assert_eq!(engine.ask(StreamRequest::CutEpoch(Epoch(1))), Outcome::EpochClosed { open: Epoch(0) });
    assert!(is_committed(engine.ask(StreamRequest::CutEpoch(Epoch(0)))));
    assert!(engine.marks().contains(&cut(0)));
    assert!(engine.marks().contains(&Mark::EpochClosed { epoch: Epoch(0), last: Timestamp(10) }));
    // What the thread before it had still under way comes too late, and so does a second cut.
    assert_eq!(engine.put(0, 11), LATER);
    assert_eq!(engine.ask(StreamRequest::CutEpoch(Epoch(0))), LATER);
    assert!(is_committed(engine.put(1, 1)));
    assert_eq!(engine.board.watermark(), Stamp::new(Epoch(1), Timestamp(1)));
}

/// It was refused while the epoch was closing, and nothing told the engine when to come again.
#[test]
fn a_stream_ends_for_good_while_its_epoch_closes() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    engine.bench.disk().eager = false;
    let (cuts, ends) =
        (engine.send(StreamRequest::CutEpoch(Epoch(0))), engine.send(StreamRequest::EndOfStream));
    assert_eq!(engine.bench.told(ALICE), [], "both are laid, and neither is committed");
    assert_eq!(engine.ask(StreamRequest::CutEpoch(Epoch(0))), Outcome::Unregistered, "it has ended");
    engine.bench.disk().eager = true;
    let told = engine.bench.told(ALICE);
    assert!(told.iter().all(|(request, outcome)| [cuts, ends].contains(request) && is_committed(*outcome)));
    assert_eq!(told.len(), 2);
    // The epoch closes where the stream was cut, and not where it stands that has ended.
    assert!(engine.marks().contains(&Mark::EpochClosed { epoch: Epoch(0), last: Timestamp(10) }));
    assert_eq!(engine.board.watermark(), Stamp::NEVER);
}

/// Its end was laid and not committed when the others ended the epoch: the leader cut the epoch behind it.
#[test]
fn a_leader_that_has_laid_the_end_of_its_stream_cuts_nothing_behind_it() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.ask(StreamRequest::Register(ShardId(1)))));
    assert!(is_committed(engine.put(0, 10)));
    engine.bench.disk().eager = false;
    let request = engine.send(StreamRequest::EndOfStream);
    engine.bench.turn().unwrap();
    // Stream 1 lives in another lane, where the epoch ends.
    let mut position = Position::default();
    position.take(&cut(0));
    engine.board.publish(ShardId(1), &position);
    let grace = engine.bench.groups().options.epoch_grace;
    for _ in 0..4 {
        engine.bench.clock.0.set(engine.bench.clock.0.get() + grace.as_nanos() as u64);
        engine.bench.turn().unwrap();
    }
    engine.bench.disk().eager = true;
    assert!(is_committed(engine.answer_to(request)));
    assert!(!engine.marks().contains(&cut(0)), "{:?}", engine.marks());
}

/// Its opening was laid and not committed when its leader learnt that the epoch ends, and the leader said that all of
/// it is submitted. But the engine is told next that the stream is open, and what it begins then would be lost alone.
#[test]
fn a_stream_that_opens_as_its_epoch_ends_is_cut_and_not_complete() {
    let mut bench = Bench::new();
    let board = Arc::new(Board::new(2));
    bench.lane.serve_engine(Arc::clone(&board));
    let mut engine = Engine { bench, board, next_request: 1 };
    engine.subscribe();
    engine.told_bob(8);
    engine.bench.disk().eager = false;
    // Both are registered, as an earlier leader has left it.
    (0..2).for_each(|stream| engine.board.register(ShardId(stream), Stamp::ZERO));
    engine.told_bob(2);
    let opening = [Mark::Open { floor: Stamp::ZERO }];
    assert_eq!(engine.marks(), opening, "laid, and not committed");
    // Stream 1 lives in another lane, where the epoch ends.
    let mut position = Position::default();
    position.take(&cut(0));
    engine.board.publish(ShardId(1), &position);
    engine.told_bob(4);
    assert_eq!(engine.marks(), opening);
    engine.bench.disk().eager = true;
    let (statuses, _) = engine.told_bob(8);
    let last = statuses.last().expect("it is told that the stream is open");
    assert!(last.open && last.epoch == Epoch(0), "{last:?}");
    // The engine has its time to end the epoch by itself, as with any stream.
    assert_eq!(engine.marks(), opening);
    let grace = engine.bench.groups().options.epoch_grace;
    engine.bench.clock.0.set(engine.bench.clock.0.get() + grace.as_nanos() as u64);
    engine.told_bob(4);
    assert_eq!(engine.marks()[1], cut(0), "{:?}", engine.marks());
}

/// An engine that has several records under way and is refused one of them: the ones behind it were read from it,
/// perhaps, and the watermark must not pass it. This was possible when a transfer of leadership failed.
#[test]
fn nothing_passes_a_record_that_was_refused_until_it_comes_again() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    assert_eq!(engine.put_torn(0, 11), Outcome::Invalid);
    assert_eq!(engine.put(0, 12), Outcome::Busy);
    assert_eq!(engine.put(0, 13), Outcome::Busy);
    assert_eq!(engine.ask(StreamRequest::EndOfEpoch(Epoch(0))), Outcome::Busy);
    assert_eq!(engine.ask(StreamRequest::EndOfStream), Outcome::Busy);
    assert_eq!(engine.board.watermark(), Stamp::new(Epoch(0), Timestamp(10)));
    assert!(is_committed(engine.put(0, 11)));
    // The one after it was refused, too, and is as little to be passed.
    assert_eq!(engine.put(0, 14), Outcome::Busy);
    for timestamp in [12, 13, 14, 15] {
        assert!(is_committed(engine.put(0, timestamp)));
    }
    assert_eq!(engine.board.watermark(), Stamp::new(Epoch(0), Timestamp(15)));
}

#[test]
fn who_gives_a_refused_record_up_says_so() {
    let mut engine = Engine::start();
    assert_eq!(engine.put_torn(0, 11), Outcome::Invalid);
    assert!(is_committed(engine.ask(StreamRequest::Advance(Stamp::new(Epoch(0), Timestamp(11))))));
    assert!(is_committed(engine.put(0, 12)));
    // Others have read it: what they stamped after it dies with it.
    assert_eq!(engine.put_torn(0, 13), Outcome::Invalid);
    assert!(is_committed(engine.ask(StreamRequest::CutEpoch(Epoch(0)))));
    assert!(is_committed(engine.put(1, 1)));
}

/// What was refused before the stream was registered, or is behind it, was begun by nobody, and holds nothing up.
#[test]
fn a_refusal_of_what_cannot_be_next_holds_nothing_up() {
    let mut bench = Bench::new();
    let board = Arc::new(Board::new(2));
    bench.lane.serve_engine(Arc::clone(&board));
    let mut engine = Engine { bench, board, next_request: 1 };
    assert_eq!(engine.put_torn(0, 3), Outcome::Invalid);
    assert!(is_committed(engine.ask(StreamRequest::Register(ShardId(0)))));
    assert!(is_committed(engine.put(0, 5)));
    assert_eq!(engine.put_torn(0, 5), Outcome::Invalid);
    assert!(is_committed(engine.put(0, 6)));
    assert!(matches!(engine.put(0, 5), Outcome::Behind { .. }));
}

#[test]
fn a_stream_takes_no_records_from_when_its_end_is_laid_until_the_next_epoch_is_open() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    engine.subscribe();
    assert_eq!(engine.last_told(), (true, true, Epoch(0)));
    engine.bench.disk().eager = false;
    engine.send(StreamRequest::EndOfEpoch(Epoch(0)));
    assert_eq!(engine.last_told(), (false, true, Epoch(0)), "laid, and not committed");
    engine.bench.disk().eager = true;
    let (statuses, ends) = engine.told_bob(8);
    let last = statuses.last().unwrap();
    assert!(last.takes_records && last.epoch == Epoch(1), "{statuses:?}");
    assert!(statuses.iter().all(|status| !status.takes_records || status.epoch == Epoch(1)));
    assert_eq!(ends, [Stamp::end_of(Epoch(0))]);
    // Who comes later is told of it, too, and so is who was refused in between.
    engine.subscribe();
    assert_eq!(engine.told_bob(2).1, [Stamp::end_of(Epoch(0))]);
    assert!(is_committed(engine.put(1, 1)));
}

/// It leads, and the stream is open: and yet it would refuse a record.
#[test]
fn a_stream_takes_no_records_as_long_as_its_leader_owes_a_cut() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    engine.subscribe();
    assert_eq!(engine.last_told(), (true, true, Epoch(0)));
    // As if it had been elected again just now, with a first entry that is not there yet.
    let next = engine.bench.lane.status(ShardId(0)).unwrap().last.index.next();
    engine.bench.groups().shards[0].stream.changed(Role::Leader, next);
    assert_eq!(engine.last_told(), (false, true, Epoch(0)), "what is left by others is not known");
    assert_eq!(engine.put(0, 11), Outcome::Busy);
    engine.bench.disk().eager = false;
    engine
        .bench
        .send(ALICE, &[Request::Submit(Submit { timestamp: Timestamp(0), ..submit(1000, b"first") })]);
    assert_eq!(engine.told_bob(4).0, [], "nothing has changed");
    engine.bench.disk().eager = true;
    let (statuses, ends) = engine.told_bob(8);
    assert_eq!(ends, [Stamp::new(Epoch(0), Timestamp(10))]);
    assert!(statuses.iter().all(|status| status.takes_records == (status.epoch == Epoch(1))), "{statuses:?}");
    assert!(statuses.last().unwrap().takes_records);
    assert!(is_committed(engine.put(1, 1)));
}

#[test]
fn a_stream_takes_no_records_where_the_node_stops() {
    let mut engine = Engine::start();
    engine.subscribe();
    assert_eq!(engine.last_told(), (true, true, Epoch(0)));
    engine.bench.disk().eager = false;
    engine.bench.send(ALICE, &[Request::Submit(submit(1000, b"under way"))]);
    engine.bench.turn().unwrap();
    engine.bench.lane.drain();
    assert_eq!(engine.last_told(), (false, true, Epoch(0)));
    engine.send(StreamRequest::Advance(Stamp::new(Epoch(0), Timestamp(2000))));
    engine.bench.turn().unwrap();
    assert_eq!(engine.bench.said(ALICE), [(engine.next_request - 1, Outcome::Stopping)]);
}

/// A lane that was ahead of the registrar's had told where its stream stood when an earlier epoch ended, and that it
/// has ended this one, too. The two were taken together: the epoch was closed as if nothing of it lived, although the
/// watermark had covered it.
#[test]
fn an_epoch_closes_where_streams_stood_in_it_and_not_where_a_lane_saw_them_before() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.ask(StreamRequest::Register(ShardId(1)))));
    assert!(is_committed(engine.put(0, 10)));
    // Stream 1 lives in another lane of this node, which has read its log far while the registrar's has not moved: this
    // node was started again, and shard 1 had a leader before shard 0.
    let mut position = Position::default();
    for mark in [
        Mark::Open { floor: Stamp::ZERO },
        Mark::Data(Stamp::new(Epoch(0), Timestamp(12))),
        cut(0),
        Mark::Data(Stamp::new(Epoch(1), Timestamp(100))),
        cut(1),
    ] {
        position.take(&mark);
    }
    engine.board.publish(ShardId(1), &position);
    assert!(is_committed(engine.ask(StreamRequest::CutEpoch(Epoch(0)))));
    assert_eq!(engine.board.open_epoch(), Epoch(1));
    // That lane sleeps until it looks at the board again. The registrar's goes on.
    assert!(is_committed(engine.put(1, 90)));
    assert!(is_committed(engine.ask(StreamRequest::CutEpoch(Epoch(1)))));
    // Now it has looked.
    engine.board.publish(ShardId(1), &position);
    engine.told_bob(8);
    let ends: Vec<Mark> =
        engine.marks().into_iter().filter(|mark| matches!(mark, Mark::EpochClosed { .. })).collect();
    let closed = |epoch, last| Mark::EpochClosed { epoch: Epoch(epoch), last: Timestamp(last) };
    assert_eq!(ends, [closed(0, 10), closed(1, 90)]);
}

/// Every stream has ended, so each epoch was settled as soon as it was open: one mark after another, until the log was
/// full.
#[test]
fn when_every_stream_has_ended_nothing_more_is_written() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    assert!(is_committed(engine.ask(StreamRequest::EndOfStream)));
    let before = engine.marks().len();
    engine.told_bob(1000);
    assert_eq!((engine.marks().len(), engine.board.open_epoch()), (before, Epoch(0)));
}

/// A stream that was registered before the registrar counted alone, and the watermark went back when that came.
#[test]
fn the_registrar_is_the_first_to_be_registered() {
    let mut bench = Bench::new();
    let board = Arc::new(Board::new(2));
    bench.lane.serve_engine(Arc::clone(&board));
    let mut engine = Engine { bench, board, next_request: 1 };
    let first = engine.ask(StreamRequest::Register(ShardId(1)));
    let mut position = Position::default();
    position.take(&Mark::Open { floor: Stamp::ZERO });
    position.take(&Mark::Data(Stamp::new(Epoch(0), Timestamp(40))));
    engine.board.publish(ShardId(1), &position);
    let watermark = engine.board.watermark();
    assert!(is_committed(engine.ask(StreamRequest::Register(ShardId(0)))));
    assert!(engine.board.watermark() >= watermark, "it went back from {watermark}; the first was {first:?}");
    // What every replica makes of this log: it must not panic.
    let mut fold = crate::engine::Fold::default();
    for mark in engine.marks() {
        fold.take(ShardId(0), &mark);
        fold.take(ShardId(1), &Mark::Data(Stamp::new(Epoch(0), Timestamp(40))));
    }
}

/// One that was registered between the registrar's end of an epoch and the next one was not asked for an end of its
/// own, and a leader that knew of no later epoch spent the cut that it owed on the one that was over.
#[test]
fn no_stream_is_registered_between_the_registrars_end_of_an_epoch_and_the_next_one() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.put(0, 10)));
    engine.bench.disk().eager = false;
    engine.send(StreamRequest::EndOfEpoch(Epoch(0)));
    assert_eq!(engine.ask(StreamRequest::Register(ShardId(1))), Outcome::Busy, "laid, and not committed");
    engine.bench.disk().eager = true;
    // From turn to turn, as the end and then the epoch's close are committed.
    let mut busy = 0;
    loop {
        let request = engine.send(StreamRequest::Register(ShardId(1)));
        engine.bench.turn().unwrap();
        let told = engine.bench.said(ALICE);
        if engine.marks().contains(&Mark::Register { stream: ShardId(1) }) {
            break;
        }
        assert!(told.contains(&(request, Outcome::Busy)), "{told:?}");
        busy += 1;
        assert!(busy < 100, "it is never registered");
    }
    assert!(busy > 0, "no such moment, and nothing was shown");
    let marks = engine.marks();
    let registered = marks.iter().position(|mark| *mark == Mark::Register { stream: ShardId(1) }).unwrap();
    let closed = marks.iter().position(|mark| matches!(mark, Mark::EpochClosed { .. })).unwrap();
    assert!(closed < registered, "{marks:?}");
    engine.told_bob(4);
    assert_eq!(engine.board.floor(ShardId(1)), Some(Stamp::begin_of(Epoch(1))));
}

/// A thread that has heard from another node that the next epoch is open, before its leader's node knows: the first of
/// two records was refused and forgotten, and the second one taken.
#[test]
fn nothing_of_the_next_epoch_passes_a_record_that_came_before_it_was_open_here() {
    let mut engine = Engine::start();
    assert!(is_committed(engine.ask(StreamRequest::Register(ShardId(1)))));
    assert!(is_committed(engine.put(0, 10)));
    assert_eq!(
        engine.put(1, 5),
        Outcome::EpochClosed { open: Epoch(0) },
        "this stream has not ended this one"
    );
    assert!(is_committed(engine.ask(StreamRequest::EndOfEpoch(Epoch(0)))));
    assert_eq!(engine.put(2, 5), Outcome::EpochClosed { open: Epoch(0) });
    assert_eq!(engine.put(1, 5), Outcome::Busy);
    // Stream 1 lives in another lane, where the epoch ends, too.
    let mut position = Position::default();
    position.take(&cut(0));
    engine.board.publish(ShardId(1), &position);
    engine.told_bob(4);
    assert_eq!(engine.board.open_epoch(), Epoch(1));
    assert_eq!(engine.put(1, 6), Outcome::Busy, "it may have read the one that was refused");
    assert!(is_committed(engine.put(1, 5)));
    assert!(is_committed(engine.put(1, 6)));
}
