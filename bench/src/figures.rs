//! What is measured, and what comes of it.

/// What is asked of both sides alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) bytes: usize,
    pub(crate) clients: u32,
    pub(crate) outstanding: u32,
}

/// What one run of one side gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// The median of each figure over the rounds; of the maximum, the largest. `None` without rounds.
pub(crate) fn median(rounds: &[Figures]) -> Option<Figures> {
    let middle = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
    };
    (!rounds.is_empty()).then(|| Figures {
        ops_per_s: middle(|figures| figures.ops_per_s),
        p50_us: middle(|figures| figures.p50_us),
        p99_us: middle(|figures| figures.p99_us),
        p999_us: middle(|figures| figures.p999_us),
        max_us: rounds.iter().map(|figures| figures.max_us).fold(0.0, f64::max),
    })
}
