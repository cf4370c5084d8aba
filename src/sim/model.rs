//! The protocol alone, with a log that is nothing but terms: for the explorer and for the fuzzer, which need it small
//! and cloned often. What `shard` does with a lane's log is done here with two vectors.

use core::time::Duration;
use std::collections::VecDeque;

use crate::limits::RECORD_HEADER_BYTES;
use crate::raft::effects::{Entries, Span};
use crate::raft::{COMMIT_NOTICE, Effects, Input, Message, Options, Raft, Recovered};
use crate::types::{Durable, EntryId, Flushed, Index, NodeId, Term, Time, Vote, WriteSequence};

/// The election timeout of every model.
pub(super) const ELECTION: Duration = Duration::from_millis(300);

/// A write under way: what it brings to the disk, and what may be told when it is there.
#[derive(Clone, Debug)]
struct Write {
    vote: Option<Vote>,
    /// All of the log, as it was when this was written.
    log: Vec<Term>,
    /// The last of its entries that still stands.
    last: Option<EntryId>,
}

/// One node: the protocol, its log, its disk.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) raft: Raft,
    id: usize,
    nodes: usize,
    pub(super) now: Time,
    log: Vec<Term>,
    writes: VecDeque<Write>,
    disk: (Vote, Vec<Term>),
}

/// The term at an index of a log that is nothing but terms.
fn entry(log: &[Term]) -> EntryId {
    log.last().map_or(EntryId::default(), |&term| EntryId { term, index: Index(log.len() as u64) })
}

struct Terms<'a>(&'a [Term]);

impl Entries for Terms<'_> {
    fn span(&mut self, from: Index, bytes_max: usize) -> Span {
        let rest = &self.0[from.0 as usize - 1..];
        let room = bytes_max / RECORD_HEADER_BYTES;
        let count = rest.iter().take_while(|&&term| term == rest[0]).take(room).count();
        Span::Ready { count: count as u32, bytes: count * RECORD_HEADER_BYTES }
    }
}

impl Node {
    pub(super) fn new(id: usize, nodes: usize) -> Node {
        let raft = start(id, nodes, &(Vote::default(), Vec::new()), Time(0));
        Node {
            raft,
            id,
            nodes,
            now: Time(0),
            log: Vec::new(),
            writes: VecDeque::new(),
            disk: Default::default(),
        }
    }

    /// Something happens; what comes of it is laid, and what is to be sent is returned.
    pub(super) fn step(&mut self, input: Input) -> Vec<(NodeId, Message)> {
        let mut effects = Effects::default();
        self.raft.step(self.now, input, &mut effects);
        let entries_term = match input {
            Input::Peer { message: Message::Append { entries_term, .. }, .. } => entries_term,
            _ => Term(0),
        };
        self.carry_out(&mut effects, entries_term);
        self.raft.replicate(self.now, &mut Terms(&self.log), &mut effects);
        effects.messages
    }

    /// A record is submitted.
    pub(super) fn propose(&mut self) -> Vec<(NodeId, Message)> {
        let mut effects = Effects::default();
        if let Ok(id) = self.raft.propose() {
            self.lay(id);
            self.raft.replicate(self.now, &mut Terms(&self.log), &mut effects);
        }
        effects.messages
    }

    /// The time of the next timer comes.
    pub(super) fn time_out(&mut self) -> Vec<(NodeId, Message)> {
        self.now = self.now.max(self.raft.next_wake());
        self.step(Input::Tick)
    }

    pub(super) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The oldest write is on the disk.
    pub(super) fn write_done(&mut self) -> Vec<(NodeId, Message)> {
        let Some(write) = self.writes.pop_front() else { return Vec::new() };
        let proof = Flushed::by_disk(WriteSequence(1));
        let mut messages = Vec::new();
        self.disk.1.clone_from(&write.log);
        if let Some(vote) = write.vote {
            self.disk.0 = vote;
            messages.extend(self.step(Input::DurableVote(Durable::covered_by(&proof, vote))));
        }
        if let Some(last) = write.last {
            messages.extend(self.step(Input::DurableLog(Durable::covered_by(&proof, last))));
        }
        messages
    }

    /// The process ends, and begins anew on what its disk holds, `kept` of the writes under way among it.
    pub(super) fn crash(&mut self, kept: usize) {
        for write in self.writes.drain(..).take(kept) {
            self.disk.0 = write.vote.unwrap_or(self.disk.0);
            self.disk.1 = write.log;
        }
        self.log.clone_from(&self.disk.1);
        self.raft = start(self.id, self.nodes, &self.disk, self.now);
    }

    /// The term of each entry up to the commit index.
    pub(super) fn committed(&self) -> &[Term] {
        &self.log[..self.raft.commit().0 as usize]
    }

    pub(super) fn log(&self) -> &[Term] {
        &self.log
    }

    fn carry_out(&mut self, effects: &mut Effects, entries_term: Term) {
        if let Some(vote) = effects.vote.take() {
            let log = self.log.clone();
            self.writes.push_back(Write { vote: Some(vote), log, last: None });
        }
        if let Some(accept) = effects.accept.take() {
            if let Some(last) = accept.truncate_after {
                self.truncate_after(last);
            }
            if accept.take > 0 {
                self.log.extend((0..accept.take).map(|_| entries_term));
                self.push_log();
            }
        }
        if let Some(id) = effects.noop.take() {
            self.lay(id);
        }
    }

    fn lay(&mut self, id: EntryId) {
        assert_eq!(id.index.0, self.log.len() as u64 + 1, "an entry follows the last");
        self.log.push(id.term);
        self.push_log();
    }

    fn push_log(&mut self) {
        let log = self.log.clone();
        let last = Some(entry(&log));
        self.writes.push_back(Write { vote: None, log, last });
    }

    /// What is in flight of the entries that go is not told durable.
    fn truncate_after(&mut self, last: Index) {
        self.log.truncate(last.0 as usize);
        let stands = entry(&self.log);
        for write in &mut self.writes {
            if write.last.is_some_and(|id| id.index > last) {
                write.last = (stands.index > Index::ZERO).then_some(stands);
            }
        }
    }
}

fn start(id: usize, nodes: usize, disk: &(Vote, Vec<Term>), now: Time) -> Raft {
    let proof = Flushed::by_disk(WriteSequence(1));
    let (vote, log) = disk;
    let mut terms: Vec<EntryId> = Vec::new();
    for (index, &term) in (1..).zip(log) {
        if terms.last().is_none_or(|last| last.term != term) {
            terms.push(EntryId { term, index: Index(index) });
        }
    }
    let options = Options {
        id: NodeId(id as u32 + 1),
        voters: (1..=nodes as u32).map(NodeId).collect(),
        election_timeout: ELECTION,
        heartbeat: ELECTION / 3,
        commit_notice: COMMIT_NOTICE,
        seed: id as u64,
    };
    let recovered = Recovered {
        vote: Durable::covered_by(&proof, *vote),
        last: Durable::covered_by(&proof, entry(log)),
        terms,
    };
    Raft::new(options, recovered, now)
}
