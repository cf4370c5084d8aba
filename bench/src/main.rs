//! Plimsoll measured beside its peers, in one run on one machine and one disk.
//!
//! ```text
//! cargo run --release -p plimsoll-bench -- peers [--seconds S] [--rounds R] [--json FILE|-]
//! ```

mod children;
mod etcd;
mod figures;
mod grpc;
mod peers;
mod plimsoll;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "plimsoll-bench", version, about = "Plimsoll measured beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three processes of Plimsoll, then three of etcd, in turn: commit latency and commits per second
    Peers(peers::Options),
}

fn main() -> ExitCode {
    let Command::Peers(options) = Arguments::parse().command;
    match children::watch_signals().and_then(|()| peers::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("plimsoll-bench: {what}");
            ExitCode::from(2)
        }
    }
}
