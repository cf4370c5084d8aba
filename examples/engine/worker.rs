//! A worker thread and its stream.
//!
//! Outside a tenure it sees to it that there can be one: it gives its stream's leadership to who leads shard 0, and
//! asks for an advance of its stream. That this is committed proves what no status can: that the leader here has cut
//! short what there was of earlier leaders, that this epoch is its own from its beginning, and beyond which stamp it
//! takes records. Within a tenure there is [`Session`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use plimsoll::client::RequestId;
use plimsoll::client::ring::{Event, RingError, Stream, StreamRole};
use plimsoll::raft::Role;
use plimsoll::types::{NodeId, ShardId, Stamp, Term, Timestamp};
use plimsoll::wire::client::{Outcome, StreamRequest};

use crate::clock::TICK;
use crate::common::{Failure, Load};
use crate::session::Session;
use crate::tenure::{Order, Ready, Shared, Told};

/// How soon something is asked for again that was refused.
const AGAIN: Duration = Duration::from_millis(20);

/// A shard's leadership is not asked to move more often.
const TRANSFER_AGAIN: Duration = Duration::from_millis(300);

/// What was asked of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Register,
    Transfer,
    /// To come to this stamp, as the leader in that role.
    Handshake(Stamp, StreamRole),
    /// Anything within a tenure.
    InSession,
}

