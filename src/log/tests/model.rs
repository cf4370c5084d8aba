//! Random lives and deaths of a log against an obvious model: the list of everything ever laid. What a crash leaves
//! must be what the first so many of them make, and so many include everything that was told durable.

use alloc::collections::BTreeMap;

use super::disk::Random;
use super::*;
use crate::log::verify::verify;

#[derive(Clone, Debug)]
enum Op {
    Entry { shard: u32, id: EntryId, payload: Vec<u8> },
    Vote { shard: u32, vote: Vote },
}

/// What a shard is after some operations.
#[derive(Default)]
struct Shard {
    entries: Vec<Entry>,
    vote: Vote,
}

fn replay(ops: &[Op]) -> BTreeMap<u32, Shard> {
    let mut shards: BTreeMap<u32, Shard> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Vote { shard, vote } => shards.entry(*shard).or_default().vote = *vote,
            Op::Entry { shard, id, payload } => {
                let entries = &mut shards.entry(*shard).or_default().entries;
                entries.truncate(id.index.0 as usize - 1);
                entries.push((id.term.0, payload.clone()));
            }
        }
    }
    shards
}

struct World {
    random: Random,
    pools: [Pool; 2],
    log: Log<MemDisk>,
    ops: Vec<Op>,
    /// So many operations were told durable.
    told: usize,
    terms: BTreeMap<u32, u64>,
    /// Logs of shards as they were before they were cut back: another leader has them, and may come back with them.
    others: Vec<(u32, Vec<Entry>)>,
    crashes: u64,
    lost: u64,
    returns: u64,
}

impl World {
    fn act(&mut self) {
        match self.random.below(100) {
            0..42 => self.lay(),
            42..52 => self.receive(),
            52..54 => self.come_back(),
            54..58 => self.vote(),
            58..77 => self.log.submit(),
            77..94 => self.poll(),
            94..97 => self.log.forget(),
            97 => self.compare_one(),
            _ => self.crash(),
        }
    }

    fn shard(&mut self) -> u32 {
        options().shards[self.random.below(3) as usize].0
    }

