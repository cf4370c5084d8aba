//! `plimsoll node`: one node, until it is told to stop or its disk fails.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;
use plimsoll::node::Node;
use plimsoll::node::config::Config;

use crate::common::{Failure, Verdict};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Never block: each lane polls its core without end
    #[arg(long)]
    busy_poll: bool,
    /// Format the block devices of log.device that hold something else: whatever is on them is lost. Refused once this
    /// node's log was made; without effect if it is there
    #[arg(long)]
    format: bool,
    /// End when the process that started it ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    if arguments.with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(Failure::on("asking to end with the parent"))?;
    }
    let mut config = Config::load(&arguments.config).map_err(Failure::of)?;
    config.cpu.busy_poll |= arguments.busy_poll;
    // Signals are caught before the node starts, so that one that comes early still ends it in good order.
    let mut signals = signals()?;
    let name = format!("node {} of cluster {}", config.node, config.cluster);
    let start = if arguments.format { Node::format_and_start } else { Node::start };
    let node = start(config).map_err(Failure::of)?;
    let stopper = node.stopper();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.read_exact(&mut [0]).is_ok() {
                stopper.stop();
            }
        })
        .map_err(Failure::on("starting a thread for signals"))?;
    node.wait().map_err(Failure::on(format!("{name} has stopped")))?;
    Ok(Verdict::Good)
}

fn signals() -> Result<UnixStream, Failure> {
    let (reader, writer) = UnixStream::pair().map_err(Failure::on("listening for signals"))?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let writer = writer.try_clone().map_err(Failure::on("listening for signals"))?;
        signal_hook::low_level::pipe::register(signal, writer)
            .map_err(Failure::on("listening for signals"))?;
    }
    Ok(reader)
}
