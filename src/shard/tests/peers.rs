//! A lane among peers that say what a test lets them say. Each test keeps a bug that the simulator has found.

use super::*;
use crate::limits::{BLOCK_BYTES_MAX, CHUNK_BYTES};
use crate::raft::message::{Ack, Grant, Message};
use crate::wire;

pub(super) const TWO: NodeId = NodeId(2);
pub(super) const THREE: NodeId = NodeId(3);

impl Bench {
    pub(super) fn hear(&mut self, from: NodeId, message: &Message, records: &[u8]) {
        self.hear_of(from, ShardId(0), message, records);
    }

    pub(super) fn hear_of(&mut self, from: NodeId, shard: ShardId, message: &Message, records: &[u8]) {
        let mut head = Builder::new(Kind::Peer);
        head.push(&wire::peer::encode(shard, message, records.len()), records.len());
        let frame = [head.seal(), records].concat();
        self.lane.link_mut().inbox.push_back((from, frame));
    }

    /// What the lane has sent since it was last asked.
    pub(super) fn sent(&mut self) -> Vec<(NodeId, Message)> {
        self.sent_of_shards().into_iter().map(|(to, _, message)| (to, message)).collect()
    }

    pub(super) fn sent_of_shards(&mut self) -> Vec<(NodeId, ShardId, Message)> {
        let frames = core::mem::take(&mut self.lane.link_mut().outbox);
        let messages = |(to, frame): (NodeId, Vec<u8>)| {
            let decoded = wire::peer::decode(&frame).unwrap();
            decoded.map(|(shard, message, _)| (to, shard, message)).collect::<Vec<_>>()
        };
        frames.into_iter().flat_map(messages).collect()
    }

