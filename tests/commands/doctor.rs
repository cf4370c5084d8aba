//! `doctor`: what it prints here, in lines and as JSON, and when it exits with 1.

use plimsoll::local::Cluster;
use plimsoll::node::config::{Devices, LinkKind};

use crate::loop_device::LoopDevice;
use crate::{ONE, binary, exits, json, refused, small};

fn configured(name: &str) -> (Cluster, String) {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
    let cluster = Cluster::new(binary(), &directory, &small(1)).unwrap();
    let config = cluster.config_path(ONE).display().to_string();
    (cluster, config)
}

fn topics(report: &serde_json::Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["topic"].as_str().unwrap()).collect()
}

#[test]
fn doctor_tells_the_same_in_lines_and_as_json() {
    let report = json(&exits(0, &["doctor", "--json"]));
    assert_eq!(report["unmet"].as_array().unwrap().len(), 0);
    let topics = topics(&report);
    for topic in
        ["io_uring", "memlock", "huge pages", "cores", "clock", "RDMA library", "DPDK", "durable write"]
    {
        assert!(topics.contains(&topic), "{topic}: {topics:?}");
    }
    for finding in report["findings"].as_array().unwrap() {
        let standing = finding["standing"].as_str().unwrap();
        assert!(["ok", "could be better", "missing"].contains(&standing), "{finding}");
        assert_eq!(finding["do"].is_string(), standing != "ok", "{finding}");
        assert!(!finding["found"].as_str().unwrap().is_empty(), "{finding}");
    }
    let said = exits(0, &["doctor"]);
    for topic in topics {
        assert!(said.lines().any(|line| line.contains(&format!("  {topic}  "))), "{topic}: {said}");
    }
    assert!(!said.contains("NOT MET"), "{said}");
}

#[test]
fn doctor_judges_a_configuration_and_leaves_its_place_alone() {
    let (mut cluster, config) = configured("doctor");
    let said = exits(0, &["doctor", "--config", &config]);
    assert!(said.ends_with("all that the configuration needs is here\n"), "{said}");
    assert!(!cluster.config(ONE).data_dir.exists(), "it made the data directory");
    assert_eq!(std::fs::read_dir(cluster.directory()).unwrap().count(), 1, "the configuration alone");

    cluster.reconfigure(ONE, |config| config.cpu.cores = vec![4000]).unwrap();
    let said = exits(1, &["doctor", "--config", &config]);
    assert!(said.lines().any(|line| line.starts_with("NOT MET") && line.contains("core 4000")), "{said}");
    cluster.reconfigure(ONE, |config| config.cpu.cores.clear()).unwrap();

    // This build may have RDMA, but no machine that tests run on has a device unless it was given one.
    if !std::path::Path::new("/sys/class/infiniband").exists() {
        cluster.reconfigure(ONE, |config| config.links = vec![LinkKind::Rdma]).unwrap();
        let report = json(&exits(1, &["doctor", "--json", "--config", &config]));
        assert!(report["unmet"][0].as_str().unwrap().contains("none of them"), "{report}");
        cluster.reconfigure(ONE, |config| config.links = vec![LinkKind::Rdma, LinkKind::Tcp]).unwrap();
        exits(0, &["doctor", "--config", &config]);
    }
    std::fs::write(cluster.directory().join("bad.toml"), "cluster = 7").unwrap();
    let bad = cluster.directory().join("bad.toml").display().to_string();
    assert!(refused(&["doctor", "--config", &bad]).contains("bad.toml: line 1"));
}

#[test]
fn doctor_measures_a_device_and_changes_nothing_on_it() {
    let (mut cluster, config) = configured("doctor-device");
    cluster.reconfigure(ONE, |config| config.log.device = Devices(vec!["/dev/null".into()])).unwrap();
    let said = exits(1, &["doctor", "--config", &config]);
    assert!(said.contains("NOT MET") && said.contains("/dev/null: it is not a block device"), "{said}");

    let Some(device) = LoopDevice::attach(64, 512) else { return };
    let read = || std::fs::read(device.path()).unwrap();
    let path = device.path().to_owned();
    let change = |config: &mut plimsoll::node::Config| {
        config.log.device = Devices(vec![path]);
        config.log.capacity_mib = None;
    };
    cluster.reconfigure(ONE, change).unwrap();
    let blank = read();
    let said = exits(0, &["doctor", "--config", &config]);
    assert!(said.contains(&format!("4 KiB on {}: p50 ", device.path().display())), "{said}");
    assert!(said.contains("write cache") && said.contains("the log lies elsewhere"), "{said}");
    assert!(read() == blank, "it was changed");
    // While the node runs it is in use, and that is no fault.
    cluster.start(ONE).unwrap();
    cluster.await_leaders().unwrap();
    let said = exits(0, &["doctor", "--config", &config]);
    assert!(said.contains("is in use, by a node or a filesystem"), "{said}");
    cluster.kill(ONE).unwrap();
    let formatted = read();
    // The system lets go of a killed node's device a moment after the node.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !exits(0, &["doctor", "--config", &config]).contains("4 KiB on ") {
        assert!(std::time::Instant::now() < until, "it stays in use");
    }
    assert!(read() == formatted, "it was changed");
    // A foreign one is not written to at all.
    std::fs::OpenOptions::new()
        .write(true)
        .open(device.path())
        .and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, b"EFI PART", 512))
        .unwrap();
    let said = exits(1, &["doctor", "--config", &config]);
    assert!(said.contains("holds something else: nothing was written"), "{said}");
    assert!(said.contains("NOT MET") && said.contains("GUID partition table"), "{said}");
}
