#![allow(clippy::unwrap_used)]

use super::*;

/// A port with its own reactor, and what it was told.
struct Lane {
    port: TcpPort,
    reactor: Reactor,
    watch: Watch,
    opened: Vec<ClientId>,
    closed: Vec<ClientId>,
    frames: BTreeMap<ClientId, Vec<Vec<u8>>>,
    /// How many events the sink takes in one poll.
    appetite: usize,
}

impl Lane {
    fn new(reactor: Reactor, clients_max: usize) -> Lane {
        let options = PortOptions { identity: identity(1), listener: listener(), clients_max };
        let port = TcpPort::new(options, reactor.clone()).unwrap();
        let (opened, closed, frames) = Default::default();
        Lane { port, reactor, watch: Watch::new(), opened, closed, frames, appetite: usize::MAX }
    }

    fn turn(&mut self) -> usize {
        self.reactor.poll();
        let Lane { port, opened, closed, frames, watch, appetite, .. } = self;
        let mut taken = 0;
        port.poll(watch.now(), &mut |event| {
            match event {
                PortEvent::Opened(id) => opened.push(id),
                PortEvent::Closed(id) => closed.push(id),
                PortEvent::Frame { from, bytes } => frames.entry(from).or_default().push(bytes.to_vec()),
                PortEvent::Request { .. } => panic!("over TCP everything comes in frames"),
            }
            taken += 1;
            if taken >= *appetite { Flow::Stop } else { Flow::More }
        })
    }

    fn pump(&mut self, mut done: impl FnMut(&mut Lane) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "nothing came of it: {:?}", self.port.lines());
            // The contract: who has nothing to do may sleep, and does not sleep over what is there.
            if self.turn() == 0 {
                self.reactor.park(Duration::from_millis(20));
            }
        }
    }

    /// A client that has been welcomed.
    fn client(&mut self) -> TcpStream {
        let mut client = self.stranger();
        let opened = self.opened.len();
        client.write_all(&hello().encode()).unwrap();
        self.pump(|lane| lane.opened.len() > opened);
        assert_eq!(greeting(&mut client), Greeting::Welcome(identity(1).welcome()));
        client
    }

    fn stranger(&self) -> TcpStream {
        TcpStream::connect(self.port.acceptor_address()).unwrap()
    }

    fn frames(&self) -> usize {
        self.frames.values().map(Vec::len).sum()
    }
}

fn hello() -> Greeting {
    Greeting::Hello(Hello {
        node: None,
        store: StoreId(0),
        to: None,
        lanes: 0,
        ..identity(1).hello(NodeId(2))
    })
}

#[test]
fn many_frames_in_one_segment_and_one_frame_in_many() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        let mut client = lane.client();
        let expected: Vec<_> = (0..500).map(|n| request_frame(n, &[1 + n as usize % 50])).collect();
        client.write_all(&expected.concat()).unwrap();
        lane.pump(|lane| lane.frames() == 500);
        assert_eq!(lane.frames[&lane.opened[0]], expected);
        // In pieces that know nothing of frames, some of them longer than the first buffer.
        let lens = [9, 70_000, 1, 65_440, 65_441, 200_000, 3, 131_072];
        let more: Vec<_> = lens.iter().map(|len| request_frame(7, &[*len])).collect();
        for piece in more.concat().chunks(7919) {
            client.write_all(piece).unwrap();
            lane.turn();
        }
        lane.pump(|lane| lane.frames() == 500 + lens.len());
        assert!(lane.frames[&lane.opened[0]][500..] == more);
        client.set_nodelay(true).unwrap();
        let frame = request_frame(500, &[100]);
        for byte in &frame {
            client.write_all(&[*byte]).unwrap();
            lane.turn();
        }
        lane.pump(|lane| lane.frames() == 501 + lens.len());
        assert_eq!(lane.frames[&lane.opened[0]].last(), Some(&frame));
    });
}

