#![allow(clippy::unwrap_used)]

use super::plan::graphs_of_three;
use super::{Bounds, Run, Telling, explore, fuzz, run, shrink};

fn clean(seed: u64, bounds: &Bounds) -> Run {
    let run = run(seed, bounds, Telling::default());
    assert_eq!(run.violation, None, "seed {seed} with {bounds:?}\n{}", run.trace.join("\n"));
    run
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 15] {
        let (first, second) = (clean(seed, &Bounds::default()), clean(seed, &Bounds::default()));
        assert_eq!(
            (first.hash, first.counts, first.simulated_ns),
            (second.hash, second.counts, second.simulated_ns)
        );
        assert_ne!(first.hash, clean(seed + 100, &Bounds::default()).hash);
    }
}

#[test]
fn telling_changes_nothing() {
    let quiet = run(7, &Bounds::default(), Telling::default());
    let told = run(7, &Bounds::default(), Telling { history: true, ..Telling::default() });
    assert_eq!(quiet.hash, told.hash);
    let writes = told.history.iter().filter(|line| line.contains(r#""op":"write""#)).count();
    assert!(writes > 50, "{writes} writes");
    assert!(told.history.iter().all(|line| line.starts_with(r#"{"client":"#) && line.ends_with('}')));
}

#[test]
fn every_graph_of_three_nodes_with_a_whole_majority_serves() {
    let graphs: Vec<u64> = graphs_of_three().collect();
    assert_eq!(graphs.len(), 64);
    for graph in graphs {
        let bounds = Bounds { graph: Some(graph), nodes: Some(3), horizon_ns: Some(1), ..Bounds::default() };
        let run = clean(graph, &bounds);
        assert!(run.counts.commits > 0, "graph {graph:09b}");
    }
}

#[test]
fn some_seeds_are_clean_and_see_something() {
    let runs: Vec<Run> = (0..40).map(|seed| clean(seed, &Bounds::default())).collect();
    let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
    assert!(sum(|run| run.counts.commits) > 5_000);
    assert!(sum(|run| run.counts.elections) > 200);
    assert!(sum(|run| run.counts.crashes) > 100);
    assert!(sum(|run| run.counts.index_reads) > 1_000);
    assert!(sum(|run| run.counts.datagrams) > 50_000);
    assert!(sum(|run| run.counts.repaired) > 20);
    assert!(sum(|run| run.counts.sessions) > 100);
    assert!(sum(|run| run.counts.replayed) > 1_000);
    assert!(sum(|run| run.counts.dead) > 20);
    assert!(sum(|run| run.counts.epochs) > 20);
    assert!(sum(|run| run.counts.deaths) > 20);
    assert!(sum(|run| run.counts.cuts) > 5);
}

#[test]
fn every_short_course_of_a_small_cluster_is_right() {
    let explored = explore::explore(4).unwrap();
    assert!(explored.states > 5_000, "{explored:?}");
    assert!(explored.led > 0, "{explored:?}");
}

#[test]
fn shrinking_keeps_what_is_needed_and_drops_the_rest() {
    let needed = 1 << super::plan::Fault::Kill as u8;
    let fails = |bounds: &Bounds| {
        bounds.without & needed == 0 && bounds.horizon_ns.is_none_or(|most| most > 1_000_000)
    };
    let best = shrink::shrink(1, &Bounds::default(), fails);
    assert_eq!(best.without.count_ones() as usize, super::plan::FAULTS.len() - 1);
    assert_eq!((best.clients_max, best.calm_network), (Some(1), true));
    assert!(best.horizon_ns.unwrap() < 100_000_000);
    assert_eq!(shrink::from_word(&shrink::to_word(&best)), Some(best));
}

#[test]
fn fuzz_targets_take_whatever_comes() {
    let targets = [
        fuzz::Target::Wire,
        fuzz::Target::Log,
        fuzz::Target::Raft,
        fuzz::Target::Datagram,
        fuzz::Target::DatagramLink,
    ];
    for target in targets {
        let mut random = super::random::Random::new(9);
        let mut fuzzer = fuzz::Fuzzer::new(target, Vec::new());
        let attempts = match target {
            fuzz::Target::Log => 200,
            fuzz::Target::DatagramLink => 1_000,
            _ => 20_000,
        };
        for _ in 0..attempts {
            let input = fuzzer.next(&mut random);
            fuzzer.attempt(&input);
        }
        assert!(fuzzer.accepted > 10, "{target:?} accepted {}", fuzzer.accepted);
    }
}
