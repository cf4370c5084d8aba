//! The engine's streams in this lane: how far each has come, what their leaders write down, and who is told.
//!
//! What is committed is followed header by header, and where a stream stands goes to the node's [`Board`], where the other
//! lanes and whoever asks on this host read it. Everything that is decided here is decided from committed entries, in the
//! order of the logs: see [`crate::engine`]. A lane that nobody gave a board does nothing of this.
//!
//! Commits wake no other lane. A lane that blocks looks at the board every [`LOOK_PERIOD`] all the same, for what was written
//! there by others: that is for registrations, ends of epochs and subscribers elsewhere, never for a commit's own watermark.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::clients::ClientRef;
use super::pending::Pending;
use super::{Groups, Shard, World};
use crate::engine::board::Board;
use crate::engine::fold::Registry;
use crate::engine::{Mark, Position, REGISTRAR};
use crate::io::Disk;
use crate::limits::{APPEND_BYTES_MAX, SUBMITS_PENDING_MAX, SUBSCRIBERS_MAX};
use crate::log::record::{self, Kind};
use crate::log::{Log, NewEntry};
use crate::raft::{Role, Span};
use crate::types::{Acks, EntryId, Epoch, Index, ShardId, Stamp, Time};
use crate::wire::client::{Outcome, Reply, StreamRequest, StreamStatus};

/// How many headers of one stream are followed in one turn.
const FOLLOWED_PER_TURN: u64 = 4096;

/// How often a lane that blocks looks at the board.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// What a lane keeps for all its streams.
pub(super) struct Streams {
    board: Arc<Board>,
    /// What the registrar has told; kept by the lane in which it lives.
    registry: Registry,
    /// The largest that was told.
    watermark: Stamp,
    next_look: Time,
    /// The open epoch in which positions were last published.
    published_in: Epoch,
    /// Whether the open epoch was coming to its end when the board was last looked at.
    closing: bool,
}

/// What a lane keeps for one stream.
#[derive(Default)]
pub(super) struct Stream {
    position: Position,
    /// Up to where the committed log was followed.
    followed: Index,
    lead: Option<Lead>,
    subscribers: Vec<Subscriber>,
}

/// What the leader of a stream keeps, for as long as it leads.
struct Lead {
    /// Its first entry. Once that is committed all that earlier leaders have left is known.
    first: Index,
    /// The last stamp laid; `None` until all that earlier leaders have left is known.
    laid: Option<Stamp>,
    /// Whether an earlier leader may have taken entries with it, so that the epoch is to be cut short: if it had told that
    /// the stream takes records. `None` until all that it has left is known.
    cut_due: Option<bool>,
    has_opened: bool,
    has_ended: bool,
    /// The last epoch for whose end this leader has laid a mark.
    ended_epoch: Option<Epoch>,
    /// Since when the open epoch is known to end.
    closing_since: Option<Time>,
    /// The registrar's: the last epoch that it has settled.
    settled_epoch: Option<Epoch>,
    /// The stamps of records that were refused, and not submitted again. Nothing beyond the least is taken: others may have
    /// read what is in it, and the watermark would pass it.
    refused: BTreeSet<Stamp>,
}

struct Subscriber {
    client: ClientRef,
    request: u64,
    told: Option<StreamStatus>,
}

impl Streams {
    pub(super) fn new(board: Arc<Board>) -> Streams {
        let (registry, watermark) = (Registry::default(), Stamp::ZERO);
        Streams { board, registry, watermark, next_look: Time(0), published_in: Epoch(0), closing: false }
    }

    pub(super) fn next_wake(&self) -> Time {
        self.next_look
    }
}

impl Stream {
    /// A leader was elected, or lost.
    pub(super) fn changed(&mut self, role: Role, last: Index) {
        self.lead = (role == Role::Leader).then_some(Lead {
            first: last,
            laid: None,
            cut_due: None,
            has_opened: false,
            has_ended: false,
            ended_epoch: None,
            closing_since: None,
            settled_epoch: None,
            refused: BTreeSet::new(),
        });
    }

    /// Follows what is committed, as far as it is in memory; whether anything was found that counts.
    fn follow<D: Disk>(
        &mut self,
        shard: ShardId,
        commit: Index,
        log: &mut Log<D>,
        mut take: impl FnMut(&mut Position, &Mark),
    ) -> bool {
        let until = Index(commit.0.min(self.followed.0 + FOLLOWED_PER_TURN));
        let mut moved = false;
        while self.followed < until {
            let Span::Ready { count, .. } = log.span(shard, self.followed.next(), APPEND_BYTES_MAX) else {
                break;
            };
            let count = u64::from(count).min(until.0 - self.followed.0);
            log.each_header(shard, self.followed.next(), count as u32, |header| {
                // What no leader writes means nothing, on every node alike.
                if let Ok(Some(mark)) = Mark::of(header) {
                    take(&mut self.position, &mark);
                    moved = true;
                }
            });
            self.followed.0 += count;
        }
        moved
    }
}

