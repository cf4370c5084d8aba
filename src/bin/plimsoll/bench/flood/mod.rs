//! `plimsoll bench flood`: what two nodes that speak to each other feel of somebody who floods one of them with what is
//! bad.
//!
//! Both ends of a link are turned by one thread on a core of its own, at a fixed rate of round trips whose latency
//! counts from when each was due. On another core somebody sends bad datagrams, in short bursts at a fixed rate: in one
//! round to the node, in the next to a socket that nobody reads. What a flood costs the machine is in both, and so the
//! ratio of the two p99 is what it costs the node. Rounds alternate; the figure is the median of their ratios.
//!
//! A round is made of slices. One in which the system gave the measuring thread's core to somebody else tells of that,
//! and is measured again: on a machine that does something else besides, every p99 would be the scheduler's.

mod hostile;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use plimsoll::io::clock::LaneClock;
use plimsoll::io::datagram::{self, Counters, DatagramLink};
use plimsoll::io::link::udp::{self, UdpCarrier};
use plimsoll::io::reactor::{self, Reactor};
use plimsoll::io::{Clock, Link, LinkEvent, Park};
use plimsoll::limits::FRAME_HEADER_BYTES;
use plimsoll::types::{ClusterId, LaneId, NodeId, StoreId};
use plimsoll::wire::datagram::MAGIC;
use plimsoll::wire::frame::{Builder, Kind as FrameKind, ROW_BYTES};
use plimsoll::wire::identity::Identity;
use serde_json::{Value, json};

use self::hostile::Hostile;
use crate::common::{Failure, Interrupt, Verdict, histogram, record, say};

/// The usual Ethernet, and the longest datagram on it.
const MTU_BYTES: usize = 1500;
const LONGEST_BYTES: usize = MTU_BYTES - 28;

/// The bytes that each frame carries.
const BODY_BYTES: usize = 64;

/// A slice, how long its thread may have waited for its core in it, and how many slices are tried for each that is
/// wanted.
const SLICE: Duration = Duration::from_millis(10);
const WAITED_NS_MAX: u64 = 10_000;
const TRIES: u32 = 5;

/// How long sessions may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// The neighbour dials the target, and the target the mad member.
const NEIGHBOUR: NodeId = NodeId(1);
const TARGET: NodeId = NodeId(2);
const MAD: NodeId = NodeId(3);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Bad datagrams in a second
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    flood: u64,
    /// How many of them are sent at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    burst: u64,
    /// Round trips in a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    rate: u64,
    /// Rounds of each kind, with the flood at the node and with it elsewhere
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each round is
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    round: u64,
    /// What is sent; all kinds, if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<Kind>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is bad about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// No datagram of ours at all
    Garbage,
    /// A header that is cut off
    Truncated,
    /// Longer than the path is configured for
    Oversized,
    /// Of a session that is not known
    Alien,
    /// A hello of another cluster
    OtherCluster,
    /// A hello in the name of the neighbour
    ForgedHello,
    /// Of a member's session, and seen before
    Replayed,
    /// Of a member's session, with a frame that is none
    BadFrame,
    /// Fragments of frames that never become whole
    Endless,
    /// Fragments that contradict each other
    Overlapping,
    /// The first fragments of many long frames
    FirstFragments,
}

