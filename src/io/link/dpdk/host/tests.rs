//! Gates, with the real driver: both ends of shared memory in this process.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "a sink for a C library's log")]

use std::ffi::c_int;
use std::slice;
use std::sync::atomic::AtomicU64;

use super::super::PortOptions;
use super::*;

/// Twice what a gate once stayed shut before it was opened, whatever the driver was at.
const HOLD: Duration = Duration::from_millis(200);

const PATIENCE: Duration = Duration::from_secs(60);

/// The next line that says that the peer is gone is to be held.
static HOLDS: AtomicBool = AtomicBool::new(false);
static HELD: AtomicBool = AtomicBool::new(false);

/// How often the lane has asked for a burst, and how often it had one; and how much of both while the line was held.
static ASKED: AtomicU64 = AtomicU64::new(0);
static BURSTS: AtomicU64 = AtomicU64::new(0);
static ASKED_MEANWHILE: AtomicU64 = AtomicU64::new(0);
static BURSTS_MEANWHILE: AtomicU64 = AtomicU64::new(0);

/// A sink in which the interrupt thread loses its core, between the line and what the driver does then.
extern "C" fn holding(level: c_int, line: *const c_char, len_bytes: usize) {
    eal::log(level, line, len_bytes);
    // SAFETY: so many bytes are there for the time of this call.
    let line = unsafe { slice::from_raw_parts(line.cast::<u8>(), len_bytes) };
    if line.starts_with(BEFORE[0].as_bytes()) && HOLDS.swap(false, Ordering::SeqCst) {
        let (asked, bursts) = (ASKED.load(Ordering::SeqCst), BURSTS.load(Ordering::SeqCst));
        let begin = Instant::now();
        while begin.elapsed() < HOLD {
            thread::yield_now();
        }
        ASKED_MEANWHILE.store(ASKED.load(Ordering::SeqCst) - asked, Ordering::SeqCst);
        BURSTS_MEANWHILE.store(BURSTS.load(Ordering::SeqCst) - bursts, Ordering::SeqCst);
        HELD.store(true, Ordering::SeqCst);
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::yield_now();
    }
}

/// The end with this role, of two in this process.
fn end(socket: &str, role: &str) -> Options {
    let vdev = |role| format!("--vdev=net_memif_{role},role={role},id=0,socket={socket}");
    let eal = ["--no-huge", "--no-pci", "-m", "128"].map(str::to_owned);
    let port = PortOptions {
        device: Device::Name(format!("net_memif_{role}")),
        address: Ipv4Addr::new(10, 9, 0, if role == "server" { 1 } else { 2 }),
        prefix_bits: 24,
        mtu: 1500,
        queue_frames: 512,
    };
    Options {
        eal: eal.into_iter().chain([vdev("server"), vdev("client")]).collect(),
        ports: vec![port],
        udp_port: 7100,
        lanes: 1,
        peers: 1,
    }
}

/// A lane that asks for a burst all the time, and counts those that it has.
fn lane(options: &Options, stop: &AtomicBool) {
    let mut seat = sit_down(options, 0).unwrap();
    let mut frames = Vec::new();
    while !stop.load(Ordering::Acquire) {
        seat.receive(0, &mut frames);
        frames.clear();
        let count = || BURSTS.fetch_add(1, Ordering::SeqCst) as usize;
        seat.host.inside(0, &seat.host.ports[0], count);
        ASKED.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
    }
}

/// The gate was opened again when some time had passed: a driver whose thread had no core for so long then unmapped
/// what a burst was reading.
#[test]
fn a_gate_stays_shut_for_as_long_as_the_driver_is_at_it() {
    let place = std::env::temp_dir().join(format!("plimsoll-gates-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let socket = place.join("memif.sock");
    let (server, client) = (end(socket.to_str().unwrap(), "server"), end(socket.to_str().unwrap(), "client"));
    eal::start(&server.eal, 0).unwrap();
    // SAFETY: the sink lives as long as the process.
    assert_eq!(unsafe { sys::plimsoll_dpdk_log_to(holding) }, 0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| lane(&server, &stop));
        let seat = sit_down(&client, 0).unwrap();
        let host_of = |options: &Options| hosts().into_iter().find(|host| host.options == *options);
        until("both ends are connected", || {
            let up = |options| host_of(options).is_some_and(|host| host.ports[0].link() == LinkState::Up);
            up(&server) && up(&client)
        });
        let before = BURSTS.load(Ordering::SeqCst);
        until("bursts run", || BURSTS.load(Ordering::SeqCst) > before);
        HOLDS.store(true, Ordering::SeqCst);
        drop(seat);
        until("the driver says that the peer is gone", || HELD.load(Ordering::SeqCst));
        let after = BURSTS.load(Ordering::SeqCst);
        until("bursts run again", || BURSTS.load(Ordering::SeqCst) > after);
        let open = host_of(&server).is_some_and(|host| host.ports[0].shut.load(Ordering::SeqCst) == 0);
        stop.store(true, Ordering::Release);
        assert!(open, "nothing keeps the gate shut");
    });
    // SAFETY: as above.
    assert_eq!(unsafe { sys::plimsoll_dpdk_log_to(eal::log) }, 0);
    std::fs::remove_dir_all(&place).unwrap();
    assert!(ASKED_MEANWHILE.load(Ordering::SeqCst) > 0, "the lane wanted bursts");
    assert_eq!(BURSTS_MEANWHILE.load(Ordering::SeqCst), 0, "bursts beside a driver that unmaps");
}
