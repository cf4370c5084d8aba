//! What must always hold, checked at every turn of every node against books that no node can see.
//!
//! The first node that calls an entry committed writes it into the book; every other must say the same, in every life.
//! The first thing that does not hold is kept and ends the run.

use std::collections::BTreeMap;

use super::plan::Plan;
use crate::io::ClientId;
use crate::log::record::{FLAG_MORE, Header, Kind};
use crate::raft::{Message, Role};
use crate::types::{EntryId, Index, ShardId, Stamp, Term};
use crate::wire;
use crate::wire::client::ShardStatus;

/// What an entry holds, as far as its header tells; the payload's checksum stands for the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) payload_crc: u32,
    pub(super) len_bytes: u32,
    pub(super) session: u64,
    pub(super) serial: u64,
    pub(super) timestamp: u64,
    pub(super) epoch: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

impl Content {
    pub(super) fn of(header: &Header) -> Content {
        let Header { payload_crc, len_bytes, session, serial, timestamp, epoch, kind, flags, .. } = *header;
        Content { payload_crc, len_bytes, session, serial, timestamp, epoch, kind, flags }
    }

    /// A header that tells the same.
    pub(super) fn header(&self) -> Header {
        let Content { payload_crc, len_bytes, session, serial, timestamp, epoch, kind, flags } = *self;
        Header { payload_crc, len_bytes, session, serial, timestamp, epoch, kind, flags, ..Header::default() }
    }
}

/// A committed entry. What it holds may become known later than that it is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    pub(super) term: Term,
    /// The term of the node that first called it committed.
    in_term: Term,
    /// The largest watermark that any node had told before.
    pub(super) published: Stamp,
    pub(super) content: Option<Content>,
}

/// How a submit came out, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Committed on a quorum.
    Committed(EntryId),
    /// As durable as was asked for, and that was less than a quorum.
    Weakly(EntryId),
    /// Will never be committed.
    Rejected,
    /// Nobody knows.
    Unknown,
}

/// One submit of one client.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) shard: ShardId,
    pub(super) key: u64,
    pub(super) last_crc: u32,
    pub(super) call_ns: u64,
    pub(super) return_ns: Option<u64>,
    pub(super) told: Option<Told>,
    pub(super) committed: Option<Index>,
}

/// What one node was last seen to be in one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    role: Role,
    term: Term,
    commit: Index,
    durable: EntryId,
    /// The highest term that it told anyone in any life.
    told_term: Term,
}

/// A linearizable read: it saw everything up to `index`.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexRead {
    pub(super) client: usize,
    pub(super) shard: ShardId,
    pub(super) key: u64,
    pub(super) call_ns: u64,
    pub(super) return_ns: u64,
    pub(super) index: Index,
}

/// What a run came to, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that were committed.
    pub commits: u64,
    /// Leaders that were elected.
    pub elections: u64,
    /// Processes that ended before their time.
    pub crashes: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Submits acknowledged on a quorum.
    pub acknowledged: u64,
    /// Answered linearizable reads.
    pub index_reads: u64,
    /// Lanes that stopped because their disk failed, or would not open what they found.
    pub disk_stops: u64,
    /// Regions of a log that were read back from its disk.
    pub reads_back: u64,
    /// Datagrams that were sent, in the runs that go over datagrams.
    pub datagrams: u64,
    /// Of them, fragments that were sent again because they were missed.
    pub repaired: u64,
    /// Sessions that came up again.
    pub sessions: u64,
    /// Entries of engines that were replayed, in the runs that have an engine.
    pub replayed: u64,
    /// Entries of engines that are dead.
    pub dead: u64,
    /// Epochs that were closed there.
    pub epochs: u64,
    /// Threads of engines that died.
    pub deaths: u64,
    /// Epochs that those after them had cut.
    pub cuts: u64,
}

/// The books.
pub(super) struct Oracle {
    pub(super) shards: Vec<Vec<Committed>>,
    leaders: BTreeMap<(ShardId, Term), usize>,
    votes: BTreeMap<(ShardId, Term, usize), usize>,
    seen: Vec<Vec<Seen>>,
    pub(super) submits: Vec<Vec<Submitted>>,
    pub(super) index_reads: Vec<IndexRead>,
    /// Per connection and shard: the last acknowledged request and where it is.
    in_order: BTreeMap<(ClientId, ShardId), (u64, Index)>,
    /// The largest watermark that any node has told.
    pub(super) published: Stamp,
    pub(super) counts: Counts,
    pub(super) violation: Option<String>,
}

impl Oracle {
    pub(super) fn new(plan: &Plan) -> Oracle {
        let shards = plan.shards as usize;
        Oracle {
            shards: vec![Vec::new(); shards],
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            seen: vec![vec![Seen::default(); shards]; plan.nodes],
            submits: Vec::new(),
            index_reads: Vec::new(),
            in_order: BTreeMap::new(),
            published: Stamp::ZERO,
            counts: Counts::default(),
            violation: None,
        }
    }