#[test]
fn two_hundred_clients_are_served_in_turn() {
    on_every_reactor(|reactor| {
        const CLIENTS: usize = 200;
        let mut lane = Lane::new(reactor(), CLIENTS);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| lane.client()).collect();
        let mut crowded = lane.stranger();
        crowded.write_all(&hello().encode()).unwrap();
        lane.pump(|lane| lane.port.counters().refused == 1);
        assert_eq!(greeting(&mut crowded), Greeting::Refusal(Refusal::Crowded));
        // One of them has far more to say than the others, and said it first.
        let loud: Vec<u8> = (0..400).flat_map(|n| request_frame(n, &[10])).collect();
        clients[0].write_all(&loud).unwrap();
        for client in &mut clients[1..] {
            client.write_all(&request_frame(1, &[10]).repeat(2)).unwrap();
        }
        lane.appetite = 7;
        lane.pump(|lane| lane.frames.len() == CLIENTS && lane.frames.values().skip(1).all(|f| f.len() == 2));
        let of_loud = lane.frames[&lane.opened[0]].len();
        assert!(of_loud < 50, "{of_loud} frames of the loud one while the others waited");
        lane.pump(|lane| lane.frames() == 400 + 2 * (CLIENTS - 1));
        // All leave; each is told once.
        drop(clients);
        lane.pump(|lane| lane.closed.len() == CLIENTS);
        lane.closed.sort();
        lane.opened.sort();
        assert_eq!((lane.port.clients(), &lane.closed), (0, &lane.opened));
        assert_eq!(lane.port.buffer_bytes(), 0);
    });
}

#[test]
fn strangers_at_the_client_port_are_dropped_and_cost_nothing() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        let mut client = lane.client();
        let memory = lane.port.buffer_bytes();
        for (n, (words, said)) in offences().into_iter().enumerate() {
            let mut stranger = lane.stranger();
            stranger.write_all(&words).unwrap();
            lane.pump(|lane| lane.port.counters().malformed == n as u64 + 1);
            let line = lane.port.lines().last().unwrap();
            assert!(
                line.contains(said) && line.contains(&stranger.local_addr().unwrap().to_string()),
                "{line}"
            );
            assert_dropped(&mut stranger);
        }
        for (hello, expected) in [
            (Hello { cluster: ClusterId(9), ..identity(1).hello(NodeId(2)) }, "cluster"),
            (Hello { lanes: 3, ..identity(1).hello(NodeId(2)) }, "lanes"),
            (
                Hello {
                    lanes: 0,
                    lane: LaneId(5),
                    node: None,
                    store: StoreId(0),
                    to: None,
                    ..identity(1).hello(NodeId(2))
                },
                "lane 5",
            ),
            (identity(2).hello(NodeId(2)), "node 2 is not"),
        ] {
            let mut stranger = lane.stranger();
            let refused = lane.port.counters().refused;
            stranger.write_all(&Greeting::Hello(hello).encode()).unwrap();
            lane.pump(|lane| lane.port.counters().refused == refused + 1);
            let Greeting::Refusal(refusal) = greeting(&mut stranger) else { panic!("not refused") };
            assert!(refusal.to_string().contains(expected), "{refusal}");
            assert_dropped(&mut stranger);
        }
        assert_eq!((lane.opened.len(), lane.closed.len(), lane.port.buffer_bytes()), (1, 0, memory));
        client.write_all(&request_frame(1, &[1])).unwrap();
        lane.pump(|lane| lane.frames() == 1);
        // A client that is known and breaks the protocol then is dropped too, and the shard is told.
        client.write_all(&peer_frame(0).0).unwrap();
        lane.pump(|lane| lane.closed == lane.opened);
        assert_dropped(&mut client);
    });
}

#[test]
fn lines_are_few_however_many_offend() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        for n in 0..50 {
            lane.stranger().write_all(b"nonsense nonsense nonsense nonsense").unwrap();
            lane.pump(|lane| lane.port.counters().malformed == n + 1);
        }
        let seconds = lane.watch.start.elapsed().as_secs() as usize + 1;
        assert!(lane.port.lines().len() <= 10 * (seconds + 1), "{seconds} s: {:?}", lane.port.lines());
    });
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    on_every_reactor(|reactor| {
        let mut lane = Lane::new(reactor(), 4);
        let (_deaf, _other) = (lane.client(), lane.client());
        let chunk = vec![7; 1 << 20];
        let mut sent = 0;
        while lane.port.clients() == 2 {
            lane.port.send(lane.opened[0], &[&chunk, b"end"]);
            sent += 1;
            assert!(sent < 1000, "somewhere it has to go");
        }
        lane.pump(|lane| lane.closed.len() == 1);
        assert_eq!((lane.closed[0], lane.port.counters().full), (lane.opened[0], 1));
        assert!(lane.port.lines().last().unwrap().contains("it does not read"));
        // Gone is gone: a late answer to it is nobody's, also when another has taken its place.
        let mut fresh = lane.client();
        lane.port.send(lane.opened[0], &[b"stale"]);
        lane.port.send(lane.opened[2], &[b"fresh"]);
        let mut answer = [0; 5];
        fresh.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"fresh");
    });
}

