//! Messages that no honest peer sends change nothing, and nothing that a member says makes a node panic or takes back
//! what is committed.

use std::format;
use std::vec::Vec;

use super::super::message::{Ack, Grant};
use super::super::random::Random;
use super::super::*;
use super::cluster::{Cluster, ELECTION_TIMEOUT, HEARTBEAT};
use crate::limits::{INDEX_MAX, READ_INDEXES_WAITING_MAX, TERM_MAX};

fn entry(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}

fn append(term: u64, previous: EntryId, entries_term: u64, count: u32) -> Message {
    let (term, entries_term) = (Term(term), Term(entries_term));
    Message::Append { term, previous, entries_term, count, commit: Index(u64::MAX), round: u64::MAX }
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let beyond = TERM_MAX + 1;
    let senseless = [
        Message::PreVote { term: Term(u64::MAX), last: entry(1, 1) },
        Message::PreVote { term: Term(0), last: entry(0, 0) },
        Message::PreVote { term: Term(2), last: entry(2, 1) },
        Message::PreVoteReply { term: Term(beyond), granted: false },
        Message::RequestVote { term: Term(beyond), last: entry(1, 1), transfer: true },
        Message::RequestVote { term: Term(3), last: entry(4, 1), transfer: true },
        Message::RequestVote { term: Term(3), last: entry(1, INDEX_MAX + 1), transfer: true },
        Message::RequestVote { term: Term(3), last: entry(1, 0), transfer: true },
        Message::VoteGranted(Grant::received(Term(u64::MAX))),
        Message::VoteRefused { term: Term(u64::MAX) },
        append(u64::MAX, entry(0, 0), 1, 1),
        append(1, entry(0, 1), 1, 1),
        append(1, entry(1, 0), 1, 1),
        append(2, entry(2, 1), 1, 1),
        append(2, entry(1, 1), 3, 1),
        append(2, entry(0, 0), 0, 1),
        append(2, entry(1, INDEX_MAX), 2, 1),
        append(2, entry(1, u64::MAX), 2, u32::MAX),
        Message::Appended(Ack::received(Term(1), Index(u64::MAX), 0)),
        Message::Appended(Ack::received(Term(u64::MAX), Index(1), 0)),
        Message::Rejected { term: Term(1), refused: Index(u64::MAX), hint: entry(0, 0), round: 0 },
        Message::Rejected { term: Term(1), refused: Index(1), hint: entry(1, u64::MAX), round: 0 },
        Message::TimeoutNow { term: Term(u64::MAX) },
    ];
    let mut cluster = Cluster::new(3, 5);
    cluster.run_for(ELECTION_TIMEOUT * 3);
    for id in 1..=3 {
        let now = cluster.now;
        let raft = cluster.nodes.get_mut(&id).unwrap().raft.as_mut().unwrap();
        let before = format!("{raft:?}");
        let mut effects = Effects::default();
        for message in senseless {
            for from in 0..=4 {
                raft.step(now, Input::Peer { from: NodeId(from), message }, &mut effects);
            }
            assert_eq!(format!("{raft:?}"), before, "{message:?}");
            assert_eq!(format!("{effects:?}"), format!("{:?}", Effects::default()), "{message:?}");
        }
    }
}

#[test]
fn strangers_are_not_heard() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_for(ELECTION_TIMEOUT * 3);
    let now = cluster.now;
    let raft = cluster.nodes.get_mut(&2).unwrap().raft.as_mut().unwrap();
    let before = format!("{raft:?}");
    let mut effects = Effects::default();
    for from in [0, 2, 4, u32::MAX] {
        for message in [
            Message::RequestVote { term: Term(9), last: entry(8, 100), transfer: true },
            append(9, entry(0, 0), 9, 1),
            Message::TimeoutNow { term: Term(9) },
            Message::VoteGranted(Grant::received(Term(9))),
        ] {
            raft.step(now, Input::Peer { from: NodeId(from), message }, &mut effects);
        }
    }
    assert_eq!(format!("{raft:?}"), before);
    assert!(effects.messages.is_empty() && effects.vote.is_none() && effects.accept.is_none());
}