    /// Keeps the first thing that went wrong.
    pub(super) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// A node sends this.
    pub(super) fn on_frame(&mut self, from: usize, to: usize, frame: &[u8]) {
        let messages = match wire::peer::decode(frame) {
            Ok(messages) => messages,
            Err(malformed) => {
                return self.fail(format!("node {} sends what nobody reads: {malformed}", from + 1));
            }
        };
        for (shard, message, _) in messages {
            let term = message.term();
            match message {
                Message::PreVote { .. } | Message::PreVoteReply { .. } => continue,
                Message::Append { .. } => self.leads(shard, term, from),
                Message::VoteGranted(_) => {
                    let vote = *self.votes.entry((shard, term, from)).or_insert(to);
                    if vote != to {
                        self.fail(format!(
                            "shard {shard}: node {} votes in term {term} for {} and for {}",
                            from + 1,
                            vote + 1,
                            to + 1
                        ));
                    }
                }
                _ => {}
            }
            let told = &mut self.seen[from][shard.0 as usize].told_term;
            *told = (*told).max(term);
        }
    }

    fn leads(&mut self, shard: ShardId, term: Term, node: usize) {
        let counts = &mut self.counts;
        let leader = *self.leaders.entry((shard, term)).or_insert_with(|| {
            counts.elections += 1;
            node
        });
        if leader != node {
            self.fail(format!("shard {shard}: nodes {} and {} lead in term {term}", leader + 1, node + 1));
        }
    }

    /// A node has started with what its disk held.
    pub(super) fn on_started(
        &mut self,
        node: usize,
        status: &ShardStatus,
        term_at: impl Fn(Index) -> Option<Term>,
    ) {
        let shard = status.shard;
        let seen = &mut self.seen[node][shard.0 as usize];
        let (durable, told) = (seen.durable, seen.told_term);
        seen.commit = Index::ZERO;
        (seen.role, seen.term) = (status.role, status.term);
        if durable.index > Index::ZERO && term_at(durable.index) != Some(durable.term) {
            let last = status.last;
            self.fail(format!(
                "shard {shard}: node {} had {durable} durable, and came back with {last}",
                node + 1
            ));
        } else if status.term < told {
            let term = status.term;
            self.fail(format!("shard {shard}: node {} told term {told}, and came back in {term}", node + 1));
        }
    }

