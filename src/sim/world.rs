//! The world: nodes that run the production lane, everything that happens to them in the order of time, and the eyes
//! of the oracles after each turn.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::clients::Clients;
use super::clock::SimClock;
use super::disk::SimDisk;
use super::engine::Engine;
use super::fabric::{Event, Fabric, Shared, Trouble};
use super::net::{NetEvent, SimLink, node_id, node_of};
use super::oracle::Content;
use super::plan::Plan;
use super::port::SimPort;
use super::random::mix;
use super::trace::Note;
use crate::engine::board::Board;
use crate::io::Park;
use crate::io::pool::Pool;
use crate::log::{self, Log, OpenError};
use crate::raft::{COMMIT_NOTICE, Change, Role};
use crate::shard::{Lane, Observer, Options, Stopped};
use crate::types::{ClusterId, EntryId, Index, LaneId, ShardId};

/// What a lane gets instead of a machine.
pub(super) struct SimWorld;

impl crate::shard::World for SimWorld {
    type Disk = SimDisk;
    type Link = SimLink;
    type Port = SimPort;
    type Clock = SimClock;
    type Park = SimPark;
    type Observer = SimObserver;
}

/// Nothing blocks here: the world wakes a lane when something comes or its time has come.
pub(super) struct SimPark;

impl Park for SimPark {
    fn poll(&mut self) {}
    fn kick(&mut self) {}
    fn park(&mut self, _timeout: Duration) {
        unreachable!("the world runs the turns")
    }
}

/// Hands what a lane says to the world.
pub(super) struct SimObserver {
    fabric: Shared,
    node: usize,
}

impl Observer for SimObserver {
    fn changed(&mut self, shard: ShardId, change: Change) {
        let mut fabric = self.fabric.borrow_mut();
        fabric.note(self.node, Note::Changed { shard, change });
        if change.role != Role::Leader || fabric.calm {
            return;
        }
        let (hunt_ppm, strand_ppm) = (fabric.plan.hunt_ppm, fabric.plan.strand_ppm);
        if strand_ppm > 0 && fabric.random.chance(strand_ppm) {
            fabric.strand(self.node);
        }
        if fabric.random.chance(hunt_ppm) {
            // Somewhere between its first append and its first commit.
            let after_ns = fabric.plan.net.delay_max_ns + fabric.plan.disk.write_max_ns;
            let at_ns = fabric.now_ns + fabric.random.skewed(1, 3 * after_ns);
            fabric.schedule(at_ns, Event::Hunt { node: self.node });
        }
    }

    fn malformed(&mut self, peer: crate::types::NodeId, what: &dyn core::fmt::Display) {
        let mut fabric = self.fabric.borrow_mut();
        if fabric.plan.net.corrupt_ppm == 0 {
            let (node, peer) = (self.node + 1, node_of(peer) + 1);
            fabric.oracle.fail(format!("node {node} does not understand node {peer}: {what}"));
        }
    }
}

/// The requests that may wait in a lane: all that the clients may have under way, with room for reconnects.
const WAITING_MAX: usize = 4096;

/// Chunks of a node's pool.
const CHUNKS: usize = log::POOL_CHUNKS_MIN + 2;

thread_local! {
    /// Memory is zeroed when it is made, and that takes longer than many a run: pools are handed on.
    static POOLS: RefCell<Vec<Pool>> = const { RefCell::new(Vec::new()) };
}

/// One run.
pub(super) struct World {
    pub(super) plan: Rc<Plan>,
    pub(super) fabric: Shared,
    pub(super) clients: Clients,
    pub(super) engine: Engine,
    pub(super) boards: Vec<Option<Arc<Board>>>,
    pub(super) lanes: Vec<Option<Lane<SimWorld>>>,
    pools: Vec<Pool>,
}

impl World {
    pub(super) fn new(plan: Plan, verbose: bool) -> World {
        let plan = Rc::new(plan);
        let mut fabric = Fabric::new(plan.clone(), verbose);
        let clients = Clients::new(&mut fabric);
        let engine = Engine::new(&mut fabric, clients.count() + 1);
        for (node, &at_ns) in plan.start_ns.iter().enumerate() {
            fabric.schedule(at_ns, Event::Start { node });
        }
        let pools = POOLS.with_borrow_mut(|pools| {
            while pools.len() < plan.nodes {
                pools.push(Pool::new(CHUNKS));
            }
            pools.drain(..plan.nodes).collect()
        });
        let lanes = plan.start_ns.iter().map(|_| None).collect();
        let boards = vec![None; plan.nodes];
        World { fabric: Rc::new(RefCell::new(fabric)), clients, engine, boards, lanes, pools, plan }
    }

