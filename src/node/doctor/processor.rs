//! Cores, their clock rate and sleep, memory nodes, and the clock.

use std::collections::BTreeSet;

use super::Report;
use super::machine::{Machine, parse_list};
use crate::io::clock::LaneClock;
use crate::node::config::Config;

/// A core that sleeps deeper than this wakes later than a flush of a fast disk takes.
const WAKE_MAX_US: u64 = 10;

const CPU: &str = "sys/devices/system/cpu";

pub(super) fn examine(machine: &Machine, config: Option<&Config>, report: &mut Report) {
    let cores = config.map(|config| config.cpu.cores.iter().copied().collect()).unwrap_or_default();
    isolation(machine, &cores, config.map_or(1, |config| config.lanes), report);
    clock_rate(machine, &cores, report);
    sleep(machine, report);
    clock(machine, &LaneClock::choose().1, report);
    memory_nodes(machine, &cores, report);
}

/// `cores`: those that the configuration gives to lanes; none without.
pub(super) fn isolation(machine: &Machine, cores: &BTreeSet<usize>, lanes: u16, report: &mut Report) {
    let topic = "cores";
    let list = |name: &str| parse_list(&machine.read(format!("{CPU}/{name}")).unwrap_or_default());
    let (online, isolated, nohz) = (list("online"), list("isolated"), list("nohz_full"));
    let spell = |set: &BTreeSet<usize>| format!("{:?}", set.iter().collect::<Vec<_>>());
    let wanted: BTreeSet<usize> = if cores.is_empty() {
        online.iter().rev().take(lanes.into()).copied().collect()
    } else {
        cores.clone()
    };
    let kernel_line = |wanted: &BTreeSet<usize>| {
        let list = wanted.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        format!(
            "on the kernel's command line: isolcpus=managed_irq,domain,{list} nohz_full={list} rcu_nocbs={list}; \
             then [cpu] cores = [{}]",
            list.replace(',', ", ")
        )
    };
    if online.len() <= usize::from(lanes) {
        return report.better(
            topic,
            format!("{} online for {lanes} lanes: lanes share them with everything else", online.len()),
            "a machine with a core for each lane and two more for the system and its interrupts",
        );
    }
    if isolated.is_empty() {
        return report.better(topic, format!("{} online, none isolated", online.len()), kernel_line(&wanted));
    }
    let outside: BTreeSet<usize> = cores.difference(&isolated).copied().collect();
    if !outside.is_empty() {
        let found = format!("lanes run on {}, of which {} are not isolated", spell(cores), spell(&outside));
        return report.better(topic, found, kernel_line(&wanted));
    }
    let ticking: BTreeSet<usize> = isolated.difference(&nohz).copied().collect();
    if !ticking.is_empty() {
        let found = format!("{} isolated, the timer interrupts {}", spell(&isolated), spell(&ticking));
        return report.better(topic, found, kernel_line(&isolated));
    }
    if cores.is_empty() {
        return report
            .ok(topic, format!("{} isolated and without a timer: give them to lanes", spell(&isolated)));
    }
    report.ok(topic, format!("lanes run on {}, isolated and without a timer", spell(cores)));
}

pub(super) fn clock_rate(machine: &Machine, cores: &BTreeSet<usize>, report: &mut Report) {
    let topic = "clock rate";
    let mut governors = BTreeSet::new();
    for core in parse_list(&machine.read(format!("{CPU}/online")).unwrap_or_default()) {
        if cores.is_empty() || cores.contains(&core) {
            governors.extend(machine.read(format!("{CPU}/cpu{core}/cpufreq/scaling_governor")));
        }
    }
    let list = governors.iter().cloned().collect::<Vec<_>>().join(", ");
    if governors.is_empty() {
        report.ok(topic, "not the kernel's to choose here (a virtual machine, or fixed by the firmware)");
    } else if governors.iter().all(|governor| governor == "performance") {
        report.ok(topic, "governor performance");
    } else {
        report.better(topic, format!("governor {list}"), "cpupower frequency-set --governor performance");
    }
}

pub(super) fn sleep(machine: &Machine, report: &mut Report) {
    let topic = "sleep states";
    let base = format!("{CPU}/cpu0/cpuidle");
    let mut deepest: Option<(u64, String)> = None;
    for state in machine.list(&base) {
        let at = |name: &str| format!("{base}/{state}/{name}");
        if machine.number(at("disable")).unwrap_or(0) != 0 {
            continue;
        }
        if let (Some(latency_us), Some(name)) = (machine.number(at("latency")), machine.read(at("name")))
            && deepest.as_ref().is_none_or(|(deepest, _)| latency_us > *deepest)
        {
            deepest = Some((latency_us, name));
        }
    }
    match deepest {
        None => report.ok(topic, "not the kernel's to choose here (a virtual machine, or polling idle)"),
        Some((latency_us, name)) if latency_us <= WAKE_MAX_US => {
            report.ok(topic, format!("the deepest is {name}: it takes {latency_us} us to wake"));
        }
        Some((latency_us, name)) => report.better(
            topic,
            format!("the deepest is {name}: it takes {latency_us} us to wake"),
            "cpupower idle-set --disable-by-latency 2",
        ),
    }
}

/// `chosen`: what a lane chooses here, in its own words.
pub(super) fn clock(machine: &Machine, chosen: &str, report: &mut Report) {
    let topic = "clock";
    let source = machine.read("sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.unwrap_or_else(|| "unknown".to_owned());
    if chosen.starts_with("clock tsc") {
        return report.ok(topic, format!("lanes read the TSC; the kernel's source is {source}"));
    }
    let available = machine.read("sys/devices/system/clocksource/clocksource0/available_clocksource");
    let advice = if available.is_some_and(|available| available.split_whitespace().any(|name| name == "tsc"))
    {
        "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
    } else {
        "a processor with a constant TSC, and tsc=reliable on the kernel's command line if it is known to be"
    };
    report.better(topic, format!("lanes ask the system; the kernel's source is {source} ({chosen})"), advice);
}

pub(super) fn memory_nodes(machine: &Machine, cores: &BTreeSet<usize>, report: &mut Report) {
    let topic = "NUMA";
    let base = "sys/devices/system/node";
    let nodes: Vec<String> = machine
        .list(base)
        .into_iter()
        .filter(|name| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    if nodes.len() <= 1 {
        return report.ok(topic, "one memory node");
    }
    let cores_of =
        |node: &String| parse_list(&machine.read(format!("{base}/{node}/cpulist")).unwrap_or_default());
    let used: Vec<&String> = nodes.iter().filter(|node| !cores_of(node).is_disjoint(cores)).collect();
    if machine.number("proc/sys/kernel/numa_balancing").unwrap_or(0) != 0 {
        return report.better(
            topic,
            format!(
                "{} memory nodes, and the kernel moves pages between them under a pinned core",
                nodes.len()
            ),
            "sysctl kernel.numa_balancing=0",
        );
    }
    if used.len() > 1 {
        return report.better(
            topic,
            format!("lanes run on {} memory nodes", used.len()),
            "choose cpu.cores on the node of the disk and the card: /sys/class/net/X/device/numa_node, \
             /sys/block/X/device/numa_node",
        );
    }
    report.ok(topic, format!("{} memory nodes; pages stay where they are", nodes.len()));
}
