//! The command: a thin shell around the library.
//!
//! Exit codes: 0 all is well, 1 the job was done and its result is bad, 2 it could not be done (usage, configuration,
//! environment), with one line on standard error that says what, where, and what to do.

mod append;
mod bench;
mod common;
mod config;
mod demo;
mod doctor;
mod node;
mod read;
mod source;
mod status;
mod transfer;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::common::{Failure, Verdict};

/// Plimsoll replicates each thread's log of a transaction engine in microseconds and says up to where it is safe.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Node(node::Arguments),
    /// Append records from a file or standard input.
    Append(append::Arguments),
    /// Read the committed records of a shard from one node.
    Read(read::Arguments),
    /// Show every shard on every node.
    Status(status::Arguments),
    /// Hand a shard's leadership to another node.
    Transfer(transfer::Arguments),
    /// Start a cluster of real processes, kill its leader under load, and check that nothing was lost.
    Demo(demo::Arguments),
    /// Say what this machine can do for a node, and what to do about what it cannot. Changes nothing.
    Doctor(doctor::Arguments),
    /// Make configurations.
    #[command(subcommand)]
    Config(config::Command),
    /// Look into a node's log.
    #[command(subcommand)]
    Log(Log),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Command),
}

#[derive(Debug, Subcommand)]
enum Log {
    /// Read the logs of a data directory or a block device and say what they hold and how they end.
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Node(arguments) => node::run(&arguments),
        Command::Append(arguments) => append::run(&arguments),
        Command::Read(arguments) => read::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Transfer(arguments) => transfer::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Log(Log::Verify(arguments)) => verify::run(&arguments),
        Command::Bench(command) => bench::run(&command),
    };
    match outcome {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(Failure(what)) => {
            common::complain(&what);
            ExitCode::from(2)
        }
    }
}
