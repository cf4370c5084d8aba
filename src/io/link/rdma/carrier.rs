//! [`RdmaCarrier`].

use std::collections::VecDeque;
use std::rc::Rc;

use super::path::Path;
use super::verbs::{
    Buffers, Completion, CompletionQueue, Device, Domain, Event, Port, Queues, Region, Shape, VerbError,
};
use super::{
    Counters, Notice, Options, REOPEN_PAUSE, SLOT_BYTES_MAX, SLOT_BYTES_MIN, SLOTS_MAX, SLOTS_MIN,
    SLOTS_SPARE, Unavailable,
};
use crate::io::Full;
use crate::io::datagram::{Arrival, Carrier};
use crate::io::pool::Pool;
use crate::io::reactor::{Owner, Reactor};
use crate::types::{NodeId, Time};

/// How often one poll asks for completions, 32 at a time; the rest waits for the next.
const BATCHES_PER_POLL: usize = 8;

/// How many notices wait to be read.
const NOTICES_MAX: usize = 64;

/// The descriptors' keys at the reactor.
const COMPLETIONS_KEY: u32 = 0;
const EVENTS_KEY: u32 = 1;

/// See the module. Made on the lane's thread, and stays there.
#[derive(Debug)]
pub struct RdmaCarrier {
    pub(super) options: Options,
    pool: Pool,
    reactor: Reactor,
    /// Before the device: queue pairs go first.
    pub(super) paths: Vec<Path>,
    pub(super) open: Option<Open>,
    reopen_at: Time,
    /// Why the device could not be opened when it was tried last: told once.
    not_opened: Option<Unavailable>,
    /// The completion channel tells of what comes next.
    armed: bool,
    /// When something came last.
    busy_at: Time,
    /// Something is left to do although no readiness will tell of it.
    unfinished: bool,
    /// What became of paths, to be told by the next poll.
    pub(super) changes: VecDeque<(NodeId, Change)>,
    pub(super) random: u64,
    pub(super) counters: Counters,
    notices: VecDeque<Notice>,
    left_out: u64,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It came to be.
    Made,
    /// It broke, for whatever reason: a queue pair, a cable, a device at either end. Whose process has ended is told by
    /// the side channel alone, whose sockets the system closes.
    Broke,
    /// Its side channel was closed.
    Left,
}

/// What there is while the device is.
#[derive(Debug)]
pub(super) struct Open {
    /// The pool's; empty if they are not registered.
    regions: Vec<Region>,
    pub(super) completions: Rc<CompletionQueue>,
    pub(super) domain: Rc<Domain>,
    pub(super) device: Rc<Device>,
    pub(super) port: Port,
    pub(super) shape: Shape,
}

impl Carrier for RdmaCarrier {
    type Address = NodeId;

    const RELIABLE: bool = true;

    fn datagram_bytes_max(&self) -> usize {
        self.options.slot_bytes
    }

    fn window(&self) -> usize {
        self.options.slots - SLOTS_SPARE
    }

