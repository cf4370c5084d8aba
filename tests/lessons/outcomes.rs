//! Every submit ends, once, and what is counted is what has no end yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use plimsoll::client::ring::{Attachment, RingError};
use plimsoll::local::Shape;
use plimsoll::node::Node;
use plimsoll::types::{Acks, Epoch, NodeId, Stamp, Timestamp};
use plimsoll::wire::client::{Outcome, Reply};
use rustix::process::Signal;

use crate::rack::{
    Found, Rack, assert_committed, cluster_with_sockets, connect, read, read_all, small, submit, submit_all,
    take,
};
use crate::{PATIENCE, turn};

/// What became of the records of one session, by serial.
#[derive(Debug, Default)]
struct Books {
    session: u64,
    serials: BTreeMap<u64, u64>,
    ends: BTreeMap<u64, Outcome>,
}

impl Books {
    fn new(session: u64) -> Books {
        Books { session, ..Books::default() }
    }

    /// Submits one more; false: the ring takes none now.
    fn submit(&mut self, ring: &mut Attachment) -> Result<bool, RingError> {
        let serial = ring.next_serial();
        match ring.submit(&serial.to_le_bytes(), Timestamp(0), Epoch(0), Acks::Quorum) {
            Ok(request) => {
                assert_eq!(self.serials.insert(request.0, serial), None);
                Ok(true)
            }
            Err(RingError::Busy) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn poll(&mut self, ring: &mut Attachment) {
        ring.poll(|reply| {
            let Reply::Outcome { request, outcome } = reply else { panic!("{reply:?}") };
            let serial = self.serials[&request];
            assert_eq!(self.ends.insert(serial, outcome), None, "{serial} has ended twice");
        });
    }

    /// Until everything has an end.
    fn settle(&mut self, ring: &mut Attachment) {
        let until = Instant::now() + PATIENCE;
        while ring.outstanding() > 0 {
            assert!(Instant::now() < until, "{} never ended", ring.outstanding());
            ring.wait(Duration::from_millis(100));
            self.poll(ring);
        }
        assert_eq!(self.ends.len(), self.serials.len());
    }

    fn committed(&self) -> usize {
        self.ends.values().filter(|outcome| matches!(outcome, Outcome::Committed { .. })).count()
    }

    fn unknown(&self) -> usize {
        self.ends.values().filter(|outcome| **outcome == Outcome::Unknown).count()
    }

    /// The log has what was committed, perhaps what is unknown, nothing else, and all in order.
    fn check(&self, log: &[Found]) {
        let mut missing: BTreeSet<u64> = self.ends.keys().copied().collect();
        let mut last = 0;
        for found in log.iter().filter(|found| found.session == self.session) {
            let Some(Outcome::Committed { .. } | Outcome::Unknown) = self.ends.get(&found.serial) else {
                panic!("{} ended as {:?} and is there", found.serial, self.ends.get(&found.serial));
            };
            assert!(found.serial > last, "{} is there after {last}", found.serial);
            assert_eq!(found.payload, found.serial.to_le_bytes());
            (last, _) = (found.serial, missing.remove(&found.serial));
        }
        for serial in missing {
            let end = self.ends[&serial];
            assert!(!matches!(end, Outcome::Committed { .. }), "{serial} was committed and is not there");
        }
    }
}

#[test]
fn n03_every_submit_ends_once_whoever_leads_and_dies() {
    const IN_FLIGHT: usize = 64;
    let _turn = turn();
    let mut cluster = cluster_with_sockets("outcomes", small());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let mut all = Vec::new();
    // A follower refuses, and says who leads.
    for follower in cluster.ids().into_iter().filter(|id| *id != leader) {
        let session = 10 + u64::from(follower.0);
        let (mut ring, mut books) = (connect(&cluster, follower, session), Books::new(session));
        for _ in 0..100 {
            assert!(books.submit(&mut ring).unwrap());
        }
        books.settle(&mut ring);
        let refused = Outcome::NotLeader { leader: Some(leader) };
        assert!(books.ends.len() == 100 && books.ends.values().all(|end| *end == refused), "{books:?}");
        all.push(books);
    }
    // The leader is killed with some under way, and some are submitted before that is noticed.
    let (mut ring, mut books) = (connect(&cluster, leader, 1), Books::new(1));
    while books.committed() < 500 {
        while ring.outstanding() < IN_FLIGHT && books.submit(&mut ring).unwrap() {}
        ring.wait(PATIENCE);
        books.poll(&mut ring);
    }
    while ring.outstanding() < IN_FLIGHT && books.submit(&mut ring).unwrap() {}
    cluster.kill(leader).unwrap();
    assert!(books.submit(&mut ring).unwrap());
    books.settle(&mut ring);
    assert!(books.unknown() > 0 && books.committed() + books.unknown() == books.ends.len(), "{books:?}");
    assert!(matches!(books.submit(&mut ring), Err(RingError::Ended(_))));
    all.push(books);

    let next = cluster.await_leaders().unwrap()[0];
    let log = read_all(&cluster, next, &mut connect(&cluster, next, 2));
    all.iter().for_each(|books| books.check(&log));
}

/// Every thread of a process is stopped.
fn await_stopped(pid: u32) {
    let until = Instant::now() + PATIENCE;
    let is_stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        // The state comes after the name, which is in brackets and may hold anything.
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    while !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| is_stopped(task.unwrap())) {
        assert!(Instant::now() < until, "it runs on");
        std::thread::yield_now();
    }
}

#[test]
fn n06_what_is_outstanding_has_no_outcome_and_waiting_ends_by_commits() {
    let _turn = turn();
    let node = NodeId(1);
    let mut cluster = cluster_with_sockets("outstanding", Shape { nodes: 1, ..small() });
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    // The log is longer than what either of the next two has submitted.
    submit_all(&mut connect(&cluster, node, 1), &vec![b"earlier".to_vec(); 100]);
    let (mut one, mut other) = (connect(&cluster, node, 2), connect(&cluster, node, 3));
    assert_eq!((one.outstanding(), other.outstanding()), (0, 0));

    cluster.signal(node, Signal::STOP).unwrap();
    await_stopped(cluster.pid(node).unwrap());
    for number in 1..=10 {
        submit(&mut one, b"of one", Stamp::ZERO, assert_committed);
        assert_eq!(one.outstanding(), number);
    }
    for _ in 0..5 {
        submit(&mut other, b"of the other", Stamp::ZERO, assert_committed);
    }
    // Nothing commits: waiting ends with its time, and nothing has changed.
    assert!(!one.wait(Duration::from_millis(100)));
    assert_eq!(one.poll(|reply| panic!("{reply:?}")), 0);
    assert_eq!((one.outstanding(), other.outstanding()), (10, 5));

    cluster.signal(node, Signal::CONT).unwrap();
    for (ring, count) in [(&mut one, 10), (&mut other, 5)] {
        let mut committed = 0;
        while ring.outstanding() > 0 {
            take(ring, |_, outcome| {
                assert_committed(0, outcome);
                committed += 1;
            });
            assert_eq!(ring.outstanding(), count - committed);
        }
        assert_eq!(committed, count);
    }
    assert_eq!(read(&cluster, node, 115).len(), 115);
}

/// Keeps records under way until the node has gone.
fn load(mut ring: Attachment, session: u64, committed: &AtomicU64) -> Books {
    const IN_FLIGHT: usize = 64;
    let mut books = Books::new(session);
    loop {
        match books.submit(&mut ring) {
            Ok(true) if ring.outstanding() < IN_FLIGHT => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        ring.wait(Duration::from_millis(20));
        let before = books.committed();
        books.poll(&mut ring);
        committed.fetch_add((books.committed() - before) as u64, Ordering::Relaxed);
    }
    books.settle(&mut ring);
    books
}

/// Stops nodes, the engine's threads still submitting, and says when one does not come to its end.
fn stop_in_time(nodes: Vec<Node>) {
    let (ended, ends) = channel();
    nodes.iter().for_each(|node| node.stopper().stop());
    for node in nodes {
        let ended = ended.clone();
        std::thread::spawn(move || ended.send(node.wait()));
    }
    drop(ended);
    let until = Instant::now() + PATIENCE;
    loop {
        match ends.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(stopped) => stopped.unwrap(),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            Err(error) => panic!("a node that is stopped under load hangs: {error}"),
        }
    }
}

#[test]
fn n13_a_node_stopped_under_load_ends_what_it_took_and_hangs_nobody() {
    const THREADS: u64 = 3;
    let _turn = turn();
    let mut rack = Rack::start("stop", &small());
    let mut all = Vec::new();
    for round in 0..2 {
        let leader = rack.leader();
        let committed = AtomicU64::new(0);
        let books = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=THREADS)
                .map(|thread| {
                    let session = 10 * round + thread;
                    let (ring, committed) = (rack.attach(leader, 0, session), &committed);
                    scope.spawn(move || load(ring, session, committed))
                })
                .collect();
            let until = Instant::now() + PATIENCE;
            while committed.load(Ordering::Relaxed) < 1000 {
                assert!(Instant::now() < until, "nothing commits");
                std::thread::yield_now();
            }
            // First the leader alone; then all that are left, of which none can hand over.
            let stopped = if round == 0 { vec![leader] } else { rack.running() };
            stop_in_time(stopped.into_iter().map(|id| rack.take(id)).collect());
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        if round == 0 {
            let unknown: usize = books.iter().map(Books::unknown).sum();
            assert_eq!(unknown, 0, "it handed over in good order, so what it took has an outcome");
        }
        all.extend(books);
    }
    // What was said is so, also after all have come back.
    rack.start_all();
    let leader = rack.leader();
    let mut ring = rack.attach(leader, 0, 99);
    let log = read_all(&rack.cluster, leader, &mut ring);
    all.iter().for_each(|books| books.check(&log));
    drop(ring);
    rack.stop_all();
}