#[test]
fn a_member_that_lies_does_not_take_back_what_is_committed() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_for(ELECTION_TIMEOUT * 3);
    let now = cluster.now;
    let leader = *cluster.leaders.values().last().unwrap();
    let id = if leader == 1 { 2 } else { 1 };
    let raft = cluster.nodes.get_mut(&id).unwrap().raft.as_mut().unwrap();
    assert_eq!(raft.commit(), Index(1));
    let (last, mut effects) = (raft.last(), Effects::default());
    // Other entries where committed ones are, from a leader of a later term.
    raft.step(now, Input::Peer { from: NodeId(leader), message: append(9, entry(0, 0), 9, 5) }, &mut effects);
    assert_eq!((raft.last(), raft.commit(), effects.accept), (last, Index(1), None));
    assert_eq!(raft.contradictions(), 1);
    // A second leader in the same term.
    let other = 6 - leader - id;
    raft.step(now, Input::Peer { from: NodeId(other), message: append(9, last, 9, 5) }, &mut effects);
    assert_eq!((raft.last(), effects.accept, raft.leader()), (last, None, Some(NodeId(leader))));
    assert_eq!(raft.contradictions(), 2);
}

#[test]
fn an_answer_to_what_was_never_sent_counts_for_nothing() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_for(ELECTION_TIMEOUT * 3);
    let now = cluster.now;
    let leader = *cluster.leaders.values().last().unwrap();
    let peer = NodeId(if leader == 1 { 2 } else { 1 });
    let raft = cluster.nodes.get_mut(&leader).unwrap().raft.as_mut().unwrap();
    let (term, commit, last) = (raft.term(), raft.commit(), raft.last().index);
    let known: Vec<(NodeId, Index)> = raft.progress().collect();
    let mut effects = Effects::default();
    for message in [
        Message::Appended(Ack::received(term, last.next(), 0)),
        Message::Appended(Ack::received(term, last, 1)),
        Message::Rejected { term, refused: last, hint: entry(0, 0), round: 1 },
    ] {
        raft.step(now, Input::Peer { from: peer, message }, &mut effects);
    }
    assert_eq!(raft.contradictions(), 3);
    assert_eq!((raft.commit(), raft.progress().collect::<Vec<_>>()), (commit, known));
}

#[test]
fn waiting_reads_are_bounded() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_for(ELECTION_TIMEOUT * 3);
    let now = cluster.now;
    let leader = *cluster.leaders.values().last().unwrap();
    let raft = cluster.nodes.get_mut(&leader).unwrap().raft.as_mut().unwrap();
    let mut effects = Effects::default();
    for read in 0..=READ_INDEXES_WAITING_MAX as u64 {
        assert!(effects.reads_refused.is_empty());
        raft.step(now, Input::ReadIndex(ReadId(read)), &mut effects);
    }
    assert_eq!(effects.reads_refused, [ReadId(READ_INDEXES_WAITING_MAX as u64)]);
}

/// Whatever is there, one entry at a time.
struct Any;

impl Entries for Any {
    fn span(&mut self, _: Index, _: usize) -> Span {
        Span::Ready { count: 1, bytes: 100 }
    }
}

