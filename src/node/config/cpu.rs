//! Where and how lanes run.

use core::fmt;

use serde::Deserialize;

use super::{ConfigError, within, wrong};

/// Where and how lanes run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cpu {
    /// The core of each lane. Empty: the system places them.
    pub cores: Vec<usize>,
    /// Whether lanes or nodes may share a core.
    pub shared: bool,
    /// How long an idle lane polls before it blocks.
    pub spin_us: Spin,
    /// Never block.
    pub busy_poll: bool,
}

/// How long an idle lane polls before it blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// Chosen at start from what shares the cores.
    #[default]
    Auto,
    /// So many microseconds.
    Micros(u32),
}

impl Cpu {
    /// Whether the values are in their bounds and agree with each other and with the number of lanes.
    pub(super) fn check(&self, lanes: u16) -> Result<(), ConfigError> {
        let Cpu { cores, shared, spin_us, busy_poll } = self;
        if let Spin::Micros(spin_us) = *spin_us {
            within("cpu.spin_us", spin_us.into(), 0..=1_000_000)?;
        }
        if cores.len() > usize::from(lanes) {
            let what = format!("names {} cores for {} lanes; give at most one per lane", cores.len(), lanes);
            return Err(wrong("cpu.cores", what));
        }
        let repeated = cores.iter().enumerate().find(|(at, core)| cores[..*at].contains(core));
        let fewer = !cores.is_empty() && cores.len() < usize::from(lanes);
        if !shared && (repeated.is_some() || fewer) {
            let what = format!(
                "{cores:?} puts several of {} lanes on one core; give each its own, or say cpu.shared = true",
                lanes
            );
            return Err(wrong("cpu.cores", what));
        }
        if *busy_poll && *shared {
            let what =
                "with cpu.shared: a lane that never blocks starves those beside it; choose one".to_owned();
            return Err(wrong("cpu.busy_poll", what));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Spin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Spin, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Spin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number of microseconds")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Spin, E> {
                if text == "auto" {
                    Ok(Spin::Auto)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Spin, E> {
                let found = serde::de::Unexpected::Signed(number);
                u32::try_from(number).map(Spin::Micros).map_err(|_| E::invalid_value(found, &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
