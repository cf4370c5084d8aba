//! Follows the committed entries of an attachment's shard: always one read under way, answered when there is something.

use super::{Attachment, RingError};
use crate::client::RequestId;
use crate::client::records::{Cursor, Found, Item, Wrong};
use crate::io::ring::Sizes;
use crate::limits::APPEND_BYTES_MAX;
use crate::types::{Index, ShardId};
use crate::wire::client::{Outcome, Reply};
use crate::wire::frame::ROW_BYTES;

/// See the module.
#[derive(Debug)]
pub(super) struct Tail {
    cursor: Cursor,
    asked: Option<RequestId>,
    bytes_max: u32,
    /// Everything that the node had said to be committed when it last answered was taken.
    commit: Index,
}

impl Tail {
    /// From an index on. An answer takes at most half of the completion ring.
    pub(super) fn new(shard: ShardId, from: Index, sizes: Sizes) -> Tail {
        let bytes_max = APPEND_BYTES_MAX.min(sizes.completion_bytes / 2 - 4 * ROW_BYTES) as u32;
        Tail { cursor: Cursor::new(shard, from), asked: None, bytes_max, commit: Index::ZERO }
    }

    /// Asks for what comes next, when all that has come was taken.
    pub(super) fn ask(&mut self, ring: &mut Attachment) -> Result<(), RingError> {
        if self.asked.is_none() && self.cursor.is_empty() {
            self.asked = Some(ring.read(self.cursor.position(), self.bytes_max, true)?);
        }
        Ok(())
    }

    /// Takes in a reply; whether it was one to its reads.
    pub(super) fn take(&mut self, reply: &Reply<'_>) -> bool {
        let asked = self.asked.map(|RequestId(request)| request);
        match *reply {
            Reply::Records { request, records, commit, .. } if Some(request) == asked => {
                self.cursor.refill(records);
                self.commit = self.commit.max(commit);
            }
            // Asked again with the next call: the node is busy, or was left and found again.
            Reply::Outcome { request, outcome } if Some(request) == asked => {
                debug_assert!(!matches!(outcome, Outcome::Committed { .. }), "a read is not committed");
            }
            _ => return false,
        }
        self.asked = None;
        true
    }

    /// Goes on to what comes next, if it has come.
    pub(super) fn advance(&mut self) -> Result<Option<Found>, Wrong> {
        self.cursor.advance()
    }

    /// What was just found.
    pub(super) fn item(&self, found: Found) -> Item<'_> {
        self.cursor.item(found)
    }

    /// Whether something has come that was not taken.
    pub(super) fn has_something(&self) -> bool {
        !self.cursor.is_empty()
    }

    /// Whether a read is under way.
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// The index of the entry that comes next.
    pub(super) fn position(&self) -> Index {
        self.cursor.position()
    }

    /// What the node knew to be committed when it last answered.
    pub(super) fn commit(&self) -> Index {
        self.commit
    }
}
