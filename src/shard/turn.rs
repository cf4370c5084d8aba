//! The turn: what a pinned core does, over and over. The page to read first.
//!
//! ```text
//! disk.poll      finished writes      → Input::DurableLog, DurableVote
//! link.poll      frames from peers    → wire::decode → Input::Peer → records laid in the log as they came
//! refusals       by followers         → Input::Peer, or Overtaken where the link still carries what they miss
//! clock          due timers           → Input::Tick
//! port.poll      requests of clients  → propose → records laid in the log
//! streams        commit moved         → where the engine's streams stand, the watermark
//! replicate      room at followers    → appends, by reference to what lies in the log
//! link.send      one frame per peer, all shards coalesced
//! log.submit     one write for all that this lane's shards laid in this turn, votes included
//! apply          commit moved         → outcomes and reads
//! port.send      one frame per client
//! ```
//! The leader's write runs beside the followers' own. The frames go first: a follower has a way, a write and a way back
//! before it can be heard, the leader's disk only a write, so whoever is sent to first is heard first. What is promised
//! does not depend on the order: promises are made of what a disk has confirmed. Each step is bounded, and no step
//! waits. A turn that found nothing is repeated for a budget of time, and then the lane blocks in one place.

use super::figures::Pace;
use super::{Groups, Observer, Options, Shard, World};
use crate::io::{Clock, DiskError, Link, Park, Port};
use crate::log::record::Header;
use crate::log::{Log, LogEvent, RecoveredShard};
use crate::raft::Input;
use crate::types::{Index, ShardId, Term, Time};
use crate::wire::client::ShardStatus;

/// One lane. Made on the thread that runs it.
pub struct Lane<W: World> {
    pub(super) groups: Groups<W>,
    link: W::Link,
    port: W::Port,
    clock: W::Clock,
    park: W::Park,
    /// When a turn last found something to do.
    busy_at: Time,
    pace: Pace,
}

/// What one turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How many events it took in.
    pub work: usize,
    /// When the next timer is due.
    pub next_wake: Time,
}

/// Why a lane stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to, and has drained.
    Drained(super::Drained),
    /// Its disk failed. What it promised stands on the disk; it promises nothing more.
    Disk(DiskError),
}

impl<W: World> Lane<W> {
    /// A lane over an opened log.
    pub fn new(
        options: Options,
        (log, recovered): (Log<W::Disk>, alloc::vec::Vec<RecoveredShard>),
        link: W::Link,
        port: W::Port,
        clock: W::Clock,
        park: W::Park,
        observer: W::Observer,
    ) -> Lane<W> {
        let now = clock.now();
        let shards = recovered.into_iter().map(|shard| Shard::new(&options, shard, now)).collect();
        let groups = Groups::new(log, observer, shards, options);
        Lane { groups, link, port, clock, park, busy_at: now, pace: Pace::default() }
    }

    /// The lane serves an engine: where its streams stand goes to this board, which all lanes of the node share.
    pub fn serve_engine(&mut self, board: alloc::sync::Arc<crate::engine::board::Board>) {
        self.groups.streams = Some(super::streams::Streams::new(board));
    }

    /// Runs turns until the lane has drained or its disk has failed. `attend` is called before each turn, with the
    /// lane: for what its maker does on this thread. It says whether the lane is to drain.
    pub fn run(&mut self, mut attend: impl FnMut(&mut Lane<W>) -> bool) -> Stopped {
        loop {
            if attend(self) {
                self.drain();
            }
            match self.turn() {
                Ok(turn) => self.idle(turn),
                Err(stopped) => return stopped,
            }
        }
    }

    /// Begins to stop. Until the other voters can do without this node, two election timeouts at most, all goes on.
    /// Then nothing new is taken, what was accepted ends and leadership is handed over; [`Lane::turn`] says
    /// [`Stopped::Drained`] within [`super::drain::DRAIN_BOUND`].
    pub fn drain(&mut self) {
        self.groups.begin_drain(self.clock.now());
    }

