//! Three nodes in network namespaces of their own, on one Ethernet: kernel interfaces (af_packet) under DPDK's ports,
//! the kernel's own stack as a stranger among them.

use std::process::Command;

use crate::harness::{Process, number};

/// Namespaces of one test, joined by a bridge in the first; they go when this does.
struct Network {
    hub: String,
    nodes: Vec<String>,
}

fn ip(arguments: &str) -> Result<(), String> {
    let ran =
        Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&ran.stderr).trim()))
}

impl Network {
    /// Says why not, when this process may not.
    fn new(nodes: usize) -> Option<Network> {
        let name = |what: &str| format!("plimsoll-{}-{what}", std::process::id());
        let network =
            Network { hub: name("hub"), nodes: (0..nodes).map(|node| name(&node.to_string())).collect() };
        if let Err(why) = ip(&format!("netns add {}", network.hub)) {
            println!("skipped: no network namespaces here ({why}); run as root, with iproute2");
            return None;
        }
        network.build().unwrap();
        Some(network)
    }

    fn build(&self) -> Result<(), String> {
        let hub = &self.hub;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} addr add 10.9.7.100/24 dev br0"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        for (number, node) in self.nodes.iter().enumerate() {
            ip(&format!("netns add {node}"))?;
            ip(&format!("-n {hub} link add v{number} type veth peer name eth0 netns {node}"))?;
            ip(&format!("-n {hub} link set v{number} master br0 up"))?;
            ip(&format!("-n {node} link set eth0 up"))?;
        }
        Ok(())
    }

    fn start(&self, node: usize, rest: &[&str]) -> Process {
        let mut order = vec![
            "eal=--no-huge".to_owned(),
            "eal=--no-pci".to_owned(),
            "eal=--vdev=net_af_packet0,iface=eth0,qpairs=2".to_owned(),
            format!("port=net_af_packet0,10.9.7.{},24", node + 1),
            "lanes=2".to_owned(),
        ];
        order.extend(rest.iter().map(|&text| text.to_owned()));
        Process::start(&format!("node {node}"), Some(&self.nodes[node]), &order)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.nodes.iter().chain([&self.hub]) {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

/// The kernel spreads what comes over both queues as it likes: what comes to the wrong lane is handed over.
#[test]
fn three_nodes_and_a_stranger_on_one_ethernet() {
    let Some(network) = Network::new(3) else { return };
    let mut echoes = [1, 2].map(|node| network.start(node, &["be=echo"]));
    for echo in &mut echoes {
        echo.expect("open");
        echo.expect("open");
    }
    let mut asker =
        network.start(0, &["be=asker", "peer=10.9.7.2", "peer=10.9.7.3", "rounds=2000", "bytes=1472"]);
    for _ in 0..2 {
        assert_eq!(number(&asker.expect("done"), "answered"), 4000);
    }
    stranger(&network);
    let [mut echo, mut other] = echoes;
    link_down_and_up(&network, &mut echo);
    ip(&format!("-n {} link del eth0", network.nodes[2])).unwrap();
    other.expect("unreachable 10.9.7.1");
    other.assert_alive();
    asker.end();
    echo.stop();
    let counters = [echo.expect("counters"), echo.expect("counters")];
    // The kernel sends some of the kind by itself. (Fragments it puts together before it spreads them.)
    for reason in ["IpChecksum", "UdpChecksum", "Options", "Vlan"] {
        let refused: u64 = counters.iter().map(|line| number(line, reason)).sum();
        assert!((5..10).contains(&refused), "{reason}: {counters:?}");
    }
    for seen in ["arp_answered", "handed_over"] {
        assert!(counters.iter().map(|line| number(line, seen)).sum::<u64>() > 0, "{counters:?}");
    }
    echo.end();
    other.end();
}

/// The kernel resolves a node's address, and takes its datagrams; what no node sends is refused.
fn stranger(network: &Network) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dpdk/foreign.py");
    let ran = Command::new("ip")
        .args(["netns", "exec", &network.hub, "python3", script, "br0", "10.9.7.100", "10.9.7.2", "7100"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.trim() == "good 5",
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn link_down_and_up(network: &Network, echo: &mut Process) {
    ip(&format!("-n {} link set v1 down", network.hub)).unwrap();
    echo.expect("unreachable 10.9.7.1");
    ip(&format!("-n {} link set v1 up", network.hub)).unwrap();
    echo.expect("reachable 10.9.7.100:7100");
}
