//! `plimsoll bench commit`: the latency of a commit and how many there are in a second, on a cluster of its own.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use plimsoll::client::{Client, Completion, Options, Outcome, Submit};
use plimsoll::limits::RECORD_BYTES_MAX;
use plimsoll::local::{Cluster, Shape};
use plimsoll::types::ShardId;
use rustix::event::{Timespec, epoll};
use serde_json::json;

use super::floor;
use crate::common::{
    Failure, Interrupt, Own, Verdict, figures_head, figures_json, figures_row, histogram, record, say,
};

const WARM_UP: Duration = Duration::from_secs(1);
const SPIN: Duration = Duration::from_micros(50);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Own,
    /// The bytes of each record
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=RECORD_BYTES_MAX as i64))]
    bytes: u32,
    /// Connections that submit
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Submits that each of them has under way
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    outstanding: u32,
    /// How long to measure, after a second of warming up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Submits in a second, begun when they are due whether or not earlier ones have ended; latency counts from then
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
struct Measured {
    latencies: Histogram<u64>,
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let within = arguments.cluster.dir.clone().unwrap_or_else(std::env::temp_dir);
    let disk = floor::disk(&within, Duration::from_secs(2), &interrupt)?;
    let udp = floor::udp(Duration::from_secs(1), &interrupt)?;
    // Enough for any run that a disk of today can make in an hour: only what is used is taken.
    let mut cluster = arguments
        .cluster
        .start("bench", Shape { segment_mib: 64, capacity_mib: 64 << 14, ..Shape::default() })?;
    let measured = Load::open(arguments, &cluster.client_options())
        .and_then(|mut load| load.run(&interrupt, &mut cluster));
    let measured = measured.map_err(|Failure(what)| {
        if interrupt.has_come() {
            Failure(what)
        } else {
            Failure(format!("{what}{}", cluster.all_last_words()))
        }
    })?;
    let ops_per_s = (measured.latencies.len() as f64 / measured.seconds).round();
    if arguments.json {
        say(&json!({
            "ops_per_s": ops_per_s,
            "commit_us": figures_json(&measured.latencies),
            "floor": { "disk_us": figures_json(&disk), "udp_rtt_us": figures_json(&udp) },
        })
        .to_string());
    } else {
        say(&format!("{ops_per_s} commits per second, {} in all", measured.latencies.len()));
        say(&figures_head("microseconds"));
        say(&figures_row("commit", &measured.latencies));
        say(&figures_row("floor: 4 KiB durable", &disk));
        say(&figures_row("floor: UDP round trip", &udp));
    }
    Ok(if measured.latencies.is_empty() { Verdict::Bad } else { Verdict::Good })
}

/// All clients, in one thread.
struct Load<'a> {
    arguments: &'a Arguments,
    clients: Vec<Client>,
    epoll: OwnedFd,
    payload: Vec<u8>,
    completions: Vec<Completion>,
    latencies: Histogram<u64>,
    /// Of the submits under way of each client, when they were due, in order. Open loop only.
    due: Vec<std::collections::BTreeMap<u64, Instant>>,
}

