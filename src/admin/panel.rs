//! Asks lanes for their figures, and says how they are.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Family;
use super::cells::{LaneFigures, Told};
use super::text::{Collected, Sample, render};

/// How often a lane is asked at most.
pub const PACE: Duration = Duration::from_millis(5);

/// How long a lane may take to answer: one that turns, or is woken, does within microseconds.
pub const SILENT: Duration = Duration::from_secs(1);

/// How often it is looked whether a lane has answered. The lane tells nobody: that would be a system call.
const LOOK: Duration = Duration::from_micros(200);

/// Waits for so long, or until there is a reason not to: then false.
pub(super) type Wait<'a> = &'a mut dyn FnMut(Duration) -> bool;

/// Walks figures that belong to no lane.
type Walk = Box<dyn Fn(&mut dyn Told) + Send>;

/// All figures of a node: those of its lanes, and those that are read without a lane.
pub struct Panel {
    lanes: Vec<Lane>,
    wake: Box<dyn Fn() + Send>,
    rest: Walk,
}

#[derive(Debug)]
struct Lane {
    figures: Arc<LaneFigures>,
    /// When it was asked last.
    asked_at: Option<Instant>,
}

/// How a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Turns,
    /// It was asked so long ago and has not answered.
    Silent(Duration),
    Gone,
}

impl Panel {
    /// Over the figures of lanes 0, 1 and so on. `wake` ends the block of every lane; `rest` walks the figures that are
    /// of no lane, on the thread that serves.
    pub fn new(
        lanes: Vec<Arc<LaneFigures>>,
        wake: impl Fn() + Send + 'static,
        rest: impl Fn(&mut dyn Told) + Send + 'static,
    ) -> Panel {
        let lanes = lanes.into_iter().map(|figures| Lane { figures, asked_at: None }).collect();
        Panel { lanes, wake: Box::new(wake), rest: Box::new(rest) }
    }

    /// The text of `/metrics`.
    pub(super) fn metrics(&mut self, wait: Wait<'_>) -> String {
        let states = self.ask(wait);
        let mut collected = Collected::default();
        (self.rest)(&mut collected);
        for (lane, state) in states.iter().enumerate() {
            collected.put(Family::LaneUp, &[("lane", &lane)], u64::from(*state == State::Turns));
        }
        let mut samples: Vec<Sample<'_>> = collected.0;
        samples.extend(self.lanes.iter().flat_map(|lane| lane.figures.samples()));
        render(samples)
    }

    /// Whether every lane turns; if not, a line for each that does not.
    pub(super) fn health(&mut self, wait: Wait<'_>) -> Result<(), String> {
        let mut why = String::new();
        for (lane, state) in self.ask(wait).into_iter().enumerate() {
            match state {
                State::Turns => {}
                State::Silent(since) => {
                    why.push_str(&format!("lane {lane} has not turned for {:.1} s\n", since.as_secs_f64()));
                }
                State::Gone => why.push_str(&format!("lane {lane} has stopped\n")),
            }
        }
        if why.is_empty() { Ok(()) } else { Err(why) }
    }

    /// Asks every lane that owes no answer, and waits for those that do. One that has owed its answer for [`SILENT`] is
    /// not waited for again, so a lane that stands still costs whoever asks that long once.
    fn ask(&mut self, wait: Wait<'_>) -> Vec<State> {
        let last = self.lanes.iter().filter_map(|lane| lane.asked_at).max();
        if let Some(rest) = last.and_then(|last| PACE.checked_sub(last.elapsed())) {
            wait(rest);
        }
        let now = Instant::now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.figures.has_answered()) {
            lane.figures.ask();
            lane.asked_at = Some(now);
        }
        (self.wake)();
        while self.lanes.iter().any(|lane| lane.is_awaited()) && wait(LOOK) {}
        self.lanes.iter().map(Lane::state).collect()
    }
}

impl Lane {
    fn state(&self) -> State {
        if self.figures.is_gone() {
            State::Gone
        } else if self.figures.has_answered() {
            State::Turns
        } else {
            State::Silent(self.asked_at.map_or(Duration::ZERO, |asked_at| asked_at.elapsed()))
        }
    }

