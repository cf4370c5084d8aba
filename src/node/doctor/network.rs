//! What carries frames: sockets, RDMA devices, DPDK.

use super::Report;
use super::machine::Machine;
use crate::node::config::{Config, LinkKind, Rdma};

/// What a lane would like a socket's buffers to be.
const SOCKET_BYTES: u64 = 4 << 20;

/// Where the kernel tells of RDMA devices.
const INFINIBAND: &str = "sys/class/infiniband";

/// The drivers that hand a port to DPDK.
const USER_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

pub(super) fn examine(machine: &Machine, config: Option<&Config>, report: &mut Report) {
    udp(machine, report);
    busy_poll(machine, report);
    let has_rdma = rdma(machine, built_with(LinkKind::Rdma), report);
    let has_dpdk = dpdk(machine, built_with(LinkKind::Dpdk), report);
    if let Some(config) = config {
        let is_wanted = config.links.contains(&LinkKind::Rdma);
        let has_rdma = is_wanted && rdma_chosen(machine, &config.rdma, report) && has_rdma;
        needs(&config.links, has_rdma, has_dpdk, report);
    }
}

/// Whether this build has the link.
pub(super) const fn built_with(link: LinkKind) -> bool {
    match link {
        LinkKind::Rdma => cfg!(feature = "rdma"),
        LinkKind::Dpdk => cfg!(feature = "dpdk"),
        LinkKind::Udp | LinkKind::Tcp => true,
    }
}

/// A configuration with another link to fall back to needs none in particular.
pub(super) fn needs(links: &[LinkKind], has_rdma: bool, has_dpdk: bool, report: &mut Report) {
    let has = |link: &LinkKind| match link {
        LinkKind::Rdma => has_rdma,
        LinkKind::Dpdk => has_dpdk,
        LinkKind::Udp | LinkKind::Tcp => true,
    };
    if !links.iter().any(has) {
        let names: Vec<&str> = links.iter().map(|link| link.name()).collect();
        report.unmet.push(format!(
            "link = {names:?}: this machine or this build has none of them (the lines above say what is missing); add \
             \"tcp\" at the end to fall back to it"
        ));
    }
}

pub(super) fn udp(machine: &Machine, report: &mut Report) {
    for (topic, name) in [("UDP receive buffer", "rmem_max"), ("UDP send buffer", "wmem_max")] {
        match machine.number(format!("proc/sys/net/core/{name}")) {
            Some(bytes) if bytes >= SOCKET_BYTES => report.ok(topic, format!("up to {} KiB", bytes >> 10)),
            Some(bytes) => report.better(
                topic,
                format!("up to {} KiB: a burst of catch-up may overrun it", bytes >> 10),
                format!("sysctl net.core.{name}={SOCKET_BYTES}"),
            ),
            None => report.ok(topic, "not told here (a network namespace hides it)"),
        }
    }
    let topic = "GSO and GRO";
    match machine.kernel() {
        Some(version) if version >= (5, 0) => {
            report.ok(topic, format!("kernel {}.{} has both for UDP", version.0, version.1))
        }
        Some((major, minor)) => {
            report.missing(topic, format!("kernel {major}.{minor}"), "take Linux 5.0 or later")
        }
        None => report.missing(topic, "the kernel's version is not told", "mount /proc"),
    }
}

pub(super) fn busy_poll(machine: &Machine, report: &mut Report) {
    let topic = "busy polling";
    let number = |name: &str| machine.number(format!("proc/sys/net/core/{name}")).unwrap_or(0);
    let (poll, read) = (number("busy_poll"), number("busy_read"));
    let real = |name: &&String| *name != "lo" && machine.has(format!("sys/class/net/{name}/device"));
    let cards = machine.list("sys/class/net");
    let cards: Vec<&String> = cards.iter().filter(real).collect();
    let deferred = cards.iter().any(|name| {
        machine.number(format!("sys/class/net/{name}/napi_defer_hard_irqs")).is_some_and(|count| count > 0)
    });
    let settings = format!("net.core.busy_poll {poll}, busy_read {read}");
    if poll > 0 || read > 0 || deferred {
        report.ok(topic, format!("{settings}; interrupts deferred: {}", if deferred { "yes" } else { "no" }));
    } else {
        let card = cards.first().map_or("eth0", |name| name.as_str());
        report.better(
            topic,
            settings,
            format!(
                "sysctl net.core.busy_poll=50 net.core.busy_read=50; echo 2 > /sys/class/net/{card}/napi_defer_hard_irqs; \
                 echo 20000 > /sys/class/net/{card}/gro_flush_timeout"
            ),
        );
    }
}

/// Says what RDMA there is; whether a link over it can be had.
pub(super) fn rdma(machine: &Machine, is_built: bool, report: &mut Report) -> bool {
    let topic = "RDMA";
    let base = INFINIBAND;
    let mut active = 0;
    for device in machine.list(base) {
        for port in machine.list(format!("{base}/{device}/ports")) {
            let at = format!("{base}/{device}/ports/{port}");
            // "4: ACTIVE"
            let state = machine.read(format!("{at}/state")).unwrap_or_default();
            let layer =
                machine.read(format!("{at}/link_layer")).unwrap_or_else(|| "unknown layer".to_owned());
            let found = format!("{device} port {port}: {layer}, {state}; GIDs {}", gids_told(machine, &at));
            if state.ends_with("ACTIVE") {
                active += 1;
                report.ok(topic, found);
            } else {
                report.better(topic, found, format!("bring its interface up: rdma link show {device}"));
            }
        }
    }
    if active == 0 && machine.list(base).is_empty() {
        report.missing(
            topic,
            "no device",
            "a card with RoCE or InfiniBand and its driver; or rdma link add rxe0 type rxe netdev eth0 (Soft-RoCE, slow)",
        );
    }
    let library = machine.library("libibverbs.so.");
    match &library {
        Some(path) => report.ok("RDMA library", path.clone()),
        None => report.missing(
            "RDMA library",
            "no libibverbs",
            "apt-get install libibverbs1 ibverbs-providers librdmacm1",
        ),
    }
    if active > 0 && !machine.list("dev/infiniband").iter().any(|name| name.starts_with("uverbs")) {
        report.missing("RDMA verbs", "no /dev/infiniband/uverbs", "modprobe ib_uverbs rdma_ucm");
        return false;
    }
    if !is_built {
        report.missing(
            "RDMA build",
            "this build has no link over RDMA",
            "cargo build --release --features rdma",
        );
    }
    active > 0 && library.is_some() && is_built
}

