//! A submit between its taking and its outcome.

use super::clients::ClientRef;
use crate::types::{EntryId, Timestamp};
use crate::wire::client::Outcome;

/// A submit that was taken and has no outcome yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) id: EntryId,
    pub(super) client: ClientRef,
    pub(super) request: u64,
    pub(super) timestamp: Timestamp,
}

impl Pending {
    /// The outcome when it is as durable as was asked for.
    pub(super) fn committed(&self) -> Outcome {
        Outcome::Committed { id: self.id, timestamp: self.timestamp }
    }
}
