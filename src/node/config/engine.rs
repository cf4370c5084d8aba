//! What a node does for a transaction engine.

use core::time::Duration;

use serde::Deserialize;

use super::{ConfigError, within};

/// What a node does for a transaction engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Shards are an engine's streams: their stamps are checked, and a watermark is made of them. The same on every node.
    pub streams: bool,
    /// How long the engine is given to end an epoch that is cut short elsewhere, before it is cut short here, too.
    pub epoch_grace_ms: u32,
}

impl Engine {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("engine.epoch_grace_ms", self.epoch_grace_ms.into(), 0..=60_000)
    }

    pub(super) fn to_toml(&self) -> String {
        let Engine { streams, epoch_grace_ms } = self;
        format!("\n[engine]\nstreams = {streams}\nepoch_grace_ms = {epoch_grace_ms}\n")
    }

    /// See [`Engine::epoch_grace_ms`].
    pub fn epoch_grace(&self) -> Duration {
        Duration::from_millis(self.epoch_grace_ms.into())
    }
}

impl Default for Engine {
    fn default() -> Engine {
        Engine { streams: false, epoch_grace_ms: 100 }
    }
}
