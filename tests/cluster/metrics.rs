//! What a node tells an operator's tools: `/metrics` and `/health`, and what it makes of those who ask for something
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use plimsoll::client::{Client, Submit};
use plimsoll::local::{Cluster, Shape, slowness};
use plimsoll::node::config::LinkKind;
use plimsoll::types::{NodeId, ShardId};
use plimsoll::wire::datagram::{MAGIC, Place, seal_data};

use crate::{cluster, small, turn};

/// Sends bytes to where a node answers, and returns the status, the header and the body of what it answers.
fn ask(address: SocketAddr, bytes: &[u8]) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no header: {answer:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap().parse().unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    (status, head.to_owned(), body.to_owned())
}

fn get(cluster: &Cluster, node: NodeId, path: &str) -> (u16, String, String) {
    ask(admin_of(cluster, node), format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes())
}

fn admin_of(cluster: &Cluster, node: NodeId) -> SocketAddr {
    cluster.config(node).admin.listen.unwrap()
}

/// What a node tells: each line's name and labels, and its value.
struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Asks a node, and checks that what it tells is in the format's order: each family once, its help and type before
    /// it.
    fn of(cluster: &Cluster, node: NodeId) -> Figures {
        let (status, head, body) = get(cluster, node, "/metrics");
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        assert!(body.ends_with('\n'));
        let mut figures = BTreeMap::new();
        let mut families = BTreeSet::new();
        let (mut family, mut kind) = ("", "");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').unwrap().0;
                assert!(families.insert(family), "{family} is there twice");
            } else if let Some(said) = line.strip_prefix("# TYPE ") {
                kind = said.strip_prefix(family).unwrap().trim();
                assert!(kind == "gauge" || kind == "counter" && family.ends_with("_total"), "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!((name.split('{').next().unwrap(), kind.is_empty()), (family, false), "{line}");
                let value: f64 = value.parse().unwrap();
                assert_eq!(figures.insert(name.to_owned(), value), None, "{name} is there twice");
            }
        }
        assert!(families.len() > 40, "{body}");
        Figures(figures)
    }

    #[track_caller]
    fn value(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("{name} is not among {:#?}", self.0.keys()))
    }
}

/// Asks until a figure is what it is to become.
fn await_value(cluster: &Cluster, node: NodeId, name: &str, expected: f64) {
    await_that(&format!("node {node} tells {name} {expected}"), || {
        Figures::of(cluster, node).value(name) == expected
    });
}

#[track_caller]
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20) * slowness();
    while !is_so() {
        assert!(Instant::now() < until, "it never comes that {what}");
    }
}

/// Submits so many records and waits until all are committed.
fn submit(cluster: &Cluster, shard: ShardId, count: usize) {
    let mut client = Client::connect(cluster.client_options()).unwrap();
    let mut ends = Vec::new();
    for number in 0..count {
        client.submit(Submit::new(shard, format!("record {number}").as_bytes())).unwrap();
    }
    while ends.len() < count {
        client.poll(Duration::from_millis(100), &mut ends);
    }
    assert!(ends.iter().all(|end| end.outcome.is_committed()), "{ends:?}");
}

const COMMIT: &str = "plimsoll_raft_commit_index{lane=\"1\",shard=\"1\"}";
const TERM: &str = "plimsoll_raft_term{lane=\"1\",shard=\"1\"}";
const LEADS: &str = "plimsoll_raft_is_leader{lane=\"1\",shard=\"1\"}";

