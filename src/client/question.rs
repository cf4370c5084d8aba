//! What is asked of one node and answered once: reads, status, read index, transfer.

use core::time::Duration;
use std::time::Instant;

use super::{Client, ClientError, Outcome, wire_id};
use crate::types::{Index, LaneId, NodeId, ShardId};
use crate::wire::client::{self as wire, Reply, Request, ShardStatus};

/// Committed records as they lie in a node's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Where the next read goes on.
    pub next: Index,
    /// What the node knew to be committed.
    pub commit: Index,
    /// Whole records ([`crate::log::record`]), not checked yet; empty: nothing is there yet.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Question {
    pub(super) slot: usize,
    pub(super) answer: Option<Result<Answer, ClientError>>,
}

/// A read that its node answers once there is something, and for which nobody waits at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    from: Index,
    bytes_max: u32,
    id: u64,
}

#[derive(Debug)]
pub(super) enum Answer {
    Records(Records),
    Status(ShardStatus),
    ReadIndex(Index),
    Outcome(wire::Outcome),
}

impl Client {
    /// One answer's worth of committed records of a shard, from `from` on, as `node` holds them. With `wait`, the node
    /// answers once there is something at `from`, or not within that time: then nothing is returned.
    pub fn read(
        &mut self,
        node: NodeId,
        shard: ShardId,
        from: Index,
        bytes_max: u32,
        wait: Option<Duration>,
    ) -> Result<Option<Records>, ClientError> {
        let until = Instant::now() + wait.unwrap_or(self.options.deadline);
        if wait.is_none() {
            let id = self.ask_read(node, shard, from, bytes_max, false, until)?;
            return match self.await_answer(id, until) {
                Some(answer) => self.as_records(node, answer?).map(Some),
                None => self.timed_out(id),
            };
        }
        let id = match self.waiting_read(node, shard, from, bytes_max) {
            Some(id) => id,
            None => self.ask_read(node, shard, from, bytes_max, true, until)?,
        };
        let Some(answer) = self.await_answer(id, until) else {
            // The node waits on: whoever asks the same again takes its answer.
            self.waiting_reads.insert((node, shard), Waiting { from, bytes_max, id });
            return Ok(None);
        };
        self.as_records(node, answer?).map(Some)
    }

    /// The question that was left waiting there, if it is the same. Another one is given up.
    fn waiting_read(&mut self, node: NodeId, shard: ShardId, from: Index, bytes_max: u32) -> Option<u64> {
        let waiting = self.waiting_reads.remove(&(node, shard))?;
        let is_same = waiting.from == from && waiting.bytes_max == bytes_max;
        let question = self.questions.get(&waiting.id);
        if is_same && question.is_some_and(|question| !matches!(question.answer, Some(Err(_)))) {
            return Some(waiting.id);
        }
        self.questions.remove(&waiting.id);
        None
    }

    /// How a shard is on one node.
    pub fn status(
        &mut self,
        node: NodeId,
        shard: ShardId,
        timeout: Duration,
    ) -> Result<ShardStatus, ClientError> {
        let until = Instant::now() + timeout;
        match self.ask_one(node, shard, until, |request| Request::Status { request, shard })? {
            Answer::Status(status) => Ok(status),
            answer => Err(other(node, answer)),
        }
    }

    /// Asks the shard's leader, wherever it is, to hand over to `to`. Returns who began to hand over.
    pub fn transfer(&mut self, shard: ShardId, to: NodeId, timeout: Duration) -> Result<NodeId, ClientError> {
        self.member(to)?;
        let until = Instant::now() + timeout;
        let ask = |request| Request::Transfer { request, shard, to };
        self.ask_leader(shard, until, |client, node| match client.ask_one(node, shard, until, ask)? {
            Answer::Outcome(wire::Outcome::Accepted) => Ok(node),
            answer => Err(other(node, answer)),
        })
    }

    /// Up to where the shard's log must be read, on any node, to miss nothing that was committed before the call: its
    /// leader has asked a majority after it was asked itself whether it still leads (Ongaro's read index). With the
    /// leader's name.
    ///
    /// # Errors
    /// If no leader answers within `timeout`, or the shard's bound of such reads is met.
    pub fn read_index(&mut self, shard: ShardId, timeout: Duration) -> Result<(NodeId, Index), ClientError> {
        let until = Instant::now() + timeout;
        let ask = |request| Request::ReadIndex { request, shard };
        self.ask_leader(shard, until, |client, node| match client.ask_one(node, shard, until, ask)? {
            Answer::ReadIndex(index) => Ok((node, index)),
            answer => Err(other(node, answer)),
        })
    }

    /// Asks the shard's leader, who has to be found first.
    fn ask_leader<T>(
        &mut self,
        shard: ShardId,
        until: Instant,
        mut ask: impl FnMut(&mut Client, NodeId) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut node = self.leader(shard).unwrap_or(self.options.members[0].0);
        loop {
            let error = match ask(self, node) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let hint = match &error {
                ClientError::Declined { outcome: Outcome::NotLeader { leader }, .. } => *leader,
                ClientError::Unreachable { .. } => None,
                _ => return Err(error),
            };
            let now = Instant::now();
            if now >= until {
                return Err(error);
            }
            let after = (self.member(node)? + 1) % self.options.members.len();
            let known = hint.filter(|hint| *hint != node && self.member(*hint).is_ok());
            node = known.unwrap_or(self.options.members[after].0);
            // Without a hint there may be an election under way: it is given a moment.
            if known.is_none() {
                self.turn(until.min(now + Duration::from_millis(10)));
            }
        }
    }

