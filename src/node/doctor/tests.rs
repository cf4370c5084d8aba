#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::machine::{parse_choice, parse_list};
use super::*;
use crate::io::disk::timing::Timing;
use crate::io::reactor::probe::{Features, probe};
use crate::node::config::{LinkKind, Member, Rdma};
use crate::types::NodeId;

/// A machine of files, gone with the test.
struct Fake(PathBuf);

impl Fake {
    fn with(files: &[(&str, &str)]) -> Fake {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let fake =
            Fake(std::env::temp_dir().join(format!("plimsoll-doctor-{}-{number}", std::process::id())));
        std::fs::create_dir(&fake.0).unwrap();
        files.iter().for_each(|(path, text)| fake.put(path, text));
        fake
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }

    fn machine(&self) -> Machine {
        Machine::under(&self.0)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The one finding of this topic.
#[track_caller]
fn one<'a>(report: &'a Report, topic: &str) -> &'a Finding {
    let found: Vec<&Finding> = report.findings.iter().filter(|finding| finding.topic == topic).collect();
    assert_eq!(found.len(), 1, "{topic}: {:?}", report.findings);
    found[0]
}

#[track_caller]
fn expect(finding: &Finding, standing: Standing, found: &str, advice: &str) {
    assert_eq!(finding.standing, standing, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    assert!(finding.advice.as_deref().unwrap_or_default().contains(advice), "{finding:?}");
    assert_eq!(finding.advice.is_some(), standing != Standing::Ok, "{finding:?}");
}

#[test]
fn lists_and_choices_are_read_as_the_kernel_writes_them() {
    assert_eq!(parse_list("0-2,7\n"), [0, 1, 2, 7].into());
    assert_eq!(parse_list(""), [].into());
    assert_eq!(parse_list("x,3-,5"), [5].into());
    assert_eq!(parse_list("0-18446744073709551615").len(), 65_537, "bounded, whatever stands there");
    assert_eq!(parse_choice("none [mq-deadline] bfq"), "mq-deadline");
    assert_eq!(parse_choice("performance"), "performance");
}

#[test]
fn rdma_devices_are_told_with_their_ports_and_gids() {
    let port = "sys/class/infiniband/mlx5_0/ports/1";
    let fake = Fake::with(&[
        (&format!("{port}/state"), "4: ACTIVE"),
        (&format!("{port}/link_layer"), "Ethernet"),
        (&format!("{port}/gids/0"), "fe80:0000:0000:0000:0e42:a1ff:fe00:0001"),
        (&format!("{port}/gids/1"), "0000:0000:0000:0000:0000:ffff:0a63:0001"),
        (&format!("{port}/gids/10"), "0000:0000:0000:0000:0000:ffff:0a63:0002"),
        (&format!("{port}/gids/2"), "0000:0000:0000:0000:0000:0000:0000:0000"),
        (&format!("{port}/gid_attrs/types/0"), "IB/RoCE v1"),
        (&format!("{port}/gid_attrs/types/1"), "RoCE v2"),
        ("sys/class/infiniband/mlx5_1/ports/1/state", "1: DOWN"),
        ("usr/lib64/libibverbs.so.1.14.44.0", ""),
    ]);
    let mut report = Report::default();
    assert!(!network::rdma(&fake.machine(), true, &mut report), "without verbs there is no link");
    expect(one(&report, "RDMA verbs"), Standing::Missing, "uverbs", "modprobe");
    let ports: Vec<&Finding> = report.findings.iter().filter(|finding| finding.topic == "RDMA").collect();
    expect(
        ports[0],
        Standing::Ok,
        "mlx5_0 port 1: Ethernet, 4: ACTIVE; GIDs 0 (IB/RoCE v1) fe80:0000:0000:0000:0e42:a1ff:fe00:0001, \
         1 (RoCE v2) 0000:0000:0000:0000:0000:ffff:0a63:0001, 10 (IB) 0000",
        "",
    );
    expect(
        ports[1],
        Standing::Better,
        "mlx5_1 port 1: unknown layer, 1: DOWN; GIDs none",
        "rdma link show mlx5_1",
    );
    expect(one(&report, "RDMA library"), Standing::Ok, "/usr/lib64/libibverbs.so.1", "");

    fake.put("dev/infiniband/uverbs0", "");
    assert!(network::rdma(&fake.machine(), true, &mut Report::default()));
    let mut report = Report::default();
    assert!(!network::rdma(&fake.machine(), false, &mut report));
    expect(one(&report, "RDMA build"), Standing::Missing, "no link over RDMA", "--features rdma");

    let mut report = Report::default();
    assert!(!network::rdma(&Fake::with(&[]).machine(), true, &mut report));
    expect(one(&report, "RDMA"), Standing::Missing, "no device", "rdma link add");
    expect(one(&report, "RDMA library"), Standing::Missing, "no libibverbs", "apt-get install libibverbs1");
}

/// Any port that was up counted, whichever the configuration named.
#[test]
fn the_rdma_device_port_and_gid_of_a_configuration_must_be_there() {
    let (up, down) = ("sys/class/infiniband/mlx5_0/ports/2", "sys/class/infiniband/mlx5_1/ports/1");
    let fake = Fake::with(&[
        (&format!("{up}/state"), "4: ACTIVE"),
        (&format!("{up}/gids/0"), "0000:0000:0000:0000:0000:0000:0000:0000"),
        (&format!("{up}/gids/3"), "fe80:0000:0000:0000:0e42:a1ff:fe00:0001"),
        (&format!("{down}/state"), "1: DOWN"),
    ]);
    let told = |device: Option<&str>, port, gid_index| {
        let wanted = Rdma { device: device.map(str::to_owned), port, gid_index, ..Rdma::default() };
        let mut report = Report::default();
        let is_met = network::rdma_chosen(&fake.machine(), &wanted, &mut report);
        (is_met, one(&report, "RDMA choice").clone())
    };
    for (device, port, gid_index, why) in [
        (Some("mlx5_7"), 2, None, "rdma.device = \"mlx5_7\": there is mlx5_0, mlx5_1"),
        (Some("mlx5_0"), 1, None, "mlx5_0 has no port 1"),
        (Some("mlx5_1"), 1, None, "mlx5_1 port 1 is not up: 1: DOWN"),
        (Some("mlx5_0"), 2, Some(0), "mlx5_0 port 2 has no GID 0"),
        (Some("mlx5_0"), 2, Some(4), "mlx5_0 port 2 has no GID 4"),
        (None, 3, None, "mlx5_0 has no port 3; mlx5_1 has no port 3"),
    ] {
        let (is_met, finding) = told(device, port, gid_index);
        assert!(!is_met, "{finding:?}");
        expect(&finding, Standing::Missing, why, "rdma.device");
    }
    for gid_index in [None, Some(3)] {
        let (is_met, finding) = told(Some("mlx5_0"), 2, gid_index);
        assert!(is_met);
        expect(&finding, Standing::Ok, "mlx5_0", "");
    }
    let (is_met, finding) = told(None, 2, None);
    assert!(is_met);
    expect(&finding, Standing::Better, "not each is fit: mlx5_1 has no port 2", "set rdma.device");
}

#[test]
fn memory_that_rdma_locks_counts() {
    let member = |id: u32| {
        let address = |port: u32| format!("127.0.0.1:{}", port + id).parse().unwrap();
        Member { id, peer: address(7000), client: address(7100) }
    };
    let mut config = Config::new("books", NodeId(1), "d", (1..=3).map(member).collect());
    (config.lanes, config.shards) = (2, 2);
    let pools = 2 * config.memory.bytes() as u64;
    assert_eq!(kernel::wanted_bytes(Some(&config), true), pools);
    config.links = vec![LinkKind::Rdma, LinkKind::Tcp];
    assert_eq!(kernel::wanted_bytes(Some(&config), false), pools, "this build has no such link");
    // In each of two lanes for each of two peers, 128 slots of 32 KiB and a fourth of that.
    let slots = 2 * 2 * (128 * (32 << 10) * 5 / 4);
    assert_eq!(kernel::wanted_bytes(Some(&config), true), 2 * pools + slots);
}

/// The ancestors of a relative path ended at nothing, and the disk of the root was measured instead.
#[test]
fn a_data_dir_that_is_not_there_is_looked_for_from_here() {
    let here = std::env::current_dir().unwrap();
    let mut report = Report::default();
    storage::directory(&Machine::this(), "no-such/data".as_ref(), "data_dir", false, &mut report);
    let found = &one(&report, "data_dir").found;
    assert!(found.starts_with(&format!("{} is ", here.display())), "{found}");
    assert!(report.unmet.is_empty(), "{:?}", report.unmet);
}

#[test]
fn a_data_dir_that_is_a_file_is_not_met() {
    let fake = Fake::with(&[("data", "")]);
    std::os::unix::fs::symlink("nowhere", fake.0.join("link")).unwrap();
    for (data_dir, in_the_way) in [("data", "data"), ("data/within", "data"), ("link", "link")] {
        let (path, in_the_way) = (fake.0.join(data_dir), fake.0.join(in_the_way));
        let mut report = Report::default();
        storage::directory(&fake.machine(), &path, "data_dir", true, &mut report);
        let told = format!("{} is no directory", in_the_way.display());
        expect(one(&report, "data_dir"), Standing::Missing, &told, "name another");
        assert_eq!(report.unmet, [format!("data_dir {}: {told}", path.display())]);
    }
}

#[test]
fn dpdk_is_a_build_a_library_and_ports_bound_to_it() {
    let fake = Fake::with(&[
        ("usr/lib/x86_64-linux-gnu/librte_eal.so.23.0", ""),
        ("sys/bus/pci/drivers/vfio-pci/bind", ""),
        ("sys/bus/pci/drivers/vfio-pci/0000:01:00.0/vendor", ""),
        ("sys/bus/pci/drivers/uio_pci_generic/0000:02:00.1/vendor", ""),
    ]);
    let mut report = Report::default();
    assert!(network::dpdk(&fake.machine(), true, &mut report));
    expect(one(&report, "DPDK"), Standing::Ok, "librte_eal.so.23", "");
    expect(
        one(&report, "DPDK ports"),
        Standing::Ok,
        "0000:01:00.0 (vfio-pci), 0000:02:00.1 (uio_pci_generic)",
        "",
    );
    let mut report = Report::default();
    assert!(!network::dpdk(&fake.machine(), false, &mut report));
    expect(one(&report, "DPDK"), Standing::Missing, "this build has no link over DPDK", "--features dpdk");
    let mut report = Report::default();
    assert!(!network::dpdk(&Fake::with(&[]).machine(), true, &mut report));
    expect(one(&report, "DPDK"), Standing::Missing, "no librte_eal", "libdpdk-dev");
    expect(one(&report, "DPDK ports"), Standing::Missing, "vfio-pci", "dpdk-devbind.py");
}

#[test]
fn a_configuration_without_a_link_that_can_be_had_is_not_met() {
    let unmet = |links: &[LinkKind], has_rdma, has_dpdk| {
        let mut report = Report::default();
        network::needs(links, has_rdma, has_dpdk, &mut report);
        report.unmet
    };
    use LinkKind::{Dpdk, Rdma, Tcp, Udp};
    assert!(unmet(&[Rdma, Dpdk, Tcp], false, false).is_empty());
    assert!(unmet(&[Udp], false, false).is_empty());
    assert!(unmet(&[Rdma, Dpdk], false, true).is_empty());
    let none = unmet(&[Rdma, Dpdk], false, false);
    assert_eq!(none.len(), 1);
    assert!(none[0].starts_with("link = [\"rdma\", \"dpdk\"]") && none[0].contains("\"tcp\""), "{none:?}");
}

#[test]
fn disks_are_told_with_cache_and_scheduler_and_partitions_by_their_disk() {
    let whole = "sys/dev/block/259:0";
    let fake = Fake::with(&[
        (&format!("{whole}/queue/write_cache"), "write through"),
        (&format!("{whole}/queue/scheduler"), "[none] mq-deadline"),
        (&format!("{whole}/queue/rotational"), "0"),
        // As the kernel has it, a partition lies within its disk.
        ("sys/dev/block/disk/queue/write_cache", "write back"),
        ("sys/dev/block/disk/queue/fua", "1"),
        ("sys/dev/block/disk/queue/scheduler", "none [mq-deadline]"),
        ("sys/dev/block/disk/queue/rotational", "1"),
        ("sys/dev/block/disk/part/start", "2048"),
    ]);
    std::os::unix::fs::symlink("disk/part", fake.0.join("sys/dev/block/8:1")).unwrap();
    let mut report = Report::default();
    storage::queue(&fake.machine(), "/dev/nvme0n1", rustix::fs::makedev(259, 0), &mut report);
    expect(one(&report, "write cache"), Standing::Ok, "write through", "");
    expect(one(&report, "scheduler"), Standing::Ok, "none", "");
    expect(one(&report, "disk"), Standing::Ok, "/dev/nvme0n1 is on 259:0", "");
    let mut report = Report::default();
    storage::queue(&fake.machine(), "/data", rustix::fs::makedev(8, 1), &mut report);
    expect(
        one(&report, "write cache"),
        Standing::Better,
        "disk: write back, a durable write is a write with forced",
        "Never",
    );
    expect(
        one(&report, "scheduler"),
        Standing::Better,
        "disk: mq-deadline",
        "echo none > /sys/block/disk/queue/scheduler",
    );
    expect(one(&report, "disk"), Standing::Better, "/data is on disk, which rotates", "NVMe");
    let mut report = Report::default();
    storage::queue(&fake.machine(), "/overlay", rustix::fs::makedev(0, 40), &mut report);
    expect(one(&report, "disk"), Standing::Better, "on no block device", "log.device");
}

#[test]
fn nvme_devices_are_told_with_their_polled_queues() {
    let fake = Fake::with(&[("sys/block/nvme0n1/queue/io_poll", "0"), ("sys/block/sda/queue/io_poll", "0")]);
    let told = |fake: &Fake| {
        let mut report = Report::default();
        storage::nvme(&fake.machine(), &mut report);
        one(&report, "NVMe").clone()
    };
    expect(&told(&fake), Standing::Better, "nvme0n1; none has queues for polling", "nvme.poll_queues");
    fake.put("sys/block/nvme1n1/queue/io_poll", "1");
    expect(&told(&fake), Standing::Ok, "nvme0n1, nvme1n1; 1 with queues", "");
    expect(&told(&Fake::with(&[])), Standing::Missing, "no device", "/dev/nvme0n1");
}

#[test]
fn a_durable_write_is_judged_by_its_median() {
    let told = |p50, is_direct| {
        let mut report = Report::default();
        let p50 = Duration::from_micros(p50);
        storage::durable_write("/x", &Timing { p50, p99: 2 * p50, count: 9, is_direct }, &mut report);
        one(&report, "durable write").clone()
    };
    expect(&told(20, true), Standing::Ok, "4 KiB on /x: p50 20 us, p99 40 us (9 writes)", "");
    expect(&told(900, true), Standing::Better, "p50 900 us", "power-loss protection");
    expect(&told(20, false), Standing::Better, "through the page cache", "ext4 or xfs");
}

#[test]
fn cores_are_judged_by_what_is_isolated_and_what_lanes_have() {
    let cpu = "sys/devices/system/cpu";
    let machine = |isolated: &str, nohz: &str| {
        Fake::with(&[
            (&format!("{cpu}/online"), "0-7"),
            (&format!("{cpu}/isolated"), isolated),
            (&format!("{cpu}/nohz_full"), nohz),
        ])
    };
    let told = |fake: &Fake, cores: &[usize], lanes| {
        let mut report = Report::default();
        processor::isolation(&fake.machine(), &cores.iter().copied().collect(), lanes, &mut report);
        one(&report, "cores").clone()
    };
    let plain = machine("", "");
    expect(
        &told(&plain, &[], 2),
        Standing::Better,
        "8 online, none isolated",
        "isolcpus=managed_irq,domain,6,7 nohz_full=6,7",
    );
    expect(&told(&plain, &[2], 1), Standing::Better, "none isolated", "cores = [2]");
    expect(&told(&plain, &[], 8), Standing::Better, "8 online for 8 lanes", "a core for each lane");
    let isolated = machine("2-3", "2-3");
    expect(
        &told(&isolated, &[2, 3], 2),
        Standing::Ok,
        "lanes run on [2, 3], isolated and without a timer",
        "",
    );
    expect(&told(&isolated, &[], 2), Standing::Ok, "give them to lanes", "");
    expect(
        &told(&isolated, &[1, 2], 2),
        Standing::Better,
        "lanes run on [1, 2], of which [1] are not isolated",
        "",
    );
    expect(
        &told(&machine("2-3", "2"), &[2, 3], 2),
        Standing::Better,
        "timer interrupts [3]",
        "nohz_full=2,3",
    );
}

#[test]
fn clock_rate_sleep_clock_and_memory_nodes_are_told() {
    let cpu = "sys/devices/system/cpu";
    let fake = Fake::with(&[
        (&format!("{cpu}/online"), "0-1"),
        (&format!("{cpu}/cpu0/cpufreq/scaling_governor"), "powersave"),
        (&format!("{cpu}/cpu1/cpufreq/scaling_governor"), "performance"),
        (&format!("{cpu}/cpu0/cpuidle/state0/name"), "POLL"),
        (&format!("{cpu}/cpu0/cpuidle/state0/latency"), "0"),
        (&format!("{cpu}/cpu0/cpuidle/state1/name"), "C1"),
        (&format!("{cpu}/cpu0/cpuidle/state1/latency"), "2"),
        (&format!("{cpu}/cpu0/cpuidle/state2/name"), "C6"),
        (&format!("{cpu}/cpu0/cpuidle/state2/latency"), "133"),
        (&format!("{cpu}/cpu0/cpuidle/state2/disable"), "0"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
        ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"),
        ("sys/devices/system/node/node0/cpulist", "0"),
        ("sys/devices/system/node/node1/cpulist", "1"),
        ("sys/devices/system/node/possible", "0-1"),
        ("proc/sys/kernel/numa_balancing", "0"),
    ]);
    let machine = fake.machine();
    let mut report = Report::default();
    processor::clock_rate(&machine, &[].into(), &mut report);
    processor::sleep(&machine, &mut report);
    processor::clock(&machine, "clock monotonic: the processor does not say", &mut report);
    processor::memory_nodes(&machine, &[0, 1].into(), &mut report);
    expect(
        one(&report, "clock rate"),
        Standing::Better,
        "governor performance, powersave",
        "cpupower frequency-set",
    );
    expect(one(&report, "sleep states"), Standing::Better, "C6: it takes 133 us", "--disable-by-latency");
    expect(one(&report, "clock"), Standing::Better, "source is hpet", "echo tsc");
    expect(one(&report, "NUMA"), Standing::Better, "lanes run on 2 memory nodes", "numa_node");

    fake.put(&format!("{cpu}/cpu0/cpuidle/state2/disable"), "1");
    fake.put("proc/sys/kernel/numa_balancing", "1");
    let mut report = Report::default();
    processor::clock_rate(&machine, &[1].into(), &mut report);
    processor::sleep(&machine, &mut report);
    processor::clock(&machine, "clock tsc: constant", &mut report);
    processor::memory_nodes(&machine, &[1].into(), &mut report);
    expect(one(&report, "clock rate"), Standing::Ok, "governor performance", "");
    expect(one(&report, "sleep states"), Standing::Ok, "C1: it takes 2 us", "");
    expect(one(&report, "clock"), Standing::Ok, "read the TSC", "");
    expect(one(&report, "NUMA"), Standing::Better, "moves pages", "numa_balancing=0");
    fake.put("proc/sys/kernel/numa_balancing", "0");
    let mut report = Report::default();
    processor::memory_nodes(&machine, &[1].into(), &mut report);
    expect(one(&report, "NUMA"), Standing::Ok, "2 memory nodes", "");
}

#[test]
fn what_the_kernel_grants_is_told_with_what_to_do() {
    let features = |flavour: Result<&'static str, &str>, is_best, buffers: Result<(), &str>| Features {
        flavour: flavour.map_err(str::to_owned),
        is_best,
        buffers: buffers.map_err(str::to_owned),
        files: Ok(()),
        napi: buffers.map_err(str::to_owned),
    };
    let told = |fake: &Fake, features: Features| {
        let mut report = Report::default();
        kernel::io_uring(&fake.machine(), &features, &mut report);
        one(&report, "io_uring").clone()
    };
    let off = Fake::with(&[("proc/sys/kernel/io_uring_disabled", "2")]);
    let none = || features(Err("it is forbidden"), false, Err("no ring"));
    expect(
        &told(&off, none()),
        Standing::Missing,
        "it is forbidden; the blocking disk",
        "sysctl kernel.io_uring_disabled=0",
    );
    off.put("proc/sys/kernel/io_uring_disabled", "0");
    expect(&told(&off, none()), Standing::Missing, "forbidden", "seccomp");
    expect(&told(&off, features(Ok("COOP_TASKRUN"), false, Ok(()))), Standing::Better, "COOP_TASKRUN", "6.1");
    let short = features(Ok("SINGLE_ISSUER and DEFER_TASKRUN"), true, Err("ENOMEM"));
    expect(&told(&off, short), Standing::Better, "ENOMEM", "memlock");
    expect(&told(&off, features(Ok("DEFER_TASKRUN"), true, Ok(()))), Standing::Ok, "can be registered", "");
    for (napi, standing, words, advice) in [
        (Ok(()), Standing::Ok, "can poll the network card", ""),
        (Err("EINVAL"), Standing::Missing, "EINVAL", "6.9"),
    ] {
        let mut report = Report::default();
        kernel::io_uring(&off.machine(), &features(Ok("DEFER_TASKRUN"), true, napi), &mut report);
        expect(one(&report, "io_uring NAPI"), standing, words, advice);
    }

    let mut report = Report::default();
    kernel::memlock(Some(8 << 20), 64 << 20, &mut report);
    expect(
        one(&report, "memlock"),
        Standing::Better,
        "8 MiB may be locked, a node registers 64",
        "LimitMEMLOCK",
    );
    for limit in [None, Some(128 << 20)] {
        let mut report = Report::default();
        kernel::memlock(limit, 64 << 20, &mut report);
        assert_eq!(one(&report, "memlock").standing, Standing::Ok);
    }
    let pages = |reserved: &str, transparent: &str, is_wanted| {
        let text = format!(
            "MemTotal: 9 kB\nHugePages_Total:   {reserved}\nHugePages_Free:  3\nHugepagesize:   2048 kB"
        );
        let fake = Fake::with(&[
            ("proc/meminfo", &text),
            ("sys/kernel/mm/transparent_hugepage/enabled", transparent),
        ]);
        let mut report = Report::default();
        kernel::huge_pages(&fake.machine(), is_wanted, &mut report);
        one(&report, "huge pages").clone()
    };
    expect(&pages("4", "never", true), Standing::Ok, "4 of 2048 KiB reserved, 3 free", "");
    expect(&pages("0", "always [madvise] never", true), Standing::Missing, "--no-huge", "vm.nr_hugepages");
    expect(&pages("0", "always madvise [never]", false), Standing::Better, "switched off", "madvise");
    expect(&pages("0", "always [madvise] never", false), Standing::Ok, "transparent ones: madvise", "");
}

#[test]
fn sockets_are_judged_by_their_bounds() {
    let fake = Fake::with(&[
        ("proc/sys/net/core/rmem_max", "212992"),
        ("proc/sys/net/core/wmem_max", "8388608"),
        ("proc/sys/net/core/busy_poll", "0"),
        ("proc/sys/kernel/osrelease", "6.1.0-13-amd64"),
        ("sys/class/net/lo/mtu", "65536"),
        ("sys/class/net/ens5/device/vendor", ""),
        ("sys/class/net/ens5/napi_defer_hard_irqs", "0"),
    ]);
    let mut report = Report::default();
    network::udp(&fake.machine(), &mut report);
    network::busy_poll(&fake.machine(), &mut report);
    expect(
        one(&report, "UDP receive buffer"),
        Standing::Better,
        "up to 208 KiB",
        "sysctl net.core.rmem_max=4194304",
    );
    expect(one(&report, "UDP send buffer"), Standing::Ok, "up to 8192 KiB", "");
    expect(one(&report, "GSO and GRO"), Standing::Ok, "kernel 6.1 has both", "");
    expect(
        one(&report, "busy polling"),
        Standing::Better,
        "busy_poll 0",
        "/sys/class/net/ens5/napi_defer_hard_irqs",
    );
    fake.put("sys/class/net/ens5/napi_defer_hard_irqs", "2");
    fake.put("proc/sys/kernel/osrelease", "4.14.0");
    let mut report = Report::default();
    network::udp(&fake.machine(), &mut report);
    network::busy_poll(&fake.machine(), &mut report);
    expect(one(&report, "busy polling"), Standing::Ok, "interrupts deferred: yes", "");
    expect(one(&report, "GSO and GRO"), Standing::Missing, "kernel 4.14", "5.0");
}

#[test]
fn this_machine_is_told_as_it_is() {
    let features = probe();
    let report = examine(None);
    assert!(report.unmet.is_empty(), "{:?}", report.unmet);
    let uring = one(&report, "io_uring");
    assert_eq!(uring.standing == Standing::Missing, features.flavour.is_err(), "{uring:?} {features:?}");
    for topic in ["memlock", "huge pages", "cores", "clock", "NUMA", "UDP send buffer", "DPDK", "NVMe"] {
        one(&report, topic);
    }
    assert!(report.findings.iter().all(|finding| !finding.found.is_empty()));
    let advised = |finding: &&Finding| finding.standing != Standing::Ok;
    assert!(report.findings.iter().filter(advised).all(|finding| finding.advice.is_some()));
}
