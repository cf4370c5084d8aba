//! The engine and the node are one process.

use plimsoll::client::ring::Attachment;
use plimsoll::io::ring::Sizes;
use plimsoll::node::{AttachError, Node};
use plimsoll::types::{Acks, Epoch, Timestamp};
use plimsoll::wire::attach::Refusal;
use plimsoll::wire::client::{Outcome, Reply};

use crate::*;

#[test]
fn threads_submit_side_by_side_and_the_log_has_it_all() {
    const RECORDS: u64 = 3000;
    let cluster = one_node("rings");
    let node = Node::start(cluster.config(NODE).clone()).unwrap();
    std::thread::scope(|scope| {
        for session in 1..=3 {
            let (desk, options) = (node.desk(), options(&cluster, session));
            scope.spawn(move || {
                let mut attachment = Attachment::embedded(&desk, options).unwrap();
                await_leader(&mut attachment);
                submit(&mut attachment, session, RECORDS, 40 + 100 * session as usize);
                // Longer than an entry: in parts.
                let long = record(session, RECORDS + 1, 3_000_000);
                attachment.submit(&long, Timestamp(1), Epoch(1), Acks::Quorum).unwrap();
                drain(&mut attachment);
                assert_eq!(attachment.outstanding(), 0);
            });
        }
    });
    let log = log_of(&cluster, 3 * (RECORDS + 1));
    (1..=3).for_each(|session| assert_whole(&log, session, RECORDS + 1));
    node.stopper().stop();
    node.wait().unwrap();
}

#[test]
fn a_second_attacher_is_refused_as_long_as_the_first_lives() {
    let cluster = one_node("rings-twice");
    let node = Node::start(cluster.config(NODE).clone()).unwrap();
    let desk = node.desk();
    let join = || Attachment::embedded(&desk, options(&cluster, 5));
    let mut first = join().unwrap();
    let refused = join().unwrap_err();
    assert!(matches!(refused, AttachError::Refused(Refusal::Held)), "{refused}");
    assert!(refused.to_string().contains("attached to the shard already"), "{refused}");
    await_leader(&mut first);
    submit(&mut first, 5, 10, 64);
    drop(first);
    let mut second = attach(join);
    submit(&mut second, 5, 1, 64);
    for (wrong, why) in [
        (Options { session: 0, ..options(&cluster, 1) }, Refusal::Session),
        (Options { shard: ShardId(9), ..options(&cluster, 1) }, Refusal::Shard { shards: 1 }),
        (
            Options { sizes: Sizes { submit_bytes: 4096, ..Sizes::default() }, ..options(&cluster, 1) },
            Refusal::Sizes,
        ),
    ] {
        let refused = Attachment::embedded(&desk, wrong).unwrap_err();
        assert!(matches!(&refused, AttachError::Refused(found) if *found == why), "{refused}");
    }
    // A node that stops says so: what is asked after that was not taken, and nobody attaches any more.
    node.stopper().stop();
    node.wait().unwrap();
    assert!(
        !second.is_attached() || {
            second.poll(|_| ());
            !second.is_attached()
        }
    );
    assert!(second.reserve(8).is_err());
    let refused = second.reattach().unwrap_err();
    assert!(matches!(refused, AttachError::Refused(Refusal::Stopping | Refusal::Held)), "{refused}");
}

/// Records that are no requests end the attachment that wrote them, and nothing else.
#[test]
fn garbage_ends_the_attachment_and_its_neighbours_go_on() {
    let cluster = one_node("rings-garbage");
    let node = Node::start(cluster.config(NODE).clone()).unwrap();
    let desk = node.desk();
    let mut neighbour = Attachment::embedded(&desk, options(&cluster, 1)).unwrap();
    await_leader(&mut neighbour);
    let mut random = 88_172_645_463_325_252_u64;
    for round in 0..200 {
        let mut seated = desk.attach(SHARD, 1000 + round, Sizes::default()).unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut room = seated.end.submits.reserve(1 + (random % 300) as usize).unwrap();
        let bytes = room.bytes();
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (random >> (at % 57)) as u8);
        if round % 2 == 0 {
            // The kind of a submit, so that its other fields are looked at.
            bytes[0] = 1;
        }
        room.publish();
        seated.waker.wake();
        let until = Instant::now() + PATIENCE;
        while !seated.end.is_left() {
            assert!(Instant::now() < until, "round {round}: garbage is believed");
            std::thread::yield_now();
        }
        submit(&mut neighbour, 1, 5, 64);
    }
    // What is well-formed and has another checksum is refused by itself.
    let mut seated = desk.attach(SHARD, 7, Sizes::default()).unwrap();
    let submit = plimsoll::wire::client::Submit {
        request: 0,
        shard: SHARD,
        acks: Acks::Quorum,
        timestamp: Timestamp(0),
        epoch: Epoch(0),
        session: 7,
        serial: 1,
        payload_crc: 1,
        more_bytes: 0,
        payload: b"torn",
    };
    let row = plimsoll::wire::client::Request::Submit(submit).encode();
    let mut room = seated.end.submits.reserve(60).unwrap();
    room.bytes()[..56].copy_from_slice(&row[..56]);
    room.bytes()[56..].copy_from_slice(b"torn");
    room.publish();
    seated.waker.wake();
    let until = Instant::now() + PATIENCE;
    while !seated.end.completions.has_something() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    let frame = seated.end.completions.peek().unwrap().unwrap();
    let replies: Vec<Reply<'_>> = plimsoll::wire::client::replies(frame).unwrap().collect();
    assert_eq!(replies, [Reply::Outcome { request: 0, outcome: Outcome::Invalid }]);
    assert_whole(&log_of(&cluster, 1000), 1, 1000);
}
