//! Reads the logs of a data directory or a block device without changing anything in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use serde::Deserialize;

use super::config::{cluster_id, parse};
use super::identity::{lane_path, lost_log};
use crate::io::disk::device::{Claim, Held, Region};
use crate::io::disk::{segment_of, segment_path};
use crate::io::locked::Locked;
use crate::io::pool::Pool;
use crate::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use crate::limits::BLOCK_BYTES_MAX;
use crate::log::Options;
use crate::log::verify::{Report, verify};
use crate::types::{ClusterId, Flushed, LaneId, NodeId, WriteSequence};

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
        let path = lane_path(directory, lane);
        if !path.exists() {
            return Err(format!(
                "{}: it is not there; if this node's log lies on a block device, give that instead",
                path.display()
            ));
        }
        if lost_log(directory, identity.lanes) == Some(lane) {
            return Err(format!(
                "{}: the log of lane {lane} is gone: the node had one, and here is none (is a filesystem not mounted?)",
                path.display()
            ));
        }
        let disk = ReadOnly::Files { directory: path, segment_bytes: identity.segment_mib << 20 };
        let (cluster, node) = (cluster_id(&identity.cluster), NodeId(identity.node));
        reports.push((lane, verify_lane(disk, cluster, node, lane)?));
    }
    Ok(reports)
}

/// The same for the logs on a block device.
pub fn verify_device(path: &Path) -> Result<Vec<(LaneId, Report)>, String> {
    let claim = Claim::for_reading(path).map_err(|error| error.to_string())?;
    match claim.held() {
        Held::Log(_) => {}
        Held::Nothing => return Err(format!("{}: there is nothing on it", path.display())),
        Held::Other(what) => return Err(format!("{}: it holds {what}", path.display())),
    }
    let device = Arc::new(claim.open().map_err(|error| error.to_string())?);
    let owner = device.superblock().owner;
    let mut reports = Vec::new();
    for lane in (owner.first_lane.0..owner.first_lane.0 + owner.lanes).map(LaneId) {
        let region = Region::open(Arc::clone(&device), lane, &mut Vec::new());
        let disk = ReadOnly::Device(region.map_err(|error| error.to_string())?);
        reports.push((lane, verify_lane(disk, owner.cluster, owner.node, lane)?));
    }
    Ok(reports)
}

fn verify_lane(mut disk: ReadOnly, cluster: ClusterId, node: NodeId, lane: LaneId) -> Result<Report, String> {
    let options =
        Options { cluster, node, lane, shards: Vec::new(), segments_max: u64::MAX, segments_ahead: 0 };
    verify(&mut disk, &Pool::new(1), &options).map_err(|error| error.to_string())
}

fn hold(directory: &Path) -> Result<Locked, String> {
    let path = directory.join("lock");
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)
        .map_err(|error| format!("{}: a node runs on it ({error}); stop it first", directory.display()))?;
    Ok(Locked::of(file))
}

/// Segments that are only read.
enum ReadOnly {
    Files { directory: PathBuf, segment_bytes: u64 },
    Device(Region),
}

fn failed(operation: &str, place: &Path, cause: impl ToString) -> DiskError {
    let (operation, place) = (operation.to_owned(), place.display().to_string());
    DiskError { operation, place, cause: cause.to_string(), no_space: false }
}

impl Disk for ReadOnly {
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES_MAX
    }

    fn segment_bytes(&self) -> u64 {
        match self {
            ReadOnly::Files { segment_bytes, .. } => *segment_bytes,
            ReadOnly::Device(region) => region.segment_bytes(),
        }
    }

    fn segments(&self) -> Result<Vec<SegmentId>, DiskError> {
        let directory = match self {
            ReadOnly::Files { directory, .. } => directory,
            ReadOnly::Device(region) => return Ok(region.segments()),
        };
        let failed = |error: io::Error| failed("list segments", directory, error);
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            segments.extend(segment_of(&entry.map_err(failed)?.file_name().to_string_lossy()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn read_now(&mut self, segment: SegmentId, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let path = match self {
            ReadOnly::Files { directory, .. } => segment_path(directory, segment),
            ReadOnly::Device(region) => return region.read_at(segment, offset, into),
        };
        let read = File::open(&path).and_then(|file| file.read_exact_at(into, offset));
        read.map_err(|error| failed(&format!("read {} bytes at {offset}", into.len()), &path, error))
    }

    fn sync_now(&mut self, _: WriteSequence) -> Result<Flushed, DiskError> {
        Err(failed("flush", Path::new("the log"), "it is open for reading alone"))
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