    /// Lets everything happen that happens up to `until_ns`, or until something is wrong, or `done` says so.
    pub(super) fn run_until(&mut self, until_ns: u64, mut done: impl FnMut(&mut World) -> bool) -> bool {
        loop {
            let mut fabric = self.fabric.borrow_mut();
            if fabric.oracle.violation.is_some() {
                return false;
            }
            let Some(event) = fabric.next_event(until_ns) else { return false };
            drop(fabric);
            self.happen(event);
            if done(self) {
                return true;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node } => {
                let mut fabric = self.fabric.borrow_mut();
                let now_ns = fabric.now_ns;
                let state = &mut fabric.nodes[node];
                let due = state.wake_ns == now_ns;
                if due {
                    state.wake_ns = u64::MAX;
                }
                let runs = due && state.up && !state.paused;
                drop(fabric);
                if runs {
                    self.turn(node);
                }
            }
            Event::Fault => self.strike(),
            Event::Hunt { node } => self.hunt(node),
            Event::Start { node } => self.start(node),
            event => {
                let mut fabric = self.fabric.borrow_mut();
                pass(&mut fabric, &mut self.clients, &mut self.engine, event);
            }
        }
    }

    /// One turn of a node's lane, and what the oracles make of it.
    fn turn(&mut self, node: usize) {
        let Some(lane) = &mut self.lanes[node] else { return };
        let forget_ppm = self.plan.disk.forget_ppm;
        if forget_ppm > 0 && self.fabric.borrow_mut().random.chance(forget_ppm) {
            lane.forget();
        }
        let result = lane.turn();
        self.observe(node);
        match result {
            Ok(turn) => {
                let mut fabric = self.fabric.borrow_mut();
                fabric.mark((node as u64) << 32 | turn.work as u64);
                let busy_ns = self.plan.turn_ns * fabric.nodes[node].slowness;
                let free_ns = fabric.now_ns + busy_ns;
                fabric.nodes[node].busy_until_ns = free_ns;
                let timer_ns = fabric.nodes[node].clock.world_ns(turn.next_wake);
                fabric.wake(node, if turn.work > 0 { free_ns } else { timer_ns });
            }
            Err(Stopped::Drained(_)) => self.stop(node, "drained", true),
            Err(Stopped::Disk(_)) => {
                self.fabric.borrow_mut().oracle.counts.disk_stops += 1;
                self.stop(node, "its disk failed", true);
            }
        }
    }

    fn observe(&mut self, node: usize) {
        let Some(lane) = &self.lanes[node] else { return };
        let fabric = &mut *self.fabric.borrow_mut();
        for shard in (0..self.plan.shards).map(ShardId) {
            let status = lane.status(shard).expect("the shard lives in the lane");
            let (from, to) = fabric.oracle.on_turn(node, &status, |index| lane.term_at(shard, index));
            if from == to {
                continue;
            }
            fabric.trace.add(fabric.now_ns, node, Note::Committed { shard, index: to });
            for index in (from.0 + 1..=to.0).map(Index) {
                let Some(term) = lane.term_at(shard, index) else {
                    fabric
                        .oracle
                        .fail(format!("shard {shard}: node {} commits {index} and has it not", node + 1));
                    break;
                };
                let content = lane.peek(shard, index).map(|header| Content::of(&header));
                fabric.oracle.on_committed(node, shard, EntryId { term, index }, content);
            }
        }
        if let Some(board) = &self.boards[node] {
            self.engine.observe(fabric, node, Some(board.watermark()));
        }
        if lane.waiting() > WAITING_MAX {
            fabric.oracle.fail(format!("node {} holds {} requests", node + 1, lane.waiting()));
        }
    }

    /// The process of a node ends. If it is to come back, it does after a while.
    pub(super) fn stop(&mut self, node: usize, why: &'static str, comes_back: bool) {
        if self.lanes[node].take().is_none() {
            return;
        }
        let fabric = &mut *self.fabric.borrow_mut();
        fabric.note(node, Note::Stopped { why });
        fabric.mark(0xdead << 16 | node as u64);
        let kept_ppm = self.plan.disk.kept_ppm;
        let state = &mut fabric.nodes[node];
        state.up = false;
        state.paused = false;
        state.wake_ns = u64::MAX;
        state.inbox.clear();
        state.port.clear();
        state.disk.crash(&mut fabric.random, kept_ppm);
        self.engine.node_stops(fabric, node);
        fabric.close_all(node);
        if fabric.random.chance(500_000) {
            let by_peer = fabric.random.chance(800_000);
            fabric.hang_up(node, by_peer);
        }
        if comes_back {
            let after_ns = fabric.random.skewed(1, 15 * self.plan.election_ns);
            fabric.schedule(fabric.now_ns + after_ns, Event::Start { node });
        }
    }

