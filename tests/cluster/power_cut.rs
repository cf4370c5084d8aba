//! The power is cut, again and again: every write that reached a device is recorded in the order in which it became
//! durable (`dm-log-writes`), with a mark for every so many acknowledged records. Then the recording is played to
//! another device, up to one point after the other, and at each the log must open with everything that was acknowledged
//! before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use plimsoll::local::Shape;
use plimsoll::log::verify::End;
use plimsoll::node::config::Devices;
use plimsoll::node::verify::verify_device;
use plimsoll::types::NodeId;

use crate::ledger::Ledger;
use crate::{cluster, small, turn};

const NODE: NodeId = NodeId(1);
const SECTOR: u64 = 512;

const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// One entry of the recording.
#[derive(Debug)]
enum Entry {
    /// These bytes of the recording, from here on, came to this place.
    Write { at: u64, bytes_at: u64, len_bytes: u64 },
    /// What was here may be anything now.
    Discard { at: u64, len_bytes: u64 },
    /// So many records were acknowledged.
    Mark(u64),
}

fn given(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} names no device")).into()
}

fn dmsetup(arguments: &[&str]) {
    let output = Command::new("dmsetup").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Reads the recording, which is over.
fn entries(recording: &File) -> Vec<Entry> {
    let mut block = [0; SECTOR as usize];
    let number = |block: &[u8], at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
    recording.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(number(&block, 0), 0x006a_7366_7773_6872, "the recording begins with its magic number");
    assert_eq!((number(&block, 8), number(&block, 24) as u32), (1, SECTOR as u32));
    let count = number(&block, 16);
    let mut at = SECTOR;
    let mut entries = Vec::new();
    for _ in 0..count {
        recording.read_exact_at(&mut block, at).unwrap();
        at += SECTOR;
        let place = number(&block, 0) * SECTOR;
        let len_bytes = number(&block, 8) * SECTOR;
        let flags = number(&block, 16);
        if flags & MARK != 0 {
            let text = &block[32..32 + number(&block, 24) as usize];
            let text = std::str::from_utf8(text).unwrap().trim_matches(['\0', '\n', ' ']);
            // The mapper itself marks the end.
            if text != "dm-log-writes-end" {
                entries.push(Entry::Mark(text.parse().unwrap()));
            }
        } else if flags & DISCARD != 0 {
            entries.push(Entry::Discard { at: place, len_bytes });
        } else {
            entries.push(Entry::Write { at: place, bytes_at: at, len_bytes });
            at += len_bytes;
        }
    }
    entries
}

/// The device to which the recording is played.
struct Replay<'a> {
    recording: &'a File,
    path: PathBuf,
    device: File,
    checks: usize,
    ends: BTreeMap<&'static str, usize>,
}

impl Replay<'_> {
    /// Plays an entry, or the first half of its sectors.
    fn play(&self, entry: &Entry, is_torn: bool) {
        match entry {
            Entry::Mark(_) => {}
            Entry::Discard { at, len_bytes } => self.fill(*at, *len_bytes),
            Entry::Write { at, bytes_at, len_bytes } => {
                let sectors = len_bytes / SECTOR;
                let wanted = if is_torn { sectors / 2 } else { sectors } * SECTOR;
                let mut bytes = vec![0; wanted as usize];
                self.recording.read_exact_at(&mut bytes, *bytes_at).unwrap();
                self.device.write_all_at(&bytes, *at).unwrap();
            }
        }
    }

    /// What nobody wrote is not zeros.
    fn fill(&self, at: u64, len_bytes: u64) {
        let garbage = vec![0x5a; 1 << 20];
        let mut done = 0;
        while done < len_bytes {
            let piece = (len_bytes - done).min(garbage.len() as u64);
            self.device.write_all_at(&garbage[..piece as usize], at + done).unwrap();
            done += piece;
        }
    }

    /// The log as it would be found after a cut at this moment.
    fn check(&mut self, acknowledged: u64, point: &str) {
        self.device.sync_all().unwrap();
        self.checks += 1;
        let reports = match verify_device(&self.path) {
            Ok(reports) => reports,
            Err(why) => {
                assert_eq!(acknowledged, 0, "{point}: {why}");
                *self.ends.entry("no log yet").or_default() += 1;
                return;
            }
        };
        let report = &reports[0].1;
        let end = match &report.end {
            End::Clean => "clean",
            End::Torn { .. } => "torn",
            other => panic!("{point}: {other:?}"),
        };
        *self.ends.entry(end).or_default() += 1;
        let entries: u64 = report.shards.iter().map(|shard| shard.entries).sum();
        assert!(entries >= acknowledged, "{point}: {entries} entries, {acknowledged} were acknowledged");
    }
}

