//! `plimsoll bench link`: the round trip of a frame through a whole link, beside a raw socket's with the same bytes.
//!
//! Two threads, each on a core of its own where there are two, both spinning: one sends a frame and waits for it to
//! come back. Link and raw socket take turns, round by round, so that whatever else the machine does meets both alike.
//! At the end frames go one way, as fast as they can.

#[cfg(feature = "dpdk")]
mod dpdk;
mod end;
mod phase;
mod raw;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use plimsoll::io::Link;
use plimsoll::io::datagram::{self, DatagramLink};
use plimsoll::io::link::tcp::{Identity, LinkOptions, TcpLink};
use plimsoll::io::link::udp::{self, UdpCarrier};
use plimsoll::io::reactor::{self, Reactor};
use plimsoll::types::{ClusterId, LaneId, NodeId, StoreId};
use serde_json::{Value, json};

use self::end::End;
use self::phase::Phase;
use self::raw::Raw;
use super::pin;
use crate::common::{Failure, Interrupt, Verdict, figures_head, histogram, say};

/// How long a link may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// How long one round of each is.
const ROUND: Duration = Duration::from_millis(100);

/// The system's loopback carries packets of this length.
const LOOPBACK_MTU_BYTES: usize = 65_536;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Which link
    #[arg(long, value_enum, default_value_t = Kind::Udp)]
    link: Kind,
    /// The bytes that each frame carries, beside its header and one message's row
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    bytes: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How the kernel is spoken to; without it, io_uring where it is allowed
    #[arg(long, value_enum)]
    reactor: Option<Over>,
    /// How the datagrams' socket is spoken to; without it, as a lane does
    #[arg(long, value_enum)]
    socket: Option<Socket>,
    /// The longest packet of a link of datagrams
    #[arg(long, default_value_t = LOOPBACK_MTU_BYTES)]
    mtu: usize,
    /// Every datagram by itself, although the kernel could take several as one
    #[arg(long)]
    apart: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// What the other process of a bench over DPDK is started with
    #[cfg(feature = "dpdk")]
    #[arg(long, hide = true)]
    echo: Option<SocketAddr>,
}

/// The links that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Udp,
    Tcp,
    /// Over shared memory, between two processes
    #[cfg(feature = "dpdk")]
    Dpdk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    Uring,
    Epoll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Socket {
    Plain,
    Uring,
}

/// What both threads do now.
pub(crate) const GREET: u32 = 0;
pub(crate) const LINK: u32 = 1;
pub(crate) const RAW: u32 = 2;
pub(crate) const STREAM: u32 = 3;
pub(crate) const DONE: u32 = 4;

/// What an end of a link is made of, on the thread that uses it.
struct Seat<S> {
    identity: Identity,
    /// Bound, so that the other end knows where.
    socket: S,
    peer: NodeId,
    peer_at: SocketAddr,
}

/// A kind of link, and the raw sockets that it is compared with.
trait Way {
    type Link: Link;
    type Socket: Send;

    /// Something that listens on loopback, and where.
    fn bind() -> std::io::Result<(Self::Socket, SocketAddr)>;

    fn open(
        arguments: &Arguments,
        seat: Seat<Self::Socket>,
        reactor: &Reactor,
    ) -> std::io::Result<Self::Link>;

    /// What is worth knowing of how it works here.
    fn words(link: &Self::Link) -> Vec<String>;

    fn raw() -> std::io::Result<(Raw, Raw)>;
}

struct Udp;
struct Tcp;

impl Way for Udp {
    type Link = DatagramLink<UdpCarrier>;
    type Socket = UdpSocket;

