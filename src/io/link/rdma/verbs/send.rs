//! What a queue pair sends: from where it lies in the lane's pool, or copied into a ring of registered memory.
//!
//! Requests complete in order, so one in some is asked to tell: the last of a batch that holds records of the pool, so
//! that what is held is let go when the device is done with it and not later, and else one in a quarter of the queue.
#![allow(unsafe_code, reason = "the device reads what was posted until it completes")]

use std::collections::VecDeque;
use std::ptr::null_mut;
use std::slice;

use rdma_sys as sys;

use super::queues::{Pair, Sent, WorkId};
use super::{Region, Shape, Tag, VerbError};
use crate::io::Full;
use crate::io::link::rdma::ring::Ring;
use crate::io::pool::{Pool, Slice};

/// How many sends one call posts.
const BATCH: usize = 32;

/// Shorter parts are copied: a part more costs the device a read of its own.
const GATHER_BYTES_MIN: usize = 256;

pub(super) struct Sending {
    tag: Tag,
    staging: Region,
    ring: Ring,
    inline_bytes: usize,
    parts_max: usize,
    entries: Vec<Entry>,
    /// The numbers of the oldest request under way and of the next, counted from the beginning.
    oldest: u64,
    next: u64,
    /// What the requests under way hold of the pool, in their order.
    holds: VecDeque<Slice>,
    /// Queued and not posted.
    pending: usize,
    requests: Vec<sys::ibv_send_wr>,
    parts: Vec<sys::ibv_sge>,
    /// Of the requests since the last one that was asked to tell: how many, whether they hold anything, what they took
    /// of the ring.
    untold: u64,
    untold_holds: bool,
    told_until: u64,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// What lies in the ring before this is free when it has completed.
    ring_end: u64,
    holds: usize,
}

impl Sending {
    pub(super) fn new(
        tag: Tag,
        staging: Region,
        shape: Shape,
        parts_max: usize,
        inline_bytes: usize,
    ) -> Sending {
        // SAFETY: plain numbers and pointers, of which zero is a value.
        let part: sys::ibv_sge = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let requests = (0..BATCH).map(|_| unsafe { std::mem::zeroed() }).collect();
        Sending {
            tag,
            staging,
            ring: Ring::new(shape.staging_bytes),
            inline_bytes,
            parts_max,
            entries: vec![Entry::default(); shape.sends],
            oldest: 0,
            next: 0,
            holds: VecDeque::with_capacity(shape.sends * parts_max),
            pending: 0,
            requests,
            parts: vec![part; BATCH * parts_max],
            untold: 0,
            untold_holds: false,
            told_until: 0,
        }
    }

    /// The memory. To be called when the queue pair is gone.
    pub(super) fn into_staging(self) -> Region {
        self.staging
    }

    pub(super) fn under_way(&self) -> usize {
        (self.next - self.oldest) as usize
    }

    pub(super) fn push(
        &mut self,
        pair: &Pair,
        parts: &[&[u8]],
        pool: Option<(&Pool, &[Region])>,
    ) -> Result<Result<Sent, Full<()>>, VerbError> {
        if self.pending == BATCH {
            self.post(pair)?;
        }
        let total = parts.iter().map(|part| part.len()).sum();
        if self.under_way() == self.entries.len() {
            return Ok(Err(Full(())));
        }
        // Room for all of it, of which what is not used is given back.
        let Some(offset) = self.ring.reserve(total) else { return Ok(Err(Full(()))) };
        let inline = total <= self.inline_bytes;
        let sent = self.fill(parts, if inline { None } else { pool }, offset);
        self.ring.shorten(total - sent.copied_bytes);
        let slot = (self.next % self.entries.len() as u64) as usize;
        self.entries[slot].ring_end = self.ring.head();
        let request = &mut self.requests[self.pending];
        request.wr_id = WorkId::new(self.tag, false, slot as u16).0;
        request.opcode = sys::ibv_wr_opcode::IBV_WR_SEND;
        request.send_flags = if inline { sys::ibv_send_flags::IBV_SEND_INLINE.0 } else { 0 };
        self.next += 1;
        self.pending += 1;
        self.untold += 1;
        self.untold_holds |= self.entries[slot].holds > 0;
        let much = self.untold >= self.entries.len() as u64 / 4
            || self.ring.head() - self.told_until >= self.ring.capacity() / 4;
        if much {
            self.ask_to_tell();
        }
        Ok(Ok(Sent { inline, ..sent }))
    }