    /// Asks one node and waits for its answer.
    fn ask_one(
        &mut self,
        node: NodeId,
        shard: ShardId,
        until: Instant,
        make: impl FnOnce(u64) -> Request<'static>,
    ) -> Result<Answer, ClientError> {
        let id = self.ask(node, shard, until, make)?;
        match self.await_answer(id, until) {
            Some(answer) => answer,
            None => self.timed_out(id),
        }
    }

    fn ask_read(
        &mut self,
        node: NodeId,
        shard: ShardId,
        from: Index,
        bytes_max: u32,
        wait: bool,
        until: Instant,
    ) -> Result<u64, ClientError> {
        self.ask(node, shard, until, |request| Request::Read { request, shard, from, bytes_max, wait })
    }

    /// Sends a question once the node's connection takes it.
    fn ask(
        &mut self,
        node: NodeId,
        shard: ShardId,
        until: Instant,
        make: impl FnOnce(u64) -> Request<'static>,
    ) -> Result<u64, ClientError> {
        let member = self.member(node)?;
        if shard.0 >= self.shards {
            return Err(ClientError::NoSuchShard { shard, shards: self.shards });
        }
        let lane = shard.lane(self.lanes);
        let at = self.slot(member, lane);
        let failures = self.slots[at].failures;
        let mut now = Instant::now();
        // One failure to connect is an answer; a connection that failed before is tried again after its rest.
        while !self.ensure_open(member, lane, now) {
            if self.slots[at].failures > failures {
                let address = self.options.address(member, lane);
                return Err(ClientError::Unreachable { node, address, why: self.slots[at].why.clone() });
            }
            if now >= until {
                return Err(ClientError::Timeout { node, address: self.options.address(member, lane) });
            }
            self.turn(until.min(now + Duration::from_millis(10)));
            now = Instant::now();
        }
        let id = self.next_id;
        self.next_id += 1;
        if let Some(connection) = &mut self.slots[at].connection {
            connection.push(&make(wire_id(id, 0)), &[]);
        }
        self.questions.insert(id, Question { slot: at, answer: None });
        Ok(id)
    }

    /// Waits for the answer; what else comes meanwhile is kept. `None`: not yet.
    fn await_answer(&mut self, id: u64, until: Instant) -> Option<Result<Answer, ClientError>> {
        let spin = Instant::now() + self.options.spin;
        loop {
            if self.completions.is_empty() {
                self.flush();
            } else {
                self.write_all(Instant::now());
            }
            if self.questions.get(&id)?.answer.is_some() {
                return self.questions.remove(&id)?.answer;
            }
            let now = Instant::now();
            if now >= until {
                return None;
            }
            self.turn(if now < spin { now } else { until });
        }
    }

    pub(super) fn question_answered(&mut self, at: usize, reply: Reply<'_>) {
        let (request, answer) = match reply {
            Reply::Outcome { request, outcome } => (request, Answer::Outcome(outcome)),
            Reply::Status { request, status } => (request, Answer::Status(status)),
            Reply::Records { request, next, commit, records } => {
                (request, Answer::Records(Records { next, commit, bytes: records.to_vec() }))
            }
            Reply::ReadIndex { request, index } => (request, Answer::ReadIndex(index)),
            // This client does not ask for streams, and a farewell answers nothing.
            Reply::Stream { .. } | Reply::EpochClosed { .. } | Reply::Farewell => return,
        };
        // The answer to a question that was given up is of no use any more.
        if let Some(question) = self.questions.get_mut(&(request >> 8)).filter(|it| it.slot == at) {
            question.answer.get_or_insert(Ok(answer));
        }
    }

    fn as_records(&self, node: NodeId, answer: Answer) -> Result<Records, ClientError> {
        match answer {
            Answer::Records(records) => Ok(records),
            answer => Err(other(node, answer)),
        }
    }

    fn timed_out<T>(&mut self, id: u64) -> Result<T, ClientError> {
        let slot = self.questions.remove(&id).map_or(0, |question| question.slot);
        let members = self.options.members.len();
        let (member, lane) = (slot % members, LaneId((slot / members) as u16));
        let (node, address) = (self.options.members[member].0, self.options.address(member, lane));
        Err(ClientError::Timeout { node, address })
    }
}

/// An answer that is not of the kind asked for.
fn other(node: NodeId, answer: Answer) -> ClientError {
    let outcome = match answer {
        Answer::Outcome(wire::Outcome::NotLeader { leader }) => Outcome::NotLeader { leader },
        Answer::Outcome(wire::Outcome::Busy) => Outcome::Busy,
        Answer::Outcome(wire::Outcome::LogFull) => Outcome::LogFull,
        Answer::Outcome(wire::Outcome::Unknown) => Outcome::Unknown,
        Answer::Outcome(wire::Outcome::Invalid) => Outcome::Invalid,
        Answer::Outcome(wire::Outcome::Stopping) => Outcome::Stopping,
        Answer::Outcome(_) | Answer::Records(_) | Answer::Status(_) | Answer::ReadIndex(_) => {
            return ClientError::Malformed { node, what: "an answer to another question".to_owned() };
        }
    };
    ClientError::Declined { node, outcome }
}
