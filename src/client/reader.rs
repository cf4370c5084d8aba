//! The committed records of one shard, one after another, as one node holds them.

use core::time::Duration;
use std::time::Instant;

use super::records::{Cursor, Item, Record, Wrong};
use super::{Client, ClientError, Options};
use crate::limits::ENTRY_BYTES_MAX;
use crate::types::{Index, NodeId, ShardId};

/// The bytes that are asked for at once.
const READ_BYTES: u32 = 1 << 20;
const _: () = assert!(READ_BYTES as usize >= ENTRY_BYTES_MAX, "an answer has room for every entry");

/// Reads one shard from one node, from an index to the end and beyond.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    node: NodeId,
    shard: ShardId,
    commit: Index,
    cursor: Cursor,
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
        let cursor = Cursor::new(shard, from);
        Ok(Reader { client, node, shard, commit: Index::ZERO, cursor })
    }

    /// The next record. `None`: everything that is committed was read, and nothing more was within `wait`.
    ///
    /// A reader that starts within a record in parts begins with the record after it.
    pub fn next_record(&mut self, wait: Duration) -> Result<Option<Record<'_>>, ClientError> {
        let until = Instant::now() + wait;
        loop {
            if self.cursor.is_empty() && !self.fetch(wait, until)? {
                return Ok(None);
            }
            match self.cursor.advance() {
                Ok(Some(found)) if found.is_record() => {
                    let Item::Record(record) = self.cursor.item(found) else { unreachable!("it is one") };
                    return Ok(Some(record));
                }
                Ok(_) => {}
                Err(Wrong(what)) => return Err(ClientError::Malformed { node: self.node, what }),
            }
        }
    }

    /// What the node knew to be committed when it last answered.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The index of the entry that is read next.
    pub fn position(&self) -> Index {
        self.cursor.position()
    }

    /// Asks for more. Whether something came.
    fn fetch(&mut self, wait: Duration, until: Instant) -> Result<bool, ClientError> {
        let next = self.cursor.position();
        let wait = (!wait.is_zero()).then(|| until.saturating_duration_since(Instant::now()));
        let records = self.client.read(self.node, self.shard, next, READ_BYTES, wait)?;
        let Some(records) = records else { return Ok(false) };
        self.commit = self.commit.max(records.commit);
        self.cursor.refill(&records.bytes);
        Ok(!self.cursor.is_empty())
    }
}
