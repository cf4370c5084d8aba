//! `plimsoll transfer`: hands a shard's leadership over, and waits until it has arrived.

use std::time::{Duration, Instant};

use clap::Args;
use plimsoll::client::{ClientError, Outcome};
use plimsoll::raft::Role;
use plimsoll::types::{NodeId, ShardId};

use crate::common::{Failure, Target, Verdict, complain, say};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Which shard
    #[arg(long)]
    shard: u32,
    /// The node that is to lead it
    #[arg(long, value_name = "ID")]
    to: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let (mut client, options) = arguments.target.connect()?;
    let (shard, to) = (ShardId(arguments.shard), NodeId(arguments.to));
    let until = Instant::now() + options.deadline;
    let leads = |client: &mut plimsoll::client::Client| {
        client.status(to, shard, Duration::from_millis(500)).is_ok_and(|status| status.role == Role::Leader)
    };
    if leads(&mut client) {
        say(&format!("node {to} leads shard {shard} already"));
        return Ok(Verdict::Good);
    }
    let from = match client.transfer(shard, to, options.deadline) {
        Err(ClientError::Declined { node, outcome: Outcome::Busy }) => {
            complain(&format!(
                "node {node}, which leads shard {shard}, does not hear node {to}: is that running? see status"
            ));
            return Ok(Verdict::Bad);
        }
        from => from?,
    };
    while Instant::now() < until {
        if leads(&mut client) {
            say(&format!("node {from} handed shard {shard} to node {to}"));
            return Ok(Verdict::Good);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    complain(&format!(
        "node {to} does not lead shard {shard} after {:?}; it may be down or behind: see status",
        options.deadline
    ));
    Ok(Verdict::Bad)
}
