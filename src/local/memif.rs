//! Ports of shared memory between the nodes of a local cluster, for the link over DPDK: one for each pair, without a
//! NIC.

use std::net::Ipv4Addr;

use crate::node::config::dpdk::{Dpdk, Network, Peer, Port};

/// What node `id` of so many says of its ports; nothing when it is alone. `cluster` tells clusters apart that run at
/// the same time.
pub(super) fn between(cluster: &str, id: u32, nodes: u32) -> Dpdk {
    if nodes == 1 {
        return Dpdk::default();
    }
    let mut dpdk = Dpdk { eal: vec!["--no-huge".to_owned(), "--no-pci".to_owned()], ..Dpdk::default() };
    for (number, other) in (1..=nodes).filter(|&other| other != id).enumerate() {
        let (low, high) = (id.min(other), id.max(other));
        let role = if id == low { "server" } else { "client" };
        // Sockets without a file: they are gone with the processes that hold them.
        // What the driver says of an interface it says by its id: every pair has its own.
        let pair = low * 16 + high;
        let vdev =
            format!("--vdev=net_memif{number},role={role},id={pair},socket=/plimsoll-{cluster}-{low}-{high}");
        dpdk.eal.push(vdev);
        dpdk.ports.push(Port {
            name: Some(format!("net_memif{number}")),
            id: None,
            address: Network { address: address(low, high, id), prefix_bits: 24 },
            mtu: 1500,
            queue_frames: 512,
        });
        dpdk.peers.push(Peer { id: other, address: address(low, high, other) });
    }
    dpdk
}

/// Every pair has a network of its own; nodes are numbered from 1 to 15.
fn address(low: u32, high: u32, node: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, (low * 16 + high) as u8, node as u8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node::Config;
    use crate::node::config::Member;
    use crate::types::NodeId;

    /// A cluster of one over DPDK was refused for having no ports, and it needs none.
    #[test]
    fn every_node_of_a_cluster_of_any_size_is_configured_soundly() {
        for nodes in 1..=5 {
            let at = |port| (Ipv4Addr::LOCALHOST, port).into();
            let member = |id| Member { id, peer: at(7000 + id as u16), client: at(8000 + id as u16) };
            for id in 1..=nodes {
                let mut config = Config::new("c", NodeId(id), "data", (1..=nodes).map(member).collect());
                config.dpdk = between("c", id, nodes);
                assert_eq!(config.dpdk.ports.len() as u32, nodes - 1);
                config.check().unwrap();
            }
        }
    }
}