    fn payload(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0 => 20_000,
            1..5 => 700,
            _ => 60,
        };
        vec![self.random.below(256) as u8; 1 + self.random.below(len) as usize]
    }

    fn lay(&mut self) {
        let shard = self.shard();
        let payload = self.payload();
        if self.log.room_for(payload.len()).is_err() {
            return;
        }
        let term = *self.terms.entry(shard).or_insert(1);
        let id = lay(&mut self.log, shard, term, &payload);
        self.ops.push(Op::Entry { shard, id, payload });
    }

    /// Records from a new leader, which take the place of the last few.
    fn receive(&mut self) {
        let shard = self.shard();
        let payloads = (0..1 + self.random.below(5)).map(|_| self.payload()).collect::<Vec<_>>();
        let last = self.log.last(ShardId(shard));
        let dropped_max = if self.random.chance(20) { 40 } else { 4 };
        let keep = last.index.0.saturating_sub(self.random.below(dropped_max));
        let term = self.terms.entry(shard).or_insert(1);
        *term += 1;
        let term = *term;
        self.supersede(shard, keep, term, payloads);
    }

    /// These take the place of what the shard has after `keep`, if there is room.
    fn supersede(&mut self, shard: u32, keep: u64, term: u64, payloads: Vec<Vec<u8>>) -> bool {
        let bytes = records(shard, term, keep + 1, &payloads);
        if self.log.room_for_received(&bytes).is_err() {
            return false;
        }
        let before = self.entries(shard);
        if (keep as usize) < before.len() {
            self.others.push((shard, before));
        }
        self.log.truncate_after(ShardId(shard), Index(keep));
        self.log.lay_received(ShardId(shard), &bytes);
        for (index, payload) in (keep + 1..).zip(payloads) {
            self.ops.push(Op::Entry { shard, id: id(term, index), payload });
        }
        true
    }

    fn entries(&self, shard: u32) -> Vec<Entry> {
        replay(&self.ops).remove(&shard).map_or(Vec::new(), |shard| shard.entries)
    }

    /// A leader comes back that has what was superseded here: the same entries, of the same terms, are laid once more.
    fn come_back(&mut self) {
        if self.others.is_empty() {
            return;
        }
        let number = self.random.below(self.others.len() as u64) as usize;
        let (shard, theirs) = self.others.swap_remove(number);
        *self.terms.entry(shard).or_insert(1) += 1;
        let ours = self.entries(shard);
        let agreed = theirs.iter().zip(&ours).take_while(|(theirs, ours)| theirs.0 == ours.0).count();
        let mut at = agreed;
        for same_term in theirs[agreed..].chunk_by(|one, next| one.0 == next.0) {
            let payloads = same_term.iter().map(|(_, payload)| payload.clone()).take(6).collect::<Vec<_>>();
            let count = payloads.len();
            if !self.supersede(shard, at as u64, same_term[0].0, payloads) {
                return;
            }
            self.returns += count as u64;
            at += count;
            if count < same_term.len() {
                break;
            }
        }
    }

    fn vote(&mut self) {
        let shard = self.shard();
        let term = self.terms.entry(shard).or_insert(1);
        *term += 1;
        let vote = vote(*term, 1 + self.random.below(3) as u32);
        self.log.lay_vote(ShardId(shard), vote);
        self.ops.push(Op::Vote { shard, vote });
    }

    fn poll(&mut self) {
        let disk = self.log.disk_mut();
        for _ in 0..self.random.below(4) {
            if !disk.writes.is_empty() {
                let position = self.random.below(disk.writes.len() as u64) as usize;
                disk.finish(position);
            }
        }
        for told in poll(&mut self.log) {
            let place =
                match told {
                    // Of an entry that came twice it may be the first that is durable.
                    Told::Entries(of, at) => self.ops.iter().position(
                        |op| matches!(op, Op::Entry { shard, id, .. } if *shard == of && *id == at),
                    ),
                    Told::Vote(of, at) => self.ops.iter().rposition(
                        |op| matches!(op, Op::Vote { shard, vote } if *shard == of && *vote == at),
                    ),
                    Told::Fetched => continue,
                    Told::NoSpace | Told::SpaceAgain => panic!("this disk has room"),
                    Told::Failed(why) => panic!("{why}"),
                };
            self.told = self.told.max(place.expect("only what was laid is told durable") + 1);
        }
    }

    fn crash(&mut self) {
        let image = self.log.disk_mut().crash(&mut self.random);
        let block = self.log.disk().block;
        self.crashes += 1;
        // The old log still holds its memory while the new one opens: they take turns with two pools.
        self.pools.swap(0, 1);
        let pool = self.pools[0].clone();
        let mut disk = MemDisk::with(image, block, SEGMENT_BYTES);
        disk.eager = false;
        let survived = verify(&mut disk, &pool, &options()).unwrap().records as usize;
        assert!(survived >= self.told, "{survived} of {} survived, {} were told", self.ops.len(), self.told);
        self.lost += (self.ops.len() - survived) as u64;
        self.ops.truncate(survived);
        let (log, shards) = Log::open(disk, pool, options()).unwrap();
        self.log = log;
        self.told = survived;
        // Whoever leads after it leads in a later term.
        self.terms.values_mut().for_each(|term| *term += 1);
        let model = replay(&self.ops);
        for shard in shards {
            let expected = model.get(&shard.shard.0);
            assert_eq!(*shard.vote.get(), expected.map_or(Vote::default(), |shard| shard.vote));
            let count = expected.map_or(0, |shard| shard.entries.len());
            assert_eq!(shard.last.get().index.0, count as u64);
            let mut terms = expected.map_or(Vec::new(), |shard| {
                (1..).zip(&shard.entries).map(|(index, &(term, _))| id(term, index)).collect()
            });
            terms.dedup_by_key(|id| id.term);
            assert_eq!(shard.terms, terms);
        }
        self.compare();
    }

    /// Everything reads back as the model has it, in pieces of a random size.
    fn compare(&mut self) {
        for shard in options().shards {
            self.compare_shard(shard.0);
        }
    }

    fn compare_one(&mut self) {
        let shard = self.shard();
        self.compare_shard(shard);
    }

    fn compare_shard(&mut self, shard: u32) {
        let bytes_max = 21_000 + self.random.below(200_000) as usize;
        let entries = read_all(&mut self.log, shard, bytes_max);
        assert!(entries == self.entries(shard), "shard {shard}");
    }
}

fn live(seed: u64, pools: &[Pool; 2]) -> (u64, u64, usize, u64) {
    let mut random = Random::new(seed);
    let block = if random.chance(50) { 512 } else { 4096 };
    let mut disk = MemDisk::new(block, SEGMENT_BYTES);
    let options = options();
    disk.eager = false;
    let (log, _) = Log::open(disk, pools[0].clone(), options).unwrap();
    let terms = BTreeMap::new();
    let mut world = World {
        random,
        pools: pools.clone(),
        log,
        ops: Vec::new(),
        told: 0,
        terms,
        others: Vec::new(),
        crashes: 0,
        lost: 0,
        returns: 0,
    };
    for _ in 0..150 {
        world.act();
    }
    world.crash();
    (world.crashes, world.lost, world.ops.len(), world.returns)
}

#[test]
fn whatever_happens_the_log_holds_what_the_model_holds() {
    let pools = [Pool::new(4), Pool::new(4)];
    let mut sum = (0, 0, 0, 0);
    for seed in 1..=200 {
        let one = std::panic::catch_unwind(|| live(seed, &pools));
        let Ok(one) = one else { panic!("seed {seed} fails") };
        sum = (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2, sum.3 + one.3);
    }
    // A run in which little happened would show little.
    assert!(sum.0 > 500 && sum.1 > 1000 && sum.2 > 5000 && sum.3 > 100, "{sum:?}");
}
