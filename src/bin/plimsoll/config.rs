//! `plimsoll config import-mako`: nodes' configurations made of Mako's YAML files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use plimsoll::node::config::mako::{Mako, Target};

use crate::common::{Failure, Verdict, complain, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a node's configuration of each locale in Mako's YAML files; partitions become shards of one cluster.
    ImportMako(Import),
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Mako's files, as they are given to it with -f
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where to write, a file for each process: PROCESS.toml. None that is there is overwritten
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// The cluster's name
    #[arg(long, value_name = "NAME", default_value = "mako")]
    cluster: String,
    /// Lanes of each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    lanes: u16,
    /// Each node keeps its log in DIR/PROCESS
    #[arg(long, value_name = "DIR", default_value = "/var/lib/plimsoll")]
    data_dir: PathBuf,
}

pub(crate) fn run(command: &Command) -> Result<Verdict, Failure> {
    let Command::ImportMako(Import { files, output, cluster, lanes, data_dir }) = command;
    let target = Target { cluster: cluster.clone(), lanes: *lanes, data_dir: data_dir.clone() };
    let converted = Mako::load(files).and_then(|mako| mako.convert(&target)).map_err(Failure::of)?;
    let path_of = |process: &str| output.join(format!("{process}.toml"));
    // Half of a cluster's files, beside older ones, would be worse than none.
    if let Some(path) = converted.nodes.iter().map(|(process, _)| path_of(process)).find(|path| path.exists())
    {
        return Err(Failure(format!("{} is there already; remove it, or give another -o", path.display())));
    }
    fs::create_dir_all(output).map_err(Failure::on(output.display()))?;
    for (process, config) in &converted.nodes {
        let path = path_of(process);
        let mut file = File::create_new(&path).map_err(Failure::on(path.display()))?;
        file.write_all(config.to_toml().as_bytes()).map_err(Failure::on(path.display()))?;
        let address = config.me().map(|me| format!("peers at {}, clients at {}", me.peer, me.client));
        say(&format!("{}: node {}, {}", path.display(), config.node, address.unwrap_or_default()));
    }
    for warning in &converted.warnings {
        complain(&format!("note: {warning}"));
    }
    Ok(Verdict::Good)
}
