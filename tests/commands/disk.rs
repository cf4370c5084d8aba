//! Disks: `log verify`, and a node whose disk has no room left.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll::local::{Cluster, Shape};
use rustix::process::Signal;

use crate::{ONE, binary, cluster, exits, fed, refused, run, small, texts, turn};

#[test]
fn verify_says_what_a_log_holds_and_where_it_is_damaged() {
    let _turn = turn();
    let (mut cluster, config) = cluster("verify", &small(1));
    let data_dir = cluster.config(ONE).data_dir.clone();
    let directory = data_dir.display().to_string();
    for _ in 0..20 {
        let output = fed(&[b'x'; 3000], &["append", "--config", &config]);
        assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    }
    let said = refused(&["log", "verify", &directory]);
    assert!(said.contains("a node runs on it"), "{said}");
    cluster.signal(ONE, Signal::TERM).unwrap();
    assert_eq!(cluster.wait(ONE).unwrap().code(), Some(0), "{}", cluster.last_words(ONE));

    let said = exits(0, &["log", "verify", &directory]);
    assert!(said.contains("shard 0: 21 entries (21 written)"), "{said}");
    assert!(said.contains("60000 payload bytes") && said.contains(", clean"), "{said}");

    // One bit in the middle of what was acknowledged.
    let path = data_dir.join("lane-0000/segment-00000000.log");
    let segment = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; 100_000];
    segment.read_exact_at(&mut bytes, 0).unwrap();
    let runs = bytes.windows(100).enumerate().filter(|(_, window)| window.iter().all(|byte| *byte == b'x'));
    let places: Vec<usize> = runs.map(|(at, _)| at).collect();
    let at = places[places.len() / 2];
    segment.write_all_at(&[b'x' ^ 4], at as u64).unwrap();
    let said = exits(1, &["log", "verify", &directory]);
    assert!(said.contains("CORRUPT") && said.contains("ends in segment 0 at byte "), "{said}");
    let end = said.split("at byte ").nth(1).unwrap().split(',').next().unwrap().parse::<usize>().unwrap();
    assert!((at - 4096..=at).contains(&end), "damaged at {at}, found at {end}");

    // The node says the same and does not start on it.
    cluster.start(ONE).unwrap();
    assert_eq!(cluster.wait(ONE).unwrap().code(), Some(2));
    assert!(cluster.last_words(ONE).contains("corrupt"), "{}", cluster.last_words(ONE));

    // Its filesystem is not mounted: a log that is gone is none that is clean.
    fs::remove_file(data_dir.join("lane-0000/segment-00000000.log")).unwrap();
    let said = refused(&["log", "verify", &directory]);
    assert!(said.contains("the log of lane 0 is gone"), "{said}");
}

#[test]
fn what_is_no_log_is_not_verified() {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), "no-log").unwrap();
    fs::write(directory.join("notes.txt"), "nothing of ours").unwrap();
    let said = refused(&["log", "verify", &directory.display().to_string()]);
    assert!(said.contains("no data directory"), "{said}");
    fs::write(directory.join("identity.toml"), "nothing = 'of ours'").unwrap();
    let said = refused(&["log", "verify", &directory.display().to_string()]);
    assert!(said.contains("identity.toml: line 1: missing field"), "{said}");
    fs::remove_dir_all(&directory).unwrap();
    refused(&["log", "verify", &directory.display().to_string()]);
}

