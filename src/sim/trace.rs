//! The last things that each node did, kept as they are and put into words only when somebody wants to read them.

use std::collections::VecDeque;

use super::plan::Fault;
use crate::raft::{Change, Message};
use crate::types::{Index, NodeId, ShardId, WriteSequence};

/// How many notes are kept per node.
const NOTES_MAX: usize = 48;

/// Something worth a line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    Sent {
        to: NodeId,
        shard: ShardId,
        message: Message,
        lost: bool,
    },
    Changed {
        shard: ShardId,
        change: Change,
    },
    Committed {
        shard: ShardId,
        index: Index,
    },
    Written {
        sequence: WriteSequence,
    },
    Started {
        life: u32,
    },
    /// It stopped, and why.
    Stopped {
        why: &'static str,
    },
    Struck {
        fault: Fault,
    },
    /// The world as a whole: what phase begins.
    Phase {
        name: &'static str,
    },
}

/// The notes of all nodes.
pub(super) struct Trace {
    nodes: Vec<VecDeque<(u64, Note)>>,
    verbose: bool,
}

impl Trace {
    pub(super) fn new(nodes: usize, verbose: bool) -> Trace {
        Trace { nodes: vec![VecDeque::with_capacity(NOTES_MAX); nodes], verbose }
    }

    pub(super) fn add(&mut self, now_ns: u64, node: usize, note: Note) {
        if self.verbose {
            println!("{}", line(now_ns, node, &note));
        }
        let notes = &mut self.nodes[node];
        if notes.len() == NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back((now_ns, note));
    }

    /// All notes, node by node.
    pub(super) fn lines(&self) -> Vec<String> {
        let notes = self.nodes.iter().enumerate();
        notes.flat_map(|(node, notes)| notes.iter().map(move |(at, note)| line(*at, node, note))).collect()
    }
}

fn line(now_ns: u64, node: usize, note: &Note) -> String {
    let what = match note {
        Note::Sent { to, shard, message, lost } => {
            let lost = if *lost { " (lost)" } else { "" };
            format!("shard {shard} to {to}: {message:?}{lost}")
        }
        Note::Changed { shard, change } => {
            format!("shard {shard} is {:?} in term {}, leader {:?}", change.role, change.term, change.leader)
        }
        Note::Committed { shard, index } => format!("shard {shard} has committed {index}"),
        Note::Written { sequence } => format!("write {sequence} is durable"),
        Note::Started { life } => format!("started, life {life}"),
        Note::Stopped { why } => format!("stopped: {why}"),
        Note::Struck { fault } => format!("struck by {fault:?}"),
        Note::Phase { name } => format!("phase: {name}"),
    };
    format!("{:>14.6} s  node {}  {what}", now_ns as f64 / 1e9, node + 1)
}