    /// With both peers there, until the lane has nothing more to say at this time.
    pub(super) fn settle(&mut self) {
        while self.lane.turn().unwrap().work > 0 || !self.lane.link_mut().outbox.is_empty() {
            self.serve_peers();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.0.set(self.clock.0.get() + time.as_nanos() as u64);
    }

    /// One that leads two others.
    pub(super) fn of_leader() -> Bench {
        Bench::of(3, 16).elected()
    }

    fn elected(self) -> Bench {
        let mut bench = self;
        while bench.lane.status(ShardId(0)).unwrap().commit == Index(0) {
            bench.lead(1, &[TWO, THREE]);
        }
        bench
    }

    /// So many turns, one every ten milliseconds, with the peers that are there. Who of them is told to stand comes
    /// back.
    pub(super) fn lead(&mut self, turns: usize, there: &[NodeId]) -> Vec<NodeId> {
        let turn = |bench: &mut Bench| {
            bench.pass(Duration::from_millis(10));
            bench.turn().unwrap();
            bench.serve(there)
        };
        (0..turns).flat_map(|_| turn(self)).collect()
    }

    /// Both peers vote for this node and take what it appends. Who is told to stand comes back.
    pub(super) fn serve_peers(&mut self) -> Vec<NodeId> {
        self.serve(&[TWO, THREE])
    }

    /// As [`Bench::serve_peers`]; of the two only these are there.
    pub(super) fn serve(&mut self, there: &[NodeId]) -> Vec<NodeId> {
        let mut told_to_stand = Vec::new();
        for (to, shard, message) in self.sent_of_shards() {
            if !there.contains(&to) {
                continue;
            }
            match message {
                Message::PreVote { term, .. } => {
                    self.hear_of(to, shard, &Message::PreVoteReply { term, granted: true }, &[]);
                }
                Message::RequestVote { term, .. } => {
                    self.hear_of(to, shard, &Message::VoteGranted(Grant::received(term)), &[]);
                }
                Message::Append { term, previous, count, round, .. } => {
                    let matched = Index(previous.index.0 + u64::from(count));
                    self.hear_of(to, shard, &Message::Appended(Ack::received(term, matched, round)), &[]);
                }
                Message::TimeoutNow { .. } => told_to_stand.push(to),
                other => panic!("{other:?}"),
            }
        }
        told_to_stand
    }
}

/// Entries of one term from `first` on, as they come in an append.
pub(super) fn entries(term: Term, first: u64, payloads: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    for (index, payload) in (first..).zip(payloads) {
        let header = record::Header {
            payload_crc: payload_crc(payload),
            len_bytes: payload.len() as u32,
            term: term.0,
            index,
            kind: record::Kind::Data as u8,
            ..record::Header::default()
        };
        let begin = all.len();
        all.resize(begin + record::span_bytes(payload.len()), 0);
        record::lay(header, payload, &mut all[begin..]);
    }
    all
}

pub(super) fn append(term: Term, previous: EntryId, count: u32, commit: u64) -> Message {
    Message::Append { term, previous, entries_term: term, count, commit: Index(commit), round: 0 }
}

/// A follower had an entry that no majority got. The next leader replaced it, and its append came late enough to tell
/// also that what it brought was committed. The lane measured what it was to drop by the protocol's commit, which that
/// same append had just moved, and a healthy follower stopped on an assertion that was wrong.
#[test]
fn an_append_may_drop_a_conflict_and_commit_what_replaces_it() {
    let mut bench = Bench::of(3, 16);
    let (old, new) = (Term(1), Term(2));
    let records = entries(old, 1, &[b"kept", b"superseded", b"superseded too"]);
    bench.hear(TWO, &append(old, EntryId::default(), 3, 1), &records);
    (0..8).for_each(|_| bench.turn().unwrap());
    let status = bench.lane.status(ShardId(0)).unwrap();
    assert_eq!((status.last, status.commit), (EntryId { term: old, index: Index(3) }, Index(1)));
    bench.sent();

    let records = entries(new, 2, &[b"committed"]);
    bench.hear(THREE, &append(new, EntryId { term: old, index: Index(1) }, 1, 2), &records);
    (0..8).for_each(|_| bench.turn().unwrap());
    let status = bench.lane.status(ShardId(0)).unwrap();
    let last = EntryId { term: new, index: Index(2) };
    assert_eq!((status.last, status.commit, status.durable), (last, Index(2), Index(2)));
    assert_eq!(bench.lane.peek(ShardId(0), Index(2)).unwrap().payload_crc, payload_crc(b"committed"));
    let mut matched = bench.sent().into_iter().filter_map(|(to, message)| match message {
        Message::Appended(ack) => Some((to, ack.matched())),
        _ => None,
    });
    assert_eq!(matched.next_back(), Some((THREE, Index(2))));
}

/// Members were restarted one after the other. A leader was stopped when the one before it had not come back quite: it
/// handed over, to one that then had no majority, and what was in the air had an unknown end.
#[test]
fn a_drain_begins_when_the_others_can_do_without_this_node() {
    let mut bench = Bench::of_leader();
    // The third one has gone, and nobody has said so.
    assert_eq!(bench.lead(10, &[TWO]), []);
    bench.lane.drain();
    assert_eq!(bench.lead(10, &[TWO]), []);
    bench.send(ALICE, &[Request::Submit(submit(1, b"taken"))]);
    assert_eq!(bench.lead(10, &[TWO]), []);
    assert!(matches!(bench.said(ALICE)[..], [(1, Outcome::Committed { .. })]), "all goes on");
    assert!(!bench.lead(8, &[TWO, THREE]).is_empty(), "it is back");
}

/// Nobody takes records while a leader hands over, and who is down takes nothing over: a new leader that was to hand on
/// to the one before it refused everything for an election timeout, each time that it tried.
#[test]
fn leadership_is_not_handed_to_who_was_not_heard_for_long() {
    let mut bench = Bench::of_leader();
    let ask = |bench: &mut Bench, request, to| {
        bench.send(ALICE, &[Request::Transfer { request, shard: ShardId(0), to }]);
        bench.turn().unwrap();
        bench.said(ALICE)
    };
    while {
        let now = Time(bench.clock.0.get());
        bench.groups().shards[0].raft.hears(THREE, now)
    } {
        bench.lead(1, &[TWO]);
    }
    assert_eq!(ask(&mut bench, 1, THREE), [(1, Outcome::Busy)]);
    bench.send(ALICE, &[Request::Submit(submit(2, b"taken all the same"))]);
    bench.lead(4, &[TWO]);
    assert!(matches!(bench.said(ALICE)[..], [(2, Outcome::Committed { .. })]));
    assert_eq!(ask(&mut bench, 3, TWO), [(3, Outcome::Accepted)]);
}

/// One that does not come back is not waited for, nor asked first.
#[test]
fn a_drain_hands_over_to_who_is_there() {
    for there in [TWO, THREE] {
        let mut bench = Bench::of_leader();
        bench.lead(10, &[there]);
        bench.lane.drain();
        assert_eq!(bench.lead(28, &[there]), [], "it may come back");
        let asked = bench.lead(4, &[there]);
        assert_eq!(asked.first(), Some(&there));
    }
}

/// A node that was stopped offered its shard once, to the peer with the freshest log. That peer did not hear it: the
/// node kept the lead and refused every submit until the drain's bound. It then asked again, and always the same peer,
/// which answered appends and so stayed the freshest.
#[test]
fn a_drain_that_is_not_followed_asks_again_and_asks_the_next_one() {
    let mut bench = Bench::of_leader();
    bench.lane.drain();
    let began = bench.clock.0.get();
    let mut asked = Vec::new();
    // The first one that is asked does not hear it; the other one does, and stands.
    while !asked.iter().any(|to| *to != asked[0]) {
        bench.pass(Duration::from_millis(10));
        bench.turn().unwrap();
        asked.extend(bench.serve_peers());
        assert!(bench.clock.0.get() - began < 1_000_000_000, "{asked:?} alone is asked for a second");
    }
    let status = bench.lane.status(ShardId(0)).unwrap();
    let stands = Message::RequestVote { term: Term(status.term.0 + 1), last: status.last, transfer: true };
    bench.hear(asked[asked.len() - 1], &stands, &[]);
    for client in [ALICE, BOB] {
        bench.port.0.borrow_mut().inbox.push_back(Sent::Closed(client));
    }
    let stopped = loop {
        if let Err(stopped) = bench.turn() {
            break stopped;
        }
        assert!(bench.clock.0.get() - began < 1_000_000_000, "the lead is given and the drain goes on");
    };
    assert_eq!(stopped, Stopped::Drained(Drained { unknown: 0, kept: 0 }));
}

/// One record is submitted, taken by both peers and committed; then the peers say nothing more and no time passes. What
/// is told of the commit in that, of empty appends: to whom, and up to where. And the record's index.
fn told_of_a_last_commit(bench: &mut Bench) -> (Vec<(NodeId, Index)>, Index) {
    bench.settle();
    // Without a stamp it is no engine's, and is taken whether there are streams or not.
    let record = Submit { timestamp: Timestamp(0), ..submit(1, b"the last one") };
    bench.send(ALICE, &[Request::Submit(record)]);
    bench.lane.turn().unwrap();
    let last = bench.lane.status(ShardId(0)).unwrap().last.index;
    assert!(last > bench.lane.status(ShardId(0)).unwrap().commit);
    bench.serve_peers();
    bench.lane.turn().unwrap();
    assert_eq!(bench.lane.status(ShardId(0)).unwrap().commit, last, "committed in this turn");
    (notices(bench), last)
}

fn notices(bench: &mut Bench) -> Vec<(NodeId, Index)> {
    let notice = |(to, message)| match message {
        Message::Append { count: 0, commit, .. } => Some((to, commit)),
        other => panic!("{other:?}"),
    };
    bench.sent().into_iter().filter_map(notice).collect()
}

/// With an engine's streams followers need every commit for their watermark, and another append may never come: it is
/// told in the turn in which it is made. Without, whoever reads at a follower waits for a timer.
#[test]
fn a_commit_that_no_append_carries_is_told_at_once_where_there_are_streams() {
    let mut bench = Bench::with_notice(3, 1, 16, Duration::ZERO).elected();
    bench.lane.serve_engine(alloc::sync::Arc::new(crate::engine::board::Board::new(1)));
    let (told, last) = told_of_a_last_commit(&mut bench);
    assert_eq!(told, [(TWO, last), (THREE, last)]);
    bench.lane.turn().unwrap();
    assert_eq!(notices(&mut bench), [], "told once");

    let mut bench = Bench::of_leader();
    let (told, last) = told_of_a_last_commit(&mut bench);
    assert_eq!(told, []);
    bench.pass(COMMIT_NOTICE);
    bench.lane.turn().unwrap();
    assert_eq!(notices(&mut bench), [(TWO, last), (THREE, last)]);
}

/// A long append goes in many datagrams, and heartbeats overtake it. A follower refused them for want of what the
/// append carried, and was sent the same megabyte again, and a third time, over a path that was too narrow for one.
#[test]
fn what_is_still_on_its_way_is_not_sent_again() {
    let mut bench = Bench::of_leader();
    bench.settle();
    bench.send(ALICE, &[Request::Submit(submit(1, &[7; 100_000]))]);
    bench.turn().unwrap();
    let given_at = Time(bench.clock.0.get());
    let carried = |sent: Vec<(NodeId, Message)>, to: NodeId| {
        sent.iter()
            .filter(|(node, message)| *node == to && matches!(message, Message::Append { count: 1, .. }))
            .count()
    };
    let sent = bench.sent();
    assert_eq!((carried(sent.clone(), TWO), carried(sent, THREE)), (1, 1));

    let beat = |bench: &mut Bench| {
        bench.pass(Duration::from_millis(31));
        bench.turn().unwrap();
        let (to, heartbeat) = bench.sent().into_iter().find(|(to, _)| *to == TWO).unwrap();
        let Message::Append { term, previous, count: 0, round, .. } = heartbeat else {
            panic!("{heartbeat:?}")
        };
        let hint = EntryId { term, index: previous.index.previous() };
        bench.hear(to, &Message::Rejected { term, refused: previous.index, hint, round }, &[]);
        bench.turn().unwrap();
        carried(bench.sent(), TWO)
    };
    bench.lane.link_mut().carrying.push(given_at);
    assert_eq!((beat(&mut bench), beat(&mut bench), beat(&mut bench)), (0, 0, 0), "it is on its way");
    bench.lane.link_mut().carrying.clear();
    assert_eq!(beat(&mut bench), 1, "it was lost");
}

/// A follower whose disk had as many writes under way as may be heard a new leader in an append. Its records fitted
/// when room was asked for; then the term was laid, which began a batch where they did not fit, and the node stopped on
/// an assertion in the middle of a change of leader.
#[test]
fn a_term_that_comes_with_records_leaves_them_the_room_that_it_takes() {
    const PAYLOAD: &[u8] = &[7; 1000];
    let (mut accepted_at_once, mut put_off) = (0, 0);
    // Somewhere among these the records do not fit the chunk's end and the term does.
    for spare_blocks in 0..48_u64 {
        let mut bench = Bench::of(3, 16);
        let mut last = EntryId::default();
        let mut hear = |bench: &mut Bench, term: u64, payloads: &[&[u8]]| {
            let records = entries(Term(term), last.index.0 + 1, payloads);
            bench.hear(TWO, &append(Term(term), last, payloads.len() as u32, 0), &records);
            bench.turn().unwrap();
            bench.turn().unwrap();
            let until = Index(last.index.0 + payloads.len() as u64);
            let taken = bench.lane.status(ShardId(0)).unwrap().last.index >= until;
            if taken {
                last = EntryId { term: Term(term), index: until };
            }
            taken
        };
        // A batch a block: nothing is left but what is kept for votes and a few blocks.
        let blocks = (CHUNK_BYTES as u64 - (128 << 10)) / BLOCK_BYTES_MAX as u64 - 16 - spare_blocks;
        for _ in 0..blocks {
            assert!(hear(&mut bench, 1, &[PAYLOAD]));
        }
        bench.disk().eager = false;
        for _ in 0..16 {
            assert!(hear(&mut bench, 1, &[PAYLOAD]));
        }
        if hear(&mut bench, 2, &[PAYLOAD; 10]) {
            accepted_at_once += 1;
        } else {
            put_off += 1;
        }
        assert_eq!(bench.lane.status(ShardId(0)).unwrap().term, Term(2));
        bench.disk().eager = true;
        for _ in 0..8 {
            bench.turn().unwrap();
        }
        assert!(hear(&mut bench, 2, &[PAYLOAD; 10]), "the leader repeats it");
    }
    assert!(accepted_at_once > 0 && put_off > 0, "{accepted_at_once} at once, {put_off} put off");
}
