//! Two processes: one is killed, and comes again.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

/// What the other process is told: the address of this one's side channel.
const PEER: &str = "PLIMSOLL_TEST_RDMA_PEER";

/// Node 2 in a process of its own, and where it listens.
struct Other {
    child: Child,
    address: SocketAddr,
}

impl Other {
    fn start(peer: SocketAddr, listen: Option<SocketAddr>) -> Other {
        let listen = listen.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("io::link::rdma::tests::processes::echoes_in_a_process_of_its_own")
            .env(PEER, format!("{peer} {listen}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| {
                line.unwrap().split_once("listens at ").map(|(_, address)| address.parse().unwrap())
            })
            .expect("the other process has ended");
        Other { child, address }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the other process of the test below"]
fn echoes_in_a_process_of_its_own() {
    let told = std::env::var(PEER).expect("started by the test below");
    let (peer, listen) = told.split_once(' ').unwrap();
    let listener = TcpListener::bind(listen).unwrap();
    println!("listens at {}", listener.local_addr().unwrap());
    let mut node = Node::new(2, listener, peer.parse().unwrap(), |_| ());
    let mut echoed = 0;
    let until = Instant::now() + 4 * PATIENCE;
    while Instant::now() < until {
        if node.turn() == 0 {
            node.reactor.park(Duration::from_millis(1));
        }
        while let Some(bytes) = node.got.get(echoed) {
            if node.carrier.send(NodeId(1), &[bytes]).is_err() {
                break;
            }
            echoed += 1;
        }
        node.carrier.flush();
    }
}

#[test]
fn a_peer_that_is_killed_and_comes_again_is_connected_anew() {
    if !has_device("a_peer_that_is_killed") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let mut other = Other::start(own, None);
    let mut nodes = [Node::new(1, listener, other.address, |_| ())];
    for life in 0..3 {
        pump(&mut nodes, |nodes| nodes[0].is_up());
        let before = nodes[0].got.len();
        let longest = nodes[0].carrier.datagram_bytes_max();
        let sent =
            (0..50).map(|number| pattern(life * 100 + number, longest >> (number % 12))).collect::<Vec<_>>();
        for bytes in &sent {
            let full = |nodes: &mut [Node]| nodes[0].send(&[bytes]);
            pump(&mut nodes, full);
        }
        pump(&mut nodes, |nodes| nodes[0].got.len() == before + sent.len());
        assert!(nodes[0].got[before..] == sent, "life {life}: not the same bytes");
        if life == 2 {
            break;
        }
        let address = other.address;
        drop(other);
        // Sends that nobody confirms any more, and the side channel's end, tell of it.
        pump(&mut nodes, |nodes| {
            nodes[0].send(&[b"is anybody there"]);
            nodes[0].changes.last() == Some(&false)
        });
        other = Other::start(own, Some(address));
        pump(&mut nodes, |nodes| nodes[0].carrier.counters().connected == life as u64 + 2);
    }
    assert_eq!(nodes[0].carrier.counters().datagrams_in, 150);
    assert!(nodes[0].told(|notice| matches!(notice, Notice::Ended { .. })) >= 2);
}