    fn bind() -> std::io::Result<(UdpSocket, SocketAddr)> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    }

    fn open(arguments: &Arguments, seat: Seat<UdpSocket>, reactor: &Reactor) -> std::io::Result<Self::Link> {
        let mut options = udp::Options::new(seat.socket, 1, arguments.mtu);
        options.known = vec![seat.peer_at];
        options.busy_poll = true;
        options.joins = !arguments.apart;
        options.backend = match arguments.socket {
            None => udp::Backend::default(),
            Some(Socket::Plain) => udp::Backend::Plain,
            Some(Socket::Uring) => udp::Backend::Uring,
        };
        let carrier = UdpCarrier::new(options, reactor)?;
        let seed = std::process::id().into();
        let peers = vec![(seat.peer, seat.peer_at)];
        Ok(DatagramLink::new(datagram::Options::new(seat.identity, peers, Vec::new(), seed), carrier))
    }

    fn words(link: &Self::Link) -> Vec<String> {
        let mut words = vec![format!("{}", link.carrier())];
        words.extend(link.carrier().notes().iter().cloned());
        words
    }

    fn raw() -> std::io::Result<(Raw, Raw)> {
        Raw::datagrams()
    }
}

impl Way for Tcp {
    type Link = TcpLink;
    type Socket = TcpListener;

    fn bind() -> std::io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    fn open(_: &Arguments, seat: Seat<TcpListener>, reactor: &Reactor) -> std::io::Result<TcpLink> {
        let Seat { identity, socket: listener, peer, peer_at } = seat;
        let options = LinkOptions { identity, listener, peers: vec![(peer, peer_at)], stores: Vec::new() };
        TcpLink::new(options, reactor.clone())
    }

    fn words(_: &TcpLink) -> Vec<String> {
        Vec::new()
    }

    fn raw() -> std::io::Result<(Raw, Raw)> {
        Raw::stream()
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    match arguments.link {
        Kind::Udp => measure::<Udp>(arguments),
        Kind::Tcp => measure::<Tcp>(arguments),
        #[cfg(feature = "dpdk")]
        Kind::Dpdk => dpdk::run(arguments),
    }
}

/// What was measured.
pub(crate) struct Measured {
    /// Of all rounds: one in which the machine was busy with something else has few round trips, and so little weight.
    link: Histogram<u64>,
    raw: Histogram<u64>,
    rounds: u64,
    frames_per_s: f64,
    lost: u64,
    words: Vec<String>,
    frame_bytes: usize,
    raw_bytes: usize,
}

fn measure<W: Way>(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let on_loopback = || Failure::on("sockets on 127.0.0.1");
    let ((here, here_at), (there, there_at)) =
        (W::bind().map_err(on_loopback())?, W::bind().map_err(on_loopback())?);
    let (ping, pong) = W::raw().map_err(on_loopback())?;
    let phase = Phase::new(GREET);
    let (one, two) = (NodeId(1), NodeId(2));
    let here = Seat { identity: identity(one), socket: here, peer: two, peer_at: there_at };
    let there = Seat { identity: identity(two), socket: there, peer: one, peer_at: here_at };
    let measured = std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            pin(1);
            let outcome =
                open::<W>(arguments, there).and_then(|end| end.echo(&phase, pong, arguments.bytes as usize));
            // The other end must not wait for an echo that is not there.
            phase.set(DONE);
            outcome
        });
        pin(0);
        let measured = open::<W>(arguments, here)
            .and_then(|end| rounds(end, W::words, arguments, &phase, ping, &interrupt));
        phase.set(DONE);
        echo.join().map_err(|_| Failure("the echo has ended".into()))??;
        measured
    })?;
    report(arguments, &measured);
    Ok(if measured.link.is_empty() { Verdict::Bad } else { Verdict::Good })
}

fn open<W: Way>(arguments: &Arguments, seat: Seat<W::Socket>) -> Result<End<W::Link>, Failure> {
    let peer = seat.peer;
    let reactor = match arguments.reactor {
        Some(Over::Uring) => Reactor::new(reactor::Kind::Uring),
        Some(Over::Epoll) => Reactor::new(reactor::Kind::Epoll),
        None => Reactor::new(reactor::Kind::Uring).or_else(|_| Reactor::new(reactor::Kind::Epoll)),
    };
    let reactor = reactor.map_err(Failure::on("a reactor"))?;
    let link = W::open(arguments, seat, &reactor).map_err(Failure::on("opening a link"))?;
    Ok(End::new(link, reactor, peer))
}

