use alloc::collections::VecDeque;
use core::fmt;
use core::time::Duration;

use crate::types::{NodeId, Time};
use crate::wire::Malformed;
use crate::wire::hello::Refusal;

/// Notices that nobody has read yet, at most.
const NOTICES_MAX: usize = 64;

/// Something that an operator may want to read, as a line each. The link itself prints nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<A> {
    /// A session is up.
    Connected {
        /// With whom.
        peer: NodeId,
        /// Where it is.
        address: A,
        /// The longest datagram that the way there is known to carry.
        path_bytes: usize,
    },
    /// A session has ended.
    Ended {
        /// With whom.
        peer: NodeId,
        /// Where it was.
        address: A,
        /// Why.
        why: Why,
    },
    /// No answer to a greeting; told once until there is one.
    Unreachable {
        /// Who was asked.
        peer: NodeId,
        /// Where.
        address: A,
    },
    /// The way to a peer does not carry datagrams as long as it is configured to. The link goes on with shorter ones.
    Narrow {
        /// The peer.
        peer: NodeId,
        /// What was configured.
        wanted_bytes: usize,
        /// What is carried.
        path_bytes: usize,
    },
    /// The way carries what is configured after all.
    Wide {
        /// The peer.
        peer: NodeId,
        /// What was configured, and is carried.
        path_bytes: usize,
    },
    /// A peer's greeting was refused here.
    Refused {
        /// The node that it says it is.
        who: NodeId,
        /// Where it came from.
        address: A,
        /// Why.
        refusal: Refusal,
    },
    /// A peer refuses this node.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// Where it is.
        address: A,
        /// Why.
        refusal: Refusal,
    },
    /// Another node than expected answers at an address.
    MixedUp {
        /// Who was expected.
        expected: NodeId,
        /// Where.
        address: A,
        /// Who is there.
        found: NodeId,
    },
    /// What came from there is not understood; told at most once in a second.
    Malformed {
        /// Where it came from.
        address: A,
        /// How.
        how: Malformed,
    },
    /// So many notices were left out because nobody read them.
    LeftOut(u64),
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer said so.
    Bye,
    /// The peer does not know the session any more: it has restarted, or given it up.
    Forgotten,
    /// It was said that nobody listens there, and it has not answered since.
    Unreachable,
    /// The way to it was said to have broken, and it has not answered since.
    Broken,
    /// It was not heard for so long.
    Unheard(Duration),
    /// It gave no more credits, asked as often as may be: nothing could be said in the session any more.
    Unanswered,
    /// It has greeted anew.
    Replaced,
}

impl Why {
    /// Whether the peer's process has most likely ended.
    ///
    /// Of one that has forgotten the session that is not so: it says the same if it has only not heard this end for a
    /// while, as after a moment in which this end stood still, and an election would be called against a leader that
    /// lives. Nothing that it says tells the two apart, and little is lost by that. Who is killed is noticed by the
    /// port that is closed, with the next datagram to it, which is a keepalive away at the most (18 ms with an election
    /// timeout of 150 ms). Forgotten is said first only by a process that was back before any datagram came, or where
    /// nothing tells of closed ports; its followers then wait for the rest of their election timeout, as they do for a
    /// leader that is merely not heard.
    pub fn by_peer(&self) -> bool {
        matches!(self, Why::Bye | Why::Unreachable)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Bye => write!(f, "the peer ended it"),
            Why::Forgotten => write!(f, "the peer does not know it any more"),
            Why::Unreachable => write!(f, "nobody listens there any more"),
            Why::Broken => write!(f, "the way to it has broken"),
            Why::Unheard(time) => write!(f, "nothing was heard for {time:?}"),
            Why::Unanswered => write!(f, "it gave no more credits, as often as it was asked"),
            Why::Replaced => write!(f, "the peer has greeted anew"),
        }
    }
}

impl<A: fmt::Debug> fmt::Display for Notice<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Connected { peer, address, path_bytes } => {
                write!(f, "connected with node {peer} at {address:?} by datagrams of {path_bytes} bytes")
            }
            Notice::Ended { peer, address, why } => {
                write!(f, "connection with node {peer} at {address:?} ended: {why}")
            }
            Notice::Unreachable { peer, address } => {
                write!(f, "node {peer} at {address:?} cannot be reached: no answer to hello")
            }
            Notice::Narrow { peer, wanted_bytes, path_bytes } => write!(
                f,
                "the way to node {peer} does not carry datagrams of {wanted_bytes} bytes: going on with \
                 {path_bytes}; correct the MTU that is configured, or the path"
            ),
            Notice::Wide { peer, path_bytes } => {
                write!(f, "the way to node {peer} carries datagrams of {path_bytes} bytes now")
            }
            Notice::Refused { who, address, refusal } => {
                write!(f, "refused node {who} at {address:?}: {refusal}")
            }
            Notice::RefusedBy { peer, address, refusal } => {
                write!(f, "node {peer} at {address:?} refuses this node: {refusal}")
            }
            Notice::MixedUp { expected, address, found } => write!(
                f,
                "node {expected} was expected at {address:?}, and node {found} answers there: correct the addresses"
            ),
            Notice::Malformed { address, how } => write!(f, "dropped a datagram of {address:?}: {how}"),
            Notice::LeftOut(count) => write!(f, "{count} more lines like the last ones were left out"),
        }
    }
}

/// What is to be told.
#[derive(Debug)]
pub(super) struct Notices<A> {
    waiting: VecDeque<Notice<A>>,
    left_out: u64,
    /// When something malformed was last told of.
    malformed_at: Option<Time>,
}

impl<A> Notices<A> {
    pub(super) fn new() -> Notices<A> {
        Notices { waiting: VecDeque::with_capacity(NOTICES_MAX), left_out: 0, malformed_at: None }
    }

    pub(super) fn push(&mut self, notice: Notice<A>) {
        if self.waiting.len() < NOTICES_MAX {
            self.waiting.push_back(notice);
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn malformed(&mut self, now: Time, address: A, how: Malformed) {
        if self.malformed_at.is_none_or(|at| now.since(at) >= Duration::from_secs(1)) {
            self.malformed_at = Some(now);
            self.push(Notice::Malformed { address, how });
        }
    }

    pub(super) fn next(&mut self) -> Option<Notice<A>> {
        let next = self.waiting.pop_front();
        if next.is_none() && self.left_out > 0 {
            return Some(Notice::LeftOut(core::mem::take(&mut self.left_out)));
        }
        next
    }
}