    /// How a node stands in a shard after a turn. Returns the range of entries that it newly calls committed.
    pub(super) fn on_turn(
        &mut self,
        node: usize,
        status: &ShardStatus,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> (Index, Index) {
        let shard = status.shard;
        let seen = &mut self.seen[node][shard.0 as usize];
        let before = *seen;
        let durable_term = term_at(status.durable).unwrap_or_default();
        (seen.role, seen.term, seen.commit) = (status.role, status.term, status.commit);
        seen.durable = EntryId { term: durable_term, index: status.durable };
        let name = node + 1;
        if status.term < before.term {
            self.fail(format!(
                "shard {shard}: node {name} falls from term {} to {}",
                before.term, status.term
            ));
        }
        if status.commit < before.commit {
            self.fail(format!(
                "shard {shard}: node {name}'s commit falls from {} to {}",
                before.commit, status.commit
            ));
        }
        if status.durable < before.durable.index.min(before.commit) {
            let (from, to) = (before.durable, status.durable);
            self.fail(format!("shard {shard}: node {name}'s durable watermark falls from {from} to {to}"));
        }
        if status.commit > status.last.index {
            self.fail(format!("shard {shard}: node {name} has committed more than it has"));
        }
        if status.role == Role::Leader && (before.role != Role::Leader || before.term != status.term) {
            self.leads(shard, status.term, node);
            self.check_complete(node, (shard, status.term), &term_at);
        }
        (before.commit, status.commit)
    }

    /// Leader completeness: a new leader has all that was committed in earlier terms. One that has won late may not
    /// know what a later leader committed meanwhile.
    fn check_complete(
        &mut self,
        node: usize,
        (shard, term): (ShardId, Term),
        term_at: &impl Fn(Index) -> Option<Term>,
    ) {
        let committed = &self.shards[shard.0 as usize];
        for (at, entry) in committed.iter().enumerate().rev() {
            let index = Index(at as u64 + 1);
            if entry.in_term < term && term_at(index) != Some(entry.term) {
                let id = EntryId { term: entry.term, index };
                return self.fail(format!(
                    "shard {shard}: node {} leads without the committed entry {id}",
                    node + 1
                ));
            }
        }
    }

    /// A node calls this entry committed.
    pub(super) fn on_committed(
        &mut self,
        node: usize,
        shard: ShardId,
        id: EntryId,
        content: Option<Content>,
    ) {
        let book = &mut self.shards[shard.0 as usize];
        let at = id.index.0 as usize - 1;
        if at > book.len() {
            return self
                .fail(format!("shard {shard}: node {} commits {id} before what precedes it", node + 1));
        }
        if at == book.len() {
            let in_term = self.seen[node][shard.0 as usize].term;
            let published = self.published;
            book.push(Committed { term: id.term, in_term, published, content: None });
            self.counts.commits += 1;
        }
        let entry = &mut book[at];
        if entry.term != id.term {
            let committed = EntryId { term: entry.term, ..id };
            return self.fail(format!("shard {shard}: node {} commits {id}, where {committed} is", node + 1));
        }
        match (entry.content, content) {
            (Some(known), Some(new)) if known != new => {
                self.fail(format!(
                    "shard {shard}: node {} holds {new:?} as {id}, others {known:?}",
                    node + 1
                ));
            }
            (None, Some(new)) => {
                entry.content = Some(new);
                self.on_content(shard, id, &new);
            }
            _ => {}
        }
    }

    /// What a committed entry holds is known for the first time.
    fn on_content(&mut self, shard: ShardId, id: EntryId, content: &Content) {
        if content.kind != Kind::Data as u8 || content.flags & FLAG_MORE != 0 {
            return;
        }
        let name =
            format!("shard {shard}: entry {id}, submit {} of client {}", content.serial, content.session);
        let submits = self.submits.get_mut(content.session as usize - 1);
        let Some(submit) = submits.and_then(|submits| submits.get_mut(content.serial as usize)) else {
            return self.fail(format!("{name}: nobody submitted it"));
        };
        if let Some(before) = submit.committed {
            return self.fail(format!("{name}: is committed already as {before}"));
        }
        submit.committed = Some(id.index);
        if submit.shard != shard || submit.last_crc != content.payload_crc {
            return self.fail(format!("{name}: is not what was submitted"));
        }
        let told = submit.told;
        match told {
            Some(Told::Rejected) => self.fail(format!("{name}: was told to be rejected")),
            Some(Told::Committed(at)) if at != id => self.fail(format!("{name}: was told to be {at}")),
            _ => {}
        }
    }

    /// A client is told how a submit came out.
    pub(super) fn on_told(&mut self, now_ns: u64, client: usize, serial: u64, told: Told) {
        let submit = &mut self.submits[client][serial as usize];
        let name = format!("shard {}: submit {serial} of client {}", submit.shard, client + 1);
        if let Some(before) = submit.told.replace(told) {
            return self.fail(format!("{name}: is told {told:?} after {before:?}"));
        }
        submit.return_ns = Some(now_ns);
        let (shard, committed) = (submit.shard, submit.committed);
        match told {
            Told::Committed(id) => {
                self.counts.acknowledged += 1;
                let entry = self.shards[shard.0 as usize].get(id.index.0 as usize - 1);
                let Some(entry) = entry.copied() else {
                    return self.fail(format!("{name}: is acknowledged as {id}, which nobody has committed"));
                };
                let is_it = entry
                    .content
                    .is_none_or(|content| (content.session, content.serial) == (client as u64 + 1, serial));
                if entry.term != id.term || !is_it {
                    self.fail(format!("{name}: is acknowledged as {id}, where {entry:?} is"));
                }
            }
            Told::Rejected if committed.is_some() => {
                self.fail(format!("{name}: is rejected, and committed"));
            }
            _ => {}
        }
    }

    /// Requests of one connection to one shard are taken in the order in which they came.
    pub(super) fn on_order(&mut self, connection: ClientId, shard: ShardId, request: u64, index: Index) {
        let last = self.in_order.entry((connection, shard)).or_insert((request, index));
        if (request > last.0 && index < last.1) || (request < last.0 && index > last.1) {
            let (before, at) = *last;
            return self.fail(format!(
                "shard {shard}: requests {before} and {request} of one connection are at {at} and {index}"
            ));
        }
        *last = (request.max(last.0), index.max(last.1));
    }

    /// Who was last elected.
    pub(super) fn node_of_leader(&self, shard: ShardId) -> Option<usize> {
        self.leaders.range((shard, Term(0))..=(shard, Term(u64::MAX))).next_back().map(|(_, &node)| node)
    }

    /// How far a node has committed.
    pub(super) fn commit_of(&self, node: usize, shard: ShardId) -> Index {
        self.seen[node][shard.0 as usize].commit
    }

    /// How much is committed.
    pub(super) fn committed(&self, shard: ShardId) -> Index {
        Index(self.shards[shard.0 as usize].len() as u64)
    }
}
