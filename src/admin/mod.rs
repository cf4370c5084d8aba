//! What an operator's tools are told: `GET /metrics` in the Prometheus text format (version 0.0.4) and `GET /health`.
//!
//! # How figures get here
//! A lane keeps its own counts and gives them away only when it is asked. The [`server`](Server) raises a number that
//! the lane compares in every turn, and wakes it; before its next turn the lane stores all its totals in atomics of its
//! own, in lines that nobody else writes, and says that it has ([`Teller`]). So a scrape shows what was true after it
//! came, each lane's figures belong together, a node that nobody asks spends one compare a turn on all of it, and a
//! lane that does not answer is one that does not turn, which is what `/health` is about. A lane is asked at most every
//! [`PACE`], however often others ask the node.
//!
//! What a lane stores and what the text calls it come from one walk over the same figures ([`Told`]): the first time it
//! is walked for the names and labels, each time after that for the values. The walk itself is the node's, which knows
//! lanes and links; nothing here knows more than numbers.
//!
//! # HTTP
//! The server is one thread that is kept off the lanes' cores, over non-blocking sockets, with bounds on everything
//! that others send: see [`Limits`]. Requests are taken apart by `httparse`, which depends on nothing. A whole server
//! was looked for and not taken: `tiny_http` has neither a time limit on what it reads nor a bound on its connections,
//! and the servers that have both bring an asynchronous runtime. What is left to do here is to send one answer and
//! close.

mod cells;
mod families;
mod http;
mod panel;
mod server;
mod text;

pub use self::cells::{LaneFigures, Teller, Told};
pub use self::families::Family;
pub use self::panel::{PACE, Panel, SILENT};
pub use self::server::{Limits, Server};
