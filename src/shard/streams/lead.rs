//! What the leader of a stream does: it lays the marks that it owes and those that the engine asks for, and says which
//! stamps may be laid.

use alloc::collections::BTreeSet;

use super::super::clients::ClientRef;
use super::super::pending::Pending;
use super::super::{Groups, Shard, World};
use super::Streams;
use crate::engine::board::Board;
use crate::engine::{Mark, REGISTRAR};
use crate::limits::SUBMITS_PENDING_MAX;
use crate::log::NewEntry;
use crate::log::record::{self, Kind};
use crate::types::{Acks, EntryId, Epoch, Index, ShardId, Stamp, Time};
use crate::wire::client::{Outcome, StreamRequest};

/// What the leader of a stream keeps, for as long as it leads.
pub(super) struct Lead {
    /// Its first entry. Once that is committed all that earlier leaders have left is known.
    first: Index,
    /// The last stamp laid; `None` until all that earlier leaders have left is known.
    laid: Option<Stamp>,
    /// Whether an earlier leader may have taken entries with it, so that the epoch is to be cut short: if it had told
    /// that the stream takes records. `None` until all that it has left is known.
    cut_due: Option<bool>,
    has_opened: bool,
    has_ended: bool,
    /// The registrar's: it is registered, or will be as soon as this is committed.
    has_registered: bool,
    /// The last epoch for whose end this leader has laid a mark.
    ended_epoch: Option<Epoch>,
    /// Since when the open epoch is known to end.
    closing_since: Option<Time>,
    /// The registrar's: the last epoch that it has settled.
    settled_epoch: Option<Epoch>,
    /// The stamps of records that were refused, and not submitted again. Nothing beyond the least is taken: others may
    /// have read what is in it, and the watermark would pass it.
    refused: BTreeSet<Stamp>,
}

impl Lead {
    /// Of who was elected just now, with this as its first entry.
    pub(super) fn from(first: Index) -> Lead {
        Lead {
            first,
            laid: None,
            cut_due: None,
            has_opened: false,
            has_ended: false,
            has_registered: false,
            ended_epoch: None,
            closing_since: None,
            settled_epoch: None,
            refused: BTreeSet::new(),
        }
    }
}

impl<W: World> Groups<W> {
    /// What the leader of a stream owes, at most one mark in a turn.
    pub(super) fn attend_lead(&mut self, now: Time, at: usize, streams: &mut Streams) {
        let shard = &mut self.shards[at];
        let (board, open, closing) = (&streams.board, streams.published_in, streams.closing);
        let ends_here = has_ended_epoch(shard, open);
        let Some(lead) = &mut shard.stream.lead else { return };
        if shard.stream.followed < lead.first {
            return;
        }
        let position = &shard.stream.position;
        let cut_due = *lead.cut_due.get_or_insert(position.is_open());
        let has_ended = lead.has_ended || position.has_ended();
        let Some(floor) = board.floor(shard.id).filter(|_| !has_ended) else {
            // Not registered, or over: but the registrar's leader settles epochs when its own stream has ended, too.
            if shard.id == REGISTRAR {
                self.settle_epoch(at, streams);
            }
            return;
        };
        lead.laid.get_or_insert(position.last().max(floor));
        if cut_due {
            if !ends_here {
                self.lay_mark(at, Mark::EndOfEpoch { epoch: open, complete: false });
            }
            // An epoch that had its end before this leader: the next one may have begun unseen, and is cut instead.
        } else if closing && !ends_here {
            let since = *lead.closing_since.get_or_insert(now);
            // One that opens in a moment is told as open then, before the end of its epoch is known, and the engine may
            // begin something in it.
            let complete = !position.is_open() && !lead.has_opened;
            if complete || now.since(since) >= self.options.epoch_grace {
                self.lay_mark(at, Mark::EndOfEpoch { epoch: open, complete });
            }
        } else if !closing {
            lead.closing_since = None;
            if !position.is_open() && !lead.has_opened {
                self.lay_mark(at, Mark::Open { floor });
            }
        }
        if self.shards[at].id == REGISTRAR {
            self.settle_epoch(at, streams);
        }
    }

