//! What everything in the world shares: the time, what is to happen when, the state of every node's surroundings, and
//! the books that the oracles keep.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::clock::ClockState;
use super::datagrams::Deliveries;
use super::disk::DiskState;
use super::net::{NetEvent, Network};
use super::oracle::Oracle;
use super::plan::Plan;
use super::random::{Random, mix};
use super::trace::{Note, Trace};
use crate::io::ClientId;

/// Held by everything that a lane is given.
pub(super) type Shared = Rc<RefCell<Fabric>>;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's lane takes a turn. Stale unless it is the one that the node waits for.
    Wake { node: usize },
    /// A frame or a change of connection reaches a node.
    Net { to: usize, event: NetEvent },
    /// A disk has done an operation of this life.
    Disk { node: usize, life: u32, op: u64 },
    /// Something of a client reaches a node.
    ToNode { node: usize, life: u32, event: PortInput },
    /// Something of a node reaches a client.
    ToClient { client: usize, event: ClientInput },
    /// A client looks at what it has to do.
    Client { client: usize },
    /// The next fault is due.
    Fault,
    /// A node that has just been elected is struck.
    Hunt { node: usize },
    /// A node that is down is started.
    Start { node: usize },
    /// A node's troubles with its own machine end.
    Recover { node: usize, what: Trouble },
}

/// A state of a node that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Paused,
    Slow,
    Stuck,
}

/// What a port gets to see.
#[derive(Debug)]
pub(super) enum PortInput {
    Opened(ClientId),
    Frame(ClientId, Vec<u8>),
    Closed(ClientId),
}

/// What a client gets to see.
#[derive(Debug)]
pub(super) enum ClientInput {
    Frame(ClientId, Vec<u8>),
    Closed(ClientId),
}

/// A node's surroundings.
pub(super) struct NodeState {
    /// How often it was started. Everything of an earlier life is stale.
    pub(super) life: u32,
    pub(super) up: bool,
    /// Its log can never be opened again: what rotted was needed.
    pub(super) lost: bool,
    pub(super) clock: ClockState,
    pub(super) disk: DiskState,
    pub(super) inbox: Vec<NetEvent>,
    pub(super) port: Vec<PortInput>,
    /// Which client holds which connection.
    pub(super) connections: Vec<(ClientId, usize)>,
    pub(super) paused: bool,
    /// A turn takes so many times as long.
    pub(super) slowness: u64,
    /// When it next takes a turn.
    pub(super) wake_ns: u64,
    /// Its last turn takes until then.
    pub(super) busy_until_ns: u64,
}

/// The world but for the nodes' own memory.
pub(super) struct Fabric {
    pub(super) plan: Rc<Plan>,
    pub(super) now_ns: u64,
    pub(super) random: Random,
    queue: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    sequence: u64,
    pub(super) nodes: Vec<NodeState>,
    pub(super) net: Network,
    pub(super) oracle: Oracle,
    /// Frames that may come out of datagrams.
    pub(super) deliveries: Deliveries,
    pub(super) trace: Trace,
    /// When the last thing that a client and a node sent each other arrives.
    pub(super) streams_ns: Vec<u64>,
    pub(super) next_connection: u64,
    /// Nothing is late, lost or doubled any more but by faults that last.
    pub(super) calm: bool,
    /// A leader that is to be cut off, and how many frames it may send before.
    pub(super) stranding: Option<(usize, u32)>,
    hash: u64,
}

impl Fabric {
    pub(super) fn new(plan: Rc<Plan>, verbose: bool) -> Fabric {
        let mut random = Random::new(plan.seed);
        let nodes = (0..plan.nodes).map(|node| NodeState::new(&plan, node, &mut random)).collect();
        Fabric {
            now_ns: 0,
            net: Network::new(&plan, &mut random),
            oracle: Oracle::new(&plan),
            deliveries: Deliveries::default(),
            trace: Trace::new(plan.nodes, verbose),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            streams_ns: Vec::new(),
            next_connection: 1,
            calm: false,
            stranding: None,
            hash: mix(plan.seed),
            random,
            nodes,
            plan,
        }
    }

    /// Lets `event` happen at `at_ns`.
    pub(super) fn schedule(&mut self, at_ns: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[slot as usize] = Some(event);
        self.sequence += 1;
        self.queue.push(Reverse((at_ns.max(self.now_ns), self.sequence, slot)));
    }

    /// The next thing that happens up to `until_ns`; the time moves to it, or to `until_ns` if there is none.
    pub(super) fn next_event(&mut self, until_ns: u64) -> Option<Event> {
        match self.queue.peek() {
            Some(&Reverse((at_ns, _, slot))) if at_ns <= until_ns => {
                self.queue.pop();
                self.now_ns = at_ns;
                self.free.push(slot);
                Some(self.events[slot as usize].take().expect("a slot in the queue has its event"))
            }
            _ => {
                self.now_ns = until_ns;
                None
            }
        }
    }

    /// The node takes a turn at `at_ns`, or earlier if that was settled before.
    pub(super) fn wake(&mut self, node: usize, at_ns: u64) {
        let at_ns = at_ns.max(self.now_ns).max(self.nodes[node].busy_until_ns);
        if self.nodes[node].up && at_ns < self.nodes[node].wake_ns {
            self.nodes[node].wake_ns = at_ns;
            self.schedule(at_ns, Event::Wake { node });
        }
    }

    /// Mixes what happened into the run's hash.
    pub(super) fn mark(&mut self, what: u64) {
        self.hash = mix(self.hash ^ what).wrapping_add(self.now_ns);
    }

    /// The hash of all that happened so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Writes into the trace of `node`.
    pub(super) fn note(&mut self, node: usize, note: Note) {
        self.trace.add(self.now_ns, node, note);
    }
}

impl NodeState {
    fn new(plan: &Plan, node: usize, random: &mut Random) -> NodeState {
        NodeState {
            life: 0,
            up: false,
            lost: false,
            clock: ClockState::new(plan.drift_ppm[node], random.below(1 << 50)),
            disk: DiskState::new(&plan.disk),
            inbox: Vec::new(),
            port: Vec::new(),
            connections: Vec::new(),
            paused: false,
            slowness: 1,
            wake_ns: u64::MAX,
            busy_until_ns: 0,
        }
    }
}
