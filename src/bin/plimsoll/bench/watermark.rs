//! `plimsoll bench watermark`: how much later than a commit the watermark is visible that it moves.
//!
//! All nodes are in this process, so that one clock and one thread see everything: the submit of the last stream, its
//! commit as the engine's ring tells it, and the watermark on the board of the leader's node and on those of the
//! followers. Alone, the node has a core of its own beside the engine's thread; three nodes share what cores there are.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use plimsoll::client::ring::{Attachment, Event, Options, Stream};
use plimsoll::engine::board::Board;
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::{Config, Node};
use plimsoll::raft::Role;
use plimsoll::types::{Acks, Epoch, NodeId, ShardId, Stamp, Timestamp};
use plimsoll::wire::client::{Outcome, StreamRequest};
use serde_json::{Value, json};

use super::pin;
use crate::common::{Failure, Interrupt, Verdict, histogram, say};

/// The streams: the watermark waits for the last of them.
const STREAMS: u32 = 2;

/// What must happen, does so in less.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The nodes, all in this process
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3))]
    nodes: u32,
    /// The bytes of each record
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// How long to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let within = std::env::temp_dir();
    let directory =
        Cluster::fresh_directory(&within, "bench-watermark").map_err(Failure::on(within.display()))?;
    let program = std::env::current_exe().map_err(Failure::on("finding this program"))?;
    let shape = Shape {
        nodes: arguments.nodes,
        shards: STREAMS,
        segment_mib: 64,
        capacity_mib: 8192,
        tune: |config| config.engine.streams = true,
        ..Shape::default()
    };
    let cluster = Cluster::new(&program, &directory, &shape).map_err(Failure::on("laying out the nodes"))?;
    pin(0);
    let mut rack = Rack::start(&cluster, arguments.nodes)?;
    rack.register(&interrupt)?;
    let seen = rack.measure(arguments, &interrupt)?;
    rack.stop()?;
    let told = json!({
        "nodes": arguments.nodes,
        "bytes": arguments.bytes,
        "commit_us": micros(&seen.commit),
        "local_us": micros(&seen.local),
        "local_after_commit_us": micros(&seen.local_after),
        "remote_us": (arguments.nodes > 1).then(|| micros(&seen.remote)),
        "watermarks": seen.commit.len(),
    });
    if arguments.json {
        say(&told.to_string());
    } else {
        say(&format!("commit, as the ring tells it:          {}", told["commit_us"]));
        say(&format!("watermark at the leader's node:        {}", told["local_us"]));
        say(&format!("  that is after the commit (0: before): {}", told["local_after_commit_us"]));
        say(&format!("watermark at every other node:         {}", told["remote_us"]));
    }
    Ok(Verdict::Good)
}

/// Nanoseconds from a submit on.
struct Seen {
    commit: Histogram<u64>,
    local: Histogram<u64>,
    local_after: Histogram<u64>,
    remote: Histogram<u64>,
}

/// The nodes, with a thread's streams at each.
struct Rack {
    seats: Vec<Seat>,
}

struct Seat {
    node: Node,
    board: Arc<Board>,
    streams: Vec<Stream>,
}

impl Rack {
    fn start(cluster: &Cluster, nodes: u32) -> Result<Rack, Failure> {
        let seats = (1..=nodes).map(|id| Seat::take(cluster.config(NodeId(id)).clone(), nodes == 1));
        Ok(Rack { seats: seats.collect::<Result<_, _>>()? })
    }