pub(crate) struct Worker {
    pub(crate) index: usize,
    stream: Stream,
    load: Load,
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    told: Sender<Told>,
    /// In the order in which it was asked.
    asked: VecDeque<(RequestId, Asked)>,
    ready: Option<Ready>,
    /// The registrar's: in which term it has asked for all streams to be registered, and was not refused.
    registered_in: Option<Term>,
    /// What the stream has come to, as far as refusals tell.
    behind: Timestamp,
    next_try: Instant,
    session: Option<Session>,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        stream: Stream,
        load: Load,
        shared: Arc<Shared>,
        orders: Receiver<Order>,
        told: Sender<Told>,
    ) -> Worker {
        Worker {
            index,
            stream,
            load,
            shared,
            orders,
            told,
            asked: VecDeque::new(),
            ready: None,
            registered_in: None,
            behind: Timestamp(0),
            next_try: Instant::now(),
            session: None,
        }
    }

    pub(crate) fn run(mut self) {
        if let Err(Failure(why)) = self.work() {
            let _ = self.told.send(Told::Failed(format!("worker {}: {why}", self.index)));
        }
    }

    fn work(&mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        let mut is_quiet = false;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let session = self.session.as_ref();
            let patience =
                session.map_or(self.load.tick, |session| session.patience(&self.load, &self.shared));
            self.stream.wait(patience);
            self.stream.poll(|event| events.push(event));
            for event in events.drain(..) {
                self.take(event)?;
            }
            self.give()?;
            if self.session.is_some() {
                self.serve()?;
            } else {
                self.prepare()?;
            }
            if !is_quiet && self.shared.quiet.load(Ordering::Relaxed) {
                is_quiet = true;
                self.tell(Told::Quiet);
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Role(role) => self.on_role(role),
            Event::Watermark(stamp) => {
                if let Some(session) = &mut self.session {
                    session.release(stamp, &mut self.load, &self.shared)?;
                }
                self.tell(Told::Watermark(stamp));
            }
            // What lives is asked of the process's replica, record by record.
            Event::EpochClosed(_) => {}
            Event::Ended { request, outcome } => self.on_outcome(request, outcome)?,
            Event::Confirmed { request, .. } => return Err(Failure(format!("{request:?} was never made"))),
            Event::Untold(outcome) => return Err(Failure(format!("the node does not tell: {outcome:?}"))),
            Event::Detached => return Err(Failure("the node is gone".to_owned())),
        }
        Ok(())
    }

    fn on_role(&mut self, role: StreamRole) {
        if self.index == 0 {
            let home = if role.role == Role::Leader { Some(self.shared.node) } else { role.leader };
            self.shared.home.store(home.map_or(0, |NodeId(id)| id), Ordering::Relaxed);
        }
        self.set_ready(None);
        self.behind = Timestamp(0);
        self.next_try = Instant::now();
        if let Some(session) = &self.session
            && !session.is_borne_by(&role)
        {
            session.end();
        }
    }

    fn on_outcome(&mut self, request: RequestId, outcome: Outcome) -> Result<(), Failure> {
        let at = self.asked.iter().position(|&(asked, _)| asked == request);
        let Some((_, asked)) = at.and_then(|at| self.asked.remove(at)) else {
            return Err(Failure(format!("{request:?} was never made: {outcome:?}")));
        };
        match (asked, outcome) {
            (Asked::InSession, outcome) => {
                if let Some(session) = &mut self.session {
                    session.on_outcome(outcome)?;
                }
            }
            (Asked::Handshake(stamp, role), Outcome::Committed { .. }) => {
                let holds = self.stream.role() == Some(role);
                self.set_ready(holds.then_some(Ready(stamp)));
            }
            (Asked::Handshake(..), Outcome::Behind { last }) => self.behind = last.timestamp,
            (Asked::Register, Outcome::Committed { .. }) => {}
            (Asked::Register, _) => {
                self.registered_in = None;
                self.next_try = Instant::now() + AGAIN;
            }
            // Not yet, or not here: there is another try.
            (Asked::Handshake(..) | Asked::Transfer, _) => {
                self.next_try = Instant::now() + AGAIN;
            }
        }
        Ok(())
    }

    fn set_ready(&mut self, ready: Option<Ready>) {
        if self.ready != ready {
            self.ready = ready;
            self.tell(Told::Ready(self.index, ready));
        }
    }

    /// Does what is to be done before there can be a tenure, and begins one that has come.
    fn prepare(&mut self) -> Result<(), Failure> {
        if let Ok(tenure) = self.orders.try_recv() {
            self.begin(tenure);
            return Ok(());
        }
        let leads = self.stream.role().filter(|role| role.role == Role::Leader);
        let Some(role) = leads.filter(|_| self.asked.is_empty() && Instant::now() >= self.next_try) else {
            return Ok(());
        };
        let home = NodeId(self.shared.home.load(Ordering::Relaxed));
        if self.index > 0 && home != NodeId(0) && home != self.shared.node {
            let request = self.stream.attachment().transfer(home);
            self.ask(Asked::Transfer, request)?;
            self.next_try = Instant::now() + TRANSFER_AGAIN;
        } else if self.index == 0 && self.registered_in != Some(role.term) {
            // Whoever led before may have died between two of them; and once more does no harm.
            self.registered_in = Some(role.term);
            for shard in (0..self.load.workers).map(ShardId) {
                let request = self.stream.attachment().stream(StreamRequest::Register(shard));
                self.ask(Asked::Register, request)?;
            }
        } else if self.stream.may_submit() && self.ready.is_none() {
            let stands_at = self.stream.status().map_or(Timestamp(0), |status| status.stands_at);
            // A stream that has ended the epoch stands beyond all stamps. That the epoch is closing is told a moment
            // later.
            let next = self
                .behind
                .max(stands_at)
                .0
                .checked_add(1)
                .and_then(|next| next.checked_next_multiple_of(TICK));
            let Some(next) = next else { return Ok(()) };
            let stamp = Stamp::new(role.epoch, Timestamp(next));
            let request = self.stream.attachment().stream(StreamRequest::Advance(stamp));
            self.ask(Asked::Handshake(stamp, role), request)?;
        }
        Ok(())
    }

    /// Gives its stream away, if that was ordered: a leader that lives on without its epoch.
    fn give(&mut self) -> Result<(), Failure> {
        let ordered = self.shared.give.load(Ordering::Relaxed);
        if ordered >> 32 == self.index as u64 + 1 {
            self.shared.give.store(0, Ordering::Relaxed);
            let request = self.stream.attachment().transfer(NodeId(ordered as u32));
            self.ask(Asked::Transfer, request)?;
        }
        Ok(())
    }

    fn ask(&mut self, asked: Asked, request: Result<RequestId, RingError>) -> Result<(), Failure> {
        match request {
            Ok(request) => self.asked.push_back((request, asked)),
            Err(RingError::Busy) => {}
            Err(error) => return Err(Failure::of(error)),
        }
        Ok(())
    }

    /// Begins a tenure, if it is the one that this worker was ready for. If it is not, what was said of a later epoch
    /// stands: the process was slow, and a tenure of that may be under way already.
    fn begin(&mut self, tenure: Order) {
        match (self.ready, self.stream.role()) {
            (Some(Ready(stamp)), Some(role)) if stamp.epoch == tenure.epoch => {
                self.ready = None;
                self.session = Some(Session::begin(tenure, role.term, stamp.timestamp.0));
            }
            _ => {
                tenure.over.store(true, Ordering::Release);
                self.tell(Told::Left(tenure.epoch, VecDeque::new()));
            }
        }
    }

    fn serve(&mut self) -> Result<(), Failure> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.execute(&mut self.load, &self.shared)?;
        let asked = &mut self.asked;
        let role = self.stream.role();
        session.submit(self.stream.attachment(), role, &self.load, |request| {
            asked.push_back((request, Asked::InSession));
        })?;
        if session.has_ended(role)
            && let Some((epoch, waiting)) = self.session.take().map(Session::leave)
        {
            self.tell(Told::Left(epoch, waiting));
        }
        Ok(())
    }

    /// Who does not listen any more has ended the process.
    fn tell(&self, told: Told) {
        let _ = self.told.send(told);
    }
}
