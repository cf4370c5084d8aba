//! An opened device, its port, and what it tells by itself.
#![allow(unsafe_code, reason = "calls of libibverbs, and structures that it fills")]

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::{fmt, io};

use rdma_sys as sys;

use super::VerbError;

/// An opened device. What is made of it holds it.
pub(in super::super) struct Device {
    context: NonNull<sys::ibv_context>,
    name: String,
}

/// What the device bears, asked from it.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Limits {
    pub(in super::super) queue_entries: usize,
    pub(in super::super) gather_parts: usize,
    pub(in super::super) completions: usize,
}

/// The port that is used, as it was when the device was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Port {
    pub(in super::super) number: u8,
    pub(in super::super) active: bool,
    /// As the verbs number it, 1 to 5.
    pub(in super::super) mtu: u8,
    pub(in super::super) lid: u16,
    pub(in super::super) gid_index: u8,
    pub(in super::super) gid: [u8; 16],
    /// Ethernet has no local ids: addresses are GIDs.
    pub(in super::super) ethernet: bool,
}

/// What a device tells by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Event {
    /// This queue pair, by its number, is of no use any more.
    Pair(u32),
    /// The completion queue has overrun.
    Completions,
    /// The device is gone.
    Gone,
    /// Its port is down.
    PortDown,
    /// Its port is up.
    PortUp,
    /// Its port has other addresses.
    Addresses,
    /// Something that asks for nothing.
    Other(i32),
}

impl Port {
    /// The most that a packet carries.
    pub(in super::super) fn packet_bytes(&self) -> u32 {
        128 << self.mtu
    }
}

impl Device {
    /// Opens the device of this name; without one, the first that there is.
    pub(in super::super) fn open(name: Option<&str>) -> Result<Rc<Device>, VerbError> {
        let list = List::new()?;
        let found = list.devices().find(|(_, found)| name.is_none_or(|name| name == found));
        let Some((device, name)) = found else {
            let present = list.devices().map(|(_, name)| name).collect::<Vec<_>>();
            let what = if present.is_empty() {
                "there is no RDMA device".to_owned()
            } else {
                format!("there is no device of this name; there are {}", present.join(", "))
            };
            return Err(VerbError {
                call: "open an RDMA device",
                cause: io::Error::new(io::ErrorKind::NotFound, what),
            });
        };
        // SAFETY: the device is one of the list, which is not freed before it is open.
        let context = NonNull::new(unsafe { sys::ibv_open_device(device) })
            .ok_or_else(|| VerbError::last("ibv_open_device"))?;
        let device = Device { context, name };
        let flags = rustix::fs::fcntl_getfl(device.fd())
            .and_then(|flags| rustix::fs::fcntl_setfl(device.fd(), flags | rustix::fs::OFlags::NONBLOCK));
        flags.map_err(|error| VerbError { call: "fcntl", cause: error.into() })?;
        Ok(Rc::new(device))
    }

    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_context {
        self.context.as_ptr()
    }

