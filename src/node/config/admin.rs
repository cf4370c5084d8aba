//! Where a node tells an operator's tools how it is.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Config, ConfigError, wrong};

/// Where a node tells an operator's tools how it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where `GET /metrics` and `GET /health` are answered, without encryption and to whoever asks. None: nowhere.
    pub listen: Option<SocketAddr>,
}

impl Admin {
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let Some(listen) = self.listen else { return Ok(()) };
        let refused = |what: String| Err(wrong("admin.listen", what));
        if listen.ip().is_multicast() || listen.port() == 0 {
            return refused(format!(
                "{listen} cannot be listened on; give an address of this machine and a port"
            ));
        }
        let Some(me) = config.me() else { return Ok(()) };
        for (address, name) in [(me.peer, "peer"), (me.client, "client")] {
            let first = u32::from(address.port());
            let ports = first..first + u32::from(config.lanes);
            let same_ip = listen.ip() == address.ip() || listen.ip().is_unspecified();
            if same_ip && ports.contains(&u32::from(listen.port())) {
                return refused(format!(
                    "{listen} is among the ports {} to {} (one per lane) of this node's {name}; choose another",
                    ports.start,
                    ports.end - 1
                ));
            }
        }
        Ok(())
    }

    pub(super) fn to_toml(self) -> String {
        self.listen.map_or_else(String::new, |listen| format!("\n[admin]\nlisten = \"{listen}\"\n"))
    }
}