    /// The registrar's leader: what lives of the epoch, once every stream has ended it.
    fn settle_epoch(&mut self, at: usize, streams: &Streams) {
        let Some((epoch, last)) = streams.board.settled() else { return };
        let lead = self.shards[at].stream.lead.as_ref();
        if lead.is_some_and(|lead| lead.settled_epoch != Some(epoch)) {
            self.lay_mark(at, Mark::EpochClosed { epoch, last });
        }
    }

    /// Lays a mark, if there is room now; the caller comes again next turn if there is not.
    fn lay_mark(&mut self, at: usize, mark: Mark) -> Option<EntryId> {
        let shard = &mut self.shards[at];
        shard.touched = true;
        if self.log.room_for(0).is_err() || shard.large.is_some() {
            return None;
        }
        let id = shard.raft.propose().ok()?;
        let (stamp, session, serial) = mark.fields();
        self.log.lay(
            NewEntry {
                shard: shard.id,
                id,
                kind: Kind::Mark,
                flags: 0,
                timestamp: stamp.timestamp,
                epoch: stamp.epoch,
                session,
                serial,
                payload_crc: record::payload_crc(&[]),
            },
            &[],
        );
        let lead = shard.stream.lead.as_mut().expect("who may propose leads");
        match mark {
            Mark::Open { .. } => lead.has_opened = true,
            Mark::Advance(stamp) => {
                lead.laid = Some(stamp);
                lead.refused.retain(|refused| *refused > stamp);
            }
            Mark::EndOfStream => lead.has_ended = true,
            Mark::EndOfEpoch { epoch, .. } => {
                lead.ended_epoch = Some(epoch);
                lead.closing_since = None;
                lead.cut_due = Some(false);
                lead.refused.clear();
            }
            Mark::EpochClosed { epoch, .. } => lead.settled_epoch = Some(epoch),
            Mark::Register { stream } => lead.has_registered |= stream == REGISTRAR,
            Mark::Data(_) => {}
        }
        Some(id)
    }

    /// Whether a record of the engine may be laid with this stamp, or why not. A record without a stamp is no engine's.
    pub(in crate::shard) fn check_stamp(&self, at: usize, stamp: Stamp) -> Result<(), Outcome> {
        let Some(streams) = self.streams.as_ref().filter(|_| stamp.timestamp.0 > 0) else { return Ok(()) };
        if !stamp.is_submittable() {
            return Err(Outcome::Invalid);
        }
        may_submit_next(&self.shards[at], &streams.board, stamp)
    }

    /// A record with this stamp was laid.
    pub(in crate::shard) fn claim_stamp(&mut self, at: usize, stamp: Stamp) {
        if let Some(lead) = &mut self.shards[at].stream.lead {
            lead.laid = lead.laid.max(Some(stamp).filter(|_| stamp.timestamp.0 > 0));
            lead.refused.remove(&stamp);
        }
    }

    /// A record with this stamp was refused, and nothing of it is laid. An engine that has more under way finds them
    /// refused, too, until it has submitted this one again.
    pub(in crate::shard) fn refuse_stamp(&mut self, at: usize, stamp: Stamp, outcome: &Outcome) {
        // What is not beyond the last stamp is behind it, and leaves no hole.
        self.leave_hole(at, stamp, outcome, |laid| stamp > laid);
    }

    /// The same of a record of which some parts are laid, and its stamp with them, but not the last one.
    pub(in crate::shard) fn refuse_broken_off(&mut self, at: usize, stamp: Stamp, outcome: &Outcome) {
        self.leave_hole(at, stamp, outcome, |_| true);
    }

