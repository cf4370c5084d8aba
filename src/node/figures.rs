//! What of a node is told to an operator's tools: one walk over a lane's figures, which `admin` calls for the names
//! once and for the values whenever it is asked. It allocates nothing and makes no system call, for it runs between two
//! turns.

use core::fmt::Display;

use super::clients::ClientPorts;
use super::lane::Production;
use super::links::{Links, Way};
use crate::admin::{Family, Told};
use crate::engine::board::Board;
use crate::io::datagram;
use crate::io::link::{self, udp};
use crate::log;
use crate::raft::Role;
use crate::shard::Lane;
use crate::shard::figures::{Pace, ShardFigures};
use crate::types::NodeId;

/// A cluster with more shards is told of by lane: the sums of what its shards have.
const SHARDS_TOLD_MAX: u32 = 1024;

/// All figures of a lane of a cluster with so many shards.
pub(super) fn lane(lane: &Lane<Production>, shards: u32, told: &mut dyn Told) {
    pace(lane.pace(), told);
    if shards <= SHARDS_TOLD_MAX {
        lane.shards().for_each(|figures| shard(&figures, told));
    } else {
        sum(lane.shards(), told);
    }
    told.put(Family::FramesMalformed, &[], lane.observer().malformed);
    log(&lane.log(), told);
    clients(lane.port(), told);
    links(lane.link(), told);
}

/// Those that are of no lane.
pub(super) fn node(cluster: &str, node: NodeId, board: Option<&Board>, told: &mut dyn Told) {
    let version = env!("CARGO_PKG_VERSION");
    told.put(Family::NodeInfo, &[("cluster", &cluster), ("node", &node), ("version", &version)], 1);
    let Some(board) = board else { return };
    let streams = board.vector().len() as u64;
    told.put(Family::Streams, &[], streams);
    told.put(Family::EpochOpen, &[], board.open_epoch().0.into());
    if streams > 0 {
        let watermark = board.watermark();
        told.put(Family::WatermarkEpoch, &[], watermark.epoch.0.into());
        told.put(Family::WatermarkTimestamp, &[], watermark.timestamp.0);
    }
}

fn pace(pace: &Pace, told: &mut dyn Told) {
    told.put(Family::Turns, &[], pace.turns);
    told.put(Family::TurnsSlow, &[], pace.slow);
    told.put(Family::TurnLongest, &[], pace.longest_ns);
}

fn shard(figures: &ShardFigures, told: &mut dyn Told) {
    let status = &figures.status;
    let role = match status.role {
        Role::Follower => 0,
        Role::PreCandidate => 1,
        Role::Candidate => 2,
        Role::Leader => 3,
    };
    for (family, value) in [
        (Family::RaftIsLeader, u64::from(status.role == Role::Leader)),
        (Family::RaftRole, role),
        (Family::RaftLeader, status.leader.map_or(0, |leader| leader.0.into())),
        (Family::RaftTerm, status.term.0),
        (Family::RaftElections, status.elections.into()),
        (Family::RaftCommit, status.commit.0),
        (Family::RaftApplied, figures.applied.0),
        (Family::RaftDurable, status.durable.0),
        (Family::RaftLast, status.last.index.0),
        (Family::RaftContradictions, figures.contradictions),
        (Family::SubmitsWaiting, figures.submits_waiting as u64),
    ] {
        told.put(family, &[("shard", &status.shard)], value);
    }
}

/// What can be added up, of shards that are too many to be told of one by one.
fn sum(shards: impl Iterator<Item = ShardFigures>, told: &mut dyn Told) {
    let mut sums = [0_u64; 8];
    for figures in shards {
        let status = &figures.status;
        let values = [
            u64::from(status.role == Role::Leader),
            status.elections.into(),
            status.commit.0,
            figures.applied.0,
            status.durable.0,
            status.last.index.0,
            figures.contradictions,
            figures.submits_waiting as u64,
        ];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.wrapping_add(value));
    }
    let families = [
        Family::RaftIsLeader,
        Family::RaftElections,
        Family::RaftCommit,
        Family::RaftApplied,
        Family::RaftDurable,
        Family::RaftLast,
        Family::RaftContradictions,
        Family::SubmitsWaiting,
    ];
    families.into_iter().zip(sums).for_each(|(family, sum)| told.put(family, &[], sum));
}