    /// Readable when [`Device::event`] has something to tell.
    pub(in super::super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the context and its descriptor are open as long as this device is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.context.as_ref().async_fd) }
    }

    pub(in super::super) fn limits(&self) -> Result<Limits, VerbError> {
        let mut attributes = MaybeUninit::<sys::ibv_device_attr>::zeroed();
        // SAFETY: the context is open, and the structure is large enough and the caller's.
        let returned = unsafe { sys::ibv_query_device(self.raw(), attributes.as_mut_ptr()) };
        VerbError::check("ibv_query_device", returned)?;
        // SAFETY: it was zeroed, which is a value of it, and filled.
        let attributes = unsafe { attributes.assume_init() };
        let positive = |number: i32| usize::try_from(number).unwrap_or(0);
        Ok(Limits {
            queue_entries: positive(attributes.max_qp_wr),
            gather_parts: positive(attributes.max_sge),
            completions: positive(attributes.max_cqe),
        })
    }

    /// The port and the address on it; without a wish, the address that reaches furthest: RoCE v2 over IPv4, then over
    /// IPv6, then the first that there is.
    pub(in super::super) fn port(&self, number: u8, gid_index: Option<u8>) -> Result<Port, VerbError> {
        let mut attributes = MaybeUninit::<sys::ibv_port_attr>::zeroed();
        // SAFETY: the context is open, and the structure is the caller's and of the size that this header says.
        let returned = unsafe { sys::___ibv_query_port(self.raw(), number, attributes.as_mut_ptr()) };
        VerbError::check("ibv_query_port", returned)?;
        // SAFETY: it was zeroed, which is a value of it, and filled.
        let attributes = unsafe { attributes.assume_init() };
        let gids = u8::try_from(attributes.gid_tbl_len.clamp(0, 255)).unwrap_or(0);
        let gid_index = match gid_index {
            Some(index) => index,
            None => {
                let valid =
                    (0..gids).filter(|&index| self.gid(number, index).is_ok_and(|gid| gid != [0; 16]));
                valid.max_by_key(|&index| (self.rank(number, index), u8::MAX - index)).unwrap_or(0)
            }
        };
        let gid = self.gid(number, gid_index)?;
        if gid == [0; 16] {
            let cause =
                io::Error::new(io::ErrorKind::NotFound, format!("port {number} has no GID {gid_index}"));
            return Err(VerbError { call: "ibv_query_gid", cause });
        }
        Ok(Port {
            number,
            active: attributes.state == sys::ibv_port_state::IBV_PORT_ACTIVE,
            mtu: u8::try_from(attributes.active_mtu).unwrap_or(1).clamp(1, 5),
            lid: attributes.lid,
            gid_index,
            gid,
            ethernet: attributes.link_layer == 2,
        })
    }

    fn gid(&self, port: u8, index: u8) -> Result<[u8; 16], VerbError> {
        let mut gid = sys::ibv_gid { raw: [0; 16] };
        // SAFETY: the context is open, and the structure is the caller's.
        let returned = unsafe { sys::ibv_query_gid(self.raw(), port, index.into(), &mut gid) };
        VerbError::check("ibv_query_gid", returned)?;
        // SAFETY: every bit pattern is a value of 16 bytes.
        Ok(unsafe { gid.raw })
    }

    fn rank(&self, port: u8, index: u8) -> u8 {
        let path = format!("/sys/class/infiniband/{}/ports/{port}/gid_attrs/types/{index}", self.name);
        let routable = fs::read_to_string(path).is_ok_and(|kind| kind.trim() == "RoCE v2");
        let mapped = self.gid(port, index).is_ok_and(|gid| gid[..12] == *b"\0\0\0\0\0\0\0\0\0\0\xff\xff");
        2 * u8::from(routable) + u8::from(mapped)
    }

    /// The next that it tells, if there is one. Never blocks.
    pub(in super::super) fn event(&self) -> Option<Event> {
        let mut event = MaybeUninit::<sys::ibv_async_event>::zeroed();
        // SAFETY: the context is open, its descriptor does not block, and the structure is the caller's.
        if unsafe { sys::ibv_get_async_event(self.raw(), event.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: it was zeroed and filled. The kind is read as the number that it is: a newer library may tell kinds
        // that the enumeration does not list.
        let kind = unsafe { (&raw const (*event.as_ptr()).event_type).cast::<i32>().read() };
        let told = match kind {
            0 => Event::Completions,
            1..=3 | 7 => {
                // SAFETY: of these kinds, `element` is the queue pair, which cannot be destroyed before the event is
                // acknowledged.
                Event::Pair(unsafe { (*(*event.as_ptr()).element.qp).qp_num })
            }
            8 => Event::Gone,
            9 => Event::PortUp,
            10 => Event::PortDown,
            11 | 18 => Event::Addresses,
            other => Event::Other(other),
        };
        // SAFETY: it was got from this context and is acknowledged once.
        unsafe { sys::ibv_ack_async_event(event.as_mut_ptr()) };
        Some(told)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once, and everything made of it held it until now.
        unsafe { sys::ibv_close_device(self.raw()) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name)
    }
}

/// The devices that there are.
struct List {
    first: NonNull<*mut sys::ibv_device>,
    count: usize,
}

impl List {
    fn new() -> Result<List, VerbError> {
        let mut count = 0;
        // SAFETY: the count is the caller's.
        let first = NonNull::new(unsafe { sys::ibv_get_device_list(&mut count) })
            .ok_or_else(|| VerbError::last("ibv_get_device_list"))?;
        Ok(List { first, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = (*mut sys::ibv_device, String)> + '_ {
        (0..self.count).map(|at| {
            // SAFETY: the list has `count` entries, each a device until the list is freed.
            let device = unsafe { *self.first.as_ptr().add(at) };
            // SAFETY: a device's name is a string of its own, ended by zero, as long as the list.
            let name = unsafe { CStr::from_ptr(sys::ibv_get_device_name(device)) };
            (device, name.to_string_lossy().into_owned())
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: got from the library and freed once.
        unsafe { sys::ibv_free_device_list(self.first.as_ptr()) };
    }
}
