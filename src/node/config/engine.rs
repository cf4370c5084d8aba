//! How a transaction engine on the same host reaches the node.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, quoted, wrong};

/// The longest path of a Unix socket.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How a transaction engine on the same host reaches the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Where engines of other processes are given rings. None: nowhere.
    pub socket: Option<PathBuf>,
}

impl Engine {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
        match &self.socket {
            Some(path) => format!("\n[engine]\nsocket = {}\n", quoted(&path.to_string_lossy())),
            None => String::new(),
        }
    }
}
