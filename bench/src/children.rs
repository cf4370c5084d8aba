//! Processes that do not outlive the bench, and directories that do not either.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The process groups that run. Each child leads one of its own, so that its own children go with it.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// From now on an interrupt is seen by [`check`] instead of ending the bench, and a panic ends the children first.
pub(crate) fn watch_signals() -> Result<(), String> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // Before the flag is set: a second one ends the bench at once.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&INTERRUPTED))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)))
            .map_err(|error| format!("cannot watch signal {signal}: {error}"))?;
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        for group in running().drain(..) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        report(panic);
    }));
    Ok(())
}

/// Whether somebody asked the bench to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error if somebody asked the bench to end.
pub(crate) fn check() -> Result<(), String> {
    if interrupted() { Err("interrupted".to_owned()) } else { Ok(()) }
}

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child and its own children; gone when this is dropped. What they say lies in two files.
pub(crate) struct Process {
    name: String,
    child: Child,
    group: Option<Pid>,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command` as the leader of its own process group, its output in files `name.out` and `name.err`.
    pub(crate) fn start(command: &mut Command, name: &str, directory: &Path) -> Result<Process, String> {
        let (out, err) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.err")));
        let file = |path: &Path| {
            File::create(path).map_err(|error| format!("cannot create {}: {error}", path.display()))
        };
        command.stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?).process_group(0);
        let child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        running().extend(group);
        Ok(Process { name: name.to_owned(), child, group, out, err })
    }

    /// Waits for it to end well; its standard output.
    pub(crate) fn output(mut self, patience: Duration) -> Result<String, String> {
        let give_up = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                if status.success() {
                    return fs::read_to_string(&self.out).map_err(|error| error.to_string());
                }
                return Err(format!("{} failed ({status}): {}", self.name, self.last_words()));
            }
            check()?;
            if Instant::now() > give_up {
                let seconds = patience.as_secs();
                return Err(format!("{} had not ended after {seconds} s: {}", self.name, self.last_words()));
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// An error if it has ended.
    pub(crate) fn must_run(&mut self) -> Result<(), String> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended ({status}): {}", self.name, self.last_words())),
        }
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.try_wait().map_err(|error| format!("cannot wait for {}: {error}", self.name))
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.err).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Process {
    /// A polite request first, so that the child can end its own children; then the whole group.
    fn drop(&mut self) {
        let Some(group) = self.group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let give_up = Instant::now() + Duration::from_secs(3);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
            sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        running().retain(|other| *other != group);
    }
}

/// A fresh directory; gone when this is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Below `parent`, named after this process.
    pub(crate) fn below(parent: &Path) -> Result<Scratch, String> {
        for attempt in 0..100 {
            let path = parent.join(format!("plimsoll-bench-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
            }
        }
        Err(format!("{} is full of old runs: remove its plimsoll-bench-* directories", parent.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
