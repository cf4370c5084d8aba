//! What a node does for a transaction engine, and how one on the same host reaches it.

use core::fmt::Write as _;
use core::time::Duration;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, quoted, within, wrong};

/// The longest path of a Unix socket.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a node does for a transaction engine, and how one on the same host reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Shards are an engine's streams: their stamps are checked, and a watermark is made of them. The same on every
    /// node.
    pub streams: bool,
    /// How long the engine is given to end an epoch that is cut short elsewhere, before it is cut short here, too.
    pub epoch_grace_ms: u32,
    /// Where engines of other processes are given rings. None: nowhere.
    pub socket: Option<PathBuf>,
}

impl Engine {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("engine.epoch_grace_ms", self.epoch_grace_ms.into(), 0..=60_000)?;
        let Some(path) = &self.socket else { return Ok(()) };
        let len_bytes = path.as_os_str().len();
        if !path.is_absolute() || len_bytes > SOCKET_PATH_BYTES_MAX {
            let what = format!(
                "is {}; give an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes",
                quoted(&path.to_string_lossy())
            );
            return Err(wrong("engine.socket", what));
        }
        Ok(())
    }

    pub(super) fn to_toml(&self) -> String {
        let Engine { streams, epoch_grace_ms, socket } = self;
        let mut text = format!("\n[engine]\nstreams = {streams}\nepoch_grace_ms = {epoch_grace_ms}\n");
        if let Some(path) = socket {
            let _ = writeln!(text, "socket = {}", quoted(&path.to_string_lossy()));
        }
        text
    }

    /// See [`Engine::epoch_grace_ms`].
    pub fn epoch_grace(&self) -> Duration {
        Duration::from_millis(self.epoch_grace_ms.into())
    }
}

impl Default for Engine {
    fn default() -> Engine {
        Engine { streams: false, epoch_grace_ms: 100, socket: None }
    }
}
