//! [`DatagramLink`].

use alloc::vec::Vec;
use core::time::Duration;

use super::{Carrier, Counters, Notice};
use crate::io::{Full, Link, LinkEvent};
use crate::limits::PEER_OUTGOING_BYTES_MAX;
use crate::types::{NodeId, StoreId, Time};
use crate::wire::identity::Identity;

/// What a link is told when it is made.
#[derive(Clone, Debug)]
pub struct Options<A> {
    /// Who this end is.
    pub identity: Identity,
    /// The other members, and where each takes datagrams for this lane. One that dials this node may come from elsewhere,
    /// and is answered there.
    pub peers: Vec<(NodeId, A)>,
    /// The data directories of peers that are known from earlier lives of this node.
    pub stores: Vec<(NodeId, StoreId)>,
    /// Session ids are drawn from it: another one in every life, and none that a stranger can guess.
    pub seed: u64,
    /// The memory per peer for frames longer than a datagram that wait for credits or may have to be repaired, at least
    /// two of the longest frames. Beyond, sends are refused as `Full`.
    pub kept_bytes: usize,
    /// A peer of which nothing was heard for so long is taken for gone.
    pub unheard: Duration,
    /// The longest pause before dialling again.
    pub redial_max: Duration,
}

impl<A> Options<A> {
    /// With the bounds that fit most.
    pub fn new(
        identity: Identity,
        peers: Vec<(NodeId, A)>,
        stores: Vec<(NodeId, StoreId)>,
        seed: u64,
    ) -> Self {
        Options {
            identity,
            peers,
            stores,
            seed,
            kept_bytes: PEER_OUTGOING_BYTES_MAX,
            unheard: Duration::from_secs(2),
            redial_max: Duration::from_millis(200),
        }
    }
}

/// Frames to and from the same lane of every peer, over a carrier of datagrams. See the module.
///
/// Dropping it tells its peers that it is gone.
#[derive(Debug)]
pub struct DatagramLink<C: Carrier> {
    carrier: C,
    options: Options<C::Address>,
    counters: Counters,
}

impl<C: Carrier> Link for DatagramLink<C> {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let _ = sink;
        self.carrier.poll(now, &mut |_| {})
    }

    fn send(&mut self, _to: NodeId, _parts: &[&[u8]]) -> Result<(), Full<()>> {
        Ok(())
    }

    fn flush(&mut self) {
        self.carrier.flush();
    }

    fn next_wake(&self) -> Time {
        self.carrier.next_wake()
    }
}

impl<C: Carrier> DatagramLink<C> {
    /// A link that dials at its first poll. Everything that it ever needs is allocated here or when a peer first comes up.
    ///
    /// # Panics
    /// If this node's id is 0, or it is among its own peers; if the carrier's datagrams are shorter than
    /// [`super::DATAGRAM_BYTES_MIN`] or its window smaller than [`super::WINDOW_MIN`].
    pub fn new(options: Options<C::Address>, carrier: C) -> DatagramLink<C> {
        assert!(options.identity.node != NodeId(0), "0 is no node's id");
        DatagramLink { carrier, options, counters: Counters::default() }
    }

    /// Whether frames can be sent to this peer.
    pub fn is_up(&self, peer: NodeId) -> bool {
        let _ = (peer, &self.options);
        false
    }

    /// The data directories of peers that were met for the first time since the last call, for the node to keep: given
    /// to the next life's [`Options::stores`], a peer that lost its log between is refused.
    pub fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        Vec::new()
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it has to tell an operator, oldest first; `None` when all is told. A bounded number is kept.
    pub fn notice(&mut self) -> Option<Notice<C::Address>> {
        None
    }

    /// What moves the datagrams.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    /// The same, to be changed.
    pub fn carrier_mut(&mut self) -> &mut C {
        &mut self.carrier
    }
}
