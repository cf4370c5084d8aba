//! What a seed stands for: sizes, timeouts, load and fault rates of one run, all drawn before it begins.

use std::time::Duration;

use super::random::Random;
use crate::limits::BATCH_BYTES_MAX;

/// A microsecond in the world's time.
pub const US: u64 = 1_000;
/// A millisecond in the world's time.
pub const MS: u64 = 1_000_000;
/// A second in the world's time.
pub const SECOND: u64 = 1_000_000_000;

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// The nodes fall into two groups that do not hear each other.
    Split,
    /// One node neither hears nor is heard.
    Isolate,
    /// One node hears and is not heard, or is heard and does not hear.
    OneWay,
    /// Any directed links fail.
    Partial,
    /// Everything hears everything again.
    Heal,
    /// A directed link holds its frames back for long.
    Clog,
    /// A process is killed; what the disk was writing may be there or not.
    Kill,
    /// One node loses its power.
    PowerLoss,
    /// All nodes lose their power at once.
    Blackout,
    /// A process stands still for longer than any timeout.
    Pause,
    /// A process is slow for a while.
    Slow,
    /// A clock jumps forward.
    Jump,
    /// A disk answers nothing for a while.
    Stuck,
    /// A write or read fails.
    DiskError,
    /// No room for the next segment.
    NoSpace,
    /// A bit of what was written long ago is another, in a minority of the replicas.
    Rot,
    /// A write went elsewhere, in a minority of the replicas.
    Misdirect,
    /// An operator hands leadership over.
    Transfer,
    /// An operator stops a node in good order.
    Drain,
    /// Clients lose their connections.
    Hangup,
}

/// All of them; a plan draws which of them happen.
pub const FAULTS: [Fault; 20] = [
    Fault::Split,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Partial,
    Fault::Heal,
    Fault::Clog,
    Fault::Kill,
    Fault::PowerLoss,
    Fault::Blackout,
    Fault::Pause,
    Fault::Slow,
    Fault::Jump,
    Fault::Stuck,
    Fault::DiskError,
    Fault::NoSpace,
    Fault::Rot,
    Fault::Misdirect,
    Fault::Transfer,
    Fault::Drain,
    Fault::Hangup,
];

/// What a run is held to, beside its seed. [`super::shrink`] makes them narrower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The phase of faults ends at this time at the latest.
    pub horizon_ns: Option<u64>,
    /// Bits by [`Fault`]: these do not happen.
    pub without: u32,
    /// At most so many clients.
    pub clients_max: Option<usize>,
    /// The network is perfect but for faults.
    pub calm_network: bool,
    /// The links between nodes that stay cut from early on, a bit for `from * nodes + to`: nothing else goes wrong.
    pub graph: Option<u64>,
    /// So many nodes, whatever the seed says.
    pub nodes: Option<usize>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// How many replicas.
    pub nodes: usize,
    /// How many shards, all in one lane.
    pub shards: u32,
    /// The cluster's election timeout.
    pub election_ns: u64,
    /// The cluster's heartbeat.
    pub heartbeat_ns: u64,
    /// When faults end.
    pub horizon_ns: u64,
    /// Per node: how long after the first it is started.
    pub start_ns: Vec<u64>,
    /// How long a turn takes.
    pub turn_ns: u64,
    /// Per node, in parts per million.
    pub drift_ppm: Vec<i64>,
    /// The network.
    pub net: NetPlan,
    /// The disks.
    pub disk: DiskPlan,
    /// The clients.
    pub load: LoadPlan,
    /// An engine's threads submit beside the clients.
    pub engine: bool,
    /// Bits by [`Fault`].
    pub faults: u32,
    /// The mean time between two faults.
    pub fault_gap_ns: u64,
    /// New leaders that are struck as soon as they lead.
    pub hunt_ppm: u32,
    /// New leaders that are cut off after few frames or none, when who was cut off before is heard again.
    pub strand_ppm: u32,
    /// The links that stay cut from early on; see [`Bounds::graph`].
    pub graph: Option<u64>,
}