    /// Remembers that this stamp is missing, if that is so and the epoch goes on; `is_missing` is asked with the last
    /// stamp laid.
    fn leave_hole(
        &mut self,
        at: usize,
        stamp: Stamp,
        outcome: &Outcome,
        is_missing: impl FnOnce(Stamp) -> bool,
    ) {
        let comes_again = matches!(
            outcome,
            Outcome::Busy
                | Outcome::NotLeader { .. }
                | Outcome::LogFull
                | Outcome::Invalid
                | Outcome::Stopping
        );
        let Some(streams) = self.streams.as_ref().filter(|_| comes_again && stamp.is_submittable()) else {
            return;
        };
        let (shard, open) = (&mut self.shards[at], streams.board.open_epoch());
        let is_next = stamp.epoch == open.next() && has_ended_epoch(shard, open);
        let goes_on = (stamp.epoch == open || is_next) && !has_ended_epoch(shard, stamp.epoch);
        let Some(lead) = &mut shard.stream.lead else { return };
        // Before the last stamp is known an earlier leader's stream is cut anyway, and in a new one nothing has begun.
        let is_missing = lead.laid.is_some_and(is_missing);
        if is_missing && goes_on {
            lead.refused.insert(stamp);
            if lead.refused.len() > SUBMITS_PENDING_MAX {
                // More than can be remembered: nobody may read on from them, as if an earlier leader had lost them.
                lead.cut_due = Some(true);
            }
        }
    }

    /// Takes in what an engine wants written down of its stream.
    pub(in crate::shard) fn take_stream_request(
        &mut self,
        at: usize,
        client: ClientRef,
        request: u64,
        asked: StreamRequest,
    ) {
        let mark = match self.mark_for(at, asked) {
            Ok(mark) => mark,
            Err(outcome) => return self.clients.answer(client, request, outcome),
        };
        match self.lay_mark(at, mark) {
            Some(id) => {
                let timestamp = mark.fields().0.timestamp;
                self.wait_for(at, Acks::Quorum, Pending { id, client, request, timestamp });
            }
            None => self.clients.answer(client, request, Outcome::Busy),
        }
    }

    fn mark_for(&self, at: usize, asked: StreamRequest) -> Result<Mark, Outcome> {
        let Some(streams) = &self.streams else { return Err(Outcome::Invalid) };
        if let Some(refusal) = self.refusal_to_lay(at) {
            return Err(refusal);
        }
        let shard = &self.shards[at];
        let board = &streams.board;
        match asked {
            StreamRequest::Register(stream) if shard.id != REGISTRAR || stream.0 >= board.shards() => {
                Err(Outcome::Invalid)
            }
            StreamRequest::Register(stream) => {
                may_register(shard, board, stream).map(|()| Mark::Register { stream })
            }
            StreamRequest::Advance(stamp) if !stamp.is_submittable() => Err(Outcome::Invalid),
            StreamRequest::Advance(stamp) => may_submit(shard, board, stamp).map(|()| Mark::Advance(stamp)),
            StreamRequest::EndOfStream => may_end(shard, board).map(|()| Mark::EndOfStream),
            StreamRequest::EndOfEpoch(epoch) => may_submit_next(shard, board, Stamp::end_of(epoch))
                .map(|()| Mark::EndOfEpoch { epoch, complete: true }),
            StreamRequest::CutEpoch(epoch) => may_submit(shard, board, Stamp::end_of(epoch))
                .map(|()| Mark::EndOfEpoch { epoch, complete: false }),
        }
    }

    /// See [`StreamStatus::takes_records`](crate::wire::client::StreamStatus::takes_records).
    pub(super) fn takes_records(&self, at: usize, streams: &Streams) -> bool {
        let shard = &self.shards[at];
        !self.drain.has_begun()
            && !shard.raft.is_handing_over()
            && !streams.closing
            && may_lay_in(shard, &streams.board, streams.published_in).is_ok()
    }
}