#[test]
fn what_is_committed_led_and_written_is_told() {
    let _turn = turn();
    let shape = Shape { lanes: 2, shards: 3, admin: true, ..small() };
    let mut cluster = cluster("metrics", &shape);
    cluster.start_all().unwrap();
    let ids = cluster.ids();
    let count = 100;
    // A machine that stalls may cost a leader its term, and the next one lays an entry of its own: then once more.
    let mut attempts = 0..5;
    let (leader, before, after, all) = loop {
        attempts.next().expect("there is a leader that stays for a hundred records");
        let leader = cluster.await_leaders().unwrap()[1];
        let before = Figures::of(&cluster, leader);
        submit(&cluster, ShardId(1), count);
        let after = Figures::of(&cluster, leader);
        for &id in &ids {
            await_that("it commits everywhere", || {
                Figures::of(&cluster, id).value(COMMIT) >= after.value(COMMIT)
            });
        }
        let all: Vec<Figures> = ids.iter().map(|id| Figures::of(&cluster, *id)).collect();
        let stayed = |figures: &Figures| figures.value(TERM) == before.value(TERM);
        if before.value(LEADS) == 1.0 && stayed(&after) && all.iter().all(stayed) {
            break (leader, before, after, all);
        }
    };
    let grown = |name: &str| after.value(name) - before.value(name);
    for name in ["commit", "applied", "last"] {
        let name = format!("plimsoll_raft_{name}_index{{lane=\"1\",shard=\"1\"}}");
        assert_eq!(grown(&name), count as f64, "{name}");
    }
    assert!(grown("plimsoll_log_written_bytes_total{lane=\"1\"}") >= (count * 64) as f64);
    assert!(grown("plimsoll_log_writes_total{lane=\"1\"}") >= 1.0);
    assert!(grown("plimsoll_turns_total{lane=\"1\"}") >= 1.0);
    assert!(grown("plimsoll_client_frames_received_total{lane=\"1\"}") >= 1.0);
    assert!(grown("plimsoll_clients_accepted_total{lane=\"1\"}") >= 1.0);
    assert_eq!(after.value("plimsoll_disk_no_space{lane=\"1\"}"), 0.0);
    assert_eq!(after.value("plimsoll_submits_waiting{lane=\"1\",shard=\"1\"}"), 0.0);
    assert!(after.value("plimsoll_turn_longest_seconds{lane=\"1\"}") > 0.0);
    let end = after.value("plimsoll_log_end_bytes{lane=\"1\"}");
    assert!(end > 0.0 && end < after.value("plimsoll_log_capacity_bytes{lane=\"1\"}"));

    for (&id, figures) in ids.iter().zip(&all) {
        assert_eq!(figures.value(COMMIT), after.value(COMMIT), "node {id}");
        assert_eq!(figures.value(LEADS), f64::from(u8::from(id == leader)), "node {id}");
        assert_eq!(figures.value("plimsoll_raft_leader{lane=\"1\",shard=\"1\"}"), f64::from(leader.0));
        assert_eq!(figures.value("plimsoll_lane_up{lane=\"0\"}"), 1.0);
        for peer in ids.iter().filter(|peer| **peer != id) {
            let link = cluster.config(id).links[0];
            let name = format!("plimsoll_link_taken{{lane=\"1\",peer=\"{peer}\",link=\"{link}\"}}");
            await_value(&cluster, id, &name, 1.0);
        }
        let info: Vec<_> = figures.0.keys().filter(|name| name.starts_with("plimsoll_node_info{")).collect();
        assert!(info.len() == 1 && info[0].contains(&format!("node=\"{id}\"")), "{info:?}");
        let shards = figures.0.keys().filter(|name| name.starts_with("plimsoll_raft_term{")).count();
        assert_eq!(shards, 3);
    }
    // Of every shard exactly one is the leader, but for the moment of an election.
    for shard in 0..3 {
        let name = format!("plimsoll_raft_is_leader{{lane=\"{}\",shard=\"{shard}\"}}", shard % 2);
        await_that("one node of three leads", || {
            ids.iter().map(|id| Figures::of(&cluster, *id).value(&name)).sum::<f64>() == 1.0
        });
    }
    for &id in &ids {
        assert_eq!(get(&cluster, id, "/health").0, 200, "{}", cluster.last_words(id));
    }
}