fn rounds<L: Link>(
    mut end: End<L>,
    words: impl Fn(&L) -> Vec<String>,
    arguments: &Arguments,
    phase: &Phase,
    mut raw: Raw,
    interrupt: &Interrupt,
) -> Result<Measured, Failure> {
    let bytes = arguments.bytes as usize;
    end.greet(phase, UP_WITHIN, interrupt)?;
    let mut measured = Measured {
        link: histogram(),
        raw: histogram(),
        rounds: 0,
        frames_per_s: 0.0,
        lost: 0,
        words: words(&end.link),
        frame_bytes: end.frame_bytes(bytes),
        raw_bytes: raw.message_bytes(bytes),
    };
    let lasting = Duration::from_secs(arguments.seconds);
    let until = Instant::now() + lasting.mul_f64(0.8);
    while (Instant::now() < until || measured.rounds == 0) && !interrupt.has_come() {
        if measured.rounds == 1 {
            // The first round of each only warmed up.
            measured.link.reset();
            measured.raw.reset();
        }
        phase.set(LINK);
        measured.lost += end.ping(bytes, ROUND, &mut measured.link)?;
        phase.set(RAW);
        raw.ping(bytes, ROUND, &mut measured.raw).map_err(Failure::on("a raw socket"))?;
        measured.rounds += 1;
    }
    phase.set(STREAM);
    measured.frames_per_s = end.stream(bytes, lasting.mul_f64(0.2))?;
    interrupt.check()?;
    Ok(measured)
}

fn identity(node: NodeId) -> Identity {
    Identity {
        cluster: ClusterId(0x62_65_6e_63_68),
        node,
        store: StoreId(node.0.into()),
        lane: LaneId(0),
        lanes: 1,
        shards: 1,
    }
}

/// In microseconds, to the hundredth.
fn figure(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    (latencies.value_at_quantile(quantile) as f64 / 10.0).round() / 100.0
}

fn figures(latencies: &Histogram<u64>) -> Value {
    json!({
        "p50": figure(latencies, 0.5),
        "p99": figure(latencies, 0.99),
        "p999": figure(latencies, 0.999),
    })
}

fn report(arguments: &Arguments, measured: &Measured) {
    let Measured { link, raw, rounds, frames_per_s, lost, words, frame_bytes, raw_bytes } = measured;
    let mb_per_s = (frames_per_s * *frame_bytes as f64 / 1e4).round() / 100.0;
    let samples = link.len();
    let ratio = figure(link, 0.5) / figure(raw, 0.5).max(0.001);
    let ratio = (ratio * 1000.0).round() / 1000.0;
    if arguments.json {
        say(&json!({
            "link": format!("{:?}", arguments.link).to_lowercase(),
            "bytes": arguments.bytes,
            "frame_bytes": frame_bytes,
            "raw_bytes": raw_bytes,
            "rtt_us": figures(link),
            "raw_us": figures(raw),
            "ratio_p50": ratio,
            "round_trips": samples,
            "rounds": rounds,
            "lost": lost,
            "frames_per_s": frames_per_s.round(),
            "mb_per_s": mb_per_s,
            "notes": words,
        })
        .to_string());
        return;
    }
    say(&format!(
        "{samples} round trips of {frame_bytes} bytes (raw: {raw_bytes}) in {rounds} rounds, {lost} lost"
    ));
    say(&figures_head("microseconds"));
    for (name, latencies) in [("link", link), ("raw socket", raw)] {
        let figures = [0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| figure(latencies, quantile));
        let columns: String = figures.iter().map(|value| format!("{value:>12.2}")).collect();
        say(&format!("{name:<22}{columns}"));
    }
    say(&format!("the link's median is {ratio} of the raw socket's"));
    say(&format!("one way: {} frames per second, {mb_per_s} MB per second", frames_per_s.round()));
    for word in words {
        say(word);
    }
}
