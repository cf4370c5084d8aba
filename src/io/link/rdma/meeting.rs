//! How a carrier's paths come to be and end: what [`super::setup`] says, carried out.

use super::carrier::Change;
use super::notice::{Notice, Unavailable};
use super::setup::{Act, Ended};
use super::verbs::{Buffers, Port, Queues, Tag, VerbError};
use super::{Options, RdmaCarrier};
use crate::io::link::tcp::TcpLink;
use crate::types::{NodeId, Time};
use crate::wire::aside::{Answered, Aside, Attempt, End, Reason, Says};

impl RdmaCarrier {
    /// Carries what is said over the side channel, both ways. To be called in every turn, between the polls of the side
    /// channel and of this.
    pub fn exchange(&mut self, now: Time, side: &mut TcpLink) {
        for at in 0..self.paths.len() {
            let connection = side.connection(self.paths[at].peer);
            let lost = connection.is_none() && self.paths[at].setup.has_side_channel();
            if lost && self.paths[at].setup.is_connected() {
                // The peer's process may have ended, which its queue pair would tell late.
                self.changes.push_back((self.paths[at].peer, Change::Left));
            }
            let act = self.paths[at].setup.side_channel(connection);
            self.act(now, at, act);
        }
        while let Some((from, aside)) = side.aside() {
            self.hear(now, from, &aside);
        }
        for path in &mut self.paths {
            if !path.setup.has_side_channel() {
                path.saying.clear();
            }
            while let Some(&says) = path.saying.front() {
                if side.send_aside(path.peer, &Aside { lane: self.options.lane, says }).is_err() {
                    break;
                }
                path.saying.pop_front();
            }
        }
    }

    /// What is due on the paths.
    pub(super) fn tend(&mut self, now: Time) {
        if self.open.is_none() {
            return;
        }
        for at in 0..self.paths.len() {
            let act = self.paths[at].setup.due(now);
            self.act(now, at, act);
        }
    }

    fn hear(&mut self, now: Time, from: NodeId, aside: &Aside) {
        let Some(at) = self.paths.iter().position(|path| path.peer == from) else {
            self.counters.strange += 1;
            return;
        };
        if let Says::Offer(attempt, end) | Says::Answer(attempt, end, _) = aside.says {
            let reason = if aside.lane != self.options.lane {
                self.counters.strange += 1;
                Some(Reason::Lane)
            } else if end.slot_bytes as usize != self.options.slot_bytes {
                Some(Reason::SlotBytes)
            } else if self.open.is_none() {
                Some(Reason::NoDevice)
            } else {
                None
            };
            if let Some(reason) = reason {
                return self.paths[at].say(Says::Refusal(Answered(attempt.0), reason));
            }
        }
        let act = self.paths[at].setup.heard(now, aside.says);
        self.act(now, at, act);
    }

    fn act(&mut self, now: Time, at: usize, act: Option<Act>) {
        let done = match act {
            None => return,
            Some(Act::Say(says)) => return self.paths[at].say(says),
            Some(Act::Close(why)) => return self.close(at, why),
            Some(Act::Offer) => self.offer(now, at),
            Some(Act::Connect(end)) => self.connect(at, &end),
            Some(Act::Accept(theirs, end)) => self.accept(now, at, theirs, &end),
        };
        if let Err(error) = done {
            let path = &mut self.paths[at];
            path.drop_queues();
            path.setup.broke(now);
            if let Some(Act::Accept(theirs, _)) = act {
                path.say(Says::Refusal(Answered(theirs.0), Reason::NoDevice));
            }
            let (peer, why) = (path.peer, Unavailable::of(&error));
            // Tried again every second at the latest, for as long as an interface is without an address.
            if path.failed.replace(why.clone()).as_ref() != Some(&why) {
                self.tell(Notice::Failed { peer, why });
            }
        }
    }

    fn offer(&mut self, now: Time, at: usize) -> Result<(), VerbError> {
        let end = self.fresh(at)?;
        let attempt = Attempt(self.draw());
        self.paths[at].setup.offered(now, attempt, end);
        self.paths[at].say(Says::Offer(attempt, end));
        Ok(())
    }

