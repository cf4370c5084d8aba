//! A seed that does not end is a violation as well: code under test that goes round for ever neither panics nor
//! returns.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// A seed takes a fraction of a second, and a few in a debug build; a machine that has other work gives it little time.
const LONGEST: Duration = Duration::from_secs(600);

/// As long as it lives, the process ends with a word if one seed takes too long.
pub(crate) struct Watch(Sender<u64>);

impl Watch {
    /// Begins to watch.
    pub(crate) fn new() -> Watch {
        let (begun, begins) = channel();
        thread::spawn(move || {
            let Ok(mut seed) = begins.recv() else { return };
            loop {
                match begins.recv_timeout(LONGEST) {
                    Ok(next) => seed = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!(
                            "seed {seed}: no end after {LONGEST:?}; attach a debugger to its run to see where it is"
                        );
                        std::process::exit(1);
                    }
                }
            }
        });
        Watch(begun)
    }

    /// The run of this seed begins, and that of the one before it is over.
    pub(crate) fn begins(&self, seed: u64) {
        // It listens until this is dropped.
        let _ = self.0.send(seed);
    }
}
