//! Looks for a shorter run that fails as well: an earlier end, fewer kinds of faults, fewer clients.

use super::plan::{Bounds, FAULTS, Plan};

/// Narrower and narrower bounds under which `fails` still holds. Asks at most some fifty times.
pub fn shrink(seed: u64, bounds: &Bounds, mut fails: impl FnMut(&Bounds) -> bool) -> Bounds {
    let mut best = bounds.clone();
    let mut accept = |candidate: Bounds, best: &mut Bounds| {
        let good = candidate != *best && fails(&candidate);
        if good {
            *best = candidate;
        }
        good
    };
    accept(Bounds { calm_network: true, ..best.clone() }, &mut best);
    for fault in FAULTS {
        accept(Bounds { without: best.without | 1 << fault as u8, ..best.clone() }, &mut best);
    }
    for clients in [1, 2, 3] {
        if accept(Bounds { clients_max: Some(clients), ..best.clone() }, &mut best) {
            break;
        }
    }
    let mut shortest = 0;
    let mut longest = Plan::draw(seed, &best).horizon_ns;
    for _ in 0..12 {
        let middle = shortest + (longest - shortest) / 2;
        if accept(Bounds { horizon_ns: Some(middle), ..best.clone() }, &mut best) {
            longest = middle;
        } else {
            shortest = middle;
        }
    }
    best
}

/// Bounds as a word on the command line.
pub fn to_word(bounds: &Bounds) -> String {
    let horizon_ns = bounds.horizon_ns.unwrap_or(0);
    let clients = bounds.clients_max.unwrap_or(0);
    format!("{horizon_ns}:{}:{clients}:{}", bounds.without, u8::from(bounds.calm_network))
}

/// The inverse of [`to_word`].
pub fn from_word(word: &str) -> Option<Bounds> {
    let numbers: Vec<u64> = word.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let &[horizon_ns, without, clients, calm] = numbers.as_slice() else { return None };
    Some(Bounds {
        horizon_ns: (horizon_ns > 0).then_some(horizon_ns),
        without: u32::try_from(without).ok()?,
        clients_max: (clients > 0).then_some(clients as usize),
        calm_network: calm == 1,
        ..Bounds::default()
    })
}
