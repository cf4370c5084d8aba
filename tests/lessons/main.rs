//! Fifteen things were found wrong in the replication of the engine that this is built for (Mako's helper, in C++).
//! Each has a test here, by its number: `cargo test n09` runs the ninth. Where the same is tested at greater depth
//! stands beside.
//!
//! | | what went wrong there | here | at greater depth |
//! |---|---|---|---|
//! | 1 | a batch assumed one type of command and dereferenced null on another | `entries::n01` | `tests/cluster/records.rs`, `sim --fuzz log` |
//! | 2 | split brain, and terms from 1 to 42, when nodes start two seconds apart | `leaders::n02` | `tests/cluster/elections.rs`, `sim --graphs` |
//! | 3 | a log handed to a node that does not lead vanished | `outcomes::n03` | `tests/cluster/kills.rs`, the simulator's clients |
//! | 4 | a flag against reentrancy lost applies: followers applied 1 to 30 % | `replay::n04` | `tests/engine/replicas.rs`, `src/sim/oracle.rs` |
//! | 5 | deferred copies from malloc, freed only on drain | `replay::n05` | `src/engine/tests.rs` |
//! | 6 | waiting waited for a constant; a count was mixed with an index | `outcomes::n06` | `src/client/tests/mod.rs`, `tests/engine/processes.rs`, `tests/mako/replicate.cc` |
//! | 7 | timestamp, epoch and status in one int overflowed after 22 s | `entries::n07` | `src/engine/tests.rs`; where the drop-in is asked for an int, `tests/mako/unit.cc` |
//! | 8 | the exchange took the maximum of the watermarks | `watermarks::n08` | `src/engine/tests.rs`, `src/sim/engine/mod.rs`, bug 40 of `tests/bugs` |
//! | 9 | streams at zero were left out of the minimum | `watermarks::n09` | the same |
//! | 10 | a limit of frames under that of batches: endless resend | `entries::n10`, and `n10` in `src/shard/tests/lessons.rs` | `tests/cluster/records.rs`, `src/limits.rs` |
//! | 11 | three waits of 1 ms in every commit | `n11` in `src/shard/tests/lessons.rs` | `src/shard/turn.rs`; `plimsoll bench commit` |
//! | 12 | one group for all partitions | `leaders::n12`, and `n12` in `src/shard/tests/lessons.rs` | `tests/cluster/kills.rs`; `plimsoll bench engine` |
//! | 13 | the poller stopped before the server had drained: hang | `outcomes::n13` | `tests/cluster/stop.rs`, `src/shard/tests/mod.rs` |
//! | 14 | latency and memory that grew with the length of the run | `flat::n14` | `plimsoll bench flat`, `tests/allocations.rs` |
//! | 15 | callbacks of elections did nothing: epochs were not wired to leadership | `leaders::n15` | `tests/engine/replicas.rs`, `src/sim/engine/mod.rs` |

#![allow(clippy::unwrap_used)]

mod entries;
mod flat;
mod leaders;
mod outcomes;
mod rack;
mod replay;
mod watermarks;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For what must happen, and does within moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clusters want the machine for themselves: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