impl<'a> Load<'a> {
    fn open(arguments: &'a Arguments, options: &Options) -> Result<Load<'a>, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::on("epoll"))?;
        let mut options = options.clone();
        options.outstanding_max = options.outstanding_max.max(2 * arguments.outstanding as usize);
        options.outstanding_bytes_max =
            options.outstanding_bytes_max.max(arguments.outstanding as usize * arguments.bytes as usize);
        options.deadline = Duration::from_secs(30);
        options.spin = SPIN;
        let mut clients = Vec::new();
        for at in 0..arguments.clients {
            let client = Client::connect(options.clone())?;
            epoll::add(&epoll, &client, epoll::EventData::new_u64(at.into()), epoll::EventFlags::IN)
                .map_err(Failure::on("watching a client"))?;
            clients.push(client);
        }
        Ok(Load {
            arguments,
            due: clients.iter().map(|_| Default::default()).collect(),
            clients,
            epoll,
            payload: (0..arguments.bytes).map(|at| at as u8).collect(),
            completions: Vec::new(),
            latencies: histogram(),
        })
    }

    fn run(&mut self, interrupt: &Interrupt, cluster: &mut Cluster) -> Result<Measured, Failure> {
        self.find_leaders(interrupt, cluster)?;
        self.phase(WARM_UP, interrupt, cluster)?;
        self.latencies.reset();
        let begun = Instant::now();
        self.phase(Duration::from_secs(self.arguments.seconds), interrupt, cluster)?;
        Ok(Measured { latencies: self.latencies.clone(), seconds: begun.elapsed().as_secs_f64() })
    }

    /// One commit of each client, so that all know their leader.
    fn find_leaders(&mut self, interrupt: &Interrupt, cluster: &mut Cluster) -> Result<(), Failure> {
        for at in 0..self.clients.len() {
            self.submit(at, None)?;
        }
        self.finish(interrupt, cluster)
    }

    fn phase(
        &mut self,
        lasting: Duration,
        interrupt: &Interrupt,
        cluster: &mut Cluster,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut rounds = 0_u64;
        let mut started = 0_u64;
        while begun.elapsed() < lasting {
            match self.arguments.rate {
                None => self.refill()?,
                Some(rate) => started = self.start_due(begun, started, rate)?,
            }
            for at in 0..self.clients.len() {
                self.clients[at].poll(Duration::ZERO, &mut self.completions);
                self.take(at)?;
            }
            if self.idle() {
                self.wait();
            }
            rounds += 1;
            if rounds.is_multiple_of(4096) {
                interrupt.check()?;
                cluster.check().map_err(Failure::of)?;
            }
        }
        self.finish(interrupt, cluster)
    }

    /// Whether nothing can be submitted now: closed loop, all under way.
    fn idle(&self) -> bool {
        let full = |client: &Client| client.outstanding() >= self.arguments.outstanding as usize;
        self.arguments.rate.is_none() && self.clients.iter().all(full)
    }

    fn refill(&mut self) -> Result<(), Failure> {
        for at in 0..self.clients.len() {
            while self.clients[at].outstanding() < self.arguments.outstanding as usize {
                self.submit(at, None)?;
            }
        }
        Ok(())
    }

    /// Starts what is due by now, in turn over the clients. What a client cannot take waits, and its latency runs.
    fn start_due(&mut self, begun: Instant, mut started: u64, rate: u64) -> Result<u64, Failure> {
        let clients = self.clients.len() as u64;
        loop {
            let due =
                begun + Duration::from_nanos((u128::from(started) * 1_000_000_000 / u128::from(rate)) as u64);
            let at = (started % clients) as usize;
            if due > Instant::now() || self.clients[at].outstanding() >= self.arguments.outstanding as usize {
                return Ok(started);
            }
            self.submit(at, Some(due))?;
            started += 1;
        }
    }

    fn submit(&mut self, at: usize, due: Option<Instant>) -> Result<(), Failure> {
        let shard = ShardId(at as u32 % self.arguments.cluster.shards);
        let id = self.clients[at].submit(Submit::new(shard, &self.payload)).map_err(Failure::of)?;
        if let Some(due) = due {
            self.due[at].insert(id.0, due);
        }
        Ok(())
    }

    fn take(&mut self, at: usize) -> Result<(), Failure> {
        for completion in self.completions.drain(..) {
            if !matches!(completion.outcome, Outcome::Committed { .. }) {
                let trouble =
                    self.clients[at].trouble().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(Failure(format!("a submit ended {}{trouble}", completion.outcome)));
            }
            let due = self.due[at].remove(&completion.request.0);
            record(&mut self.latencies, due.map_or(completion.latency, |due| due.elapsed()));
        }
        Ok(())
    }

    /// Spins for a moment and then blocks until a client has something.
    fn wait(&self) {
        let until = Instant::now() + SPIN;
        let mut events = Vec::with_capacity(1);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let moment = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        while events.is_empty() {
            let last = Instant::now() >= until;
            let timeout = if last { &moment } else { &zero };
            // An error here shows again in the client's own poll.
            let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(timeout));
            if last {
                return;
            }
            if events.is_empty() {
                std::thread::yield_now();
            }
        }
    }

    fn finish(&mut self, interrupt: &Interrupt, cluster: &mut Cluster) -> Result<(), Failure> {
        for at in 0..self.clients.len() {
            while self.clients[at].outstanding() > 0 {
                interrupt.check()?;
                cluster.check().map_err(Failure::of)?;
                self.clients[at].poll(Duration::from_millis(100), &mut self.completions);
            }
            self.take(at)?;
        }
        Ok(())
    }
}
