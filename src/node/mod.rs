//! A node: its configuration, its threads, its start and its end.

pub mod config;

use core::convert::Infallible;
use core::fmt;

pub use self::config::{Config, ConfigError};

/// A running node. There is none yet: its lanes are built elsewhere.
#[derive(Debug)]
pub struct Node(Infallible);

/// Stops a node from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Infallible);

/// Why a node does not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is not sound.
    Config(ConfigError),
    /// This build has no lanes.
    NoLanes,
}

impl Node {
    /// Checks the configuration.
    pub fn start(config: Config) -> Result<Node, StartError> {
        config.check().map_err(StartError::Config)?;
        Err(StartError::NoLanes)
    }

    /// A handle that stops this node.
    pub fn stopper(&self) -> Stopper {
        match self.0 {}
    }

    /// Waits until the node has stopped.
    pub fn wait(self) -> Result<(), StartError> {
        match self.0 {}
    }
}

impl Stopper {
    /// Asks the node to stop.
    pub fn stop(&self) {
        match self.0 {}
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::NoLanes => f.write_str("this build has no lanes"),
        }
    }
}

impl std::error::Error for StartError {}
