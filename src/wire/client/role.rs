//! What a node is in a shard, as one byte. Drawn in [`super`].

use crate::raft::Role;
use crate::wire::Malformed;

/// A role as a byte of a reply.
pub(super) fn role_code(role: Role) -> u8 {
    match role {
        Role::Follower => 0,
        Role::PreCandidate => 1,
        Role::Candidate => 2,
        Role::Leader => 3,
    }
}

/// The role that a byte of a reply stands for.
pub(super) fn role_of(code: u8) -> Result<Role, Malformed> {
    Ok(match code {
        0 => Role::Follower,
        1 => Role::PreCandidate,
        2 => Role::Candidate,
        3 => Role::Leader,
        _ => return Err(Malformed::Field("role")),
    })
}
