//! Raft messages of all shards of a lane, coalesced into one frame.

use super::Malformed;
use crate::raft::Message;
use crate::types::ShardId;

/// The row of a frame's table that says `message` for `shard`, with so many bytes of records in the body.
pub fn encode(shard: ShardId, message: &Message, body_bytes: usize) -> [u8; 64] {
    unimplemented!()
}

/// The messages of a whole peer frame. Everything is checked before the first is given out.
pub fn decode(frame: &[u8]) -> Result<Messages<'_>, Malformed> {
    unimplemented!()
}

/// See [`decode`]. The records of an append are its third part; their own checksums are still to be checked.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    table: &'a [[u8; 64]],
    body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = (ShardId, Message, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
