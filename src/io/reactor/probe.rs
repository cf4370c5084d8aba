//! What io_uring grants here, found out by asking for it.

use std::io;

use super::uring::{Flavour, Uring};
use super::waker::Waker;

/// What a lane's ring would have.
#[derive(Clone, Debug)]
pub struct Features {
    /// How it would post completions, or why there is no ring.
    pub flavour: Result<&'static str, String>,
    /// Whether that is the best way there is.
    pub is_best: bool,
    /// Whether memory can be registered, or why not.
    pub buffers: Result<(), String>,
    /// Whether files can.
    pub files: Result<(), String>,
    /// Whether its waits can look at network devices, or why not.
    pub napi: Result<(), String>,
}

/// Sets a ring up, registers a little, and takes it apart again.
pub fn probe() -> Features {
    let mut flavour = Err("no flavour was tried".to_owned());
    for candidate in Flavour::ALL {
        match ring(candidate) {
            Ok(mut ring) => {
                let (buffers, files) = ring.try_registrations();
                let words = |outcome: io::Result<()>| outcome.map_err(|error| error.to_string());
                return Features {
                    flavour: Ok(candidate.words()),
                    is_best: candidate == Flavour::ALL[0],
                    buffers: words(buffers),
                    files: words(files),
                    napi: words(ring.try_poll_devices()),
                };
            }
            Err(error) => flavour = Err(error.to_string()),
        }
    }
    let none = || Err("there is no ring".to_owned());
    Features { flavour, is_best: false, buffers: none(), files: none(), napi: none() }
}

fn ring(flavour: Flavour) -> io::Result<Uring> {
    Uring::new(Waker::new()?, &[flavour])
}
