//! A data directory and whose it is.
//!
//! ```text
//! data_dir/lock            held (flock) while a node runs; holds its process id
//! data_dir/identity.toml   format, cluster, node, lanes, shards, segment_mib, and the store id: the directory's life
//! data_dir/peers.toml      the store ids of the peers, as first met
//! data_dir/lane-0000/      the segments of a lane's log, unless it lies on a block device
//! data_dir/complete        there once every lane has made its log: from then on a lane without one has lost it
//! ```
//! A directory of another cluster, node or shape is refused and nothing in it is touched. The store id is drawn when
//! the directory is formatted. Peers remember it, and refuse a node that comes back with another: it lost its log, and
//! with it the votes and records that it had promised to keep.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StartError;
use super::config::{Config, parse};
use crate::io::locked::Locked;
use crate::types::{LaneId, NodeId, StoreId};

/// The version of the directory's layout.
const FORMAT: u32 = 1;

/// See the module.
const COMPLETE: &str = "complete";

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    pub(super) store: StoreId,
    /// The stores of the peers, as far as they were met.
    pub(super) peers: Vec<(NodeId, StoreId)>,
    /// How many of them are written down, the first ones.
    peers_written: usize,
    /// Held as long as the value lives.
    _lock: Locked,
}

/// What a data directory tells before it is held.
#[derive(Debug)]
pub(super) struct Known {
    /// Its store, if it is formatted.
    pub(super) store: Option<StoreId>,
    /// Whether every lane has made its log.
    pub(super) is_complete: bool,
}

/// Looks at the directory that `config` names.
pub(super) fn known(config: &Config) -> Result<Known, StartError> {
    let path = &config.data_dir;
    let found = read_identity(path)?;
    let store = found.map(|found| parse_store(path, &found.store)).transpose()?;
    Ok(Known { store, is_complete: path.join(COMPLETE).exists() })
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    cluster: String,
    node: u32,
    lanes: u16,
    shards: u32,
    segment_mib: u64,
    store: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    #[serde(default)]
    peer: Vec<Peer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    node: u32,
    store: String,
}

impl DataDir {
    /// Opens the directory that `config` names, or formats it if it is empty or not there.
    pub(super) fn open(config: &Config) -> Result<DataDir, StartError> {
        let path = config.data_dir.clone();
        let found = read_identity(&path)?;
        if found.is_none() {
            refuse_unless_empty(&path)?;
        }
        if let Some(found) = &found {
            found.refuse_unless_of(config, &path)?;
            refuse_lost_logs(config, &path)?;
        }
        fs::create_dir_all(&path).map_err(|error| StartError::data_dir(&path, "cannot create it", error))?;
        let lock = lock(&path)?;
        // Again, now that nobody else writes: two nodes may have found it empty at once.
        let (store, peers) = match read_identity(&path)? {
            Some(found) => {
                found.refuse_unless_of(config, &path)?;
                refuse_lost_logs(config, &path)?;
                (parse_store(&path, &found.store)?, read_peers(&path)?)
            }
            None => (format(config, &path)?, Vec::new()),
        };
        let peers_written = peers.len();
        Ok(DataDir { path, store, peers, peers_written, _lock: lock })
    }

    /// Where a lane's segments lie.
    pub(super) fn lane(&self, lane: LaneId) -> PathBuf {
        lane_path(&self.path, lane)
    }

    /// Every lane has its log.
    pub(super) fn completed(&self) -> Result<(), StartError> {
        if self.path.join(COMPLETE).exists() {
            return Ok(());
        }
        write_durably(&self.path, COMPLETE, "")
            .map_err(|error| StartError::data_dir(&self.path, "cannot complete it", error))
    }

