//! Children, their lines, and places that go away after them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::child::VARIABLE;

/// Long beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("plimsoll-dpdk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    pub(crate) fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Another process of this binary.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    name: String,
}

impl Process {
    /// Starts one; `within` a network namespace if one is named.
    pub(crate) fn start(name: &str, within: Option<&str>, order: &[String]) -> Process {
        let this = std::env::current_exe().unwrap();
        let mut command = match within {
            None => Command::new(&this),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&this);
                command
            }
        };
        command.args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"]);
        command.env(VARIABLE, order.join("\n"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // libtest's own words stand before the first of ours.
                let Some((_, line)) = line.split_once("> ") else { continue };
                let _ = sender.send(line.to_owned());
            }
        });
        let stdin = child.stdin.take();
        Process { child, stdin, lines, seen: Vec::new(), name: name.to_owned() }
    }

    /// The next line that begins so, those before it passed over.
    #[track_caller]
    pub(crate) fn expect(&mut self, begin: &str) -> String {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if line.starts_with(begin) {
                return line;
            }
        }
        panic!("{} has not said {begin:?}, but {:#?}", self.name, self.seen);
    }

    /// Lets it end in order and waits until it has.
    #[track_caller]
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        self.expect("ended");
        assert!(self.child.wait().unwrap().success(), "{} ended badly", self.name);
    }

    /// Tells it to end; what it says after that can still be expected.
    pub(crate) fn stop(&mut self) {
        drop(self.stdin.take());
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it runs.
    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{} has ended", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `name=number` in a line.
#[track_caller]
pub(crate) fn number(line: &str, name: &str) -> u64 {
    let value = line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{line:?} has no {name}")).parse().unwrap()
}

/// One end of shared memory: what DPDK is told, and the port.
pub(crate) fn memif(place: &Path, role: &str, rest: &[&str]) -> Vec<String> {
    let own = if role == "server" { 1 } else { 2 };
    let mut order = vec![
        "eal=--no-huge".to_owned(),
        "eal=--no-pci".to_owned(),
        format!("eal=--vdev=net_memif0,role={role},id=0,socket={}", place.display()),
        format!("port=net_memif0,10.9.0.{own},24"),
    ];
    order.extend(rest.iter().map(|&text| text.to_owned()));
    order
}
