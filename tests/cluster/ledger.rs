//! What was submitted and how it ended, and the check against what the replicas hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plimsoll::client::{Client, Completion, Outcome, Reader, RequestId, Submit};
use plimsoll::local::Cluster;
use plimsoll::types::{Index, NodeId, ShardId, Timestamp};

/// Numbered records: record n is the same bytes whenever it is made.
pub(crate) fn payload(number: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = number ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() < len_bytes.max(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.push((state >> 56) as u8);
    }
    bytes.truncate(len_bytes.max(8));
    bytes
}

/// How long record n is: mostly short, now and then long.
pub(crate) fn len_bytes(number: u64) -> usize {
    match number % 97 {
        0 => 300_000,
        1..=9 => 4096,
        n => 8 + (n as usize * 13) % 500,
    }
}

/// A client that submits numbered records to one shard and keeps the books.
pub(crate) struct Ledger {
    pub(crate) client: Client,
    shard: ShardId,
    next: u64,
    under_way: BTreeMap<RequestId, u64>,
    /// Record number → where it was said to be committed.
    pub(crate) acknowledged: BTreeMap<u64, Index>,
    /// Records whose outcome was said to be unknown: they may be there, once.
    pub(crate) unknown: Vec<u64>,
    /// Records that were said not to be taken: they must not be there.
    pub(crate) refused: Vec<u64>,
    last_refusal: Option<Outcome>,
    completions: Vec<Completion>,
}

impl Ledger {
    pub(crate) fn open(cluster: &Cluster, shard: u32) -> Ledger {
        Ledger {
            client: Client::connect(cluster.client_options()).unwrap(),
            shard: ShardId(shard),
            next: 0,
            under_way: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            unknown: Vec::new(),
            refused: Vec::new(),
            last_refusal: None,
            completions: Vec::new(),
        }
    }

    /// Keeps `outstanding` records under way until `until` says stop.
    pub(crate) fn load(&mut self, outstanding: usize, mut until: impl FnMut(&Ledger) -> bool) {
        while !until(self) {
            while self.under_way.len() < outstanding {
                self.submit();
            }
            self.take_in(Duration::from_millis(20));
        }
    }

    pub(crate) fn load_for(&mut self, outstanding: usize, duration: Duration) {
        let until = Instant::now() + duration;
        self.load(outstanding, |_| Instant::now() >= until);
    }

    fn submit(&mut self) {
        let number = self.next;
        let bytes = payload(number, len_bytes(number));
        let submit = Submit { timestamp: Timestamp(number), ..Submit::new(self.shard, &bytes) };
        let request = self.client.submit(submit).unwrap();
        self.next += 1;
        self.under_way.insert(request, number);
    }

    fn take_in(&mut self, wait: Duration) {
        self.client.flush();
        self.client.poll(wait, &mut self.completions);
        for completion in self.completions.drain(..) {
            let number = self.under_way.remove(&completion.request).expect("one outcome for each submit");
            match completion.outcome {
                Outcome::Committed { id, timestamp } => {
                    assert_eq!(timestamp, Timestamp(number), "the timestamp comes back as it was given");
                    self.acknowledged.insert(number, id.index);
                }
                outcome if outcome.is_unknown() => self.unknown.push(number),
                outcome => {
                    self.refused.push(number);
                    self.last_refusal = Some(outcome);
                }
            }
        }
    }

    /// Waits for the outcome of everything that is under way.
    pub(crate) fn settle(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.under_way.is_empty() {
            assert!(Instant::now() < until, "{} submits never had an outcome", self.under_way.len());
            self.take_in(Duration::from_millis(50));
        }
    }

    /// Submits one more record until it is acknowledged; everything before it is final then. Returns its index.
    pub(crate) fn seal(&mut self) -> Index {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < until, "nothing commits any more: {:?}", self.last_refusal);
            let number = self.next;
            self.submit();
            self.settle();
            if let Some(&index) = self.acknowledged.get(&number) {
                return index;
            }
        }
    }

    /// Reads every replica up to the seal and holds it against the books. Returns how many records there were.
    pub(crate) fn check(&mut self, cluster: &Cluster, replicas: &[NodeId]) -> usize {
        let seal = self.seal();
        let mut first: Option<Vec<(Index, u64)>> = None;
        for &node in replicas {
            let found = self.read(cluster, node, seal);
            if let Some(first) = &first {
                assert_eq!(first, &found, "node {node} holds what another does not");
            }
            first = Some(found);
        }
        let found = first.expect("there are replicas");
        let mut places: BTreeMap<u64, Index> = BTreeMap::new();
        for &(index, number) in &found {
            let before = places.insert(number, index);
            assert_eq!(before, None, "record {number} is there twice");
        }
        let mut last = Index(0);
        for (number, index) in &self.acknowledged {
            assert_eq!(places.get(number), Some(index), "record {number} was acknowledged at {index}");
            assert!(*index > last, "record {number} overtook one that was submitted before it");
            last = *index;
        }
        for number in &self.refused {
            assert_eq!(places.get(number), None, "record {number} was said not to be taken");
        }
        let known = self.acknowledged.len() + self.unknown.len();
        assert!(found.len() <= known, "{} records are there, {known} may be", found.len());
        found.len()
    }

    /// What a replica holds up to `seal`: index and record number, every byte compared.
    fn read(&self, cluster: &Cluster, node: NodeId, seal: Index) -> Vec<(Index, u64)> {
        let mut reader = Reader::open(cluster.client_options(), node, self.shard, Index(1)).unwrap();
        let mut found = Vec::new();
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(
                Instant::now() < until,
                "node {node} has not caught up; committed there: {}",
                reader.commit()
            );
            let Ok(Some(record)) = reader.next_record(Duration::from_millis(500)) else { continue };
            let number = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
            assert!(
                record.payload == payload(number, len_bytes(number)),
                "record {number} is altered on node {node}"
            );
            assert_eq!(record.timestamp, Timestamp(number));
            found.push((record.id.index, number));
            if record.id.index >= seal {
                assert_eq!(record.id.index, seal);
                return found;
            }
        }
    }
}
