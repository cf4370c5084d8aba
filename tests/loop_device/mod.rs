//! A block device for a test: a loop device over a sparse file, gone with the value.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    directory: PathBuf,
}

impl LoopDevice {
    /// One of this size and logical block, or, said in one line, `None` where the system does not let this process have
    /// it.
    pub(crate) fn attach(mib: u64, block_bytes: u32) -> Option<LoopDevice> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("plimsoll-loop-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let backing = directory.join("backing");
        File::create(&backing).and_then(|file| file.set_len(mib << 20)).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on", "--sector-size", &block_bytes.to_string()])
            .arg(&backing)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap().trim().into();
                Some(LoopDevice { path, directory })
            }
            refused => {
                std::fs::remove_dir_all(&directory).unwrap();
                let why = refused.map_or_else(
                    |error| error.to_string(),
                    |output| {
                        String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()
                    },
                );
                println!("not tested on a block device: no loop device can be made ({why})");
                None
            }
        }
    }

    /// `/dev/loopN`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Whoever has it open still, a killed node's ring, keeps it a moment longer: then it goes by itself.
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).output();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