impl<W: World> Groups<W> {
    /// Follows the streams in which something was committed, does what their leaders owe, and tells who has subscribed.
    pub(super) fn follow_streams(&mut self, now: Time) {
        let Some(mut streams) = self.streams.take() else { return };
        for at in 0..self.shards.len() {
            self.follow_stream(at, &mut streams);
        }
        self.turn_to_open_epoch(&mut streams);
        streams.closing = streams.board.closing() == Some(streams.published_in);
        for at in 0..self.shards.len() {
            if self.shards[at].stream.lead.is_some() {
                self.attend_lead(now, at, &mut streams);
            }
        }
        streams.watermark = streams.watermark.max(streams.board.watermark());
        streams.next_look = now.after(LOOK_PERIOD);
        for at in 0..self.shards.len() {
            if !self.shards[at].stream.subscribers.is_empty() {
                self.tell_subscribers(at, &streams);
            }
        }
        self.streams = Some(streams);
    }

    fn follow_stream(&mut self, at: usize, streams: &mut Streams) {
        let Groups { shards, log, .. } = self;
        let shard = &mut shards[at];
        let commit = shard.raft.commit();
        if shard.stream.followed == commit {
            return;
        }
        let Streams { board, registry, .. } = streams;
        let is_registrar = shard.id == REGISTRAR;
        let moved = shard.stream.follow(shard.id, commit, log, |position, mark| {
            if is_registrar {
                take_registration(registry, board, position, mark);
            }
            position.take(mark);
        });
        if moved {
            board.publish(shard.id, &shard.stream.position);
        }
        if shard.stream.followed < commit {
            // There is more, in memory or on its way from the disk.
            shard.touched = true;
        }
    }

    /// Another epoch has opened: every stream now stands where it has come to in that.
    fn turn_to_open_epoch(&mut self, streams: &mut Streams) {
        let open = streams.board.open_epoch();
        if streams.published_in != open {
            streams.published_in = open;
            for shard in &mut self.shards {
                shard.stream.position.forget_before(open);
                streams.board.publish(shard.id, &shard.stream.position);
            }
        }
    }