    /// Whether [`Lane::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.groups.drain.is_wanted()
    }

    /// One turn.
    pub fn turn(&mut self) -> Result<Turn, Stopped> {
        let Lane { groups, link, port, clock, park, busy_at, pace } = self;
        let now = clock.now();
        pace.begin(now);
        park.glance(now);

        let mut work = groups.take_durable(now)?;
        work += link.poll(now, &mut |event| groups.on_link(now, event));
        groups.take_refusals(now, link);
        groups.tick(now);
        work += groups.take_requests(now, port);
        let drained = groups.drained(now);

        groups.follow_streams(now);
        groups.replicate(now);
        groups.send_frames(link);
        groups.log.submit();
        park.kick();

        work += groups.apply(now, port);
        groups.send_replies(port);
        if let Some(drained) = drained {
            return Err(Stopped::Drained(drained));
        }
        pace.end(work > 0);
        if work > 0 {
            *busy_at = now;
        }
        Ok(Turn { work, next_wake: groups.next_wake().min(link.next_wake()) })
    }

    /// After a turn: again at once if there was work or the spin budget is not used up, else block.
    fn idle(&mut self, turn: Turn) {
        if turn.work > 0 {
            return;
        }
        let options = &self.groups.options;
        let now = self.clock.now();
        if options.busy_poll || now.since(self.busy_at) < options.spin {
            if options.shares_core {
                self.park.yield_core();
            } else {
                core::hint::spin_loop();
            }
            return;
        }
        let timeout = turn.next_wake.since(now);
        if !timeout.is_zero() && self.port.before_park() {
            self.park.park(timeout);
        }
    }

    /// How its turns went.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// The way to the peers.
    pub fn link(&self) -> &W::Link {
        &self.link
    }

    /// The way to the clients.
    pub fn port(&self) -> &W::Port {
        &self.port
    }

    /// Who is told what happens.
    pub fn observer(&self) -> &W::Observer {
        &self.groups.observer
    }

    /// The way to the peers, for who made it.
    pub fn link_mut(&mut self) -> &mut W::Link {
        &mut self.link
    }

    /// How a shard is at this moment; `None`: it does not live in this lane. For simulator and tests.
    pub fn status(&self, shard: ShardId) -> Option<ShardStatus> {
        self.groups.position(shard).map(|at| self.groups.status(at))
    }

    /// The term of a shard's entry, if it has one there. For simulator and tests.
    pub fn term_at(&self, shard: ShardId, index: Index) -> Option<Term> {
        self.groups.shards[self.groups.position(shard)?].raft.term_at(index)
    }

    /// The header of a shard's entry, if it is in memory. Changes nothing. For simulator and tests.
    pub fn peek(&self, shard: ShardId, index: Index) -> Option<Header> {
        self.groups.log.peek(shard, index)
    }

    /// Lets go of what the log has in memory, between two turns: see [`Log::forget`]. For simulator and tests.
    pub fn forget(&mut self) {
        self.groups.log.forget();
    }

    /// How many requests wait for an answer, over all shards. For simulator and tests.
    pub fn waiting(&self) -> usize {
        let of = |shard: &Shard| shard.pending() + shard.reads.len() + shard.asked_index.len();
        self.groups.shards.iter().map(of).sum()
    }
}

impl<W: World> Groups<W> {
    fn new(
        log: Log<W::Disk>,
        observer: W::Observer,
        shards: alloc::vec::Vec<Shard>,
        options: Options,
    ) -> Groups<W> {
        assert!(shards.is_sorted_by_key(|shard| shard.id), "a lane finds its shards by binary search");
        Groups {
            outbox: super::outbox::Outbox::new(&options),
            clients: super::clients::Clients::default(),
            ingress: super::ingress::Ingress::default(),
            drain: super::drain::Drain::default(),
            streams: None,
            refusals: alloc::vec::Vec::with_capacity(options.voters.len()),
            effects: crate::raft::Effects::default(),
            log_events: alloc::vec::Vec::with_capacity(64),
            next_tick: Time(0),
            unknown_at: Time::NEVER,
            last_read: crate::raft::ReadId(0),
            log,
            observer,
            shards,
            options,
        }
    }

    /// Takes in what the disk has finished: the only way by which anything becomes durable.
    fn take_durable(&mut self, now: Time) -> Result<usize, Stopped> {
        let mut events = core::mem::take(&mut self.log_events);
        let work = self.log.poll(&mut |event| events.push(event));
        for event in events.drain(..) {
            match event {
                LogEvent::Vote(shard, vote) => {
                    let at = self.position(shard).expect("the log speaks of the shards it was opened with");
                    self.step(now, at, Input::DurableVote(vote), &[]);
                }
                LogEvent::Entries(shard, entry) => {
                    let at = self.position(shard).expect("the log speaks of the shards it was opened with");
                    self.shards[at].durable = entry.get().index;
                    self.step(now, at, Input::DurableLog(entry), &[]);
                }
                LogEvent::Fetched => self.shards.iter_mut().for_each(|shard| shard.touched = true),
                LogEvent::NoSpace(error) => self.observer.space(Some(&error)),
                LogEvent::SpaceAgain => self.observer.space(None),
                LogEvent::Failed(error) => return Err(Stopped::Disk(error)),
            }
        }
        self.log_events = events;
        Ok(work)
    }

    /// Tells the time to every shard whose timer is due.
    fn tick(&mut self, now: Time) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = Time::NEVER;
        for at in 0..self.shards.len() {
            if self.shards[at].raft.next_wake() <= now {
                self.step(now, at, Input::Tick, &[]);
            }
            self.next_tick = self.next_tick.min(self.shards[at].raft.next_wake());
        }
    }

    /// When the lane has something to do although nothing comes in. A step moves it, so it is never too late.
    fn next_wake(&self) -> Time {
        let look = self.streams.as_ref().map_or(Time::NEVER, super::streams::Streams::next_wake);
        self.next_tick.min(self.unknown_at).min(self.drain.next_wake()).min(look)
    }
}
