//! Who registered what, and what became ready and was not told yet. Both backends share it.
//!
//! A registration is a slot with a generation; the kernel gives both back with each event as a [`Token`]. An event
//! of an earlier registration in the same slot carries an old generation and is dropped.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;

use super::{Owner, Ready};

/// Generations wrap here: the ring's user data has 30 bits for them.
const GENERATION_MASK: u32 = (1 << 30) - 1;

const OWNERS: usize = 6;

/// What the kernel hands back with an event: slot in the low half, generation above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(pub(super) u64);

impl Token {
    fn new(slot: u32, generation: u32) -> Token {
        Token(u64::from(generation) << 32 | u64::from(slot))
    }
    fn slot(self) -> u32 {
        self.0 as u32
    }
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// `None`: free.
    registration: Option<Registration>,
}

#[derive(Debug)]
struct Registration {
    fd: RawFd,
    owner: Owner,
    key: u32,
    readable: bool,
    writable: bool,
    closed: bool,
}

/// What a descriptor has become, in one event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Became {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) closed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_fd: HashMap<RawFd, u32>,
    /// Tokens that have something to tell; one of a registration that has gone since is skipped when it is met.
    queues: [VecDeque<Token>; OWNERS],
    /// How many live registrations have something to tell.
    waiting: usize,
}

impl Table {
    /// Takes a registration in. An earlier one of the same descriptor number must have been removed.
    pub(super) fn insert(&mut self, fd: RawFd, owner: Owner, key: u32) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, registration: None });
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        assert!(place.registration.is_none(), "a free slot holds no registration");
        place.generation = (place.generation + 1) & GENERATION_MASK;
        place.registration =
            Some(Registration { fd, owner, key, readable: false, writable: false, closed: false });
        let replaced = self.by_fd.insert(fd, slot);
        assert!(replaced.is_none(), "a descriptor is registered once");
        Token::new(slot, place.generation)
    }

    /// The registration of this descriptor, if there is one.
    pub(super) fn token_of(&self, fd: RawFd) -> Option<Token> {
        let slot = *self.by_fd.get(&fd)?;
        Some(Token::new(slot, self.slots[slot as usize].generation))
    }

    /// Whether this descriptor is registered for this owner under this key.
    pub(super) fn is(&self, fd: RawFd, owner: Owner, key: u32) -> bool {
        self.by_fd
            .get(&fd)
            .and_then(|slot| self.slots[*slot as usize].registration.as_ref())
            .is_some_and(|registration| registration.owner == owner && registration.key == key)
    }

    /// Forgets a registration, and what it has not told yet.
    pub(super) fn remove(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token.slot() as usize) else { return };
        if slot.generation != token.generation() {
            return;
        }
        let Some(registration) = slot.registration.take() else { return };
        self.by_fd.remove(&registration.fd);
        self.free.push(token.slot());
        if registration.readable || registration.writable {
            self.waiting -= 1;
        }
    }

    /// The descriptor of a live registration.
    pub(super) fn fd(&self, token: Token) -> Option<RawFd> {
        let slot = self.slots.get(token.slot() as usize)?;
        if slot.generation != token.generation() {
            return None;
        }
        slot.registration.as_ref().map(|registration| registration.fd)
    }

    /// Something became ready; dropped if the registration is not live any more.
    pub(super) fn became_ready(&mut self, token: Token, became: Became) {
        let Became { readable, writable, closed } = became;
        let Some(slot) = self.slots.get_mut(token.slot() as usize) else { return };
        if slot.generation != token.generation() || !(readable || writable) {
            return;
        }
        let Some(registration) = slot.registration.as_mut() else { return };
        if !(registration.readable || registration.writable) {
            self.queues[registration.owner as usize].push_back(token);
            self.waiting += 1;
        }
        registration.readable |= readable;
        registration.writable |= writable;
        registration.closed |= closed;
    }

    /// The owner's next.
    pub(super) fn next(&mut self, owner: Owner) -> Option<Ready> {
        while let Some(token) = self.queues[owner as usize].pop_front() {
            let slot = &mut self.slots[token.slot() as usize];
            if slot.generation != token.generation() {
                continue;
            }
            let Some(registration) = slot.registration.as_mut() else { continue };
            self.waiting -= 1;
            return Some(Ready {
                key: registration.key,
                readable: std::mem::take(&mut registration.readable),
                writable: std::mem::take(&mut registration.writable),
                closed: std::mem::take(&mut registration.closed),
            });
        }
        None
    }

    /// Whether anything waits to be told.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }
}