    /// A node's process begins, on what its disk holds.
    pub(super) fn start(&mut self, node: usize) {
        let mut fabric = self.fabric.borrow_mut();
        let state = &mut fabric.nodes[node];
        if state.up || state.lost {
            return;
        }
        state.life += 1;
        let life = state.life;
        state.disk.open(true);
        fabric.note(node, Note::Started { life });
        drop(fabric);

        let plan = &self.plan;
        let options = log::Options {
            cluster: ClusterId(plan.seed),
            node: node_id(node),
            lane: LaneId(0),
            shards: (0..plan.shards).map(ShardId).collect(),
            segments_max: 1 << 20,
            segments_ahead: 1,
        };
        let disk = SimDisk { fabric: self.fabric.clone(), node };
        let opened = Log::open(disk, self.pools[node].clone(), options);
        self.fabric.borrow_mut().nodes[node].disk.open(false);
        match opened {
            Ok(opened) => self.begin(node, life, opened),
            Err(error) => {
                let mut fabric = self.fabric.borrow_mut();
                fabric.nodes[node].lost = true;
                fabric.note(node, Note::Stopped { why: "its log does not open" });
                fabric.oracle.counts.disk_stops += 1;
                if !fabric.nodes[node].disk.rotten || !matches!(error, OpenError::Corrupt { .. }) {
                    fabric.oracle.fail(format!("node {} does not open what it wrote: {error}", node + 1));
                }
            }
        }
    }

    fn begin(&mut self, node: usize, life: u32, opened: (Log<SimDisk>, Vec<log::RecoveredShard>)) {
        let plan = &self.plan;
        let options = Options {
            node: node_id(node),
            voters: (0..plan.nodes).map(node_id).collect(),
            lane: LaneId(0),
            election_timeout: Duration::from_nanos(plan.election_ns),
            heartbeat: Duration::from_nanos(plan.heartbeat_ns),
            commit_notice: if plan.engine { Duration::ZERO } else { COMMIT_NOTICE },
            seed: mix(plan.seed ^ (node as u64) << 40 ^ u64::from(life) << 8),
            spin: Duration::ZERO,
            busy_poll: false,
            epoch_grace: Duration::from_nanos(plan.election_ns),
            shares_core: false,
        };
        let fabric = || self.fabric.clone();
        let mut lane = Lane::new(
            options,
            opened,
            SimLink::new(fabric(), node),
            SimPort { fabric: fabric(), node },
            SimClock { fabric: fabric(), node },
            SimPark,
            SimObserver { fabric: fabric(), node },
        );
        let fabric = &mut *self.fabric.borrow_mut();
        if plan.engine {
            let board = Arc::new(Board::new(plan.shards));
            lane.serve_engine(Arc::clone(&board));
            self.boards[node] = Some(board);
            self.engine.observe(fabric, node, None);
        }
        for shard in (0..plan.shards).map(ShardId) {
            let status = lane.status(shard).expect("the shard lives in the lane");
            fabric.oracle.on_started(node, &status, |index| lane.term_at(shard, index));
        }
        fabric.nodes[node].up = true;
        fabric.nodes[node].busy_until_ns = fabric.now_ns;
        fabric.wake(node, fabric.now_ns);
        self.lanes[node] = Some(lane);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.lanes.clear();
        // What disks and networks hold of the pools goes with the fabric, which nobody else holds now.
        self.fabric.borrow_mut().nodes.clear();
        POOLS.with_borrow_mut(|pools| pools.append(&mut self.pools));
    }
}

/// What reaches a node or a client.
fn pass(fabric: &mut Fabric, clients: &mut Clients, engine: &mut Engine, event: Event) {
    match event {
        Event::Net { to, event } => {
            if let NetEvent::Frame { from, .. } | NetEvent::Datagram { from, .. } = &event {
                fabric.net.arrived(node_of(*from), to);
            }
            let fits = match &event {
                NetEvent::Datagram { from, .. } => fabric.takes_datagram(*from, to),
                _ => true,
            };
            if fits && fabric.nodes[to].up {
                fabric.nodes[to].inbox.push(event);
                fabric.wake(to, fabric.now_ns);
            }
        }
        Event::Disk { node, life, op } => fabric.finish_op(node, life, op),
        Event::ToNode { node, life, event } => {
            if fabric.nodes[node].up && fabric.nodes[node].life == life {
                fabric.nodes[node].port.push(event);
                fabric.wake(node, fabric.now_ns);
            }
        }
        Event::ToClient { client, event } => match engine.thread_of(client) {
            Some(thread) => engine.on_input(fabric, thread, event),
            None => clients.on_input(fabric, client, event),
        },
        Event::Client { client } => match engine.thread_of(client) {
            Some(thread) => engine.on_due(fabric, thread),
            None => clients.on_due(fabric, client),
        },
        Event::Recover { node, what } => fabric.recover(node, what),
        Event::Wake { .. } | Event::Fault | Event::Hunt { .. } | Event::Start { .. } => {
            unreachable!("these are the world's own")
        }
    }
}

impl Fabric {
    /// A trouble of a node has passed.
    pub(super) fn recover(&mut self, node: usize, what: Trouble) {
        match what {
            Trouble::Paused => self.nodes[node].paused = false,
            Trouble::Slow => self.nodes[node].slowness = 1,
            Trouble::Stuck => self.nodes[node].disk.stuck_until_ns = 0,
        }
        self.nodes[node].wake_ns = u64::MAX;
        self.wake(node, self.now_ns);
    }
}
