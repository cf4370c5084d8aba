//! One reliable connection: a queue pair with all that is posted to it.
#![allow(unsafe_code, reason = "calls of libibverbs, and structures that it fills")]

use std::fmt;
use std::mem::zeroed;
use std::ptr::NonNull;
use std::rc::Rc;

use rdma_sys as sys;

use super::receive::Receiving;
use super::send::Sending;
use super::{Completion, CompletionQueue, Domain, Port, Region, VerbError};
use crate::io::Full;
use crate::io::pool::Pool;
use crate::wire::aside::End;

/// The local acknowledgement timeout: 4.096 us times two to this, 34 ms, so that a lost packet costs about as much as a
/// heartbeat takes; devices may take up to four times as long. With [`RETRIES`] a path that carries nothing is given up
/// after a quarter of a second to one second.
const TIMEOUT: u8 = 13;
const RETRIES: u8 = 7;

/// A receiver without a posted slot asks for a pause of 0.64 ms, so many times. Credits keep slots ahead of the sender:
/// this is for the greetings, which have none.
const RNR_TIMER: u8 = 12;
const RNR_RETRIES: u8 = 6;

/// The most that is sent inline, if the device bears it: heartbeats, acknowledgements and small records.
const INLINE_BYTES: u32 = 220;

/// The most parts of one datagram that are sent from where they lie. The last one is what was copied.
const PARTS_MAX: usize = 16;

/// How large the queues are.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Shape {
    /// Receives posted.
    pub(in super::super) slots: usize,
    /// The longest datagram.
    pub(in super::super) slot_bytes: usize,
    /// Sends under way.
    pub(in super::super) sends: usize,
    /// The memory into which parts are copied that do not lie in the pool.
    pub(in super::super) staging_bytes: usize,
    /// What the device gathers at most.
    pub(in super::super) gather_parts: usize,
}

/// Which queue pair a completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Tag {
    /// The path's place.
    pub(in super::super) path: u16,
    /// Which of its queue pairs: completions of one that is gone may still come.
    pub(in super::super) generation: u32,
}

/// What one send was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Sent {
    /// Bytes sent from where they lay.
    pub(in super::super) gathered_bytes: usize,
    /// Bytes copied before.
    pub(in super::super) copied_bytes: usize,
    /// Whether the device was given the bytes with the request itself.
    pub(in super::super) inline: bool,
}

/// The memory of one queue pair after the other. To register it takes the kernel a page at a time, longer than a lane
/// may stand still: it is made with the device, and goes from each queue pair of a path to the next.
pub(in super::super) struct Buffers {
    staging: Region,
    slots: Region,
}

impl Buffers {
    pub(in super::super) fn new(domain: &Rc<Domain>, shape: Shape) -> Result<Buffers, VerbError> {
        let staging = domain.allocate(shape.staging_bytes)?;
        Ok(Buffers { staging, slots: domain.allocate(shape.slots * shape.slot_bytes)? })
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffers")
    }
}

/// See the module. The queue pair is dropped first: after that the device touches none of the memory behind it.
pub(in super::super) struct Queues {
    pair: Pair,
    /// As it was when the pair was made, and as the peer was told.
    port: Port,
    sending: Sending,
    receiving: Receiving,
}

impl Queues {
    /// A queue pair that takes in, once connected, what comes; its receives are posted.
    pub(in super::super) fn new(
        domain: &Rc<Domain>,
        completions: &Rc<CompletionQueue>,
        shape: Shape,
        port: Port,
        tag: Tag,
        buffers: Buffers,
    ) -> Result<Queues, VerbError> {
        let parts = PARTS_MAX.min(shape.gather_parts).max(1);
        let (pair, inline_bytes) = Pair::new(domain, completions, shape, parts)?;
        pair.initialise(&port)?;
        let sending = Sending::new(tag, buffers.staging, shape, parts, inline_bytes);
        let mut receiving = Receiving::new(tag, buffers.slots, shape);
        receiving.post(&pair)?;
        Ok(Queues { pair, port, sending, receiving })
    }

    /// Destroys the queue pair; the memory is free for the next.
    pub(in super::super) fn into_buffers(self) -> Buffers {
        let Queues { pair, sending, receiving, .. } = self;
        drop(pair);
        Buffers { staging: sending.into_staging(), slots: receiving.into_slots() }
    }

    /// Its number, 24 bits.
    pub(in super::super) fn number(&self) -> u32 {
        self.pair.number()
    }

