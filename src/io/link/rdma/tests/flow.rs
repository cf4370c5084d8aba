//! What arrives when nothing goes wrong.

use std::sync::mpsc;
use std::thread;

use super::*;

#[test]
fn datagrams_of_every_length_arrive_whole_and_in_order_both_ways() {
    if !has_device("datagrams_of_every_length") {
        return;
    }
    let mut nodes = connected(|_| ());
    let longest = nodes[0].carrier.datagram_bytes_max();
    let mut lengths = vec![0, 1, 63, 64, 65, 219, 220, 221, 255, 256, 257, 1023, 1024, 1025, 4096, 5000];
    lengths.extend([longest / 2 + 1, longest - 1, longest]);
    let expected = lengths.iter().enumerate().map(|(at, &len)| pattern(at, len)).collect::<Vec<_>>();
    for bytes in &expected {
        let cut = bytes.len() / 3;
        assert!(nodes[0].send(&[&bytes[..cut], &[], &bytes[cut..]]));
        assert!(nodes[1].send(&[bytes]));
    }
    pump(&mut nodes, |nodes| nodes.iter().all(|node| node.got.len() == expected.len()));
    assert!(nodes.iter().all(|node| node.got == expected), "not the same bytes");
    for node in &nodes {
        assert_eq!(node.changes, [true], "told once that the other end is there");
        let counters = node.carrier.counters();
        assert_eq!(
            (counters.datagrams_in, counters.datagrams_out),
            (expected.len() as u64, expected.len() as u64)
        );
        assert_eq!(counters.bytes_in, lengths.iter().sum::<usize>() as u64);
        assert_eq!((counters.lost, counters.ended, counters.full), (0, 0, 0));
    }
}

/// Records go from where they lie, and are let go when the device is done with them although nothing is sent after.
#[test]
fn what_lies_in_the_pool_is_not_copied_and_is_let_go() {
    if !has_device("what_lies_in_the_pool") {
        return;
    }
    let mut nodes = connected(|_| ());
    assert_eq!(nodes[0].told(|notice| matches!(notice, Notice::Copying(_))), 0, "may lock its memory");
    let mut chunk = nodes[0].pool.take().unwrap();
    let record = pattern(5, 8 << 10);
    chunk.spare_mut()[..record.len()].copy_from_slice(&record);
    let frozen = chunk.freeze(record.len());
    drop(chunk);
    let head = pattern(1, 96);
    // More pieces than a device gathers: some are copied.
    let pieces = (0..40).map(|at| &frozen[at * 200..at * 200 + 200]).collect::<Vec<_>>();
    let two = [&head[..], &frozen[..4096], &head, &frozen[4096..]];
    assert!(nodes[0].send(&two) && nodes[0].send(&pieces));
    let long = (0..40).map(|at| &frozen[at * 100..at * 100 + 300]).collect::<Vec<_>>();
    assert!(nodes[0].send(&long));
    let expected = [two.concat(), pieces.concat(), long.concat()];
    drop(frozen);
    assert_eq!(nodes[0].pool.available(), 3, "held while under way");
    pump(&mut nodes, |nodes| nodes[1].got.len() == 3 && nodes[0].pool.available() == 4);
    assert!(nodes[1].got == expected, "not the same bytes");
    let peer = nodes[0].peer();
    assert_eq!(nodes[0].carrier.sends_under_way(peer), 0);
    let counters = nodes[0].carrier.counters();
    let gathered = 8192 + 15 * 300;
    assert_eq!(counters.gathered_bytes, gathered);
    assert_eq!(counters.copied_bytes, 2 * 96 + 8000 + 25 * 300);
}

/// Few sends tell that they are done, and that suffices for the queue to go round many times.
#[test]
fn small_datagrams_go_inline_and_few_are_confirmed() {
    if !has_device("small_datagrams_go_inline") {
        return;
    }
    const COUNT: usize = 5000;
    let mut nodes = connected(|_| ());
    let window = nodes[0].carrier.window();
    let mut sent = 0;
    pump(&mut nodes, |nodes| {
        let [one, two] = nodes else { panic!("two nodes") };
        while sent < COUNT && sent - two.got.len() < window {
            let bytes = pattern(sent, 48 + sent % 32);
            if one.carrier.send(NodeId(2), &[&bytes[..16], &bytes[16..]]).is_err() {
                break;
            }
            sent += 1;
        }
        two.got.len() == COUNT
    });
    for (at, bytes) in nodes[1].got.iter().enumerate() {
        assert!(*bytes == pattern(at, 48 + at % 32), "datagram {at}");
    }
    let counters = nodes[0].carrier.counters();
    assert_eq!((counters.datagrams_out, counters.ended, counters.lost), (COUNT as u64, 0, 0));
    assert!(counters.inline == COUNT as u64 || counters.inline == 0, "{counters:?}");
    assert!(counters.told <= COUNT as u64 / 16, "{counters:?}");
}

/// A burst beyond what the queues take is refused whole, and what was taken arrives.
#[test]
fn a_burst_is_refused_when_the_queues_are_full_and_nothing_of_it_is_lost() {
    if !has_device("a_burst_is_refused") {
        return;
    }
    let mut nodes = connected(|_| ());
    let longest = nodes[0].carrier.datagram_bytes_max();
    let mut taken = Vec::new();
    // Nobody polls in between. Long ones fill the ring into which they are copied, short ones the queue.
    for len_bytes in [longest, 600] {
        for number in 0.. {
            let bytes = pattern(number, len_bytes);
            if !nodes[0].send(&[&bytes]) {
                break;
            }
            taken.push(bytes);
        }
    }
    assert_eq!(nodes[0].carrier.counters().full, 2);
    assert!((32..=128).contains(&taken.len()), "{} were taken", taken.len());
    pump(&mut nodes, |nodes| nodes[1].got.len() == taken.len());
    assert!(nodes[1].got == taken, "not the same bytes");
    assert!(nodes[0].send(&[b"again"]));
    pump(&mut nodes, |nodes| nodes[1].got.len() == taken.len() + 1);
    assert_eq!(nodes[0].carrier.counters().ended, 0);
}

/// Without the completion channel a lane that blocks would sleep for an hour.
#[test]
fn lanes_that_block_are_woken() {
    if !has_device("lanes_that_block") {
        return;
    }
    const ROUNDS: usize = 300;
    let listeners = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    let (done, finished) = mpsc::channel();
    for (number, listener) in [1, 2].into_iter().zip(listeners) {
        let done = done.clone();
        thread::spawn(move || {
            let mut node = Node::new(number, listener, addresses[2 - number as usize], |_| ());
            let mut sent = 0;
            while node.got.len() < ROUNDS {
                if node.turn() == 0 {
                    node.park();
                }
                // The one who offers begins; each answers what has come.
                let owed = node.got.len() + usize::from(number == 1);
                while node.is_up() && sent < owed.min(ROUNDS) {
                    assert!(node.send(&[&pattern(sent, 100)]));
                    sent += 1;
                }
            }
            assert!(node.got.iter().enumerate().all(|(at, bytes)| *bytes == pattern(at, 100)));
            done.send(number).unwrap();
            // Its last datagram may be under way still.
            finished_or(&mut node, Duration::from_secs(2));
        });
    }
    for _ in 0..2 {
        finished.recv_timeout(PATIENCE).expect("a lane slept on");
    }
}

/// Goes on for a while.
fn finished_or(node: &mut Node, bound: Duration) {
    let until = Instant::now() + bound;
    while Instant::now() < until {
        node.turn();
        node.reactor.park(Duration::from_millis(10));
    }
}
