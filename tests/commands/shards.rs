//! Shards and their leaders: `status` and `transfer`.

use plimsoll::local::Shape;

use crate::{cluster, exits, fed, json, refused, small, texts, turn};

#[test]
fn status_tells_of_every_shard_on_every_node() {
    let _turn = turn();
    let (mut cluster, config) = cluster("status", &Shape { shards: 2, lanes: 2, ..small(3) });
    let output = fed(b"a\nb\nc\n", &["append", "--config", &config, "--shard", "1"]);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));

    let status = json(&exits(0, &["status", "--config", &config, "--json"]));
    let rows = status["shards"].as_array().unwrap();
    let places: Vec<_> = rows.iter().map(|row| (row["shard"].as_u64(), row["node"].as_u64())).collect();
    let expected: Vec<_> =
        (0..2).flat_map(|shard| (1..=3).map(move |node| (Some(shard), Some(node)))).collect();
    assert_eq!(places, expected);
    for shard in rows.chunks(3) {
        let leaders: Vec<_> = shard.iter().filter(|row| row["role"] == "leader").collect();
        assert_eq!(leaders.len(), 1, "{shard:?}");
        assert_eq!(leaders[0]["leader"], leaders[0]["node"]);
        for row in shard {
            assert_eq!((&row["term"], &row["leader"]), (&leaders[0]["term"], &leaders[0]["leader"]));
            assert!(row["role"] == "leader" || row["role"] == "follower", "{row}");
            assert!(row["elections"].as_u64() >= Some(1), "{row}");
            assert!(row["durable"].as_u64() <= row["last_index"].as_u64(), "{row}");
            assert!(row["commit"].as_u64() <= leaders[0]["commit"].as_u64(), "{row}");
        }
        let entries = if leaders[0]["shard"] == 1 { 4 } else { 1 };
        assert_eq!((&leaders[0]["last_index"], &leaders[0]["commit"]), (&entries.into(), &entries.into()));
    }

    let table = exits(0, &["status", "--config", &config, "--shard", "1"]);
    assert_eq!(table.lines().count(), 1 + 3, "{table}");
    assert_eq!(table.matches(" leader ").count(), 1 + 1, "the column's name and one leader:\n{table}");
    assert!(refused(&["status", "--config", &config, "--shard", "2"]).contains("shard 2 does not exist"));

    // A node that is down is a row; without a majority a shard is not well.
    let leader = cluster.await_leaders().unwrap()[0];
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let asked = ["status", "--config", &config, "--shard", "0", "--json", "--timeout", "1"];
    for (code, node) in [(0, others[0]), (1, others[1])] {
        cluster.kill(node).unwrap();
        let status = json(&exits(code, &asked));
        let error = |id: plimsoll::types::NodeId| status["shards"][id.0 as usize - 1]["error"].as_str();
        assert!(error(node).unwrap().contains(&format!("node {node} at ")), "{status}");
        assert_eq!(error(leader), None, "{status}");
    }
}

#[test]
fn transfer_moves_the_leader() {
    let _turn = turn();
    let (mut cluster, config) = cluster("transfer", &small(3));
    let from = cluster.await_leaders().unwrap()[0];
    for to in cluster.ids().into_iter().filter(|id| *id != from).chain([from]) {
        let said = exits(0, &["transfer", "--config", &config, "--shard", "0", "--to", &to.to_string()]);
        assert!(said.contains(&format!("handed shard 0 to node {to}")), "{said}");
        let status = json(&exits(0, &["status", "--config", &config, "--json"]));
        assert_eq!(status["shards"][to.0 as usize - 1]["role"], "leader", "{status}");
    }
    let said = exits(0, &["transfer", "--config", &config, "--shard", "0", "--to", &from.to_string()]);
    assert!(said.contains("already"), "{said}");
    assert!(refused(&["transfer", "--config", &config, "--shard", "0", "--to", "8"]).contains("node 8"));
    assert!(refused(&["transfer", "--config", &config, "--shard", "5", "--to", "1"]).contains("shard 5"));
}
