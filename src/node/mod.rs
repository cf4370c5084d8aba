//! A node: its configuration, its threads, its start and its end.

pub mod config;
