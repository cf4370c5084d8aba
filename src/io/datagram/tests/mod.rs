#![allow(clippy::unwrap_used)]

mod flow;
mod malice;
mod net;
mod sessions;
