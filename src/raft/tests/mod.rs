//! The protocol as a whole, in a small world of several nodes with disks and a network that may do anything.
#![allow(clippy::unwrap_used)]

mod cluster;
mod malformed;
mod random;
mod transcripts;
