//! What the kernel grants: io_uring, locked memory, huge pages.

use rustix::process::{Resource, getrlimit};

use super::Report;
use super::machine::{Machine, parse_choice};
use super::network::built_with;
use crate::io::disk::{BACKEND_VARIABLE, Backend};
use crate::io::reactor::probe::{Features, probe};
use crate::node::config::{Config, LinkKind, Memory};

const MIB: u64 = 1 << 20;

pub(super) fn examine(machine: &Machine, config: Option<&Config>, report: &mut Report) {
    io_uring(machine, &probe(), report);
    let forced = std::env::var(BACKEND_VARIABLE).ok();
    if let Err(why) = Backend::choose(forced.as_deref()) {
        report.unmet.push(why);
    }
    let limit = getrlimit(Resource::Memlock).current;
    memlock(limit, wanted_bytes(config, built_with(LinkKind::Rdma)), report);
    huge_pages(machine, config.is_some_and(|config| config.links.contains(&LinkKind::Dpdk)), report);
}

/// What the lanes of a node lock: their pools for the disk, and for RDMA their pools once more, which the kernel counts
/// for each that registers them, and what the peers send into.
pub(super) fn wanted_bytes(config: Option<&Config>, has_rdma: bool) -> u64 {
    let Some(config) = config else { return Memory::default().bytes() as u64 };
    let pool_bytes = config.memory.bytes() as u64;
    let peers = config.members.len().saturating_sub(1) as u64;
    let rdma_bytes = if has_rdma && config.links.contains(&LinkKind::Rdma) && peers > 0 {
        pool_bytes + peers * config.rdma.bytes_per_peer()
    } else {
        0
    };
    u64::from(config.lanes) * (pool_bytes + rdma_bytes)
}

pub(super) fn io_uring(machine: &Machine, features: &Features, report: &mut Report) {
    let topic = "io_uring";
    let flavour = match &features.flavour {
        Ok(flavour) => *flavour,
        Err(why) => {
            let switch = match machine.number("proc/sys/kernel/io_uring_disabled") {
                Some(0) => {
                    "it is not switched off here, so a seccomp filter forbids it: allow io_uring_setup, \
                            io_uring_enter and io_uring_register in the container's profile"
                        .to_owned()
                }
                Some(_) => "sysctl kernel.io_uring_disabled=0".to_owned(),
                None => "take Linux 6.1 or later".to_owned(),
            };
            return report.missing(
                topic,
                format!("{why}; the blocking disk and epoll serve instead"),
                switch,
            );
        }
    };
    match (features.is_best, &features.buffers, &features.files) {
        (false, ..) => report.better(
            topic,
            format!("{flavour}; this kernel does not know SINGLE_ISSUER with DEFER_TASKRUN"),
            "take Linux 6.1 or later",
        ),
        (true, Err(why), _) | (true, Ok(()), Err(why)) => report.better(
            topic,
            format!("{flavour}, but memory or files cannot be registered: {why}"),
            "raise the memlock limit (below)",
        ),
        (true, Ok(()), Ok(())) => {
            report.ok(topic, format!("{flavour}; buffers and files can be registered"));
        }
    }
    let topic = "io_uring NAPI";
    match &features.napi {
        Ok(()) => {
            report.ok(topic, "a lane that blocks can poll the network card: with sysctl net.core.busy_poll")
        }
        Err(why) => report.missing(
            topic,
            format!("a lane that blocks waits for the network card's interrupt: {why}"),
            "take Linux 6.9 or later",
        ),
    }
}

pub(super) fn memlock(limit: Option<u64>, wanted: u64, report: &mut Report) {
    let topic = "memlock";
    match limit {
        None => report.ok(topic, "no limit"),
        // The ring takes some of it for itself.
        Some(limit) if limit >= wanted + 8 * MIB => {
            report.ok(topic, format!("{} MiB may be locked, a node needs {} MiB", limit / MIB, wanted / MIB));
        }
        Some(limit) => report.better(
            topic,
            format!(
                "{} MiB may be locked, a node registers {} MiB: each write pins its own pages instead, and a link over \
                 RDMA is not to be had",
                limit / MIB,
                wanted / MIB
            ),
            "LimitMEMLOCK=infinity in the unit; ulimit -l unlimited; --ulimit memlock=-1 for a container",
        ),
    }
}

pub(super) fn huge_pages(machine: &Machine, is_wanted: bool, report: &mut Report) {
    let topic = "huge pages";
    let meminfo = machine.read("proc/meminfo").unwrap_or_default();
    let number = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let reserved = number("HugePages_Total").unwrap_or(0);
    let free = number("HugePages_Free").unwrap_or(0);
    let size_kib = number("Hugepagesize").unwrap_or(2048);
    let transparent = machine.read("sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let transparent = parse_choice(&transparent).to_owned();
    if reserved > 0 {
        report.ok(topic, format!("{reserved} of {size_kib} KiB reserved, {free} free"));
    } else if is_wanted {
        report.missing(
            topic,
            "none is reserved: DPDK runs with --no-huge, slower",
            "sysctl vm.nr_hugepages=256; mount -t hugetlbfs none /dev/hugepages",
        );
    } else if transparent == "never" {
        report.better(
            topic,
            "none is reserved, and transparent ones are switched off",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        );
    } else {
        let transparent = if transparent.is_empty() { "unknown".to_owned() } else { transparent };
        report.ok(
            topic,
            format!("none is reserved; transparent ones: {transparent}. Only DPDK wants them reserved"),
        );
    }
}
