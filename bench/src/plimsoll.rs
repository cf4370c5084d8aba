//! Plimsoll's side: `plimsoll bench commit` of the binary beside the bench's own, as anybody would run it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::children::Process;
use crate::figures::{Cell, Figures};

const HOW_TO_BUILD: &str = "build it with: cargo build --release";

/// The binary that is measured, and its version.
pub(crate) struct Built {
    program: PathBuf,
    pub(crate) version: String,
}

/// The sibling of the bench's own executable. Under `cargo run` it is brought up to date first, so that no stale
/// build is measured.
pub(crate) fn find() -> Result<Built, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("where is the bench's own executable? {error}"))?;
    let program = own.with_file_name("plimsoll");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "plimsoll", "--bin", "plimsoll"]);
        if own.parent().is_some_and(|parent| parent.ends_with("release")) {
            build.arg("--release");
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("cargo could not build plimsoll; {HOW_TO_BUILD}"));
        }
    }
    if !program.is_file() {
        return Err(format!("there is no {}; {HOW_TO_BUILD}", program.display()));
    }
    let output = Command::new(&program).arg("--version").output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let version =
        String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("plimsoll").trim().to_owned();
    Ok(Built { program, version })
}

/// One run with a fresh cluster below `directory`; its figures and the floor it measured beside them.
pub(crate) fn measure(
    built: &Built,
    cell: &Cell,
    seconds: u64,
    directory: &Path,
) -> Result<(Figures, Value), String> {
    let mut command = Command::new(&built.program);
    command.args(["bench", "commit", "--json", "--nodes", "3"]);
    command.args(["--bytes", &cell.bytes.to_string(), "--clients", &cell.clients.to_string()]);
    command.args(["--outstanding", &cell.outstanding.to_string(), "--seconds", &seconds.to_string()]);
    // Its nodes' directories are to lie on the disk that the other side uses.
    command.env("TMPDIR", directory);
    let process = Process::start(&mut command, "plimsoll-bench-commit", directory)?;
    let text = process.output(Duration::from_secs(seconds + 60))?;
    read(&text).ok_or_else(|| format!("plimsoll bench commit printed what is not its JSON: {}", text.trim()))
}

fn read(text: &str) -> Option<(Figures, Value)> {
    let all: Value = serde_json::from_str(text).ok()?;
    let us = |name: &str| all["commit_us"][name].as_f64();
    let figures = Figures {
        ops_per_s: all["ops_per_s"].as_f64()?,
        p50_us: us("p50")?,
        p99_us: us("p99")?,
        p999_us: us("p999")?,
        max_us: us("max")?,
    };
    Some((figures, all["floor"].clone()))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_json_of_bench_commit_is_read() {
        let text = r#"{"ops_per_s": 4000.5, "commit_us": {"p50": 210, "p90": 300, "p99": 351.5, "p999": 493, "max": 900},
            "floor": {"disk_us": {"p50": 79}, "udp_rtt_us": {"p50": 5.3}}}"#;
        let Some((figures, floor)) = read(text) else { panic!("not read") };
        assert_eq!((figures.ops_per_s, figures.p50_us, figures.p999_us), (4000.5, 210.0, 493.0));
        assert_eq!(floor["disk_us"]["p50"], 79);
        assert!(read(r#"{"ops_per_s": 4000.5}"#).is_none());
        assert!(read("no leader").is_none());
    }
}
