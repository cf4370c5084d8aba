//! Datagrams over ports that DPDK drives: a NIC bound to it, shared memory with another process on this host (memif),
//! or a kernel interface (af_packet). Ethernet, ARP, IPv4 and UDP are done here ([`crate::wire::ethernet`]); no system
//! call is on the way.
//!
//! ```text
//! lane i ── Seat ── queue i of every port ── one Stack: ARP, addresses, what is for whom
//!    │ keeper (one thread per process): links up and down, memif clients connected again
//! ```
//! **Ports.** A node has one or several, each with an address and the network behind it; a peer is reached over the
//! port whose network holds its address. Memif is point to point: there a node has a port, and a network, for each
//! peer.
//!
//! **Lanes.** Lane i listens on UDP port + i. A port that can is told to put that into queue i; what comes on another
//! lane's queue all the same is handed over through a bounded ring. Over memif queue i meets queue i.
//!
//! **Copies.** What is sent is copied once, from where it lies into the port's buffer, and what comes is handed on
//! where the port put it. (Sending from where records lie would take them out of the memory that a device may not
//! read.)
//!
//! **Polling.** DPDK has nothing to wait for: a lane that parks is woken every [`IDLE_POLL`] to look. In production it
//! does not park (`cpu.busy_poll`).
//!
//! DPDK starts once per process: all nodes in a process share its arguments. Its drivers are plugins, of Debian's
//! package libdpdk-dev where this is built and of librte-net-* where it runs.

mod dial;
mod eal;
mod host;
mod leftovers;
mod mbuf;
mod neighbours;
mod options;
mod stack;

use core::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use self::host::{LinkState, Seat};
use self::mbuf::Frame;
pub use self::options::{Device, Options, PortOptions};
use self::stack::{Interface, Received, Route, Stack};
use super::Reporter;
use crate::io::Full;
use crate::io::datagram::{Arrival, Carrier, WINDOW_MIN};
use crate::limits::DPDK_BURST_FRAMES;
use crate::types::Time;
use crate::wire::ethernet::{self, Refused, UDP_HEAD_BYTES};

/// How long an idle lane that parks lets its ports alone.
pub const IDLE_POLL: Duration = Duration::from_micros(50);

/// Why ports cannot be had, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError(String);

/// What a carrier has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams given to the sink.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams taken to be sent.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Sends refused because a ring had no room.
    pub full: u64,
    /// Sends refused because there was no memory for a frame.
    pub no_memory: u64,
    /// Datagrams lost because the Ethernet address of their host was not known.
    pub unresolved: u64,
    /// Datagrams lost because their port's link was down.
    pub link_down: u64,
    /// Datagrams lost because no port's network holds their address.
    pub no_route: u64,
    /// Frames given to the lane that they were for.
    pub handed_over: u64,
    /// Frames for another lane that had too many, or was not there.
    pub handover_lost: u64,
    /// Frames dropped because they were for another station.
    pub other_station: u64,
    /// Frames dropped because they were from or to an address that is not of the port's network.
    pub other_address: u64,
    /// Datagrams dropped because they were for a UDP port of nobody's.
    pub other_port: u64,
    /// Frames dropped because they came in several pieces: longer than what the port is set up for.
    pub scattered: u64,
    /// Frames that were not understood, by the reason: see [`Counters::refused`].
    pub refused: [u64; Refused::ALL.len()],
    /// ARP packets understood.
    pub arp_in: u64,
    /// Questions answered.
    pub arp_answered: u64,
    /// Questions asked.
    pub arp_asked: u64,
    /// ARP packets of others that claim a port's own address.
    pub conflicts: u64,
}

/// One lane's carrier over the node's ports.
#[derive(Debug)]
pub struct DpdkCarrier {
    seat: Seat,
    stack: Stack,
    ports: Vec<Outgoing>,
    incoming: Vec<Frame>,
    /// Which change of the links was seen last.
    generation: u32,
    now: Time,
    conflicts_told: u64,
    reporter: Reporter,
    datagram_bytes_max: usize,
    window: usize,
    lane: u16,
}

