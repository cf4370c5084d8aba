//! The engine and the node are two processes, and either may die.

use plimsoll::client::ring::Attachment;
use plimsoll::types::{Acks, Epoch, Timestamp};
use plimsoll::wire::client::{Outcome, Reply};

use crate::child::Engine;
use crate::*;

#[test]
fn an_engine_that_dies_within_a_record_leaves_nothing_behind() {
    let mut cluster = one_node("rings-killed");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let mut neighbour = Attachment::connect(socket(&cluster), options(&cluster, 2)).unwrap();
    let mut engine = Engine::start(socket(&cluster), cluster.config(NODE).cluster_id(), 1);
    engine.await_reserved();
    let refused = Attachment::connect(socket(&cluster), options(&cluster, 1)).unwrap_err();
    assert!(matches!(refused, AttachError::Refused(Refusal::Held)), "{refused}");
    engine.kill();
    submit(&mut neighbour, 2, 100, 64);
    // The same session again, from where its records end.
    let first_serial = child::RECORDS + 1;
    let mut again =
        attach(|| Attachment::connect(socket(&cluster), Options { first_serial, ..options(&cluster, 1) }));
    submit(&mut again, 1, 100, 64);
    let log = log_of(&cluster, child::RECORDS + 200);
    assert_whole(&log, 1, child::RECORDS + 100);
    assert_whole(&log, 2, 100);
    cluster.check().unwrap();
}

#[test]
fn a_node_that_comes_back_is_found_again() {
    let mut cluster = one_node("rings-node-killed");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let mut attachment = Attachment::connect(socket(&cluster), options(&cluster, 1)).unwrap();
    submit(&mut attachment, 1, 50, 64);
    cluster.kill(NODE).unwrap();
    // Published, and nobody is there to take it: in doubt.
    let bytes = record(1, attachment.next_serial(), 64);
    let lost = attachment.submit(&bytes, Timestamp(51), Epoch(1), Acks::Quorum).unwrap();
    assert!(attachment.wait(PATIENCE), "the node's end is noticed");
    let mut ends = Vec::new();
    attachment.poll(|reply| {
        let Reply::Outcome { request, outcome } = reply else { panic!("{reply:?}") };
        ends.push((request, outcome));
    });
    assert_eq!(ends, [(lost.0, Outcome::Unknown)]);
    assert!(!attachment.is_attached() && matches!(attachment.reserve(8), Err(RingError::Ended(_))));
    assert!(attachment.reattach().is_err(), "it is not there yet");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let until = Instant::now() + PATIENCE;
    while let Err(error) = attachment.reattach() {
        assert!(Instant::now() < until, "{error}");
        std::thread::yield_now();
    }
    assert!(attachment.is_attached());
    await_leader(&mut attachment);
    submit(&mut attachment, 1, 50, 64);
    let log = log_of(&cluster, 100);
    let serials: Vec<u64> = log.iter().map(|(_, serial, _)| *serial).collect();
    assert!(serials.iter().copied().eq((1..=50).chain(52..=101)), "{serials:?}");
}