    fn poll(&mut self, now: Time, sink: &mut impl FnMut(Arrival<'_, NodeId>)) -> usize {
        self.unfinished = false;
        if self.open.is_none() && now >= self.reopen_at {
            self.reopen(now);
        }
        self.take_events(now);
        let mut arrivals = self.complete(now, sink);
        if arrivals > 0 {
            self.busy_at = now;
        } else if self.is_to_arm(now) {
            // What came before the channel was armed is not told by it.
            self.arm(now);
            arrivals = self.complete(now, sink);
        }
        self.post_receives(now);
        self.tend(now);
        while let Some((peer, change)) = self.changes.pop_front() {
            sink(match change {
                Change::Made => Arrival::Reachable(peer),
                Change::Broke => Arrival::Broken(peer),
                Change::Left => Arrival::Unreachable(peer),
            });
            arrivals += 1;
        }
        arrivals
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(total <= self.options.slot_bytes, "no datagram is longer than was said");
        let RdmaCarrier { paths, open, pool, counters, .. } = self;
        let path = paths.iter_mut().position(|path| path.peer == to);
        let ready = path.and_then(|at| Some((at, paths[at].connected()?, open.as_ref()?)));
        let Some((at, queues, open)) = ready else {
            counters.lost += 1;
            return Ok(());
        };
        let pool = (!open.regions.is_empty()).then_some((&*pool, &open.regions[..]));
        match queues.send(parts, pool) {
            Ok(Ok(sent)) => {
                counters.datagrams_out += 1;
                counters.gathered_bytes += sent.gathered_bytes as u64;
                counters.copied_bytes += sent.copied_bytes as u64;
                counters.inline += u64::from(sent.inline);
                Ok(())
            }
            Ok(Err(full)) => {
                counters.full += 1;
                Err(full)
            }
            Err(error) => {
                self.end(self.busy_at, at, &error.to_string());
                Ok(())
            }
        }
    }

    fn flush(&mut self) {
        for at in 0..self.paths.len() {
            if let Some(Err(error)) = self.paths[at].connected().map(Queues::flush) {
                self.end(self.busy_at, at, &error.to_string());
            }
        }
    }

    fn next_wake(&self) -> Time {
        let unarmed = self.open.is_some() && self.options.spin.is_some() && !self.armed;
        let says = |path: &Path| path.setup.has_side_channel() && !path.saying.is_empty();
        if self.unfinished || unarmed || !self.changes.is_empty() || self.paths.iter().any(says) {
            return Time(0);
        }
        match self.open {
            Some(_) => self.paths.iter().map(|path| path.setup.next_wake()).min().unwrap_or(Time::NEVER),
            None => self.reopen_at,
        }
    }
}

impl RdmaCarrier {
    /// A carrier over an opened device, which offers its queue pairs when the side channel is there. An error says why
    /// there is none: no library, no device, no such port, too little memory that may be locked.
    ///
    /// # Panics
    /// If an option is out of its bounds, which the configuration checks.
    pub fn new(options: Options, pool: &Pool, reactor: Reactor) -> Result<RdmaCarrier, Unavailable> {
        let Options { slots, slot_bytes, .. } = options;
        assert!((SLOTS_MIN..=SLOTS_MAX).contains(&slots) && slots.is_multiple_of(64), "{slots} slots");
        assert!(
            (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&slot_bytes) && slot_bytes.is_power_of_two(),
            "slots of {slot_bytes} bytes"
        );
        assert!(!options.peers.contains(&options.node), "a node is not its own peer");
        let paths = options.peers.iter().map(|&peer| Path::new(peer, options.node < peer)).collect();
        let mut carrier = RdmaCarrier {
            random: options.seed | 1,
            pool: pool.clone(),
            reactor,
            paths,
            open: None,
            reopen_at: Time(0),
            not_opened: None,
            armed: false,
            busy_at: Time(0),
            unfinished: true,
            changes: VecDeque::with_capacity(2 * options.peers.len()),
            counters: Counters::default(),
            notices: VecDeque::with_capacity(NOTICES_MAX),
            left_out: 0,
            options,
        };
        carrier.open()?;
        Ok(carrier)
    }

    /// Whether datagrams can be sent to this peer.
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.paths.iter().any(|path| path.peer == peer && path.setup.is_connected())
    }

    /// Whether the device is there.
    pub fn has_device(&self) -> bool {
        self.open.is_some()
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it has to tell an operator, oldest first; `None` when all is told. A bounded number is kept.
    pub fn notice(&mut self) -> Option<Notice> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        (self.left_out > 0).then(|| Notice::LeftOut(std::mem::take(&mut self.left_out)))
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        if self.notices.len() == NOTICES_MAX {
            self.left_out += 1;
        } else {
            self.notices.push_back(notice);
        }
    }

