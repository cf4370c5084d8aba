//! Block devices for the log, as an operator meets them: what `node` refuses, what `--format` does, `log verify` on a
//! device.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use plimsoll::local::{Cluster, Shape};
use plimsoll::node::config::Devices;
use rustix::process::Signal;

use crate::loop_device::LoopDevice;
use crate::{ONE, binary, exits, fed, refused, run, small, texts, turn};

/// A node that is not started, with its log on the device.
fn alone(name: &str, device: &LoopDevice) -> (Cluster, String) {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
    let shape = Shape { segment_mib: 8, ..small(1) };
    let mut cluster = Cluster::new(binary(), &directory, &shape).unwrap();
    let change = |config: &mut plimsoll::node::Config| {
        config.log.device = Devices(vec![device.path().to_owned()]);
        config.log.capacity_mib = None;
    };
    cluster.reconfigure(ONE, change).unwrap();
    let config = cluster.config_path(ONE).display().to_string();
    (cluster, config)
}

fn whole(device: &LoopDevice) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::fs::File::open(device.path()).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn write(device: &LoopDevice, bytes: &[u8], at: u64) {
    OpenOptions::new().write(true).open(device.path()).unwrap().write_all_at(bytes, at).unwrap();
}

/// Starts the node, waits until it leads, appends a line, and stops it in good order.
fn works(cluster: &mut Cluster, config: &str) {
    cluster.start(ONE).unwrap();
    cluster.await_leaders().unwrap();
    let output = fed(b"a line\n", &["append", "--config", config]);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    cluster.signal(ONE, Signal::TERM).unwrap();
    assert_eq!(cluster.wait(ONE).unwrap().code(), Some(0), "{}", cluster.last_words(ONE));
}

