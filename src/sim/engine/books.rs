//! What was seen of the engine, and what must be true of it: no watermark passes a registered stream or goes back,
//! every replica replays the same, in order and never the dead, and what is lost takes with it what came after it.

use std::collections::BTreeMap;

use crate::engine::replay::{ENTRY_BYTES, Replay};
use crate::engine::{Fate, Fold, Mark, Position};
use crate::sim::fabric::Fabric;
use crate::sim::oracle::Committed;
use crate::sim::random::Random;
use crate::types::{Epoch, ShardId, Stamp, Timestamp};

/// The bytes of a record.
pub(super) const RECORD_BYTES: usize = 40;

/// What was seen.
#[derive(Default)]
pub(super) struct Books {
    /// Every transaction that was begun.
    begun: Vec<(ShardId, Stamp)>,
    /// Of each epoch the largest stamp that was begun.
    latest: BTreeMap<Epoch, Timestamp>,
    /// Of each epoch the largest watermark that any node told.
    told: BTreeMap<Epoch, Timestamp>,
    /// Of each closed epoch the last timestamp that lives, as some node told.
    ends: BTreeMap<Epoch, Timestamp>,
    /// Per node: its watermark in this life.
    watermarks: Vec<Stamp>,
}

/// The committed marks of one stream, each with the largest watermark that was told before it was committed.
type Marks = Vec<(Mark, Stamp)>;

impl Books {
    pub(super) fn new(nodes: usize) -> Books {
        Books { watermarks: vec![Stamp::ZERO; nodes], ..Books::default() }
    }

    /// A transaction has begun: from now on others may read from it.
    pub(super) fn begin(&mut self, stream: ShardId, stamp: Stamp) {
        self.begun.push((stream, stamp));
        let latest = self.latest.entry(stamp.epoch).or_default();
        *latest = (*latest).max(stamp.timestamp);
    }

    /// The largest stamp that was begun in an epoch.
    pub(super) fn latest(&self, epoch: Epoch) -> Timestamp {
        self.latest.get(&epoch).copied().unwrap_or_default()
    }

    /// After a turn of a node: the watermark that it tells. `None`: it has just started.
    pub(super) fn observe(&mut self, fabric: &mut Fabric, node: usize, watermark: Option<Stamp>) {
        let before = &mut self.watermarks[node];
        let Some(watermark) = watermark else {
            *before = Stamp::ZERO;
            return;
        };
        if watermark < *before {
            let why = format!("node {}: the watermark goes back from {before} to {watermark}", node + 1);
            return fabric.oracle.fail(why);
        }
        *before = watermark;
        fabric.oracle.published = fabric.oracle.published.max(watermark);
        let told = self.told.entry(watermark.epoch).or_default();
        *told = (*told).max(watermark.timestamp);
    }

    /// A node has told what lives of an epoch: as every other one has.
    pub(super) fn epoch_closed(&mut self, fabric: &mut Fabric, last: Stamp) {
        let known = *self.ends.entry(last.epoch).or_insert(last.timestamp);
        if known != last.timestamp {
            fabric.oracle.fail(format!("an epoch ends at {last}, and at {known} on another node"));
        }
    }

    /// All is committed and read back: what was told must be true.
    pub(super) fn check(&self, fabric: &mut Fabric) -> Result<(), String> {
        let logs = logs_of(fabric);
        let truth = check_overtaken(&logs)?;
        for (&epoch, &told) in &self.told {
            if truth.registry().last_of(epoch).is_some_and(|last| told > last) {
                return Err(format!(
                    "epoch {epoch}: the watermark {told} was told, and dead is what it covers"
                ));
            }
        }
        if let Some((epoch, told)) =
            self.ends.iter().find(|(epoch, told)| truth.registry().last_of(**epoch) != Some(**told))
        {
            return Err(format!("epoch {epoch}: it was told to end at {told}, and does not"));
        }
        if let Some((node, told)) = self.watermarks.iter().enumerate().find(|(node, told)| {
            fabric.nodes[*node].up && !fabric.nodes[*node].disk.rotten && **told != truth.watermark()
        }) {
            let (node, all) = (node + 1, truth.watermark());
            return Err(format!("node {node} tells the watermark {told} for good, where all is {all}"));
        }
        let first = replayed(&logs, truth.watermark(), &mut fabric.random)?;
        let second = replayed(&logs, truth.watermark(), &mut fabric.random)?;
        if first != second {
            return Err("two replicas replay different entries".to_owned());
        }
        let dead = check_replayed(&logs, &truth, &first)?;
        self.check_lost(&first)?;
        let counts = &mut fabric.oracle.counts;
        counts.replayed += first.iter().map(|stream| stream.len() as u64).sum::<u64>();
        counts.dead += dead;
        counts.epochs += u64::from(truth.registry().open_epoch().0);
        Ok(())
    }

