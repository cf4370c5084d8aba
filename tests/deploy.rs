//! What lies in `deploy/` for users to copy is understood by the node that they start with it.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use plimsoll::admin::Family;
use plimsoll::node::config::Config;

/// Cargo reads the whole workspace, whichever package it builds.
#[test]
fn the_container_is_built_of_every_member() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).filter(|member| *member != ".").collect();
    assert!(members.len() >= 2, "{members:?}");
    let container = read("deploy/Containerfile");
    for member in members.into_iter().chain(["src"]) {
        let copied = container.lines().any(|line| line == format!("COPY {member} {member}"));
        assert!(copied, "deploy/Containerfile does not copy {member}");
    }
}

#[test]
fn every_configuration_is_sound_and_one_cluster_agrees() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let load = |name: &str| Config::load(&deploy.join(name)).unwrap_or_else(|error| panic!("{error}"));
    let alone = load("node.toml");
    assert_eq!((alone.members.len(), alone.cpu.cores.len()), (3, usize::from(alone.lanes)));

    let nodes: Vec<Config> = (1..=3).map(|node| load(&format!("example/node{node}.toml"))).collect();
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(node.node as usize, at + 1);
        assert_eq!(node.members, nodes[0].members);
        assert_eq!(
            (&node.cluster, node.lanes, node.shards),
            (&nodes[0].cluster, nodes[0].lanes, nodes[0].shards)
        );
        let same_directory = nodes.iter().filter(|other| other.data_dir == node.data_dir).count();
        assert_eq!(same_directory, 1, "{} is used twice", node.data_dir.display());
    }
}

#[test]
fn what_dashboard_and_rules_ask_for_is_told() {
    let names: BTreeSet<&str> = Family::ALL.iter().map(|family| family.name()).collect();
    let metrics = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/metrics");
    let read = |file: &str| fs::read_to_string(metrics.join(file)).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<String> = asked.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(asked.len() >= panels.len() && panels.len() > 5);
    for (text, least) in [(asked.join("\n"), 12), (read("rules.yml"), 6)] {
        let word = |character: char| !character.is_ascii_alphanumeric() && character != '_';
        let found: BTreeSet<&str> = text.split(word).filter(|word| word.starts_with("plimsoll_")).collect();
        assert!(found.len() >= least, "only {found:?}");
        let unknown: Vec<_> = found.difference(&names).collect();
        assert!(unknown.is_empty(), "nobody tells {unknown:?}");
    }
}