fn log(log: &log::Figures, told: &mut dyn Told) {
    for (family, value) in [
        (Family::LogWrites, log.writes),
        (Family::LogWritten, log.written_bytes),
        (Family::LogInFlight, log.writes_in_flight as u64),
        (Family::LogSegments, log.segments),
        (Family::LogEnd, log.end_bytes),
        (Family::LogCapacity, log.capacity_bytes),
        (Family::DiskNoSpace, log.no_space.into()),
        (Family::MemoryChunks, log.chunks as u64),
        (Family::MemoryChunksFree, log.chunks_free as u64),
    ] {
        told.put(family, &[], value);
    }
}

fn clients(ports: &ClientPorts, told: &mut dyn Told) {
    let tcp = ports.tcp.counters();
    told.put(Family::Clients, &[], ports.tcp.clients() as u64);
    told.put(Family::Engines, &[], ports.rings.attached() as u64);
    told.put(Family::ClientsAccepted, &[], tcp.reconnects);
    told.put(Family::ClientsRefused, &[], tcp.refused);
    for (reason, value) in [("full", tcp.full), ("malformed", tcp.malformed), ("late", tcp.late)] {
        told.put(Family::ClientsDropped, &[("reason", &reason)], value);
    }
    told.put(Family::ClientFramesIn, &[], tcp.frames_in);
    told.put(Family::ClientBytesIn, &[], tcp.bytes_in);
    told.put(Family::ClientFramesOut, &[], tcp.frames_out);
    told.put(Family::ClientBytesOut, &[], tcp.bytes_out);
}

fn links(links: &Links, told: &mut dyn Told) {
    use crate::io::link::choice::Candidate as _;
    for peer in links.peers() {
        let taken = links.taken(peer);
        for way in links.candidates().iter().filter(|way| way.carries()) {
            let is_taken = taken == Some(way.name());
            told.put(Family::LinkTaken, &[("peer", &peer), ("link", &way.name())], is_taken.into());
        }
    }
    for way in links.candidates() {
        let of = Of { link: &way.name() };
        match way {
            Way::Tcp(tcp) => of.streams(tcp.link.borrow().counters(), told),
            Way::Udp(link) => {
                of.datagrams(link.counters(), told);
                of.udp(link.carrier().counters(), told);
            }
            #[cfg(feature = "dpdk")]
            Way::Dpdk(link) => {
                of.datagrams(link.counters(), told);
                of.dpdk(&link.carrier().counters(), told);
            }
            #[cfg(feature = "rdma")]
            Way::Rdma(way) => {
                of.datagrams(way.link.counters(), told);
                of.rdma(way.link.carrier().counters(), told);
            }
        }
    }
}

/// Figures of one link.
struct Of<'a> {
    link: &'a dyn Display,
}