fn any_message(random: &mut Random, raft: &Raft) -> Message {
    let term = raft.term().0;
    let near = |random: &mut Random, value: u64| match random.next() % 12 {
        0 => u64::MAX,
        1 => 1 << 62,
        2 => 0,
        3 => random.next() % (value + 3),
        4 | 5 => value.saturating_add(1),
        6 => value.saturating_sub(1),
        _ => value,
    };
    let last = raft.last();
    let coin = random.next().is_multiple_of(2);
    let any_term = Term(near(random, if coin { term } else { last.term.0 }));
    let any_index = Index(near(random, if coin { last.index.0 } else { raft.commit().0 }));
    let any_entry =
        EntryId { term: Term(near(random, last.term.0)), index: Index(near(random, last.index.0)) };
    let round = near(random, 1);
    match random.next() % 9 {
        0 => Message::PreVote { term: any_term, last: any_entry },
        1 => Message::PreVoteReply { term: any_term, granted: random.next().is_multiple_of(2) },
        2 => Message::RequestVote {
            term: any_term,
            last: any_entry,
            transfer: random.next().is_multiple_of(2),
        },
        3 => Message::VoteGranted(Grant::received(any_term)),
        4 => Message::VoteRefused { term: any_term },
        5 => Message::Appended(Ack::received(any_term, any_index, round)),
        6 => Message::Rejected { term: any_term, refused: any_index, hint: any_entry, round },
        7 => Message::TimeoutNow { term: any_term },
        _ => {
            let count = near(random, 2) as u32;
            let entries_term = Term(near(random, term));
            Message::Append {
                term: any_term,
                previous: any_entry,
                entries_term,
                count,
                commit: any_index,
                round,
            }
        }
    }
}

#[test]
fn nothing_that_members_say_makes_a_node_panic() {
    let mut random = Random::new(0xf22);
    let (mut leaders, mut committed, mut contradictions) = (0, 0, 0);
    for round in 0..300 {
        let options = Options {
            id: NodeId(1),
            voters: (1..=1 + random.next() as u32 % 4).map(NodeId).collect::<Vec<NodeId>>(),
            election_timeout: ELECTION_TIMEOUT,
            heartbeat: HEARTBEAT,
            commit_notice: COMMIT_NOTICE,
            seed: round,
        };
        let recovered = Recovered {
            vote: Durable::pretend(Vote::default()),
            last: Durable::pretend(EntryId::default()),
            terms: Vec::new(),
        };
        let mut now = Time(0);
        let mut raft = Raft::new(options, recovered, now);
        let mut effects = Effects::default();
        let (mut commit, mut commit_term) = (Index::ZERO, Term(0));
        for _ in 0..400 {
            let input = match random.next() % 16 {
                0 => {
                    now = if random.next().is_multiple_of(50) {
                        Time(now.0 / 2)
                    } else {
                        raft.next_wake().min(Time(1 << 60))
                    };
                    Input::Tick
                }
                1 => Input::PeerDown(NodeId(random.next() as u32 % 6)),
                2 => Input::Transfer { to: NodeId(random.next() as u32 % 6) },
                3 => Input::ReadIndex(ReadId(random.next())),
                4 => Input::Overtaken {
                    from: NodeId(random.next() as u32 % 6),
                    message: any_message(&mut random, &raft),
                },
                _ => Input::Peer {
                    from: NodeId(random.next() as u32 % 6),
                    message: any_message(&mut random, &raft),
                },
            };
            raft.step(now, input, &mut effects);
            let _ = raft.propose();
            raft.replicate(now, &mut Any, &mut effects);
            if let Some(vote) = effects.vote.take().filter(|_| !random.next().is_multiple_of(4)) {
                raft.step(now, Input::DurableVote(Durable::pretend(vote)), &mut effects);
            }
            if random.next().is_multiple_of(3) {
                raft.step(now, Input::DurableLog(Durable::pretend(raft.last())), &mut effects);
            }
            effects.clear();
            assert!(raft.commit() >= commit && raft.commit() <= raft.last().index, "round {round}");
            assert_eq!(raft.local.terms().term_at(commit), Some(commit_term), "round {round}");
            (commit, commit_term) = (raft.commit(), raft.local.entry(raft.commit()).term);
            leaders += u64::from(raft.role() == Role::Leader);
        }
        committed += raft.commit().0;
        contradictions += raft.contradictions();
    }
    assert!(
        leaders > 1_000 && committed > 100 && contradictions > 20,
        "too little: {leaders} {committed} {contradictions}"
    );
}
