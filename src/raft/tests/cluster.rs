//! A cluster in memory: nodes, their disks, the messages between them, and an oracle that watches all of it.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::*;
use crate::limits::APPEND_BYTES_MAX;

pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_millis(150);
pub(super) const HEARTBEAT: Duration = Duration::from_millis(50);

/// An entry with what tells it apart from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) term: u64,
    value: u64,
    bytes: usize,
}

/// One write under way to a disk.
#[derive(Debug)]
enum Write {
    Vote(Vote),
    Entries {
        first: u64,
        items: Vec<Item>,
        /// A truncation since took what lies beyond out of the log: it is not told.
        told_to: u64,
    },
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) raft: Option<Raft>,
    pub(super) log: Vec<Item>,
    pub(super) disk_log: Vec<Item>,
    pub(super) disk_vote: Vote,
    writes: VecDeque<Write>,
    /// How far the oracle has looked at what this node says is committed.
    committed: u64,
    lives: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: u32,
    pub(super) to: u32,
    message: Message,
    items: Vec<Item>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u32, Node>,
    pub(super) network: VecDeque<Envelope>,
    pub(super) cut: BTreeSet<(u32, u32)>,
    pub(super) now: Time,
    pub(super) trace: Option<Vec<String>>,
    pub(super) committed: Vec<Item>,
    /// For each, the lowest term in which anybody said so.
    committed_in: Vec<Term>,
    pub(super) reads_done: u64,
    pub(super) reads_refused: u64,
    pub(super) leaders: BTreeMap<u64, u32>,
    reads: BTreeMap<u64, u64>,
    values: u64,
    seed: u64,
}

struct View<'a>(&'a [Item]);

impl Entries for View<'_> {
    fn span(&mut self, from: Index, bytes_max: usize) -> Span {
        assert!(bytes_max >= crate::limits::ENTRY_BYTES_MAX && bytes_max <= APPEND_BYTES_MAX);
        let rest = &self.0[from.0 as usize - 1..];
        let (mut count, mut bytes) = (0, 0);
        for item in rest.iter().take_while(|item| item.term == rest[0].term) {
            if bytes + item.bytes > bytes_max {
                break;
            }
            count += 1;
            bytes += item.bytes;
        }
        Span::Ready { count, bytes }
    }
}