impl Kind {
    /// Whether who sends it must have a session.
    fn is_of_a_member(self) -> bool {
        use Kind::{BadFrame, Endless, FirstFragments, Overlapping, Replayed};
        matches!(self, Replayed | BadFrame | Endless | Overlapping | FirstFragments)
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What the flooding thread does, told by the one that measures.
struct Orders {
    /// The kind's place, and whether it goes to the target; see [`Orders::set`].
    now: AtomicU64,
    sent: AtomicU64,
    is_member: AtomicBool,
}

const REST: u64 = 0;
const DONE: u64 = 1;

impl Orders {
    fn set(&self, kind: Kind, at_target: bool) {
        self.now.store((2 + kind as u64) << 1 | u64::from(at_target), Ordering::Release);
    }

    fn get(&self) -> Option<(Kind, bool)> {
        let now = self.now.load(Ordering::Acquire);
        let place = (now >> 1).checked_sub(2)?;
        Some((*Kind::value_variants().get(place as usize)?, now & 1 == 1))
    }
}

/// What one kind of flood has come to.
struct Told {
    kind: Kind,
    /// Of each pair of rounds: p99 with the flood at the node over p99 with it elsewhere.
    ratios: Vec<f64>,
    with: Histogram<u64>,
    without: Histogram<u64>,
    sent_per_s: f64,
    dropped: u64,
    /// Datagrams that the node sent besides the round trips' own: each costs more than what it answers.
    answered: u64,
    /// Slices that were not disturbed.
    slices: u64,
}

impl Told {
    fn is_counted(&self) -> bool {
        self.dropped > 0
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let bind = || UdpSocket::bind("127.0.0.1:0").map_err(Failure::on("a socket on 127.0.0.1"));
    let (target, neighbour, mad, elsewhere) = (bind()?, bind()?, bind()?, bind()?);
    let at = |socket: &UdpSocket| socket.local_addr().map_err(Failure::on("a socket's address"));
    let (target_at, neighbour_at, mad_at, elsewhere_at) =
        (at(&target)?, at(&neighbour)?, at(&mad)?, at(&elsewhere)?);
    let orders =
        Orders { now: AtomicU64::new(REST), sent: AtomicU64::new(0), is_member: AtomicBool::new(false) };
    let told = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            super::pin(1);
            let outcome = Hostile::new(mad, target_at, (identity(MAD), identity(NEIGHBOUR), TARGET))
                .map(|hostile| flood(hostile, (target_at, elsewhere_at), arguments, &orders));
            outcome.map_err(Failure::on("the flooding socket"))
        });
        super::pin(0);
        let told = (|| {
            let target = End::open(TARGET, target, vec![(NEIGHBOUR, neighbour_at), (MAD, mad_at)])?;
            let neighbour = End::open(NEIGHBOUR, neighbour, vec![(TARGET, target_at)])?;
            Pair { target, neighbour }.measure_all(arguments, &orders, &interrupt)
        })();
        orders.now.store(DONE, Ordering::Release);
        flood.join().map_err(|_| Failure("the flooding thread has ended".into()))??;
        told
    })?;
    report(arguments, &told);
    Ok(if told.iter().all(Told::is_counted) { Verdict::Good } else { Verdict::Bad })
}

fn identity(node: NodeId) -> Identity {
    Identity {
        cluster: ClusterId(0x0066_6c6f_6f64),
        node,
        store: StoreId(node.0.into()),
        lane: LaneId(0),
        lanes: 1,
        shards: 1,
    }
}

/// Sends as it is told until all is over: a burst when it is due. What it is late for it does not make up.
fn flood(
    mut hostile: Hostile,
    (target_at, elsewhere_at): (SocketAddr, SocketAddr),
    arguments: &Arguments,
    orders: &Orders,
) {
    let pause = Duration::from_nanos(1_000_000_000 * arguments.burst / arguments.flood);
    let mut due = Instant::now();
    while orders.now.load(Ordering::Acquire) != DONE {
        hostile.attend();
        orders.is_member.store(hostile.is_member(), Ordering::Relaxed);
        if let Some((kind, at_target)) = orders.get() {
            let to = if at_target { target_at } else { elsewhere_at };
            let sent = (0..arguments.burst).filter(|_| hostile.strike(kind, to)).count();
            orders.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
        due = (due + pause).max(Instant::now());
        while Instant::now() < due {
            std::hint::spin_loop();
        }
    }
}

/// One end of the link, as a lane would turn it.
struct End {
    link: DatagramLink<UdpCarrier>,
    reactor: Reactor,
    clock: LaneClock,
    builder: Builder,
    /// The numbers of the frames that came with the last turn.
    came: Vec<u64>,
}

impl End {
    fn open(node: NodeId, socket: UdpSocket, peers: Vec<(NodeId, SocketAddr)>) -> Result<End, Failure> {
        let reactor = Reactor::new(reactor::Kind::Uring)
            .or_else(|_| Reactor::new(reactor::Kind::Epoll))
            .map_err(Failure::on("a reactor"))?;
        let mut options = udp::Options::new(socket, peers.len(), MTU_BYTES);
        options.known = peers.iter().map(|(_, address)| *address).collect();
        options.begins_with = Some(MAGIC.to_le_bytes());
        let carrier = UdpCarrier::new(options, &reactor).map_err(Failure::on("opening a link"))?;
        let seed = std::process::id().into();
        let link =
            DatagramLink::new(datagram::Options::new(identity(node), peers, Vec::new(), seed), carrier);
        let (clock, _) = LaneClock::choose();
        Ok(End { link, reactor, clock, builder: Builder::new(FrameKind::Peer), came: Vec::with_capacity(64) })
    }

    fn turn(&mut self) {
        let End { link, reactor, clock, came, .. } = self;
        came.clear();
        let now = clock.now();
        reactor.glance(now);
        link.poll(now, &mut |event| {
            if let LinkEvent::Frame { bytes, .. } = event {
                let number = bytes[FRAME_HEADER_BYTES..].first_chunk();
                came.extend(number.map(|bytes| u64::from_le_bytes(*bytes)));
            }
        });
        while link.notice().is_some() {}
    }

    fn send(&mut self, to: NodeId, number: u64) {
        self.builder.clear();
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&number.to_le_bytes());
        self.builder.push(&row, BODY_BYTES);
        // A frame that is not taken is one that is lost.
        let _ = self.link.send(to, &[self.builder.seal(), &[0x5a; BODY_BYTES]]);
    }

    fn flush(&mut self) {
        self.link.flush();
        self.reactor.kick();
    }
}

