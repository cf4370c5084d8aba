//! Who waits for answers: the lane's clients, and per client one frame of replies per turn.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::parts::{Assembly, Parts};
use super::pending::Pending;
use super::{Groups, World};
use crate::io::{ClientId, Port};
use crate::wire::client::{Outcome, Reply};
use crate::wire::frame::{Builder, Kind};

/// A client in [`Clients`]; stays good when the client goes, and then answers go nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientRef {
    slot: u32,
    generation: u32,
}

/// The clients of a lane. Slots are reused, so that the path of an answer is an index and not a search.
#[derive(Default)]
pub(super) struct Clients {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: BTreeMap<ClientId, u32>,
    /// Slots whose replies are to be sent at the end of this turn.
    dirty: Vec<u32>,
    /// Everyone was told farewell: nothing more is said.
    parted: bool,
}

struct Slot {
    id: ClientId,
    generation: u32,
    open: bool,
    replies: Builder,
    /// Frames of replies that were full before the turn's end.
    full: Vec<Vec<u8>>,
    /// The record in parts that this client is sending.
    assembly: Option<Assembly>,
}

impl Clients {
    pub(super) fn open(&mut self, id: ClientId) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                id,
                generation: 0,
                open: false,
                replies: Builder::new(Kind::Reply),
                full: Vec::new(),
                assembly: None,
            });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        assert!(!entry.open, "a free slot has no client");
        entry.id = id;
        entry.generation = entry.generation.wrapping_add(1);
        entry.open = true;
        let before = self.by_id.insert(id, slot);
        assert!(before.is_none(), "a port gives each client an id of its own");
        if self.parted {
            self.push(slot, &Reply::Farewell);
        }
    }

    /// Tells every client, and whoever still comes, that the node stops. It is the last that they are told.
    pub(super) fn part(&mut self) {
        let by_id = core::mem::take(&mut self.by_id);
        by_id.values().for_each(|&slot| self.push(slot, &Reply::Farewell));
        self.by_id = by_id;
        self.parted = true;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Forgets the client and returns the record it was sending, so that its memory is accounted for.
    pub(super) fn close(&mut self, id: ClientId) -> Option<Assembly> {
        let slot = self.by_id.remove(&id)?;
        let entry = &mut self.slots[slot as usize];
        entry.open = false;
        entry.replies.clear();
        entry.full.clear();
        self.free.push(slot);
        entry.assembly.take()
    }

    pub(super) fn find(&self, id: ClientId) -> Option<ClientRef> {
        let slot = *self.by_id.get(&id)?;
        Some(ClientRef { slot, generation: self.slots[slot as usize].generation })
    }

    /// The client's id, while it is there.
    pub(super) fn id(&self, client: ClientRef) -> Option<ClientId> {
        let entry = &self.slots[client.slot as usize];
        (entry.open && entry.generation == client.generation).then_some(entry.id)
    }

    /// Where the client's record in parts is put together, while the client is there.
    pub(super) fn assembly(&mut self, client: ClientRef) -> Option<&mut Option<Assembly>> {
        self.id(client)?;
        Some(&mut self.slots[client.slot as usize].assembly)
    }

    /// Turns to refusing every record in parts that is to go, and gives out what came of it.
    pub(super) fn refuse_parts(&mut self, is_to_go: impl Fn(&Parts) -> bool) -> Vec<(ClientRef, Box<Parts>)> {
        let mut refused = Vec::new();
        for (slot, entry) in (0..).zip(&mut self.slots) {
            let Some(assembly) = &mut entry.assembly else { continue };
            let Assembly::Taking(parts) = assembly else { continue };
            if is_to_go(parts) {
                let refusing = Assembly::Refusing { request: parts.request() };
                if let Assembly::Taking(parts) = core::mem::replace(assembly, refusing) {
                    refused.push((ClientRef { slot, generation: entry.generation }, parts));
                }
            }
        }
        refused
    }

    /// Says how a request ended, with the turn's frame.
    pub(super) fn answer(&mut self, client: ClientRef, request: u64, outcome: Outcome) {
        self.reply(client, &Reply::Outcome { request, outcome });
    }

    /// Adds a reply without a body to the turn's frame.
    pub(super) fn reply(&mut self, client: ClientRef, reply: &Reply<'_>) {
        if self.id(client).is_some() && !self.parted {
            self.push(client.slot, reply);
        }
    }

    fn push(&mut self, slot: u32, reply: &Reply<'_>) {
        let entry = &mut self.slots[slot as usize];
        if !entry.replies.fits(0) {
            entry.full.push(entry.replies.seal().to_vec());
            entry.replies.clear();
        }
        if entry.replies.is_empty() && entry.full.is_empty() {
            self.dirty.push(slot);
        }
        entry.replies.push(&reply.encode(0), 0);
    }

    /// Answers everything that waits with "unknown".
    pub(super) fn all_unknown(&mut self, waiting: &mut VecDeque<Pending>) {
        for pending in waiting.drain(..) {
            self.answer(pending.client, pending.request, Outcome::Unknown);
        }
    }

    /// Sends each client its replies of this turn.
    pub(super) fn send(&mut self, port: &mut impl Port) {
        for slot in self.dirty.drain(..) {
            let entry = &mut self.slots[slot as usize];
            for frame in entry.full.drain(..) {
                port.send(entry.id, &[&frame]);
            }
            // Empty when the client went, or its slot has a new one, since it was answered.
            if !entry.replies.is_empty() {
                port.send(entry.id, &[entry.replies.seal()]);
                entry.replies.clear();
            }
        }
    }
}

impl<W: World> Groups<W> {
    /// Sends each client its replies of this turn.
    pub(super) fn send_replies(&mut self, port: &mut W::Port) {
        self.clients.send(port);
    }
}
