//! What an engine's thread is told of a node that is started again: when it takes records, and what has become of the
//! epoch.

use plimsoll::client::ring::{Event, Stream, StreamRole};
use plimsoll::node::Node;
use plimsoll::raft::Role;
use plimsoll::types::Stamp;

use crate::streams::{Engine, at, is_committed};
use crate::*;

const STREAMS: usize = 2;

/// A thread's stream through the socket, and all that it was told.
struct Thread {
    stream: Stream,
    roles: Vec<StreamRole>,
    ends: Vec<Stamp>,
    outcomes: Vec<Outcome>,
    is_detached: bool,
}

impl Thread {
    fn new(cluster: &Cluster, shard: u32) -> Thread {
        let options = Options { shard: ShardId(shard), ..options(cluster, 8) };
        let stream = Stream::new(Attachment::connect(socket(cluster), options).unwrap());
        Thread { stream, roles: Vec::new(), ends: Vec::new(), outcomes: Vec::new(), is_detached: false }
    }

    fn poll(&mut self) {
        let Thread { stream, roles, ends, outcomes, is_detached } = self;
        stream.wait(Duration::from_millis(5));
        stream.poll(|event| match event {
            Event::Role(role) => roles.push(role),
            Event::EpochClosed(last) => ends.push(last),
            Event::Ended { outcome, .. } => outcomes.push(outcome),
            Event::Detached => *is_detached = true,
            Event::Watermark(_) => {}
            event => panic!("{event:?}"),
        });
    }

    fn put(&mut self, stamp: Stamp) {
        let Stamp { epoch, timestamp } = stamp;
        self.stream.attachment().submit(b"an entry", timestamp, epoch, Acks::Quorum).unwrap();
        let before = self.outcomes.len();
        let until = Instant::now() + PATIENCE;
        while self.outcomes.len() == before {
            assert!(Instant::now() < until, "no outcome");
            self.poll();
        }
        assert!(is_committed(self.outcomes[before]), "{:?} after {:?}", self.outcomes, self.stream.role());
    }
}

fn poll_until(threads: &mut [Thread], what: &str, is_it: impl Fn(&Thread) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !threads.iter().all(&is_it) {
        assert!(Instant::now() < until, "{what}");
        threads.iter_mut().for_each(Thread::poll);
    }
}

/// The only node of its cluster comes to lead its shards again, with streams that are open: each time it owes the epoch
/// a cut in every one of them, and takes nothing before the next epoch. What is told while it owes one, `replicas`
/// looks at.
#[test]
fn who_leads_again_takes_records_in_the_next_epoch_only_and_says_so() {
    let mut engine = Engine::start("told-again");
    engine.register();
    assert!(is_committed(engine.streams[0].put(0, 10)));
    assert!(is_committed(engine.streams[1].put(0, 12)));
    let Engine { cluster, mut node, streams, board } = engine;
    drop((streams, board));
    let mut threads: Vec<_> = (0..STREAMS as u32).map(|shard| Thread::new(&cluster, shard)).collect();
    poll_until(&mut threads, "it takes records", |thread| thread.stream.may_submit());
    let mut expected = Vec::new();
    for epoch in 1..=2 {
        node.stopper().stop();
        node.wait().unwrap();
        if epoch == 1 {
            poll_until(&mut threads, "the node is gone", |thread| thread.is_detached);
            assert!(threads.iter().all(|thread| !thread.stream.may_submit()));
        } else {
            // Found by what it would submit, and not polled for: it was once told nothing any more, for good.
            for thread in &mut threads {
                let refused = thread.stream.attachment().reserve(8).map(drop);
                assert!(matches!(refused, Err(RingError::Ended(_))), "{refused:?}");
            }
        }
        node = Node::start(cluster.config(NODE).clone()).unwrap();
        for thread in &mut threads {
            (thread.is_detached, thread.roles) = (false, Vec::new());
            thread.stream.reattach().unwrap();
            assert_eq!(thread.stream.role(), None);
        }
        poll_until(&mut threads, "it takes records again", |thread| thread.stream.may_submit());
        expected.push(at(epoch - 1, if epoch == 1 { 10 } else { 7 }));
        for thread in &mut threads {
            // First it reads its log, and is told of as it does.
            let mut taking = thread.roles.iter().filter(|role| role.takes_records);
            assert!(taking.clone().count() > 0);
            assert!(
                taking.all(|role| role.epoch == Epoch(epoch) && role.role == Role::Leader && role.open),
                "{:?}",
                thread.roles
            );
            assert_eq!(thread.ends, expected);
            assert_eq!(thread.stream.epoch_closed(), expected.last().copied());
        }
        // What it says is so: each is taken at the first attempt.
        for (thread, timestamp) in threads.iter_mut().zip([7, 9]) {
            thread.put(at(epoch, timestamp));
        }
    }
    drop(threads);
    node.stopper().stop();
    node.wait().unwrap();
}
