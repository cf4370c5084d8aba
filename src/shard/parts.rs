//! Records that are longer than an entry: put together as their parts come in, then laid one entry after another with
//! nothing between them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::clients::ClientRef;
use super::ingress::{Taken, entry_of};
use super::pending::Pending;
use super::{Groups, World};
use crate::limits::{ASSEMBLY_BYTES_MAX, BATCH_BYTES_MAX, PART_PATIENCE, PARTS_MAX, RECORD_BYTES_MAX};
use crate::log::record::{self, FLAG_CONTINUES, FLAG_MORE};
use crate::log::{NewEntry, NoRoom};
use crate::types::{Acks, EntryId, NodeId, Stamp, Time};
use crate::wire::client::{Outcome, Submit};

/// A record in parts as it comes in from a client.
pub(super) enum Assembly {
    /// Its parts are kept.
    Taking(Box<Parts>),
    /// It was refused; the parts that still come are passed over, until the last or another submit.
    Refusing {
        /// Which.
        request: u64,
    },
}

/// The parts of one record.
pub(super) struct Parts {
    request: u64,
    acks: Acks,
    /// All that the parts share; `id`, `flags` and `payload_crc` are each part's own.
    entry: NewEntry,
    /// What each part adds to `bytes`, and its checksum.
    cuts: Vec<(usize, u32)>,
    bytes: Vec<u8>,
    more_bytes: usize,
    pub(super) total_bytes: usize,
    /// When its last part came.
    fed_at: Time,
}

/// A whole record in parts whose parts are being laid, one entry each, nothing between them.
pub(super) struct Large {
    client: ClientRef,
    parts: Box<Parts>,
    laid: usize,
    laid_bytes: usize,
}

impl<W: World> Groups<W> {
    /// If a record in parts is under way from this client: takes its next part, or passes it over if the record was
    /// refused. A submit with another number breaks that record off and is looked at for itself: `None`.
    pub(super) fn go_on_with_parts(
        &mut self,
        at: usize,
        client: ClientRef,
        submit: &Submit<'_>,
    ) -> Option<Taken> {
        let stopping = self.drain.has_begun();
        let slot = self.clients.assembly(client)?;
        let mut parts = match slot.take()? {
            Assembly::Refusing { request } => {
                return (request == submit.request).then(|| self.pass_over(client, submit));
            }
            Assembly::Taking(parts) => parts,
        };
        if parts.takes(submit) && !stopping {
            if submit.more_bytes == 0 && self.shards[at].large.is_some() {
                *slot = Some(Assembly::Taking(parts));
                return Some(Taken::NotNow);
            }
            if parts.add(submit, self.ingress.now) {
                if submit.more_bytes > 0 {
                    *slot = Some(Assembly::Taking(parts));
                } else {
                    self.shards[at].large = Some(Large { client, parts, laid: 0, laid_bytes: 0 });
                    self.lay_large();
                }
                return Some(Taken::Done);
            }
        }
        self.ingress.assembling_bytes -= parts.total_bytes;
        let outcome = if stopping { Outcome::Stopping } else { Outcome::Invalid };
        // What breaks it off may be for another shard.
        if let Some(at) = self.position(parts.entry.shard) {
            self.refuse_stamp(at, parts.stamp(), &outcome);
        }
        self.clients.answer(client, parts.request, outcome);
        (parts.request == submit.request).then(|| self.pass_over(client, submit))
    }

    /// A part of a record that was refused: so will the others be, to the last.
    fn pass_over(&mut self, client: ClientRef, submit: &Submit<'_>) -> Taken {
        if let Some(slot) = self.clients.assembly(client) {
            *slot = (submit.more_bytes > 0).then_some(Assembly::Refusing { request: submit.request });
        }
        Taken::Done
    }

    /// The first part of a record that is longer than an entry.
    pub(super) fn begin_parts(&mut self, at: usize, client: ClientRef, submit: &Submit<'_>) {
        let total_bytes = submit.payload.len() + submit.more_bytes as usize;
        let begun = if total_bytes > RECORD_BYTES_MAX {
            Err(Outcome::Invalid)
        } else if !self.can_assemble(total_bytes) {
            Err(Outcome::Busy)
        } else if let Some(refusal) = self.refusal_to_lay(at) {
            Err(refusal)
        } else {
            Parts::begin(submit, total_bytes, self.ingress.now).ok_or(Outcome::Invalid)
        };
        match begun {
            Err(outcome) => {
                self.refuse_stamp(at, Stamp::new(submit.epoch, submit.timestamp), &outcome);
                self.clients.answer(client, submit.request, outcome);
                self.pass_over(client, submit);
            }
            Ok(parts) => {
                if let Some(slot) = self.clients.assembly(client) {
                    self.ingress.assembling_bytes += total_bytes;
                    *slot = Some(Assembly::Taking(Box::new(parts)));
                }
            }
        }
    }

