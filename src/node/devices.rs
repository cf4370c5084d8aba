//! The block devices that a node's logs lie on: claimed and judged before anything is touched, then opened or
//! formatted.
//!
//! ```text
//! the device holds         | data_dir is fresh  | its logs are not made yet | its logs were made
//! -------------------------+--------------------+---------------------------+--------------------
//! nothing                  | format             | format                    | refuse: the log is lost
//! this node's log          | (cannot be known)  | go on with it             | go on with it
//! another log, or anything | refuse / --format  | refuse / --format         | refuse, --format or not
//! ```
//! A node that has made its logs has promised things: nothing that is on the device then is formatted away, whatever an
//! operator says. To begin a new life he takes a fresh data directory, and the node's peers will know.

use std::sync::Arc;

use super::StartError;
use super::config::Config;
use super::identity::{self, Known};
use crate::io::disk::Place;
use crate::io::disk::device::{Claim, Device, Held, Owner};
use crate::types::{LaneId, StoreId};

/// What becomes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Format,
}

/// The devices of a configuration, held and judged, and unchanged. None, if its logs lie in files.
pub(super) struct Claims(Vec<(Claim, Verdict)>);

/// The same, ready.
#[derive(Clone, Debug)]
pub(super) struct Devices(Vec<Arc<Device>>);

impl Claims {
    /// Claims them all, or says why one of them cannot be had.
    pub(super) fn of(config: &Config, may_format: bool) -> Result<Claims, StartError> {
        let paths = &config.log.device.0;
        if paths.is_empty() {
            return Ok(Claims(Vec::new()));
        }
        let known = identity::known(config)?;
        let mut claims = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let claim = Claim::of(path).map_err(|error| StartError::Device { error })?;
            let owner = owner(config, at, known.store.unwrap_or(StoreId(0)));
            let verdict = judge(claim.held(), &owner, config.log.segment_bytes(), &known, may_format);
            let verdict = verdict.map_err(|what| StartError::DeviceHolds { path: path.clone(), what })?;
            let room = match (verdict, claim.held()) {
                (Verdict::Open, Held::Log(superblock)) => superblock.segments,
                _ => claim
                    .room_for(owner, config.log.segment_bytes())
                    .map_err(|error| StartError::Device { error })?,
            };
            config.log.segments_on(path, room).map_err(StartError::Config)?;
            claims.push((claim, verdict));
        }
        Ok(Claims(claims))
    }

    /// Opens or formats them for the data directory of this store.
    pub(super) fn ready(self, config: &Config, store: StoreId) -> Result<Devices, StartError> {
        let mut devices = Vec::new();
        for (at, (claim, verdict)) in self.0.into_iter().enumerate() {
            let device = match verdict {
                Verdict::Open => claim.open(),
                Verdict::Format => {
                    let owner = owner(config, at, store);
                    claim.format(owner, config.log.segment_bytes(), identity::draw())
                }
            };
            devices.push(Arc::new(device.map_err(|error| StartError::Device { error })?));
        }
        Ok(Devices(devices))
    }
}

impl Devices {
    /// Where a lane's log lies, if not in files, and how many segments it may have.
    pub(super) fn of(&self, config: &Config, lane: LaneId) -> Option<(Place, u64)> {
        let device = if self.0.len() == 1 { self.0.first() } else { self.0.get(usize::from(lane.0)) }?;
        let room = device.superblock().segments;
        let segments = config.log.segments_on(device.path(), room).expect("checked when it was claimed");
        Some((Place::Device(Arc::clone(device), lane), segments))
    }
}

/// Whose the device at this place of the configuration is.
fn owner(config: &Config, at: usize, store: StoreId) -> Owner {
    let is_shared = config.log.device.0.len() == 1;
    Owner {
        cluster: config.cluster_id(),
        node: config.node_id(),
        store,
        first_lane: LaneId(if is_shared { 0 } else { at as u16 }),
        lanes: if is_shared { config.lanes } else { 1 },
    }
}

