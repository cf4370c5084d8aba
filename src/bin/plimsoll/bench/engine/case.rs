//! What is measured: the cases of the protocol, and what was published for each of them, on other hardware.

use plimsoll::types::NodeId;

/// On which the published figures were measured, so that nobody compares them with ours.
pub(super) const PUBLISHED_ON: &str = "a 64-core 2.1 GHz Xeon, loopback, memory only";

/// The size of the engine's usual log buffer, for which the floor of a plain stream is measured too.
pub(super) const LARGE_BYTES: u32 = 286_208;

/// The node that leads every partition, as the engine's locale 0 does.
pub(super) const PREFERRED: NodeId = NodeId(1);

/// How records are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// So many in a second over all partitions, each when it is due, whether or not earlier ones have ended.
    PerSecond(u64),
    /// As many as can be had, with the same number under way in each partition; the search finds the number.
    Peak,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) bytes: u32,
    pub(super) partitions: u32,
    pub(super) pace: Pace,
    pub(super) published: Published,
}

/// What was published for a case: of the engine's own Raft in C++, then in Rust.
#[derive(Clone, Copy, Debug)]
pub(super) enum Published {
    Nothing,
    /// Milliseconds, p50 and p99.
    Latency([(f64, f64); 2]),
    /// Records in a second.
    Peak([f64; 2]),
    /// Records in a second; of one implementation alone, and which was not said.
    OnePeak(f64),
}

#[rustfmt::skip]
pub(super) const PROTOCOL: [Case; 7] = [
    case("4k-240", 4096, 1, Pace::PerSecond(240), Published::Latency([(2.72, 3.70), (2.65, 3.59)])),
    case("4k-10100", 4096, 1, Pace::PerSecond(10_100), Published::Latency([(4.34, 7.54), (3.27, 4.58)])),
    case("286k-190", LARGE_BYTES, 6, Pace::PerSecond(190), Published::Latency([(7.5, 9.5), (3.38, 4.57)])),
    case("1m-26", 1 << 20, 1, Pace::PerSecond(26), Published::Latency([(17.6, 24.0), (7.99, 10.1)])),
    case("4k-peak", 4096, 1, Pace::Peak, Published::Peak([13_100.0, 37_800.0])),
    case("4k-peak-6", 4096, 6, Pace::Peak, Published::OnePeak(191_500.0)),
    case("286k-peak-6", LARGE_BYTES, 6, Pace::Peak, Published::Peak([1600.0, 3200.0])),
];

const fn case(name: &'static str, bytes: u32, partitions: u32, pace: Pace, published: Published) -> Case {
    Case { name, bytes, partitions, pace, published }
}

impl Case {
    /// One that the protocol does not know.
    pub(super) const fn own(bytes: u32, partitions: u32, pace: Pace) -> Case {
        case("own", bytes, partitions, pace, Published::Nothing)
    }
}
