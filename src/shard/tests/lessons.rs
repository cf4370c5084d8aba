//! Of the fifteen lessons of `tests/lessons`, those that a lane shows best whose time and peers are a test's.

use super::peers::{THREE, TWO, append, entries};
use super::*;
use crate::raft::message::{Ack, Message};

/// An idle lane was woken by a timer of a millisecond, its replies were looked for every millisecond, and applying
/// slept one: 2.3 of the 2.6 ms of a commit. Here nothing on the way of a commit needs the time to move at all.
#[test]
fn n11_a_commit_waits_for_no_timer() {
    let mut bench = Bench::of_leader();
    bench.settle();
    let now = bench.clock.0.get();
    for request in 1..=100 {
        bench.send(ALICE, &[Request::Submit(submit(request, b"a record"))]);
        // One turn lays it, sends it and gives it to the disk; one takes in what disk and peers say to that, and
        // answers.
        assert!(bench.lane.turn().unwrap().work > 0);
        bench.serve_peers();
        assert!(bench.lane.turn().unwrap().work > 0);
        let said = bench.said(ALICE);
        assert!(
            matches!(said[..], [(of, Outcome::Committed { .. })] if of == request),
            "{request}: {said:?}"
        );
        // And one takes in whoever of the peers was not needed.
        bench.lane.turn().unwrap();
    }
    assert_eq!(bench.clock.0.get(), now);

    // A follower acknowledges what it was sent in the turn in which its disk is done.
    let mut bench = Bench::of(3, 16);
    bench.turn().unwrap();
    let now = bench.clock.0.get();
    let mut last = EntryId::default();
    for index in 1..=100 {
        let message = append(Term(1), last, 1, index - 1);
        bench.hear(TWO, &message, &entries(Term(1), index, &[b"a record"]));
        last = EntryId { term: Term(1), index: Index(index) };
        (0..2).for_each(|_| assert!(bench.lane.turn().unwrap().work > 0));
        let mut acks = bench.sent().into_iter().filter_map(|(to, message)| match message {
            Message::Appended(ack) => Some((to, ack.matched())),
            _ => None,
        });
        assert_eq!(acks.next_back(), Some((TWO, Index(index))));
    }
    assert_eq!(bench.clock.0.get(), now);
}

/// One group for all partitions let each wait for every other. Here two shards share even a lane, and one has no
/// quorum.
#[test]
fn n12_a_shard_without_a_quorum_holds_no_other_of_its_lane_up() {
    let mut bench = Bench::of_shards(3, 2, 16);
    let (stalled, goes_on) = (ShardId(0), ShardId(1));
    while [stalled, goes_on].iter().any(|shard| bench.lane.status(*shard).unwrap().commit == Index(0)) {
        bench.lead(1, &[TWO, THREE]);
    }
    bench.settle();
    // From now on nobody hears what is said of the one shard.
    bench.send(ALICE, &[Request::Submit(Submit { shard: stalled, ..submit(1000, b"waits") })]);
    for request in 1..=100 {
        let requests = [Request::Submit(Submit { shard: goes_on, ..submit(request, b"goes on") })];
        bench.send(BOB, &requests);
        bench.lane.turn().unwrap();
        for (to, shard, message) in bench.sent_of_shards() {
            if let (true, Message::Append { term, previous, count, round, .. }) = (shard == goes_on, message)
            {
                let matched = Index(previous.index.0 + u64::from(count));
                bench.hear_of(to, shard, &Message::Appended(Ack::received(term, matched, round)), &[]);
            }
        }
        bench.lane.turn().unwrap();
        let frames = core::mem::take(&mut bench.port.0.borrow_mut().outbox);
        let told: Vec<_> =
            frames.iter().flat_map(|(to, frame)| replies(frame).unwrap().map(|it| (*to, it))).collect();
        assert!(
            matches!(told[..], [(BOB, Reply::Outcome { request: of, outcome: Outcome::Committed { .. } })] if of == request),
            "{request}: {told:?}"
        );
    }
    assert_eq!(bench.lane.waiting(), 1, "the one of the stalled shard has no outcome yet");
}

/// A record that no frame could carry was sent again for ever. One that is too long is refused at its first part, and
/// what comes of it after that is passed over.
#[test]
fn n10_a_record_longer_than_the_longest_is_refused_once() {
    let mut bench = Bench::new();
    let payload = [7; 1000];
    let mut more_bytes = RECORD_BYTES_MAX;
    for _ in 0..10 {
        bench.send(ALICE, &[Request::Submit(part(1, &payload, more_bytes))]);
        more_bytes -= payload.len();
    }
    bench.send(ALICE, &[Request::Submit(submit(2, b"the next one"))]);
    assert_eq!(bench.told(ALICE), [(1, Outcome::Invalid), committed(2, 2)]);
    assert_eq!(bench.groups().ingress.assembling_bytes(), 0);
}
