//! `--fuzz`: see `plimsoll::sim::fuzz`. What breaks a target is added to the corpus, so that it is tried first ever
//! after.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plimsoll::sim::fuzz::{Fuzzer, Target};
use plimsoll::sim::random::{Random, mix};

thread_local! {
    /// Where the input under way belongs, and what it is: for the panic hook.
    static CURRENT: RefCell<Option<(PathBuf, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Keeps the input that a target has just fallen over.
pub(crate) fn keep() {
    CURRENT.with_borrow(|current| {
        let Some((folder, input)) = current else { return };
        let name = input.iter().fold(0, |hash, &byte| mix(hash ^ u64::from(byte)));
        let path = folder.join(format!("{name:016x}"));
        match fs::create_dir_all(folder).and_then(|()| fs::write(&path, input)) {
            Ok(()) => eprintln!("kept as {}", path.display()),
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
    });
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Feeds one target until the time is up; everything in the corpus first.
pub(crate) fn run(name: &str, time: Duration) -> bool {
    let folder = PathBuf::from("tests/corpus").join(name);
    let kept = corpus(&folder);
    if name == "config" {
        return config(&folder, kept, time);
    }
    let target = match name {
        "wire" => Target::Wire,
        "ethernet" => Target::Ethernet,
        "log" => Target::Log,
        "raft" => Target::Raft,
        "datagram" => Target::Datagram,
        "datagram-link" => Target::DatagramLink,
        _ => {
            eprintln!("{name} is none of wire, ethernet, log, raft, datagram, datagram-link, config");
            return false;
        }
    };
    let mut fuzzer = Fuzzer::new(target, kept.clone());
    let attempts = drive(&folder, kept, time, |random, input| match input {
        Some(input) => fuzzer.attempt(input),
        None => {
            let input = fuzzer.next(random);
            CURRENT.set(Some((folder.to_owned(), input.clone())));
            fuzzer.attempt(&input);
        }
    });
    println!("{name}: {attempts} inputs, {} accepted, none broke it", fuzzer.accepted);
    // Nothing accepted: whatever is behind the first check was never reached.
    fuzzer.accepted > 0
}

fn drive(
    folder: &Path,
    kept: Vec<Vec<u8>>,
    time: Duration,
    mut attempt: impl FnMut(&mut Random, Option<&[u8]>),
) -> u64 {
    let begin = Instant::now();
    let mut random = Random::new(begin.elapsed().as_nanos() as u64 ^ u64::from(std::process::id()));
    for input in &kept {
        CURRENT.set(Some((folder.to_owned(), input.clone())));
        attempt(&mut random, Some(input));
    }
    let mut attempts = kept.len() as u64;
    while begin.elapsed() < time {
        attempt(&mut random, None);
        attempts += 1;
    }
    CURRENT.set(None);
    attempts
}

#[cfg(feature = "node")]
const SAMPLE: &str = r#"
cluster = "books"
node = 1
data_dir = "d"
shards = 4
lanes = 2

[raft]
election_timeout_ms = 300
heartbeat_ms = 100

[[member]]
id = 1
peer = "127.0.0.1:7100"
client = "127.0.0.1:7200"
"#;

#[cfg(feature = "node")]
fn config(folder: &Path, kept: Vec<Vec<u8>>, time: Duration) -> bool {
    use plimsoll::node::config::Config;
    use plimsoll::sim::fuzz::mutate;

    let mut samples = kept.clone();
    samples.push(SAMPLE.as_bytes().to_vec());
    let mut accepted = 0_u64;
    let mut attempt_text = |bytes: &[u8]| {
        let Ok(config) = Config::from_toml(&String::from_utf8_lossy(bytes)) else { return };
        accepted += 1;
        let _ = config.check_shape();
        assert_eq!(Config::from_toml(&config.to_toml()).ok(), Some(config), "what is written is read back");
    };
    let attempts = drive(folder, kept, time, |random, input| match input {
        Some(input) => attempt_text(input),
        None => {
            let mut bytes = random.pick(&samples).clone();
            let other = random.pick(&samples).clone();
            mutate(&mut bytes, random, &other);
            CURRENT.set(Some((folder.to_owned(), bytes.clone())));
            attempt_text(&bytes);
        }
    });
    println!("config: {attempts} inputs, {accepted} accepted, none broke it");
    accepted > 0
}

#[cfg(not(feature = "node"))]
fn config(_folder: &Path, _kept: Vec<Vec<u8>>, _time: Duration) -> bool {
    eprintln!("the configuration reader is part of the feature \"node\", which this build does not have");
    false
}