    /// Lays a datagram's parts into the next request: held where they lie in the pool, else copied to `offset`.
    fn fill(&mut self, parts: &[&[u8]], pool: Option<(&Pool, &[Region])>, offset: usize) -> Sent {
        let first = self.pending * self.parts_max;
        let (mut count, mut copied_bytes, mut gathered_bytes, mut holds) = (0, 0, 0, 0);
        let mut last_is_copied = false;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            // One part is kept for what is copied behind it.
            let worthwhile = part.len() >= GATHER_BYTES_MIN && count + 1 < self.parts_max;
            let held = pool.filter(|_| worthwhile).and_then(|(pool, regions)| {
                // SAFETY: what is sent was laid in the log or is frozen otherwise: nobody writes it before it is free.
                let slice = unsafe { pool.hold(part) }?;
                Some((regions.get(slice.region_index())?.key(), slice))
            });
            if let Some((lkey, slice)) = held {
                self.parts[first + count] = sge(slice.as_ptr(), part.len(), lkey);
                self.holds.push_back(slice);
                (count, holds, last_is_copied) = (count + 1, holds + 1, false);
                gathered_bytes += part.len();
                continue;
            }
            // SAFETY: `offset` and as many bytes as all parts have are reserved in the ring and posted nowhere.
            let room = unsafe {
                let at = self.staging.base().add(offset + copied_bytes);
                slice::from_raw_parts_mut(at.as_ptr(), part.len())
            };
            room.copy_from_slice(part);
            copied_bytes += part.len();
            if last_is_copied {
                self.parts[first + count - 1].length += part.len() as u32;
            } else {
                self.parts[first + count] = sge(room.as_ptr(), part.len(), self.staging.key());
                (count, last_is_copied) = (count + 1, true);
            }
        }
        let slot = (self.next % self.entries.len() as u64) as usize;
        self.entries[slot].holds = holds;
        self.requests[self.pending].num_sge = count as i32;
        Sent { gathered_bytes, copied_bytes, inline: false }
    }

    /// The last request that was queued tells when it is done.
    fn ask_to_tell(&mut self) {
        self.requests[self.pending - 1].send_flags |= sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
        (self.untold, self.untold_holds, self.told_until) = (0, false, self.ring.head());
    }

    pub(super) fn post(&mut self, pair: &Pair) -> Result<(), VerbError> {
        if self.pending == 0 {
            return Ok(());
        }
        if self.untold_holds {
            self.ask_to_tell();
        }
        let requests = self.requests.as_mut_ptr();
        for at in 0..self.pending {
            // SAFETY: every place is in its vector, and neither moves before the call below returns.
            unsafe {
                let request = requests.add(at);
                (*request).sg_list = self.parts.as_mut_ptr().add(at * self.parts_max);
                (*request).next = if at + 1 < self.pending { requests.add(at + 1) } else { null_mut() };
            }
        }
        self.pending = 0;
        let mut bad = null_mut();
        // SAFETY: the requests are linked to each other and end. What they name is registered, held or in the ring, and
        // left alone until they complete or the queue pair is gone, which it is before either.
        let returned = unsafe { sys::ibv_post_send(pair.raw(), requests, &mut bad) };
        VerbError::check("ibv_post_send", returned)
    }

    /// The request of this slot and all before it are done; `false`: it was not under way.
    pub(super) fn completed(&mut self, slot: u16) -> bool {
        let depth = self.entries.len() as u64;
        let posted = self.next - self.pending as u64;
        let ahead = (u64::from(slot) + depth - self.oldest % depth) % depth;
        if u64::from(slot) >= depth || self.oldest + ahead >= posted {
            return false;
        }
        for number in self.oldest..=self.oldest + ahead {
            let entry = self.entries[(number % depth) as usize];
            self.holds.drain(..entry.holds);
            self.ring.release(entry.ring_end);
        }
        self.oldest += ahead + 1;
        true
    }
}

fn sge(address: *const u8, len_bytes: usize, lkey: u32) -> sys::ibv_sge {
    sys::ibv_sge { addr: address.expose_provenance() as u64, length: len_bytes as u32, lkey }
}
