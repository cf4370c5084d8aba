//! What goes wrong, one thing after another, as the plan has drawn it.

use super::fabric::{Event, Fabric, Trouble};
use super::plan::{FAULTS, Fault};
use super::trace::Note;
use super::world::World;
use crate::types::ShardId;

impl World {
    /// Lets the next thing go wrong, and settles when the one after it does.
    pub(super) fn strike(&mut self) {
        let shared = self.fabric.clone();
        let mut borrowed = shared.borrow_mut();
        let fabric = &mut *borrowed;
        if fabric.calm {
            return;
        }
        let plan = self.plan.clone();
        let gap_ns = fabric.random.skewed(1, 4 * plan.fault_gap_ns);
        fabric.schedule(fabric.now_ns + gap_ns, Event::Fault);
        if let Some(graph) = plan.graph {
            fabric.cut_graph(graph);
            fabric.oracle.counts.faults += 1;
            return;
        }
        let enabled: Vec<Fault> = FAULTS.iter().copied().filter(|&fault| plan.has(fault)).collect();
        if enabled.is_empty() {
            return;
        }
        let fault = *fabric.random.pick(&enabled);
        let node = fabric.victim(plan.shards);
        drop(borrowed);
        self.strike_with(fault, node);
    }

    /// This goes wrong now.
    pub(super) fn strike_with(&mut self, fault: Fault, node: usize) {
        let shared = self.fabric.clone();
        let mut borrowed = shared.borrow_mut();
        let fabric = &mut *borrowed;
        fabric.note(node, Note::Struck { fault });
        fabric.mark(0xfa << 16 | (fault as u64) << 8 | node as u64);
        fabric.oracle.counts.faults += 1;
        if !fabric.strike_network(fault, node) && !fabric.strike_machine(fault, node) {
            drop(borrowed);
            self.strike_process(fault, node);
        }
    }

    /// A new leader is killed or cut off.
    pub(super) fn hunt(&mut self, node: usize) {
        let shared = self.fabric.clone();
        let mut fabric = shared.borrow_mut();
        if fabric.calm || !fabric.nodes[node].up {
            return;
        }
        let fault = *fabric.random.pick(&[Fault::Kill, Fault::PowerLoss, Fault::Isolate]);
        if !self.plan.has(fault) {
            return;
        }
        fabric.note(node, Note::Struck { fault });
        fabric.oracle.counts.faults += 1;
        if fabric.strike_network(fault, node) {
            return;
        }
        drop(fabric);
        self.crash(node, fault == Fault::PowerLoss);
    }

    fn strike_process(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::Kill => self.crash(node, false),
            Fault::PowerLoss => self.crash(node, true),
            Fault::Blackout => (0..self.plan.nodes).for_each(|node| self.crash(node, true)),
            Fault::Drain => {
                if let Some(lane) = &mut self.lanes[node] {
                    lane.drain();
                    let fabric = &mut *self.fabric.borrow_mut();
                    fabric.wake(node, fabric.now_ns);
                }
            }
            Fault::Transfer => {
                let fabric = &mut *self.fabric.borrow_mut();
                let shard = ShardId(fabric.random.below(u64::from(self.plan.shards)) as u32);
                self.clients.transfer(fabric, shard, node);
            }
            Fault::Hangup => {
                let fabric = &mut *self.fabric.borrow_mut();
                (0..self.clients.count()).for_each(|client| self.clients.hang_up(fabric, client, node));
            }
            _ => unreachable!("{fault:?} strikes elsewhere"),
        }
    }

    fn crash(&mut self, node: usize, power: bool) {
        if self.lanes[node].is_some() {
            let fabric = &mut *self.fabric.borrow_mut();
            fabric.oracle.counts.crashes += 1;
            // From here on it says no more, not even that it goes.
            fabric.nodes[node].up = false;
        }
        self.stop(node, if power { "power lost" } else { "killed" }, true);
        if power {
            let fabric = &mut *self.fabric.borrow_mut();
            fabric.nodes[node].disk.lose_power(&mut fabric.random);
        }
    }
}

impl Fabric {
    /// A new leader is to be heard for a few frames or none, and then no more. Who was before it comes back: with
    /// what it laid when nobody heard it.
    pub(super) fn strand(&mut self, node: usize) {
        pairs(self.nodes.len()).for_each(|(from, to)| self.net.cut(from, to, false));
        let frames = if self.random.chance(500_000) { 0 } else { self.random.between(1, 8) as u32 };
        self.stranding = Some((node, frames));
    }