struct Pair {
    target: End,
    neighbour: End,
}

impl Pair {
    fn measure_all(
        mut self,
        arguments: &Arguments,
        orders: &Orders,
        interrupt: &Interrupt,
    ) -> Result<Vec<Told>, Failure> {
        let until = Instant::now() + UP_WITHIN;
        let is_up = |pair: &Pair| {
            pair.target.link.is_up(NEIGHBOUR)
                && pair.target.link.is_up(MAD)
                && pair.neighbour.link.is_up(TARGET)
        };
        while !is_up(&self) || !orders.is_member.load(Ordering::Relaxed) {
            self.turn();
            interrupt.check()?;
            if Instant::now() > until {
                return Err(Failure(format!("the links did not come up within {UP_WITHIN:?}")));
            }
        }
        self.round(arguments, &mut histogram())?;
        let kinds = if arguments.kind.is_empty() { Kind::value_variants() } else { &arguments.kind };
        kinds.iter().map(|kind| self.measure(*kind, arguments, orders, interrupt)).collect()
    }

    fn measure(
        &mut self,
        kind: Kind,
        arguments: &Arguments,
        orders: &Orders,
        interrupt: &Interrupt,
    ) -> Result<Told, Failure> {
        let (mut with, mut without) = (histogram(), histogram());
        let (mut ratios, mut slices, mut sent, mut lasting) = (Vec::new(), 0, 0, Duration::ZERO);
        let before = (self.dropped(), self.answered());
        for round in 0..arguments.rounds {
            let mut p99 = [0.0; 2];
            // Which comes first changes too.
            for at_target in [round % 2 == 0, round % 2 == 1] {
                let mut latencies = histogram();
                orders.set(kind, at_target);
                let (already, begun) = (orders.sent.load(Ordering::Relaxed), Instant::now());
                slices += self.round(arguments, &mut latencies)?;
                if at_target {
                    sent += orders.sent.load(Ordering::Relaxed) - already;
                    lasting += begun.elapsed();
                }
                orders.now.store(REST, Ordering::Release);
                interrupt.check()?;
                p99[usize::from(at_target)] = latencies.value_at_quantile(0.99) as f64;
                let all = if at_target { &mut with } else { &mut without };
                all.add(&latencies).map_err(Failure::of)?;
            }
            ratios.push(p99[1] / p99[0].max(1.0));
        }
        ratios.sort_by(f64::total_cmp);
        let sent_per_s = sent as f64 / lasting.as_secs_f64().max(0.001);
        let (dropped, answered) = (self.dropped() - before.0, self.answered() - before.1);
        Ok(Told { kind, ratios, with, without, sent_per_s, dropped, answered, slices })
    }

    /// Slices until there are enough of them that were not disturbed, within a bound; how many those are.
    fn round(&mut self, arguments: &Arguments, latencies: &mut Histogram<u64>) -> Result<u64, Failure> {
        let wanted = (Duration::from_millis(arguments.round).as_millis() / SLICE.as_millis()).max(1) as u32;
        let mut slices = 0;
        for _ in 0..TRIES * wanted {
            let (mut slice, before) = (histogram(), waited_ns());
            self.slice(arguments.rate, &mut slice);
            if waited_ns() - before <= WAITED_NS_MAX {
                latencies.add(&slice).map_err(Failure::of)?;
                slices += 1;
            }
            if slices == u64::from(wanted) {
                break;
            }
        }
        Ok(slices)
    }