#[test]
fn long_frames_of_many_clients_share_one_allowance() {
    on_every_reactor(|reactor| {
        const CLIENTS: usize = 40;
        let mut lane = Lane::new(reactor(), CLIENTS);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| lane.client()).collect();
        let frame = request_frame(1, &[1_000_000, 1_000_000, 1_000_000]);
        // More than the allowance is announced at once, and nobody gets more than that; all arrive in the end.
        let mut sent = vec![0; CLIENTS];
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        let mut most = 0;
        lane.pump(|lane| {
            for (client, sent) in clients.iter_mut().zip(&mut sent) {
                if *sent < frame.len() {
                    *sent += client.write(&frame[*sent..(*sent + 200_000).min(frame.len())]).unwrap_or(0);
                }
            }
            most = most.max(lane.port.buffer_bytes());
            lane.frames() == CLIENTS
        });
        assert!(most <= super::super::clients::GROWN_BYTES_MAX + CLIENTS * (64 << 10), "{most} bytes");
        assert!(
            most > super::super::clients::GROWN_BYTES_MAX / 2,
            "the allowance was not tried: {most} bytes"
        );
        assert!(lane.frames.values().all(|frames| frames[0] == frame));
    });
}

#[test]
fn nobody_sits_on_the_allowance_with_half_a_frame() {
    on_every_reactor(|reactor| {
        let sitters = super::super::clients::GROWN_BYTES_MAX / FRAME_BYTES_MAX + 4;
        let mut lane = Lane::new(reactor(), sitters + 1);
        let frame = request_frame(1, &[1_000_000, 1_000_000, 1_000_000]);
        let mut sitting: Vec<_> = (0..sitters).map(|_| lane.client()).collect();
        let mut honest = lane.client();
        // The first has sent a whole one before: the long buffer that it was left is no way around.
        sitting[0].set_nonblocking(true).unwrap();
        let mut sent = 0;
        lane.pump(|lane| {
            sent += sitting[0].write(&frame[sent..]).unwrap_or(0);
            lane.frames() == 1
        });
        sitting[0].set_nonblocking(false).unwrap();
        for client in &mut sitting {
            client.write_all(&frame[..1000]).unwrap();
            lane.turn();
        }
        honest.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let mut skipped = false;
        lane.pump(|lane| {
            sent += honest.write(&frame[sent..]).unwrap_or(0);
            if !skipped && lane.port.stalled() > 0 {
                skipped = true;
                lane.watch.skipped += super::super::clients::FRAME_TIMEOUT;
            }
            lane.frames() == 2
        });
        assert!(skipped, "the allowance was never short");
        // Those that were waiting have got theirs by now, and have to go in their turn.
        lane.pump(|lane| {
            lane.watch.skipped += FRAME_TIMEOUT_STEP;
            lane.closed.len() == sitters
        });
        assert_eq!((lane.port.clients(), lane.port.counters().late), (1, sitters as u64));
    });
}

/// A step in which a frame's time passes within a few turns.
const FRAME_TIMEOUT_STEP: Duration = Duration::from_secs(1);

/// Runs in a process of its own, below: it takes the descriptors away from everything beside it.
#[test]
#[ignore = "run by out_of_descriptors_it_pauses_and_goes_on"]
fn in_a_process_without_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Ok(kind) = std::env::var("PLIMSOLL_TEST_REACTOR") else { return };
    let kind = if kind == "Uring" { ReactorKind::Uring } else { ReactorKind::Epoll };
    let mut lane = Lane::new(Reactor::new(kind).unwrap(), 8);
    let mut clients: Vec<_> = (0..8).map(|_| lane.stranger()).collect();
    let highest = std::fs::File::open("/dev/null").unwrap();
    let limit = std::os::fd::AsRawFd::as_raw_fd(&highest) as u64 + 3;
    drop(highest);
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
    clients.iter_mut().for_each(|client| client.write_all(&hello().encode()).unwrap());
    lane.pump(|lane| lane.port.lines().iter().any(|line| line.contains("accepting connections pauses")));
    lane.pump(|lane| lane.opened.len() == 3);
    // It does not spin: while it pauses there is nothing to do.
    let turns = (0..50).filter(|_| lane.turn() > 0).count();
    assert!(turns < 10, "{turns} turns of 50 found something");
    setrlimit(Resource::Nofile, before).unwrap();
    lane.pump(|lane| lane.opened.len() == 8);
    println!("paused and went on");
}

#[test]
fn out_of_descriptors_it_pauses_and_goes_on() {
    on_every_reactor(|reactor| {
        let name = "io::link::tcp::tests::clients::in_a_process_without_descriptors";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
            .env("PLIMSOLL_TEST_REACTOR", format!("{:?}", reactor().kind()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("paused and went on"), "{child:?}");
    });
}
