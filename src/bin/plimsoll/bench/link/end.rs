//! One end of a link that is measured: turns as a lane makes them, without log and clients.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::io::clock::LaneClock;
use plimsoll::io::reactor::Reactor;
use plimsoll::io::{Clock, Full, Link, LinkEvent, Park};
use plimsoll::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use plimsoll::types::NodeId;
use plimsoll::wire::frame::{Builder, Kind, ROW_BYTES};

use super::phase::Phase;
use super::raw::Raw;
use super::{DONE, GREET, LINK, RAW, STREAM};
use crate::common::{Failure, Interrupt, record};

/// A frame that is not back by then is lost: it, and what it waits for.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// What is under way at most when frames go one way.
const STREAM_FRAMES: u64 = 512;
const STREAM_BYTES: usize = 8 << 20;

/// After so many frames the receiver says how many it has.
const STREAM_TOLD: u64 = 32;

pub(super) struct End<L> {
    pub(super) link: L,
    reactor: Reactor,
    clock: LaneClock,
    peer: NodeId,
    is_up: bool,
    builder: Builder,
    body: Vec<u8>,
    /// The last frame that came, where it was kept.
    came: Vec<u8>,
    /// How many came with the last turn.
    fresh: u64,
}

impl<L: Link> End<L> {
    pub(super) fn new(link: L, reactor: Reactor, peer: NodeId) -> End<L> {
        let (clock, _) = LaneClock::choose();
        End {
            link,
            reactor,
            clock,
            peer,
            is_up: false,
            builder: Builder::new(Kind::Peer),
            body: vec![0x5a; FRAME_BYTES_MAX],
            came: Vec::with_capacity(FRAME_BYTES_MAX),
            fresh: 0,
        }
    }

    pub(super) fn frame_bytes(&self, bytes: usize) -> usize {
        FRAME_HEADER_BYTES + ROW_BYTES + bytes
    }

    /// What a lane does at the beginning of its turn.
    fn turn(&mut self) {
        let now = self.clock.now();
        self.reactor.glance(now);
        let End { link, is_up, came, fresh, .. } = self;
        *fresh = 0;
        link.poll(now, &mut |event| match event {
            LinkEvent::Frame { bytes, .. } => {
                *fresh += 1;
                came.clear();
                came.extend_from_slice(bytes);
            }
            LinkEvent::Up(_) => *is_up = true,
            LinkEvent::Down { .. } => *is_up = false,
        });
    }

    /// And at its end.
    fn send(&mut self, number: u64, bytes: usize) -> Result<(), Full<()>> {
        self.builder.clear();
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&number.to_le_bytes());
        self.builder.push(&row, bytes);
        let sent = self.link.send(self.peer, &[self.builder.seal(), &self.body[..bytes]]);
        self.flush();
        sent
    }

    fn flush(&mut self) {
        self.link.flush();
        self.reactor.kick();
    }

    /// The number of the last frame that came.
    fn number(&self) -> u64 {
        let row = &self.came[FRAME_HEADER_BYTES..];
        row.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Until the link is up at both ends and a frame has come back.
    pub(super) fn greet(
        &mut self,
        phase: &Phase,
        within: Duration,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let until = Instant::now() + within;
        let mut asked_at = None::<Instant>;
        loop {
            self.turn();
            if self.fresh > 0 {
                return Ok(());
            }
            if self.is_up && asked_at.is_none_or(|at| at.elapsed() > LOST_AFTER) {
                asked_at = Some(Instant::now());
                let _ = self.send(0, 0);
            }
            self.flush();
            interrupt.check()?;
            if Instant::now() >= until || phase.get() == DONE {
                return Err(Failure(format!("the link did not come up within {within:?}")));
            }
        }
    }

    /// One frame after another, each when the one before is back; how many were lost.
    pub(super) fn ping(
        &mut self,
        bytes: usize,
        lasting: Duration,
        latencies: &mut Histogram<u64>,
    ) -> Result<u64, Failure> {
        let (mut number, mut lost) = (0, 0);
        let until = Instant::now() + lasting;
        loop {
            number += 1;
            let begun = Instant::now();
            if begun >= until {
                return Ok(lost);
            }
            if self.send(number, bytes).is_err() {
                lost += 1;
            }
            loop {
                self.turn();
                if self.fresh > 0 && self.number() == number {
                    record(latencies, begun.elapsed());
                    break;
                }
                if begun.elapsed() > LOST_AFTER {
                    lost += 1;
                    break;
                }
                self.flush();
            }
            if !self.is_up {
                return Err(Failure("the link has broken".into()));
            }
        }
    }

    /// Frames one way, so many under way; how many the other end had per second.
    pub(super) fn stream(&mut self, bytes: usize, lasting: Duration) -> Result<f64, Failure> {
        let most = (STREAM_BYTES / self.frame_bytes(bytes)).max(2) as u64;
        let most = most.min(STREAM_FRAMES);
        let (mut sent, mut heard) = (0, 0);
        let begun = Instant::now();
        let mut moved_at = begun;
        while begun.elapsed() < lasting {
            while sent - heard < most && self.send_one(sent + 1, bytes) {
                sent += 1;
            }
            self.flush();
            self.turn();
            if self.fresh > 0 {
                heard = self.number().clamp(heard, sent);
                moved_at = Instant::now();
            } else if moved_at.elapsed() > LOST_AFTER {
                // The frames, or the word of them, are lost: what is under way is forgotten.
                (heard, moved_at) = (sent, Instant::now());
            }
            if !self.is_up {
                return Err(Failure("the link has broken".into()));
            }
        }
        Ok(heard as f64 / begun.elapsed().as_secs_f64())
    }

    fn send_one(&mut self, number: u64, bytes: usize) -> bool {
        self.builder.clear();
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&number.to_le_bytes());
        self.builder.push(&row, bytes);
        self.link.send(self.peer, &[self.builder.seal(), &self.body[..bytes]]).is_ok()
    }

    /// The other end: sends back what comes, as the phase says.
    pub(super) fn echo(mut self, phase: &Phase, mut raw: Raw, bytes: usize) -> Result<(), Failure> {
        let (mut have, mut told) = (0, 0);
        loop {
            match phase.get() {
                GREET | LINK => {
                    self.turn();
                    if self.fresh > 0 {
                        let number = self.number();
                        let bytes = self.came.len() - self.frame_bytes(0);
                        let _ = self.send(number, bytes);
                    } else {
                        self.flush();
                    }
                }
                RAW => raw.echo(bytes).map_err(Failure::on("a raw socket"))?,
                STREAM => {
                    self.turn();
                    have += self.fresh;
                    if have - told >= STREAM_TOLD || (self.fresh == 0 && have > told) {
                        let number = self.number();
                        if self.send(number, 0).is_ok() {
                            told = have;
                        }
                    } else {
                        self.flush();
                    }
                }
                _ => return Ok(()),
            }
        }
    }
}
