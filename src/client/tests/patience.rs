//! What a client does when its time is over.

use super::super::question::Records;
use super::*;

#[test]
fn deadlines_say_what_is_known() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, listener| {
        end.next();
        let mut again = End::accept(&listener, 1);
        end.until_closed();
        let asked = again.next();
        again.outcome(&asked, wire::Outcome::NotLeader { leader: None });
        drop((listener, again));
    });
    let deadline = Duration::from_millis(100);
    let mut client = Client::connect(Options { deadline, ..options(&members) }).unwrap();
    submit(&mut client, b"a");
    assert_eq!(ends(&mut client, 1)[0].1, Outcome::Deadline, "sent and never answered");
    submit(&mut client, b"b");
    assert_eq!(ends(&mut client, 1)[0].1, Outcome::NotLeader { leader: None }, "never taken");
    node.join().unwrap();
}

/// The system went on sending what a client had given up, for as long as the node's end was open: it came minutes
/// later, behind what had been submitted since, and was committed.
#[test]
fn what_was_given_up_does_not_arrive_later() {
    const RECORD_BYTES: usize = 32 << 20;
    let one = fake(1);
    let members = [one.member];
    let (given_up, told) = std::sync::mpsc::channel();
    let node = play(one, move |mut end, listener| {
        told.recv().unwrap();
        drop(listener);
        // What it had room for came; then the connection breaks, before the record is whole.
        let (mut came, mut bytes) = (0, vec![0; 1 << 20]);
        loop {
            match end.stream.read(&mut bytes) {
                Ok(0) => return (came, None),
                Ok(count) => came += count,
                Err(error) => return (came, Some(error.kind())),
            }
        }
    });
    let deadline = Duration::from_millis(100);
    let mut client = Client::connect(Options { deadline, ..options(&members) }).unwrap();
    submit(&mut client, &vec![1; RECORD_BYTES]);
    assert_eq!(ends(&mut client, 1)[0].1, Outcome::Deadline);
    given_up.send(()).unwrap();
    let (came, broken) = node.join().unwrap();
    assert_eq!(broken, Some(std::io::ErrorKind::ConnectionReset), "{came} bytes came");
    assert!(came < RECORD_BYTES, "{came}");
}

/// Each read that waited in vain was left with the node, and after a thousand of them it refused everybody's.
#[test]
fn a_read_that_waits_again_is_the_same_one() {
    let one = fake(1);
    let members = [one.member];
    let node = play(one, |mut end, _listener| {
        let first = end.next();
        let Asked::Read { from: Index(5), wait: true, .. } = first else { panic!("{first:?}") };
        let second = end.next();
        let Asked::Read { from: Index(6), wait: true, .. } = second else { panic!("{second:?}") };
        let third = end.next();
        let Asked::Read { from: Index(6), wait: false, .. } = third else { panic!("{third:?}") };
        for request in [third.request(), second.request()] {
            let reply = Reply::Records { request, next: Index(6), commit: Index(5), records: &[] };
            end.reply(&reply, &[]);
        }
        end.until_closed();
    });
    let mut client = Client::connect(options(&members)).unwrap();
    let wait = Some(Duration::from_millis(1));
    for from in [5, 5, 5, 6, 6] {
        assert_eq!(client.read(NodeId(1), ShardId(1), Index(from), 1000, wait).unwrap(), None);
    }
    let nothing = Records { next: Index(6), commit: Index(5), bytes: Vec::new() };
    let read = |client: &mut Client, wait| client.read(NodeId(1), ShardId(1), Index(6), 1000, wait).unwrap();
    assert_eq!(read(&mut client, None).as_ref(), Some(&nothing));
    assert_eq!(read(&mut client, Some(PATIENCE)).as_ref(), Some(&nothing), "the one that waited");
    drop(client);
    node.join().unwrap();
}
