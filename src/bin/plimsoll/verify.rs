//! `plimsoll log verify DIR`: reads the logs of a data directory from end to end and says what they hold and how they end.
//! Nothing in the directory is changed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use plimsoll::io::pool::Pool;
use plimsoll::io::{Disk, DiskError, DiskEvent, Full, Read, SegmentId, Write};
use plimsoll::limits::BLOCK_BYTES_MAX;
use plimsoll::log::Options;
use plimsoll::log::verify::{End, Report, verify};
use plimsoll::node::config::cluster_id;
use plimsoll::types::{Flushed, LaneId, NodeId, WriteSequence};
use rustix::fs::FlockOperation;
use serde::Deserialize;

use crate::common::{Failure, Verdict, say};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A node's data directory; the node must not be running
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// What the data directory says of itself, as far as it is needed here.
#[derive(Deserialize)]
struct Identity {
    cluster: String,
    node: u32,
    lanes: u16,
    segment_mib: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let directory = &arguments.directory;
    let path = directory.join("identity.toml");
    let text =
        fs::read_to_string(&path).map_err(Failure::on(format!("{}: no data directory", path.display())))?;
    let identity: Identity = toml::from_str(&text).map_err(Failure::on(path.display()))?;
    let _held = hold(directory)?;
    let mut verdict = Verdict::Good;
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
        let report = verify(&mut disk, &Pool::new(1), &options).map_err(Failure::of)?;
        tell(lane, &report);
        if !matches!(report.end, End::Clean | End::Torn { .. }) {
            verdict = Verdict::Bad;
        }
    }
    Ok(verdict)
}

/// Keeps nodes from starting on the directory, and refuses if one runs.
fn hold(directory: &Path) -> Result<File, Failure> {
    let path = directory.join("lock");
    let file = File::open(&path).map_err(Failure::on(path.display()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| {
        Failure(format!("{}: a node runs on it ({error}); stop it first", directory.display()))
    })?;
    Ok(file)
}

fn tell(lane: LaneId, report: &Report) {
    let Report { segments, batches, records, bytes, end_segment, end_offset, .. } = report;
    say(&format!("lane {lane}: {segments} segments, {batches} batches, {records} records, {bytes} bytes"));
    for shard in &report.shards {
        say(&format!(
            "  shard {}: {} entries ({} written) up to {}, {} payload bytes, {} terms, {} votes, the last in term {}",
            shard.shard,
            shard.entries,
            shard.entries_written,
            shard.last,
            shard.payload_bytes,
            shard.terms.len(),
            shard.votes_written,
            shard.vote.term
        ));
    }
    let end = match &report.end {
        End::Clean => "clean".to_owned(),
        End::Torn { what } => {
            format!("torn: {what}; that was promised to nobody and is cut off at the next start")
        }
        End::Corrupt { what } => {
            format!("CORRUPT: {what}; replace the disk, and bring the node back as a new member")
        }
        End::Foreign { what } => format!("FOREIGN: {what}"),
        End::Version { found } => format!("format version {found}, which this build does not read"),
    };
    say(&format!("  ends in segment {end_segment} at byte {end_offset}, {end}"));
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
