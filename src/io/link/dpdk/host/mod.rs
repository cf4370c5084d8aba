//! The ports of one node: set up once, with a queue for every lane, and kept.
//!
//! **Seats.** Lane i has the i-th queue of every port while it holds the i-th [`Seat`]; nobody else is in a burst of
//! it.
//!
//! **Gates.** A driver's burst must not run while its port is stopped, nor while the driver of shared memory (memif)
//! tears a connection down on libdpdk's interrupt thread: it unmaps what bursts read, and waits for nobody. So a burst
//! runs behind a gate: a lane says that it is inside, and looks whether the gate is shut; who shuts the gate waits
//! until no lane is inside. That a connection may be about to be torn down is known by a line that the driver logs
//! before ([`hear`]); that it is over, by that thread having turned to what it was asked for at that line
//! ([`open_in_turn`]). No clock says so: a thread that has lost its core is at it for as long as it likes.
//!
//! **Keeping.** One thread looks after the links: tells lanes that one went up or down, and connects the memif clients
//! again, which do not do so by themselves.
#![allow(unsafe_code, reason = "ports of a C library: which thread may call what is kept by seats and gates")]

mod port;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use dpdk_bindings as sys;

use super::dial::{self, Dial};
use super::mbuf::{self, Frame, Pool, Ring};
use super::stack::Interface;
use super::{Device, OpenError, Options, eal};
use crate::limits::{DPDK_BURST_FRAMES, DPDK_HANDOVER_FRAMES_MAX};
use crate::wire::ethernet::ETHERNET_BYTES;

/// How often the links are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) const MEMIF: &str = "net_memif";
pub(super) const AF_PACKET: &str = "net_af_packet";

/// Where the kernel tells of its interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Reasons why a gate is shut.
const STOPPED: u32 = 1;
const TORN_DOWN: u32 = 2;

/// A link's state, as lanes read it.
const DOWN: u8 = 0;
const UP: u8 = 1;
const GONE: u8 = 2;

/// Held while a node is looked for and made.
static MAKING: Mutex<()> = Mutex::new(());

/// All nodes of this process, for as long as it runs. Never held over a call of libdpdk: who logs asks for it.
static HOSTS: Mutex<Vec<Arc<Host>>> = Mutex::new(Vec::new());

/// The ports of one node.
#[derive(Debug)]
pub(super) struct Host {
    options: Options,
    pub(super) ports: Vec<Port>,
    lanes: Vec<Lane>,
    /// Counts changes of links.
    generation: CachePadded<AtomicU32>,
    /// How many seats are taken. Held while ports are started, stopped and looked at.
    taken: Mutex<usize>,
}

/// One port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) interface: Interface,
    pub(super) tx_checksums: bool,
    /// What each of its queues holds: no more than was asked for, and than the port bears.
    queue_frames: AtomicU16,
    /// Whether every lane's datagrams come on its own queue.
    pub(super) steered: AtomicBool,
    /// The kernel's interface under it, whose link it does not tell of.
    interface_below: Option<String>,
    /// The driver's id of a port of shared memory that connects, which it does not do again by itself.
    dials: Option<u32>,
    shut: CachePadded<AtomicU32>,
    link: AtomicU8,
    /// When to connect again.
    dial: Dial,
}

#[derive(Debug)]
struct Lane {
    taken: AtomicBool,
    inside: CachePadded<AtomicBool>,
    pool: Pool,
    handover: Ring,
}

/// One lane's hold on its queues. Stays on the thread that it was made on.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) host: Arc<Host>,
    lane: usize,
    thread: PhantomData<*const ()>,
}

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Frames pass.
    Up,
    /// They do not.
    Down,
    /// There is no such port any more.
    Gone,
}

/// Takes a lane's seat at the ports; the first to come sets them up and starts them.
pub(super) fn sit_down(options: &Options, lane: u16) -> Result<Seat, OpenError> {
    let host = find_or_make(options)?;
    let at = usize::from(lane);
    let mut taken = lock(&host.taken);
    let seat =
        host.lanes.get(at).ok_or_else(|| OpenError(format!("lane {lane} is none of {}", options.lanes)))?;
    if seat.taken.swap(true, Ordering::AcqRel) {
        return Err(OpenError(format!("lane {lane} of these ports is in use in this process already")));
    }
    if *taken == 0
        && let Err(error) = host.start()
    {
        host.stop();
        seat.taken.store(false, Ordering::Release);
        return Err(error);
    }
    *taken += 1;
    drop(taken);
    eal::register_thread();
    Ok(Seat { host, lane: at, thread: PhantomData })
}

