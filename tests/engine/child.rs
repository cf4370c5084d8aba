//! An engine in a process of its own: this same binary, told by a variable what to attach to. It submits, reserves one
//! record more, says so, and never publishes it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plimsoll::client::ring::{Attachment, Options};
use plimsoll::types::ClusterId;

use crate::{SHARD, submit};

const VARIABLE: &str = "PLIMSOLL_TEST_ENGINE_CHILD";
const RESERVED: &str = "> reserved";

/// How many records it submits.
pub(crate) const RECORDS: u64 = 500;

pub(crate) struct Engine(Child);

impl Engine {
    pub(crate) fn start(socket: &Path, cluster: ClusterId, session: u64) -> Engine {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child::engine", "--exact", "--nocapture"])
            .env(VARIABLE, format!("{} {} {session}", socket.display(), cluster.0))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Engine(child)
    }

    /// Until it stands within a record.
    pub(crate) fn await_reserved(&mut self) {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains(RESERVED)), "the engine ended before");
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn engine() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let mut words = order.split(' ');
    let mut next = || words.next().unwrap();
    let socket = next().to_owned();
    let cluster = ClusterId(next().parse().unwrap());
    let session = next().parse().unwrap();
    let mut attachment = Attachment::connect(socket.as_ref(), Options::new(cluster, SHARD, session)).unwrap();
    submit(&mut attachment, session, RECORDS, 64);
    let mut room = attachment.reserve(500).unwrap();
    room.bytes()[..250].fill(0xee);
    println!("{RESERVED}");
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read(&mut [0; 1]);
}
