//! One port: set up, started and stopped, looked at.
#![allow(unsafe_code, reason = "ports of a C library: which thread may call what is kept by seats and gates")]

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use dpdk_bindings as sys;

use super::super::dial::Dial;
use super::super::mbuf::Pool;
use super::super::stack::Interface;
use super::super::{OpenError, Options, PortOptions};
use super::{AF_PACKET, DOWN, GONE, INTERFACES, LinkState, MEMIF, Port, STOPPED, UP, name_of, nanos};
use crate::wire::ethernet::Mac;

impl Port {
    pub(super) fn configure(id: u16, wanted: &PortOptions, options: &Options) -> Result<Port, OpenError> {
        let name = name_of(id);
        let failed = |what: &str, ret| OpenError::failed(format_args!("port {name} {what}"), ret);
        let mut info = std::mem::MaybeUninit::<sys::PortInfo>::zeroed();
        // SAFETY: written to where it points.
        let ret = unsafe { sys::plimsoll_dpdk_port_info(id, info.as_mut_ptr()) };
        if ret != 0 {
            return Err(failed("does not say what it is", ret));
        }
        // SAFETY: every field is a number, so zeros were a value before it was written.
        let info = unsafe { info.assume_init() };
        if options.lanes > info.queues_max {
            return Err(OpenError(format!(
                "port {name} has {} queues of each direction for {} lanes; choose fewer lanes, or a port with more (af_packet: \
                 qpairs=, memif takes 256)",
                info.queues_max, options.lanes
            )));
        }
        if wanted.mtu > info.mtu_max {
            return Err(OpenError(format!(
                "port {name} moves packets of {} bytes at most; mtu is {}",
                info.mtu_max, wanted.mtu
            )));
        }
        let (tx_checksums, rx_checksums) = (info.tx_checksums == 1, info.rx_checksums == 1);
        // SAFETY: a port of this number exists, is stopped, and nobody else knows of it.
        let ret = unsafe {
            sys::plimsoll_dpdk_port_configure(
                id,
                options.lanes,
                wanted.mtu,
                tx_checksums.into(),
                rx_checksums.into(),
            )
        };
        if ret != 0 {
            return Err(failed("cannot be set up", ret));
        }
        let driver =
            info.driver.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect::<Vec<u8>>();
        let driver = String::from_utf8_lossy(&driver).into_owned();
        let dials = options.memif_dials(&name).filter(|_| driver == MEMIF);
        let below = (driver == AF_PACKET).then(|| options.kernel_interface(&name));
        let interface_below = below.flatten().filter(|_| Path::new(INTERFACES).exists());
        let queue_frames = options
            .ring_frames(&name, &driver)
            .map_or(wanted.queue_frames, |held| held.min(wanted.queue_frames));
        let interface =
            Interface { mac: Mac(info.mac), address: wanted.address, prefix_bits: wanted.prefix_bits };
        Ok(Port {
            id,
            steered: AtomicBool::new(driver == MEMIF || options.lanes == 1),
            name,
            driver,
            interface,
            tx_checksums,
            queue_frames: AtomicU16::new(queue_frames),
            interface_below,
            dials,
            shut: CachePadded::new(AtomicU32::new(STOPPED)),
            link: AtomicU8::new(DOWN),
            dial: Dial::default(),
        })
    }

    pub(super) fn set_up_queue(&self, queue: u16, pool: Pool) -> Result<(), OpenError> {
        let wanted = self.queue_frames();
        let (mut rx, mut tx) = (wanted, wanted);
        // SAFETY: the port is stopped, and the pool lives as long as the process.
        let ret = unsafe { sys::plimsoll_dpdk_queue_setup(self.id, queue, &mut rx, &mut tx, pool.as_ptr()) };
        if ret != 0 {
            let what = format_args!("port {}: its queue {queue} cannot be set up", self.name);
            return Err(OpenError::failed(what, ret));
        }
        // A port that bears fewer has lowered them. One that rounds up holds what was asked for all the same.
        self.queue_frames.fetch_min(rx.min(tx), Ordering::Relaxed);
        Ok(())
    }

    /// How many frames each of its queues holds.
    pub(in crate::io::link::dpdk) fn queue_frames(&self) -> u16 {
        self.queue_frames.load(Ordering::Relaxed)
    }

    /// Starts it, has it steer, and opens its gate.
    pub(super) fn start(&self, options: &Options) -> i32 {
        self.dial.begin(nanos());
        // SAFETY: the port is set up and stopped, its gate is shut, and the caller holds the host's lock.
        let ret = unsafe { sys::rte_eth_dev_start(self.id) };
        if ret != 0 {
            self.dial.refused(nanos());
            return ret;
        }
        if options.lanes > 1 && self.driver != MEMIF {
            let all = (0..options.lanes).all(|lane| self.steer(options.udp_port + lane, lane));
            self.steered.store(all, Ordering::Relaxed);
        }
        self.shut.fetch_and(!STOPPED, Ordering::SeqCst);
        0
    }

    fn steer(&self, udp_port: u16, queue: u16) -> bool {
        // SAFETY: the port is started, and no room is given for an explanation.
        unsafe { sys::plimsoll_dpdk_steer(self.id, udp_port, queue, std::ptr::null_mut(), 0) == 0 }
    }

    pub(super) fn stop(&self) {
        // SAFETY: its gate is shut and no lane is inside. One that is not started is left alone; one that does not stop
        // is started again, or never used.
        unsafe {
            if self.is_shared_memory() {
                sys::plimsoll_dpdk_port_stop_in_turn(self.id)
            } else {
                sys::rte_eth_dev_stop(self.id)
            }
        };
    }

    pub(super) fn look(&self) -> u8 {
        if self.link.load(Ordering::Relaxed) == GONE {
            return GONE; // another one of its name is not this one
        }
        if let Some(interface) = &self.interface_below {
            return match fs::read_to_string(Path::new(INTERFACES).join(interface).join("carrier")) {
                Ok(carrier) if carrier.trim() == "1" => UP,
                Err(error) if error.kind() == ErrorKind::NotFound => GONE,
                _ => DOWN,
            };
        }
        // SAFETY: takes any number.
        if unsafe { sys::rte_eth_dev_is_removed(self.id) } == 1 {
            return GONE;
        }
        // SAFETY: takes any number.
        match unsafe { sys::plimsoll_dpdk_link_up(self.id) } {
            1 => UP,
            0 => DOWN,
            _ => GONE,
        }
    }

    pub(in crate::io::link::dpdk) fn link(&self) -> LinkState {
        match self.link.load(Ordering::Acquire) {
            UP => LinkState::Up,
            GONE => LinkState::Gone,
            _ => LinkState::Down,
        }
    }

    pub(in crate::io::link::dpdk) fn is_shared_memory(&self) -> bool {
        self.driver == MEMIF
    }

    /// What it has lost; zeros when it does not say.
    pub(in crate::io::link::dpdk) fn lost(&self) -> sys::PortCounters {
        let mut counters = sys::PortCounters::default();
        // SAFETY: written to where it points.
        unsafe { sys::plimsoll_dpdk_port_counters(self.id, &mut counters) };
        counters
    }
}
