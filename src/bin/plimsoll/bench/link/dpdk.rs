//! The bench over DPDK: shared memory (memif) between this process and one that it starts, beside a raw UDP socket
//! between the same two.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use plimsoll::io::datagram::{self, DatagramLink};
use plimsoll::io::link::dpdk::{Device, DpdkCarrier, Options, PortOptions};
use plimsoll::io::reactor::{self, Reactor};
use plimsoll::types::NodeId;

use super::end::End;
use super::phase::Phase;
use super::raw::Raw;
use super::{Arguments, DONE, GREET, identity, pin, report, rounds};
use crate::common::{Failure, Interrupt, Verdict, say};

const UDP_PORT: u16 = 7100;

/// What a memif port carries.
const MTU: u16 = 1500;

/// Ends the other process with this one.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    match arguments.echo {
        None => measure(arguments),
        Some(asker) => echo(arguments, asker),
    }
}

fn measure(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::on("a socket on 127.0.0.1"))?;
    let here = socket.local_addr().map_err(Failure::on("a socket's address"))?;
    let this = std::env::current_exe().map_err(Failure::on("this program"))?;
    let other = Command::new(this)
        .args(["bench", "link", "--link", "dpdk", "--bytes", &arguments.bytes.to_string()])
        .args(["--echo", &here.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut other = Other(other.map_err(Failure::on("the other process"))?);
    let stdin = other.0.stdin.take().ok_or(Failure("the other process has no input".into()))?;
    let stdout = other.0.stdout.take().ok_or(Failure("the other process has no output".into()))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(Failure::on("the other process"))?;
    let there: SocketAddr = line
        .trim()
        .parse()
        .map_err(|_| Failure("the other process ended before it was ready; what it says is above".into()))?;
    let raw = Raw::to_other_process(socket, there).map_err(Failure::on("a raw socket"))?;
    let phase = Phase::told_to(GREET, stdin);
    // DPDK's own threads go where the first thread may: only this one is pinned.
    let measured = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            pin(0);
            let end = open("client", here.port(), NodeId(1), NodeId(2))?;
            rounds(end, |link| link.carrier().notes(), arguments, &phase, raw, &interrupt)
        });
        asker.join().map_err(|_| Failure("the bench has ended".into()))?
    });
    phase.set(DONE);
    let measured = measured?;
    report(arguments, &measured);
    Ok(if measured.link.is_empty() { Verdict::Bad } else { Verdict::Good })
}

/// The other process.
fn echo(arguments: &Arguments, asker: SocketAddr) -> Result<Verdict, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::on("a socket on 127.0.0.1"))?;
    let here = socket.local_addr().map_err(Failure::on("a socket's address"))?;
    let raw = Raw::to_other_process(socket, asker).map_err(Failure::on("a raw socket"))?;
    let phase = Arc::new(Phase::new(GREET));
    std::thread::scope(|scope| {
        let heard = phase.clone();
        let worker = scope.spawn(move || {
            pin(1);
            let end = open("server", asker.port(), NodeId(2), NodeId(1))?;
            say(&here.to_string());
            end.echo(&phase, raw, arguments.bytes as usize)
        });
        std::thread::spawn(move || {
            // The end of the input is the end of the bench.
            for byte in std::io::stdin().lock().bytes().map_while(Result::ok) {
                heard.set(byte.into());
            }
            heard.set(DONE);
        });
        worker.join().map_err(|_| Failure("the echo has ended".into()))?
    })?;
    Ok(Verdict::Good)
}

/// One end of the shared memory; `run` tells benches apart that run at the same time.
fn open(role: &str, run: u16, node: NodeId, peer: NodeId) -> Result<End<DatagramLink<DpdkCarrier>>, Failure> {
    let address = |node: NodeId| Ipv4Addr::new(10, 9, 0, node.0 as u8);
    let vdev = format!("--vdev=net_memif0,role={role},id=0,socket=/plimsoll-bench-{run}");
    let port = PortOptions {
        device: Device::Name("net_memif0".to_owned()),
        address: address(node),
        prefix_bits: 24,
        mtu: MTU,
        queue_frames: 512,
    };
    let eal = ["--no-huge".to_owned(), "--no-pci".to_owned(), vdev].to_vec();
    let options = Options { eal, ports: vec![port], udp_port: UDP_PORT, lanes: 1, peers: 1 };
    let carrier = DpdkCarrier::open(&options, 0).map_err(|error| Failure(error.to_string()))?;
    let peers = vec![(peer, SocketAddrV4::new(address(peer), UDP_PORT))];
    let mut options = datagram::Options::new(identity(node), peers, Vec::new(), std::process::id().into());
    options.unheard = Duration::from_secs(5);
    let reactor = Reactor::new(reactor::Kind::Uring).or_else(|_| Reactor::new(reactor::Kind::Epoll));
    let reactor = reactor.map_err(Failure::on("a reactor"))?;
    Ok(End::new(DatagramLink::new(options, carrier), reactor, peer))
}
