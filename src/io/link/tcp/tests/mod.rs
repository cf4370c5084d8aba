#![allow(clippy::unwrap_used)]

mod clients;
mod peers;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::io::reactor::Kind as ReactorKind;
use crate::io::{ClientId, Flow, Full, Link, LinkEvent, Park, Port, PortEvent};
use crate::limits::*;
use crate::raft::Message;
use crate::types::*;
use crate::wire::client::{Request, Submit};
use crate::wire::frame::{Builder, Kind};
use crate::wire::hello::{GREETING_BYTES, Greeting, Hello, Refusal};
use crate::wire::peer;

const PATIENCE: Duration = Duration::from_secs(20);

/// The time as a test tells it: the real one, and what the test has skipped.
struct Watch {
    start: Instant,
    skipped: Duration,
}

impl Watch {
    fn new() -> Watch {
        Watch { start: Instant::now(), skipped: Duration::ZERO }
    }

    fn now(&self) -> Time {
        Time(1).after(self.start.elapsed() + self.skipped)
    }
}

/// Runs `test` over each kind of reactor that this system has.
fn on_every_reactor(test: impl Fn(&dyn Fn() -> Reactor)) {
    let mut ran = 0;
    for kind in [ReactorKind::Epoll, ReactorKind::Uring] {
        match Reactor::new(kind) {
            Ok(_) => {
                test(&|| Reactor::new(kind).unwrap());
                ran += 1;
            }
            Err(error) => eprintln!("not run over {kind:?}: {error}"),
        }
    }
    assert!(ran > 0, "no reactor at all");
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn identity(node: u32) -> Identity {
    Identity {
        cluster: ClusterId(7),
        node: NodeId(node),
        store: StoreId(u64::from(node) + 100),
        lane: LaneId(0),
        lanes: 1,
        shards: 4,
    }
}

/// A peer frame with so many bytes of body, in the parts in which a lane sends it. Its records are no records: their
/// checksums are not the link's to check.
fn peer_frame(body_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut builder = Builder::new(Kind::Peer);
    let row = peer::encode(ShardId(1), &Message::VoteRefused { term: Term(body_bytes as u64) }, 0);
    builder.push(&row, body_bytes);
    (builder.seal().to_vec(), (0..body_bytes).map(|at| (at * 31 + body_bytes) as u8).collect())
}

/// What a hostile or broken end sends as its first words, and what is said of it.
fn offences() -> Vec<(Vec<u8>, &'static str)> {
    let mut huge = Greeting::Hello(identity(1).hello(NodeId(2))).encode().to_vec();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long = huge.clone();
    long[4..8].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
    let mut flipped = Greeting::Hello(identity(1).hello(NodeId(2))).encode().to_vec();
    flipped[40] ^= 1;
    let mut future = huge.clone();
    future[9] = 9;
    vec![
        (b"GET / HTTP/1.1\r\nHost: plimsoll\r\n\r\n".to_vec(), "not a frame"),
        (vec![0xff; 3000], "not a frame"),
        (huge, "a frame of 4294967295 bytes"),
        (long, "a frame of 4194304 bytes"),
        (flipped, "checksum does not hold"),
        (future, "protocol version 9"),
        (Greeting::Welcome(identity(1).welcome()).encode().to_vec(), "field kind"),
    ]
}

fn assert_dropped(stranger: &mut TcpStream) {
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = stranger.read(&mut [0; 4096]);
    assert!(
        matches!(&end, Ok(0)) || end.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
}

fn greeting(client: &mut TcpStream) -> Greeting {
    let mut frame = [0; GREETING_BYTES];
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut frame).unwrap();
    Greeting::decode(&frame).unwrap()
}

fn request_frame(request: u64, payloads: &[usize]) -> Vec<u8> {
    let mut builder = Builder::new(Kind::Request);
    let mut body = Vec::new();
    for len in payloads {
        let payload = vec![request as u8; *len];
        let submit = Submit {
            request,
            shard: ShardId(0),
            acks: Acks::Quorum,
            timestamp: Timestamp(1),
            epoch: Epoch(1),
            session: 0,
            serial: 0,
            payload_crc: 0,
            more_bytes: 0,
            payload: &payload,
        };
        builder.push(&Request::Submit(submit).encode(), *len);
        body.extend_from_slice(&payload);
    }
    [builder.seal(), &body].concat()
}