/// How bad the network is when nothing in particular is wrong.
#[derive(Clone, Debug)]
pub struct NetPlan {
    /// The loss of each directed link is drawn up to this.
    pub loss_ppm_max: u32,
    /// Frames that come twice.
    pub duplicate_ppm: u32,
    /// Frames that are held back for up to ten times the longest delay, and so overtaken.
    pub straggle_ppm: u32,
    /// Frames of which a bit is another.
    pub corrupt_ppm: u32,
    /// The shortest way.
    pub delay_min_ns: u64,
    /// The longest way.
    pub delay_max_ns: u64,
    /// Frames of one link stay in order, as TCP would have it.
    pub ordered: bool,
    /// All this happens to datagrams, over which the production link moves frames; else to whole frames.
    pub datagrams: Option<DatagramPlan>,
}

/// How the network carries datagrams.
#[derive(Clone, Copy, Debug)]
pub struct DatagramPlan {
    /// The longest one that is sent.
    pub bytes_max: usize,
    /// The longest one that arrives.
    pub path_bytes: usize,
    /// So many of one peer wait until a node looks; more are lost.
    pub window: usize,
    /// A peer that was not heard for so long is taken for gone.
    pub unheard: Duration,
    /// The longest pause before dialling again.
    pub redial_max: Duration,
    /// Nothing is lost, doubled or overtaken while a path is there.
    pub reliable: bool,
}

/// How the disks are when nothing in particular is wrong.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// The logical block.
    pub block_bytes: usize,
    /// A log's segments.
    pub segment_bytes: u64,
    /// The fastest write.
    pub write_min_ns: u64,
    /// The slowest one.
    pub write_max_ns: u64,
    /// Writes and reads that take a hundred times as long.
    pub spike_ppm: u32,
    /// Of a write in flight at a crash: blocks kept, in parts per million; drawn anew at each crash if above that.
    pub kept_ppm: u32,
    /// Replicas whose disks may rot; always a minority.
    pub rotten_max: usize,
    /// Turns before which a log's memory lets go of all that is durable, as if its pool were small.
    pub forget_ppm: u32,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// How many.
    pub clients: usize,
    /// The mean time between two requests of one client.
    pub think_ns: u64,
    /// How many requests of one client wait at once.
    pub outstanding_max: usize,
    /// The largest record but for large ones.
    pub bytes_max: u64,
    /// Records in parts.
    pub large_ppm: u32,
    /// Requests that read the log.
    pub read_ppm: u32,
    /// Requests that read at an index that is confirmed by a majority.
    pub read_index_ppm: u32,
    /// Submits that are answered earlier than a quorum has them.
    pub weak_acks_ppm: u32,
    /// A client gives up on a request after this.
    pub patience_ns: u64,
}

