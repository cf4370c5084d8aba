//! One run from beginning to end: faults, then liveness, then peace, then the books are closed.

use super::clients::Mode;
use super::fabric::{Event, Fabric, Trouble};
use super::history;
use super::plan::{Fault, SECOND};
use super::random::Random;
use super::trace::Note;
use super::world::World;
use crate::raft::Role;
use crate::shard::Lane;
use crate::types::ShardId;

/// How many election timeouts a fully connected majority has to serve every shard.
const LIVENESS_TIMEOUTS: u64 = 10;

/// How many election timeouts everything has to come to rest, once nothing is wrong any more.
const PEACE_TIMEOUTS: u64 = 100;

impl World {
    /// Everything. The violation, if there is one, is in the oracle.
    pub(super) fn run(&mut self) {
        self.suffer();
        if self.plan.graph.is_some() {
            self.serve_in_graph();
        } else {
            let members = self.choose_members();
            self.heal(&members);
            self.serve(members);
        }
        self.make_peace();
        self.audit();
        let fabric = &mut *self.fabric.borrow_mut();
        if fabric.oracle.violation.is_none()
            && let Err(why) = history::check(&fabric.oracle)
        {
            fabric.oracle.fail(why);
        }
        if let Err(why) = self.engine.check(fabric) {
            fabric.oracle.fail(why);
        }
    }

    /// Faults, up to the horizon.
    fn suffer(&mut self) {
        let begin_ns = match self.plan.graph {
            Some(_) => 12 * self.plan.election_ns,
            None => self.plan.fault_gap_ns,
        };
        self.fabric.borrow_mut().schedule(begin_ns, Event::Fault);
        let until_ns = self.plan.horizon_ns.max(begin_ns + 1);
        let last_ns = self.drain_last().map(|before_ns| until_ns.saturating_sub(before_ns));
        if let Some(at_ns) = last_ns {
            self.run_until(at_ns, |_| false);
            let leader = self.fabric.borrow().oracle.node_of_leader(ShardId(0)).unwrap_or(0);
            self.deafen_another(leader);
            self.strike_with(Fault::Drain, leader);
        }
        self.run_until(until_ns, |_| false);
    }

    /// A drain that begins among the last faults ends among none: how long before the horizon, if that is to be seen.
    fn drain_last(&mut self) -> Option<u64> {
        let fabric = &mut *self.fabric.borrow_mut();
        let wanted =
            self.plan.graph.is_none() && self.plan.has(Fault::Drain) && fabric.random.chance(250_000);
        wanted.then(|| fabric.random.between(1, 2 * self.plan.election_ns))
    }

    /// Perhaps one of those that are asked to lead instead does not hear that, and nothing else is wrong with it.
    fn deafen_another(&mut self, leader: usize) {
        let random = &mut Random::new(self.plan.seed ^ 0x6465_6166);
        if random.chance(500_000) {
            let other = (leader + random.between(1, self.plan.nodes as u64 - 1) as usize) % self.plan.nodes;
            self.fabric.borrow_mut().net.deafen(other);
        }
    }

    /// A majority of disks that do not rot.
    fn choose_members(&mut self) -> Vec<usize> {
        let fabric = &mut *self.fabric.borrow_mut();
        let majority = self.plan.nodes / 2 + 1;
        let sound = |node: &usize| !fabric.nodes[*node].disk.rotten && !fabric.nodes[*node].lost;
        let mut members: Vec<usize> = (0..self.plan.nodes).filter(sound).collect();
        if members.len() < majority {
            fabric.oracle.fail("fewer than a majority of the disks are good".to_owned());
        }
        let wanted = fabric.random.between(majority as u64, members.len().max(majority) as u64) as usize;
        while members.len() > wanted {
            let deaf = members.iter().position(|&node| fabric.net.is_deaf(node));
            let place = deaf.unwrap_or_else(|| fabric.random.below(members.len() as u64) as usize);
            members.remove(place);
        }
        members
    }

    /// Nothing is wrong with these nodes and between them any more.
    fn heal(&mut self, members: &[usize]) {
        {
            let fabric = &mut *self.fabric.borrow_mut();
            fabric.note(0, Note::Phase { name: "a majority is whole" });
            fabric.calm = true;
            for &node in members {
                // Otherwise an outsider that drains could go on asking it in vain, and keep it from following another
                // one.
                fabric.net.undeafen(node);
                for &other in members {
                    fabric.net.mend(node, other);
                }
                let disk = &mut fabric.nodes[node].disk;
                (disk.fails, disk.full) = (false, false);
                fabric.recover(node, Trouble::Paused);
            }
            // A leader that limps stays a leader: whoever hears, is heard and writes, is no outsider.
            for node in 0..self.plan.nodes {
                fabric.recover(node, Trouble::Slow);
                fabric.recover(node, Trouble::Stuck);
            }
        }
        for &node in members {
            self.start(node);
        }
    }

