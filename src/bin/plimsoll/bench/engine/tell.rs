//! The table and the JSON: ours, the median of the trials, beside what was published on other hardware.

use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, LARGE_BYTES, PUBLISHED_ON, Pace, Published};
use super::trial::Trial;
use crate::common::{figures, say};

const BAR: &str = "--------------------------------------------------------------------------";

/// A case and what its trials have shown.
pub(super) struct Row {
    pub(super) case: Case,
    /// Under way in each partition, where a search found it.
    pub(super) window: Option<usize>,
    pub(super) trials: Vec<Trial>,
    /// For the size that they were measured for.
    pub(super) floors: Option<Floors>,
}

/// What the machine moves without Plimsoll, in this run.
#[derive(Clone, Copy)]
pub(super) struct Floors {
    /// A plain stream to two receivers.
    pub(super) stream_bytes_per_s: f64,
    /// Three plain logs on the cluster's disk, each of them.
    pub(super) logs_bytes_per_s: f64,
}

impl Row {
    pub(super) fn is_good(&self) -> bool {
        self.trials.iter().all(|trial| trial.findings.are_good() && trial.committed > 0)
    }

    fn per_second(&self) -> f64 {
        median(self.trials.iter().map(|trial| trial.per_second))
    }

    fn bytes_per_s(&self) -> f64 {
        self.per_second() * f64::from(self.case.bytes)
    }

