//! A worker within a tenure: executes what clients want, submits it tick by tick, and releases replies when the
//! watermark covers them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plimsoll::client::RequestId;
use plimsoll::client::ring::{Attachment, RingError, StreamRole};
use plimsoll::raft::Role;
use plimsoll::types::{Acks, Epoch, Stamp, Term, Timestamp};
use plimsoll::wire::client::{Outcome, StreamRequest};

use crate::bank::{Effect, HISTORY, Operation, Place, row_of};
use crate::clock::end_of;
use crate::common::{Failure, Load};
use crate::entry::{self, Transaction, Writes};
use crate::tables::Attempt;
use crate::tenure::{Order, Reply, Shared};

/// How many transactions are executed before the stream is looked at again.
const AT_ONCE: usize = 64;

/// How many buffers are under way at most: so few that the node has room for each, and refuses none of them for want of
/// it.
const IN_FLIGHT_MAX: usize = 64;

/// How many replies wait at most.
const WAITING_MAX: usize = 4096;

pub(crate) struct Session {
    tenure: Order,
    term: Term,
    /// Executed and not submitted, in the order of their stamps.
    begun: VecDeque<Transaction>,
    /// Since when the first of them waits.
    begun_at: Instant,
    /// The last stamp submitted: a buffer's, or an advance.
    laid: u64,
    /// What was submitted and has no end.
    in_flight: usize,
    waiting: VecDeque<Reply>,
    /// When the next client comes.
    next_due: Instant,
    /// The node has taken all that was submitted, so far.
    is_whole: bool,
    has_said_end: bool,
}

impl Session {
    /// Of a stream that takes records beyond a stamp.
    pub(crate) fn begin(tenure: Order, term: Term, beyond: u64) -> Session {
        let now = Instant::now();
        Session {
            tenure,
            term,
            begun: VecDeque::new(),
            begun_at: now,
            laid: beyond,
            in_flight: 0,
            waiting: VecDeque::new(),
            next_due: now,
            is_whole: true,
            has_said_end: false,
        }
    }

    /// Whether the tenure can go on with the stream in this role.
    pub(crate) fn is_borne_by(&self, role: &StreamRole) -> bool {
        self.leads(Some(*role)) && role.open && !role.closing
    }

    fn leads(&self, role: Option<StreamRole>) -> bool {
        role.is_some_and(|role| {
            role.role == Role::Leader && role.term == self.term && role.epoch == self.tenure.epoch
        })
    }

    /// Ends the tenure, for all workers.
    pub(crate) fn end(&self) {
        self.tenure.over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.tenure.over.load(Ordering::Acquire)
    }

    /// Whether no transaction may be begun now, whoever comes.
    fn is_held(&self, shared: &Shared) -> bool {
        self.is_over() || self.waiting.len() >= WAITING_MAX || shared.quiet.load(Ordering::Relaxed)
    }

    /// How long there may be nothing to do.
    pub(crate) fn patience(&self, load: &Load, shared: &Shared) -> Duration {
        if self.is_held(shared) {
            return load.tick;
        }
        load.tick.min(self.next_due.saturating_duration_since(Instant::now()))
    }

    /// Executes what is due. It is visible to the other workers at once.
    pub(crate) fn execute(&mut self, load: &mut Load, shared: &Shared) -> Result<(), Failure> {
        let (now, first) = (Instant::now(), load.next_id);
        for _ in 0..AT_ONCE {
            if self.next_due > now || self.is_held(shared) {
                break;
            }
            let operation = Operation::draw(&mut load.random, load.accounts);
            let (stamp, effect, written) = self.execute_one(&operation, shared);
            let id = load.next_id;
            load.next_id += 1;
            if self.begun.is_empty() {
                self.begun_at = now;
            }
            let writes = log_of(id, &operation, &effect, &written);
            self.begun.push_back(Transaction { stamp, writes });
            self.waiting.push_back(Reply { id, stamp, due: self.next_due });
            shared.counts.begun.fetch_add(1, Ordering::Relaxed);
            self.next_due += load.period;
        }
        let count = load.next_id - first;
        if count > 0 {
            load.begun.note([(first, count)]).map_err(Failure::of)?;
        }
        Ok(())
    }

