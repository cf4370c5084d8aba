//! `plimsoll doctor`: what this machine can do, and what to do about what it cannot.

use std::path::PathBuf;

use clap::Args;
use plimsoll::node::config::Config;
use plimsoll::node::doctor::{Report, examine};

use crate::common::{Failure, Verdict, say};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration of the node that shall run here: then what it needs and does not have is told, and the exit
    /// code is 1
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let config = arguments.config.as_deref().map(Config::load).transpose().map_err(Failure::of)?;
    let report = examine(config.as_ref());
    if arguments.json {
        say(&serde_json::to_string_pretty(&report).map_err(Failure::of)?);
    } else {
        tell(&report, config.is_some());
    }
    Ok(if report.unmet.is_empty() { Verdict::Good } else { Verdict::Bad })
}

fn tell(report: &Report, is_configured: bool) {
    let width = report.findings.iter().map(|finding| finding.topic.chars().count()).max().unwrap_or(0);
    for finding in &report.findings {
        say(&format!("{:<15}  {:<width$}  {}", finding.standing, finding.topic, finding.found));
        if let Some(advice) = &finding.advice {
            say(&format!("{:<15}  {:<width$}  do: {advice}", "", ""));
        }
    }
    for unmet in &report.unmet {
        say(&format!("NOT MET          {unmet}"));
    }
    if is_configured && report.unmet.is_empty() {
        say("all that the configuration needs is here");
    }
}