    /// Opens the device and registers what is shared by all paths.
    fn open(&mut self) -> Result<(), Unavailable> {
        let refused = |error: VerbError| Unavailable::of(&error);
        let Options { device, port, gid_index, slots, slot_bytes, .. } = &self.options;
        let device = Device::open(device.as_deref()).map_err(refused)?;
        let limits = device.limits().map_err(refused)?;
        let port = device.port(*port, *gid_index).map_err(refused)?;
        let shape = Shape {
            slots: *slots,
            slot_bytes: *slot_bytes,
            sends: *slots,
            staging_bytes: (slots * slot_bytes / 4).max(4 * slot_bytes),
            gather_parts: limits.gather_parts,
        };
        let under_way = (shape.slots + shape.sends) * self.paths.len().max(1);
        if shape.slots > limits.queue_entries || under_way > limits.completions {
            return Err(Unavailable(format!(
                "device {} bears {} entries in a queue and {} completions, and {} slots for {} peers ask for {} and \
                 {under_way}; lower rdma.slots",
                device.name(),
                limits.queue_entries,
                limits.completions,
                shape.slots,
                self.paths.len(),
                shape.slots
            )));
        }
        let domain = Domain::new(&device).map_err(refused)?;
        // Twice: what a queue pair that is gone has left there is taken by the next poll.
        let completions =
            CompletionQueue::new(&device, (2 * under_way).min(limits.completions)).map_err(refused)?;
        // Before the pool: what may not be locked of that is copied, and without these nothing is received.
        let buffers: Result<Vec<Buffers>, VerbError> =
            self.paths.iter().map(|_| Buffers::new(&domain, shape)).collect();
        let buffers = buffers.map_err(refused)?;
        let regions = match domain.register_pool(&self.pool) {
            Ok(regions) => regions,
            Err(error) => {
                self.tell(Notice::Copying(Unavailable::of(&error)));
                Vec::new()
            }
        };
        let unregistered = |error| Unavailable(format!("register at the reactor: {error}"));
        self.reactor.register(completions.fd(), Owner::Rdma, COMPLETIONS_KEY).map_err(unregistered)?;
        if let Err(error) = self.reactor.register(device.fd(), Owner::Rdma, EVENTS_KEY) {
            self.reactor.deregister(completions.fd(), Owner::Rdma, COMPLETIONS_KEY);
            return Err(unregistered(error));
        }
        let (name, Port { number, gid, active, .. }) = (device.name().to_owned(), port);
        self.tell(Notice::Opened { device: name, port: number, gid, active });
        for (path, buffers) in self.paths.iter_mut().zip(buffers) {
            path.buffers = Some(buffers);
        }
        self.open = Some(Open { regions, completions, domain, device, port, shape });
        (self.armed, self.not_opened) = (false, None);
        Ok(())
    }

    fn reopen(&mut self, now: Time) {
        self.reopen_at = now.after(REOPEN_PAUSE);
        if let Err(why) = self.open()
            && self.not_opened.as_ref() != Some(&why)
        {
            self.tell(Notice::NotFound(why.clone()));
            self.not_opened = Some(why);
        }
    }

    /// The device is of no use any more.
    fn lose(&mut self, now: Time, why: &str) {
        for at in 0..self.paths.len() {
            if self.paths[at].queues.is_some() {
                self.end(now, at, "the device is gone");
            }
        }
        let Some(open) = self.open.take() else { return };
        self.paths.iter_mut().for_each(|path| path.buffers = None);
        self.reactor.deregister(open.completions.fd(), Owner::Rdma, COMPLETIONS_KEY);
        self.reactor.deregister(open.device.fd(), Owner::Rdma, EVENTS_KEY);
        self.tell(Notice::Lost { device: open.device.name().to_owned(), why: why.to_owned() });
        self.reopen_at = now.after(REOPEN_PAUSE);
    }

    /// What the reactor and the device tell.
    fn take_events(&mut self, now: Time) {
        let mut events = false;
        while let Some(ready) = self.reactor.ready(Owner::Rdma) {
            events |= ready.key == EVENTS_KEY;
            let Some(open) = self.open.as_ref().filter(|_| ready.key == COMPLETIONS_KEY) else { continue };
            while open.completions.disarm() {
                self.armed = false;
            }
        }
        while events && let Some(event) = self.open.as_ref().and_then(|open| open.device.event()) {
            self.told_by_device(now, event);
        }
    }

    fn told_by_device(&mut self, now: Time, event: Event) {
        match event {
            Event::Pair(number) => {
                let of = |path: &Path| path.queues.as_ref().is_some_and(|q| q.number() == number);
                if let Some(at) = self.paths.iter().position(of) {
                    self.end(now, at, "the device says that the queue pair is in error");
                }
            }
            Event::Completions => self.lose(now, "its completion queue is in error"),
            Event::Gone => self.lose(now, "it says so itself"),
            Event::PortDown | Event::PortUp => {
                let up = event == Event::PortUp;
                self.tell(Notice::Port { up });
                let connected = self.paths.iter().filter(|path| !up && path.setup.is_connected());
                self.changes.extend(connected.map(|path| (path.peer, Change::Broke)));
                if up {
                    self.look_at_port_in_passing();
                }
            }
            Event::Addresses => self.look_at_port_in_passing(),
            Event::Other(_) => {}
        }
    }

