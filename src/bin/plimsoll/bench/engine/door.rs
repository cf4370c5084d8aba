//! How an engine's thread reaches its partition's leader: through rings in memory that it shares with the node, as an
//! engine beside the node does, or as a client over TCP, which finds the next leader when one is killed.

use std::time::Duration;

use plimsoll::client::ring::{self, Attachment, RingError, Sizes};
use plimsoll::client::{self, Client, Completion, Submit, SubmitError};
use plimsoll::local::Cluster;
use plimsoll::types::{Acks, EntryId, Epoch, ShardId, Timestamp};
use plimsoll::wire::client::{self as wire, Reply};

use super::case::PREFERRED;
use crate::common::Failure;

/// What a client may have under way in an open loop, which no latency may be hidden behind.
const OPEN_OUTSTANDING: usize = 32_768;
const OPEN_OUTSTANDING_BYTES: usize = 256 << 20;

/// How long a submit over TCP may take: longer than any failover, so that an outage shows as latency.
const DEADLINE: Duration = Duration::from_secs(30);

/// A ring holds some of the largest buffers of the protocol.
const SUBMIT_RING_BYTES: usize = 8 << 20;

/// Which way it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Way {
    /// Rings in shared memory, to the node that leads
    Ring,
    /// A client over TCP
    Tcp,
}

/// How a submit ended, as far as a benchmark asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Committed(EntryId),
    Unknown,
    LogFull,
    Refused,
}

impl From<client::Outcome> for Told {
    fn from(outcome: client::Outcome) -> Told {
        match outcome {
            client::Outcome::Committed { id, .. } => Told::Committed(id),
            client::Outcome::LogFull => Told::LogFull,
            outcome if outcome.is_unknown() => Told::Unknown,
            _ => Told::Refused,
        }
    }
}

impl From<wire::Outcome> for Told {
    fn from(outcome: wire::Outcome) -> Told {
        match outcome {
            wire::Outcome::Committed { id, .. } => Told::Committed(id),
            wire::Outcome::LogFull => Told::LogFull,
            wire::Outcome::Unknown => Told::Unknown,
            _ => Told::Refused,
        }
    }
}

/// See the module.
pub(super) enum Door {
    Ring(Box<Attachment>),
    Tcp(Box<Client>, Vec<Completion>),
}

impl Door {
    /// A door for records of so many bytes.
    pub(super) fn open(way: Way, cluster: &Cluster, shard: ShardId, bytes: usize) -> Result<Door, Failure> {
        if way == Way::Tcp {
            let options = client::Options {
                deadline: DEADLINE,
                outstanding_max: OPEN_OUTSTANDING,
                outstanding_bytes_max: OPEN_OUTSTANDING_BYTES.max(2 * bytes),
                ..cluster.client_options()
            };
            return Ok(Door::Tcp(Box::new(Client::connect(options)?), Vec::new()));
        }
        let config = cluster.config(PREFERRED);
        let socket =
            config.engine.socket.as_deref().ok_or_else(|| Failure("nodes without a socket".into()))?;
        let sizes = Sizes { submit_bytes: SUBMIT_RING_BYTES, ..Sizes::default() };
        let session = u64::from(shard.0) + 1;
        let options = ring::Options { sizes, ..ring::Options::new(config.cluster_id(), shard, session) };
        Ok(Door::Ring(Box::new(Attachment::connect(socket, options).map_err(Failure::of)?)))
    }

    /// Its request; `None`: there is no room at this moment.
    pub(super) fn submit(&mut self, shard: ShardId, payload: &[u8]) -> Result<Option<u64>, Failure> {
        match self {
            Door::Ring(ring) => match ring.submit(payload, Timestamp(0), Epoch(0), Acks::Quorum) {
                Ok(request) => Ok(Some(request.0)),
                Err(RingError::Busy) => Ok(None),
                Err(error) => Err(Failure::of(error)),
            },
            Door::Tcp(client, _) => match client.submit(Submit::new(shard, payload)) {
                Ok(request) => Ok(Some(request.0)),
                Err(SubmitError::Full) => Ok(None),
                Err(error) => Err(Failure::of(error)),
            },
        }
    }

    /// Waits until something has ended, at most for so long, and tells what has: its request, and how.
    pub(super) fn take(&mut self, wait: Duration, mut each: impl FnMut(u64, Told)) {
        match self {
            Door::Ring(ring) => {
                ring.wait(wait);
                ring.poll(|reply| {
                    if let Reply::Outcome { request, outcome } = reply {
                        each(request, outcome.into());
                    }
                });
            }
            Door::Tcp(client, completions) => {
                client.poll(wait, completions);
                completions.drain(..).for_each(|ended| each(ended.request.0, ended.outcome.into()));
            }
        }
    }

    pub(super) fn outstanding(&self) -> usize {
        match self {
            Door::Ring(ring) => ring.outstanding(),
            Door::Tcp(client, _) => client.outstanding(),
        }
    }
}
