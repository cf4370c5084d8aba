//! The Prometheus text exposition format, version 0.0.4.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use super::Family;
use super::cells::{Told, write_label};
use super::families::{Description, Kind};

/// What the answer's Content-Type says.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One figure: a line of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    pub(super) family: Family,
    /// As they stand between the braces.
    pub(super) labels: Cow<'a, str>,
    pub(super) value: u64,
}

/// Figures that are walked by the thread that writes the text.
#[derive(Debug, Default)]
pub(super) struct Collected(pub(super) Vec<Sample<'static>>);

impl Told for Collected {
    fn put(&mut self, family: Family, labels: &[(&'static str, &dyn Display)], value: u64) {
        let mut text = String::new();
        for (at, (name, label)) in labels.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            write_label(&mut text, name, label);
        }
        self.0.push(Sample { family, labels: text.into(), value });
    }
}

/// The text. Families in their own order, as the format wants it: all lines of one together; the lines of a family in
/// the order in which they were given.
pub(super) fn render(mut samples: Vec<Sample<'_>>) -> String {
    samples.sort_by_key(|sample| sample.family);
    let mut text = String::with_capacity(samples.len() * 96);
    let mut before = None;
    for Sample { family, labels, value } in samples {
        let Description { name, kind, help } = family.description();
        if before.replace(family) != Some(family) {
            let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        text.push_str(name);
        if !labels.is_empty() {
            let _ = write!(text, "{{{labels}}}");
        }
        let _ = match kind {
            Kind::Seconds => writeln!(text, " {}.{:09}", value / 1_000_000_000, value % 1_000_000_000),
            Kind::Counter | Kind::Gauge => writeln!(text, " {value}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together_and_labels_are_escaped() {
        let mut collected = Collected::default();
        let name = "a \"quoted\" \\ name\nof two lines";
        collected.put(Family::LogWrites, &[("lane", &0)], 7);
        collected.put(Family::NodeInfo, &[("cluster", &name), ("node", &2)], 1);
        collected.put(Family::TurnLongest, &[], 1_000_020_003);
        collected.put(Family::LogWrites, &[("lane", &1)], u64::MAX);
        let expected = "\
# HELP plimsoll_node_info Always 1: which node of which cluster this is, and of which version.
# TYPE plimsoll_node_info gauge
plimsoll_node_info{cluster=\"a \\\"quoted\\\" \\\\ name\\nof two lines\",node=\"2\"} 1
# HELP plimsoll_turn_longest_seconds The longest turn that found something to do since the node started.
# TYPE plimsoll_turn_longest_seconds gauge
plimsoll_turn_longest_seconds 1.000020003
# HELP plimsoll_log_writes_total Writes to the log that were started.
# TYPE plimsoll_log_writes_total counter
plimsoll_log_writes_total{lane=\"0\"} 7
plimsoll_log_writes_total{lane=\"1\"} 18446744073709551615
";
        assert_eq!(render(collected.0), expected);
        assert_eq!(render(Vec::new()), "");
    }
}
