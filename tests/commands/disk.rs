//! Disks: `log verify`, and a node whose disk has no room left.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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

#[test]
fn a_node_whose_filesystem_is_full_stops_and_comes_back_with_all_that_it_acknowledged() {
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
    assert_eq!(cluster.wait(ONE).unwrap().code(), Some(2), "{}", cluster.last_words(ONE));
    let last = cluster.log(ONE).lines().last().unwrap().to_owned();
    assert!(last.contains("the disk of lane 0 failed") && last.contains("the filesystem is full"), "{last}");
    assert!(last.contains("what was acknowledged stands"), "{last}");

    // With room it goes on.
    mounted.grow_to(200);
    cluster.start(ONE).unwrap();
    cluster.await_leaders().unwrap();
    let found = exits(0, &["read", "--config", &config, "--output", "raw"]).len() >> 16;
    assert!(found >= committed, "{committed} were acknowledged, {found} are there");
    let output = fed(b"and on\n", &["append", "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
}
