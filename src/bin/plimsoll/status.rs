//! `plimsoll status`: every shard on every node, in one table.

use clap::Args;
use plimsoll::client::ClientError;
use plimsoll::types::{NodeId, ShardId};
use plimsoll::wire::client::ShardStatus;
use serde_json::json;

use crate::common::{Failure, Target, Verdict, say};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// This shard only
    #[arg(long)]
    shard: Option<u32>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

type Row = (NodeId, ShardId, Result<ShardStatus, ClientError>);

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let (mut client, options) = arguments.target.connect()?;
    let shards = match arguments.shard {
        Some(shard) if shard >= client.shards() => {
            return Err(ClientError::NoSuchShard { shard: ShardId(shard), shards: client.shards() }.into());
        }
        Some(shard) => shard..shard + 1,
        None => 0..client.shards(),
    };
    let mut rows: Vec<Row> = Vec::new();
    for (node, _) in &options.members {
        for shard in shards.clone().map(ShardId) {
            rows.push((*node, shard, client.status(*node, shard, options.deadline)));
        }
    }
    rows.sort_by_key(|(node, shard, _)| (*shard, *node));
    say(&if arguments.json { as_json(&rows) } else { as_table(&rows) });
    // A shard is well if a leader is there and a majority answers.
    let well = shards.map(ShardId).all(|shard| {
        let of_shard = || rows.iter().filter(|(_, of, _)| *of == shard);
        let answering = of_shard().filter_map(|(_, _, status)| status.as_ref().ok());
        let leads = |status: &ShardStatus| status.role == plimsoll::raft::Role::Leader;
        2 * answering.clone().count() > of_shard().count() && answering.into_iter().any(leads)
    });
    Ok(if well { Verdict::Good } else { Verdict::Bad })
}

fn as_json(rows: &[Row]) -> String {
    let rows = rows.iter().map(|(node, shard, status)| match status {
        Ok(status) => json!({
            "node": node.0, "shard": shard.0, "role": format!("{:?}", status.role).to_lowercase(),
            "term": status.term.0, "leader": status.leader.map(|leader| leader.0),
            "last_index": status.last.index.0, "last_term": status.last.term.0,
            "commit": status.commit.0, "durable": status.durable.0, "elections": status.elections,
        }),
        Err(error) => json!({ "node": node.0, "shard": shard.0, "error": error.to_string() }),
    });
    json!({ "shards": rows.collect::<Vec<_>>() }).to_string()
}

fn as_table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:>6} {:>6} {:<13} {:>6} {:>7} {:>12} {:>12} {:>12} {:>10}",
        "shard", "node", "role", "term", "leader", "last", "durable", "commit", "elections"
    );
    for (node, shard, status) in rows {
        table += &match status {
            Ok(status) => format!(
                "\n{shard:>6} {node:>6} {:<13} {:>6} {:>7} {:>12} {:>12} {:>12} {:>10}",
                format!("{:?}", status.role).to_lowercase(),
                status.term,
                status.leader.map_or("-".to_owned(), |leader| leader.to_string()),
                status.last.index,
                status.durable,
                status.commit,
                status.elections
            ),
            Err(error) => format!("\n{shard:>6} {node:>6} {error}"),
        };
    }
    table
}