fn find_or_make(options: &Options) -> Result<Arc<Host>, OpenError> {
    let _making = lock(&MAKING);
    let hosts = hosts();
    if let Some(host) = hosts.iter().find(|host| host.options == *options) {
        return Ok(host.clone());
    }
    let ids = options.ports.iter().map(|port| port_id(&port.device)).collect::<Result<Vec<_>, _>>()?;
    for (at, (&id, port)) in ids.iter().zip(&options.ports).enumerate() {
        let others = hosts.iter().flat_map(|host| &host.ports).map(|port| port.id);
        if others.chain(ids[..at].iter().copied()).any(|other| other == id) {
            return Err(OpenError(format!("port {} has another user in this process", port.device)));
        }
    }
    let host = Arc::new(Host::make(options, &ids, hosts.len())?);
    lock(&HOSTS).push(host.clone());
    Ok(host)
}

fn port_id(device: &Device) -> Result<u16, OpenError> {
    let name = match device {
        Device::Id(id) => {
            // SAFETY: takes any number.
            return match unsafe { sys::rte_eth_dev_is_valid_port(*id) } {
                1 => Ok(*id),
                _ => Err(OpenError(format!("DPDK has no port {id}; {}", known_ports()))),
            };
        }
        Device::Name(name) => name,
    };
    let text = CString::new(name.as_str()).map_err(|_| OpenError(format!("{name:?} is no port's name")))?;
    let mut id = 0;
    // SAFETY: the name ends with a zero byte; the number is written once.
    match unsafe { sys::rte_eth_dev_get_port_by_name(text.as_ptr(), &mut id) } {
        0 => Ok(id),
        _ => {
            let complaints = eal::complaints();
            let why = if complaints.is_empty() { complaints } else { format!(" It said: {complaints}") };
            Err(OpenError(format!(
                "DPDK has no port {name}; {}. A virtual one is made by --vdev={name},... in dpdk.eal, a NIC is bound to a \
                 driver for DPDK (dpdk-devbind.py) first.{why}",
                known_ports()
            )))
        }
    }
}

fn known_ports() -> String {
    // SAFETY: takes any number.
    let ids = (0..32).filter(|&id| unsafe { sys::rte_eth_dev_is_valid_port(id) } == 1);
    let names = ids.map(|id| format!("{id} ({})", name_of(id))).collect::<Vec<_>>();
    if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) }
}

fn name_of(id: u16) -> String {
    let mut name: [c_char; 64] = [0; 64];
    // SAFETY: a name is at most 64 bytes with the zero that ends it.
    if unsafe { sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) } != 0 {
        return id.to_string();
    }
    // SAFETY: as above; the last byte is zero even if that were not so.
    unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned()
}