    /// Within ten election timeouts these nodes serve every shard.
    fn serve(&mut self, members: Vec<usize>) {
        let mut since_ns = self.fabric.borrow().now_ns;
        // A node that is being stopped in good order is not one of a majority that works until it is back.
        let bound_ns = since_ns + crate::shard::DRAIN_BOUND.as_nanos() as u64 + 20 * self.plan.election_ns;
        let draining = |world: &mut World| {
            let mut lanes = members.iter().map(|&node| &world.lanes[node]);
            lanes.all(|lane| lane.as_ref().is_some_and(|lane| !lane.is_draining()))
        };
        if !draining(self) {
            self.watch_drains(&members);
            self.run_until(bound_ns, draining);
            since_ns = self.fabric.borrow().now_ns;
        }
        let every = (1_u64 << self.plan.shards) - 1;
        self.clients.mode = Mode::Probe { members, since_ns, served: 0 };
        self.fabric.borrow_mut().schedule(since_ns, Event::Client { client: 0 });
        let until_ns = since_ns + LIVENESS_TIMEOUTS * self.plan.election_ns;
        let served =
            |world: &mut World| matches!(world.clients.mode, Mode::Probe { served, .. } if served == every);
        let done = self.run_until(until_ns, served);
        let fabric = &mut *self.fabric.borrow_mut();
        if let (false, Mode::Probe { members, served, .. }) = (done, &self.clients.mode) {
            let members: Vec<usize> = members.iter().map(|node| node + 1).collect();
            fabric.oracle.fail(format!(
                "the whole majority {members:?} does not serve within {LIVENESS_TIMEOUTS} election timeouts; shards \
                 served: {served:b}"
            ));
        }
    }

    /// Who drains among a whole majority finds somebody to lead in its place: others have two election timeouts to come
    /// back, each that it can ask has one, and all of them together some to end what was taken and to elect.
    fn watch_drains(&mut self, members: &[usize]) {
        let drains = |world: &World| {
            let mut lanes = members.iter().filter_map(|&node| Some((node, world.lanes[node].as_ref()?)));
            lanes.find_map(|(node, lane)| {
                let mut shards = (0..world.plan.shards).map(ShardId);
                let leads =
                    |shard: &ShardId| lane.status(*shard).is_some_and(|status| status.role == Role::Leader);
                lane.is_draining().then(|| shards.find(leads)).flatten().map(|shard| (node, shard))
            })
        };
        let bound_ns = (self.plan.nodes as u64 + 8) * self.plan.election_ns;
        let until_ns = self.fabric.borrow().now_ns + bound_ns;
        let done = self.run_until(until_ns, |world| drains(world).is_none());
        if let (false, Some((node, shard))) = (done, drains(self)) {
            self.fabric.borrow_mut().oracle.fail(format!(
                "shard {shard}: node {} drains among a whole majority and still leads after {bound_ns} ns",
                node + 1
            ));
        }
    }

    /// The links stay as they are; if they leave a majority whole, that serves.
    fn serve_in_graph(&mut self) {
        let members = self.connected_majority();
        self.fabric.borrow_mut().calm = true;
        if let Some(members) = members {
            self.serve(members);
        } else {
            let until_ns = self.fabric.borrow().now_ns + LIVENESS_TIMEOUTS * self.plan.election_ns;
            self.run_until(until_ns, |_| false);
        }
    }

    /// The largest set of nodes that all hear each other, if that is a majority.
    fn connected_majority(&self) -> Option<Vec<usize>> {
        let fabric = self.fabric.borrow();
        let whole = |set: &Vec<usize>| {
            set.iter().all(|&from| set.iter().all(|&to| from == to || !fabric.net.is_cut(from, to)))
        };
        let sets = (0..1_u32 << self.plan.nodes)
            .map(|set| (0..self.plan.nodes).filter(|node| set >> node & 1 == 1).collect::<Vec<usize>>());
        let largest = sets.filter(whole).max_by_key(Vec::len)?;
        (largest.len() > self.plan.nodes / 2).then_some(largest)
    }

    /// Nothing is wrong any more at all: every replica has everything and every request its answer.
    fn make_peace(&mut self) {
        self.clients.mode = Mode::Quiet;
        self.engine.quiet = true;
        let all: Vec<usize> = (0..self.plan.nodes).collect();
        self.heal(&all);
        let now_ns = self.fabric.borrow().now_ns;
        let until_ns = now_ns + PEACE_TIMEOUTS * self.plan.election_ns + 20 * SECOND;
        let mut turns = 0_u32;
        let done = self.run_until(until_ns, |world| {
            turns += 1;
            turns.is_multiple_of(64) && world.is_settled().is_ok()
        });
        if !done && let Err(why) = self.is_settled() {
            self.fabric.borrow_mut().oracle.fail(why);
        }
    }