/// Records while a node works on the device; returns the books.
fn record(cluster: &mut plimsoll::local::Cluster, name: &str) -> Ledger {
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let mut ledger = Ledger::open(cluster, 0);
    for _ in 0..12 {
        let before = ledger.acknowledged.len();
        ledger.load(8, |ledger| ledger.acknowledged.len() >= before + 25);
        dmsetup(&["message", name, "0", "mark", &ledger.acknowledged.len().to_string()]);
    }
    cluster.kill(NODE).unwrap();
    ledger
}

/// The device mapper lets go of a killed node's device a moment after the node.
fn remove(name: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !Command::new("dmsetup").args(["remove", name]).output().unwrap().status.success() {
        assert!(std::time::Instant::now() < until, "{name} stays in use");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

#[test]
#[ignore = "wants a device under dm-log-writes: tests/vm/guest/power-cut.sh"]
fn what_was_acknowledged_before_the_power_is_cut_is_there_after_it() {
    let _turn = turn();
    let cut = given("PLIMSOLL_CUT_DEVICE");
    let name = cut.file_name().unwrap().to_str().unwrap().to_owned();
    let mut cluster = cluster("power-cut", &Shape { nodes: 1, segment_mib: 8, ..small() });
    let on = |path: &Path| Devices(vec![path.to_owned()]);
    let change = |config: &mut plimsoll::node::Config| {
        (config.log.device, config.log.capacity_mib) = (on(&cut), None);
    };
    cluster.reconfigure(NODE, change).unwrap();
    let mut ledger = record(&mut cluster, &name);
    remove(&name);

    let recording = File::open(given("PLIMSOLL_CUT_LOG")).unwrap();
    let entries = entries(&recording);
    let path = given("PLIMSOLL_CUT_REPLAY");
    let device = File::options().read(true).write(true).open(&path).unwrap();
    let mut replay = Replay { recording: &recording, path, device, checks: 0, ends: BTreeMap::new() };
    let len_bytes = rustix::fs::seek(&replay.device, rustix::fs::SeekFrom::End(0)).unwrap();
    replay.fill(0, len_bytes);

    let is_mark = |entry: &Entry| matches!(entry, Entry::Mark(_));
    let first_mark = entries.iter().position(is_mark).unwrap();
    // Few of the points before anything was acknowledged, for most of that are zeros; many after it.
    let (every_before, every_after) = (first_mark / 8 + 1, (entries.len() - first_mark) / 40 + 1);
    let mut acknowledged = 0;
    for (at, entry) in entries.iter().enumerate() {
        let every = if at < first_mark { every_before } else { every_after };
        let is_point = at % every == 0 && !is_mark(entry);
        if is_point {
            replay.play(entry, true);
            replay.check(acknowledged, &format!("in the middle of write {at}"));
        }
        replay.play(entry, false);
        if let Entry::Mark(count) = entry {
            acknowledged = *count;
        }
        if is_point || is_mark(entry) {
            replay.check(acknowledged, &format!("after write {at}"));
        }
    }
    println!(
        "{} writes, {acknowledged} acknowledged, {} cuts: {:?}",
        entries.len(),
        replay.checks,
        replay.ends
    );
    assert!(acknowledged >= 300 && replay.checks >= 60, "too little was cut");
    assert!(replay.ends.get("clean").is_some_and(|count| *count >= 20), "{:?}", replay.ends);

    // And a node goes on with what is there: every record, as it was.
    let change = |config: &mut plimsoll::node::Config| config.log.device = on(&replay.path);
    cluster.reconfigure(NODE, change).unwrap();
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    ledger.settle();
    ledger.check(&cluster, &[NODE]);
}