    /// `node` sends a frame: its last ones may be sent.
    pub(super) fn on_frame_of(&mut self, node: usize) {
        match &mut self.stranding {
            Some((stranded, frames)) if *stranded == node && *frames > 0 => *frames -= 1,
            Some((stranded, _)) if *stranded == node && !self.calm => {
                self.stranding = None;
                self.note(node, Note::Struck { fault: Fault::Isolate });
                self.oracle.counts.faults += 1;
                self.strike_network(Fault::Isolate, node);
            }
            _ => {}
        }
    }

    /// Every second fault strikes a leader.
    fn victim(&mut self, shards: u32) -> usize {
        let any = self.random.below(self.nodes.len() as u64) as usize;
        let shard = ShardId(self.random.below(u64::from(shards)) as u32);
        let leader = self.oracle.node_of_leader(shard).filter(|_| self.random.chance(500_000));
        leader.unwrap_or(any)
    }

    /// Cuts the links whose bits are not set.
    fn cut_graph(&mut self, graph: u64) {
        let count = self.nodes.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            self.net.cut(from, to, graph & 1 << (from * count + to) == 0);
        }
    }

    /// Whether the fault is one of the network.
    fn strike_network(&mut self, fault: Fault, node: usize) -> bool {
        let count = self.nodes.len();
        let others = || (0..count).filter(move |&other| other != node);
        if matches!(fault, Fault::Split | Fault::Isolate | Fault::OneWay) && self.random.chance(400_000) {
            // What cuts a network often closes its connections first, and then a live process looks dead.
            self.hang_up(node, true);
        }
        match fault {
            Fault::Split => {
                let side = self.random.draw();
                for (from, to) in pairs(count) {
                    self.net.cut(from, to, (side >> from & 1) != (side >> to & 1));
                }
            }
            Fault::Isolate => others().for_each(|other| {
                self.net.cut(node, other, true);
                self.net.cut(other, node, true);
            }),
            Fault::OneWay => {
                let is_heard = self.random.chance(500_000);
                let all = self.random.chance(500_000);
                for other in others() {
                    let cut = all || self.random.chance(500_000);
                    self.net.cut(node, other, !is_heard && cut);
                    self.net.cut(other, node, is_heard && cut);
                }
            }
            Fault::Partial => {
                let ppm = self.random.between(50_000, 500_000) as u32;
                for (from, to) in pairs(count) {
                    let cut = self.random.chance(ppm);
                    self.net.cut(from, to, cut);
                }
            }
            Fault::Heal => pairs(count).for_each(|(from, to)| self.net.cut(from, to, false)),
            Fault::Clog => {
                let until_ns = self.now_ns + self.random.skewed(1, 8 * self.plan.election_ns);
                for other in others() {
                    if self.random.chance(500_000) {
                        self.net.clog(node, other, until_ns);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether the fault is one of a node's machine.
    fn strike_machine(&mut self, fault: Fault, node: usize) -> bool {
        let timeout_ns = self.plan.election_ns;
        let until_ns = self.now_ns + self.random.skewed(timeout_ns / 20, 8 * timeout_ns);
        let state = &mut self.nodes[node];
        match fault {
            Fault::Pause => {
                state.paused = true;
                self.schedule(until_ns, Event::Recover { node, what: Trouble::Paused });
            }
            Fault::Slow => {
                state.slowness = self.random.skewed(10, 5_000);
                self.schedule(until_ns, Event::Recover { node, what: Trouble::Slow });
            }
            Fault::Jump => {
                let jump_ns = self.random.skewed(1, 20 * timeout_ns);
                state.clock.jump(self.now_ns, jump_ns);
                state.wake_ns = u64::MAX;
                self.wake(node, self.now_ns);
            }
            Fault::Stuck => {
                state.disk.stuck_until_ns = until_ns;
                self.schedule(until_ns, Event::Recover { node, what: Trouble::Stuck });
            }
            Fault::DiskError => state.disk.fails = true,
            Fault::NoSpace => state.disk.full = true,
            Fault::Rot | Fault::Misdirect => self.decay(fault, node),
            _ => return false,
        }
        true
    }

    /// Always a minority, so that a good copy of everything is left.
    fn decay(&mut self, fault: Fault, node: usize) {
        let rotten = self.nodes.iter().filter(|state| state.disk.rotten).count();
        if !self.nodes[node].disk.rotten && rotten >= self.plan.disk.rotten_max {
            return;
        }
        let disk = &mut self.nodes[node].disk;
        let found = match fault {
            Fault::Rot => disk.rot(&mut self.random),
            _ => disk.misdirect(&mut self.random),
        };
        self.nodes[node].disk.rotten |= found.is_some();
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).filter(move |&to| to != from).map(move |to| (from, to)))
}
