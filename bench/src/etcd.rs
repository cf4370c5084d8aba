//! etcd's side: three processes with etcd's own defaults, so every commit is on two disks, and closed-loop puts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use crate::children::{Process, check, interrupted};
use crate::figures::{Cell, Figures};
use crate::grpc::{Connection, Value, field, put_bytes};

const NODES: usize = 3;
const ELECTION_PATIENCE: Duration = Duration::from_secs(20);

/// How long the clients run before anything is counted: connections, caches and the first growth of its files.
const WARM_UP: Duration = Duration::from_secs(1);

/// How many keys each client writes in turn.
const KEYS: u64 = 1000;

/// The etcd that is installed, and its version.
pub(crate) struct Installed {
    program: PathBuf,
    pub(crate) version: String,
}

/// Looks in the usual places.
pub(crate) fn find() -> Option<Installed> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .chain(["/usr/bin".into(), "/usr/local/bin".into()])
        .map(|directory| directory.join("etcd"))
        .find(|program| program.is_file())?;
    let output = Command::new(&program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next()?.trim_start_matches("etcd Version:").trim().to_owned();
    Some(Installed { program, version })
}

/// Starts a fresh cluster in `directory`, loads it for `seconds`, stops it.
pub(crate) fn measure(
    etcd: &Installed,
    cell: &Cell,
    seconds: u64,
    directory: &Path,
) -> Result<Figures, String> {
    let mut cluster = Cluster::start(etcd, directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the clients: {error}"))?;
    let leader = cluster.leader(&runtime)?;
    let figures = runtime.block_on(load(leader, *cell, Duration::from_secs(seconds)))?;
    for process in &mut cluster.processes {
        process.must_run()?;
    }
    check()?;
    Ok(figures)
}

struct Cluster {
    processes: Vec<Process>,
    clients: Vec<SocketAddr>,
}

impl Cluster {
    fn start(etcd: &Installed, directory: &Path) -> Result<Cluster, String> {
        let ports = free_ports(2 * NODES)?;
        let (clients, peers) = ports.split_at(NODES);
        let members: Vec<String> = (0..NODES).map(|i| format!("n{i}=http://{}", peers[i])).collect();
        let mut processes = Vec::new();
        for i in 0..NODES {
            let name = format!("n{i}");
            let (client, peer) = (format!("http://{}", clients[i]), format!("http://{}", peers[i]));
            let mut command = Command::new(&etcd.program);
            // Nothing from the environment may tune it: what is measured is etcd as it comes.
            for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("ETCD_"))
            {
                command.env_remove(key);
            }
            command.arg("--name").arg(&name).arg("--data-dir").arg(directory.join(&name));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            command.args([
                "--initial-cluster-token",
                "plimsoll-bench",
                "--logger",
                "zap",
                "--log-level",
                "warn",
            ]);
            processes.push(Process::start(&mut command, &format!("etcd-{name}"), directory)?);
        }
        Ok(Cluster { processes, clients: clients.to_vec() })
    }

    /// Where the leader serves clients, once all members agree on one.
    fn leader(&mut self, runtime: &Runtime) -> Result<SocketAddr, String> {
        let give_up = Instant::now() + ELECTION_PATIENCE;
        loop {
            let views: Vec<Result<(u64, u64), String>> =
                self.clients.iter().map(|client| runtime.block_on(view(*client))).collect();
            let leader = views.iter().flatten().map(|(_, leader)| *leader).next().unwrap_or(0);
            let agreed = views.iter().all(|view| matches!(view, Ok((_, other)) if *other == leader));
            let at = views.iter().position(|view| matches!(view, Ok((member, _)) if *member == leader));
            if let (true, true, Some(at)) = (leader != 0, agreed, at) {
                return Ok(self.clients[at]);
            }
            for process in &mut self.processes {
                process.must_run()?;
            }
            check()?;
            if Instant::now() > give_up {
                let seen: Vec<String> = views.iter().map(|view| format!("{view:?}")).collect();
                return Err(format!("etcd elected no leader (member, leader): {}", seen.join(", ")));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// A member's id and whom it takes for the leader (0: nobody).
async fn view(client: SocketAddr) -> Result<(u64, u64), String> {
    let asked = async {
        let status = Connection::open(client).await?.call("/etcdserverpb.Maintenance/Status", &[]).await?;
        let Some(Value::Bytes(header)) = field(&status, 1) else {
            return Err("a status without header".to_owned());
        };
        let Some(Value::Varint(member)) = field(header, 2) else {
            return Err("a header without member".to_owned());
        };
        // Protobuf leaves out what is 0.
        let leader = if let Some(Value::Varint(leader)) = field(&status, 4) { leader } else { 0 };
        Ok((member, leader))
    };
    tokio::time::timeout(Duration::from_secs(2), asked)
        .await
        .map_err(|_| format!("{client} did not answer"))?
}

fn free_ports(count: usize) -> Result<Vec<SocketAddr>, String> {
    // All are held until all are known, so that no two are the same.
    let held: Result<Vec<TcpListener>, _> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let addresses = held.and_then(|held| held.iter().map(TcpListener::local_addr).collect());
    addresses.map_err(|error| format!("no free ports: {error}"))
}

/// What is counted: completions from `begin` to `end`.
struct Window {
    begin: Instant,
    end: Instant,
    latency_ns: Mutex<Histogram<u64>>,
}

async fn load(leader: SocketAddr, cell: Cell, measured: Duration) -> Result<Figures, String> {
    let mut connections = Vec::new();
    for _ in 0..cell.clients {
        connections.push(Connection::open(leader).await?);
    }
    let latency_ns = Mutex::new(Histogram::new(3).map_err(|error| error.to_string())?);
    let begin = Instant::now() + WARM_UP;
    let window = Arc::new(Window { begin, end: begin + measured, latency_ns });
    let mut tasks = Vec::new();
    for (client, connection) in connections.iter().enumerate() {
        for slot in 0..cell.outstanding {
            let name = client as u64 * u64::from(cell.outstanding) + u64::from(slot);
            tasks.push(tokio::spawn(put_in_turn(connection.clone(), name, cell.bytes, Arc::clone(&window))));
        }
    }
    for task in tasks {
        task.await.map_err(|error| format!("a client broke: {error}"))??;
    }
    check()?;
    let latency_ns = window.latency_ns.lock().unwrap_or_else(PoisonError::into_inner);
    if latency_ns.is_empty() {
        return Err("etcd committed nothing in the measured time".to_owned());
    }
    let us = |ns: u64| ns as f64 / 1000.0;
    Ok(Figures {
        ops_per_s: latency_ns.len() as f64 / measured.as_secs_f64(),
        p50_us: us(latency_ns.value_at_quantile(0.5)),
        p99_us: us(latency_ns.value_at_quantile(0.99)),
        p999_us: us(latency_ns.value_at_quantile(0.999)),
        max_us: us(latency_ns.max()),
    })
}

/// One closed loop: the next put begins when the one before it is committed.
async fn put_in_turn(
    mut connection: Connection,
    name: u64,
    value_bytes: usize,
    window: Arc<Window>,
) -> Result<(), String> {
    let value = vec![0x5a; value_bytes];
    let mut message = Vec::with_capacity(value_bytes + 64);
    for turn in 0_u64.. {
        message.clear();
        put_bytes(&mut message, 1, format!("{name:04}-{:04}", turn % KEYS).as_bytes());
        put_bytes(&mut message, 2, &value);
        let started = Instant::now();
        connection.call("/etcdserverpb.KV/Put", &message).await?;
        let now = Instant::now();
        if now >= window.end || interrupted() {
            break;
        }
        if now >= window.begin {
            let taken_ns = u64::try_from((now - started).as_nanos()).unwrap_or(u64::MAX);
            let mut latency_ns = window.latency_ns.lock().unwrap_or_else(PoisonError::into_inner);
            latency_ns.record(taken_ns).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