    /// Whether there is room for the parts of one more record, if need be that of records whose senders have fallen
    /// silent.
    fn can_assemble(&mut self, total_bytes: usize) -> bool {
        let enough = |held_bytes| held_bytes + total_bytes <= ASSEMBLY_BYTES_MAX;
        if enough(self.ingress.assembling_bytes) {
            return true;
        }
        let now = self.ingress.now;
        let silent = self.clients.refuse_parts(|parts| now.since(parts.fed_at) >= PART_PATIENCE);
        for (client, parts) in silent {
            self.ingress.assembling_bytes -= parts.total_bytes;
            if let Some(at) = self.position(parts.entry.shard) {
                self.refuse_stamp(at, parts.stamp(), &Outcome::Busy);
            }
            self.clients.answer(client, parts.request, Outcome::Busy);
        }
        enough(self.ingress.assembling_bytes)
    }

    /// Lays what there is room for of the records in parts, a batch per shard and turn at most.
    pub(super) fn lay_large(&mut self) -> usize {
        let mut work = 0;
        for at in 0..self.shards.len() {
            let Some(mut large) = self.shards[at].large.take() else { continue };
            let mut laid_bytes = 0;
            loop {
                let Some((entry, payload)) = large.next() else {
                    self.ingress.assembling_bytes -= large.parts.total_bytes;
                    break;
                };
                match self.log.room_for(payload.len()) {
                    Ok(()) if laid_bytes < BATCH_BYTES_MAX => {}
                    Ok(()) | Err(NoRoom::Busy) => {
                        self.shards[at].large = Some(large);
                        break;
                    }
                    Err(NoRoom::Full) => {
                        self.end_large(large, Outcome::LogFull);
                        break;
                    }
                }
                let (last, bytes) = (entry.flags & FLAG_MORE == 0, payload.len());
                match self.lay(at, entry, payload) {
                    Ok(id) => {
                        (work, laid_bytes) = (work + 1, laid_bytes + bytes);
                        large.laid += 1;
                        large.laid_bytes += bytes;
                        if last {
                            self.wait_for(at, large.parts.acks, large.pending(id));
                        }
                    }
                    Err(outcome) => {
                        self.end_large(large, outcome);
                        break;
                    }
                }
            }
        }
        work
    }

    /// Leadership moved while a record was being laid. Its last part is in no log, so it will never be whole.
    pub(super) fn abandon(&mut self, large: Large, leader: Option<NodeId>) {
        self.end_large(large, Outcome::NotLeader { leader });
    }

    fn end_large(&mut self, large: Large, outcome: Outcome) {
        if let Some(at) = self.position(large.parts.entry.shard) {
            let stamp = large.parts.stamp();
            if large.laid > 0 {
                self.refuse_broken_off(at, stamp, &outcome);
            } else {
                self.refuse_stamp(at, stamp, &outcome);
            }
        }
        self.ingress.assembling_bytes -= large.parts.total_bytes;
        self.clients.answer(large.client, large.parts.request, outcome);
    }
}

impl Parts {
    /// `None`: the first part's checksum is wrong.
    fn begin(submit: &Submit<'_>, total_bytes: usize, now: Time) -> Option<Parts> {
        let mut parts = Parts {
            request: submit.request,
            acks: submit.acks,
            entry: entry_of(submit),
            cuts: Vec::new(),
            bytes: Vec::with_capacity(total_bytes),
            more_bytes: total_bytes,
            total_bytes,
            fed_at: now,
        };
        parts.add(submit, now).then_some(parts)
    }

    /// Whether this is the next part, but for its checksum.
    fn takes(&self, submit: &Submit<'_>) -> bool {
        submit.request == self.request
            && submit.shard == self.entry.shard
            && submit.payload.len() + submit.more_bytes as usize == self.more_bytes
            && self.cuts.len() < PARTS_MAX
    }

    fn stamp(&self) -> Stamp {
        Stamp::new(self.entry.epoch, self.entry.timestamp)
    }

    pub(super) fn request(&self) -> u64 {
        self.request
    }

    /// Takes the next part in, if the checksum of what was copied is the one that was given.
    fn add(&mut self, submit: &Submit<'_>, now: Time) -> bool {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(submit.payload);
        if record::payload_crc(&self.bytes[begin..]) != submit.payload_crc {
            return false;
        }
        self.fed_at = now;
        self.cuts.push((submit.payload.len(), submit.payload_crc));
        self.more_bytes -= submit.payload.len();
        true
    }
}

impl Large {
    /// The next part to be laid.
    fn next(&self) -> Option<(NewEntry, &[u8])> {
        let &(len_bytes, payload_crc) = self.parts.cuts.get(self.laid)?;
        let more = self.laid + 1 < self.parts.cuts.len();
        let flags = if more { FLAG_MORE } else { 0 } | if self.laid > 0 { FLAG_CONTINUES } else { 0 };
        let payload = &self.parts.bytes[self.laid_bytes..self.laid_bytes + len_bytes];
        Some((NewEntry { flags, payload_crc, ..self.parts.entry }, payload))
    }

    fn pending(&self, id: EntryId) -> Pending {
        let Parts { request, entry, .. } = &*self.parts;
        Pending { id, client: self.client, request: *request, timestamp: entry.timestamp }
    }
}