    fn execute_one(&self, operation: &Operation, shared: &Shared) -> (u64, Effect, Vec<(Place, i64)>) {
        loop {
            let mut attempt = Attempt::new(&self.tenure.tables);
            let effect = operation.run(&mut attempt);
            if let Some((stamp, written)) = attempt.commit(&self.tenure.clock) {
                return (stamp, effect, written);
            }
            shared.counts.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Submits the ticks that have ended, and moves the stream along where there is nothing in them. When the tenure is
    /// over: all that was begun, and then that this was all.
    pub(crate) fn submit(
        &mut self,
        ring: &mut Attachment,
        role: Option<StreamRole>,
        load: &Load,
        mut asked: impl FnMut(RequestId),
    ) -> Result<(), Failure> {
        let clock = &self.tenure.clock;
        let is_over = self.is_over();
        if !self.begun.is_empty() && (is_over || self.begun_at.elapsed() >= load.tick) {
            clock.end_tick();
        }
        let ended = clock.ended();
        while self.in_flight < IN_FLIGHT_MAX {
            let first = self.begun.front().map(|first| first.stamp).filter(|&first| first <= ended);
            let request = match first {
                Some(first) => self.submit_tick(ring, end_of(first), load)?,
                None if self.laid < ended && !is_over => {
                    self.laid = ended;
                    ring.stream(StreamRequest::Advance(Stamp::new(self.tenure.epoch, Timestamp(ended))))
                }
                None if is_over && self.owes_end(role) => {
                    self.has_said_end = true;
                    ring.stream(StreamRequest::EndOfEpoch(self.tenure.epoch))
                }
                None => return Ok(()),
            };
            match request {
                Ok(request) => {
                    self.in_flight += 1;
                    asked(request);
                }
                // A buffer that the ring has no room for comes with a later turn, an advance with the next one, and an
                // end of the epoch comes without being said.
                Err(RingError::Busy) => return Ok(()),
                Err(error) => return Err(Failure::of(error)),
            }
        }
        Ok(())
    }

    /// Whether it is to be said that all was submitted: only if all is committed, for then it is true whatever happens.
    fn owes_end(&self, role: Option<StreamRole>) -> bool {
        self.in_flight == 0 && self.is_whole && !self.has_said_end && self.leads(role)
    }

    /// Writes the buffer of the tick with this end into the ring, in place.
    fn submit_tick(
        &mut self,
        ring: &mut Attachment,
        end: u64,
        load: &Load,
    ) -> Result<Result<RequestId, RingError>, Failure> {
        let count = self.begun.iter().take_while(|transaction| transaction.stamp <= end).count();
        let transactions = || self.begun.range(..count);
        let mut room = match ring.reserve(entry::len_bytes(transactions())) {
            Ok(room) => room,
            Err(error) => return Ok(Err(error)),
        };
        let epoch = self.tenure.epoch;
        entry::encode(room.bytes(), epoch, load.start_ms(), transactions()).map_err(Failure)?;
        let request = room.publish(Timestamp(end), epoch, Acks::Quorum);
        self.begun.drain(..count);
        (self.laid, self.begun_at) = (end, Instant::now());
        Ok(Ok(request))
    }

    /// Takes in the end of something submitted.
    pub(crate) fn on_outcome(&mut self, outcome: Outcome) -> Result<(), Failure> {
        self.in_flight -= 1;
        match outcome {
            Outcome::Committed { .. } => Ok(()),
            // Leadership was lost, or the epoch was cut short. What came after it in this stream and elsewhere may have
            // read from what is lost: it has greater stamps, and dies with it.
            Outcome::NotLeader { .. }
            | Outcome::EpochClosed { .. }
            | Outcome::Unknown
            | Outcome::Busy
            | Outcome::Stopping => {
                self.is_whole = false;
                self.end();
                // It must not get into the log without what was before it.
                self.begun.clear();
                Ok(())
            }
            // Nothing that this engine does leads to these.
            defect => Err(Failure(format!("a buffer was refused: {defect:?}"))),
        }
    }

    /// Gives the replies that the watermark covers. One beyond this epoch covers nothing here: it comes when the epoch
    /// has closed, and what is dead of it is not under the watermark although its stamp is less.
    pub(crate) fn release(
        &mut self,
        watermark: Stamp,
        load: &mut Load,
        shared: &Shared,
    ) -> Result<(), Failure> {
        if watermark.epoch != self.tenure.epoch {
            return Ok(());
        }
        let covered = self.waiting.partition_point(|reply| reply.stamp <= watermark.timestamp.0);
        if covered == 0 {
            return Ok(());
        }
        load.released.note(self.waiting.drain(..covered).map(note_of)).map_err(Failure::of)?;
        shared.counts.released.fetch_add(covered as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether all that was begun was submitted and has its end.
    pub(crate) fn has_ended(&self, role: Option<StreamRole>) -> bool {
        self.is_over() && self.begun.is_empty() && self.in_flight == 0 && !self.owes_end(role)
    }

    /// The replies that still wait: what becomes of them is settled with the epoch.
    pub(crate) fn leave(self) -> (Epoch, VecDeque<Reply>) {
        (self.tenure.epoch, self.waiting)
    }
}

/// What a reply's note says.
pub(crate) fn note_of(reply: Reply) -> (u64, u64) {
    (reply.id, reply.due.elapsed().as_micros() as u64)
}

fn log_of(id: u64, operation: &Operation, effect: &Effect, written: &[(Place, i64)]) -> Writes {
    let mut writes = Writes::default();
    for (Place { table, account }, balance) in written {
        writes.put(*table, &account.to_le_bytes(), &balance.to_le_bytes());
    }
    writes.put(HISTORY, &id.to_le_bytes(), &row_of(operation, effect));
    writes
}