    /// Connects it; it sends and receives from now on.
    pub(in super::super) fn connect(&mut self, psn: u32, to: &End) -> Result<(), VerbError> {
        self.pair.receive_from(&self.port, to)?;
        self.pair.send_from(psn)
    }

    /// Queues a datagram. `Full`: as much is under way as the queues take.
    pub(in super::super) fn send(
        &mut self,
        parts: &[&[u8]],
        pool: Option<(&Pool, &[Region])>,
    ) -> Result<Result<Sent, Full<()>>, VerbError> {
        self.sending.push(&self.pair, parts, pool)
    }

    /// Posts what was queued.
    pub(in super::super) fn flush(&mut self) -> Result<(), VerbError> {
        self.sending.post(&self.pair)
    }

    /// Takes in that a send and all before it are done; `false`: it was not under way.
    #[must_use]
    pub(in super::super) fn sent(&mut self, completion: &Completion) -> bool {
        self.sending.completed(WorkId(completion.id).slot())
    }

    /// What has come; `None`: the slot was not posted. It is posted again by [`Queues::post_receives`] after
    /// [`Queues::give_back`].
    pub(in super::super) fn received(&mut self, completion: &Completion) -> Option<&[u8]> {
        self.receiving.received(WorkId(completion.id).slot(), completion.len_bytes as usize)
    }

    /// The bytes were used.
    pub(in super::super) fn give_back(&mut self, completion: &Completion) {
        self.receiving.give_back(WorkId(completion.id).slot());
    }

    /// Posts the slots that were given back.
    pub(in super::super) fn post_receives(&mut self) -> Result<(), VerbError> {
        self.receiving.post(&self.pair)
    }

    /// Where its slots lie.
    #[cfg(test)]
    pub(in super::super) fn slots_at(&self) -> NonNull<u8> {
        self.receiving.slots_at()
    }

    /// How many sends the device has not confirmed.
    #[cfg(test)]
    pub(in super::super) fn sends_under_way(&self) -> usize {
        self.sending.under_way()
    }

    /// Forces it into the error state: what is posted is flushed back as failed.
    #[cfg(test)]
    pub(in super::super) fn spoil(&mut self) {
        self.pair
            .modify(
                "ibv_modify_qp to error",
                |attributes| attributes.qp_state = sys::ibv_qp_state::IBV_QPS_ERR,
                sys::ibv_qp_attr_mask::IBV_QP_STATE,
            )
            .expect("any state may become the error state");
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queues({}, {} sends under way)", self.number(), self.sending.under_way())
    }
}

/// A queue pair of the reliable kind.
pub(super) struct Pair {
    raw: NonNull<sys::ibv_qp>,
    _domain: Rc<Domain>,
    _completions: Rc<CompletionQueue>,
}