/// The table above. An error says what is there and what to do.
fn judge(
    held: &Held,
    owner: &Owner,
    segment_bytes: u64,
    known: &Known,
    may_format: bool,
) -> Result<Verdict, String> {
    let what = match held {
        Held::Log(found) if known.store.is_some() && found.owner == *owner => {
            if found.segment_bytes == segment_bytes {
                return Ok(Verdict::Open);
            }
            format!("{} with segments of {} MiB", found.owner, found.segment_bytes >> 20)
        }
        Held::Nothing if !known.is_complete => return Ok(Verdict::Format),
        Held::Nothing => "nothing".to_owned(),
        Held::Log(found) => found.owner.to_string(),
        Held::Other(what) => what.clone(),
    };
    if known.is_complete {
        return Err(format!(
            "holds {what}, but this node had {owner} there, and a node without it would break what it promised. Bring the \
             device back; --format does not help here"
        ));
    }
    if may_format {
        return Ok(Verdict::Format);
    }
    Err(format!(
        "holds {what}. If that may be destroyed, start the node once with --format; if not, name another device"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::disk::device::Superblock;
    use crate::types::{ClusterId, NodeId};

    const SEGMENT: u64 = 8 << 20;

    fn mine() -> Owner {
        Owner { cluster: ClusterId(1), node: NodeId(2), store: StoreId(3), first_lane: LaneId(0), lanes: 2 }
    }

    fn log(owner: Owner, segment_bytes: u64) -> Held {
        let (segments, device_bytes, block_bytes, life) = (4, 100 << 20, 512, 5);
        Held::Log(Superblock { owner, segment_bytes, segments, device_bytes, block_bytes, life })
    }

    #[test]
    fn every_device_has_the_verdict_of_the_table() {
        let fresh = Known { store: None, is_complete: false };
        let begun = Known { store: Some(StoreId(3)), is_complete: false };
        let made = Known { store: Some(StoreId(3)), is_complete: true };
        let others = [
            log(Owner { cluster: ClusterId(9), ..mine() }, SEGMENT),
            log(Owner { node: NodeId(9), ..mine() }, SEGMENT),
            log(Owner { store: StoreId(9), ..mine() }, SEGMENT),
            log(Owner { first_lane: LaneId(1), lanes: 1, ..mine() }, SEGMENT),
            log(Owner { lanes: 1, ..mine() }, SEGMENT),
            log(mine(), 2 * SEGMENT),
            Held::Other("an XFS filesystem".to_owned()),
        ];
        let judge = |held: &Held, known, may_format| judge(held, &mine(), SEGMENT, known, may_format);
        for may_format in [false, true] {
            assert_eq!(judge(&Held::Nothing, &fresh, may_format), Ok(Verdict::Format));
            assert_eq!(judge(&Held::Nothing, &begun, may_format), Ok(Verdict::Format));
            let why = judge(&Held::Nothing, &made, may_format).unwrap_err();
            assert!(why.contains("holds nothing, but this node had the log of node 2"), "{why}");
            assert_eq!(judge(&log(mine(), SEGMENT), &begun, may_format), Ok(Verdict::Open));
            assert_eq!(judge(&log(mine(), SEGMENT), &made, may_format), Ok(Verdict::Open));
            for held in &others {
                let why = judge(held, &made, may_format).unwrap_err();
                assert!(why.contains("--format does not help"), "{why}");
            }
        }
        // One that a fresh directory does not know is another's, also if cluster and node are the same.
        for held in
            others.iter().chain([&log(mine(), SEGMENT), &log(Owner { store: StoreId(0), ..mine() }, SEGMENT)])
        {
            for known in [&fresh, &begun] {
                if known.store.is_some() && *held == log(mine(), SEGMENT) {
                    continue;
                }
                assert_eq!(judge(held, known, true), Ok(Verdict::Format));
                let why = judge(held, known, false).unwrap_err();
                assert!(why.starts_with("holds ") && why.contains("--format"), "{why}");
            }
        }
    }
}
