//! Memory that the device may reach.
#![allow(unsafe_code, reason = "memory that a device reads and writes is registered by its address")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use rdma_sys as sys;

use super::{Device, VerbError};
use crate::io::pool::Pool;

const PAGE_BYTES: usize = 4096;

/// What queue pairs and memory must share to work together.
pub(in super::super) struct Domain {
    raw: NonNull<sys::ibv_pd>,
    _device: Rc<Device>,
}

/// Registered memory, kept alive while it is registered.
pub(in super::super) struct Region {
    raw: NonNull<sys::ibv_mr>,
    _domain: Rc<Domain>,
    memory: Memory,
}

enum Memory {
    /// Its own.
    Own(NonNull<u8>, Layout),
    /// A chunk of the lane's pool.
    Pool { _pool: Pool },
}

impl Domain {
    pub(in super::super) fn new(device: &Rc<Device>) -> Result<Rc<Domain>, VerbError> {
        // SAFETY: the device is open.
        let raw = NonNull::new(unsafe { sys::ibv_alloc_pd(device.raw()) });
        let raw = raw.ok_or_else(|| VerbError::last("ibv_alloc_pd"))?;
        Ok(Rc::new(Domain { raw, _device: Rc::clone(device) }))
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_pd {
        self.raw.as_ptr()
    }

    /// Fresh memory, zeroed, that the device may read and write as this process tells it to. No peer may reach it: a
    /// peer's bytes come only into what is posted for them.
    pub(in super::super) fn allocate(self: &Rc<Domain>, len_bytes: usize) -> Result<Region, VerbError> {
        let layout = Layout::from_size_align(len_bytes.max(PAGE_BYTES), PAGE_BYTES)
            .expect("buffers are of some MiB and a page is a power of two");
        // SAFETY: the layout is not of size zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        let memory = Memory::Own(base, layout);
        self.register(base.as_ptr(), layout.size(), memory)
    }

    /// The chunks of a pool, in the order of [`crate::io::pool::Slice::region_index`].
    pub(in super::super) fn register_pool(self: &Rc<Domain>, pool: &Pool) -> Result<Vec<Region>, VerbError> {
        pool.regions()
            .map(|(base, len_bytes)| self.register(base, len_bytes, Memory::Pool { _pool: pool.clone() }))
            .collect()
    }

    fn register(
        self: &Rc<Domain>,
        base: *mut u8,
        len_bytes: usize,
        memory: Memory,
    ) -> Result<Region, VerbError> {
        let access = sys::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0;
        // SAFETY: the domain is there; the memory is of this length and is kept by the region.
        let raw = unsafe { sys::ibv_reg_mr(self.raw(), base.cast(), len_bytes, access as i32) };
        let Some(raw) = NonNull::new(raw) else {
            let error = VerbError::last("ibv_reg_mr");
            memory.free();
            return Err(error);
        };
        Ok(Region { raw, _domain: Rc::clone(self), memory })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: everything made of it held it until now. A device that is gone may answer with an error.
        unsafe { sys::ibv_dealloc_pd(self.raw()) };
    }
}

impl Region {
    /// What a work request names it by.
    pub(super) fn key(&self) -> u32 {
        // SAFETY: registered until this is dropped.
        unsafe { self.raw.as_ref().lkey }
    }

    /// Where its own memory begins.
    pub(super) fn base(&self) -> NonNull<u8> {
        match self.memory {
            Memory::Own(base, _) => base,
            Memory::Pool { .. } => unreachable!("the pool gives out its own memory"),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: registered once, and the queue pairs that were told of it are destroyed.
        unsafe { sys::ibv_dereg_mr(self.raw.as_ptr()) };
        self.memory.free();
    }
}

impl Memory {
    /// To be called once, when nobody reaches it any more.
    fn free(&self) {
        if let Memory::Own(base, layout) = *self {
            // SAFETY: allocated with this layout, and freed once.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Domain")
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({})", self.key())
    }
}