impl Pair {
    /// It, and how much it takes inline.
    fn new(
        domain: &Rc<Domain>,
        completions: &Rc<CompletionQueue>,
        shape: Shape,
        parts: usize,
    ) -> Result<(Pair, usize), VerbError> {
        // SAFETY: plain numbers and pointers, of which zero is a value.
        let mut wanted: sys::ibv_qp_init_attr = unsafe { zeroed() };
        let mut raw = None;
        // Some devices do not lower what they are asked for, but refuse.
        for inline_bytes in [INLINE_BYTES, 0] {
            wanted.send_cq = completions.raw();
            wanted.recv_cq = completions.raw();
            wanted.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
            wanted.cap = sys::ibv_qp_cap {
                max_send_wr: shape.sends as u32,
                max_recv_wr: shape.slots as u32,
                max_send_sge: parts as u32,
                max_recv_sge: 1,
                max_inline_data: inline_bytes,
            };
            // SAFETY: domain and completion queue are there and held by the pair.
            raw = NonNull::new(unsafe { sys::ibv_create_qp(domain.raw(), &mut wanted) });
            if raw.is_some() {
                break;
            }
        }
        let raw = raw.ok_or_else(|| VerbError::last("ibv_create_qp"))?;
        let pair = Pair { raw, _domain: Rc::clone(domain), _completions: Rc::clone(completions) };
        Ok((pair, wanted.cap.max_inline_data as usize))
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_qp {
        self.raw.as_ptr()
    }

    fn number(&self) -> u32 {
        // SAFETY: the queue pair is there until this is dropped.
        unsafe { self.raw.as_ref().qp_num }
    }

    fn initialise(&self, port: &Port) -> Result<(), VerbError> {
        use sys::ibv_qp_attr_mask as mask;
        self.modify(
            "ibv_modify_qp to init",
            |attributes| {
                attributes.qp_state = sys::ibv_qp_state::IBV_QPS_INIT;
                attributes.port_num = port.number;
                // A peer may write nothing but what is posted for it.
                attributes.qp_access_flags = 0;
            },
            mask::IBV_QP_STATE | mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS,
        )
    }

    fn receive_from(&self, port: &Port, from: &End) -> Result<(), VerbError> {
        use sys::ibv_qp_attr_mask as mask;
        self.modify(
            "ibv_modify_qp to ready to receive",
            |attributes| {
                attributes.qp_state = sys::ibv_qp_state::IBV_QPS_RTR;
                attributes.path_mtu = from.mtu.min(port.mtu).into();
                attributes.dest_qp_num = from.qp;
                attributes.rq_psn = from.psn;
                attributes.min_rnr_timer = RNR_TIMER;
                attributes.ah_attr.dlid = from.lid;
                attributes.ah_attr.is_global = port.ethernet.into();
                attributes.ah_attr.grh.dgid = sys::ibv_gid { raw: from.gid };
                attributes.ah_attr.grh.sgid_index = port.gid_index;
                attributes.ah_attr.grh.hop_limit = 64;
                attributes.ah_attr.port_num = port.number;
            },
            mask::IBV_QP_STATE
                | mask::IBV_QP_AV
                | mask::IBV_QP_PATH_MTU
                | mask::IBV_QP_DEST_QPN
                | mask::IBV_QP_RQ_PSN
                | mask::IBV_QP_MAX_DEST_RD_ATOMIC
                | mask::IBV_QP_MIN_RNR_TIMER,
        )
    }

    fn send_from(&self, psn: u32) -> Result<(), VerbError> {
        use sys::ibv_qp_attr_mask as mask;
        self.modify(
            "ibv_modify_qp to ready to send",
            |attributes| {
                attributes.qp_state = sys::ibv_qp_state::IBV_QPS_RTS;
                attributes.timeout = TIMEOUT;
                attributes.retry_cnt = RETRIES;
                attributes.rnr_retry = RNR_RETRIES;
                attributes.sq_psn = psn;
            },
            mask::IBV_QP_STATE
                | mask::IBV_QP_TIMEOUT
                | mask::IBV_QP_RETRY_CNT
                | mask::IBV_QP_RNR_RETRY
                | mask::IBV_QP_SQ_PSN
                | mask::IBV_QP_MAX_QP_RD_ATOMIC,
        )
    }

    fn modify(
        &self,
        call: &'static str,
        fill: impl FnOnce(&mut sys::ibv_qp_attr),
        mask: sys::ibv_qp_attr_mask,
    ) -> Result<(), VerbError> {
        // SAFETY: plain numbers, of which zero is a value.
        let mut attributes: sys::ibv_qp_attr = unsafe { zeroed() };
        fill(&mut attributes);
        // SAFETY: the queue pair is there, and the structure is the caller's.
        let returned = unsafe { sys::ibv_modify_qp(self.raw(), &mut attributes, mask.0 as i32) };
        VerbError::check(call, returned)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once. When it returns the device is done with all that was posted.
        unsafe { sys::ibv_destroy_qp(self.raw()) };
    }
}

/// What a work request is posted under, and its completion tells: path, generation, direction, slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkId(pub(super) u64);

impl WorkId {
    pub(super) fn new(tag: Tag, receive: bool, slot: u16) -> WorkId {
        assert!(slot < 1 << 15, "a slot's number has 15 bits");
        let low = u64::from(slot) | u64::from(receive) << 15;
        WorkId(u64::from(tag.path) << 48 | u64::from(tag.generation) << 16 | low)
    }

    fn slot(self) -> u16 {
        self.0 as u16 & 0x7fff
    }
}

impl Completion {
    /// Of which queue pair it is.
    pub(in super::super) fn tag(&self) -> Tag {
        Tag { path: (self.id >> 48) as u16, generation: (self.id >> 16) as u32 }
    }

    /// Whether it is of a receive, not of a send.
    pub(in super::super) fn is_receive(&self) -> bool {
        self.id & 1 << 15 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_tells_what_it_was_posted_under() {
        for (path, generation, receive, slot) in
            [(0, 0, false, 0), (65_535, u32::MAX, true, 32_767), (3, 9, false, 127)]
        {
            let id = WorkId::new(Tag { path, generation }, receive, slot);
            let completion = Completion { id: id.0, ..Completion::default() };
            assert_eq!(completion.tag(), Tag { path, generation });
            assert_eq!((completion.is_receive(), id.slot()), (receive, slot));
        }
    }
}
