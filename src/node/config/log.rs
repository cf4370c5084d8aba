//! `[log]`: where each lane's log lies, and how large it is.

use core::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, MIB, quoted, within, wrong};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::types::LaneId;

/// What a log in files may grow to if nothing is said.
const CAPACITY_MIB: u64 = 4096;

/// Where each lane's log lies, and its size.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Raw block devices instead of files.
    pub device: Devices,
    /// One segment's size in MiB.
    pub segment_mib: u64,
    /// All segments' size in MiB, of one lane. Not given: 4096 in files; on a device, all that it has room for.
    pub capacity_mib: Option<u64>,
    /// Segments made ready before they are needed, 1 to 65535.
    pub segments_ahead: u64,
    /// Whether lanes poll the device for completions instead of waiting for its interrupts.
    pub io_poll: bool,
}

/// The block devices of a log. None: it lies in files, below `data_dir`. One: every lane has a part of it. As many as
/// lanes: lane i has the i-th.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices(pub Vec<PathBuf>);

impl Log {
    /// One segment's bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_mib * MIB
    }

    /// The most segments of one lane, where it is known without asking a device.
    pub fn segments_max(&self) -> Option<u64> {
        let otherwise = if self.device.0.is_empty() { Some(CAPACITY_MIB) } else { None };
        self.capacity_mib.or(otherwise).map(|capacity_mib| capacity_mib / self.segment_mib)
    }

    /// The fewest: the one in use and those ahead.
    pub fn segments_min(&self) -> u64 {
        self.segments_ahead + 1
    }

    /// The most segments of one lane on a device with room for so many.
    pub fn segments_on(&self, device: &Path, room: u64) -> Result<u64, ConfigError> {
        let Log { segment_mib, segments_ahead, .. } = self;
        if room < self.segments_min() {
            let what = format!(
                "is {segments_ahead}, but {} has room for {room} segments of {segment_mib} MiB in each lane; lower it, or \
                 take smaller segments or a larger device",
                device.display()
            );
            return Err(wrong("log.segments_ahead", what));
        }
        match self.segments_max() {
            Some(segments) if segments > room => {
                let what = format!(
                    "is {}, but {} has room for {} in each lane; lower it, or leave it out to use all",
                    segments * segment_mib,
                    device.display(),
                    room * segment_mib
                );
                Err(wrong("log.capacity_mib", what))
            }
            segments => Ok(segments.unwrap_or(room)),
        }
    }

    pub(super) fn check(&self, lanes: u16) -> Result<(), ConfigError> {
        let Log { segment_mib, capacity_mib, segments_ahead, .. } = self;
        within("log.segment_mib", *segment_mib, SEGMENT_BYTES_MIN / MIB..=SEGMENT_BYTES_MAX / MIB)?;
        within("log.segments_ahead", *segments_ahead, 1..=65_535)?;
        self.device.check(lanes)?;
        if self.io_poll && self.device.0.is_empty() {
            let what = "is true, but only a device can be polled; give log.device, or leave it out";
            return Err(wrong("log.io_poll", what.to_owned()));
        }
        let has_capacity = capacity_mib.is_some() || self.device.0.is_empty();
        let capacity_mib = capacity_mib.unwrap_or(CAPACITY_MIB);
        if !has_capacity {
            return Ok(());
        }
        within("log.capacity_mib", capacity_mib, self.segments_min() * segment_mib..=1 << 30).map_err(
            |error| {
                let rule = "it holds at least the segment in use and those ahead";
                ConfigError { what: format!("{}; {rule}", error.what), ..error }
            },
        )?;
        if !capacity_mib.is_multiple_of(*segment_mib) {
            let what = format!("is {capacity_mib}, not a multiple of log.segment_mib ({segment_mib})");
            return Err(wrong("log.capacity_mib", what));
        }
        Ok(())
    }

    /// The table as the file says it.
    pub(super) fn to_toml(&self) -> String {
        let Log { device, segment_mib, capacity_mib, segments_ahead, io_poll } = self;
        let paths: Vec<String> = device.0.iter().map(|path| quoted(&path.to_string_lossy())).collect();
        let device = match paths.is_empty() {
            true => String::new(),
            false => format!("device = [{}]\n", paths.join(", ")),
        };
        let capacity = capacity_mib.map_or(String::new(), |mib| format!("capacity_mib = {mib}\n"));
        format!(
            "\n[log]\n{device}segment_mib = {segment_mib}\n{capacity}segments_ahead = {segments_ahead}\nio_poll = {io_poll}\n"
        )
    }
}

impl Devices {
    /// The device of a lane.
    pub fn of(&self, lane: LaneId) -> Option<&Path> {
        match self.0.as_slice() {
            [one] => Some(one),
            each => each.get(usize::from(lane.0)).map(PathBuf::as_path),
        }
    }

    fn check(&self, lanes: u16) -> Result<(), ConfigError> {
        let paths = &self.0;
        if paths.len() > 1 && paths.len() != usize::from(lanes) {
            let what = format!(
                "names {} devices for {lanes} lanes; give one that all share, or one for each",
                paths.len()
            );
            return Err(wrong("log.device", what));
        }
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            let what =
                format!("is {}; give the whole path, as in \"/dev/disk/by-id/nvme-…\"", path.display());
            return Err(wrong("log.device", what));
        }
        let twice = paths.iter().enumerate().find(|(at, path)| paths[..*at].contains(path));
        match twice {
            Some((_, path)) => Err(wrong("log.device", format!("names {} twice", path.display()))),
            None => Ok(()),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log {
            device: Devices::default(),
            segment_mib: 64,
            capacity_mib: None,
            segments_ahead: 1,
            io_poll: false,
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Devices, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Devices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a block device, or a list of them")
            }
            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Devices, E> {
                Ok(Devices(vec![path.into()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Devices, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = list.next_element::<PathBuf>()? {
                    paths.push(path);
                }
                Ok(Devices(paths))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
