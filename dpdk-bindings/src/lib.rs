//! What Plimsoll calls of libdpdk, as it lies there: declarations by hand, of libdpdk's own functions and of those that
//! `shim.c` makes of its inline ones. Nothing else lives here; what is safe to do with it is said by who uses it.
//!
//! Return values are libdpdk's: 0 or a count, or a negative errno.
#![allow(unsafe_code, reason = "declarations of functions in C")]
#![no_std]

use core::ffi::{c_char, c_int, c_void};

/// A frame's memory.
#[repr(C)]
pub struct Mbuf {
    _opaque: [u8; 0],
}

/// A pool of [`Mbuf`].
#[repr(C)]
pub struct Mempool {
    _opaque: [u8; 0],
}

/// A bounded queue of pointers, of many producers and one consumer.
#[repr(C)]
pub struct Ring {
    _opaque: [u8; 0],
}

/// What a port is and can do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortInfo {
    /// The driver's name, ends with a zero byte.
    pub driver: [c_char; 32],
    /// The port's own address.
    pub mac: [u8; 6],
    /// The most queues of each direction.
    pub queues_max: u16,
    /// The longest IP packet that it moves, in bytes.
    pub mtu_max: u16,
    /// The most frames that a receive queue holds.
    pub rx_ring_max: u16,
    /// The most frames that a send queue holds.
    pub tx_ring_max: u16,
    /// The memory's node that it is near to; negative: any.
    pub socket: i32,
    /// 1: it can compute the checksums of IPv4 and UDP.
    pub tx_checksums: u8,
    /// 1: it can verify them.
    pub rx_checksums: u8,
}

/// What a port has lost.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PortCounters {
    /// Frames that came while its ring was full.
    pub missed: u64,
    /// Frames that came broken.
    pub errors_in: u64,
    /// Frames that came while its pool was empty.
    pub no_memory: u64,
    /// Frames that it did not send.
    pub errors_out: u64,
}

/// Takes a line of libdpdk's log (level 4: an error, 8: for debugging), on the thread that writes it.
pub type LogSink = extern "C" fn(level: c_int, line: *const c_char, len_bytes: usize);

/// What an alarm runs.
pub type Alarm = extern "C" fn(argument: *mut c_void);

