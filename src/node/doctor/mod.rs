//! What this machine can do for a node, and what to do about what it cannot. Nothing is changed: what is measured is
//! written to a file without a name, or is on the device already.
//!
//! A finding is *ok*, *could be better* (the node runs, and slower or less steadily than it might) or *missing*
//! (something that it could use is not there). None of that is wrong by itself. What a configuration cannot do without
//! is told apart: [`Report::unmet`].

mod kernel;
mod machine;
mod network;
mod processor;
mod storage;
#[cfg(test)]
mod tests;

use core::fmt;

use serde::Serialize;

use self::machine::Machine;
use super::config::Config;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Standing {
    /// As it should be.
    #[serde(rename = "ok")]
    Ok,
    /// A node runs, but not as well as it could.
    #[serde(rename = "could be better")]
    Better,
    /// Not there. A node does without, or takes another way.
    #[serde(rename = "missing")]
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: one word or two, the same on every machine.
    pub topic: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found, in words and figures.
    pub found: String,
    /// What to do about it: a command, or where to say it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order in which they are best read.
    pub findings: Vec<Finding>,
    /// What the configuration needs and does not have here, a line each. Empty without a configuration.
    pub unmet: Vec<String>,
}

/// Looks at this machine, with the eyes of a configuration if one is given. Takes about a second for each disk.
pub fn examine(config: Option<&Config>) -> Report {
    let machine = Machine::this();
    let mut report = Report::default();
    kernel::examine(&machine, config, &mut report);
    processor::examine(&machine, config, &mut report);
    storage::examine(&machine, config, &mut report);
    network::examine(&machine, config, &mut report);
    if let Some(config) = config
        && let Err(error) = config.check()
    {
        report.unmet.push(error.to_string());
    }
    report
}

impl Report {
    fn ok(&mut self, topic: &'static str, found: impl Into<String>) {
        self.findings.push(Finding { topic, standing: Standing::Ok, found: found.into(), advice: None });
    }

    fn better(&mut self, topic: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        let (found, advice) = (found.into(), Some(advice.into()));
        self.findings.push(Finding { topic, standing: Standing::Better, found, advice });
    }

    fn missing(&mut self, topic: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        let (found, advice) = (found.into(), Some(advice.into()));
        self.findings.push(Finding { topic, standing: Standing::Missing, found, advice });
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Standing::Ok => "ok",
            Standing::Better => "could be better",
            Standing::Missing => "missing",
        })
    }
}