#[test]
fn what_strangers_send_is_counted() {
    let _turn = turn();
    let shape = Shape { links: vec![LinkKind::Udp, LinkKind::Tcp], admin: true, ..small() };
    let mut cluster = cluster("counted", &shape);
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let port = cluster.config(leader).me().unwrap().peer;
    let before = Figures::of(&cluster, leader);

    // Whole garbage, and a datagram that is sound but of no session.
    let socket = UdpSocket::bind((port.ip(), 0)).unwrap();
    let body = [7; 200];
    let stranger = Place { session: 77, number: 0, limit: 0 };
    let garbage = [&MAGIC.to_le_bytes()[..], &body].concat();
    let alien = [&seal_data(stranger, body.len())[..], &body].concat();
    let mut counted = Vec::new();
    for (reason, bytes, times) in [("malformed", garbage, 3), ("alien", alien, 2)] {
        for _ in 0..times {
            socket.send_to(&bytes, port).unwrap();
        }
        let name =
            format!("plimsoll_link_datagrams_dropped_total{{lane=\"0\",link=\"udp\",reason=\"{reason}\"}}");
        await_value(&cluster, leader, &name, before.value(&name) + f64::from(times));
        counted.push((name, f64::from(times)));
    }
    let name = "plimsoll_link_connections_dropped_total{lane=\"0\",link=\"tcp\",reason=\"malformed\"}";
    let mut stream = TcpStream::connect(port).unwrap();
    stream.write_all(&[7; 64]).unwrap();
    await_value(&cluster, leader, name, before.value(name) + 1.0);
    counted.push((name.to_owned(), 1.0));

    let after = Figures::of(&cluster, leader);
    for (name, times) in counted {
        assert_eq!(after.value(&name) - before.value(&name), times, "{name}");
    }
}

#[test]
fn who_asks_for_anything_else_is_told_so_and_harms_nobody() {
    let _turn = turn();
    let mut cluster = cluster("asked", &Shape { admin: true, ..small() });
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let id = NodeId(1);
    let address = admin_of(&cluster, id);
    let (status, head, body) = get(&cluster, id, "/health");
    assert_eq!((status, body.as_str()), (200, "ok\n"), "{head}");
    for path in ["/", "/metrics/", "/healthy", "/../metrics"] {
        assert_eq!(get(&cluster, id, path).0, 404, "{path}");
    }
    for method in ["POST", "HEAD", "DELETE"] {
        let (status, head, _) =
            ask(address, format!("{method} /metrics HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(status == 405 && head.contains("\r\nAllow: GET\r\n"), "{method}: {head}");
    }
    // More than is ever read, too: the answer comes all the same.
    let long = [&[b'x'; 100_000][..], b" / HTTP/1.1\r\n\r\n"].concat();
    let headers = [b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 100_000]].concat();
    let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (what, bytes, expected) in [
        ("noise", &noise[..], 400),
        ("no line", &b"\x00\r\n\r\n"[..], 400),
        ("another protocol", &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], 400),
        ("no host", &b"GET /metrics HTTP/1.1\r\n\r\n"[..], 400),
        ("a long line", &long[..], 431),
        ("long headers", &headers[..], 431),
    ] {
        assert_eq!(ask(address, bytes).0, expected, "{what}");
    }
    // Half a request and then the end; nothing at all; and many who say nothing, in whose place others are served at
    // last.
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"GET /metr").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    half.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    let mute: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    drop(mute);
    assert_eq!(get(&cluster, id, "/health").0, 200);
    assert_eq!(cluster.has_ended(id).unwrap(), None);
    assert!(Figures::of(&cluster, id).value("plimsoll_turns_total{lane=\"0\"}") > 0.0);
}

#[test]
fn a_port_for_it_that_is_in_use_is_named_before_anything_is_made() {
    let mut cluster = cluster("admin-port", &Shape { nodes: 1, admin: true, ..small() });
    let id = NodeId(1);
    let address = admin_of(&cluster, id);
    let _taken = TcpListener::bind(address).unwrap();
    cluster.start(id).unwrap();
    assert_eq!(cluster.wait(id).unwrap().code(), Some(2));
    let said = cluster.last_words(id);
    assert!(said.contains(&format!("{address} (for admin) is in use")), "{said}");
    assert!(!cluster.config(id).data_dir.exists(), "nothing is made");
}