impl Cluster {
    pub(super) fn new(voters: u32, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            now: Time(0),
            trace: None,
            committed: Vec::new(),
            committed_in: Vec::new(),
            reads_done: 0,
            reads_refused: 0,
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            values: 0,
            seed,
        };
        for id in 1..=voters {
            let node = Node {
                raft: None,
                log: Vec::new(),
                disk_log: Vec::new(),
                disk_vote: Vote::default(),
                writes: VecDeque::new(),
                committed: 0,
                lives: 0,
            };
            cluster.nodes.insert(id, node);
        }
        for id in 1..=voters {
            cluster.start(id);
        }
        cluster
    }

    /// The process ends; what its disk had not confirmed is gone.
    pub(super) fn crash(&mut self, id: u32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.raft = None;
        node.writes.clear();
        node.log = node.disk_log.clone();
        node.committed = 0;
        // What was being sent may still arrive; what was on its way here meets the next life.
    }

    pub(super) fn start(&mut self, id: u32) {
        let voters = self.nodes.keys().map(|voter| NodeId(*voter)).collect();
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        node.lives += 1;
        let mut terms: Vec<EntryId> = Vec::new();
        for (at, item) in node.disk_log.iter().enumerate() {
            if terms.last().is_none_or(|run| run.term != Term(item.term)) {
                terms.push(EntryId { term: Term(item.term), index: Index(at as u64 + 1) });
            }
        }
        let options = Options {
            id: NodeId(id),
            voters,
            election_timeout: ELECTION_TIMEOUT,
            heartbeat: HEARTBEAT,
            commit_notice: COMMIT_NOTICE,
            seed: self.seed.wrapping_mul(31).wrapping_add(u64::from(id) * 1000 + node.lives),
        };
        let last = id_of(&node.disk_log, node.disk_log.len() as u64);
        let recovered =
            Recovered { vote: Durable::pretend(node.disk_vote), last: Durable::pretend(last), terms };
        node.raft = Some(Raft::new(options, recovered, now));
    }

    /// Gives a node another past: a log of these terms and a vote's term.
    pub(super) fn boot(&mut self, id: u32, terms: &[u64], vote_term: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        // Entries of the same index and term are the same.
        let items = terms.iter().enumerate();
        node.disk_log = items
            .map(|(at, term)| Item { term: *term, value: 1_000_000 * term + at as u64, bytes: 100 })
            .collect();
        node.disk_vote = Vote { term: Term(vote_term), candidate: None };
        self.crash(id);
        self.start(id);
    }

    pub(super) fn raft(&self, id: u32) -> Option<&Raft> {
        self.nodes[&id].raft.as_ref()
    }

    pub(super) fn step(&mut self, id: u32, input: Input) {
        self.step_with(id, input, &[]);
    }

    fn step_with(&mut self, id: u32, input: Input, carried: &[Item]) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &mut node.raft else { return };
        let mut effects = Effects::default();
        raft.step(now, input, &mut effects);
        self.carry_out(id, effects, carried);
    }

    /// The end of a turn.
    pub(super) fn replicate(&mut self, id: u32) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &mut node.raft else { return };
        let mut effects = Effects::default();
        raft.replicate(now, &mut View(&node.log), &mut effects);
        self.carry_out(id, effects, &[]);
    }

    pub(super) fn propose(&mut self, id: u32, bytes: usize) -> Result<EntryId, Refused> {
        self.values += 1;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &mut node.raft else { return Err(Refused::NotLeader { leader: None }) };
        let entry = raft.propose()?;
        let item = Item { term: entry.term.0, value: self.values, bytes };
        node.lay(None, &[item]);
        assert_eq!(node.log.len() as u64, entry.index.0);
        Ok(entry)
    }

    /// A read that must see everything that anybody knew as committed when it was asked for.
    pub(super) fn read(&mut self, id: u32, read: u64) {
        self.reads.insert(read, self.committed.len() as u64);
        self.step(id, Input::ReadIndex(ReadId(read)));
    }

    /// Lets the disk finish its oldest write. Whether there was one.
    pub(super) fn flush_one(&mut self, id: u32) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        match node.writes.pop_front() {
            None => return false,
            Some(Write::Vote(vote)) => {
                node.disk_vote = vote;
                self.say(format!("{id} has on disk {}", show_vote(vote)));
                self.step(id, Input::DurableVote(Durable::pretend(vote)));
            }
            Some(Write::Entries { first, items, told_to }) => {
                node.disk_log.truncate(first as usize - 1);
                node.disk_log.extend(&items);
                let told = told_to.min(node.disk_log.len() as u64);
                if told >= first {
                    let entry = id_of(&node.disk_log, told);
                    self.say(format!("{id} has on disk {entry}"));
                    self.step(id, Input::DurableLog(Durable::pretend(entry)));
                }
            }
        }
        true
    }

    /// Delivers one message, whatever became of the way it took.
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message, items } = envelope;
        if self.raft(to).is_none() {
            return;
        }
        self.say(format!("{from}->{to} arrives: {}", show(&message)));
        self.step_with(to, Input::Peer { from: NodeId(from), message }, &items);
    }

    fn carry_out(&mut self, id: u32, effects: Effects, carried: &[Item]) {
        let Effects { vote, accept, noop, messages, reads_ready, reads_refused, change } = effects;
        if let Some(Change { role, term, leader }) = change {
            let leader = leader.map_or_else(|| "nobody".into(), |leader| format!("{leader}"));
            self.say(format!("{id} is {role:?} in term {term}, leader {leader}"));
        }
        if let Some(vote) = vote {
            self.say(format!("{id} lays {}", show_vote(vote)));
            self.nodes.get_mut(&id).unwrap().writes.push_back(Write::Vote(vote));
        }
        if let Some(Accept { truncate_after, skip, take }) = accept {
            let cut = truncate_after.map_or_else(String::new, |index| format!("drops all after {index}, "));
            self.say(format!("{id} {cut}skips {skip}, lays {take}"));
            let items = &carried[skip as usize..(skip + take) as usize];
            self.nodes.get_mut(&id).unwrap().lay(truncate_after, items);
        }
        if let Some(entry) = noop {
            self.say(format!("{id} lays no-op {entry}"));
            self.values += 1;
            let item = Item { term: entry.term.0, value: self.values, bytes: 64 };
            let node = self.nodes.get_mut(&id).unwrap();
            node.lay(None, &[item]);
            assert_eq!(node.log.len() as u64, entry.index.0);
        }
        for (to, message) in messages {
            self.send(id, to.0, message);
        }
        for (ReadId(read), index) in reads_ready {
            self.say(format!("{id} may answer read {read} at {index}"));
            self.reads_done += 1;
            let known = self.reads.remove(&read).expect("a read is answered once");
            assert!(index.0 >= known, "read {read} at {index} misses {known}, known when it was asked");
        }
        for ReadId(read) in reads_refused {
            self.say(format!("{id} refuses read {read}"));
            self.reads_refused += 1;
            self.reads.remove(&read).expect("a read is answered once");
        }
        self.observe(id);
    }

    fn send(&mut self, from: u32, to: u32, message: Message) {
        let node = &self.nodes[&from];
        let items = match message {
            Message::Append { previous, count, entries_term, .. } => {
                let start = previous.index.0 as usize;
                assert_eq!(id_of(&node.log, previous.index.0), previous);
                let items = node.log[start..start + count as usize].to_vec();
                assert!(items.iter().all(|item| item.term == entries_term.0), "entries of one term");
                items
            }
            _ => Vec::new(),
        };
        // What is told rests on what is on disk.
        assert!(message.is_sane(), "{from} says {message:?}");
        match message {
            Message::Appended(ack) => {
                let matched = ack.matched().0 as usize;
                assert!(node.disk_log.len() >= matched, "{from} acknowledged {matched} before the flush");
                assert_eq!(
                    node.disk_log[..matched],
                    node.log[..matched],
                    "{from} acknowledged what is not its log"
                );
            }
            Message::VoteGranted(grant) => {
                let vote = Vote { term: grant.term(), candidate: Some(NodeId(to)) };
                assert_eq!(node.disk_vote, vote, "{from} told a vote before the flush");
            }
            Message::RequestVote { term, .. } => {
                let vote = Vote { term, candidate: Some(NodeId(from)) };
                assert_eq!(node.disk_vote, vote, "{from} stands before its own vote is flushed");
            }
            _ => {}
        }
        let proposes =
            matches!(message, Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. });
        // A proposed term promises nothing.
        assert!(
            proposes || message.term() <= node.disk_vote.term,
            "{from} says {message:?}, on disk {:?}",
            node.disk_vote
        );
        self.say(format!("  {from}->{to} {}", show(&message)));
        if self.cut.contains(&(from, to)) {
            self.say("    (cut)".into());
            return;
        }
        self.network.push_back(Envelope { from, to, message, items });
    }

    /// Checks what holds in every run, after every step.
    fn observe(&mut self, id: u32) {
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref().unwrap();
        assert_eq!(raft.last(), id_of(&node.log, node.log.len() as u64));
        assert_eq!(raft.contradictions(), 0, "nobody lies here");
        if raft.role() == Role::Leader {
            let leader = *self.leaders.entry(raft.term().0).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {}", raft.term());
            if raft.last().term == raft.term() {
                // A later leader may commit what this one has never had, while this one has not heard of it.
                let mut committed = self.committed.iter().zip(&self.committed_in).enumerate();
                assert!(
                    committed.all(|(at, (item, term))| *term > raft.term() || node.log.get(at) == Some(item)),
                    "leader {id} lacks what is committed"
                );
            }
        }
        let (before, commit) = (node.committed, raft.commit().0);
        assert!(commit >= before, "commit of {id} went back from {before} to {commit}");
        for at in before..commit {
            let item = node.log[at as usize];
            if let Some(known) = self.committed.get(at as usize) {
                assert_eq!(*known, item, "{id} commits another entry at {}", at + 1);
                let first = &mut self.committed_in[at as usize];
                *first = raft.term().min(*first);
                continue;
            }
            let holders =
                self.nodes.values().filter(|node| node.disk_log.get(at as usize) == Some(&item)).count();
            assert!(2 * holders > self.nodes.len(), "committed {} is on {holders} disks", at + 1);
            self.committed.push(item);
            self.committed_in.push(raft.term());
        }
        self.nodes.get_mut(&id).unwrap().committed = commit;
        if commit > before {
            self.say(format!("{id} commits {commit}"));
        }
    }

    /// Two logs that hold an entry of the same index and term agree up to it.
    pub(super) fn check_log_matching(&self) {
        let logs: Vec<&Vec<Item>> = self.nodes.values().map(|node| &node.log).collect();
        for (at, one) in logs.iter().enumerate() {
            for other in &logs[..at] {
                let both = one.iter().zip(other.iter());
                let same = both.clone().filter(|(a, b)| a.term == b.term).count();
                let agreed = both.take_while(|(a, b)| a == b).count();
                assert_eq!(same, agreed, "log matching");
            }
        }
    }

    /// Delivers and flushes until nothing moves. Time stands still.
    pub(super) fn stabilize(&mut self) {
        let ids: Vec<u32> = self.nodes.keys().copied().collect();
        for _ in 0..10_000 {
            let mut moved = false;
            for id in &ids {
                while self.flush_one(*id) {
                    moved = true;
                }
                self.replicate(*id);
            }
            while let Some(envelope) = self.network.pop_front() {
                moved = true;
                let to = envelope.to;
                self.deliver(envelope);
                self.replicate(to);
            }
            if !moved {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Lets time pass, step by step, with every due tick and everything delivered at once.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            self.stabilize();
            let due = self.nodes.values().filter_map(|node| node.raft.as_ref()).map(Raft::next_wake).min();
            match due.filter(|due| *due <= end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            self.tick_due();
        }
        self.now = end;
    }

    pub(super) fn tick_due(&mut self) {
        let ids: Vec<u32> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.raft(id).is_some_and(|raft| raft.next_wake() <= self.now) {
                self.say(format!("{id} ticks"));
                self.step(id, Input::Tick);
                let wake = self.raft(id).unwrap().next_wake();
                assert!(wake > self.now || self.nodes.len() == 1, "a tick that was due leaves another due");
            }
        }
    }

    pub(super) fn say(&mut self, line: String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }
}

