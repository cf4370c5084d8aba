//! When a port of shared memory that connects does so again.
//!
//! The driver tries once. What becomes of it is seen by the link, which comes up, or heard in what the driver logs: a
//! peer that is starting listens before its port is ready, and hangs up. Without either the port is greeting its peer,
//! and one that is stopped while it does breaks: it gets much time for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long after a connection that was refused it is tried again.
const REFUSED: Duration = Duration::from_millis(50);

/// And one that was taken, but of which nothing is heard.
const SILENT: Duration = Duration::from_secs(2);

/// The moment from which on it may be tried again, in nanoseconds. Set by the thread that keeps the ports, and by the
/// one that hears the driver.
#[derive(Debug, Default)]
pub(super) struct Dial(AtomicU64);

impl Dial {
    /// It is going to be tried. Said before, for it may be refused before the attempt returns.
    pub(super) fn begin(&self, now_ns: u64) {
        self.0.store(now_ns + SILENT.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Nobody was there, or who was has hung up.
    pub(super) fn refused(&self, now_ns: u64) {
        self.0.fetch_min(now_ns + REFUSED.as_nanos() as u64, Ordering::SeqCst);
    }

    /// It is connected: should that end, it is tried at once.
    pub(super) fn connected(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.0.load(Ordering::SeqCst) <= now_ns
    }
}

/// Which of the driver's interfaces that connect has been disconnected, by its id, if that is what this line says.
pub(super) fn hung_up(line: &str) -> Option<u32> {
    let rest = line.strip_prefix("memif_disconnect(): Disconnected, id: ")?;
    let (id, role) = rest.split_once(", role: ")?;
    let connects = ["client", "slave"].iter().any(|name| role.starts_with(name));
    connects.then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Whoever dialed a node that was starting, and was hung up on, waited for two seconds as if it were greeted: so
    /// long a node that came back could reach nobody.
    #[test]
    fn who_is_hung_up_on_tries_again_soon_even_if_that_was_at_once() {
        let dial = Dial::default();
        assert!(dial.is_due(0));
        dial.begin(10 * MS);
        assert!(!dial.is_due(1999 * MS), "it greets");
        dial.refused(11 * MS);
        assert!(!dial.is_due(60 * MS) && dial.is_due(61 * MS));
        dial.begin(61 * MS);
        assert!(!dial.is_due(2060 * MS) && dial.is_due(2061 * MS));
    }

    #[test]
    fn a_connection_that_ends_is_tried_again_at_once() {
        let dial = Dial::default();
        dial.begin(10 * MS);
        dial.connected();
        dial.refused(12 * MS);
        assert!(dial.is_due(12 * MS), "that it hung up puts nothing off");
    }

    #[test]
    fn the_driver_says_who_hung_up() {
        assert_eq!(hung_up("memif_disconnect(): Disconnected, id: 18, role: client."), Some(18));
        assert_eq!(hung_up("memif_disconnect(): Disconnected, id: 18, role: server."), None);
        assert_eq!(hung_up("memif_disconnect(): Disconnected, id: , role: client."), None);
        assert_eq!(hung_up("memif_msg_receive(): Received msg type: 8"), None);
    }
}