/// Whether the registrar's leader may register this stream, or why not. The registrar is the first and its floor the
/// beginning: a stream before it would count alone, and one after its end could lay nothing. And none is between the
/// registrar's end of an epoch and the next one: so a stream counts in every epoch from its floor's on, and has an end
/// of its own in each.
fn may_register(shard: &Shard, board: &Board, stream: ShardId) -> Result<(), Outcome> {
    let Some(lead) = &shard.stream.lead else {
        return Err(Outcome::NotLeader { leader: shard.raft.leader() });
    };
    if lead.has_ended || shard.stream.position.has_ended() {
        Err(Outcome::Unregistered)
    } else if stream == REGISTRAR {
        Ok(())
    } else if shard.stream.followed.next() < lead.first {
        // What earlier leaders have registered, and ended, is not known yet.
        Err(Outcome::Busy)
    } else if has_ended_epoch(shard, board.open_epoch()) {
        // The epoch may be settled without it, and its floor be in one that is over.
        Err(Outcome::Busy)
    } else if lead.has_registered {
        Ok(())
    } else if board.floor(REGISTRAR).is_none() {
        Err(Outcome::Unregistered)
    } else {
        Ok(())
    }
}

/// Whether the leader of a stream may lay something with this stamp that comes after all that was begun before it, or
/// why not: what was refused comes first.
fn may_submit_next(shard: &Shard, board: &Board, stamp: Stamp) -> Result<(), Outcome> {
    may_submit(shard, board, stamp)?;
    let lead = shard.stream.lead.as_ref();
    let is_behind_refused =
        lead.is_some_and(|lead| lead.refused.range(Stamp::begin_of(stamp.epoch)..stamp).next().is_some());
    if is_behind_refused { Err(Outcome::Busy) } else { Ok(()) }
}

/// Whether the leader of a stream may lay something with this stamp, or why not.
fn may_submit(shard: &Shard, board: &Board, stamp: Stamp) -> Result<(), Outcome> {
    let (lead, laid) = may_lay_in(shard, board, stamp.epoch)?;
    // A record in parts is refused when its first ones are laid, and comes again.
    if stamp <= laid && !lead.refused.contains(&stamp) {
        return Err(Outcome::Behind { last: laid });
    }
    Ok(())
}

/// Whether the leader of a stream may lay anything in this epoch: who leads and the last stamp laid, or why not.
fn may_lay_in<'a>(shard: &'a Shard, board: &Board, epoch: Epoch) -> Result<(&'a Lead, Stamp), Outcome> {
    let (lead, laid) = may_lay(shard, board)?;
    let open = board.open_epoch();
    let has_ended = has_ended_epoch(shard, open);
    if has_ended && epoch == open.next() {
        // Other nodes may know already that it is open. It will be here in a moment.
        return Err(Outcome::Busy);
    }
    if epoch != open || lead.cut_due == Some(true) || has_ended {
        return Err(Outcome::EpochClosed { open });
    }
    Ok((lead, laid))
}

/// Whether the leader of a stream has laid its end of this epoch, or follows one who has.
fn has_ended_epoch(shard: &Shard, epoch: Epoch) -> bool {
    shard.stream.position.has_closed(epoch)
        || shard.stream.lead.as_ref().is_some_and(|lead| lead.ended_epoch == Some(epoch))
}

/// Whether the leader of a stream may end it for good, or why not. In an epoch that has its end here, too: of that the
/// stream counts where it stood at its end. But not before the cut that is due, for the stream would stand beyond what
/// an earlier leader has lost.
fn may_end(shard: &Shard, board: &Board) -> Result<(), Outcome> {
    let (lead, _) = may_lay(shard, board)?;
    if lead.cut_due == Some(true) || !lead.refused.is_empty() { Err(Outcome::Busy) } else { Ok(()) }
}

/// Whether the leader of a stream may lay anything of the engine's: who leads and the last stamp laid, or why not.
fn may_lay<'a>(shard: &'a Shard, board: &Board) -> Result<(&'a Lead, Stamp), Outcome> {
    let Some(lead) = &shard.stream.lead else {
        return Err(Outcome::NotLeader { leader: shard.raft.leader() });
    };
    let position = &shard.stream.position;
    if board.floor(shard.id).is_none() || lead.has_ended || position.has_ended() {
        return Err(Outcome::Unregistered);
    }
    let Some(laid) = lead.laid.filter(|_| position.is_open()) else {
        // It will be, in a moment: what earlier leaders have left, or the stream's beginning, is not committed yet.
        return Err(Outcome::Busy);
    };
    Ok((lead, laid))
}
