//! How a log ends: a decision table, and what opening makes of a disk by it.
//!
//! The scan goes from batch to batch. At the first place where the next one does not stand, two questions decide: what
//! stands there, and whether a batch behind it *proves* that what should stand there had been durable. A batch proves
//! that if it is whole, has a later sequence, and says in its header that everything up to the missing one was on
//! stable storage when it was laid.
//!
//! ```text
//! what stands there            no proof behind       proof behind
//! nothing                      clean end             corrupt
//! no header, a broken one      torn tail             corrupt
//! a header, broken records     torn tail             corrupt
//! a void batch                 torn tail             corrupt
//! another log's, first place   foreign               foreign
//! another log's, elsewhere     corrupt               corrupt
//! another version's            version               version
//! ```
//! A *void* batch is whole and of this log, but does not follow the last good one: a later write of a process that died
//! with several in flight, of which an earlier one did not survive. Nothing in it was ever promised, since promises
//! follow the contiguous prefix alone.
//!
//! What is cut off is not overwritten at once, so it must never come to life when new batches lie before it. Three
//! things see to that: each batch names the checksum of the header before it; the header is bound to every byte of the
//! records; and it carries the number of the log's *life*, one more at each opening than the highest that any header on
//! the disk tells. Lives never go down along the chain, so no batch of an earlier life follows one of a later.
//!
//! The last batches before a crash have no batch behind them that would prove them. If one of those decays between the
//! crash and the opening it is taken for torn, as nobody could tell the two apart; the other replicas have it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::batch::Header;
use super::record::{self, Kind, Malformed};
use super::scan::{Position, Scanner, Step, describe, place_of};
use super::shards::Shards;
use super::stretch::Extent;
use super::{Identity, OpenError, RecoveredShard};
use crate::io::Disk;
use crate::io::pool::Chunk;
use crate::types::{Durable, EntryId, Flushed, WriteSequence};

/// What stands where the next batch should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// The next batch, whole.
    Good(Header),
    /// Zeros, or the end of what exists.
    Blank,
    /// No header, or one whose checksum or bounds do not hold.
    Garbage,
    /// The next batch's header, and records that are not whole.
    Torn { span_bytes: usize, why: Malformed },
    /// A good header of this log that does not follow the last good batch.
    Void,
    /// A good header of another log.
    Foreign(Identity),
    /// A header of another format.
    Version(u16),
}

/// Everything that decides how a log ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub(super) spot: Spot,
    /// No good batch comes before.
    pub(super) first: bool,
    /// A batch behind that proves that what is missing was durable.
    pub(super) proof: Option<Position>,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing more was written.
    Clean,
    /// A write that nobody was promised did not survive whole.
    Torn,
    /// Something that had been durable is not readable.
    Corrupt,
    /// Another log's.
    Foreign,
    /// Another format's.
    Version,
}

/// The table. Total: every piece of evidence has exactly one verdict.
pub(super) fn decide(evidence: &Evidence) -> Verdict {
    match (evidence.spot, evidence.first, evidence.proof.is_some()) {
        (Spot::Good(_), ..) => unreachable!("a good batch is no end"),
        (Spot::Version(_), ..) => Verdict::Version,
        (Spot::Foreign(_), true, _) => Verdict::Foreign,
        (Spot::Foreign(_), false, _) => Verdict::Corrupt,
        (Spot::Blank | Spot::Garbage | Spot::Torn { .. } | Spot::Void, _, true) => Verdict::Corrupt,
        (Spot::Blank, _, false) => Verdict::Clean,
        (Spot::Garbage | Spot::Torn { .. } | Spot::Void, _, false) => Verdict::Torn,
    }
}

/// What opening needs to go on from.
pub(super) struct Recovered {
    pub(super) shards: Shards,
    pub(super) next: Position,
    pub(super) sequence: u64,
    pub(super) previous_crc: u32,
    pub(super) life: u32,
}

/// Reads everything, replays it, and decides how it ends.
pub(super) fn recover<D: Disk>(
    disk: &mut D,
    memory: Chunk,
    identity: Identity,
    shards: Shards,
) -> Result<Recovered, OpenError> {
    let mut shards = shards;
    let mut scanner = Scanner::new(disk, memory, identity).map_err(OpenError::Disk)?;
    loop {
        match scanner.step().map_err(OpenError::Disk)? {
            Step::Batch(batch) => replay(&mut shards, &batch.header, batch.records)?,
            Step::End(at, evidence) => {
                refuse(at, &evidence, identity)?;
                break;
            }
        }
    }
    let (sequence, previous_crc) =
        scanner.previous.map_or((0, 0), |header| (header.sequence, header.header_crc));
    // Lives end after four billion openings; the last one is then shared, and the chain alone keeps void batches out.
    let life = scanner.life_max.saturating_add(1);
    Ok(Recovered { shards, next: scanner.next, sequence, previous_crc, life })
}