    /// Remembers the stores of peers that were met for the first time. The first one stays: of a peer that was met with
    /// a second one, by another lane, the other is handed to `contrary`, what is known before what was found. What
    /// cannot be written is written with the next.
    pub(super) fn remember(
        &mut self,
        met: &[(NodeId, StoreId)],
        mut contrary: impl FnMut(NodeId, StoreId, StoreId),
    ) -> io::Result<()> {
        for &(node, store) in met {
            match self.peers.iter().find(|&&(known, _)| known == node) {
                None => self.peers.push((node, store)),
                Some(&(_, known)) if known != store => contrary(node, known, store),
                Some(_) => {}
            }
        }
        if self.peers.len() == self.peers_written {
            return Ok(());
        }
        let peer = |&(node, store): &(NodeId, StoreId)| Peer { node: node.0, store: hex(store.0) };
        let peers = Peers { peer: self.peers.iter().map(peer).collect() };
        let text = toml::to_string(&peers).map_err(io::Error::other)?;
        write_durably(&self.path, "peers.toml", &text)?;
        self.peers_written = self.peers.len();
        Ok(())
    }
}

impl Identity {
    fn of(config: &Config, store: StoreId) -> Identity {
        Identity {
            format: FORMAT,
            cluster: hex(config.cluster_id().0),
            node: config.node,
            lanes: config.lanes,
            shards: config.shards,
            segment_mib: config.log.segment_mib,
            store: hex(store.0),
        }
    }

    fn refuse_unless_of(&self, config: &Config, path: &Path) -> Result<(), StartError> {
        let expected = Identity { store: self.store.clone(), ..Identity::of(config, StoreId(0)) };
        let differs = |what: &str, found: &dyn std::fmt::Display, wanted: &dyn std::fmt::Display| {
            Err(StartError::Foreign {
                path: path.to_owned(),
                what: format!("it belongs to {what} {found}, the configuration says {wanted}"),
            })
        };
        if self.format != expected.format {
            return differs("format version", &self.format, &expected.format);
        }
        if self.cluster != expected.cluster {
            return differs("cluster", &self.cluster, &expected.cluster);
        }
        if self.node != expected.node {
            return differs("node", &self.node, &expected.node);
        }
        if self.lanes != expected.lanes {
            return differs("a cluster whose number of lanes is", &self.lanes, &expected.lanes);
        }
        if self.shards != expected.shards {
            return differs("a cluster whose number of shards is", &self.shards, &expected.shards);
        }
        if self.segment_mib != expected.segment_mib {
            return differs("a log with segment_mib", &self.segment_mib, &expected.segment_mib);
        }
        Ok(())
    }
}

/// A log that was there and is not any more held votes and records that this node had promised to keep. Begun anew, it
/// would vote a second time in the same term, and commit with a quorum that does not hold what came before.
fn refuse_lost_logs(config: &Config, path: &Path) -> Result<(), StartError> {
    // What lies on devices was looked at when they were claimed.
    if !config.log.device.0.is_empty() {
        return Ok(());
    }
    match lost_log(path, config.lanes) {
        Some(lane) => Err(StartError::LogLost { path: lane_path(path, lane), lane }),
        None => Ok(()),
    }
}

/// The first lane of a directory of files whose log was there and is not any more.
pub(super) fn lost_log(path: &Path, lanes: u16) -> Option<LaneId> {
    let first = |lane| crate::io::disk::segment_path(&lane_path(path, lane), crate::io::SegmentId(0));
    (0..lanes).map(LaneId).find(|&lane| path.join(COMPLETE).exists() && !first(lane).exists())
}

pub(super) fn lane_path(path: &Path, lane: LaneId) -> PathBuf {
    path.join(format!("lane-{:04}", lane.0))
}

fn read_identity(path: &Path) -> Result<Option<Identity>, StartError> {
    let file = path.join("identity.toml");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StartError::data_dir(&file, "cannot read it", error)),
    };
    parse(&text)
        .map(Some)
        .map_err(|what| StartError::data_dir(&file, "it is damaged", io::Error::other(what)))
}