    /// What was begun and is not replayed has taken with it all of its epoch that was stamped after it.
    fn check_lost(&self, replayed: &[Vec<Stamp>]) -> Result<(), String> {
        let mut last_live: BTreeMap<Epoch, Timestamp> = BTreeMap::new();
        for stamp in replayed.iter().flatten() {
            let last = last_live.entry(stamp.epoch).or_default();
            *last = (*last).max(stamp.timestamp);
        }
        for (stream, stamp) in &self.begun {
            let after = last_live.get(&stamp.epoch).is_some_and(|last| *last > stamp.timestamp);
            if after && replayed[stream.0 as usize].binary_search(stamp).is_err() {
                return Err(format!(
                    "stream {stream}: {stamp} is lost, and what may have read it is live up to {:?}",
                    last_live[&stamp.epoch]
                ));
            }
        }
        Ok(())
    }
}

/// No entry was committed at or under a watermark that was told before it.
fn check_overtaken(logs: &[Marks]) -> Result<Fold, String> {
    let mut truth = Fold::default();
    for (stream, log) in (0..).map(ShardId).zip(logs) {
        for (mark, published) in log {
            let counts = truth.take(stream, mark);
            if let Mark::Data(stamp) = mark
                && counts
                && stamp <= published
            {
                return Err(format!("stream {stream}: {stamp} is overtaken by the watermark {published}"));
            }
        }
    }
    Ok(truth)
}

/// What is replayed is in order, all that lives and nothing else. How many are dead.
fn check_replayed(logs: &[Marks], truth: &Fold, replayed: &[Vec<Stamp>]) -> Result<u64, String> {
    let mut dead = 0;
    for (stream, stamps) in replayed.iter().enumerate() {
        if !stamps.is_sorted() {
            return Err(format!("stream {stream}: is replayed out of order"));
        }
        if let Some(stamp) = stamps.iter().find(|stamp| truth.fate(**stamp) != Fate::Live) {
            return Err(format!("stream {stream}: {stamp} is replayed, and is not live"));
        }
        let mut position = Position::default();
        let mut live = 0;
        for (mark, _) in &logs[stream] {
            if position.take(mark)
                && let Mark::Data(stamp) = mark
            {
                live += usize::from(truth.fate(*stamp) == Fate::Live);
                dead += u64::from(truth.fate(*stamp) == Fate::Dead);
            }
        }
        if live != stamps.len() {
            return Err(format!("stream {stream}: not all that lives is replayed"));
        }
    }
    Ok(dead)
}

fn logs_of(fabric: &Fabric) -> Vec<Marks> {
    let of = |entry: &Committed| {
        let header = entry.content.expect("everything was read back").header();
        Mark::of(&header).ok().flatten().map(|mark| (mark, entry.published))
    };
    fabric.oracle.shards.iter().map(|log| log.iter().filter_map(of).collect()).collect()
}

/// What a replica replays that reads the streams in some order, one of them behind the others and often with hardly any
/// room, until its watermark is `last` and it has read all that it can.
fn replayed(logs: &[Marks], last: Stamp, random: &mut Random) -> Result<Vec<Vec<Stamp>>, String> {
    let mut replay = Replay::new(*random.pick(&[3, 3, 40, 10_000]) * (RECORD_BYTES + ENTRY_BYTES));
    let many_max = *random.pick(&[8, 8, 100]);
    let behind = random.below(logs.len() as u64) as usize;
    let behind_ppm = *random.pick(&[0, 900_000]);
    let mut next = vec![0; logs.len()];
    let mut replayed = vec![Vec::new(); logs.len()];
    loop {
        let mut moved = false;
        for _ in 0..logs.len() {
            let stream = random.below(logs.len() as u64) as usize;
            if stream == behind && random.chance(behind_ppm) {
                continue;
            }
            let many = random.between(1, many_max) as usize;
            for (mark, _) in logs[stream].iter().skip(next[stream]).take(many) {
                if replay.push(ShardId(stream as u32), mark, &[0; RECORD_BYTES]).is_err() {
                    break;
                }
                next[stream] += 1;
                moved = true;
            }
        }
        moved |= replay.drain(|stream, stamp, _| replayed[stream.0 as usize].push(stamp)) > 0;
        let left = (0..logs.len()).any(|stream| next[stream] < logs[stream].len());
        let stands_still = !moved && !can_move(logs, &next, &replay);
        if !left || stands_still && replay.fold().watermark() == last {
            return Ok(replayed);
        }
        if stands_still {
            return Err("deferred replay is stuck: every stream that has more waits for another".to_owned());
        }
    }
}

/// Whether some stream can be given more, whichever it is.
fn can_move(logs: &[Marks], next: &[usize], replay: &Replay) -> bool {
    (0..logs.len()).any(|stream| {
        logs[stream].get(next[stream]).is_some_and(|(mark, _)| {
            !matches!(mark, Mark::Data(_)) || replay.has_room(ShardId(stream as u32), RECORD_BYTES)
        })
    })
}