/// What a lane keeps of one port.
#[derive(Debug)]
struct Outgoing {
    up: bool,
    /// Frames that the port is to take next; never grows.
    frames: Vec<Frame>,
}

impl DpdkCarrier {
    /// The carrier of one lane, on the thread that it is to run on. The first starts DPDK and the ports; what fails is
    /// said in one line.
    pub fn open(options: &Options, lane: u16) -> Result<DpdkCarrier, OpenError> {
        options.check()?;
        eal::start(&options.eal, options.memory_mib())?;
        let seat = host::sit_down(options, lane)?;
        let interfaces: Vec<Interface> = seat.host.ports.iter().map(|port| port.interface).collect();
        let room = || Outgoing { up: false, frames: Vec::with_capacity(DPDK_BURST_FRAMES) };
        let ports = interfaces.iter().map(|_| room()).collect();
        let mtu = options.ports.iter().map(|port| port.mtu).min().expect("checked: there is a port");
        Ok(DpdkCarrier {
            window: window(options, &seat),
            stack: Stack::new(lane, options.lanes, options.udp_port, interfaces),
            ports,
            incoming: Vec::with_capacity(DPDK_BURST_FRAMES),
            // Another one than it is: the links are looked at in the first poll.
            generation: seat.generation().wrapping_sub(1),
            now: Time(0),
            conflicts_told: 0,
            reporter: Reporter::default(),
            datagram_bytes_max: usize::from(mtu) - ethernet::IPV4_BYTES - ethernet::UDP_BYTES,
            seat,
            lane,
        })
    }