impl Plan {
    /// What `seed` stands for within `bounds`.
    pub fn draw(seed: u64, bounds: &Bounds) -> Plan {
        let random = &mut Random::new(seed ^ 0x706c_616e);
        let nodes = *random.pick(&[3, 3, 3, 5, 5, 7]);
        let nodes = bounds.nodes.unwrap_or(nodes);
        let election_ns = random.between(100, 400) * MS;
        let heartbeat_ns = election_ns / random.between(3, 8);
        let horizon_ns = random.between(40, 140) * election_ns;
        let horizon_ns = bounds.horizon_ns.map_or(horizon_ns, |most| most.min(horizon_ns));
        let together = random.chance(500_000);
        let start = |random: &mut Random| {
            if together { random.below(5 * MS) } else { random.below(10 * election_ns) }
        };
        let start_ns = (0..nodes).map(|_| start(random)).collect();
        let drifts = random.chance(700_000);
        let drift = |random: &mut Random| if drifts { random.below(1001) as i64 - 500 } else { 0 };
        let drift_ppm = (0..nodes).map(|_| drift(random)).collect();
        let mut plan = Plan {
            seed,
            nodes,
            shards: *random.pick(&[1, 1, 2, 3, 5]),
            election_ns,
            heartbeat_ns,
            horizon_ns,
            start_ns,
            turn_ns: random.between(1, 20) * US,
            drift_ppm,
            net: NetPlan::draw(random, election_ns),
            disk: DiskPlan::draw(random, nodes),
            load: LoadPlan::draw(random, election_ns),
            engine: false,
            faults: draw_faults(random),
            fault_gap_ns: random.between(1, 12) * election_ns / 2,
            hunt_ppm: if random.chance(250_000) { random.between(100_000, 700_000) as u32 } else { 0 },
            strand_ppm: 0,
            graph: bounds.graph,
        };
        if random.chance(125_000) {
            plan.churn(random, bounds);
        }
        let random = &mut Random::new(seed ^ 0x6461_7461);
        if random.chance(400_000) {
            let large = plan.load.large_ppm > 0;
            let datagrams = DatagramPlan::draw(random, election_ns, large);
            if datagrams.reliable {
                let net = &mut plan.net;
                (net.loss_ppm_max, net.duplicate_ppm, net.straggle_ppm, net.corrupt_ppm) = (0, 0, 0, 0);
                net.ordered = true;
            }
            plan.net.datagrams = Some(datagrams);
        }
        plan.engine = bounds.graph.is_none() && Random::new(seed ^ 0x656e_6769).chance(300_000);
        let random = &mut Random::new(seed ^ 0x666f_7267);
        if random.chance(300_000) {
            plan.disk.forget_ppm = *random.pick(&[1_000, 10_000, 100_000]);
        }
        plan.narrow(bounds);
        plan
    }

    /// One leader after the other, each with entries that few others have: what figure 8 of the Raft paper shows, and
    /// what faults without an aim do not come to in years.
    fn churn(&mut self, random: &mut Random, bounds: &Bounds) {
        const KEPT: [Fault; 5] =
            [Fault::Kill, Fault::PowerLoss, Fault::Pause, Fault::Transfer, Fault::Hangup];
        self.strand_ppm = random.between(500_000, 1_000_000) as u32;
        self.hunt_ppm = 0;
        self.shards = 1;
        // With few nodes the one that was cut off is soon needed again.
        if bounds.nodes.is_none() && self.nodes > 5 {
            self.nodes = 5;
            self.start_ns.truncate(5);
            self.drift_ppm.truncate(5);
            self.disk.rotten_max = self.disk.rotten_max.min(2);
        }
        self.load.think_ns *= 4;
        // A network that heals by itself, or falls apart elsewhere, would let the wrong ones hear each other.
        self.faults &= KEPT.iter().fold(0, |all, &fault| all | 1 << fault as u8);
    }

    fn narrow(&mut self, bounds: &Bounds) {
        self.faults &= !bounds.without;
        self.load.clients = bounds.clients_max.map_or(self.load.clients, |most| self.load.clients.min(most));
        if bounds.calm_network || bounds.graph.is_some() {
            let net = &mut self.net;
            (net.loss_ppm_max, net.duplicate_ppm, net.straggle_ppm, net.corrupt_ppm) = (0, 0, 0, 0);
            net.delay_max_ns = net.delay_max_ns.min(self.election_ns / 20).max(net.delay_min_ns);
        }
        if bounds.graph.is_some() {
            self.faults = 0;
            self.hunt_ppm = 0;
            self.strand_ppm = 0;
        }
    }

    /// Whether this fault happens in this run.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults & (1 << fault as u8) != 0
    }
}

/// Every run has its own few kinds of faults: what is rare among all of them together is common in some run.
fn draw_faults(random: &mut Random) -> u32 {
    let all = (1_u32 << FAULTS.len()) - 1;
    match random.below(10) {
        0 => 1 << Fault::Heal as u8,
        1..=3 => all,
        _ => (random.draw() as u32 | random.draw() as u32) & all | 1 << Fault::Heal as u8,
    }
}