    /// What the leader of a stream owes, at most one mark in a turn.
    fn attend_lead(&mut self, now: Time, at: usize, streams: &mut Streams) {
        let shard = &mut self.shards[at];
        let board = &streams.board;
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
        let (open, closing) = (streams.published_in, streams.closing);
        let ends_here = position.has_closed(open) || lead.ended_epoch == Some(open);
        if cut_due {
            if !ends_here {
                self.lay_mark(at, Mark::EndOfEpoch { epoch: open, complete: false });
            }
            // An epoch that had its end before this leader: the next one may have begun unseen, and is cut instead.
        } else if closing && !ends_here {
            let since = *lead.closing_since.get_or_insert(now);
            let complete = !position.is_open();
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
                lead.cut_due = Some(false);
                lead.refused.clear();
            }
            Mark::EpochClosed { epoch, .. } => lead.settled_epoch = Some(epoch),
            Mark::Register { .. } | Mark::Data(_) => {}
        }
        Some(id)
    }

    /// Whether a record of the engine may be laid with this stamp, or why not. A record without a stamp is no engine's.
    pub(super) fn check_stamp(&self, at: usize, stamp: Stamp) -> Result<(), Outcome> {
        let Some(streams) = self.streams.as_ref().filter(|_| stamp.timestamp.0 > 0) else { return Ok(()) };
        if !stamp.is_submittable() {
            return Err(Outcome::Invalid);
        }
        may_submit_next(&self.shards[at], &streams.board, stamp)
    }

    /// A record with this stamp was laid.
    pub(super) fn claim_stamp(&mut self, at: usize, stamp: Stamp) {
        if let Some(lead) = &mut self.shards[at].stream.lead {
            lead.laid = lead.laid.max(Some(stamp).filter(|_| stamp.timestamp.0 > 0));
            lead.refused.remove(&stamp);
        }
    }

    /// A record with this stamp was refused. An engine that has more under way finds them refused, too, until it has submitted
    /// this one again.
    /// `broken_off`: some of its parts are laid, and the stamp with them.
    pub(super) fn refuse_stamp(&mut self, at: usize, stamp: Stamp, outcome: &Outcome, broken_off: bool) {
        let leaves_a_hole = matches!(
            outcome,
            Outcome::Busy
                | Outcome::NotLeader { .. }
                | Outcome::LogFull
                | Outcome::Invalid
                | Outcome::Stopping
        );
        let Some(streams) = self.streams.as_ref().filter(|_| leaves_a_hole && stamp.is_submittable()) else {
            return;
        };
        let Some(lead) = &mut self.shards[at].stream.lead else { return };
        // What is not beyond the last stamp is behind it, and leaves no hole. Before that is known the engine has not been told
        // that the stream is open, and has begun nothing.
        let is_next = lead.laid.is_some_and(|laid| stamp > laid || broken_off);
        if is_next && stamp.epoch == streams.board.open_epoch() && lead.ended_epoch != Some(stamp.epoch) {
            lead.refused.insert(stamp);
            if lead.refused.len() > SUBMITS_PENDING_MAX {
                // More than can be remembered: nobody may read on from them, as if an earlier leader had lost them.
                lead.cut_due = Some(true);
            }
        }
    }

    /// Takes in what an engine wants written down of its stream.
    pub(super) fn take_stream_request(
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
            StreamRequest::Register(stream) => Ok(Mark::Register { stream }),
            StreamRequest::Advance(stamp) if !stamp.is_submittable() => Err(Outcome::Invalid),
            StreamRequest::Advance(stamp) => may_submit(shard, board, stamp).map(|()| Mark::Advance(stamp)),
            StreamRequest::EndOfStream => may_end(shard, board).map(|()| Mark::EndOfStream),
            StreamRequest::EndOfEpoch(epoch) => may_submit_next(shard, board, Stamp::end_of(epoch))
                .map(|()| Mark::EndOfEpoch { epoch, complete: true }),
            StreamRequest::CutEpoch(epoch) => may_submit(shard, board, Stamp::end_of(epoch))
                .map(|()| Mark::EndOfEpoch { epoch, complete: false }),
        }
    }

    /// From now on the client is told how the stream is.
    pub(super) fn subscribe(&mut self, at: usize, client: ClientRef, request: u64) {
        if self.streams.is_none() {
            return self.clients.answer(client, request, Outcome::Invalid);
        }
        let clients = &self.clients;
        let subscribers = &mut self.shards[at].stream.subscribers;
        subscribers.retain(|subscriber| clients.id(subscriber.client).is_some());
        if subscribers.len() >= SUBSCRIBERS_MAX {
            return self.clients.answer(client, request, Outcome::Busy);
        }
        subscribers.push(Subscriber { client, request, told: None });
    }

    fn tell_subscribers(&mut self, at: usize, streams: &Streams) {
        let Groups { shards, clients, .. } = self;
        let shard = &mut shards[at];
        let open = streams.published_in;
        let position = &shard.stream.position;
        let stands_at = position.stands_at(open);
        let status = StreamStatus {
            shard: shard.id,
            role: shard.raft.role(),
            term: shard.raft.term(),
            leader: shard.raft.leader(),
            epoch: open,
            open: position.is_open() && !position.has_closed(open),
            closing: streams.closing,
            watermark: streams.watermark,
            stands_at: if stands_at.epoch < open { Stamp::begin_of(open) } else { stands_at }.timestamp,
        };
        for subscriber in &mut shard.stream.subscribers {
            if subscriber.told != Some(status) {
                subscriber.told = Some(status);
                clients.reply(subscriber.client, &Reply::Stream { request: subscriber.request, status });
            }
        }
        shard.stream.subscribers.retain(|subscriber| clients.id(subscriber.client).is_some());
    }
}

/// Takes in what the registrar tells, and makes it visible before the registrar's own position is.
fn take_registration(registry: &mut Registry, board: &Board, registrar: &Position, mark: &Mark) {
    registry.take(mark, registrar);
    match *mark {
        Mark::Register { stream } if stream.0 < board.shards() => {
            board.register(stream, registry.floor(stream).expect("it was registered just now, or before"));
        }
        Mark::EpochClosed { .. } => board.open(registry.open_epoch()),
        _ => {}
    }
}

/// Whether the leader of a stream may lay something with this stamp that comes after all that was begun before it, or why not:
/// what was refused comes first.
fn may_submit_next(shard: &Shard, board: &Board, stamp: Stamp) -> Result<(), Outcome> {
    may_submit(shard, board, stamp)?;
    let lead = shard.stream.lead.as_ref();
    let is_behind_refused =
        lead.is_some_and(|lead| lead.refused.range(Stamp::begin_of(stamp.epoch)..stamp).next().is_some());
    if is_behind_refused { Err(Outcome::Busy) } else { Ok(()) }
}

/// Whether the leader of a stream may lay something with this stamp, or why not.
fn may_submit(shard: &Shard, board: &Board, stamp: Stamp) -> Result<(), Outcome> {
    let (lead, laid) = may_lay(shard, board)?;
    let open = board.open_epoch();
    if stamp.epoch != open
        || lead.cut_due == Some(true)
        || shard.stream.position.has_closed(open)
        || lead.ended_epoch == Some(open)
    {
        return Err(Outcome::EpochClosed { open });
    }
    // A record in parts is refused when its first ones are laid, and comes again.
    if stamp <= laid && !lead.refused.contains(&stamp) {
        return Err(Outcome::Behind { last: laid });
    }
    Ok(())
}

/// Whether the leader of a stream may end it for good, or why not. In an epoch that has its end here, too: of that the stream
/// counts where it stood at its end. But not before the cut that is due, for the stream would stand beyond what an earlier
/// leader has lost.
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