/// A node started with `--format` until it leads; then killed.
fn formats(cluster: &mut Cluster, config: &str) {
    let mut child = Command::new(binary())
        .args(["node", "--with-parent", "--format", "--config", config])
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !cluster.config(ONE).data_dir.join("complete").exists() {
        assert!(std::time::Instant::now() < until && child.try_wait().unwrap().is_none(), "it did not start");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_device_that_holds_something_is_refused_until_it_is_formatted() {
    let _turn = turn();
    let Some(device) = LoopDevice::attach(64, 512) else { return };
    let (mut cluster, config) = alone("format", &device);
    write(&device, b"EFI PART", 512);
    let before = whole(&device);
    let said = refused(&["node", "--config", &config]);
    let expected = format!(
        "device {} holds a GUID partition table. If that may be destroyed, start the node once with --format; if not, name \
         another device; nothing was changed",
        device.path().display()
    );
    assert!(said.contains(&expected), "{said}");
    assert_eq!(whole(&device), before);
    assert!(!cluster.config(ONE).data_dir.exists(), "nothing at all was touched");
    assert!(refused(&["log", "verify", &device.path().display().to_string()]).contains("GUID"));

    formats(&mut cluster, &config);
    // From then on the device is the node's, and the option changes nothing.
    works(&mut cluster, &config);
    formats(&mut cluster, &config);
    cluster.start(ONE).unwrap();
    cluster.await_leaders().unwrap();
    assert_eq!(exits(0, &["read", "--config", &config]), "a line\n");
    let said = refused(&["log", "verify", &device.path().display().to_string()]);
    assert!(said.contains("it is in use"), "{said}");
    cluster.signal(ONE, Signal::TERM).unwrap();
    cluster.wait(ONE).unwrap();
    let said = exits(0, &["log", "verify", &device.path().display().to_string()]);
    assert!(said.contains("lane 0: ") && said.contains(", clean"), "{said}");
    let said = refused(&["log", "verify", &cluster.config(ONE).data_dir.display().to_string()]);
    assert!(said.contains("lies on a block device, give that instead"), "{said}");
}

#[test]
fn what_was_written_over_a_log_is_never_formatted_away_and_a_log_gone_is_never_begun_anew() {
    let _turn = turn();
    let Some(device) = LoopDevice::attach(64, 512) else { return };
    let (mut cluster, config) = alone("lost", &device);
    works(&mut cluster, &config);
    let good = whole(&device);
    for (bytes, what) in [
        (vec![0; 64 << 20], "holds nothing, but this node had the log of node 1"),
        ([vec![0; 1080], vec![0x53, 0xef], vec![0; 4000]].concat(), "holds an ext2, ext3 or ext4 filesystem"),
    ] {
        write(&device, &bytes, 0);
        let before = whole(&device);
        for arguments in [&["node", "--config", &config][..], &["node", "--format", "--config", &config]] {
            let said = refused(arguments);
            assert!(said.contains(what) && said.contains("--format does not help here"), "{said}");
        }
        assert!(whole(&device) == before, "it was changed");
    }
    // Files instead of the device are no log either.
    let on_device = cluster.config(ONE).log.device.clone();
    cluster.reconfigure(ONE, |config| config.log.device = Devices::default()).unwrap();
    assert!(refused(&["node", "--config", &config]).contains("the log of lane 0 is gone"));
    cluster.reconfigure(ONE, |config| config.log.device = on_device).unwrap();
    write(&device, &good, 0);
    works(&mut cluster, &config);
}

#[test]
fn another_nodes_device_is_its_own_and_a_fresh_directory_knows_none() {
    let _turn = turn();
    let Some(device) = LoopDevice::attach(64, 512) else { return };
    let (mut first, config) = alone("owner", &device);
    works(&mut first, &config);
    let before = whole(&device);

    let (second, foreign) = alone("stranger", &device);
    let said = refused(&["node", "--config", &foreign]);
    let whose = format!("holds the log of node 1 of cluster {:016x}", first.config(ONE).cluster_id().0);
    assert!(said.contains(&whose) && said.contains("start the node once with --format"), "{said}");
    assert!(!second.config(ONE).data_dir.exists());
    // The same node with an empty directory: perhaps its filesystem is not mounted.
    let own = first.config(ONE).data_dir.clone();
    first.reconfigure(ONE, |config| config.data_dir = own.with_extension("other")).unwrap();
    assert!(refused(&["node", "--config", &config]).contains(&whose));
    first.reconfigure(ONE, |config| config.data_dir = own).unwrap();
    assert!(whole(&device) == before, "it was changed");
    works(&mut first, &config);
}

#[test]
fn a_device_that_is_too_small_mounted_or_none_is_refused_in_one_line() {
    let _turn = turn();
    let Some(device) = LoopDevice::attach(64, 4096) else { return };
    let (mut cluster, config) = alone("refusals", &device);
    cluster.reconfigure(ONE, |config| config.log.capacity_mib = Some(64)).unwrap();
    let said = refused(&["node", "--config", &config]);
    assert!(
        said.contains("log.capacity_mib is 64, but ") && said.contains("room for 56 in each lane"),
        "{said}"
    );
    cluster.reconfigure(ONE, |config| config.log.capacity_mib = Some(48)).unwrap();
    works(&mut cluster, &config);
    cluster
        .reconfigure(ONE, |config| (config.log.segment_mib, config.log.capacity_mib) = (16, None))
        .unwrap();
    assert!(refused(&["node", "--config", &config]).contains("segments of 8 MiB"));

    let Some(small) = LoopDevice::attach(16, 512) else { return };
    let (cluster, config) = alone("small", &small);
    let said = refused(&["node", "--config", &config]);
    assert!(
        said.contains("it has 16 MiB: too little for two segments of 8 MiB for each of 1 lanes"),
        "{said}"
    );
    assert!(!cluster.config(ONE).data_dir.exists());

    let Some(mounted) = LoopDevice::attach(64, 512) else { return };
    let (cluster, config) = alone("mounted", &mounted);
    let point = Cluster::fresh_directory(&std::env::temp_dir(), "mount-point").unwrap();
    let succeeds = |program: &str, arguments: &[&std::ffi::OsStr]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let (path, point) = (mounted.path().as_os_str(), point.as_os_str());
    if succeeds("mkfs.ext4", &["-q".as_ref(), path]) && succeeds("mount", &[path, point]) {
        let output = run(&["node", "--format", "--config", &config]);
        assert!(succeeds("umount", &[point]));
        assert!(texts(&output).1.contains("it is in use: mounted, "), "{:?}", texts(&output));
        assert_eq!(output.status.code(), Some(2));
    } else {
        println!("not tested on a mounted device: this process may not mount one");
    }
    std::fs::remove_dir(point).unwrap();
    let mut cluster = cluster;
    cluster.reconfigure(ONE, |config| config.log.device = Devices(vec!["/dev/null".into()])).unwrap();
    assert!(refused(&["node", "--config", &config]).contains("/dev/null: it is not a block device"));
}