/// Whether the device, the port and the GID that a configuration names are there, and the port is up.
pub(super) fn rdma_chosen(machine: &Machine, wanted: &Rdma, report: &mut Report) -> bool {
    let topic = "RDMA choice";
    let devices = machine.list(INFINIBAND);
    let considered = match &wanted.device {
        Some(name) if !devices.contains(name) => {
            let there = if devices.is_empty() { "none".to_owned() } else { devices.join(", ") };
            let advice = "set rdma.device to one that ibv_devices tells, or leave it out";
            report.missing(topic, format!("rdma.device = {name:?}: there is {there}"), advice);
            return false;
        }
        Some(name) => vec![name.clone()],
        None => devices,
    };
    let refusals: Vec<String> =
        considered.iter().filter_map(|device| unfit(machine, device, wanted)).collect();
    let advice =
        "set rdma.device, rdma.port and rdma.gid_index to what the lines above tell, or leave them out";
    if refusals.len() == considered.len() {
        if !considered.is_empty() {
            report.missing(topic, refusals.join("; "), advice);
        }
        return false;
    }
    if refusals.is_empty() {
        report.ok(topic, considered.join(", "));
    } else {
        // Which is the first is for the library to say.
        let found = format!("a node takes the first device, and not each is fit: {}", refusals.join("; "));
        report.better(topic, found, "set rdma.device");
    }
    true
}

/// Why a device does not serve a configuration that may choose it.
fn unfit(machine: &Machine, device: &str, wanted: &Rdma) -> Option<String> {
    let Rdma { port, gid_index, .. } = wanted;
    let at = format!("{INFINIBAND}/{device}/ports/{port}");
    let Some(state) = machine.read(format!("{at}/state")) else {
        return Some(format!("{device} has no port {port}"));
    };
    if !state.ends_with("ACTIVE") {
        return Some(format!("{device} port {port} is not up: {state}"));
    }
    let gids = gids(machine, &at);
    match gid_index {
        None if gids.is_empty() => Some(format!("{device} port {port} has no GID")),
        Some(index) if gids.iter().all(|(found, _)| found != &u32::from(*index)) => {
            Some(format!("{device} port {port} has no GID {index}"))
        }
        _ => None,
    }
}

/// The GIDs of a port that are set, by ascending index.
fn gids(machine: &Machine, port: &str) -> Vec<(u32, String)> {
    let mut indices: Vec<u32> =
        machine.list(format!("{port}/gids")).iter().filter_map(|index| index.parse().ok()).collect();
    indices.sort_unstable();
    let gid = |index: u32| Some((index, machine.read(format!("{port}/gids/{index}"))?));
    let is_set = |(_, gid): &(u32, String)| gid.chars().any(|character| !matches!(character, '0' | ':'));
    indices.into_iter().filter_map(gid).filter(is_set).collect()
}

/// The same in words, each with its kind.
fn gids_told(machine: &Machine, port: &str) -> String {
    let kind = |index| machine.read(format!("{port}/gid_attrs/types/{index}"));
    let told = |(index, gid): (u32, String)| {
        format!("{index} ({}) {gid}", kind(index).unwrap_or_else(|| "IB".to_owned()))
    };
    let told: Vec<String> = gids(machine, port).into_iter().map(told).collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

/// Says what DPDK there is; whether a link over it can be had. Its virtual ports need no card.
pub(super) fn dpdk(machine: &Machine, is_built: bool, report: &mut Report) -> bool {
    let library = machine.library("librte_eal.so");
    match (is_built, &library) {
        (true, Some(path)) => report.ok("DPDK", path.clone()),
        (true, None) => report.missing("DPDK", "no librte_eal", "apt-get install libdpdk-dev"),
        (false, found) => report.missing(
            "DPDK",
            format!(
                "this build has no link over DPDK; the library is {}",
                found.as_deref().unwrap_or("missing too")
            ),
            "apt-get install libdpdk-dev; cargo build --release --features dpdk",
        ),
    }
    let is_address = |name: &String| name.split(':').count() == 3 && name.contains('.');
    let bound: Vec<String> = USER_DRIVERS
        .iter()
        .flat_map(|driver| {
            let devices = machine.list(format!("sys/bus/pci/drivers/{driver}"));
            devices.into_iter().filter(is_address).map(move |device| format!("{device} ({driver})"))
        })
        .collect();
    if bound.is_empty() {
        report.missing(
            "DPDK ports",
            "no PCI device is bound to vfio-pci or uio; virtual ports (memif, af_packet) need none",
            "modprobe vfio-pci; dpdk-devbind.py --bind=vfio-pci ADDRESS",
        );
    } else {
        report.ok("DPDK ports", bound.join(", "));
    }
    is_built && library.is_some()
}