/// A small filesystem in memory; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`: this process may not mount.
    fn of(mib: u32) -> Option<Mounted> {
        let at = Cluster::fresh_directory(&std::env::temp_dir(), "mount").unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "plimsoll-test"])
            .arg(&at)
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Mounted(at));
        }
        fs::remove_dir(&at).unwrap();
        None
    }

    fn grow_to(&self, mib: u32) {
        let remount = Command::new("mount")
            .args(["-o", &format!("remount,size={mib}m")])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(remount.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The system takes a killed node's ring apart a moment after the node: until then its files are open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

fn pour(into: &str, from: &Path) -> std::process::Output {
    let from = from.display().to_string();
    run(&["append", "--config", into, "--input", &from, "--record-bytes", "65536", "--timeout", "2"])
}

/// It stopped, and nodes with equal disks stopped together: a cluster was gone although nothing of it was lost.
#[test]
fn a_node_whose_filesystem_is_full_refuses_submits_serves_reads_and_goes_on_when_there_is_room() {
    let _turn = turn();
    let Some(mounted) = Mounted::of(40) else {
        println!("not tested: this process may not mount a filesystem");
        return;
    };
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), "full").unwrap();
    // The log may be larger than its filesystem: a misconfiguration, or others have filled it.
    let shape = Shape { segment_mib: 8, capacity_mib: 512, ..small(1) };
    let mut cluster = Cluster::new(binary(), &directory, &shape).unwrap();
    cluster.reconfigure(ONE, |config| config.data_dir = mounted.0.join("node")).unwrap();
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let config = cluster.config_path(ONE).display().to_string();
    let input = directory.join("input");
    fs::write(&input, vec![b'y'; 64 << 20]).unwrap();

    let output = pour(&config, &input);
    let (said, complained) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{complained}");
    let committed: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!((100..640).contains(&committed), "{said}");
    assert!(complained.contains("the log is full"), "{said}{complained}");
    let told = |cluster: &Cluster, words: &str| cluster.log(ONE).matches(words).count();
    assert_eq!(told(&cluster, "no room for the next segment of the log"), 1, "{}", cluster.last_words(ONE));
    assert_eq!(told(&cluster, "the filesystem is full"), 1, "{}", cluster.last_words(ONE));
    let found = |config: &str| exits(0, &["read", "--config", config, "--output", "raw"]).len() >> 16;
    assert_eq!(found(&config), committed);
    // Also one that comes back to a full filesystem elects and serves.
    cluster.kill(ONE).unwrap();
    cluster.start(ONE).unwrap();
    cluster.await_leaders().unwrap();
    assert_eq!(found(&config), committed);
    let output = fed(&[b'z'; 65536], &["append", "--config", &config, "--timeout", "2"]);
    assert_eq!(output.status.code(), Some(1), "{:?}", texts(&output));

    // With room it goes on by itself.
    mounted.grow_to(200);
    let until = Instant::now() + Duration::from_secs(10);
    while told(&cluster, "there is room again for segments of the log") == 0 {
        assert!(Instant::now() < until, "{}", cluster.last_words(ONE));
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let output = fed(b"and on\n", &["append", "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert_eq!(cluster.has_ended(ONE).unwrap(), None);
}

/// Nodes with equal disks are full together: the leader first, so that what it has taken still commits.
#[test]
fn nodes_with_equal_disks_that_are_full_all_go_on() {
    let _turn = turn();
    let mounted: Vec<Mounted> = (0..3).map_while(|_| Mounted::of(40)).collect();
    if mounted.len() < 3 {
        println!("not tested: this process may not mount a filesystem");
        return;
    }
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), "full").unwrap();
    let shape = Shape { segment_mib: 8, capacity_mib: 512, ..small(3) };
    let mut cluster = Cluster::new(binary(), &directory, &shape).unwrap();
    let ids = cluster.ids();
    for (id, mounted) in ids.iter().zip(&mounted) {
        cluster.reconfigure(*id, |config| config.data_dir = mounted.0.join("node")).unwrap();
    }
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let config = cluster.config_path(ONE).display().to_string();
    let input = directory.join("input");
    fs::write(&input, vec![b'y'; 64 << 20]).unwrap();

    let output = pour(&config, &input);
    let (said, complained) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{complained}");
    assert!(complained.contains("the log is full"), "{said}{complained}");
    let committed: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!((100..640).contains(&committed), "{said}");
    assert_eq!(exits(0, &["read", "--config", &config, "--output", "raw"]).len() >> 16, committed);
    cluster.check().unwrap();

    mounted.iter().for_each(|mounted| mounted.grow_to(200));
    let until = Instant::now() + Duration::from_secs(10);
    while !ids.iter().all(|&id| cluster.log(id).contains("there is room again for segments of the log")) {
        assert!(Instant::now() < until, "{}", cluster.all_last_words());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let output = fed(b"and on\n", &["append", "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    cluster.check().unwrap();
}