    fn is_awaited(&self) -> bool {
        matches!(self.state(), State::Silent(since) if since < SILENT)
    }
}

impl fmt::Debug for Panel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panel").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::admin::Teller;
    use crate::types::LaneId;

    fn walk(turns: u64) -> impl Fn(&mut dyn Told) {
        move |told| told.put(Family::Turns, &[], turns)
    }

    /// A panel over two lanes, their tellers, and how often they were woken.
    fn two() -> (Panel, [Teller; 2], Arc<AtomicU64>) {
        let figures: Vec<Arc<LaneFigures>> = (0..2).map(|_| Arc::default()).collect();
        let teller = |lane: u16| Teller::new(Arc::clone(&figures[usize::from(lane)]), LaneId(lane), walk(0));
        let tellers = [teller(0), teller(1)];
        let woken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let rest = |told: &mut dyn Told| told.put(Family::NodeInfo, &[("node", &5)], 1);
        (Panel::new(figures, wake, rest), tellers, woken)
    }

    #[test]
    fn a_scrape_shows_what_lanes_tell_after_it_came() {
        let (mut panel, mut tellers, woken) = two();
        for round in 1..4 {
            let text = panel.metrics(&mut |_| {
                for teller in tellers.iter_mut().filter(|teller| teller.is_asked()) {
                    teller.tell(walk(round));
                }
                true
            });
            for line in [
                "plimsoll_node_info{node=\"5\"} 1".to_owned(),
                "plimsoll_lane_up{lane=\"1\"} 1".to_owned(),
                format!("plimsoll_turns_total{{lane=\"0\"}} {round}"),
                format!("plimsoll_turns_total{{lane=\"1\"}} {round}"),
            ] {
                assert_eq!(text.lines().filter(|found| **found == line).count(), 1, "{line}:\n{text}");
            }
            assert_eq!(woken.load(Ordering::Relaxed), round);
        }
    }

    #[test]
    fn a_lane_that_stands_still_is_waited_for_once_and_named() {
        let (mut panel, mut tellers, _) = two();
        let begun = Instant::now();
        let mut pause = |pause: Duration| {
            std::thread::park_timeout(pause);
            if tellers[0].is_asked() {
                tellers[0].tell(walk(1));
            }
            true
        };
        let why = panel.health(&mut pause).expect_err("lane 1 does not answer");
        assert!(begun.elapsed() >= SILENT && why.starts_with("lane 1 has not turned for 1."), "{why}");
        assert_eq!(why.lines().count(), 1, "{why}");
        // It has owed its answer for a second already: the others are asked anew, and it is not waited for.
        let again = Instant::now();
        let text = panel.metrics(&mut pause);
        assert!(again.elapsed() < SILENT / 2, "{:?}", again.elapsed());
        assert!(text.contains("plimsoll_lane_up{lane=\"0\"} 1\nplimsoll_lane_up{lane=\"1\"} 0\n"), "{text}");
        // It turns again.
        tellers[1].tell(walk(2));
        let mut both = |_| {
            tellers.iter_mut().for_each(|teller| teller.tell(walk(3)));
            true
        };
        assert_eq!(panel.health(&mut both), Ok(()));
        let [_, gone] = tellers;
        drop(gone);
        assert_eq!(
            panel.health(&mut |_| false),
            Err("lane 0 has not turned for 0.0 s\nlane 1 has stopped\n".to_owned())
        );
    }

    #[test]
    fn lanes_are_asked_at_a_pace() {
        let (mut panel, mut tellers, _) = two();
        let mut asked = 0;
        let begun = Instant::now();
        for _ in 0..20 {
            let mut turn = |pause: Duration| {
                std::thread::park_timeout(pause);
                for teller in tellers.iter_mut().filter(|teller| teller.is_asked()) {
                    teller.tell(walk(1));
                    asked += 1;
                }
                true
            };
            assert_eq!(panel.health(&mut turn), Ok(()));
        }
        assert_eq!(asked, 40);
        assert!(begun.elapsed() >= 10 * PACE, "20 questions in {:?}", begun.elapsed());
    }
}
