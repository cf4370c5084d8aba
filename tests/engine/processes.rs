//! The engine and the node are two processes, and either may die.

use std::fs;
use std::os::fd::OwnedFd;

use plimsoll::client::ring::Attachment;
use plimsoll::types::{Acks, Epoch, Timestamp};
use plimsoll::wire::client::{Outcome, Reply};
use rustix::net::{self, AddressFamily, RecvFlags, SocketAddrUnix, SocketType};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::child::Engine;
use crate::*;

#[test]
fn an_engine_that_dies_within_a_record_leaves_nothing_behind() {
    let mut cluster = one_node("rings-killed");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let mut neighbour = Attachment::connect(socket(&cluster), options(&cluster, 2)).unwrap();
    let mut engine = Engine::start(socket(&cluster), cluster.config(NODE).cluster_id(), 1);
    engine.await_reserved();
    let refused = Attachment::connect(socket(&cluster), options(&cluster, 1)).unwrap_err();
    assert!(matches!(refused, AttachError::Refused(Refusal::Held)), "{refused}");
    engine.kill();
    submit(&mut neighbour, 2, 100, 64);
    // The same session again, from where its records end.
    let first_serial = child::RECORDS + 1;
    let mut again =
        attach(|| Attachment::connect(socket(&cluster), Options { first_serial, ..options(&cluster, 1) }));
    submit(&mut again, 1, 100, 64);
    let log = log_of(&cluster, child::RECORDS + 200);
    assert_whole(&log, 1, child::RECORDS + 100);
    assert_whole(&log, 2, 100);
    cluster.check().unwrap();
}

#[test]
fn a_node_that_comes_back_is_found_again() {
    let mut cluster = one_node("rings-node-killed");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let mut attachment = Attachment::connect(socket(&cluster), options(&cluster, 1)).unwrap();
    submit(&mut attachment, 1, 50, 64);
    let mut hasty = Attachment::connect(socket(&cluster), options(&cluster, 2)).unwrap();
    cluster.kill(NODE).unwrap();
    // Who never waits long enough to sleep finds it, too.
    let until = Instant::now() + PATIENCE;
    while !hasty.wait(Duration::ZERO) {
        assert!(Instant::now() < until, "it is not found that the node has ended");
    }
    assert!(matches!(hasty.reserve(8), Err(RingError::Ended(_))));
    // Published, and nobody is there to take it: in doubt.
    let bytes = record(1, attachment.next_serial(), 64);
    let lost = attachment.submit(&bytes, Timestamp(51), Epoch(1), Acks::Quorum).unwrap();
    assert!(attachment.wait(PATIENCE), "the node's end is noticed");
    let mut ends = Vec::new();
    attachment.poll(|reply| {
        let Reply::Outcome { request, outcome } = reply else { panic!("{reply:?}") };
        ends.push((request, outcome));
    });
    assert_eq!(ends, [(lost.0, Outcome::Unknown)]);
    assert!(!attachment.is_attached() && matches!(attachment.reserve(8), Err(RingError::Ended(_))));
    assert!(attachment.reattach().is_err(), "it is not there yet");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let until = Instant::now() + PATIENCE;
    while let Err(error) = attachment.reattach() {
        assert!(Instant::now() < until, "{error}");
        std::thread::yield_now();
    }
    assert!(attachment.is_attached());
    await_leader(&mut attachment);
    submit(&mut attachment, 1, 50, 64);
    let log = log_of(&cluster, 100);
    let serials: Vec<u64> = log.iter().map(|(_, serial, _)| *serial).collect();
    assert!(serials.iter().copied().eq((1..=50).chain(52..=101)), "{serials:?}");
}

/// Who wants to attach and says nothing.
fn silent(cluster: &Cluster) -> OwnedFd {
    let engine = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    net::connect(&engine, &SocketAddrUnix::new(socket(cluster)).unwrap()).unwrap();
    engine
}

/// What the thread that lets engines in has worked so far, in hundredths of a second.
fn worked(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_usher = |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).unwrap() == "usher\n";
    let stat = fs::read_to_string(tasks.into_iter().find(is_usher).unwrap().join("stat")).unwrap();
    // After the name come the state, ten numbers, then the times in user and in kernel mode.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_node_that_has_no_descriptor_left_rests_until_it_has_and_lets_engines_in() {
    let mut cluster = one_node("rings-starved");
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let pid = cluster.pid(NODE).unwrap();
    let of_node = Pid::from_raw(pid as i32);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let number =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().to_str()?.parse::<u64>().ok();
    let numbers: Vec<_> = open.filter_map(number).collect();
    let lowest_free = (0..).find(|at| !numbers.contains(at)).unwrap();
    let before = getrlimit(Resource::Nofile);
    // Three more may be opened: those beyond the limit stay open.
    let scarce = Rlimit { current: Some(lowest_free + 3), ..before };
    prlimit(of_node, Resource::Nofile, scarce).unwrap();
    let engines: Vec<OwnedFd> = (0..40).map(|_| silent(&cluster)).collect();
    let said = |cluster: &Cluster| cluster.log(NODE).matches("waits until it can be let in").count();
    let until = Instant::now() + PATIENCE;
    while said(&cluster) == 0 {
        assert!(Instant::now() < until, "{}", cluster.log(NODE));
        std::thread::yield_now();
    }
    let worked_before = worked(pid);
    // Who was let in has two seconds to say something. All that time others wait to come in.
    assert_eq!(net::recv(&engines[0], &mut [0; 1], RecvFlags::empty()).unwrap().1, 0);
    let worked_meanwhile = worked(pid) - worked_before;
    assert!(worked_meanwhile < 50, "{worked_meanwhile} hundredths of a second of two seconds");
    assert_eq!(said(&cluster), 1, "{}", cluster.log(NODE));
    prlimit(of_node, Resource::Nofile, before).unwrap();
    drop(engines);
    let mut attachment = Attachment::connect(socket(&cluster), options(&cluster, 1)).unwrap();
    submit(&mut attachment, 1, 50, 64);
    cluster.check().unwrap();
}