impl NetPlan {
    fn draw(random: &mut Random, election_ns: u64) -> NetPlan {
        let loses = random.chance(500_000);
        let delay_min_ns = random.between(10, 200) * US;
        let delay_max_ns = delay_min_ns + random.skewed(10 * US, election_ns / 8);
        NetPlan {
            loss_ppm_max: if loses { random.skewed(1_000, 300_000) as u32 } else { 0 },
            duplicate_ppm: if random.chance(400_000) { random.skewed(100, 100_000) as u32 } else { 0 },
            straggle_ppm: if random.chance(400_000) { random.skewed(100, 50_000) as u32 } else { 0 },
            corrupt_ppm: if random.chance(150_000) { random.skewed(100, 10_000) as u32 } else { 0 },
            delay_min_ns,
            delay_max_ns,
            ordered: random.chance(400_000),
            datagrams: None,
        }
    }
}

impl DatagramPlan {
    fn draw(random: &mut Random, election_ns: u64, large: bool) -> DatagramPlan {
        // Records of megabytes in pieces of half a kilobyte would show nothing but patience.
        let bytes_max =
            *random.pick(if large { &[4096, 8972][..] } else { &[548, 576, 1200, 1472, 4096, 8972] });
        let narrow = random.chance(200_000);
        let narrowest = if bytes_max > 1200 { 1200 } else { 512 };
        DatagramPlan {
            bytes_max,
            path_bytes: if narrow { random.between(narrowest, bytes_max as u64) as usize } else { bytes_max },
            window: *random.pick(&[32, 64, 256, 1024]),
            unheard: Duration::from_nanos(random.between(4, 20) * election_ns),
            redial_max: Duration::from_nanos(election_ns.min(200 * MS)),
            reliable: !narrow && random.chance(250_000),
        }
    }
}

impl DiskPlan {
    fn draw(random: &mut Random, nodes: usize) -> DiskPlan {
        let write_min_ns = random.between(5, 500) * US;
        let minority = (nodes as u64 - 1) / 2;
        DiskPlan {
            block_bytes: *random.pick(&[512, 512, 4096]),
            // The smallest that hold the largest batch, so that there are many and opening them is quick.
            segment_bytes: BATCH_BYTES_MAX as u64 * *random.pick(&[1, 1, 1, 2]),
            write_min_ns,
            write_max_ns: write_min_ns + random.skewed(1, 20_000) * US,
            spike_ppm: if random.chance(300_000) { random.skewed(100, 20_000) as u32 } else { 0 },
            kept_ppm: *random.pick(&[0, 500_000, 1_000_000, 2_000_000, 2_000_000]),
            rotten_max: if random.chance(400_000) {
                random.between(1, minority.max(1)).min(minority) as usize
            } else {
                0
            },
            forget_ppm: 0,
        }
    }
}

impl LoadPlan {
    fn draw(random: &mut Random, election_ns: u64) -> LoadPlan {
        let clients = random.between(1, 5);
        LoadPlan {
            clients: clients as usize,
            // Together at most some hundred requests in a second.
            think_ns: clients * random.between(10, 60) * MS,
            outstanding_max: random.skewed(1, 16) as usize,
            bytes_max: random.skewed(24, 4_000),
            large_ppm: if random.chance(60_000) { 3_000 } else { 0 },
            read_ppm: random.between(0, 100_000) as u32,
            read_index_ppm: random.between(0, 300_000) as u32,
            weak_acks_ppm: if random.chance(300_000) { 200_000 } else { 0 },
            patience_ns: random.between(2, 20) * election_ns,
        }
    }
}

/// The 64 ways in which three nodes can hear each other, for [`Bounds::graph`].
pub fn graphs_of_three() -> impl Iterator<Item = u64> {
    let links = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
    let place = |(from, to): (usize, usize)| 1_u64 << (from * 3 + to);
    (0..64_u64).map(move |graph| {
        let set = links.iter().enumerate().filter(|(bit, _)| graph >> bit & 1 == 1);
        set.map(|(_, &link)| place(link)).sum()
    })
}
