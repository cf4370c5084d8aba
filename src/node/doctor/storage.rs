//! The disks that a node's logs lie on: what they are, how they are set, and how long a durable write takes.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Report;
use super::machine::{Machine, parse_choice};
use crate::io::disk::device::{Claim, Held, is_in_use};
use crate::io::disk::timing::{Timing, time_writes_in};
use crate::node::config::Config;
use crate::node::devices::Claims;

/// How long each disk is measured.
const LASTING: Duration = Duration::from_millis(800);

/// A median beyond this makes the disk the whole of a commit's latency.
const SLOW: Duration = Duration::from_micros(200);

/// tmpfs and ramfs, as `statfs` calls them.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

pub(super) fn examine(machine: &Machine, config: Option<&Config>, report: &mut Report) {
    match config {
        Some(config) if !config.log.device.0.is_empty() => {
            config.log.device.0.iter().for_each(|path| device(machine, path, report));
            directory(machine, &config.data_dir, "data_dir", false, report);
            judge(config, report);
        }
        Some(config) => directory(machine, &config.data_dir, "data_dir", true, report),
        None => directory(machine, &std::env::temp_dir(), "disk (no configuration was given)", true, report),
    }
    nvme(machine, report);
}

fn device(machine: &Machine, path: &Path, report: &mut Report) {
    let topic = "log.device";
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => {
            queue(machine, &shown.to_string(), found.rdev(), report)
        }
        Ok(_) => return report.missing(topic, format!("{shown} is no block device"), "name one: lsblk -d"),
        Err(error) => return report.missing(topic, format!("{shown}: {error}"), "name one: lsblk -d"),
    }
    if is_in_use(path) {
        let found = format!("{shown} is in use, by a node or a filesystem: a durable write was not measured");
        return report.ok("durable write", found);
    }
    match Claim::of(path) {
        Ok(claim) if matches!(claim.held(), Held::Other(_)) => {
            report.ok(
                "durable write",
                format!("{shown} holds something else: nothing was written to measure it"),
            );
        }
        Ok(claim) => match claim.time_writes(LASTING) {
            Ok(timing) => durable_write(&shown.to_string(), &timing, report),
            Err(error) => report.missing("durable write", format!("{shown}: {error}"), "look at dmesg"),
        },
        Err(error) => {
            report.missing(topic, error.to_string(), "give the node's user the device (group disk)")
        }
    }
}

/// What a node would say of its devices at its start.
fn judge(config: &Config, report: &mut Report) {
    if config.log.device.0.iter().any(|path| is_in_use(path)) {
        return;
    }
    if let Err(error) = Claims::of(config, false) {
        report.unmet.push(error.to_string());
    }
}

/// A directory, or where it would be made.
pub(super) fn directory(
    machine: &Machine,
    path: &Path,
    topic: &'static str,
    is_measured: bool,
    report: &mut Report,
) {
    // From here, as the node would take it: its ancestors would else end before this directory.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Without following it: a link to nowhere is in the way, too.
    let is_there = |path: &&Path| path.symlink_metadata().is_ok();
    let existing = whole.ancestors().find(is_there).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let shown = existing.display().to_string();
    if !existing.is_dir() {
        report.missing(topic, format!("{shown} is no directory"), "name another, or move it out of the way");
        if topic == "data_dir" {
            report.unmet.push(format!("data_dir {}: {shown} is no directory", path.display()));
        }
        return;
    }
    if rustix::fs::access(&existing, rustix::fs::Access::WRITE_OK).is_err() {
        report.missing(
            topic,
            format!("{shown} is not writable"),
            format!("chown plimsoll {shown}, or name another"),
        );
        if topic == "data_dir" {
            report.unmet.push(format!("data_dir {}: this user may not write {shown}", path.display()));
        }
        return;
    }
    match rustix::fs::statfs(&existing) {
        Ok(told) if IN_MEMORY.contains(&told.f_type) => {
            return report.better(
                topic,
                format!("{shown} is in memory: what is there does not survive the machine"),
                "name a directory on a disk",
            );
        }
        _ => {}
    }
    if !is_measured {
        return report.ok(topic, format!("{shown} is writable; the log lies elsewhere"));
    }
    match std::fs::metadata(&existing) {
        Ok(found) => queue(machine, &shown, found.dev(), report),
        Err(error) => return report.missing(topic, format!("{shown}: {error}"), "name another directory"),
    }
    match time_writes_in(&existing, LASTING) {
        Ok(timing) => durable_write(&shown, &timing, report),
        Err(error) => {
            let advice = "put data_dir on ext4 or xfs, where it can be measured without leaving a trace";
            report.better("durable write", format!("{shown} was not measured: {error}"), advice);
        }
    }
}