unsafe extern "C" {
    /// Starts libdpdk, once per process. Arguments as of a command line, the program's name first.
    pub fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    /// The text of an errno, of static storage.
    pub fn rte_strerror(errnum: c_int) -> *const c_char;
    /// libdpdk's version, of static storage.
    pub fn rte_version() -> *const c_char;
    /// Where this process's files lie, of static storage; once libdpdk is started.
    pub fn rte_eal_get_runtime_dir() -> *const c_char;
    /// Gives the calling thread an id, and so a cache in every pool.
    pub fn rte_thread_register() -> c_int;
    /// Takes it back.
    pub fn rte_thread_unregister();
    /// Has the interrupt thread of libdpdk run `alarm` once, so many microseconds from now (at least 1) or later: after
    /// the handler that it is in. May be called from any thread, from a handler and from the log's sink.
    pub fn rte_eal_alarm_set(us: u64, alarm: Alarm, argument: *mut c_void) -> c_int;
    /// The number of a port of this name.
    pub fn rte_eth_dev_get_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    /// The name of a port, into 64 bytes.
    pub fn rte_eth_dev_get_name_by_port(port: u16, name: *mut c_char) -> c_int;
    /// 1: there is such a port.
    pub fn rte_eth_dev_is_valid_port(port: u16) -> c_int;
    /// 1: the device behind it is gone, as far as its driver can tell.
    pub fn rte_eth_dev_is_removed(port: u16) -> c_int;
    /// Starts a port that is set up.
    pub fn rte_eth_dev_start(port: u16) -> c_int;
    /// Stops a port; nobody may be in one of its bursts.
    pub fn rte_eth_dev_stop(port: u16) -> c_int;
    /// Ends a pool; nobody may hold one of its buffers.
    pub fn rte_mempool_free(pool: *mut Mempool);
    /// How many buffers of a pool nobody holds.
    pub fn rte_mempool_avail_count(pool: *const Mempool) -> u32;

    /// Hands every line of the log to `sink`. Before [`rte_eal_init`].
    pub fn plimsoll_dpdk_log_to(sink: LogSink) -> c_int;
    /// Sets the least urgent level that is logged (8: everything) where the pattern fits.
    pub fn plimsoll_dpdk_log_level(pattern: *const c_char, level: u32) -> c_int;
    /// What went wrong on this thread.
    pub fn plimsoll_dpdk_errno() -> c_int;
    /// Nonzero: this thread has an id.
    pub fn plimsoll_dpdk_thread_known() -> c_int;

    /// What a port is.
    pub fn plimsoll_dpdk_port_info(port: u16, out: *mut PortInfo) -> c_int;
    /// Sets a stopped port up.
    pub fn plimsoll_dpdk_port_configure(
        port: u16,
        queues: u16,
        mtu: u16,
        tx_checksums: c_int,
        rx_checksums: c_int,
    ) -> c_int;
    /// Sets one queue of each direction up; lowers the lengths to what the port bears.
    pub fn plimsoll_dpdk_queue_setup(
        port: u16,
        queue: u16,
        rx_ring: *mut u16,
        tx_ring: *mut u16,
        pool: *mut Mempool,
    ) -> c_int;
    /// Stops a port on the interrupt thread of libdpdk, and waits for that.
    pub fn plimsoll_dpdk_port_stop_in_turn(port: u16) -> c_int;
    /// 1: its link is up, 0: down.
    pub fn plimsoll_dpdk_link_up(port: u16) -> c_int;
    /// What it has lost.
    pub fn plimsoll_dpdk_port_counters(port: u16, out: *mut PortCounters) -> c_int;
    /// Has a started port put what comes for a UDP port into a queue; says why not.
    pub fn plimsoll_dpdk_steer(
        port: u16,
        udp_port: u16,
        queue: u16,
        why: *mut c_char,
        why_bytes: usize,
    ) -> c_int;
    /// Takes up to `count` received frames, which are then the caller's.
    pub fn plimsoll_dpdk_rx_burst(port: u16, queue: u16, into: *mut *mut Mbuf, count: u16) -> u16;
    /// Hands up to `count` frames over; those taken are the port's.
    pub fn plimsoll_dpdk_tx_burst(port: u16, queue: u16, from: *mut *mut Mbuf, count: u16) -> u16;

    /// A pool of buffers with room for frames of `frame_bytes`; null: see [`plimsoll_dpdk_errno`].
    pub fn plimsoll_dpdk_pool_create(
        name: *const c_char,
        count: u32,
        cached: u32,
        frame_bytes: u16,
        socket: c_int,
    ) -> *mut Mempool;
    /// An empty buffer; null: the pool is empty.
    pub fn plimsoll_dpdk_mbuf_alloc(pool: *mut Mempool) -> *mut Mbuf;
    /// Gives a buffer back to its pool.
    pub fn plimsoll_dpdk_mbuf_free(mbuf: *mut Mbuf);
    /// Makes it longer at its end; the new bytes, or null when there is no room.
    pub fn plimsoll_dpdk_mbuf_append(mbuf: *mut Mbuf, len_bytes: u16) -> *mut u8;
    /// The bytes of its first segment; `whole` is 1 when there is no other.
    pub fn plimsoll_dpdk_mbuf_data(mbuf: *const Mbuf, len_bytes: *mut u16, whole: *mut c_int) -> *const u8;
    /// The port that it came from.
    pub fn plimsoll_dpdk_mbuf_port(mbuf: *const Mbuf) -> u16;
    /// Has it come from this port.
    pub fn plimsoll_dpdk_mbuf_set_port(mbuf: *mut Mbuf, port: u16);
    /// What the port says of its checksums: 1 the header's holds, 2 it does not, 4 UDP's holds, 8 it does not.
    pub fn plimsoll_dpdk_mbuf_checksums(mbuf: *const Mbuf) -> c_int;
    /// Leaves both checksums to the port.
    pub fn plimsoll_dpdk_mbuf_offload(mbuf: *mut Mbuf, ethernet_bytes: u16, ip_bytes: u16);

    /// A ring for `count` buffers; null: see [`plimsoll_dpdk_errno`].
    pub fn plimsoll_dpdk_ring_create(name: *const c_char, count: u32, socket: c_int) -> *mut Ring;
    /// 0: taken; negative: full.
    pub fn plimsoll_dpdk_ring_enqueue(ring: *mut Ring, mbuf: *mut Mbuf) -> c_int;
    /// Takes up to `count` buffers.
    pub fn plimsoll_dpdk_ring_dequeue(ring: *mut Ring, into: *mut *mut Mbuf, count: u32) -> u32;
}
