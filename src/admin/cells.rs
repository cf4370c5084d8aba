//! Where a lane's figures cross to whoever reads them.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use super::Family;
use super::text::Sample;
use crate::types::LaneId;

/// Takes figures in, one after another.
pub trait Told {
    /// One figure: which, of what (names and values of labels), and how much.
    fn put(&mut self, family: Family, labels: &[(&'static str, &dyn Display)], value: u64);
}

/// So many cells fill what is padded: no line of them is shared with anything else.
const CELLS_PER_LINE: usize = 16;

type Line = CachePadded<[AtomicU64; CELLS_PER_LINE]>;

/// One lane's figures. The lane writes them by its [`Teller`], when it is asked.
#[derive(Debug, Default)]
pub struct LaneFigures {
    /// How often it was asked. Looked at by the lane in every turn, and written by nobody else but the one that asks.
    asked: CachePadded<AtomicU64>,
    /// Which of the questions it has answered last.
    answered: CachePadded<AtomicU64>,
    gone: AtomicBool,
    /// Made by the lane before it runs.
    cells: OnceLock<Cells>,
}

#[derive(Debug)]
struct Cells {
    /// The family and the labels of each cell.
    names: Vec<(Family, String)>,
    lines: Box<[Line]>,
}

impl LaneFigures {
    /// Asks the lane, and returns the number of the question. Who asks wakes the lane afterwards.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Release) + 1
    }

    /// Whether every question is answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire) == self.asked.load(Ordering::Relaxed)
    }

    /// Whether the lane has ended, in whatever way.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// What it told last. While it is telling, some of this may be newer.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        self.cells.get().into_iter().flat_map(|cells| {
            let values = cells.lines.iter().flat_map(|line| line.iter());
            cells.names.iter().zip(values).map(|((family, labels), value)| Sample {
                family: *family,
                labels: labels.into(),
                value: value.load(Ordering::Relaxed),
            })
        })
    }
}

/// The lane's side of its figures. Dropped, it says that the lane is gone.
#[derive(Debug)]
pub struct Teller {
    figures: Arc<LaneFigures>,
    answered: u64,
}

impl Teller {
    /// Learns from a first walk which figures there are; every later one must put the same ones in the same order. The
    /// label `lane` comes by itself.
    ///
    /// # Panics
    /// If the figures have a teller already.
    pub fn new(figures: Arc<LaneFigures>, lane: LaneId, walk: impl FnOnce(&mut dyn Told)) -> Teller {
        let mut first = First { lane, names: Vec::new(), values: Vec::new() };
        walk(&mut first);
        let First { names, values, .. } = first;
        let lines: Box<[Line]> =
            (0..names.len().div_ceil(CELLS_PER_LINE)).map(|_| CachePadded::default()).collect();
        for (cell, value) in lines.iter().flat_map(|line| line.iter()).zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
        figures.cells.set(Cells { names, lines }).expect("a lane has one teller");
        Teller { figures, answered: 0 }
    }

    /// Whether the lane is asked: one load and a compare, for every turn.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.figures.asked.load(Ordering::Relaxed) != self.answered
    }

    /// Answers: a plain store for each figure. Allocates nothing and makes no system call, if the walk does not.
    ///
    /// # Panics
    /// If the walk puts other figures than the first one did, in number.
    pub fn tell(&mut self, walk: impl FnOnce(&mut dyn Told)) {
        let asked = self.figures.asked.load(Ordering::Acquire);
        let cells = self.figures.cells.get().expect("made with the teller");
        let mut again = Again { cells, at: 0 };
        walk(&mut again);
        assert_eq!(again.at, cells.names.len(), "every walk puts the same figures");
        self.answered = asked;
        self.figures.answered.store(asked, Ordering::Release);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.figures.gone.store(true, Ordering::Release);
    }
}

/// The first walk: for the names.
struct First {
    lane: LaneId,
    names: Vec<(Family, String)>,
    values: Vec<u64>,
}

impl Told for First {
    fn put(&mut self, family: Family, labels: &[(&'static str, &dyn Display)], value: u64) {
        let mut text = format!("lane=\"{}\"", self.lane);
        for (name, label) in labels {
            text.push(',');
            write_label(&mut text, name, label);
        }
        self.names.push((family, text));
        self.values.push(value);
    }
}

/// Every later one: for the values.
struct Again<'a> {
    cells: &'a Cells,
    at: usize,
}

impl Told for Again<'_> {
    fn put(&mut self, _family: Family, _labels: &[(&'static str, &dyn Display)], value: u64) {
        self.cells.lines[self.at / CELLS_PER_LINE][self.at % CELLS_PER_LINE].store(value, Ordering::Relaxed);
        self.at += 1;
    }
}

/// `name="value"`, with what the format wants escaped.
pub(super) fn write_label(text: &mut String, name: &str, value: &dyn Display) {
    let _ = write!(text, "{name}=\"");
    for character in value.to_string().chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(told: &mut dyn Told, values: &[u64]) {
        for (at, value) in values.iter().enumerate() {
            told.put(Family::RaftTerm, &[("shard", &at)], *value);
        }
    }

    #[test]
    fn figures_are_told_when_they_are_asked_for() {
        let figures = Arc::new(LaneFigures::default());
        assert_eq!(figures.samples().count(), 0);
        let first: Vec<u64> = (0..40).collect();
        let mut teller = Teller::new(Arc::clone(&figures), LaneId(3), |told| put(told, &first));
        let told = || figures.samples().map(|sample| sample.value).collect::<Vec<_>>();
        assert_eq!(told(), first);
        assert_eq!(
            figures.samples().nth(17).map(|sample| sample.labels),
            Some("lane=\"3\",shard=\"17\"".into())
        );
        assert!(!teller.is_asked() && figures.has_answered());

        assert_eq!(figures.ask(), 1);
        assert!(teller.is_asked() && !figures.has_answered());
        assert_eq!(told(), first, "nothing moves before the lane answers");
        let second: Vec<u64> = first.iter().map(|value| value * value).collect();
        teller.tell(|told| put(told, &second));
        assert_eq!(told(), second);
        assert!(!teller.is_asked() && figures.has_answered() && !figures.is_gone());
        drop(teller);
        assert!(figures.is_gone());
    }

    #[test]
    #[should_panic(expected = "every walk puts the same figures")]
    fn a_walk_that_leaves_figures_out_is_a_defect() {
        let mut teller = Teller::new(Arc::default(), LaneId(0), |told| put(told, &[1, 2, 3]));
        teller.tell(|told| put(told, &[1, 2]));
    }

    #[test]
    fn no_two_lanes_share_a_line() {
        assert_eq!(size_of::<Line>(), align_of::<Line>());
        assert_eq!(size_of::<Line>(), CELLS_PER_LINE * size_of::<AtomicU64>());
    }
}
