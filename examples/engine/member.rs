//! The three processes as the coordinator has them: started on their data directories, killed, and what they tell.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use plimsoll::local::Cluster;
use plimsoll::types::{Epoch, NodeId, Stamp, Timestamp};
use rustix::process::{Pid, Signal};

use crate::common::{Failure, Settings};

/// How long something may take that happens within moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process last told of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// That of its replica.
    pub(crate) watermark: Stamp,
    /// The last that its workers were told.
    pub(crate) told: Stamp,
    /// Transactions executed again.
    pub(crate) repeated: u64,
    /// The epoch of the tenure that is, and 1; 0: there is none.
    pub(crate) tenure: u64,
    /// Replies given in it.
    pub(crate) served: u64,
    /// Begun, and without a reply.
    pub(crate) pending: u64,
    pub(crate) is_quiet: bool,
}

struct Member {
    child: Child,
    life: u32,
    state: State,
    /// How many dead records its replica has met, told with its tables.
    dumped: Option<u64>,
}

pub(crate) struct Members<'a> {
    settings: &'a Settings,
    cluster: &'a Cluster,
    members: Vec<Member>,
    give: Sender<(usize, u32, String)>,
    lines: Receiver<(usize, u32, String)>,
}

impl<'a> Members<'a> {
    pub(crate) fn start(settings: &'a Settings, cluster: &'a Cluster) -> Result<Members<'a>, Failure> {
        let (give, lines) = channel();
        let mut members = Members { settings, cluster, members: Vec::new(), give, lines };
        for id in cluster.ids() {
            let member = members.spawn(id, 0)?;
            members.members.push(member);
        }
        Ok(members)
    }

    fn spawn(&self, id: NodeId, life: u32) -> Result<Member, Failure> {
        let directory = self.cluster.directory();
        let program = std::env::current_exe().map_err(Failure::on("finding this program"))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("node-{id}.log")))
            .map_err(Failure::of)?;
        let mut child = Command::new(program)
            .args(["--process".as_ref(), self.cluster.config_path(id).as_os_str()])
            .args(["--life", &life.to_string()])
            .args(self.settings.arguments(directory))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(Failure::on("starting a process"))?;
        let stdout = child.stdout.take().ok_or_else(|| Failure("a process without a pipe".to_owned()))?;
        let (give, at) = (self.give.clone(), id.0 as usize - 1);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if give.send((at, life, line)).is_err() {
                    return;
                }
            }
        });
        Ok(Member { child, life, state: State::default(), dumped: None })
    }

    /// Takes in what is told, until `found` finds something in it.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&[State]) -> Option<T>,
    ) -> Result<T, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let states: Vec<State> = self.members.iter().map(|member| member.state).collect();
            if let Some(found) = found(&states) {
                return Ok(found);
            }
            if Instant::now() > until {
                return Err(Failure(format!("{what}: not within {PATIENCE:?}; last told: {states:#?}")));
            }
            self.take_line()?;
        }
    }

    fn take_line(&mut self) -> Result<(), Failure> {
        let (at, life, line) = match self.lines.recv_timeout(Duration::from_millis(100)) {
            Ok(told) => told,
            Err(RecvTimeoutError::Timeout) => return self.check(),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure("nobody tells anything".to_owned())),
        };
        let member = &mut self.members[at];
        // What the dead have told is past.
        if member.life == life {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["state", numbers @ ..] => member.state = state_of(numbers)?,
                ["dumped", dead] => member.dumped = Some(dead.parse().map_err(Failure::of)?),
                _ => return Err(Failure(format!("process {} says {line:?}", at + 1))),
            }
        }
        Ok(())
    }

    /// An error if a process has ended that nobody killed.
    fn check(&mut self) -> Result<(), Failure> {
        for (member, id) in self.members.iter_mut().zip(1..) {
            if let Some(status) = member.child.try_wait().map_err(Failure::of)? {
                let words = self.cluster.last_words(NodeId(id));
                return Err(Failure(format!("process {id} has ended by itself ({status}):\n{words}")));
            }
        }
        Ok(())
    }

    /// Kills one with SIGKILL, and starts it again at once on its data directory.
    pub(crate) fn kill_and_restart(&mut self, at: usize) -> Result<(), Failure> {
        let member = &mut self.members[at];
        member.child.kill().map_err(Failure::of)?;
        member.child.wait().map_err(Failure::of)?;
        let life = member.life + 1;
        self.members[at] = self.spawn(NodeId(at as u32 + 1), life)?;
        Ok(())
    }

    /// Stops one where it is, or lets it go on.
    pub(crate) fn signal(&self, at: usize, signal: Signal) -> Result<(), Failure> {
        let pid = Pid::from_child(&self.members[at].child);
        rustix::process::kill_process(pid, signal).map_err(Failure::on(format!("process {}", at + 1)))
    }

    pub(crate) fn order_all(&mut self, order: &str) -> Result<(), Failure> {
        (0..self.members.len()).try_for_each(|at| self.order(at, order))
    }

    pub(crate) fn order(&mut self, at: usize, order: &str) -> Result<(), Failure> {
        let stdin = self.members[at].child.stdin.as_mut();
        let stdin = stdin.ok_or_else(|| Failure("a process without a pipe".to_owned()))?;
        writeln!(stdin, "{order}").map_err(Failure::on(format!("telling process {}: {order}", at + 1)))
    }

    /// The tables of each, as text, and how many dead records each has met.
    pub(crate) fn dump_all(&mut self) -> Result<Vec<(String, u64)>, Failure> {
        let path = |at: usize| self.cluster.directory().join(format!("tables-{}", at + 1));
        let paths: Vec<_> = (0..self.members.len()).map(path).collect();
        for (at, path) in paths.iter().enumerate() {
            self.order(at, &format!("dump {}", path.display()))?;
        }
        while self.members.iter().any(|member| member.dumped.is_none()) {
            self.take_line()?;
        }
        let read = |(path, member): (&std::path::PathBuf, &Member)| {
            let text = std::fs::read_to_string(path).map_err(Failure::on(path.display()))?;
            Ok((text, member.dumped.unwrap_or_default()))
        };
        paths.iter().zip(&self.members).map(read).collect()
    }

    /// Ends them in good order.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.order_all("end")?;
        for (member, id) in self.members.iter_mut().zip(1..) {
            let status = member.child.wait().map_err(Failure::of)?;
            if !status.success() {
                let words = self.cluster.last_words(NodeId(id));
                return Err(Failure(format!("process {id} does not end in good order ({status}):\n{words}")));
            }
        }
        Ok(())
    }
}

impl Drop for Members<'_> {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

fn state_of(numbers: &[&str]) -> Result<State, Failure> {
    let parsed: Result<Vec<u64>, _> = numbers.iter().map(|number| number.parse()).collect();
    let wrong = || Failure(format!("a process tells its state as {numbers:?}"));
    let Ok(&[epoch, timestamp, told_epoch, told, repeated, tenure, served, pending, quiet]) =
        parsed.as_deref()
    else {
        return Err(wrong());
    };
    let stamp = |epoch, timestamp| {
        Ok(Stamp::new(Epoch(u32::try_from(epoch).map_err(|_| wrong())?), Timestamp(timestamp)))
    };
    Ok(State {
        watermark: stamp(epoch, timestamp)?,
        told: stamp(told_epoch, told)?,
        repeated,
        tenure,
        served,
        pending,
        is_quiet: quiet == 1,
    })
}
