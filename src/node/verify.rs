//! Reads the logs of a data directory without changing anything in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Deserialize;

use super::config::{cluster_id, parse};
use crate::io::pool::Pool;
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::BLOCK_BYTES_MAX;
use crate::log::Options;
use crate::log::verify::{Report, verify};
use crate::types::{Flushed, LaneId, NodeId, WriteSequence};

/// What the data directory says of itself, as far as it is needed here.
#[derive(Deserialize)]
struct Identity {
    cluster: String,
    node: u32,
    lanes: u16,
    segment_mib: u64,
}

/// Reads each lane's log from end to end. Meanwhile no node can start on the directory; if one runs, that is the error.
pub fn verify_directory(directory: &Path) -> Result<Vec<(LaneId, Report)>, String> {
    let path = directory.join("identity.toml");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("{}: no data directory: {error}", path.display()))?;
    let identity: Identity = parse(&text).map_err(|what| format!("{}: {what}", path.display()))?;
    let _held = hold(directory)?;
    let mut reports = Vec::new();
    for lane in (0..identity.lanes).map(LaneId) {
        let path = directory.join(format!("lane-{:04}", lane.0));
        let mut disk = ReadOnly { directory: path, segment_bytes: identity.segment_mib << 20 };
        let options = Options {
            cluster: cluster_id(&identity.cluster),
            node: NodeId(identity.node),
            lane,
            shards: Vec::new(),
            segments_max: u64::MAX,
            segments_ahead: 0,
        };
        let report = verify(&mut disk, &Pool::new(1), &options).map_err(|error| error.to_string())?;
        reports.push((lane, report));
    }
    Ok(reports)
}

fn hold(directory: &Path) -> Result<File, String> {
    let path = directory.join("lock");
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)
        .map_err(|error| format!("{}: a node runs on it ({error}); stop it first", directory.display()))?;
    Ok(file)
}

/// Segments that are only read.
struct ReadOnly {
    directory: PathBuf,
    segment_bytes: u64,
}

impl ReadOnly {
    fn failed(&self, operation: &str, place: &Path, cause: impl ToString) -> DiskError {
        let (operation, place) = (operation.to_owned(), place.display().to_string());
        DiskError { operation, place, cause: cause.to_string(), no_space: false }
    }
}

impl Disk for ReadOnly {
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES_MAX
    }

    fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        let failed = |error: io::Error| self.failed("list segments", &self.directory, error);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("segment-").and_then(|rest| rest.strip_suffix(".log"));
            segments.extend(number.and_then(|number| number.parse().ok()).map(SegmentId));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let path = self.directory.join(format!("segment-{:08}.log", segment.0));
        let read = File::open(&path).and_then(|file| file.read_exact_at(into, offset));
        read.map_err(|error| self.failed(&format!("read {} bytes at {offset}", into.len()), &path, error))
    }

    fn sync_now(&mut self, _: WriteSequence) -> Result<Flushed, DiskError> {
        Err(self.failed("flush", &self.directory, "it is open for reading alone"))
    }

    fn write(&mut self, write: Write) -> Result<(), Full<Write>> {
        Err(Full(write))
    }

    fn read(&mut self, read: Read) -> Result<(), Full<Read>> {
        Err(Full(read))
    }

    fn prepare(&mut self, _: SegmentId) {}

    fn poll(&mut self, _: &mut impl FnMut(DiskEvent)) -> usize {
        0
    }
}