    /// What the operator is told when this starts: a line for each port.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![eal::version()];
        for port in &self.seat.host.ports {
            let Interface { mac, address, prefix_bits } = port.interface;
            let sums = if port.tx_checksums { "the port" } else { "software" };
            let steered = port.steered.load(std::sync::atomic::Ordering::Relaxed);
            let queues = if steered { "" } else { ", lanes hand over what comes for others" };
            notes.push(format!(
                "port {} ({}) at {address}/{prefix_bits}, {mac}, checksums by {sums}{queues}",
                port.name, port.driver
            ));
        }
        notes
    }

    /// What it has seen.
    pub fn counters(&self) -> Counters {
        self.stack.counters
    }

    /// Frames that the ports lost before any lane saw them: their rings or their memory were full, or they were broken.
    pub fn lost_by_ports(&self) -> u64 {
        let lost = self.seat.host.ports.iter().map(host::Port::lost);
        lost.map(|lost| lost.missed + lost.errors_in + lost.no_memory).sum()
    }

    /// How many of this lane's frames nobody holds.
    pub fn frames_available(&self) -> u32 {
        self.seat.pool().available()
    }

    /// Takes in what the keeper says of the links.
    fn look_at_links(&mut self, sink: &mut impl FnMut(Arrival<'_, SocketAddrV4>)) -> usize {
        let generation = self.seat.generation();
        if generation == self.generation {
            return 0;
        }
        self.generation = generation;
        let mut events = 0;
        for at in 0..self.ports.len() {
            let state = self.seat.host.ports[at].link();
            let up = state == LinkState::Up;
            if up == self.ports[at].up {
                continue;
            }
            self.ports[at].up = up;
            self.report_link(at, state);
            // A port that comes back may lead to others than before.
            self.stack.forget(at);
            self.ports[at].frames.clear();
            if up {
                self.stage_bytes(at, &self.stack.announcement(at));
                let destinations = self.stack.behind(at).collect::<Vec<_>>();
                destinations.into_iter().for_each(|to| self.ask(to));
            } else {
                self.stack.behind(at).for_each(|to| {
                    sink(Arrival::Broken(to));
                    events += 1;
                });
            }
        }
        events
    }

    fn report_link(&mut self, at: usize, state: LinkState) {
        if self.lane > 0 {
            return; // once per node
        }
        let port = &self.seat.host.ports[at];
        let (name, complaints) = (&port.name, eal::complaints());
        let why = if complaints.is_empty() { String::new() } else { format!(" ({complaints})") };
        match state {
            LinkState::Up => self.reporter.line(self.now, format_args!("DPDK port {name}: link up")),
            LinkState::Down => self.reporter.line(self.now, format_args!("DPDK port {name}: link down{why}")),
            LinkState::Gone => self.reporter.line(self.now, format_args!("DPDK port {name} is gone{why}")),
        }
    }

    /// Asks for a destination's host unless it is known.
    fn ask(&mut self, to: SocketAddrV4) {
        if let Route::Ask(port, question) = self.stack.route(to, self.now) {
            self.stage_bytes(port, &question);
        }
    }

    /// Asks again for hosts that have not been heard of for long; tells of those that are gone.
    fn refresh(&mut self, sink: &mut impl FnMut(Arrival<'_, SocketAddrV4>)) -> usize {
        let mut events = 0;
        if self.stack.next_due() > self.now {
            return events;
        }
        for port in 0..self.ports.len() {
            while let Some(due) = self.stack.due(port, self.now) {
                match due {
                    Ok(question) => self.stage_bytes(port, &question),
                    Err(host) => self.stack.at_host(host).for_each(|to| {
                        sink(Arrival::Broken(to));
                        events += 1;
                    }),
                }
            }
        }
        events
    }

    /// Handles what is in `incoming`, of one port or handed over by lanes.
    fn take_in(&mut self, sink: &mut impl FnMut(Arrival<'_, SocketAddrV4>), handed: bool) -> usize {
        let mut events = 0;
        let mut incoming = core::mem::take(&mut self.incoming);
        for frame in incoming.drain(..) {
            let id = frame.port();
            // Frames come from this node's ports alone; one that says otherwise is nobody's.
            let Some(port) = self.seat.host.ports.iter().position(|port| port.id == id) else { continue };
            events += self.take_frame(port, frame, sink, handed);
        }
        self.incoming = incoming;
        events
    }

    fn take_frame(
        &mut self,
        port: usize,
        frame: Frame,
        sink: &mut impl FnMut(Arrival<'_, SocketAddrV4>),
        handed: bool,
    ) -> usize {
        let Some(bytes) = frame.bytes() else {
            self.stack.counters.scattered += 1;
            return 0;
        };
        match self.stack.receive(port, bytes, frame.checksums(), self.now) {
            Received::Dropped => 0,
            Received::Datagram { from, bytes } => {
                sink(Arrival::Datagram { from, bytes });
                1
            }
            Received::ForLane(lane) => {
                match self.seat.hand_over(lane, frame) {
                    Ok(()) => self.stack.counters.handed_over += 1,
                    Err(_) => self.stack.counters.handover_lost += 1,
                }
                0
            }
            Received::Arp { answer, found, share } => {
                if !handed {
                    if let Some(answer) = answer {
                        self.stage_bytes(port, &answer);
                    }
                    if share {
                        self.share(port, bytes);
                    }
                }
                let mut events = 0;
                for to in found.into_iter().flat_map(|host| self.stack.at_host(host)) {
                    sink(Arrival::Reachable(to));
                    events += 1;
                }
                events
            }
        }
    }

    /// Gives every other lane a copy of an ARP packet.
    fn share(&mut self, port: usize, bytes: &[u8]) {
        let id = self.seat.host.ports[port].id;
        for lane in (0..self.seat.host.lanes()).filter(|&lane| lane != self.lane) {
            let Some(mut copy) = Frame::new(self.seat.pool(), bytes.len()) else { return };
            copy.fill(bytes);
            copy.set_port(id);
            // A lane that has too much to do asks for itself.
            let _ = self.seat.hand_over(lane, copy);
        }
    }

    /// Queues an ARP packet; what finds no room is lost, and asked or answered again.
    fn stage_bytes(&mut self, port: usize, bytes: &[u8]) {
        if !self.has_room(port) {
            return;
        }
        if let Some(mut frame) = Frame::new(self.seat.pool(), bytes.len()) {
            frame.fill(bytes);
            self.ports[port].frames.push(frame);
        }
    }

    /// Whether one more frame can wait for this port.
    fn has_room(&mut self, port: usize) -> bool {
        if self.ports[port].frames.len() == DPDK_BURST_FRAMES {
            self.transmit(port);
        }
        self.ports[port].frames.len() < DPDK_BURST_FRAMES
    }

    fn transmit(&mut self, port: usize) {
        let frames = &mut self.ports[port].frames;
        if !frames.is_empty() {
            self.seat.transmit(port, frames);
        }
    }

    /// Says it when somebody else claims an address of this node's.
    fn report_conflicts(&mut self) {
        if self.stack.counters.conflicts > self.conflicts_told {
            self.conflicts_told = self.stack.counters.conflicts;
            let count = self.conflicts_told;
            self.reporter.line(
                self.now,
                format_args!(
                    "another station claims an address of this node's DPDK ports ({count} times by now)"
                ),
            );
        }
    }
}

impl Carrier for DpdkCarrier {
    type Address = SocketAddrV4;

    const RELIABLE: bool = false;

    fn datagram_bytes_max(&self) -> usize {
        self.datagram_bytes_max
    }

    fn window(&self) -> usize {
        self.window
    }

    fn poll(&mut self, now: Time, sink: &mut impl FnMut(Arrival<'_, SocketAddrV4>)) -> usize {
        self.now = now;
        let mut events = self.look_at_links(sink) + self.refresh(sink);
        for port in 0..self.ports.len() {
            if self.seat.receive(port, &mut self.incoming) > 0 {
                events += self.take_in(sink, false);
            }
        }
        if self.seat.host.lanes() > 1 && self.seat.take_over(&mut self.incoming) > 0 {
            events += self.take_in(sink, true);
        }
        // Answers go although nobody may send in this turn; and what found no room tries again.
        self.flush();
        self.report_conflicts();
        events
    }

    fn send(&mut self, to: SocketAddrV4, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        assert!(len <= self.datagram_bytes_max, "a datagram of {len} bytes is one that the path carries");
        let (port, path) = match self.stack.route(to, self.now) {
            Route::Path(port, path) => (port, path),
            Route::Ask(port, question) => {
                self.stage_bytes(port, &question);
                return Ok(());
            }
            Route::Lost => return Ok(()),
        };
        if !self.ports[port].up {
            self.stack.counters.link_down += 1;
            return Ok(());
        }
        if !self.has_room(port) {
            self.stack.counters.full += 1;
            return Err(Full(()));
        }
        let Some(mut frame) = Frame::new(self.seat.pool(), UDP_HEAD_BYTES + len) else {
            self.stack.counters.no_memory += 1;
            return Err(Full(()));
        };
        let offload = self.seat.host.ports[port].tx_checksums;
        let bytes = frame.bytes_mut().expect("a new frame is one piece");
        let mut rest = &mut bytes[UDP_HEAD_BYTES..];
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        if offload {
            ethernet::prepare_udp(bytes, &path);
            frame.offload_checksums();
        } else {
            ethernet::seal_udp(bytes, &path);
        }
        self.ports[port].frames.push(frame);
        self.stack.counters.datagrams_out += 1;
        self.stack.counters.bytes_out += len as u64;
        Ok(())
    }

    fn flush(&mut self) {
        for port in 0..self.ports.len() {
            self.transmit(port);
        }
    }

    fn next_wake(&self) -> Time {
        self.now.after(IDLE_POLL)
    }
}

/// How many datagrams of one peer are held: its share of the smallest ring.
fn window(options: &Options, seat: &Seat) -> usize {
    let share = |port: &host::Port| {
        let peers = if port.is_shared_memory() { 1 } else { options.peers.max(1) };
        let steered = port.steered.load(std::sync::atomic::Ordering::Relaxed);
        let lanes = if steered { 1 } else { usize::from(options.lanes) };
        usize::from(port.queue_frames()) / (peers * lanes)
    };
    seat.host.ports.iter().map(share).min().unwrap_or(0).max(WINDOW_MIN)
}

impl OpenError {
    /// What failed, what libdpdk complained of, and its error number.
    fn failed(what: fmt::Arguments<'_>, errno: i32) -> OpenError {
        let mut text = format!("{what}: {}", eal::error_text(errno));
        let complaints = eal::complaints();
        if !complaints.is_empty() {
            text = format!("{text} ({complaints})");
        }
        OpenError(text.replace('\n', " "))
    }
}

impl Counters {
    /// How many frames were not understood for this reason.
    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize]
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}