    /// Polls everything until it is done; whatever is told goes to `each` first.
    fn run_until(
        &mut self,
        interrupt: &Interrupt,
        mut each: impl FnMut(Event),
        mut is_done: impl FnMut(&mut Rack) -> bool,
    ) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        while !is_done(self) {
            interrupt.check()?;
            if Instant::now() > until {
                return Err(Failure("the nodes do not come to that in time; see what they say".to_owned()));
            }
            self.seats.iter_mut().flat_map(|seat| &mut seat.streams).for_each(|stream| {
                stream.poll(&mut each);
            });
        }
        Ok(())
    }

    /// Where a stream is led, whether or not it takes records.
    fn leader(&mut self, stream: u32) -> Option<usize> {
        self.seats.iter().position(|seat| {
            seat.streams[stream as usize].role().is_some_and(|role| role.role == Role::Leader)
        })
    }

    fn register(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        self.run_until(interrupt, |_| (), |rack| (0..STREAMS).all(|stream| rack.leader(stream).is_some()))?;
        for stream in (0..STREAMS).map(ShardId) {
            // A leader that is new may be busy, or another one by now.
            while !self.asks_to_register(stream, interrupt)? {}
        }
        let is_open = |rack: &mut Rack, stream: u32| {
            let leader = rack.leader(stream);
            leader.is_some_and(|at| rack.seats[at].streams[stream as usize].may_submit())
        };
        self.run_until(interrupt, |_| (), |rack| (0..STREAMS).all(|stream| is_open(rack, stream)))
    }

    /// Whether the stream is registered now.
    fn asks_to_register(&mut self, stream: ShardId, interrupt: &Interrupt) -> Result<bool, Failure> {
        self.run_until(interrupt, |_| (), |rack| rack.leader(0).is_some())?;
        let registrar = self.leader(0).unwrap_or(0);
        let ring = self.seats[registrar].streams[0].attachment();
        ring.stream(StreamRequest::Register(stream)).map_err(Failure::of)?;
        let ended = Cell::new(None);
        let take = |event| {
            if let Event::Ended { outcome, .. } = event {
                ended.set(Some(matches!(outcome, Outcome::Committed { .. })));
            }
        };
        self.run_until(interrupt, take, |_| ended.get().is_some())?;
        Ok(ended.get() == Some(true))
    }

    fn measure(&mut self, arguments: &Arguments, interrupt: &Interrupt) -> Result<Seen, Failure> {
        let mut seen =
            Seen { commit: histogram(), local: histogram(), local_after: histogram(), remote: histogram() };
        let payload = vec![0x5a; arguments.bytes as usize];
        let until = Instant::now() + Duration::from_secs(arguments.seconds);
        let mut timestamp = 0;
        while Instant::now() < until {
            timestamp += 1;
            let stamp = Stamp::new(Epoch(0), Timestamp(timestamp));
            for stream in 0..STREAMS - 1 {
                self.submit(stream, &payload, stamp)?;
            }
            let others: Vec<ShardId> = (0..STREAMS - 1).map(ShardId).collect();
            self.run_until(
                interrupt,
                |_| (),
                |rack| {
                    let vector = rack.seats[0].board.vector();
                    rack.outstanding() == 0
                        && vector.iter().all(|(shard, at)| !others.contains(shard) || *at >= stamp)
                },
            )?;
            self.last_one(&payload, stamp, &mut seen, interrupt)?;
        }
        Ok(seen)
    }

    /// Submits to the last stream, and watches.
    fn last_one(
        &mut self,
        payload: &[u8],
        stamp: Stamp,
        seen: &mut Seen,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let last = STREAMS - 1;
        let leader =
            self.leader(last).ok_or_else(|| Failure("leadership was lost; measure again".to_owned()))?;
        let begun = Instant::now();
        self.submit(last, payload, stamp)?;
        let (mut commit, mut local, mut remote) = (None, None, None);
        while commit.is_none() || local.is_none() || remote.is_none() {
            interrupt.check()?;
            let Rack { seats } = self;
            // The watermark is looked at before the ring: never earlier than it is.
            if local.is_none() && seats[leader].board.watermark() >= stamp {
                local = Some(begun.elapsed());
            }
            if remote.is_none() && seats.iter().all(|seat| seat.board.watermark() >= stamp) {
                remote = Some(begun.elapsed());
            }
            let mut failed = None;
            seats[leader].streams[last as usize].poll(|event| {
                if let Event::Ended { outcome, .. } = event {
                    commit = Some(begun.elapsed());
                    failed = Some(outcome).filter(|outcome| !matches!(outcome, Outcome::Committed { .. }));
                }
            });
            if let Some(outcome) = failed {
                return Err(Failure(format!("a submit ended as {outcome:?}; measure again")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure("a commit does not come".to_owned()));
            }
        }
        if let (Some(commit), Some(local), Some(remote)) = (commit, local, remote) {
            let nanos = |took: Duration| took.as_nanos() as u64;
            seen.commit.saturating_record(nanos(commit));
            seen.local.saturating_record(nanos(local));
            seen.local_after.saturating_record(nanos(local.saturating_sub(commit)));
            seen.remote.saturating_record(nanos(remote));
        }
        Ok(())
    }

    fn submit(&mut self, stream: u32, payload: &[u8], stamp: Stamp) -> Result<(), Failure> {
        let leader = self.leader(stream).unwrap_or(0);
        let ring = self.seats[leader].streams[stream as usize].attachment();
        ring.submit(payload, stamp.timestamp, stamp.epoch, Acks::Quorum).map_err(Failure::of)?;
        Ok(())
    }

    fn outstanding(&self) -> usize {
        self.seats.iter().flat_map(|seat| &seat.streams).map(Stream::outstanding).sum()
    }

    fn stop(self) -> Result<(), Failure> {
        for Seat { node, .. } in self.seats {
            node.stopper().stop();
            node.wait().map_err(Failure::of)?;
        }
        Ok(())
    }
}

impl Seat {
    fn take(config: Config, alone: bool) -> Result<Seat, Failure> {
        let mut config = config;
        if alone {
            let cores = core_affinity::get_core_ids().unwrap_or_default();
            config.cpu.shared = false;
            config.cpu.busy_poll = true;
            config.cpu.cores = cores.get(1).map(|core| core.id).into_iter().collect();
        }
        let cluster = config.cluster_id();
        let node = Node::start(config).map_err(Failure::of)?;
        let (desk, board) = (node.desk(), node.board());
        let board = board.ok_or_else(|| Failure("the node keeps no watermarks".to_owned()))?;
        let attach = |shard| {
            let ring = Attachment::embedded(&desk, Options::new(cluster, ShardId(shard), 1));
            ring.map(Stream::new).map_err(Failure::of)
        };
        let streams = (0..STREAMS).map(attach).collect::<Result<_, _>>()?;
        Ok(Seat { node, board, streams })
    }
}

/// In microseconds.
fn micros(latencies: &Histogram<u64>) -> Value {
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999) })
}
