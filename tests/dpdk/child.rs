//! The processes that the tests start: DPDK runs once per process, and memif goes between two.
//!
//! A child is this same binary, told by a variable what to be, a `key=value` on each line. What it tells begins with
//! "> "; it ends when its standard input does.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use plimsoll::io::Clock;
use plimsoll::io::clock::LaneClock;
use plimsoll::io::datagram::{Arrival, Carrier};
use plimsoll::io::link::dpdk::{Counters, Device, DpdkCarrier, Options, PortOptions};
use plimsoll::types::Time;
use plimsoll::wire::ethernet::Refused;

pub(crate) const VARIABLE: &str = "PLIMSOLL_TEST_DPDK_CHILD";

/// How often somebody who does not answer is written to again.
const AGAIN: Duration = Duration::from_millis(5);

/// Who has waited so long for an answer has met more than a machine that is busy.
const STALL: Duration = Duration::from_millis(90);

/// What a child is told.
pub(crate) struct Order {
    pub(crate) text: String,
}

impl Order {
    pub(crate) fn read() -> Option<Order> {
        std::env::var(VARIABLE).ok().map(|text| Order { text })
    }

    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        let pairs = self.text.lines().filter_map(|line| line.split_once('='));
        let named = pairs.filter(|(name, _)| *name == key).map(|(_, value)| value);
        named.collect::<Vec<_>>().into_iter()
    }

    pub(crate) fn get(&self, key: &str) -> &str {
        self.all(key).next().unwrap_or_else(|| panic!("the order has no {key}: {}", self.text))
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap()
    }

    /// `port=name,address,prefix_bits`.
    pub(crate) fn options(&self) -> Options {
        let port = |text: &str| {
            let mut parts = text.split(',');
            let mut next = || parts.next().unwrap();
            PortOptions {
                device: Device::Name(next().to_owned()),
                address: next().parse().unwrap(),
                prefix_bits: next().parse().unwrap(),
                mtu: 1500,
                queue_frames: 512,
            }
        };
        Options {
            eal: self.all("eal").map(str::to_owned).collect(),
            ports: self.all("port").map(port).collect(),
            udp_port: 7100,
            lanes: self.all("lanes").next().map_or(1, |lanes| lanes.parse().unwrap()),
            peers: 2,
        }
    }
}

pub(crate) fn tell(line: std::fmt::Arguments<'_>) {
    println!("> {line}");
}

/// True when the parent wants it to end.
pub(crate) fn stopping() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Release);
    });
    stop
}

/// What a child is.
pub(crate) fn run(order: &Order) {
    let stop = stopping();
    match order.get("be") {
        "echo" => lanes(order, &|lane| echo(order, lane, &stop)),
        "asker" => lanes(order, &|lane| Asker::new(order, lane).run(&stop)),
        "listener" => drop(DpdkCarrier::open(&order.options(), 0)),
        "link" => crate::over_link::run(order, &stop),
        other => panic!("nobody is {other}"),
    }
    tell(format_args!("ended"));
}

fn lanes(order: &Order, run: &(dyn Fn(u16) + Sync)) {
    thread::scope(|scope| {
        for lane in 0..order.options().lanes {
            scope.spawn(move || run(lane));
        }
    });
}

pub(crate) fn open(order: &Order, lane: u16) -> Option<DpdkCarrier> {
    match DpdkCarrier::open(&order.options(), lane) {
        Ok(carrier) => {
            carrier.notes().iter().for_each(|note| tell(format_args!("note {lane}: {note}")));
            tell(format_args!("open {lane}"));
            Some(carrier)
        }
        Err(error) => {
            tell(format_args!("error {error}"));
            None
        }
    }
}

/// Sends back what comes, until it is told to stop; then says what it has seen.
fn echo(order: &Order, lane: u16, stop: &AtomicBool) {
    let Some(mut carrier) = open(order, lane) else { return };
    let clock = LaneClock::choose().0;
    let mut back: Vec<(SocketAddrV4, Vec<u8>)> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let events = carrier.poll(clock.now(), &mut |arrival| match arrival {
            Arrival::Datagram { from, bytes } => back.push((from, bytes.to_vec())),
            Arrival::Reachable(to) => tell(format_args!("reachable {to}")),
            Arrival::Unreachable(to) | Arrival::Broken(to) => tell(format_args!("unreachable {to}")),
            Arrival::TooLong(to) => panic!("nothing tells of what the way to {to} carries"),
        });
        for (to, bytes) in back.drain(..) {
            // A full ring drops it, and whoever asked asks again.
            let _ = carrier.send(to, &[&bytes[..bytes.len() / 3], &bytes[bytes.len() / 3..]]);
        }
        carrier.flush();
        if events == 0 {
            thread::yield_now();
        }
    }
    tell_counters(lane, &carrier.counters());
}

