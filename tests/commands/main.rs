//! The commands, as processes: what they print, what they leave behind, and the code with which they exit.

#![cfg(feature = "node")]
#![allow(clippy::unwrap_used)]

mod device;
mod disk;
mod doctor;
mod loads;
#[path = "../loop_device/mod.rs"]
mod loop_device;
mod mako;
mod records;
mod shards;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll::local::{Cluster, Shape, be_patient};
use plimsoll::types::NodeId;

const ONE: NodeId = NodeId(1);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_plimsoll"))
}

fn plimsoll(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    plimsoll(arguments).output().unwrap()
}

/// Runs a command that must exit with `code`; returns what it has written to standard output.
fn exits(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let (said, complained) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{said}\n{complained}");
    said
}

/// Runs a command that cannot do its job; returns the one line in which it says why.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (said, complained) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}:\n{said}\n{complained}");
    assert_eq!((said.as_str(), complained.lines().count()), ("", 1), "{arguments:?}: {complained}");
    complained
}

/// Runs a command with `input` as its standard input.
fn fed(input: &[u8], arguments: &[&str]) -> Output {
    let mut command = plimsoll(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A cluster that runs and has its leaders, and any node's configuration as commands take it.
fn cluster(name: &str, shape: &Shape) -> (Cluster, String) {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap();
    let mut cluster = Cluster::new(binary(), &directory, shape).unwrap();
    cluster.start_all().unwrap();
    cluster.await_leaders().unwrap();
    let config = cluster.config_path(ONE).display().to_string();
    (cluster, config)
}

fn small(nodes: u32) -> Shape {
    Shape { nodes, segment_mib: 16, capacity_mib: 512, chunks: 8, tune: be_patient, ..Shape::default() }
}

/// Clusters under load want the machine for themselves.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn wrong_options_are_refused_with_the_usage() {
    for arguments in [
        &["append", "--config", "x.toml", "--lines", "--record-bytes", "4"][..],
        &["append"],
        &["append", "--members", "1=127.0.0.1:1"],
        &["append", "--config", "x.toml", "--acks", "most"],
        &["read", "--config", "x.toml", "--output", "xml"],
        &["status", "--config", "x.toml", "--shard", "-1"],
        &["transfer", "--config", "x.toml", "--shard", "0"],
        &["demo", "--nodes", "0"],
        &["demo", "--record-bytes", "64"],
        &["bench", "commit", "--bytes", "0"],
        &["bench", "engine", "--bytes", "39"],
        &["bench", "engine", "--only", "4k-241"],
        &["bench", "engine", "--rate", "5"],
        &["config", "import-mako"],
        &["log", "verify"],
        &["elect"],
    ] {
        let output = run(arguments);
        let (said, complained) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}{complained}");
        let error = complained.starts_with("error: ") && complained.contains("--help");
        assert!(said.is_empty() && error, "{arguments:?}: {said}{complained}");
    }
}

#[test]
fn what_cannot_be_reached_or_read_is_named_in_one_line() {
    assert!(refused(&["status", "--config", "/nowhere/at-all.toml"]).contains("/nowhere/at-all.toml"));
    let nobody = ["--members", "1=127.0.0.1:9", "--cluster", "x", "--timeout", "0.3"];
    let said = refused(&[&["status"], &nobody[..]].concat());
    assert!(said.contains("node 1 at 127.0.0.1:9"), "{said}");
    let said = refused(&["status", "--members", "1:127.0.0.1", "--cluster", "x"]);
    assert!(said.contains("ID=ADDRESS:PORT"), "{said}");
    let said = refused(&["demo", "--input", "/nowhere/at-all"]);
    assert!(said.contains("/nowhere/at-all"), "{said}");
}