    fn connect(&mut self, at: usize, to: &End) -> Result<(), VerbError> {
        let path = &mut self.paths[at];
        let psn = path.psn;
        if let Some(queues) = path.queues.as_mut() {
            queues.connect(psn, to)?;
        }
        // Who offered greets; the other end is connected already.
        path.heard = true;
        (path.refused, path.failed) = (None, None);
        let peer = path.peer;
        self.changes.push_back((peer, Change::Made));
        self.counters.connected += 1;
        self.tell(Notice::Connected { peer });
        Ok(())
    }

    fn accept(&mut self, now: Time, at: usize, theirs: Attempt, to: &End) -> Result<(), VerbError> {
        if self.paths[at].setup.is_connected() {
            self.close(at, Ended::Replaced);
        }
        let end = self.fresh(at)?;
        let attempt = Attempt(self.draw());
        let path = &mut self.paths[at];
        if let Some(queues) = path.queues.as_mut() {
            queues.connect(path.psn, to)?;
        }
        path.failed = None;
        let answer = path.setup.accepted(now, attempt, end, theirs);
        path.say(answer);
        self.counters.connected += 1;
        let peer = self.paths[at].peer;
        self.tell(Notice::Connected { peer });
        Ok(())
    }

    /// Asks the device again what its port is. MTU and addresses change while it is open, and not every change is told.
    pub(super) fn look_at_port(&mut self) -> Result<(), VerbError> {
        let Options { port, gid_index, .. } = self.options;
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let now = open.device.port(port, gid_index)?;
        let before = std::mem::replace(&mut open.port, now);
        if (before.mtu, before.gid, before.lid) != (now.mtu, now.gid, now.lid) {
            self.tell(Notice::Changed { gid: now.gid, packet_bytes: now.packet_bytes() });
        }
        Ok(())
    }

    /// Another queue pair for this path, instead of any that it has.
    fn fresh(&mut self, at: usize) -> Result<End, VerbError> {
        let psn = self.draw() as u32 & 0xff_ffff;
        let path = &mut self.paths[at];
        path.drop_queues();
        path.generation = path.generation.wrapping_add(1);
        (path.psn, path.heard) = (psn, false);
        let tag = Tag { path: at as u16, generation: path.generation };
        // What the port was when the last one was made may be why that is gone.
        self.look_at_port()?;
        let path = &mut self.paths[at];
        let open = self.open.as_ref().expect("paths are set up while the device is open");
        let buffers = match path.buffers.take() {
            Some(buffers) => buffers,
            // What had them could not be made.
            None => Buffers::new(&open.domain, open.shape)?,
        };
        let queues = Queues::new(&open.domain, &open.completions, open.shape, open.port, tag, buffers)?;
        let Port { mtu, gid, lid, .. } = open.port;
        let end = End { qp: queues.number(), psn, mtu, slot_bytes: open.shape.slot_bytes as u32, gid, lid };
        path.queues = Some(queues);
        Ok(end)
    }

    /// This end finds the path of no use.
    pub(super) fn end(&mut self, now: Time, at: usize, why: &str) {
        let path = &mut self.paths[at];
        path.drop_queues();
        if let Some(says) = path.setup.broke(now) {
            path.say(says);
        }
        let peer = path.peer;
        self.counters.ended += 1;
        self.changes.push_back((peer, Change::Broke));
        self.tell(Notice::Ended { peer, why: why.to_owned() });
    }

    /// The other end has ended it, or there is none.
    fn close(&mut self, at: usize, why: Ended) {
        let path = &mut self.paths[at];
        path.drop_queues();
        let peer = path.peer;
        self.counters.ended += 1;
        self.changes.push_back((peer, Change::Broke));
        match why {
            Ended::Unanswered => {}
            Ended::Refused(reason) => {
                if path.refused.replace(reason) != Some(reason) {
                    self.tell(Notice::Refused { peer, reason });
                }
            }
            Ended::Replaced | Ended::ByPeer => self.tell(Notice::Ended { peer, why: why.to_string() }),
        }
    }

    /// Never 0.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
