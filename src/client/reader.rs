//! The committed records of one shard, one after another, as one node holds them.

use core::time::Duration;
use std::time::Instant;

use super::{Client, ClientError, Options};
use crate::limits::ENTRY_BYTES_MAX;
use crate::log::assemble::{Assembler, TooLong, Whole};
use crate::log::record::{self, Header};
use crate::types::{EntryId, Epoch, Index, NodeId, ShardId, Term, Timestamp};

/// The bytes that are asked for at once.
const READ_BYTES: u32 = 1 << 20;
const _: () = assert!(READ_BYTES as usize >= ENTRY_BYTES_MAX, "an answer has room for every entry");

/// One record as it was submitted: whole, its checksums verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it is in the log: of a record in parts, its last entry.
    pub id: EntryId,
    /// The index of its first entry.
    pub first: Index,
    /// The engine's timestamp.
    pub timestamp: Timestamp,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// Who submitted it; 0: nobody that cares about duplicates.
    pub session: u64,
    /// The submit's number in the session.
    pub serial: u64,
    /// What was submitted.
    pub payload: &'a [u8],
}

/// Reads one shard from one node, from an index to the end and beyond.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    node: NodeId,
    shard: ShardId,
    /// The entry that comes next.
    next: Index,
    commit: Index,
    bytes: Vec<u8>,
    at: usize,
    asked: Option<u64>,
    parts: Assembler,
}

impl Reader {
    /// Connects to `node` alone, of those that `options` names.
    pub fn open(options: Options, node: NodeId, shard: ShardId, from: Index) -> Result<Reader, ClientError> {
        let mut options = options;
        options.members.retain(|(id, _)| *id == node);
        if options.members.is_empty() {
            return Err(ClientError::NoSuchMember(node));
        }
        let client = Client::connect(options)?;
        if shard.0 >= client.shards() {
            return Err(ClientError::NoSuchShard { shard, shards: client.shards() });
        }
        Ok(Reader {
            client,
            node,
            shard,
            next: from.max(Index(1)),
            commit: Index::ZERO,
            bytes: Vec::new(),
            at: 0,
            asked: None,
            parts: Assembler::default(),
        })
    }

    /// The next record. `None`: everything that is committed was read, and nothing more was within `wait`.
    ///
    /// A reader that starts within a record in parts begins with the record after it.
    pub fn next_record(&mut self, wait: Duration) -> Result<Option<Record<'_>>, ClientError> {
        let until = Instant::now() + wait;
        loop {
            if self.at == self.bytes.len() && !self.fetch(wait, until)? {
                return Ok(None);
            }
            let at = self.at;
            let (header, span) = self.check(at)?;
            self.at += span;
            self.next = Index(header.index).next();
            let payload = at + size_of::<Header>()..at + size_of::<Header>() + header.len_bytes as usize;
            let whole = self.parts.push(&record::Record { header, payload: &self.bytes[payload.clone()] });
            let (first, payload) = match whole.map_err(|TooLong { first }| self.too_long(first))? {
                Whole::Nothing => continue,
                Whole::Entry => (Index(header.index), &self.bytes[payload]),
                Whole::Parts { first } => (first, self.parts.bytes()),
            };
            return Ok(Some(Record {
                id: EntryId { term: Term(header.term), index: Index(header.index) },
                first,
                timestamp: Timestamp(header.timestamp),
                epoch: Epoch(header.epoch),
                session: header.session,
                serial: header.serial,
                payload,
            }));
        }
    }

    /// What the node knew to be committed when it last answered.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The index of the entry that is read next.
    pub fn position(&self) -> Index {
        self.next
    }

    /// Asks for more, or goes on waiting for what was asked for. Whether something came.
    fn fetch(&mut self, wait: Duration, until: Instant) -> Result<bool, ClientError> {
        let patient = !wait.is_zero();
        let until = if patient { until } else { Instant::now() + self.client.options.deadline };
        let id = match self.asked {
            Some(id) => id,
            None => self.client.ask_read(self.node, self.shard, self.next, READ_BYTES, patient, until)?,
        };
        self.asked = Some(id);
        let Some(answer) = self.client.await_answer(id, until) else {
            if patient {
                return Ok(false);
            }
            self.asked = None;
            return self.client.timed_out(id);
        };
        self.asked = None;
        let records = self.client.as_records(self.node, answer?)?;
        self.commit = self.commit.max(records.commit);
        self.bytes = records.bytes;
        self.at = 0;
        Ok(!self.bytes.is_empty())
    }

    /// The header of the record at `at` and its span, once everything about it was found right.
    fn check(&self, at: usize) -> Result<(Header, usize), ClientError> {
        let (record, span) = record::read(&self.bytes[at..])
            .map_err(|malformed| self.malformed(format!("record {}: {malformed:?}", self.next)))?;
        let header = record.header;
        if (header.shard, header.index) != (self.shard.0, self.next.0) {
            return Err(self.malformed(format!(
                "record {} of shard {} where {} of {} was asked for",
                header.index, header.shard, self.next, self.shard
            )));
        }
        Ok((header, span))
    }

    fn too_long(&self, first: Index) -> ClientError {
        self.malformed(format!("the record that begins at {first} is longer than a record may be"))
    }

    fn malformed(&self, what: String) -> ClientError {
        ClientError::Malformed { node: self.node, what }
    }
}