fn read_peers(path: &Path) -> Result<Vec<(NodeId, StoreId)>, StartError> {
    let file = path.join("peers.toml");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StartError::data_dir(&file, "cannot read it", error)),
    };
    let peers: Peers =
        parse(&text).map_err(|what| StartError::data_dir(&file, "it is damaged", io::Error::other(what)))?;
    peers.peer.iter().map(|peer| Ok((NodeId(peer.node), parse_store(&file, &peer.store)?))).collect()
}

/// A directory that holds something and has no identity is somebody else's.
fn refuse_unless_empty(path: &Path) -> Result<(), StartError> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StartError::data_dir(path, "cannot read it", error)),
    };
    // What a node leaves that was stopped before it had formatted the directory.
    let ours = |name: &std::ffi::OsStr| name == "lock" || name == "identity.toml.new";
    match entries.find(|entry| entry.as_ref().map_or(true, |entry| !ours(&entry.file_name()))) {
        None => Ok(()),
        Some(Ok(entry)) => Err(StartError::Foreign {
            path: path.to_owned(),
            what: format!(
                "it has no identity.toml and is not empty (there is {})",
                entry.file_name().to_string_lossy()
            ),
        }),
        Some(Err(error)) => Err(StartError::data_dir(path, "cannot read it", error)),
    }
}

fn lock(path: &Path) -> Result<Locked, StartError> {
    let file = path.join("lock");
    let failed = |error| StartError::data_dir(&file, "cannot lock it", error);
    let mut lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            return Err(StartError::Held { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    // Who holds it is a help and no more: a node whose filesystem is full starts all the same.
    let holder = format!("{}\n", std::process::id());
    let told = lock.rewind().and_then(|()| lock.write_all(holder.as_bytes()));
    let _ = told.and_then(|()| lock.set_len(holder.len() as u64)).or_else(|_| lock.set_len(0));
    Ok(Locked::of(lock))
}

fn format(config: &Config, path: &Path) -> Result<StoreId, StartError> {
    let store = StoreId(draw());
    let failed = |error| StartError::data_dir(path, "cannot format it", error);
    let text = toml::to_string(&Identity::of(config, store)).map_err(io::Error::other).map_err(failed)?;
    write_durably(path, "identity.toml", &text).map_err(failed)?;
    Ok(store)
}

/// Replaces a file whole: after a crash there is the old one or the new one.
fn write_durably(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(name))?;
    File::open(dir)?.sync_all()
}

fn parse_store(file: &Path, text: &str) -> Result<StoreId, StartError> {
    u64::from_str_radix(text, 16).map(StoreId).map_err(|error| {
        StartError::data_dir(file, "a store id is not a hexadecimal number", io::Error::other(error))
    })
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// A random number other than 0, from the system's source that seeds the standard library's hash maps.
pub(super) fn draw() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish().max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Lanes meet peers each for itself: one of them may have met a peer before it lost its log, and another one after.
    #[test]
    fn a_peer_met_with_two_stores_keeps_the_first_and_is_told_of() {
        let path = std::env::temp_dir().join(format!("plimsoll-remember-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let held = lock(&path).unwrap();
        let mut dir = DataDir {
            path: path.clone(),
            store: StoreId(1),
            peers: Vec::new(),
            peers_written: 0,
            _lock: held,
        };
        let mut told = Vec::new();
        let first = [(NodeId(2), StoreId(111)), (NodeId(3), StoreId(5))];
        dir.remember(&first, |node, known, found| told.push((node, known, found))).unwrap();
        assert_eq!((&told[..], read_peers(&path).unwrap()), (&[][..], first.to_vec()));
        let again = [(NodeId(3), StoreId(5)), (NodeId(2), StoreId(222))];
        dir.remember(&again, |node, known, found| told.push((node, known, found))).unwrap();
        assert_eq!(told, [(NodeId(2), StoreId(111), StoreId(222))]);
        assert_eq!(read_peers(&path).unwrap(), first);
        let _ = fs::remove_dir_all(&path);
    }
}