impl Of<'_> {
    fn all<const N: usize>(&self, figures: [(Family, u64); N], told: &mut dyn Told) {
        figures.into_iter().for_each(|(family, value)| told.put(family, &[("link", self.link)], value));
    }

    fn each<const N: usize>(
        &self,
        family: Family,
        label: &'static str,
        figures: [(&'static str, u64); N],
        told: &mut dyn Told,
    ) {
        for (name, value) in figures {
            told.put(family, &[("link", self.link), (label, &name)], value);
        }
    }

    fn streams(&self, counters: &link::Counters, told: &mut dyn Told) {
        let figures = [
            (Family::LinkFramesIn, counters.frames_in),
            (Family::LinkBytesIn, counters.bytes_in),
            (Family::LinkFramesOut, counters.frames_out),
            (Family::LinkBytesOut, counters.bytes_out),
            (Family::LinkFramesFull, counters.full),
            (Family::LinkRefused, counters.refused),
            (Family::LinkReconnects, counters.reconnects),
        ];
        self.all(figures, told);
        let dropped = [("malformed", counters.malformed), ("late", counters.late)];
        self.each(Family::LinkConnectionsDropped, "reason", dropped, told);
    }

    fn datagrams(&self, counters: &datagram::Counters, told: &mut dyn Told) {
        let figures = [
            (Family::LinkFramesIn, counters.frames_in),
            (Family::LinkBytesIn, counters.bytes_in),
            (Family::LinkFramesOut, counters.frames_out),
            (Family::LinkBytesOut, counters.bytes_out),
            (Family::LinkFramesFull, counters.full),
            (Family::LinkRefused, counters.refused),
            (Family::LinkReconnects, counters.reconnects),
            (Family::LinkUnheard, counters.unheard),
            (Family::LinkDatagramsIn, counters.datagrams_in),
            (Family::LinkDatagramsOut, counters.datagrams_out),
            (Family::LinkDatagramsLost, counters.lost),
            (Family::LinkDatagramsReordered, counters.reordered),
            (Family::LinkFragmentsIn, counters.fragments_in),
            (Family::LinkFramesAbandoned, counters.frames_abandoned),
            (Family::LinkRepaired, counters.repaired),
            (Family::LinkStarved, counters.starved),
        ];
        self.all(figures, told);
        let dropped = [
            ("duplicated", counters.duplicated),
            ("beyond", counters.beyond),
            ("malformed", counters.malformed),
            ("alien", counters.alien),
            ("unasked", counters.unasked),
            ("unanswered", counters.unanswered),
            ("hello_unanswered", counters.hellos_unanswered),
        ];
        self.each(Family::LinkDatagramsDropped, "reason", dropped, told);
        let dropped = [
            ("late", counters.fragments_late),
            ("contrary", counters.fragments_contrary),
            ("crowded", counters.fragments_crowded),
        ];
        self.each(Family::LinkFragmentsDropped, "reason", dropped, told);
        let repairs = [
            ("asked", counters.repairs_asked),
            ("withheld", counters.repairs_withheld),
            ("missed", counters.repairs_missed),
        ];
        self.each(Family::LinkRepairs, "outcome", repairs, told);
    }

    fn udp(&self, counters: &udp::Counters, told: &mut dyn Told) {
        let figures = [
            (Family::CarrierDatagramsIn, counters.datagrams_in),
            (Family::CarrierBytesIn, counters.bytes_in),
            (Family::CarrierDatagramsOut, counters.datagrams_out),
            (Family::CarrierBytesOut, counters.bytes_out),
            (Family::CarrierMessagesIn, counters.messages_in),
            (Family::CarrierMessagesOut, counters.messages_out),
            (Family::CarrierFull, counters.full),
            (Family::CarrierUnreachable, counters.unreachable),
        ];
        self.all(figures, told);
        let dropped =
            [("too_long", counters.too_long), ("unsent", counters.unsent), ("nameless", counters.nameless)];
        self.each(Family::CarrierDropped, "reason", dropped, told);
    }

    /// What the ports themselves have lost is not asked for here: some devices take long to say.
    #[cfg(feature = "dpdk")]
    fn dpdk(&self, counters: &link::dpdk::Counters, told: &mut dyn Told) {
        let figures = [
            (Family::CarrierDatagramsIn, counters.datagrams_in),
            (Family::CarrierBytesIn, counters.bytes_in),
            (Family::CarrierDatagramsOut, counters.datagrams_out),
            (Family::CarrierBytesOut, counters.bytes_out),
            (Family::CarrierFull, counters.full),
            (Family::CarrierHandedOver, counters.handed_over),
            (Family::CarrierConflicts, counters.conflicts),
        ];
        self.all(figures, told);
        let dropped = [
            ("no_memory", counters.no_memory),
            ("unresolved", counters.unresolved),
            ("link_down", counters.link_down),
            ("no_route", counters.no_route),
            ("handover", counters.handover_lost),
            ("other_station", counters.other_station),
            ("other_address", counters.other_address),
            ("other_port", counters.other_port),
            ("scattered", counters.scattered),
            ("not_understood", counters.refused.iter().sum()),
        ];
        self.each(Family::CarrierDropped, "reason", dropped, told);
    }

    #[cfg(feature = "rdma")]
    fn rdma(&self, counters: &link::rdma::Counters, told: &mut dyn Told) {
        let figures = [
            (Family::CarrierDatagramsIn, counters.datagrams_in),
            (Family::CarrierBytesIn, counters.bytes_in),
            (Family::CarrierDatagramsOut, counters.datagrams_out),
            (Family::CarrierFull, counters.full),
            (Family::CarrierPathsConnected, counters.connected),
            (Family::CarrierPathsEnded, counters.ended),
        ];
        self.all(figures, told);
        let ways = [("gathered", counters.gathered_bytes), ("copied", counters.copied_bytes)];
        self.each(Family::CarrierBytesOut, "way", ways, told);
        let dropped = [("no_path", counters.lost), ("stale", counters.stale), ("strange", counters.strange)];
        self.each(Family::CarrierDropped, "reason", dropped, told);
    }
}
