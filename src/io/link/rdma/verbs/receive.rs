//! The slots into which a queue pair receives.
#![allow(unsafe_code, reason = "the device writes into the slots while they are posted")]

use std::ptr::null_mut;
use std::slice;

use rdma_sys as sys;

use super::queues::{Pair, WorkId};
use super::{Region, Shape, Tag, VerbError};

/// How many receives one call posts.
const BATCH: usize = 64;

/// Each slot is either posted, and then the device's alone, or here.
pub(super) struct Receiving {
    tag: Tag,
    memory: Region,
    slot_bytes: usize,
    posted: Vec<bool>,
    /// Given back, to be posted again.
    free: Vec<u16>,
    requests: Vec<sys::ibv_recv_wr>,
    parts: Vec<sys::ibv_sge>,
}

impl Receiving {
    pub(super) fn new(tag: Tag, memory: Region, shape: Shape) -> Receiving {
        let slots =
            u16::try_from(shape.slots).expect("the number of slots is bounded when the carrier is made");
        // SAFETY: plain numbers and pointers, of which zero is a value.
        let (request, part): (sys::ibv_recv_wr, sys::ibv_sge) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Receiving {
            tag,
            memory,
            slot_bytes: shape.slot_bytes,
            posted: vec![false; shape.slots],
            free: (0..slots).rev().collect(),
            requests: vec![request; BATCH],
            parts: vec![part; BATCH],
        }
    }

    /// The memory. To be called when the queue pair is gone.
    pub(super) fn into_slots(self) -> Region {
        self.memory
    }

    #[cfg(test)]
    pub(super) fn slots_at(&self) -> std::ptr::NonNull<u8> {
        self.memory.base()
    }

    /// Posts all slots that are free.
    pub(super) fn post(&mut self, pair: &Pair) -> Result<(), VerbError> {
        while !self.free.is_empty() {
            let from = self.free.len().saturating_sub(BATCH);
            let count = self.free.len() - from;
            for (at, &slot) in self.free[from..].iter().enumerate() {
                // SAFETY: the slot lies in the memory, which has `slot_bytes` for each.
                let address = unsafe { self.memory.base().add(usize::from(slot) * self.slot_bytes) };
                self.parts[at] = sys::ibv_sge {
                    addr: address.as_ptr().expose_provenance() as u64,
                    length: self.slot_bytes as u32,
                    lkey: self.memory.key(),
                };
                // SAFETY: both places are in their vectors, which do not move before the call below returns.
                let (part, next) = unsafe {
                    let requests = self.requests.as_mut_ptr();
                    (
                        self.parts.as_mut_ptr().add(at),
                        if at + 1 < count { requests.add(at + 1) } else { null_mut() },
                    )
                };
                let wr_id = WorkId::new(self.tag, true, slot).0;
                self.requests[at] = sys::ibv_recv_wr { wr_id, next, sg_list: part, num_sge: 1 };
                self.posted[usize::from(slot)] = true;
            }
            let mut bad = null_mut();
            // SAFETY: the requests are linked to each other and end; the slots are registered, outlive the queue pair
            // and are left alone until they complete.
            let returned = unsafe { sys::ibv_post_recv(pair.raw(), self.requests.as_mut_ptr(), &mut bad) };
            VerbError::check("ibv_post_recv", returned)?;
            self.free.truncate(from);
        }
        Ok(())
    }

    /// What the device wrote into a slot that has completed.
    pub(super) fn received(&mut self, slot: u16, len_bytes: usize) -> Option<&[u8]> {
        let posted = self.posted.get_mut(usize::from(slot)).filter(|posted| **posted)?;
        if len_bytes > self.slot_bytes {
            return None;
        }
        *posted = false;
        // SAFETY: the slot lies in the memory, was zeroed or written, now or for a queue pair before, and is not posted
        // while the slice lives: it is posted by `post` alone, which borrows all of this.
        Some(unsafe {
            let base = self.memory.base().add(usize::from(slot) * self.slot_bytes);
            slice::from_raw_parts(base.as_ptr(), len_bytes)
        })
    }

    pub(super) fn give_back(&mut self, slot: u16) {
        debug_assert!(!self.posted[usize::from(slot)], "a slot that is posted is the device's");
        self.free.push(slot);
    }
}