fn tell_counters(lane: u16, counters: &Counters) {
    let refused = Refused::ALL.map(|why| format!("{why:?}={}", counters.refused(why))).join(" ");
    let Counters { datagrams_in, datagrams_out, handed_over, handover_lost, .. } = *counters;
    let Counters { other_address, other_port, other_station, conflicts, arp_in, arp_answered, .. } =
        *counters;
    tell(format_args!(
        "counters {lane} in={datagrams_in} out={datagrams_out} handed_over={handed_over} \
         handover_lost={handover_lost} other_address={other_address} other_port={other_port} \
         other_station={other_station} conflicts={conflicts} arp_in={arp_in} arp_answered={arp_answered} {refused}"
    ));
}

/// Asks its peers in turn, a window of datagrams at a time, and looks at every byte of the answers.
struct Asker {
    carrier: DpdkCarrier,
    clock: LaneClock,
    lane: u16,
    peers: Vec<SocketAddrV4>,
    /// How many answers of each peer are wanted; none: until told to stop.
    wanted: Option<u64>,
    bytes: usize,
    asked: Vec<(u64, SocketAddrV4)>,
    next: u64,
    answered: u64,
    again: u64,
    /// How often nobody answered for longer than [`STALL`].
    stalls: u64,
}

impl Asker {
    fn new(order: &Order, lane: u16) -> Asker {
        let carrier = open(order, lane).expect("an asker has good options");
        let peers =
            order.all("peer").map(|ip| SocketAddrV4::new(ip.parse::<Ipv4Addr>().unwrap(), 7100 + lane));
        Asker {
            carrier,
            clock: LaneClock::choose().0,
            lane,
            peers: peers.collect(),
            wanted: order.all("rounds").next().map(|rounds| rounds.parse().unwrap()),
            bytes: order.number("bytes") as usize,
            asked: Vec::new(),
            next: 0,
            answered: 0,
            again: 0,
            stalls: 0,
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let wanted = self.wanted.map_or(u64::MAX, |rounds| rounds * self.peers.len() as u64);
        let mut told = 0;
        let mut last = self.clock.now();
        let mut answered_at = last;
        while self.answered < wanted && !stop.load(Ordering::Acquire) {
            let window = self.carrier.window().min(256) as u64;
            while self.asked.len() < window as usize && self.next < wanted {
                let to = self.peers[(self.next % self.peers.len() as u64) as usize];
                self.asked.push((self.next, to));
                self.ask(self.next, to);
                self.next += 1;
            }
            self.carrier.flush();
            let now = self.clock.now();
            if self.poll(now) > 0 {
                self.stalls += u64::from(now.since(answered_at) > STALL);
                (last, answered_at) = (now, now);
            } else if now.since(last) > AGAIN {
                last = now;
                self.again += self.asked.len() as u64;
                for (number, to) in self.asked.clone() {
                    self.ask(number, to);
                }
            } else {
                thread::yield_now();
            }
            if self.answered / 10_000 > told {
                told = self.answered / 10_000;
                tell(format_args!("answered {}", self.answered));
            }
        }
        let Asker { lane, answered, again, stalls, .. } = &self;
        tell(format_args!("done {lane} answered={answered} again={again} stalls={stalls}"));
        // Another lane may not be done, and what comes for it on this lane's queue is handed over here.
        while !stop.load(Ordering::Acquire) {
            self.poll(self.clock.now());
            thread::yield_now();
        }
        tell_counters(self.lane, &self.carrier.counters());
    }

    fn ask(&mut self, number: u64, to: SocketAddrV4) {
        let bytes = content(number, self.bytes);
        // What finds no room is asked again.
        let _ = self.carrier.send(to, &[&bytes]);
    }

    fn poll(&mut self, now: Time) -> usize {
        let mut good = 0;
        let (asked, len) = (&mut self.asked, self.bytes);
        self.carrier.poll(now, &mut |arrival| match arrival {
            Arrival::Datagram { from, bytes } => {
                let number = u64::from_le_bytes(*bytes.first_chunk().expect("an answer has its number"));
                assert_eq!(bytes, content(number, len), "an answer is what was asked");
                // An answer to what was asked twice may come twice.
                if let Some(at) = asked.iter().position(|&(asked, to)| (asked, to) == (number, from)) {
                    asked.remove(at);
                    good += 1;
                }
            }
            Arrival::Reachable(to) => tell(format_args!("reachable {to}")),
            Arrival::Unreachable(to) | Arrival::Broken(to) => tell(format_args!("unreachable {to}")),
            Arrival::TooLong(to) => panic!("nothing tells of what the way to {to} carries"),
        });
        self.answered += good;
        good as usize
    }
}

/// A datagram that is like no other: its number, then bytes that follow from it.
fn content(number: u64, len: usize) -> Vec<u8> {
    let len = (number as usize * 7919) % (len - 8 + 1) + 8;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((8..len).map(|at| (number as usize * 31 + at) as u8));
    bytes
}
