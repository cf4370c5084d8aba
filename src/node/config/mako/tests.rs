#![allow(clippy::unwrap_used)]
use super::*;

const ONE: &str = include_str!("../../../../tests/mako/one.yml");
const SIX: [&str; 3] = [
    include_str!("../../../../tests/mako/six-partitions.yml"),
    include_str!("../../../../tests/mako/processes.yml"),
    include_str!("../../../../tests/mako/mode.yml"),
];

fn read(texts: &[&str]) -> Result<Mako, ConfigError> {
    let mut mako = Mako::default();
    for text in texts {
        mako.add(text)?;
    }
    Ok(mako)
}

fn convert(texts: &[&str], lanes: u16) -> Result<Converted, ConfigError> {
    read(texts)?.convert(&Target { cluster: "mako".to_owned(), lanes, data_dir: "/data".into() })
}

/// What is said of the file of one partition with `from` replaced by `to`.
#[track_caller]
fn refused(from: &str, to: &str, part: &str) {
    assert!(ONE.contains(from), "{from}");
    let error = convert(&[&ONE.replace(from, to)], 1).unwrap_err().to_string();
    assert!(error.contains(part) && error.lines().count() == 1, "{error}");
}

#[test]
fn a_locale_becomes_a_node_and_a_partition_a_shard() {
    let Converted { nodes, .. } = convert(&[ONE], 1).unwrap();
    let processes: Vec<&str> = nodes.iter().map(|(process, _)| process.as_str()).collect();
    assert_eq!(processes, ["localhost", "p1", "p2"]);
    for (at, (process, config)) in nodes.iter().enumerate() {
        assert_eq!((config.node as usize, config.shards, config.lanes), (at + 1, 1, 1));
        assert_eq!(config.data_dir, Path::new("/data").join(process));
        assert_eq!((&config.members, config.cluster_id()), (&nodes[0].1.members, nodes[0].1.cluster_id()));
        assert!(config.cpu.shared, "all of them are on one host");
        assert_eq!(Config::from_toml(&config.to_toml()).as_ref(), Ok(config));
    }
    let addresses: Vec<String> =
        nodes[0].1.members.iter().map(|member| format!("{} {}", member.peer, member.client)).collect();
    assert_eq!(
        addresses,
        [
            "127.0.0.1:27001 127.0.0.1:37001",
            "127.0.0.1:27101 127.0.0.1:37101",
            "127.0.0.1:27201 127.0.0.1:37201"
        ]
    );
}

#[test]
fn several_files_add_up_and_learners_are_left_out_with_a_word() {
    let Converted { nodes, warnings } = convert(&SIX, 2).unwrap();
    assert_eq!(nodes.len(), 3);
    for (_, config) in &nodes {
        assert_eq!((config.shards, config.lanes, config.members.len(), config.cpu.shared), (6, 2, 3, false));
    }
    assert_eq!(nodes[2].1.members[2].peer, "10.1.0.3:27201".parse().unwrap());
    let said = warnings.join("\n");
    for part in ["learners are not supported yet and are left out: s401, s402", "site.client", "to localhost"]
    {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(read(&SIX).unwrap().modes["cc"], "occ");
}

#[test]
fn files_that_say_different_things_are_refused() {
    let error = read(&[ONE, "host: {p1: 10.0.0.1}"]).unwrap_err().to_string();
    assert!(error.contains("host.p1 is 10.0.0.1, and was 127.0.0.1 before"), "{error}");
    read(&[ONE, "host: {p1: 127.0.0.1}"]).unwrap();
    let error = convert(&[ONE, ONE], 1).unwrap_err().to_string();
    assert!(error.contains("names s101 twice"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    refused(", p2: 127.0.0.1}", "}", "host does not name p2");
    refused(", s301: p2}", "}", "process does not name s301, a site of locale 2");
    let error = convert(&["mode: {ab: raft}"], 1).unwrap_err().to_string();
    assert!(error.contains("site.server is not there"), "{error}");
}

#[test]
fn columns_and_names_must_make_nodes() {
    let line = "- [\"s101:27001\", \"s201:27101\", \"s301:27201\"]";
    refused(line, &format!("{line}\n    - [\"s102:27002\"]"), "has 1 columns for partition 1 and 3");
    refused(line, &line.replace("]", ", \"s401:1\", \"s501:2\"]"), "has 5 columns");
    refused("s201:27101", "s101:27101", "names s101 twice");
    refused("s201: p1", "s201: localhost", "localhost has the sites of locale 0 and of locale 1");
    refused("s201: p1", "s201: ../p1", "\"../p1\"");
    let second = format!("{line}\n    - [\"s102:27002\", \"s202:27102\", \"s302:27202\"]");
    let split = ONE.replace(line, &second).replace("s301: p2", "s301: p2, s102: p4, s202: p1, s302: p2");
    let error = convert(&[&split], 1).unwrap_err().to_string();
    assert!(error.contains("puts s101 in localhost and s102 in p4"), "{error}");
}

#[test]
fn ports_and_addresses_must_be_possible() {
    refused("s101:27001", "s101:55536", "control port would be 65536; choose a port up to 55535");
    refused("s101:27001", "s101:65536", "\"s101:65536\"; give each as NAME:PORT");
    refused("s101:27001", "s101:0", "NAME:PORT");
    refused("s101:27001", "s101", "NAME:PORT");
    refused("p1: 127.0.0.1", "p1: db1.example", "db1.example for p1, which is no IP address");
    refused("s201:27101", "s201:37001", "overlap");
    // The second partition's port is no longer free for the first's second lane, but one node has them all.
    assert!(convert(&[ONE], 2).unwrap_err().to_string().contains("lanes is 2, more than the 1 shards"));
}

#[test]
fn what_is_no_yaml_or_not_of_this_shape_is_refused() {
    for (text, part) in [
        ("site: [\"s101:27001\"", "is not YAML"),
        ("host: {p1: 127.0.0.1, p1: 127.0.0.2}", "duplicated key"),
        ("just words", "the file is no mapping"),
        ("site: {server: 5}", "site.server is no list"),
        ("site: {server: [s101]}", "a line of site.server is no list"),
        ("site: {server: [[[s101]]]}", "a site is no text"),
        ("host: [127.0.0.1]", "host is no mapping"),
        ("host: {p1: }", "host.p1 is no text"),
    ] {
        let error = read(&[text]).unwrap_err().to_string();
        assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
    }
}

#[test]
fn modes_that_are_not_rafts_are_told() {
    let Converted { warnings, .. } = convert(&[ONE, "mode: {ab: multi_paxos}"], 1).unwrap();
    assert!(warnings.iter().any(|warning| warning.starts_with("mode.ab is multi_paxos")), "{warnings:?}");
}

#[test]
fn hosts_are_the_files_own() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mako/processes.yml");
    let hosts = hosts(Path::new(file)).unwrap();
    assert_eq!((hosts.len(), hosts["p1"].as_str()), (4, "10.1.0.2"));
    let error = super::hosts(Path::new("/nowhere/at-all.yml")).unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/at-all.yml cannot be read") || error.contains("cannot be read"),
        "{error}"
    );
}
