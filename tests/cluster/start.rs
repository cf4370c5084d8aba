//! A node that must not start says one clear thing, exits with 2 and touches nothing.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use plimsoll::local::{Cluster, Shape};
use plimsoll::node::config::LinkKind;
use plimsoll::types::NodeId;

use crate::{binary, cluster, small, turn};

fn run(config: &Path) -> Output {
    Command::new(binary()).args(["node", "--config"]).arg(config).output().unwrap()
}

/// Runs node 1 of the cluster, which must refuse, and returns what it says.
fn refused(cluster: &Cluster) -> String {
    let output = run(cluster.config_path(NodeId(1)));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "one clear error:\n{said}");
    said
}

/// Every path below `directory`, with what it holds.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.push((path.display().to_string(), Vec::new()));
            found.extend(contents(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn one() -> Shape {
    Shape { nodes: 1, ..small() }
}

#[test]
fn a_port_in_use() {
    type Port = fn(&plimsoll::node::config::Member) -> SocketAddr;
    let in_use = |port: Port| {
        let cluster = cluster("port", &one());
        let config = cluster.config(NodeId(1));
        let address = port(config.me().unwrap());
        // Datagrams and connections to one port are two things: both are taken, and which is missed does not matter.
        let _taken = (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
        let said = refused(&cluster);
        assert!(said.contains(&address.to_string()) && said.contains("in use"), "{said}");
        assert!(!config.data_dir.exists(), "nothing is made");
    };
    // Over DPDK alone nobody listens at a member's address: ports of its own carry the frames.
    let links = cluster("links", &one()).config(NodeId(1)).links.clone();
    let has_sockets = links.iter().any(|&kind| kind != LinkKind::Dpdk);
    // Each waits for a while for the port to become free.
    std::thread::scope(|scope| {
        scope.spawn(|| in_use(|me| me.client));
        if has_sockets {
            in_use(|me| me.peer);
        }
    });
}

#[test]
fn a_data_directory_that_another_node_holds() {
    let mut first = cluster("held", &one());
    first.start_all().unwrap();
    first.await_leaders().unwrap();
    let mut second = cluster("holder", &one());
    let held = first.config(NodeId(1)).clone();
    second
        .reconfigure(NodeId(1), |config| {
            config.cluster = held.cluster.clone();
            config.data_dir = held.data_dir.clone();
        })
        .unwrap();
    let said = refused(&second);
    assert!(said.contains("held by another node"), "{said}");
    let pid = first.pid(NodeId(1)).unwrap().to_string();
    assert!(said.contains(&pid), "it names the holder, {pid}: {said}");
}

#[test]
fn a_data_directory_of_another_cluster_or_node_or_shape() {
    let mut cluster = cluster("foreign", &one());
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    cluster.kill(NodeId(1)).unwrap();
    let original = cluster.config(NodeId(1)).clone();
    let before = contents(&original.data_dir);
    assert!(before.len() >= 3, "there is a log and an identity");
    type Change = fn(&mut plimsoll::node::Config);
    let wrong: [(&str, Change); 3] = [
        ("cluster", |config| config.cluster = "another".into()),
        ("node", |config| {
            config.node = 7;
            config.members[0].id = 7;
        }),
        ("shards", |config| config.shards = 3),
    ];
    for (word, change) in wrong {
        cluster.reconfigure(NodeId(1), change).unwrap();
        let said = refused(&cluster);
        assert!(said.contains("is not this node's") && said.contains(word), "{said}");
        assert_eq!(contents(&original.data_dir), before, "nothing is touched");
        cluster.reconfigure(NodeId(1), |config| *config = original.clone()).unwrap();
    }
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
}

#[test]
fn a_directory_that_is_somebody_elses() {
    let cluster = cluster("stranger", &one());
    let path = &cluster.config(NodeId(1)).data_dir;
    fs::create_dir(path).unwrap();
    fs::write(path.join("thesis.txt"), "three years of work").unwrap();
    let before = contents(path);
    let said = refused(&cluster);
    assert!(said.contains("thesis.txt"), "{said}");
    assert_eq!(contents(path), before, "nothing is touched");
}

#[test]
fn a_configuration_that_is_not_sound() {
    let mut cluster = cluster("config", &one());
    cluster
        .reconfigure(NodeId(1), |config| config.raft.heartbeat_ms = config.raft.election_timeout_ms)
        .unwrap();
    let said = refused(&cluster);
    assert!(said.contains("heartbeat_ms"), "{said}");
    let path = cluster.config_path(NodeId(1)).to_owned();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("colour = \"blue\"\n{text}")).unwrap();
    let said = refused(&cluster);
    assert!(said.contains("colour"), "{said}");
    assert!(!cluster.config(NodeId(1)).data_dir.exists(), "nothing is made");
}

#[test]
fn a_node_that_lost_its_data_is_not_taken_for_the_one_that_promised() {
    let _turn = turn();
    // A member whose directory was wiped comes back with an empty log and no votes. Let in under its old name, it could
    // help to elect a leader that lacks what it once acknowledged. Its peers know the life of its directory.
    let mut cluster = cluster("wiped", &small());
    cluster.start_all().unwrap();
    let leader = cluster.await_leaders().unwrap()[0];
    let wiped = cluster.ids().into_iter().find(|&id| id != leader).unwrap();
    cluster.kill(wiped).unwrap();
    fs::remove_dir_all(&cluster.config(wiped).data_dir).unwrap();
    cluster.start(wiped).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !(cluster.log(leader).contains("lost its log") || cluster.log(wiped).contains("lost its log")) {
        assert!(std::time::Instant::now() < until, "nobody noticed:\n{}", cluster.last_words(leader));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // The other two serve, and the wiped one stays outside.
    let mut ledger = crate::ledger::Ledger::open(&cluster, 0);
    ledger.load(4, |ledger| ledger.acknowledged.len() >= 50);
    let mut client = plimsoll::client::Client::connect(cluster.client_options()).unwrap();
    let status =
        client.status(wiped, plimsoll::types::ShardId(0), std::time::Duration::from_secs(2)).unwrap();
    assert_eq!(status.leader, None, "it follows nobody");
    assert_eq!(status.commit.0, 0);
}
