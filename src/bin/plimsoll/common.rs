//! What the commands share: how they reach a cluster, how they fail, how they hear of signals.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use plimsoll::client::{Client, ClientError, Options};
use plimsoll::local::{Cluster, Shape};
use plimsoll::node::config::{Config, LinkKind, cluster_id};
use plimsoll::types::NodeId;
use serde_json::{Value, json};

/// How a job ended that could be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
}

/// Why a job could not be done.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Which cluster a command speaks to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The configuration of any of its nodes
    #[arg(long, value_name = "FILE", required_unless_present = "members")]
    config: Option<PathBuf>,
    /// Its nodes and where clients reach them, instead of a configuration: 1=127.0.0.1:7200,2=…
    #[arg(
        long,
        value_name = "ID=ADDRESS,…",
        value_delimiter = ',',
        conflicts_with = "config",
        requires = "cluster"
    )]
    members: Vec<String>,
    /// Its name, or its id as 16 hex digits (with --members)
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// How long a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    timeout: f64,
}

impl Target {
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut options = match &self.config {
            Some(path) => Options::from_config(&Config::load(path).map_err(Failure::of)?),
            None => {
                let members =
                    self.members.iter().map(|member| parse_member(member)).collect::<Result<_, _>>()?;
                Options::new(cluster_id(self.cluster.as_deref().unwrap_or_default()), members)
            }
        };
        options.deadline = Duration::try_from_secs_f64(self.timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero() && timeout.as_secs() < 86_400)
            .ok_or_else(|| {
                Failure(format!("--timeout {}: give seconds, more than 0, less than a day", self.timeout))
            })?;
        Ok(options)
    }

    pub(crate) fn connect(&self) -> Result<(Client, Options), Failure> {
        let options = self.options()?;
        Ok((Client::connect(options.clone())?, options))
    }
}

fn parse_member(text: &str) -> Result<(NodeId, SocketAddr), Failure> {
    let wrong = || Failure(format!("--members {text}: give each as ID=ADDRESS:PORT, as in 1=127.0.0.1:7200"));
    let (id, address) = text.split_once('=').ok_or_else(wrong)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
    Ok((NodeId(id), address.parse().map_err(|_| wrong())?))
}

impl Failure {
    pub(crate) fn of(error: impl core::fmt::Display) -> Failure {
        Failure(error.to_string())
    }

    /// For `map_err`: what was tried, and on what.
    pub(crate) fn on<E: core::fmt::Display>(what: impl core::fmt::Display) -> impl FnOnce(E) -> Failure {
        move |error| Failure(format!("{what}: {error}"))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::of(error)
    }
}

/// A cluster that a command starts for itself.
#[derive(Args, Clone, Debug)]
pub(crate) struct Own {
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=15))]
    pub(crate) nodes: u32,
    /// Shards; the load is spread over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) shards: u32,
    /// Lanes of each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) lanes: u16,
    /// How the nodes reach each other, the preferred first: rdma, dpdk, udp, tcp (tcp, if not given)
    #[arg(long, value_name = "LINK,..", value_delimiter = ',')]
    pub(crate) link: Vec<LinkKind>,
    /// Lanes never block
    #[arg(long)]
    pub(crate) busy_poll: bool,
    /// Where the cluster's data goes; without it, the system's directory for temporary files
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Own {
    /// Starts all processes, in a directory of their own.
    pub(crate) fn start(&self, name: &str, shape: Shape) -> Result<Cluster, Failure> {
        let links = if self.link.is_empty() { shape.links } else { self.link.clone() };
        let shape = Shape { nodes: self.nodes, shards: self.shards, lanes: self.lanes, links, ..shape };
        let program = std::env::current_exe().map_err(Failure::on("finding this program"))?;
        let within = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let directory = Cluster::fresh_directory(&within, name).map_err(Failure::on(within.display()))?;
        let failed = || Failure::on("starting a cluster");
        let made = Cluster::new(&program, &directory, &shape).inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&directory);
        });
        let mut cluster = made.map_err(failed())?;
        for id in cluster.ids() {
            cluster.reconfigure(id, |config| config.cpu.busy_poll = self.busy_poll).map_err(failed())?;
        }
        cluster.start_all().map_err(failed())?;
        Ok(cluster)
    }
}

/// One line on standard error.
pub(crate) fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "plimsoll: {what}");
}

/// One line on standard output. Whoever does not read it to its end has had enough: that is no failure.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Set once SIGINT or SIGTERM has come. A second one ends the process at once.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn listen() -> Result<Interrupt, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Before the flag is set, so that the first one does not end the process itself.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(Failure::on("listening for signals"))?;
        }
        Ok(Interrupt(flag))
    }

    pub(crate) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.has_come() { Err(Failure("interrupted".to_owned())) } else { Ok(()) }
    }
}

/// Latencies from 1 ns to a minute with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are those of a histogram")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
}

/// The five figures, in microseconds.
pub(crate) fn figures(histogram: &Histogram<u64>) -> [(&'static str, f64); 5] {
    let micros = |nanos: u64| (nanos as f64 / 100.0).round() / 10.0;
    [
        ("p50", micros(histogram.value_at_quantile(0.5))),
        ("p90", micros(histogram.value_at_quantile(0.9))),
        ("p99", micros(histogram.value_at_quantile(0.99))),
        ("p999", micros(histogram.value_at_quantile(0.999))),
        ("max", micros(histogram.max())),
    ]
}

pub(crate) fn figures_json(histogram: &Histogram<u64>) -> Value {
    Value::Object(
        figures(histogram).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect(),
    )
}

/// A row of a table of latencies.
pub(crate) fn figures_row(name: &str, histogram: &Histogram<u64>) -> String {
    let columns: String = figures(histogram).iter().map(|(_, value)| format!("{value:>12.1}")).collect();
    format!("{name:<22}{columns}")
}

pub(crate) fn figures_head(what: &str) -> String {
    let columns: String =
        ["p50", "p90", "p99", "p99.9", "max"].iter().map(|name| format!("{name:>12}")).collect();
    format!("{what:<22}{columns}")
}
