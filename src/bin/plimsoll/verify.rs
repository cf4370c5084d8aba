//! `plimsoll log verify PLACE`: reads the logs of a data directory or a block device from end to end and says what they
//! hold and how they end. Nothing there is changed.

use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use clap::Args;
use plimsoll::log::verify::{End, Report};
use plimsoll::node::verify::{verify_device, verify_directory};
use plimsoll::types::LaneId;

use crate::common::{Failure, Verdict, say};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A node's data directory, or the block device that its log lies on; the node must not be running
    #[arg(value_name = "PLACE")]
    place: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let place = &arguments.place;
    let is_device = std::fs::metadata(place).is_ok_and(|found| found.file_type().is_block_device());
    let verify = if is_device { verify_device } else { verify_directory };
    let reports = verify(place).map_err(Failure)?;
    reports.iter().for_each(|(lane, report)| tell(*lane, report));
    let opens = |report: &Report| matches!(report.end, End::Clean | End::Torn { .. });
    Ok(if reports.iter().all(|(_, report)| opens(report)) { Verdict::Good } else { Verdict::Bad })
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
            format!(
                "CORRUPT: {what}; a node does not start on it, and the other members go on without it. Keep the \
                 disk: what is on it was promised"
            )
        }
        End::Foreign { what } => format!("FOREIGN: {what}"),
        End::Version { found } => format!("format version {found}, which this build does not read"),
    };
    say(&format!("  ends in segment {end_segment} at byte {end_offset}, {end}"));
}
