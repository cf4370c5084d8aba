//! Clusters that commands start themselves: `demo` and `bench commit`.

use std::fs;

use plimsoll::local::Cluster;

use crate::{exits, json, turn};

/// A directory for a command's cluster, which must be empty again in the end.
struct Within(std::path::PathBuf);

impl Within {
    fn new(name: &str) -> Within {
        Within(Cluster::fresh_directory(&std::env::temp_dir(), name).unwrap())
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let left = fs::read_dir(&self.0).map_or(0, Iterator::count);
        let _ = fs::remove_dir_all(&self.0);
        assert!(left == 0 || std::thread::panicking(), "{left} things were left behind");
    }
}

fn assert_nothing_is_wrong(result: &serde_json::Value) {
    for what in ["lost", "duplicated", "reordered"] {
        assert_eq!(result[what], 0, "{what}: {result}");
    }
    assert_eq!(result["replicas_identical"], true, "{result}");
}

fn assert_figures(figures: &serde_json::Value) {
    let names = ["p50", "p90", "p99", "p999", "max"];
    let values: Vec<f64> = names.iter().map(|name| figures[name].as_f64().unwrap()).collect();
    assert!(values[0] > 0.0 && values.is_sorted(), "{figures}");
}

#[test]
fn a_file_is_replicated_over_two_killed_leaders_and_nothing_is_wrong() {
    let _turn = turn();
    let (within, files) = (Within::new("demo"), Within::new("demo-input"));
    let input = files.0.join("input");
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    fs::write(&input, bytes).unwrap();
    let said = exits(
        0,
        &[
            "demo",
            "--json",
            "--shards",
            "2",
            "--lanes",
            "2",
            "--kills",
            "2",
            "--record-bytes",
            "500",
            "--input",
            &input.display().to_string(),
            "--dir",
            &within.0.display().to_string(),
        ],
    );
    fs::remove_file(&input).unwrap();
    let result = json(&said);
    assert_nothing_is_wrong(&result);
    assert_eq!(result["kills"], 2, "{result}");
    assert_eq!(result["failover_ms"].as_array().unwrap().len(), 2, "{result}");
    assert_eq!(result["submitted"], 2001, "{result}");
    // What was under way to a killed leader is unknown at first, and is looked up.
    assert!(result["acknowledged"].as_u64() >= Some(1000), "{result}");
    assert_figures(&result["commit_us"]);
}

#[test]
fn a_generated_log_without_kills_has_no_unknown() {
    let _turn = turn();
    let within = Within::new("demo-calm");
    let directory = within.0.display().to_string();
    let result = json(&exits(0, &["demo", "--json", "--kills", "0", "--seconds", "1", "--dir", &directory]));
    assert_nothing_is_wrong(&result);
    assert_eq!((&result["unknown"], &result["kills"]), (&0.into(), &0.into()), "{result}");
    assert!(result["acknowledged"].as_u64() > Some(100), "{result}");
}

#[test]
fn bench_tells_latency_throughput_and_the_floor() {
    let _turn = turn();
    let within = Within::new("bench");
    let directory = within.0.display().to_string();
    let result = json(&exits(0, &["bench", "commit", "--json", "--seconds", "1", "--dir", &directory]));
    assert_figures(&result["commit_us"]);
    assert_figures(&result["floor"]["disk_us"]);
    assert_figures(&result["floor"]["udp_rtt_us"]);
    let ops_per_s = result["ops_per_s"].as_f64().unwrap();
    assert!(ops_per_s > 10.0, "{result}");
    // One submit at a time: what a second holds follows from what each takes.
    assert!(ops_per_s * result["commit_us"]["p50"].as_f64().unwrap() < 2.5e6, "{result}");
}

#[test]
fn bench_link_tells_the_round_trip_beside_a_raw_sockets() {
    let _turn = turn();
    for link in ["udp", "tcp"] {
        for (bytes, frame_bytes) in [("64", 160), ("20000", 20_096)] {
            let result = json(&exits(
                0,
                &["bench", "link", "--link", link, "--bytes", bytes, "--json", "--seconds", "1"],
            ));
            for which in ["rtt_us", "raw_us"] {
                let [p50, p99, p999] =
                    ["p50", "p99", "p999"].map(|name| result[which][name].as_f64().unwrap());
                assert!(0.1 < p50 && p50 <= p99 && p99 <= p999, "{result}");
            }
            assert_eq!((&result["link"], &result["frame_bytes"]), (&link.into(), &frame_bytes.into()));
            assert!(result["round_trips"].as_u64().unwrap() > 10, "{result}");
            assert!(result["frames_per_s"].as_f64().unwrap() > 10.0, "{result}");
        }
    }
}