    fn is_settled(&self) -> Result<(), String> {
        let fabric = self.fabric.borrow();
        let oracle = &fabric.oracle;
        for (node, state) in
            fabric.nodes.iter().enumerate().filter(|(_, state)| !state.lost && !state.disk.rotten)
        {
            if !state.up {
                return Err(format!("node {} does not come back", node + 1));
            }
            if self.lanes[node].as_ref().is_some_and(Lane::is_draining) {
                return Err(format!("node {} does not end its drain", node + 1));
            }
            for shard in (0..self.plan.shards).map(ShardId) {
                let (has, all) = (oracle.commit_of(node, shard), oracle.committed(shard));
                if has < all {
                    return Err(format!(
                        "shard {shard}: node {} has committed {has} of {all} for good",
                        node + 1
                    ));
                }
            }
        }
        self.leaders_are_settled(&fabric)?;
        self.streams_are_settled(&fabric)?;
        self.clients.unanswered().map_or(Ok(()), Err)
    }

    /// Whoever leads has committed all that it has. A new leader has not: it may owe a stream the end of its epoch, and
    /// no board tells.
    fn leaders_are_settled(&self, fabric: &Fabric) -> Result<(), String> {
        let is_settled = |shard: &ShardId| {
            let leader = fabric.oracle.node_of_leader(*shard).and_then(|node| self.lanes[node].as_ref());
            leader
                .and_then(|lane| lane.status(*shard))
                .is_some_and(|status| status.role == Role::Leader && status.commit == status.last.index)
        };
        let unsettled = (0..self.plan.shards).map(ShardId).find(|shard| !is_settled(shard));
        unsettled.map_or(Ok(()), |shard| Err(format!("shard {shard}: nobody leads who has committed all")))
    }

    /// No epoch is coming to its end any more, and every node tells the same watermark.
    fn streams_are_settled(&self, fabric: &Fabric) -> Result<(), String> {
        let sound = |node: &usize| fabric.nodes[*node].up && !fabric.nodes[*node].disk.rotten;
        let nodes = (0..self.plan.nodes).filter(sound);
        let boards: Vec<_> = nodes.filter_map(|node| Some((node + 1, self.boards[node].as_ref()?))).collect();
        let Some((_, first)) = boards.first() else { return Ok(()) };
        for (node, board) in &boards {
            if let Some(epoch) = board.closing() {
                return Err(format!("node {node}: epoch {epoch} does not come to its end"));
            }
            if board.watermark() != first.watermark() {
                let (all, has) = (first.watermark(), board.watermark());
                return Err(format!("node {node} tells the watermark {has}, others {all}"));
            }
        }
        Ok(())
    }

    /// Reads every replica back to the last byte.
    fn audit(&mut self) {
        self.read_back();
        // What a leader that was elected meanwhile has laid came too late for some reads, or for all.
        if self.unread() > 0 {
            self.read_back();
        }
        let unread = self.unread();
        let fabric = &mut *self.fabric.borrow_mut();
        if unread > 0 {
            fabric.oracle.fail(format!("{unread} committed entries are on no replica"));
        }
    }

    /// How many committed entries no replica was found to have.
    fn unread(&self) -> usize {
        let oracle = &self.fabric.borrow().oracle;
        oracle.shards.iter().flatten().filter(|entry| entry.content.is_none()).count()
    }

    fn read_back(&mut self) {
        {
            let fabric = &mut *self.fabric.borrow_mut();
            if fabric.oracle.violation.is_some() {
                return;
            }
            fabric.note(0, Note::Phase { name: "the replicas are read back" });
            let sound = |node: &usize| fabric.nodes[*node].up && !fabric.nodes[*node].disk.rotten;
            let nodes: Vec<usize> = (0..self.plan.nodes).filter(sound).collect();
            for node in nodes {
                for shard in (0..self.plan.shards).map(ShardId) {
                    self.clients.audit(fabric, node, shard, crate::types::Index(1));
                }
            }
        }
        let until_ns = self.fabric.borrow().now_ns + 60 * SECOND;
        self.run_until(until_ns, |world| world.clients.auditing == 0);
        // Somebody may have been elected meanwhile, whose streams' epochs end with that: every node hears of it.
        self.run_until(until_ns, |world| world.is_settled().is_ok());
        let fabric = &mut *self.fabric.borrow_mut();
        if self.clients.auditing > 0 {
            fabric.oracle.fail("a replica is not read back in a minute".to_owned());
        }
    }
}