    /// Each figure's median over the trials, in microseconds.
    fn figures(&self) -> [(&'static str, f64); 5] {
        let all: Vec<_> = self.trials.iter().map(|trial| figures(&trial.latencies)).collect();
        core::array::from_fn(|at| (all[0][at].0, median(all.iter().map(|figures| figures[at].1))))
    }

    fn sum(&self, count: impl Fn(&Trial) -> u64) -> u64 {
        self.trials.iter().map(count).sum()
    }

    fn outages_ms(&self) -> Vec<f64> {
        self.trials.iter().filter_map(|trial| trial.outage).map(millis).collect()
    }

    /// What was moved, as shares of what a plain stream and plain logs move. At a given rate they would say nothing.
    fn shares(&self) -> Option<(f64, f64)> {
        let floors = self.floors.filter(|_| self.case.pace == Pace::Peak)?;
        let share = |floor: f64| (self.bytes_per_s() / floor * 1000.0).round() / 1000.0;
        Some((share(floors.stream_bytes_per_s), share(floors.logs_bytes_per_s)))
    }

    fn json(&self) -> Value {
        let Row { case, window, .. } = self;
        let latency: serde_json::Map<String, Value> =
            self.figures().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        json!({
            "name": case.name,
            "bytes": case.bytes,
            "partitions": case.partitions,
            "offered_per_s": match case.pace { Pace::PerSecond(rate) => Some(rate), Pace::Peak => None },
            "window": window,
            "per_s": self.per_second(),
            "trials_per_s": self.trials.iter().map(|trial| trial.per_second).collect::<Vec<_>>(),
            "mb_per_s": self.bytes_per_s() / 1e6,
            "share_of_stream": self.shares().map(|(of_stream, _)| of_stream),
            "share_of_logs": self.shares().map(|(_, of_logs)| of_logs),
            "latency_us": latency,
            "submitted": self.sum(|trial| trial.submitted),
            "committed": self.sum(|trial| trial.committed),
            "refused": self.sum(|trial| trial.refused),
            "unknown": self.sum(|trial| trial.unknown),
            "gaps": self.sum(|trial| trial.findings.gaps),
            "duplicates": self.sum(|trial| trial.findings.duplicates),
            "disordered": self.sum(|trial| trial.findings.disordered),
            "damaged": self.sum(|trial| trial.findings.damaged),
            "outage_ms": self.outages_ms(),
            "published": published_json(case.published),
        })
    }

    fn say(&self) {
        let [p50, _, p99, p999, _] = self.figures().map(|(_, micros)| micros / 1000.0);
        let Row { case, .. } = self;
        say(&format!(
            "{:<12}{:>10}{:>4}{:>10}{:>10.0}{:>8.1}{p50:>9.2}{p99:>9.2}{p999:>9.2}   {}",
            case.name,
            case.bytes,
            case.partitions,
            match (case.pace, self.window) {
                (Pace::PerSecond(rate), _) => rate.to_string(),
                (Pace::Peak, window) => format!("w {}", window.unwrap_or(0)),
            },
            self.per_second(),
            self.bytes_per_s() / 1e6,
            published(case.published),
        ));
    }

    /// What there is to say below the table, only if there is something.
    fn say_more(&self) {
        let name = self.case.name;
        if let (Some((of_stream, of_logs)), Some(floors)) = (self.shares(), self.floors) {
            let [stream, logs] =
                [floors.stream_bytes_per_s, floors.logs_bytes_per_s].map(|floor| floor / 1e6);
            say(&format!(
                "{name}: {of_stream:.2} of the {stream:.0} MB/s of a plain stream to two receivers"
            ));
            say(&format!(
                "{name}: {of_logs:.2} of the {logs:.0} MB/s of each of three plain logs on that disk"
            ));
        }
        if !self.outages_ms().is_empty() {
            say(&format!("{name}: leader killed, next commit after {:?} ms", self.outages_ms()));
        }
        let (refused, unknown) = (self.sum(|trial| trial.refused), self.sum(|trial| trial.unknown));
        if refused + unknown > 0 {
            say(&format!("{name}: {refused} refused, {unknown} unknown"));
        }
        if !self.is_good() {
            let trials = self.trials.iter().map(|trial| (trial.committed, trial.findings));
            say(&format!("{name}: WRONG: {:?}", trials.collect::<Vec<_>>()));
        }
    }
}

pub(super) fn as_json(rows: &[Row], warm_up: Duration, lasting: Duration, trials: u32) {
    let floors = rows.iter().find_map(|row| row.floors);
    say(&json!({
        "protocol": { "warm_up_s": warm_up.as_secs(), "seconds": lasting.as_secs(), "trials": trials },
        "floor": {
            "stream_bytes": LARGE_BYTES,
            "stream_mb_per_s": floors.map(|floors| floors.stream_bytes_per_s / 1e6),
            "logs_mb_per_s": floors.map(|floors| floors.logs_bytes_per_s / 1e6),
        },
        "published_on": PUBLISHED_ON,
        "cases": rows.iter().map(Row::json).collect::<Vec<_>>(),
    })
    .to_string());
}

pub(super) fn as_table(rows: &[Row]) {
    say(&format!(
        "{:<12}{:>10}{:>4}{:>10}{:>10}{:>8}{:>9}{:>9}{:>9}   published: its Raft in C++; in Rust",
        "case", "bytes", "x", "offered/s", "got/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms"
    ));
    say(&format!("{BAR}{BAR}"));
    rows.iter().for_each(Row::say);
    say(&format!("{BAR}{BAR}"));
    say(
        "x: partitions; w: under way in each, for the peak. Ours: three processes and the engine's threads on this machine,",
    );
    say(
        "every commit durable on a quorum; latency from when a record was due to its completion, the median of the trials.",
    );
    say(&format!("Published on OTHER HARDWARE: {PUBLISHED_ON}. Do not compare."));
    let submitted: u64 = rows.iter().map(|row| row.sum(|trial| trial.submitted)).sum();
    let committed: u64 = rows.iter().map(|row| row.sum(|trial| trial.committed)).sum();
    let verdict =
        if rows.iter().all(Row::is_good) { "no gap, duplicate, disorder or damage" } else { "WRONG" };
    say(&format!("{submitted} submitted, {committed} committed, all read back from the leader: {verdict}"));
    rows.iter().for_each(Row::say_more);
}

fn published(published: Published) -> String {
    match published {
        Published::Nothing => String::new(),
        Published::Latency(both) => both.map(|(p50, p99)| format!("{p50}/{p99} ms")).join("; "),
        Published::Peak(both) => both.map(|per_second| format!("{per_second}/s")).join("; "),
        Published::OnePeak(per_second) => format!("{per_second}/s"),
    }
}

fn published_json(published: Published) -> Value {
    match published {
        Published::Nothing => Value::Null,
        Published::Latency(both) => {
            let [cpp, rust] = both.map(|(p50, p99)| json!({ "p50_ms": p50, "p99_ms": p99 }));
            json!({ "cpp": cpp, "rust": rust })
        }
        Published::Peak([cpp, rust]) => json!({ "cpp": { "per_s": cpp }, "rust": { "per_s": rust } }),
        Published::OnePeak(per_second) => json!({ "per_s": per_second }),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    (below + above) / 2.0
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, middle) in [(&[3.0][..], 3.0), (&[1.0, 9.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)] {
            assert!((median(values.iter().copied()) - middle).abs() < 1e-9, "{values:?}");
        }
    }
}