impl Host {
    /// Sets all ports up, stopped.
    fn make(options: &Options, ids: &[u16], number: usize) -> Result<Host, OpenError> {
        let ports = options.ports.iter().zip(ids);
        let ports =
            ports.map(|(port, &id)| Port::configure(id, port, options)).collect::<Result<Vec<_>, _>>()?;
        let longest = options.ports.iter().map(|port| port.mtu).max().unwrap_or(0);
        // Drivers that fill buffers in pieces of 2 KiB get them in one piece.
        let frame_bytes = (longest + ETHERNET_BYTES as u16 + 4).max(2048);
        let count = options.frames_per_lane();
        let mut lanes = Vec::new();
        for lane in 0..options.lanes {
            let name = |what: &str| {
                CString::new(format!("plimsoll_{what}_{number}_{lane}"))
                    .expect("no zero bytes in letters and digits")
            };
            let (pool_name, ring_name) = (name("p"), name("h"));
            let pool = Pool::new(&pool_name, count, 2 * DPDK_BURST_FRAMES as u32, frame_bytes, -1)?;
            let handover = Ring::new(&ring_name, DPDK_HANDOVER_FRAMES_MAX, -1)?;
            for port in &ports {
                port.set_up_queue(lane, pool)?;
            }
            let (taken, inside) = (AtomicBool::new(false), CachePadded::default());
            lanes.push(Lane { taken, inside, pool, handover });
        }
        let generation = CachePadded::new(AtomicU32::new(0));
        Ok(Host { options: options.clone(), ports, lanes, generation, taken: Mutex::new(0) })
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> u16 {
        self.options.lanes
    }

    /// Starts all ports. One that dials may find nobody: that is tried again.
    fn start(&self) -> Result<(), OpenError> {
        for port in &self.ports {
            let ret = port.start(&self.options);
            if ret != 0 && port.dials.is_none() {
                return Err(OpenError::failed(format_args!("port {} does not start", port.name), ret));
            }
        }
        Ok(())
    }

    /// Stops them, when no lane has a seat.
    fn stop(&self) {
        for port in &self.ports {
            self.shut(port, STOPPED);
            port.stop();
            port.link.store(DOWN, Ordering::Release);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Shuts a port's gate and waits until no lane is inside. Never called by a lane that is.
    fn shut(&self, port: &Port, reason: u32) {
        port.shut.fetch_or(reason, Ordering::SeqCst);
        for lane in &self.lanes {
            while lane.inside.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }

    /// Looks at every link, and connects those again that want it.
    fn look(&self) {
        let taken = lock(&self.taken);
        if *taken == 0 {
            return;
        }
        for port in &self.ports {
            let link = port.look();
            if port.link.swap(link, Ordering::AcqRel) != link {
                self.generation.fetch_add(1, Ordering::Release);
            }
            if link == GONE {
                self.shut(port, STOPPED);
            }
            if link == UP {
                port.dial.connected();
            }
            let torn_down = port.shut.load(Ordering::SeqCst) & TORN_DOWN != 0;
            if link == DOWN && port.dials.is_some() && !torn_down && port.dial.is_due(nanos()) {
                self.shut(port, STOPPED);
                port.stop();
                // Whatever comes of it is seen at the next look.
                let _ = port.start(&self.options);
            }
        }
    }
}

impl Seat {
    /// Which change of the links was the last.
    pub(super) fn generation(&self) -> u32 {
        self.host.generation.load(Ordering::Acquire)
    }

    pub(super) fn pool(&self) -> Pool {
        self.host.lanes[self.lane].pool
    }

    /// Takes what came on this lane's queue of a port.
    pub(super) fn receive(&mut self, port: usize, into: &mut Vec<Frame>) -> usize {
        let (host, lane) = (&*self.host, self.lane);
        let port = &host.ports[port];
        // SAFETY: behind an open gate a port is started; this queue is this seat's, and a seat stays on its thread.
        host.inside(lane, port, || unsafe { mbuf::receive(port.id, lane as u16, into) })
    }

    /// Hands frames to this lane's queue of a port; what it does not take stays.
    pub(super) fn transmit(&mut self, port: usize, frames: &mut Vec<Frame>) -> usize {
        let (host, lane) = (&*self.host, self.lane);
        let port = &host.ports[port];
        // SAFETY: as above.
        host.inside(lane, port, || unsafe { mbuf::transmit(port.id, lane as u16, frames) })
    }

    /// Gives a frame to another lane; one that has too many loses it, and nobody sits there to take it.
    pub(super) fn hand_over(&self, lane: u16, frame: Frame) -> Result<(), Frame> {
        let lane = &self.host.lanes[usize::from(lane)];
        if lane.taken.load(Ordering::Relaxed) { lane.handover.put(frame) } else { Err(frame) }
    }

    /// Takes what other lanes have given.
    pub(super) fn take_over(&mut self, into: &mut Vec<Frame>) -> usize {
        // SAFETY: only the lane that has the seat takes from its ring, and a seat stays on its thread.
        unsafe { self.host.lanes[self.lane].handover.take(into) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.host.taken);
        *taken -= 1;
        if *taken == 0 {
            self.host.stop();
        }
        self.host.lanes[self.lane].taken.store(false, Ordering::Release);
    }
}

impl Host {
    /// Runs a burst if the port's gate is open.
    fn inside(&self, lane: usize, port: &Port, burst: impl FnOnce() -> usize) -> usize {
        let inside = &self.lanes[lane].inside;
        // Sequentially consistent, as in `shut`: either this sees that the gate is shut, or who shuts it sees this
        // inside.
        inside.store(true, Ordering::SeqCst);
        // A burst that panics is left too: its own seat is given up next, and waits for that.
        let _leave = Leave(inside);
        if port.shut.load(Ordering::SeqCst) == 0 { burst() } else { 0 }
    }
}

/// Says that a lane is not inside any more.
struct Leave<'a>(&'a AtomicBool);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Hears what libdpdk logs, on the thread that says it. The driver of shared memory says when it is going to look at
/// what has come from a peer, or that the peer is gone.
pub(super) fn hear(line: &str) {
    if !line.starts_with("memif_") {
        return;
    }
    if let Some(id) = dial::hung_up(line) {
        let all = hosts();
        let ports = all.iter().flat_map(|host| &host.ports).filter(|port| port.dials == Some(id));
        ports.for_each(|port| port.dial.refused(nanos()));
    }
    if BEFORE.iter().any(|before| line.starts_with(before)) {
        for host in hosts() {
            host.ports
                .iter()
                .filter(|port| port.is_shared_memory())
                .for_each(|port| host.shut(port, TORN_DOWN));
        }
        open_in_turn();
    }
}

/// What the driver says on libdpdk's interrupt thread before it tears a connection down: the peer is gone; or it has
/// sent something, any of which may lead there: its leave, what makes no sense, what cannot be answered because it is
/// gone by now. Whose connection it is is not said, nor whether it is one at all: strangers too connect and go.
const BEFORE: [&str; 2] =
    ["memif_msg_receive(): Invalid message size", "memif_msg_receive(): Received msg type: "];

/// The interrupt thread has been asked to open what was shut, and has not begun.
static OPENING: AtomicBool = AtomicBool::new(false);

/// Has libdpdk's interrupt thread open the gates of shared memory when it is done with what it is at.
///
/// It runs alarms as it runs the driver's handlers, one after the other: what is asked for in a handler comes after
/// that has returned, and what a handler finds asked for already has not begun. This may be called from within the
/// log: libdpdk holds no lock around a handler or an alarm, sets an alarm under one under which nobody logs, and logs
/// nothing of that itself.
fn open_in_turn() {
    if OPENING.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: the function takes any argument, and lives as long as the process.
    if unsafe { sys::rte_eal_alarm_set(1, open_after_teardown, std::ptr::null_mut()) } != 0 {
        // No memory. The keeper asks again.
        OPENING.store(false, Ordering::SeqCst);
    }
}

/// Run by the interrupt thread.
extern "C" fn open_after_teardown(_: *mut c_void) {
    // Before the gates are opened: what the keeper sees shut after that it asks for again.
    OPENING.store(false, Ordering::SeqCst);
    for host in hosts() {
        for port in &host.ports {
            port.shut.fetch_and(!TORN_DOWN, Ordering::SeqCst);
        }
    }
}

/// Looks after the ports of every node of this process, for as long as it runs.
pub(super) fn keep() {
    loop {
        thread::park_timeout(LOOK_EVERY);
        let hosts = hosts();
        hosts.iter().for_each(|host| host.look());
        let shut = |port: &Port| port.shut.load(Ordering::SeqCst) & TORN_DOWN != 0;
        if hosts.iter().flat_map(|host| &host.ports).any(shut) {
            open_in_turn();
        }
    }
}

/// Nanoseconds since this was first asked.
fn nanos() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn hosts() -> Vec<Arc<Host>> {
    lock(&HOSTS).clone()
}

/// What is behind these locks is never left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether two networks have an address in common.
pub(super) fn overlap(a: (Ipv4Addr, u8), b: (Ipv4Addr, u8)) -> bool {
    let shared_bits = a.1.min(b.1);
    let mask = u32::MAX.checked_shl(32 - u32::from(shared_bits)).unwrap_or(0);
    (a.0.to_bits() ^ b.0.to_bits()) & mask == 0
}