impl Node {
    fn lay(&mut self, truncate_after: Option<Index>, items: &[Item]) {
        if let Some(index) = truncate_after {
            self.log.truncate(index.0 as usize);
            for write in &mut self.writes {
                if let Write::Entries { told_to, .. } = write {
                    *told_to = index.0.min(*told_to);
                }
            }
        }
        let first = self.log.len() as u64 + 1;
        self.log.extend(items);
        self.writes.push_back(Write::Entries { first, items: items.to_vec(), told_to: u64::MAX });
    }
}

fn id_of(log: &[Item], index: u64) -> EntryId {
    if index == 0 {
        return EntryId::default();
    }
    EntryId { term: Term(log[index as usize - 1].term), index: Index(index) }
}

fn show_vote(vote: Vote) -> String {
    match vote.candidate {
        Some(candidate) => format!("term {}, vote for {candidate}", vote.term),
        None => format!("term {}, no vote", vote.term),
    }
}

fn show(message: &Message) -> String {
    match *message {
        Message::PreVote { term, last } => format!("PreVote term {term}, last {last}"),
        Message::PreVoteReply { term, granted } => {
            format!("PreVoteReply {} term {term}", if granted { "granted" } else { "refused" })
        }
        Message::RequestVote { term, last, transfer } => {
            format!("RequestVote term {term}, last {last}{}", if transfer { ", transfer" } else { "" })
        }
        Message::VoteGranted(grant) => format!("VoteGranted term {}", grant.term()),
        Message::VoteRefused { term } => format!("VoteRefused term {term}"),
        Message::Append { term, previous, entries_term, count, commit, round } => {
            let entries = if count == 0 { "empty".into() } else { format!("{count} of term {entries_term}") };
            format!("Append term {term}, after {previous}, {entries}, commit {commit}, round {round}")
        }
        Message::Appended(ack) => {
            format!("Appended term {}, matched {}, round {}", ack.term(), ack.matched(), ack.round())
        }
        Message::Rejected { term, refused, hint, round } => {
            format!("Rejected term {term}, refused {refused}, hint {hint}, round {round}")
        }
        Message::TimeoutNow { term } => format!("TimeoutNow term {term}"),
    }
}
