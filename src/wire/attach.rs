//! How an engine's thread in another process asks a node for rings: one packet each way over a Unix socket of packets.
//! The node's carries two descriptors with a welcome: the rings' memory, and the eventfd that wakes the lane.
//!
//! ```text
//! hello    0 magic             u32  "PLR1"
//!          4 version           u32  1
//!          8 cluster           u64
//!         16 session           u64
//!         24 submit_bytes      u64  the ring's size
//!         32 completion_bytes  u64
//!         40 shard             u32
//!         44 reserved               0
//!
//! answer   0 magic             u32
//!          4 code              u32  0 welcome, else why not: Refusal
//!          8 detail            u64
//! ```
//! Both ends are on one host, so numbers are in its byte order.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::Malformed;
use crate::types::{ClusterId, ShardId};

const MAGIC: u32 = u32::from_le_bytes(*b"PLR1");
const VERSION: u32 = 1;

/// The bytes of a hello.
pub const HELLO_BYTES: usize = 64;

/// The bytes of an answer.
pub const ANSWER_BYTES: usize = 16;

/// What an engine's thread asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that it means.
    pub cluster: ClusterId,
    /// The shard that it submits to.
    pub shard: ShardId,
    /// Who it is, as its records say: not 0.
    pub session: u64,
    /// The submit ring's size.
    pub submit_bytes: u64,
    /// The completion ring's size.
    pub completion_bytes: u64,
}

/// Why there are no rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node is of another cluster.
    Cluster {
        /// Which.
        found: ClusterId,
    },
    /// There is no such shard.
    Shard {
        /// How many there are.
        shards: u32,
    },
    /// The session is attached to this shard already.
    Held,
    /// A ring's size is none of those that are allowed.
    Sizes,
    /// The session is 0, which names nobody.
    Session,
    /// The node is stopping.
    Stopping,
    /// The node's system gives no memory.
    System,
    /// The two do not speak the same version.
    Version,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HelloRow {
    magic: u32,
    version: u32,
    cluster: u64,
    session: u64,
    submit_bytes: u64,
    completion_bytes: u64,
    shard: u32,
    reserved: [u32; 5],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AnswerRow {
    magic: u32,
    code: u32,
    detail: u64,
}

impl Hello {
    /// The packet that says it.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        bytemuck::cast(HelloRow {
            magic: MAGIC,
            version: VERSION,
            cluster: self.cluster.0,
            session: self.session,
            submit_bytes: self.submit_bytes,
            completion_bytes: self.completion_bytes,
            shard: self.shard.0,
            reserved: [0; 5],
        })
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Hello, Malformed> {
        let row: HelloRow = bytemuck::try_pod_read_unaligned(packet).map_err(|_| Malformed::Truncated)?;
        if row.magic != MAGIC {
            return Err(Malformed::Magic(row.magic));
        }
        if row.version != VERSION {
            return Err(Malformed::Version(row.version as u8));
        }
        if row.reserved != [0; 5] {
            return Err(Malformed::Field("reserved"));
        }
        Ok(Hello {
            cluster: ClusterId(row.cluster),
            shard: ShardId(row.shard),
            session: row.session,
            submit_bytes: row.submit_bytes,
            completion_bytes: row.completion_bytes,
        })
    }
}

/// The packet that answers a hello.
pub fn encode_answer(answer: Result<(), Refusal>) -> [u8; ANSWER_BYTES] {
    let (code, detail) = match answer {
        Ok(()) => (0, 0),
        Err(Refusal::Cluster { found }) => (1, found.0),
        Err(Refusal::Shard { shards }) => (2, u64::from(shards)),
        Err(Refusal::Held) => (3, 0),
        Err(Refusal::Sizes) => (4, 0),
        Err(Refusal::Session) => (5, 0),
        Err(Refusal::Stopping) => (6, 0),
        Err(Refusal::System) => (7, 0),
        Err(Refusal::Version) => (8, 0),
    };
    bytemuck::cast(AnswerRow { magic: MAGIC, code, detail })
}

/// Reads the answer to a hello.
pub fn decode_answer(packet: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
    let row: AnswerRow = bytemuck::try_pod_read_unaligned(packet).map_err(|_| Malformed::Truncated)?;
    if row.magic != MAGIC {
        return Err(Malformed::Magic(row.magic));
    }
    Ok(match row.code {
        0 => Ok(()),
        1 => Err(Refusal::Cluster { found: ClusterId(row.detail) }),
        2 => Err(Refusal::Shard { shards: row.detail as u32 }),
        3 => Err(Refusal::Held),
        4 => Err(Refusal::Sizes),
        5 => Err(Refusal::Session),
        6 => Err(Refusal::Stopping),
        7 => Err(Refusal::System),
        8 => Err(Refusal::Version),
        _ => return Err(Malformed::Field("answer")),
    })
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Cluster { found } => write!(f, "it is of cluster {found}; look at the socket's path"),
            Refusal::Shard { shards } => write!(f, "the cluster has {shards} shards, counted from 0"),
            Refusal::Held => write!(
                f,
                "this session is attached to the shard already; detach it first, or give each thread its own session"
            ),
            Refusal::Sizes => write!(f, "a ring's size is a power of two from 256 KiB to 64 MiB"),
            Refusal::Session => write!(f, "session 0 names nobody; give the thread a session of its own"),
            Refusal::Stopping => write!(f, "it is stopping; try again when it runs"),
            Refusal::System => write!(f, "its system gives it no memory for the rings"),
            Refusal::Version => write!(f, "it speaks another version; run the same on both ends"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let hello = Hello {
            cluster: ClusterId(7),
            shard: ShardId(3),
            session: 9,
            submit_bytes: 1 << 20,
            completion_bytes: 1 << 21,
        };
        let packet = hello.encode();
        assert_eq!(Hello::decode(&packet), Ok(hello));
        assert!(Hello::decode(&packet[..63]).is_err());
        let mut reserved = packet;
        reserved[63] = 1;
        assert_eq!(Hello::decode(&reserved), Err(Malformed::Field("reserved")));
        let all = [
            Refusal::Cluster { found: ClusterId(8) },
            Refusal::Shard { shards: 4 },
            Refusal::Held,
            Refusal::Sizes,
            Refusal::Session,
            Refusal::Stopping,
            Refusal::System,
            Refusal::Version,
        ];
        for answer in all.map(Err).into_iter().chain([Ok(())]) {
            assert_eq!(decode_answer(&encode_answer(answer)), Ok(answer));
        }
    }
}