    /// Without a word of what is wrong with it: it may be between two addresses, and the next queue pair asks again.
    fn look_at_port_in_passing(&mut self) {
        let _ = self.look_at_port();
    }

    /// Takes completions, a bounded number; how many datagrams they brought.
    fn complete(&mut self, now: Time, sink: &mut impl FnMut(Arrival<'_, NodeId>)) -> usize {
        let mut batch = [Completion::default(); 32];
        let mut arrivals = 0;
        for _ in 0..BATCHES_PER_POLL {
            let Some(open) = self.open.as_ref() else { return arrivals };
            let count = match open.completions.poll(&mut batch) {
                Ok(count) => count,
                Err(error) => {
                    self.lose(now, &error.to_string());
                    return arrivals;
                }
            };
            for completion in &batch[..count] {
                arrivals += usize::from(self.completed(now, completion, sink));
            }
            if count < batch.len() {
                return arrivals;
            }
        }
        self.unfinished = true;
        arrivals
    }

    /// Whether it brought a datagram.
    fn completed(
        &mut self,
        now: Time,
        completion: &Completion,
        sink: &mut impl FnMut(Arrival<'_, NodeId>),
    ) -> bool {
        let tag = completion.tag();
        let at = usize::from(tag.path);
        let Some(path) = self.paths.get_mut(at) else { return false };
        let (peer, heard) = (path.peer, path.heard);
        let Some(queues) = path.queues_of(tag) else {
            self.counters.stale += 1;
            return false;
        };
        if let Some(why) = completion.failure() {
            self.end(now, at, why);
            return false;
        }
        if !completion.is_receive() {
            self.counters.told += 1;
            if !queues.sent(completion) {
                self.end(now, at, "the device confirms what was not sent");
            }
            return false;
        }
        let Some(bytes) = queues.received(completion) else {
            self.end(now, at, "the device fills what was not posted");
            return false;
        };
        if !heard {
            // Who accepted learns only by this that the other end is there.
            sink(Arrival::Reachable(peer));
        }
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += bytes.len() as u64;
        sink(Arrival::Datagram { from: peer, bytes });
        queues.give_back(completion);
        path.heard = true;
        true
    }

    fn post_receives(&mut self, now: Time) {
        for at in 0..self.paths.len() {
            if let Some(Err(error)) = self.paths[at].queues.as_mut().map(Queues::post_receives) {
                self.end(now, at, &error.to_string());
            }
        }
    }

    fn is_to_arm(&self, now: Time) -> bool {
        let spun = self.options.spin.is_some_and(|spin| now.since(self.busy_at) >= spin);
        spun && !self.armed
    }

    fn arm(&mut self, now: Time) {
        let Some(open) = self.open.as_ref() else { return };
        match open.completions.arm() {
            Ok(()) => self.armed = true,
            Err(error) => self.lose(now, &error.to_string()),
        }
    }

    /// Forces the queue pair into the error state.
    #[cfg(test)]
    pub(super) fn spoil(&mut self, peer: NodeId) {
        let path = self.paths.iter_mut().find(|path| path.peer == peer);
        path.and_then(|path| path.queues.as_mut()).expect("there is a queue pair").spoil();
    }

    /// As if the device told it.
    #[cfg(test)]
    pub(super) fn inject(&mut self, now: Time, event: Event) {
        self.told_by_device(now, event);
    }

    /// Where the slots for this peer lie.
    #[cfg(test)]
    pub(super) fn slots_at(&self, peer: NodeId) -> Option<std::ptr::NonNull<u8>> {
        self.paths.iter().find(|path| path.peer == peer)?.queues.as_ref().map(Queues::slots_at)
    }

    /// How many sends to this peer the device has not confirmed.
    #[cfg(test)]
    pub(super) fn sends_under_way(&self, peer: NodeId) -> usize {
        let path = self.paths.iter().find(|path| path.peer == peer);
        path.and_then(|path| path.queues.as_ref()).map_or(0, Queues::sends_under_way)
    }
}

impl Drop for RdmaCarrier {
    fn drop(&mut self) {
        self.paths.clear();
        if let Some(open) = self.open.take() {
            self.reactor.deregister(open.completions.fd(), Owner::Rdma, COMPLETIONS_KEY);
            self.reactor.deregister(open.device.fd(), Owner::Rdma, EVENTS_KEY);
        }
    }
}
