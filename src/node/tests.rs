//! A node of two lanes that its program does not wait for, and of which one lane fails.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config::Member;
use super::identity::DataDir;
use super::*;
use crate::client::ring::{Attachment, Options, RingError};
use crate::limits::ENTRY_PAYLOAD_BYTES_MAX;
use crate::types::{Acks, Epoch, NodeId, ShardId, Timestamp};
use crate::wire::attach::Refusal;

/// For what must happen, and does within moments.
const PATIENCE: Duration = Duration::from_secs(20);

const FAILING: LaneId = LaneId(1);

/// The lanes that are to panic, by the directories of their nodes.
static DOOMED: Mutex<Vec<(PathBuf, LaneId)>> = Mutex::new(Vec::new());

/// Called by every lane in every turn.
pub(super) fn panic_if_doomed(data_dir: &Path, lane: LaneId) {
    let doomed = DOOMED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_doomed = doomed.iter().any(|(node, doomed)| node == data_dir && *doomed == lane);
    drop(doomed);
    assert!(!is_doomed, "as the test wants it");
}

/// A node alone of two lanes with a shard each; what it leaves is gone with the test.
struct Alone {
    directory: PathBuf,
    config: Config,
    node: Option<Node>,
}

impl Alone {
    fn start(name: &str) -> Alone {
        let directory = std::env::temp_dir().join(format!("plimsoll-node-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let (peer, client) = (two_ports(), two_ports());
        let member = Member { id: 1, peer, client };
        let mut config = Config::new(name, NodeId(1), directory.join("data"), vec![member]);
        (config.lanes, config.shards) = (2, 2);
        config.log.segment_mib = 8;
        config.log.capacity_mib = Some(64);
        config.memory.chunks = 4;
        config.cpu.shared = true;
        config.engine.socket = Some(directory.join("socket"));
        let node = Node::start(config.clone()).unwrap();
        Alone { directory, config, node: Some(node) }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn attach(&self, shard: u32) -> Attachment {
        let options = Options::new(self.config.cluster_id(), ShardId(shard), 7);
        Attachment::embedded(&self.node().desk(), options).unwrap()
    }

    /// The lane that has not failed lets its engine go, without anybody having asked the node to stop or waited for it.
    /// Then: why.
    fn stops_wholly(mut self, healthy: &mut Attachment) -> NodeError {
        let until = Instant::now() + PATIENCE;
        while healthy.is_attached() {
            assert!(Instant::now() < until, "the other lane serves on");
            healthy.wait(PATIENCE);
            healthy.poll(|_| ());
        }
        let error = healthy.reserve(8).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("it has stopped"), "it says farewell: {error}");
        let options = Options::new(self.config.cluster_id(), ShardId(0), 8);
        let why = self.node.take().unwrap().wait().unwrap_err();
        assert!(!self.directory.join("socket").exists(), "engines are let in");
        // Nothing of it is left that would be in the way of the next life.
        let next = Node::start(self.config.clone()).unwrap();
        let desk = next.desk();
        drop(next);
        let refused = Attachment::embedded(&desk, options).unwrap_err();
        assert!(matches!(refused, AttachError::Refused(Refusal::Stopping)), "{refused}");
        DataDir::open(&self.config).expect("a node that is dropped has let go of its directory");
        why
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.node.take());
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The first of two in a row that were free a moment ago.
fn two_ports() -> SocketAddr {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let next = config::lane_address(first, LaneId(1));
        if next != first && TcpListener::bind(next).is_ok() {
            return first;
        }
    }
}

#[test]
fn a_lane_whose_disk_fails_stops_an_embedded_node_of_which_nobody_waits() {
    let alone = Alone::start("disk");
    let (mut healthy, mut failing) = (alone.attach(0), alone.attach(1));
    // The segment in use can be written; there is no place for another.
    let lane_directory = alone.config.log_directory(FAILING);
    let away = alone.directory.join("away");
    std::fs::rename(&lane_directory, &away).unwrap();
    let record = [7; ENTRY_PAYLOAD_BYTES_MAX / 2];
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the disk does not fail");
        match failing.submit(&record, Timestamp(1), Epoch(1), Acks::Quorum) {
            Ok(_) => {}
            Err(RingError::Busy) => assert!(failing.wait(PATIENCE)),
            Err(RingError::Ended(_)) => break,
            Err(error) => panic!("{error}"),
        }
        failing.poll(|_| ());
    }
    std::fs::rename(&away, &lane_directory).unwrap();
    match alone.stops_wholly(&mut healthy) {
        NodeError::Disk { lane: FAILING, error } => assert!(error.place.contains("lane-0001"), "{error}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_lane_that_panics_stops_an_embedded_node_of_which_nobody_waits() {
    let alone = Alone::start("panic");
    let (mut healthy, mut failing) = (alone.attach(0), alone.attach(1));
    let doomed = (alone.config.data_dir.clone(), FAILING);
    DOOMED.lock().unwrap().push(doomed.clone());
    alone.node().stopper().doors[usize::from(FAILING.0)].waker().wake();
    let until = Instant::now() + PATIENCE;
    while failing.is_attached() {
        assert!(Instant::now() < until, "the lane lives on");
        failing.wait(PATIENCE);
        failing.poll(|_| ());
    }
    DOOMED.lock().unwrap().retain(|other| *other != doomed);
    assert_eq!(alone.stops_wholly(&mut healthy), NodeError::Panicked { lane: FAILING });
}