/// The error that the end of a log is, if it is one.
fn refuse(at: Position, evidence: &Evidence, identity: Identity) -> Result<(), OpenError> {
    match decide(evidence) {
        Verdict::Clean | Verdict::Torn => Ok(()),
        Verdict::Foreign => {
            let Spot::Foreign(found) = evidence.spot else { unreachable!("the table says so") };
            Err(OpenError::Foreign { found: format!("{found}"), expected: format!("{identity}") })
        }
        Verdict::Version => {
            let Spot::Version(found) = evidence.spot else { unreachable!("the table says so") };
            Err(OpenError::Version { found })
        }
        Verdict::Corrupt => {
            Err(OpenError::Corrupt { segment: at.segment, offset: at.offset, what: corruption(evidence) })
        }
    }
}

/// What is wrong at a place that should hold a batch, in words.
pub(super) fn corruption(evidence: &Evidence) -> String {
    let found = match evidence.spot {
        Spot::Good(_) => String::from("a batch stands here"),
        Spot::Blank => String::from("nothing stands here"),
        Spot::Garbage => String::from("no batch begins here"),
        Spot::Torn { why, .. } => format!("a batch stands here and {}", describe(why)),
        Spot::Void => String::from("a batch stands here that does not follow the one before"),
        Spot::Foreign(of) => format!("a batch of {of} stands here"),
        Spot::Version(version) => format!("a batch of format version {version} stands here"),
    };
    match evidence.proof {
        Some(proof) => {
            format!("{found}, though the batch in {} proves that this was durable", place_of(proof))
        }
        None => found,
    }
}

/// Takes in the records of one good batch.
pub(super) fn replay(shards: &mut Shards, header: &Header, records: &[u8]) -> Result<(), OpenError> {
    let batch = Extent::of(header);
    let mut place = batch.begin.plus(super::batch::HEADER_BYTES);
    for record in record::records(records) {
        let corrupt = |what: String| OpenError::Corrupt {
            segment: u64::from(place.segment),
            offset: u64::from(place.offset),
            what,
        };
        let record = record.map_err(|malformed| corrupt(describe(malformed)))?.header;
        let span_bytes = record::span_bytes(record.len_bytes as usize);
        let Some(position) = shards.position(crate::types::ShardId(record.shard)) else {
            return Err(OpenError::Foreign {
                found: format!("records of shard {}", record.shard),
                expected: String::from("records of this lane's shards alone"),
            });
        };
        let log = &mut shards.logs[position];
        if record.kind() == Some(Kind::Vote) {
            log.vote = record.as_vote();
        } else {
            let id: EntryId = record.id();
            log.truncate_after(id.index.previous());
            if !log.follows(id) {
                let last = log.last;
                return Err(corrupt(format!("shard {}: entry {id} does not follow {last}", record.shard)));
            }
            log.append_on_disk(id, &batch, place, span_bytes as u32);
        }
        place = place.plus(span_bytes);
    }
    Ok(())
}

/// The shards as a node is told of them, under the proof that what was read is durable.
pub(super) fn told(shards: &Shards, proof: &Flushed) -> Vec<RecoveredShard> {
    let tell = |log: &super::shards::ShardLog| RecoveredShard {
        shard: log.shard,
        vote: Durable::covered_by(proof, log.vote),
        last: Durable::covered_by(proof, log.last),
        terms: log.terms(),
    };
    shards.logs.iter().map(tell).collect()
}

/// Makes durable what was read, and says so.
pub(super) fn settle<D: Disk>(disk: &mut D, sequence: u64) -> Result<Flushed, OpenError> {
    let proof = disk.sync_now(WriteSequence(sequence)).map_err(OpenError::Disk)?;
    assert_eq!(proof.sequence(), WriteSequence(sequence), "a disk confirms what it was asked to");
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_exactly_the_verdict_of_the_table() {
        use Verdict::{Clean, Corrupt, Foreign, Torn, Version};
        let other = Identity { cluster: 1, node: 2, lane: 3 };
        // Spot; not first and first without proof; not first and first with proof.
        let table = [
            (Spot::Blank, [Clean, Clean, Corrupt, Corrupt]),
            (Spot::Garbage, [Torn, Torn, Corrupt, Corrupt]),
            (Spot::Torn { span_bytes: 512, why: Malformed::Truncated }, [Torn, Torn, Corrupt, Corrupt]),
            (Spot::Void, [Torn, Torn, Corrupt, Corrupt]),
            (Spot::Foreign(other), [Corrupt, Foreign, Corrupt, Foreign]),
            (Spot::Version(2), [Version; 4]),
        ];
        for (spot, verdicts) in table {
            for (case, verdict) in verdicts.into_iter().enumerate() {
                let proof = (case >= 2).then(Position::default);
                assert_eq!(
                    decide(&Evidence { spot, first: case % 2 == 1, proof }),
                    verdict,
                    "{spot:?} {case}"
                );
            }
        }
    }
}
