//! The frame's header, and the builder that every kind of frame shares.

use alloc::vec::Vec;

use super::Malformed;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first frame on a connection, from who opened it.
    Hello = 1,
    /// Hello was found good.
    Welcome = 2,
    /// Hello was not, and why.
    Refusal = 3,
    /// Raft messages between peers.
    Peer = 4,
    /// From a client.
    Request = 5,
    /// To a client.
    Reply = 6,
}

/// The header and table of a frame under construction. Reused: clearing keeps the memory.
#[derive(Debug)]
pub struct Builder {}

impl Builder {
    /// An empty frame of this kind.
    pub fn new(kind: Kind) -> Builder {
        unimplemented!()
    }
    /// Forgets what was added.
    pub fn clear(&mut self) {
        unimplemented!()
    }
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Whether one more message with so many bytes of body fits.
    pub fn fits(&self, body_bytes: usize) -> bool {
        unimplemented!()
    }
    /// Adds a row of the table; the caller sends the body's bytes after the head, in the same order.
    pub fn push(&mut self, row: &[u8; 64], body_bytes: usize) {
        unimplemented!()
    }
    /// Completes length and checksum: the bytes of header and table, to be sent before the body.
    pub fn seal(&mut self) -> &[u8] {
        unimplemented!()
    }
}

/// The length that a header announces, checked against the bounds. For links, before they reserve memory.
pub fn announced_bytes(header: &[u8; 32]) -> Result<usize, Malformed> {
    unimplemented!()
}

/// Kind, table and body of a whole frame; bounds and checksum hold.
pub fn open(frame: &[u8]) -> Result<(Kind, &[[u8; 64]], &[u8]), Malformed> {
    unimplemented!()
}

#[allow(dead_code)]
type Unused = Vec<u8>;
