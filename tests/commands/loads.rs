//! Clusters that commands start themselves: `demo` and `bench`.

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

/// One short trial, with what `more` says; the outcome of its only case.
fn bench_engine(name: &str, more: &[&str]) -> (serde_json::Value, serde_json::Value) {
    let within = Within::new(name);
    let directory = within.0.display().to_string();
    let short = ["bench", "engine", "--json", "--warm-up", "0", "--trials", "1", "--dir", &directory];
    let result = json(&exits(0, &[&short[..], more].concat()));
    let case = result["cases"][0].clone();
    assert_eq!(result["cases"].as_array().unwrap().len(), 1, "{result}");
    for what in ["gaps", "duplicates", "disordered", "damaged"] {
        assert_eq!(case[what], 0, "{what}: {result}");
    }
    assert_figures(&case["latency_us"]);
    (result, case)
}

#[test]
fn bench_engine_repeats_the_protocol_and_accounts_for_every_record() {
    let _turn = turn();
    // 190 a second over six partitions: all that was due in a second was submitted, and committed.
    let (result, case) = bench_engine("engine", &["--seconds", "1", "--only", "286k-190"]);
    assert_eq!((&case["bytes"], &case["partitions"]), (&286_208.into(), &6.into()), "{result}");
    assert_eq!((&case["submitted"], &case["committed"]), (&190.into(), &190.into()), "{result}");
    assert_eq!((&case["refused"], &case["unknown"]), (&0.into(), &0.into()), "{result}");
    assert_eq!(case["published"]["rust"]["p50_ms"], 3.38, "{result}");
    assert!(result["published_on"].as_str().unwrap().contains("64-core"), "{result}");
    assert!(result["floor"]["stream_mb_per_s"].as_f64().unwrap() > 1.0, "{result}");
}

#[test]
fn bench_engine_looks_for_the_peak() {
    let _turn = turn();
    let (result, case) =
        bench_engine("engine-peak", &["--seconds", "1", "--bytes", "40", "--partitions", "2"]);
    assert!(case["window"].as_u64().unwrap() > 0 && case["offered_per_s"].is_null(), "{result}");
    assert!(case["per_s"].as_f64().unwrap() > 10.0, "{result}");
    assert_eq!(case["submitted"], case["committed"], "{result}");
}

/// The whole log is there before the first record, and it is large enough for what comes.
#[test]
fn bench_engine_makes_the_logs_ahead() {
    let _turn = turn();
    let made = ["--seconds", "1", "--bytes", "5000", "--rate", "100", "--made-ahead", "192"];
    let (result, case) = bench_engine("engine-made", &made);
    assert_eq!((&case["submitted"], &case["committed"]), (&100.into(), &100.into()), "{result}");
}

#[test]
fn bench_engine_tells_the_outage_of_a_killed_leader() {
    let _turn = turn();
    let kill = ["--seconds", "3", "--kill-at", "1", "--bytes", "5000", "--partitions", "2", "--rate", "1000"];
    let (result, case) = bench_engine("engine-kill", &kill);
    let [submitted, committed, refused, unknown] =
        ["submitted", "committed", "refused", "unknown"].map(|name| case[name].as_u64().unwrap());
    // Each has one end, and most of those after the kill are committed too.
    assert_eq!((submitted, committed + refused + unknown), (3000, 3000), "{result}");
    assert!(committed > 2000, "{result}");
    let outages = case["outage_ms"].as_array().unwrap();
    assert!(outages.len() == 1 && outages[0].as_f64().unwrap() > 0.0, "{result}");
    // Coordinated omission would hide it: the records due meanwhile have waited that long.
    let longest_ms = case["latency_us"]["max"].as_f64().unwrap() / 1000.0;
    assert!(longest_ms > outages[0].as_f64().unwrap() / 2.0, "{result}");
}

#[test]
fn bench_flat_tells_memory_and_latency_of_each_tenth() {
    let _turn = turn();
    let within = Within::new("flat");
    let directory = within.0.display().to_string();
    let asked = ["bench", "flat", "--json", "--seconds", "2", "--rate", "500", "--dir", &directory];
    let result = json(&exits(0, &asked));
    let parts = result["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 10, "{result}");
    let committed = parts.iter().map(|part| part["committed"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(committed, 1000, "{result}");
    for resident in parts.iter().map(|part| &part["resident_kib"]).chain([&result["resident_kib_warm"]]) {
        let nodes = resident.as_array().unwrap();
        assert!(nodes.len() == 3 && nodes.iter().all(|kib| kib.as_u64() > Some(1000)), "{result}");
    }
    assert_figures(&parts[9]["commit_us"]);
}
