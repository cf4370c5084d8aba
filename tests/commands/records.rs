//! Records in and out: `append` and `read`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal};

use crate::{cluster, exits, fed, plimsoll, refused, run, small, texts, turn};

#[test]
fn lines_and_lengths_come_back_in_every_form() {
    let _turn = turn();
    let (cluster, config) = cluster("forms", &small(3));
    let input = cluster.directory().join("input");
    let input = input.display().to_string();

    fs::write(&input, "first\n\nsecond\nlast without a line feed").unwrap();
    let said = exits(0, &["append", "--config", &config, "--input", &input, "--epoch", "9"]);
    // The first entry is the leader's own.
    assert!(said.starts_with("3 records committed at indices 2 to 4, 0 unknown"), "{said}");
    fs::write(&input, "abcdefgh--").unwrap();
    let said = exits(0, &["append", "--config", &config, "--input", &input, "--record-bytes", "4"]);
    assert!(said.starts_with("3 records committed at indices 5 to 7"), "{said}");
    let output = fed(b"from\nstandard input\n", &["append", "--config", &config]);
    let (said, complained) = texts(&output);
    assert_eq!((output.status.code(), complained.as_str()), (Some(0), ""));
    assert!(said.starts_with("2 records committed at indices 8 to 9"), "{said}");

    let read = |more: &[&str]| exits(0, &[&["read", "--config", &config], more].concat());
    // A quorum has all of it; this node may be the one that has not heard of the last commit yet.
    let all = "first\nsecond\nlast without a line feed\nabcd\nefgh\n--\nfrom\nstandard input\n";
    let leader = exits(0, &["status", "--config", &config, "--json"]);
    let leader = crate::json(&leader)["shards"][0]["leader"].to_string();
    assert_eq!(read(&["--node", &leader]), all);
    assert_eq!(read(&["--node", &leader, "--from", "8"]), "from\nstandard input\n");
    assert_eq!(read(&["--node", &leader, "--from", "10"]), "");
    assert_eq!(read(&["--node", &leader, "--from", "5", "--output", "raw"]), "abcdefgh--fromstandard input");
    let hex = read(&["--node", &leader, "--output", "hex"]);
    let lines: Vec<Vec<&str>> = hex.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 8);
    assert_eq!((lines[0][0], lines[0][2], lines[0][3], lines[0][4]), ("2", "1", "9", "6669727374"));
    assert_eq!((lines[3][0], lines[3][2], lines[3][3], lines[3][4]), ("5", "1", "0", "61626364"));

    assert!(refused(&["read", "--config", &config, "--shard", "1"]).contains("shard 1"));
    assert!(refused(&["read", "--config", &config, "--node", "7"]).contains("node 7"));
    let nothing = refused(&["append", "--config", &config, "--input", "/nowhere/at-all"]);
    assert!(nothing.contains("/nowhere/at-all"), "{nothing}");
}

#[test]
fn an_input_that_breaks_off_says_what_of_it_was_committed() {
    let _turn = turn();
    let (cluster, config) = cluster("breaks-off", &small(1));
    let input = cluster.directory().join("input");
    let mut lines: Vec<u8> = (0..5).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
    lines.resize(lines.len() + plimsoll::limits::RECORD_BYTES_MAX + 1, b'x');
    fs::write(&input, lines).unwrap();
    let output = run(&["append", "--config", &config, "--input", &input.display().to_string()]);
    let (said, complained) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}\n{complained}");
    assert!(said.starts_with("5 records committed at indices 2 to 6, 0 unknown"), "{said}");
    assert!(complained.contains("nothing more was sent: record 6: "), "{complained}");
    assert_eq!(exits(0, &["read", "--config", &config]), "line 0\nline 1\nline 2\nline 3\nline 4\n");
}

#[test]
fn every_kind_of_ack_ends_in_the_log_of_every_replica() {
    let _turn = turn();
    let (mut cluster, config) = cluster("acks", &small(3));
    let mut expected = String::new();
    for acks in ["none", "leader", "quorum"] {
        let lines: String = (0..500).map(|number| format!("{acks} {number}\n")).collect();
        let output = fed(lines.as_bytes(), &["append", "--config", &config, "--acks", acks]);
        let (said, complained) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{said}{complained}");
        assert!(said.starts_with("500 records committed at indices "), "{said}");
        expected += &lines;
    }
    // The last 500 are on a quorum, and with them all before.
    for id in cluster.ids() {
        let mut follow = plimsoll(&["read", "--config", &config, "--follow", "--node", &id.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
        let found: String = lines.take(1500).map(|line| line + "\n").collect();
        follow.kill().unwrap();
        follow.wait().unwrap();
        assert!(found == expected, "node {id} holds something else");
    }
    cluster.check().unwrap();
}

#[test]
fn follow_shows_what_is_committed_later_until_it_is_stopped() {
    let _turn = turn();
    let (_cluster, config) = cluster("follow", &small(1));
    let mut follow =
        plimsoll(&["read", "--config", &config, "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    for record in ["one", "two", "three"] {
        let output = fed(record.as_bytes(), &["append", "--config", &config]);
        assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
        assert_eq!(lines.next().unwrap(), record);
    }
    let pid = Pid::from_raw(follow.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(lines.next(), None, "nothing more is written");
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}