    /// Round trips at a rate, from the neighbour to the target and back.
    fn slice(&mut self, rate: u64, latencies: &mut Histogram<u64>) {
        let begun = Instant::now();
        // What a slice before this one has left behind is not taken for ours.
        let first = self.neighbour.clock.now().0;
        let due = |number: u64| begun + Duration::from_nanos((number - first) * 1_000_000_000 / rate);
        let mut next = first;
        while begun.elapsed() < SLICE {
            while due(next) <= Instant::now() {
                self.neighbour.send(TARGET, next);
                next += 1;
            }
            self.turn();
            for number in self.neighbour.came.drain(..).filter(|number| (first..next).contains(number)) {
                record(latencies, due(number).elapsed());
            }
        }
    }

    fn turn(&mut self) {
        self.neighbour.flush();
        self.target.turn();
        for number in std::mem::take(&mut self.target.came) {
            self.target.send(NEIGHBOUR, number);
        }
        self.target.flush();
        self.neighbour.turn();
    }

    /// What the target has sent so far that is no frame: all frames here fit a datagram.
    fn answered(&self) -> u64 {
        let Counters { datagrams_out, frames_out, .. } = *self.target.link.counters();
        datagrams_out - frames_out
    }

    /// What the target has dropped so far.
    fn dropped(&self) -> u64 {
        let Counters {
            duplicated,
            beyond,
            malformed,
            alien,
            unasked,
            refused,
            hellos_unanswered,
            fragments_late,
            fragments_contrary,
            fragments_crowded,
            frames_abandoned,
            ..
        } = *self.target.link.counters();
        let carrier = self.target.link.carrier().counters();
        duplicated
            + beyond
            + malformed
            + alien
            + unasked
            + refused
            + hellos_unanswered
            + fragments_late
            + fragments_contrary
            + fragments_crowded
            + frames_abandoned
            + carrier.too_long
    }
}

/// How long this thread has waited for its core so far, where the system tells.
fn waited_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split_whitespace().nth(1).and_then(|waited| waited.parse().ok()).unwrap_or(0)
}

fn report(arguments: &Arguments, told: &[Told]) {
    let us = |latencies: &Histogram<u64>, quantile| {
        (latencies.value_at_quantile(quantile) as f64 / 10.0).round() / 100.0
    };
    let ratio = |told: &Told| (told.ratios[told.ratios.len() / 2] * 1000.0).round() / 1000.0;
    if arguments.json {
        let kinds: Vec<Value> = told
            .iter()
            .map(|told| {
                json!({
                    "kind": told.kind.name(),
                    "ratio_p99": ratio(told),
                    "with_us": { "p50": us(&told.with, 0.5), "p99": us(&told.with, 0.99) },
                    "elsewhere_us": { "p50": us(&told.without, 0.5), "p99": us(&told.without, 0.99) },
                    "sent_per_s": told.sent_per_s.round(),
                    "dropped": told.dropped,
                    "answered": told.answered,
                    "slices": told.slices,
                })
            })
            .collect();
        let Arguments { flood, burst, rate, rounds, .. } = arguments;
        say(&json!({ "flood_per_s": flood, "burst": burst, "rate": rate, "rounds": rounds, "kinds": kinds })
            .to_string());
        return;
    }
    say(&format!(
        "{} round trips per second beside a flood of {} bad datagrams per second in bursts of {}; microseconds",
        arguments.rate, arguments.flood, arguments.burst
    ));
    say(&format!(
        "{:<18}{:>12}{:>12}{:>12}{:>12}{:>10}{:>12}{:>10}{:>10}{:>10}",
        "",
        "p50, at us",
        "elsewhere",
        "p99, at us",
        "elsewhere",
        "ratio",
        "sent per s",
        "dropped",
        "answered",
        "slices"
    ));
    for told in told {
        let columns = [(&told.with, 0.5), (&told.without, 0.5), (&told.with, 0.99), (&told.without, 0.99)]
            .map(|(latencies, quantile)| format!("{:>12.2}", us(latencies, quantile)))
            .concat();
        say(&format!(
            "{:<18}{columns}{:>10.3}{:>12.0}{:>10}{:>10}{:>10}",
            told.kind.name(),
            ratio(told),
            told.sent_per_s,
            told.dropped,
            told.answered,
            told.slices
        ));
    }
}