pub(super) fn durable_write(shown: &str, timing: &Timing, report: &mut Report) {
    let Timing { p50, p99, count, is_direct } = timing;
    let found = format!(
        "4 KiB on {shown}: p50 {:.0} us, p99 {:.0} us ({count} writes{})",
        p50.as_secs_f64() * 1e6,
        p99.as_secs_f64() * 1e6,
        if *is_direct { "" } else { ", through the page cache" }
    );
    if !is_direct {
        report.better("durable write", found, "put data_dir on ext4 or xfs, which take direct writes");
    } else if *p50 > SLOW {
        report.better(
            "durable write",
            found,
            "a disk with power-loss protection: NVMe of the data centre kind",
        );
    } else {
        report.ok("durable write", found);
    }
}

/// How the block device of this number is set.
pub(super) fn queue(machine: &Machine, shown: &str, number: u64, report: &mut Report) {
    let of = format!("sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let queue = [format!("{of}/queue"), format!("{of}/../queue")].into_iter().find(|path| machine.has(path));
    let Some(queue) = queue else {
        let advice = "put the log on a disk of its own: ext4, xfs, or log.device";
        return report.better(
            "disk",
            format!("{shown} is on no block device that the system tells of"),
            advice,
        );
    };
    let name = std::fs::canonicalize(machine.path(&queue)).ok();
    let name = name.and_then(|path| Some(path.parent()?.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "X".to_owned());
    let is_rotating = machine.number(format!("{queue}/rotational")) == Some(1) && !name.starts_with("vd");
    if is_rotating {
        report.better("disk", format!("{shown} is on {name}, which rotates"), "take an NVMe device");
    } else {
        report.ok("disk", format!("{shown} is on {name}"));
    }
    match machine.read(format!("{queue}/write_cache")).as_deref() {
        Some("write through") => {
            report.ok("write cache", format!("{name}: write through, one command for a durable write"))
        }
        Some("write back") => {
            let fua = machine.number(format!("{queue}/fua")) == Some(1);
            let how = if fua { "a write with forced unit access" } else { "a write and a flush" };
            report.better(
                "write cache",
                format!("{name}: write back, a durable write is {how}"),
                "a device with power-loss protection. Never say \"write through\" of one that has none: commits would be \
                 lost with the power",
            );
        }
        other => report.ok("write cache", format!("{name}: {}", other.unwrap_or("not told"))),
    }
    let scheduler = machine.read(format!("{queue}/scheduler")).unwrap_or_default();
    match parse_choice(&scheduler) {
        "none" | "" => report.ok("scheduler", format!("{name}: none")),
        chosen => report.better(
            "scheduler",
            format!("{name}: {chosen}"),
            format!("echo none > /sys/block/{name}/queue/scheduler"),
        ),
    }
}

/// NVMe devices, and whether they can be polled for completions.
pub(super) fn nvme(machine: &Machine, report: &mut Report) {
    let topic = "NVMe";
    let devices: Vec<String> =
        machine.list("sys/block").into_iter().filter(|name| name.starts_with("nvme")).collect();
    if devices.is_empty() {
        return report.missing(
            topic,
            "no device",
            "a log on its own NVMe device: [log] device = \"/dev/nvme0n1\"",
        );
    }
    let polled: Vec<&String> = devices
        .iter()
        .filter(|name| machine.number(format!("sys/block/{name}/queue/io_poll")) == Some(1))
        .collect();
    let (all, count) = (devices.join(", "), polled.len());
    match count {
        0 => report.better(
            topic,
            format!("{all}; none has queues for polling"),
            "nvme.poll_queues=4 on the kernel's command line, if [log] io_poll is to be tried",
        ),
        _ => report.ok(topic, format!("{all}; {count} with queues for polling")),
    }
}
